//! Who reads a repository: a Secret's token, the person at a laptop, or nobody. Reads files.

use std::sync::{Mutex, PoisonError};

use url::Url;

use crate::contract::{
    Access,
    environment::{ALLOWED_HOSTS, HUGGING_FACE_KEYS},
};

use super::{
    super::{
        Mounts, StorageError,
        remote::{
            hosts::may_have_bearer,
            secret::{SecretFiles, word},
        },
    },
    person::Person,
};

/// Domains of the Hub, to which tokens may go.
const OWN: &[&str] = &["huggingface.co", "hf.co"];

/// Who asks, for messages.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Who {
    /// The token of this Secret.
    Secret(String),
    /// The token of the person who runs the command.
    Person,
    /// Nobody, although there is a person with a token: the server is not one that may have it.
    Withheld,
    /// Nobody.
    Nobody,
}

/// Gives the tokens.
pub(super) enum Reader {
    /// Requests have none.
    Nobody,
    /// A Secret's token.
    Secret(SecretFiles),
    /// The person's token as it was last read.
    Person(Person, Mutex<String>),
}

impl Reader {
    /// Checks who is to read.
    pub(super) fn open(access: &Access, mounts: &Mounts, server: &Url) -> Result<(Self, Who), StorageError> {
        let person = mounts.person.as_ref();
        let theirs = person.is_some_and(|person| person.named(server));
        if let Access::Secret(name) = access {
            let files = SecretFiles::new(mounts.credentials.clone(), name.clone(), &HUGGING_FACE_KEYS);
            let keys = files.current()?;
            if !theirs && !may_have_bearer(server, OWN, keys.get(ALLOWED_HOSTS).map(String::as_str)) {
                let host = shown(server);
                return Err(StorageError::AccessDenied(format!(
                    "the token is only sent to the Hub's own hosts, not to {host}: list it in the key {ALLOWED_HOSTS} of Secret {name}"
                )));
            }
            let reader = Self::Secret(files);
            reader.token()?;
            return Ok((reader, Who::Secret(name.clone())));
        }
        let Some(person) = person else { return Ok((Self::Nobody, Who::Nobody)) };
        if !theirs && !may_have_bearer(server, OWN, None) {
            // Public repositories of other servers need no token, so having one is no error; nor is one that cannot be read.
            let has_one = !matches!(person.token(), Ok(None));
            return Ok((Self::Nobody, if has_one { Who::Withheld } else { Who::Nobody }));
        }
        Ok(match person.token()? {
            Some(token) => (Self::Person(person.clone(), Mutex::new(token)), Who::Person),
            None => (Self::Nobody, Who::Nobody),
        })
    }

    /// The token, if there is one.
    pub(super) fn token(&self) -> Result<Option<String>, StorageError> {
        match self {
            Self::Nobody => Ok(None),
            Self::Person(_, token) => Ok(Some(token.lock().unwrap_or_else(PoisonError::into_inner).clone())),
            Self::Secret(files) => {
                let keys = files.current()?;
                let token = match word(files, &keys, HUGGING_FACE_KEYS[0])? {
                    Some(token) => Some(token),
                    None => word(files, &keys, HUGGING_FACE_KEYS[1])?,
                };
                token.map(|token| Some(token.to_owned())).ok_or_else(|| files.missing("HF_TOKEN, nor token"))
            }
        }
    }

    /// Reads the token again and says whether it is another one by now.
    pub(super) fn renew(&self) -> Result<bool, StorageError> {
        match self {
            Self::Nobody => Ok(false),
            Self::Secret(files) => files.reload(),
            Self::Person(person, token) => {
                let Some(fresh) = person.token()? else { return Ok(false) };
                let mut token = token.lock().unwrap_or_else(PoisonError::into_inner);
                let changed = *token != fresh;
                *token = fresh;
                Ok(changed)
            }
        }
    }
}

fn shown(server: &Url) -> String {
    format!("{}:{}", server.host_str().unwrap_or_default(), server.port_or_known_default().unwrap_or_default())
}
