//! The controller dies before and after every single write of a whole life, and its successor reaches the same end
//! (network I/O; the controller runs in this process, the installed one is stopped).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context as TaskContext, Poll};

use anyhow::{Context, Result, anyhow, bail, ensure};
use checkpoint_operator::api::{ResourceAmounts, Worker};
use checkpoint_operator::controller::{self, Settings};
use checkpoint_operator::plan::Config as PlanConfig;
use checkpoint_operator_e2e::cluster::Cluster;
use checkpoint_operator_e2e::kubernetes::CHECKPOINT;
use checkpoint_operator_e2e::wait::{Now, wait_until_async};
use futures::future::{BoxFuture, FutureExt, pending};
use futures::stream::{self, StreamExt, TryStreamExt};
use http::{Method, Request};
use kube::client::{Body, ClientBuilder};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config, ResourceExt};
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tower::{Service, layer::layer_fn};

use super::support::{IMMEDIATE_CLASS, Scene, alone, image, text};
use super::traces::{LONG, children, folder_of, volumes_of, wait_volumes_only_for, without_controller};

const DATA: &str = r#"{"epoch": 3, "loss": 0.125}"#;
/// Lives at once: pods of different lives overlap, and two cores can start only so many.
const LIVES_AT_ONCE: usize = 6;

/// When the controller dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Death {
    /// The write is never sent.
    Before(usize),
    /// The write is done and its answer is never heard.
    After(usize),
    /// It does not.
    Never,
}

impl Death {
    fn name(self) -> String {
        match self {
            Self::Before(number) => format!("before-{number}"),
            Self::After(number) => format!("after-{number}"),
            Self::Never => "never".to_owned(),
        }
    }
}

/// Counts the writes of one controller and ends it at the chosen one.
struct Fuse {
    death: Death,
    writes: AtomicUsize,
    blown: AtomicBool,
    dies: Notify,
}

impl Fuse {
    fn new(death: Death) -> Arc<Self> {
        Arc::new(Self { death, writes: AtomicUsize::new(0), blown: AtomicBool::new(false), dies: Notify::new() })
    }

    /// The number of this request among the writes, from 1.
    fn count(&self, method: &Method) -> Option<usize> {
        let writes = [Method::POST, Method::PUT, Method::PATCH, Method::DELETE].contains(method);
        writes.then(|| self.writes.fetch_add(1, Ordering::SeqCst) + 1)
    }

    fn blow(&self) {
        self.blown.store(true, Ordering::SeqCst);
        self.dies.notify_one();
    }
}

/// The client's outermost layer.
struct Fused<S> {
    inner: S,
    fuse: Arc<Fuse>,
}

impl<S> Service<Request<Body>> for Fused<S>
where
    S: Service<Request<Body>>,
    S::Future: Send + 'static,
    S::Response: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut TaskContext<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let fuse = Arc::clone(&self.fuse);
        // The dead send nothing, whatever else was under way.
        if fuse.blown.load(Ordering::SeqCst) {
            return pending().boxed();
        }
        match (fuse.count(request.method()), fuse.death) {
            (Some(number), Death::Before(last)) if number == last => {
                fuse.blow();
                pending().boxed()
            }
            (Some(number), Death::After(last)) if number == last => {
                let sent = self.inner.call(request);
                async move {
                    // Whatever the answer is, nobody hears it.
                    sent.await.ok();
                    fuse.blow();
                    pending().await
                }
                .boxed()
            }
            _ => self.inner.call(request).boxed(),
        }
    }
}

async fn fused_client(cluster: &Cluster, fuse: &Arc<Fuse>) -> Result<Client> {
    let kubeconfig = Kubeconfig::read_from(cluster.kubeconfig())?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    let layer = layer_fn(|inner| Fused { inner, fuse: Arc::clone(fuse) });
    Ok(ClientBuilder::try_from(config)?.with_layer(&layer).build())
}

