//! Decides what the claim of a volume's name is to us, and so what is to be done about it. Pure, no I/O.

use std::time::Duration;

use k8s_openapi::api::core::v1::PersistentVolumeClaim;

use crate::{
    api::{ANNOTATION_CLAIM, GROUP, Phase},
    contract::Reason,
};

use super::{
    Publication,
    adopt::adopt,
    claims,
    load::load,
    names::Role,
    publish,
    scene::{Draft, Scene, State},
    validate::VolumeIntent,
    volume_status::{Basis, retire, set},
};

/// What the claim of a volume's name is to us.
enum Standing<'a> {
    /// There is none.
    Absent,
    /// Ours, and not published yet.
    Ours(&'a PersistentVolumeClaim),
    /// Ours, and published.
    Published(&'a PersistentVolumeClaim, Publication),
    /// Left by an earlier Checkpoint that is gone.
    Retained(&'a PersistentVolumeClaim, Publication),
    /// On its way out.
    Leaving,
    /// Not ours.
    Foreign(State),
}

fn standing<'a>(scene: &'a Scene<'_>, volume: &VolumeIntent) -> Standing<'a> {
    let name = &volume.volume.claim_name;
    let Some(claim) = scene.claim(name) else { return Standing::Absent };
    let ours = claims::is_ours(scene.checkpoint, claim, Role::Target);
    if claim.metadata.deletion_timestamp.is_some() {
        return Standing::Leaving;
    }
    let publication =
        claims::publication(claim.metadata.annotations.as_ref()).or_else(|| left_in_hand_over(scene, claim, ours));
    let conflict = |message: String| Standing::Foreign(State::failed(Reason::ClaimConflict, message));
    match publication {
        Some(publication) if publication.filter != volume.filter_hash || publication.uri != scene.intent.uri => {
            conflict(format!(
                "claim {name} holds another selection or another checkpoint ({}); delete the claim or choose another claimName",
                publication.uri
            ))
        }
        Some(publication) if ours && publication.checkpoint_uid == scene.uid => Standing::Published(claim, publication),
        Some(publication)
            if scene.observed.live_uids.contains(&publication.checkpoint_uid) || has_other_owner(scene, claim) =>
        {
            conflict(format!(
                "claim {name} belongs to another Checkpoint (UID {}); choose another claimName",
                publication.checkpoint_uid
            ))
        }
        Some(publication) => Standing::Retained(claim, publication),
        None if ours => Standing::Ours(claim),
        None if asks_for_us(scene, claim) => Standing::Foreign(State::failed(
            Reason::BypassedByProvisioner,
            format!(
                "claim {name} names this Checkpoint as its data source, but its storage class has no CSI driver and Kubernetes \
                 gave it an empty volume; delete the claim: this Checkpoint makes one of that name"
            ),
        )),
        None => conflict(format!(
            "claim {name} exists and is not ours; it stays untouched: delete it or choose another claimName"
        )),
    }
}

/// What a claim holds whose Checkpoint was deleted between the hand-over of the volume and the claim's own mark.
fn left_in_hand_over(scene: &Scene<'_>, claim: &PersistentVolumeClaim, ours: bool) -> Option<Publication> {
    let volume = claims::volume_name(claim).and_then(|name| scene.volume(name)).filter(|_| !ours)?;
    let publication = claims::publication(volume.metadata.annotations.as_ref())?;
    (claims::is_tied(volume, claim) && claims::annotation(claim, ANNOTATION_CLAIM).is_some()).then_some(publication)
}

fn has_other_owner(scene: &Scene<'_>, claim: &PersistentVolumeClaim) -> bool {
    claim.metadata.owner_references.iter().flatten().any(|owner| owner.uid != scene.uid)
}

fn asks_for_us(scene: &Scene<'_>, claim: &PersistentVolumeClaim) -> bool {
    let source = claim.spec.as_ref().and_then(|spec| spec.data_source_ref.as_ref());
    claims::phase(claim) == "Bound"
        && source.is_some_and(|source| {
            source.api_group.as_deref() == Some(GROUP)
                && source.kind == "Checkpoint"
                && Some(&source.name) == scene.checkpoint.metadata.name.as_ref()
        })
}

/// The fingerprint of what is published already by this Checkpoint.
pub(super) fn pinned(scene: &Scene<'_>) -> Option<String> {
    scene.intent.volumes.iter().find_map(|volume| match standing(scene, volume) {
        Standing::Published(_, publication) => Some(publication.fingerprint),
        _ => None,
    })
}

/// Decides about one volume; what comes of it is in its status.
pub(super) fn decide(scene: &Scene<'_>, draft: &mut Draft, volume: &VolumeIntent, index: usize, basis: &Basis<'_>) {
    let mut status = draft.status.volumes[index].clone();
    match standing(scene, volume) {
        Standing::Published(claim, publication) => {
            publish::settled(scene, draft, volume, claim, &publication, &mut status);
        }
        Standing::Leaving => {
            retire(scene, draft, volume, None);
            let message =
                format!("claim {} is being deleted; it is made anew once it is gone", volume.volume.claim_name);
            draft.look_again(Duration::from_secs(10));
            set(&mut status, Phase::Pending, &State::unknown(Reason::WaitingForVolume, message));
        }
        Standing::Foreign(state) => {
            retire(scene, draft, volume, None);
            draft.look_again(Duration::from_secs(30));
            set(&mut status, Phase::Failed, &state);
        }
        Standing::Retained(claim, publication) => adopt(scene, draft, volume, claim, &publication, basis, &mut status),
        Standing::Ours(claim) => load(scene, draft, volume, Some(claim), basis, &mut status),
        Standing::Absent => load(scene, draft, volume, None, basis, &mut status),
    }
    draft.status.volumes[index] = status;
}
