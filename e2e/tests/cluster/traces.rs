//! What the operator left and did: its objects, the Jobs it made, the bytes on the node's disk (network and file I/O).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use checkpoint_operator_e2e::audit::{self, Mark, Write};
use checkpoint_operator_e2e::cluster::Cluster;
use checkpoint_operator_e2e::command::capture;
use checkpoint_operator_e2e::kubernetes::{CHECKPOINT, Kube, PATIENCE};
use checkpoint_operator_e2e::operator;
use checkpoint_operator_e2e::wait::{Now, wait_until_async};
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, DynamicObject};
use serde_json::Value;

use super::support::{Scene, text};

/// What a Checkpoint may own.
const CHILDREN: [&str; 3] = ["batch/v1/Job", "v1/Pod", "v1/PersistentVolumeClaim"];
/// Selects the controller's pod.
const CONTROLLER: &str = "app.kubernetes.io/name=checkpoint-operator,app.kubernetes.io/component=controller";

/// The service account that the operator writes as.
pub fn operator_user() -> String {
    audit::service_account(operator::NAMESPACE, operator::RELEASE)
}

/// Names of the worker Jobs that were made in the namespace since the mark, such as `ckpt-load-...`.
pub fn jobs_made(scene: &Scene, since: Mark) -> Result<Vec<String>> {
    let is_new_job = |write: &Write| write.resource == "jobs" && write.verb == "create" && write.code == 201;
    let writes = audit::writes_since(&scene.cluster, since)?;
    Ok(writes
        .into_iter()
        .filter(|write| write.namespace == scene.namespace && is_new_job(write))
        .map(|write| write.name)
        .collect())
}

/// How many Jobs of each kind were made since the mark: inspect, load, verify.
pub fn kinds_made(scene: &Scene, since: Mark) -> Result<[usize; 3]> {
    let names = jobs_made(scene, since)?;
    Ok(["inspect", "load", "verify"]
        .map(|kind| names.iter().filter(|name| name.starts_with(&format!("ckpt-{kind}-"))).count()))
}

/// Everything that carries the Checkpoint's UID, as `Kind name`.
pub async fn children(kube: &Kube, namespace: &str, uid: &str) -> Result<Vec<String>> {
    let selector = format!("checkpoints.dev/checkpoint-uid={uid}");
    let mut found = Vec::new();
    for kind in CHILDREN {
        for object in kube.list(kind, namespace, &selector).await? {
            found.push(format!("{kind} {}", object.name_any()));
        }
    }
    Ok(found)
}

/// Names of the volumes that are tied to claims of the namespace, with the claim's name.
pub async fn volumes_of(kube: &Kube, namespace: &str) -> Result<BTreeMap<String, String>> {
    let volumes = kube.list("v1/PersistentVolume", "", "").await?;
    let of = |volume: &DynamicObject| text(&volume.data, "/spec/claimRef/namespace") == namespace;
    Ok(volumes
        .iter()
        .filter(|volume| of(volume))
        .map(|volume| (volume.name_any(), text(&volume.data, "/spec/claimRef/name").to_owned()))
        .collect())
}

/// Waits until the Checkpoint is gone and nothing with its UID is left but these claims.
pub async fn wait_nothing_left(scene: &Scene, checkpoint: &str, uid: &str, retained: &[&str]) -> Result<()> {
    scene.kube.wait_gone(CHECKPOINT, &scene.namespace, checkpoint).await?;
    let retained: Vec<_> = retained.iter().map(|claim| format!("v1/PersistentVolumeClaim {claim}")).collect();
    wait_until_async(&format!("nothing of {checkpoint} to be left"), PATIENCE, async || {
        let mut left = children(&scene.kube, &scene.namespace, uid).await?;
        left.retain(|child| !retained.contains(child));
        Ok(Now::when(left.is_empty(), &format!("{left:?} is there")))
    })
    .await
}

/// Waits until the volumes of the namespace are tied to exactly these claims.
pub async fn wait_volumes_only_for(kube: &Kube, namespace: &str, claims: &[&str]) -> Result<()> {
    wait_until_async("no volume to be left over", PATIENCE, async || {
        let volumes = volumes_of(kube, namespace).await?;
        let mut tied: Vec<_> = volumes.values().map(String::as_str).collect();
        tied.sort_unstable();
        Ok(Now::when(tied == claims, &format!("there are {volumes:?}")))
    })
    .await
}

