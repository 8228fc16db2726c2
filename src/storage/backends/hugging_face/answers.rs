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

/// How it answers: the headers `X-Error-Code` and `X-Error-Message`, as `huggingface_hub` reads them.
pub(super) static MANNERS: Manners =
    Manners { server: "a Hugging Face Hub", codes: CODES, code, headers: &[LOCATION], elements: &[] };

/// Codes that may be shown.
const CODES: &[&str] =
    &["DisabledRepo", "EntryNotFound", "GatedRepo", INVALID_TOKEN, "RepoNotFound", "RevisionNotFound"];
/// Our name for what the Hub has only a message for.
const INVALID_TOKEN: &str = "InvalidToken";

fn code(headers: &HeaderMap, _: &str) -> Option<String> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    if text("x-error-message").is_some_and(|message| message.starts_with("Invalid credentials in Authorization")) {
        return Some(INVALID_TOKEN.to_owned());
    }
    text("x-error-code").map(str::to_owned)
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
        let page = self.page();
        let shown = answer.shown();
        match (code, status, asked) {
            (Some("GatedRepo"), ..) => StorageError::AccessDenied(format!(
                "{repository} is gated ({shown}): accept its conditions at {page} with the account of the token, and {}",
                match &self.task.connection.access {
                    Access::Secret(name) => format!("let the token of Secret {name} read gated repositories"),
                    Access::Anonymous | Access::Ambient => {
                        "set storage.huggingFace.credentials.secretRef".to_owned()
                    }
                }
            )),
            (Some("DisabledRepo"), ..) => {
                StorageError::AccessDenied(format!("{repository} was disabled by the Hub ({shown})"))
            }
            (Some("RevisionNotFound"), ..) => StorageError::NotFound(format!(
                "{repository} has no revision {revision}: set storage.huggingFace.revision to a branch, tag or commit of it"
            )),
            (Some(INVALID_TOKEN), ..) => StorageError::AccessDenied(format!(
                "{host} does not accept {} ({status}): it is wrong, expired or revoked",
                self.who()
            )),
            // The Hub does not tell whether a private repository exists.
            (Some("RepoNotFound"), ..) | (_, 401, _) => self.unknown(answer),
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

    /// Where people see the repository.
    fn page(&self) -> String {
        let server = self.task.connection.endpoint.as_deref().unwrap_or("https://huggingface.co");
        format!("{server}/{}{}", if self.task.dataset { "datasets/" } else { "" }, self.task.repository)
    }

    fn who(&self) -> String {
        match &self.task.connection.access {
            Access::Secret(name) => format!("the token of Secret {name}"),
            Access::Anonymous | Access::Ambient => "requests without a token".to_owned(),
        }
    }

    fn unknown(&self, answer: &Answer) -> StorageError {
        let (repository, shown) = (&self.task.repository, answer.shown());
        match &self.task.connection.access {
            // A token that the Hub knows is answered with 404, one that it does not with 401.
            Access::Secret(name) if answer.status == 401 => StorageError::AccessDenied(format!(
                "{} refuses the token of Secret {name} for {repository} ({shown}): check that it is valid, and the name of the repository",
                answer.host
            )),
            Access::Secret(name) => StorageError::NotFound(format!(
                "{repository} does not exist, or is private and not of those that the token of Secret {name} may read ({shown}): check the name and the token's rights"
            )),
            Access::Anonymous | Access::Ambient => StorageError::NotFound(format!(
                "{repository} does not exist or is private ({shown}): check the name, or set storage.huggingFace.credentials.secretRef"
            )),
        }
    }
}
