//! A client for the tests: apply manifests, wait on conditions, read logs; any kind, as dynamic objects (network I/O).
//!
//! Kinds are written `apiVersion/Kind`: `v1/Pod`, `batch/v1/Job`, `checkpoints.dev/v1alpha1/Checkpoint`.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures::TryStreamExt;
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, LogParams, Patch, PatchParams,
    PropagationPolicy,
};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::discovery::Scope;
use kube::runtime::watcher::watch_object;
use kube::{Client, Config, ResourceExt};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::cluster::Cluster;

/// Who the tests' server-side applies are by.
pub const FIELD_MANAGER: &str = "e2e";
/// Long enough for anything that works on a busy two-core machine.
pub const PATIENCE: Duration = Duration::from_mins(2);

/// The kind of our custom resource.
pub const CHECKPOINT: &str = "checkpoints.dev/v1alpha1/Checkpoint";

/// A connection to the cluster.
pub struct Kube {
    /// The plain client, for typed calls.
    pub client: Client,
    known: Mutex<HashMap<String, (ApiResource, Scope)>>,
}

/// A condition of an object's status.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// For example `Ready`.
    pub r#type: String,
    /// True, False or Unknown.
    pub status: String,
    /// One word.
    #[serde(default)]
    pub reason: String,
    /// For people.
    #[serde(default)]
    pub message: String,
    /// The generation that it was computed for.
    #[serde(default)]
    pub observed_generation: i64,
}

impl Kube {
    /// Connects as the administrator. This process must be in the cluster's network.
    pub async fn connect(cluster: &Cluster) -> Result<Self> {
        cluster.require_entered()?;
        // One provider for the whole process; a second installation is refused and changes nothing.
        rustls::crypto::ring::default_provider().install_default().ok();
        let kubeconfig = Kubeconfig::read_from(cluster.kubeconfig())?;
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        Ok(Self { client: Client::try_from(config)?, known: Mutex::default() })
    }

    /// The objects of a kind in a namespace (which kinds outside namespaces ignore).
    pub async fn api(&self, kind: &str, namespace: &str) -> Result<Api<DynamicObject>> {
        let (resource, scope) = self.resource(kind).await?;
        Ok(match scope {
            Scope::Namespaced => Api::namespaced_with(self.client.clone(), namespace, &resource),
            Scope::Cluster => Api::all_with(self.client.clone(), &resource),
        })
    }

    async fn resource(&self, kind: &str) -> Result<(ApiResource, Scope)> {
        let cached = self.known.lock().ok().and_then(|known| known.get(kind).cloned());
        if let Some(found) = cached {
            return Ok(found);
        }
        let (version, name) = kind.rsplit_once('/').with_context(|| format!("`{kind}` is not apiVersion/Kind"))?;
        let (group, version) = version.split_once('/').unwrap_or(("", version));
        let (resource, capabilities) =
            kube::discovery::pinned_kind(&self.client, &GroupVersionKind::gvk(group, version, name)).await?;
        if let Ok(mut known) = self.known.lock() {
            known.insert(kind.to_owned(), (resource.clone(), capabilities.scope.clone()));
        }
        Ok((resource, capabilities.scope))
    }

    /// Server-side applies every document. A refusal is an error whose root is a [`kube::Error::Api`].
    pub async fn apply(&self, yaml: &str) -> Result<Vec<DynamicObject>> {
        let mut applied = Vec::new();
        for document in serde_yaml::Deserializer::from_str(yaml) {
            let value = Value::deserialize(document).with_context(|| format!("not YAML:\n{yaml}"))?;
            if !value.is_null() {
                applied.push(self.apply_value(value).await?);
            }
        }
        Ok(applied)
    }

    /// Server-side applies one object.
    pub async fn apply_value(&self, object: Value) -> Result<DynamicObject> {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (kind, name) = (format!("{}/{}", text("/apiVersion"), text("/kind")), text("/metadata/name"));
        let api = self.api(&kind, &namespace_of(&text("/metadata/namespace"))).await?;
        let how = PatchParams::apply(FIELD_MANAGER).force();
        Ok(api.patch(&name, &how, &Patch::Apply(&object)).await?)
    }

