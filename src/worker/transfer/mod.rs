//! Reads files in parallel ranges through a fixed pool of buffers, hashes them, compares them with what their store says, and
//! writes them at their place. Does I/O.
//!
//! Work is cut into items: a part of a large file, or a small file whole. Items are taken longest file first; [`pace`] says how
//! many are under way. Each is a task of its own, in which bytes are copied and hashed by the processor that has just received
//! them; it fills one buffer while another of its own is written, so that memory is a matter of the pool alone.

pub(super) mod clone;
mod file;
pub(super) mod hash;
mod pace;
mod pool;
mod reader;
pub(super) mod sums;
pub(super) mod target;

use std::{
    cmp::Reverse,
    collections::HashMap,
    fs::File,
    io,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use tokio::{sync::mpsc, task::JoinSet};

use crate::storage::{Entry, Storage, StorageError, Window};

use super::{failure::Failure, progress::ProgressSink};

use file::{Item, Under};
use hash::{PART, PartHash, PartHasher};
use pace::{Pace, WINDOW};
use pool::Pool;
use sums::{Check, Piece};
use target::Target;

/// What was learnt of a part.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct PartSums {
    /// Its hash.
    pub hash: PartHash,
    /// Its CRCs, if the store holds such.
    pub pieces: Vec<Piece>,
}

/// A file that is to be read.
#[derive(Debug)]
pub(super) struct Job<'a> {
    /// The file.
    pub entry: &'a Entry,
    /// Parts that a target has already, by their index.
    pub kept: Vec<(usize, PartSums)>,
    /// The parts to read, when others read the rest: then nothing is said of the file as a whole.
    pub only: Option<Range<usize>>,
}

impl<'a> Job<'a> {
    /// All of a file.
    pub(super) fn whole(entry: &'a Entry) -> Self {
        Self { entry, kept: Vec::new(), only: None }
    }
}

/// Where bytes go.
pub(super) trait Destination: Send + Sync {
    /// The file that is written, made now or by an earlier attempt; none when bytes are only hashed. `direct` asks for writes
    /// past the page cache. Blocks.
    fn target(&self, entry: &Entry, direct: bool) -> Result<Option<Target>, Failure>;
}

/// Bytes are only hashed.
pub(super) struct Nowhere;

impl Destination for Nowhere {
    fn target(&self, _: &Entry, _: bool) -> Result<Option<Target>, Failure> {
        Ok(None)
    }
}

/// What happened to a file.
pub(super) enum Event {
    /// A part was written; there are more of them.
    Part { entry: Arc<Entry>, target: Arc<Target>, index: usize, sums: PartSums },
    /// All was read, written and compared.
    File { entry: Arc<Entry>, target: Option<Arc<Target>>, hash: blake3::Hash, verified: bool },
    /// All was read, and these windows are not what the store says.
    Wrong { entry: Arc<Entry>, target: Option<Arc<Target>>, windows: Vec<Window> },
}

/// Says what happened, if anybody listens.
pub(super) async fn told(events: &mpsc::Sender<Event>, event: Event) -> Result<(), Failure> {
    events.send(event).await.map_err(|_| Failure::Volume("the transfer was closed".into()))
}

/// Reads files of one storage.
pub(super) struct Transfer {
    storage: Arc<dyn Storage>,
    progress: ProgressSink,
    pool: Arc<Pool>,
    fetched: AtomicU64,
}

impl Transfer {
    pub(super) fn new(storage: &Arc<dyn Storage>, progress: &ProgressSink) -> Arc<Self> {
        let (storage, progress) = (Arc::clone(storage), progress.clone());
        Arc::new(Self { storage, progress, pool: Pool::new(), fetched: AtomicU64::new(0) })
    }

    /// Bytes that were read.
    pub(super) fn fetched(&self) -> u64 {
        self.fetched.load(Ordering::Relaxed)
    }

