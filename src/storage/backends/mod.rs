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
pub use hugging_face::{HuggingFace, Person};
pub use inline::{Inline, PickleEncoder};
pub use open::{Mounts, identity, identity_of_a_person, open};
pub use remote::{Remote, client::Timeouts};
pub use retry::Retry;
pub use s3::S3;

use std::ops::Range;

use bytes::Bytes;
use futures::{
    FutureExt,
    future::{self, BoxFuture},
    stream::BoxStream,
};

use super::{Checksum, Class, Entry, Listing, StorageError, Window, listing, paths};

/// The bytes of a file, or of a range of one.
pub type Pieces<'a> = BoxStream<'a, Result<Bytes, StorageError>>;

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
    fn read<'a>(&'a self, entry: &'a Entry, range: Range<u64>) -> Pieces<'a>;

    /// The checksums that the storage holds of a file, as it was listed: of the whole, or of the parts that it was uploaded in.
    /// None when it holds none. May ask for them; what it cannot learn it does not have.
    fn checksums<'a>(&'a self, entry: &'a Entry) -> BoxFuture<'a, Vec<Window>> {
        future::ready(Window::of(entry.checksum, entry.size)).boxed()
    }

    /// Begins to read a whole file, and its checksum, for storages that tell both in one answer.
    fn read_whole<'a>(
        &'a self,
        entry: &'a Entry,
    ) -> BoxFuture<'a, Result<(Option<Checksum>, Pieces<'a>), StorageError>> {
        future::ready(Ok((entry.checksum, self.read(entry, 0..entry.size)))).boxed()
    }

    /// How often, so far, a server asked for patience, was silent for too long or broke off.
    fn setbacks(&self) -> u64 {
        0
    }
}
