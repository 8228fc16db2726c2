//! The processes of the cluster with their flags: etcd, containerd, the control plane, the kubelet (starts processes).

use std::path::Path;

use anyhow::Result;

use super::processes::{Processes, Service};
use super::{Cluster, NODE_ADDRESS, NODE_NAME, network};

/// The order of `down`: whoever starts pods first, stores last. `etcd` and containerd are stopped after the pods.
pub const BEFORE_PODS: &[&str] =
    &["local-path", "kubelet", "kube-proxy", "kube-scheduler", "kube-controller-manager", "kube-apiserver"];
/// What is stopped when no container is left.
pub const AFTER_PODS: &[&str] = &["containerd", "etcd"];

/// Starts etcd, containerd, the API server, the controller manager, the scheduler and kube-proxy.
pub fn start_control_plane(cluster: &Cluster, processes: &Processes, binaries: &Path) -> Result<()> {
    processes.start(&etcd(cluster))?;
    processes.start(&Service {
        name: "containerd",
        arguments: vec!["containerd".to_owned(), "--config".to_owned(), path(cluster, "containerd.toml")],
        configuration: vec![cluster.root.join("containerd.toml")],
    })?;
    processes.start(&api_server(cluster, binaries))?;
    cluster.wait_for_kubectl(
        "the API server",
        &["etcd", "containerd", "kube-apiserver"],
        &["get", "--raw", "/readyz"],
    )?;
    processes.start(&controller_manager(cluster, binaries))?;
    let scheduler = ["--leader-elect=false".to_owned(), "--bind-address=127.0.0.1".to_owned()];
    processes.start(&kubernetes(cluster, binaries, "kube-scheduler", "scheduler", scheduler.to_vec()))?;
    processes.start(&kube_proxy(cluster, binaries))
}

/// Starts the kubelet and waits until the node is ready.
pub fn start_node(cluster: &Cluster, processes: &Processes, binaries: &Path) -> Result<()> {
    let mut kubelet = kubernetes(
        cluster,
        binaries,
        "kubelet",
        "kubelet",
        vec![
            format!("--config={}", path(cluster, "kubelet.yaml")),
            format!("--root-dir={}", path(cluster, "data/kubelet")),
            format!("--node-ip={NODE_ADDRESS}"),
            format!("--hostname-override={NODE_NAME}"),
        ],
    );
    kubelet.configuration.push(cluster.root.join("kubelet.yaml"));
    processes.start(&kubelet)?;
    let node = format!("node/{NODE_NAME}");
    let arguments = ["wait", "--for=condition=Ready", &node, "--timeout=1s"];
    cluster.wait_for_kubectl(
        "the node",
        &["kubelet", "kube-controller-manager", "kube-scheduler", "kube-proxy"],
        &arguments,
    )
}

fn etcd(cluster: &Cluster) -> Service<'static> {
    let arguments = [
        "etcd",
        "--data-dir",
        &path(cluster, "data/etcd"),
        "--listen-client-urls=http://127.0.0.1:2379",
        "--advertise-client-urls=http://127.0.0.1:2379",
        "--listen-peer-urls=http://127.0.0.1:2380",
        "--initial-advertise-peer-urls=http://127.0.0.1:2380",
        "--initial-cluster=default=http://127.0.0.1:2380",
        // A test cluster need not survive a power cut.
        "--unsafe-no-fsync",
    ];
    Service { name: "etcd", arguments: arguments.map(str::to_owned).to_vec(), configuration: Vec::new() }
}

fn api_server(cluster: &Cluster, binaries: &Path) -> Service<'static> {
    let pki = |name: &str| path(cluster, &format!("pki/{name}"));
    let arguments = vec![
        binaries.join("kube-apiserver").display().to_string(),
        "--etcd-servers=http://127.0.0.1:2379".to_owned(),
        format!("--advertise-address={NODE_ADDRESS}"),
        format!("--bind-address={NODE_ADDRESS}"),
        "--secure-port=6443".to_owned(),
        format!("--client-ca-file={}", pki("ca.crt")),
        format!("--tls-cert-file={}", pki("apiserver.crt")),
        format!("--tls-private-key-file={}", pki("apiserver.key")),
        format!("--kubelet-client-certificate={}", pki("api-kubelet.crt")),
        format!("--kubelet-client-key={}", pki("api-kubelet.key")),
        format!("--kubelet-certificate-authority={}", pki("ca.crt")),
        "--kubelet-preferred-address-types=InternalIP".to_owned(),
        "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
        format!("--service-account-key-file={}", pki("sa.pub")),
        format!("--service-account-signing-key-file={}", pki("sa.key")),
        "--authorization-mode=Node,RBAC".to_owned(),
        "--enable-admission-plugins=NodeRestriction".to_owned(),
        format!("--service-cluster-ip-range={}", network::SERVICES),
        "--allow-privileged=true".to_owned(),
        format!("--audit-policy-file={}", path(cluster, "audit-policy.yaml")),
        format!("--audit-log-path={}", cluster.audit_log().display()),
        // A rotation would move the marks of audit.rs.
        "--audit-log-maxsize=4000".to_owned(),
    ];
    let files = ["pki/ca.crt", "pki/apiserver.crt", "audit-policy.yaml"];
    Service { name: "kube-apiserver", arguments, configuration: files.map(|file| cluster.root.join(file)).to_vec() }
}

fn controller_manager(cluster: &Cluster, binaries: &Path) -> Service<'static> {
    let config = path(cluster, "controller-manager.kubeconfig");
    kubernetes(
        cluster,
        binaries,
        "kube-controller-manager",
        "controller-manager",
        vec![
            format!("--authentication-kubeconfig={config}"),
            format!("--authorization-kubeconfig={config}"),
            format!("--service-account-private-key-file={}", path(cluster, "pki/sa.key")),
            format!("--root-ca-file={}", path(cluster, "pki/ca.crt")),
            "--use-service-account-credentials=true".to_owned(),
            "--leader-elect=false".to_owned(),
            "--bind-address=127.0.0.1".to_owned(),
        ],
    )
}

/// The conntrack flags keep it from writing sysctls, which are read-only in many containers.
fn kube_proxy(cluster: &Cluster, binaries: &Path) -> Service<'static> {
    let flags = [
        &format!("--hostname-override={NODE_NAME}"),
        "--proxy-mode=nftables",
        &format!("--cluster-cidr={}", network::PODS),
        "--metrics-bind-address=127.0.0.1:10249",
        "--healthz-bind-address=127.0.0.1:10256",
        "--conntrack-max-per-core=0",
        "--conntrack-min=0",
        "--conntrack-tcp-timeout-established=0s",
        "--conntrack-tcp-timeout-close-wait=0s",
    ];
    kubernetes(cluster, binaries, "kube-proxy", "proxy", flags.map(str::to_owned).to_vec())
}

/// A Kubernetes binary that reads a kubeconfig; a new authority restarts it.
fn kubernetes<'a>(cluster: &Cluster, binaries: &Path, name: &'a str, user: &str, flags: Vec<String>) -> Service<'a> {
    let kubeconfig = path(cluster, &format!("{user}.kubeconfig"));
    let mut arguments = vec![binaries.join(name).display().to_string(), format!("--kubeconfig={kubeconfig}")];
    arguments.extend(flags);
    Service { name, arguments, configuration: vec![cluster.root.join("pki/ca.crt")] }
}

fn path(cluster: &Cluster, relative: &str) -> String {
    cluster.root.join(relative).display().to_string()
}
