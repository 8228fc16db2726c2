//! Repositories of the Hugging Face Hub: `spec.storage.huggingFace`. No behaviour, no I/O.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{CaBundle, SecretReference};

/// A repository of the Hugging Face Hub and how to reach it.
#[derive(Clone, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HuggingFaceSource {
    /// The repository, such as `meta-llama/Llama-3.1-8B`. Leave it out when `path` is an `hf://` URI, which names it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 192), regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9._-]+)?$"))]
    pub repository: Option<String>,
    /// What kind of repository it is; `Model` when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<RepositoryKind>,
    /// A branch, a tag or a commit; `main` when left out. A branch or tag is resolved to its commit when the source is looked at,
    /// and a load takes the files of that commit.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256), regex(pattern = r"^[A-Za-z0-9._/-]+$"))]
    pub revision: Option<String>,
    /// The address of a mirror, or of another server that speaks the Hub's protocol. Leave it out for `https://huggingface.co`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512), regex(pattern = r"^https?://[^/@?#\s]+/?$"))]
    pub endpoint: Option<String>,
    /// Must be true for an `http://` endpoint: the data and the requests are then readable on the network.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub insecure: bool,
    /// Certificate authorities to trust in addition to the usual ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_bundle: Option<CaBundle>,
    /// Who reads. Left out: nobody in particular, which public repositories allow (on a laptop: you, by `HF_TOKEN` or your login).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credentials: Option<HuggingFaceCredentials>,
}

/// Kinds of repositories.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum RepositoryKind {
    /// A model.
    #[default]
    Model,
    /// A data set.
    Dataset,
}

/// Who reads the repository: a token.
#[derive(Clone, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HuggingFaceCredentials {
    /// A Secret with `HF_TOKEN` or `token`. It is sent to `huggingface.co` and to the hosts that its key `allowedHosts` lists.
    pub secret_ref: SecretReference,
}
