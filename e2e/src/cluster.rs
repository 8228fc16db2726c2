//! The cluster that the tests run on: its life (`up`, `down`) and how to reach it (process and file I/O).
//!
//! The local cluster lives in a network namespace of its own, without a route to anywhere else. Whoever wants to
//! reach its API server or its services must be in that namespace too: [`Cluster::command`] puts single commands
//! there with `nsenter`, and the stage runner starts the whole test process there (a Cargo "runner"), so that
//! tests use plain clients and service addresses. With `KUBECONFIG` set nothing is started: the tests use that
//! cluster.

mod addons;
mod certificates;
mod configuration;
mod control_groups;
mod network;
mod processes;
mod services;
mod teardown;

use std::env;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

pub use certificates::Authority;

use crate::cache::short_hash;
use crate::command::{capture, succeeds};
use crate::go_tools::Tool;
use crate::wait::{Now, wait_until};
use crate::{dependencies, images, paths, python};

/// The node's address inside the namespace.
pub const NODE_ADDRESS: &str = "10.99.0.1";
/// The node's name.
pub const NODE_NAME: &str = "node1";

/// A cluster to test on.
#[derive(Debug, Clone)]
pub struct Cluster {
    root: PathBuf,
    given: Option<PathBuf>,
    namespace: String,
}

impl Cluster {
    /// The cluster of `KUBECONFIG` when that is set, otherwise the local one.
    pub fn from_environment() -> Result<Self> {
        let given = env::var_os("KUBECONFIG").filter(|path| !path.is_empty()).map(PathBuf::from);
        let root = paths::cluster_state();
        fs::create_dir_all(&root).with_context(|| format!("cannot make {}", root.display()))?;
        let root = root.canonicalize()?;
        // Checkouts may each have a cluster: the namespace and the cgroups are named after the state folder.
        let namespace = format!("ckpt-{}", short_hash(&[root.as_os_str().as_encoded_bytes()]));
        let ours = given.as_ref().is_some_and(|path| *path == root.join("admin.kubeconfig"));
        Ok(Self { root, given: given.filter(|_| !ours), namespace })
    }

