//! The operator on the cluster, installed by its own chart (helm).

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::cluster::Cluster;
use crate::command::capture;
use crate::images::PRODUCT;
use crate::paths;

/// The namespace and the release that the tests install into.
pub const NAMESPACE: &str = "checkpoint-operator-system";
/// The name of the release and of what it installs.
pub const RELEASE: &str = "checkpoint-operator";

/// The chart's folder.
#[must_use]
pub fn chart() -> PathBuf {
    paths::workspace().join("charts/checkpoint-operator")
}

/// The arguments that make the chart use an image of [`crate::images`].
#[must_use]
pub fn image_settings(image: &str) -> Vec<String> {
    let tag = image.rsplit_once(':').map_or("", |(_, tag)| tag);
    let settings =
        [format!("image.repository={PRODUCT}"), format!("image.tag={tag}"), "image.pullPolicy=IfNotPresent".to_owned()];
    settings.into_iter().flat_map(|setting| ["--set-string".to_owned(), setting]).collect()
}

/// `helm upgrade --install --wait` with an image and further values (`key=value`), into a namespace that enforces
/// Pod Security `restricted`.
pub fn install(cluster: &Cluster, image: &str, values: &[&str]) -> Result<String> {
    let manifest = serde_json::json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {
        "name": NAMESPACE, "labels": {"pod-security.kubernetes.io/enforce": "restricted"},
    }});
    crate::command::feed(
        cluster.kubectl()?.args(["apply", "--server-side", "--filename", "-"]),
        manifest.to_string().as_bytes(),
    )?;
    let mut helm = cluster.helm()?;
    helm.args(["upgrade", "--install", RELEASE]).arg(chart()).args([
        "--namespace",
        NAMESPACE,
        "--wait",
        "--timeout",
        "120s",
    ]);
    helm.args(image_settings(image));
    for value in values {
        helm.args(["--set", value]);
    }
    capture(&mut helm).context("the chart cannot be installed")
}

/// Removes the release; custom resources and claims stay.
pub fn uninstall(cluster: &Cluster) -> Result<()> {
    capture(cluster.helm()?.args([
        "uninstall",
        RELEASE,
        "--namespace",
        NAMESPACE,
        "--ignore-not-found",
        "--wait",
        "--timeout",
        "60s",
    ]))?;
    Ok(())
}

/// The controller's log so far, for the report of a failed test.
pub fn logs(cluster: &Cluster) -> Result<String> {
    capture(cluster.kubectl()?.args([
        "logs",
        "--namespace",
        NAMESPACE,
        "--all-containers",
        "--tail=-1",
        &format!("deployment/{RELEASE}"),
    ]))
}
