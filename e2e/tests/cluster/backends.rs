//! A load from each backend, through the installed operator, into a volume that a pod reads (network and process I/O).
//!
//! S3 and claims come from the cluster itself. The other servers run in the test's process or below it, which is on the node's
//! network, where pods reach them.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use checkpoint_operator::contract::digest::Tree;
use checkpoint_operator_e2e::cluster::NODE_ADDRESS;
use checkpoint_operator_e2e::seaweedfs;
use serde_json::{Value, json};

use crate::servers::{azure, files, gcs, hub, web};
use crate::support::{CREDENTIALS, HASHES_OF_VOLUME, Scene, WAITING_CLASS, hashes_of, model, shared, text};

const PREFIX: &str = "runs/tiny-llama/checkpoint-3";

/// A Checkpoint of the model at one backend.
struct Source {
    /// Of the Checkpoint, its claim, its Secret and its pod.
    name: &'static str,
    /// The keys of its Secret.
    keys: Value,
    path: Option<String>,
    storage: Value,
    /// What the status says of where it is.
    uri: String,
}

/// Servers that last as long as the test.
struct Servers {
    gcs: gcs::Server,
    azure: azure::Server,
    web: web::Server,
    hub: hub::Hub,
}

impl Servers {
    async fn holding(model: &BTreeMap<String, Vec<u8>>) -> Result<Self> {
        let keyed: Vec<_> = model.iter().map(|(name, bytes)| (format!("{PREFIX}/{name}"), bytes.as_slice())).collect();
        let objects: Vec<_> = keyed.iter().map(|(key, bytes)| (key.as_str(), *bytes)).collect();
        let (gcs, azure) = (gcs::Server::start(NODE_ADDRESS)?, azure::Server::start(NODE_ADDRESS)?);
        tokio::try_join!(gcs.put("models", &objects), azure.put("models", &objects))?;
        let web = web::Server::start(NODE_ADDRESS, |root| {
            std::fs::create_dir(root.join("llama"))?;
            Ok(model.iter().try_for_each(|(name, bytes)| std::fs::write(root.join("llama").join(name), bytes))?)
        })?;
        Ok(Self { gcs, azure, web, hub: hub::Hub::start(NODE_ADDRESS, model.clone())? })
    }

    /// One source for each backend. Credentials that others could use go to the node's address because the Secret says so.
    fn sources(&self, scene: &Scene, model: &BTreeMap<String, Vec<u8>>) -> Result<Vec<Source>> {
        let (address, bucket) = (NODE_ADDRESS, scene.bucket());
        let names: Vec<_> = model.keys().collect();
        Ok(vec![
            Source {
                name: "from-s3",
                keys: Value::Null,
                path: Some(PREFIX.into()),
                storage: json!({"s3": {
                    "bucket": bucket, "endpoint": seaweedfs::TLS_ENDPOINT, "region": seaweedfs::REGION,
                    "caBundle": {"configMapRef": {"name": "authority"}}, "credentials": {"secretRef": {"name": CREDENTIALS}},
                }}),
                uri: format!("s3://{bucket}/{PREFIX}"),
            },
            Source {
                name: "from-gcs",
                keys: json!({"service-account.json": gcs::key_file()?, "allowedHosts": address}),
                path: Some(format!("gs://models/{PREFIX}")),
                storage: json!({"gcs": {"endpoint": self.gcs.endpoint, "insecure": true}}),
                uri: format!("gs://models/{PREFIX}"),
            },
            Source {
                name: "from-azure",
                keys: json!({"AZURE_STORAGE_KEY": azure::key()}),
                path: Some(PREFIX.into()),
                storage: json!({"azure": {
                    "account": azure::ACCOUNT, "container": "models", "endpoint": self.azure.endpoint, "insecure": true,
                }}),
                uri: format!("abfs://models@{}.dfs.core.windows.net/{PREFIX}", azure::ACCOUNT),
            },
            Source {
                name: "from-http",
                keys: json!({"username": web::USER, "password": web::PASSWORD, "allowedHosts": address}),
                path: None,
                storage: json!({"http": {"url": format!("{}/llama", self.web.password), "files": names, "insecure": true}}),
                uri: format!("{}/llama", self.web.password),
            },
            Source {
                name: "from-hub",
                keys: json!({"HF_TOKEN": hub::OWNER, "allowedHosts": address}),
                path: Some("hf://org/gated@v1".into()),
                storage: json!({"huggingFace": {"endpoint": self.hub.endpoint, "insecure": true}}),
                uri: "hf://org/gated@v1".into(),
            },
        ])
    }
}

