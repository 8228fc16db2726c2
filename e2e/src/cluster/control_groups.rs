//! A cgroup of the cluster's own, so that two clusters on one machine do not clean up each other's pods (file I/O).

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

const MOUNT: &str = "/sys/fs/cgroup";

/// Makes the group in every hierarchy; the kubelet asks for a root that exists.
pub fn create(name: &str) -> Result<()> {
    for hierarchy in hierarchies()? {
        let group = hierarchy.join(name);
        if !group.exists() {
            fs::create_dir(&group).with_context(|| format!("cannot make the cgroup {}", group.display()))?;
        }
        // Version 1's cpuset starts empty, and a process cannot join an empty one.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            let (from, to) = (hierarchy.join(file), group.join(file));
            if from.exists() && fs::read_to_string(&to).is_ok_and(|value| value.trim().is_empty()) {
                fs::write(&to, fs::read_to_string(&from)?)?;
            }
        }
    }
    Ok(())
}

/// Removes the group and those below it; they are empty once the pods are gone.
pub fn remove(name: &str) -> Result<()> {
    for hierarchy in hierarchies()? {
        remove_tree(&hierarchy.join(name));
    }
    Ok(())
}

/// Version 1: one folder for each controller. Version 2: the mount itself.
fn hierarchies() -> Result<Vec<PathBuf>> {
    let mount = Path::new(MOUNT);
    if mount.join("cgroup.controllers").exists() {
        return Ok(vec![mount.to_path_buf()]);
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(mount).context("cgroups are not mounted")? {
        let entry = entry?;
        // `cpu` may be a link to `cpu,cpuacct`; the real one is enough.
        if entry.file_type()?.is_dir() && entry.path().join("cgroup.procs").exists() {
            found.push(entry.path());
        }
    }
    Ok(found)
}

fn remove_tree(group: &Path) {
    let Ok(entries) = fs::read_dir(group) else {
        return;
    };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path());
        }
    }
    // A group that is still in use stays; the next `down` finds it again.
    fs::remove_dir(group).ok();
}
