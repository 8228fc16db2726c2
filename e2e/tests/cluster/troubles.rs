//! What goes wrong around a Checkpoint: the right reason, few Jobs, and healing when it is repaired (network and file I/O).

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use anyhow::{Context, Result};
use checkpoint_operator_e2e::cluster::NODE_NAME;
use checkpoint_operator_e2e::command::capture;
use checkpoint_operator_e2e::kubernetes::{CHECKPOINT, PATIENCE};
use checkpoint_operator_e2e::wait::{Now, wait_until};
use checkpoint_operator_e2e::{audit, seaweedfs, tiny_volume};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use serde_json::{Value, json};

use super::support::{CREDENTIALS, IMMEDIATE_CLASS, Scene, WAITING_CLASS, shared, text, volumes};
use super::traces::{jobs_made, kinds_made, number, wait_child};

const FILES: &[(&str, &[u8])] = &[("notes.txt", b"what the run was about"), ("weights/part-1.dat", b"0123456789")];

/// A source that cannot be read: what is said of it, how it is repaired, that it heals, and that this took few Jobs.
struct Trouble<'a> {
    storage: Value,
    status: &'a str,
    reason: &'a str,
    /// Texts of the message: the object and what to do.
    says: &'a [&'a str],
}

impl Trouble<'_> {
    async fn heals_by(self, scene: &Scene, repair: impl AsyncFnOnce() -> Result<()>) -> Result<()> {
        let start = audit::mark(&scene.cluster)?;
        let spec = json!({"path": "run", "storage": self.storage, "volumes": volumes(&["data"])});
        scene.checkpoint("model", spec).await?;
        let found = scene.condition("model", "SourceReachable", self.status, self.reason).await?;
        for text in self.says {
            assert!(found.message.contains(text), "{text:?} is not in {:?}", found.message);
        }
        let ready = scene.condition("model", "Ready", self.status, self.reason).await?;
        assert_eq!(ready.message, found.message);
        assert_eq!(scene.claims().await?.keys().filter(|claim| *claim != "data").count(), 0, "nothing is staged");
        repair().await?;
        scene.revalidate("model", "repaired").await?;
        scene.ready("model").await?;
        let [inspections, loads, _] = kinds_made(scene, start)?;
        assert!(inspections <= 4 && loads == 1, "{:?}", jobs_made(scene, start)?);
        assert_eq!(scene.output_of("reader", "data", "cat /volume/weights/part-1.dat").await?, "0123456789");
        Ok(())
    }
}

/// The storage of the scene with some members of `s3` replaced.
fn storage(scene: &Scene, changes: Value) -> Value {
    let mut storage = scene.s3_storage();
    if let (Some(s3), Value::Object(changes)) = (storage["s3"].as_object_mut(), changes) {
        s3.extend(changes);
    }
    storage
}

fn keys(name: &str) -> Value {
    json!({"credentials": {"secretRef": {"name": name}}})
}

