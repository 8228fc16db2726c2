//! Decides about the load of one volume: when it starts, what its result means. Pure, no I/O.

use std::time::Duration;

use k8s_openapi::api::{batch::v1::Job, core::v1::PersistentVolumeClaim};

use crate::{
    api::{Phase, VolumeStatus},
    contract::{LoadTask, Outcome, Reason, Report, Task, TaskKind, VERSION},
};

use super::{
    attempt::{self, Attempt, Ended},
    backoff, names, progress, publish,
    scene::{Draft, Scene, Start, State, Truth, count, time},
    sibling::{self, Sibling},
    source_claim, staging,
    validate::VolumeIntent,
    volume_status::{Basis, retire, set},
    worker_job::{self, JobRequest, Launch},
};

pub(super) fn load(
    scene: &Scene<'_>,
    draft: &mut Draft,
    volume: &VolumeIntent,
    target: Option<&PersistentVolumeClaim>,
    basis: &Basis<'_>,
    status: &mut VolumeStatus,
) {
    // A volume that was handed over already is finished, whatever became of the source since.
    if let Some(target) = target
        && publish::finish(scene, draft, volume, target, status)
    {
        return;
    }
    let Some(fingerprint) = basis.good else {
        if basis.bad {
            retire(scene, draft, volume, None);
        } else if status.phase == Phase::Failed {
            // The failure and the time of the next attempt stay in sight while the source is looked at again.
            return;
        }
        let message =
            if basis.bad { "nothing is loaded before the checkpoint is valid" } else { "waits for the inspection" };
        let state =
            State::new(if basis.bad { Truth::False } else { Truth::Unknown }, Reason::WaitingForVolume, message);
        set(status, Phase::Pending, &state);
        return;
    };
    if scene.checkpoint.spec.suspend && !has_job(scene, volume) && status.phase != Phase::Publishing {
        let state = Start::Suspended.state(Reason::Loading, "");
        set(status, Phase::Pending, &state);
        return;
    }
    let name = names::staging(scene.uid, &volume.volume);
    let Some(staging) = staging::claim(scene, draft, volume, &name, status) else { return };
    if let Err(state) = staging::early_target(scene, draft, volume, staging, target) {
        set(status, Phase::Failed, &state);
        return;
    }
    let inputs = load_inputs(scene, volume, staging, fingerprint);
    if status.inputs.as_deref() == Some(&inputs) && matches!(status.phase, Phase::Publishing) {
        retire(scene, draft, volume, None);
        publish::begin(scene, draft, volume, staging, target, status);
        return;
    }
    work(scene, draft, volume, &inputs, staging, fingerprint, status);
}

fn has_job(scene: &Scene<'_>, volume: &VolumeIntent) -> bool {
    let name = Some(volume.volume.claim_name.as_str());
    scene.observed.jobs.iter().any(|job| attempt::serves(job, TaskKind::Load, name))
}

/// Hash of all that decides what a load brings, and onto which claim. Where it takes files from that need not be fetched does
/// not: they are what would be fetched.
fn load_inputs(scene: &Scene<'_>, volume: &VolumeIntent, staging: &PersistentVolumeClaim, fingerprint: &str) -> String {
    names::hash(&(
        &scene.intent.source,
        &scene.checkpoint.spec.validation,
        &volume.filter,
        &volume.volume.claim_name,
        &staging.metadata.uid,
        fingerprint,
    ))
}

