//! Reads the world as far as one Checkpoint is concerned. Does I/O.
//!
//! The Checkpoint is read live: a stale status beside fresh children would make finished work look undone. Its children come
//! from the caches, which show at least what this controller wrote itself (see `reconcile`).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use futures::future::{join_all, try_join_all};
use k8s_openapi::api::{
    batch::v1::Job,
    core::v1::{Event, PersistentVolume, PersistentVolumeClaim, Pod},
};
use kube::{Api, Client, ResourceExt as _, api::ListParams, runtime::reflector::ObjectRef};

use super::{
    calls::{absent, call},
    context::{Cached, Scope, Shared, is_finished},
    error::Error,
};
use crate::{
    api::{Checkpoint, LABEL_CHECKPOINT_UID},
    plan::{self, JobEvent, Observed},
};

/// Reason of the events that say why a Job has no pod.
const FAILED_CREATE: &str = "FailedCreate";
/// Objects a page.
const PAGE: u32 = 500;

/// What was read, and what the answer depends on beyond the caches.
pub struct Sight {
    /// Everything that the plan asks for, with [`plan::Turn::Granted`].
    pub observed: Observed,
    /// A Job has no pod yet: its events come without a change of any watched object.
    pub podless: bool,
    /// A named claim is not this Checkpoint's: no watch leads to a reconcile of this one when it changes.
    pub unwatched: bool,
}

/// The live Checkpoint, if it exists.
pub async fn checkpoint(client: &Client, namespace: &str, name: &str) -> Result<Option<Cached>, Error> {
    let checkpoints: Api<Cached> = Api::namespaced(client.clone(), namespace);
    call(format!("get checkpoints/{name}"), checkpoints.get_opt(name)).await
}

/// Everything else.
pub async fn world(shared: &Shared, scope: &Scope, checkpoint: Checkpoint) -> Result<Sight, Error> {
    let (client, namespace) = (&shared.client, checkpoint.namespace().unwrap_or_default());
    let uid = checkpoint.uid().unwrap_or_default();
    let jobs = owned(scope.jobs.state_filter(|job| is_of(job, &namespace, &uid)));
    let pods = owned(scope.pods.state_filter(|pod| is_of(pod, &namespace, &uid)));
    let interests = plan::interests(&checkpoint);
    let (claims, unwatched) = claims(client, scope, &namespace, &uid, &interests).await?;
    let podless: Vec<&Job> = jobs.iter().filter(|job| !is_finished(job) && !has_pod(job, &pods)).collect();
    let podless_names: Vec<String> = podless.iter().map(|job| job.name_any()).collect();
    let read: BTreeSet<&String> = interests.source_claim.iter().chain(&interests.siblings).collect();
    let held: BTreeSet<String> =
        claims.iter().filter(|claim| is_held_by_one_node(claim)).map(kube::ResourceExt::name_any).collect();
    let held = held.into_iter().filter(|name| read.contains(name)).collect();
    let (volumes, job_events, source_pods) = futures::try_join!(
        volumes(client, &claims),
        job_events(client, &namespace, &podless_names),
        source_pods(client, &namespace, held),
    )?;
    let observed = Observed {
        jobs,
        pods,
        job_events,
        volumes,
        source_pods,
        storage_classes: owned(shared.world.storage_classes.state()),
        live_uids: shared.world.live_uids(&namespace),
        progress: shared.world.progress.view(&uid),
        claims,
        checkpoint,
        ..Observed::default()
    };
    Ok(Sight { observed, podless: !podless_names.is_empty(), unwatched })
}

fn owned<K: Clone>(cached: Vec<Arc<K>>) -> Vec<K> {
    cached.into_iter().map(Arc::unwrap_or_clone).collect()
}

fn is_of<K: kube::Resource>(object: &K, namespace: &str, uid: &str) -> bool {
    object.meta().namespace.as_deref() == Some(namespace)
        && object.labels().get(LABEL_CHECKPOINT_UID).is_some_and(|label| label == uid)
}

fn has_pod(job: &Job, pods: &[Pod]) -> bool {
    let uid = job.uid();
    pods.iter().any(|pod| pod.owner_references().iter().any(|owner| Some(&owner.uid) == uid.as_ref()))
}

