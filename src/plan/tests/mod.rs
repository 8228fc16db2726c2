//! Whole lives of Checkpoints in an in-memory Kubernetes: what the plan does, and where it ends when it is interrupted.

mod crash;
mod life;
mod progress;
mod reuse;
mod trouble;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::{
    api::{Checkpoint, CheckpointStatus},
    contract::{
        ConditionType, Contents, Format, Outcome, Reason, Report, Selection, SourceFacts, Task, TaskKind, Transfer,
        digest::filter_hash, environment, exit, filter::required_bytes,
    },
    local::world::{World, WriteError},
};

use super::{Action, Config, Plan, claims, plan};

/// What lies at the source, as workers report it.
#[derive(Clone, Debug)]
pub(super) struct Files {
    fingerprint: String,
    bytes: u64,
    digest: String,
    /// What an inspection says.
    inspection: (Outcome, Reason, String),
    /// What a load says, once; then it succeeds.
    load_failures: Vec<(Reason, String)>,
    /// What a verification says.
    verification: (Outcome, Reason),
}

impl Default for Files {
    fn default() -> Self {
        Self {
            fingerprint: "blake3:files-1".to_owned(),
            bytes: 1 << 30,
            digest: "blake3:tree-1".to_owned(),
            inspection: (Outcome::Good, Reason::Complete, "fine".to_owned()),
            load_failures: Vec::new(),
            verification: (Outcome::Good, Reason::Complete),
        }
    }
}

/// One Checkpoint in a world.
pub(super) struct Life {
    pub world: World,
    pub uid: String,
    pub files: Files,
    pub config: Config,
    /// Writes so far.
    pub writes: usize,
    /// The pass is aborted before (false) or after (true) this write.
    pub crash: Option<(usize, bool)>,
    /// Tasks that workers performed.
    pub performed: Vec<TaskKind>,
    pub events: Vec<super::EventDraft>,
}

struct Crashed;

impl Life {
    pub fn new(spec: Value) -> Self {
        let mut world = World::new("2026-01-01T00:00:00Z".parse().unwrap());
        let uid = add(&mut world, "llama", spec);
        Self {
            world,
            uid,
            files: Files::default(),
            config: Config { worker_image: "image:1".to_owned(), ..Config::default() },
            writes: 0,
            crash: None,
            performed: Vec::new(),
            events: Vec::new(),
        }
    }

    pub fn checkpoint(&self) -> &Checkpoint {
        self.world.checkpoint(&self.uid).unwrap()
    }

    pub fn status(&self) -> CheckpointStatus {
        self.checkpoint().status.clone().unwrap_or_default()
    }

    pub fn plan(&self) -> Plan {
        plan(&self.config, &self.world.observe(self.checkpoint()), self.world.now())
    }

    /// `True Ready` and the like.
    pub fn condition(&self, kind: ConditionType) -> String {
        let status = self.status();
        let condition =
            status.conditions.iter().find(|condition| condition.type_ == kind.as_str()).expect("a condition");
        format!("{} {}", condition.status, condition.reason)
    }

    pub fn message(&self, kind: ConditionType) -> String {
        let status = self.status();
        status
            .conditions
            .iter()
            .find(|condition| condition.type_ == kind.as_str())
            .expect("a condition")
            .message
            .clone()
    }

    fn write(
        &mut self,
        write: impl FnOnce(&mut World) -> Result<(), WriteError>,
    ) -> Result<Result<(), WriteError>, Crashed> {
        self.writes += 1;
        match self.crash {
            Some((at, false)) if at == self.writes => return Err(Crashed),
            Some((at, true)) if at == self.writes => {
                let _lost = write(&mut self.world);
                return Err(Crashed);
            }
            _ => {}
        }
        Ok(write(&mut self.world))
    }

    /// One reconcile, as the controller makes it. Whether it wrote anything.
    pub fn pass(&mut self) -> bool {
        self.try_pass().unwrap_or(true)
    }

