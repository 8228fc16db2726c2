//! What the operator found: `status`. No behaviour, no I/O.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::schema::{conditions, open_value};
use crate::contract::Contents;

/// What the operator found and did. Written by the operator alone.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CheckpointStatus {
    /// The generation of the spec that this status describes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The source as it was listed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<SourceStatus>,
    /// The latest look at the source, and the next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inspection: Option<InspectionStatus>,
    /// What the checkpoint is and holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contents: Option<Contents>,
    /// The user's metadata: the object in the checkpoint's `.metadata.json`, as Ray writes it; shortened when it is large.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "open_value")]
    pub metadata: Option<serde_json::Value>,
    /// Digest of the whole source, set once all of its content was read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Share of the bytes of all volumes that are in place, such as `45%`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<String>,
    /// The state of each volume, in the order of the spec.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["claimName"]))]
    pub volumes: Vec<VolumeStatus>,
    /// `SourceReachable`, `Validated`, `Materialized`, `Ready`, `Stalled` and `Drifted`, each with a reason and what to do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions")]
    pub conditions: Vec<Condition>,
}

/// The source as it was listed.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SourceStatus {
    /// The full location.
    pub uri: String,
    /// BLAKE3 over the sorted listing (path, size, version): the same fingerprint means the same files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    /// Number of files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub files: Option<i64>,
    /// Sum of the sizes of all files, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<i64>,
    /// `bytes` for people, such as `14.9 GiB`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<String>,
    /// When the source was last listed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checked_at: Option<Time>,
}

/// The latest inspection and the next.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InspectionStatus {
    /// The number of the latest inspection, from 1.
    #[serde(default)]
    pub attempt: i64,
    /// The latest inspection whose result is in this status.
    #[serde(default)]
    pub recorded_attempt: i64,
    /// How many inspections in a row did not end well; the interval between them grows with it.
    #[serde(default)]
    pub failures: i64,
    /// Hash of what was inspected and what was asked of it; another hash means that an inspection is due.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inputs: Option<String>,
    /// When the source will be looked at again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_attempt_at: Option<Time>,
    /// The value of the annotation `checkpoints.dev/revalidate` that was last acted on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub handled_revalidate: Option<String>,
}

/// The state of one volume.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VolumeStatus {
    /// The claim that pods reference.
    pub claim_name: String,
    /// How far the volume is.
    #[serde(default)]
    pub phase: Phase,
    /// Why it is not further.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// What happened and what to do.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Bytes in place. While a worker is at work it tells this about every ten seconds, unless a network policy keeps it from
    /// telling. It goes back only when bytes turn out wrong, or are lost with a worker, and are fetched again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_done: Option<i64>,
    /// Bytes that the volume will hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_total: Option<i64>,
    /// Bytes that the volume must be able to hold: the files, block rounding and headroom.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_required: Option<i64>,
    /// Of the bytes in place, those of files that the source holds a checksum of, which was compared. Of the others nobody can
    /// tell whether they are what was uploaded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_verified: Option<i64>,
    /// Of the bytes in place, those that were taken from an earlier checkpoint instead of being fetched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_reused: Option<i64>,
    /// Why nothing is taken from the claim in `reuseFrom`; absent when it is used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reuse_skipped: Option<String>,
    /// While a worker is at work, its rate over the last half minute, in bytes per second; absent when it has not told for a
    /// minute. Afterwards the mean rate of the load.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<i64>,
    /// Time left at this rate, in seconds; absent when nothing moves or nothing is told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remaining_seconds: Option<i64>,
    /// The number of the latest load, from 1.
    #[serde(default)]
    pub attempt: i64,
    /// The latest load whose result is in this status.
    #[serde(default)]
    pub recorded_attempt: i64,
    /// How many loads in a row failed; the interval between them grows with it.
    #[serde(default)]
    pub failures: i64,
    /// Hash of what was loaded, or is to be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inputs: Option<String>,
    /// When the next attempt starts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_attempt_at: Option<Time>,
    /// Fingerprint of the source that the volume holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    /// Digest of the files in the volume.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// The persistent volume behind the claim, once it is published.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub persistent_volume: Option<String>,
}

/// How far a volume is.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum Phase {
    /// Nothing was started.
    #[default]
    Pending,
    /// A worker copies the files into the staging volume.
    Loading,
    /// A worker hashes the files of a claim that was there before.
    Verifying,
    /// The loaded volume is being handed to the claim.
    Publishing,
    /// Pods that reference the claim run on verified bytes.
    Published,
    /// The latest attempt failed; the message says why and what to do.
    Failed,
}
