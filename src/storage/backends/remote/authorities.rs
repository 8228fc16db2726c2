//! The certificate authorities that a user wants to be trusted too. Reads a file.

use std::{fs, io};

use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};

use super::super::{Mounts, StorageError};

/// The certificates besides the usual ones. `place` is the `ConfigMap` and key, none when nothing was asked for; `field`
/// is the member of the spec, for messages.
pub(in crate::storage) fn authorities(
    place: Option<&str>,
    field: &str,
    mounts: &Mounts,
) -> Result<Vec<reqwest::Certificate>, StorageError> {
    let Some(place) = place else { return Ok(Vec::new()) };
    let problem = |text: String| StorageError::Tls(format!("{place} of {field} {text}"));
    let pem = fs::read(&mounts.ca).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            StorageError::Tls(format!("the certificates of {field} are not there: no ConfigMap with the key ({place})"))
        }
        kind => problem(format!("cannot be read: {kind}")),
    })?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let certificates =
        certificates.map_err(|_| problem("holds PEM that is cut off or damaged: copy it again".into()))?;
    if certificates.is_empty() {
        let instead = if pem.windows(11).any(|bytes| bytes == b"PRIVATE KEY") { "a private key and " } else { "" };
        return Err(problem(format!("holds {instead}no PEM certificate: one begins with -----BEGIN CERTIFICATE-----")));
    }
    let mut store = RootCertStore::empty();
    let usable = |(index, certificate): (usize, CertificateDer<'_>)| {
        let parsed = reqwest::Certificate::from_der(&certificate).ok();
        parsed.filter(|_| store.add(certificate.into_owned()).is_ok()).ok_or_else(|| {
            problem(format!("holds something else in place of certificate {}: copy it again", index + 1))
        })
    };
    certificates.into_iter().enumerate().map(usable).collect()
}

#[cfg(test)]
mod tests {
    use super::{super::testing::CA, *};
    use crate::contract::{Reason, exit};

    #[test]
    fn what_cannot_be_read_is_said_with_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let mounts = Mounts { ca: folder.path().join("ca.crt"), ..Mounts::default() };
        let read = || authorities(Some("minio-ca/ca.crt"), "storage.s3.caBundle", &mounts);
        let good = std::str::from_utf8(CA).unwrap();
        let block = |kind: &str, text: &str| format!("-----BEGIN {kind}-----\n{text}\n-----END {kind}-----\n");
        for (content, part) in [
            (None, "no ConfigMap with the key"),
            (Some(String::new()), "holds no PEM certificate: one begins with"),
            (Some("canary".to_owned()), "holds no PEM certificate"),
            (Some("<html>canary</html>".to_owned()), "holds no PEM certificate"),
            (Some(block("PRIVATE KEY", "Y2FuYXJ5")), "holds a private key and no PEM certificate"),
            (Some(block("CERTIFICATE", "canary!")), "cut off or damaged"),
            (Some(good[..good.len() / 2].to_owned()), "cut off or damaged"),
            (Some(block("CERTIFICATE", "Y2FuYXJ5")), "in place of certificate 1"),
            (Some(format!("{good}{}", block("CERTIFICATE", "Y2FuYXJ5"))), "in place of certificate 2"),
        ] {
            _ = fs::remove_file(&mounts.ca);
            if let Some(text) = &content {
                fs::write(&mounts.ca, text).unwrap();
            }
            let error = read().unwrap_err();
            let text = error.to_string();
            assert!(text.contains(part) && !text.contains("canary"), "{content:?}: {text}");
            assert!(text.contains("minio-ca/ca.crt") && text.contains("storage.s3.caBundle"), "{text}");
            assert_eq!((error.reason(), exit::code(error.reason())), (Reason::TlsFailed, exit::BAD_REQUEST), "{text}");
        }
        fs::remove_file(&mounts.ca).unwrap();
        fs::create_dir(&mounts.ca).unwrap();
        assert!(read().unwrap_err().to_string().contains("cannot be read"));
        fs::remove_dir(&mounts.ca).unwrap();
        fs::write(&mounts.ca, good.repeat(2)).unwrap();
        assert_eq!(read().unwrap().len(), 2);
        assert!(authorities(None, "storage.s3.caBundle", &Mounts::default()).unwrap().is_empty());
    }
}
