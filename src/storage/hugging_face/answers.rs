//! What the answers of the Hugging Face Hub mean. Pure, no I/O.

use reqwest::header::HeaderMap;

use crate::contract::{Access, HuggingFaceTask};

use super::super::{
    StorageError,
    remote::{
        client::{Answer, Manners},
        errors::{Asked, Place},
        redirect::LOCATION,
    },
};

/// How it answers: the header `X-Error-Code`, as huggingface_hub reads it.
pub(super) static MANNERS: Manners = Manners { server: "a Hugging Face Hub", codes: CODES, code, headers: &[LOCATION] };

/// Codes that may be shown.
const CODES: &[&str] = &["DisabledRepo", "EntryNotFound", "GatedRepo", "RepoNotFound", "RevisionNotFound"];

fn code(headers: &HeaderMap, _: &str) -> Option<String> {
    headers.get("x-error-code")?.to_str().ok().map(str::to_owned)
}

/// What was asked, for messages.
#[derive(Clone, Debug)]
pub(super) struct Repository {
    pub place: Place,
    pub task: HuggingFaceTask,
}

impl Repository {
    /// The kind as it stands in addresses.
    pub(super) fn kind(&self) -> &'static str {
        if self.task.dataset { "datasets" } else { "models" }
    }

    /// The error as one that can be shown.
    pub(super) fn explain(&self, error: &(dyn std::error::Error + 'static), asked: Asked<'_>) -> StorageError {
        self.place.explain(error, |answer| self.answer(answer, asked))
    }

    fn answer(&self, answer: &Answer, asked: Asked<'_>) -> StorageError {
        let Answer { host, status, code, .. } = answer;
        let HuggingFaceTask { repository, revision, path, .. } = &self.task;
        let shown = answer.shown();
        match (code, status, asked) {
            (Some("GatedRepo"), ..) => StorageError::AccessDenied(format!(
                "{repository} is gated ({shown}): accept its conditions at https://huggingface.co/{repository} with the account that the token is of"
            )),
            (Some("DisabledRepo"), ..) => {
                StorageError::AccessDenied(format!("{repository} was disabled by the Hub ({shown})"))
            }
            (Some("RevisionNotFound"), ..) => StorageError::NotFound(format!(
                "{repository} has no revision {revision}: set storage.huggingFace.revision to a branch, tag or commit of it"
            )),
            // The Hub does not tell whether a private repository exists.
            (Some("RepoNotFound"), ..) | (_, 401, _) => self.unknown(&shown),
            (_, 403, _) => {
                StorageError::AccessDenied(format!("{host} refuses {} for {repository} ({shown})", self.who()))
            }
            (_, 404 | 410, Asked::File(path)) => StorageError::Changed(format!("{path} is gone since it was listed")),
            (_, 404 | 410, Asked::Listing) => StorageError::NotFound(format!(
                "{repository} has no folder {path:?} at revision {revision}, or {host} is no Hub"
            )),
            (_, 416, Asked::File(path)) => StorageError::Changed(format!("{path} is shorter than it was listed")),
            (_, 200..300, _) => StorageError::Unreachable(format!(
                "{host} answered {status} to a request for a range: it does not serve ranges"
            )),
            (_, 408 | 425 | 429 | 500.., _) => answer.busy(),
            _ => StorageError::InvalidSpec(format!(
                "{host} answered {shown}: check storage.huggingFace.endpoint; it may not be a Hub"
            )),
        }
    }

    fn who(&self) -> String {
        match &self.task.connection.access {
            Access::Secret(name) => format!("the token of Secret {name}"),
            Access::Anonymous | Access::Ambient => "requests without a token".to_owned(),
        }
    }

    fn unknown(&self, shown: &str) -> StorageError {
        let repository = &self.task.repository;
        match &self.task.connection.access {
            Access::Secret(name) => StorageError::AccessDenied(format!(
                "{repository} does not exist, or the token of Secret {name} may not read it ({shown}): check the name, and that the token is valid"
            )),
            Access::Anonymous | Access::Ambient => StorageError::NotFound(format!(
                "{repository} does not exist or is private ({shown}): check the name, or set storage.huggingFace.credentials.secretRef"
            )),
        }
    }
}
