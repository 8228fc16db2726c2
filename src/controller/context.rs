//! What all reconciles share: caches, the queue of each watched scope, turns and backoff. No I/O of its own.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use k8s_openapi::api::{
    batch::v1::Job,
    core::v1::{PersistentVolumeClaim, Pod},
    storage::v1::StorageClass,
};
use kube::{
    Client, ResourceExt as _,
    core::DeserializeGuard,
    runtime::{
        events::{Recorder, Reporter},
        reflector::{
            ObjectRef,
            store::{Store, Writer, store},
        },
    },
};
use tokio::sync::{Notify, Semaphore, mpsc, watch};

use super::{
    Settings,
    backoff::Backoff,
    progress::Board,
    turns::{Asker, JobKey, Limits, Turns},
};
use crate::{
    api::{ANNOTATION_PUBLISHED, Checkpoint, FIELD_MANAGER, LABEL_CHECKPOINT_UID},
    plan::{self, Observed, Plan},
    runtime::{
        health::Health,
        lock,
        metrics::{Gauges, Metrics},
    },
};

/// A Checkpoint as the cache and single reads hold it: one that cannot be decoded must not stop the others.
pub type Cached = DeserializeGuard<Checkpoint>;
/// The pure decision; tests put others in its place.
pub type Planner = fn(&plan::Config, &Observed, Timestamp) -> Plan;

/// Errors of an object are repeated after this time, doubling.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// The longest wait after errors.
const LONGEST_RETRY: Duration = Duration::from_mins(5);
/// Refusals (quota, admission) are tried again after this time, doubling: nothing tells us that a quota has room again.
const FIRST_AFTER_REFUSAL: Duration = Duration::from_secs(5);
/// The longest wait after refusals.
const LONGEST_AFTER_REFUSAL: Duration = Duration::from_mins(1);

/// Gate of the CRD.
pub const GATE_CRD: &str = "crd";
/// Gate of the caches.
pub const GATE_CACHES: &str = "caches";

/// The handles of all reconciles.
pub struct Shared {
    pub client: Client,
    pub config: plan::Config,
    pub planner: Planner,
    pub world: Arc<World>,
    pub errors: Backoff,
    pub refusals: Backoff,
    pub metrics: Arc<Metrics>,
    pub health: Arc<Health>,
    pub recorder: Recorder,
    /// Bounds reconciles over all scopes.
    pub slots: Semaphore,
    pub concurrency: u16,
    /// A Checkpoint went, so something may have been left behind.
    pub orphans: Notify,
}

/// What the watches show.
pub struct World {
    pub scopes: Vec<Scope>,
    pub storage_classes: Store<StorageClass>,
    pub turns: Turns,
    pub progress: Board,
    index: Mutex<HashMap<String, ObjectRef<Cached>>>,
}

/// One watched namespace, or all of them.
pub struct Scope {
    pub namespace: Option<String>,
    pub checkpoints: Store<Cached>,
    pub jobs: Store<Job>,
    pub pods: Store<Pod>,
    pub claims: Store<PersistentVolumeClaim>,
    pub queue: mpsc::UnboundedSender<ObjectRef<Cached>>,
    /// Counts changes of the caches, for those who wait until their own writes show up.
    pub changes: watch::Sender<u64>,
}

/// The write ends of one scope's caches, and the read end of its queue.
pub struct Feed {
    pub checkpoints: Writer<Cached>,
    pub jobs: Writer<Job>,
    pub pods: Writer<Pod>,
    pub claims: Writer<PersistentVolumeClaim>,
    pub queue: mpsc::UnboundedReceiver<ObjectRef<Cached>>,
}

