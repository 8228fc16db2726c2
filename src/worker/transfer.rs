//! Reads files in parallel ranges through a bounded set of buffers, hashes them and writes them at their place. Does I/O.
//!
//! Resident memory is bounded whatever the sizes are: [`LARGE_LANE`] buffers of a whole part, and [`SMALL_LANE`] of at most
//! [`SMALL`] bytes.

use std::{
    fs::File,
    os::unix::fs::FileExt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use futures::{FutureExt, TryFutureExt, TryStreamExt, future::BoxFuture, stream::FuturesUnordered};
use tokio::sync::Semaphore;

use crate::storage::{Entry, Storage, StorageError};

use super::{
    failure::{Failure, blocking},
    hash::{self, PART, PartHash},
    progress::ProgressSink,
};

/// Parts under way of files larger than [`SMALL`].
pub(super) const LARGE_LANE: usize = 4;
/// Files under way that are not larger than [`SMALL`].
pub(super) const SMALL_LANE: usize = 16;
/// Largest file of the small lane, in bytes.
pub(super) const SMALL: u64 = 1 << 20;
/// Large files that are begun: while the last parts of one are under way, the next has its first.
pub(super) const LARGE_FILES: usize = 2;

/// Reads whole files of one storage.
pub(super) struct Transfer<'a> {
    storage: &'a dyn Storage,
    progress: &'a ProgressSink,
    large: Semaphore,
    small: Semaphore,
    buffers: Mutex<Vec<Vec<u8>>>,
    fetched: AtomicU64,
}

impl<'a> Transfer<'a> {
    pub(super) fn new(storage: &'a dyn Storage, progress: &'a ProgressSink) -> Self {
        Self {
            storage,
            progress,
            large: Semaphore::new(LARGE_LANE),
            small: Semaphore::new(SMALL_LANE),
            buffers: Mutex::default(),
            fetched: AtomicU64::new(0),
        }
    }

    /// Bytes that were read.
    pub(super) fn fetched(&self) -> u64 {
        self.fetched.load(Ordering::Relaxed)
    }

    /// Reads a file whole, writes it to `target` if there is one, and hashes it.
    pub(super) async fn file(&self, entry: &Entry, target: Option<Arc<File>>) -> Result<blake3::Hash, Failure> {
        if self.storage.in_sequence() && entry.size > PART {
            return self.sequence(entry, target).await;
        }
        let parts = entry.size.div_ceil(PART).max(1);
        let mut hashes = vec![None; usize::try_from(parts).unwrap_or(0)];
        let reads = (0..parts).map(|index| {
            let part = self.part(entry, index * PART, target.clone());
            part.map_ok(move |hash| (usize::try_from(index).unwrap_or(usize::MAX), hash)).boxed()
        });
        for (index, hash) in bounded(Box::new(reads), LARGE_LANE).await? {
            hashes[index] = Some(hash);
        }
        let hashes: Vec<PartHash> = hashes.into_iter().flatten().collect();
        self.merged(entry, &hashes)
    }

    fn merged(&self, entry: &Entry, hashes: &[PartHash]) -> Result<blake3::Hash, Failure> {
        self.progress.update(|progress| progress.files_done += 1);
        hash::merge(hashes).ok_or_else(|| Failure::Volume(format!("the parts of {} do not make up a file", entry.path)))
    }

    /// Reads a file from its beginning to its end with one request, part by part.
    async fn sequence(&self, entry: &Entry, target: Option<Arc<File>>) -> Result<blake3::Hash, Failure> {
        let _turn = self.large.acquire().await.map_err(|_| Failure::Volume("the transfer was closed".into()))?;
        let mut pieces = self.storage.read(entry, 0..entry.size);
        let mut rest = Bytes::new();
        let mut hashes = Vec::new();
        let mut offset = 0;
        while offset < entry.size {
            let length = PART.min(entry.size - offset);
            let mut buffer = self.buffer(true, length);
            while (buffer.len() as u64) < length {
                if rest.is_empty() {
                    rest = pieces.try_next().await?.ok_or_else(|| other_length(entry))?;
                    self.fetched.fetch_add(rest.len() as u64, Ordering::Relaxed);
                    self.progress.update(|progress| progress.bytes_done += rest.len() as u64);
                }
                let missing = usize::try_from(length - buffer.len() as u64).unwrap_or(usize::MAX);
                buffer.extend_from_slice(&rest.split_to(missing.min(rest.len())));
            }
            hashes.push(self.keep(entry, offset, buffer, target.clone()).await?);
            offset += length;
        }
        self.merged(entry, &hashes)
    }

