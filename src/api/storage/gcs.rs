//! Buckets of Google Cloud Storage: `spec.storage.gcs`. No behaviour, no I/O.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::{CaBundle, SecretReference};

/// A bucket of Google Cloud Storage and how to reach it.
#[derive(Clone, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GcsSource {
    /// The bucket's name. Leave it out when `path` is a `gs://` URI, which names it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 3, max = 222), regex(pattern = r"^[a-z0-9][a-z0-9._-]+$"))]
    pub bucket: Option<String>,
    /// The address of another server that speaks the JSON API, such as an emulator. Leave it out for Google's.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512), regex(pattern = r"^https?://[^/@?#\s]+/?$"))]
    pub endpoint: Option<String>,
    /// Must be true for an `http://` endpoint: the data and the requests are then readable on the network.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub insecure: bool,
    /// Certificate authorities to trust in addition to the usual ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_bundle: Option<CaBundle>,
    /// Who reads. Left out: whatever the service account of the worker pods gives (workload identity).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credentials: Option<GcsCredentials>,
}

/// Who reads the bucket: a service account's key, or nobody in particular.
#[derive(Clone, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.secretRef) != (has(self.anonymous) && self.anonymous)")
        .message("set either secretRef or anonymous: true; leave credentials out to use the service account's own identity"),
)]
pub struct GcsCredentials {
    /// A Secret with a service account's key file under `service-account.json` or `key.json`. Tokens are sent to Google's hosts
    /// and to those that its key `allowedHosts` lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretReference>,
    /// True for public buckets: requests carry no token.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub anonymous: bool,
}
