//! Many Checkpoints at once under the worker limits, and then silence (network and file I/O).

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use checkpoint_operator_e2e::kubernetes::{CHECKPOINT, condition};
use checkpoint_operator_e2e::wait::{Now, wait_until_async};
use checkpoint_operator_e2e::{audit, operator};
use futures::StreamExt;
use futures::future::try_join_all;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::runtime::watcher::{self, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::support::{Scene, shared};
use super::traces::{LONG, operator_user};

const EACH: usize = 25;
/// Every so many of them also becomes a volume.
const WITH_VOLUME: usize = 5;
/// How long nothing may happen. The absence of writes has no condition that could be waited for: this is an observation of
/// bounded length, begun after everything that was still to come has come.
const SILENCE: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scale_fifty_at_once_stay_within_the_limits_and_then_nothing_is_written() -> Result<()> {
    shared("scale", async |scene| {
        let other = format!("{}-other", scene.namespace);
        scene.kube.delete_namespace(&other).await?;
        scene.kube.create_namespace(&other).await?;
        let namespaces = [scene.namespace.clone(), other.clone()];
        let limits = Limits::read(scene).await?;
        let client = scene.kube.client.clone();
        let jobs = Busy::<Job>::follow(&client, &namespaces, |job| {
            let conditions = job.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
            !conditions.iter().any(|end| matches!(&*end.type_, "Complete" | "Failed") && end.status == "True")
        });
        let pods = Busy::<Pod>::follow(&client, &namespaces, |pod| {
            let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
            matches!(phase, Some("Pending" | "Running") | None)
        });
        let queued = Queued::follow(&client, &namespaces);

        try_join_all(
            namespaces
                .iter()
                .flat_map(|namespace| (0..EACH).map(move |number| (namespace, number)))
                .map(async |(namespace, number)| scene.kube.apply_value(checkpoint(namespace, number)).await),
        )
        .await?;
        for namespace in &namespaces {
            wait_all_ready(scene, namespace).await?;
        }
        for (what, busiest) in [("Jobs", jobs.busiest()), ("pods", pods.busiest())] {
            for namespace in &namespaces {
                let most = busiest.get(namespace).copied().unwrap_or_default();
                assert!((1..=limits.per_namespace).contains(&most), "{most} {what} at once in {namespace}");
            }
            let most = busiest.get("").copied().unwrap_or_default();
            assert!(most <= limits.total, "{most} {what} at once");
        }
        assert!(queued.count() >= EACH / 2, "only {} were ever Queued", queued.count());

        for namespace in &namespaces {
            wait_settled(scene, namespace).await?;
        }
        let start = audit::mark(&scene.cluster)?;
        tokio::time::sleep(SILENCE).await;
        let mut writes = audit::writes_of(&scene.cluster, &operator_user(), start)?;
        // Other tests run beside this one.
        writes.retain(|write| namespaces.contains(&write.namespace));
        assert_eq!(writes, []);
        scene.kube.delete_namespace(&other).await
    })
    .await
}

fn checkpoint(namespace: &str, number: usize) -> Value {
    let name = format!("small-{number:02}");
    let volumes = if number.is_multiple_of(WITH_VOLUME) { super::support::volumes(&[&name]) } else { json!([]) };
    json!({
        "apiVersion": "checkpoints.dev/v1alpha1", "kind": "Checkpoint",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "storage": {"inline": {"json": format!(r#"{{"number": {number}}}"#)}},
            "volumes": volumes,
            "worker": {"resources": {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"memory": "256Mi"}}},
        },
    })
}

async fn wait_all_ready(scene: &Scene, namespace: &str) -> Result<()> {
    wait_until_async(&format!("all of {namespace} to be Ready"), LONG, async || {
        let checkpoints = scene.kube.list(CHECKPOINT, namespace, "").await?;
        let state = |name: &str| {
            checkpoints.iter().filter_map(|object| condition(object, name)).fold(
                BTreeMap::<_, usize>::new(),
                |mut counts, found| {
                    *counts.entry(format!("{} {}", found.status, found.reason)).or_default() += 1;
                    counts
                },
            )
        };
        let ready = state("Ready");
        Ok(Now::when(ready.get("True Ready") == Some(&EACH), &format!("{ready:?}")))
    })
    .await
}

/// After the status says Ready, the last Job goes and the last event comes.
async fn wait_settled(scene: &Scene, namespace: &str) -> Result<()> {
    let events: Api<Event> = Api::namespaced(scene.kube.client.clone(), namespace);
    wait_until_async(&format!("{namespace} to settle"), LONG, async || {
        let jobs = scene.kube.list("batch/v1/Job", namespace, "").await?.len();
        let told: BTreeSet<_> = events
            .list(&Default::default())
            .await?
            .into_iter()
            .filter(|event| event.reason.as_deref() == Some("Ready"))
            .filter_map(|event| event.involved_object.name)
            .collect();
        Ok(Now::when(jobs == 0 && told.len() == EACH, &format!("{jobs} Jobs are there and {} events", told.len())))
    })
    .await
}

/// The limits that the installed controller was given.
struct Limits {
    total: usize,
    per_namespace: usize,
}

impl Limits {
    async fn read(scene: &Scene) -> Result<Self> {
        let deployment = scene.kube.get("apps/v1/Deployment", operator::NAMESPACE, operator::RELEASE).await?;
        let data = deployment.context("the operator is not installed")?.data;
        let arguments = data.pointer("/spec/template/spec/containers/0/args").and_then(Value::as_array);
        let arguments: Vec<_> = arguments.context("no arguments")?.iter().filter_map(Value::as_str).collect();
        let read = |name: &str| -> Result<usize> {
            let found = arguments.iter().find_map(|argument| argument.strip_prefix(name)?.strip_prefix('='));
            Ok(found.with_context(|| format!("no {name} in {arguments:?}"))?.parse()?)
        };
        Ok(Self { total: read("--max-workers")?, per_namespace: read("--max-workers-per-namespace")? })
    }
}

/// The largest number of unfinished worker objects of one kind at any moment, by namespace and in all (under "").
struct Busy<K> {
    seen: Arc<Mutex<Count>>,
    _kind: std::marker::PhantomData<K>,
}

#[derive(Default)]
struct Count {
    now: BTreeSet<(String, String)>,
    most: BTreeMap<String, usize>,
}

impl<K> Busy<K>
where
    K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + DeserializeOwned
        + Send
        + 'static,
{
    fn follow(client: &Client, namespaces: &[String], is_busy: fn(&K) -> bool) -> Self {
        let seen = Arc::new(Mutex::new(Count::default()));
        for namespace in namespaces {
            let ours = watcher::Config::default().labels("app.kubernetes.io/managed-by=checkpoint-operator");
            let events = watcher(Api::<K>::namespaced(client.clone(), namespace), ours);
            let seen = Arc::clone(&seen);
            tokio::spawn(async move {
                let mut events = pin!(events);
                while let Some(event) = events.next().await {
                    let (object, there) = match event {
                        Ok(watcher::Event::Apply(object) | watcher::Event::InitApply(object)) => (object, true),
                        Ok(watcher::Event::Delete(object)) => (object, false),
                        _ => continue,
                    };
                    let busy = there && is_busy(&object);
                    seen.lock().unwrap_or_else(PoisonError::into_inner).set(&object, busy);
                }
            });
        }
        Self { seen, _kind: std::marker::PhantomData }
    }

    fn busiest(&self) -> BTreeMap<String, usize> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).most.clone()
    }
}

