//! Decides when to look at the source, and keeps what was found. Pure, no I/O.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::Job;

use crate::{
    api::ANNOTATION_REVALIDATE,
    contract::{CodePolicy, ConditionType, Depth, PicklePolicy, Reason, Task, TaskKind, VERSION, Validation},
};

use super::{
    attempt::{self, Attempt},
    names,
    scene::{Draft, Scene, Start, State, Truth, time},
    source_claim, verdict,
    worker_job::{self, JobRequest},
};

/// What is known of the source after this pass.
pub(super) struct Inspected {
    pub reachable: State,
    pub validated: State,
    pub drifted: State,
    /// The fingerprint of a listing that was judged good under the spec as it is now.
    pub good: Option<String>,
    /// Whether the verdict is bad, so that running loads are pointless.
    pub bad: bool,
}

/// Whether the whole source has to be read to compare a digest pin: a load of everything does it anyway.
fn depth(scene: &Scene<'_>) -> Depth {
    let validation = &scene.checkpoint.spec.validation;
    let loads_all = scene.intent.volumes.iter().any(|volume| volume.filter.is_everything());
    if validation.digest.is_some() && !loads_all { Depth::Content } else { validation.depth }
}

fn full_task(scene: &Scene<'_>) -> Task {
    Task {
        version: VERSION,
        kind: TaskKind::Inspect,
        source: scene.intent.source.clone(),
        validation: Validation { depth: depth(scene), ..scene.checkpoint.spec.validation.clone() },
        volumes: scene.intent.volumes.iter().map(|volume| volume.filter.clone()).collect(),
        load: None,
    }
}

/// A look at names and sizes alone: all that drift needs.
fn drift_task(scene: &Scene<'_>) -> Task {
    let validation = Validation {
        depth: Depth::Listing,
        pickle: PicklePolicy::Allow,
        code: CodePolicy::Allow,
        ..Validation::default()
    };
    Task { validation, volumes: Vec::new(), ..full_task(scene) }
}

/// Decides what to do about the source. `pinned` is the fingerprint of what is published already.
pub(super) fn decide(scene: &Scene<'_>, draft: &mut Draft, pinned: Option<&str>) -> Inspected {
    let full = full_task(scene);
    let inputs = names::hash(&full);
    let look = drift_task(scene);
    let drift_inputs = format!("{}-drift", names::hash(&look));
    let job = current_job(scene, draft, &inputs, &drift_inputs);
    if let Some(job) = job {
        match attempt::look(scene.observed, job, TaskKind::Inspect, scene.now) {
            Attempt::Ended(ended) => {
                let is_drift = attempt::has_inputs(job, &drift_inputs);
                return verdict::record(scene, draft, job, &ended, is_drift, &inputs, pinned);
            }
            Attempt::Ending => {
                draft.look_again(Duration::from_secs(1));
                return waiting(scene, draft, &inputs, pinned, None);
            }
            Attempt::Active(trouble) => {
                if !attempt::has_started(scene.observed, job) {
                    draft.look_again(Duration::from_secs(6));
                }
                set_attempt(draft, attempt::number(job));
                let state = trouble.map(|trouble| State::unknown(trouble.reason, trouble.message));
                return waiting(scene, draft, &inputs, pinned, state);
            }
        }
    }
    follow_interval(scene, draft, &inputs);
    if !is_due(scene, draft, &inputs) {
        if let Some(next) = next_attempt(draft) {
            draft.look_again_at(next.0, scene.now);
        }
        return waiting(scene, draft, &inputs, pinned, None);
    }
    let is_drift = pinned.is_some() && is_judged(draft, &inputs);
    let (task, inputs_of_job) = if is_drift { (look, drift_inputs) } else { (full, inputs.clone()) };
    begin(scene, draft, task, inputs_of_job, &inputs, pinned)
}

