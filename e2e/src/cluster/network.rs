//! The cluster's network namespace: a loopback device, a bridge that carries the node's address, no way out (runs `ip`).

use std::process::Command;

use anyhow::Result;

use super::{Cluster, NODE_ADDRESS};
use crate::command::{capture, succeeds};

/// The addresses of Services.
pub const SERVICES: &str = "10.96.0.0/16";
/// The addresses of pods.
pub const PODS: &str = "10.244.0.0/24";
const DEVICE: &str = "node0";

/// Makes the namespace and its devices, or what is missing of them.
pub fn up(cluster: &Cluster) -> Result<()> {
    if !cluster.namespace_file().exists() {
        capture(Command::new("ip").args(["netns", "add", &cluster.namespace]))?;
    }
    let inside = |words: &str| {
        let mut command = cluster.command("ip");
        command.args(words.split_whitespace());
        command
    };
    capture(&mut inside("link set lo up"))?;
    // A bridge, because the kernel may lack `dummy` devices.
    if !succeeds(&mut inside(&format!("link show {DEVICE}"))) {
        capture(&mut inside(&format!("link add {DEVICE} type bridge")))?;
    }
    capture(&mut inside(&format!("addr replace {NODE_ADDRESS}/24 dev {DEVICE}")))?;
    capture(&mut inside(&format!("link set {DEVICE} up")))?;
    // Lets processes of the node reach Services; kube-proxy rewrites the addresses.
    capture(&mut inside(&format!("route replace {SERVICES} dev {DEVICE}")))?;
    capture(cluster.command("sysctl").args(["-qw", "net.ipv4.ip_forward=1"]))?;
    Ok(())
}

/// Removes the namespace with everything in it.
pub fn remove(cluster: &Cluster) -> Result<()> {
    if cluster.namespace_file().exists() {
        capture(Command::new("ip").args(["netns", "delete", &cluster.namespace]))?;
    }
    Ok(())
}
