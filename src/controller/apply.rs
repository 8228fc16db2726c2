//! Carries out a plan's actions, each with a precondition or idempotent, so that two controllers may overlap. Does I/O.

use std::fmt::Debug;

use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        batch::v1::Job,
        core::v1::{PersistentVolume, PersistentVolumeClaim},
    },
};
use kube::{
    Api, Client, Resource, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
    core::{Status, response::StatusCause},
};
use serde::{Serialize, de::DeserializeOwned};

use super::context::Cached;
use super::{
    calls::{absent, call},
    error::Error,
};
use crate::{
    api::{Checkpoint, CheckpointStatus, FIELD_MANAGER, LABEL_CHECKPOINT_UID},
    contract::report::clean,
    plan::{Action, Refusal},
};

/// Longest message of a refusal that is kept, in bytes.
const MESSAGE_LIMIT: usize = 512;
/// HTTP status of a refusal of ours: the object exists and is somebody else's.
const CONFLICT: u16 = 409;

/// How the actions went.
#[derive(Debug, Default)]
pub struct Applied {
    /// Children that were written, to wait for in the caches.
    pub written: Vec<Written>,
    /// What the API server refused for good.
    pub refusals: Vec<Refusal>,
    /// Where the rest of the actions was left alone, if so.
    pub stopped: Option<Stop>,
    /// Number of writes that changed something.
    pub changes: usize,
}

/// Why the rest of the actions was left alone.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stop {
    /// The world is no longer what was observed: look again.
    Outdated,
    /// The namespace goes: nothing can be created, and everything goes by itself.
    NamespaceGoes,
}

/// A child that was written.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Written {
    /// Whether it is a Job; a claim otherwise.
    pub job: bool,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// Its resource version after the write; none when it was deleted.
    pub version: Option<String>,
}

/// What one action came to.
enum Effect {
    Written(Written),
    Changed,
    Nothing,
    Refused(Refusal),
    Stopped(Stop),
}

/// Carries out the actions in order. Refusals are collected, and one quota must not hold up other volumes; but a refused
/// patch ends it, because the next step of a hand-over counts on it. So does a conflict: the plan rests on an old view.
///
/// # Errors
/// When the API server fails or does not answer.
pub async fn actions(client: &Client, owner: &Checkpoint, actions: &[Action]) -> Result<Applied, Error> {
    let namespace = owner.namespace().unwrap_or_default();
    let uid = owner.uid().unwrap_or_default();
    let mut applied = Applied::default();
    for action in actions {
        match one(client, &namespace, &uid, action).await? {
            Effect::Written(written) => {
                applied.written.push(written);
                applied.changes += 1;
            }
            Effect::Changed => applied.changes += 1,
            Effect::Nothing => {}
            Effect::Refused(refusal) => {
                applied.refusals.push(refusal);
                if matches!(action, Action::PatchClaim { .. } | Action::PatchVolume { .. }) {
                    break;
                }
            }
            Effect::Stopped(stop) => {
                applied.stopped = Some(stop);
                break;
            }
        }
    }
    Ok(applied)
}

async fn one(client: &Client, namespace: &str, uid: &str, action: &Action) -> Result<Effect, Error> {
    let object = action.object();
    let jobs = || Api::<Job>::namespaced(client.clone(), namespace);
    let claims = || Api::<PersistentVolumeClaim>::namespaced(client.clone(), namespace);
    let result = match action {
        Action::CreateJob(job) => create(&jobs(), &**job, &object, true, |job| is_owned(job, uid)).await,
        Action::CreateClaim(claim) => {
            create(&claims(), &**claim, &object, false, |claim| is_labelled(claim, uid) || is_owned(claim, uid)).await
        }
        Action::DeleteJob { name, uid } => delete(&jobs(), name, uid, &object, true).await,
        Action::DeleteClaim { name, uid } => delete(&claims(), name, uid, &object, false).await,
        Action::PatchClaim { name, patch } => {
            let patched = merge(&claims(), name, patch, &object).await;
            patched.map(|claim| Effect::Written(written(&claim, false)))
        }
        Action::PatchVolume { name, patch } => {
            merge(&Api::<PersistentVolume>::all(client.clone()), name, patch, &object).await.map(|_| Effect::Changed)
        }
    };
    result.or_else(|error| classify(object, error))
}

