//! What makes the bare cluster usable: name service, the volume provisioner, storage classes (kubectl, one process).

use anyhow::{Context, Result};

use super::Cluster;
use super::processes::{Processes, Service};
use crate::command::feed;
use crate::go_tools::Tool;
use crate::images;

const MANIFEST: &str = include_str!("../../manifests/addons.yaml");

/// Applies the manifest, starts the provisioner and waits for names to resolve.
pub fn apply(cluster: &Cluster, processes: &Processes) -> Result<()> {
    feed(cluster.kubectl()?.args(["apply", "--server-side", "--force-conflicts", "-f", "-"]), MANIFEST.as_bytes())
        .context("the add-ons of the cluster")?;
    let root = cluster.root().display();
    processes.start(&Service {
        name: "local-path",
        arguments: vec![
            Tool::LocalPathProvisioner.binary("local-path-provisioner")?.display().to_string(),
            "start".to_owned(),
            format!("--kubeconfig={root}/local-path.kubeconfig"),
            format!("--config={root}/local-path.json"),
            format!("--helper-pod-file={root}/helper-pod.yaml"),
            "--namespace=local-path-storage".to_owned(),
            "--configmap-name=local-path-config".to_owned(),
            "--service-account-name=default".to_owned(),
            format!("--helper-image={}", images::BUSYBOX),
            "--worker-threads=16".to_owned(),
            "--provisioning-retry-count=0".to_owned(),
            "--deletion-retry-count=0".to_owned(),
        ],
        configuration: ["local-path.json", "helper-pod.yaml", "pki/ca.crt"]
            .map(|file| cluster.root().join(file))
            .to_vec(),
    })?;
    let available = ["wait", "-n", "kube-system", "--for=condition=Available", "deployment/coredns", "--timeout=1s"];
    cluster.wait_for_kubectl("the name server", &["kubelet", "local-path"], &available)
}
