//! What is left of a Checkpoint that is deleted, at whatever point, and who may have it afterwards (network and file I/O).

use anyhow::{Context, Result};
use checkpoint_operator_e2e::audit;
use checkpoint_operator_e2e::kubernetes::{CHECKPOINT, PATIENCE};
use checkpoint_operator_e2e::wait::{Now, wait_until_async};
use futures::future::try_join_all;
use kube::ResourceExt;
use kube::api::DynamicObject;
use serde_json::{Value, json};

use super::held::{Point, hold, upload};
use super::support::{IMMEDIATE_CLASS, Scene, alone, shared, text};
use super::traces::{
    LONG, kinds_made, operator_user, volumes_of, wait_nothing_left, wait_volumes_only_for, without_controller,
};

const FILES: &[(&str, &[u8])] = &[("notes.txt", b"what the run was about"), ("weights.dat", b"0123456789")];

/// Brings Checkpoints to every point of a life, deletes them, and looks at what is left.
async fn delete_everywhere(scene: &Scene, policy: &str, retained: &[&str]) -> Result<()> {
    upload(scene)?;
    let held = try_join_all(Point::ALL.map(|point| hold(scene, point, policy))).await?;
    let deletions = held.iter().map(async |held| {
        scene.kube.delete(CHECKPOINT, &scene.namespace, &held.name).await?;
        wait_nothing_left(scene, &held.name, &held.uid, retained).await
    });
    try_join_all(deletions).await?;
    wait_volumes_only_for(&scene.kube, &scene.namespace, retained).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deletion_at_any_point_leaves_nothing() -> Result<()> {
    shared("deletion-delete", async |scene| delete_everywhere(scene, "Delete", &[]).await).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deletion_at_any_point_leaves_only_what_is_published_and_retained() -> Result<()> {
    shared("deletion-retain", async |scene| {
        delete_everywhere(scene, "Retain", &["published"]).await?;
        let claim = claim(scene, "published").await?;
        assert_eq!(text(&claim.data, "/status/phase"), "Bound");
        assert!(claim.owner_references().is_empty());
        assert_eq!(scene.output_of("reader", "published", "cat /volume/c.txt").await?, "small");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn deletion_after_a_bad_verdict_or_without_a_worker_leaves_nothing() -> Result<()> {
    shared("deletion-stuck", async |scene| {
        scene.checkpoint("bad", scene.s3_spec("nothing-there", &["data"])).await?;
        let mut spec = scene.s3_spec("nothing-there", &["data"]);
        spec["serviceAccountName"] = json!("nobody");
        scene.checkpoint("no-worker", spec).await?;
        scene.condition("bad", "Ready", "False", "NotFound").await?;
        scene.condition("no-worker", "Ready", "Unknown", "WorkerForbidden").await?;
        for name in ["bad", "no-worker"] {
            let uid = uid_of(scene, name).await?;
            scene.kube.delete(CHECKPOINT, &scene.namespace, name).await?;
            wait_nothing_left(scene, name, &uid, &[]).await?;
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deletion_of_the_namespace_takes_everything_along() -> Result<()> {
    shared("deletion-namespace", async |scene| {
        upload(scene)?;
        let points = [Point::Inspecting, Point::Loading, Point::Published];
        let _held = try_join_all(points.map(|point| hold(scene, point, "Retain"))).await?;
        scene.kube.delete("v1/Namespace", "", &scene.namespace).await?;
        scene.kube.wait("v1/Namespace", "", &scene.namespace, "the end", LONG, |namespace| namespace.is_none()).await?;
        wait_volumes_only_for(&scene.kube, &scene.namespace, &[]).await
    })
    .await
}

#[tokio::test]
async fn deletion_makes_room_for_another_of_the_same_name() -> Result<()> {
    shared("deletion-again", async |scene| {
        scene.put("run", FILES)?;
        scene.checkpoint("model", scene.s3_spec("run", &["data"])).await?;
        scene.ready("model").await?;
        let (old, old_claim) = (uid_of(scene, "model").await?, claim(scene, "data").await?);
        scene.put("run", &[("weights.dat", b"9876543210")])?;
        scene.kube.delete(CHECKPOINT, &scene.namespace, "model").await?;
        scene.kube.wait_gone(CHECKPOINT, &scene.namespace, "model").await?;
        // The old claim may still be on its way out.
        scene.checkpoint("model", scene.s3_spec("run", &["data"])).await?;
        scene.ready("model").await?;
        wait_nothing_of(scene, &old).await?;
        assert_ne!(claim(scene, "data").await?.uid(), old_claim.uid());
        assert_eq!(scene.output_of("reader", "data", "cat /volume/weights.dat").await?, "9876543210");
        wait_volumes_only_for(&scene.kube, &scene.namespace, &["data"]).await
    })
    .await
}

/// A Checkpoint with a retained claim, published and deleted.
async fn leave_a_claim(scene: &Scene) -> Result<(Value, DynamicObject)> {
    scene.put("run", FILES)?;
    let mut spec = scene.s3_spec("run", &["data"]);
    spec["volumes"][0]["deletionPolicy"] = json!("Retain");
    scene.checkpoint("model", spec.clone()).await?;
    scene.ready("model").await?;
    let uid = uid_of(scene, "model").await?;
    scene.kube.delete(CHECKPOINT, &scene.namespace, "model").await?;
    wait_nothing_left(scene, "model", &uid, &["data"]).await?;
    Ok((spec, claim(scene, "data").await?))
}

#[tokio::test]
async fn deletion_leaves_a_claim_that_a_new_checkpoint_adopts_after_reading_it() -> Result<()> {
    shared("deletion-adoption", async |scene| {
        let (mut spec, left) = leave_a_claim(scene).await?;
        let start = audit::mark(&scene.cluster)?;
        scene.checkpoint("model", spec.clone()).await?;
        scene.ready("model").await?;
        assert_eq!(kinds_made(scene, start)?, [1, 0, 1], "inspected, not loaded, verified");
        let adopted = claim(scene, "data").await?;
        assert_eq!(adopted.uid(), left.uid());
        let uid = uid_of(scene, "model").await?;
        assert_eq!(adopted.labels().get("checkpoints.dev/checkpoint-uid"), Some(&uid));
        assert_eq!(scene.output_of("reader", "data", "cat /volume/weights.dat").await?, "0123456789");
        // It is this Checkpoint's now, and goes with it if that is wanted.
        spec["volumes"][0]["deletionPolicy"] = json!("Delete");
        scene.checkpoint("model", spec).await?;
        let owned = |claim: Option<&DynamicObject>| claim.is_some_and(|claim| !claim.owner_references().is_empty());
        scene.kube.wait("v1/PersistentVolumeClaim", &scene.namespace, "data", "an owner", PATIENCE, owned).await?;
        scene.kube.delete("v1/Pod", &scene.namespace, "reader").await?;
        scene.kube.delete(CHECKPOINT, &scene.namespace, "model").await?;
        wait_nothing_left(scene, "model", &uid, &[]).await
    })
    .await
}

#[tokio::test]
async fn deletion_leaves_a_claim_that_is_not_adopted_once_a_pod_changed_a_byte() -> Result<()> {
    shared("deletion-changed", async |scene| {
        let (spec, left) = leave_a_claim(scene).await?;
        let change =
            "printf X | dd of=/volume/weights.dat bs=1 count=1 conv=notrunc 2>/dev/null; cat /volume/weights.dat";
        assert_eq!(scene.output_of("writer", "data", change).await?, "X123456789");
        let start = audit::mark(&scene.cluster)?;
        scene.checkpoint("model", spec).await?;
        let found = scene.condition("model", "Materialized", "False", "ClaimConflict").await?;
        for part in ["claim data", "weights.dat", "delete the claim or choose another claimName"] {
            assert!(found.message.contains(part), "{part:?} is not in {:?}", found.message);
        }
        scene.condition("model", "Validated", "True", "Complete").await?;
        assert_eq!(kinds_made(scene, start)?, [1, 0, 1]);
        let refused = claim(scene, "data").await?;
        assert_eq!((refused.uid(), refused.annotations()), (left.uid(), left.annotations()), "it is left alone");
        // The remedy of the message.
        scene.kube.delete("v1/Pod", &scene.namespace, "writer").await?;
        scene.kube.delete("v1/PersistentVolumeClaim", &scene.namespace, "data").await?;
        scene.ready("model").await?;
        assert_eq!(scene.output_of("reader", "data", "cat /volume/weights.dat").await?, "0123456789");
        Ok(())
    })
    .await
}

/// Somebody who may write claims in one namespace must not get at a volume of another through us.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deletion_of_a_staging_claim_and_a_forged_one_lead_to_no_patch_of_its_volume() -> Result<()> {
    alone("deletion-forged", async |scene| {
        upload(scene)?;
        let victim = victim(scene).await?;
        let held = hold(scene, Point::Loaded, "Delete").await?;
        let selector = format!("checkpoints.dev/checkpoint-uid={},checkpoints.dev/role=staging", held.uid);
        let staging = scene.kube.list("v1/PersistentVolumeClaim", &scene.namespace, &selector).await?.remove(0);
        let name = staging.name_any();
        let start = audit::mark(&scene.cluster)?;
        without_controller(scene, async || {
            scene.kube.delete("v1/PersistentVolumeClaim", &scene.namespace, &name).await?;
            scene.kube.wait_gone("v1/PersistentVolumeClaim", &scene.namespace, &name).await?;
            scene.kube.apply_value(forged(&staging, &victim.name_any())).await?;
            held.suspend(scene, false).await
        })
        .await?;
        // The controller has looked at the claim when it says that the pod on it cannot start.
        scene.condition(&held.name, "Materialized", "Unknown", "WorkerNotStarting").await?;
        let unharmed = scene.kube.get("v1/PersistentVolume", "", &victim.name_any()).await?;
        assert_eq!(unharmed.as_ref().map(|volume| &volume.data), Some(&victim.data));
        let written = |start| {
            let mut writes = audit::writes_of(&scene.cluster, &operator_user(), start)?;
            writes.retain(|write| write.resource == "persistentvolumes" && write.name == victim.name_any());
            anyhow::Ok(writes)
        };
        assert_eq!(written(start)?, []);
        // Without the forged claim everything goes its way.
        scene.kube.delete("v1/PersistentVolumeClaim", &scene.namespace, &name).await?;
        held.finish(scene).await?;
        assert_eq!(written(start)?, []);
        let unharmed = scene.kube.get("v1/PersistentVolume", "", &victim.name_any()).await?;
        assert_eq!(unharmed.map(|volume| volume.data), Some(victim.data.clone()));
        scene.kube.delete_namespace(&other_namespace(scene)).await
    })
    .await
}

fn other_namespace(scene: &Scene) -> String {
    format!("{}-victim", scene.namespace)
}

/// A volume that is bound to a claim of another namespace.
async fn victim(scene: &Scene) -> Result<DynamicObject> {
    let namespace = other_namespace(scene);
    scene.kube.delete_namespace(&namespace).await?;
    scene.kube.create_namespace(&namespace).await?;
    scene
        .kube
        .apply_value(json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "precious", "namespace": namespace},
            "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": IMMEDIATE_CLASS, "resources": {"requests": {"storage": "1Mi"}}},
        }))
        .await?;
    let bound = wait_until_async("the victim's claim to be bound", PATIENCE, async || {
        let volumes = volumes_of(&scene.kube, &namespace).await?;
        let claim = scene.kube.get("v1/PersistentVolumeClaim", &namespace, "precious").await?;
        let bound = claim.is_some_and(|claim| text(&claim.data, "/status/phase") == "Bound");
        let name = volumes.into_keys().next().filter(|_| bound);
        Ok(name.map_or_else(|| Now::NotYet("it is not".to_owned()), Now::Done))
    })
    .await?;
    scene.kube.get("v1/PersistentVolume", "", &bound).await?.context("the victim's volume is gone")
}

/// The staging claim as it was, but on another volume.
fn forged(staging: &DynamicObject, volume: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": staging.name_any(), "namespace": staging.namespace(), "labels": staging.labels(),
            "annotations": {
                "checkpoints.dev/checkpoint": staging.annotations().get("checkpoints.dev/checkpoint"),
                "checkpoints.dev/claim": staging.annotations().get("checkpoints.dev/claim"),
            },
            "ownerReferences": staging.owner_references(),
        },
        "spec": {
            "accessModes": staging.data["spec"]["accessModes"], "storageClassName": staging.data["spec"]["storageClassName"],
            "resources": staging.data["spec"]["resources"], "volumeName": volume,
        },
    })
}

async fn claim(scene: &Scene, name: &str) -> Result<DynamicObject> {
    let claim = scene.kube.get("v1/PersistentVolumeClaim", &scene.namespace, name).await?;
    claim.with_context(|| format!("there is no claim {name}"))
}

async fn uid_of(scene: &Scene, checkpoint: &str) -> Result<String> {
    let object = scene.kube.get(CHECKPOINT, &scene.namespace, checkpoint).await?;
    object.and_then(|object| object.uid()).with_context(|| format!("there is no Checkpoint {checkpoint}"))
}

async fn wait_nothing_of(scene: &Scene, uid: &str) -> Result<()> {
    wait_until_async("the old children to be gone", PATIENCE, async || {
        let left = super::traces::children(&scene.kube, &scene.namespace, uid).await?;
        Ok(Now::when(left.is_empty(), &format!("{left:?}")))
    })
    .await
}
