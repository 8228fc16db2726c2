//! Retires what belongs to volumes that are no longer in the spec. Pure, no I/O.

use crate::{
    api::{ANNOTATION_CLAIM, LABEL_ROLE},
    contract::TaskKind,
};

use super::{
    attempt, claims,
    names::{self, Role},
    scene::{Draft, Scene},
};

/// Deletes Jobs, staging claims and unpublished targets of removed entries, and published targets that were to be deleted
/// with their entry (which those are by their owner reference). Retained claims stay.
pub(super) fn removed_volumes(scene: &Scene<'_>, draft: &mut Draft) {
    let wanted = |name: &str| scene.checkpoint.spec.volumes.iter().any(|volume| volume.claim_name == name);
    for job in &scene.observed.jobs {
        let claim = attempt::annotation(job, ANNOTATION_CLAIM);
        let role = job.metadata.labels.as_ref().and_then(|labels| labels.get(LABEL_ROLE)).map(String::as_str);
        let inspects = role == Some(TaskKind::Inspect.as_str());
        if !inspects && !claim.is_some_and(wanted) {
            draft.retire(job);
        }
    }
    let staging_names: Vec<_> =
        scene.checkpoint.spec.volumes.iter().map(|volume| names::staging(scene.uid, volume)).collect();
    for claim in scene.observed.claims.iter().filter(|claim| claim.metadata.deletion_timestamp.is_none()) {
        let name = claim.metadata.name.as_deref().unwrap_or_default();
        let owned = claims::owned_by(claim, scene.uid);
        let goes = if claims::is_ours(scene.checkpoint, claim, Role::Staging) {
            !staging_names.iter().any(|wanted| wanted == name)
        } else if claims::is_ours(scene.checkpoint, claim, Role::Target) {
            !wanted(name) && (owned || !is_handed_over(scene, claim))
        } else {
            false
        };
        if goes {
            draft.actions.push(claims::delete(claim));
        }
    }
}

/// Whether the claim has a volume of its own: then it holds verified data and is not ours to delete without its owner reference.
fn is_handed_over(scene: &Scene<'_>, claim: &k8s_openapi::api::core::v1::PersistentVolumeClaim) -> bool {
    claims::publication(claim.metadata.annotations.as_ref()).is_some()
        || claims::volume_name(claim)
            .and_then(|name| scene.volume(name))
            .is_some_and(|volume| claims::is_tied(volume, claim))
}
