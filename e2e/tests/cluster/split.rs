//! A load by several pods onto a volume that all of them write, of which one dies (network I/O).

use anyhow::{Context, Result};
use checkpoint_operator_e2e::kubernetes::PATIENCE;
use checkpoint_operator_e2e::wait::{Now, wait_until_async};
use kube::ResourceExt;
use kube::api::DynamicObject;
use serde_json::json;

use super::support::{HASHES_OF_VOLUME, IMMEDIATE_CLASS, Scene, hashes_of, model, shared, text};
use super::traces::kill_pod;
use super::valve::Valve;

const WORKERS: usize = 3;
/// Bytes per second through the door: the whole would take a minute.
const RATE: u32 = 256 << 10;

/// The pods of the load in a phase.
async fn loading(scene: &Scene, phase: &str) -> Result<Vec<DynamicObject>> {
    let pods = scene.kube.list("v1/Pod", &scene.namespace, "checkpoints.dev/role=load").await?;
    Ok(pods.into_iter().filter(|pod| text(&pod.data, "/status/phase") == phase).collect())
}

async fn wait_loading(scene: &Scene, without: Option<&str>) -> Result<Vec<DynamicObject>> {
    wait_until_async("all workers of the load to run", PATIENCE, async || {
        let mut pods = loading(scene, "Running").await?;
        pods.retain(|pod| Some(pod.name_any().as_str()) != without);
        let count = pods.len();
        Ok(if count == WORKERS { Now::Done(pods) } else { Now::NotYet(format!("{count} run")) })
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_by_several_pods_goes_on_when_one_dies() -> Result<()> {
    shared("split", async |scene| {
        let folder = model(4, 16)?;
        scene.s3.put_folder(scene.bucket(), "run", &folder)?;
        let valve = Valve::slow(&scene.s3.endpoint, RATE).await?;
        let mut spec = scene.s3_spec("run", &["split"]);
        spec["storage"]["s3"]["endpoint"] = json!(valve.endpoint);
        spec["volumes"][0]["storageClassName"] = json!(IMMEDIATE_CLASS);
        spec["volumes"][0]["accessModes"] = json!(["ReadWriteMany"]);
        spec["volumes"][0]["parallelism"] = json!(WORKERS);
        scene.checkpoint("split", spec).await?;
        let pods = wait_loading(scene, None).await?;
        let victim = pods.first().context("no pod")?.name_any();
        kill_pod(&scene.kube, &scene.namespace, &victim).await?;
        let others: Vec<_> = pods[1..].iter().map(DynamicObject::uid).collect();
        let now: Vec<_> = wait_loading(scene, Some(&victim)).await?.iter().map(DynamicObject::uid).collect();
        assert!(others.iter().all(|other| now.contains(other)), "the others were disturbed");
        valve.open();
        let ready = scene.ready("split").await?;
        let volume = &ready.data["status"]["volumes"][0];
        assert_eq!(volume["attempt"], json!(1), "the death of one is no failed attempt");
        assert_eq!(volume["bytesDone"], volume["bytesTotal"]);
        assert_eq!(scene.output_of("reader", "split", HASHES_OF_VOLUME).await?, hashes_of(&folder)?);
        let requests = valve.requests();
        let large = requests.iter().filter(|line| line.contains(".safetensors")).count();
        assert!(large >= 4, "{requests:?}");
        Ok(())
    })
    .await
}