    /// Reads the files and says what becomes of them. Ends with the first failure, or when nobody listens any more.
    pub(super) async fn run(
        self: &Arc<Self>,
        jobs: Vec<Job<'_>>,
        destination: &Arc<dyn Destination>,
        events: mpsc::Sender<Event>,
    ) -> Result<(), Failure> {
        let mut items = items(jobs, self.storage.in_sequence());
        let mut pace = Pace::new(self.pool.size() / 2);
        let mut running = JoinSet::new();
        let mut window = (Instant::now(), self.fetched(), true);
        let mut setbacks = self.storage.setbacks();
        let mut ticks = tokio::time::interval(WINDOW);
        loop {
            while running.len() < pace.limit()
                && let Some(item) = items.next()
            {
                running.spawn(Arc::clone(self).item(item, Arc::clone(destination), events.clone()));
            }
            window.2 &= running.len() >= pace.limit();
            tokio::select! {
                ended = running.join_next() => match ended {
                    Some(result) => result.map_err(|error| Failure::Volume(format!("a transfer was given up: {error}")))??,
                    None => return Ok(()),
                },
                _ = ticks.tick() => {}
            }
            if self.storage.setbacks() != setbacks {
                setbacks = self.storage.setbacks();
                pace.setback();
                window = (Instant::now(), self.fetched(), true);
            } else if window.0.elapsed() >= WINDOW {
                pace.window(self.fetched() - window.1, window.0.elapsed(), window.2);
                window = (Instant::now(), self.fetched(), true);
            }
        }
    }
}

/// The items of all files, longest file first. Made as they are needed: a file may have many parts.
fn items(mut jobs: Vec<Job<'_>>, in_sequence: bool) -> impl Iterator<Item = Item> + Send {
    jobs.sort_by_key(|job| Reverse(job.entry.size));
    jobs.into_iter().flat_map(move |job| {
        if job.entry.size <= PART || in_sequence {
            return vec![Item::Whole(Arc::new(job.entry.clone()))];
        }
        let (file, missing) = Under::new(job);
        let file = Arc::new(file);
        if missing.is_empty() {
            return if file.is_partial() { Vec::new() } else { vec![Item::Nothing(file)] };
        }
        missing.into_iter().map(|index| Item::Part(Arc::clone(&file), index)).collect()
    })
}

/// The hashes of all files, in their order, and the bytes that were read. What the storage holds other checksums of is an error.
pub(super) async fn hash_all(
    storage: &Arc<dyn Storage>,
    entries: &[Entry],
    progress: &ProgressSink,
) -> Result<(Vec<blake3::Hash>, u64), Failure> {
    let transfer = Transfer::new(storage, progress);
    let (send, mut receive) = mpsc::channel(1);
    let nowhere: Arc<dyn Destination> = Arc::new(Nowhere);
    let collect = async {
        let mut hashes = HashMap::new();
        while let Some(event) = receive.recv().await {
            match event {
                Event::Part { .. } => {}
                Event::File { entry, hash, .. } => _ = hashes.insert(entry.path.clone(), hash),
                Event::Wrong { entry, windows, .. } => return Err(Failure::Corrupt(wrong(&entry, &windows))),
            }
        }
        Ok(hashes)
    };
    let read = transfer.run(entries.iter().map(Job::whole).collect(), &nowhere, send);
    let ((), hashes) = futures::try_join!(read, collect)?;
    let hash = |entry: &Entry| hashes.get(&entry.path).copied();
    let hashes = entries.iter().map(hash).collect::<Option<Vec<_>>>();
    let hashes = hashes.ok_or_else(|| Failure::Volume("not every file was hashed".into()))?;
    Ok((hashes, transfer.fetched()))
}

/// What to say of a file that does not sum up.
pub(super) fn wrong(entry: &Entry, windows: &[Window]) -> String {
    let sum = windows.first().map_or("checksum", |window| window.checksum.name());
    format!("{} came with another {sum} than its storage holds for it, at bytes {}", entry.path, sums::offsets(windows))
}

fn other_length(entry: &Entry) -> StorageError {
    StorageError::Unreachable(format!("{} came with another length than it was listed", entry.path))
}

/// Whether the file holds this part of a file of that size. Blocks.
pub(super) fn is_part(file: File, size: u64, part: Option<(usize, PartSums)>) -> io::Result<bool> {
    let Some((index, sums)) = part else { return Ok(false) };
    let start = index as u64 * PART;
    let mut hasher = PartHasher::new(start, size);
    Target::new(file, String::new(), false)
        .read(start..(start + PART).min(size), |bytes| hasher.update(bytes))
        .map(|()| hasher.finish() == sums.hash)
}
