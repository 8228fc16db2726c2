//! Azure Blob Storage, as Azurite serves it, which checks signatures.

use std::{process::Child, sync::LazyLock};

use anyhow::{Context, Result};
use base64::{Engine, prelude::BASE64_STANDARD};
use checkpoint_operator::{
    contract::{Access, AzureTask, Reason, Source},
    storage::{Azure, Checksum, Retry, Storage, StorageError, Timeouts},
};
use checkpoint_operator_e2e::servers;
use futures::TryStreamExt;
use sha2::{Digest, Sha256};

use crate::support::{
    Breaking, assert_loaded, assert_refused, checkpoint, client, connection, files, listens, place_with, port,
};

const ACCOUNT: &str = "checkpoints";
const KEY: &[u8] = b"a key of an account on loopback";

struct Server {
    endpoint: String,
    _guard: Child,
}

#[expect(clippy::expect_used, reason = "a helper of tests, which the lint does not see as one")]
static SERVER: LazyLock<Server> = LazyLock::new(|| Server::start().expect("Azurite starts"));

impl Server {
    fn start() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("checkpoint-azure-").tempdir()?.keep();
        let port = port()?;
        let mut server = servers::azurite()?;
        server.args(["--blobHost", "127.0.0.1", "--blobPort", &port.to_string()]);
        server.args(["--inMemoryPersistence", "--silent", "--disableTelemetry"]);
        server.env("AZURITE_ACCOUNTS", format!("{ACCOUNT}:{}", key()));
        let guard = servers::start(&folder, &server)?;
        listens("Azurite to listen", port)?;
        Ok(Self { endpoint: format!("http://127.0.0.1:{port}"), _guard: guard })
    }
}

fn key() -> String {
    BASE64_STANDARD.encode(KEY)
}

/// HMAC of RFC 2104 for keys of at most a block.
fn signature(text: &str) -> String {
    let pad = |mark: u8| {
        let mut block = [mark; 64];
        block.iter_mut().zip(KEY).for_each(|(byte, key)| *byte ^= key);
        block
    };
    let inner = Sha256::new().chain_update(pad(0x36)).chain_update(text).finalize();
    BASE64_STANDARD.encode(Sha256::new().chain_update(pad(0x5c)).chain_update(inner).finalize())
}

/// A shared access signature of the account:
/// <https://learn.microsoft.com/en-us/rest/api/storageservices/create-account-sas>.
fn sas(permissions: &str, ends: &str) -> Result<String> {
    let version = "2022-11-02";
    let signed = format!("{ACCOUNT}\n{permissions}\nb\nsco\n\n{ends}\n\n\n{version}\n\n");
    let mut url = reqwest::Url::parse("http://x")?;
    url.query_pairs_mut()
        .append_pair("sv", version)
        .append_pair("ss", "b")
        .append_pair("srt", "sco")
        .append_pair("sp", permissions)
        .append_pair("se", ends)
        .append_pair("sig", &signature(&signed));
    Ok(url.query().context("no query")?.to_owned())
}

async fn container(name: &str, blobs: &[(&str, &[u8])]) -> Result<()> {
    let (client, sas) = (client()?, sas("rwdlac", "2099-01-01T00:00:00Z")?);
    let mut url = reqwest::Url::parse(&format!("{}/{ACCOUNT}/{name}?restype=container&{sas}", SERVER.endpoint))?;
    client.put(url.clone()).header("content-length", 0).send().await?;
    for (key, bytes) in blobs {
        url.path_segments_mut()
            .map_err(|()| anyhow::anyhow!("no path"))?
            .clear()
            .extend([ACCOUNT, name])
            .extend(key.split('/'));
        url.set_query(Some(&sas));
        let put = client.put(url.clone()).header("content-length", bytes.len()).header("x-ms-blob-type", "BlockBlob");
        let put = put.body(bytes.to_vec());
        put.send().await?.error_for_status()?;
    }
    Ok(())
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
