//! Why a task could not be done. Pure, no I/O.

use rustix::io::Errno;

use crate::{contract::Reason, storage::StorageError};

/// Why a task could not be done; messages name the file and what to do.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub(super) enum Failure {
    /// The source could not be read.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The volume is too small or full.
    #[error("{0}")]
    NoSpace(String),
    /// There is something in the volume that is not ours.
    #[error("{0}")]
    Conflict(String),
    /// The volume could not be written or read.
    #[error("{0}")]
    Volume(String),
    /// Another load is at work on the volume.
    #[error("{0}")]
    Busy(String),
    /// The bytes in the volume are wrong.
    #[error("{0}")]
    Corrupt(String),
    /// The digest is not the one that was asked for.
    #[error("{message}")]
    Digest {
        /// Both digests.
        message: String,
        /// The digest that the content has: it need not be read again to know that.
        digest: String,
    },
    /// The task cannot be carried out.
    #[error("{0}")]
    Task(String),
}

impl Failure {
    pub(super) fn reason(&self) -> Reason {
        match self {
            Self::Storage(error) => error.reason(),
            Self::NoSpace(_) => Reason::InsufficientSpace,
            Self::Conflict(_) => Reason::ClaimConflict,
            Self::Volume(_) | Self::Busy(_) => Reason::LoadFailed,
            Self::Corrupt(_) => Reason::Corrupt,
            Self::Digest { .. } => Reason::DigestMismatch,
            Self::Task(_) => Reason::InvalidSpec,
        }
    }

    /// An error of a file system call on the volume.
    pub(super) fn of_volume(errno: Errno, what: &str) -> Self {
        match errno {
            Errno::NOSPC | Errno::DQUOT | Errno::FBIG => Self::NoSpace(format!(
                "the volume is full ({what}): give the volume a larger size, or include fewer files"
            )),
            Errno::ROFS => Self::Volume(format!("the volume is read-only ({what})")),
            Errno::ACCESS | Errno::PERM => Self::Volume(format!(
                "the worker may not write to the volume ({what}): set worker.fsGroup or worker.runAsUser to what the storage class needs"
            )),
            Errno::LOOP | Errno::NOTDIR | Errno::EXIST | Errno::ISDIR | Errno::NOTEMPTY => {
                Self::Conflict(format!("{what} of the volume is something that was not put there by a load ({errno})"))
            }
            errno => Self::Volume(format!("the volume failed ({what}): {errno}")),
        }
    }

    pub(super) fn of_io(error: &std::io::Error, what: &str) -> Self {
        Self::of_volume(Errno::from_io_error(error).unwrap_or(Errno::IO), what)
    }
}

/// Runs blocking work on a thread that may block.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let ended = tokio::task::spawn_blocking(work).await;
    ended.unwrap_or_else(|error| Err(Failure::Volume(format!("the work on the volume was given up: {error}"))))
}
