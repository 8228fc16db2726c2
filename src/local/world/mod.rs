//! A Kubernetes for one process, as far as a plan needs one: objects, their versions and preconditions. Pure, no I/O.
//!
//! It serves two ends: `run` on a laptop, and tests of the plan, which crash after any action and look where it all ends.
//! Nothing happens by itself: [`World::bind_volumes`], [`World::start_pods`] and [`World::collect_garbage`] are the
//! controllers of a cluster as single steps, and [`World::settle`] runs them until nothing changes.

mod binder;
mod garbage;
mod jobs;
mod observe;
mod write;

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::{
    api::{
        batch::v1::Job,
        core::v1::{PersistentVolume, PersistentVolumeClaim, Pod},
        storage::v1::StorageClass,
    },
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time},
};

use crate::{
    api::{Checkpoint, CheckpointStatus},
    plan::{JobEvent, Refusal, Turn, progress::Told},
};

pub use write::{Conflict, WriteError, is_dns_subdomain};

/// Name of the storage class that every world begins with: the default one, with immediate binding.
pub const STORAGE_CLASS: &str = "local";

/// Kinds of objects whose creation can be denied, as quotas and admission do.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Kind {
    /// Jobs.
    Job,
    /// Claims.
    Claim,
    /// Pods: the Job exists, and an event says why it has no pod.
    Pod,
}

/// The objects. One namespace: names alone tell objects of a kind apart, as folders do on a laptop.
#[derive(Clone, Debug, PartialEq)]
pub struct World {
    version: u64,
    uids: u64,
    now: Timestamp,
    turn: Turn,
    checkpoints: BTreeMap<String, Checkpoint>,
    jobs: BTreeMap<String, Job>,
    pods: BTreeMap<String, Pod>,
    claims: BTreeMap<String, PersistentVolumeClaim>,
    volumes: BTreeMap<String, PersistentVolume>,
    storage_classes: BTreeMap<String, StorageClass>,
    job_events: Vec<JobEvent>,
    progress: BTreeMap<String, Told>,
    denials: BTreeMap<Kind, Refusal>,
}

impl World {
    /// A world at a point in time, with nothing in it but the storage class [`STORAGE_CLASS`].
    #[must_use]
    pub fn new(now: Timestamp) -> Self {
        let mut world = Self {
            version: 0,
            uids: 0,
            now,
            turn: Turn::Granted,
            checkpoints: BTreeMap::new(),
            jobs: BTreeMap::new(),
            pods: BTreeMap::new(),
            claims: BTreeMap::new(),
            volumes: BTreeMap::new(),
            storage_classes: BTreeMap::new(),
            job_events: Vec::new(),
            progress: BTreeMap::new(),
            denials: BTreeMap::new(),
        };
        world.add_storage_class(STORAGE_CLASS, true, false);
        world
    }

    /// A number that grows with every change of any object.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The time that objects are stamped with.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// Sets the time.
    pub fn set_now(&mut self, now: Timestamp) {
        self.now = now;
    }

    /// Sets what [`crate::plan::Observed::turn`] says.
    pub fn set_turn(&mut self, turn: Turn) {
        self.turn = turn;
    }

    /// Adds or replaces a storage class whose reclaim policy is `Delete`.
    pub fn add_storage_class(&mut self, name: &str, default: bool, wait_for_first_consumer: bool) {
        let annotations = default
            .then(|| BTreeMap::from([("storageclass.kubernetes.io/is-default-class".to_owned(), "true".to_owned())]));
        let mode = if wait_for_first_consumer { "WaitForFirstConsumer" } else { "Immediate" };
        let mut class = StorageClass {
            metadata: ObjectMeta { name: Some(name.to_owned()), annotations, ..ObjectMeta::default() },
            provisioner: "checkpoints.dev/folder".to_owned(),
            reclaim_policy: Some("Delete".to_owned()),
            volume_binding_mode: Some(mode.to_owned()),
            ..StorageClass::default()
        };
        self.stamp(&mut class.metadata);
        self.storage_classes.insert(name.to_owned(), class);
    }

    /// Removes a storage class.
    pub fn remove_storage_class(&mut self, name: &str) {
        if self.storage_classes.remove(name).is_some() {
            self.version += 1;
        }
    }

    /// Adds a Checkpoint. A UID that it brings is kept, its status is not.
    pub fn add_checkpoint(&mut self, mut checkpoint: Checkpoint) -> Checkpoint {
        let uid = checkpoint.metadata.uid.clone();
        self.stamp(&mut checkpoint.metadata);
        checkpoint.metadata.uid = uid.or(checkpoint.metadata.uid);
        checkpoint.metadata.generation = Some(1);
        checkpoint.status = None;
        self.checkpoints.insert(uid_of(&checkpoint.metadata).to_owned(), checkpoint.clone());
        checkpoint
    }

    /// The Checkpoint with this UID.
    #[must_use]
    pub fn checkpoint(&self, uid: &str) -> Option<&Checkpoint> {
        self.checkpoints.get(uid)
    }

