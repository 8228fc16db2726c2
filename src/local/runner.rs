//! `run`: observe, plan, apply, do the work of the Jobs in this process, until nothing changes. Does I/O.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    api::Checkpoint,
    contract::{ConditionType, Reason, Report, Task, TaskKind, environment},
    plan::{Config, Plan, plan},
    storage::{Mounts, StorageError},
    worker::{self, ProgressSink},
};

use super::{
    Documents,
    folders::Folders,
    keyring::Keyring,
    perform::{Display, Perform},
    world::{World, WriteError},
};

/// Passes without any work in between after which something is wrong with the plan.
const PASSES: usize = 1000;
/// How often a person sees how far a task is.
const TICK: Duration = Duration::from_millis(200);
/// The longest pause before another attempt that a person in front of a terminal is made to wait.
const LONGEST_PAUSE: Duration = Duration::from_secs(90);

/// How to run.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The folder whose subfolders are the claims.
    pub volumes: PathBuf,
    /// The folder whose subfolders are Secrets and `ConfigMaps`, a file a key.
    pub secrets: Option<PathBuf>,
    /// Environment variables that may hold credentials.
    pub environment: BTreeMap<String, String>,
    /// How many times to wait for another attempt after one that may succeed later.
    pub retries: u32,
    /// Claims whose folder lies elsewhere.
    pub places: BTreeMap<String, PathBuf>,
}

/// What became of a Checkpoint.
#[derive(Clone, Debug)]
pub struct Run {
    /// The Checkpoint with its status.
    pub checkpoint: Checkpoint,
    /// The report of the latest inspection in full.
    pub report: Option<Report>,
}

/// Why a run could not go on.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// A file or folder.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Two runs on one folder would overwrite each other's work.
    #[error("another run uses this folder (it holds {}); wait for it, or choose another --volumes", .0.display())]
    InUse(PathBuf),
    /// Credentials of the person who runs this.
    #[error(transparent)]
    Credentials(#[from] StorageError),
    /// A Job without a task: the plan is of another version than this program.
    #[error("the Job {0} holds no task that this version understands")]
    NoTask(String),
    /// The plan goes round in circles.
    #[error("{0} does not settle; please report this as a bug, with the manifest")]
    Unsettled(String),
    /// The user said stop.
    #[error("interrupted; run the same command again to continue")]
    Interrupted,
}

impl LocalError {
    /// Turns an I/O error at a path into this error.
    pub(super) fn at(path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Io { path, source }
    }
}

/// Carries out all Checkpoints, one after the other.
///
/// # Errors
/// When the folders cannot be used or the run is cancelled. A Checkpoint that is not Ready is not an error.
pub async fn run(
    settings: &Settings,
    documents: &Documents,
    performer: &dyn Perform,
    display: &dyn Display,
    cancel: &CancellationToken,
) -> Result<Vec<Run>, LocalError> {
    let writes = documents.checkpoints.iter().any(|checkpoint| !checkpoint.spec.volumes.is_empty());
    let mut folders = Folders::open(&settings.volumes, writes)?;
    for (claim, folder) in &settings.places {
        folders.place(claim, folder);
    }
    let begun = Timestamp::now();
    let mut laptop = Laptop {
        world: World::new(begun),
        begun: (begun, Instant::now()),
        folders,
        keyring: Keyring::new(documents, settings.secrets.clone(), settings.environment.clone())?,
        retries: settings.retries,
        performer,
        display,
        cancel,
    };
    let mut runs = Vec::with_capacity(documents.checkpoints.len());
    for checkpoint in &documents.checkpoints {
        runs.push(laptop.carry_out(checkpoint).await?);
    }
    Ok(runs)
}

struct Laptop<'a> {
    world: World,
    begun: (Timestamp, Instant),
    folders: Folders,
    keyring: Keyring,
    retries: u32,
    performer: &'a dyn Perform,
    display: &'a dyn Display,
    cancel: &'a CancellationToken,
}

