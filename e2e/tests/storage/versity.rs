//! Versity's S3 gateway on loopback, whose objects are the files of a folder, and what workers make of it (process and file I/O).

use std::{
    collections::BTreeMap,
    fs::File,
    net::TcpListener,
    os::unix::fs::FileExt,
    path::PathBuf,
    process::{Child, Command},
    sync::LazyLock,
    time::Duration,
};

use anyhow::{Context, Result};
use checkpoint_operator::{
    contract::{Reason, S3Task},
    storage::{Retry, S3 as Store, Storage, StorageError, Timeouts},
    worker::exit_code,
};
use checkpoint_operator_e2e::{
    go_tools::Tool,
    s3::{Body, S3},
    servers,
    wait::{Now, wait_until},
};
use futures::TryStreamExt;

use crate::{
    place, s3,
    seaweed::{ADMINISTRATOR, source, write_secret},
};

pub struct Server {
    pub endpoint: String,
    pub client: S3,
    /// Holds a folder for each bucket.
    root: PathBuf,
    _guard: Child,
}

/// The server, started by whoever needs it first.
#[expect(clippy::expect_used, reason = "a helper of tests, which the lint does not see as one")]
pub fn server() -> &'static Server {
    static SERVER: LazyLock<Server> = LazyLock::new(|| Server::start().expect("the gateway starts"));
    &SERVER
}

impl Server {
    fn start() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("checkpoint-versity-").tempdir()?.keep();
        let (root, metadata) = (folder.join("buckets"), folder.join("metadata"));
        std::fs::create_dir(&root)?;
        std::fs::create_dir(&metadata)?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut gateway = Command::new(Tool::VersityGateway.binary("versitygw")?);
        gateway.args(["--access", ADMINISTRATOR.0, "--secret", ADMINISTRATOR.1, "--region", "us-east-1", "--quiet"]);
        // Checksums and tags in files beside the objects: not every file system has extended attributes.
        gateway.args(["--port", &format!("127.0.0.1:{port}"), "--keep-alive", "posix", "--sidecar"]);
        let guard = servers::start(&folder, gateway.arg(metadata).arg(&root))?;
        let endpoint = format!("http://127.0.0.1:{port}");
        let client = S3::connect(&endpoint, "us-east-1", ADMINISTRATOR, &[])?;
        wait_until("the gateway to make a bucket", Duration::from_mins(1), || {
            Ok(client.create_bucket("probe").map_or_else(|error| Now::NotYet(error.to_string()), Now::Done))
        })
        .with_context(|| servers::last_words(&folder))?;
        Ok(Self { endpoint, client, root, _guard: guard })
    }

    /// A task's source, with the keys of a Secret named `s3-creds`.
    pub fn source(&self, bucket: &str, path: &str) -> S3Task {
        source(&self.endpoint, bucket, path)
    }

    /// Flips a bit of an object where it is stored; the server does not look.
    pub fn damage(&self, bucket: &str, key: &str, at: u64) -> Result<()> {
        let file = File::options().read(true).write(true).open(self.root.join(bucket).join(key))?;
        let mut byte = [0];
        file.read_exact_at(&mut byte, at)?;
        Ok(file.write_all_at(&[byte[0] ^ 0x10], at)?)
    }
}

#[tokio::test]
async fn pages_are_followed_and_keys_come_as_they_are() -> Result<()> {
    let odd = ["a b", "a+b", "a%20b", "100%", "ünï/模型", "?#", "quote\"<xml>&amp;", "~!'()*&=@:,;$", "deep/er/file"];
    let many: Vec<String> = (0..2100).map(|number| format!("many/{}/{number}", number % 7)).collect();
    let files: BTreeMap<String, Vec<u8>> =
        odd.iter().map(|name| (*name).to_owned()).chain(many).map(|name| (name.clone(), name.into_bytes())).collect();
    let keyed: Vec<_> = files.iter().map(|(name, bytes)| (format!("run/step-1/{name}"), bytes)).collect();
    let mut objects: Vec<_> = keyed.iter().map(|(key, bytes)| (key.as_str(), Body::Bytes(bytes))).collect();
    objects.extend([("run/step-1/empty", Body::Bytes(b"")), ("run/step-10/sibling", Body::Bytes(b"x"))]);
    server().client.create_bucket("odd-keys")?;
    server().client.put("odd-keys", &objects)?;
    let place = place()?;
    place.load(&s3(&server().source("odd-keys", "run/step-1"))).await?;
    let mut found = place.files()?;
    assert_eq!(found.remove("empty"), Some(Vec::new()));
    assert!(found == files, "{:?}", found.keys().take(20).collect::<Vec<_>>());
    Ok(())
}

#[tokio::test]
async fn ranges_are_pinned_to_what_was_listed() -> Result<()> {
    server().client.create_bucket("pinned")?;
    server().client.put("pinned", &[("run/file", Body::Bytes(b"first"))])?;
    let place = place()?;
    let source = server().source("pinned", "run");
    let storage = Store::open_with(&source, &place.mounts(), Retry::default(), Timeouts::default())?;
    let listing = storage.list().await?;
    let read: Vec<_> = storage.read(&listing.entries[0], 1..4).try_collect().await?;
    assert_eq!(read.concat(), b"irs");
    server().client.put("pinned", &[("run/file", Body::Bytes(b"other"))])?;
    let replaced = storage.read(&listing.entries[0], 1..4).try_collect::<Vec<_>>().await;
    assert!(matches!(&replaced, Err(StorageError::Changed(text)) if text.starts_with("file ")), "{replaced:?}");
    Ok(())
}

#[tokio::test]
async fn refusals_and_missing_things_say_what_to_do() -> Result<()> {
    server().client.create_bucket("private")?;
    server().client.put("private", &[("run/file", Body::Bytes(b"x"))])?;
    let place = place()?;
    for (keys, bucket, path, reason, part) in [
        // It has a code of its own for this, and the status of a bucket that is not there.
        (("unknown-key", "canary"), "private", "run", Reason::NotFound, "no bucket private"),
        ((ADMINISTRATOR.0, "canary"), "private", "run", Reason::AccessDenied, "AWS_SECRET_ACCESS_KEY does not belong"),
        (ADMINISTRATOR, "no-such-bucket", "x", Reason::NotFound, "no bucket no-such-bucket"),
        (ADMINISTRATOR, "private", "nothing/here", Reason::NotFound, "begins with nothing/here/"),
        (ADMINISTRATOR, "private", "run/file", Reason::InvalidPath, "single object"),
    ] {
        write_secret(place.secret.path(), keys)?;
        let report = place.inspect(&s3(&server().source(bucket, path))).await;
        assert_eq!(report.reason, Some(reason), "{report:?}");
        assert!(report.message.contains(part) && !format!("{report:?}").contains("canary"), "{}", report.message);
    }
    write_secret(place.secret.path(), ADMINISTRATOR)?;
    let elsewhere = S3Task { region: "eu-west-1".into(), ..server().source("private", "run") };
    let report = place.inspect(&s3(&elsewhere)).await;
    assert_eq!((report.reason, exit_code(&report)), (Some(Reason::InvalidSpec), 10), "{report:?}");
    assert!(report.message.contains("set storage.s3.region to us-east-1"), "{}", report.message);
    Ok(())
}
