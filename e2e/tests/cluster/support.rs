//! What every test on the cluster needs: a place of its own, builders of objects, and a report when it fails (network I/O).
//!
//! ```ignore
//! #[tokio::test]
//! async fn a_bucket_becomes_a_volume() -> Result<()> {
//!     shared("a-bucket-becomes-a-volume", async |scene| {
//!         scene.put("model", &[("config.json", b"{}")])?;
//!         scene.checkpoint("model", scene.s3_spec("model", &["model"])).await?;
//!         scene.ready("model").await?;
//!         assert_eq!(scene.output_of("reader", "model", "cat /volume/config.json").await?, "{}");
//!         Ok(())
//!     })
//!     .await
//! }
//! ```

use std::any::Any;
use std::collections::BTreeMap;
use std::env;
use std::fmt::Write;
use std::fs::File;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use checkpoint_operator_e2e::cache::{build_once, lock};
use checkpoint_operator_e2e::cluster::Cluster;
use checkpoint_operator_e2e::command::{capture, run};
use checkpoint_operator_e2e::kubernetes::{CHECKPOINT, Condition, Kube, PATIENCE, condition, consumer_pod};
use checkpoint_operator_e2e::s3::{Body, S3};
use checkpoint_operator_e2e::{operator, paths, python, seaweedfs};
use futures::FutureExt;
use kube::ResourceExt;
use kube::api::DynamicObject;
use serde_json::{Value, json};
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

/// The Secret in every test's namespace that may read every bucket.
pub const CREDENTIALS: &str = "s3-credentials";
/// The class whose volumes are made when a pod needs them.
pub const WAITING_CLASS: &str = "local-path";
/// The class whose volumes are made at once.
pub const IMMEDIATE_CLASS: &str = "shared-immediate";

const LOG_LINES_SHOWN: usize = 60;

/// Taken for writing by tests that disturb the operator itself, for reading by all others.
static OPERATOR: RwLock<()> = RwLock::const_new(());
static INSTALLED: OnceLock<Result<S3, String>> = OnceLock::new();