/// Builds the shared part and the write ends of its caches.
pub fn build(client: Client, settings: &Settings, planner: Planner) -> (Arc<Shared>, Vec<Feed>, Writer<StorageClass>) {
    let names: BTreeSet<Option<String>> = if settings.watch_namespaces.is_empty() {
        BTreeSet::from([None])
    } else {
        settings.watch_namespaces.iter().cloned().map(Some).collect()
    };
    let (scopes, feeds) = names.into_iter().map(scope).unzip();
    let (storage_classes, class_writer) = store();
    let limits = Limits { total: settings.max_workers, per_namespace: settings.max_workers_per_namespace };
    let world = Arc::new(World {
        scopes,
        storage_classes,
        turns: Turns::new(limits),
        progress: Board::default(),
        index: Mutex::default(),
    });
    let scraped = Arc::clone(&world);
    let shared = Shared {
        recorder: Recorder::new(client.clone(), Reporter::from(FIELD_MANAGER)),
        client,
        config: settings.config.clone(),
        planner,
        world,
        errors: Backoff::new(FIRST_RETRY, LONGEST_RETRY),
        refusals: Backoff::new(FIRST_AFTER_REFUSAL, LONGEST_AFTER_REFUSAL),
        metrics: Arc::new(Metrics::new(move || scraped.gauges())),
        health: Arc::new(Health::new(&[GATE_CRD, GATE_CACHES])),
        slots: Semaphore::new(usize::from(settings.concurrency.max(1))),
        concurrency: settings.concurrency.max(1),
        orphans: Notify::new(),
    };
    (Arc::new(shared), feeds, class_writer)
}

fn scope(namespace: Option<String>) -> (Scope, Feed) {
    let (checkpoints, checkpoint_writer) = store();
    let (jobs, job_writer) = store();
    let (pods, pod_writer) = store();
    let (claims, claim_writer) = store();
    let (sender, queue) = mpsc::unbounded_channel();
    let changes = watch::Sender::new(0);
    (
        Scope { namespace, checkpoints, jobs, pods, claims, queue: sender, changes },
        Feed { checkpoints: checkpoint_writer, jobs: job_writer, pods: pod_writer, claims: claim_writer, queue },
    )
}

impl Shared {
    /// Forgets what is remembered about a Checkpoint that is gone.
    pub fn forget(&self, uid: &str) {
        self.errors.clear(uid);
        self.refusals.clear(uid);
        if self.world.turns.forget(uid) {
            self.world.wake();
        }
    }
}

impl Scope {
    /// Asks for a reconcile. A full stop of the other end is the shutdown, when nobody is to hear of it.
    pub fn enqueue(&self, checkpoint: ObjectRef<Cached>) {
        let _ = self.queue.send(checkpoint);
    }

    /// Asks for a reconcile of everything in the scope.
    pub fn enqueue_all(&self) {
        for checkpoint in self.checkpoints.state() {
            self.enqueue(ObjectRef::from_obj(&*checkpoint));
        }
    }

    /// Whether all caches were filled once.
    pub async fn wait_until_filled(&self) -> bool {
        let ready = futures::join!(
            self.checkpoints.wait_until_ready(),
            self.jobs.wait_until_ready(),
            self.pods.wait_until_ready(),
            self.claims.wait_until_ready(),
        );
        ready.0.is_ok() && ready.1.is_ok() && ready.2.is_ok() && ready.3.is_ok()
    }
}

impl World {
    /// The scope that watches the namespace.
    #[must_use]
    pub fn scope(&self, namespace: &str) -> Option<&Scope> {
        self.scopes.iter().find(|scope| scope.namespace.as_deref().is_none_or(|watched| watched == namespace))
    }

    /// Remembers which Checkpoint has the UID.
    pub fn learn(&self, checkpoint: &Cached) {
        if let Some(uid) = checkpoint.uid() {
            lock(&self.index).insert(uid, ObjectRef::from_obj(checkpoint));
        }
    }

    /// The Checkpoint with the UID is gone.
    pub fn unlearn(&self, uid: &str) {
        lock(&self.index).remove(uid);
    }

