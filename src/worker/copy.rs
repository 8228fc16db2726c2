//! Copies files into a volume, so that a crash at any point leaves only complete files under their own names. Does I/O.
//!
//! Each file: temporary name, bytes, sync; then for a batch: sync of the names, lines in the journal, own names. Large
//! files are batches of one.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use futures::FutureExt;

use crate::storage::{Entry, Storage};

use super::{
    failure::{Failure, blocking},
    journal::{Journal, Record},
    progress::ProgressSink,
    transfer::{LARGE_FILES, SMALL, SMALL_LANE, Transfer, Works, bounded},
    volume::Workspace,
};

/// Small files that share the syncs of journal and names.
const BATCH: usize = 256;

/// The writable side of a volume, shared with the threads that may block.
pub(super) struct Shelf {
    pub workspace: Workspace,
    journal: Mutex<Journal>,
    /// Paths of ours that exist, and may be replaced.
    present: Mutex<HashSet<String>>,
    session: u32,
    serial: AtomicU64,
}

impl Shelf {
    pub(super) fn new(workspace: Workspace, journal: Journal, present: impl IntoIterator<Item = String>) -> Self {
        Self {
            workspace,
            journal: Mutex::new(journal),
            present: Mutex::new(present.into_iter().collect()),
            session: rand::random(),
            serial: AtomicU64::new(0),
        }
    }

    /// A temporary name that no other attempt uses.
    fn name(&self) -> String {
        format!("{:08x}-{}", self.session, self.serial.fetch_add(1, Ordering::Relaxed))
    }

    /// Gives a file that is in the journal its own name.
    pub(super) fn publish(&self, record: &Record) -> Result<(), Failure> {
        let mut present = self.present.lock().unwrap_or_else(PoisonError::into_inner);
        self.workspace.publish(&record.temporary, &record.path, present.contains(&record.path))?;
        present.insert(record.path.clone());
        Ok(())
    }

    fn complete(&self, records: &[Record]) -> Result<(), Failure> {
        self.workspace.settle_names()?;
        self.workspace.step()?;
        self.journal.lock().unwrap_or_else(PoisonError::into_inner).append(records)?;
        records.iter().try_for_each(|record| self.publish(record))
    }
}

/// Copies files from a storage to a shelf.
pub(super) struct Copier<'a> {
    transfer: Transfer<'a>,
    shelf: Arc<Shelf>,
}

impl<'a> Copier<'a> {
    pub(super) fn new(storage: &'a dyn Storage, progress: &'a ProgressSink, shelf: Arc<Shelf>) -> Self {
        Self { transfer: Transfer::new(storage, progress), shelf }
    }

    /// Bytes that were read from the storage.
    pub(super) fn fetched(&self) -> u64 {
        self.transfer.fetched()
    }

    /// Copies the files, large and small ones side by side.
    pub(super) async fn copy(&self, entries: &[Entry]) -> Result<Vec<Record>, Failure> {
        let (large, small) = futures::try_join!(bounded(self.large(entries), LARGE_FILES), self.small(entries))?;
        Ok(large.into_iter().flatten().chain(small).collect())
    }

    fn large<'b>(&'b self, entries: &'b [Entry]) -> Works<'b, Vec<Record>> {
        let copy = move |entry| async move { self.complete(vec![self.bring(entry).await?]).await }.boxed();
        Box::new(entries.iter().filter(|entry| entry.size > SMALL).map(copy))
    }

    async fn small(&self, entries: &[Entry]) -> Result<Vec<Record>, Failure> {
        let mut done = Vec::new();
        let small: Vec<&Entry> = entries.iter().filter(|entry| entry.size <= SMALL).collect();
        for batch in small.chunks(BATCH) {
            let staged = bounded(self.batch(batch), SMALL_LANE).await?;
            done.extend(self.complete(staged).await?);
        }
        Ok(done)
    }

    fn batch<'b>(&'b self, entries: &'b [&'b Entry]) -> Works<'b, Record> {
        Box::new(entries.iter().map(|entry| self.bring(entry).boxed()))
    }

    /// Brings a file under a temporary name, durable but for that name.
    async fn bring(&self, entry: &Entry) -> Result<Record, Failure> {
        let temporary = self.shelf.name();
        let (to, name, path, size) = (Arc::clone(&self.shelf), temporary.clone(), entry.path.clone(), entry.size);
        let file = Arc::new(blocking(move || to.workspace.create(&name, size, &path)).await?);
        let hash = self.transfer.file(entry, Some(Arc::clone(&file))).await?;
        let (to, name, path) = (Arc::clone(&self.shelf), temporary.clone(), entry.path.clone());
        let modified = blocking(move || to.workspace.settle(&file, &name, &path)).await?;
        Ok(Record {
            path: entry.path.clone(),
            size: entry.size,
            version: entry.version.clone(),
            blake3: hash.to_hex().to_string(),
            temporary,
            modified,
        })
    }

    async fn complete(&self, records: Vec<Record>) -> Result<Vec<Record>, Failure> {
        let to = Arc::clone(&self.shelf);
        blocking(move || to.complete(&records).map(|()| records)).await
    }
}
