//! The task that a worker is given: no secrets, only where they are mounted. Pure, no I/O.

use serde::{Deserialize, Serialize};

use super::{Validation, environment, filter::Filter};

/// What a worker is to do, as JSON in base64 in an environment variable.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Task {
    /// [`super::VERSION`] of the writer.
    pub version: u32,
    /// What to do.
    pub kind: TaskKind,
    /// Where to read.
    pub source: Source,
    /// What must be true of the source.
    pub validation: Validation,
    /// What the volumes include, one filter a volume: the pickle policy judges these files, all files when it is empty.
    /// The report's `selections` answer in the same order.
    #[serde(default)]
    pub volumes: Vec<Filter>,
    /// What to bring, for `Load` and `Verify`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load: Option<LoadTask>,
}

/// Kinds of tasks.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub enum TaskKind {
    /// List, judge, report.
    Inspect,
    /// Copy into the mounted volume, judge what was written, write the manifest.
    Load,
    /// Hash the files of a mounted volume again and compare with its manifest. Writes nothing.
    Verify,
}

impl TaskKind {
    /// The name as it stands in reports, names of Jobs and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Inspect => "inspect",
            Self::Load => "load",
            Self::Verify => "verify",
        }
    }
}

/// What a load brings, or a verification expects.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LoadTask {
    /// The inspected listing; another one ends the load as `SourceChanged`.
    pub fingerprint: String,
    /// Which files.
    pub filter: Filter,
    /// The digest that the published volume must have, when it is known before (adoption of a retained claim).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// How many workers load it together; each brings a share.
    #[serde(default = "alone", skip_serializing_if = "is_alone")]
    pub workers: u32,
    /// Which of the workers this is, from 0. Each learns it from [`super::environment::COMPLETION_INDEX`].
    #[serde(default, skip_serializing_if = "is_zero")]
    pub worker: u32,
    /// A name that the workers have together, and no others that ever load into the volume.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// The claim that is mounted at [`super::environment::REUSE_MOUNT`], if one is: its files need not be fetched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reuse_from: Option<String>,
}

impl LoadTask {
    /// A load by one worker, of these files of the listing with this fingerprint.
    #[must_use]
    pub fn new(fingerprint: impl Into<String>, filter: Filter) -> Self {
        let fingerprint = fingerprint.into();
        Self { fingerprint, filter, digest: None, reuse_from: None, workers: alone(), worker: 0, group: String::new() }
    }
}

fn alone() -> u32 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_alone(workers: &u32) -> bool {
    *workers == 1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_zero(worker: &u32) -> bool {
    *worker == 0
}

/// Where to read. No member holds a secret.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum Source {
    /// A bucket of S3.
    S3(S3Task),
    /// A bucket of Google Cloud Storage.
    Gcs(GcsTask),
    /// A container of Azure.
    Azure(AzureTask),
    /// Files of a web server.
    Http(HttpTask),
    /// A repository of the Hugging Face Hub.
    HuggingFace(HuggingFaceTask),
    /// The claim that is mounted at [`super::environment::SOURCE_MOUNT`].
    Claim {
        /// The claim's name, for messages and the URI.
        claim_name: String,
        /// The folder below the claim's root, empty for the root.
        path: String,
    },
    /// Data in an environment variable of its own, see [`super::environment::INLINE`].
    Inline(InlineTask),
}

impl Source {
    /// The Secret to mount at [`super::environment::CREDENTIALS_MOUNT`], with the keys that the worker knows.
    #[must_use]
    pub fn secret(&self) -> Option<(&str, &'static [&'static str])> {
        let (access, keys): (&Access, &'static [&'static str]) = match self {
            Self::S3(task) => (&task.access, &environment::S3_KEYS),
            Self::Gcs(task) => (&task.connection.access, &environment::GCS_KEYS),
            Self::Azure(task) => (&task.connection.access, &environment::AZURE_KEYS),
            Self::Http(task) => (&task.connection.access, &environment::HTTP_KEYS),
            Self::HuggingFace(task) => (&task.connection.access, &environment::HUGGING_FACE_KEYS),
            Self::Claim { .. } | Self::Inline(_) => return None,
        };
        if let Access::Secret(name) = access { Some((name, keys)) } else { None }
    }

    /// `NAME/KEY` of the `ConfigMap` to mount as [`super::environment::CA_FILE`].
    #[must_use]
    pub fn ca(&self) -> Option<&str> {
        match self {
            Self::S3(task) => task.ca.as_deref(),
            Self::Gcs(GcsTask { connection, .. })
            | Self::Azure(AzureTask { connection, .. })
            | Self::Http(HttpTask { connection, .. })
            | Self::HuggingFace(HuggingFaceTask { connection, .. }) => connection.ca.as_deref(),
            Self::Claim { .. } | Self::Inline(_) => None,
        }
    }
}