    fn try_pass(&mut self) -> Result<bool, Crashed> {
        let mut observed = self.world.observe(self.checkpoint());
        let mut planned = plan(&self.config, &observed, self.world.now());
        for action in &planned.actions {
            self.check(action);
            match self.write(|world| world.apply(action))? {
                Ok(()) => {}
                Err(WriteError::Refused(refusal)) => observed.refusals.push(refusal),
                Err(WriteError::Conflict(_)) => return Ok(true),
            }
        }
        let wrote = planned.actions.len() > observed.refusals.len();
        if !observed.refusals.is_empty() {
            planned = plan(&self.config, &observed, self.world.now());
        }
        if self.checkpoint().status.as_ref() == Some(&planned.status) {
            return Ok(wrote);
        }
        let uid = self.uid.clone();
        let _written = self.write(|world| {
            world.write_status(&uid, planned.status);
            Ok(())
        })?;
        self.events.extend(planned.events);
        Ok(true)
    }

    /// What must hold of every single write.
    fn check(&self, action: &Action) {
        match action {
            Action::PatchVolume { name, .. } => {
                let volume = &self.world.volumes()[name];
                let reference = volume.spec.as_ref().unwrap().claim_ref.as_ref().unwrap();
                let staging = &self.world.claims()[reference.name.as_ref().unwrap()];
                assert_eq!(staging.metadata.uid, reference.uid, "the volume is tied to the live claim");
                assert!(claims::is_ours(self.checkpoint(), staging, super::names::Role::Staging), "{staging:?}");
                assert_eq!(claims::phase(staging), "Bound");
            }
            Action::DeleteClaim { name, .. } | Action::PatchClaim { name, .. } => {
                if let Some(claim) = self.world.claims().get(name) {
                    let ours = [super::names::Role::Staging, super::names::Role::Target]
                        .iter()
                        .any(|role| claims::is_ours(self.checkpoint(), claim, *role));
                    // A retained claim is one that was published, which it says itself or its own volume does.
                    let volume = claims::volume_name(claim).and_then(|name| self.world.volumes().get(name));
                    let marked = volume.filter(|volume| claims::is_tied(volume, claim));
                    let adopts = claims::publication(claim.metadata.annotations.as_ref()).is_some()
                        || marked
                            .is_some_and(|volume| claims::publication(volume.metadata.annotations.as_ref()).is_some());
                    assert!(ours || (adopts && matches!(action, Action::PatchClaim { .. })), "{action:?}");
                }
            }
            _ => {}
        }
    }

    /// Ends all workers that run.
    pub fn work(&mut self) -> bool {
        let running = self.world.running_jobs();
        for name in &running {
            let task = task(&self.world, name);
            self.performed.push(task.kind);
            let (report, code) = self.perform(&task);
            self.world.finish_job(name, &report, code);
        }
        !running.is_empty()
    }

    fn perform(&mut self, task: &Task) -> (Report, u8) {
        let files = &mut self.files;
        let (outcome, reason, message) = match task.kind {
            TaskKind::Inspect => files.inspection.clone(),
            TaskKind::Verify => (files.verification.0, files.verification.1, "hashed".to_owned()),
            TaskKind::Load => match files.load_failures.pop() {
                Some((reason, message)) => (Outcome::Failed, reason, message),
                None if task.load.as_ref().unwrap().fingerprint != files.fingerprint => {
                    (Outcome::Failed, Reason::SourceChanged, "the source changed".to_owned())
                }
                None => (Outcome::Good, Reason::Complete, "loaded".to_owned()),
            },
        };
        let mut report = Report::new(task.kind, outcome, reason, message);
        if outcome != Outcome::Failed {
            report.source = Some(SourceFacts {
                uri: "s3://models/llama".to_owned(),
                fingerprint: files.fingerprint.clone(),
                files: 3,
                bytes: files.bytes,
            });
            let selection = Selection { files: 3, bytes: files.bytes, required_bytes: required_bytes([files.bytes]) };
            report.selections = vec![selection; task.volumes.len()];
            report.contents = Some(Contents { format: Some(Format::HuggingFace), ..Contents::default() });
        }
        if task.kind == TaskKind::Load {
            let filter = &task.load.as_ref().unwrap().filter;
            let own = if filter.is_everything() { String::new() } else { format!("-{}", filter_hash(filter)) };
            report.digest = Some(format!("{}{own}", files.digest));
            report.transfer = Some(Transfer { bytes: files.bytes, bytes_fetched: files.bytes, ..Transfer::default() });
        }
        let code = if outcome == Outcome::Failed { exit::code(reason) } else { exit::DONE };
        (report, code)
    }

