//! The I/O shell for Kubernetes: reads objects into `Observed`, calls the pure `plan`, carries the plan out. Does I/O.
//!
//! It reads no Secret and talks to no storage backend. Every write has a precondition or can be repeated, so a crash after
//! any of them, or a second controller beside it, leads to the same end.

mod apply;
mod backoff;
mod calls;
mod context;
mod error;
mod observe;
mod orphans;
mod progress;
mod reconcile;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod turns;
mod watch;

use std::{
    convert::Infallible,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use futures::{FutureExt as _, Stream, StreamExt as _, stream};
use kube::{
    Api, Client,
    api::ListParams,
    runtime::{applier, controller, reflector::ObjectRef},
};
use tokio::{net::TcpListener, sync::mpsc, task::JoinSet, time::interval};
use tokio_util::sync::CancellationToken;

pub use calls::{API_CALLS, ApiCall};
pub use error::Error;

use crate::{plan, runtime::health};
use context::{Cached, GATE_CACHES, GATE_CRD, Planner, Shared};

/// Changes of one object within this time are reconciled once.
const DEBOUNCE: Duration = Duration::from_millis(100);
/// First and longest pause between looks for the CRD.
const CRD_PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(15));
/// How often to look for claims that were left behind.
const SWEEP: Duration = Duration::from_mins(5);
/// What readiness says without the CRD.
const CRD_MISSING: &str = "the CustomResourceDefinition checkpoints.checkpoints.dev is not installed; waiting for it";

/// How the controller runs.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The namespaces to watch; all of them when empty.
    pub watch_namespaces: Vec<String>,
    /// What the pure decisions need to know of the installation.
    pub config: plan::Config,
    /// Unfinished worker Jobs at once, in all; 0 means any number.
    pub max_workers: usize,
    /// Unfinished worker Jobs at once in one namespace; 0 means any number.
    pub max_workers_per_namespace: usize,
    /// Reconciles at once.
    pub concurrency: u16,
    /// Where `/livez`, `/readyz` and `/metrics` are served.
    pub listen: SocketAddr,
    /// Where workers tell how far they are; none when nobody listens.
    pub progress: Option<SocketAddr>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            watch_namespaces: Vec::new(),
            config: plan::Config::default(),
            max_workers: 32,
            max_workers_per_namespace: 8,
            concurrency: 16,
            listen: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 8080)),
            progress: None,
        }
    }
}

/// Runs the controller until `shutdown` is cancelled; reconciles that run then end first. Dropping the future stops
/// everything at its next await.
///
/// # Errors
/// When the address of the probes is taken, or a part of the controller ended by a bug.
pub async fn run(client: Client, settings: Settings, shutdown: CancellationToken) -> Result<(), Error> {
    run_with(client, settings, shutdown, plan::plan).await
}

async fn run_with(
    client: Client,
    settings: Settings,
    shutdown: CancellationToken,
    planner: Planner,
) -> Result<(), Error> {
    let (shared, feeds, classes) = context::build(client, &settings, planner);
    let listener = listen(settings.listen).await?;
    let progress_listener = match settings.progress {
        Some(address) => Some(listen(address).await?),
        None => None,
    };
    let router = health::router(Arc::clone(&shared.health), Arc::clone(&shared.metrics));
    let mut background = JoinSet::new();
    background.spawn(axum::serve(listener, router).into_future().map(drop));
    let beats = async {
        let mut beat = interval(health::BEAT);
        loop {
            beat.tick().await;
            shared.health.beat();
        }
    };
    let work = async {
        if !wait_for_crd(&shared, &shutdown).await {
            return Ok(());
        }
        let mut queues = Vec::new();
        background.spawn(watch::follow_classes(&shared, classes));
        for (number, feed) in feeds.into_iter().enumerate() {
            let (queue, watches) = watch::follow_scope(&shared, number, feed);
            queues.push(queue);
            for watch in watches {
                background.spawn(watch);
            }
        }
        if !wait_for_caches(&shared, &shutdown).await {
            return Ok(());
        }
        background.spawn(sweep_often(Arc::clone(&shared)));
        // Not before the caches show which pods are workers.
        if let Some(listener) = progress_listener {
            background.spawn(progress::serve(Arc::clone(&shared), listener, progress::Limits::default()));
        }
        reconcile_all(&shared, queues, &shutdown, &mut background).await
    };
    tokio::select! {
        result = work => result,
        () = beats => Ok(()),
    }
}

