//! The harness itself, on the cluster: volumes, names, the S3 server, the audit log, a disk that fills up.
//! Run with `cargo e2e test --stage cluster -- harness`.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use checkpoint_operator_e2e::cluster::Cluster;
use checkpoint_operator_e2e::command::succeeds;
use checkpoint_operator_e2e::kubernetes::{Kube, PATIENCE, consumer_pod};
use checkpoint_operator_e2e::s3::Body;
use checkpoint_operator_e2e::{audit, seaweedfs, tiny_volume};
use serde_json::json;

async fn claim(kube: &Kube, namespace: &str, name: &str, class: &str, size: &str) -> Result<()> {
    kube.apply_value(json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name, "namespace": namespace},
        "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": class, "resources": {"requests": {"storage": size}}},
    }))
    .await?;
    Ok(())
}

#[tokio::test]
async fn harness_volumes_of_both_classes_hold_what_a_pod_writes() -> Result<()> {
    let kube = Kube::connect(&Cluster::from_environment()?).await?;
    let namespace = "harness-volumes";
    kube.create_namespace(namespace).await?;
    for class in ["local-path", "shared-immediate"] {
        claim(&kube, namespace, class, class, "1Mi").await?;
        kube.apply_value(consumer_pod(namespace, class, class, "echo kept > /volume/x; cat /volume/x")).await?;
        kube.wait_phase(namespace, class, "Succeeded").await?;
        assert_eq!(kube.pod_logs(namespace, class).await?, "kept\n");
    }
    kube.delete_namespace(namespace).await
}

#[tokio::test]
async fn harness_names_outside_the_cluster_do_not_exist() -> Result<()> {
    let kube = Kube::connect(&Cluster::from_environment()?).await?;
    let namespace = "harness-names";
    kube.create_namespace(namespace).await?;
    claim(&kube, namespace, "any", "local-path", "1Mi").await?;
    let script = "nslookup kubernetes.default.svc.cluster.local; nslookup nothing.example.com && exit 1; true";
    kube.apply_value(consumer_pod(namespace, "names", "any", script)).await?;
    kube.wait_phase(namespace, "names", "Succeeded").await?;
    assert!(kube.pod_logs(namespace, "names").await?.contains("NXDOMAIN"));
    kube.delete_namespace(namespace).await
}

#[tokio::test]
async fn harness_s3_keeps_any_key_and_asks_for_credentials() -> Result<()> {
    let cluster = Cluster::from_environment()?;
    let kube = Kube::connect(&cluster).await?;
    let s3 = seaweedfs::up(&cluster)?;
    let (bucket, namespace) = ("harness", "harness-s3");
    s3.create_bucket(bucket)?;
    let keys =
        ["a/plain", "a/with space", "a/per%cent", "a/plus+", "a/ünïcode-日本", "a/marker/", "a/empty", "ab/sibling"];
    let content = |key: &str| {
        if key.ends_with('/') || key.ends_with("empty") { Vec::new() } else { key.as_bytes().to_vec() }
    };
    let bodies: Vec<_> = keys.iter().map(|key| content(key)).collect();
    let objects: Vec<_> = keys.iter().zip(&bodies).map(|(key, body)| (*key, Body::Bytes(body))).collect();
    s3.put(bucket, &objects)?;
    let mut listed: Vec<_> = s3.list(bucket, "")?.into_iter().map(|found| found.key).collect();
    let mut expected = keys.map(str::to_owned).to_vec();
    listed.sort();
    expected.sort();
    assert_eq!(listed, expected);
    for (key, body) in keys.iter().zip(&bodies) {
        assert_eq!(&s3.get(bucket, key)?, body, "{key}");
    }
    let stranger = s3.with_keys(seaweedfs::STRANGER);
    let refusal = stranger.list(bucket, "").unwrap_err().to_string();
    assert!(refusal.contains("AccessDenied"), "{refusal}");

    // A pod reaches it by name: refused without credentials, served with a signature.
    kube.create_namespace(namespace).await?;
    claim(&kube, namespace, "any", "local-path", "1Mi").await?;
    let url = s3.with_endpoint(seaweedfs::ENDPOINT).presign(bucket, "a/with space")?;
    let script = format!(
        "wget -S -O - {}/harness/a/plain 2>&1 | grep 'HTTP/1.1 403'; wget -q -O - '{url}'",
        seaweedfs::ENDPOINT
    );
    kube.apply_value(consumer_pod(namespace, "reader", "any", &script)).await?;
    kube.wait_phase(namespace, "reader", "Succeeded").await?;
    assert!(kube.pod_logs(namespace, "reader").await?.ends_with("a/with space"));
    s3.delete_bucket(bucket)?;
    kube.delete_namespace(namespace).await
}