    pub fn advance(&mut self, seconds: i64) {
        let now: Timestamp = self.world.now();
        self.world.set_now(now + SignedDuration::from_secs(seconds));
    }

    /// Passes, cluster and workers in turn until nothing happens any more, for at most this many seconds.
    pub fn run(&mut self, seconds: i64) {
        let end = self.world.now() + SignedDuration::from_secs(seconds);
        for _ in 0..2000 {
            let mut busy = self.world.settle();
            busy |= self.pass();
            busy |= self.world.settle();
            busy |= self.work();
            if busy {
                continue;
            }
            let Some(wait) = self.plan().requeue else { break };
            let next = self.world.now() + SignedDuration::try_from(wait).unwrap() + SignedDuration::from_millis(1);
            if next > end {
                break;
            }
            self.world.set_now(next);
        }
        // A fixpoint: planning again on what came of it writes nothing.
        let plan = self.plan();
        let refused = self.condition(ConditionType::Materialized).contains("Quota")
            || self.condition(ConditionType::SourceReachable).contains("Quota");
        if self.world.running_jobs().is_empty() && !refused {
            assert_eq!(plan.actions, [], "{:?}", plan.status);
            assert_eq!(plan.status, self.status());
        }
    }

    /// All that stays, without what differs from run to run.
    pub fn outcome(&self) -> Value {
        let status = self.status();
        let conditions: Vec<_> = status
            .conditions
            .iter()
            .map(|condition| json!([condition.type_, condition.status, condition.reason]))
            .collect();
        let claims: Vec<_> = self
            .world
            .claims()
            .iter()
            .map(|(name, claim)| {
                let owned = claim.metadata.owner_references.iter().flatten().count();
                let published = claims::publication(claim.metadata.annotations.as_ref()).is_some();
                json!([name, claims::phase(claim), owned, published])
            })
            .collect();
        let phases: Vec<_> = status.volumes.iter().map(|volume| json!([volume.claim_name, volume.phase])).collect();
        json!({
            "conditions": conditions, "claims": claims, "volumes": phases,
            "jobs": self.world.jobs().len(), "pods": self.world.pods().len(), "progress": status.progress,
        })
    }
}

#[expect(clippy::needless_pass_by_value, reason = "call sites write json! literals")]
pub(super) fn add(world: &mut World, name: &str, spec: Value) -> String {
    let checkpoint: Checkpoint = serde_json::from_value(json!({
        "apiVersion": "checkpoints.dev/v1alpha1", "kind": "Checkpoint",
        "metadata": {"name": name, "namespace": "team"}, "spec": spec,
    }))
    .unwrap();
    world.add_checkpoint(checkpoint).metadata.uid.unwrap()
}

pub(super) fn task(world: &World, job: &str) -> Task {
    use base64::{Engine, prelude::BASE64_STANDARD};
    let template = &world.jobs()[job].spec.as_ref().unwrap().template;
    let env = template.spec.as_ref().unwrap().containers[0].env.as_ref().unwrap();
    let text = env.iter().find(|variable| variable.name == environment::TASK).unwrap().value.clone().unwrap();
    serde_json::from_slice(&BASE64_STANDARD.decode(text).unwrap()).unwrap()
}

#[expect(clippy::needless_pass_by_value, reason = "call sites write json! literals")]
pub(super) fn spec(volumes: Value) -> Value {
    json!({"path": "llama", "storage": {"s3": {"bucket": "models"}}, "volumes": volumes})
}
