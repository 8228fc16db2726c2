//! What all decisions about a volume share: what they rest on, how they note its state, how they retire its Jobs. Pure, no I/O.

use k8s_openapi::api::batch::v1::Job;

use crate::{
    api::{Phase, VolumeStatus},
    contract::TaskKind,
};

use super::{
    attempt,
    scene::{Draft, Scene, State},
    validate::VolumeIntent,
};

/// What the volumes need to know of the source.
pub(super) struct Basis<'a> {
    /// Fingerprint of the listing that was judged good, if one was.
    pub good: Option<&'a str>,
    /// Whether the verdict is bad.
    pub bad: bool,
    /// Fingerprint of what other volumes of this Checkpoint hold already.
    pub pinned: Option<&'a str>,
}

/// Writes phase, reason and message.
pub(super) fn set(status: &mut VolumeStatus, phase: Phase, state: &State) {
    status.phase = phase;
    state.reason.as_str().clone_into(&mut status.reason);
    status.message.clone_from(&state.message);
    if phase != Phase::Failed {
        status.next_attempt_at = None;
    }
    if phase != Phase::Published {
        status.persistent_volume = None;
    }
    if matches!(phase, Phase::Pending | Phase::Failed) {
        // Nothing moves.
        status.bytes_per_second = None;
        status.remaining_seconds = None;
    }
}

/// Deletes the volume's Jobs, except the one to keep.
pub(super) fn retire(scene: &Scene<'_>, draft: &mut Draft, volume: &VolumeIntent, keep: Option<&Job>) {
    let name = Some(volume.volume.claim_name.as_str());
    for job in &scene.observed.jobs {
        let serves = attempt::serves(job, TaskKind::Load, name) || attempt::serves(job, TaskKind::Verify, name);
        if serves && keep.is_none_or(|keep| keep.metadata.uid != job.metadata.uid) {
            draft.retire(job);
        }
    }
}
