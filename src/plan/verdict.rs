//! Takes what an inspection or a load found into the status: the verdict, facts, drift. Pure, no I/O.

use std::time::Duration;

use k8s_openapi::api::batch::v1::Job;

use crate::{
    api::{ANNOTATION_REVALIDATE, SourceStatus, VolumeStatus},
    contract::{Outcome, Reason, Report},
};

use super::{
    attempt::{self, Ended},
    backoff,
    inspection::{Inspected, after_interval, drift_of_failure, follow_interval, next_attempt, waiting},
    quantity,
    scene::{Draft, Scene, State, Truth, count, time},
};

/// Takes the result of an inspection into the status.
pub(super) fn record(
    scene: &Scene<'_>,
    draft: &mut Draft,
    job: &Job,
    ended: &Ended,
    is_drift: bool,
    inputs: &str,
    pinned: Option<&str>,
) -> Inspected {
    let report = &ended.report;
    draft.count(report);
    let number = attempt::number(job);
    let before = waiting(scene, draft, inputs, pinned, None);
    let mut inspection = draft.status.inspection.take().unwrap_or_default();
    inspection.attempt = number;
    inspection.recorded_attempt = number;
    let asked = attempt::annotation(job, ANNOTATION_REVALIDATE).map(str::to_owned);
    if asked.is_some() && asked != inspection.handled_revalidate {
        // Who asks for a new look also wants failed loads to be tried at once.
        for volume in &mut draft.status.volumes {
            volume.failures = 0;
            volume.next_attempt_at = None;
        }
    }
    inspection.handled_revalidate = asked;
    if !is_drift {
        inspection.inputs = Some(inputs.to_owned());
    }
    let inspected = match pinned {
        Some(pinned) => against_published(draft, report, before, is_drift, pinned, ended),
        None => verdict(scene, draft, report, before, ended),
    };
    let good = if pinned.is_some() { report.source.is_some() } else { inspected.good.is_some() };
    inspection.failures = if good { 0 } else { inspection.failures.saturating_add(1) };
    let next = backoff::next(ended.at, inspection.failures, scene.uid);
    inspection.next_attempt_at = match pinned {
        _ if good => None,
        None => Some(time(next)),
        // A source that is gone after publishing is nobody's emergency: it is looked at as often as the user wants.
        Some(_) => after_interval(scene, ended.at).map(|interval| time(interval.max(next))),
    };
    draft.status.inspection = Some(inspection);
    if good && draft.status.source.as_ref().is_some_and(|source| source.checked_at.is_none()) {
        draft.status.source.get_or_insert_default().checked_at = Some(time(ended.at));
    }
    follow_interval(scene, draft, inputs);
    if let Some(next) = next_attempt(draft) {
        draft.look_again_at(next.0, scene.now);
    }
    inspected
}

/// A look at a source whose content is published already: it can only have drifted, or be judged under another spec.
fn against_published(
    draft: &mut Draft,
    report: &Report,
    before: Inspected,
    is_drift: bool,
    pinned: &str,
    ended: &Ended,
) -> Inspected {
    let Some(source) = &report.source else {
        let state = State::failed(report.reason.unwrap_or(Reason::WorkerFailed), report.message.clone());
        return Inspected { drifted: drift_of_failure(&state), ..before };
    };
    if let Some(status) = &mut draft.status.source {
        status.checked_at = Some(time(ended.at));
    }
    if source.fingerprint != pinned {
        let message =
            "the files in the source are no longer those that are published; create another Checkpoint for them";
        return Inspected { drifted: State::met(Reason::SourceChanged, message), ..before };
    }
    let drifted = State::failed(Reason::InSync, "the source is what was published");
    if is_drift {
        return Inspected { drifted, ..before };
    }
    take_selections(draft, report);
    let validated = verdict_state(report);
    let good = (validated.truth == Truth::True).then(|| pinned.to_owned());
    Inspected { bad: validated.truth == Truth::False, validated, good, drifted, ..before }
}