/// What an error of an action means.
fn classify(object: String, error: Error) -> Result<Effect, Error> {
    let Some(status) = error.status() else { return Err(error) };
    if is_namespace_going(status) {
        return Ok(Effect::Stopped(Stop::NamespaceGoes));
    }
    match status.code {
        404 | 409 => Ok(Effect::Stopped(Stop::Outdated)),
        // Our own credentials, and load: neither says anything about the object.
        401 | 429 => Err(error),
        code @ 400..=499 => {
            Ok(Effect::Refused(Refusal { object, code, message: clean(&status.message, MESSAGE_LIMIT) }))
        }
        _ => Err(error),
    }
}

fn is_namespace_going(status: &Status) -> bool {
    let going = |cause: &StatusCause| cause.reason == "NamespaceTerminating";
    status.details.as_ref().is_some_and(|details| details.causes.iter().any(going))
}

async fn create<K>(
    api: &Api<K>,
    wanted: &K,
    object: &str,
    job: bool,
    is_ours: impl Fn(&K) -> bool,
) -> Result<Effect, Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned + Serialize,
{
    let parameters = PostParams { field_manager: Some(FIELD_MANAGER.into()), ..PostParams::default() };
    let error = match call(format!("create {object}"), api.create(&parameters, wanted)).await {
        Ok(created) => return Ok(Effect::Written(written(&created, job))),
        Err(error) => error,
    };
    if !error.status().is_some_and(Status::is_already_exists) {
        return Err(error);
    }
    // Also the answer when an earlier attempt succeeded without our hearing of it.
    match call(format!("get {object}"), api.get_opt(&wanted.name_any())).await? {
        Some(found) if is_ours(&found) => {
            Ok(Effect::Written(Written { version: found.resource_version(), ..written(&found, job) }))
        }
        Some(_) => {
            let message = format!("{object} exists and is not ours");
            Ok(Effect::Refused(Refusal { object: object.to_owned(), code: CONFLICT, message }))
        }
        None => Ok(Effect::Stopped(Stop::Outdated)),
    }
}

async fn delete<K>(api: &Api<K>, name: &str, uid: &str, object: &str, job: bool) -> Result<Effect, Error>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let parameters =
        DeleteParams::background().preconditions(Preconditions { uid: Some(uid.to_owned()), resource_version: None });
    match call(format!("delete {object}"), api.delete(name, &parameters)).await {
        Ok(_) => Ok(Effect::Written(Written { job, name: name.to_owned(), uid: uid.to_owned(), version: None })),
        Err(error) if absent(&error) => Ok(Effect::Nothing),
        Err(error) => Err(error),
    }
}

async fn merge<K>(api: &Api<K>, name: &str, patch: &serde_json::Value, object: &str) -> Result<K, Error>
where
    K: Clone + Debug + DeserializeOwned,
{
    let parameters = PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() };
    call(format!("patch {object}"), api.patch(name, &parameters, &Patch::Merge(patch))).await
}

fn written<K: Resource>(object: &K, job: bool) -> Written {
    Written { job, name: object.name_any(), uid: object.uid().unwrap_or_default(), version: object.resource_version() }
}

fn is_owned<K: Resource>(object: &K, uid: &str) -> bool {
    object.owner_references().iter().any(|owner| owner.uid == uid)
}

fn is_labelled<K: Resource>(object: &K, uid: &str) -> bool {
    object.labels().get(LABEL_CHECKPOINT_UID).is_some_and(|label| label == uid)
}

