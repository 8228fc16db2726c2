//! Decides about the staging claim of a volume and the target claim that is made early. Pure, no I/O.

use std::time::Duration;

use k8s_openapi::api::{core::v1::PersistentVolumeClaim, storage::v1::StorageClass};

use crate::{
    api::{Phase, VolumeStatus},
    contract::Reason,
};

use super::{
    Action, claims,
    names::Role,
    quantity,
    scene::{Draft, Scene, State},
    validate::VolumeIntent,
    volume_status::{retire, set},
};

/// The staging claim, made if it is not there; none when it has to be waited for.
pub(super) fn claim<'a>(
    scene: &'a Scene<'_>,
    draft: &mut Draft,
    volume: &VolumeIntent,
    name: &str,
    status: &mut VolumeStatus,
) -> Option<&'a PersistentVolumeClaim> {
    let total = u64::try_from(status.bytes_total.unwrap_or(0)).unwrap_or(0);
    let required = u64::try_from(status.bytes_required.unwrap_or(0)).unwrap_or(0);
    let size = volume.size.unwrap_or(required);
    if size < total {
        let message = format!(
            "volumes[].size is {}, the files need {}; add an entry with another claimName and a larger size, or leave size out",
            quantity::human(size),
            quantity::human(required)
        );
        retire(scene, draft, volume, None);
        set(status, Phase::Failed, &State::failed(Reason::InsufficientSpace, message));
        return None;
    }
    match scene.claim(name) {
        Some(claim) if claim.metadata.deletion_timestamp.is_some() => {
            draft.look_again(Duration::from_secs(5));
            let message = "an earlier staging claim is being deleted";
            set(status, Phase::Pending, &State::unknown(Reason::WaitingForVolume, message));
            None
        }
        Some(claim) if !claims::is_ours(scene.checkpoint, claim, Role::Staging) => {
            draft.look_again(Duration::from_secs(30));
            let message =
                format!("claim {name} exists and is not ours; delete it: its name is needed to stage the load");
            set(status, Phase::Failed, &State::failed(Reason::ClaimConflict, message));
            None
        }
        Some(claim) if claims::phase(claim) == "Lost" || is_too_small(claim, size) => {
            retire(scene, draft, volume, None);
            draft.actions.push(claims::delete(claim));
            let message = "the staging claim lost its volume or is too small by now; it is made anew";
            set(status, Phase::Pending, &State::unknown(Reason::WaitingForVolume, message));
            None
        }
        Some(claim) => Some(claim),
        None => {
            make_staging(scene, draft, volume, name, size, status);
            None
        }
    }
}

fn is_too_small(claim: &PersistentVolumeClaim, size: u64) -> bool {
    let requests = claim.spec.as_ref().and_then(|spec| spec.resources.as_ref()?.requests.as_ref());
    let asked = requests.and_then(|requests| quantity::bytes(&requests.get("storage")?.0));
    asked.is_some_and(|asked| asked < size)
}

fn make_staging(
    scene: &Scene<'_>,
    draft: &mut Draft,
    volume: &VolumeIntent,
    name: &str,
    size: u64,
    status: &mut VolumeStatus,
) {
    retire(scene, draft, volume, None);
    if let Err(message) = storage_class(&scene.observed.storage_classes, volume) {
        draft.look_again(Duration::from_secs(30));
        set(status, Phase::Failed, &State::failed(Reason::StorageClassNotFound, message));
        return;
    }
    // Whatever an earlier volume held is not in this one.
    status.bytes_done = None;
    let claim = claims::staging(scene.checkpoint, volume, name.to_owned(), size);
    let action = Action::CreateClaim(Box::new(claim));
    let refusal = scene.refusal(&action.object());
    draft.actions.push(action);
    if let Some(trouble) = refusal {
        draft.look_again(Duration::from_secs(30));
        set(status, Phase::Failed, &State::failed(trouble.reason, trouble.message));
    } else {
        let message = "a volume is being made for the load";
        set(status, Phase::Pending, &State::unknown(Reason::WaitingForVolume, message));
    }
}

fn storage_class(classes: &[StorageClass], volume: &VolumeIntent) -> Result<(), String> {
    const DEFAULT: &str = "storageclass.kubernetes.io/is-default-class";
    let existing = || {
        let names: Vec<_> = classes.iter().filter_map(|class| class.metadata.name.as_deref()).take(10).collect();
        if names.is_empty() { "there is none".to_owned() } else { format!("there are: {}", names.join(", ")) }
    };
    match &volume.volume.storage_class_name {
        Some(name) if classes.iter().any(|class| class.metadata.name.as_ref() == Some(name)) => Ok(()),
        Some(name) => Err(format!(
            "storage class {name} does not exist ({}); create it, or add a volume entry with another one",
            existing()
        )),
        None => {
            let is_default = |class: &StorageClass| {
                let annotations = class.metadata.annotations.as_ref();
                annotations.and_then(|annotations| annotations.get(DEFAULT)).is_some_and(|value| value == "true")
            };
            if classes.iter().any(is_default) {
                Ok(())
            } else {
                Err(format!(
                    "the cluster has no default storage class; set volumes[].storageClassName ({})",
                    existing()
                ))
            }
        }
    }
}

/// Makes the claim that pods reference as soon as the staging claim has its volume, so that they wait as Pending.
pub(super) fn early_target(
    scene: &Scene<'_>,
    draft: &mut Draft,
    volume: &VolumeIntent,
    staging: &PersistentVolumeClaim,
    target: Option<&PersistentVolumeClaim>,
) -> Result<(), State> {
    let Some(name) = claims::volume_name(staging).filter(|_| claims::phase(staging) == "Bound") else { return Ok(()) };
    let Some(persistent_volume) = scene.volume(name).filter(|persistent| claims::is_tied(persistent, staging)) else {
        return Ok(());
    };
    match target {
        Some(target) if claims::volume_name(target) != Some(name) => {
            // The staging volume was replaced; an unpublished target follows it.
            draft.actions.push(claims::delete(target));
            Ok(())
        }
        Some(_) => Ok(()),
        None => {
            let claim = claims::target(scene.checkpoint, volume, staging, persistent_volume);
            let action = Action::CreateClaim(Box::new(claim));
            let refusal = scene.refusal(&action.object());
            draft.actions.push(action);
            refusal.map_or(Ok(()), |trouble| {
                draft.look_again(Duration::from_secs(30));
                Err(State::failed(trouble.reason, trouble.message))
            })
        }
    }
}