    /// Applies YAML that must be refused, and returns what the API server said.
    pub async fn refused(&self, yaml: &str) -> Result<String> {
        match self.apply(yaml).await {
            Ok(_) => bail!("accepted, but should have been refused:\n{yaml}"),
            Err(error) => match error.downcast_ref::<kube::Error>() {
                Some(kube::Error::Api(status)) => Ok(status.message.clone()),
                _ => Err(error),
            },
        }
    }

    /// JSON merge patch.
    pub async fn merge(&self, kind: &str, namespace: &str, name: &str, patch: Value) -> Result<DynamicObject> {
        let api = self.api(kind, namespace).await?;
        Ok(api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await?)
    }

    /// The object as it is now.
    pub async fn get(&self, kind: &str, namespace: &str, name: &str) -> Result<Option<DynamicObject>> {
        Ok(self.api(kind, namespace).await?.get_opt(name).await?)
    }

    /// All objects of a kind that match a label selector (empty: all of them).
    pub async fn list(&self, kind: &str, namespace: &str, selector: &str) -> Result<Vec<DynamicObject>> {
        Ok(self.api(kind, namespace).await?.list(&ListParams::default().labels(selector)).await?.items)
    }

    /// Asks for the deletion of an object and does not wait; children go in the background.
    pub async fn delete(&self, kind: &str, namespace: &str, name: &str) -> Result<()> {
        let how = DeleteParams { propagation_policy: Some(PropagationPolicy::Background), ..DeleteParams::default() };
        match self.api(kind, namespace).await?.delete(name, &how).await {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            other => Ok(other.map(drop)?),
        }
    }

    /// Watches until `holds` says yes of the object (`None`: it does not exist) and returns it.
    pub async fn wait(
        &self,
        kind: &str,
        namespace: &str,
        name: &str,
        what: &str,
        patience: Duration,
        holds: impl Fn(Option<&DynamicObject>) -> bool,
    ) -> Result<Option<DynamicObject>> {
        let api = self.api(kind, namespace).await?;
        let mut last = None;
        let watch = async {
            let mut seen = pin!(watch_object(api, name));
            // The watch heals itself: an error is one more thing that was seen.
            loop {
                match seen.try_next().await {
                    Ok(Some(object)) if holds(object.as_ref()) => return object,
                    Ok(Some(object)) => last = object.map(|object| summary(&object)),
                    Ok(None) => futures::future::pending::<()>().await,
                    Err(error) => last = Some(error.to_string()),
                }
            }
        };
        if let Ok(object) = tokio::time::timeout(patience, watch).await {
            return Ok(object);
        }
        bail!(
            "waited {} s for {what} of {kind} {namespace}/{name}; last seen: {}",
            patience.as_secs(),
            last.unwrap_or_else(|| "nothing, it does not exist".to_owned())
        )
    }

    /// Waits until the object's condition has the status and, unless it is empty, the reason. Returns the condition.
    pub async fn wait_condition(
        &self,
        kind: &str,
        namespace: &str,
        name: &str,
        condition: &str,
        status: &str,
        reason: &str,
    ) -> Result<Condition> {
        let fits = |object: &DynamicObject| {
            let current = object.metadata.generation.unwrap_or_default();
            conditions(object).into_iter().find(|found| {
                found.r#type == condition
                    && found.status == status
                    && (reason.is_empty() || found.reason == reason)
                    && (found.observed_generation == 0 || found.observed_generation == current)
            })
        };
        let what = format!("{condition}={status} {reason}");
        let object = self
            .wait(kind, namespace, name, &what, PATIENCE, |object| object.is_some_and(|object| fits(object).is_some()))
            .await?;
        object.as_ref().and_then(fits).context("the condition is gone again")
    }

    /// Waits until a pod's phase is the given one.
    pub async fn wait_phase(&self, namespace: &str, pod: &str, phase: &str) -> Result<DynamicObject> {
        let is = |object: Option<&DynamicObject>| {
            object.is_some_and(|object| object.data.pointer("/status/phase") == Some(&json!(phase)))
        };
        let object = self.wait("v1/Pod", namespace, pod, &format!("phase {phase}"), PATIENCE, is).await?;
        object.context("the pod is gone again")
    }

    /// Waits until the object does not exist.
    pub async fn wait_gone(&self, kind: &str, namespace: &str, name: &str) -> Result<()> {
        self.wait(kind, namespace, name, "the end", PATIENCE, |object| object.is_none()).await.map(drop)
    }

