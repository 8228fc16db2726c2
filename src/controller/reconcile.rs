//! One reconcile: observe, plan, apply, one status write, then events and metrics. Does I/O through its fellow modules.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use kube::{
    Resource as _, ResourceExt as _,
    runtime::{
        controller::Action,
        events::{Event, EventType},
        reflector::{ObjectRef, store::Store},
    },
};
use tokio::task::JoinSet;
use tracing::Instrument as _;

use super::{
    apply::{self, Applied, StatusWrite, Stop, Written},
    calls::call,
    context::{Cached, Scope, Shared},
    error::Error,
    observe,
    turns::{Answer, Asker},
};
use crate::{
    api::Checkpoint,
    contract::{ConditionType, Outcome, Reason, report::clean},
    plan::{self, EventDraft, Observed, Plan, Turn},
    runtime::metrics::{ErrorClass, Reconciled, Timer},
};

/// Soon, but never at once: a plan that wants to go on immediately must not spin.
const SOONEST: Duration = Duration::from_millis(500);
/// The events of a Job without a pod come without a change of any watched object.
const PODLESS: Duration = Duration::from_secs(10);
/// Claims of others are not watched.
const UNWATCHED: Duration = Duration::from_secs(30);
/// Everything is looked at this often even if nothing seems to change, in case a watch event was lost.
const RESYNC: Duration = Duration::from_mins(10);
/// How long to wait until the caches show our own writes.
const CATCH_UP: Duration = Duration::from_secs(5);
/// Longest note of an event, in bytes, as the API server allows.
const NOTE_LIMIT: usize = 1024;

/// A plan under the worker limits.
struct Decision {
    observed: Observed,
    plan: Plan,
    /// Jobs that may be created now.
    granted: BTreeSet<String>,
    /// The plan wanted more Jobs than there is room for.
    cut: bool,
}

/// Reconciles one Checkpoint in a task of its own, so that a panic costs this object a retry and not the process.
///
/// # Errors
/// When the API server fails or does not answer.
pub async fn reconcile(cached: Arc<Cached>, shared: Arc<Shared>) -> Result<Action, Error> {
    let mut task = JoinSet::new();
    task.spawn(async move { Box::pin(attempt(&cached, &shared)).await }.in_current_span());
    match task.join_next().await {
        Some(Ok(result)) => result,
        Some(Err(error)) => Err(Error::Ended(error.to_string())),
        None => Err(Error::Ended("reconcile".into())),
    }
}

/// What to do after an error: again, later and later.
pub fn retry(cached: &Cached, error: &Error, shared: &Shared) -> Action {
    let uid = cached.uid().unwrap_or_default();
    // A failing Checkpoint must not keep a place in the queue: it would block those behind it.
    if shared.world.turns.forget(&uid) {
        shared.world.wake();
    }
    let wait = shared.errors.next(&uid);
    shared.metrics.error(error.class());
    tracing::warn!(%error, wait_seconds = wait.as_secs_f64(), "reconcile failed");
    Action::requeue(wait)
}

async fn attempt(cached: &Cached, shared: &Shared) -> Result<Action, Error> {
    // The semaphore is never closed; without a permit this would only be less bounded.
    let _slot = shared.slots.acquire().await.ok();
    let mut timer = shared.metrics.timer();
    let (namespace, name) = (cached.namespace().unwrap_or_default(), cached.name_any());
    let uid = cached.uid().unwrap_or_default();
    let Some(scope) = shared.world.scope(&namespace) else { return Ok(Action::await_change()) };
    let Some(live) = observe::checkpoint(&shared.client, &namespace, &name).await? else {
        return Ok(gone(shared, &mut timer, &uid));
    };
    let checkpoint = match live.0 {
        Ok(checkpoint) if checkpoint.metadata.deletion_timestamp.is_some() => {
            return Ok(gone(shared, &mut timer, &uid));
        }
        Ok(checkpoint) => checkpoint,
        Err(invalid) => {
            timer.outcome = Reconciled::Undecodable;
            undecodable(shared, cached, &invalid.error).await;
            return Ok(Action::await_change());
        }
    };
    let sight = observe::world(shared, scope, checkpoint).await?;
    let (podless, unwatched) = (sight.podless, sight.unwatched);
    let mut decision = decide(shared, sight.observed);
    let applied = act(shared, scope, &decision).await?;
    match applied.stopped {
        Some(Stop::NamespaceGoes) => return Ok(gone(shared, &mut timer, &uid)),
        Some(Stop::Outdated) => return Ok(again(shared, &mut timer, &uid)),
        None => {}
    }
    let refused = !applied.refusals.is_empty();
    if refused {
        decision.observed.refusals = applied.refusals;
        decision.plan = (shared.planner)(&shared.config, &decision.observed, Timestamp::now());
    }
    let status = apply::status(&shared.client, &decision.observed.checkpoint, &decision.plan.status).await?;
    match status {
        StatusWrite::Outdated => return Ok(again(shared, &mut timer, &uid)),
        StatusWrite::Written => tell(shared, &decision.observed.checkpoint, &decision.plan).await,
        StatusWrite::Unchanged => {}
    }
    timer.outcome = match (refused, applied.changes > 0 || status == StatusWrite::Written) {
        (true, _) => Reconciled::Refused,
        (false, true) => Reconciled::Changed,
        (false, false) => Reconciled::Unchanged,
    };
    shared.errors.clear(&uid);
    if !refused {
        shared.refusals.clear(&uid);
    }
    let waits = [
        decision.plan.requeue,
        refused.then(|| shared.refusals.next(&uid)),
        decision.cut.then_some(SOONEST),
        podless.then_some(PODLESS),
        (unwatched && !is_ready(&decision.plan)).then_some(UNWATCHED),
    ];
    Ok(Action::requeue(waits.into_iter().flatten().min().unwrap_or_else(resync).max(SOONEST)))
}

