//! Decides what to do next for one Checkpoint: `(Config, Observed, now) -> Plan`. Pure, no I/O: no client, clock or environment.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::Timestamp;
use k8s_openapi::api::{
    batch::v1::Job,
    core::v1::{PersistentVolume, PersistentVolumeClaim, Pod},
    storage::v1::StorageClass,
};
use serde::{Deserialize, Serialize};

use crate::{
    api::{Checkpoint, CheckpointStatus, Phase, VolumeStatus, Worker},
    contract::{ConditionType, Outcome, Reason, Source, TaskKind},
};

use inspection::Inspected;
use scene::{Draft, Scene, State};

mod adopt;
pub mod attempt;
mod backoff;
pub mod claims;
mod cleanup;
mod conditions;
mod inspection;
mod load;
pub mod names;
pub mod progress;
mod publish;
pub mod quantity;
mod scene;
mod sibling;
mod source;
mod source_claim;
mod staging;
pub mod validate;
mod verdict;
mod volume;
mod volume_status;
pub mod worker_job;

#[cfg(test)]
mod tests;

/// What the installation decided; no part of it enters the hash of a task's inputs, so that an upgrade restarts nothing.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Image of worker pods: the one that the controller runs from.
    pub worker_image: String,
    /// `imagePullPolicy` of worker pods; none leaves it to Kubernetes.
    pub worker_image_pull_policy: Option<String>,
    /// Defaults for `spec.worker`.
    pub worker: Worker,
    /// The base URL to which workers tell how far they are; none when nobody listens.
    pub progress_url: Option<String>,
}

/// The world as far as one Checkpoint is concerned, read before planning.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// The Checkpoint itself, read from the API server and not from a cache.
    pub checkpoint: Checkpoint,
    /// Jobs that carry the Checkpoint's UID as their label.
    pub jobs: Vec<Job>,
    /// Pods that carry the Checkpoint's UID as their label.
    pub pods: Vec<Pod>,
    /// What workers last told of how far they are, by the UID of their pod. Never complete: there may be no way to us.
    pub progress: BTreeMap<String, progress::Told>,
    /// Events of those Jobs that have no pod and are not finished.
    pub job_events: Vec<JobEvent>,
    /// Claims that carry the Checkpoint's UID as their label, and those that [`interests`] names, whoever owns them.
    pub claims: Vec<PersistentVolumeClaim>,
    /// The persistent volumes that these claims name in `spec.volumeName`.
    pub volumes: Vec<PersistentVolume>,
    /// All storage classes.
    pub storage_classes: Vec<StorageClass>,
    /// Pods that mount the source claim or a claim of `reuseFrom`, when one node holds it.
    pub source_pods: Vec<Pod>,
    /// UIDs of all Checkpoints of the namespace that exist: a retained claim of one of them is not up for adoption.
    pub live_uids: BTreeSet<String>,
    /// Whether a worker Job may be created now.
    pub turn: Turn,
    /// What the API server refused of the same pass's actions: the plan is then made again, for the status alone.
    pub refusals: Vec<Refusal>,
}

/// Whether a worker Job may be created now under the limits of the installation.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Turn {
    /// Yes.
    #[default]
    Granted,
    /// No: this many workers run, in all or in the namespace.
    Waiting {
        /// Workers that run.
        running: usize,
    },
}

/// An event about a Job.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct JobEvent {
    /// The Job's name.
    pub job: String,
    /// Such as `FailedCreate`.
    pub reason: String,
    /// The text.
    pub message: String,
}

/// An action that the API server refused for a reason that lies in the cluster and not in timing.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Refusal {
    /// [`Action::object`] of the refused action.
    pub object: String,
    /// HTTP status.
    pub code: u16,
    /// The API server's message.
    pub message: String,
}

/// Claims to read by name, because others may own them.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Interests {
    /// Names of claims in the Checkpoint's namespace: targets, the source, and those that files may be taken from.
    pub claims: Vec<String>,
    /// The source claim, if the source is one: pods that mount it are to be read too.
    pub source_claim: Option<String>,
    /// The claims that files may be taken from: so are pods that mount these.
    pub siblings: Vec<String>,
}

