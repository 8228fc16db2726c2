//! The main job: a Checkpoint becomes a verified volume, and a pod that was waiting for it runs (network and process I/O).

use anyhow::{Context, Result};
use checkpoint_operator_e2e::kubernetes::PATIENCE;
use checkpoint_operator_e2e::{python, seaweedfs};
use kube::api::DynamicObject;
use serde_json::{Value, json};

use crate::support::{
    HASHES_OF_VOLUME, IMMEDIATE_CLASS, Scene, WAITING_CLASS, hashes_of, model, shared, text, volumes,
};

/// A consumer is there first and waits; the Checkpoint comes; the consumer runs on the model's bytes.
async fn a_waiting_pod_runs(scene: &Scene, class: &str) -> Result<()> {
    let folder = model(3, 4)?;
    scene.s3.put_folder(scene.bucket(), "runs/tiny-llama/checkpoint-3", &folder)?;
    scene.consumer("consumer", "tiny-llama", HASHES_OF_VOLUME).await?;
    let waits = |pod: Option<&DynamicObject>| {
        pod.is_some_and(|pod| {
            let told = pod.data.pointer("/status/conditions/0/message").and_then(Value::as_str).unwrap_or_default();
            text(&pod.data, "/status/phase") == "Pending"
                && told.contains("persistentvolumeclaim \"tiny-llama\" not found")
        })
    };
    scene.kube.wait("v1/Pod", &scene.namespace, "consumer", "waiting for its claim", PATIENCE, waits).await?;

    let mut spec = scene.s3_spec("runs/tiny-llama/checkpoint-3", &["tiny-llama"]);
    spec["volumes"][0]["storageClassName"] = json!(class);
    scene.checkpoint("tiny-llama", spec).await?;
    assert_eq!(scene.output("consumer").await?, hashes_of(&folder)?);

    let ready = scene.ready("tiny-llama").await?;
    for (kind, reason) in
        [("SourceReachable", "Reachable"), ("Validated", "Complete"), ("Materialized", "Published"), ("Ready", "Ready")]
    {
        scene.condition("tiny-llama", kind, "True", reason).await?;
    }
    let status = &ready.data["status"];
    assert_eq!(text(status, "/contents/format"), "HuggingFace");
    assert_eq!(text(status, "/contents/architecture"), "LlamaForCausalLM");
    assert_eq!(status["contents"]["tensors"], json!(19));
    assert_eq!(status["contents"]["parameters"], status["contents"]["dtypes"]["F32"]);
    assert_eq!(text(status, "/source/uri"), format!("s3://{}/runs/tiny-llama/checkpoint-3", scene.bucket()));
    assert_eq!(text(status, "/progress"), "100%");
    assert!(text(status, "/digest").starts_with("blake3:"));
    // The staging claim went with the work; only what pods name is left.
    let published =
        |claim: Option<&DynamicObject>| claim.is_some_and(|claim| text(&claim.data, "/status/phase") == "Bound");
    scene.kube.wait("v1/PersistentVolumeClaim", &scene.namespace, "tiny-llama", "Bound", PATIENCE, published).await?;
    nothing_else_is_left(scene, &["tiny-llama"]).await
}

