//! Google Cloud Storage, as fake-gcs-server serves it: its JSON API, without a look at tokens.

use std::sync::LazyLock;

use anyhow::{Context, Result};
use checkpoint_operator::{
    contract::{Access, GcsTask, Reason, Source},
    storage::{Checksum, Gcs, Retry, Storage, StorageError, Timeouts},
};
use futures::TryStreamExt;

use crate::{
    servers::{
        LOOPBACK, files,
        gcs::{Server, key_file},
    },
    support::{Breaking, assert_loaded, assert_refused, checkpoint, connection, place_with},
};

#[expect(clippy::expect_used, reason = "a helper of tests, which the lint does not see as one")]
static SERVER: LazyLock<Server> = LazyLock::new(|| Server::start(LOOPBACK).expect("fake-gcs-server starts"));

async fn bucket(name: &str, objects: &[(&str, &[u8])]) -> Result<()> {
    SERVER.put(name, objects).await
}

async fn checkpoint_in(name: &str) -> Result<()> {
    let files = files(&checkpoint())?;
    let keyed: Vec<_> = files.iter().map(|(file, bytes)| (format!("run/step-1/{file}"), bytes.as_slice())).collect();
    let mut objects: Vec<_> = keyed.iter().map(|(key, bytes)| (key.as_str(), *bytes)).collect();
    objects.extend([("run/step-1/", &b""[..]), ("run/step-10/sibling", b"x")]);
    bucket(name, &objects).await
}

fn task(bucket: &str, path: &str, access: Access) -> GcsTask {
    GcsTask { bucket: bucket.into(), path: path.into(), connection: connection(&SERVER.endpoint, access) }
}

fn secret() -> Access {
    Access::Secret("gcs".into())
}

#[tokio::test]
async fn a_checkpoint_is_loaded() -> Result<()> {
    checkpoint_in("models").await?;
    let key = key_file()?;
    let keys = [("service-account.json", key.as_str()), ("allowedHosts", "127.0.0.1")];
    assert_loaded(&keys, &Source::Gcs(task("models", "run/step-1", secret()))).await?;
    assert_loaded(&[], &Source::Gcs(task("models", "run/step-1", Access::Anonymous))).await?;
    let network = Breaking::before(&SERVER.endpoint)?;
    let mut broken = task("models", "run/step-1", Access::Anonymous);
    broken.connection.endpoint = Some(network.url());
    assert_loaded(&[], &Source::Gcs(broken)).await?;
    network.was_bad()
}

#[tokio::test]
async fn what_is_wrong_is_named() -> Result<()> {
    bucket("almost", &[("single", b"x"), ("markers/", b""), ("ab/c", b"x")]).await?;
    let key = key_file()?;
    let full = [("key.json", key.as_str()), ("allowedHosts", "127.0.0.1")];
    for (keys, bucket, path, reason, part) in [
        (&full[..], "no-such-bucket", "x", Reason::NotFound, "no bucket no-such-bucket"),
        (&full, "almost", "nothing/here", Reason::NotFound, "begins with nothing/here/"),
        (&full, "almost", "single", Reason::InvalidPath, "single object"),
        (&full, "almost", "markers", Reason::Empty, "no file"),
        (&[], "almost", "ab", Reason::AccessDenied, "Secret gcs does not exist"),
        (&full[..1], "almost", "ab", Reason::AccessDenied, "key allowedHosts of Secret gcs"),
        (&full[1..], "almost", "ab", Reason::AccessDenied, "has no key service-account.json"),
        (&[("key.json", "canary")], "almost", "ab", Reason::AccessDenied, "allowedHosts"),
        (
            &[("key.json", "canary"), ("allowedHosts", "127.0.0.1")],
            "almost",
            "ab",
            Reason::AccessDenied,
            "not the key file of a service account: it is no JSON",
        ),
    ] {
        assert_refused(keys, &Source::Gcs(task(bucket, path, secret())), reason, part).await?;
    }
    let ambient = Source::Gcs(task("almost", "ab", Access::Ambient));
    assert_refused(&[], &ambient, Reason::AccessDenied, "only sent to Google's own hosts").await
}

#[tokio::test]
async fn names_and_versions_are_as_they_are() -> Result<()> {
    let odd = ["a b.txt", "a+b%20c.txt", "ünï/模型.bin", "question?hash#.txt", "deep/er/file", "empty"];
    let keyed: Vec<String> = odd.iter().map(|name| format!("p/{name}")).collect();
    let many: Vec<String> = (0..1100).map(|number| format!("p/many/{number:04}")).collect();
    let objects: Vec<_> = keyed
        .iter()
        .chain(&many)
        .map(|key| (key.as_str(), if key == "p/empty" { &b""[..] } else { b"bytes" }))
        .collect();
    bucket("odd", &objects).await?;
    let place = place_with(&[])?;
    place.load(&Source::Gcs(task("odd", "p", Access::Anonymous))).await?;
    let found = place.files()?;
    assert_eq!(found.len(), odd.len() + many.len());
    assert!(odd.iter().all(|name| found.contains_key(*name)), "{:?}", found.keys().take(9).collect::<Vec<_>>());

    let open = task("odd", "p", Access::Anonymous);
    let storage = Gcs::open_with(&open, &place.mounts(), Retry::default(), Timeouts::default())?;
    let listing = storage.list().await?;
    let entry = listing.entries.iter().find(|entry| entry.path == "a b.txt").context("not listed")?;
    assert!(matches!(entry.checksum, Some(Checksum::Crc32C(_))), "{entry:?}");
    assert_eq!(storage.read(entry, 1..3).try_collect::<Vec<_>>().await?.concat(), b"yt");
    bucket("odd", &[("p/a b.txt", b"other")]).await?;
    let replaced = storage.read(entry, 1..3).try_collect::<Vec<_>>().await;
    assert!(matches!(&replaced, Err(StorageError::Changed(_))), "{replaced:?}");
    Ok(())
}
