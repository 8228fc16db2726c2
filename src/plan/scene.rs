//! What the decisions share: the observed world with a checked spec, and the plan as it grows. Pure, no I/O.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::{
    api::{
        batch::v1::Job,
        core::v1::{PersistentVolume, PersistentVolumeClaim},
    },
    apimachinery::pkg::apis::meta::v1::Time,
};

use crate::{
    api::{Checkpoint, CheckpointStatus},
    contract::{ConditionType, Reason, Report, report::clean},
};

use super::{
    Action, Config, Observed, Turn, WorkerResult,
    attempt::Trouble,
    validate::Intent,
    worker_job::{self, JobRequest},
};

/// The world, read-only.
pub(super) struct Scene<'a> {
    pub config: &'a Config,
    pub observed: &'a Observed,
    pub now: Timestamp,
    pub checkpoint: &'a Checkpoint,
    pub uid: &'a str,
    pub intent: &'a Intent,
}

impl Scene<'_> {
    pub fn claim(&self, name: &str) -> Option<&PersistentVolumeClaim> {
        self.observed.claims.iter().find(|claim| claim.metadata.name.as_deref() == Some(name))
    }

    pub fn volume(&self, name: &str) -> Option<&PersistentVolume> {
        self.observed.volumes.iter().find(|volume| volume.metadata.name.as_deref() == Some(name))
    }

    /// Why the API server refused to create this object in the same pass, if it did.
    pub fn refusal(&self, object: &str) -> Option<Trouble> {
        let refusal = self.observed.refusals.iter().find(|refusal| refusal.object == object)?;
        let text = clean(&refusal.message, 700);
        let (reason, remedy) = match refusal.code {
            403 if text.contains("exceeded quota") => (Reason::QuotaExceeded, "raise the quota or free some of it"),
            409 => (Reason::ClaimConflict, "delete it or choose another name"),
            422 => (Reason::InvalidSpec, "change the spec"),
            _ => (Reason::WorkerForbidden, "change the policy that forbids it"),
        };
        Some(Trouble { reason, message: format!("cannot create {object}: {text}; {remedy}") })
    }
}

/// How the creation of a Job went.
pub(super) enum Start {
    /// It is among the actions.
    Created,
    /// It is not its turn.
    Queued(usize),
    /// `spec.suspend` is true.
    Suspended,
    /// The API server refused it.
    Refused(Trouble),
}

impl Start {
    /// What a condition says of it; `Created` is progress with the given reason.
    pub fn state(self, reason: Reason, message: &str) -> State {
        match self {
            Self::Created => State::unknown(reason, message),
            Self::Queued(running) => State::unknown(
                Reason::Queued,
                format!(
                    "{running} workers run, which is as many as the installation allows at once; it starts in its turn"
                ),
            ),
            Self::Suspended => {
                State::unknown(Reason::Suspended, "spec.suspend is true: nothing new starts; set it to false to go on")
            }
            Self::Refused(trouble) => State::failed(trouble.reason, trouble.message),
        }
    }
}

/// A condition's value.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Truth {
    True,
    False,
    Unknown,
}

/// A condition without its time.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct State {
    pub truth: Truth,
    pub reason: Reason,
    pub message: String,
}

impl State {
    pub fn new(truth: Truth, reason: Reason, message: impl Into<String>) -> Self {
        Self { truth, reason, message: clean(&message.into(), 2048) }
    }
    pub fn met(reason: Reason, message: impl Into<String>) -> Self {
        Self::new(Truth::True, reason, message)
    }
    pub fn failed(reason: Reason, message: impl Into<String>) -> Self {
        Self::new(Truth::False, reason, message)
    }
    pub fn unknown(reason: Reason, message: impl Into<String>) -> Self {
        Self::new(Truth::Unknown, reason, message)
    }

    /// The state that a status holds.
    pub fn of(status: &CheckpointStatus, kind: ConditionType) -> Option<Self> {
        let condition = status.conditions.iter().find(|condition| condition.type_ == kind.as_str())?;
        let truth = match condition.status.as_str() {
            "True" => Truth::True,
            "False" => Truth::False,
            _ => Truth::Unknown,
        };
        Some(Self { truth, reason: Reason::parse(&condition.reason)?, message: condition.message.clone() })
    }
}

/// The plan as it grows.
#[derive(Default)]
pub(super) struct Draft {
    pub status: CheckpointStatus,
    pub actions: Vec<Action>,
    pub results: Vec<WorkerResult>,
    pub requeue: Option<Duration>,
    /// What a load found out about the checkpoint itself.
    pub verdict: Option<State>,
    created: bool,
}

impl Draft {
    pub fn new(status: CheckpointStatus) -> Self {
        Self { status, ..Self::default() }
    }

    /// Looks again after this time at the latest.
    pub fn look_again(&mut self, after: Duration) {
        self.requeue = Some(self.requeue.map_or(after, |before| before.min(after)));
    }

    /// Looks again at this time at the latest.
    pub fn look_again_at(&mut self, at: Timestamp, now: Timestamp) {
        let wait = u64::try_from(at.duration_since(now).as_millis()).unwrap_or(0);
        // Rounded up, so that the time has come when it is looked at.
        self.look_again(Duration::from_millis(wait + 50));
    }

    /// Creates a worker's Job, if it may be created now.
    pub fn start(&mut self, scene: &Scene<'_>, request: &JobRequest<'_>) -> Start {
        if scene.checkpoint.spec.suspend {
            return Start::Suspended;
        }
        match scene.observed.turn {
            Turn::Waiting { running } => return Start::Queued(running),
            // One turn is one Job; the next is asked for right after.
            Turn::Granted if self.created => {
                self.look_again(Duration::from_secs(1));
                return Start::Queued(1);
            }
            Turn::Granted => {}
        }
        self.created = true;
        let action = Action::CreateJob(Box::new(worker_job::build(scene.config, request)));
        let refusal = scene.refusal(&action.object());
        self.actions.push(action);
        refusal.map_or(Start::Created, |trouble| {
            self.look_again(Duration::from_secs(30));
            Start::Refused(trouble)
        })
    }

    /// Deletes a Job.
    pub fn retire(&mut self, job: &Job) {
        if job.metadata.deletion_timestamp.is_some() {
            return;
        }
        if let (Some(name), Some(uid)) = (job.metadata.name.clone(), job.metadata.uid.clone()) {
            self.actions.push(Action::DeleteJob { name, uid });
        }
    }

    /// Counts the result of a worker.
    pub fn count(&mut self, report: &Report) {
        if let Some(task) = report.task {
            let bytes_fetched = report.transfer.as_ref().map_or(0, |transfer| transfer.bytes_fetched);
            self.results.push(WorkerResult { task, outcome: report.outcome, bytes_fetched });
        }
    }
}

/// A time stamp of the API: whole seconds, as Kubernetes stores them.
pub(super) fn time(at: Timestamp) -> Time {
    Time(Timestamp::from_second(at.as_second()).unwrap_or(at))
}

/// A count in the API, which has signed integers.
pub(super) fn count(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