/// How the status write went.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum StatusWrite {
    /// The live status is the same.
    Unchanged,
    /// It was written.
    Written,
    /// The Checkpoint changed since it was read, or is gone: look again.
    Outdated,
}

/// Writes the status if it differs from the live one. The resource version of the live object is the lock: a status that
/// rests on an old spec, or comes from a second controller, is refused.
///
/// # Errors
/// When the API server fails, refuses or does not answer.
pub async fn status(client: &Client, live: &Checkpoint, status: &CheckpointStatus) -> Result<StatusWrite, Error> {
    let name = live.name_any();
    if live.status.as_ref().is_some_and(|live| is_same(live, status)) {
        return Ok(StatusWrite::Unchanged);
    }
    // Only these members: the spec is the user's, and applying it would take its fields from them.
    let body = serde_json::json!({
        "apiVersion": Checkpoint::api_version(&()),
        "kind": Checkpoint::kind(&()),
        "metadata": { "name": name, "resourceVersion": live.resource_version() },
        "status": status,
    });
    let api: Api<Cached> = Api::namespaced(client.clone(), &live.namespace().unwrap_or_default());
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    match call(format!("patch checkpoints/{name}/status"), api.patch_status(&name, &parameters, &Patch::Apply(body)))
        .await
    {
        Ok(_) => Ok(StatusWrite::Written),
        Err(error) if error.is_conflict() || absent(&error) => Ok(StatusWrite::Outdated),
        Err(error) => Err(error),
    }
}

/// Compares what would be on the wire: times lose their fractions there.
fn is_same(live: &CheckpointStatus, wanted: &CheckpointStatus) -> bool {
    live == wanted
        || matches!((serde_json::to_value(live), serde_json::to_value(wanted)), (Ok(live), Ok(wanted)) if live == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(code: u16, reason: &str, message: &str) -> Error {
        let status = Status::failure(message, reason).with_code(code);
        Error::Api { action: "create jobs/x".into(), source: Box::new(kube::Error::Api(status.boxed())) }
    }

    #[test]
    fn refusals_conflicts_and_errors_are_told_apart() {
        let table = [
            (403, "Forbidden", "refused"),
            (422, "Invalid", "refused"),
            (400, "BadRequest", "refused"),
            (413, "RequestEntityTooLarge", "refused"),
            (404, "NotFound", "stopped"),
            (409, "Conflict", "stopped"),
            (401, "Unauthorized", "error"),
            (429, "TooManyRequests", "error"),
            (500, "InternalError", "error"),
            (503, "ServiceUnavailable", "error"),
        ];
        for (code, reason, expected) in table {
            let effect = match classify("jobs/x".into(), answer(code, reason, "why")) {
                Ok(Effect::Refused(refusal)) => {
                    assert_eq!((refusal.code, &*refusal.object, &*refusal.message), (code, "jobs/x", "why"));
                    "refused"
                }
                Ok(Effect::Stopped(Stop::Outdated)) => "stopped",
                Ok(_) => "other",
                Err(_) => "error",
            };
            assert_eq!(effect, expected, "{code}");
        }
        let timeout = Error::Timeout { action: String::new(), deadline: super::super::calls::DEADLINE };
        assert!(classify(String::new(), timeout).is_err());
    }

    #[test]
    fn a_terminating_namespace_is_not_a_refusal() {
        let status: Status = serde_json::from_value(serde_json::json!({
            "status": "Failure", "code": 403, "reason": "Forbidden", "message": "being terminated",
            "details": { "causes": [{ "reason": "NamespaceTerminating", "message": "m", "field": "metadata.namespace" }] },
        }))
        .unwrap();
        let error = Error::Api { action: String::new(), source: Box::new(kube::Error::Api(status.boxed())) };
        assert!(matches!(classify(String::new(), error), Ok(Effect::Stopped(Stop::NamespaceGoes))));
    }
}
