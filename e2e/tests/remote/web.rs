//! Plain HTTP, as nginx serves it: with ranges and without, behind a password, with TLS, with redirects.

use std::{fs, path::Path, sync::LazyLock};

use anyhow::{Context, Result};
use checkpoint_operator::{
    contract::{Access, AzureTask, Connection, GcsTask, HttpTask, HuggingFaceTask, Reason, S3Task, Source},
    storage::{Checksum, Http, Retry, Storage, Timeouts},
    worker::exit_code,
};
use checkpoint_operator_e2e::{cache::hex, paths};
use sha2::{Digest, Sha256};

use crate::{
    servers::{
        LOOPBACK, files,
        web::{PASSWORD, Server, USER},
    },
    support::{Breaking, assert_loaded, assert_refused, checkpoint, connection, place_with},
};

const LARGE: usize = (34 << 20) + 5;

#[expect(clippy::expect_used, reason = "a helper of tests, which the lint does not see as one")]
static SERVER: LazyLock<Server> = LazyLock::new(|| Server::start(LOOPBACK, fill).expect("nginx starts"));

/// The checkpoint in `llama`, in `sums` with a `SHA256SUMS` beside it, and a large file in `large`.
fn fill(root: &Path) -> Result<()> {
    let files = files(&checkpoint())?;
    for name in ["llama", "sums", "large"] {
        fs::create_dir_all(root.join(name))?;
    }
    let mut sums = String::new();
    for (name, bytes) in &files {
        fs::write(root.join("llama").join(name), bytes)?;
        fs::write(root.join("sums").join(name), bytes)?;
        sums.extend([&hex(&Sha256::digest(bytes)), " *./", name, "\n"]);
    }
    fs::write(root.join("sums/SHA256SUMS"), sums)?;
    fs::write(root.join("large/weights.data"), large())?;
    Ok(())
}

fn large() -> Vec<u8> {
    (0..LARGE).map(|index| u8::try_from(index % 251).unwrap_or_default()).collect()
}

fn all_files() -> Result<Vec<String>> {
    Ok(files(&checkpoint())?.into_keys().collect())
}

fn task(url: String, files: Vec<String>, access: Access) -> HttpTask {
    HttpTask { url, files, manifest: None, connection: Connection { insecure: true, access, ..Connection::default() } }
}

fn llama(server: &str) -> Result<HttpTask> {
    Ok(task(format!("{server}/llama"), all_files()?, Access::Anonymous))
}

#[tokio::test]
async fn a_checkpoint_is_loaded() -> Result<()> {
    let server = &*SERVER;
    assert_loaded(&[], &Source::Http(llama(&server.plain)?)).await?;
    assert_loaded(&[], &Source::Http(llama(&server.without_ranges)?)).await?;
    for folder in ["renamed", "elsewhere"] {
        let moved = task(format!("{}/{folder}", server.plain), all_files()?, Access::Anonymous);
        assert_loaded(&[], &Source::Http(moved)).await?;
    }
    let behind = HttpTask { connection: secret(), ..llama(&server.password)? };
    let keys = [("username", USER), ("password", PASSWORD), ("allowedHosts", "127.0.0.1")];
    assert_loaded(&keys, &Source::Http(behind)).await?;
    let network = Breaking::before(&server.plain)?;
    assert_loaded(&[], &Source::Http(llama(&network.url())?)).await?;
    network.was_bad()?;
    let network = Breaking::before(&server.without_ranges)?;
    assert_loaded(&[], &Source::Http(llama(&network.url())?)).await?;
    network.was_bad()
}

fn secret() -> Connection {
    Connection { insecure: true, access: Access::Secret("web".into()), ..Connection::default() }
}

#[tokio::test]
async fn certificates_of_our_own_authority_are_trusted_when_told() -> Result<()> {
    let tls = llama(&SERVER.tls)?;
    assert_refused(&[], &Source::Http(tls.clone()), Reason::TlsFailed, "storage.http.caBundle").await?;
    let place = place_with(&[])?;
    let mut mounts = place.mounts();
    mounts.ca = paths::workspace().join("src/storage/backends/remote/fixtures/ca.crt");
    let connection = Connection { ca: Some("web-ca/ca.crt".into()), ..Connection::default() };
    let storage = Http::open(&HttpTask { connection, ..tls }, &mounts)?;
    assert_eq!(storage.list().await?.entries.len(), all_files()?.len());
    Ok(())
}

#[tokio::test]
async fn manifests_name_the_files_and_their_checksums() -> Result<()> {
    let sums = HttpTask {
        manifest: Some("SHA256SUMS".into()),
        ..task(format!("{}/sums", SERVER.plain), Vec::new(), Access::Anonymous)
    };
    let place = place_with(&[])?;
    place.load(&Source::Http(sums.clone())).await?;
    let mut found = place.files()?;
    assert!(found.remove("SHA256SUMS").is_some());
    assert!(found == files(&checkpoint())?);
    let listing = Http::open_with(&sums, &place.mounts(), Retry::default(), Timeouts::default())?.list().await?;
    let shard = listing.entries.iter().find(|entry| entry.path.ends_with("-00001-of-00003.safetensors"));
    let shard = shard.context("no shard")?;
    let expected: [u8; 32] = Sha256::digest(&found[&shard.path]).into();
    assert_eq!(shard.checksum, Some(Checksum::Sha256(expected)));

    let index = "model.safetensors.index.json";
    let weights = HttpTask { manifest: Some(index.into()), ..sums };
    let place = place_with(&[])?;
    place.load(&Source::Http(weights)).await?;
    assert_eq!(place.files()?.len(), 4);
    Ok(())
}

