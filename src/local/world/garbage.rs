//! The garbage collector and what removes volumes of claims that are gone. Pure, no I/O.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{World, binder::claim_uid, name_of, owners, uid_of};

impl World {
    /// Removes what only owners that are gone owned, ends deletions of claims that no pod mounts any more, and reclaims
    /// volumes whose claim is gone.
    pub fn collect_garbage(&mut self) {
        loop {
            let before = self.version;
            self.collect_orphans();
            self.collect_terminating();
            self.reclaim();
            if self.version == before {
                return;
            }
        }
    }

    fn collect_orphans(&mut self) {
        let orphans = |world: &Self, metadata: &ObjectMeta| {
            !owners(metadata).is_empty() && owners(metadata).iter().all(|owner| !world.is_alive(&owner.uid))
        };
        let jobs: Vec<_> = self.jobs.values().filter(|job| orphans(self, &job.metadata)).map(named).collect();
        let pods: Vec<_> = self.pods.values().filter(|pod| orphans(self, &pod.metadata)).map(named).collect();
        let claims: Vec<_> = self.claims.values().filter(|claim| orphans(self, &claim.metadata)).map(named).collect();
        for name in jobs {
            self.jobs.remove(&name);
            self.version += 1;
        }
        for name in pods {
            self.delete_pod(&name);
        }
        for name in claims {
            self.mark_claim_deleted(&name);
        }
    }

    pub(super) fn collect_terminating(&mut self) {
        let gone: Vec<_> = self
            .claims
            .values()
            .filter(|claim| claim.metadata.deletion_timestamp.is_some() && !self.is_mounted(name_of(&claim.metadata)))
            .map(named)
            .collect();
        for name in gone {
            self.claims.remove(&name);
            self.version += 1;
        }
    }

    /// A claim that is Lost takes no volume with it: only the claim that a volume names counts.
    fn reclaim(&mut self) {
        let gone: Vec<_> = self
            .volumes
            .values()
            .filter(|volume| {
                let policy = volume.spec.as_ref().and_then(|spec| spec.persistent_volume_reclaim_policy.as_deref());
                policy == Some("Delete")
                    && claim_uid(volume)
                        .is_some_and(|uid| !self.claims.values().any(|claim| uid_of(&claim.metadata) == uid))
            })
            .map(named)
            .collect();
        for name in gone {
            self.volumes.remove(&name);
            self.version += 1;
        }
    }
}

fn named<T: kube::Resource>(object: &T) -> String {
    name_of(object.meta()).to_owned()
}