impl Count {
    fn set(&mut self, object: &impl ResourceExt, busy: bool) {
        let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
        if busy {
            self.now.insert((namespace.clone(), name));
        } else {
            self.now.remove(&(namespace.clone(), name));
        }
        let there = self.now.iter().filter(|(other, _)| *other == namespace).count();
        for (key, count) in [(namespace, there), (String::new(), self.now.len())] {
            let most = self.most.entry(key).or_default();
            *most = count.max(*most);
        }
    }
}

/// Which Checkpoints were ever Queued.
struct Queued(Arc<Mutex<BTreeSet<String>>>);

impl Queued {
    fn follow(client: &Client, namespaces: &[String]) -> Self {
        let seen = Arc::new(Mutex::new(BTreeSet::new()));
        for namespace in namespaces {
            let api = Api::<checkpoint_operator::api::Checkpoint>::namespaced(client.clone(), namespace);
            let events = watcher(api, watcher::Config::default());
            let seen = Arc::clone(&seen);
            tokio::spawn(async move {
                let mut events = pin!(events);
                while let Some(event) = events.next().await {
                    let Ok(watcher::Event::Apply(object) | watcher::Event::InitApply(object)) = event else { continue };
                    let conditions = object.status.as_ref().map(|status| status.conditions.as_slice());
                    let waits = |conditions: &[k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition]| {
                        conditions.iter().any(|condition| condition.type_ == "Ready" && condition.reason == "Queued")
                    };
                    if conditions.is_some_and(waits) {
                        let name = format!("{}/{}", object.namespace().unwrap_or_default(), object.name_any());
                        seen.lock().unwrap_or_else(PoisonError::into_inner).insert(name);
                    }
                }
            });
        }
        Self(seen)
    }

    fn count(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}
