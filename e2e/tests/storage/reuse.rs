//! The next checkpoint of a run, beside the one before: what did not change shares its blocks, or is copied (loop mounts,
//! filefrag).

use std::{collections::BTreeMap, fs, path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use checkpoint_operator::{
    api::VolumeStatus,
    contract::Report,
    local::{Display, Documents, InProcess, Settings, run},
    worker::Progress,
};
use checkpoint_operator_e2e::{command::capture, dependencies, s3::Body};
use tokio_util::sync::CancellationToken;

use super::seaweed::{ADMINISTRATOR, server};

/// A file system of its own, gone when this is dropped.
struct Mounted(tempfile::TempDir);

impl Mounted {
    fn xfs() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let (image, root) = (folder.path().join("image"), folder.path().join("root"));
        fs::File::create(&image)?.set_len(1 << 30)?;
        fs::create_dir(&root)?;
        capture(Command::new("mkfs.xfs").args(["-q", "-m", "reflink=1"]).arg(&image))?;
        capture(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&root))
            .context("a loop mount is needed for XFS")?;
        Ok(Self(folder))
    }

    fn root(&self) -> std::path::PathBuf {
        self.0.path().join("root")
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        capture(Command::new("umount").arg(self.root())).ok();
    }
}

struct Silent;

impl Display for Silent {
    fn begin(&self, _: &str) {}
    fn progress(&self, _: Progress) {}
    fn end(&self, _: &Report) {}
    fn note(&self, _: &str) {}
}

/// Does what `checkpoint-operator run --volumes` does with a Checkpoint.
async fn load(volumes: &Path, bucket: &str, step: &str, reuse: Option<&str>) -> Result<VolumeStatus> {
    let reuse = reuse.map(|claim| format!(", reuseFrom: {claim}")).unwrap_or_default();
    let manifest = format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: keys}}\nstringData: {{AWS_ACCESS_KEY_ID: {}, AWS_SECRET_ACCESS_KEY: {}}}\n---\n\
         apiVersion: checkpoints.dev/v1alpha1\nkind: Checkpoint\nmetadata: {{name: {step}}}\nspec: {{path: \"s3://{bucket}/{step}\", \
         storage: {{s3: {{endpoint: \"{}\", insecure: true, credentials: {{secretRef: {{name: keys}}}}}}}}, volumes: [{{claimName: {step}{reuse}}}]}}\n",
        ADMINISTRATOR.0,
        ADMINISTRATOR.1,
        server().endpoint,
    );
    let mut documents = Documents::default();
    documents.read("test", &manifest)?;
    let settings = Settings { volumes: volumes.to_owned(), ..Settings::default() };
    let runs = run(&settings, &documents, &InProcess, &Silent, &CancellationToken::new()).await?;
    let status = runs[0].checkpoint.status.clone().context("no status")?;
    let volume = status.volumes.first().cloned().context("no volume")?;
    ensure!(volume.persistent_volume.is_some(), "{status:?}");
    Ok(volume)
}

/// Leaves this many bytes of a file system.
fn fill(root: &Path, leave: u64) -> Result<()> {
    let listed = capture(Command::new("df").args(["--output=avail", "-B1"]).arg(root))?;
    let available: u64 = listed.lines().nth(1).context("no number from df")?.trim().parse()?;
    let length = available.checked_sub(leave).context("the file system is too small")?;
    capture(Command::new("fallocate").arg("-l").arg(length.to_string()).arg(root.join("ballast")))?;
    Ok(())
}

/// Whether all blocks of a file are another's, too.
fn is_shared(file: &Path) -> Result<bool> {
    let listed = capture(Command::new("filefrag").arg("-v").arg(file))?;
    let mut extents = listed.lines().filter(|line| line.trim_start().starts_with(|first: char| first.is_ascii_digit()));
    let all: Vec<bool> = extents.by_ref().map(|line| line.contains("shared")).collect();
    ensure!(!all.is_empty(), "no extents in {listed}");
    Ok(all.into_iter().all(|shared| shared))
}

#[tokio::test]
async fn unchanged_shards_are_shared_or_copied() -> Result<()> {
    const LENGTH: usize = 9 << 20;
    rustls::crypto::ring::default_provider().install_default().ok();
    dependencies::install()?;
    let shard = |fill: u8| -> Vec<u8> { (0..=250u8).map(|byte| byte ^ fill).cycle().take(LENGTH).collect() };
    let (first, second) = ([shard(1), shard(2), shard(3)], [shard(1), shard(9), shard(3)]);
    let client = &server().client;
    client.create_bucket("run")?;
    for (step, shards) in [("step-1", &first), ("step-2", &second)] {
        for (number, bytes) in shards.iter().enumerate() {
            client.put("run", &[(&format!("{step}/shard-{number}.raw"), Body::Bytes(bytes))])?;
        }
    }
    let (xfs, plain) = (Mounted::xfs()?, tempfile::tempdir()?);
    for (root, shares) in [(xfs.root(), true), (plain.path().to_owned(), false)] {
        let volumes = root.join("volumes");
        let before = load(&volumes, "run", "step-1", None).await?;
        assert_eq!(before.bytes_reused, None);
        if shares {
            // Room for the shard that changed, and not for three.
            fill(&root, 16 << 20)?;
        }
        let after = load(&volumes, "run", "step-2", Some("step-1")).await?;
        assert_eq!((after.bytes_reused, after.reuse_skipped), (Some(i64::try_from(2 * LENGTH)?), None));
        let held: BTreeMap<usize, Vec<u8>> = (0..3)
            .map(|number| Ok((number, fs::read(volumes.join(format!("step-2/shard-{number}.raw")))?)))
            .collect::<Result<_>>()?;
        assert!(second.iter().enumerate().all(|(number, bytes)| held[&number] == *bytes));
        for (number, unchanged) in [(0, true), (1, false), (2, true)] {
            let file = volumes.join(format!("step-2/shard-{number}.raw"));
            assert_eq!(is_shared(&file)?, shares && unchanged, "{}", file.display());
        }
        // A volume of its own: what is written there stays there.
        fs::write(volumes.join("step-2/shard-0.raw"), b"changed")?;
        assert!(fs::read(volumes.join("step-1/shard-0.raw"))? == first[0]);
    }
    Ok(())
}
