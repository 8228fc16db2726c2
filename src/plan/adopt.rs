//! Decides about a claim that an earlier Checkpoint left: hashed again by a worker, then taken over. Pure, no I/O.

use std::time::Duration;

use k8s_openapi::api::core::v1::PersistentVolumeClaim;

use crate::{
    api::{Phase, VolumeStatus},
    contract::{Outcome, Reason, TaskKind},
};

use super::{
    Publication,
    attempt::{self, Ended},
    claims,
    load::{begin, current_job, failed, follow, load_task, waits_for_retry},
    names,
    scene::{Draft, Scene, State},
    validate::VolumeIntent,
    volume_status::{Basis, set},
    worker_job::{self, JobRequest},
};

/// Takes over a claim that an earlier Checkpoint left, once a worker has hashed its files again.
pub(super) fn adopt(
    scene: &Scene<'_>,
    draft: &mut Draft,
    volume: &VolumeIntent,
    claim: &PersistentVolumeClaim,
    publication: &Publication,
    basis: &Basis<'_>,
    status: &mut VolumeStatus,
) {
    let name = &volume.volume.claim_name;
    let Some(fingerprint) = basis.good.or(basis.pinned) else {
        let message = format!("claim {name} was left by an earlier Checkpoint; it is looked at after the inspection");
        set(status, Phase::Pending, &State::unknown(Reason::WaitingForVolume, message));
        return;
    };
    if publication.fingerprint != fingerprint {
        let message = format!(
            "claim {name} was left by an earlier Checkpoint and holds other files than the source has now; delete the claim or choose another claimName"
        );
        set(status, Phase::Failed, &State::failed(Reason::ClaimConflict, message));
        draft.look_again(Duration::from_secs(30));
        return;
    }
    let inputs = names::hash(&("verify", publication, &claim.metadata.uid));
    let placement = volume.volume.placement.as_ref();
    let launch = worker_job::launch_hash(scene.checkpoint, placement, None, 1, None);
    let job = current_job(scene, draft, volume, TaskKind::Verify, &inputs, &launch, status.recorded_attempt);
    if let Some(job) = job {
        status.attempt = attempt::number(job);
        follow(scene, draft, job, TaskKind::Verify, status, |scene, draft, ended, status| {
            take_verification(scene, draft, &inputs, ended, status);
        });
        return;
    }
    if status.inputs.as_deref() == Some(&inputs) && status.phase == Phase::Publishing {
        let own = Publication { checkpoint_uid: scene.uid.to_owned(), ..publication.clone() };
        draft.actions.push(claims::publish(scene.checkpoint, claim, &own));
        return;
    }
    if waits_for_retry(scene, draft, status) {
        return;
    }
    let request = JobRequest {
        checkpoint: scene.checkpoint,
        task: load_task(scene, volume, TaskKind::Verify, fingerprint, Some(publication.digest.clone())),
        inline: None,
        inputs: inputs.clone(),
        attempt: status.recorded_attempt + 1,
        target: Some(name),
        volume: Some((name.clone(), true)),
        reuse: None,
        placement,
        node: None,
        revalidate: None,
    };
    begin(
        scene,
        draft,
        &request,
        Phase::Verifying,
        "a worker is being started to hash the files of the retained claim",
        status,
    );
}

fn take_verification(scene: &Scene<'_>, draft: &mut Draft, inputs: &str, ended: &Ended, status: &mut VolumeStatus) {
    if ended.report.outcome == Outcome::Good {
        status.inputs = Some(inputs.to_owned());
        status.failures = 0;
        status.bytes_done = status.bytes_total;
        status.remaining_seconds = None;
        set(
            status,
            Phase::Publishing,
            &State::unknown(Reason::Verifying, "the files are those that were published; the claim is taken over"),
        );
        draft.look_again(Duration::from_secs(1));
        return;
    }
    failed(scene, draft, ended, status);
    if ended.report.reason != Some(Reason::WorkerFailed) {
        let message = format!(
            "claim {} was left by an earlier Checkpoint and its files are not what was published: {}; delete the claim or choose another claimName",
            status.claim_name, ended.report.message
        );
        let next = status.next_attempt_at.clone();
        set(status, Phase::Failed, &State::failed(Reason::ClaimConflict, message));
        status.next_attempt_at = next;
        // What a retained claim holds says nothing of the source.
        draft.verdict = None;
    }
}