fn settings(namespace: &str, image: String) -> Settings {
    let amounts = |pairs: [(&str, &str); 2]| {
        let amount = |text: &str| serde_json::from_value(json!(text)).map_err(|error| anyhow!("{error}"));
        pairs.into_iter().map(|(name, text)| Ok((name.to_owned(), amount(text)?))).collect::<Result<_>>()
    };
    let resources = amounts([("cpu", "10m"), ("memory", "16Mi")])
        .ok()
        .map(|requests| ResourceAmounts { requests, ..ResourceAmounts::default() });
    let worker = Worker { resources, run_as_user: Some(65532), fs_group: Some(65532), ..Worker::default() };
    Settings {
        watch_namespaces: vec![namespace.to_owned()],
        config: PlanConfig {
            worker_image: image,
            worker_image_pull_policy: Some("IfNotPresent".to_owned()),
            worker,
            ..PlanConfig::default()
        },
        listen: std::net::SocketAddr::from(([127, 0, 0, 1], 0)),
        ..Settings::default()
    }
}

/// What one life came to.
#[derive(Debug)]
struct Life {
    death: Death,
    /// Whether the controller died before the end.
    died: bool,
    writes: usize,
    /// The Checkpoint, its claim and its volume when it was Ready.
    end: Value,
}

/// Creates a Checkpoint, lets it become Ready, deletes it, waits until nothing is left.
async fn live(scene: &Scene, policy: &str, death: Death) -> Result<Life> {
    let namespace = format!("{}-{}", scene.namespace, death.name());
    scene.kube.delete_namespace(&namespace).await?;
    scene.kube.create_namespace(&namespace).await?;
    let fuse = Fuse::new(death);
    let first = fused_client(&scene.cluster, &fuse).await?;
    let (token, settings) = (CancellationToken::new(), settings(&namespace, image()?));
    let controllers = async {
        tokio::select! {
            ended = controller::run(first, settings.clone(), token.clone()) => return Ok(ended?),
            () = fuse.dies.notified() => {}
        }
        controller::run(scene.kube.client.clone(), settings, token.clone()).await.context("the second controller")
    };
    let story = async {
        let end = whole_life(scene, &namespace, policy).await;
        token.cancel();
        end
    };
    let (ended, end) = tokio::join!(controllers, story);
    let end = end.with_context(|| format!("{death:?} of {policy}"))?;
    ended?;
    scene.kube.delete("v1/Namespace", "", &namespace).await?;
    Ok(Life { death, died: fuse.blown.load(Ordering::SeqCst), writes: fuse.writes.load(Ordering::SeqCst), end })
}

async fn whole_life(scene: &Scene, namespace: &str, policy: &str) -> Result<Value> {
    let made = scene
        .kube
        .apply_value(json!({
            "apiVersion": "checkpoints.dev/v1alpha1", "kind": "Checkpoint",
            "metadata": {"name": "model", "namespace": namespace},
            "spec": {
                "storage": {"inline": {"json": DATA}},
                "volumes": [{"claimName": "data", "storageClassName": IMMEDIATE_CLASS, "deletionPolicy": policy}],
            },
        }))
        .await?;
    let uid = made.uid().context("no UID")?;
    let end = wait_until_async(&format!("{namespace} to be Ready with nothing left to do"), LONG, async || {
        end_state(scene, namespace, &uid).await
    })
    .await?;
    scene.kube.delete(CHECKPOINT, namespace, "model").await?;
    scene.kube.wait_gone(CHECKPOINT, namespace, "model").await?;
    let left = if policy == "Retain" { vec!["v1/PersistentVolumeClaim data".to_owned()] } else { Vec::new() };
    wait_until_async("nothing to be left", LONG, async || {
        let found = children(&scene.kube, namespace, &uid).await?;
        Ok(Now::when(found == left, &format!("{found:?} is there")))
    })
    .await?;
    let claims = scene.kube.list("v1/PersistentVolumeClaim", namespace, "").await?;
    ensure!(claims.iter().all(|claim| claim.metadata.deletion_timestamp.is_none()), "a claim hangs in Terminating");
    let tied: &[&str] = if policy == "Retain" { &["data"] } else { &[] };
    wait_volumes_only_for(&scene.kube, namespace, tied).await?;
    Ok(end)
}

