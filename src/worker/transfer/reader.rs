//! Fills buffers from the pieces of an answer, and sums what came. Does I/O through storages.

use std::sync::{Arc, atomic::Ordering};

use bytes::{Buf, Bytes};
use futures::TryStreamExt;

use crate::storage::{Entry, Pieces};

use super::{Transfer, other_length, pool::Buffer};
use crate::worker::failure::Failure;

/// Bytes are summed in steps of this length: few enough that they are still in the processor's first caches, and whole chunks of
/// BLAKE3 for all of its lanes.
const SUMMED: usize = 64 << 10;

/// An answer, and what of it was not taken yet.
pub(super) struct Reader<'a> {
    entry: &'a Arc<Entry>,
    pieces: Pieces<'a>,
    rest: Bytes,
}

impl<'a> Reader<'a> {
    pub(super) fn new(entry: &'a Arc<Entry>, pieces: Pieces<'a>) -> Self {
        Self { entry, pieces, rest: Bytes::new() }
    }

    /// The file that is read.
    pub(super) fn entry(&self) -> &'a Arc<Entry> {
        self.entry
    }

    /// Puts so many bytes into an empty buffer that has room for them, and gives all of them to `sum`, in order.
    pub(super) async fn fill(
        &mut self,
        buffer: &mut Buffer,
        length: usize,
        transfer: &Transfer,
        mut sum: impl FnMut(&[u8]),
    ) -> Result<(), Failure> {
        let (mut summed, mut came) = (0, 0);
        while buffer.bytes().len() < length {
            if self.rest.is_empty() {
                self.rest = self.pieces.try_next().await?.ok_or_else(|| other_length(self.entry))?;
                came += self.rest.len() as u64;
                transfer.fetched.fetch_add(self.rest.len() as u64, Ordering::Relaxed);
            }
            while !self.rest.is_empty() && buffer.bytes().len() < length {
                let room = (length - buffer.bytes().len()).min(SUMMED);
                let taken = buffer.take(&self.rest[..room.min(self.rest.len())]);
                self.rest.advance(taken);
                let steps = buffer.bytes().len() / SUMMED * SUMMED;
                if steps > summed {
                    sum(&buffer.bytes()[summed..steps]);
                    summed = steps;
                }
            }
        }
        sum(&buffer.bytes()[summed..]);
        transfer.progress.update(|progress| progress.bytes_done += came);
        Ok(())
    }
}
