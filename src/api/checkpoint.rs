//! The `Checkpoint` resource: its spec and the rules of its schema. No behaviour, no I/O.

use std::collections::BTreeMap;

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::contract::Validation;

use super::{
    schema::Amount,
    status::CheckpointStatus,
    storage::Storage,
    volume::{Placement, Volume},
};

/// A model checkpoint: where it lies, what must be true of it, and the volumes that it becomes.
#[derive(Clone, CustomResource, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[kube(
    group = "checkpoints.dev",
    version = "v1alpha1",
    kind = "Checkpoint",
    plural = "checkpoints",
    shortname = "ckpt",
    category = "ml",
    namespaced,
    status = "CheckpointStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "A model checkpoint: the operator proves that it is complete, intact and safe to load, writes what it found into status, and hands pods volumes that hold exactly those bytes.",
    printcolumn = r#"{"name": "Format", "type": "string", "jsonPath": ".status.contents.format", "description": "What the checkpoint is"}"#,
    printcolumn = r#"{"name": "Step", "type": "integer", "jsonPath": ".status.contents.step", "description": "Training step"}"#,
    printcolumn = r#"{"name": "Size", "type": "string", "jsonPath": ".status.source.size", "description": "Sum of all files"}"#,
    printcolumn = r#"{"name": "Progress", "type": "string", "jsonPath": ".status.progress", "description": "Share of the bytes that are in the volumes"}"#,
    printcolumn = r#"{"name": "Ready", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].status", "description": "Whether pods can use it"}"#,
    printcolumn = r#"{"name": "Reason", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].reason", "description": "Why it is ready or not"}"#,
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#,
    printcolumn = r#"{"name": "Files", "type": "integer", "jsonPath": ".status.source.files", "description": "Number of files", "priority": 1}"#,
    printcolumn = r#"{"name": "Parameters", "type": "integer", "jsonPath": ".status.contents.parameters", "description": "Number of parameters", "priority": 1}"#,
    printcolumn = r#"{"name": "Digest", "type": "string", "jsonPath": ".status.digest", "description": "Digest of the whole content", "priority": 1}"#,
    printcolumn = r#"{"name": "URI", "type": "string", "jsonPath": ".status.source.uri", "description": "Where it lies", "priority": 1}"#
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.path == oldSelf.path")
        .message("path cannot be changed: it names the data; create another Checkpoint"),
    validation = Rule::new("has(self.storage) == has(oldSelf.storage)")
        .message("storage cannot be added or removed: it names the data; create another Checkpoint"),
    validation = Rule::new(
        "!has(self.storage) || !has(oldSelf.storage) || (has(self.storage.s3) == has(oldSelf.storage.s3) \
         && has(self.storage.gcs) == has(oldSelf.storage.gcs) \
         && has(self.storage.azure) == has(oldSelf.storage.azure) \
         && has(self.storage.http) == has(oldSelf.storage.http) \
         && has(self.storage.huggingFace) == has(oldSelf.storage.huggingFace) \
         && has(self.storage.persistentVolumeClaim) == has(oldSelf.storage.persistentVolumeClaim) \
         && has(self.storage.inline) == has(oldSelf.storage.inline))")
        .message("the kind of storage cannot be changed: it names the data; create another Checkpoint"),
    validation = Rule::new(
        "!has(self.storage) || !has(oldSelf.storage) || !has(self.storage.s3) || !has(oldSelf.storage.s3) \
         || (has(self.storage.s3.bucket) == has(oldSelf.storage.s3.bucket) \
         && (!has(self.storage.s3.bucket) || self.storage.s3.bucket == oldSelf.storage.s3.bucket))")
        .message("storage.s3.bucket cannot be changed: it names the data; create another Checkpoint"),
    validation = Rule::new(
        "!has(self.storage) || !has(oldSelf.storage) || !has(self.storage.gcs) || !has(oldSelf.storage.gcs) \
         || (has(self.storage.gcs.bucket) == has(oldSelf.storage.gcs.bucket) \
         && (!has(self.storage.gcs.bucket) || self.storage.gcs.bucket == oldSelf.storage.gcs.bucket))")
        .message("storage.gcs.bucket cannot be changed: it names the data; create another Checkpoint"),
    validation = Rule::new(
        "!has(self.storage) || !has(oldSelf.storage) || !has(self.storage.azure) || !has(oldSelf.storage.azure) \
         || (has(self.storage.azure.account) == has(oldSelf.storage.azure.account) \
         && (!has(self.storage.azure.account) || self.storage.azure.account == oldSelf.storage.azure.account))")
        .message("storage.azure.account cannot be changed: it names the data; create another Checkpoint"),
    validation = Rule::new(
        "!has(self.storage) || !has(oldSelf.storage) || !has(self.storage.azure) || !has(oldSelf.storage.azure) \
         || (has(self.storage.azure.container) == has(oldSelf.storage.azure.container) \
         && (!has(self.storage.azure.container) || self.storage.azure.container == oldSelf.storage.azure.container))")
        .message("storage.azure.container cannot be changed: it names the data; create another Checkpoint"),
    validation = Rule::new(
        "!has(self.storage) || !has(oldSelf.storage) || !has(self.storage.http) || !has(oldSelf.storage.http) \
         || (has(self.storage.http.url) == has(oldSelf.storage.http.url) \
         && (!has(self.storage.http.url) || self.storage.http.url == oldSelf.storage.http.url))")
        .message("storage.http.url cannot be changed: it names the data; create another Checkpoint"),
    validation = Rule::new(
        "!has(self.storage) || !has(oldSelf.storage) || !has(self.storage.http) || !has(oldSelf.storage.http) \
         || (has(self.storage.http.files) == has(oldSelf.storage.http.files) \
         && (!has(self.storage.http.files) || self.storage.http.files == oldSelf.storage.http.files))")
        .message("storage.http.files cannot be changed: it names the data; create another Checkpoint"),
    validation = Rule::new(
        "!has(self.storage) || !has(oldSelf.storage) || !has(self.storage.http) || !has(oldSelf.storage.http) \
         || (has(self.storage.http.manifest) == has(oldSelf.storage.http.manifest) \
         && (!has(self.storage.http.manifest) || self.storage.http.manifest == oldSelf.storage.http.manifest))")
        .message("storage.http.manifest cannot be changed: it names the data; create another Checkpoint"),
    validation = Rule::new(
        "!has(self.storage) || !has(oldSelf.storage) || !has(self.storage.huggingFace) || !has(oldSelf.storage.huggingFace) \
         || (has(self.storage.huggingFace.repository) == has(oldSelf.storage.huggingFace.repository) \
         && (!has(self.storage.huggingFace.repository) || self.storage.huggingFace.repository == oldSelf.storage.huggingFace.repository))")
        .message("storage.huggingFace.repository cannot be changed: it names the data; create another Checkpoint"),
    validation = Rule::new(
        "!has(self.storage) || !has(oldSelf.storage) || !has(self.storage.huggingFace) || !has(oldSelf.storage.huggingFace) \
         || (has(self.storage.huggingFace.kind) == has(oldSelf.storage.huggingFace.kind) \
         && (!has(self.storage.huggingFace.kind) || self.storage.huggingFace.kind == oldSelf.storage.huggingFace.kind))")
        .message("storage.huggingFace.kind cannot be changed: it names the data; create another Checkpoint"),
    validation = Rule::new(
        "!has(self.storage) || !has(oldSelf.storage) || !has(self.storage.huggingFace) || !has(oldSelf.storage.huggingFace) \
         || (has(self.storage.huggingFace.revision) == has(oldSelf.storage.huggingFace.revision) \
         && (!has(self.storage.huggingFace.revision) || self.storage.huggingFace.revision == oldSelf.storage.huggingFace.revision))")
        .message("storage.huggingFace.revision cannot be changed: it names the data; create another Checkpoint"),
    validation = Rule::new(
        "!has(self.storage) || !has(oldSelf.storage) || !has(self.storage.persistentVolumeClaim) || !has(oldSelf.storage.persistentVolumeClaim) \
         || self.storage.persistentVolumeClaim.claimName == oldSelf.storage.persistentVolumeClaim.claimName")
        .message("storage.persistentVolumeClaim.claimName cannot be changed: it names the data; create another Checkpoint"),
    validation = Rule::new(
        "!has(self.storage) || !has(oldSelf.storage) || !has(self.storage.inline) || !has(oldSelf.storage.inline) \
         || self.storage.inline.json == oldSelf.storage.inline.json")
        .message("storage.inline.json cannot be changed: it is the data; create another Checkpoint"),
    validation = Rule::new(
        "self.path.matches('^[a-zA-Z][a-zA-Z0-9+.-]*://') || (has(self.storage) \
         && (has(self.storage.s3) || has(self.storage.gcs) || has(self.storage.azure) || has(self.storage.http) \
         || has(self.storage.huggingFace) || has(self.storage.persistentVolumeClaim) || has(self.storage.inline)))")
        .message("say where the data lies: set one of storage.s3, storage.gcs, storage.azure, storage.http, storage.huggingFace, storage.persistentVolumeClaim and storage.inline, or make path a URI such as s3://bucket/path"),
    validation = Rule::new("!self.path.matches('^[a-zA-Z][a-zA-Z0-9+.-]*://') || self.path.matches('^((s3|gs|gcs|az|pvc|hf)://[^/?@:]+(/[^?]*)?([?].*)?|abfss?://[^/?@:]+(@[^/?@:]+)?(/[^?]*)?|https?://[^/?@]+(/.*)?)$')")
        .message("path is a URI that is not understood: use s3://bucket/path, gs://bucket/path, abfs://container@account.dfs.core.windows.net/path, https://host/path, hf://organisation/repository/path or pvc://claim/path, without user name or port"),
    validation = Rule::new("!self.path.matches('^s3://') || !has(self.storage) || (has(self.storage.s3) && !has(self.storage.s3.bucket))")
        .message("path is an s3:// URI, which names the bucket: of storage, set only s3, and leave out its bucket"),
    validation = Rule::new("!self.path.matches('^gc?s://') || !has(self.storage) || (has(self.storage.gcs) && !has(self.storage.gcs.bucket))")
        .message("path is a gs:// URI, which names the bucket: of storage, set only gcs, and leave out its bucket"),
    validation = Rule::new("!self.path.matches('^(abfss?|az)://') || !has(self.storage) || (has(self.storage.azure) && !has(self.storage.azure.container))")
        .message("path is an abfs:// URI, which names the container: of storage, set only azure, and leave out its container"),
    validation = Rule::new("!self.path.matches('^https?://') || !has(self.storage) || (has(self.storage.http) && !has(self.storage.http.url))")
        .message("path is an https:// URI, which names the files: of storage, set only http, and leave out its url"),
    validation = Rule::new("!self.path.matches('^hf://') || !has(self.storage) || (has(self.storage.huggingFace) && !has(self.storage.huggingFace.repository))")
        .message("path is an hf:// URI, which names the repository: of storage, set only huggingFace, and leave out its repository"),
    validation = Rule::new("!self.path.startsWith('pvc://') || !has(self.storage)")
        .message("path is a pvc:// URI, which names the claim: leave out storage"),
    validation = Rule::new("!self.path.startsWith('s3://') || self.path.matches('^[^?]*([?]((endpoint_override|scheme|region)=[^&=?]+(&(endpoint_override|scheme|region)=[^&=?]+)*)?)?$')")
        .message("of the query of an s3:// URI, only endpoint_override, scheme and region are understood"),
    validation = Rule::new("!self.path.matches('^(gc?s|abfss?|az|https?|hf|pvc)://') || !self.path.contains('?')")
        .message("this URI has no query; signed addresses expire and are secrets, and settings belong into storage"),
    validation = Rule::new("self.path.matches('^[a-zA-Z][a-zA-Z0-9+.-]*://') || !has(self.storage) || !has(self.storage.s3) || has(self.storage.s3.bucket)")
        .message("set storage.s3.bucket, or make path a URI such as s3://bucket/path"),
    validation = Rule::new("self.path.matches('^[a-zA-Z][a-zA-Z0-9+.-]*://') || !has(self.storage) || !has(self.storage.gcs) || has(self.storage.gcs.bucket)")
        .message("set storage.gcs.bucket, or make path a URI such as gs://bucket/path"),
    validation = Rule::new("self.path.matches('^[a-zA-Z][a-zA-Z0-9+.-]*://') || !has(self.storage) || !has(self.storage.azure) || has(self.storage.azure.container)")
        .message("set storage.azure.container, or make path a URI such as abfs://container@account.dfs.core.windows.net/path"),
    validation = Rule::new("self.path.matches('^[a-zA-Z][a-zA-Z0-9+.-]*://') || !has(self.storage) || !has(self.storage.http) || has(self.storage.http.url)")
        .message("set storage.http.url, or make path a URI such as https://host/path"),
    validation = Rule::new("self.path.matches('^[a-zA-Z][a-zA-Z0-9+.-]*://') || !has(self.storage) || !has(self.storage.huggingFace) || has(self.storage.huggingFace.repository)")
        .message("set storage.huggingFace.repository, or make path a URI such as hf://organisation/repository"),
    validation = Rule::new("!has(self.storage) || !has(self.storage.inline) || self.path == ''")
        .message("inline data has no path: leave path out"),
    validation = Rule::new("!self.path.startsWith('/')")
        .message("path is relative to the root of the storage: leave out the slash at its start"),
    validation = Rule::new("!self.path.matches('(^|/)[.][.]?(/|[?]|$)')")
        .message("path must not contain the segments . and .."),
)]
pub struct CheckpointSpec {
    /// The checkpoint's folder below the root of the storage, empty for the root itself; or a URI that also names the
    /// storage: `s3://bucket/path` (with Ray's `endpoint_override`, `scheme` and `region`), `gs://bucket/path`,
    /// `abfs://container@account.dfs.core.windows.net/path`, `https://host/path`, `hf://organisation/repository/path` or `pvc://claim/path`.
    #[serde(default)]
    #[schemars(length(max = 1024))]
    pub path: String,
    /// Where the data lies and how to reach it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage: Option<Storage>,
    /// The service account of the worker pods that read the storage; `default` when left out. Workload identity comes through it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub service_account_name: Option<String>,
    /// What must be true of the checkpoint before any byte of it reaches a pod.
    #[serde(default)]
    pub validation: Validation,
    /// The claims that the checkpoint becomes; none: it is only validated.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["claimName"]))]
    pub volumes: Vec<Volume>,
    /// The pods that read the storage and fill the volumes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<Worker>,
    /// Look at the source again this often and report whether it drifted, such as `24h`; at least `5m`. Left out: never.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), regex(pattern = r"^([0-9]{1,5}h)?([0-9]{1,5}m)?([0-9]{1,5}s)?$"))]
    #[x_kube(validation = Rule::new("self != '' && duration(self) >= duration('5m')").message("revalidateEvery must be at least 5m, such as 30m or 24h"))]
    pub revalidate_every: Option<String>,
    /// True: running work finishes, nothing new starts and nothing is published.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub suspend: bool,
}

/// The pods that do the work. Everything has a default that fits clusters which enforce Pod Security `restricted`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Worker {
    /// Compute resources of the worker container; the installation's defaults when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceAmounts>,
    /// Where worker pods may run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub placement: Option<Placement>,
    /// Priority class of the worker pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub priority_class_name: Option<String>,
    /// Secrets that the kubelet uses to pull the worker image.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub image_pull_secrets: Vec<LocalReference>,
    /// Labels to add to worker pods.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub pod_labels: BTreeMap<String, String>,
    /// Annotations to add to worker pods.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub pod_annotations: BTreeMap<String, String>,
    /// User ID that the worker runs as, and so the owner of the files; the installation's default (65532) when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub run_as_user: Option<i64>,
    /// Group ID that may write the volume; the installation's default (65532) when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub fs_group: Option<i64>,
}

/// Requests and limits of a container.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ResourceAmounts {
    /// What the scheduler reserves, such as `{cpu: "1", memory: 256Mi}`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16))]
    pub requests: BTreeMap<String, Amount>,
    /// What the container may use at most.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16))]
    pub limits: BTreeMap<String, Amount>,
}

/// An object of the same namespace, by name.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LocalReference {
    /// The object's name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}
