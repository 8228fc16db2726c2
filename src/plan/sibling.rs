//! Decides whether a load mounts the claim of `reuseFrom`. It saves time only, so nothing that is wrong with it may keep a load
//! from starting: without it, everything is fetched. Pure, no I/O.

use jiff::SignedDuration;
use k8s_openapi::api::{batch::v1::Job, core::v1::PersistentVolumeClaim};

use crate::{api::VolumeStatus, contract::TaskKind};

use super::{
    attempt, claims,
    scene::{Draft, Scene},
    source_claim::{is_foreign, mounts},
    validate::VolumeIntent,
};

/// How long a pod with the claim may be without a node.
const UNSCHEDULED: SignedDuration = SignedDuration::from_secs(60);
/// How long a pod with the claim may take to start. A claim that is attached to another node keeps it from starting for ever.
const STARTING: SignedDuration = SignedDuration::from_mins(5);

/// The claim that a load mounts besides, and the node that its pods must join.
#[derive(Debug, Default, Eq, PartialEq)]
pub(super) struct Sibling {
    pub claim: Option<String>,
    pub node: Option<String>,
}

/// Chooses, and notes in the status why nothing is taken from the claim. `node` is where the source has to be read.
pub(super) fn choose(
    scene: &Scene<'_>,
    draft: &mut Draft,
    volume: &VolumeIntent,
    staging: &PersistentVolumeClaim,
    inputs: &str,
    node: Option<String>,
    status: &mut VolumeStatus,
) -> Sibling {
    let Some(name) = volume.volume.reuse_from.as_deref() else { return Sibling { claim: None, node } };
    let (target, recorded) = (Some(volume.volume.claim_name.as_str()), status.recorded_attempt);
    let awaited = |job: &&Job| attempt::is_awaited(job, TaskKind::Load, target, inputs, recorded);
    let chosen = match scene.observed.jobs.iter().find(awaited) {
        // What runs is left alone, and what was begun without the claim goes on without it.
        Some(job) if !is_mounted(job, name) => Err(status
            .reuse_skipped
            .clone()
            .unwrap_or_else(|| format!("the load had begun before {name} could be used"))),
        Some(job) if attempt::has_started(scene.observed, job) => {
            return Sibling { claim: Some(name.to_owned()), node: node.or_else(|| held_by(scene, name)) };
        }
        Some(job) if hangs(scene, job) => Err(hanging(name)),
        Some(_) => {
            draft.look_again(std::time::Duration::from_secs(30));
            usable(scene, name, staging, node.as_deref())
        }
        None if status.reuse_skipped.as_deref() == Some(&hanging(name)) => Err(hanging(name)),
        None => usable(scene, name, staging, node.as_deref()),
    };
    match chosen {
        Ok(held_by) => {
            status.reuse_skipped = None;
            Sibling { claim: Some(name.to_owned()), node: node.or(held_by) }
        }
        Err(why) => {
            status.reuse_skipped = Some(why);
            Sibling { claim: None, node }
        }
    }
}

fn hanging(name: &str) -> String {
    format!("a pod that mounts claim {name} did not start; everything is fetched")
}

fn is_mounted(job: &Job, claim: &str) -> bool {
    let spec = job.spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
    mounts(spec, claim)
}

/// Whether the pods of a Job do not start.
fn hangs(scene: &Scene<'_>, job: &Job) -> bool {
    attempt::pods_of(scene.observed, job).any(|pod| {
        let created = pod.metadata.creation_timestamp.as_ref().map_or(scene.now, |time| time.0);
        let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
        let unscheduled = conditions.into_iter().any(|found| found.type_ == "PodScheduled" && found.status == "False");
        scene.now.duration_since(created) > if unscheduled { UNSCHEDULED } else { STARTING }
    })
}

/// Why the claim cannot be used, or the node where it can.
fn usable(
    scene: &Scene<'_>,
    name: &str,
    staging: &PersistentVolumeClaim,
    node: Option<&str>,
) -> Result<Option<String>, String> {
    let without = |why: String| Err(format!("claim {name} {why}; everything is fetched"));
    let Some(claim) = scene.claim(name) else { return without("does not exist in this namespace".to_owned()) };
    if claim.metadata.deletion_timestamp.is_some() {
        return without("is being deleted".to_owned());
    }
    if claims::phase(claim) != "Bound" {
        return without(format!("is {}: nothing is published in it", claims::phase(claim)));
    }
    let spec = claim.spec.clone().unwrap_or_default();
    if spec.volume_mode.as_deref() == Some("Block") {
        return without("is a block device and holds no files".to_owned());
    }
    if spec.access_modes.iter().flatten().any(|mode| mode == "ReadWriteOncePod") {
        return without("is ReadWriteOncePod: only one pod may mount it".to_owned());
    }
    let affinity = |claim: &PersistentVolumeClaim| {
        let volume = claims::volume_name(claim).and_then(|name| scene.volume(name))?;
        volume.spec.as_ref()?.node_affinity.clone()
    };
    if let (Some(theirs), Some(ours)) = (affinity(claim), affinity(staging))
        && theirs != ours
    {
        return without("lies on other nodes than the volume that is loaded".to_owned());
    }
    let held_by = held_by(scene, name);
    match (&held_by, node) {
        (Some(theirs), Some(source)) if theirs != source => {
            without(format!("is in use on node {theirs}, the source on node {source}"))
        }
        _ => Ok(held_by),
    }
}

/// The node whose pods use the claim, when no other node's may.
fn held_by(scene: &Scene<'_>, name: &str) -> Option<String> {
    let modes = scene.claim(name)?.spec.as_ref()?.access_modes.clone().unwrap_or_default();
    if modes.iter().any(|mode| mode == "ReadWriteMany" || mode == "ReadOnlyMany") {
        return None;
    }
    let users = scene.observed.source_pods.iter().filter(|pod| is_foreign(scene, pod));
    let mut users = users.filter(|pod| mounts(pod.spec.as_ref(), name));
    users.find_map(|pod| pod.spec.as_ref()?.node_name.clone())
}
