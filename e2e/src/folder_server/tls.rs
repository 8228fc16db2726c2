//! What a folder server needs for TLS: the certificate of the tests, for 127.0.0.1 (file I/O).

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::paths;

/// The authority that signed the certificate.
#[must_use]
pub fn authority() -> PathBuf {
    fixture("ca.crt")
}

fn fixture(name: &str) -> PathBuf {
    paths::workspace().join("src/storage/backends/remote/fixtures").join(name)
}

pub(super) fn configuration() -> Result<Arc<ServerConfig>> {
    let certificates = CertificateDer::pem_file_iter(fixture("server.crt"))?.collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_file(fixture("server.key"))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let configuration = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(certificates, key)
        .context("the certificate of the tests")?;
    Ok(Arc::new(configuration))
}
