//! Trees of files, made at random: what a load leaves in a volume is what rclone brings. Needs no cluster.
//!
//! Both fetch from the same server on loopback, which lists and serves a folder; it has any key that a file system can hold. Names
//! with control characters are left out, because a checkpoint may have none (it is refused with `InvalidPath`, which has tests of
//! its own), and so are the two code points that XML cannot carry. `CHECKPOINT_E2E_SEED` repeats a run.

#[path = "storage/place.rs"]
#[allow(dead_code, reason = "other tests use more of it")]
mod place;

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    fs::File,
    io::Read,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::Command,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, ensure};
use checkpoint_operator::contract::{Access, Outcome, S3Task, Source, TaskKind};
use checkpoint_operator_e2e::{
    command::run,
    folder_server::{BUCKET, Manner, Server},
    python,
};
use futures::{StreamExt, TryStreamExt, stream};
use place::{Place, task};
use rand::{RngExt, SeedableRng, rngs::StdRng};

const TREES: usize = 200;
/// So many trees are loaded at once.
const AT_ONCE: usize = 8;
/// Files larger than this are fetched in parts.
const PART: u64 = 16 << 20;
/// Segments of paths that are names all the same, and hard for somebody.
const ODD: &[&str] = &[
    "a b",
    "a+b",
    "a%20b",
    "100%",
    "ünï",
    "模型",
    "e\u{301}",
    "~!'()*&=@:,;$",
    "?#",
    "\"<&amp;>",
    "\\",
    "...",
    "..a",
    "-rf",
    " ",
    "trailing ",
    ".hidden",
    "CON",
    "*",
    "[x]",
    "{a,b}",
    "🦙",
    "\u{feff}",
    "\u{200b}",
    "x.safetensors.rclone",
    "：",
    "／",
];

fn segment(random: &mut StdRng) -> String {
    match random.random_range(0..10) {
        0..5 => format!("{}.data", random.random_range(0..1000)),
        5..9 => {
            let ending = ["", ".data", "é"][random.random_range(0..3)];
            format!("{}{ending}", ODD[random.random_range(0..ODD.len())])
        }
        _ => "n".repeat(random.random_range(1..=255)),
    }
}

/// Sizes around all that is treated apart: nothing, a block, a pooled buffer, a small file.
fn size(random: &mut StdRng) -> u64 {
    const EDGES: [u64; 7] = [0, 1, 4096, 64 << 10, 256 << 10, 1 << 20, 1 << 21];
    let edge = EDGES[random.random_range(0..EDGES.len())];
    match random.random_range(0..16) {
        0..4 => 0,
        4 => edge.saturating_sub(1),
        5 | 6 => edge + 1,
        _ => random.random_range(0..20_000),
    }
}

/// Writes a tree: few files or many, in shallow folders and deep ones. Some trees have files of several parts.
fn grow(root: &Path, number: usize, random: &mut StdRng) -> Result<()> {
    fs::create_dir_all(root)?;
    let mut folders = vec![root.to_owned()];
    let deep = if number.is_multiple_of(10) { 40 } else { 4 };
    for _ in 0..random.random_range(0..deep) {
        let above = if deep > 10 { folders.len() - 1 } else { random.random_range(0..folders.len()) };
        let folder = folders[above].join(segment(random));
        // Below the longest path that there can be, with what the volumes of both are called.
        if folder.as_os_str().len() < 3000 && !folder.exists() {
            fs::create_dir(&folder)?;
            folders.push(folder);
        }
    }
    let files = if number.is_multiple_of(25) { 200 } else { random.random_range(1..=12) };
    for _ in 0..files {
        let folder = &folders[random.random_range(0..folders.len())];
        let (path, size) = (folder.join(segment(random)), size(random));
        write(&path, size, random)?;
    }
    match number {
        // A little less than a part, a part, a little more, and several with a rest.
        7 => [PART - 1, PART, PART + 1, 3 * PART + 12_345]
            .iter()
            .try_for_each(|size| write(&root.join(format!("large-{size}")), *size, random)),
        // Most of it takes no room where it comes from.
        8 => {
            let file = File::create(root.join("sparse"))?;
            file.set_len((1 << 30) + 1)?;
            Ok((0..64).try_for_each(|_| {
                let at = random.random_range(0..1 << 30);
                file.write_all_at(&[random.random()], at)
            })?)
        }
        _ => Ok(()),
    }
}

fn write(path: &Path, size: u64, random: &mut StdRng) -> Result<()> {
    /// No two blocks are the same, so that none can be taken for another.
    const BLOCK: usize = 4096;
    if path.exists() {
        return Ok(());
    }
    let mut bytes = vec![0; usize::try_from(size)?];
    for block in bytes.chunks_mut(BLOCK) {
        let word = random.random::<u64>().to_le_bytes();
        block.fill(word[0]);
        let stamped = word.len().min(block.len());
        block[..stamped].copy_from_slice(&word[..stamped]);
    }
    fs::write(path, bytes).with_context(|| path.display().to_string())
}

