//! fake-gcs-server: Google Cloud Storage's JSON API, without a look at tokens (process and network I/O).

use std::process::{Child, Command};

use anyhow::Result;
use checkpoint_operator_e2e::{command::capture, servers};
use serde_json::json;

use super::{client, folder, listens, port};

pub struct Server {
    pub endpoint: String,
    _guard: Child,
}

impl Server {
    pub fn start(address: &str) -> Result<Self> {
        let (folder, port) = (folder("gcs")?, port(address)?);
        let mut server = Command::new(servers::fake_gcs()?);
        server.args(["-backend", "memory", "-scheme", "http", "-host", address, "-log-level", "error"]);
        server.args(["-port", &port.to_string(), "-public-host", &format!("{address}:{port}")]);
        let guard = servers::start(&folder, &server)?;
        listens("fake-gcs-server", address, port)?;
        Ok(Self { endpoint: format!("http://{address}:{port}"), _guard: guard })
    }

    /// Makes a bucket unless it is there, and puts objects into it.
    pub async fn put(&self, bucket: &str, objects: &[(&str, &[u8])]) -> Result<()> {
        let (client, endpoint) = (client()?, &self.endpoint);
        let made = client.post(format!("{endpoint}/storage/v1/b?project=test"));
        made.body(json!({"name": bucket}).to_string()).send().await?;
        for (key, bytes) in objects {
            let mut url = reqwest::Url::parse(&format!("{endpoint}/upload/storage/v1/b/{bucket}/o"))?;
            url.query_pairs_mut().append_pair("uploadType", "media").append_pair("name", key);
            client.post(url).body(bytes.to_vec()).send().await?.error_for_status()?;
        }
        Ok(())
    }
}

/// A key file of a service account, with a private key that openssl makes.
pub fn key_file() -> Result<String> {
    let mut openssl = Command::new("openssl");
    let key = capture(openssl.args(["genpkey", "-quiet", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"]))
        .or_else(|_| capture(Command::new("openssl").args(["genpkey", "-algorithm", "RSA"])))?;
    let account = json!({
        "type": "service_account", "private_key": key, "private_key_id": "1", "client_email": "reader@test.iam.gserviceaccount.com",
    });
    Ok(account.to_string())
}