#[tokio::test]
async fn harness_s3_shows_a_certificate_of_the_authority() -> Result<()> {
    let cluster = Cluster::from_environment()?;
    Kube::connect(&cluster).await?;
    let s3 = seaweedfs::up(&cluster)?;
    let address = s3.endpoint.trim_start_matches("http://").replace(":8333", ":8443");
    let authority = cluster.authority()?.certificate();
    let mut shake = Command::new("openssl");
    shake.args([
        "s_client",
        "-verify_return_error",
        "-verify_hostname",
        "s3.storage.svc",
        "-connect",
        &address,
        "-CAfile",
    ]);
    assert!(succeeds(shake.arg(&authority)));
    let mut distrustful = Command::new("openssl");
    assert!(!succeeds(distrustful.args(["s_client", "-verify_return_error", "-connect", &address])));
    Ok(())
}

#[tokio::test]
async fn harness_the_audit_log_counts_writes() -> Result<()> {
    let cluster = Cluster::from_environment()?;
    let kube = Kube::connect(&cluster).await?;
    let namespace = "harness-audit";
    kube.create_namespace(namespace).await?;
    let mark = audit::mark(&cluster)?;
    kube.apply_value(
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "seen", "namespace": namespace}}),
    )
    .await?;
    kube.get("v1/ConfigMap", namespace, "seen").await?;
    let mut writes = audit::writes_of(&cluster, "admin", mark)?;
    writes.retain(|write| write.namespace == namespace);
    assert_eq!(writes.len(), 1, "{writes:?}");
    assert_eq!(
        (writes[0].verb.as_str(), writes[0].resource.as_str(), writes[0].name.as_str()),
        ("patch", "configmaps", "seen")
    );
    kube.delete_namespace(namespace).await
}

#[tokio::test]
async fn harness_a_tiny_volume_fills_up() -> Result<()> {
    let cluster = Cluster::from_environment()?;
    let kube = Kube::connect(&cluster).await?;
    let namespace = "harness-tiny";
    kube.create_namespace(namespace).await?;
    tiny_volume::create(&cluster, "harness-tiny", 16, "1Gi")?;
    claim(&kube, namespace, "small", tiny_volume::CLASS, "1Gi").await?;
    let script = "dd if=/dev/zero of=/volume/big bs=1M count=64 2>&1 | grep 'No space left'";
    kube.apply_value(consumer_pod(namespace, "filler", "small", script)).await?;
    kube.wait_phase(namespace, "filler", "Succeeded").await?;
    kube.delete_namespace(namespace).await?;
    tiny_volume::remove(&cluster, "harness-tiny")
}

#[tokio::test]
async fn harness_pods_that_do_not_pass_restricted_are_refused() -> Result<()> {
    let kube = Kube::connect(&Cluster::from_environment()?).await?;
    let namespace = "harness-restricted";
    kube.create_namespace(namespace).await?;
    let message = kube
        .refused(&format!("{{apiVersion: v1, kind: Pod, metadata: {{name: root, namespace: {namespace}}}, spec: {{containers: [{{name: c, image: x}}]}}}}"))
        .await?;
    assert!(message.contains("violates PodSecurity"), "{message}");
    let nothing =
        kube.wait("v1/Pod", namespace, "root", "a pod", Duration::from_millis(300), |pod| pod.is_some()).await;
    assert!(nothing.unwrap_err().to_string().contains("does not exist"));
    assert!(PATIENCE > Duration::from_secs(1));
    kube.get("v1/Namespace", "", namespace).await?.context("the namespace")?;
    kube.delete_namespace(namespace).await
}