fn begin(
    scene: &Scene<'_>,
    draft: &mut Draft,
    task: Task,
    inputs_of_job: String,
    inputs: &str,
    pinned: Option<&str>,
) -> Inspected {
    let node = match source_claim::check(scene) {
        Ok(node) => node,
        Err(state) => {
            draft.look_again(Duration::from_secs(10));
            return unreachable_claim(scene, draft, inputs, pinned, state);
        }
    };
    let number = recorded(draft) + 1;
    let request = JobRequest {
        checkpoint: scene.checkpoint,
        task,
        inline: scene.intent.inline.as_deref(),
        inputs: inputs_of_job,
        attempt: number,
        target: None,
        volume: None,
        reuse: None,
        placement: None,
        node,
        revalidate: revalidate(scene),
    };
    let asked_anew = !is_judged(draft, inputs) || revalidate(scene) != handled(draft);
    let start = draft.start(scene, &request);
    if matches!(start, Start::Created) {
        set_attempt(draft, number);
        if asked_anew {
            draft.status.inspection.get_or_insert_default().failures = 0;
        }
        return waiting(scene, draft, inputs, pinned, None);
    }
    let state = start.state(Reason::Checking, "");
    waiting(scene, draft, inputs, pinned, Some(state))
}

/// Retires Jobs that no longer fit; what is left is the one whose result is awaited.
fn current_job<'a>(scene: &Scene<'a>, draft: &mut Draft, inputs: &str, drift_inputs: &str) -> Option<&'a Job> {
    let recorded = recorded(draft);
    let launch = launch(scene);
    let mut current = None;
    for job in scene.observed.jobs.iter().filter(|job| attempt::serves(job, TaskKind::Inspect, None)) {
        let fits = attempt::has_inputs(job, inputs) || attempt::has_inputs(job, drift_inputs);
        let fresh = attempt::number(job) > recorded && job.metadata.deletion_timestamp.is_none();
        let outdated = attempt::is_outdated(scene.config, scene.observed, job, &launch, scene.now);
        if fits && fresh && current.is_none() && !outdated {
            current = Some(job);
        } else {
            draft.retire(job);
        }
    }
    current
}

fn launch(scene: &Scene<'_>) -> String {
    let node = source_claim::check(scene).ok().flatten();
    worker_job::launch_hash(scene.checkpoint, None, node.as_deref(), 1, None)
}

fn recorded(draft: &Draft) -> i64 {
    draft.status.inspection.as_ref().map_or(0, |inspection| inspection.recorded_attempt)
}

fn handled(draft: &Draft) -> Option<String> {
    draft.status.inspection.as_ref().and_then(|inspection| inspection.handled_revalidate.clone())
}

pub(super) fn next_attempt(draft: &Draft) -> Option<k8s_openapi::apimachinery::pkg::apis::meta::v1::Time> {
    draft.status.inspection.as_ref().and_then(|inspection| inspection.next_attempt_at.clone())
}

fn set_attempt(draft: &mut Draft, number: i64) {
    draft.status.inspection.get_or_insert_default().attempt = number;
}

/// Whether the status holds a verdict, or a failure, for these inputs.
fn is_judged(draft: &Draft, inputs: &str) -> bool {
    draft.status.inspection.as_ref().and_then(|inspection| inspection.inputs.as_deref()) == Some(inputs)
}

fn revalidate(scene: &Scene<'_>) -> Option<String> {
    let annotations = scene.checkpoint.metadata.annotations.as_ref()?;
    annotations.get(ANNOTATION_REVALIDATE).map(|value| crate::contract::report::clean(value, 128))
}

fn is_due(scene: &Scene<'_>, draft: &Draft, inputs: &str) -> bool {
    let Some(inspection) = &draft.status.inspection else { return true };
    let asked = revalidate(scene).is_some() && revalidate(scene) != inspection.handled_revalidate;
    // A Job that is gone before its result was recorded is made again.
    let lost = inspection.attempt > inspection.recorded_attempt;
    let spec_changed = scene.checkpoint.metadata.generation != draft.status.observed_generation;
    let not_good = inspection.failures > 0;
    !is_judged(draft, inputs)
        || asked
        || lost
        || (spec_changed && not_good)
        || inspection.next_attempt_at.as_ref().is_some_and(|next| next.0 <= scene.now)
}