    /// The work of hashing the files of one lane.
    fn hashes<'b>(&'b self, entries: &'b [Entry], large: bool) -> Works<'b, (usize, blake3::Hash)> {
        let lane = entries.iter().enumerate().filter(move |(_, entry)| (entry.size > SMALL) == large);
        Box::new(lane.map(move |(index, entry)| self.file(entry, None).map_ok(move |hash| (index, hash)).boxed()))
    }

    async fn part(&self, entry: &Entry, offset: u64, target: Option<Arc<File>>) -> Result<PartHash, Failure> {
        let large = entry.size > SMALL;
        let lane = if large { &self.large } else { &self.small };
        let _turn = lane.acquire().await.map_err(|_| Failure::Volume("the transfer was closed".into()))?;
        let end = (offset + PART).min(entry.size);
        let mut buffer = self.buffer(large, end - offset);
        let mut pieces = self.storage.read(entry, offset..end);
        while let Some(piece) = pieces.try_next().await? {
            if (buffer.len() + piece.len()) as u64 > end - offset {
                break;
            }
            buffer.extend_from_slice(&piece);
            self.fetched.fetch_add(piece.len() as u64, Ordering::Relaxed);
            self.progress.update(|progress| progress.bytes_done += piece.len() as u64);
        }
        if buffer.len() as u64 != end - offset {
            return Err(other_length(entry).into());
        }
        self.keep(entry, offset, buffer, target).await
    }

    /// Writes a part if there is a target, and hashes it.
    async fn keep(
        &self,
        entry: &Entry,
        offset: u64,
        buffer: Vec<u8>,
        target: Option<Arc<File>>,
    ) -> Result<PartHash, Failure> {
        let (size, path) = (entry.size, entry.path.clone());
        let (buffer, hash) = blocking(move || {
            let hash = hash::part(&buffer, offset, size);
            if let Some(target) = target {
                target.write_all_at(&buffer, offset).map_err(|error| Failure::of_io(&error, &path))?;
            }
            Ok((buffer, hash))
        })
        .await?;
        if entry.size > SMALL {
            self.buffers.lock().unwrap_or_else(PoisonError::into_inner).push(buffer);
        }
        Ok(hash)
    }

    fn buffer(&self, large: bool, length: u64) -> Vec<u8> {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let reused = if large { self.buffers.lock().unwrap_or_else(PoisonError::into_inner).pop() } else { None };
        let mut buffer = reused.unwrap_or_default();
        buffer.clear();
        buffer.reserve_exact(length);
        buffer
    }
}

fn other_length(entry: &Entry) -> StorageError {
    StorageError::Unreachable(format!("{} came with another length than it was listed", entry.path))
}

/// Work of which some is done at a time. Erased, because the compiler cannot prove that nested closures over references
/// may move between threads.
pub(super) type Works<'a, T> = Box<dyn Iterator<Item = BoxFuture<'a, Result<T, Failure>>> + Send + 'a>;

/// Does all work, so much at a time, and ends with the first failure. Results come as they are ready.
pub(super) async fn bounded<T: Send>(works: Works<'_, T>, width: usize) -> Result<Vec<T>, Failure> {
    let mut done = Vec::new();
    let mut running = FuturesUnordered::new();
    for work in works {
        if running.len() >= width {
            done.extend(running.try_next().await?);
        }
        running.push(work);
    }
    while let Some(result) = running.try_next().await? {
        done.push(result);
    }
    Ok(done)
}

/// The hashes of all files, in their order, and the bytes that were read.
pub(super) async fn hash_all(
    storage: &dyn Storage,
    entries: &[Entry],
    progress: &ProgressSink,
) -> Result<(Vec<blake3::Hash>, u64), Failure> {
    let transfer = Transfer::new(storage, progress);
    let (large, small) = futures::try_join!(
        bounded(transfer.hashes(entries, true), LARGE_FILES),
        bounded(transfer.hashes(entries, false), SMALL_LANE)
    )?;
    let mut hashes: Vec<_> = large.into_iter().chain(small).collect();
    hashes.sort_unstable_by_key(|(index, _)| *index);
    Ok((hashes.into_iter().map(|(_, hash)| hash).collect(), transfer.fetched()))
}
