//! Where bearer credentials may go: to the provider's own hosts and to those that the Secret itself lists. Pure, no I/O.

use url::Url;

/// Whether a credential that whoever sees it can use may be sent to the host of `url`: over TLS to a host of the provider
/// (`own` are domains), or to one of `allowed`, which lists hosts with or without a port, separated by white space or commas.
pub(in crate::storage) fn may_have_bearer(url: &Url, own: &[&str], allowed: Option<&str>) -> bool {
    let Some(host) = url.host_str() else { return false };
    let provider =
        |domain: &&str| host == *domain || host.strip_suffix(*domain).is_some_and(|rest| rest.ends_with('.'));
    if url.scheme() == "https" && own.iter().any(provider) {
        return true;
    }
    let with_port = url.port_or_known_default().map(|port| format!("{host}:{port}"));
    let listed = allowed.unwrap_or_default().split([' ', ',', '\n', '\t', '\r']).filter(|entry| !entry.is_empty());
    listed.into_iter().any(|entry| entry.eq_ignore_ascii_case(host) || with_port.as_deref() == Some(entry))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bearers_go_where_they_may() {
        let own = &["googleapis.com"][..];
        for (url, allowed, expected) in [
            ("https://storage.googleapis.com/x", None, true),
            ("https://googleapis.com", None, true),
            ("http://storage.googleapis.com/x", None, false),
            ("https://evilgoogleapis.com/", None, false),
            ("https://storage.googleapis.com.evil.test/", None, false),
            ("https://mirror.test/", None, false),
            ("https://mirror.test/", Some("other.test, mirror.test"), true),
            ("http://mirror.test:8080/", Some("mirror.test:8080\n"), true),
            ("http://mirror.test:8081/", Some("mirror.test:8080"), false),
            ("https://sub.mirror.test/", Some("mirror.test"), false),
        ] {
            assert_eq!(may_have_bearer(&Url::parse(url).unwrap(), own, allowed), expected, "{url} {allowed:?}");
        }
    }
}