/// Claims with our label from the cache, and the named ones that are not in it from the API server.
async fn claims(
    client: &Client,
    scope: &Scope,
    namespace: &str,
    uid: &str,
    interests: &plan::Interests,
) -> Result<(Vec<PersistentVolumeClaim>, bool), Error> {
    let cached = owned(scope.claims.state_filter(|claim| is_of(claim, namespace, uid)));
    let mut found: BTreeMap<String, PersistentVolumeClaim> =
        cached.into_iter().map(|claim| (claim.name_any(), claim)).collect();
    let (mut missing, mut unwatched) = (Vec::new(), false);
    let named: BTreeSet<&String> = interests.claims.iter().chain(&interests.source_claim).collect();
    for name in named {
        if found.contains_key(name) {
            continue;
        }
        match scope.claims.get(&ObjectRef::new(name).within(namespace)) {
            // It belongs to another Checkpoint, and its changes lead to reconciles of that one.
            Some(claim) => {
                unwatched = true;
                found.insert(name.clone(), Arc::unwrap_or_clone(claim));
            }
            None => missing.push(name),
        }
    }
    let api: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), namespace);
    let reads = missing.iter().map(|name| call(format!("get persistentvolumeclaims/{name}"), api.get_opt(name)));
    let read: Vec<PersistentVolumeClaim> = try_join_all(reads).await?.into_iter().flatten().collect();
    unwatched |= !read.is_empty() || missing.iter().any(|name| Some(*name) == interests.source_claim.as_ref());
    found.extend(read.into_iter().map(|claim| (claim.name_any(), claim)));
    Ok((found.into_values().collect(), unwatched))
}

async fn volumes(client: &Client, claims: &[PersistentVolumeClaim]) -> Result<Vec<PersistentVolume>, Error> {
    let api: Api<PersistentVolume> = Api::all(client.clone());
    let bound = claims.iter().filter_map(|claim| claim.spec.as_ref()?.volume_name.as_deref());
    let names: BTreeSet<&str> = bound.filter(|name| !name.is_empty()).collect();
    let reads = names.into_iter().map(|name| call(format!("get persistentvolumes/{name}"), api.get_opt(name)));
    Ok(try_join_all(reads).await?.into_iter().flatten().collect())
}

