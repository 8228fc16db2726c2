//! What the answers of a web server mean. Pure, no I/O.

use reqwest::header::HeaderMap;

use crate::contract::{Access, HttpTask};

use super::super::{
    StorageError,
    remote::{
        client::{Answer, Manners},
        errors::{Asked, Place},
        redirect::LOCATION,
    },
};

/// Bodies of errors are pages for people.
pub(super) static MANNERS: Manners =
    Manners { server: "a web server", codes: &[], code, headers: &[LOCATION], elements: &[] };
/// What is said of a server that answers a request for a range with everything.
pub(super) const NO_RANGES: &str = "the server does not serve ranges";

fn code(_: &HeaderMap, _: &str) -> Option<String> {
    None
}

/// What was asked, for messages.
#[derive(Clone, Debug)]
pub(super) struct Site {
    pub place: Place,
    pub task: HttpTask,
}

impl Site {
    /// The error as one that can be shown.
    pub(super) fn explain(&self, error: &(dyn std::error::Error + 'static), asked: Asked<'_>) -> StorageError {
        self.place.explain(error, |answer| self.answer(answer, asked))
    }

    /// A file that is gone while the names are gathered was never there.
    pub(super) fn absent(&self, error: StorageError, path: &str) -> StorageError {
        match error {
            StorageError::Changed(_) => StorageError::NotFound(format!(
                "there is no {path} at {}: check url, path and files of storage.http",
                self.task.url
            )),
            error => error,
        }
    }

    fn answer(&self, answer: &Answer, asked: Asked<'_>) -> StorageError {
        let Answer { host, status, .. } = answer;
        let Asked::File(path) = asked else {
            return StorageError::Unreachable(format!("{host} answered {status}"));
        };
        match status {
            404 | 410 => StorageError::Changed(format!("{path} is gone since it was listed")),
            412 => StorageError::changed(path),
            416 => StorageError::Changed(format!("{path} is shorter than it was listed")),
            401 | 403 | 407 => self.refused(answer, path),
            200..300 => StorageError::Unreachable(NO_RANGES.into()),
            408 | 425 | 429 | 500.. => answer.busy(),
            _ => StorageError::InvalidSpec(format!("{host} answered {status} when it was asked for {path}")),
        }
    }

    fn refused(&self, answer: &Answer, path: &str) -> StorageError {
        let (who, remedy) = match &self.task.connection.access {
            Access::Secret(name) => (format!("the credentials of Secret {name}"), "check its keys"),
            Access::Anonymous | Access::Ambient => (
                "requests without credentials".to_owned(),
                if self.task.files.is_empty() && self.task.manifest.is_none() {
                    "set storage.http.credentials.secretRef; if it is a folder, name what is in it with storage.http.files or manifest"
                } else {
                    "set storage.http.credentials.secretRef"
                },
            ),
        };
        StorageError::AccessDenied(format!("{} refuses {who} ({}) for {path}: {remedy}", answer.host, answer.status))
    }
}
