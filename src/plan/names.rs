//! Names, labels and input hashes of all objects that the controller makes. Pure, no I/O.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use serde_json::{Value, json};

use crate::{
    api::{
        ANNOTATION_CHECKPOINT, Checkpoint, GROUP, LABEL_CHECKPOINT_UID, LABEL_EXCLUDE_FROM_BACKUP, LABEL_MANAGED_BY,
        LABEL_ROLE, MANAGED_BY, VERSION,
    },
    contract::{TaskKind, digest::inputs_hash},
};

/// What a claim is for: the value of [`LABEL_ROLE`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Role {
    /// A worker Job and its pods.
    Worker(TaskKind),
    /// The claim that a load fills.
    Staging,
    /// The claim that pods reference.
    Target,
}

impl Role {
    /// The label's value.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Worker(kind) => kind.as_str(),
            Self::Staging => "staging",
            Self::Target => "target",
        }
    }
}

/// Name of the Job for this attempt: a hash, so that it fits whatever the Checkpoint is called.
#[must_use]
pub fn job(uid: &str, kind: TaskKind, inputs: &str, attempt: i64) -> String {
    let hash = inputs_hash(&json!(["job", uid, kind.as_str(), inputs, attempt]));
    format!("ckpt-{}-{hash}", kind.as_str())
}

/// Name of the staging claim of a volume. What it depends on is what a staging volume cannot change.
#[must_use]
pub fn staging(uid: &str, volume: &crate::api::Volume) -> String {
    let settings =
        json!(["staging", uid, volume.claim_name, volume.storage_class_name, volume.size, volume.access_modes]);
    format!("ckpt-staging-{}", inputs_hash(&settings))
}

/// The labels of every object of a Checkpoint.
#[must_use]
pub fn labels(uid: &str, role: Role) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::from([
        (LABEL_MANAGED_BY.to_owned(), MANAGED_BY.to_owned()),
        (LABEL_CHECKPOINT_UID.to_owned(), uid.to_owned()),
        (LABEL_ROLE.to_owned(), role.as_str().to_owned()),
    ]);
    if role != Role::Target {
        labels.insert(LABEL_EXCLUDE_FROM_BACKUP.to_owned(), "true".to_owned());
    }
    labels
}

/// Metadata of a child.
#[must_use]
pub fn metadata(
    checkpoint: &Checkpoint,
    name: String,
    role: Role,
    annotations: impl IntoIterator<Item = (&'static str, String)>,
) -> ObjectMeta {
    let uid = checkpoint.metadata.uid.clone().unwrap_or_default();
    let own = [(ANNOTATION_CHECKPOINT, checkpoint.metadata.name.clone().unwrap_or_default())];
    ObjectMeta {
        name: Some(name),
        namespace: checkpoint.metadata.namespace.clone(),
        labels: Some(labels(&uid, role)),
        annotations: Some(own.into_iter().chain(annotations).map(|(key, value)| (key.to_owned(), value)).collect()),
        owner_references: Some(vec![owner(checkpoint)]),
        ..ObjectMeta::default()
    }
}

/// The owner reference of a child: the garbage collector deletes it with the Checkpoint.
#[must_use]
pub fn owner(checkpoint: &Checkpoint) -> OwnerReference {
    OwnerReference {
        api_version: format!("{GROUP}/{VERSION}"),
        kind: "Checkpoint".to_owned(),
        name: checkpoint.metadata.name.clone().unwrap_or_default(),
        uid: checkpoint.metadata.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// Hash of anything that serialises, stable over releases that do not change its fields.
#[must_use]
pub fn hash(value: &impl serde::Serialize) -> String {
    inputs_hash(&serde_json::to_value(value).unwrap_or(Value::Null))
}
