//! Fills buffers from the pieces of an answer. Does I/O through storages.

use std::sync::atomic::Ordering;

use bytes::{Buf, Bytes};
use futures::TryStreamExt;

use crate::storage::{Entry, Pieces};

use super::{Transfer, other_length, pool::Buffer};
use crate::worker::failure::Failure;

/// An answer, and what of it was not taken yet.
pub(super) struct Reader<'a> {
    entry: &'a Entry,
    pieces: Pieces<'a>,
    rest: Bytes,
}

impl<'a> Reader<'a> {
    pub(super) fn new(entry: &'a Entry, pieces: Pieces<'a>) -> Self {
        Self { entry, pieces, rest: Bytes::new() }
    }

    /// Puts so many bytes into a buffer that has room for them.
    pub(super) async fn fill(
        &mut self,
        buffer: &mut Buffer,
        mut missing: usize,
        transfer: &Transfer<'_>,
    ) -> Result<(), Failure> {
        while missing > 0 {
            if self.rest.is_empty() {
                self.rest = self.pieces.try_next().await?.ok_or_else(|| other_length(self.entry))?;
                let length = self.rest.len() as u64;
                transfer.fetched.fetch_add(length, Ordering::Relaxed);
                transfer.progress.update(|progress| progress.bytes_done += length);
            }
            let taken = buffer.take(&self.rest[..missing.min(self.rest.len())]);
            self.rest.advance(taken);
            missing -= taken;
        }
        Ok(())
    }
}
