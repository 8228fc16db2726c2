//! Builds staging and target claims, and the patches that hand a volume from one to the other. Pure, no I/O.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimSpec, VolumeResourceRequirements},
    apimachinery::pkg::api::resource::Quantity,
};
use serde_json::{Value, json};

use crate::api::{
    ANNOTATION_CLAIM, ANNOTATION_PUBLISHED, ANNOTATION_TOUCHED, AccessMode, Checkpoint, DeletionPolicy,
    LABEL_CHECKPOINT_UID, LABEL_MANAGED_BY, LABEL_ROLE, MANAGED_BY,
};

use super::{
    Action, Publication,
    names::{self, Role},
    quantity,
    validate::VolumeIntent,
};

/// The claim that a load fills.
#[must_use]
pub fn staging(checkpoint: &Checkpoint, volume: &VolumeIntent, name: String, bytes: u64) -> PersistentVolumeClaim {
    let annotations = [(ANNOTATION_CLAIM, volume.volume.claim_name.clone())];
    let modes = volume.access_modes();
    // One writer fills the volume; only a volume that many nodes will write must be made shared from the start. The
    // target's own modes are set on the volume when it is handed over.
    let mode =
        if modes.contains(&AccessMode::ReadWriteMany) { AccessMode::ReadWriteMany } else { AccessMode::ReadWriteOnce };
    PersistentVolumeClaim {
        metadata: names::metadata(checkpoint, name, Role::Staging, annotations),
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(vec![format!("{mode:?}")]),
            storage_class_name: volume.volume.storage_class_name.clone(),
            resources: Some(storage_request(quantity::exact(bytes))),
            ..PersistentVolumeClaimSpec::default()
        }),
        status: None,
    }
}

/// The claim that pods reference, tied to the staging claim's volume: it stays Pending until the volume is handed over.
#[must_use]
pub fn target(
    checkpoint: &Checkpoint,
    volume: &VolumeIntent,
    staging: &PersistentVolumeClaim,
    persistent_volume: &PersistentVolume,
) -> PersistentVolumeClaim {
    let name = volume.volume.claim_name.clone();
    let spec = staging.spec.clone().unwrap_or_default();
    let volume_spec = persistent_volume.spec.clone().unwrap_or_default();
    let capacity = volume_spec.capacity.and_then(|capacity| capacity.get("storage").cloned());
    PersistentVolumeClaim {
        metadata: names::metadata(checkpoint, name.clone(), Role::Target, [(ANNOTATION_CLAIM, name)]),
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(volume.access_modes().iter().map(|mode| format!("{mode:?}")).collect()),
            storage_class_name: volume_spec.storage_class_name.or(spec.storage_class_name),
            volume_mode: volume_spec.volume_mode.or(spec.volume_mode),
            volume_name: persistent_volume.metadata.name.clone(),
            resources: capacity.map_or(spec.resources, |quantity| Some(storage_request(quantity.0))),
            ..PersistentVolumeClaimSpec::default()
        }),
        status: None,
    }
}

fn storage_request(amount: String) -> VolumeResourceRequirements {
    VolumeResourceRequirements {
        requests: Some(BTreeMap::from([("storage".to_owned(), Quantity(amount))])),
        limits: None,
    }
}

/// The patch that ties a volume to the target claim instead of the staging claim. The resource version makes it fail when
/// anything about the volume changed since it was looked at.
#[must_use]
pub fn hand_over(volume: &PersistentVolume, target: &PersistentVolumeClaim, publication: &Publication) -> Action {
    let modes = target.spec.as_ref().and_then(|spec| spec.access_modes.clone()).unwrap_or_default();
    let patch = json!({
        "metadata": {
            "uid": volume.metadata.uid,
            "resourceVersion": volume.metadata.resource_version,
            "annotations": {ANNOTATION_PUBLISHED: text(publication)},
        },
        "spec": {
            "accessModes": modes,
            "claimRef": {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "namespace": target.metadata.namespace,
                "name": target.metadata.name,
                "uid": target.metadata.uid,
                "resourceVersion": null,
            },
        },
    });
    Action::PatchVolume { name: volume.metadata.name.clone().unwrap_or_default(), patch }
}

/// A patch of a claim's metadata that fails when the claim changed since it was looked at.
fn guarded(claim: &PersistentVolumeClaim, mut metadata: Value) -> Action {
    metadata["uid"] = json!(claim.metadata.uid);
    metadata["resourceVersion"] = json!(claim.metadata.resource_version);
    Action::PatchClaim { name: claim.metadata.name.clone().unwrap_or_default(), patch: json!({ "metadata": metadata }) }
}