/// Applies the source's Secret, Checkpoint and consumer.
async fn apply(scene: &Scene, source: &Source) -> Result<()> {
    let mut storage = source.storage.clone();
    if !source.keys.is_null() {
        scene
            .kube
            .apply_value(json!({
                "apiVersion": "v1", "kind": "Secret", "metadata": {"name": source.name, "namespace": scene.namespace},
                "stringData": source.keys,
            }))
            .await?;
        let (_, backend) = storage.as_object_mut().and_then(|all| all.iter_mut().next()).context("no backend")?;
        backend["credentials"] = json!({"secretRef": {"name": source.name}});
    }
    let volumes = json!([{"claimName": source.name, "storageClassName": WAITING_CLASS, "deletionPolicy": "Delete"}]);
    let mut spec = json!({"storage": storage, "volumes": volumes});
    if let Some(path) = &source.path {
        spec["path"] = json!(path);
    }
    scene.checkpoint(source.name, spec).await?;
    scene.consumer(source.name, source.name, HASHES_OF_VOLUME).await.map(drop)
}

/// The pod ran on the model's bytes, and the status says which ones they are.
async fn assert_loaded(scene: &Scene, source: &Source, hashes: &str, digest: &str) -> Result<()> {
    assert_eq!(scene.output(source.name).await?, hashes, "{}", source.name);
    let status = scene.ready(source.name).await?.data["status"].clone();
    assert_eq!(text(&status, "/digest"), digest, "{}", source.name);
    assert_eq!(text(&status, "/source/uri"), source.uri);
    assert_eq!(text(&status, "/contents/format"), "HuggingFace");
    Ok(())
}

fn digest_of(model: &BTreeMap<String, Vec<u8>>) -> String {
    let mut tree = Tree::new();
    for (name, bytes) in model {
        tree.add(name, bytes.len() as u64, &blake3::hash(bytes));
    }
    tree.finish()
}

async fn loads(scene: &Scene, folder: &Path) -> Result<()> {
    let model = files(folder)?;
    let (hashes, digest) = (hashes_of(folder)?, digest_of(&model));
    scene.s3.put_folder(scene.bucket(), PREFIX, folder)?;
    let authority = seaweedfs::certificate_authority(&scene.cluster, &scene.namespace, "authority")?;
    scene.kube.apply_value(authority).await?;
    let servers = Servers::holding(&model).await?;
    let sources = servers.sources(scene, &model)?;
    for source in &sources {
        apply(scene, source).await?;
    }
    for source in &sources {
        assert_loaded(scene, source, &hashes, &digest).await?;
    }
    assert_eq!(servers.hub.leaked(), Vec::<String>::new());

    // What one Checkpoint published is the source of another.
    let claim = Source {
        name: "from-claim",
        keys: Value::Null,
        path: None,
        storage: json!({"persistentVolumeClaim": {"claimName": "from-s3"}}),
        uri: "pvc://from-s3".into(),
    };
    apply(scene, &claim).await?;
    assert_loaded(scene, &claim, &hashes, &digest).await
}

#[tokio::test]
async fn each_backend_fills_a_volume_that_a_pod_reads() -> Result<()> {
    shared("backends", async |scene| loads(scene, &model(3, 4)?).await).await
}
