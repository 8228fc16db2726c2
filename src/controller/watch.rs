//! Follows the watched resources into the caches and asks for the reconciles that changes call for. Does I/O.

use std::{fmt::Debug, hash::Hash, sync::Arc};

use futures::{FutureExt as _, Stream, StreamExt as _, future::BoxFuture};
use k8s_openapi::{
    NamespaceResourceScope,
    api::{core::v1::PersistentVolumeClaim, storage::v1::StorageClass},
};
use kube::{
    Api, Client, Resource, ResourceExt as _,
    runtime::{
        WatchStreamExt as _,
        reflector::{ObjectRef, store::Writer},
        watcher::{self, watcher},
    },
};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use super::context::{Cached, Feed, GATE_CRD, Scope, Shared, is_finished};
use crate::{
    api::{
        ANNOTATION_CHECKPOINT, ANNOTATION_PUBLISHED, CheckpointSpec, CheckpointStatus, LABEL_CHECKPOINT_UID,
        LABEL_MANAGED_BY, MANAGED_BY,
    },
    contract::Reason,
    runtime::metrics::ErrorClass,
};

/// Checkpoints to reconcile.
type Queue = mpsc::UnboundedReceiver<ObjectRef<Cached>>;

/// What a watch saw.
enum Seen<'a, K> {
    /// New or changed.
    Applied(&'a K),
    /// Gone.
    Deleted(&'a K),
    /// Everything was listed anew: at start, and after the watch was interrupted for so long that changes were missed.
    Listed,
}

/// The requests of a scope, and the futures that fill its caches; they end only when dropped.
pub fn follow_scope(shared: &Arc<Shared>, number: usize, feed: Feed) -> (Queue, Vec<BoxFuture<'static, ()>>) {
    let Some(scope) = shared.world.scopes.get(number) else { return (feed.queue, Vec::new()) };
    let client = &shared.client;
    let ours = watcher::Config::default().labels(&format!("{LABEL_MANAGED_BY}={MANAGED_BY}"));
    let checkpoints = watcher(api::<Cached>(client, scope), watcher::Config::default());
    let jobs = watcher(api(client, scope), ours.clone());
    let pods = watcher(api(client, scope), ours.clone());
    let claims = watcher(api(client, scope), ours);
    let with_scope = |shared: &Arc<Shared>| {
        let shared = Arc::clone(shared);
        move |act: &dyn Fn(&Shared, &Scope)| {
            if let Some(scope) = shared.world.scopes.get(number) {
                scope.changes.send_modify(|count| *count += 1);
                act(&shared, scope);
            }
        }
    };
    let (on_checkpoint, on_job, on_pod, on_claim) =
        (with_scope(shared), with_scope(shared), with_scope(shared), with_scope(shared));
    let watches = vec![
        follow(Arc::clone(shared), "checkpoints", checkpoints, feed.checkpoints, prune_checkpoint, move |seen| {
            on_checkpoint(&|shared, scope| checkpoint_seen(shared, scope, &seen));
        })
        .boxed(),
        follow(Arc::clone(shared), "jobs", jobs, feed.jobs, prune, move |seen| {
            on_job(&|shared, scope| {
                if let Seen::Applied(job) | Seen::Deleted(job) = &seen {
                    shared.world.turns.release(&job.namespace().unwrap_or_default(), &job.name_any());
                }
                child_seen(shared, scope, &seen);
                if !matches!(seen, Seen::Applied(job) if !is_finished(job)) {
                    shared.world.wake();
                }
            });
        })
        .boxed(),
        follow(Arc::clone(shared), "pods", pods, feed.pods, prune, move |seen| {
            on_pod(&|shared, scope| {
                match &seen {
                    Seen::Applied(_) => {}
                    Seen::Deleted(pod) => shared.world.progress.forget(&pod.uid().unwrap_or_default()),
                    Seen::Listed => shared.world.forget_lost_pods(),
                }
                child_seen(shared, scope, &seen);
            });
        })
        .boxed(),
        follow(Arc::clone(shared), "persistentvolumeclaims", claims, feed.claims, prune, move |seen| {
            on_claim(&|shared, scope| claim_seen(shared, scope, &seen));
        })
        .boxed(),
    ];
    (feed.queue, watches)
}

/// The future that fills the cache of storage classes. A class that appears heals those who wait for it.
pub fn follow_classes(shared: &Arc<Shared>, writer: Writer<StorageClass>) -> BoxFuture<'static, ()> {
    let classes = watcher(Api::all(shared.client.clone()), watcher::Config::default());
    let world = Arc::clone(&shared.world);
    follow(Arc::clone(shared), "storageclasses", classes, writer, prune, move |_| {
        for scope in &world.scopes {
            for checkpoint in scope.checkpoints.state_filter(waits_for_class) {
                scope.enqueue(ObjectRef::from_obj(&*checkpoint));
            }
        }
    })
    .boxed()
}

