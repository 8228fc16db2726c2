//! Data in the manifest as a checkpoint of two files. Reads nothing but memory.

use std::ops::Range;

use bytes::Bytes;
use futures::{FutureExt, StreamExt, future, future::BoxFuture, stream, stream::BoxStream};

use crate::contract::InlineTask;

use super::{Entry, Listing, Storage, StorageError};

/// The text as the user wrote it.
pub const JSON_FILE: &str = "checkpoint.json";
/// The same as a Python dict.
pub const PICKLE_FILE: &str = "dict_checkpoint.pkl";

/// Writes a JSON object as a pickled dict; the error says what cannot be written.
pub type PickleEncoder = fn(&str) -> Result<Vec<u8>, String>;

/// A checkpoint in the manifest.
#[derive(Debug)]
pub struct Inline {
    files: [(Entry, Bytes); 2],
}

impl Inline {
    /// Checks that the text is the one that the task means, and encodes it.
    ///
    /// # Errors
    /// [`StorageError::InvalidSpec`] when the text is missing, another one, or not a JSON object.
    pub fn new(task: &InlineTask, text: Option<&str>, encode: PickleEncoder) -> Result<Self, StorageError> {
        let text = text.ok_or_else(|| StorageError::InvalidSpec("the inline data did not reach the worker".into()))?;
        if blake3::hash(text.as_bytes()).to_hex().as_str() != task.blake3 {
            return Err(StorageError::InvalidSpec("the inline data is not what the task was made for".into()));
        }
        let pickle = encode(text)
            .map_err(|problem| StorageError::InvalidSpec(format!("storage.inline.json cannot be used: {problem}")))?;
        let file = |path: &str, bytes: Bytes| {
            let version = blake3::hash(&bytes).to_hex().to_string();
            (Entry { path: path.into(), size: bytes.len() as u64, version, checksum: None, content: None }, bytes)
        };
        Ok(Self { files: [file(JSON_FILE, Bytes::from(text.to_owned())), file(PICKLE_FILE, pickle.into())] })
    }
}

impl Storage for Inline {
    fn uri(&self) -> String {
        "inline:".into()
    }

    fn list(&self) -> BoxFuture<'_, Result<Listing, StorageError>> {
        let entries = self.files.iter().map(|(entry, _)| entry.clone()).collect();
        future::ready(Ok(Listing { entries })).boxed()
    }

    fn read<'a>(&'a self, entry: &'a Entry, range: Range<u64>) -> BoxStream<'a, Result<Bytes, StorageError>> {
        let found = self.files.iter().find(|(file, _)| file == entry).and_then(|(_, bytes)| {
            let range = usize::try_from(range.start).ok()?..usize::try_from(range.end).ok()?;
            (range.start <= range.end && range.end <= bytes.len()).then(|| bytes.slice(range))
        });
        let answer =
            found.ok_or_else(|| StorageError::Changed(format!("{} is not a part of the inline data", entry.path)));
        stream::once(future::ready(answer)).boxed()
    }
}

#[cfg(test)]
mod tests {
    use futures::TryStreamExt;

    use super::*;

    fn encode(text: &str) -> Result<Vec<u8>, String> {
        if text.starts_with('{') { Ok(b"pickle".to_vec()) } else { Err("it is not an object".into()) }
    }

    fn task(text: &str) -> InlineTask {
        InlineTask { blake3: blake3::hash(text.as_bytes()).to_hex().to_string() }
    }

    #[tokio::test]
    async fn it_has_two_files() {
        let text = r#"{"epoch": 3.0}"#;
        let inline = Inline::new(&task(text), Some(text), encode).unwrap();
        let listing = inline.list().await.unwrap();
        assert_eq!(
            listing.entries.iter().map(|entry| entry.path.as_str()).collect::<Vec<_>>(),
            [JSON_FILE, PICKLE_FILE]
        );
        let bytes: Vec<Bytes> = inline.read(&listing.entries[0], 1..8).try_collect().await.unwrap();
        assert_eq!(bytes.concat(), b"\"epoch\"");
        assert!(inline.read(&listing.entries[0], 0..99).try_collect::<Vec<_>>().await.is_err());
    }

    #[test]
    fn other_text_is_refused() {
        for (made_for, text) in [("{}", Some("{ }")), ("{}", None), ("3", Some("3"))] {
            let error = Inline::new(&task(made_for), text, encode).unwrap_err();
            assert!(matches!(error, StorageError::InvalidSpec(_)), "{error}");
        }
    }
}