fn gone(shared: &Shared, timer: &mut Timer<'_>, uid: &str) -> Action {
    timer.outcome = Reconciled::Gone;
    shared.forget(uid);
    Action::await_change()
}

/// Somebody else wrote first. The caches catch up by themselves; the pause grows so that a standing disagreement costs little.
fn again(shared: &Shared, timer: &mut Timer<'_>, uid: &str) -> Action {
    timer.outcome = Reconciled::Conflict;
    Action::requeue(shared.errors.next(uid))
}

/// Spread, so that Checkpoints that were created together are not looked at together for ever.
fn resync() -> Duration {
    RESYNC.mul_f64(rand::random_range(0.8..1.2))
}

fn is_ready(plan: &Plan) -> bool {
    let ready = ConditionType::Ready.as_str();
    plan.status.conditions.iter().any(|condition| condition.type_ == ready && condition.status == "True")
}

/// Plans as if it were the Checkpoint's turn; if that would create Jobs, asks for the turn and plans again when it is not.
fn decide(shared: &Shared, mut observed: Observed) -> Decision {
    let now = Timestamp::now();
    let namespace = observed.checkpoint.namespace().unwrap_or_default();
    let asker =
        Asker { uid: observed.checkpoint.uid().unwrap_or_default(), name: observed.checkpoint.name_any(), namespace };
    observed.turn = Turn::Granted;
    let mut plan = (shared.planner)(&shared.config, &observed, now);
    let wanted: BTreeSet<String> = plan.actions.iter().filter_map(created_job).collect();
    if wanted.is_empty() {
        if shared.world.turns.forget(&asker.uid) {
            shared.world.wake();
        }
        return Decision { observed, plan, granted: wanted, cut: false };
    }
    match shared.world.turns.request(&asker, &wanted, || shared.world.running(), Instant::now()) {
        Answer::Granted(granted) => {
            let cut = granted.len() < wanted.len();
            plan.actions.retain(|action| created_job(action).is_none_or(|job| granted.contains(&job)));
            Decision { observed, plan, granted, cut }
        }
        Answer::Waiting { running } => {
            observed.turn = Turn::Waiting { running };
            plan = (shared.planner)(&shared.config, &observed, now);
            plan.actions.retain(|action| created_job(action).is_none());
            Decision { observed, plan, granted: BTreeSet::new(), cut: false }
        }
    }
}

fn created_job(action: &plan::Action) -> Option<String> {
    match action {
        plan::Action::CreateJob(job) => job.metadata.name.clone(),
        _ => None,
    }
}

/// Applies the actions, gives back the turns that were not used, and waits until the caches show what was written: the next
/// reconcile of this Checkpoint starts after that, so it never decides on a world without its own last step.
async fn act(shared: &Shared, scope: &Scope, decision: &Decision) -> Result<Applied, Error> {
    let checkpoint = &decision.observed.checkpoint;
    let namespace = checkpoint.namespace().unwrap_or_default();
    // After an error it is not known whether a Job was created, so its turn stays taken until it shows up or expires.
    let applied = apply::actions(&shared.client, checkpoint, &decision.plan.actions).await?;
    let created = |job: &str| applied.written.iter().any(|written| written.job && written.name == job);
    let unused: Vec<&String> = decision.granted.iter().filter(|job| !created(job)).collect();
    for job in &unused {
        shared.world.turns.release(&namespace, job);
    }
    let mut changes = scope.changes.subscribe();
    let caught_up = async {
        while !applied.written.iter().all(|written| shows(scope, &namespace, written)) {
            if changes.changed().await.is_err() {
                break;
            }
        }
    };
    if tokio::time::timeout(CATCH_UP, caught_up).await.is_err() {
        tracing::debug!("the caches do not show the latest writes yet");
    }
    if !unused.is_empty() {
        shared.world.wake();
    }
    Ok(applied)
}

fn shows(scope: &Scope, namespace: &str, written: &Written) -> bool {
    if written.job { is_in(&scope.jobs, namespace, written) } else { is_in(&scope.claims, namespace, written) }
}

