//! Workers against real S3 servers: SeaweedFS and Versity's gateway on loopback, filled by boto3. Needs no cluster.

#[path = "storage/disks.rs"]
mod disks;
#[path = "storage/place.rs"]
mod place;
#[path = "storage/reuse.rs"]
mod reuse;
#[path = "storage/seaweed.rs"]
mod seaweed;
#[path = "storage/summed.rs"]
mod summed;
#[path = "storage/versity.rs"]
mod versity;

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use checkpoint_operator::{
    contract::{Access, Depth, Outcome, Reason, S3Task, Source, TaskKind},
    storage::{Retry, S3, Storage, StorageError, Timeouts},
    worker::exit_code,
};
use checkpoint_operator_e2e::{python, s3::Body};
use futures::TryStreamExt;
use place::{Place, task};
use seaweed::{ADMINISTRATOR, STRANGER, server, source, write_secret};

/// A place with a Secret that may do everything.
fn place() -> Result<Place> {
    let place = Place::new()?;
    write_secret(place.secret.path(), ADMINISTRATOR)?;
    Ok(place)
}

fn s3(task: &S3Task) -> Source {
    Source::S3(task.clone())
}

fn bucket(name: &str, objects: &[(&str, &[u8])]) -> Result<()> {
    let client = &server().client;
    client.create_bucket(name)?;
    let objects: Vec<_> = objects.iter().map(|(key, bytes)| (*key, Body::Bytes(bytes))).collect();
    client.put(name, &objects)
}

#[tokio::test]
async fn keys_come_as_they_are_and_siblings_stay_away() -> Result<()> {
    let files: &[(&str, &[u8])] = &[
        ("a b.txt", b"space"),
        ("a+b.txt", b"plus"),
        ("a%20b.txt", b"percent"),
        ("100%.txt", b"percent at the end"),
        ("ünï/cödé 模型.bin", b"unicode"),
        ("e\u{301}.txt", b"combining"),
        ("~tilde!'()*&=@:,;$.txt", b"marks"),
        ("question?hash#.txt", b"reserved"),
        ("quote\"<xml>&amp;.txt", b"xml"),
        ("deep/er/and/deeper/file", b"deep"),
        ("empty", b""),
        ("deep/empty", b""),
    ];
    let keyed: Vec<(String, &[u8])> =
        files.iter().map(|(path, bytes)| (format!("run/step-1/{path}"), *bytes)).collect();
    let mut objects: Vec<(&str, &[u8])> = keyed.iter().map(|(key, bytes)| (key.as_str(), *bytes)).collect();
    objects.extend([
        ("run/step-1/", &b""[..]),
        ("run/step-1/deep/", b""),
        ("run/step-1/hollow/", b""),
        ("run/step-10/sibling", b"sibling"),
        ("run/step-1.txt", b"sibling"),
    ]);
    bucket("odd-keys", &objects)?;
    let place = place()?;
    let report = place.load(&s3(&server().source("odd-keys", "run/step-1"))).await?;
    let expected: BTreeMap<String, Vec<u8>> =
        files.iter().map(|(path, bytes)| ((*path).to_owned(), bytes.to_vec())).collect();
    assert_eq!(place.files()?, expected);
    assert_eq!(report.transfer.context("no transfer")?.files, files.len() as u64);
    Ok(())
}

#[tokio::test]
async fn what_is_not_there_is_named() -> Result<()> {
    bucket("almost", &[("single", b"x"), ("markers/", b""), ("markers/sub/", b""), ("ab/c", b"x")])?;
    let place = place()?;
    for (bucket, path, reason, part) in [
        ("no-such-bucket", "x", Reason::NotFound, "no bucket no-such-bucket"),
        ("almost", "nothing/here", Reason::NotFound, "begins with nothing/here/"),
        ("almost", "a", Reason::NotFound, "begins with a/"),
        ("almost", "single", Reason::InvalidPath, "single object"),
        ("almost", "markers", Reason::Empty, "no file"),
    ] {
        let report = place.inspect(&s3(&server().source(bucket, path))).await;
        assert_eq!(report.reason, Some(reason), "{report:?}");
        assert!(report.message.contains(part), "{}", report.message);
    }
    Ok(())
}

