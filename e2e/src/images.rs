//! The images of the cluster: which files they hold, and their import into containerd (file and process I/O).

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::cache::lock;
use crate::cluster::Cluster;
use crate::command::{capture, run, succeeds};
use crate::go_tools::Tool;
use crate::image::Image;
use crate::wait::{Now, wait_until};
use crate::{paths, python};

/// The sandbox of every pod.
pub const PAUSE: &str = "e2e.local/pause:1";
/// A shell and the usual tools, for consumer pods.
pub const BUSYBOX: &str = "e2e.local/busybox:1";
/// The same image under the name that the repository's examples use, so that they run here word for word.
const BUSYBOX_OF_EXAMPLES: &str = "docker.io/library/busybox:1.37";
/// The name server.
pub const COREDNS: &str = "e2e.local/coredns:1";
/// The S3 server.
pub const SEAWEEDFS: &str = "e2e.local/seaweedfs:1";
/// The repository of the product's image; its tag is a hash of its content.
pub const PRODUCT: &str = "e2e.local/checkpoint-operator";
/// What the product runs as unless the pod says otherwise.
const PRODUCT_USER: &str = "65532:65532";
const CA_BUNDLE: &str = "/etc/ssl/certs/ca-certificates.crt";

const BUSYBOX_TOOLS: &[&str] = &[
    "sh",
    "sleep",
    "cat",
    "ls",
    "mkdir",
    "rm",
    "mv",
    "cp",
    "ln",
    "wget",
    "id",
    "mount",
    "df",
    "du",
    "dd",
    "head",
    "tail",
    "stat",
    "touch",
    "sha256sum",
    "find",
    "sort",
    "xargs",
    "grep",
    "test",
    "true",
    "false",
    "echo",
    "printf",
    "chmod",
    "nslookup",
    "nc",
    "wc",
    "date",
];

/// Imports the images that the cluster itself needs.
pub fn import_base(cluster: &Cluster) -> Result<()> {
    wait_until("containerd", Duration::from_secs(30), || {
        Ok(Now::when(succeeds(cluster.ctr().arg("version")), "it does not answer"))
    })?;
    let box_binary = program("busybox")?;
    let pause =
        Image::starting(&["/bin/sleep", "2147483647"]).file("/bin/busybox", &box_binary).link("/bin/sleep", "busybox");
    import_once(cluster, PAUSE, &pause)?;
    let tools = BUSYBOX_TOOLS.iter();
    let shell = tools.fold(Image::starting(&["/bin/sh"]).file("/bin/busybox", &box_binary), |image, tool| {
        image.link(format!("/bin/{tool}"), "busybox")
    });
    import_once(cluster, BUSYBOX, &shell)?;
    if !is_imported(cluster, BUSYBOX_OF_EXAMPLES)? {
        capture(cluster.ctr().args(["images", "tag", BUSYBOX, BUSYBOX_OF_EXAMPLES]))?;
    }
    import_once(cluster, COREDNS, &Image::starting(&["/coredns"]).file("/coredns", Tool::CoreDns.binary("coredns")?))
}

/// Imports the S3 server's image.
pub fn import_seaweedfs(cluster: &Cluster) -> Result<()> {
    import_once(cluster, SEAWEEDFS, &Image::starting(&["/weed"]).file("/weed", python::weed()?))
}

/// Builds the product's binary and imports its image. Returns the image's name, `e2e.local/checkpoint-operator:<hash>`:
/// a rebuilt binary is another image. `variant` makes an image of another name with the same files (for upgrades).
pub fn product(cluster: &Cluster, variant: &str) -> Result<String> {
    run(paths::cargo().args(["build", "--release", "--quiet", "--package", "checkpoint-operator"]))?;
    import_product(cluster, variant)
}

