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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::{Read, Write};
    use std::net::TcpStream;

    use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

    use super::super::{Manner, Server};
    use super::*;

    #[test]
    fn whoever_knows_the_authority_is_served() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a"), "content").unwrap();
        let server = Server::start(folder.path(), Manner { tls: true, ..Manner::default() }).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(authority()).unwrap()).unwrap();
        let client = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let address = server.endpoint().strip_prefix("https://").unwrap().to_owned();
        let connection = ClientConnection::new(Arc::new(client), "127.0.0.1".try_into().unwrap()).unwrap();
        let mut stream = StreamOwned::new(connection, TcpStream::connect(address).unwrap());
        stream.write_all(b"GET /bench/a HTTP/1.1\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"content") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            answer.extend(byte);
        }
        assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n"));
    }
}