/// Waits until the Checkpoint's first volume has the phase and, unless it is empty, the reason.
pub async fn wait_volume(scene: &Scene, checkpoint: &str, phase: &str, reason: &str) -> Result<()> {
    let holds = |object: Option<&DynamicObject>| {
        object.is_some_and(|object| {
            text(&object.data, "/status/volumes/0/phase") == phase
                && (reason.is_empty() || text(&object.data, "/status/volumes/0/reason") == reason)
        })
    };
    scene.wait(checkpoint, &format!("volume {phase} {reason}"), holds).await.map(drop)
}

/// The only object of a kind with the Checkpoint's UID and a role, once there is one.
pub async fn wait_child(scene: &Scene, kind: &str, uid: &str, role: &str) -> Result<DynamicObject> {
    let selector = format!("checkpoints.dev/checkpoint-uid={uid},checkpoints.dev/role={role}");
    wait_until_async(&format!("a {kind} for {role}"), PATIENCE, async || {
        let mut found = scene.kube.list(kind, &scene.namespace, &selector).await?;
        Ok(match found.len() {
            1 => Now::Done(found.remove(0)),
            count => Now::NotYet(format!("there are {count}")),
        })
    })
    .await
}

/// Waits until the worker of this kind runs, and returns its pod.
pub async fn wait_worker_runs(scene: &Scene, uid: &str, role: &str) -> Result<DynamicObject> {
    let pod = wait_child(scene, "v1/Pod", uid, role).await?;
    scene.kube.wait_phase(&scene.namespace, &pod.name_any(), "Running").await
}

/// Where the data of a bound claim lies on this machine.
pub async fn folder_of(kube: &Kube, namespace: &str, claim: &str) -> Result<PathBuf> {
    let claim = kube.get("v1/PersistentVolumeClaim", namespace, claim).await?.context("there is no such claim")?;
    let volume = kube.get("v1/PersistentVolume", "", text(&claim.data, "/spec/volumeName")).await?;
    let volume = volume.context("the claim has no volume")?;
    let folder = ["/spec/hostPath/path", "/spec/local/path"].map(|path| text(&volume.data, path));
    let folder = folder.iter().find(|path| !path.is_empty()).context("the volume is not a folder of this machine")?;
    Ok(PathBuf::from(folder))
}

/// Deletes a pod as `kubectl delete --force` does, and waits until it is gone.
pub async fn kill_pod(kube: &Kube, namespace: &str, pod: &str) -> Result<()> {
    let api: Api<DynamicObject> = kube.api("v1/Pod", namespace).await?;
    api.delete(pod, &DeleteParams::default().grace_period(0)).await?;
    kube.wait_gone("v1/Pod", namespace, pod).await
}

/// Kills the controller's pod without a chance to finish anything, and waits until its successor is ready.
pub async fn kill_controller(scene: &Scene) -> Result<()> {
    let pods = scene.kube.list("v1/Pod", operator::NAMESPACE, CONTROLLER).await?;
    let [pod] = pods.as_slice() else { bail!("there are {} controllers", pods.len()) };
    kill_pod(&scene.kube, operator::NAMESPACE, &pod.name_any()).await?;
    wait_controller(&scene.cluster)
}

/// Waits until the controller is as its Deployment says, and ready.
pub fn wait_controller(cluster: &Cluster) -> Result<()> {
    let deployment = format!("deployment/{}", operator::RELEASE);
    let wait = ["rollout", "status", &deployment, "--namespace", operator::NAMESPACE, "--timeout=90s"];
    capture(cluster.kubectl()?.args(wait)).map(drop)
}

/// Runs `body` without the installed controller, which is started again whatever happens.
pub async fn without_controller(scene: &Scene, body: impl AsyncFnOnce() -> Result<()>) -> Result<()> {
    scale(&scene.cluster, 0)?;
    let ended = body().await;
    scale(&scene.cluster, 1)?;
    ended
}

fn scale(cluster: &Cluster, replicas: u8) -> Result<()> {
    let (deployment, count) = (format!("deployment/{}", operator::RELEASE), format!("--replicas={replicas}"));
    capture(cluster.kubectl()?.args(["scale", &deployment, &count, "--namespace", operator::NAMESPACE]))?;
    if replicas > 0 {
        return wait_controller(cluster);
    }
    let gone = ["wait", "--for=delete", "pod", "--selector", CONTROLLER, "--namespace", operator::NAMESPACE];
    capture(cluster.kubectl()?.args(gone).arg("--timeout=60s")).map(drop)
}

/// The number at a JSON pointer, 0 when there is none.
pub fn number(value: &Value, pointer: &str) -> i64 {
    value.pointer(pointer).and_then(Value::as_i64).unwrap_or_default()
}

/// How long a wait may take that is longer than most, on a busy two-core machine.
pub const LONG: Duration = Duration::from_mins(4);
