//! The Debian packages of the test cluster and of the storage tests, installed when they are missing (runs dpkg and apt-get).

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::command::{run, succeeds};

const PACKAGES: &[(&str, &str)] = &[
    ("containerd", "containerd"),
    ("runc", "runc"),
    ("containernetworking-plugins", "/usr/lib/cni/bridge"),
    ("etcd-server", "etcd"),
    ("iptables", "iptables"),
    ("nftables", "nft"),
    ("iproute2", "ip"),
    ("busybox-static", "busybox"),
    ("openssl", "openssl"),
    ("e2fsprogs", "mkfs.ext4"),
    ("xfsprogs", "mkfs.xfs"),
    ("btrfs-progs", "mkfs.btrfs"),
    ("util-linux", "nsenter"),
    ("mount", "mount"),
    ("procps", "sysctl"),
    ("nginx-light", "/usr/sbin/nginx"),
    ("nodejs", "node"),
    ("npm", "npm"),
];

/// Installs what is missing. Nothing is downloaded and no package list is refreshed when all is there.
pub fn install() -> Result<()> {
    let mut missing: Vec<&str> =
        PACKAGES.iter().filter(|(_, program)| !present(program)).map(|(package, _)| *package).collect();
    if !succeeds(Command::new("python3").args(["-c", "import venv, ensurepip"])) {
        missing.extend(["python3", "python3-venv"]);
    }
    if missing.is_empty() {
        return Ok(());
    }
    println!("Installing Debian packages: {}", missing.join(" "));
    let quiet = ServicesStayDown::begin()?;
    let installed = run(&mut apt_get(&["update", "-qq"]))
        .and_then(|()| run(apt_get(&["install", "-y", "-qq", "--no-install-recommends"]).args(&missing)));
    drop(quiet);
    installed.with_context(|| format!("the tests need these Debian packages: {}", missing.join(" ")))
}

fn apt_get(arguments: &[&str]) -> Command {
    let mut command = Command::new("apt-get");
    command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
    command
}

fn present(program: &str) -> bool {
    if program.starts_with('/') {
        return Path::new(program).exists();
    }
    env::var_os("PATH").is_some_and(|path| env::split_paths(&path).any(|folder| folder.join(program).is_file()))
}

/// While it lives, package scripts start no services (Debian's policy-rc.d): the cluster runs its own containerd
/// and etcd in its own namespace. A policy that the machine already has is left as it is.
struct ServicesStayDown(Option<PathBuf>);

impl ServicesStayDown {
    fn begin() -> Result<Self> {
        let policy = PathBuf::from("/usr/sbin/policy-rc.d");
        if policy.exists() {
            return Ok(Self(None));
        }
        fs::write(&policy, "#!/bin/sh\nexit 101\n").context("cannot keep package services down; are you root?")?;
        fs::set_permissions(&policy, fs::Permissions::from_mode(0o755))?;
        Ok(Self(Some(policy)))
    }
}

impl Drop for ServicesStayDown {
    fn drop(&mut self) {
        if let Some(policy) = &self.0 {
            fs::remove_file(policy).ok();
        }
    }
}
