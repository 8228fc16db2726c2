//! The operator itself is killed, upgraded, removed or misconfigured; and sources that go after publishing (network I/O).

use anyhow::{Context, Result, ensure};
use checkpoint_operator_e2e::audit;
use checkpoint_operator_e2e::kubernetes::{CHECKPOINT, condition};
use checkpoint_operator_e2e::{images, operator};
use futures::future::try_join_all;
use kube::ResourceExt;
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use serde_json::{Value, json};

use super::held::{Held, OTHERS, Point, hold, upload};
use super::support::{Scene, alone, image, install_operator, shared};
use super::traces::{
    children, jobs_made, kill_controller, kill_pod, kinds_made, number, volumes_of, wait_controller, wait_nothing_left,
    wait_volume, wait_worker_runs,
};

#[tokio::test]
async fn a_source_that_goes_after_publishing_only_drifts() -> Result<()> {
    shared("source-goes", async |scene| {
        scene.put("run", &[("notes.txt", b"first")])?;
        scene.checkpoint("model", scene.s3_spec("run", &["data"])).await?;
        scene.ready("model").await?;
        scene.condition("model", "Drifted", "False", "InSync").await?;
        let published = volumes_of(&scene.kube, &scene.namespace).await?;

        scene.put("run", &[("notes.txt", b"second")])?;
        scene.revalidate("model", "changed").await?;
        scene.condition("model", "Drifted", "True", "SourceChanged").await?;
        scene.s3.delete(scene.bucket(), &["run/notes.txt"])?;
        scene.revalidate("model", "gone").await?;
        let found = scene.condition("model", "Drifted", "True", "SourceGone").await?;
        assert!(found.message.contains("what is published stays as it is"), "{}", found.message);
        let object = scene.ready("model").await?;
        for (kind, reason) in
            [("SourceReachable", "Reachable"), ("Validated", "Complete"), ("Materialized", "Published")]
        {
            let found = condition(&object, kind).context("a condition is missing")?;
            assert_eq!((found.status.as_str(), found.reason.as_str()), ("True", reason), "{kind}");
        }
        assert_eq!(volumes_of(&scene.kube, &scene.namespace).await?, published);
        assert_eq!(scene.output_of("reader", "data", "cat /volume/notes.txt").await?, "first");

        scene.put("run", &[("notes.txt", b"third")])?;
        scene.revalidate("model", "back").await?;
        scene.condition("model", "Drifted", "True", "SourceChanged").await.map(drop)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_pod_that_is_killed_fetches_nothing_twice() -> Result<()> {
    shared("kill-load", async |scene| {
        upload(scene)?;
        let start = audit::mark(&scene.cluster)?;
        let held = hold(scene, Point::Loading, "Delete").await?;
        let asked = held.asked_for_others();
        assert!(asked >= OTHERS.len());
        let pod = wait_worker_runs(scene, &held.uid, "load").await?.name_any();
        kill_pod(&scene.kube, &scene.namespace, &pod).await?;
        // The spent attempt is told, and the next one comes by itself.
        wait_volume(scene, &held.name, "Failed", "WorkerFailed").await?;
        held.finish(scene).await?;
        assert_eq!(held.asked_for_others(), asked, "what is on disk is fetched again: {:?}", held.valve.requests());
        assert_eq!(kinds_made(scene, start)?, [1, 2, 0]);
        let object = scene.kube.get(CHECKPOINT, &scene.namespace, &held.name).await?.context("it is gone")?;
        assert_eq!(number(&object.data, "/status/volumes/0/attempt"), 2);
        Ok(())
    })
    .await
}

/// The worker of an inspection holds nothing that another could not find out again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_inspecting_pod_that_is_killed_is_replaced() -> Result<()> {
    shared("kill-inspect", async |scene| {
        upload(scene)?;
        let start = audit::mark(&scene.cluster)?;
        let held = hold(scene, Point::Inspecting, "Delete").await?;
        let pod = wait_worker_runs(scene, &held.uid, "inspect").await?.name_any();
        kill_pod(&scene.kube, &scene.namespace, &pod).await?;
        scene.condition(&held.name, "Ready", "Unknown", "WorkerFailed").await?;
        held.finish(scene).await?;
        assert_eq!(kinds_made(scene, start)?, [2, 1, 0]);
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_controller_that_is_killed_at_any_point_interrupts_nothing() -> Result<()> {
    alone("kill-controller", async |scene| {
        upload(scene)?;
        let start = audit::mark(&scene.cluster)?;
        let points = [Point::Inspecting, Point::Loading, Point::Loaded, Point::Published];
        let held = try_join_all(points.map(|point| hold(scene, point, "Delete"))).await?;
        let published = volumes_of(&scene.kube, &scene.namespace).await?;
        kill_controller(scene).await?;
        for held in &held {
            held.finish(scene).await?;
        }
        assert_eq!(kinds_made(scene, start)?, [points.len(), points.len(), 0], "{:?}", jobs_made(scene, start)?);
        let after = volumes_of(&scene.kube, &scene.namespace).await?;
        assert!(
            published
                .iter()
                .filter(|(_, claim)| *claim == "published")
                .all(|volume| after.get(volume.0) == Some(volume.1))
        );
        // While there is no controller, everything that happened is caught up with afterwards: work ended, a spec changed.
        let last = hold(scene, Point::Unscheduled, "Delete").await?;
        scene.kube.delete(CHECKPOINT, &scene.namespace, &last.name).await?;
        kill_controller(scene).await?;
        wait_nothing_left(scene, &last.name, &last.uid, &[]).await
    })
    .await
}

/// UIDs of the Jobs and pods of a held Checkpoint.
async fn work(scene: &Scene, held: &[Held]) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for held in held {
        let selector = format!("checkpoints.dev/checkpoint-uid={}", held.uid);
        for kind in ["batch/v1/Job", "v1/Pod"] {
            found.extend(scene.kube.list(kind, &scene.namespace, &selector).await?.iter().filter_map(ResourceExt::uid));
        }
    }
    Ok(found)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn helm_upgrade_with_other_values_and_another_image_restarts_no_work() -> Result<()> {
    alone("helm-upgrade", async |scene| {
        upload(scene)?;
        let start = audit::mark(&scene.cluster)?;
        let points = [Point::Inspecting, Point::Loading, Point::Published];
        let held = try_join_all(points.map(|point| hold(scene, point, "Delete"))).await?;
        let before = work(scene, &held).await?;
        assert_eq!(before.len(), 4, "a Job and a pod each of the inspection and the load");
        let other = images::import_product(&scene.cluster, "upgrade")?;
        ensure!(other != image()?, "it is the same image");
        let values = [
            "worker.resources.requests.memory=48Mi",
            "worker.podLabels.team=models",
            "worker.runAsUser=4242",
            "limits.maxWorkers=15",
            "concurrency=8",
        ];
        let upgraded = async {
            install_operator(&scene.cluster, &other, &values)?;
            assert_eq!(work(scene, &held).await?, before, "the upgrade restarts work");
            for held in &held {
                held.finish(scene).await?;
            }
            // One load is new: that of the Checkpoint which was being inspected.
            assert_eq!(kinds_made(scene, start)?, [points.len(), points.len(), 0], "{:?}", jobs_made(scene, start)?);
            anyhow::Ok(())
        };
        let ended = upgraded.await;
        install_operator(&scene.cluster, &image()?, &[])?;
        ended?;
        assert_eq!(kinds_made(scene, start)?, [points.len(), points.len(), 0]);
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn helm_uninstall_leaves_checkpoints_and_claims_and_install_goes_on() -> Result<()> {
    alone("helm-uninstall", async |scene| {
        upload(scene)?;
        let start = audit::mark(&scene.cluster)?;
        let points = [Point::Loading, Point::Loaded, Point::Published];
        let held = try_join_all(points.map(|point| hold(scene, point, "Delete"))).await?;
        let (claims, volumes) = (scene.claims().await?, volumes_of(&scene.kube, &scene.namespace).await?);
        let removed = async {
            operator::uninstall(&scene.cluster)?;
            assert_eq!(scene.kube.list("apps/v1/Deployment", operator::NAMESPACE, "").await?.len(), 0);
            for held in &held {
                let object = scene.kube.get(CHECKPOINT, &scene.namespace, &held.name).await?;
                let object = object.with_context(|| format!("{} is gone", held.name))?;
                assert_eq!(object.uid().as_ref(), Some(&held.uid));
                assert!(object.metadata.deletion_timestamp.is_none());
                assert!(!children(&scene.kube, &scene.namespace, &held.uid).await?.is_empty());
            }
            assert_eq!(scene.claims().await?, claims);
            assert_eq!(volumes_of(&scene.kube, &scene.namespace).await?, volumes);
            // A pod can use what is published, and the load goes on, with nobody there.
            assert_eq!(scene.output_of("reader", "published", "cat /volume/c.txt").await?, "small");
            anyhow::Ok(())
        };
        let ended = removed.await;
        install_operator(&scene.cluster, &image()?, &[])?;
        ended?;
        for held in &held {
            held.finish(scene).await?;
        }
        assert_eq!(kinds_made(scene, start)?, [points.len(), points.len(), 0], "{:?}", jobs_made(scene, start)?);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_worker_image_that_cannot_be_pulled_is_named_and_healed_by_the_installation() -> Result<()> {
    alone("no-image", async |scene| {
        scene.put("run", &[("notes.txt", b"x")])?;
        let good = arguments(scene).await?;
        let absent = format!("{}:absent", images::PRODUCT);
        let bad: Vec<_> = good
            .iter()
            .map(|argument| match argument.strip_prefix("--worker-image=") {
                Some(_) => format!("--worker-image={absent}"),
                None => argument.clone(),
            })
            .collect();
        assert_ne!(good, bad);
        set_arguments(scene, &bad).await?;
        let named = async {
            scene.checkpoint("model", scene.s3_spec("run", &["data"])).await?;
            let found = scene.condition("model", "SourceReachable", "Unknown", "WorkerNotStarting").await?;
            assert!(found.message.contains(&absent), "{}", found.message);
            assert!(found.message.contains("check the worker image of the installation"), "{}", found.message);
            scene.condition("model", "Stalled", "True", "WorkerNotStarting").await
        };
        let named = named.await;
        set_arguments(scene, &good).await?;
        named?;
        scene.ready("model").await?;
        Ok(())
    })
    .await
}

async fn arguments(scene: &Scene) -> Result<Vec<String>> {
    let deployment = scene.kube.get("apps/v1/Deployment", operator::NAMESPACE, operator::RELEASE).await?;
    let data = deployment.context("the operator is not installed")?.data;
    let arguments = data.pointer("/spec/template/spec/containers/0/args").cloned().unwrap_or_default();
    Ok(serde_json::from_value(arguments)?)
}

async fn set_arguments(scene: &Scene, arguments: &[String]) -> Result<()> {
    let api: Api<DynamicObject> = scene.kube.api("apps/v1/Deployment", operator::NAMESPACE).await?;
    let patch: Value =
        json!({"spec": {"template": {"spec": {"containers": [{"name": "controller", "args": arguments}]}}}});
    api.patch(operator::RELEASE, &PatchParams::default(), &Patch::Strategic(patch)).await?;
    wait_controller(&scene.cluster)
}
