//! The configuration files of containerd, the kubelet, the API server's audit log and the provisioner (file I/O).

use std::fs;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{Cluster, NODE_ADDRESS, network};
use crate::images;

/// The user that the volume provisioner acts as.
pub const PROVISIONER_USER: &str = "e2e:local-path-provisioner";

/// Writes all of them; services restart when theirs changed.
pub fn write_all(cluster: &Cluster) -> Result<()> {
    write(cluster, "cni/10-e2e.conflist", &network_plugins(cluster).to_string())?;
    write(cluster, "containerd.toml", &containerd(cluster))?;
    // Pods get their name server from the kubelet and nothing from the machine.
    write(cluster, "resolv.conf", "")?;
    write(cluster, "kubelet.yaml", &kubelet(cluster).to_string())?;
    write(cluster, "audit-policy.yaml", &audit_policy().to_string())?;
    write(cluster, "local-path.json", &provisioner(cluster).to_string())?;
    write(cluster, "helper-pod.yaml", &helper_pod().to_string())
}

fn write(cluster: &Cluster, name: &str, text: &str) -> Result<()> {
    let file = cluster.root.join(name);
    fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))
}

fn network_plugins(cluster: &Cluster) -> Value {
    json!({"cniVersion": "1.0.0", "name": "e2e", "plugins": [
        {"type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true, "ipMasq": false, "ipam": {
            "type": "host-local", "ranges": [[{"subnet": network::PODS}]], "routes": [{"dst": "0.0.0.0/0"}],
            "dataDir": cluster.root.join("run/cni-ipam"),
        }},
        {"type": "portmap", "capabilities": {"portMappings": true}},
    ]})
}

/// Without `restrict_oom_score_adj` no pod starts where root lacks `CAP_SYS_RESOURCE`.
fn containerd(cluster: &Cluster) -> String {
    let root = cluster.root.display();
    let pause = images::PAUSE;
    format!(
        r#"version = 2
root = "{root}/data/containerd"
state = "{root}/run/containerd"
[grpc]
  address = "{root}/run/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  stream_server_address = "127.0.0.1"
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{root}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
"#
    )
}

fn kubelet(cluster: &Cluster) -> Value {
    let root = &cluster.root;
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": NODE_ADDRESS,
        "authentication": {"anonymous": {"enabled": false}, "webhook": {"enabled": true}, "x509": {"clientCAFile": root.join("pki/ca.crt")}},
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": root.join("pki/kubelet.crt"),
        "tlsPrivateKeyFile": root.join("pki/kubelet.key"),
        "healthzBindAddress": "127.0.0.1",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": format!("/{}", cluster.namespace),
        "failCgroupV1": false,
        "failSwapOn": false,
        "clusterDNS": ["10.96.0.10"],
        "clusterDomain": "cluster.local",
        "resolvConf": root.join("resolv.conf"),
        "containerRuntimeEndpoint": format!("unix://{}", cluster.containerd_socket().display()),
        "evictionHard": {"memory.available": "50Mi", "nodefs.available": "1%", "imagefs.available": "1%", "nodefs.inodesFree": "1%"},
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "maxPods": 240,
        "podLogsDir": root.join("log/pods"),
        "volumePluginDir": root.join("data/volume-plugins"),
    })
}

/// Writes of everyone but the parts of the cluster itself: enough to count what an operator writes.
fn audit_policy() -> Value {
    json!({
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "rules": [
            {"level": "None", "users": [
                "system:apiserver", "system:kube-controller-manager", "system:kube-scheduler", "system:kube-proxy", PROVISIONER_USER,
            ]},
            {"level": "None", "userGroups": ["system:nodes", "system:serviceaccounts:kube-system"]},
            {"level": "Metadata", "verbs": ["create", "update", "patch", "delete", "deletecollection"]},
            {"level": "None"},
        ],
    })
}

/// `local-path` lives on the node and waits for the first consumer; `shared-immediate` stands for network storage.
fn provisioner(cluster: &Cluster) -> Value {
    json!({"storageClassConfigs": {
        "local-path": {"nodePathMap": [{"node": "DEFAULT_PATH_FOR_NON_LISTED_NODES", "paths": [cluster.root.join("volumes/local")]}]},
        "shared-immediate": {"sharedFileSystemPath": cluster.root.join("volumes/shared")},
    }})
}

fn helper_pod() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "helper-pod"},
        "spec": {"containers": [{"name": "helper-pod", "image": images::BUSYBOX, "imagePullPolicy": "IfNotPresent"}]},
    })
}