/// Why Jobs have no pod. A cluster that hides events from us only costs the explanation.
async fn job_events(client: &Client, namespace: &str, jobs: &[String]) -> Result<Vec<JobEvent>, Error> {
    let api: Api<Event> = Api::namespaced(client.clone(), namespace);
    let read = |job: String| {
        let api = &api;
        async move {
            let fields = format!("involvedObject.kind=Job,involvedObject.name={job}");
            let listed = call("list events", api.list(&ListParams::default().fields(&fields).limit(PAGE))).await;
            (job, listed)
        }
    };
    let mut events = Vec::new();
    for (job, listed) in join_all(jobs.iter().cloned().map(read)).await {
        match listed {
            Ok(list) => events.extend(list.items.into_iter().filter_map(|event| failed_create(&job, event))),
            Err(error) if error.status().is_some_and(kube::core::Status::is_forbidden) || absent(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(events)
}

fn failed_create(job: &str, event: Event) -> Option<JobEvent> {
    let reason = event.reason.filter(|reason| reason == FAILED_CREATE)?;
    Some(JobEvent { job: job.to_owned(), reason, message: event.message.unwrap_or_default() })
}

/// Pods that mount claims which one node holds, so that the worker has to go there.
async fn source_pods(client: &Client, namespace: &str, held: BTreeSet<String>) -> Result<Vec<Pod>, Error> {
    if held.is_empty() {
        return Ok(Vec::new());
    }
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let mut mounting = Vec::new();
    let mut page = ListParams::default().limit(PAGE);
    loop {
        let list = call("list pods", api.list(&page)).await?;
        let next = list.metadata.continue_.clone().filter(|token| !token.is_empty());
        mounting.extend(list.items.into_iter().filter(|pod| mounts(pod, &held)));
        match next {
            Some(token) => page = page.continue_token(&token),
            None => return Ok(mounting),
        }
    }
}

fn is_held_by_one_node(claim: &PersistentVolumeClaim) -> bool {
    let modes = claim.spec.as_ref().and_then(|spec| spec.access_modes.as_deref()).unwrap_or_default();
    !modes.iter().any(|mode| matches!(mode.as_str(), "ReadWriteMany" | "ReadOnlyMany"))
}

fn mounts(pod: &Pod, claims: &BTreeSet<String>) -> bool {
    let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_deref()).unwrap_or_default();
    volumes
        .iter()
        .any(|volume| volume.persistent_volume_claim.as_ref().is_some_and(|source| claims.contains(&source.claim_name)))
}

#[cfg(test)]
mod tests {
    use kube::runtime::watcher;
    use serde_json::{Value, json};

    use super::{
        super::{Settings, context, testing::Server},
        *,
    };
    use crate::api::{LABEL_MANAGED_BY, MANAGED_BY};

    fn cached<K>(writer: &mut kube::runtime::reflector::store::Writer<K>, object: Value)
    where
        K: kube::Resource<DynamicType = ()> + Clone + serde::de::DeserializeOwned + 'static,
    {
        writer.apply_watcher_event(&watcher::Event::Apply(serde_json::from_value(object).unwrap()));
    }

    fn labelled(name: &str, namespace: &str, uid: &str, of: &str) -> Value {
        let labels = json!({ LABEL_MANAGED_BY: MANAGED_BY, LABEL_CHECKPOINT_UID: of });
        json!({ "metadata": { "name": name, "namespace": namespace, "uid": uid, "labels": labels } })
    }

    fn pod(name: &str, namespace: &str, claim: &str) -> Value {
        json!({
            "metadata": { "name": name, "namespace": namespace },
            "spec": { "containers": [], "volumes": [{ "name": "v", "persistentVolumeClaim": { "claimName": claim } }] },
        })
    }

    fn event(name: &str, job: &str, reason: &str) -> Value {
        json!({
            "metadata": { "name": name, "namespace": "team" }, "reason": reason, "message": "exceeded quota",
            "involvedObject": { "kind": "Job", "name": job },
        })
    }

    fn names<K: kube::Resource>(objects: &[K]) -> Vec<String> {
        objects.iter().map(kube::ResourceExt::name_any).collect()
    }

    #[tokio::test]
    async fn the_world_is_what_belongs_to_the_checkpoint_and_what_it_names() {
        let server = Server::new();
        let object = server.put(
            "checkpoints",
            json!({
                "metadata": { "name": "llama", "namespace": "team", "uid": "u" },
                "spec": { "path": "pvc://data/run", "volumes": [{ "claimName": "theirs", "reuseFrom": "before" }, { "claimName": "absent" }] },
            }),
        );
        let (shared, mut feeds, _classes) = context::build(server.client(), &Settings::default(), plan::plan);
        let feed = &mut feeds[0];
        cached(&mut feed.jobs, labelled("podless", "team", "1", "u"));
        cached(&mut feed.jobs, labelled("with-pod", "team", "2", "u"));
        cached(&mut feed.jobs, labelled("of-another", "team", "3", "w"));
        let mut worker = labelled("worker", "team", "4", "u");
        worker["metadata"]["ownerReferences"] =
            json!([{ "apiVersion": "batch/v1", "kind": "Job", "name": "with-pod", "uid": "2" }]);
        cached(&mut feed.pods, worker);
        cached(&mut feed.claims, labelled("staging", "team", "5", "u"));
        cached(&mut feed.claims, labelled("staging", "elsewhere", "6", "u"));
        server.put(
            "persistentvolumeclaims",
            json!({
                "metadata": { "name": "data", "namespace": "team" },
                "spec": { "accessModes": ["ReadWriteOnce"], "volumeName": "pv-data" },
            }),
        );
        server.put("persistentvolumeclaims", json!({ "metadata": { "name": "theirs", "namespace": "team" } }));
        server.put("persistentvolumeclaims", json!({ "metadata": { "name": "before", "namespace": "team" } }));
        server.put("pods", pod("server", "team", "before"));
        server.put("persistentvolumes", json!({ "metadata": { "name": "pv-data" } }));
        server.put("pods", pod("trainer", "team", "data"));
        server.put("pods", pod("stranger", "team", "other"));
        server.put("pods", pod("namesake", "elsewhere", "data"));
        server.put("events", event("a", "podless", "FailedCreate"));
        server.put("events", event("b", "podless", "SuccessfulCreate"));
        server.put("events", event("c", "with-pod", "FailedCreate"));

        let checkpoint: Checkpoint = serde_json::from_value(object).unwrap();
        let sight = world(&shared, &shared.world.scopes[0], checkpoint).await.unwrap();
        let observed = sight.observed;
        assert!(sight.podless && sight.unwatched);
        assert_eq!(names(&observed.claims), ["before", "data", "staging", "theirs"]);
        assert_eq!(names(&observed.volumes), ["pv-data"]);
        assert_eq!(names(&observed.pods), ["worker"]);
        let mut readers = names(&observed.source_pods);
        readers.sort();
        assert_eq!(readers, ["server", "trainer"]);
        let mut jobs = names(&observed.jobs);
        jobs.sort();
        assert_eq!(jobs, ["podless", "with-pod"]);
        let told: Vec<_> = observed.job_events.iter().map(|event| (&*event.job, &*event.message)).collect();
        assert_eq!(told, [("podless", "exceeded quota")]);
    }
}