fn is_in<K>(store: &Store<K>, namespace: &str, written: &Written) -> bool
where
    K: kube::Resource<DynamicType = ()> + Clone + 'static,
{
    let found = store.get(&ObjectRef::new(&written.name).within(namespace));
    let same = found.as_ref().filter(|found| found.meta().uid.as_deref() == Some(&written.uid));
    match (&written.version, same) {
        (None, same) => same.is_none_or(|found| found.meta().deletion_timestamp.is_some()),
        (Some(_), None) => false,
        (Some(version), Some(found)) => is_at_least(found.meta().resource_version.as_deref(), version),
    }
}

/// Resource versions of one resource are ordered numbers (guaranteed since Kubernetes 1.35, true before).
fn is_at_least(cached: Option<&str>, version: &str) -> bool {
    let number = |text: &str| text.parse::<u128>().ok();
    match (cached.and_then(number), number(version)) {
        (Some(cached), Some(version)) => cached >= version,
        _ => cached == Some(version),
    }
}

/// Events and metrics of what the status now says. Publishing an event may fail: the status tells the same.
async fn tell(shared: &Shared, checkpoint: &Checkpoint, plan: &Plan) {
    for result in &plan.results {
        let outcome = match result.outcome {
            Outcome::Good => "good",
            Outcome::Bad => "bad",
            Outcome::Failed => "failed",
        };
        shared.metrics.result(result.task.as_str(), outcome, result.bytes_fetched);
    }
    for draft in &plan.events {
        publish(shared, &checkpoint.object_ref(&()), draft).await;
    }
}

async fn publish(shared: &Shared, about: &k8s_openapi::api::core::v1::ObjectReference, draft: &EventDraft) {
    let event = Event {
        type_: if draft.warning { EventType::Warning } else { EventType::Normal },
        reason: draft.reason.as_str().to_owned(),
        note: Some(clean(&draft.note, NOTE_LIMIT)),
        action: draft.condition.as_str().to_owned(),
        secondary: None,
    };
    if let Err(error) = call("publish event", shared.recorder.publish(&event, about)).await {
        shared.metrics.error(ErrorClass::Event);
        tracing::warn!(%error, "an event could not be published");
    }
}

/// The API server let an object through that this version cannot read: said once per change, and nothing is done to it.
async fn undecodable(shared: &Shared, cached: &Cached, problem: &str) {
    shared.metrics.error(ErrorClass::Undecodable);
    tracing::warn!(problem, "the object is not a Checkpoint that this version understands");
    let draft = EventDraft {
        warning: true,
        condition: ConditionType::Validated,
        reason: Reason::InvalidSpec,
        note: format!("this version of the operator cannot read the object: {problem}"),
    };
    publish(shared, &cached.object_ref(&()), &draft).await;
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::batch::v1::Job;
    use kube::runtime::watcher;

    use super::{
        super::{Settings, context, testing::Server, tests::create_job},
        *,
    };

    /// Otherwise the next reconcile would see a world without the Job and might count it as lost.
    #[tokio::test]
    async fn a_reconcile_lasts_until_the_caches_show_its_writes() {
        let server = Server::new();
        let uid = serde_json::json!({ "metadata": { "name": "llama", "namespace": "team", "uid": "u" }, "spec": {} });
        let checkpoint: Checkpoint = serde_json::from_value(server.put("checkpoints", uid)).unwrap();
        let planner: context::Planner =
            |_, observed, _| Plan { actions: vec![create_job("x", &observed.checkpoint)], ..Plan::default() };
        let settings = Settings { max_workers: 1, ..Settings::default() };
        let (shared, mut feeds, _classes) = context::build(server.client(), &settings, planner);
        let scope = &shared.world.scopes[0];
        let decision = decide(&shared, Observed { checkpoint, ..Observed::default() });
        let mut act = Box::pin(act(&shared, scope, &decision));
        tokio::select! {
            _ = &mut act => panic!("the cache does not show the Job"),
            () = server.until("created", |server| server.get("jobs", "team", "x").is_some()) => {}
        }
        let job: Job = serde_json::from_value(server.get("jobs", "team", "x").unwrap()).unwrap();
        feeds[0].jobs.apply_watcher_event(&watcher::Event::Apply(job));
        scope.changes.send_modify(|count| *count += 1);
        let started = Instant::now();
        let applied = act.await.unwrap();
        assert!(started.elapsed() < CATCH_UP / 2);
        assert_eq!(applied.changes, 1);
        let again = decide(&shared, decision.observed);
        assert!(again.granted.contains("x") && !again.cut, "a Job that runs needs no turn");
    }

    #[test]
    fn resource_versions_are_compared_as_numbers() {
        assert!(is_at_least(Some("100"), "99"));
        assert!(is_at_least(Some("99"), "99"));
        assert!(!is_at_least(Some("99"), "100"));
        assert!(!is_at_least(None, "1"));
        assert!(is_at_least(Some("abc"), "abc"));
        assert!(!is_at_least(Some("abd"), "abc"));
    }
}
