//! From an error of the HTTP client to what a user can act on. Pure, no I/O.
//!
//! Only the kinds of errors in the chain are looked at. Their texts, which may hold URLs and bodies, are never passed on.

use std::{error::Error, io, iter::successors};

use object_store::client::{HttpError, HttpErrorKind};

use crate::contract::S3Access;

use super::{
    super::StorageError,
    client::{Answer, NameError},
};

/// What was being done where, for messages.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub bucket: String,
    /// Host and port.
    pub host: String,
    pub region: String,
    pub access: S3Access,
    pub has_ca: bool,
}

/// What was asked for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Asked<'a> {
    Listing,
    File(&'a str),
}

/// An error and what caused it, from the outside in. An `io::Error` hides what it holds from `source`.
fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    successors(Some(error), |&error| match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(inner) => Some(inner as &(dyn Error + 'static)),
        None => error.source(),
    })
}

fn find<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    chain(error).find_map(|cause| cause.downcast_ref())
}

impl Place {
    /// The error as one that can be shown.
    pub(super) fn explain(&self, error: &(dyn Error + 'static), asked: Asked<'_>) -> StorageError {
        if let Some(own) = find::<StorageError>(error) {
            return own.clone();
        }
        if let Some(answer) = find::<Answer>(error) {
            return self.answer(answer, asked);
        }
        if let Some(name) = find::<NameError>(error) {
            return StorageError::Unreachable(name.to_string());
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
            _ => format!("{host} broke off, or its answer is not one of an S3 server"),
        })
    }