impl Laptop<'_> {
    async fn carry_out(&mut self, checkpoint: &Checkpoint) -> Result<Run, LocalError> {
        let checkpoint = self.world.add_checkpoint(checkpoint.clone());
        let uid = checkpoint.metadata.uid.clone().unwrap_or_default();
        // Folders have no classes: whatever the manifest asks for is there.
        for class in checkpoint.spec.volumes.iter().filter_map(|volume| volume.storage_class_name.as_deref()) {
            self.world.add_storage_class(class, false, false);
        }
        self.folders.present(&mut self.world, &checkpoint)?;
        let mut inspection = None;
        let mut passes = 0;
        let mut retries = self.retries;
        loop {
            if self.cancel.is_cancelled() {
                return Err(LocalError::Interrupted);
            }
            let before = self.world.version();
            let plan = self.pass(&uid)?;
            if let Some(job) = self.world.running_jobs().first().cloned() {
                let report = self.work(&job).await?;
                if report.task == Some(TaskKind::Inspect) {
                    inspection = Some(report);
                }
                passes = 0;
            } else if self.world.version() == before && !self.waits(&plan, &mut retries).await? {
                let checkpoint = self.world.checkpoint(&uid).cloned().unwrap_or(checkpoint);
                return Ok(Run { checkpoint, report: inspection });
            }
            passes += 1;
            if passes > PASSES {
                return Err(LocalError::Unsettled(checkpoint.metadata.name.clone().unwrap_or_default()));
            }
        }
    }

    /// Moves the world's clock. It never goes back, whatever becomes of the computer's.
    fn tick(&mut self) {
        let elapsed = jiff::SignedDuration::try_from(self.begun.1.elapsed()).unwrap_or_default();
        self.world.set_now(self.begun.0.saturating_add(elapsed).unwrap_or(self.begun.0));
    }

    /// One pass: observe, plan, apply, write the status; then the cluster's own controllers.
    fn pass(&mut self, uid: &str) -> Result<Plan, LocalError> {
        self.tick();
        let Some(checkpoint) = self.world.checkpoint(uid).cloned() else { return Ok(Plan::default()) };
        let mut observed = self.world.observe(&checkpoint);
        let config = Config::default();
        let mut decided = plan(&config, &observed, self.world.now());
        for action in &decided.actions {
            match self.world.apply(action) {
                Ok(()) => {}
                Err(WriteError::Refused(refusal)) => observed.refusals.push(refusal),
                Err(WriteError::Conflict(_)) => break,
            }
        }
        if !observed.refusals.is_empty() {
            decided = plan(&config, &observed, self.world.now());
        }
        self.world.write_status(uid, decided.status.clone());
        self.world.settle();
        self.folders.follow(&self.world)?;
        Ok(decided)
    }

    /// Waits for another attempt, if one is due soon. False when this is the end.
    async fn waits(&self, plan: &Plan, retries: &mut u32) -> Result<bool, LocalError> {
        let is_true = |kind| condition(&plan.status.conditions, kind).is_some_and(|found| found.status == "True");
        let Some(pause) = plan.requeue.filter(|pause| *pause <= LONGEST_PAUSE) else { return Ok(false) };
        if is_true(ConditionType::Ready) || is_true(ConditionType::Stalled) || *retries == 0 {
            return Ok(false);
        }
        *retries -= 1;
        if let Some(ready) = condition(&plan.status.conditions, ConditionType::Ready) {
            let seconds = pause.as_secs().max(1);
            self.display.note(&format!("{}: {}; next attempt in {seconds} s", ready.reason, ready.message));
        }
        match self.cancel.run_until_cancelled(tokio::time::sleep(pause)).await {
            Some(()) => Ok(true),
            None => Err(LocalError::Interrupted),
        }
    }

    /// Does the work of a Job, and lets the world see how it ended.
    async fn work(&mut self, name: &str) -> Result<Report, LocalError> {
        let job = self.world.jobs().get(name).cloned().unwrap_or_default();
        let task = task_of(&job).ok_or_else(|| LocalError::NoTask(name.to_owned()))?;
        let mounts = self.mounts(&job)?;
        self.display.begin(&describe(&job, &task));
        let progress = ProgressSink::default();
        let work = self.performer.perform(&task, &mounts, &progress, self.cancel.clone());
        let report = self.watch(work, &progress).await;
        if self.cancel.is_cancelled() {
            return Err(LocalError::Interrupted);
        }
        self.display.end(&report);
        self.tick();
        self.world.finish_job(name, &report, worker::exit_code(&report));
        Ok(report)
    }

    async fn watch(&self, work: impl Future<Output = Report>, progress: &ProgressSink) -> Report {
        let seen = progress.subscribe();
        let mut ticks = tokio::time::interval(TICK);
        tokio::pin!(work);
        loop {
            tokio::select! {
                report = &mut work => return report,
                _ = ticks.tick() => self.display.progress(*seen.borrow()),
            }
        }
    }

    /// What the kubelet would mount into the Job's pod.
    fn mounts(&self, job: &Job) -> Result<Mounts, LocalError> {
        let namespace = job.metadata.namespace.clone().unwrap_or_default();
        let (identity, person) = (self.keyring.identity(), Some(self.keyring.person()));
        let mut mounts = Mounts { identity, person, ..Mounts::default() };
        let Some(spec) = job.spec.as_ref().and_then(|spec| spec.template.spec.as_ref()) else { return Ok(mounts) };
        let Some(container) = spec.containers.first() else { return Ok(mounts) };
        mounts.inline = variable(job, environment::INLINE).and_then(|bytes| String::from_utf8(bytes).ok());
        for mount in container.volume_mounts.iter().flatten() {
            let Some(volume) = spec.volumes.iter().flatten().find(|volume| volume.name == mount.name) else { continue };
            if let Some(claim) = &volume.persistent_volume_claim {
                let folder = self.folders.of_claim(&self.world, &claim.claim_name).map(Path::to_owned);
                match mount.mount_path.as_str() {
                    environment::SOURCE_MOUNT => mounts.source = folder.unwrap_or_default(),
                    environment::VOLUME_MOUNT => mounts.volume = folder,
                    environment::REUSE_MOUNT => mounts.reuse = folder,
                    _ => {}
                }
            } else if let Some(secret) = &volume.secret {
                let keys: Vec<&str> = secret.items.iter().flatten().map(|item| item.key.as_str()).collect();
                let name = secret.secret_name.as_deref().unwrap_or_default();
                mounts.credentials = self.keyring.credentials(&namespace, name, &keys)?;
            } else if let Some(map) = &volume.config_map {
                let key = map.items.iter().flatten().next().map_or("ca.crt", |item| item.key.as_str());
                mounts.ca = self.keyring.authorities(&namespace, &map.name, key)?;
            }
        }
        Ok(mounts)
    }
}

