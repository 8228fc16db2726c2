//! The end of a local cluster: processes, containers, mounts, namespace and data, in that order (process and file I/O).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::processes::Processes;
use super::{Cluster, control_groups, network, services};
use crate::command::{capture, succeeds};
use crate::wait::{Now, wait_until};

/// Mount points may lie on top of each other; each round takes off one layer.
const ROUNDS: usize = 5;

/// Stops the cluster and removes its data. Repeatable: what is gone already is skipped.
pub fn down(cluster: &Cluster, processes: &Processes) -> Result<()> {
    for name in services::BEFORE_PODS {
        processes.kill(name)?;
    }
    remove_containers(cluster)?;
    for name in services::AFTER_PODS {
        processes.kill(name)?;
    }
    unmount_below(cluster.root())?;
    network::remove(cluster)?;
    control_groups::remove(&cluster.namespace)?;
    for folder in ["run", "data", "volumes", "tiny", "cni", "images"] {
        let folder = cluster.root().join(folder);
        if folder.exists() {
            fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
        }
    }
    Ok(())
}

/// The shims of a container end when its task is deleted.
fn remove_containers(cluster: &Cluster) -> Result<()> {
    if !succeeds(cluster.ctr().arg("version")) {
        return Ok(());
    }
    for task in capture(cluster.ctr().args(["tasks", "list", "--quiet"]))?.lines() {
        // A task may have ended on its own.
        succeeds(cluster.ctr().args(["tasks", "kill", "--all", "--signal", "SIGKILL", task]));
    }
    wait_until("the containers to end", Duration::from_secs(20), || {
        for task in capture(cluster.ctr().args(["tasks", "list", "--quiet"]))?.lines() {
            succeeds(cluster.ctr().args(["tasks", "delete", "--force", task]));
        }
        let left = capture(cluster.ctr().args(["tasks", "list", "--quiet"]))?;
        Ok(Now::when(left.trim().is_empty(), &format!("these run: {left}")))
    })
}

fn unmount_below(root: &Path) -> Result<()> {
    for _ in 0..ROUNDS {
        for mount in mounts_below(root)?.iter().rev() {
            succeeds(Command::new("umount").arg("--lazy").arg(mount));
        }
    }
    match mounts_below(root)?.as_slice() {
        [] => Ok(()),
        // Removing data through a mount could remove what is mounted.
        left => bail!("still mounted, so nothing was removed: {left:?}"),
    }
}

fn mounts_below(root: &Path) -> Result<Vec<PathBuf>> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(4)).map(unescape).map(PathBuf::from);
    let mut below: Vec<_> = points.filter(|point| point.starts_with(root) && point != root).collect();
    below.sort();
    Ok(below)
}

/// The kernel writes space, tab, newline and backslash as three octal digits.
fn unescape(field: &str) -> String {
    ["\\040", "\\011", "\\012", "\\134"]
        .iter()
        .zip([" ", "\t", "\n", "\\"])
        .fold(field.to_owned(), |text, (code, plain)| text.replace(code, plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_read_as_the_kernel_writes_them() {
        assert_eq!(unescape(r"/a\040b\134c"), r"/a b\c");
    }

    #[test]
    fn a_folder_without_mounts_has_none() {
        assert!(mounts_below(Path::new("/nonexistent")).unwrap().is_empty());
        assert!(!mounts_below(Path::new("/")).unwrap().is_empty());
    }
}
