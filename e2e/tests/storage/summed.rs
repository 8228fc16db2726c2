//! Checksums that S3 servers hold: each kind is compared with what came, and finds what was damaged where it is stored.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use checkpoint_operator::contract::{Outcome, Reason, Report, S3Task, TaskKind};
use checkpoint_operator_e2e::s3::S3;

use crate::{
    place,
    place::{Place, task},
    s3, seaweed, versity,
};

/// Algorithms with the ways to upload: at once, in parts with a sum of the whole, in parts with a sum of their sums.
const KINDS: [(&str, Option<&str>); 10] = [
    ("CRC32", None),
    ("CRC32C", None),
    ("CRC64NVME", None),
    ("SHA256", None),
    ("CRC32", Some("FULL_OBJECT")),
    ("CRC32C", Some("FULL_OBJECT")),
    ("CRC64NVME", Some("FULL_OBJECT")),
    ("CRC32", Some("COMPOSITE")),
    ("CRC32C", Some("COMPOSITE")),
    ("SHA256", Some("COMPOSITE")),
];
/// The file is fetched in more than one part of ours, and was uploaded in several.
const SIZE: usize = (17 << 20) + 3;
const FILE: &str = "weights.data";

fn prefix(algorithm: &str, parts: Option<&str>) -> String {
    format!("{algorithm}-{}", parts.unwrap_or("WHOLE"))
}

/// A bucket with an object of each kind, and what they all hold.
fn fill(client: &S3, bucket: &str) -> Result<Vec<u8>> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join(FILE);
    let bytes: Vec<u8> =
        (0..SIZE).map(|index| u8::try_from((index ^ (index >> 9)) % 251).unwrap_or_default()).collect();
    fs::write(&file, &bytes)?;
    client.create_bucket(bucket)?;
    for (algorithm, parts) in KINDS {
        let key = format!("{}/{FILE}", prefix(algorithm, parts));
        client.put_summed(bucket, &key, &file, algorithm, parts).with_context(|| key.clone())?;
    }
    Ok(bytes)
}

async fn assert_compared(client: &S3, bucket: &str, source: impl Fn(&str) -> S3Task) -> Result<()> {
    let bytes = fill(client, bucket)?;
    for (algorithm, parts) in KINDS {
        let prefix = prefix(algorithm, parts);
        let place = place()?;
        let transfer = place.load(&s3(&source(&prefix))).await?.transfer.context("no transfer")?;
        assert!(fs::read(place.volume.path().join(FILE))? == bytes, "{prefix}");
        // Neither server tells the sums of the parts, without which a sum of sums cannot be compared.
        let expected = if parts == Some("COMPOSITE") { 0 } else { SIZE as u64 };
        assert_eq!(transfer.bytes_verified, expected, "{prefix}");
    }
    Ok(())
}

#[tokio::test]
async fn each_kind_is_compared_at_seaweedfs() -> Result<()> {
    let server = seaweed::server();
    assert_compared(&server.client, "summed", |path| server.source("summed", path)).await
}

#[tokio::test]
async fn each_kind_is_compared_at_the_gateway() -> Result<()> {
    let server = versity::server();
    assert_compared(&server.client, "summed", |path| server.source("summed", path)).await
}

/// The load without its inspection, which would read nothing of such a file.
async fn loaded(place: &Place, source: &S3Task) -> Result<Report> {
    let source = s3(source);
    let fingerprint = place.inspect(&source).await.source.context("no source")?.fingerprint;
    Ok(place.perform(&task(TaskKind::Load, &source, Some(&fingerprint))).await)
}

/// What pods could see of the file.
fn is_visible(volume: &Path) -> bool {
    volume.join(FILE).exists() || volume.join(".checkpoint/manifest.json").exists()
}

#[tokio::test]
async fn each_kind_finds_a_bit_that_was_flipped_where_it_is_stored() -> Result<()> {
    let server = versity::server();
    fill(&server.client, "damaged")?;
    for (algorithm, parts) in KINDS.into_iter().filter(|(_, parts)| *parts != Some("COMPOSITE")) {
        let prefix = prefix(algorithm, parts);
        server.damage("damaged", &format!("{prefix}/{FILE}"), (16 << 20) + 77)?;
        let place = place()?;
        let report = loaded(&place, &server.source("damaged", &prefix)).await?;
        assert_eq!((report.outcome, report.reason), (Outcome::Failed, Some(Reason::Corrupt)), "{prefix}: {report:?}");
        let said = format!("{FILE} came with another {} than its storage holds", name(algorithm));
        assert!(report.message.contains(&said), "{}", report.message);
        assert!(!is_visible(place.volume.path()), "{prefix}");
    }
    Ok(())
}

/// As messages call it.
fn name(algorithm: &str) -> &str {
    match algorithm {
        "CRC32" => "CRC-32",
        "CRC32C" => "CRC-32C",
        "CRC64NVME" => "CRC-64/NVME",
        _ => "SHA-256",
    }
}
