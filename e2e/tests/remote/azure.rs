//! Azure Blob Storage, as Azurite serves it, which checks signatures.

use std::sync::LazyLock;

use anyhow::{Context, Result};
use base64::{Engine, prelude::BASE64_STANDARD};
use checkpoint_operator::{
    contract::{Access, AzureTask, Reason, Source},
    storage::{Azure, Checksum, Retry, Storage, StorageError, Timeouts},
};
use futures::TryStreamExt;

use crate::{
    servers::{
        LOOPBACK,
        azure::{ACCOUNT, Server, key, sas},
        files,
    },
    support::{Breaking, assert_loaded, assert_refused, checkpoint, connection, place_with},
};

#[expect(clippy::expect_used, reason = "a helper of tests, which the lint does not see as one")]
static SERVER: LazyLock<Server> = LazyLock::new(|| Server::start(LOOPBACK).expect("Azurite starts"));

async fn container(name: &str, blobs: &[(&str, &[u8])]) -> Result<()> {
    SERVER.put(name, blobs).await
}

async fn checkpoint_in(name: &str) -> Result<()> {
    let files = files(&checkpoint())?;
    let keyed: Vec<_> = files.iter().map(|(file, bytes)| (format!("run/step-1/{file}"), bytes.as_slice())).collect();
    let mut blobs: Vec<_> = keyed.iter().map(|(key, bytes)| (key.as_str(), *bytes)).collect();
    blobs.push(("run/step-10/sibling", b"x"));
    container(name, &blobs).await
}

fn task(container: &str, path: &str, access: Access) -> AzureTask {
    let connection = connection(&SERVER.endpoint, access);
    AzureTask { account: ACCOUNT.into(), container: container.into(), path: path.into(), connection }
}

fn secret() -> Access {
    Access::Secret("azure".into())
}

#[tokio::test]
async fn a_checkpoint_is_loaded() -> Result<()> {
    checkpoint_in("models").await?;
    let source = Source::Azure(task("models", "run/step-1", secret()));
    let key = key();
    assert_loaded(&[("AZURE_STORAGE_KEY", &key)], &source).await?;
    let sas = sas("rl", "2099-01-01T00:00:00Z")?;
    assert_loaded(&[("AZURE_STORAGE_SAS_TOKEN", &sas), ("allowedHosts", "127.0.0.1")], &source).await?;
    let network = Breaking::before(&SERVER.endpoint)?;
    let mut broken = task("models", "run/step-1", secret());
    broken.connection.endpoint = Some(network.url());
    assert_loaded(&[("AZURE_STORAGE_KEY", &key)], &Source::Azure(broken)).await?;
    network.was_bad()
}

#[tokio::test]
async fn what_is_wrong_is_named() -> Result<()> {
    container("almost", &[("single", b"x"), ("ab/c", b"x")]).await?;
    let key = key();
    let good = [("AZURE_STORAGE_KEY", key.as_str())];
    let wrong = BASE64_STANDARD.encode(b"canary, another key");
    let (expired, wrong_sas) =
        (sas("rl", "2020-01-01T00:00:00Z")?, sas("rl", "2099-01-01T00:00:00Z")?.replace("sig=", "sig=canary"));
    let writing = sas("w", "2099-01-01T00:00:00Z")?;
    let sas = |text| [("AZURE_STORAGE_SAS_TOKEN", text), ("allowedHosts", "127.0.0.1")];
    for (keys, container, path, reason, part) in [
        (&good[..], "no-such-container", "x", Reason::NotFound, "no container no-such-container"),
        (&good, "almost", "nothing/here", Reason::NotFound, "begins with nothing/here/"),
        (&good, "almost", "single", Reason::InvalidPath, "single blob"),
        (&[], "almost", "ab", Reason::AccessDenied, "Secret azure does not exist"),
        (&[("AZURE_STORAGE_KEY", &wrong)], "almost", "ab", Reason::AccessDenied, "is wrong or expired"),
        (&[("AZURE_STORAGE_KEY", "canary!")], "almost", "ab", Reason::AccessDenied, "no key of a storage account"),
        (
            &[("AZURE_CLIENT_ID", "c"), ("allowedHosts", "127.0.0.1")],
            "almost",
            "ab",
            Reason::AccessDenied,
            "AZURE_TENANT_ID",
        ),
        (&sas(&expired), "almost", "ab", Reason::AccessDenied, "is wrong or expired"),
        (&sas(&wrong_sas), "almost", "ab", Reason::AccessDenied, "is wrong or expired"),
        (&sas(&writing), "almost", "ab", Reason::AccessDenied, "a SAS with read and list"),
        (&sas(&expired)[..1], "almost", "ab", Reason::AccessDenied, "key allowedHosts of Secret azure"),
    ] {
        assert_refused(keys, &Source::Azure(task(container, path, secret())), reason, part).await?;
    }
    let anonymous = Source::Azure(task("almost", "ab", Access::Anonymous));
    let report = place_with(&[])?.inspect(&anonymous).await;
    assert!(report.message.contains("storage.azure.credentials.secretRef"), "{report:?}");
    let ambient = Source::Azure(task("almost", "ab", Access::Ambient));
    assert_refused(&[], &ambient, Reason::AccessDenied, "only sent to Azure's own hosts").await
}

#[tokio::test]
async fn names_and_versions_are_as_they_are() -> Result<()> {
    let odd =
        ["a b.txt", "a+b%20c.txt", "ünï/模型.bin", "question?hash#.txt", "quote\"<&>.txt", "deep/er/file", "empty"];
    let keyed: Vec<String> = odd.iter().map(|name| format!("p/{name}")).collect();
    let many: Vec<String> = (0..1100).map(|number| format!("p/many/{number:04}")).collect();
    let blobs: Vec<_> = keyed
        .iter()
        .chain(&many)
        .map(|key| (key.as_str(), if key == "p/empty" { &b""[..] } else { b"bytes" }))
        .collect();
    container("odd", &blobs).await?;
    let key = key();
    let place = place_with(&[("AZURE_STORAGE_KEY", &key)])?;
    place.load(&Source::Azure(task("odd", "p", secret()))).await?;
    let found = place.files()?;
    assert_eq!(found.len(), odd.len() + many.len());
    assert!(odd.iter().all(|name| found.contains_key(*name)), "{:?}", found.keys().take(9).collect::<Vec<_>>());

    let open = task("odd", "p", secret());
    let storage = Azure::open_with(&open, &place.mounts(), Retry::default(), Timeouts::default())?;
    let listing = storage.list().await?;
    let entry = listing.entries.iter().find(|entry| entry.path == "a b.txt").context("not listed")?;
    assert!(matches!(entry.checksum, Some(Checksum::Md5(_))), "{entry:?}");
    assert_eq!(storage.read(entry, 1..3).try_collect::<Vec<_>>().await?.concat(), b"yt");
    container("odd", &[("p/a b.txt", b"other")]).await?;
    let replaced = storage.read(entry, 1..3).try_collect::<Vec<_>>().await;
    assert!(matches!(&replaced, Err(StorageError::Changed(_))), "{replaced:?}");
    Ok(())
}