async fn listen(address: SocketAddr) -> Result<TcpListener, Error> {
    TcpListener::bind(address).await.map_err(|source| Error::Listen { address, source })
}

/// Waits until the API server serves Checkpoints; false when the shutdown comes first.
async fn wait_for_crd(shared: &Shared, shutdown: &CancellationToken) -> bool {
    let namespace = shared.world.scopes.first().and_then(|scope| scope.namespace.as_deref());
    let api: Api<Cached> = match namespace {
        Some(namespace) => Api::namespaced(shared.client.clone(), namespace),
        None => Api::all(shared.client.clone()),
    };
    let mut pause = CRD_PAUSES.0;
    loop {
        let message = match calls::call("list checkpoints", api.list(&ListParams::default().limit(1))).await {
            Ok(_) => {
                shared.health.open(GATE_CRD);
                return true;
            }
            Err(error) if calls::absent(&error) => CRD_MISSING.to_owned(),
            Err(error) => error.to_string(),
        };
        if shared.health.close(GATE_CRD, message.clone()) {
            tracing::warn!(problem = message, "cannot start yet");
        }
        if shutdown.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
            return false;
        }
        pause = (pause * 2).min(CRD_PAUSES.1);
    }
}

/// Waits until every cache was filled once: with an empty cache, everything would look as if it had to be made.
async fn wait_for_caches(shared: &Shared, shutdown: &CancellationToken) -> bool {
    shared.health.close(GATE_CACHES, "the first lists are not complete");
    let filled = async {
        let mut filled = shared.world.storage_classes.wait_until_ready().await.is_ok();
        for scope in &shared.world.scopes {
            filled &= scope.wait_until_filled().await;
        }
        filled
    };
    let filled = shutdown.run_until_cancelled(filled).await.unwrap_or(false);
    if filled {
        shared.health.open(GATE_CACHES);
        tracing::info!("caches are filled");
    }
    filled
}

/// Reconciles what the queues ask for until the shutdown.
async fn reconcile_all(
    shared: &Arc<Shared>,
    queues: Vec<mpsc::UnboundedReceiver<ObjectRef<Cached>>>,
    shutdown: &CancellationToken,
    background: &mut JoinSet<()>,
) -> Result<(), Error> {
    let scopes = shared.world.scopes.iter().zip(queues);
    let mut reconciles = stream::select_all(
        scopes.map(|(scope, queue)| reconcile_scope(shared, scope, queue, shutdown.clone()).boxed()),
    );
    loop {
        tokio::select! {
            next = reconciles.next() => if next.is_none() { return Ok(()); },
            ended = background.join_next() => {
                let why = ended.and_then(Result::err).map_or_else(|| "a watch".to_owned(), |error| error.to_string());
                return Err(Error::Ended(why));
            }
        }
    }
}

/// The reconciles of one scope. Errors were logged and scheduled by the error policy; what is left is objects that went
/// between being queued and being looked at.
fn reconcile_scope(
    shared: &Arc<Shared>,
    scope: &context::Scope,
    mut queue: mpsc::UnboundedReceiver<ObjectRef<Cached>>,
    shutdown: CancellationToken,
) -> impl Stream<Item = ()> + Send + use<> {
    let requests = stream::poll_fn(move |context| queue.poll_recv(context)).map(Ok::<_, Infallible>);
    applier(
        |cached, shared| Box::pin(reconcile::reconcile(cached, shared)),
        |cached, error, shared: Arc<Shared>| reconcile::retry(&cached, error, &shared),
        Arc::clone(shared),
        scope.checkpoints.clone(),
        requests.take_until(shutdown.cancelled_owned()),
        controller::Config::default().debounce(DEBOUNCE).concurrency(shared.concurrency),
    )
    .map(|_| ())
}

async fn sweep_often(shared: Arc<Shared>) {
    let mut often = interval(SWEEP);
    loop {
        tokio::select! {
            _ = often.tick() => {}
            () = shared.orphans.notified() => {}
        }
        orphans::sweep(&shared).await;
    }
}