    fn tls(&self, error: &rustls::Error) -> StorageError {
        let host = &self.host;
        StorageError::Tls(match error {
            rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer) if self.has_ca => format!(
                "the certificate of {host} is signed by an unknown authority: storage.s3.caBundle does not hold it"
            ),
            rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer) => format!(
                "the certificate of {host} is signed by an unknown authority: put that into a ConfigMap and name it in storage.s3.caBundle"
            ),
            rustls::Error::InvalidCertificate(problem) => format!("the certificate of {host} is not valid: {problem}"),
            rustls::Error::InvalidMessage(_) => {
                format!("{host} does not speak TLS: is it an http:// endpoint (with insecure: true)?")
            }
            other => format!("no TLS connection to {host}: {other}"),
        })
    }

    fn answer(&self, answer: &Answer, asked: Asked<'_>) -> StorageError {
        let Answer { host, status, .. } = answer;
        let shown = answer.code.map_or_else(|| status.to_string(), |code| format!("{status} {code}"));
        match (status, answer.code) {
            (_, Some("NoSuchBucket")) => {
                StorageError::NotFound(format!("there is no bucket {} at {host}", self.bucket))
            }
            (404 | 410, _) => match asked {
                Asked::File(path) => StorageError::Changed(format!("{path} is gone since it was listed")),
                Asked::Listing => {
                    StorageError::NotFound(format!("there is no bucket {} at {host}, or no S3 server", self.bucket))
                }
            },
            (304 | 412, _) => StorageError::Changed(match asked {
                Asked::File(path) => format!("{path} is no longer the file that was listed"),
                Asked::Listing => format!("the bucket {} changed while it was listed", self.bucket),
            }),
            (416, _) => StorageError::Changed(match asked {
                Asked::File(path) => format!("{path} is shorter than it was listed"),
                Asked::Listing => format!("{host} answered {shown} to a listing"),
            }),
            (_, Some("AuthorizationHeaderMalformed" | "PermanentRedirect" | "IllegalLocationConstraintException"))
            | (300..400, _) => self.elsewhere(answer),
            (_, Some("InvalidObjectState")) => StorageError::AccessDenied(format!(
                "{} is archived: restore it before it can be read",
                if let Asked::File(path) = asked { path } else { "a file" }
            )),
            (401 | 403, _)
            | (
                400,
                Some(
                    "ExpiredToken"
                    | "ExpiredTokenException"
                    | "InvalidToken"
                    | "TokenRefreshRequired"
                    | "InvalidIdentityToken",
                ),
            ) => self.refused(answer, &shown),
            (200..300, _) => StorageError::Unreachable(format!(
                "{host} answered {status} to a request for a range: it does not serve ranges"
            )),
            (408 | 425 | 429 | 500.., _) | (_, Some("RequestTimeout" | "SlowDown" | "ServiceUnavailable")) => {
                StorageError::Unreachable(format!("{host} answered {shown}"))
            }
            _ => StorageError::InvalidSpec(format!(
                "{host} answered {shown}: check endpoint, addressing and bucket; it may not be an S3 server"
            )),
        }
    }

    fn elsewhere(&self, answer: &Answer) -> StorageError {
        let (host, bucket) = (&answer.host, &self.bucket);
        StorageError::InvalidSpec(match &answer.region {
            Some(region) if *region != self.region => format!(
                "the bucket {bucket} is in region {region} and not in {}: set storage.s3.region to {region}",
                self.region
            ),
            _ => format!(
                "{host} says that the bucket {bucket} is elsewhere ({}), which is not followed: check storage.s3.region and endpoint",
                answer.status
            ),
        })
    }

    fn refused(&self, answer: &Answer, shown: &str) -> StorageError {
        let who = match &self.access {
            S3Access::Secret(name) => format!("the keys of Secret {name}"),
            S3Access::Anonymous => "requests without credentials".to_owned(),
            S3Access::Ambient => "the identity of the service account".to_owned(),
        };
        let remedy = match (answer.code, &self.access) {
            (Some("InvalidAccessKeyId"), S3Access::Secret(_)) => "AWS_ACCESS_KEY_ID is not known there",
            (Some("SignatureDoesNotMatch"), S3Access::Secret(_)) => {
                "AWS_SECRET_ACCESS_KEY does not belong to AWS_ACCESS_KEY_ID"
            }
            (
                Some("ExpiredToken" | "ExpiredTokenException" | "InvalidToken" | "TokenRefreshRequired"),
                S3Access::Secret(_),
            ) => "AWS_SESSION_TOKEN is expired or not valid: renew the Secret",
            (Some("RequestTimeTooSkewed"), _) => "the clock of the node is wrong",
            (_, S3Access::Anonymous) => "make the bucket public or set storage.s3.credentials.secretRef",
            _ => "allow s3:ListBucket on the bucket and s3:GetObject on its objects",
        };
        StorageError::AccessDenied(format!(
            "{} refuses {who} ({shown}) for bucket {}: {remedy}",
            answer.host, self.bucket
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explain(status: u16, code: Option<&'static str>, asked: Asked<'_>) -> StorageError {
        let place = Place {
            bucket: "training".into(),
            host: "s3.test:443".into(),
            region: "us-east-1".into(),
            access: S3Access::Secret("s3-creds".into()),
            has_ca: false,
        };
        let answer = Answer { host: "s3.test:443".into(), status, code, region: Some("eu-west-1".into()) };
        let outer = HttpError::new(HttpErrorKind::Unknown, answer);
        let outer = object_store::Error::Generic { store: "S3", source: Box::new(outer) };
        place.explain(&outer, asked)
    }

    #[test]
    fn answers_become_reasons() {
        use crate::contract::Reason;
        let file = Asked::File("model.safetensors");
        let table = [
            (404, Some("NoSuchBucket"), Asked::Listing, Reason::NotFound, "no bucket training"),
            (404, Some("NoSuchKey"), file, Reason::SourceChanged, "model.safetensors is gone"),
            (412, None, file, Reason::SourceChanged, "model.safetensors"),
            (304, None, file, Reason::SourceChanged, "model.safetensors"),
            (416, None, file, Reason::SourceChanged, "shorter"),
            (301, Some("PermanentRedirect"), Asked::Listing, Reason::InvalidSpec, "region to eu-west-1"),
            (400, Some("AuthorizationHeaderMalformed"), Asked::Listing, Reason::InvalidSpec, "eu-west-1"),
            (403, Some("InvalidAccessKeyId"), Asked::Listing, Reason::AccessDenied, "AWS_ACCESS_KEY_ID is not known"),
            (403, Some("SignatureDoesNotMatch"), Asked::Listing, Reason::AccessDenied, "AWS_SECRET_ACCESS_KEY"),
            (403, Some("AccessDenied"), file, Reason::AccessDenied, "Secret s3-creds (403 AccessDenied)"),
            (403, Some("InvalidObjectState"), file, Reason::AccessDenied, "archived"),
            (401, None, Asked::Listing, Reason::AccessDenied, "s3:ListBucket"),
            (400, Some("ExpiredToken"), Asked::Listing, Reason::AccessDenied, "renew"),
            (400, None, Asked::Listing, Reason::InvalidSpec, "may not be an S3 server"),
            (200, None, file, Reason::Unreachable, "does not serve ranges"),
            (429, None, file, Reason::Unreachable, "429"),
            (500, Some("InternalError"), file, Reason::Unreachable, "500 InternalError"),
            (503, Some("SlowDown"), file, Reason::Unreachable, "503 SlowDown"),
        ];
        for (status, code, asked, reason, part) in table {
            let error = explain(status, code, asked);
            assert_eq!(error.reason(), reason, "{status} {code:?}: {error}");
            assert!(error.to_string().contains(part), "{status} {code:?}: {error}");
        }
    }

    #[test]
    fn what_an_io_error_holds_is_found() {
        let tls = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        let error = io::Error::other(io::Error::new(io::ErrorKind::InvalidData, tls));
        assert!(find::<rustls::Error>(&error).is_some());
    }
}
