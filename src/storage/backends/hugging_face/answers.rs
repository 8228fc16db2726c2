//! What the answers of the Hugging Face Hub mean. Pure, no I/O.

use reqwest::header::HeaderMap;

use url::Url;

use crate::contract::HuggingFaceTask;

use super::{
    super::{
        StorageError,
        remote::{
            client::{Answer, Manners},
            errors::{Asked, Place},
            redirect::LOCATION,
        },
    },
    credentials::Who,
};

/// How it answers: the headers `X-Error-Code` and `X-Error-Message`, as `huggingface_hub` reads them.
pub(super) static MANNERS: Manners =
    Manners { server: "a Hugging Face Hub", codes: CODES, code, headers: &[LOCATION], elements: &[] };

/// Codes that may be shown.
const CODES: &[&str] =
    &["DisabledRepo", "EntryNotFound", "GatedRepo", INVALID_TOKEN, "RepoNotFound", "RevisionNotFound"];
/// Our name for what the Hub has only a message for.
const INVALID_TOKEN: &str = "InvalidToken";
/// The member that says who reads.
const SECRET: &str = "storage.huggingFace.credentials.secretRef";

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
    /// The server whose pages people see.
    pub page: Url,
    pub who: Who,
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
                match &self.who {
                    Who::Secret(_) | Who::Person => format!("let {} read gated repositories", self.who()),
                    Who::Nobody | Who::Withheld => format!("set {SECRET}{}", self.withheld()),
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
        let server = self.page.as_str().trim_end_matches('/');
        format!("{server}/{}{}", if self.task.dataset { "datasets/" } else { "" }, self.task.repository)
    }

    fn who(&self) -> String {
        match &self.who {
            Who::Secret(name) => format!("the token of Secret {name}"),
            Who::Person => "your own token (HF_TOKEN, or that of your login)".to_owned(),
            Who::Nobody | Who::Withheld => "requests without a token".to_owned(),
        }
    }

    /// Why a person's token does not help.
    fn withheld(&self) -> &'static str {
        if self.who == Who::Withheld {
            "; your own token is only sent to the Hub itself, and to the server that HF_ENDPOINT names"
        } else {
            ""
        }
    }

    fn unknown(&self, answer: &Answer) -> StorageError {
        let (repository, shown) = (&self.task.repository, answer.shown());
        let who = self.who();
        match &self.who {
            // A token that the Hub knows is answered with 404, one that it does not with 401.
            Who::Secret(_) | Who::Person if answer.status == 401 => StorageError::AccessDenied(format!(
                "{} refuses {who} for {repository} ({shown}): check that it is valid, and the name of the repository",
                answer.host
            )),
            Who::Secret(_) | Who::Person => StorageError::NotFound(format!(
                "{repository} does not exist, or is private and not of those that {who} may read ({shown}): check the name and the token's rights"
            )),
            Who::Nobody | Who::Withheld => StorageError::NotFound(format!(
                "{repository} does not exist or is private ({shown}): check the name, or set {SECRET}{}",
                self.withheld()
            )),
        }
    }
}