    /// Whether this is the cluster that `up` made, rather than the one of `KUBECONFIG`.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.given.is_none()
    }

    /// The state folder.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Logs of every process, of every pod and the audit log; kept by `down`.
    #[must_use]
    pub fn logs(&self) -> PathBuf {
        self.root.join("log")
    }

    /// The API server's audit log (local cluster only).
    #[must_use]
    pub fn audit_log(&self) -> PathBuf {
        self.logs().join("audit.log")
    }

    /// The kubeconfig of a cluster administrator.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.given.clone().unwrap_or_else(|| self.root.join("admin.kubeconfig"))
    }

    /// The name of the network namespace of the local cluster.
    #[must_use]
    pub fn network_namespace(&self) -> &str {
        &self.namespace
    }

    /// The authority that signs the certificates of the local cluster and of the S3 server.
    pub fn authority(&self) -> Result<Authority> {
        Authority::open(&self.root.join("pki"))
    }

    /// The words that put a command into the cluster's network; empty where that is not needed.
    #[must_use]
    pub fn entry(&self) -> Vec<String> {
        if !self.is_local() || self.is_entered() {
            return Vec::new();
        }
        vec!["nsenter".to_owned(), format!("--net={}", self.namespace_file().display()), "--".to_owned()]
    }

    /// Whether this process can reach the cluster's network itself.
    #[must_use]
    pub fn is_entered(&self) -> bool {
        let inode = |path: &Path| fs::metadata(path).map(|found| (found.dev(), found.ino())).ok();
        let own = inode(Path::new("/proc/self/ns/net"));
        !self.is_local() || (own.is_some() && own == inode(&self.namespace_file()))
    }

    /// Fails, with the way to do it right, unless this process is in the cluster's network. For tests.
    pub fn require_entered(&self) -> Result<()> {
        if self.is_entered() {
            return Ok(());
        }
        bail!(
            "this process is not in the cluster's network: run `cargo e2e test --stage cluster -- NAME`, which brings the cluster up and starts the tests inside its network namespace"
        )
    }

    /// A command in the cluster's network, with `KUBECONFIG` set.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let entry = self.entry();
        let mut command = match entry.split_first() {
            None => Command::new(program),
            Some((first, rest)) => {
                let mut command = Command::new(first);
                command.args(rest).arg(program);
                command
            }
        };
        command.env("KUBECONFIG", self.kubeconfig());
        command
    }

    /// `kubectl` with administrator rights.
    pub fn kubectl(&self) -> Result<Command> {
        self.require_namespace()?;
        Ok(self.command(Tool::Kubernetes.binary("kubectl")?))
    }

    /// `helm`, with its caches in the state folder.
    pub fn helm(&self) -> Result<Command> {
        self.require_namespace()?;
        let mut command = self.command(Tool::Helm.binary("helm")?);
        for (variable, folder) in
            [("HELM_CACHE_HOME", "cache"), ("HELM_CONFIG_HOME", "config"), ("HELM_DATA_HOME", "data")]
        {
            command.env(variable, self.root.join("helm").join(folder));
        }
        Ok(command)
    }

    /// Brings the cluster up, or whatever of it is missing. Cheap when all of it runs.
    pub fn up(&self) -> Result<()> {
        if !self.is_local() {
            capture(self.kubectl()?.args(["get", "--raw", "/readyz"]))
                .context("the cluster of KUBECONFIG does not answer")?;
            return Ok(());
        }
        if !rustix::process::geteuid().is_root() {
            bail!(
                "the local cluster needs root (namespaces, mounts, a kubelet); set KUBECONFIG to use a cluster that you have"
            );
        }
        dependencies::install()?;
        let kubernetes = Tool::Kubernetes.binaries()?;
        Tool::LocalPathProvisioner.binaries()?;
        // What tests need later is made here too: they run without a way to the internet.
        Tool::CoreDns.binaries()?;
        Tool::Helm.binaries()?;
        python::environment()?;
        for folder in ["run", "log", "cni", "data", "volumes/local", "volumes/shared", "tiny"] {
            fs::create_dir_all(self.root.join(folder))?;
        }
        certificates::write_all(self)?;
        configuration::write_all(self)?;
        network::up(self)?;
        control_groups::create(&self.namespace)?;
        let processes = self.processes();
        services::start_control_plane(self, &processes, &kubernetes)?;
        images::import_base(self)?;
        services::start_node(self, &processes, &kubernetes)?;
        addons::apply(self, &processes)
    }

    /// Stops everything that `up` started and removes its data; certificates and logs stay.
    pub fn down(&self) -> Result<()> {
        if !self.is_local() {
            bail!("the cluster of KUBECONFIG was not made by `up` and is left alone");
        }
        teardown::down(self, &self.processes())
    }

    /// Waits until a kubectl command succeeds, while the named processes live.
    fn wait_for_kubectl(&self, what: &str, alive: &[&str], arguments: &[&str]) -> Result<()> {
        let processes = self.processes();
        wait_until(what, Duration::from_mins(2), || {
            for name in alive {
                processes.must_live(name)?;
            }
            Ok(match capture(self.kubectl()?.args(arguments)) {
                Ok(_) => Now::Done(()),
                Err(error) => Now::NotYet(error.to_string()),
            })
        })
        .with_context(|| format!("the logs are in {}", self.logs().display()))
    }

    fn require_namespace(&self) -> Result<()> {
        if self.is_local() && !self.namespace_file().exists() {
            bail!("the cluster is not up: run `cargo e2e up` first, or set KUBECONFIG to use another cluster");
        }
        Ok(())
    }

    fn processes(&self) -> processes::Processes {
        processes::Processes::new(&self.root, &self.namespace_file())
    }

    fn namespace_file(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.namespace)
    }

    /// `ctr` for the images and containers of the kubelet.
    pub(crate) fn ctr(&self) -> Command {
        let mut command = Command::new("ctr");
        command.arg("--address").arg(self.containerd_socket()).args(["--namespace", "k8s.io"]);
        command
    }

    fn containerd_socket(&self) -> PathBuf {
        self.root.join("run/containerd.sock")
    }

    /// Whether the local cluster answers, without starting anything.
    #[must_use]
    pub fn is_up(&self) -> bool {
        (!self.is_local() || self.namespace_file().exists())
            && self.kubectl().is_ok_and(|mut kubectl| succeeds(kubectl.args(["get", "--raw", "/readyz"])))
    }
}