#[tokio::test]
async fn wrong_keys_are_named_and_tried_less_and_less_often() -> Result<()> {
    shared("troubles-wrong-keys", async |scene| {
        scene.put("run", FILES)?;
        let secret = |keys| seaweedfs::credentials_secret(&scene.namespace, "other", keys);
        scene.kube.apply_value(secret((seaweedfs::ADMINISTRATOR.0, "not-the-key"))).await?;
        let start = audit::mark(&scene.cluster)?;
        let spec = json!({"path": "run", "storage": storage(scene, keys("other"))});
        scene.checkpoint("model", spec).await?;
        let found = scene.condition("model", "SourceReachable", "False", "AccessDenied").await?;
        assert!(found.message.contains("Secret other"), "{}", found.message);
        scene.condition("model", "Stalled", "True", "AccessDenied").await?;
        // The second attempt comes by itself; the third is at least half a minute later than that.
        let failed_twice = |object: Option<&kube::api::DynamicObject>| {
            object.is_some_and(|object| number(&object.data, "/status/inspection/failures") == 2)
        };
        let object = scene.wait("model", "a second failure", failed_twice).await?.context("the Checkpoint is gone")?;
        assert_eq!(jobs_made(scene, start)?.len(), 2);
        let next: Timestamp = text(&object.data, "/status/inspection/nextAttemptAt").parse()?;
        assert!(next.duration_since(Timestamp::now()).as_secs() > 15, "the next attempt is at {next}");
        // Asking anew is answered at once, also by a failure.
        scene.revalidate("model", "again").await?;
        let asked = |object: Option<&kube::api::DynamicObject>| {
            object.is_some_and(|object| text(&object.data, "/status/inspection/handledRevalidate") == "again")
        };
        scene.wait("model", "the answer", asked).await?;
        scene.condition("model", "Ready", "False", "AccessDenied").await?;
        scene.kube.apply_value(secret(seaweedfs::ADMINISTRATOR)).await?;
        scene.revalidate("model", "repaired").await?;
        scene.ready("model").await?;
        assert!(jobs_made(scene, start)?.len() <= 5);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn keys_without_the_right_to_a_bucket_are_denied() -> Result<()> {
    shared("troubles-stranger", async |scene| {
        scene.put("run", FILES)?;
        let secret = |keys| seaweedfs::credentials_secret(&scene.namespace, "stranger", keys);
        scene.kube.apply_value(secret(seaweedfs::STRANGER)).await?;
        let trouble = Trouble {
            storage: storage(scene, keys("stranger")),
            status: "False",
            reason: "AccessDenied",
            says: &["Secret stranger"],
        };
        trouble.heals_by(scene, async || scene.kube.apply_value(secret(seaweedfs::ADMINISTRATOR)).await.map(drop)).await
    })
    .await
}

#[tokio::test]
async fn a_missing_secret_is_named() -> Result<()> {
    shared("troubles-no-secret", async |scene| {
        scene.put("run", FILES)?;
        let secret = seaweedfs::credentials_secret(&scene.namespace, "absent", seaweedfs::ADMINISTRATOR);
        let trouble = Trouble {
            storage: storage(scene, keys("absent")),
            status: "False",
            reason: "AccessDenied",
            says: &["Secret absent", "AWS_ACCESS_KEY_ID"],
        };
        trouble.heals_by(scene, async || scene.kube.apply_value(secret).await.map(drop)).await
    })
    .await
}

#[tokio::test]
async fn a_missing_bucket_is_named() -> Result<()> {
    shared("troubles-no-bucket", async |scene| {
        let bucket = "troubles-no-bucket-yet";
        if scene.s3.list(bucket, "").is_ok() {
            scene.s3.delete_bucket(bucket)?;
        }
        let trouble = Trouble {
            storage: storage(scene, json!({"bucket": bucket})),
            status: "False",
            reason: "NotFound",
            says: &[bucket],
        };
        trouble
            .heals_by(scene, async || {
                scene.s3.create_bucket(bucket)?;
                let keyed: Vec<_> = FILES.iter().map(|(path, bytes)| (format!("run/{path}"), *bytes)).collect();
                let objects: Vec<_> = keyed
                    .iter()
                    .map(|(key, bytes)| (key.as_str(), checkpoint_operator_e2e::s3::Body::Bytes(bytes)))
                    .collect();
                scene.s3.put(bucket, &objects)
            })
            .await
    })
    .await
}

#[tokio::test]
async fn a_missing_prefix_is_named() -> Result<()> {
    shared("troubles-no-prefix", async |scene| {
        scene.put("run-2", FILES)?;
        let trouble = Trouble { storage: scene.s3_storage(), status: "False", reason: "NotFound", says: &["run/"] };
        trouble.heals_by(scene, async || scene.put("run", FILES)).await
    })
    .await
}

#[tokio::test]
async fn a_name_that_does_not_resolve_is_unreachable() -> Result<()> {
    shared("troubles-no-name", async |scene| {
        scene.put("run", FILES)?;
        let host = format!("later.{}.svc", scene.namespace);
        let trouble = Trouble {
            storage: storage(scene, json!({"endpoint": format!("http://{host}:8333")})),
            status: "False",
            reason: "Unreachable",
            says: &[&host],
        };
        trouble
            .heals_by(scene, async || {
                scene
                .kube
                .apply_value(json!({
                    "apiVersion": "v1", "kind": "Service", "metadata": {"name": "later", "namespace": scene.namespace},
                    "spec": {"type": "ExternalName", "externalName": "s3.storage.svc.cluster.local"},
                }))
                .await
                .map(drop)
            })
            .await
    })
    .await
}

#[tokio::test]
async fn a_server_that_is_down_is_unreachable() -> Result<()> {
    shared("troubles-down", async |scene| {
        scene.put("run", FILES)?;
        scene
            .kube
            .apply_value(json!({
                "apiVersion": "v1", "kind": "Service", "metadata": {"name": "down", "namespace": scene.namespace},
                "spec": {"ports": [{"name": "http", "port": 8333, "targetPort": 8333}]},
            }))
            .await?;
        let pods = scene.kube.list("v1/Pod", seaweedfs::NAMESPACE, "app=s3").await?;
        let address = text(&pods.first().context("the S3 server has no pod")?.data, "/status/podIP").to_owned();
        let trouble = Trouble {
            storage: storage(scene, json!({"endpoint": format!("http://down.{}.svc:8333", scene.namespace)})),
            status: "False",
            reason: "Unreachable",
            says: &["down."],
        };
        trouble.heals_by(scene, async || {
            scene
                .kube
                .apply_value(json!({
                    "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
                    "metadata": {"name": "down-1", "namespace": scene.namespace, "labels": {"kubernetes.io/service-name": "down"}},
                    "endpoints": [{"addresses": [address], "conditions": {"ready": true}}],
                    "ports": [{"name": "http", "port": 8333, "protocol": "TCP"}],
                }))
                .await
                .map(drop)
        })
        .await
    })
    .await
}

#[tokio::test]
async fn an_unknown_authority_is_told_and_healed_by_a_ca_bundle() -> Result<()> {
    shared("troubles-tls", async |scene| {
        scene.put("run", FILES)?;
        let trouble = Trouble {
            storage: storage(scene, json!({"endpoint": seaweedfs::TLS_ENDPOINT, "insecure": false})),
            status: "False",
            reason: "TlsFailed",
            says: &["caBundle"],
        };
        trouble
            .heals_by(scene, async || {
                let authority = seaweedfs::certificate_authority(&scene.cluster, &scene.namespace, "authority")?;
                scene.kube.apply_value(authority).await?;
                let bundle =
                    json!({"spec": {"storage": {"s3": {"caBundle": {"configMapRef": {"name": "authority"}}}}}});
                scene.kube.merge(CHECKPOINT, &scene.namespace, "model", bundle).await.map(drop)
            })
            .await
    })
    .await
}

#[tokio::test]
async fn plain_http_has_to_be_asked_for() -> Result<()> {
    shared("troubles-http", async |scene| {
        scene.put("run", FILES)?;
        let start = audit::mark(&scene.cluster)?;
        let trouble = Trouble {
            storage: storage(scene, json!({"insecure": false})),
            status: "False",
            reason: "InsecureEndpoint",
            says: &["insecure"],
        };
        trouble
            .heals_by(scene, async || {
                assert!(jobs_made(scene, start)?.is_empty(), "no worker is needed to see that");
                let insecure = json!({"spec": {"storage": {"s3": {"insecure": true}}}});
                scene.kube.merge(CHECKPOINT, &scene.namespace, "model", insecure).await.map(drop)
            })
            .await
    })
    .await
}

#[tokio::test]
async fn a_claim_of_somebody_else_stays_untouched() -> Result<()> {
    shared("troubles-foreign-claim", async |scene| {
        scene.put("run", FILES)?;
        scene.plain_claim("data", IMMEDIATE_CLASS, "1Mi").await?;
        let claim = || scene.kube.get("v1/PersistentVolumeClaim", &scene.namespace, "data");
        let bound = |claim: Option<&kube::api::DynamicObject>| {
            claim.is_some_and(|claim| text(&claim.data, "/status/phase") == "Bound")
        };
        let before =
            scene.kube.wait("v1/PersistentVolumeClaim", &scene.namespace, "data", "Bound", PATIENCE, bound).await?;
        scene.checkpoint("model", scene.s3_spec("run", &["data"])).await?;
        let found = scene.condition("model", "Materialized", "False", "ClaimConflict").await?;
        assert!(found.message.contains("claim data") && found.message.contains("not ours"), "{}", found.message);
        scene.condition("model", "Validated", "True", "Complete").await?;
        assert_eq!(claim().await?, before);
        scene.kube.delete("v1/PersistentVolumeClaim", &scene.namespace, "data").await?;
        scene.ready("model").await?;
        assert_ne!(claim().await?.map(|claim| claim.uid()), before.map(|claim| claim.uid()));
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_size_below_the_need_is_refused_before_anything_is_made() -> Result<()> {
    shared("troubles-size", async |scene| {
        scene.put("run", &[("weights.dat", &vec![7; 3 << 20])])?;
        let mut spec = scene.s3_spec("run", &["data"]);
        spec["volumes"][0]["size"] = json!("2Mi");
        scene.checkpoint("model", spec.clone()).await?;
        let found = scene.condition("model", "Materialized", "False", "InsufficientSpace").await?;
        assert!(found.message.contains("volumes[].size is 2.0 MiB"), "{}", found.message);
        assert!(scene.claims().await?.is_empty());
        // An entry cannot be changed, so another takes its place.
        spec["volumes"][0]["size"] = json!("128Mi");
        let refusal = scene.kube.apply_value(scene.manifest("model", spec.clone())).await.unwrap_err();
        assert!(format!("{refusal:#}").contains("remove the entry and add one with another claimName"), "{refusal:#}");
        spec["volumes"][0]["claimName"] = json!("larger");
        scene.checkpoint("model", spec).await?;
        scene.ready("model").await?;
        assert_eq!(scene.claims().await?.into_keys().collect::<Vec<_>>(), ["larger"]);
        Ok(())
    })
    .await
}

/// The file system is full before the load; then it has room for the files and not for the folder, the journal and the
/// manifest beside them, so that the load runs into its end; then there is room.
#[tokio::test]
async fn a_file_system_that_fills_up_is_told_and_healed_by_room() -> Result<()> {
    shared("troubles-full", async |scene| {
        const FILE: usize = 8 << 20;
        let volume = "troubles-full";
        scene.put("run", &[("weights.dat", &vec![7; FILE])])?;
        tiny_volume::remove(&scene.cluster, volume)?;
        let folder = tiny_volume::create(&scene.cluster, volume, 24, "1Gi")?;
        // The load ignores this folder, as every file system of this kind has one.
        let filler = folder.join("lost+found/filler");
        let fill = |leave: u64| {
            fs::write(&filler, "")?;
            // The filler's own bookkeeping takes room too, so its size is found by trying.
            wait_until("the file system to be filled", PATIENCE, || {
                let (free, size) = (free_bytes(&folder)?, fs::metadata(&filler)?.len());
                if free == leave {
                    return Ok(Now::Done(()));
                }
                fs::write(&filler, vec![1; usize::try_from((size + free).saturating_sub(leave))?])?;
                Ok(Now::NotYet(format!("{free} bytes are free")))
            })
        };
        fill(1 << 20)?;
        let mut spec = scene.s3_spec("run", &["data"]);
        spec["volumes"][0]["storageClassName"] = json!(tiny_volume::CLASS);
        scene.checkpoint("model", spec).await?;
        let found = scene.condition("model", "Materialized", "False", "InsufficientSpace").await?;
        assert!(found.message.contains("bytes left"), "{}", found.message);
        fill(FILE as u64)?;
        scene.revalidate("model", "room for the files alone").await?;
        let runs_full = |object: Option<&kube::api::DynamicObject>| {
            object.is_some_and(|object| text(&object.data, "/status/volumes/0/message").contains("the volume is full"))
        };
        scene.wait("model", "a load that runs into the end", runs_full).await?;
        scene.condition("model", "Ready", "False", "InsufficientSpace").await?;
        fs::remove_file(&filler)?;
        scene.revalidate("model", "room").await?;
        scene.ready("model").await?;
        assert_eq!(scene.output_of("reader", "data", "wc -c < /volume/weights.dat").await?.trim(), FILE.to_string());
        scene.kube.delete_namespace(&scene.namespace).await?;
        tiny_volume::remove(&scene.cluster, volume)
    })
    .await
}

fn free_bytes(folder: &std::path::Path) -> Result<u64> {
    capture(Command::new("sync").arg("-f").arg(folder))?;
    let free = capture(Command::new("stat").args(["-f", "-c", "%a %S"]).arg(folder))?;
    let (blocks, size) = free.trim().split_once(' ').context("stat says something else")?;
    Ok(blocks.parse::<u64>()? * size.parse::<u64>()?)
}

#[tokio::test]
async fn a_missing_class_is_named_and_healed_by_creating_it() -> Result<()> {
    shared("troubles-class", async |scene| {
        let name = "troubles-class";
        for kind in ["v1/PersistentVolume", "storage.k8s.io/v1/StorageClass"] {
            scene.kube.delete(kind, "", name).await?;
        }
        scene.put("run", FILES)?;
        let mut spec = scene.s3_spec("run", &["data"]);
        spec["volumes"][0]["storageClassName"] = json!(name);
        scene.checkpoint("model", spec).await?;
        let found = scene.condition("model", "Materialized", "False", "StorageClassNotFound").await?;
        assert!(found.message.contains(name) && found.message.contains(WAITING_CLASS), "{}", found.message);
        assert!(scene.claims().await?.is_empty());
        let folder = scene.cluster.root().join("volumes").join(name);
        fs::create_dir_all(&folder)?;
        for left in [folder.join(".checkpoint"), folder.join("weights")] {
            fs::remove_dir_all(left).ok();
        }
        fs::remove_file(folder.join("notes.txt")).ok();
        fs::set_permissions(&folder, Permissions::from_mode(0o777))?;
        scene.kube.apply_value(local_volume(name, &folder)).await?;
        scene
            .kube
            .apply_value(json!({
                "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": name},
                "provisioner": "kubernetes.io/no-provisioner", "volumeBindingMode": "WaitForFirstConsumer",
            }))
            .await?;
        // Nobody has to ask: the class itself is what was waited for.
        scene.ready("model").await?;
        scene.kube.delete_namespace(&scene.namespace).await?;
        scene.kube.delete("storage.k8s.io/v1/StorageClass", "", name).await?;
        scene.kube.delete("v1/PersistentVolume", "", name).await
    })
    .await
}

fn local_volume(name: &str, folder: &std::path::Path) -> Value {
    json!({
        "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": name,
            "persistentVolumeReclaimPolicy": "Retain", "local": {"path": folder},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [
                {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [NODE_NAME]}]},
            ]}},
        },
    })
}

