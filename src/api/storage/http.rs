//! Files of a web server: `spec.storage.http`. No behaviour, no I/O.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::{CaBundle, SecretReference};

/// Files of a web server and how to reach it.
#[derive(Clone, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!(has(self.files) && has(self.manifest))")
        .message("set files or manifest, not both: each of them says which files there are"),
)]
pub struct HttpSource {
    /// The address that `path` is appended to, such as `https://models.example.com/llama`. Leave it out when `path` is itself an
    /// `https://` address.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 8, max = 1024), regex(pattern = r"^https?://[^/@?#\s]+(/[^?#\s]*)?$"))]
    pub url: Option<String>,
    /// The files below the address, because a web server cannot be asked for them. Without `files` and `manifest` the address is
    /// that of a single file.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 1024), inner(length(min = 1, max = 512)))]
    pub files: Vec<String>,
    /// A file below the address that names all others: `SHA256SUMS` as `sha256sum` writes it, whose sums depth `Content`
    /// recomputes, or an index such as `model.safetensors.index.json`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub manifest: Option<String>,
    /// Must be true for an `http://` endpoint: the data and the requests are then readable on the network.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub insecure: bool,
    /// Certificate authorities to trust in addition to the usual ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_bundle: Option<CaBundle>,
    /// Who reads. Left out: nobody in particular.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credentials: Option<HttpCredentials>,
}

/// Who reads: a token, or a user and a password.
#[derive(Clone, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpCredentials {
    /// A Secret with `token`, or with `username` and `password`, and with `allowedHosts`: the hosts that these may be sent to, separated
    /// by spaces or commas. They are sent to no other.
    pub secret_ref: SecretReference,
}
