//! Reads from Jobs, pods and events how far a worker is, and says why one does not start. Pure, no I/O.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::{
    batch::v1::Job,
    core::v1::{ContainerStateTerminated, ContainerStatus, Pod},
};

use crate::{
    api::{ANNOTATION_ATTEMPT, ANNOTATION_CLAIM, ANNOTATION_INPUTS, LABEL_ROLE},
    contract::{Outcome, Reason, Report, TaskKind, exit, report::clean},
};

use super::{Config, Observed, worker_job};

/// How far a worker is.
#[derive(Clone, Debug, PartialEq)]
pub enum Attempt {
    /// It is to start, or runs; the trouble if it cannot start.
    Active(Option<Trouble>),
    /// Its Job ended, but its pod's end was not seen yet.
    Ending,
    /// It ended, with a report or with an account of why there is none.
    Ended(Box<Ended>),
}

/// Why a worker does not start.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Trouble {
    /// `WorkerNotStarting`, `WorkerForbidden` or `QuotaExceeded`.
    pub reason: Reason,
    /// The object and what Kubernetes says of it.
    pub message: String,
}

/// The end of a worker.
#[derive(Clone, Debug, PartialEq)]
pub struct Ended {
    /// When.
    pub at: Timestamp,
    /// What it said; made up here when it could not.
    pub report: Report,
}

/// How long a pod may be unscheduled or without a sign of life before that is said.
const PATIENCE: SignedDuration = SignedDuration::from_secs(5);
/// How long the end of a pod may lag behind the end of its Job.
const LAG: SignedDuration = SignedDuration::from_secs(15);

/// An annotation of a Job.
#[must_use]
pub fn annotation<'a>(job: &'a Job, key: &str) -> Option<&'a str> {
    job.metadata.annotations.as_ref().and_then(|annotations| annotations.get(key)).map(String::as_str)
}

