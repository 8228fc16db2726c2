//! Reads that a server answers with another address: followed a few times, credentials stay at the first server. Does I/O.

use std::error::Error;

use object_store::client::{HttpClient, HttpRequest, HttpResponse};
use reqwest::header::{ACCEPT_ENCODING, RANGE};
use url::Url;

use super::{
    super::StorageError,
    client::{Answer, is_link_local},
    errors::find,
    request,
};

/// The header that names the other address; backends that follow list it in their manners.
pub(in crate::storage) const LOCATION: &str = "location";
/// How many addresses are followed for one read.
const MOST: u32 = 5;

/// The answer to a request, after redirects. Credentials go on to other paths of the same server, and nowhere else: who sends us
/// to another server signs the address that it names. Once another server was asked, no later one gets them either.
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
    traced(client, url, first, insecure, explain).await.map(|(response, _)| response)
}

/// [`execute`], and the address that answered in the end.
///
/// # Errors
/// As [`execute`].
pub(in crate::storage) async fn traced(
    client: &HttpClient,
    url: &Url,
    first: HttpRequest,
    insecure: bool,
    explain: impl Fn(&(dyn Error + 'static)) -> StorageError,
) -> Result<(HttpResponse, Url), StorageError> {
    let kept: Vec<_> = [ACCEPT_ENCODING, RANGE]
        .into_iter()
        .filter_map(|name| Some((name.clone(), first.headers().get(name)?.clone())))
        .collect();
    let (method, headers, origin) = (first.method().clone(), first.headers().clone(), url.origin());
    let (mut url, mut request, mut at_home) = (url.clone(), first, true);
    for _ in 0..MOST {
        let error = match client.execute(request).await {
            Ok(response) => return Ok((response, url)),
            Err(error) => error,
        };
        let moved = find::<Answer>(&error).filter(|answer| is_redirect(answer));
        let Some(location) = moved.and_then(|answer| answer.headers.get(LOCATION)) else { return Err(explain(&error)) };
        url = target(&url, location, insecure)?;
        request = request::get(&url)?;
        *request.method_mut() = method.clone();
        at_home &= url.origin() == origin;
        if at_home {
            *request.headers_mut() = headers.clone();
        } else {
            request.headers_mut().extend(kept.iter().cloned());
        }
    }
    Err(StorageError::Unreachable(format!("{} redirects more than {MOST} times", url.host_str().unwrap_or_default())))
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