/// How to reach a server.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Connection {
    /// The server's address without a slash at its end; none for the provider's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Whether `http://` is allowed.
    #[serde(default)]
    pub insecure: bool,
    /// Whether [`super::environment::CA_FILE`] is to be trusted too; the text names the `ConfigMap` and key for messages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// Who reads.
    pub access: Access,
}

/// A bucket of Google Cloud Storage.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GcsTask {
    /// The bucket.
    pub bucket: String,
    /// The prefix, without slashes at its ends; empty for the whole bucket.
    pub path: String,
    /// How to reach it.
    pub connection: Connection,
}

/// A container of Azure.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AzureTask {
    /// The storage account.
    pub account: String,
    /// The container.
    pub container: String,
    /// The prefix, without slashes at its ends; empty for the whole container.
    pub path: String,
    /// How to reach it.
    pub connection: Connection,
}

impl GcsTask {
    /// The location in full.
    #[must_use]
    pub fn uri(&self) -> String {
        joined(format!("gs://{}", self.bucket), &self.path)
    }
}

impl AzureTask {
    /// The location in full, as Data Lake clients write it.
    #[must_use]
    pub fn uri(&self) -> String {
        let Self { account, container, path, connection } = self;
        // Other clouds have domains of their own.
        let own = |endpoint: &String| endpoint.strip_prefix(&format!("https://{account}.blob.")).map(str::to_owned);
        let domain = connection.endpoint.as_ref().and_then(own).unwrap_or_else(|| "core.windows.net".to_owned());
        joined(format!("abfs://{container}@{account}.dfs.{domain}"), path)
    }
}

impl HuggingFaceTask {
    /// The location in full, as `huggingface_hub` writes it.
    #[must_use]
    pub fn uri(&self) -> String {
        let kind = if self.dataset { "datasets/" } else { "" };
        joined(format!("hf://{kind}{}@{}", self.repository, self.revision), &self.path)
    }
}

fn joined(place: String, path: &str) -> String {
    if path.is_empty() { place } else { format!("{place}/{path}") }
}

/// Files of a web server.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpTask {
    /// The address of the folder, or of the only file when there are neither files nor a manifest. No slash at its end, no
    /// query, no user name.
    pub url: String,
    /// Files below it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<String>,
    /// The file below it that names the others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub manifest: Option<String>,
    /// How to reach it; its endpoint is not used.
    pub connection: Connection,
}

/// A repository of the Hugging Face Hub.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HuggingFaceTask {
    /// `organisation/name`.
    pub repository: String,
    /// Whether it is a data set and no model.
    #[serde(default)]
    pub dataset: bool,
    /// Branch, tag or commit.
    pub revision: String,
    /// The folder in it, without slashes at its ends; empty for the root.
    pub path: String,
    /// How to reach it.
    pub connection: Connection,
}

/// A bucket and how to reach it.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct S3Task {
    /// The bucket.
    pub bucket: String,
    /// The prefix, without slashes at its ends; empty for the whole bucket.
    pub path: String,
    /// The region; `us-east-1` when the user said nothing.
    pub region: String,
    /// The endpoint; none for Amazon's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// `https://bucket.endpoint/key` instead of `https://endpoint/bucket/key`.
    #[serde(default)]
    pub virtual_hosted: bool,
    /// Whether `http://` is allowed.
    #[serde(default)]
    pub insecure: bool,
    /// Whether [`super::environment::CA_FILE`] is to be trusted too; the text names the `ConfigMap` and key for messages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// Who reads.
    pub access: Access,
}

/// Who reads.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Access {
    /// Keys in files below [`super::environment::CREDENTIALS_MOUNT`]; the text is the Secret's name, for messages.
    Secret(String),
    /// Unsigned requests.
    Anonymous,
    /// The pod's own identity.
    #[default]
    Ambient,
}

/// Data in the manifest.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InlineTask {
    /// BLAKE3 of the text, hexadecimal, so that the task's hash covers the data.
    pub blake3: String,
}
