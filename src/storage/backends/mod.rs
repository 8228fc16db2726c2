//! The trait of storage backends, and one file or folder for each. Does I/O.

mod beneath;
mod folder;
mod inline;
mod open;
mod retry;
mod s3;

pub use folder::Folder;
pub use inline::{Inline, PickleEncoder};
pub use open::{Mounts, open};
pub use retry::Retry;
pub use s3::{S3, Timeouts};

use std::ops::Range;

use bytes::Bytes;
use futures::{future::BoxFuture, stream::BoxStream};

use super::{Class, Entry, Listing, StorageError, listing, paths};

/// A place that checkpoints lie in.
pub trait Storage: Send + Sync {
    /// The full location of the checkpoint, without secrets.
    fn uri(&self) -> String;

    /// Lists all files. No file at all is [`StorageError::NotFound`], only folder markers is [`StorageError::Empty`].
    fn list(&self) -> BoxFuture<'_, Result<Listing, StorageError>>;

    /// Reads a range of a file as it was listed: pinned to its version, and exactly as many bytes as the range is long.
    fn read<'a>(&'a self, entry: &'a Entry, range: Range<u64>) -> BoxStream<'a, Result<Bytes, StorageError>>;
}
