//! A load by several pods onto a volume that all of them write, of which one dies (network I/O).

use anyhow::{Context, Result};
use checkpoint_operator_e2e::kubernetes::PATIENCE;
use checkpoint_operator_e2e::wait::{Now, wait_until_async};
use kube::ResourceExt;
use kube::api::DynamicObject;
use serde_json::json;

use super::support::{HASHES_OF_VOLUME, IMMEDIATE_CLASS, Scene, hashes_of, shared, text};
use super::traces::kill_pod;
use super::valve::Valve;

const WORKERS: usize = 3;
const FILES: usize = 2 * WORKERS;
/// Bytes per second through the door: the whole would take three quarters of a minute.
const RATE: u32 = 512 << 10;

/// One file for each of the shares and one more each, which end with different bytes.
fn files() -> Result<tempfile::TempDir> {
    let folder = tempfile::tempdir()?;
    for number in 0..FILES {
        let mut bytes = vec![7; 4 << 20];
        bytes.extend_from_slice(&number.to_le_bytes());
        std::fs::write(folder.path().join(format!("{number}.dat")), bytes)?;
    }
    Ok(folder)
}

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
        let folder = files()?;
        scene.s3.put_folder(scene.bucket(), "run", folder.path())?;
        let valve = Valve::slow(&scene.s3.endpoint, RATE).await?;
        let mut spec = scene.s3_spec("run", &["split"]);
        spec["storage"]["s3"]["endpoint"] = json!(valve.endpoint);
        spec["volumes"][0]["storageClassName"] = json!(IMMEDIATE_CLASS);
        spec["volumes"][0]["accessModes"] = json!(["ReadWriteMany"]);
        spec["volumes"][0]["parallelism"] = json!(WORKERS);
        spec["validation"] = json!({"depth": "Listing", "pickle": "Allow"});
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
        assert_eq!(scene.output_of("reader", "split", HASHES_OF_VOLUME).await?, hashes_of(folder.path())?);
        // The one that died had nothing complete; what the others were at was asked for once.
        let requests = valve.requests();
        let asked = requests.iter().filter(|line| line.contains(".dat")).count();
        assert!((FILES..2 * FILES).contains(&asked), "{requests:?}");
        Ok(())
    })
    .await
}