#[tokio::test]
async fn refusals_say_what_to_do() -> Result<()> {
    bucket("private", &[("run/file", b"x")])?;
    let place = place()?;
    let source = server().source("private", "run");
    for (keys, part) in [
        (("unknown-key", "x"), "AWS_ACCESS_KEY_ID is not known"),
        ((ADMINISTRATOR.0, "canary-wrong"), "AWS_SECRET_ACCESS_KEY does not belong"),
        (STRANGER, "s3:ListBucket"),
    ] {
        write_secret(place.secret.path(), keys)?;
        let report = place.inspect(&s3(&source)).await;
        assert_eq!((report.reason, exit_code(&report)), (Some(Reason::AccessDenied), 12), "{report:?}");
        assert!(report.message.contains(part) && report.message.contains("Secret s3-creds"), "{}", report.message);
        assert!(!format!("{report:?}").contains("canary"));
    }
    let anonymous = S3Task { access: Access::Anonymous, ..source.clone() };
    let report = place.inspect(&s3(&anonymous)).await;
    assert_eq!(report.reason, Some(Reason::AccessDenied), "{report:?}");
    assert!(report.message.contains("without credentials"), "{}", report.message);
    fs::remove_file(place.secret.path().join("AWS_SECRET_ACCESS_KEY"))?;
    let report = place.inspect(&s3(&source)).await;
    assert_eq!(report.message, "Secret s3-creds has no key AWS_SECRET_ACCESS_KEY");
    write_secret(place.secret.path(), ADMINISTRATOR)?;
    assert_eq!(place.inspect(&s3(&source)).await.outcome, Outcome::Good);
    Ok(())
}

#[tokio::test]
async fn reads_are_pinned_to_what_was_listed() -> Result<()> {
    bucket("pinned", &[("run/file", b"first"), ("run/other", b"x")])?;
    let place = place()?;
    let storage =
        S3::open_with(&server().source("pinned", "run"), &place.mounts(), Retry::default(), Timeouts::default())?;
    let listing = storage.list().await?;
    let read: Vec<_> = storage.read(&listing.entries[0], 1..4).try_collect().await?;
    assert_eq!(read.concat(), b"irs");
    server().client.put("pinned", &[("run/file", Body::Bytes(b"other"))])?;
    let replaced = storage.read(&listing.entries[0], 1..4).try_collect::<Vec<_>>().await;
    assert!(matches!(&replaced, Err(StorageError::Changed(text)) if text.starts_with("file ")), "{replaced:?}");
    let report = place
        .perform(&task(TaskKind::Load, &s3(&server().source("pinned", "run")), Some(&listing.fingerprint())))
        .await;
    assert_eq!((report.reason, exit_code(&report)), (Some(Reason::SourceChanged), 15));
    Ok(())
}

#[tokio::test]
async fn a_model_is_judged_loaded_and_hashed() -> Result<()> {
    let model = tempfile::tempdir()?;
    let made = python::script("make_model.py")?.arg(model.path()).args(["2", "24"]).status()?;
    assert!(made.success());
    server().client.create_bucket("models")?;
    let keys = server().client.put_folder("models", "llama", model.path())?;
    let place = place()?;
    let source = server().source("models", "llama");
    let report = place.load(&s3(&source)).await?;
    for key in &keys {
        let path = key.strip_prefix("llama/").context("a key without its prefix")?;
        assert!(fs::read(model.path().join(path))? == fs::read(place.volume.path().join(path))?, "{path}");
    }
    let mut content = task(TaskKind::Inspect, &s3(&source), None);
    content.validation.depth = Depth::Content;
    assert_eq!(place.perform(&content).await.digest, report.digest);

    let shard = keys.iter().find(|key| key.ends_with(".safetensors")).context("no shard")?;
    let bytes = server().client.get("models", shard)?;
    server().client.put("models", &[(shard, Body::Bytes(&bytes[..bytes.len() - 1]))])?;
    let report = place.inspect(&s3(&source)).await;
    assert_eq!((report.outcome, report.reason), (Outcome::Bad, Some(Reason::Corrupt)), "{report:?}");
    server().client.delete("models", &[shard])?;
    let report = place.inspect(&s3(&source)).await;
    assert_eq!((report.outcome, report.reason), (Outcome::Bad, Some(Reason::Incomplete)), "{report:?}");
    Ok(())
}

