//! Kubernetes, helm and the other Go programs of the test cluster, built once into the cache (runs `go build`).
//!
//! Each has a `go.mod` of its own under `e2e/tools`, because their modules disagree on versions.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::cache::build_once;
use crate::command::run;
use crate::paths;

/// The version that the kubelet registers with; without the stamp it would be v0.0.0.
const KUBERNETES_STAMP: &str = "-s -w -X k8s.io/component-base/version.gitVersion=v1.35.4 \
    -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=35 \
    -X k8s.io/client-go/pkg/version.gitVersion=v1.35.4";
/// As helm's own build: its version, and the Kubernetes that `helm lint` and `helm template` assume.
const HELM_STAMP: &str = "-s -w -X helm.sh/helm/v3/internal/version.version=v3.22.0 \
    -X helm.sh/helm/v3/pkg/lint/rules.k8sVersionMajor=1 -X helm.sh/helm/v3/pkg/lint/rules.k8sVersionMinor=35 \
    -X helm.sh/helm/v3/pkg/chartutil.k8sVersionMajor=1 -X helm.sh/helm/v3/pkg/chartutil.k8sVersionMinor=35";
const PLAIN: &str = "-s -w";

/// A folder under `e2e/tools`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tool {
    /// API server, controller manager, scheduler, kubelet, kube-proxy and kubectl.
    Kubernetes,
    /// The cluster's name server.
    CoreDns,
    /// The provisioner of both storage classes.
    LocalPathProvisioner,
    /// helm itself.
    Helm,
    /// Unit tests of the chart.
    HelmUnittest,
    /// Manifests against Kubernetes' schemas.
    Kubeconform,
    /// An S3 server on a folder.
    VersityGateway,
}

impl Tool {
    fn folder(self) -> &'static str {
        match self {
            Self::Kubernetes => "kubernetes",
            Self::CoreDns => "coredns",
            Self::LocalPathProvisioner => "local-path-provisioner",
            Self::Helm => "helm",
            Self::HelmUnittest => "helm-unittest",
            Self::Kubeconform => "kubeconform",
            Self::VersityGateway => "versitygw",
        }
    }

    fn linker_flags(self) -> &'static str {
        match self {
            Self::Kubernetes => KUBERNETES_STAMP,
            Self::Helm => HELM_STAMP,
            _ => PLAIN,
        }
    }

    /// The folder of its `go.mod`.
    #[must_use]
    pub fn module(self) -> PathBuf {
        paths::of_this_crate("tools").join(self.folder())
    }

    /// The folder with its binaries; built at the first call (minutes when Go's own cache is cold).
    pub fn binaries(self) -> Result<PathBuf> {
        let module = self.module();
        let versions = read(&module.join("go.mod"))?;
        let sums = read(&module.join("go.sum"))?;
        build_once(self.folder(), &[&versions, &sums, self.linker_flags().as_bytes()], |folder| {
            println!("Building {} (once; minutes when Go's cache is cold)", self.folder());
            let mut go = Command::new("go");
            go.args(["build", "-trimpath", "-ldflags", self.linker_flags(), "-o"]).arg(folder).arg("tool");
            run(go.current_dir(&module).env("CGO_ENABLED", "0"))
        })
    }

    /// One of its binaries.
    pub fn binary(self, name: &str) -> Result<PathBuf> {
        Ok(self.binaries()?.join(name))
    }
}

fn read(file: &Path) -> Result<Vec<u8>> {
    fs::read(file).with_context(|| format!("cannot read {}", file.display()))
}