/// Held as long as the test runs.
#[expect(dead_code, reason = "held, never read")]
enum Turn {
    Shared(RwLockReadGuard<'static, ()>, File),
    Alone(RwLockWriteGuard<'static, ()>, File),
}

impl Turn {
    async fn shared() -> Result<Self> {
        Ok(Self::Shared(OPERATOR.read().await, among_processes(File::lock_shared).await?))
    }

    async fn alone() -> Result<Self> {
        Ok(Self::Alone(OPERATOR.write().await, among_processes(File::lock).await?))
    }
}

/// Several checkouts may test on one cluster: what holds between the tests of a process holds between processes too.
async fn among_processes(take: fn(&File) -> std::io::Result<()>) -> Result<File> {
    let file = Cluster::from_environment()?.root().join("operator.turn");
    tokio::task::spawn_blocking(move || {
        let file = File::create(file)?;
        take(&file)?;
        Ok(file)
    })
    .await?
}

/// One test's place in the cluster: a fresh namespace with credentials, and an empty bucket of the same name.
pub struct Scene {
    pub cluster: Cluster,
    pub kube: Kube,
    pub s3: S3,
    pub namespace: String,
    _turn: Turn,
    /// Another process that runs the same test on this cluster waits until this one is done with the namespace.
    _place: File,
}

/// Runs a test beside others. `name` becomes its namespace and bucket: lower case, digits and hyphens, at most 63.
pub async fn shared(name: &str, body: impl AsyncFnOnce(&Scene) -> Result<()>) -> Result<()> {
    act(name, Turn::shared().await?, body).await
}

/// Runs a test that disturbs the operator: no other test of this process runs meanwhile.
#[allow(dead_code, reason = "for the modules that disturb the operator")]
pub async fn alone(name: &str, body: impl AsyncFnOnce(&Scene) -> Result<()>) -> Result<()> {
    act(name, Turn::alone().await?, body).await
}

async fn act(name: &str, turn: Turn, body: impl AsyncFnOnce(&Scene) -> Result<()>) -> Result<()> {
    let scene = Scene::set_up(name, turn).await?;
    let ended = AssertUnwindSafe(body(&scene)).catch_unwind().await;
    let failure = match ended {
        // What is left is cleared away while other tests run, and waited for by the next run of this test.
        Ok(Ok(())) => return scene.kube.delete("v1/Namespace", "", name).await,
        Ok(Err(error)) => error,
        Err(panic) => anyhow!("{}", panic_text(panic.as_ref())),
    };
    let seen = scene.report().await;
    Err(anyhow!("{failure:#}\n\n{seen}"))
}

/// SeaweedFS and the operator, once for the whole process.
fn install(cluster: &Cluster) -> Result<S3> {
    let installed = INSTALLED.get_or_init(|| {
        let install = || {
            // Two processes that install at the same time would refuse each other.
            let _lock = lock(&cluster.root().join("operator.lock"))?;
            let s3 = seaweedfs::up(cluster)?;
            install_operator(cluster, &image()?, &[])?;
            anyhow::Ok(s3)
        };
        install().map_err(|error| format!("{error:#}"))
    });
    installed.clone().map_err(|error| anyhow!("the operator is not installed: {error}"))
}

/// The operator as the tests have it: the chart's defaults, but workers that ask for so little that many fit the node.
pub fn install_operator(cluster: &Cluster, image: &str, values: &[&str]) -> Result<()> {
    let small = ["worker.resources.requests.cpu=10m", "worker.resources.requests.memory=32Mi"];
    operator::install(cluster, image, &[&small, values].concat()).map(drop)
}

/// The image under test.
pub fn image() -> Result<String> {
    env::var("CHECKPOINT_E2E_IMAGE").context("CHECKPOINT_E2E_IMAGE is not set: run `cargo e2e test --stage cluster`")
}

impl Scene {
    async fn set_up(name: &str, turn: Turn) -> Result<Self> {
        let cluster = Cluster::from_environment()?;
        cluster.require_entered()?;
        let place = lock(&cluster.root().join("places").join(name))?;
        let s3 = install(&cluster)?;
        let kube = Kube::connect(&cluster).await?;
        kube.delete_namespace(name).await?;
        kube.create_namespace(name).await?;
        kube.apply_value(seaweedfs::credentials_secret(name, CREDENTIALS, seaweedfs::ADMINISTRATOR)).await?;
        s3.create_bucket(name)?;
        let left: Vec<_> = s3.list(name, "")?.into_iter().map(|object| object.key).collect();
        s3.delete(name, &left.iter().map(String::as_str).collect::<Vec<_>>())?;
        Ok(Self { cluster, kube, s3, namespace: name.to_owned(), _turn: turn, _place: place })
    }

    /// The test's bucket, named like its namespace.
    pub fn bucket(&self) -> &str {
        &self.namespace
    }

    /// Writes files below a prefix of the test's bucket.
    pub fn put(&self, prefix: &str, files: &[(&str, &[u8])]) -> Result<()> {
        let keyed: Vec<_> = files.iter().map(|(path, bytes)| (format!("{prefix}/{path}"), *bytes)).collect();
        let objects: Vec<_> = keyed.iter().map(|(key, bytes)| (key.as_str(), Body::Bytes(bytes))).collect();
        self.s3.put(self.bucket(), &objects)
    }

    /// `storage` for the test's bucket in SeaweedFS, with credentials.
    pub fn s3_storage(&self) -> Value {
        json!({"s3": {
            "bucket": self.bucket(), "endpoint": seaweedfs::ENDPOINT, "insecure": true,
            "credentials": {"secretRef": {"name": CREDENTIALS}},
        }})
    }

    /// A spec for a path in the test's bucket, with one plain volume for each claim.
    pub fn s3_spec(&self, path: &str, claims: &[&str]) -> Value {
        json!({"path": path, "storage": self.s3_storage(), "volumes": volumes(claims)})
    }

    /// Applies a Checkpoint.
    pub async fn checkpoint(&self, name: &str, spec: Value) -> Result<DynamicObject> {
        self.kube.apply_value(self.manifest(name, spec)).await
    }

    /// A Checkpoint of the test's namespace.
    pub fn manifest(&self, name: &str, spec: Value) -> Value {
        let mut manifest = json!({
            "apiVersion": "checkpoints.dev/v1alpha1", "kind": "Checkpoint",
            "metadata": {"name": name, "namespace": self.namespace},
        });
        manifest["spec"] = spec;
        manifest
    }

    /// A pod that mounts a claim at `/volume` and runs a shell line once.
    pub async fn consumer(&self, name: &str, claim: &str, shell: &str) -> Result<DynamicObject> {
        self.kube.apply_value(consumer_pod(&self.namespace, name, claim, shell)).await
    }

    /// What that pod printed, once it has succeeded.
    pub async fn output(&self, pod: &str) -> Result<String> {
        self.kube.wait_phase(&self.namespace, pod, "Succeeded").await?;
        self.kube.pod_logs(&self.namespace, pod).await
    }

    /// [`Self::consumer`] and its [`Self::output`].
    pub async fn output_of(&self, name: &str, claim: &str, shell: &str) -> Result<String> {
        self.consumer(name, claim, shell).await?;
        self.output(name).await
    }

    /// Waits until the Checkpoint has the condition; an empty reason is any.
    pub async fn condition(&self, checkpoint: &str, kind: &str, status: &str, reason: &str) -> Result<Condition> {
        self.kube.wait_condition(CHECKPOINT, &self.namespace, checkpoint, kind, status, reason).await
    }

    /// Waits until the Checkpoint is Ready, and returns it.
    pub async fn ready(&self, checkpoint: &str) -> Result<DynamicObject> {
        let is_ready = |object: Option<&DynamicObject>| {
            object.is_some_and(|object| {
                condition(object, "Ready").is_some_and(|ready| {
                    ready.status == "True" && Some(ready.observed_generation) == object.metadata.generation
                })
            })
        };
        let object = self.wait(checkpoint, "Ready=True", is_ready).await?;
        object.context("the Checkpoint is gone again")
    }

    /// Watches the Checkpoint until `holds` says yes of it.
    pub async fn wait(
        &self,
        checkpoint: &str,
        what: &str,
        holds: impl Fn(Option<&DynamicObject>) -> bool,
    ) -> Result<Option<DynamicObject>> {
        self.kube.wait(CHECKPOINT, &self.namespace, checkpoint, what, PATIENCE, holds).await
    }

    /// Asks for a new inspection at once.
    pub async fn revalidate(&self, checkpoint: &str, token: &str) -> Result<()> {
        let patch = json!({"metadata": {"annotations": {"checkpoints.dev/revalidate": token}}});
        self.kube.merge(CHECKPOINT, &self.namespace, checkpoint, patch).await.map(drop)
    }

    /// All claims of the namespace by name, with their phase.
    pub async fn claims(&self) -> Result<BTreeMap<String, String>> {
        let claims = self.kube.list("v1/PersistentVolumeClaim", &self.namespace, "").await?;
        Ok(claims.iter().map(|claim| (claim.name_any(), text(&claim.data, "/status/phase").to_owned())).collect())
    }

    /// A claim that no Checkpoint owns.
    pub async fn plain_claim(&self, name: &str, class: &str, size: &str) -> Result<()> {
        self.kube
            .apply_value(json!({
                "apiVersion": "v1", "kind": "PersistentVolumeClaim",
                "metadata": {"name": name, "namespace": self.namespace},
                "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": class, "resources": {"requests": {"storage": size}}},
            }))
            .await
            .map(drop)
    }

    /// What a person would look at first: the Checkpoints, what hangs on them, and the controller's last words.
    async fn report(&self) -> String {
        let mut report = String::new();
        for kind in [CHECKPOINT, "batch/v1/Job", "v1/PersistentVolumeClaim", "v1/Pod"] {
            for object in self.kube.list(kind, &self.namespace, "").await.unwrap_or_default() {
                let status = object.data.get("status").map(Value::to_string).unwrap_or_default();
                writeln!(report, "{kind} {}: {}", object.name_any(), head(&status, 3000)).ok();
            }
        }
        let events = self.cluster.kubectl().and_then(|mut kubectl| {
            capture(kubectl.args(["get", "events", "--sort-by=.lastTimestamp", "--namespace", &self.namespace]))
        });
        for (title, said) in [("events", events), ("controller", operator::logs(&self.cluster))] {
            let said = said.unwrap_or_else(|error| format!("{error:#}"));
            // Other tests' Checkpoints are in the log too.
            let about =
                |line: &&str| title == "events" || line.contains(&self.namespace) || !line.contains("namespace");
            let lines: Vec<_> = said.lines().filter(about).collect();
            let tail = lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n");
            writeln!(report, "--- {title}\n{tail}").ok();
        }
        report
    }
}

/// One plain volume for each claim.
pub fn volumes(claims: &[&str]) -> Value {
    claims.iter().map(|claim| json!({"claimName": claim, "deletionPolicy": "Delete"})).collect()
}

/// A sharded Hugging Face model in a folder, written by the safetensors library (the same bytes each time).
pub fn model(shards: u32, mebibytes: u32) -> Result<PathBuf> {
    let (shards, mebibytes) = (shards.to_string(), mebibytes.to_string());
    let script = std::fs::read(paths::of_this_crate("python/make_model.py"))?;
    let made = build_once("model", &[&script, shards.as_bytes(), mebibytes.as_bytes()], |folder| {
        run(python::script("make_model.py")?.arg(folder.join("model")).args([&shards, &mebibytes]))
    })?;
    Ok(made.join("model"))
}

/// `sha256sum` of a folder's files, as [`HASHES_OF_VOLUME`] prints it.
pub fn hashes_of(folder: &Path) -> Result<String> {
    let line = "find . -type f -print0 | sort -z | xargs -0 sha256sum";
    capture(std::process::Command::new("sh").args(["-c", line]).env("LC_ALL", "C").current_dir(folder))
}

/// A shell line for a consumer that prints the hashes of the volume's files, ours left out.
pub const HASHES_OF_VOLUME: &str =
    "cd /volume; find . -type f -not -path './.checkpoint/*' -print0 | LC_ALL=C sort -z | xargs -0 sha256sum";

/// The text at a JSON pointer, empty when there is none.
pub fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// Long enough for what happens at once, short enough to wait for something that must not happen.
#[allow(dead_code, reason = "for tests that something stays as it is")]
pub const A_MOMENT: Duration = Duration::from_secs(3);

fn head(text: &str, characters: usize) -> String {
    text.chars().take(characters).collect()
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let known = panic.downcast_ref::<String>().cloned();
    known.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_else(|| "a panic".to_owned())
}