/// Runs the load, and takes its result.
fn work(
    scene: &Scene<'_>,
    draft: &mut Draft,
    volume: &VolumeIntent,
    inputs: &str,
    staging: &PersistentVolumeClaim,
    fingerprint: &str,
    status: &mut VolumeStatus,
) {
    let node = source_claim::check(scene).ok().flatten();
    let Sibling { claim: reuse, node } = sibling::choose(scene, draft, volume, staging, inputs, node, status);
    let placement = volume.volume.placement.as_ref();
    let launch = Launch { placement, node: node.as_deref(), reuse: reuse.as_deref(), workers: volume.workers() };
    let launch = worker_job::launch_hash(scene.checkpoint, &launch);
    let job = current_job(scene, draft, volume, TaskKind::Load, inputs, &launch, status.recorded_attempt);
    if let Some(job) = job {
        status.attempt = attempt::number(job);
        follow(scene, draft, job, TaskKind::Load, status, |scene, draft, ended, status| {
            take_load(scene, draft, volume, inputs, fingerprint, ended, status);
        });
        return;
    }
    if waits_for_retry(scene, draft, status) {
        return;
    }
    let number = status.recorded_attempt + 1;
    let mut task = load_task(scene, volume, TaskKind::Load, fingerprint, None);
    if let Some(load) = &mut task.load {
        load.reuse_from.clone_from(&reuse);
    }
    let request = JobRequest {
        checkpoint: scene.checkpoint,
        task,
        inline: scene.intent.inline.as_deref(),
        inputs: inputs.to_owned(),
        attempt: number,
        target: Some(&volume.volume.claim_name),
        volume: Some((staging.metadata.name.clone().unwrap_or_default(), false)),
        reuse,
        placement,
        node,
        revalidate: None,
    };
    begin(scene, draft, &request, Phase::Loading, "a worker is being started to load the files", status);
}

/// Whether a failed attempt is not to be repeated yet.
pub(super) fn waits_for_retry(scene: &Scene<'_>, draft: &mut Draft, status: &VolumeStatus) -> bool {
    match &status.next_attempt_at {
        Some(next) if status.phase == Phase::Failed && next.0 > scene.now => {
            draft.look_again_at(next.0, scene.now);
            true
        }
        _ => false,
    }
}

pub(super) fn begin(
    scene: &Scene<'_>,
    draft: &mut Draft,
    request: &JobRequest<'_>,
    phase: Phase,
    message: &str,
    status: &mut VolumeStatus,
) {
    let reason = if phase == Phase::Verifying { Reason::Verifying } else { Reason::Loading };
    let start = draft.start(scene, request);
    let phase = match &start {
        Start::Created => {
            status.attempt = request.attempt;
            phase
        }
        Start::Refused(_) => Phase::Failed,
        Start::Queued(_) | Start::Suspended => Phase::Pending,
    };
    set(status, phase, &start.state(reason, message));
}

pub(super) fn load_task(
    scene: &Scene<'_>,
    volume: &VolumeIntent,
    kind: TaskKind,
    fingerprint: &str,
    digest: Option<String>,
) -> Task {
    let pin = scene.checkpoint.spec.validation.digest.clone().filter(|_| volume.filter.is_everything());
    Task {
        version: VERSION,
        kind,
        source: scene.intent.source.clone(),
        validation: scene.checkpoint.spec.validation.clone(),
        volumes: vec![volume.filter.clone()],
        load: Some(LoadTask {
            digest: digest.or(pin),
            workers: if kind == TaskKind::Load { volume.workers() } else { 1 },
            ..LoadTask::new(fingerprint, volume.filter.clone())
        }),
    }
}

pub(super) fn current_job<'a>(
    scene: &Scene<'a>,
    draft: &mut Draft,
    volume: &VolumeIntent,
    kind: TaskKind,
    inputs: &str,
    launch: &str,
    recorded: i64,
) -> Option<&'a Job> {
    let name = Some(volume.volume.claim_name.as_str());
    let current = scene.observed.jobs.iter().find(|job| {
        attempt::is_awaited(job, kind, name, inputs, recorded)
            && !attempt::is_outdated(scene.config, scene.observed, job, launch, scene.now)
    });
    retire(scene, draft, volume, current);
    current
}

