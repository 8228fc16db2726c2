//! Reads that a server answers with another address: followed a few times, without credentials. Does I/O.

use std::{error::Error, ops::Range};

use object_store::client::{HttpClient, HttpRequest, HttpResponse};
use reqwest::header::{ACCEPT_ENCODING, HeaderMap, RANGE};
use url::Url;

use super::{
    super::StorageError,
    Body,
    client::{Answer, is_link_local},
    errors::find,
    request,
};

/// The header that names the other address; backends that follow list it in their manners.
pub(in crate::storage) const LOCATION: &str = "location";
/// How many addresses are followed for one read.
const MOST: u32 = 5;

/// The answer to a request, after redirects. The first request carries credentials, the others none: who answers with a
/// redirect signs the address that it names.
///
/// # Errors
/// What `explain` makes of a refusal; `Unreachable` when redirects do not end, `Insecure` when they lead to plain HTTP.
pub(in crate::storage) async fn execute(
    client: &HttpClient,
    url: &Url,
    first: HttpRequest,
    insecure: bool,
    explain: impl Fn(&(dyn Error + 'static)) -> StorageError,
) -> Result<HttpResponse, StorageError> {
    let kept: Vec<_> = [ACCEPT_ENCODING, RANGE]
        .into_iter()
        .filter_map(|name| Some((name.clone(), first.headers().get(name)?.clone())))
        .collect();
    let method = first.method().clone();
    let (mut url, mut request) = (url.clone(), first);
    for _ in 0..MOST {
        let error = match client.execute(request).await {
            Ok(response) => return Ok(response),
            Err(error) => error,
        };
        let moved = find::<Answer>(&error).filter(|answer| is_redirect(answer));
        let Some(location) = moved.and_then(|answer| answer.headers.get(LOCATION)) else { return Err(explain(&error)) };
        url = target(&url, location, insecure)?;
        request = request::get(&url)?;
        *request.method_mut() = method.clone();
        request.headers_mut().extend(kept.iter().cloned());
    }
    Err(StorageError::Unreachable(format!("{} redirects more than {MOST} times", url.host_str().unwrap_or_default())))
}

/// As [`request::ranged`], after redirects.
///
/// # Errors
/// As [`execute`] and [`request::ranged`].
pub(in crate::storage) async fn ranged(
    client: &HttpClient,
    url: &Url,
    mut first: HttpRequest,
    file: (&str, u64),
    range: Range<u64>,
    insecure: bool,
    explain: impl Fn(&(dyn Error + 'static)) -> StorageError + Send + 'static,
) -> Result<(HeaderMap, Body), StorageError> {
    request::set_range(&mut first, &range)?;
    let response = execute(client, url, first, insecure, &explain).await?;
    request::part(response, false, file, &range, explain)
}

fn is_redirect(answer: &Answer) -> bool {
    matches!(answer.status, 301 | 302 | 303 | 307 | 308)
}

/// The address that a redirect leads to, if it may be asked.
fn target(from: &Url, location: &str, insecure: bool) -> Result<Url, StorageError> {
    let host = from.host_str().unwrap_or_default();
    let unusable = || StorageError::Unreachable(format!("{host} redirects to an address that cannot be asked"));
    let url = from.join(location).map_err(|_| unusable())?;
    let address = match url.host().ok_or_else(unusable)? {
        url::Host::Domain(_) => None,
        url::Host::Ipv4(address) => Some(std::net::IpAddr::from(address)),
        url::Host::Ipv6(address) => Some(std::net::IpAddr::from(address)),
    };
    if !matches!(url.scheme(), "http" | "https") || address.is_some_and(is_link_local) || !url.username().is_empty() {
        return Err(unusable());
    }
    if url.scheme() == "http" && !insecure {
        return Err(StorageError::Insecure(format!("{host} redirects to an address that is not encrypted")));
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::Reason;

    #[test]
    fn only_usable_addresses_are_followed() {
        let from = Url::parse("https://hub.test/a/b").unwrap();
        let follow = |location: &str, insecure| target(&from, location, insecure);
        assert_eq!(follow("/c?sig=1", false).unwrap().as_str(), "https://hub.test/c?sig=1");
        assert_eq!(follow("https://cdn.test/x", false).unwrap().host_str(), Some("cdn.test"));
        assert!(follow("http://cdn.test/x", true).is_ok());
        for (location, reason) in [
            ("http://cdn.test/x", Reason::InsecureEndpoint),
            ("http://169.254.169.254/latest", Reason::Unreachable),
            ("https://[fd00:ec2::254]/", Reason::Unreachable),
            ("file:///etc/passwd", Reason::Unreachable),
            ("https://user@cdn.test/", Reason::Unreachable),
        ] {
            assert_eq!(follow(location, false).unwrap_err().reason(), reason, "{location}");
        }
    }
}