    /// Makes a namespace that enforces Pod Security `restricted`, and waits until pods can be made in it.
    pub async fn create_namespace(&self, name: &str) -> Result<()> {
        self.apply_value(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {
            "pod-security.kubernetes.io/enforce": "restricted", "pod-security.kubernetes.io/warn": "restricted",
        }}}))
        .await?;
        self.wait("v1/ServiceAccount", name, "default", "the default service account", PATIENCE, |account| {
            account.is_some()
        })
        .await?;
        Ok(())
    }

    /// Deletes a namespace and waits until it is gone. Checkpoints, pods and claims go first, each waited for: the
    /// namespace controller looks again only after many seconds when something is left.
    pub async fn delete_namespace(&self, name: &str) -> Result<()> {
        if self.get("v1/Namespace", "", name).await?.is_none() {
            return Ok(());
        }
        for kind in [CHECKPOINT, "batch/v1/Job", "v1/Pod", "v1/PersistentVolumeClaim"] {
            // The custom resource may not be installed.
            let Ok(api) = self.api(kind, name).await else {
                continue;
            };
            let how = DeleteParams {
                propagation_policy: Some(PropagationPolicy::Background),
                ..DeleteParams::default().grace_period(0)
            };
            api.delete_collection(&how, &ListParams::default()).await?;
            for object in api.list(&ListParams::default()).await? {
                self.wait_gone(kind, name, &object.name_any()).await?;
            }
        }
        self.delete("v1/Namespace", "", name).await?;
        self.wait_gone("v1/Namespace", "", name).await
    }

    /// The whole log of a pod's only container.
    pub async fn pod_logs(&self, namespace: &str, pod: &str) -> Result<String> {
        Ok(Api::<Pod>::namespaced(self.client.clone(), namespace).logs(pod, &LogParams::default()).await?)
    }

    /// The events about an object, as `Reason: message`, oldest first.
    pub async fn events(&self, namespace: &str, name: &str) -> Result<Vec<String>> {
        let about = ListParams::default().fields(&format!("involvedObject.name={name}"));
        let mut events = Api::<Event>::namespaced(self.client.clone(), namespace).list(&about).await?.items;
        events.sort_by_key(|event| event.metadata.creation_timestamp.clone());
        let text =
            |event: Event| format!("{}: {}", event.reason.unwrap_or_default(), event.message.unwrap_or_default());
        Ok(events.into_iter().map(text).collect())
    }
}

/// The conditions in an object's status.
#[must_use]
pub fn conditions(object: &DynamicObject) -> Vec<Condition> {
    let listed = object.data.pointer("/status/conditions").cloned().unwrap_or_default();
    serde_json::from_value(listed).unwrap_or_default()
}

/// One condition of an object's status.
#[must_use]
pub fn condition(object: &DynamicObject, name: &str) -> Option<Condition> {
    conditions(object).into_iter().find(|condition| condition.r#type == name)
}

/// A pod that passes Pod Security `restricted`, mounts a claim at `/volume` and runs a shell line once.
#[must_use]
pub fn consumer_pod(namespace: &str, name: &str, claim: &str, shell: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": false,
            "securityContext": {"runAsNonRoot": true, "runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{
                "name": "consumer",
                "image": crate::images::BUSYBOX,
                "imagePullPolicy": "IfNotPresent",
                "command": ["/bin/sh", "-ec", shell],
                "securityContext": {"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]}},
                "volumeMounts": [{"name": "volume", "mountPath": "/volume"}],
            }],
            "volumes": [{"name": "volume", "persistentVolumeClaim": {"claimName": claim}}],
        },
    })
}

fn namespace_of(stated: &str) -> String {
    if stated.is_empty() { "default".to_owned() } else { stated.to_owned() }
}

/// What a failed wait shows of an object.
fn summary(object: &DynamicObject) -> String {
    let deletion = object.metadata.deletion_timestamp.as_ref().map_or("", |_| "(being deleted) ");
    let status = object.data.get("status").map_or_else(|| "no status".to_owned(), ToString::to_string);
    format!("{deletion}generation {}, {status}", object.metadata.generation.unwrap_or_default())
}
