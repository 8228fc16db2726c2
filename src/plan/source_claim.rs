//! Checks a claim that is the source, as far as it can be seen without mounting it. Pure, no I/O.

use k8s_openapi::api::core::v1::{Pod, PodSpec};

use crate::{
    api::LABEL_CHECKPOINT_UID,
    contract::{Reason, Source},
};

use super::{
    claims,
    scene::{Scene, State},
};

/// Checks a claim that is the source, as far as it can be seen without mounting it; the node that pods must join.
pub(super) fn check(scene: &Scene<'_>) -> Result<Option<String>, State> {
    let Source::Claim { claim_name, .. } = &scene.intent.source else { return Ok(None) };
    let Some(claim) = scene.claim(claim_name) else {
        return Err(State::failed(
            Reason::NotFound,
            format!(
                "claim {claim_name} does not exist in this namespace; create it, or name another claim in a new Checkpoint"
            ),
        ));
    };
    if claims::phase(claim) != "Bound" {
        let phase = claims::phase(claim);
        return Err(State::failed(
            Reason::WaitingForVolume,
            format!("claim {claim_name} is {phase}; a claim must be Bound and filled before it can be a source"),
        ));
    }
    let modes = claim.spec.as_ref().and_then(|spec| spec.access_modes.clone()).unwrap_or_default();
    let shared = modes.iter().any(|mode| mode == "ReadWriteMany" || mode == "ReadOnlyMany");
    let using = scene.observed.source_pods.iter().filter(|pod| mounts(pod.spec.as_ref(), claim_name));
    let users: Vec<_> = using.filter(|pod| is_foreign(scene, pod)).collect();
    if modes.iter().any(|mode| mode == "ReadWriteOncePod")
        && let Some(pod) = users.first()
    {
        let pod = pod.metadata.name.as_deref().unwrap_or_default();
        return Err(State::failed(
            Reason::SourceInUse,
            format!("claim {claim_name} is ReadWriteOncePod and pod {pod} uses it; it is read once the pod is gone"),
        ));
    }
    let node = users.iter().find_map(|pod| pod.spec.as_ref().and_then(|spec| spec.node_name.clone()));
    Ok(if shared { None } else { node })
}

/// Whether a pod mounts this claim.
pub(super) fn mounts(spec: Option<&PodSpec>, claim: &str) -> bool {
    let volumes = spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let mut claims = volumes.filter_map(|volume| volume.persistent_volume_claim.as_ref());
    claims.any(|mounted| mounted.claim_name == claim)
}

/// Whether a pod is none of this Checkpoint's and may still run.
pub(super) fn is_foreign(scene: &Scene<'_>, pod: &Pod) -> bool {
    let labels = pod.metadata.labels.as_ref();
    let ours = labels.and_then(|labels| labels.get(LABEL_CHECKPOINT_UID)).map(String::as_str);
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    ours != Some(scene.uid) && !matches!(phase, Some("Succeeded" | "Failed"))
}
