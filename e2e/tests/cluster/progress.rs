//! What a status says while a load runs through the real operator, who may say it, and that a load needs nobody to hear it
//! (network I/O).

use anyhow::{Context, Result, bail, ensure};
use checkpoint_operator::contract::progress::{AUDIENCE, PATH};
use checkpoint_operator_e2e::kubernetes::PATIENCE;
use checkpoint_operator_e2e::operator;
use checkpoint_operator_e2e::wait::{Now, wait_until_async};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::ResourceExt;
use kube::api::{Api, DynamicObject, PostParams};
use serde_json::{Value, json};

use super::support::{Scene, alone, image, install_operator, shared, text};
use super::traces::{wait_volume, wait_worker_runs};
use super::valve::Valve;

/// Bytes per second through the door: a load of all files takes three quarters of a minute.
const RATE: u32 = 384 << 10;
const FILE: usize = 4 << 20;
const FILES: [&str; 4] = ["a.dat", "b.dat", "c.dat", "d.dat"];
/// An address of the pods' network that no pod has: packets vanish, as behind a network policy.
const NOWHERE: &str = "http://10.244.0.254:8082";

/// What is said of the first volume while it loads.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Said {
    done: i64,
    rate: i64,
    remaining: i64,
}

fn said(object: &DynamicObject) -> Option<Said> {
    let volume = object.data.pointer("/status/volumes/0").filter(|volume| text(volume, "/phase") == "Loading")?;
    let number = |name: &str| volume[name].as_i64();
    Some(Said { done: number("bytesDone")?, rate: number("bytesPerSecond")?, remaining: number("remainingSeconds")? })
}

/// A Checkpoint whose load is slow, once its worker runs: its UID and the worker's pod.
async fn slow_load(scene: &Scene, valve: &Valve) -> Result<DynamicObject> {
    let bytes = vec![7; FILE];
    scene.put("run", &FILES.map(|name| (name, bytes.as_slice())))?;
    let mut spec = scene.s3_spec("run", &["slow"]);
    spec["storage"]["s3"]["endpoint"] = json!(valve.endpoint);
    spec["validation"] = json!({"depth": "Listing", "pickle": "Allow"});
    let uid = scene.checkpoint("slow", spec).await?.uid().context("no UID")?;
    wait_worker_runs(scene, &uid, "load").await
}

/// Waits until more bytes than `before` are said to be done, with a rate and a time.
async fn moves(scene: &Scene, before: i64) -> Result<Said> {
    let more = |object: Option<&DynamicObject>| object.and_then(said).is_some_and(|said| said.done > before);
    let object = scene.wait("slow", &format!("more than {before} bytes, with a rate"), more).await?;
    object.as_ref().and_then(said).context("it is gone again")
}

/// A token of the namespace's default service account that is bound to a pod, as the kubelet mounts them.
async fn token(scene: &Scene, pod: &DynamicObject, audience: &str) -> Result<String> {
    let accounts: Api<ServiceAccount> = Api::namespaced(scene.kube.client.clone(), &scene.namespace);
    let bound = BoundObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        name: Some(pod.name_any()),
        uid: pod.uid(),
    };
    let spec = TokenRequestSpec {
        audiences: vec![audience.to_owned()],
        bound_object_ref: Some(bound),
        expiration_seconds: Some(600),
    };
    let request = TokenRequest { spec, ..TokenRequest::default() };
    let answer = accounts.create_token_request("default", &PostParams::default(), &request).await?;
    Ok(answer.status.context("no token")?.token)
}

/// The answer to a message that says that everything is done.
async fn tell(url: &str, token: Option<&str>) -> Result<u16> {
    let lie = json!({"version": 1, "sequence": 1_000_000, "bytesDone": 4 * FILE, "bytesTotal": 4 * FILE});
    let client = reqwest::Client::builder().no_proxy().build()?;
    let request = client.post(url).body(lie.to_string());
    let request = token.into_iter().fold(request, reqwest::RequestBuilder::bearer_auth);
    Ok(request.send().await?.status().as_u16())
}