/// Applies a quota and waits until it counts.
async fn quota(scene: &Scene, resource: &str, amount: u32) -> Result<()> {
    let amount = amount.to_string();
    let quota = json!({
        "apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "tight", "namespace": scene.namespace},
        "spec": {"hard": {resource: amount}},
    });
    scene.kube.apply_value(quota).await?;
    let counts = |quota: Option<&kube::api::DynamicObject>| {
        quota.is_some_and(|quota| text(&quota.data, &format!("/status/hard/{resource}")) == amount)
    };
    scene.kube.wait("v1/ResourceQuota", &scene.namespace, "tight", "being enforced", PATIENCE, counts).await.map(drop)
}

#[tokio::test]
async fn a_quota_that_refuses_the_staging_claim_is_named() -> Result<()> {
    shared("troubles-quota", async |scene| {
        scene.put("run", FILES)?;
        quota(scene, "persistentvolumeclaims", 1).await?;
        scene.plain_claim("taken", WAITING_CLASS, "1Mi").await?;
        scene.checkpoint("model", scene.s3_spec("run", &["data"])).await?;
        let found = scene.condition("model", "Materialized", "False", "QuotaExceeded").await?;
        for part in ["persistentvolumeclaims/ckpt-staging-", "exceeded quota: tight", "raise the quota"] {
            assert!(found.message.contains(part), "{part:?} is not in {:?}", found.message);
        }
        scene.condition("model", "Stalled", "True", "QuotaExceeded").await?;
        // Staging and target exist at the same time.
        quota(scene, "persistentvolumeclaims", 3).await?;
        scene.ready("model").await?;
        assert_eq!(scene.claims().await?.into_keys().collect::<Vec<_>>(), ["data", "taken"]);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_quota_that_refuses_the_worker_is_named() -> Result<()> {
    shared("troubles-pod-quota", async |scene| {
        scene.put("run", FILES)?;
        quota(scene, "pods", 0).await?;
        let start = audit::mark(&scene.cluster)?;
        scene.checkpoint("model", scene.s3_spec("run", &["data"])).await?;
        let found = scene.condition("model", "SourceReachable", "Unknown", "QuotaExceeded").await?;
        assert!(found.message.contains("exceeded quota: tight"), "{}", found.message);
        quota(scene, "pods", 5).await?;
        scene.ready("model").await?;
        assert_eq!(jobs_made(scene, start)?.len(), 2, "Kubernetes makes the pod of the Job that is there");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_missing_service_account_is_named_and_healed_by_creating_it() -> Result<()> {
    shared("troubles-account", async |scene| {
        scene.put("run", FILES)?;
        let mut spec = scene.s3_spec("run", &["data"]);
        spec["serviceAccountName"] = json!("trainer");
        scene.checkpoint("model", spec).await?;
        let found = scene.condition("model", "SourceReachable", "Unknown", "WorkerForbidden").await?;
        assert!(found.message.contains("\"trainer\" not found"), "{}", found.message);
        assert!(found.message.contains("create the ServiceAccount"), "{}", found.message);
        scene.condition("model", "Stalled", "True", "WorkerForbidden").await?;
        let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "trainer", "namespace": scene.namespace}});
        scene.kube.apply_value(account).await?;
        scene.ready("model").await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_worker_that_fits_no_node_is_named_and_healed_by_the_spec() -> Result<()> {
    shared("troubles-scheduling", async |scene| {
        scene.put("run", FILES)?;
        let mut spec = scene.s3_spec("run", &["data"]);
        spec["worker"] = json!({"placement": {"nodeSelector": {"gpu": "none-here"}}});
        let uid = scene.checkpoint("model", spec.clone()).await?.uid().context("no UID")?;
        let found = scene.condition("model", "SourceReachable", "Unknown", "WorkerNotStarting").await?;
        let pod = wait_child(scene, "v1/Pod", &uid, "inspect").await?.name_any();
        assert!(found.message.contains(&pod) && found.message.contains("not scheduled"), "{}", found.message);
        spec["worker"] = json!({"placement": {"nodeSelector": {"kubernetes.io/hostname": NODE_NAME}}});
        scene.checkpoint("model", spec).await?;
        scene.ready("model").await?;
        Ok(())
    })
    .await
}

/// The Secret that `support` makes is not touched by the others.
#[tokio::test]
async fn a_secret_without_one_of_its_keys_is_named() -> Result<()> {
    shared("troubles-half-secret", async |scene| {
        scene.put("run", FILES)?;
        let half = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": CREDENTIALS, "namespace": scene.namespace},
            "data": {"AWS_SECRET_ACCESS_KEY": null},
        });
        scene.kube.merge("v1/Secret", &scene.namespace, CREDENTIALS, half).await?;
        let whole = seaweedfs::credentials_secret(&scene.namespace, CREDENTIALS, seaweedfs::ADMINISTRATOR);
        let trouble = Trouble {
            storage: scene.s3_storage(),
            status: "False",
            reason: "AccessDenied",
            says: &[CREDENTIALS, "AWS_SECRET_ACCESS_KEY"],
        };
        trouble
            .heals_by(scene, async || {
                // Applying `stringData` that was applied before changes nothing that Kubernetes would notice.
                let data = json!({"stringData": whole["stringData"]});
                scene.kube.merge("v1/Secret", &scene.namespace, CREDENTIALS, data).await.map(drop)
            })
            .await
    })
    .await
}
