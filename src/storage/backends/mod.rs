//! The trait of storage backends, and one file or folder for each. Does I/O.

mod azure;
mod beneath;
mod folder;
mod gcs;
mod http;
mod hugging_face;
mod inline;
mod open;
mod remote;
mod retry;
mod s3;

pub use azure::Azure;
pub use folder::Folder;
pub use gcs::Gcs;
pub use http::Http;
pub use hugging_face::HuggingFace;
pub use inline::{Inline, PickleEncoder};
pub use open::{Mounts, identity, open};
pub use remote::{Remote, client::Timeouts};
pub use retry::Retry;
pub use s3::S3;

use std::ops::Range;

use bytes::Bytes;
use futures::{future::BoxFuture, stream::BoxStream};

use super::{Checksum, Class, Entry, Listing, StorageError, listing, paths};

/// A place that checkpoints lie in.
pub trait Storage: Send + Sync {
    /// The full location of the checkpoint, without secrets.
    fn uri(&self) -> String;

    /// Whether, as far as is known after [`Storage::list`], reading a range costs as much as reading everything before it too:
    /// whoever wants a whole file then reads it at once.
    fn in_sequence(&self) -> bool {
        false
    }

    /// Lists all files. No file at all is [`StorageError::NotFound`], only folder markers is [`StorageError::Empty`].
    fn list(&self) -> BoxFuture<'_, Result<Listing, StorageError>>;

    /// Reads a range of a file as it was listed: pinned to its version, and exactly as many bytes as the range is long.
    fn read<'a>(&'a self, entry: &'a Entry, range: Range<u64>) -> BoxStream<'a, Result<Bytes, StorageError>>;
}
