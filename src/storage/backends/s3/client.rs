//! The HTTP client below `object_store`: no redirects, no proxies, typed errors without bodies. Does I/O.

use std::{io, net::SocketAddr, time::Duration};

use futures::StreamExt;
use object_store::{
    ClientConfigKey, ClientOptions,
    client::{HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService},
};
use reqwest::{
    StatusCode,
    dns::{Addrs, Name, Resolve, Resolving},
    header::RANGE,
    redirect::Policy,
};

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

/// Codes of S3 errors that may be shown. Whatever else a body holds is not.
const CODES: &[&str] = &[
    "AccessDenied",
    "AccountProblem",
    "AllAccessDisabled",
    "AuthorizationHeaderMalformed",
    "ExpiredToken",
    "ExpiredTokenException",
    "IllegalLocationConstraintException",
    "InternalError",
    "InvalidAccessKeyId",
    "InvalidBucketName",
    "InvalidIdentityToken",
    "InvalidObjectState",
    "InvalidRange",
    "InvalidRequest",
    "InvalidToken",
    "NoSuchBucket",
    "NoSuchKey",
    "NotSignedUp",
    "PermanentRedirect",
    "PreconditionFailed",
    "RequestTimeTooSkewed",
    "RequestTimeout",
    "ServiceUnavailable",
    "SignatureDoesNotMatch",
    "SlowDown",
    "TemporaryRedirect",
    "TokenRefreshRequired",
];

/// An answer that is not what was asked for.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{host} answered {status}")]
pub(super) struct Answer {
    pub host: String,
    pub status: u16,
    pub code: Option<&'static str>,
    pub region: Option<String>,
}

/// A name without a usable address.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub(super) enum NameError {
    #[error("the name {0} does not resolve")]
    Unknown(String),
    #[error("the name {0} resolves to link-local addresses only, which are not contacted")]
    LinkLocal(String),
}

/// Makes clients for `object_store`, for the storage itself and for its credential providers.
#[derive(Clone, Debug)]
pub(super) struct Connector {
    pub authorities: Vec<reqwest::Certificate>,
    pub timeouts: Timeouts,
}

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let plain = options.get_config_value(&ClientConfigKey::AllowHttp).is_some_and(|value| value == "true");
        let client = reqwest::Client::builder()
            .user_agent(concat!("checkpoint-operator/", env!("CARGO_PKG_VERSION")))
            .http1_only()
            .no_proxy()
            .redirect(Policy::none())
            .https_only(!plain)
            .connect_timeout(self.timeouts.connect)
            .read_timeout(self.timeouts.stall)
            .dns_resolver(Resolver)
            .tls_certs_merge(self.authorities.clone())
            .build()
            .map_err(|error| object_store::Error::Generic { store: "S3", source: Box::new(error.without_url()) })?;
        Ok(HttpClient::new(Service { client: HttpClient::new(client) }))
    }
}

#[derive(Debug)]
struct Service {
    client: HttpClient,
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
        let header = response.headers().get("x-amz-bucket-region").and_then(|value| value.to_str().ok());
        let region = header.filter(|text| is_region(text)).map(str::to_owned);
        let code = if status.is_success() { None } else { error_code(response).await };
        let answer = Answer { host, status: status.as_u16(), code, region };
        // object_store never repeats errors of this kind; the backend does, and knows when.
        Err(HttpError::new(HttpErrorKind::Unknown, answer))
    }
}

/// Whether the text can be the name of a region.
pub(super) fn is_region(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

async fn error_code(response: HttpResponse) -> Option<&'static str> {
    let mut body = Vec::new();
    let mut stream = response.into_body().bytes_stream();
    while let Some(Ok(piece)) = stream.next().await {
        body.extend_from_slice(&piece);
        if body.len() >= BODY_LIMIT {
            break;
        }
    }
    let text = String::from_utf8_lossy(&body);
    let after = text.split_once("<Code>")?.1;
    let code = after.split_once("</Code>")?.0.trim();
    CODES.iter().copied().find(|known| *known == code)
}

/// Looks names up as the system does, says which name failed, and leaves out addresses of metadata services.
#[derive(Debug)]
struct Resolver;

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let name = name.as_str().to_owned();
        Box::pin(async move {
            let found: io::Result<Vec<SocketAddr>> =
                tokio::net::lookup_host((name.as_str(), 0)).await.map(Iterator::collect);
            let all = found.unwrap_or_default();
            if all.is_empty() {
                return Err(NameError::Unknown(name).into());
            }
            let usable: Vec<_> = all.into_iter().filter(|address| !is_link_local(address.ip())).collect();
            if usable.is_empty() {
                return Err(NameError::LinkLocal(name).into());
            }
            Ok(Box::new(usable.into_iter()) as Addrs)
        })
    }
}

/// Whether it is an address that only means something on its own link, where clouds put their metadata services.
pub(super) fn is_link_local(address: std::net::IpAddr) -> bool {
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
