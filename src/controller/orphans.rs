//! Target claims that were left behind unpublished when their Checkpoint went. A thin I/O shell around one pure decision.
//!
//! Owner references take everything else along. A target with the policy `Retain` loses its owner reference right before it
//! is published; whoever deletes the Checkpoint in that moment leaves a claim that nobody fills and nobody owns.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, Preconditions},
};

use super::{
    calls::{absent, call},
    context::{Cached, Shared},
    error::Error,
};
use crate::api::{ANNOTATION_CHECKPOINT, ANNOTATION_PUBLISHED, LABEL_CHECKPOINT_UID, LABEL_MANAGED_BY, MANAGED_BY};

/// Whether the claim could be left behind, judged by the claim alone.
fn is_candidate(claim: &PersistentVolumeClaim) -> bool {
    let labels = claim.labels();
    labels.get(LABEL_MANAGED_BY).is_some_and(|manager| manager == MANAGED_BY)
        && labels.contains_key(LABEL_CHECKPOINT_UID)
        && claim.annotations().contains_key(ANNOTATION_CHECKPOINT)
        && !claim.annotations().contains_key(ANNOTATION_PUBLISHED)
        && claim.owner_references().is_empty()
        && claim.metadata.deletion_timestamp.is_none()
}

/// Whether the candidate is left behind: `checkpoint` is the UID of the live Checkpoint of that name, `volume` the
/// persistent volume that the claim names, if it exists. A volume that already points at the claim holds verified bytes.
fn is_left_behind(claim: &PersistentVolumeClaim, checkpoint: Option<&str>, volume: Option<&PersistentVolume>) -> bool {
    let owner = claim.labels().get(LABEL_CHECKPOINT_UID).map(String::as_str);
    let handed_over = volume.and_then(|volume| volume.spec.as_ref()?.claim_ref.as_ref()).is_some_and(|reference| {
        reference.name == claim.metadata.name
            && reference.namespace == claim.metadata.namespace
            && (reference.uid.is_none() || reference.uid == claim.metadata.uid)
    });
    owner.is_some() && checkpoint != owner && !handed_over
}

/// Looks at all cached claims and deletes those that are left behind. Errors are logged; the next sweep tries again.
pub async fn sweep(shared: &Shared) {
    for claim in shared.world.scopes.iter().flat_map(|scope| scope.claims.state_filter(is_candidate)) {
        match settle(shared, &claim).await {
            Ok(false) => {}
            Ok(true) => tracing::info!(
                namespace = claim.namespace().unwrap_or_default(),
                claim = claim.name_any(),
                "deleted a claim that was never published and whose Checkpoint is gone"
            ),
            Err(error) => {
                shared.metrics.error(error.class());
                tracing::warn!(claim = claim.name_any(), %error, "cannot clean up after a Checkpoint");
            }
        }
    }
}

async fn settle(shared: &Shared, claim: &PersistentVolumeClaim) -> Result<bool, Error> {
    let namespace = claim.namespace().unwrap_or_default();
    let client = &shared.client;
    let Some(name) = claim.annotations().get(ANNOTATION_CHECKPOINT) else { return Ok(false) };
    let checkpoints: Api<Cached> = Api::namespaced(client.clone(), &namespace);
    let checkpoint = call("get checkpoint", checkpoints.get_opt(name)).await?.and_then(|found| found.uid());
    let volume = match claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref()) {
        Some(name) => call("get persistentvolume", Api::all(client.clone()).get_opt(name)).await?,
        None => None,
    };
    if !is_left_behind(claim, checkpoint.as_deref(), volume.as_ref()) {
        return Ok(false);
    }
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), &namespace);
    let parameters = DeleteParams::background()
        .preconditions(Preconditions { uid: claim.uid(), resource_version: claim.resource_version() });
    match call("delete persistentvolumeclaim", claims.delete(&claim.name_any(), &parameters)).await {
        Ok(_) => Ok(true),
        // Somebody touched it since it was cached: the next sweep judges it anew.
        Err(error) if error.is_conflict() || absent(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn claim(change: impl FnOnce(&mut serde_json::Value)) -> PersistentVolumeClaim {
        let mut value = json!({
            "metadata": {
                "name": "llama", "namespace": "team", "uid": "claim-uid",
                "labels": { LABEL_MANAGED_BY: MANAGED_BY, LABEL_CHECKPOINT_UID: "checkpoint-uid" },
                "annotations": { ANNOTATION_CHECKPOINT: "llama" },
            },
            "spec": { "volumeName": "pv-1" },
        });
        change(&mut value);
        serde_json::from_value(value).unwrap()
    }

    fn volume(reference: &serde_json::Value) -> PersistentVolume {
        serde_json::from_value(json!({ "metadata": { "name": "pv-1" }, "spec": { "claimRef": reference } })).unwrap()
    }

    #[test]
    fn only_unowned_unpublished_claims_of_ours_are_candidates() {
        assert!(is_candidate(&claim(|_| {})));
        let owner = json!([{ "apiVersion": "v1", "kind": "X", "name": "x", "uid": "x" }]);
        assert!(!is_candidate(&claim(|value| value["metadata"]["ownerReferences"] = owner)));
        assert!(!is_candidate(&claim(|value| value["metadata"]["annotations"][ANNOTATION_PUBLISHED] = json!("{}"))));
        assert!(!is_candidate(&claim(|value| value["metadata"]["labels"][LABEL_MANAGED_BY] = json!("other"))));
        assert!(!is_candidate(&claim(|value| value["metadata"]["labels"] = json!({}))));
        let time = json!("2026-01-01T00:00:00Z");
        assert!(!is_candidate(&claim(|value| value["metadata"]["deletionTimestamp"] = time)));
    }

    #[test]
    fn a_claim_stays_while_its_checkpoint_lives_or_once_its_volume_was_handed_over() {
        let staging = volume(&json!({ "namespace": "team", "name": "llama-staging", "uid": "other" }));
        let handed = volume(&json!({ "namespace": "team", "name": "llama", "uid": "claim-uid" }));
        let earlier = volume(&json!({ "namespace": "team", "name": "llama", "uid": "an-earlier-claim" }));
        let claim = claim(|_| {});
        let table = [
            (Some("checkpoint-uid"), Some(&staging), false),
            (Some("checkpoint-uid"), None, false),
            (None, Some(&staging), true),
            (Some("recreated"), Some(&staging), true),
            (None, None, true),
            (None, Some(&handed), false),
            (Some("recreated"), Some(&handed), false),
            (None, Some(&earlier), true),
        ];
        for (checkpoint, volume, expected) in table {
            assert_eq!(is_left_behind(&claim, checkpoint, volume), expected, "{checkpoint:?} {volume:?}");
        }
    }
}