fn api<K: Resource<DynamicType = (), Scope = NamespaceResourceScope>>(client: &Client, scope: &Scope) -> Api<K> {
    match &scope.namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

/// Follows one watch for good: errors are logged and counted, and the watch starts again with growing pauses.
async fn follow<K>(
    shared: Arc<Shared>,
    resource: &'static str,
    events: impl Stream<Item = Result<watcher::Event<K>, watcher::Error>> + Send,
    mut writer: Writer<K>,
    prune: fn(&mut K),
    seen: impl Fn(Seen<'_, K>) + Send,
) where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    K::DynamicType: Eq + Hash + Clone,
{
    let mut events = std::pin::pin!(events.default_backoff());
    while let Some(event) = events.next().await {
        let event = match event {
            Ok(event) => event.modify(prune),
            Err(error) => {
                failed(&shared, resource, &error);
                continue;
            }
        };
        writer.apply_watcher_event(&event);
        match &event {
            watcher::Event::Apply(object) => seen(Seen::Applied(object)),
            watcher::Event::Delete(object) => seen(Seen::Deleted(object)),
            watcher::Event::InitDone => seen(Seen::Listed),
            watcher::Event::Init | watcher::Event::InitApply(_) => continue,
        }
        if resource == "checkpoints" {
            shared.health.open(GATE_CRD);
        }
    }
}

fn failed(shared: &Shared, resource: &'static str, error: &watcher::Error) {
    shared.metrics.error(ErrorClass::Watch);
    tracing::warn!(resource, %error, "a watch failed and starts again");
    let missing = match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status)) => status.is_not_found(),
        _ => false,
    };
    if missing && resource == "checkpoints" {
        shared.health.close(GATE_CRD, super::CRD_MISSING);
    }
}

fn checkpoint_seen(shared: &Shared, scope: &Scope, seen: &Seen<'_, Cached>) {
    match seen {
        Seen::Applied(checkpoint) => {
            shared.world.learn(checkpoint);
            scope.enqueue(ObjectRef::from_obj(*checkpoint));
        }
        Seen::Deleted(checkpoint) => {
            let uid = checkpoint.uid().unwrap_or_default();
            shared.world.unlearn(&uid);
            shared.forget(&uid);
            shared.orphans.notify_one();
        }
        Seen::Listed => {
            for uid in shared.world.relearn(scope) {
                shared.forget(&uid);
            }
            shared.orphans.notify_one();
            scope.enqueue_all();
        }
    }
}

/// Reconciles the Checkpoint of a child. After a new list nobody knows which children went, so all are looked at.
fn child_seen<K: Resource<DynamicType = ()>>(shared: &Shared, scope: &Scope, seen: &Seen<'_, K>) {
    match seen {
        Seen::Applied(child) | Seen::Deleted(child) => {
            let Some(uid) = child.labels().get(LABEL_CHECKPOINT_UID) else { return };
            if let Some(checkpoint) = shared.world.by_uid(uid) {
                scope.enqueue(checkpoint);
            }
        }
        Seen::Listed => scope.enqueue_all(),
    }
}

fn claim_seen(shared: &Shared, scope: &Scope, seen: &Seen<'_, PersistentVolumeClaim>) {
    child_seen(shared, scope, seen);
    let (Seen::Applied(claim) | Seen::Deleted(claim)) = seen else { return };
    let known = claim.labels().get(LABEL_CHECKPOINT_UID).and_then(|uid| shared.world.by_uid(uid));
    if known.is_some() {
        return;
    }
    // A claim of an earlier Checkpoint: one of the same name may wait for it to go, or to be adopted.
    if let (Some(name), Some(namespace)) = (claim.annotations().get(ANNOTATION_CHECKPOINT), claim.namespace()) {
        scope.enqueue(ObjectRef::new(name).within(&namespace));
    }
    if !claim.annotations().contains_key(ANNOTATION_PUBLISHED) {
        shared.orphans.notify_one();
    }
}

fn waits_for_class(checkpoint: &Cached) -> bool {
    let status = checkpoint.0.as_ref().ok().and_then(|checkpoint| checkpoint.status.as_ref());
    status.is_some_and(|status| {
        status.conditions.iter().any(|condition| condition.reason == Reason::StorageClassNotFound.as_str())
    })
}

fn prune<K: Resource>(object: &mut K) {
    object.meta_mut().managed_fields = None;
}

/// Reconciles read the live object: the cache needs to know only who exists, and the conditions for the metrics.
fn prune_checkpoint(checkpoint: &mut Cached) {
    prune(checkpoint);
    checkpoint.meta_mut().annotations = None;
    checkpoint.meta_mut().labels = None;
    if let Ok(checkpoint) = &mut checkpoint.0 {
        checkpoint.spec = CheckpointSpec::default();
        if let Some(status) = &mut checkpoint.status {
            let mut conditions = std::mem::take(&mut status.conditions);
            for condition in &mut conditions {
                condition.message = String::new();
            }
            *status = CheckpointStatus { conditions, ..CheckpointStatus::default() };
        }
    }
}
