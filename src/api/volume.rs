//! Which volumes a checkpoint becomes: `spec.volumes` and where pods run. No behaviour, no I/O.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Toleration;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::schema::{Amount, open_object};

/// One claim that pods reference. It stays Pending until the verified bytes are in its volume. An entry cannot be changed
/// except for `deletionPolicy` and `parallelism`: remove it and add another.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new(
        "has(self.storageClassName) == has(oldSelf.storageClassName) && (!has(self.storageClassName) || self.storageClassName == oldSelf.storageClassName) \
         && has(self.size) == has(oldSelf.size) && (!has(self.size) || self.size == oldSelf.size) \
         && has(self.accessModes) == has(oldSelf.accessModes) && (!has(self.accessModes) || self.accessModes == oldSelf.accessModes) \
         && has(self.include) == has(oldSelf.include) && (!has(self.include) || self.include == oldSelf.include) \
         && has(self.exclude) == has(oldSelf.exclude) && (!has(self.exclude) || self.exclude == oldSelf.exclude) \
         && has(self.placement) == has(oldSelf.placement) && (!has(self.placement) || self.placement == oldSelf.placement) \
         && has(self.reuseFrom) == has(oldSelf.reuseFrom) && (!has(self.reuseFrom) || self.reuseFrom == oldSelf.reuseFrom)")
        .message("a volume entry cannot be changed, except for its deletionPolicy and parallelism: remove the entry and add one with another claimName"),
    validation = Rule::new("!has(self.reuseFrom) || self.reuseFrom != self.claimName")
        .message("reuseFrom names the claim of an earlier checkpoint, not the claim of this entry"),
    validation = Rule::new(
        "!has(self.parallelism) || self.parallelism == 1 || (has(self.accessModes) && self.accessModes.exists(mode, mode == 'ReadWriteMany'))")
        .message("parallelism needs a volume that several pods can write: add ReadWriteMany to accessModes, of a storage class that has it"),
)]
pub struct Volume {
    /// The claim's name, which pods put into `volumes[].persistentVolumeClaim.claimName`.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub claim_name: String,
    /// The storage class; left out: the cluster's default class.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub storage_class_name: Option<String>,
    /// Access modes of the claim, `[ReadWriteOnce]` when left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4))]
    pub access_modes: Vec<AccessMode>,
    /// The claim's size. Left out: what the files need, and some headroom.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<Amount>,
    /// Globs of the files to bring; everything when left out. Without a slash a glob matches any one segment of a path,
    /// with a slash the whole path; a matched folder means its tree.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 256)))]
    pub include: Vec<String>,
    /// Globs of files to leave out; they win over `include`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 256)))]
    pub exclude: Vec<String>,
    /// A claim of this namespace that holds an earlier checkpoint, such as the one before in the same run. Files that the source has
    /// unchanged are taken from there instead of being fetched: their blocks are shared where both lie on one file system that can
    /// do that (XFS, btrfs), else they are copied. The claim is mounted for reading only. All bytes are hashed and compared with
    /// the checksums of the source as fetched ones are; for a source that has none, the manifest in that claim is believed: name
    /// only claims whose writers you trust. A claim that cannot be used (it is missing, not Bound, `ReadWriteOncePod`, or on another node)
    /// delays nothing: then everything is fetched, and `status.volumes[].reuseSkipped` says why.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$"))]
    pub reuse_from: Option<String>,
    /// Where the load runs, and so where a volume that is local to a node lives. Left out: `spec.worker.placement`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub placement: Option<Placement>,
    /// How many pods load the files together, each a share of about the same number of bytes; 1 when left out. More than one needs
    /// the access mode `ReadWriteMany`, and helps when one node's network is slower than the storage and the volume. A change
    /// reaches a load that has not started yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 64))]
    pub parallelism: Option<u32>,
    /// What becomes of the claim when the Checkpoint or this entry goes: `Retain` keeps it, `Delete` deletes it.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
}

/// Access modes of a claim.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum AccessMode {
    /// Pods of one node may mount it.
    ReadWriteOnce,
    /// Pods of many nodes may mount it, for reading.
    ReadOnlyMany,
    /// Pods of many nodes may mount it.
    ReadWriteMany,
    /// One pod may mount it.
    ReadWriteOncePod,
}

/// What becomes of a claim when its Checkpoint goes.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum DeletionPolicy {
    /// The claim and its data stay.
    #[default]
    Retain,
    /// The claim is deleted; what becomes of the data is the storage class's reclaim policy.
    Delete,
}

/// Where pods may run.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Placement {
    /// Labels that the node must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub node_selector: BTreeMap<String, String>,
    /// Taints that the pods tolerate, as in a pod's `tolerations`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub tolerations: Vec<Toleration>,
    /// Affinity rules, as in a pod's `affinity`. A change of them reaches work that has not started yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "open_object")]
    pub affinity: Option<serde_json::Value>,
}
