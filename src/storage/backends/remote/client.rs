//! The HTTP client of all backends, also below `object_store`: no redirects, no proxies, typed errors without bodies. Does I/O.

use std::{collections::BTreeMap, io, net::SocketAddr, time::Duration};

use futures::StreamExt;
use object_store::{
    ClientConfigKey, ClientOptions,
    client::{HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService},
};
use reqwest::{
    StatusCode,
    dns::{Addrs, Name, Resolve, Resolving},
    header::{HeaderMap, RANGE, RETRY_AFTER},
    redirect::Policy,
};

use super::super::StorageError;

/// As much of an error's body as is searched for its code.
const BODY_LIMIT: usize = 16 << 10;

/// How long the network may be silent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Timeouts {
    /// For a connection to be made.
    pub connect: Duration,
    /// Between two pieces of an answer. There is no limit to a request as a whole.
    pub stall: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { connect: Duration::from_secs(5), stall: Duration::from_secs(30) }
    }
}

/// How long a server may ask us to wait.
const LONGEST_WAIT: Duration = Duration::from_mins(1);
/// Longest header that is kept of an answer, in bytes.
const HEADER_LIMIT: usize = 4 << 10;

/// How the errors of a kind of server are read. Whatever else a body holds is not passed on.
#[derive(Clone, Copy, Debug)]
pub(in crate::storage) struct Manners {
    /// What messages call the server, such as `an S3 server`.
    pub server: &'static str,
    /// Codes of errors that may be shown.
    pub codes: &'static [&'static str],
    /// Finds the code in headers or body.
    pub code: fn(&HeaderMap, &str) -> Option<String>,
    /// Headers of refused requests that the backend needs, in lower case. They are never shown as they are.
    pub headers: &'static [&'static str],
    /// XML elements of the bodies of refused requests that the backend needs. They are never shown as they are.
    pub elements: &'static [&'static str],
}

/// An answer that is not what was asked for.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{host} answered {status}")]
pub(in crate::storage) struct Answer {
    pub host: String,
    pub status: u16,
    pub code: Option<&'static str>,
    /// Of [`Manners::headers`].
    pub headers: BTreeMap<&'static str, String>,
    /// Of [`Manners::elements`].
    pub elements: BTreeMap<&'static str, String>,
    /// How long the server wants us to wait; at most a minute.
    pub retry_after: Option<Duration>,
}

impl Answer {
    /// `503 SlowDown`
    pub fn shown(&self) -> String {
        self.code.map_or_else(|| self.status.to_string(), |code| format!("{} {code}", self.status))
    }

    /// The error of a server that cannot answer now.
    pub fn busy(&self) -> StorageError {
        let message = format!("{} answered {}", self.host, self.shown());
        match self.retry_after {
            Some(after) => StorageError::Busy(message, after),
            None => StorageError::Unreachable(message),
        }
    }
}

/// A name without a usable address.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub(in crate::storage) enum NameError {
    #[error("the name {0} does not resolve")]
    Unknown(String),
    #[error("the name {0} resolves to link-local addresses only, which are not contacted")]
    LinkLocal(String),
}

/// Makes clients, for the storage itself and for `object_store`'s credential providers.
#[derive(Clone, Debug)]
pub(in crate::storage) struct Connector {
    pub authorities: Vec<reqwest::Certificate>,
    pub timeouts: Timeouts,
    pub manners: &'static Manners,
    /// Whether addresses of metadata services may be contacted: only to ask for the pod's own identity.
    pub link_local: bool,
}

impl Connector {
    /// A client that speaks `http://` only when `plain` is set.
    ///
    /// # Errors
    /// When the certificates cannot be used.
    pub fn client(&self, plain: bool) -> reqwest::Result<HttpClient> {
        let client = reqwest::Client::builder()
            .user_agent(crate::USER_AGENT)
            .http1_only()
            .no_proxy()
            .redirect(Policy::none())
            .https_only(!plain)
            .connect_timeout(self.timeouts.connect)
            .read_timeout(self.timeouts.stall)
            .dns_resolver(Resolver { link_local: self.link_local })
            .tls_certs_merge(self.authorities.clone())
            .build()?;
        Ok(HttpClient::new(Service { client: HttpClient::new(client), manners: self.manners }))
    }
}

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let plain = options.get_config_value(&ClientConfigKey::AllowHttp).is_some_and(|value| value == "true");
        self.client(plain).map_err(|error| object_store::Error::Generic {
            store: self.manners.server,
            source: Box::new(error.without_url()),
        })
    }
}