/// Files below a folder with their sizes, without what is ours. Folders without files are none in a bucket.
fn files(root: &Path) -> Result<BTreeMap<PathBuf, u64>> {
    let (mut found, mut ahead) = (BTreeMap::new(), vec![root.to_owned()]);
    while let Some(folder) = ahead.pop() {
        for item in fs::read_dir(&folder)? {
            let path = item?.path();
            let name = path.strip_prefix(root)?;
            let metadata = fs::symlink_metadata(&path)?;
            if metadata.is_dir() {
                if name != Path::new(".checkpoint") {
                    ahead.push(path);
                }
            } else {
                ensure!(metadata.is_file(), "{} is no file", path.display());
                found.insert(name.to_owned(), metadata.len());
            }
        }
    }
    Ok(found)
}

/// Names, sizes and bytes are the same.
fn assert_same(what: &str, left: &Path, right: &Path) -> Result<u64> {
    let (left_files, right_files) = (files(left)?, files(right)?);
    let all: BTreeSet<_> = left_files.iter().chain(&right_files).collect();
    let other: Vec<_> = all
        .iter()
        .filter(|(name, size)| left_files.get(*name) != Some(size) || right_files.get(*name) != Some(size))
        .collect();
    assert!(other.is_empty(), "{what}: {other:?}");
    for name in left_files.keys() {
        assert!(same_bytes(&left.join(name), &right.join(name))?, "{what}: {} has other bytes", name.display());
    }
    Ok(left_files.values().sum())
}

fn same_bytes(left: &Path, right: &Path) -> Result<bool> {
    let (mut left, mut right) = (File::open(left)?, File::open(right)?);
    let (mut some, mut others) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    loop {
        let read = left.read(&mut some)?;
        if read == 0 {
            return Ok(right.read(&mut others)? == 0);
        }
        right.read_exact(&mut others[..read])?;
        if some[..read] != others[..read] {
            return Ok(false);
        }
    }
}

/// Everything in the bucket, by one rclone.
fn copy_with_rclone(endpoint: &str, target: &Path) -> Result<()> {
    let rclone = python::environment_of("load-bench-requirements.txt")?.join("bin/rclone");
    let mut copy = Command::new(rclone);
    copy.arg("copy").arg(format!(":s3:{BUCKET}")).arg(target);
    copy.args([
        "--s3-provider",
        "Other",
        "--s3-endpoint",
        endpoint,
        "--s3-region",
        "us-east-1",
        "--s3-list-version",
        "2",
    ]);
    copy.args([
        "--s3-force-path-style",
        "--s3-no-check-bucket",
        "--config",
        "/dev/null",
        "--retries",
        "1",
        "--transfers",
        "8",
    ]);
    run(copy.env("AWS_EC2_METADATA_DISABLED", "true"))
}

async fn load(endpoint: &str, tree: &str) -> Result<Place> {
    let source = Source::S3(S3Task {
        bucket: BUCKET.into(),
        path: tree.into(),
        region: "us-east-1".into(),
        endpoint: Some(endpoint.into()),
        insecure: true,
        access: Access::Anonymous,
        ..S3Task::default()
    });
    let place = Place::new()?;
    let inspected = place.inspect(&source).await;
    let fingerprint = inspected.source.as_ref().map(|source| source.fingerprint.as_str());
    let loaded = place.perform(&task(TaskKind::Load, &source, fingerprint)).await;
    ensure!(loaded.outcome == Outcome::Good, "{tree}: {inspected:?}, {loaded:?}");
    Ok(place)
}

/// Loads a tree and compares its volume; the volume goes at once, because all of them would be a lot. The tree's bytes.
async fn compare(endpoint: &str, tree: &str, source: PathBuf, by_rclone: PathBuf) -> Result<u64> {
    let place = load(endpoint, tree).await?;
    let (tree, volume) = (tree.to_owned(), place.volume.path().to_owned());
    let compared = tokio::task::spawn_blocking(move || {
        assert_same(&format!("{tree} and its source"), &volume, &source)?;
        assert_same(&format!("{tree} and rclone's"), &volume, &by_rclone)
    });
    compared.await?
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_is_what_rclone_brings() -> Result<()> {
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).map(|since| since.as_secs());
    let seed = env::var("CHECKPOINT_E2E_SEED").map_or_else(|_| Ok(now()?), |text| text.parse().context("a seed"))?;
    println!("CHECKPOINT_E2E_SEED={seed}");
    let (mut random, begun) = (StdRng::seed_from_u64(seed), Instant::now());
    let (sources, by_rclone) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let names: Vec<_> = (0..TREES).map(|number| format!("tree-{number}")).collect();
    for (number, name) in names.iter().enumerate() {
        grow(&sources.path().join(name), number, &mut random)?;
    }
    println!("made: {:?}", begun.elapsed());
    let server = Server::start(sources.path(), Manner::default())?;
    let endpoint = server.endpoint();
    let (to, target) = (endpoint.clone(), by_rclone.path().to_owned());
    let copying = tokio::task::spawn_blocking(move || copy_with_rclone(&to, &target));
    copying.await??;
    println!("rclone: {:?}", begun.elapsed());
    let (endpoint, sources, by_rclone) = (&endpoint, sources.path(), by_rclone.path());
    let bytes: Vec<u64> = stream::iter(&names)
        .map(|name| compare(endpoint, name, sources.join(name), by_rclone.join(name)))
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await?;
    println!("{TREES} trees, {} bytes: {:?}", bytes.iter().sum::<u64>(), begun.elapsed());
    Ok(())
}
