//! The S3 server of the tests: SeaweedFS as a pod in the namespace `storage` (kubectl).
//!
//! Pods reach it as `http://s3.storage.svc:8333` and `https://s3.storage.svc:8443`; the authority of the latter is
//! [`certificate_authority`]. The test process reaches it at the address that [`S3::endpoint`] holds.

use std::fs;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::command::{capture, feed};
use crate::images;
use crate::s3::S3;

/// Where it runs.
pub const NAMESPACE: &str = "storage";
/// Its endpoint for pods.
pub const ENDPOINT: &str = "http://s3.storage.svc:8333";
/// Its endpoint for pods with a certificate that [`certificate_authority`] signed.
pub const TLS_ENDPOINT: &str = "https://s3.storage.svc:8443";
/// The region that clients name.
pub const REGION: &str = "us-east-1";
/// Access key and secret key of the identity that may do everything.
pub const ADMINISTRATOR: (&str, &str) = ("e2e-access-key", "e2e-secret-key");
/// A known identity that may only read the bucket called `allowed`, for `AccessDenied` elsewhere.
pub const STRANGER: (&str, &str) = ("stranger-access-key", "stranger-secret-key");

const MANIFEST: &str = include_str!("../manifests/seaweedfs.yaml");
const NAMES: &str =
    "DNS:s3,DNS:s3.storage,DNS:s3.storage.svc,DNS:s3.storage.svc.cluster.local,DNS:localhost,IP:127.0.0.1";

/// Brings the server up (about 5 seconds the first time) and returns a client to it for the test process.
pub fn up(cluster: &Cluster) -> Result<S3> {
    images::import_seaweedfs(cluster)?;
    let authority = cluster.authority()?;
    let (certificate, key) = authority.issue("s3", "/CN=s3.storage.svc", NAMES)?;
    let objects = json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}}},
        secret("s3-identities", &json!({"identities.json": identities().to_string()})),
        secret("s3-tls", &json!({"tls.crt": fs::read_to_string(certificate)?, "tls.key": fs::read_to_string(key)?})),
    ]});
    apply(cluster, objects.to_string().as_bytes())?;
    apply(cluster, MANIFEST.as_bytes())?;
    let rollout = ["rollout", "status", "--namespace", NAMESPACE, "deployment/s3", "--timeout=90s"];
    capture(cluster.kubectl()?.args(rollout)).context("the S3 server does not become ready")?;
    client(cluster)
}

/// A client to the running server for this process, as the administrator.
pub fn client(cluster: &Cluster) -> Result<S3> {
    let address = ["get", "service", "s3", "--namespace", NAMESPACE, "--output", "jsonpath={.spec.clusterIP}"];
    let address = capture(cluster.kubectl()?.args(address))?;
    S3::connect(&format!("http://{}:8333", address.trim()), REGION, ADMINISTRATOR, &cluster.entry())
}

/// A Secret for `storage.s3.credentials.secretRef`, with the usual key names.
#[must_use]
pub fn credentials_secret(namespace: &str, name: &str, (access_key, secret_key): (&str, &str)) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": namespace},
        "stringData": {"AWS_ACCESS_KEY_ID": access_key, "AWS_SECRET_ACCESS_KEY": secret_key},
    })
}

/// A `ConfigMap` with the authority (key `ca.crt`) of the HTTPS endpoint.
pub fn certificate_authority(cluster: &Cluster, namespace: &str, name: &str) -> Result<Value> {
    let certificate = fs::read_to_string(cluster.authority()?.certificate())?;
    Ok(
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": namespace}, "data": {"ca.crt": certificate}}),
    )
}

/// Stops or starts the server (0 or 1 replicas) and waits for it; stopping it loses what it held.
pub fn scale(cluster: &Cluster, replicas: u8) -> Result<()> {
    let count = format!("--replicas={replicas}");
    capture(cluster.kubectl()?.args(["scale", "--namespace", NAMESPACE, "deployment/s3", &count]))?;
    if replicas > 0 {
        capture(cluster.kubectl()?.args([
            "rollout",
            "status",
            "--namespace",
            NAMESPACE,
            "deployment/s3",
            "--timeout=90s",
        ]))?;
    } else {
        capture(cluster.kubectl()?.args([
            "wait",
            "--namespace",
            NAMESPACE,
            "--for=delete",
            "pod",
            "--selector=app=s3",
            "--timeout=60s",
        ]))?;
    }
    Ok(())
}

fn identities() -> Value {
    let identity = |name: &str, (access_key, secret_key): (&str, &str), actions: &[&str]| {
        json!({
            "name": name, "credentials": [{"accessKey": access_key, "secretKey": secret_key}], "actions": actions,
        })
    };
    json!({"identities": [
        identity("administrator", ADMINISTRATOR, &["Admin", "Read", "Write", "List", "Tagging"]),
        identity("stranger", STRANGER, &["Read:allowed", "List:allowed"]),
    ]})
}

fn secret(name: &str, data: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": NAMESPACE}, "stringData": data})
}

fn apply(cluster: &Cluster, manifest: &[u8]) -> Result<()> {
    feed(cluster.kubectl()?.args(["apply", "--server-side", "--force-conflicts", "--filename", "-"]), manifest)
        .context("the S3 server")?;
    Ok(())
}