    /// Changes spec and metadata; another spec is another generation.
    pub fn edit_checkpoint(&mut self, uid: &str, change: impl FnOnce(&mut Checkpoint)) {
        update(&mut self.checkpoints, &mut self.version, uid, |checkpoint| {
            let before = checkpoint.spec.clone();
            change(checkpoint);
            if checkpoint.spec != before {
                checkpoint.metadata.generation = checkpoint.metadata.generation.map(|generation| generation + 1);
            }
        });
    }

    /// Writes the status.
    pub fn write_status(&mut self, uid: &str, status: CheckpointStatus) {
        update(&mut self.checkpoints, &mut self.version, uid, |checkpoint| checkpoint.status = Some(status));
    }

    /// Deletes a Checkpoint; what it owns goes with [`World::collect_garbage`].
    pub fn delete_checkpoint(&mut self, uid: &str) {
        if self.checkpoints.remove(uid).is_some() {
            self.version += 1;
        }
    }

    /// Lets creations of a kind fail like this until [`World::allow`].
    pub fn deny(&mut self, kind: Kind, code: u16, message: &str) {
        self.denials.insert(kind, Refusal { object: String::new(), code, message: message.to_owned() });
    }

    /// Ends [`World::deny`].
    pub fn allow(&mut self, kind: Kind) {
        self.denials.remove(&kind);
    }

    /// All Jobs, by name.
    #[must_use]
    pub fn jobs(&self) -> &BTreeMap<String, Job> {
        &self.jobs
    }

    /// All pods, by name.
    #[must_use]
    pub fn pods(&self) -> &BTreeMap<String, Pod> {
        &self.pods
    }

    /// All claims, by name.
    #[must_use]
    pub fn claims(&self) -> &BTreeMap<String, PersistentVolumeClaim> {
        &self.claims
    }

    /// All persistent volumes, by name.
    #[must_use]
    pub fn volumes(&self) -> &BTreeMap<String, PersistentVolume> {
        &self.volumes
    }

    /// Adds a pod, such as one that a user runs.
    pub fn add_pod(&mut self, mut pod: Pod) {
        self.stamp(&mut pod.metadata);
        self.pods.insert(name_of(&pod.metadata).to_owned(), pod);
    }

    /// Changes a pod as the kubelet or the scheduler does.
    pub fn edit_pod(&mut self, name: &str, change: impl FnOnce(&mut Pod)) {
        update(&mut self.pods, &mut self.version, name, change);
    }

    /// Deletes a pod.
    pub fn delete_pod(&mut self, name: &str) {
        if self.pods.remove(name).is_some() {
            self.version += 1;
        }
    }

    /// Adds a persistent volume.
    pub fn add_volume(&mut self, mut volume: PersistentVolume) {
        self.stamp(&mut volume.metadata);
        self.volumes.insert(name_of(&volume.metadata).to_owned(), volume);
    }

    /// Changes a claim as other clients do.
    pub fn edit_claim(&mut self, name: &str, change: impl FnOnce(&mut PersistentVolumeClaim)) {
        update(&mut self.claims, &mut self.version, name, change);
    }

    /// Runs the controllers of the cluster until nothing changes. Whether anything did.
    pub fn settle(&mut self) -> bool {
        let before = self.version;
        loop {
            let version = self.version;
            self.start_pods();
            self.bind_volumes();
            self.collect_garbage();
            if self.version == version {
                return version != before;
            }
        }
    }

    fn stamp(&mut self, metadata: &mut ObjectMeta) {
        self.uids += 1;
        self.version += 1;
        metadata.uid = Some(format!("uid-{}", self.uids));
        metadata.resource_version = Some(self.version.to_string());
        metadata.creation_timestamp = Some(Time(self.now));
    }

    fn is_alive(&self, uid: &str) -> bool {
        self.checkpoints.contains_key(uid)
            || self.jobs.values().any(|job| uid_of(&job.metadata) == uid)
            || self.claims.values().any(|claim| uid_of(&claim.metadata) == uid)
    }
}

/// Changes an object; a change that changes nothing is no new version, as on the API server.
fn update<T: kube::Resource + Clone + PartialEq>(
    objects: &mut BTreeMap<String, T>,
    version: &mut u64,
    name: &str,
    change: impl FnOnce(&mut T),
) {
    let Some(object) = objects.get_mut(name) else { return };
    let mut next = object.clone();
    change(&mut next);
    if next != *object {
        *version += 1;
        next.meta_mut().resource_version = Some(version.to_string());
        *object = next;
    }
}

fn name_of(metadata: &ObjectMeta) -> &str {
    metadata.name.as_deref().unwrap_or_default()
}

fn uid_of(metadata: &ObjectMeta) -> &str {
    metadata.uid.as_deref().unwrap_or_default()
}

fn owners(metadata: &ObjectMeta) -> &[OwnerReference] {
    metadata.owner_references.as_deref().unwrap_or_default()
}

#[cfg(test)]
mod tests;
