//! Azurite: Azure Blob Storage, which checks signatures (process and network I/O).

use std::process::Child;

use anyhow::{Context, Result, anyhow};
use base64::{Engine, prelude::BASE64_STANDARD};
use checkpoint_operator_e2e::servers;
use sha2::{Digest, Sha256};

use super::{client, folder, listens, port};

pub const ACCOUNT: &str = "checkpoints";
const KEY: &[u8] = b"a key of an account on loopback";

pub struct Server {
    pub endpoint: String,
    _guard: Child,
}

impl Server {
    pub fn start(address: &str) -> Result<Self> {
        let (folder, port) = (folder("azure")?, port(address)?);
        let mut server = servers::azurite()?;
        server.args(["--blobHost", address, "--blobPort", &port.to_string()]);
        server.args(["--inMemoryPersistence", "--silent", "--disableTelemetry"]);
        server.env("AZURITE_ACCOUNTS", format!("{ACCOUNT}:{}", key()));
        let guard = servers::start(&folder, &server)?;
        listens("Azurite", address, port)?;
        Ok(Self { endpoint: format!("http://{address}:{port}"), _guard: guard })
    }

    /// Makes a container unless it is there, and puts blobs into it.
    pub async fn put(&self, container: &str, blobs: &[(&str, &[u8])]) -> Result<()> {
        let (client, sas) = (client()?, sas("rwdlac", "2099-01-01T00:00:00Z")?);
        let made = format!("{}/{ACCOUNT}/{container}?restype=container&{sas}", self.endpoint);
        let mut url = reqwest::Url::parse(&made)?;
        client.put(url.clone()).header("content-length", 0).send().await?;
        for (key, bytes) in blobs {
            url.path_segments_mut()
                .map_err(|()| anyhow!("no path"))?
                .clear()
                .extend([ACCOUNT, container])
                .extend(key.split('/'));
            url.set_query(Some(&sas));
            let put = client.put(url.clone()).header("content-length", bytes.len());
            let put = put.header("x-ms-blob-type", "BlockBlob").body(bytes.to_vec());
            put.send().await?.error_for_status()?;
        }
        Ok(())
    }
}

/// The account's key, for `AZURE_STORAGE_KEY`.
pub fn key() -> String {
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
pub fn sas(permissions: &str, ends: &str) -> Result<String> {
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
