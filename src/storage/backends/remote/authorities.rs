//! The certificate authorities that a user wants to be trusted too. Reads a file.

use super::super::{Mounts, StorageError};

/// The certificates besides the usual ones. `place` is the `ConfigMap` and key, none when nothing was asked for; `field`
/// is the member of the spec, for messages.
pub(in crate::storage) fn authorities(
    place: Option<&str>,
    field: &str,
    mounts: &Mounts,
) -> Result<Vec<reqwest::Certificate>, StorageError> {
    let Some(place) = place else { return Ok(Vec::new()) };
    let pem = std::fs::read(&mounts.ca).map_err(|_| {
        StorageError::Tls(format!("the certificates of {field} are not there: no ConfigMap with the key ({place})"))
    })?;
    match reqwest::Certificate::from_pem_bundle(&pem) {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(StorageError::Tls(format!("{place} of {field} holds no PEM certificate"))),
    }
}
