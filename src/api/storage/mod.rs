//! Where a checkpoint lies: `spec.storage`; a file for each kind of server. No behaviour, no I/O.

mod azure;
mod gcs;
mod http;
mod hugging_face;
mod s3;

pub use azure::{AzureCredentials, AzureSource};
pub use gcs::{GcsCredentials, GcsSource};
pub use http::{HttpCredentials, HttpSource};
pub use hugging_face::{HuggingFaceCredentials, HuggingFaceSource, RepositoryKind};
pub use s3::{Addressing, S3Credentials, S3Source};

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where the data lies. Set one member, or none when `path` is a URI that says it.
#[derive(Clone, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new(
        "[has(self.s3), has(self.gcs), has(self.azure), has(self.http), has(self.huggingFace), has(self.persistentVolumeClaim), \
         has(self.inline)].filter(member, member).size() <= 1")
        .message("set at most one of s3, gcs, azure, http, huggingFace, persistentVolumeClaim and inline"),
)]
pub struct Storage {
    /// An S3 bucket: Amazon's or any server that speaks the same protocol (`MinIO`, Ceph, SeaweedFS, R2 and others).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub s3: Option<S3Source>,
    /// A bucket of Google Cloud Storage.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gcs: Option<GcsSource>,
    /// A container of Azure Blob Storage or Data Lake Storage.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub azure: Option<AzureSource>,
    /// Files of a web server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpSource>,
    /// A repository of the Hugging Face Hub, or of a server that speaks its protocol.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hugging_face: Option<HuggingFaceSource>,
    /// A claim in the Checkpoint's own namespace. It must be Bound; it is mounted read-only and never changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub persistent_volume_claim: Option<ClaimSource>,
    /// A small checkpoint written into the manifest itself, the counterpart of Ray's dict checkpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inline: Option<InlineSource>,
}

/// Certificate authorities from a `ConfigMap`.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CaBundle {
    /// The `ConfigMap` in the Checkpoint's namespace, and its key.
    pub config_map_ref: ConfigMapKeyReference,
}

/// A key of a `ConfigMap`.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ConfigMapKeyReference {
    /// The `ConfigMap`'s name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The key that holds PEM certificates.
    #[serde(default = "ca_key")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[-._a-zA-Z0-9]+$"))]
    pub key: String,
}

fn ca_key() -> String {
    "ca.crt".to_owned()
}

/// A Secret in the Checkpoint's namespace. The kubelet mounts it into worker pods; the controller never reads it.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretReference {
    /// The Secret's name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// A claim that already holds the checkpoint.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClaimSource {
    /// The claim's name.
    #[schemars(length(min = 1, max = 253))]
    pub claim_name: String,
}

/// A checkpoint in the manifest.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InlineSource {
    /// A JSON object as text, at most 64 KiB; text, because the API server would rewrite numbers. It becomes
    /// `checkpoint.json` and `dict_checkpoint.pkl`, which Python's pickle reads back as an equal dict.
    #[schemars(length(min = 2, max = 65536))]
    pub json: String,
}