/// Follows a Job that is there.
pub(super) fn follow(
    scene: &Scene<'_>,
    draft: &mut Draft,
    job: &Job,
    kind: TaskKind,
    status: &mut VolumeStatus,
    take: impl FnOnce(&Scene<'_>, &mut Draft, &Ended, &mut VolumeStatus),
) {
    let (phase, reason, message) = match kind {
        TaskKind::Verify => (Phase::Verifying, Reason::Verifying, "a worker hashes the files of the retained claim"),
        _ => (Phase::Loading, Reason::Loading, "a worker loads the files into the staging volume"),
    };
    progress::note(scene, draft, job, status);
    match attempt::look(scene.observed, job, kind, scene.now) {
        Attempt::Ended(ended) => {
            draft.count(&ended.report);
            status.recorded_attempt = attempt::number(job);
            take(scene, draft, &ended, status);
        }
        Attempt::Ending => {
            draft.look_again(Duration::from_secs(1));
            set(status, phase, &State::unknown(reason, message));
        }
        Attempt::Active(Some(trouble)) => {
            draft.look_again(Duration::from_secs(15));
            set(status, phase, &State::unknown(trouble.reason, trouble.message));
        }
        Attempt::Active(None) => {
            if !attempt::has_started(scene.observed, job) {
                draft.look_again(Duration::from_secs(6));
            }
            set(status, phase, &State::unknown(reason, message));
        }
    }
}

fn take_load(
    scene: &Scene<'_>,
    draft: &mut Draft,
    volume: &VolumeIntent,
    inputs: &str,
    fingerprint: &str,
    ended: &Ended,
    status: &mut VolumeStatus,
) {
    let report = &ended.report;
    if let Some(transfer) = &report.transfer {
        status.bytes_done = Some(count(transfer.bytes));
        if report.task == Some(TaskKind::Load) {
            status.bytes_verified = Some(count(transfer.bytes_verified));
            status.bytes_reused = Some(count(transfer.bytes_reused)).filter(|bytes| *bytes > 0);
        }
        let seconds = transfer.milliseconds.max(1);
        status.bytes_per_second = Some(count(transfer.bytes_fetched.saturating_mul(1000) / seconds));
    }
    if volume.filter.is_everything()
        && let Some(digest) = &report.digest
    {
        draft.status.digest = Some(digest.clone());
    }
    if report.outcome == Outcome::Good
        && let Some(digest) = &report.digest
    {
        status.inputs = Some(inputs.to_owned());
        status.fingerprint = Some(fingerprint.to_owned());
        status.digest = Some(digest.clone());
        status.bytes_done = status.bytes_total;
        status.remaining_seconds = None;
        status.failures = 0;
        let message = "the files are loaded and judged; the volume is being handed to the claim";
        set(status, Phase::Publishing, &State::unknown(Reason::WaitingForVolume, message));
        draft.look_again(Duration::from_secs(1));
        return;
    }
    failed(scene, draft, ended, status);
}

/// Notes a failed attempt and when the next one is due.
pub(super) fn failed(scene: &Scene<'_>, draft: &mut Draft, ended: &Ended, status: &mut VolumeStatus) {
    let report = &ended.report;
    status.failures = status.failures.saturating_add(1);
    // The next attempt decides anew.
    status.reuse_skipped = None;
    let next = backoff::next(ended.at, status.failures, scene.uid);
    let reason = report.reason.filter(|reason| *reason != Reason::Complete).unwrap_or(Reason::LoadFailed);
    set(status, Phase::Failed, &State::failed(reason, report.message.clone()));
    status.next_attempt_at = Some(time(next));
    draft.look_again_at(next, scene.now);
    if let Some(verdict) = verdict(report, reason) {
        draft.verdict = Some(verdict);
    }
}

/// What a failed load says of the checkpoint itself.
fn verdict(report: &Report, reason: Reason) -> Option<State> {
    match reason {
        Reason::SourceChanged => Some(State::unknown(reason, report.message.clone())),
        Reason::DigestMismatch | Reason::Corrupt | Reason::Incomplete | Reason::UnsafePickle | Reason::UnsafeCode => {
            Some(State::failed(reason, report.message.clone()))
        }
        _ => None,
    }
}
