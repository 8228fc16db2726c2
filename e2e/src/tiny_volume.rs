//! Volumes that are small file systems of their own, to fill a disk on purpose (mkfs, loop mounts, kubectl).
//!
//! The local-path classes enforce no size. A volume of class `tiny` holds an ext4 file system in a file; the capacity
//! that Kubernetes is told may be larger than what really fits.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::json;

use crate::cluster::{Cluster, NODE_NAME};
use crate::command::{capture, feed, succeeds};

/// The storage class of these volumes.
pub const CLASS: &str = "tiny";

/// Makes the PersistentVolume `name` with a file system of `mebibytes`, announced to Kubernetes as `capacity`
/// (for example `10Gi`). Returns its folder on this machine.
pub fn create(cluster: &Cluster, name: &str, mebibytes: u64, capacity: &str) -> Result<PathBuf> {
    if !cluster.is_local() {
        bail!("tiny volumes are mounts on this machine and need the local cluster; unset KUBECONFIG");
    }
    let (image, folder) = places(cluster, name);
    if !image.exists() {
        fs::create_dir_all(&folder)?;
        File::create(&image)?.set_len(mebibytes << 20)?;
        capture(Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0"]).arg(&image))?;
    }
    if !is_mounted(&folder) {
        capture(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&folder))
            .context("a loop mount is needed for a tiny volume")?;
    }
    fs::set_permissions(&folder, Permissions::from_mode(0o777))?;
    let volume = json!({
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": capacity},
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": CLASS,
            "local": {"path": folder},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [
                {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [NODE_NAME]}]},
            ]}},
        },
    });
    feed(cluster.kubectl()?.args(["apply", "--server-side", "-f", "-"]), volume.to_string().as_bytes())?;
    Ok(folder)
}

/// Removes the volume and its file system; the claim should be gone.
pub fn remove(cluster: &Cluster, name: &str) -> Result<()> {
    capture(cluster.kubectl()?.args(["delete", "persistentvolume", name, "--ignore-not-found", "--timeout=30s"]))?;
    let (image, folder) = places(cluster, name);
    if is_mounted(&folder) {
        capture(Command::new("umount").arg(&folder))?;
    }
    for gone in [fs::remove_file(image), fs::remove_dir(folder)] {
        gone.or_else(|error| if error.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(error) })?;
    }
    Ok(())
}

fn places(cluster: &Cluster, name: &str) -> (PathBuf, PathBuf) {
    let tiny = cluster.root().join("tiny");
    (tiny.join(format!("{name}.img")), tiny.join(name))
}

fn is_mounted(folder: &Path) -> bool {
    succeeds(Command::new("mountpoint").arg("-q").arg(folder))
}