    /// Replaces what is remembered of a scope after it was listed anew; returns the UIDs that went meanwhile.
    pub fn relearn(&self, scope: &Scope) -> Vec<String> {
        let listed: HashMap<String, ObjectRef<Cached>> = scope
            .checkpoints
            .state()
            .iter()
            .filter_map(|checkpoint| Some((checkpoint.uid()?, ObjectRef::from_obj(&**checkpoint))))
            .collect();
        let mut index = lock(&self.index);
        let covers =
            |reference: &ObjectRef<Cached>| scope.namespace.is_none() || reference.namespace == scope.namespace;
        let gone: Vec<String> = index
            .iter()
            .filter(|(uid, reference)| covers(reference) && !listed.contains_key(*uid))
            .map(|(uid, _)| uid.clone())
            .collect();
        for uid in &gone {
            index.remove(uid);
        }
        index.extend(listed);
        gone
    }

    /// The Checkpoint with this UID, if it exists as far as the cache knows.
    #[must_use]
    pub fn by_uid(&self, uid: &str) -> Option<ObjectRef<Cached>> {
        lock(&self.index).get(uid).cloned()
    }

    /// UIDs of the Checkpoints of a namespace.
    #[must_use]
    pub fn live_uids(&self, namespace: &str) -> BTreeSet<String> {
        let index = lock(&self.index);
        let there = index.iter().filter(|(_, reference)| reference.namespace.as_deref() == Some(namespace));
        there.map(|(uid, _)| uid.clone()).collect()
    }

    /// Forgets what pods told that the caches no longer show.
    pub fn forget_lost_pods(&self) {
        let pods = self.scopes.iter().flat_map(|scope| scope.pods.state());
        self.progress.keep(&pods.filter_map(|pod| pod.uid()).collect());
    }

    /// Unfinished worker Jobs in the cache.
    #[must_use]
    pub fn running(&self) -> BTreeSet<JobKey> {
        let unfinished = self.scopes.iter().flat_map(|scope| scope.jobs.state_filter(|job| !is_finished(job)));
        unfinished.map(|job| (job.namespace().unwrap_or_default(), job.name_any())).collect()
    }

    /// Reconciles those whose turn it is now.
    pub fn wake(&self) {
        for Asker { namespace, name, .. } in self.turns.next(|| self.running(), Instant::now()) {
            if let Some(scope) = self.scope(&namespace) {
                scope.enqueue(ObjectRef::new(&name).within(&namespace));
            }
        }
    }

    fn gauges(&self) -> Gauges {
        let mut checkpoints: BTreeMap<[String; 3], i64> = BTreeMap::new();
        let mut retained_claims = 0;
        for scope in &self.scopes {
            for checkpoint in scope.checkpoints.state() {
                let status = checkpoint.0.as_ref().ok().and_then(|checkpoint| checkpoint.status.as_ref());
                for condition in status.map(|status| status.conditions.as_slice()).unwrap_or_default() {
                    let labels = [condition.type_.clone(), condition.status.clone(), condition.reason.clone()];
                    *checkpoints.entry(labels).or_default() += 1;
                }
            }
            retained_claims += scope.claims.state_filter(|claim| self.is_retained(claim)).len();
        }
        let totals = self.progress.totals(Timestamp::now());
        let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        Gauges {
            checkpoints,
            retained_claims: i64::try_from(retained_claims).unwrap_or(i64::MAX),
            queued: i64::try_from(self.turns.waiting()).unwrap_or(i64::MAX),
            workers: i64::try_from(self.running().len()).unwrap_or(i64::MAX),
            telling_workers: signed(totals.workers),
            bytes_per_second: signed(totals.rate),
            bytes_left: signed(totals.left),
        }
    }

    fn is_retained(&self, claim: &PersistentVolumeClaim) -> bool {
        claim.annotations().contains_key(ANNOTATION_PUBLISHED)
            && claim.labels().get(LABEL_CHECKPOINT_UID).is_some_and(|uid| self.by_uid(uid).is_none())
    }
}

/// Whether a Job will start no more pods.
#[must_use]
pub fn is_finished(job: &Job) -> bool {
    let conditions = job.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|condition| matches!(&*condition.type_, "Complete" | "Failed") && condition.status == "True")
}
