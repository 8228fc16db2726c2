//! The chart's stage: helm lint, helm-unittest, and kubeconform on what the chart renders (process I/O).

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::command::{capture, feed, run};
use crate::go_tools::Tool;
use crate::operator::{NAMESPACE, RELEASE, chart};
use crate::{paths, schemas};

/// Kinds of other projects, whose schemas Kubernetes does not carry.
const FOREIGN_KINDS: &str = "ServiceMonitor,Checkpoint";

/// All checks of the chart.
pub fn check(_: &[String]) -> Result<()> {
    let chart = chart();
    if !chart.join("Chart.yaml").exists() {
        bail!("there is no chart at {}", chart.display());
    }
    run(Command::new(Tool::Helm.binary("helm")?).args(["lint", "--strict"]).arg(&chart))?;
    run(Command::new(Tool::HelmUnittest.binary("helm-unittest")?).arg(&chart))?;
    conforms(&chart, &[])?;
    // Every values file of the chart's `ci` folder is a way to install it.
    let mut variants = Vec::new();
    if let Ok(entries) = std::fs::read_dir(chart.join("ci")) {
        variants = entries
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|end| end == "yaml"))
            .collect();
        variants.sort();
    }
    for values in &variants {
        let values = values.to_str().context("a file name that is not UTF-8")?;
        conforms(&chart, &["--values", values])?;
    }
    Ok(())
}

fn conforms(chart: &Path, arguments: &[&str]) -> Result<()> {
    let mut helm = Command::new(Tool::Helm.binary("helm")?);
    helm.args(["template", RELEASE]).arg(chart).args(["--namespace", NAMESPACE, "--include-crds"]).args(arguments);
    let manifests = capture(helm.current_dir(paths::workspace()))?;
    let location = schemas::folder()?.join("{{.ResourceKind}}{{.KindSuffix}}.json");
    let mut kubeconform = Command::new(Tool::Kubeconform.binary("kubeconform")?);
    kubeconform.args(["-strict", "-summary", "-skip", FOREIGN_KINDS, "-schema-location"]).arg(location).arg("-");
    let verdict =
        feed(&mut kubeconform, manifests.as_bytes()).with_context(|| format!("the chart with {arguments:?}"))?;
    println!("kubeconform {}: {}", arguments.join(" "), verdict.trim());
    Ok(())
}