#[derive(Debug)]
struct Service {
    client: HttpClient,
    manners: &'static Manners,
}

#[async_trait::async_trait]
impl HttpService for Service {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let ranged = request.headers().contains_key(RANGE);
        let host = request.uri().authority().map_or_else(String::new, ToString::to_string);
        let response = self.client.execute(request).await?;
        let status = response.status();
        if status.is_success() && !(ranged && status != StatusCode::PARTIAL_CONTENT) {
            return Ok(response);
        }
        let headers = self.kept(response.headers());
        let retry_after = retry_after(response.headers());
        let (code, elements) =
            if status.is_success() { (None, BTreeMap::new()) } else { self.error_code(response).await };
        let answer = Answer { host, status: status.as_u16(), code, headers, elements, retry_after };
        // object_store never repeats errors of this kind; the backend does, and knows when.
        Err(HttpError::new(HttpErrorKind::Unknown, answer))
    }
}

impl Service {
    fn kept(&self, headers: &HeaderMap) -> BTreeMap<&'static str, String> {
        let text = |name: &&'static str| Some((*name, headers.get(*name)?.to_str().ok()?.to_owned()));
        self.manners.headers.iter().filter_map(text).filter(|(_, value)| value.len() <= HEADER_LIMIT).collect()
    }

    /// The code of an error, and what else is wanted of its body.
    async fn error_code(&self, response: HttpResponse) -> (Option<&'static str>, BTreeMap<&'static str, String>) {
        let headers = response.headers().clone();
        let mut body = Vec::new();
        let mut stream = response.into_body().bytes_stream();
        while let Some(Ok(piece)) = stream.next().await {
            body.extend_from_slice(&piece);
            if body.len() >= BODY_LIMIT {
                break;
            }
        }
        let body = String::from_utf8_lossy(&body);
        let found = (self.manners.code)(&headers, &body);
        let code = self.manners.codes.iter().copied().find(|known| found.as_deref() == Some(*known));
        let text = |name: &&'static str| Some((*name, element(&body, name)?.to_owned()));
        (code, self.manners.elements.iter().filter_map(text).filter(|(_, text)| text.len() <= HEADER_LIMIT).collect())
    }
}

/// The text of the first XML element of this name.
pub(in crate::storage) fn element<'a>(body: &'a str, name: &str) -> Option<&'a str> {
    let after = body.split_once(&format!("<{name}>"))?.1;
    Some(after.split_once(&format!("</{name}>"))?.0.trim())
}

/// Seconds; dates are left to our own back-off.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds: u64 = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(LONGEST_WAIT))
}

/// Looks names up as the system does, says which name failed, and leaves out addresses of metadata services.
#[derive(Debug)]
struct Resolver {
    link_local: bool,
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let name = name.as_str().to_owned();
        let link_local = self.link_local;
        Box::pin(async move {
            let found: io::Result<Vec<SocketAddr>> =
                tokio::net::lookup_host((name.as_str(), 0)).await.map(Iterator::collect);
            let all = found.unwrap_or_default();
            if all.is_empty() {
                return Err(NameError::Unknown(name).into());
            }
            let usable: Vec<_> = all.into_iter().filter(|address| link_local || !is_link_local(address.ip())).collect();
            if usable.is_empty() {
                return Err(NameError::LinkLocal(name).into());
            }
            Ok(Box::new(usable.into_iter()) as Addrs)
        })
    }
}

/// Whether it is an address that only means something on its own link, where clouds put their metadata services.
pub(in crate::storage) fn is_link_local(address: std::net::IpAddr) -> bool {
    match address.to_canonical() {
        std::net::IpAddr::V4(address) => address.is_link_local(),
        // fd00:ec2::254 is Amazon's metadata service over IPv6.
        std::net::IpAddr::V6(address) => {
            address.is_unicast_link_local() || address.segments() == [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_local_addresses_are_known_in_every_notation() {
        for (text, expected) in [
            ("169.254.169.254", true),
            ("::ffff:169.254.169.254", true),
            ("fe80::1", true),
            ("fd00:ec2::254", true),
            ("127.0.0.1", false),
            ("10.0.0.1", false),
            ("2001:db8::1", false),
        ] {
            assert_eq!(is_link_local(text.parse().unwrap()), expected, "{text}");
        }
    }
}
