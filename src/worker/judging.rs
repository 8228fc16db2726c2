//! Gives the judge the bytes that it asks for. Does I/O through storages.

use std::{collections::VecDeque, ops::Range};

use futures::{StreamExt, TryStreamExt, future::BoxFuture, stream::FuturesUnordered};

use crate::{
    contract::{Source, Validation, filter::Selector},
    format::{File, Input, Judge, Read, ReadId, Step, Verdict},
    storage::{Entry, Listing, Storage, StorageError},
};

/// Ranges that are read at once; each is at most [`crate::format::MAX_READ`] bytes long.
pub(super) const READS: usize = 16;

/// A file that could not be read, by its index.
#[derive(Debug)]
pub(super) struct Unread {
    pub file: usize,
    pub error: StorageError,
}

/// The judge of a listing.
pub(super) fn judge_of(source: &Source, listing: &Listing, validation: &Validation, volumes: &[Selector]) -> Judge {
    let files = listing.entries.iter().map(|entry| File { path: entry.path.clone(), size: entry.size }).collect();
    match source {
        Source::Inline(_) => Judge::dict(files, validation, volumes),
        _ => Judge::new(files, validation, volumes),
    }
}

/// Answers all questions of a judge. `read` brings a range of a file.
pub(super) async fn drive<'a>(
    mut judge: Judge,
    read: impl Fn(usize, Range<u64>) -> BoxFuture<'a, Result<Vec<u8>, StorageError>>,
) -> Result<Verdict, Unread> {
    let mut waiting: VecDeque<Read> = VecDeque::new();
    let mut running = FuturesUnordered::new();
    let mut step = judge.step(Input::Start);
    loop {
        match step {
            Step::Done(verdict) => return Ok(*verdict),
            Step::Read(reads) => waiting.extend(reads),
        }
        while running.len() < READS
            && let Some(Read { id, file, range }) = waiting.pop_front()
        {
            let bytes = read(file, range);
            running.push(async move { (id, file, bytes.await) });
        }
        let Some((id, file, answer)): Option<(ReadId, usize, _)> = running.next().await else {
            // It asks for nothing and does not conclude: that would be an error in the judge.
            let error = StorageError::Unreachable("the judge came to no verdict".into());
            return Err(Unread { file: 0, error });
        };
        let bytes: Vec<u8> = answer.map_err(|error| Unread { file, error })?;
        step = judge.step(Input::Bytes { id, bytes: &bytes });
    }
}

/// A short range of a file in one piece.
pub(super) async fn read_range(
    storage: &dyn Storage,
    entry: &Entry,
    range: Range<u64>,
) -> Result<Vec<u8>, StorageError> {
    let length = range.end.saturating_sub(range.start);
    let mut bytes = Vec::new();
    let mut pieces = storage.read(entry, range);
    while let Some(piece) = pieces.try_next().await? {
        bytes.extend_from_slice(&piece);
        if bytes.len() as u64 > length {
            break;
        }
    }
    if bytes.len() as u64 == length {
        Ok(bytes)
    } else {
        Err(StorageError::Unreachable(format!("{} came with another length than it was listed", entry.path)))
    }
}
