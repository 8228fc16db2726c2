//! S3 buckets: `spec.storage.s3`. No behaviour, no I/O.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{CaBundle, SecretReference};

/// A bucket and how to reach it.
#[derive(Clone, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct S3Source {
    /// The bucket's name. Leave it out when `path` is an `s3://` URI, which names it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 3, max = 63), regex(pattern = r"^[a-zA-Z0-9][a-zA-Z0-9._-]+$"))]
    pub bucket: Option<String>,
    /// The bucket's region, `us-east-1` when left out. Servers other than Amazon's usually ignore it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), regex(pattern = r"^[a-zA-Z0-9-]+$"))]
    pub region: Option<String>,
    /// The server's address such as `https://minio.storage.svc:9000`. Leave it out for Amazon S3.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512), regex(pattern = r"^https?://[^/@?#\s]+/?$"))]
    pub endpoint: Option<String>,
    /// How the bucket is named in requests: `Path` (`endpoint/bucket/key`) or `VirtualHosted` (`bucket.endpoint/key`).
    /// Left out: `Path` with an endpoint, `VirtualHosted` without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub addressing: Option<Addressing>,
    /// Must be true for an `http://` endpoint: the data and the requests are then readable on the network.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub insecure: bool,
    /// Certificate authorities to trust in addition to the usual ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_bundle: Option<CaBundle>,
    /// Who reads. Left out: whatever the service account of the worker pods gives (IRSA, EKS Pod Identity).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credentials: Option<S3Credentials>,
}

/// How the bucket is named in requests: `Path` (`endpoint/bucket/key`) or `VirtualHosted` (`bucket.endpoint/key`). Left
/// out: `Path` with an endpoint, `VirtualHosted` without one.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum Addressing {
    /// `https://endpoint/bucket/key`
    Path,
    /// `https://bucket.endpoint/key`
    VirtualHosted,
}

/// Who reads the bucket: a Secret's keys, or nobody in particular.
#[derive(Clone, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.secretRef) != (has(self.anonymous) && self.anonymous)")
        .message("set either secretRef or anonymous: true; leave credentials out to use the service account's own identity"),
)]
pub struct S3Credentials {
    /// A Secret with the keys `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and, for temporary credentials, `AWS_SESSION_TOKEN`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretReference>,
    /// True for public buckets: requests are not signed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub anonymous: bool,
}
