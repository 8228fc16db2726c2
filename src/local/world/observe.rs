//! What the world looks like to one Checkpoint. Pure, no I/O.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Pod;

use crate::{
    api::{Checkpoint, LABEL_CHECKPOINT_UID},
    plan::{Observed, interests},
};

use super::{
    World,
    binder::{mounted_claims, volume_name},
    owners, uid_of,
};

impl World {
    /// All that a plan for this Checkpoint is made from, read at one point in time.
    #[must_use]
    pub fn observe(&self, checkpoint: &Checkpoint) -> Observed {
        let uid = uid_of(&checkpoint.metadata);
        let interests = interests(checkpoint);
        let jobs: Vec<_> = self.jobs.values().filter(|job| is_of(*job, uid)).cloned().collect();
        let named = interests.claims.iter().chain(&interests.source_claim).collect::<BTreeSet<_>>();
        let claims: Vec<_> = self
            .claims
            .iter()
            .filter(|(name, claim)| named.contains(name) || is_of(*claim, uid))
            .map(|(_, claim)| claim.clone())
            .collect();
        let volume_names: BTreeSet<_> = claims.iter().filter_map(volume_name).collect();
        let read: BTreeSet<&str> =
            interests.source_claim.iter().chain(&interests.siblings).map(String::as_str).collect();
        let reads = |pod: &&Pod| mounted_claims(pod.spec.as_ref()).any(|name| read.contains(name));
        let waits = |name: &str| {
            jobs.iter().any(|job| {
                let pods = self.pods.values().flat_map(|pod| owners(&pod.metadata));
                job.metadata.name.as_deref() == Some(name)
                    && !pods.into_iter().any(|owner| owner.uid == uid_of(&job.metadata))
            })
        };
        Observed {
            checkpoint: checkpoint.clone(),
            pods: self.pods.values().filter(|pod| is_of(*pod, uid)).cloned().collect(),
            progress: self.progress.clone(),
            job_events: self.job_events.iter().filter(|event| waits(&event.job)).cloned().collect(),
            volumes: volume_names.iter().filter_map(|name| self.volumes.get(*name)).cloned().collect(),
            storage_classes: self.storage_classes.values().cloned().collect(),
            source_pods: self.pods.values().filter(reads).cloned().collect(),
            turn: self.turn,
            refusals: Vec::new(),
            live_uids: self.checkpoints.keys().cloned().collect(),
            jobs,
            claims,
        }
    }
}

fn is_of<T: kube::Resource>(object: &T, uid: &str) -> bool {
    object.meta().labels.iter().flatten().any(|(key, value)| key == LABEL_CHECKPOINT_UID && value == uid)
}
