//! What the answers of Google Cloud Storage mean. Pure, no I/O.

use reqwest::header::HeaderMap;
use serde_json::Value;

use crate::contract::Access;

use super::super::{
    StorageError,
    remote::{
        client::{Answer, Manners},
        errors::{Asked, Place},
    },
};

/// How it answers: <https://cloud.google.com/storage/docs/json_api/v1/status-codes>.
pub(super) static MANNERS: Manners =
    Manners { server: "a server of Google Cloud Storage", codes: CODES, code, headers: &[], elements: &[] };

/// Reasons that may be shown.
const CODES: &[&str] = &[
    "accountDisabled",
    "authError",
    "backendError",
    "conditionNotMet",
    "countryBlocked",
    "forbidden",
    "insufficientPermissions",
    "internalError",
    "invalid",
    "notFound",
    "quotaExceeded",
    "rateLimitExceeded",
    "required",
    "userRateLimitExceeded",
];

/// `{"error": {"errors": [{"reason": "forbidden"}]}}`
fn code(_: &HeaderMap, body: &str) -> Option<String> {
    let body: Value = serde_json::from_str(body).ok()?;
    Some(body.pointer("/error/errors/0/reason")?.as_str()?.to_owned())
}

/// What was asked for, for messages.
#[derive(Clone, Debug)]
pub(super) struct Bucket {
    pub place: Place,
    /// The bucket's name.
    pub name: String,
    pub access: Access,
}

impl Bucket {
    /// The error as one that can be shown.
    pub(super) fn explain(&self, error: &(dyn std::error::Error + 'static), asked: Asked<'_>) -> StorageError {
        self.place.explain(error, |answer| self.answer(answer, asked))
    }

    fn answer(&self, answer: &Answer, asked: Asked<'_>) -> StorageError {
        let Answer { host, status, code, .. } = answer;
        let (shown, bucket) = (answer.shown(), &self.name);
        match (status, asked) {
            (_, _) if matches!(code, Some("rateLimitExceeded" | "userRateLimitExceeded" | "quotaExceeded")) => {
                answer.busy()
            }
            (404 | 410, Asked::File(path)) => StorageError::Changed(format!("{path} is gone since it was listed")),
            (404 | 410, Asked::Listing) => StorageError::NotFound(match code {
                Some(_) => format!("there is no bucket {bucket} at {host}"),
                None => format!("there is no bucket {bucket} at {host}, or it is no server of Google Cloud Storage"),
            }),
            (304 | 412, Asked::File(path)) => StorageError::changed(path),
            (416, Asked::File(path)) => StorageError::Changed(format!("{path} is shorter than it was listed")),
            (401 | 403, _) => self.refused(answer, &shown),
            (200..300, _) => StorageError::Unreachable(format!(
                "{host} answered {status} to a request for a range: it does not serve ranges"
            )),
            (408 | 425 | 429 | 500.., _) => answer.busy(),
            _ => StorageError::InvalidSpec(format!(
                "{host} answered {shown}: check endpoint and bucket; it may not be a server of Google Cloud Storage"
            )),
        }
    }

    /// The error of a request for a token.
    pub(super) fn explain_token(&self, error: &(dyn std::error::Error + 'static)) -> StorageError {
        let (who, remedy, nobody) = match &self.access {
            Access::Secret(name) => (format!("the key of Secret {name}"), "make a new key and renew the Secret", None),
            Access::Anonymous | Access::Ambient => (
                "the pod".to_owned(),
                "give its service account an identity (workload identity), or set storage.gcs.credentials",
                Some(
                    "no metadata service gives the pod an identity for Google Cloud: give its service account one \
                     (workload identity), or set storage.gcs.credentials",
                ),
            ),
        };
        self.place.explain_token(error, &who, remedy, nobody)
    }

    fn refused(&self, answer: &Answer, shown: &str) -> StorageError {
        let (who, remedy) = match &self.access {
            Access::Secret(name) if answer.status == 401 => (
                format!("the key of Secret {name}"),
                "it is deleted or its service account disabled: make a new key and renew the Secret",
            ),
            Access::Secret(name) => (
                format!("the key of Secret {name}"),
                "give its service account the role Storage Object Viewer on the bucket",
            ),
            Access::Anonymous => (
                "requests without credentials".to_owned(),
                "make the bucket public or set storage.gcs.credentials.secretRef",
            ),
            Access::Ambient => (
                "the identity of the service account".to_owned(),
                "give it the role Storage Object Viewer on the bucket",
            ),
        };
        StorageError::AccessDenied(format!(
            "{} refuses {who} ({shown}) for bucket {}: {remedy}",
            answer.host, self.name
        ))
    }
}