/// What must be the same at the end of every life, once it is Ready and has no work left.
async fn end_state(scene: &Scene, namespace: &str, uid: &str) -> Result<Now<Value>> {
    let object = scene.kube.get(CHECKPOINT, namespace, "model").await?.context("the Checkpoint is gone")?;
    let status = object.data.get("status").cloned().unwrap_or_default();
    let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
    let is_ready = |condition: &Value| condition["type"] == "Ready" && condition["status"] == "True";
    let children = children(&scene.kube, namespace, uid).await?;
    if !conditions.iter().any(is_ready) || children != ["v1/PersistentVolumeClaim data"] {
        return Ok(Now::NotYet(format!("{children:?}, {status}")));
    }
    let claim = scene.kube.get("v1/PersistentVolumeClaim", namespace, "data").await?.context("the claim is gone")?;
    let mut publication: Value =
        serde_json::from_str(claim.annotations().get("checkpoints.dev/published").map_or("null", String::as_str))?;
    ensure!(publication["checkpointUid"] == uid, "the publication names another Checkpoint");
    publication["checkpointUid"] = Value::Null;
    let volumes = volumes_of(&scene.kube, namespace).await?;
    let name = text(&claim.data, "/spec/volumeName");
    ensure!(volumes.len() == 1 && volumes.contains_key(name), "there are volumes too many: {volumes:?}");
    let volume = scene.kube.get("v1/PersistentVolume", "", name).await?.context("the volume is gone")?;
    let bytes = std::fs::read(folder_of(&scene.kube, namespace, "data").await?.join("checkpoint.json"))?;
    let condition =
        |condition: &Value| json!([condition["type"], condition["status"], condition["reason"], condition["message"]]);
    let of_volume = |member: &str| status["volumes"][0][member].clone();
    let members = [
        "phase",
        "reason",
        "attempt",
        "recordedAttempt",
        "failures",
        "fingerprint",
        "digest",
        "bytesDone",
        "bytesTotal",
    ];
    Ok(Now::Done(json!({
        "conditions": conditions.iter().map(condition).collect::<Vec<_>>(),
        "inspection": [status["inspection"]["recordedAttempt"], status["inspection"]["failures"]],
        "contents": status["contents"], "digest": status["digest"], "progress": status["progress"],
        "volume": members.map(of_volume),
        "claim": [claim.data["status"]["phase"], claim.owner_references().len(), claim.data["spec"]["accessModes"]],
        "publication": publication,
        "persistentVolume": [volume.data["status"]["phase"], volume.data["spec"]["accessModes"], volume.data["spec"]["claimRef"]["name"]],
        "bytes": String::from_utf8(bytes)?,
    })))
}

async fn every_death(scene: &Scene, policy: &str, kinds: &[fn(usize) -> Death]) -> Result<()> {
    let undisturbed = live(scene, policy, Death::Never).await?;
    ensure!(undisturbed.end["bytes"] == DATA, "{}", undisturbed.end);
    // Some writes depend on how changes fall together, so a life may have a few more.
    let deaths = (1..=undisturbed.writes + 2).flat_map(|number| kinds.iter().map(move |kind| kind(number)));
    let lives: Vec<_> = stream::iter(deaths)
        .map(|death| live(scene, policy, death))
        .buffer_unordered(LIVES_AT_ONCE)
        .try_collect()
        .await?;
    for life in &lives {
        if life.end != undisturbed.end {
            bail!("{:?} of {policy} ends as\n{}\nand not as\n{}", life.death, life.end, undisturbed.end);
        }
    }
    let died = lives.iter().filter(|life| life.died).count();
    ensure!(died >= kinds.len() * (undisturbed.writes - 4), "of {} lives only {died} were cut", lives.len());
    ensure!(undisturbed.writes >= 15, "only {} writes were seen", undisturbed.writes);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crash_before_and_after_every_write_of_a_life_with_policy_delete() -> Result<()> {
    alone("crash-delete", async |scene| {
        without_controller(scene, async || every_death(scene, "Delete", &[Death::Before, Death::After]).await).await
    })
    .await
}

/// One write more than with `Delete`: the claim is let go before it is published. What is left by a death before a write is
/// what a death after the one before it leaves, so one of the two is enough here.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crash_after_every_write_of_a_life_with_policy_retain() -> Result<()> {
    alone("crash-retain", async |scene| {
        without_controller(scene, async || every_death(scene, "Retain", &[Death::After]).await).await
    })
    .await
}