/// Like [`product`], for a binary that was built already.
pub fn import_product(cluster: &Cluster, variant: &str) -> Result<String> {
    let binary = paths::product_binary();
    let mut image =
        Image::starting(&["/checkpoint-operator"]).user(PRODUCT_USER).label("dev.checkpoints.variant", variant);
    image = image
        .file("/checkpoint-operator", &binary)
        .text("/etc/passwd", "nonroot:x:65532:65532:nonroot:/:/sbin/nologin\n");
    if Path::new(CA_BUNDLE).exists() {
        image = image.text(CA_BUNDLE, &std::fs::read_to_string(CA_BUNDLE)?);
    }
    for library in shared_libraries(&binary)? {
        image = image.file(library.clone(), library);
    }
    let _lock = lock(&archives(cluster).with_extension("lock"))?;
    let (name, archive) = image.write(&archives(cluster), |hash| format!("{PRODUCT}:{hash}"))?;
    import(cluster, &name, &archive)?;
    Ok(name)
}

/// The loader and the libraries of a dynamically linked binary; none for a static one.
fn shared_libraries(binary: &Path) -> Result<Vec<PathBuf>> {
    let listing = Command::new("ldd").arg(binary).output().context("ldd is missing")?;
    let text = String::from_utf8_lossy(&listing.stdout);
    if !listing.status.success() && !String::from_utf8_lossy(&listing.stderr).contains("not a dynamic executable") {
        bail!("ldd cannot read {}", binary.display());
    }
    if text.contains("not found") {
        bail!("{} needs a library that is not on this machine:\n{text}", binary.display());
    }
    Ok(libraries_of(&text))
}

/// `name => /path (address)` or `/path (address)`; the kernel's own library has no path.
fn libraries_of(listing: &str) -> Vec<PathBuf> {
    listing.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect()
}

fn import_once(cluster: &Cluster, name: &str, image: &Image) -> Result<()> {
    if cluster.is_local() && is_imported(cluster, name)? {
        return Ok(());
    }
    // Tests that start together want the same images.
    let _lock = lock(&archives(cluster).with_extension("lock"))?;
    if cluster.is_local() && is_imported(cluster, name)? {
        return Ok(());
    }
    let (_, archive) = image.write(&archives(cluster), |_| name.to_owned())?;
    import(cluster, name, &archive)
}

fn import(cluster: &Cluster, name: &str, archive: &Path) -> Result<()> {
    if !cluster.is_local() {
        import_into_kind(cluster, name, archive)?;
    } else if !is_imported(cluster, name)? {
        capture(cluster.ctr().args(["images", "import"]).arg(archive))
            .with_context(|| format!("cannot import {name}"))?;
    }
    std::fs::remove_file(archive)?;
    Ok(())
}

/// A cluster that we did not start can only be given images when it is one of kind's.
fn import_into_kind(cluster: &Cluster, name: &str, archive: &Path) -> Result<()> {
    let context = capture(cluster.kubectl()?.args(["config", "current-context"]))?;
    let Some(kind) = context.trim().strip_prefix("kind-") else {
        bail!("images can be loaded into the local cluster and into kind clusters, not into `{}`", context.trim());
    };
    capture(Command::new("kind").args(["load", "image-archive", "--name", kind]).arg(archive))
        .with_context(|| format!("cannot load {name} into kind"))?;
    Ok(())
}

fn is_imported(cluster: &Cluster, name: &str) -> Result<bool> {
    Ok(capture(cluster.ctr().args(["images", "list", "--quiet"]))?.lines().any(|known| known == name))
}

fn archives(cluster: &Cluster) -> PathBuf {
    cluster.root().join("images")
}

fn program(name: &str) -> Result<PathBuf> {
    let found = capture(Command::new("sh").args(["-c", &format!("command -v {name}")]))
        .with_context(|| format!("{name} is missing"))?;
    Ok(PathBuf::from(found.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_taken_from_either_form_of_ldd_line() {
        let listing = "\tlinux-vdso.so.1 (0x1)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x2)\n\t/lib64/ld-linux-x86-64.so.2 (0x3)\n";
        assert_eq!(
            libraries_of(listing),
            [PathBuf::from("/lib/x86_64-linux-gnu/libc.so.6"), PathBuf::from("/lib64/ld-linux-x86-64.so.2")]
        );
        assert!(libraries_of("\tstatically linked\n").is_empty());
    }
}