#[tokio::test]
async fn large_files_come_whole_with_and_without_ranges() -> Result<()> {
    for (server, sequence) in [(&SERVER.plain, false), (&SERVER.without_ranges, true)] {
        let single = task(format!("{server}/large/weights.data"), Vec::new(), Access::Anonymous);
        let place = place_with(&[])?;
        let report = place.load(&Source::Http(single.clone())).await?;
        assert!(place.files()?["weights.data"] == large(), "{server}");
        assert_eq!(report.transfer.context("no transfer")?.bytes_fetched, LARGE as u64, "{server}");
        let storage = Http::open(&single, &place.mounts())?;
        storage.list().await?;
        assert_eq!(storage.in_sequence(), sequence, "{server}");
    }
    Ok(())
}

/// A console, a login or a portal in place of the server: nothing to ask again.
#[tokio::test]
async fn a_web_page_in_place_of_a_server_is_told() -> Result<()> {
    let pages = &SERVER.pages;
    let at = || connection(pages, Access::Anonymous);
    let place = || ("models".to_owned(), "run".to_owned());
    let ((bucket, path), (container, folder), (repository, below)) = (place(), place(), place());
    let s3 = S3Task { region: "us-east-1".into(), endpoint: Some(pages.clone()), insecure: true, ..S3Task::default() };
    for (source, part) in [
        (
            Source::S3(S3Task { bucket: bucket.clone(), path: path.clone(), access: Access::Anonymous, ..s3 }),
            "check storage.s3.endpoint",
        ),
        (Source::Gcs(GcsTask { bucket, path, connection: at() }), "check storage.gcs.endpoint"),
        (
            Source::Azure(AzureTask { account: "acct".into(), container, path: folder, connection: at() }),
            "check storage.azure.endpoint",
        ),
        (
            Source::HuggingFace(HuggingFaceTask {
                repository,
                dataset: false,
                revision: "main".into(),
                path: below,
                connection: at(),
            }),
            "check storage.huggingFace.endpoint",
        ),
        (Source::Http(llama(pages)?), "check url and path of storage.http"),
    ] {
        let report = place_with(&[])?.inspect(&source).await;
        assert_eq!((report.reason, exit_code(&report)), (Some(Reason::InvalidSpec), 10), "{report:?}");
        assert!(report.message.contains("web page") && report.message.contains(part), "{}", report.message);
        assert!(!format!("{report:?}").contains("canary"), "{report:?}");
    }
    Ok(())
}

#[tokio::test]
async fn what_is_wrong_is_named() -> Result<()> {
    let server = &*SERVER;
    let plain = |path: &str, files: &[&str]| {
        let files = files.iter().map(|&file| file.to_owned()).collect();
        Source::Http(task(format!("{}/{path}", server.plain), files, Access::Anonymous))
    };
    let behind = Source::Http(HttpTask { connection: secret(), ..llama(&server.password)? });
    let sent_on = Source::Http(HttpTask {
        connection: secret(),
        ..task(format!("{}/to-password", server.plain), all_files()?, Access::Anonymous)
    });
    let full = [("username", USER), ("password", PASSWORD), ("allowedHosts", "127.0.0.1")];
    for (keys, source, reason, part) in [
        (&[][..], plain("nothing/here", &[]), Reason::NotFound, "there is no here at"),
        (&[], plain("llama", &["config.json", "missing.json"]), Reason::NotFound, "there is no missing.json"),
        (&[], plain("llama", &[]), Reason::AccessDenied, "if it is a folder"),
        (&[], plain("round", &["x"]), Reason::Unreachable, "redirects more than 5 times"),
        (&[], Source::Http(llama(&server.password)?), Reason::AccessDenied, "storage.http.credentials.secretRef"),
        (&[], behind.clone(), Reason::AccessDenied, "Secret web does not exist"),
        (&full[..2], behind.clone(), Reason::AccessDenied, "key allowedHosts of Secret web"),
        (&full[1..], behind.clone(), Reason::AccessDenied, "has no key token, nor username"),
        (
            &[("username", USER), ("password", "canary"), ("allowedHosts", "127.0.0.1")],
            behind.clone(),
            Reason::AccessDenied,
            "refuses the credentials of Secret web (401)",
        ),
        // The other port is another server: it does not get what it asks for.
        (&full, sent_on, Reason::AccessDenied, "(401)"),
    ] {
        assert_refused(keys, &source, reason, part).await?;
    }
    Ok(())
}
