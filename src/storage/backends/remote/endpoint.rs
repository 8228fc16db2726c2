//! The address of a server as a user wrote it. Pure, no I/O.

use std::net::IpAddr;

use url::{Host, Url};

use super::{super::StorageError, client::is_link_local};

/// A server's address, and its host and port for messages.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(in crate::storage) struct Endpoint {
    pub url: Url,
    pub host: String,
}

/// Reads an address; `field` is the member of the spec that holds it.
///
/// # Errors
/// When it is none, when it is plain HTTP without permission, or when it is a link-local one.
pub(in crate::storage) fn parse(text: &str, insecure: bool, field: &str) -> Result<Endpoint, StorageError> {
    let invalid =
        || StorageError::InvalidSpec(format!("{field}: {text:?} is not an address such as https://host:port"));
    let url = Url::parse(text).map_err(|_| invalid())?;
    let known = ["http", "https"].contains(&url.scheme());
    let extra = url.query().is_some() || url.fragment().is_some();
    if !known || extra || !url.username().is_empty() || url.password().is_some() {
        return Err(invalid());
    }
    let shown = url.as_str().trim_end_matches('/');
    if url.scheme() == "http" && !insecure {
        return Err(StorageError::Insecure(format!(
            "{shown} is not encrypted: use https, or set {field}.insecure to true"
        )));
    }
    let address = match url.host().ok_or_else(invalid)? {
        Host::Domain(_) => None,
        Host::Ipv4(address) => Some(IpAddr::from(address)),
        Host::Ipv6(address) => Some(IpAddr::from(address)),
    };
    if address.is_some_and(is_link_local) {
        return Err(StorageError::InvalidSpec(format!("{shown} is a link-local address, which is not contacted")));
    }
    let port = url.port_or_known_default().unwrap_or_default();
    let host = format!("{}:{port}", url.host_str().unwrap_or_default());
    Ok(Endpoint { url, host })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::Reason;

    #[test]
    fn addresses_are_checked() {
        assert_eq!(parse("https://h:1", false, "f").unwrap().host, "h:1");
        assert_eq!(parse("http://h", true, "f").unwrap().host, "h:80");
        for (text, reason) in [
            ("http://h", Reason::InsecureEndpoint),
            ("https://u:p@h", Reason::InvalidSpec),
            ("https://h?x=1", Reason::InvalidSpec),
            ("ftp://h", Reason::InvalidSpec),
            ("h", Reason::InvalidSpec),
            ("https://169.254.169.254", Reason::InvalidSpec),
            ("https://[fe80::1]", Reason::InvalidSpec),
            ("https://2852039166", Reason::InvalidSpec),
        ] {
            assert_eq!(parse(text, false, "f").unwrap_err().reason(), reason, "{text}");
        }
    }
}