/// The number of the attempt that a Job is.
#[must_use]
pub fn number(job: &Job) -> i64 {
    annotation(job, ANNOTATION_ATTEMPT).and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// Whether a Job is of this kind, for this target claim.
#[must_use]
pub fn serves(job: &Job, kind: TaskKind, target: Option<&str>) -> bool {
    let role = job.metadata.labels.as_ref().and_then(|labels| labels.get(LABEL_ROLE)).map(String::as_str);
    role == Some(kind.as_str()) && annotation(job, ANNOTATION_CLAIM) == target
}

/// Whether a Job was made for these inputs.
#[must_use]
pub fn has_inputs(job: &Job, inputs: &str) -> bool {
    annotation(job, ANNOTATION_INPUTS) == Some(inputs)
}

/// Whether a Job's result is awaited: it serves this, with these inputs, and is a later attempt than the last one that counts.
#[must_use]
pub fn is_awaited(job: &Job, kind: TaskKind, target: Option<&str>, inputs: &str, recorded: i64) -> bool {
    serves(job, kind, target)
        && has_inputs(job, inputs)
        && number(job) > recorded
        && job.metadata.deletion_timestamp.is_none()
}

/// Whether a Job's worker ever ran, so that replacing the Job would lose work.
#[must_use]
pub fn has_started(observed: &Observed, job: &Job) -> bool {
    pods_of(observed, job).any(|pod| {
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        matches!(phase, Some("Running" | "Succeeded" | "Failed"))
    }) || job.status.as_ref().is_some_and(|status| status.conditions.iter().flatten().any(is_final))
}

/// Whether a Job that has not started would be started differently now.
#[must_use]
pub fn is_outdated(config: &Config, observed: &Observed, job: &Job, launch: &str, now: Timestamp) -> bool {
    let other_launch = annotation(job, worker_job::ANNOTATION_LAUNCH) != Some(launch);
    let other_installation = annotation(job, worker_job::ANNOTATION_INSTALLATION)
        .is_some_and(|made_for| made_for != worker_job::installation_hash(config));
    // An upgrade restarts nothing that can run; but it may be the remedy for what cannot, such as another image.
    let remedied = other_installation && trouble(observed, job, now).is_some();
    (other_launch || remedied) && !has_started(observed, job)
}

/// How far the worker of this Job is.
#[must_use]
pub fn look(observed: &Observed, job: &Job, kind: TaskKind, now: Timestamp) -> Attempt {
    let end =
        job.status.iter().flat_map(|status| status.conditions.iter().flatten()).find(|condition| is_final(condition));
    let Some(end) = end else { return Attempt::Active(trouble(observed, job, now)) };
    let mut pods: Vec<_> = pods_of(observed, job).collect();
    pods.sort_by_key(|pod| pod.metadata.creation_timestamp.as_ref().map(|time| time.0));
    let at = end.last_transition_time.as_ref().map_or(now, |time| time.0);
    let last = if worker_job::is_split(job) {
        last_of_several(kind, &pods, end.type_ == "Complete")
    } else {
        pods.last().and_then(|pod| terminated(pod)).map(|state| (state, read(kind, state)))
    };
    if last.is_none() && now.duration_since(at) < LAG {
        return Attempt::Ending;
    }
    let at = last.as_ref().and_then(|(state, _)| state.finished_at.as_ref()).map_or(at, |time| time.0);
    let gone =
        || died(kind, format!("the worker's pod is gone: {}", end.message.as_deref().unwrap_or("deleted or evicted")));
    let report = last.map_or_else(gone, |(_, report)| report);
    Attempt::Ended(Box::new(Ended { at, report }))
}

/// Of several workers that loaded a share each, the one that speaks for all: the one that found the whole complete, or the one whose
/// failure ended the others. What each of them transferred is added up.
fn last_of_several<'a>(
    kind: TaskKind,
    pods: &[&'a Pod],
    complete: bool,
) -> Option<(&'a ContainerStateTerminated, Report)> {
    let ended = pods.iter().filter_map(|pod| terminated(pod)).map(|state| (state, read(kind, state)));
    let ended: Vec<_> = ended.collect();
    let speaks = |(state, report): &&(&ContainerStateTerminated, Report)| {
        if complete {
            return report.outcome == Outcome::Good && report.digest.is_some();
        }
        report.outcome == Outcome::Failed && exit::TERMINAL.contains(&state.exit_code)
    };
    let failed = |(_, report): &&(&ContainerStateTerminated, Report)| !complete && report.outcome != Outcome::Good;
    let by_end = |(state, _): &&(&ContainerStateTerminated, Report)| state.finished_at.as_ref().map(|time| time.0);
    let chosen = ended.iter().filter(speaks).max_by_key(by_end);
    let (state, report) = chosen.or_else(|| ended.iter().filter(failed).max_by_key(by_end))?;
    let mut report = report.clone();
    if let Some(whole) = &mut report.transfer {
        let each = || ended.iter().filter_map(|(_, report)| report.transfer.as_ref());
        whole.bytes_fetched = each().map(|share| share.bytes_fetched).sum();
        whole.bytes_reused = each().map(|share| share.bytes_reused).sum();
        whole.bytes_kept = whole.bytes.saturating_sub(whole.bytes_fetched.saturating_add(whole.bytes_reused));
        whole.milliseconds = each().map(|share| share.milliseconds).max().unwrap_or_default();
    }
    Some((state, report))
}

fn is_final(condition: &k8s_openapi::api::batch::v1::JobCondition) -> bool {
    matches!(condition.type_.as_str(), "Complete" | "Failed") && condition.status == "True"
}

/// The pods of a Job.
pub fn pods_of<'a>(observed: &'a Observed, job: &'a Job) -> impl Iterator<Item = &'a Pod> {
    observed.pods.iter().filter(move |pod| {
        let labels = pod.metadata.labels.as_ref();
        let name =
            labels.and_then(|labels| labels.get("batch.kubernetes.io/job-name").or_else(|| labels.get("job-name")));
        name.is_some() && name == job.metadata.name.as_ref()
    })
}

fn worker_status(pod: &Pod) -> Option<&ContainerStatus> {
    let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
    statuses.iter().find(|status| status.name == worker_job::CONTAINER)
}

fn terminated(pod: &Pod) -> Option<&ContainerStateTerminated> {
    worker_status(pod)?.state.as_ref()?.terminated.as_ref()
}

fn read(kind: TaskKind, state: &ContainerStateTerminated) -> Report {
    let message = state.message.as_deref().unwrap_or_default();
    match Report::decode(message) {
        Ok(report) if report.task.is_none_or(|task| task == kind) => report,
        _ if state.reason.as_deref() == Some("OOMKilled") => {
            died(kind, "the worker ran out of memory; raise spec.worker.resources.limits.memory".to_owned())
        }
        Ok(_) => died(kind, "the worker reported another task than it was given".to_owned()),
        Err(error) => died(
            kind,
            format!(
                "the worker ended with exit code {} ({}) and without a report: {error}",
                state.exit_code,
                state.reason.as_deref().unwrap_or("no reason given")
            ),
        ),
    }
}

fn died(kind: TaskKind, message: String) -> Report {
    Report::new(kind, Outcome::Failed, Reason::WorkerFailed, message)
}

fn trouble(observed: &Observed, job: &Job, now: Timestamp) -> Option<Trouble> {
    let mut pods = pods_of(observed, job).peekable();
    if pods.peek().is_none() {
        return no_pod(observed, job);
    }
    pods.find_map(|pod| stuck(pod, now))
}

/// Why the Job controller could make no pod, from its events.
fn no_pod(observed: &Observed, job: &Job) -> Option<Trouble> {
    let name = job.metadata.name.as_deref().unwrap_or_default();
    let event = observed.job_events.iter().rfind(|event| event.job == name && event.reason == "FailedCreate")?;
    let text = clean(&event.message, 600);
    let (reason, remedy) = if text.contains("exceeded quota") {
        (Reason::QuotaExceeded, "raise the quota or free some of it")
    } else if text.contains("serviceaccount") && text.contains("not found") {
        (Reason::WorkerForbidden, "create the ServiceAccount or change spec.serviceAccountName")
    } else {
        (Reason::WorkerForbidden, "change the policy of the namespace or spec.worker")
    };
    Some(Trouble { reason, message: format!("no pod for Job {name}: {text}; {remedy}") })
}

/// Why a pod does not run.
fn stuck(pod: &Pod, now: Timestamp) -> Option<Trouble> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let status = pod.status.as_ref()?;
    let not_starting = |message: String| Some(Trouble { reason: Reason::WorkerNotStarting, message });
    if let Some(waiting) = worker_status(pod).and_then(|status| status.state.as_ref()?.waiting.as_ref()) {
        let reason = waiting.reason.as_deref().unwrap_or_default();
        let detail = clean(waiting.message.as_deref().unwrap_or_default(), 400);
        let remedy = match reason {
            "ErrImagePull" | "ImagePullBackOff" | "InvalidImageName" | "ErrImageNeverPull" => {
                "check the worker image of the installation and spec.worker.imagePullSecrets"
            }
            "CreateContainerConfigError" | "CreateContainerError" | "RunContainerError" => {
                "check spec.worker and what it refers to"
            }
            _ => return None,
        };
        return not_starting(format!("pod {name}: {reason}: {detail}; {remedy}"));
    }
    if status.phase.as_deref() != Some("Pending") {
        return None;
    }
    let created = pod.metadata.creation_timestamp.as_ref().map_or(now, |time| time.0);
    let unscheduled = status
        .conditions
        .iter()
        .flatten()
        .find(|condition| condition.type_ == "PodScheduled" && condition.status == "False")?;
    if now.duration_since(created) < PATIENCE {
        return None;
    }
    let detail = clean(unscheduled.message.as_deref().unwrap_or_default(), 400);
    not_starting(format!(
        "pod {name} is not scheduled: {detail}; check spec.worker, the volume's placement and the storage class"
    ))
}

/// Whether an active worker may soon be in trouble that is not said yet, so that it must be looked at again.
#[must_use]
pub fn needs_another_look(attempt: &Attempt) -> bool {
    matches!(attempt, Attempt::Active(None) | Attempt::Ending)
}