fn verdict(scene: &Scene<'_>, draft: &mut Draft, report: &Report, before: Inspected, ended: &Ended) -> Inspected {
    let reason = report.reason.unwrap_or(Reason::WorkerFailed);
    let Some(source) = &report.source else {
        let reachable = if reason == Reason::WorkerFailed {
            State::unknown(reason, report.message.clone())
        } else {
            State::failed(reason, report.message.clone())
        };
        let validated = match reason {
            Reason::InvalidSpec | Reason::Empty | Reason::Incomplete | Reason::Corrupt => {
                State::failed(reason, report.message.clone())
            }
            _ => State::unknown(Reason::Validating, "not validated: the source could not be read"),
        };
        // A listing that shows what is wrong was reached all the same.
        let reachable = match reason {
            Reason::Empty | Reason::Incomplete | Reason::Corrupt => {
                State::met(Reason::Reachable, "the source was listed")
            }
            _ => reachable,
        };
        let bad = validated.truth == Truth::False;
        return Inspected { reachable, validated, drifted: before.drifted, good: None, bad };
    };
    let status = draft.status.source.get_or_insert_default();
    let same = status.fingerprint.as_deref() == Some(source.fingerprint.as_str());
    *status = SourceStatus {
        uri: source.uri.clone(),
        fingerprint: Some(source.fingerprint.clone()),
        files: Some(count(source.files)),
        bytes: Some(count(source.bytes)),
        size: Some(quantity::human(source.bytes)),
        checked_at: Some(time(ended.at)),
    };
    let known = draft.status.digest.take().filter(|_| same);
    draft.status.digest = report.digest.clone().or(known);
    draft.status.contents.clone_from(&report.contents);
    draft.status.metadata.clone_from(&report.metadata);
    take_selections(draft, report);
    let mut validated = verdict_state(report);
    let pin = scene.checkpoint.spec.validation.digest.as_deref();
    // An earlier load may have read these very files: their digest needs no second download to be compared.
    if let (Truth::True, Some(pin), Some(digest)) = (validated.truth, pin, draft.status.digest.as_deref())
        && pin != digest
    {
        validated = State::failed(
            Reason::DigestMismatch,
            format!("the content has digest {digest}, validation.digest asks for {pin}; repair the source or the pin"),
        );
    }
    let good = (validated.truth == Truth::True).then(|| source.fingerprint.clone());
    let reachable = State::met(Reason::Reachable, format!("{} files, {}", source.files, quantity::human(source.bytes)));
    let drifted = State::failed(Reason::InSync, "the source is what was inspected");
    Inspected { reachable, bad: validated.truth == Truth::False, validated, drifted, good }
}

fn verdict_state(report: &Report) -> State {
    let reason = report.reason.unwrap_or(Reason::WorkerFailed);
    match report.outcome {
        Outcome::Good => State::met(Reason::Complete, report.message.clone()),
        Outcome::Bad => State::failed(reason, report.message.clone()),
        Outcome::Failed => State::unknown(reason, report.message.clone()),
    }
}

/// Notes what each volume will hold.
fn take_selections(draft: &mut Draft, report: &Report) {
    for (volume, selection) in draft.status.volumes.iter_mut().zip(&report.selections) {
        set_selection(volume, selection.bytes, selection.required_bytes);
    }
}

fn set_selection(volume: &mut VolumeStatus, bytes: u64, required: u64) {
    volume.bytes_total = Some(count(bytes));
    volume.bytes_required = Some(count(required));
}

/// A load read the files and found what the inspection could not see.
pub(super) fn overrule(scene: &Scene<'_>, draft: &mut Draft, inspected: &mut Inspected, verdict: State, pinned: bool) {
    if pinned {
        if verdict.reason == Reason::SourceChanged {
            inspected.drifted = State::met(Reason::SourceChanged, verdict.message);
        }
        return;
    }
    let mut inspection = draft.status.inspection.take().unwrap_or_default();
    if verdict.reason == Reason::SourceChanged {
        // Another listing may be good as well: it is inspected at once.
        inspection.inputs = None;
        draft.look_again(Duration::from_secs(1));
    } else {
        // The interval grows with the loads that failed: inspections in between are good and would start it anew.
        let failures = draft.status.volumes.iter().map(|volume| volume.failures).max().unwrap_or(0);
        inspection.failures = failures.max(inspection.failures.saturating_add(1));
        inspection.next_attempt_at = Some(time(backoff::next(scene.now, inspection.failures, scene.uid)));
        inspected.bad = true;
    }
    inspected.validated = verdict;
    inspected.good = None;
    draft.status.inspection = Some(inspection);
}