/// Where the installed operator listens, as this process reaches it.
async fn endpoint(scene: &Scene) -> Result<String> {
    let service = scene.kube.get("v1/Service", operator::NAMESPACE, operator::RELEASE).await?.context("no Service")?;
    let ports = service.data.pointer("/spec/ports").and_then(Value::as_array).cloned().unwrap_or_default();
    let port = ports.iter().find(|port| port["name"] == "progress").context("no port for progress")?;
    Ok(format!("http://{}:{}{PATH}", text(&service.data, "/spec/clusterIP"), port["port"]))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_rate_and_time_move_and_only_the_worker_can_move_them() -> Result<()> {
    shared("progress", async |scene| {
        let valve = Valve::slow(&scene.s3.endpoint, RATE).await?;
        let worker = slow_load(scene, &valve).await?;
        let total = i64::try_from(FILES.len() * FILE)?;
        let first = moves(scene, 0).await?;
        let stranger = scene.consumer("stranger", "slow", "true").await?;
        let url = endpoint(scene).await?;
        let own = token(scene, &worker, AUDIENCE).await?;
        let forged = format!("{}.c2lnbmF0dXJl", own.rsplit_once('.').context("not a JWT")?.0);
        for (what, token, code) in [
            ("no token", None, 401),
            ("the worker's token for another audience", Some(token(scene, &worker, "elsewhere").await?), 401),
            ("another pod's token", Some(token(scene, &stranger, AUDIENCE).await?), 403),
            ("a forged token", Some(forged), 401),
        ] {
            assert_eq!(tell(&url, token.as_deref()).await?, code, "{what}");
        }
        let second = moves(scene, first.done).await?;
        let third = moves(scene, second.done).await?;
        for said in [first, second, third] {
            assert!(said.done < total && said.remaining > 0, "{said:?}");
            let rate = f64::from(RATE);
            assert!((rate / 4.0..rate * 2.0).contains(&(said.rate as f64)), "{said:?} at {rate} bytes a second");
        }
        valve.open();
        let ready = scene.ready("slow").await?;
        let volume = &ready.data["status"]["volumes"][0];
        assert_eq!((&volume["bytesDone"], &volume["remainingSeconds"]), (&json!(total), &Value::Null));
        // The same numbers for all who were heard, and every message counted.
        let metrics = url.replace(":8082", ":8080").replace(PATH, "/metrics");
        let text = reqwest::get(metrics).await?.text().await?;
        for outcome in ["taken", "unauthenticated", "unknown"] {
            let line = format!("checkpoint_operator_progress_messages_total{{outcome=\"{outcome}\"}} ");
            assert!(text.contains(&line), "{line} is missing in\n{text}");
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_whose_way_to_the_controller_is_blocked_becomes_ready() -> Result<()> {
    alone("progress-blocked", async |scene| {
        install_operator(&scene.cluster, &image()?, &[&format!("progress.url={NOWHERE}")])?;
        let ended = blocked(scene).await;
        install_operator(&scene.cluster, &image()?, &[])?;
        ended
    })
    .await
}

async fn blocked(scene: &Scene) -> Result<()> {
    let valve = Valve::slow(&scene.s3.endpoint, RATE).await?;
    let worker = slow_load(scene, &valve).await?.name_any();
    wait_until_async("the worker to give up telling", PATIENCE, async || {
        let log = scene.kube.pod_logs(&scene.namespace, &worker).await?;
        Ok(Now::when(log.contains("the controller cannot be told"), &log))
    })
    .await?;
    wait_volume(scene, "slow", "Loading", "Loading").await?;
    let object = scene.wait("slow", "the Checkpoint", |object| object.is_some()).await?.context("it is gone")?;
    let volume = &object.data["status"]["volumes"][0];
    for name in ["bytesDone", "bytesPerSecond", "remainingSeconds"] {
        ensure!(volume[name].is_null(), "nobody can have told {name}: {volume}");
    }
    valve.open();
    let ready = scene.ready("slow").await?;
    let volume = &ready.data["status"]["volumes"][0];
    if volume["attempt"] != json!(1) {
        bail!("the load was disturbed: {volume}");
    }
    assert_eq!(volume["bytesDone"], json!(FILES.len() * FILE));
    Ok(())
}