/// Makes the volume binder look at a claim at once instead of at its next round.
#[must_use]
pub fn touch(claim: &PersistentVolumeClaim) -> Option<Action> {
    let done = annotation(claim, ANNOTATION_TOUCHED).is_some();
    // Without a resource version: the binder itself writes the claim at this moment, and a touch conflicts with nothing.
    (!done).then(|| Action::PatchClaim {
        name: claim.metadata.name.clone().unwrap_or_default(),
        patch: json!({"metadata": {"uid": claim.metadata.uid, "annotations": {ANNOTATION_TOUCHED: "true"}}}),
    })
}

/// Marks a claim as published by this Checkpoint, or takes over one that an earlier Checkpoint left.
#[must_use]
pub fn publish(checkpoint: &Checkpoint, claim: &PersistentVolumeClaim, publication: &Publication) -> Action {
    let name = claim.metadata.name.clone().unwrap_or_default();
    let uid = checkpoint.metadata.uid.as_deref().unwrap_or_default();
    guarded(
        claim,
        json!({
            "labels": {LABEL_MANAGED_BY: MANAGED_BY, LABEL_CHECKPOINT_UID: uid, LABEL_ROLE: Role::Target.as_str()},
            "annotations": {
                crate::api::ANNOTATION_CHECKPOINT: checkpoint.metadata.name,
                ANNOTATION_CLAIM: name,
                ANNOTATION_PUBLISHED: text(publication),
            },
        }),
    )
}

/// Sets or removes the owner reference as the deletion policy wants it; none when it is so already.
#[must_use]
pub fn follow_policy(checkpoint: &Checkpoint, claim: &PersistentVolumeClaim, policy: DeletionPolicy) -> Option<Action> {
    let uid = checkpoint.metadata.uid.as_deref().unwrap_or_default();
    let owned = owned_by(claim, uid);
    let mut references = claim.metadata.owner_references.clone().unwrap_or_default();
    match (policy, owned) {
        (DeletionPolicy::Retain, true) => references.retain(|reference| reference.uid != uid),
        (DeletionPolicy::Delete, false) => references.push(names::owner(checkpoint)),
        _ => return None,
    }
    Some(guarded(claim, json!({ "ownerReferences": references })))
}

/// Deletes a claim, and no other that has its name by then.
#[must_use]
pub fn delete(claim: &PersistentVolumeClaim) -> Action {
    Action::DeleteClaim {
        name: claim.metadata.name.clone().unwrap_or_default(),
        uid: claim.metadata.uid.clone().unwrap_or_default(),
    }
}

/// Whether the Checkpoint with this UID owns the claim.
#[must_use]
pub fn owned_by(claim: &PersistentVolumeClaim, uid: &str) -> bool {
    claim.metadata.owner_references.iter().flatten().any(|reference| reference.uid == uid)
}

/// Whether the claim is one of this Checkpoint's: by our labels, and by its owner or by the annotations that we write.
#[must_use]
pub fn is_ours(checkpoint: &Checkpoint, claim: &PersistentVolumeClaim, role: Role) -> bool {
    let uid = checkpoint.metadata.uid.as_deref().unwrap_or_default();
    let label = |key: &str| claim.metadata.labels.as_ref().and_then(|labels| labels.get(key)).map(String::as_str);
    let labelled = !uid.is_empty()
        && label(LABEL_CHECKPOINT_UID) == Some(uid)
        && label(LABEL_MANAGED_BY) == Some(MANAGED_BY)
        && label(LABEL_ROLE) == Some(role.as_str());
    let annotated = annotation(claim, crate::api::ANNOTATION_CHECKPOINT) == checkpoint.metadata.name.as_deref()
        && annotation(claim, ANNOTATION_CLAIM).is_some();
    labelled && (owned_by(claim, uid) || (role == Role::Target && annotated))
}

/// What the claim or volume says that it holds.
#[must_use]
pub fn publication(annotations: Option<&BTreeMap<String, String>>) -> Option<Publication> {
    serde_json::from_str(annotations?.get(ANNOTATION_PUBLISHED)?).ok()
}

/// An annotation of a claim.
#[must_use]
pub fn annotation<'a>(claim: &'a PersistentVolumeClaim, key: &str) -> Option<&'a str> {
    claim.metadata.annotations.as_ref().and_then(|annotations| annotations.get(key)).map(String::as_str)
}

/// `status.phase` of a claim.
#[must_use]
pub fn phase(claim: &PersistentVolumeClaim) -> &str {
    claim.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Pending")
}

/// `spec.volumeName` of a claim.
#[must_use]
pub fn volume_name(claim: &PersistentVolumeClaim) -> Option<&str> {
    claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref()).filter(|name| !name.is_empty())
}

/// Whether the volume is tied to exactly this claim, by namespace, name and UID.
#[must_use]
pub fn is_tied(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let reference = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
    reference.is_some_and(|reference| {
        claim.metadata.uid.is_some()
            && reference.uid == claim.metadata.uid
            && reference.name == claim.metadata.name
            && reference.namespace == claim.metadata.namespace
    })
}

fn text(publication: &Publication) -> String {
    serde_json::to_string(publication).unwrap_or_default()
}
