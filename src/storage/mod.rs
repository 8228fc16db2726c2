//! Storage backends behind one trait: list, and read ranges. Rules and errors are here, pure; I/O is below `backends`.

#[cfg(feature = "operator")]
mod backends;
mod checksum;
pub mod listing;
pub mod paths;

#[cfg(feature = "operator")]
pub use backends::{
    Azure, Folder, Gcs, Http, HuggingFace, Inline, Mounts, Person, PickleEncoder, Pieces, Remote, Retry, S3, Storage,
    Timeouts, identity, identity_of_a_person, open,
};
pub use checksum::{Checksum, Window};

use std::time::Duration;

use crate::contract::{Reason, SourceFacts, digest};

/// A file of a checkpoint in its storage.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Entry {
    /// Path below the checkpoint's root: safe to be created below a folder (see the module of paths).
    pub path: String,
    /// Size in bytes.
    pub size: u64,
    /// What tells versions of the file apart: version or ETag, for claims the modification time. Empty when the storage has nothing.
    pub version: String,
    /// What the store says that the content sums up to; none when it does not say, or not for the whole file.
    pub checksum: Option<Checksum>,
    /// What tells whether a file that is there already has this content, where [`Entry::checksum`] cannot: an MD5 that costs
    /// nothing to ask for, and much to compute of what is fetched.
    pub content: Option<Checksum>,
}

impl Entry {
    /// The sum that only equal contents have: see [`Checksum::is_strong`].
    #[must_use]
    pub fn identity(&self) -> Option<Checksum> {
        [self.checksum, self.content].into_iter().flatten().find(Checksum::is_strong)
    }
}

/// All files of a checkpoint, sorted by the bytes of their paths, without folder markers. At least one.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Listing {
    /// The files.
    pub entries: Vec<Entry>,
}

impl Listing {
    /// [`digest::fingerprint`] of the files.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        digest::fingerprint(self.entries.iter().map(|entry| (entry.path.as_str(), entry.size, entry.version.as_str())))
    }

    /// Sum of the sizes in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.entries.iter().fold(0, |sum, entry| sum.saturating_add(entry.size))
    }

    /// The facts that reports carry.
    #[must_use]
    pub fn facts(&self, uri: &str) -> SourceFacts {
        SourceFacts {
            uri: uri.to_owned(),
            fingerprint: self.fingerprint(),
            files: self.entries.len() as u64,
            bytes: self.bytes(),
        }
    }
}

/// Why a storage could not do what it was asked. Messages name the place and hold no secret and no response body.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum StorageError {
    /// The bucket, claim, path or file does not exist.
    #[error("{0}")]
    NotFound(String),
    /// There are only folder markers.
    #[error("{0}")]
    Empty(String),
    /// The storage refused, or there are no credentials.
    #[error("{0}")]
    AccessDenied(String),
    /// The certificate is not trusted.
    #[error("{0}")]
    Tls(String),
    /// Plain HTTP without permission.
    #[error("{0}")]
    Insecure(String),
    /// The file is no longer what was listed.
    #[error("{0}")]
    Changed(String),
    /// A key cannot be a safe path, or links lead out of the claim.
    #[error("{0}")]
    InvalidPath(String),
    /// A file stands only for another that is not there (a broken link).
    #[error("{0}")]
    Incomplete(String),
    /// The settings cannot be used.
    #[error("{0}")]
    InvalidSpec(String),
    /// No or no usable answer: names that do not resolve, refused connections, stalls, 5xx, 429.
    #[error("{0}")]
    Unreachable(String),
    /// The server asks for patience, and says how much.
    #[error("{0}")]
    Busy(String, Duration),
}

/// Whether it is worth trying again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Class {
    /// The same request may succeed soon.
    Transient,
    /// The same request ends the same until a person does something.
    Terminal,
}

impl StorageError {
    /// The file at this path is no longer what was listed.
    #[must_use]
    pub fn changed(path: &str) -> Self {
        Self::Changed(format!("{path} is no longer the file that was listed"))
    }

    /// Whether it is worth trying again.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Unreachable(_) | Self::Busy(..) => Class::Transient,
            _ => Class::Terminal,
        }
    }

    /// How long the server wants us to wait before we try again.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        if let Self::Busy(_, after) = self { Some(*after) } else { None }
    }

    /// The reason that a condition shows.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::NotFound(_) => Reason::NotFound,
            Self::Empty(_) => Reason::Empty,
            Self::AccessDenied(_) => Reason::AccessDenied,
            Self::Tls(_) => Reason::TlsFailed,
            Self::Insecure(_) => Reason::InsecureEndpoint,
            Self::Changed(_) => Reason::SourceChanged,
            Self::InvalidPath(_) => Reason::InvalidPath,
            Self::Incomplete(_) => Reason::Incomplete,
            Self::InvalidSpec(_) => Reason::InvalidSpec,
            Self::Unreachable(_) | Self::Busy(..) => Reason::Unreachable,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::exit;

    #[test]
    fn what_no_attempt_can_change_ends_in_a_code_that_says_so() {
        let kinds: [fn(String) -> StorageError; 9] = [
            StorageError::NotFound,
            StorageError::Empty,
            StorageError::AccessDenied,
            StorageError::Tls,
            StorageError::Insecure,
            StorageError::Changed,
            StorageError::InvalidPath,
            StorageError::Incomplete,
            StorageError::InvalidSpec,
        ];
        for error in kinds.map(|kind| kind(String::new())) {
            assert_eq!(error.class(), Class::Terminal);
            assert!(exit::TERMINAL.contains(&i32::from(exit::code(error.reason()))), "{error:?}");
        }
        for error in [StorageError::Unreachable(String::new()), StorageError::Busy(String::new(), Duration::ZERO)] {
            assert_eq!((error.class(), exit::code(error.reason())), (Class::Transient, exit::RETRY), "{error:?}");
        }
    }
}
