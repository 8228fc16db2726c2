//! From an error of the HTTP client to what a user can act on. Pure, no I/O.
//!
//! Only the kinds of errors in the chain are looked at. Their texts, which may hold URLs and bodies, are never passed on.

use std::{error::Error, io, iter::successors};

use object_store::client::{HttpError, HttpErrorKind};
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};

use super::{
    super::StorageError,
    client::{Answer, Manners, NameError},
};

/// A server, for messages.
#[derive(Clone, Debug)]
pub(in crate::storage) struct Place {
    /// Host and port.
    pub host: String,
    /// The member of the spec that configures it, such as `storage.s3`.
    pub field: &'static str,
    /// What to check when there is no such host, such as `storage.s3.endpoint`.
    pub named_by: &'static str,
    /// Whether certificate authorities were given.
    pub has_ca: bool,
    /// How it answers.
    pub manners: &'static Manners,
}

/// What was asked for.
#[derive(Clone, Copy, Debug)]
pub(in crate::storage) enum Asked<'a> {
    /// Names, or facts about the whole.
    Listing,
    /// The content of the file at this path.
    File(&'a str),
}

/// An error and what caused it, from the outside in. An `io::Error` hides what it holds from `source`.
fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    successors(Some(error), |&error| match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(inner) => Some(inner as &(dyn Error + 'static)),
        None => error.source(),
    })
}

/// The first cause of this type.
pub(in crate::storage) fn find<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    chain(error).find_map(|cause| cause.downcast_ref())
}

impl Place {
    /// The error as one that can be shown; `answer` says what a refusal of this kind of server means.
    pub fn explain(&self, error: &(dyn Error + 'static), answer: impl FnOnce(&Answer) -> StorageError) -> StorageError {
        if let Some(own) = find::<StorageError>(error) {
            return own.clone();
        }
        if let Some(refused) = find::<Answer>(error) {
            return answer(refused);
        }
        if let Some(name) = find::<NameError>(error) {
            return self.name(name);
        }
        if let Some(tls) = find::<rustls::Error>(error) {
            return self.tls(tls);
        }
        let host = &self.host;
        let system = chain(error).filter_map(|cause| cause.downcast_ref::<io::Error>()).last();
        let kind = find::<HttpError>(error).map(HttpError::kind);
        StorageError::Unreachable(match (system.map(io::Error::kind), kind) {
            (Some(io::ErrorKind::ConnectionRefused), _) => {
                format!("{host} refuses connections: nothing listens there, or a firewall is in the way")
            }
            (Some(io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable), _) => {
                format!("there is no route to {host}")
            }
            (_, Some(HttpErrorKind::Connect)) => format!("no connection to {host} could be made"),
            (_, Some(HttpErrorKind::Timeout)) => format!("{host} did not answer in time"),
            _ => format!("{host} broke off, or its answer is not one of {}", self.manners.server),
        })
    }

    fn name(&self, error: &NameError) -> StorageError {
        let (NameError::Unknown(name) | NameError::LinkLocal(name)) = error;
        let own = self.host.rsplit_once(':').is_some_and(|(host, _)| host == name);
        match error {
            // Name servers fail in passing, too.
            NameError::Unknown(_) if own => {
                StorageError::Unreachable(format!("{error}: check {}, and the DNS of the cluster", self.named_by))
            }
            NameError::LinkLocal(_) if own => StorageError::InvalidSpec(format!("{error}: check {}", self.named_by)),
            _ => StorageError::Unreachable(error.to_string()),
        }
    }

    /// The error for a whole answer that is not `what` was asked for. A page for people stays one until somebody names another
    /// address; anything else may have been cut off on its way.
    pub fn not_asked_for(&self, headers: &HeaderMap, body: &[u8], what: &str) -> StorageError {
        let (host, server) = (&self.host, self.manners.server);
        if is_page(headers, body) {
            StorageError::InvalidSpec(format!(
                "{host} answered with a web page instead of {what}: check {}, which must be the address of {server} and not of its \
                 console, a login or a proxy",
                self.named_by
            ))
        } else {
            StorageError::Unreachable(format!(
                "{host} answered with something that is not {what}: check {}, it may not be {server}",
                self.named_by
            ))
        }
    }

    /// The error of a request for a token, which another server gives than the one that stores; `remedy` is what helps when it
    /// refuses, `nobody` is said when it does not answer.
    pub fn explain_token(
        &self,
        error: &(dyn Error + 'static),
        who: &str,
        remedy: &str,
        nobody: Option<&str>,
    ) -> StorageError {
        let answer = |answer: &Answer| match answer.status {
            408 | 425 | 429 | 500.. => answer.busy(),
            status => StorageError::AccessDenied(format!("{} gives {who} no token ({status}): {remedy}", answer.host)),
        };
        let known = find::<StorageError>(error).is_some() || find::<Answer>(error).is_some();
        match nobody.filter(|_| !known) {
            Some(nobody) => StorageError::Unreachable(nobody.to_owned()),
            None => self.explain(error, answer),
        }
    }

    fn tls(&self, error: &rustls::Error) -> StorageError {
        let (host, field) = (&self.host, self.field);
        StorageError::Tls(match error {
            rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer) if self.has_ca => format!(
                "the certificate of {host} is signed by an unknown authority: {field}.caBundle does not hold it"
            ),
            rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer) => format!(
                "the certificate of {host} is signed by an unknown authority: put that into a ConfigMap and name it in {field}.caBundle"
            ),
            rustls::Error::InvalidCertificate(problem) => format!("the certificate of {host} is not valid: {problem}"),
            rustls::Error::InvalidMessage(_) => {
                format!("{host} does not speak TLS: is it an http:// endpoint (with insecure: true)?")
            }
            other => format!("no TLS connection to {host}: {other}"),
        })
    }
}

/// Whether an answer is for people: its type or its first bytes say so.
pub(in crate::storage) fn is_page(headers: &HeaderMap, body: &[u8]) -> bool {
    let html = |kind: &HeaderValue| kind.to_str().is_ok_and(|kind| kind.to_ascii_lowercase().contains("html"));
    headers.get(CONTENT_TYPE).is_some_and(html) || is_html(body)
}

/// Whether these are the first bytes of a web page.
pub(in crate::storage) fn is_html(body: &[u8]) -> bool {
    let start = body.trim_ascii_start();
    let begins = |text: &[u8]| start.get(..text.len()).is_some_and(|start| start.eq_ignore_ascii_case(text));
    begins(b"<!doctype html") || begins(b"<html")
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Place {
        /// A server of these manners at `s3.test:443`.
        pub fn test(field: &'static str, manners: &'static Manners) -> Self {
            Self { host: "s3.test:443".to_owned(), field, named_by: field, has_ca: false, manners }
        }
    }

    #[test]
    fn what_an_io_error_holds_is_found() {
        let tls = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        let error = io::Error::other(io::Error::new(io::ErrorKind::InvalidData, tls));
        assert!(find::<rustls::Error>(&error).is_some());
    }
}
