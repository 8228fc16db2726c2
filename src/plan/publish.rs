//! Hands a loaded volume from the staging claim to the target, in steps that can each be repeated. Pure, no I/O.

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};

use crate::{
    api::{ANNOTATION_CLAIM, LABEL_ROLE, Phase, VolumeStatus},
    contract::{Reason, TaskKind},
};

use super::{
    Publication, claims, names,
    names::Role,
    scene::{Draft, Scene, State},
    validate::VolumeIntent,
    volume_status::{retire, set},
};

/// Starts the hand-over of a volume whose load was recorded, if everything is in place for it.
pub(super) fn begin(
    scene: &Scene<'_>,
    draft: &mut Draft,
    volume: &VolumeIntent,
    staging: &PersistentVolumeClaim,
    target: Option<&PersistentVolumeClaim>,
    status: &mut VolumeStatus,
) {
    let wait = |status: &mut VolumeStatus, reason, message: &str| {
        set(status, Phase::Publishing, &State::unknown(reason, message));
    };
    if scene.checkpoint.spec.suspend {
        wait(status, Reason::Suspended, "loaded; spec.suspend is true: nothing is published; set it to false to go on");
        return;
    }
    let pin = scene.checkpoint.spec.validation.digest.as_deref();
    if pin.is_some() && draft.status.digest.as_deref() != pin {
        wait(
            status,
            Reason::WaitingForVolume,
            "loaded; waits until validation.digest is compared with the whole content",
        );
        return;
    }
    if load_pods(scene, volume).next().is_some() {
        wait(status, Reason::WaitingForVolume, "loaded; waits until the worker's pod is gone");
        return;
    }
    let Some(target) = target else {
        wait(status, Reason::WaitingForVolume, "loaded; the claim is being made");
        return;
    };
    let persistent = claims::volume_name(staging).and_then(|name| scene.volume(name));
    let Some(persistent) = persistent.filter(|persistent| {
        claims::is_tied(persistent, staging)
            && claims::phase(staging) == "Bound"
            && claims::volume_name(target) == persistent.metadata.name.as_deref()
    }) else {
        wait(status, Reason::WaitingForVolume, "loaded; waits until the staging claim is bound");
        return;
    };
    let publication = Publication {
        checkpoint_uid: scene.uid.to_owned(),
        uri: scene.intent.uri.clone(),
        fingerprint: status.fingerprint.clone().unwrap_or_default(),
        filter: volume.filter_hash.clone(),
        digest: status.digest.clone().unwrap_or_default(),
        bytes: status.bytes_total.unwrap_or(0),
    };
    // The owner reference leaves first: from the hand-over on, deleting the Checkpoint must not delete the data.
    draft.actions.extend(claims::follow_policy(scene.checkpoint, target, volume.volume.deletion_policy));
    draft.actions.push(claims::hand_over(persistent, target, &publication));
    wait(status, Reason::WaitingForVolume, "the volume is being handed to the claim");
}

fn load_pods<'a>(scene: &'a Scene<'_>, volume: &'a VolumeIntent) -> impl Iterator<Item = &'a Pod> {
    scene.observed.pods.iter().filter(|pod| {
        let label = pod.metadata.labels.as_ref().and_then(|labels| labels.get(LABEL_ROLE)).map(String::as_str);
        let claim = pod.metadata.annotations.as_ref().and_then(|annotations| annotations.get(ANNOTATION_CLAIM));
        label == Some(TaskKind::Load.as_str()) && claim == Some(&volume.volume.claim_name)
    })
}

/// Goes on with a hand-over whose volume is tied to the target already. False when it is not.
pub(super) fn finish(
    scene: &Scene<'_>,
    draft: &mut Draft,
    volume: &VolumeIntent,
    target: &PersistentVolumeClaim,
    status: &mut VolumeStatus,
) -> bool {
    let persistent = claims::volume_name(target).and_then(|name| scene.volume(name));
    let Some(persistent) = persistent.filter(|persistent| claims::is_tied(persistent, target)) else { return false };
    let Some(publication) = claims::publication(persistent.metadata.annotations.as_ref()) else { return false };
    if publication.checkpoint_uid != scene.uid {
        return false;
    }
    retire(scene, draft, volume, None);
    status.fingerprint = Some(publication.fingerprint.clone());
    status.digest = Some(publication.digest.clone());
    let staging = scene.claim(&names::staging(scene.uid, &volume.volume));
    let staging = staging.filter(|claim| claims::is_ours(scene.checkpoint, claim, Role::Staging));
    let message = "the volume is being handed to the claim";
    set(status, Phase::Publishing, &State::unknown(Reason::WaitingForVolume, message));
    let released = staging.is_none_or(|staging| claims::phase(staging) == "Lost");
    if claims::phase(target) != "Bound" || !released {
        draft.actions.extend(claims::touch(target));
        draft.actions.extend(staging.filter(|_| !released).and_then(claims::touch));
        draft.look_again(std::time::Duration::from_secs(2));
        return true;
    }
    match staging {
        Some(staging) if staging.metadata.deletion_timestamp.is_none() => draft.actions.push(claims::delete(staging)),
        Some(_) => draft.look_again(std::time::Duration::from_secs(2)),
        None => draft.actions.push(claims::publish(scene.checkpoint, target, &publication)),
    }
    true
}

/// Keeps a published volume as the spec wants it.
pub(super) fn settled(
    scene: &Scene<'_>,
    draft: &mut Draft,
    volume: &VolumeIntent,
    claim: &PersistentVolumeClaim,
    publication: &Publication,
    status: &mut VolumeStatus,
) {
    retire(scene, draft, volume, None);
    let staging = scene.claim(&names::staging(scene.uid, &volume.volume));
    if let Some(staging) = staging.filter(|claim| {
        claims::is_ours(scene.checkpoint, claim, Role::Staging) && claim.metadata.deletion_timestamp.is_none()
    }) {
        draft.actions.push(claims::delete(staging));
    }
    draft.actions.extend(claims::follow_policy(scene.checkpoint, claim, volume.volume.deletion_policy));
    status.fingerprint = Some(publication.fingerprint.clone());
    status.digest = Some(publication.digest.clone());
    status.bytes_total = Some(publication.bytes);
    status.bytes_done = Some(publication.bytes);
    status.remaining_seconds = None;
    match claims::phase(claim) {
        "Bound" => {
            set(status, Phase::Published, &State::met(Reason::Published, ""));
            status.persistent_volume = claims::volume_name(claim).map(str::to_owned);
        }
        phase => {
            let message = format!(
                "claim {} is {phase}: its volume is gone; delete the claim to have it loaded anew",
                volume.volume.claim_name
            );
            set(status, Phase::Failed, &State::failed(Reason::WaitingForVolume, message));
        }
    }
}