/// No Job and no claim but these.
async fn nothing_else_is_left(scene: &Scene, claims: &[&str]) -> Result<()> {
    for kind in ["batch/v1/Job", "v1/PersistentVolumeClaim"] {
        for object in scene.kube.list(kind, &scene.namespace, "").await? {
            let name = object.metadata.name.context("no name")?;
            if !claims.contains(&name.as_str()) {
                scene.kube.wait_gone(kind, &scene.namespace, &name).await?;
            }
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_waiting_pod_starts_on_a_volume_that_waits_for_its_first_consumer() -> Result<()> {
    shared("main-waiting-class", async |scene| a_waiting_pod_runs(scene, WAITING_CLASS).await).await
}

#[tokio::test]
async fn a_waiting_pod_starts_on_a_volume_that_is_bound_at_once() -> Result<()> {
    shared("main-immediate-class", async |scene| a_waiting_pod_runs(scene, IMMEDIATE_CLASS).await).await
}

#[tokio::test]
async fn an_https_endpoint_with_its_own_authority_and_rays_uri_work() -> Result<()> {
    shared("main-https-and-ray", async |scene| {
        let folder = model(3, 4)?;
        scene.s3.put_folder(scene.bucket(), "model", &folder)?;
        scene.kube.apply_value(seaweedfs::certificate_authority(&scene.cluster, &scene.namespace, "authority")?).await?;
        let uri = format!("s3://{}/model?endpoint_override=s3.storage.svc:8443&scheme=https&region=eu-west-1", scene.bucket());
        let storage = json!({"s3": {
            "caBundle": {"configMapRef": {"name": "authority"}}, "credentials": {"secretRef": {"name": "s3-credentials"}},
        }});
        let filtered = json!([{
            "claimName": "weights", "include": ["*.safetensors", "*.json"], "exclude": ["tokenizer*"], "deletionPolicy": "Delete",
        }]);
        scene.checkpoint("model", json!({"path": uri, "storage": storage, "volumes": filtered})).await?;
        let expected: String = hashes_of(&folder)?
            .lines()
            .filter(|line| !line.contains("tokenizer"))
            .flat_map(|line| [line, "\n"])
            .collect();
        assert_eq!(scene.output_of("consumer", "weights", HASHES_OF_VOLUME).await?, expected);
        scene.ready("model").await.map(drop)
    })
    .await
}

/// A claim that a pod fills from the bucket, through URLs that anyone may read.
async fn filled_claim(scene: &Scene, name: &str, shell: &str) -> Result<()> {
    scene.plain_claim(name, WAITING_CLASS, "64Mi").await?;
    scene.output_of(&format!("fills-{name}"), name, shell).await.map(drop)
}

/// Shell lines that fetch the model's files into the folder in which they run.
fn fetch_model(scene: &Scene) -> Result<String> {
    let folder = model(3, 4)?;
    let server = scene.s3.with_endpoint(seaweedfs::ENDPOINT);
    let keys = scene.s3.put_folder(scene.bucket(), "model", &folder)?;
    keys.iter()
        .map(|key| {
            let name = key.rsplit('/').next().unwrap_or(key);
            Ok(format!("wget -q -O {name} '{}'\n", server.presign(scene.bucket(), key)?))
        })
        .collect()
}

#[tokio::test]
async fn a_claim_that_a_pod_filled_is_a_source() -> Result<()> {
    shared("main-claim-source", async |scene| {
        let fetch = fetch_model(scene)?;
        filled_claim(scene, "source", &format!("mkdir -p /volume/out/model; cd /volume/out/model\n{fetch}")).await?;
        let storage = json!({"persistentVolumeClaim": {"claimName": "source"}});
        let spec = json!({"path": "out/model", "storage": storage, "volumes": volumes(&["model"])});
        scene.checkpoint("model", spec).await?;
        assert_eq!(scene.output_of("consumer", "model", HASHES_OF_VOLUME).await?, hashes_of(&model(3, 4)?)?);
        let ready = scene.ready("model").await?;
        assert_eq!(text(&ready.data, "/status/contents/format"), "HuggingFace");
        assert_eq!(text(&ready.data, "/status/source/uri"), "pvc://source/out/model");
        Ok(())
    })
    .await
}

/// `huggingface_hub` keeps files as blobs, and a snapshot as a folder of links to them.
#[tokio::test]
async fn a_hugging_face_cache_in_a_claim_is_a_source() -> Result<()> {
    shared("main-claim-with-links", async |scene| {
        let fetch = fetch_model(scene)?;
        let shell = format!(
            "cache=/volume/hub/models--tiny--llama; snapshot=$cache/snapshots/0123abcd
             mkdir -p $cache/blobs $snapshot; cd $cache/blobs
             {fetch}
             for file in *; do hash=$(sha256sum $file | head -c 64); mv $file $hash; ln -s ../../blobs/$hash $snapshot/$file; done"
        );
        filled_claim(scene, "cache", &shell).await?;
        let path = "pvc://cache/hub/models--tiny--llama/snapshots/0123abcd";
        scene.checkpoint("model", json!({"path": path, "volumes": volumes(&["model"])})).await?;
        let shell = format!("{HASHES_OF_VOLUME}; find /volume -type l");
        assert_eq!(scene.output_of("consumer", "model", &shell).await?, hashes_of(&model(3, 4)?)?);
        scene.ready("model").await?;
        scene.condition("model", "Validated", "True", "Complete").await.map(drop)
    })
    .await
}

#[tokio::test]
async fn a_link_that_leaves_the_claim_makes_it_incomplete_by_name() -> Result<()> {
    shared("main-claim-foreign-link", async |scene| {
        let shell = "cd /volume; echo '{}' > config.json; ln -s /etc/passwd tokenizer.json";
        filled_claim(scene, "source", shell).await?;
        scene.checkpoint("model", json!({"path": "pvc://source", "volumes": volumes(&["model"])})).await?;
        let found = scene.condition("model", "Validated", "False", "Incomplete").await?;
        assert!(found.message.contains("tokenizer.json"), "{}", found.message);
        assert_eq!(scene.claims().await?.get("model"), None);
        Ok(())
    })
    .await
}

/// What the pod printed is a pickle of protocol 2 that Python reads as the very dict of the JSON text.
const READ_BACK: &str = "
import base64, json, pickle, sys
data = base64.b64decode(sys.argv[1])
assert data[:2] == b'\\x80\\x02', data[:2]
assert pickle.loads(data) == json.loads(sys.argv[2]), pickle.loads(data)
print('equal')
";

#[tokio::test]
async fn inline_json_is_a_dict_that_pythons_pickle_reads_back() -> Result<()> {
    shared("main-inline", async |scene| {
        let dict = r#"{"epoch": 3, "loss": 1.25e-3, "big": 123456789012345678901234567890, "name": "ü 日本 \" \u0000", "layers": [1, -2, [], {"a": null, "b": true}], "none": {}}"#;
        let spec = json!({"storage": {"inline": {"json": dict}}, "volumes": volumes(&["dict"])});
        scene.checkpoint("dict", spec).await?;
        let shell = "cd /volume; ls; cat checkpoint.json; echo; busybox base64 dict_checkpoint.pkl";
        let printed = scene.output_of("reader", "dict", shell).await?;
        let (json, pickle) = printed
            .strip_prefix("checkpoint.json\ndict_checkpoint.pkl\n")
            .and_then(|rest| rest.split_once('\n'))
            .with_context(|| format!("other files than expected: {printed}"))?;
        assert_eq!(json, dict, "numbers as they were written");
        assert_eq!(python::evaluate(READ_BACK, &[pickle, dict])?, "equal\n");
        let ready = scene.ready("dict").await?;
        assert_eq!(text(&ready.data, "/status/contents/format"), "Dict");
        assert_eq!(text(&ready.data, "/status/contents/pickle"), "None");
        Ok(())
    })
    .await
}
