//! Computes all conditions from what was decided, and what to tell about their transitions. Pure, no I/O.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::{
    api::{CheckpointStatus, Phase, VolumeStatus},
    contract::{ConditionType, Reason, report::clean},
};

use super::{
    EventDraft,
    inspection::Inspected,
    scene::{Scene, State, Truth, time},
};

/// Reasons after which nothing changes until a person or another object does something.
fn is_stalled(reason: Reason) -> bool {
    use Reason as R;
    matches!(
        reason,
        R::NotFound
            | R::AccessDenied
            | R::TlsFailed
            | R::InsecureEndpoint
            | R::InvalidPath
            | R::SourceInUse
            | R::Incomplete
            | R::Corrupt
            | R::UnsafePickle
            | R::UnsafeCode
            | R::FormatNotAllowed
            | R::MissingRequiredFile
            | R::DigestMismatch
            | R::Empty
            | R::InvalidSpec
            | R::StorageClassNotFound
            | R::InsufficientSpace
            | R::ClaimConflict
            | R::BypassedByProvisioner
            | R::WorkerNotStarting
            | R::WorkerForbidden
            | R::QuotaExceeded
            | R::Suspended
    )
}

/// Fills in all conditions.
pub(super) fn conclude(scene: &Scene<'_>, status: &mut CheckpointStatus, inspected: &Inspected) {
    let materialized = materialized(status);
    let parts = [&inspected.reachable, &inspected.validated, &materialized];
    let unmet = parts.into_iter().find(|state| state.truth != Truth::True);
    let ready = unmet.map_or_else(
        || State::met(Reason::Ready, "validated; pods can use it"),
        |state| State { truth: state.truth, reason: state.reason, message: state.message.clone() },
    );
    // A bad verdict names itself: the source being reachable or the volumes waiting is not the news.
    let stalled = parts.into_iter().find(|state| state.truth != Truth::True && is_stalled(state.reason)).map_or_else(
        || State::failed(Reason::Progressing, ""),
        |state| State::met(state.reason, state.message.clone()),
    );
    let all = [
        (ConditionType::SourceReachable, inspected.reachable.clone()),
        (ConditionType::Validated, inspected.validated.clone()),
        (ConditionType::Materialized, materialized),
        (ConditionType::Ready, ready),
        (ConditionType::Stalled, stalled),
        (ConditionType::Drifted, inspected.drifted.clone()),
    ];
    let generation = scene.checkpoint.metadata.generation;
    status.observed_generation = generation;
    status.progress = progress(&status.volumes);
    let before = std::mem::take(&mut status.conditions);
    status.conditions = all
        .into_iter()
        .map(|(kind, state)| {
            let value = match state.truth {
                Truth::True => "True",
                Truth::False => "False",
                Truth::Unknown => "Unknown",
            };
            let same = before.iter().find(|old| old.type_ == kind.as_str() && old.status == value);
            Condition {
                type_: kind.as_str().to_owned(),
                status: value.to_owned(),
                reason: state.reason.as_str().to_owned(),
                message: state.message,
                observed_generation: generation,
                last_transition_time: same.map_or_else(|| time(scene.now), |old| old.last_transition_time.clone()),
            }
        })
        .collect();
}

fn materialized(status: &CheckpointStatus) -> State {
    let volumes = &status.volumes;
    let Some(first) = volumes
        .iter()
        .find(|volume| volume.phase == Phase::Failed)
        .or_else(|| volumes.iter().find(|volume| volume.phase != Phase::Published))
    else {
        return if volumes.is_empty() {
            State::met(Reason::NotRequested, "spec.volumes is empty: the checkpoint is only validated")
        } else {
            State::met(Reason::Published, format!("{} of {} volumes are published", volumes.len(), volumes.len()))
        };
    };
    let published = volumes.iter().filter(|volume| volume.phase == Phase::Published).count();
    let reason = Reason::parse(&first.reason).unwrap_or(Reason::WaitingForVolume);
    let truth = if first.phase == Phase::Failed { Truth::False } else { Truth::Unknown };
    let rest = if volumes.len() > 1 {
        format!(" ({published} of {} volumes are published)", volumes.len())
    } else {
        String::new()
    };
    State::new(truth, reason, format!("{}: {}{rest}", first.claim_name, first.message))
}

fn progress(volumes: &[VolumeStatus]) -> Option<String> {
    let total: i64 =
        volumes.iter().map(|volume| volume.bytes_total).sum::<Option<i64>>().filter(|_| !volumes.is_empty())?;
    let done: i64 =
        volumes.iter().map(|volume| volume.bytes_done.unwrap_or(0).min(volume.bytes_total.unwrap_or(0))).sum();
    let all = volumes.iter().all(|volume| volume.phase == Phase::Published);
    let percent = if all { 100 } else { done.saturating_mul(100).checked_div(total).unwrap_or(0).min(99) };
    Some(format!("{percent}%"))
}

/// What to tell about: transitions into good and bad states, not the steps in between.
pub(super) fn events(before: Option<&CheckpointStatus>, after: &CheckpointStatus) -> Vec<EventDraft> {
    let state = |status: &CheckpointStatus, kind| State::of(status, kind);
    let told = [
        ConditionType::SourceReachable,
        ConditionType::Validated,
        ConditionType::Materialized,
        ConditionType::Ready,
        ConditionType::Drifted,
    ];
    told.into_iter()
        .filter_map(|kind| {
            let new = state(after, kind)?;
            let old = before.and_then(|status| state(status, kind));
            let same = old.is_some_and(|old| old.truth == new.truth && old.reason == new.reason);
            let worth = match kind {
                ConditionType::Ready | ConditionType::Drifted => new.truth == Truth::True,
                ConditionType::SourceReachable => new.truth != Truth::True && new.reason != Reason::Checking,
                _ => {
                    new.truth != Truth::Unknown
                        && new.reason != Reason::NotRequested
                        && new.reason != Reason::WaitingForVolume
                        || is_stalled(new.reason)
                        || new.reason == Reason::Loading
                }
            };
            let warning = match kind {
                ConditionType::Drifted => true,
                _ => new.truth == Truth::False || is_stalled(new.reason) || new.reason == Reason::WorkerFailed,
            };
            let note = if new.message.is_empty() { new.reason.as_str().to_owned() } else { clean(&new.message, 1000) };
            (!same && worth).then_some(EventDraft { warning, condition: kind, reason: new.reason, note })
        })
        .collect()
}