/// The source claim cannot be read now, which needs no worker to find out.
fn unreachable_claim(
    scene: &Scene<'_>,
    draft: &mut Draft,
    inputs: &str,
    pinned: Option<&str>,
    state: State,
) -> Inspected {
    if pinned.is_some() {
        let mut inspected = waiting(scene, draft, inputs, pinned, None);
        inspected.drifted = drift_of_failure(&state);
        return inspected;
    }
    let validated = State::unknown(Reason::Validating, "not validated: the source cannot be read");
    Inspected { reachable: state, validated, drifted: not_looked(), good: None, bad: false }
}

fn not_looked() -> State {
    State::unknown(Reason::Checking, "the source was not looked at yet")
}

pub(super) fn drift_of_failure(state: &State) -> State {
    if state.reason == Reason::NotFound {
        State::met(
            Reason::SourceGone,
            format!("the source is gone; what is published stays as it is: {}", state.message),
        )
    } else {
        State::unknown(state.reason, format!("the source could not be looked at: {}", state.message))
    }
}

/// The state while nothing new is known; `news` is what holds the work up.
pub(super) fn waiting(
    scene: &Scene<'_>,
    draft: &Draft,
    inputs: &str,
    pinned: Option<&str>,
    news: Option<State>,
) -> Inspected {
    let before = |kind| State::of(&draft.status, kind);
    let drifted = before(ConditionType::Drifted);
    let fingerprint = draft.status.source.as_ref().and_then(|source| source.fingerprint.clone());
    if let Some(pinned) = pinned {
        let published = "what is published was read and validated";
        let keep = |kind, reason| {
            before(kind).filter(|state| state.truth != Truth::Unknown).unwrap_or_else(|| State::met(reason, published))
        };
        let validated = keep(ConditionType::Validated, Reason::Complete);
        let good = (validated.truth == Truth::True && is_judged(draft, inputs)).then(|| pinned.to_owned());
        return Inspected {
            reachable: keep(ConditionType::SourceReachable, Reason::Reachable),
            bad: validated.truth == Truth::False,
            validated,
            drifted: drifted.unwrap_or_else(not_looked),
            good,
        };
    }
    let drifted = drifted.unwrap_or_else(not_looked);
    let judged = is_judged(draft, inputs);
    let reachable = before(ConditionType::SourceReachable);
    let validated = before(ConditionType::Validated);
    if let (true, Some(reachable), Some(validated)) = (judged, &reachable, &validated) {
        // A verdict stands until the next one; only what holds up a second look after a failure is said.
        let good = validated.truth == Truth::True;
        let reachable = match news {
            Some(news) if !good => news,
            _ => reachable.clone(),
        };
        return Inspected {
            reachable,
            bad: validated.truth == Truth::False,
            validated: validated.clone(),
            drifted,
            good: fingerprint.filter(|_| good),
        };
    }
    let source = &scene.intent.uri;
    let reachable = news.clone().unwrap_or_else(|| {
        reachable
            .filter(|state| state.truth == Truth::True)
            .unwrap_or_else(|| State::unknown(Reason::Checking, format!("{source} is being listed")))
    });
    let validated = match news {
        Some(news) => State::unknown(news.reason, news.message),
        None => State::unknown(Reason::Validating, format!("{source} is being inspected")),
    };
    Inspected { reachable, validated, drifted, good: None, bad: false }
}

/// After a good look the next one is due when the user wants it, also when that changes later.
pub(super) fn follow_interval(scene: &Scene<'_>, draft: &mut Draft, inputs: &str) {
    if !is_judged(draft, inputs) {
        return;
    }
    let checked = draft.status.source.as_ref().and_then(|source| source.checked_at.clone());
    let next = checked.and_then(|checked| after_interval(scene, checked.0)).map(time);
    if let Some(inspection) = draft.status.inspection.as_mut().filter(|inspection| inspection.failures == 0) {
        inspection.next_attempt_at = next;
    }
}

/// The time of the next look that the user wants.
pub(super) fn after_interval(scene: &Scene<'_>, last: Timestamp) -> Option<Timestamp> {
    let every = SignedDuration::try_from(scene.intent.revalidate_every?).ok()?;
    last.checked_add(every).ok()
}