/// What to do, in this order: the actions, one status write when it differs, then the events.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Writes to Kubernetes, in order. Each can be repeated.
    pub actions: Vec<Action>,
    /// The whole status.
    pub status: CheckpointStatus,
    /// Transitions to tell users about.
    pub events: Vec<EventDraft>,
    /// Results of workers that this status records for the first time, for metrics.
    pub results: Vec<WorkerResult>,
    /// When to look again if nothing changes before.
    pub requeue: Option<Duration>,
}

/// A write to Kubernetes. Deletions and patches carry the UID, patches of what others write too the resource version.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Create; when it exists and has our owner reference, fine.
    CreateJob(Box<Job>),
    /// Delete with background propagation; its pods go with it.
    DeleteJob {
        /// Name.
        name: String,
        /// Precondition.
        uid: String,
    },
    /// Create; when it exists and carries our label, fine.
    CreateClaim(Box<PersistentVolumeClaim>),
    /// Delete.
    DeleteClaim {
        /// Name.
        name: String,
        /// Precondition.
        uid: String,
    },
    /// JSON merge patch whose `metadata` holds `uid`, and `resourceVersion` where the order of writes matters.
    PatchClaim {
        /// Name.
        name: String,
        /// The patch.
        patch: serde_json::Value,
    },
    /// JSON merge patch whose `metadata` holds `uid` and `resourceVersion`.
    PatchVolume {
        /// Name.
        name: String,
        /// The patch.
        patch: serde_json::Value,
    },
}

/// An event for `kubectl describe`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct EventDraft {
    /// Whether something is wrong.
    pub warning: bool,
    /// The condition whose transition it tells.
    pub condition: ConditionType,
    /// The condition's reason.
    pub reason: Reason,
    /// The condition's message.
    pub note: String,
}

/// The result of a worker.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct WorkerResult {
    /// What it did.
    pub task: TaskKind,
    /// How it ended.
    pub outcome: Outcome,
    /// Bytes that it read from the source.
    pub bytes_fetched: u64,
}

/// What a published volume holds: JSON in [`crate::api::ANNOTATION_PUBLISHED`].
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Publication {
    /// UID of the Checkpoint that published it.
    pub checkpoint_uid: String,
    /// Where the data came from.
    pub uri: String,
    /// The listing that it came from.
    pub fingerprint: String,
    /// [`crate::contract::digest::filter_hash`] of the volume's filter.
    pub filter: String,
    /// Digest of the files in the volume.
    pub digest: String,
    /// Number of bytes in the volume.
    pub bytes: i64,
}

impl Action {
    /// The object that it writes, such as `persistentvolumeclaims/llama`, for messages and refusals.
    #[must_use]
    pub fn object(&self) -> String {
        let name_of = |name: &Option<String>| name.clone().unwrap_or_default();
        match self {
            Self::CreateJob(job) => format!("jobs/{}", name_of(&job.metadata.name)),
            Self::DeleteJob { name, .. } => format!("jobs/{name}"),
            Self::CreateClaim(claim) => format!("persistentvolumeclaims/{}", name_of(&claim.metadata.name)),
            Self::DeleteClaim { name, .. } | Self::PatchClaim { name, .. } => format!("persistentvolumeclaims/{name}"),
            Self::PatchVolume { name, .. } => format!("persistentvolumes/{name}"),
        }
    }
}

/// Which claims to read by name before planning.
#[must_use]
pub fn interests(checkpoint: &Checkpoint) -> Interests {
    let mut claims: Vec<_> = checkpoint.spec.volumes.iter().map(|volume| volume.claim_name.clone()).collect();
    let source_claim = match validate::validate(checkpoint) {
        Ok(validate::Intent { source: Source::Claim { claim_name, .. }, .. }) => Some(claim_name),
        _ => None,
    };
    let siblings: Vec<_> = checkpoint.spec.volumes.iter().filter_map(|volume| volume.reuse_from.clone()).collect();
    claims.extend(source_claim.iter().chain(&siblings).cloned());
    Interests { claims, source_claim, siblings }
}