/// The condition of this type.
#[must_use]
pub fn condition(
    conditions: &[k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition],
    kind: ConditionType,
) -> Option<&k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition> {
    conditions.iter().find(|condition| condition.type_ == kind.as_str())
}

/// What `run` and `inspect` exit with: 0 when the Checkpoint is Ready, 1 when the verdict or the volume is bad, 2 when
/// the source could not be reached or nothing could be asked of it.
#[must_use]
pub fn exit_code(checkpoint: &Checkpoint) -> u8 {
    let conditions = checkpoint.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let is = |kind, value: &str| condition(conditions, kind).is_some_and(|found| found.status == value);
    let invalid = condition(conditions, ConditionType::Validated)
        .is_some_and(|validated| validated.reason == Reason::InvalidSpec.as_str());
    if is(ConditionType::Ready, "True") {
        0
    } else if !invalid
        && (is(ConditionType::Validated, "False")
            || is(ConditionType::Materialized, "False") && is(ConditionType::Validated, "True"))
    {
        1
    } else {
        2
    }
}

fn describe(job: &Job, task: &Task) -> String {
    let annotations = job.metadata.annotations.as_ref();
    let annotation = |name: &str| annotations.and_then(|all| all.get(name)).map_or("", String::as_str);
    let checkpoint = annotation(crate::api::ANNOTATION_CHECKPOINT);
    match task.kind {
        TaskKind::Inspect => format!("{checkpoint}: inspecting the source"),
        TaskKind::Load => format!("{checkpoint}: loading {}", annotation(crate::api::ANNOTATION_CLAIM)),
        TaskKind::Verify => format!("{checkpoint}: verifying {}", annotation(crate::api::ANNOTATION_CLAIM)),
    }
}

fn task_of(job: &Job) -> Option<Task> {
    serde_json::from_slice(&variable(job, environment::TASK)?).ok()
}

/// An environment variable of the worker, decoded.
fn variable(job: &Job, name: &str) -> Option<Vec<u8>> {
    let container = job.spec.as_ref()?.template.spec.as_ref()?.containers.first()?;
    let variable = container.env.as_ref()?.iter().find(|variable| variable.name == name)?;
    BASE64_STANDARD.decode(variable.value.as_ref()?).ok()
}

#[cfg(test)]
#[path = "runner_tests.rs"]
mod tests;