#[tokio::test]
async fn five_thousand_small_files_are_loaded_and_kept() -> Result<()> {
    const COUNT: usize = 5000;
    let keys: Vec<String> = (0..COUNT).map(|index| format!("run/{}/{index}.bin", index % 50)).collect();
    let objects: Vec<(&str, &[u8])> = keys.iter().map(|key| (key.as_str(), key.as_bytes())).collect();
    bucket("many", &objects)?;
    let place = place()?;
    let begun = Instant::now();
    let source = server().source("many", "run");
    let report = place.load(&s3(&source)).await?;
    println!("{COUNT} files were inspected, loaded and verified in {:?}", begun.elapsed());
    let files = place.files()?;
    assert_eq!(files.len(), COUNT);
    assert!(files.iter().all(|(path, bytes)| *bytes == format!("run/{path}").into_bytes()));
    let bytes = report.transfer.context("no transfer")?.bytes;
    let again = place.load(&s3(&source)).await?.transfer.context("no transfer")?;
    assert_eq!((again.bytes_fetched, again.bytes_kept), (0, bytes));
    Ok(())
}

/// In a process of its own, because peak memory is a matter of the whole process.
#[tokio::test]
async fn a_large_file_needs_little_memory() -> Result<()> {
    const MEBIBYTES: u64 = 768;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("weights.data");
    write_noise(&file, MEBIBYTES)?;
    server().client.create_bucket("large")?;
    server().client.put("large", &[("run/weights.data", Body::File(&file))])?;
    let output = Command::new(std::env::current_exe()?)
        .args(["--exact", "child_that_loads", "--ignored", "--nocapture"])
        .env("CHECKPOINT_TEST_ENDPOINT", &server().endpoint)
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let peak = text.lines().find_map(|line| line.strip_prefix("peak kB: ")).context("the child says no peak")?;
    println!("{MEBIBYTES} MiB: {text}");
    assert!(peak.trim().parse::<u64>()? <= 100 << 10, "{peak} kB");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by a_large_file_needs_little_memory"]
async fn child_that_loads() -> Result<()> {
    let place = place()?;
    let source = source(&std::env::var("CHECKPOINT_TEST_ENDPOINT")?, "large", "run");
    println!("before, kB: {}", peak_memory()?);
    let fingerprint = place.inspect(&s3(&source)).await.source.context("no source")?.fingerprint;
    let report = place.perform(&task(TaskKind::Load, &s3(&source), Some(&fingerprint))).await;
    println!("peak kB: {}", peak_memory()?);
    let transfer = report.transfer.context("no transfer")?;
    println!("loaded in {:?}", Duration::from_millis(transfer.milliseconds));
    Ok(())
}

/// The most memory that this process ever had, in kB.
fn peak_memory() -> Result<String> {
    let status = fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    Ok(peak.trim().trim_end_matches(" kB").to_owned())
}

/// Bytes that no compression and no hole makes cheaper.
fn write_noise(path: &Path, mebibytes: u64) -> Result<()> {
    let copied = std::io::copy(
        &mut std::io::Read::take(fs::File::open("/dev/urandom")?, mebibytes << 20),
        &mut fs::File::create(path)?,
    )?;
    assert_eq!(copied, mebibytes << 20);
    Ok(())
}