/// Decides what to do.
#[must_use]
pub fn plan(config: &Config, observed: &Observed, now: Timestamp) -> Plan {
    let checkpoint = &observed.checkpoint;
    let before = checkpoint.status.clone().unwrap_or_default();
    // Everything that has to go has an owner reference; the garbage collector needs nothing from us.
    if checkpoint.metadata.deletion_timestamp.is_some() {
        return Plan { status: before, ..Plan::default() };
    }
    let uid = checkpoint.metadata.uid.as_deref().unwrap_or_default();
    let intent = validate::validate(checkpoint);
    let valid = intent.as_ref().err().cloned();
    let intent = intent.unwrap_or_else(|_| validate::Intent::nothing());
    let scene = Scene { config, observed, now, checkpoint, uid, intent: &intent };
    let mut draft = Draft::new(before);
    prepare(&scene, &mut draft);
    cleanup::removed_volumes(&scene, &mut draft);
    let inspected = match valid {
        Some(problem) => refuse(&scene, &mut draft, &problem),
        None => carry_out(&scene, &mut draft),
    };
    conditions::conclude(&scene, &mut draft.status, &inspected);
    let events = conditions::events(checkpoint.status.as_ref(), &draft.status);
    Plan { actions: draft.actions, status: draft.status, events, results: draft.results, requeue: draft.requeue }
}

/// Lines the status up with the spec: one entry a volume, in the spec's order.
fn prepare(scene: &Scene<'_>, draft: &mut Draft) {
    let spec = &scene.checkpoint.spec;
    let before = std::mem::take(&mut draft.status.volumes);
    let spec_changed = draft.status.observed_generation != scene.checkpoint.metadata.generation;
    draft.status.volumes = spec
        .volumes
        .iter()
        .map(|volume| {
            let known = before.iter().find(|status| status.claim_name == volume.claim_name).cloned();
            let mut status = known
                .unwrap_or_else(|| VolumeStatus { claim_name: volume.claim_name.clone(), ..VolumeStatus::default() });
            if spec_changed {
                // A new spec may be the remedy: what failed under the old one is tried at once.
                status.next_attempt_at = None;
            }
            status
        })
        .collect();
    if !scene.intent.uri.is_empty() {
        draft.status.source.get_or_insert_default().uri.clone_from(&scene.intent.uri);
    }
}

fn carry_out(scene: &Scene<'_>, draft: &mut Draft) -> Inspected {
    let pinned = volume::pinned(scene);
    let mut inspected = inspection::decide(scene, draft, pinned.as_deref());
    for (index, intent) in scene.intent.volumes.iter().enumerate() {
        let basis =
            volume_status::Basis { good: inspected.good.as_deref(), bad: inspected.bad, pinned: pinned.as_deref() };
        volume::decide(scene, draft, intent, index, &basis);
    }
    if let Some(found) = draft.verdict.take() {
        verdict::overrule(scene, draft, &mut inspected, found, pinned.is_some());
    }
    inspected
}

/// A spec that cannot be carried out: unfinished work is retired, what is published stays.
fn refuse(scene: &Scene<'_>, draft: &mut Draft, problem: &validate::InvalidSpec) -> Inspected {
    for job in &scene.observed.jobs {
        draft.retire(job);
    }
    for status in &mut draft.status.volumes {
        if status.phase != Phase::Published {
            let state = State::unknown(Reason::WaitingForVolume, "waits for a spec that can be carried out");
            volume_status::set(status, Phase::Pending, &state);
        }
    }
    let failed = State::failed(problem.reason, problem.message.clone());
    let not_looked = State::unknown(Reason::Checking, "the source was not looked at: the spec cannot be carried out");
    // As when a worker finds it: the first condition, which is also that of Ready, says what to do.
    let (reachable, validated) = if problem.reason == Reason::InvalidSpec {
        (failed.clone(), failed)
    } else {
        (failed, State::unknown(Reason::Validating, "not validated: the source cannot be read"))
    };
    let drifted = State::of(&draft.status, ConditionType::Drifted).unwrap_or(not_looked);
    Inspected { reachable, validated, drifted, good: None, bad: true }
}
