//! Copies files into a volume, so that a crash at any point leaves only complete files under their own names. Does I/O.
//!
//! Each file: temporary name, bytes; then for a batch: one sync of the bytes, one of the names, lines in the journal, own names.
//! A batch ends by its size, its number of files, or its age, and the next one fills while it settles.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs::File,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{sync::mpsc, time::Instant};

use crate::storage::{Entry, Storage, Window};

use super::{
    failure::{Failure, blocking},
    journal::{Journal, Line, PartRecord, Record},
    progress::ProgressSink,
    reuse::{Reuse, Taker},
    selection::Resume,
    split::share::Share,
    transfer::{self, Destination, Event, Job, PartSums, Transfer, hash::PART, target::Target},
    volume::Workspace,
};

/// A batch ends when it holds so many bytes.
const BATCH_BYTES: u64 = 256 << 20;
/// A batch ends when it holds so many files.
const BATCH_FILES: usize = 256;
/// A batch ends when its first item is so old.
const BATCH_AGE: Duration = Duration::from_millis(250);
/// Items that wait for the batch before theirs to settle.
const WAITING: usize = 64;

/// The writable side of a volume, shared with the threads that may block.
pub(super) struct Shelf {
    pub workspace: Workspace,
    journal: Mutex<Journal>,
    /// Paths of ours that exist, and may be replaced.
    present: Mutex<HashSet<String>>,
    /// Temporary names of files that were begun, by their path, and whether they may have to be made.
    begun: Mutex<HashMap<String, (String, bool)>>,
    /// What temporary names begin with.
    names: String,
    serial: AtomicU64,
}

impl Shelf {
    /// `present` are the files that are there, `names` what temporary names are to begin with.
    pub(super) fn new(
        workspace: Workspace,
        journal: Journal,
        present: impl IntoIterator<Item = String>,
        names: &str,
    ) -> Self {
        let names = format!("{names}{:08x}", rand::random::<u32>());
        Self {
            workspace,
            journal: Mutex::new(journal),
            present: Mutex::new(present.into_iter().collect()),
            begun: Mutex::default(),
            names,
            serial: AtomicU64::new(0),
        }
    }

    /// A temporary name that no other attempt uses.
    fn name(&self) -> String {
        format!("{}-{}", self.names, self.serial.fetch_add(1, Ordering::Relaxed))
    }

    /// A new file under a temporary name, with this much space set aside.
    pub(super) fn blank(&self, path: &str, size: u64) -> Result<(String, File), Failure> {
        let name = self.name();
        let file = self.workspace.create(&name, size, path)?;
        Ok((name, file))
    }

    /// The file with this temporary name has parts already: its target goes on with it.
    pub(super) fn begin(&self, path: &str, name: &str) {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner).insert(path.to_owned(), (name.to_owned(), false));
    }

    /// Gives a file that is in the journal its own name.
    pub(super) fn publish(&self, record: &Record) -> Result<(), Failure> {
        let mut present = self.present.lock().unwrap_or_else(PoisonError::into_inner);
        self.workspace.publish(&record.temporary, &record.path, present.contains(&record.path))?;
        present.insert(record.path.clone());
        Ok(())
    }

    /// Makes a batch durable, enters it into the journal and gives complete files their names.
    fn complete(&self, batch: &Batch) -> Result<Vec<Record>, Failure> {
        let files = batch.files.iter().map(|file| &file.target);
        let parts = batch.parts.iter().map(|part| &part.target);
        let targets: BTreeMap<&str, &Arc<Target>> =
            parts.chain(files).map(|target| (target.name.as_str(), target)).collect();
        self.workspace.settle(targets.iter().map(|(name, target)| (target.file(), *name)))?;
        for target in targets.values() {
            target.drop_cache();
        }
        self.workspace.settle_names()?;
        self.workspace.step()?;
        let records = batch.files.iter().map(Staged::record).collect::<Result<Vec<_>, _>>()?;
        let whole: HashSet<&str> = records.iter().map(|record| record.temporary.as_str()).collect();
        let parts = batch.parts.iter().filter(|part| !whole.contains(part.target.name.as_str()));
        let lines = parts.map(Part::line).chain(records.iter().cloned().map(Line::File));
        let lines: Vec<_> = lines.collect();
        self.journal.lock().unwrap_or_else(PoisonError::into_inner).append(&lines)?;
        records.iter().try_for_each(|record| self.publish(record))?;
        Ok(records)
    }
}

impl Destination for Shelf {
    fn target(&self, entry: &Entry, direct: bool) -> Result<Option<Target>, Failure> {
        let begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner).remove(&entry.path);
        let (name, file) = match begun {
            Some((name, true)) => {
                let file = self.workspace.reopen_or_create(&name, entry.size, &entry.path)?;
                (name, file)
            }
            Some((name, false)) => {
                let file = self.workspace.reopen(&name, &entry.path)?;
                (name, file)
            }
            None => self.blank(&entry.path, entry.size)?,
        };
        Ok(Some(Target::new(file, name, direct).held_by(self.workspace.held())))
    }
}

/// A part that was written.
struct Part {
    path: String,
    size: u64,
    version: String,
    target: Arc<Target>,
    index: usize,
    sums: PartSums,
}

impl Part {
    fn line(&self) -> Line {
        Line::Part(PartRecord {
            path: self.path.clone(),
            size: self.size,
            version: self.version.clone(),
            temporary: self.target.name.clone(),
            length: PART,
            index: self.index,
            blake3: self.sums.hash.to_hex(),
            pieces: self.sums.pieces.clone(),
        })
    }
}

/// A file that was written whole.
struct Staged {
    path: String,
    size: u64,
    version: String,
    target: Arc<Target>,
    hash: blake3::Hash,
    verified: bool,
    identity: Option<String>,
}

impl Staged {
    fn record(&self) -> Result<Record, Failure> {
        Ok(Record {
            path: self.path.clone(),
            size: self.size,
            version: self.version.clone(),
            blake3: self.hash.to_hex().to_string(),
            temporary: self.target.name.clone(),
            verified: self.verified,
            identity: self.identity.clone(),
            modified: Workspace::modified(self.target.file(), &self.path)?,
        })
    }
}

/// What becomes durable together.
#[derive(Default)]
struct Batch {
    parts: Vec<Part>,
    files: Vec<Staged>,
    bytes: u64,
    begun: Option<Instant>,
}

impl Batch {
    fn is_full(&self) -> bool {
        self.bytes >= BATCH_BYTES || self.files.len() >= BATCH_FILES
    }

    fn grow(&mut self, bytes: u64) {
        self.bytes += bytes;
        self.begun.get_or_insert_with(Instant::now);
    }
}

/// What came of a copy.
#[derive(Debug, Default)]
pub(super) struct Copied {
    /// Files that have their names.
    pub records: Vec<Record>,
    /// Files that are not what their store says, and where.
    wrong: Vec<(Entry, Vec<Window>)>,
}

impl Copied {
    /// The files that are wrong, if there are any, and what to say of them.
    pub(super) fn wrong(&self) -> Option<(Vec<Entry>, String)> {
        let (entry, windows) = self.wrong.first()?;
        Some((self.wrong.iter().map(|(entry, _)| entry.clone()).collect(), transfer::wrong(entry, windows)))
    }
}

/// Copies files from a storage to a shelf.
pub(super) struct Copier {
    storage: Arc<dyn Storage>,
    progress: ProgressSink,
    transfer: Arc<Transfer>,
    shelf: Arc<Shelf>,
}

impl Copier {
    pub(super) fn new(storage: &Arc<dyn Storage>, progress: &ProgressSink, shelf: Arc<Shelf>) -> Self {
        let transfer = Transfer::new(storage, progress);
        Self { storage: Arc::clone(storage), progress: progress.clone(), transfer, shelf }
    }

    /// Bytes that were read from the storage.
    pub(super) fn fetched(&self) -> u64 {
        self.transfer.fetched()
    }

    /// Copies the files: what is there is taken, of those that were begun what is missing is fetched, and of the others all.
    pub(super) async fn copy(
        &self,
        entries: &[Entry],
        resume: &BTreeMap<String, Resume>,
        reuse: &Arc<Reuse>,
        share: Option<&Share>,
    ) -> Result<Copied, Failure> {
        {
            let mut begun = self.shelf.begun.lock().unwrap_or_else(PoisonError::into_inner);
            begun.clear();
            let name = |resume: &Resume| (resume.temporary.clone(), resume.create);
            begun.extend(resume.iter().map(|(path, resume)| (path.clone(), name(resume))));
        }
        let only = |entry: &Entry| share.and_then(|share| share.parts(&entry.path)).cloned();
        let kept = |entry: &Entry| {
            let parts = resume.get(&entry.path).map(|resume| resume.parts.values());
            parts.into_iter().flatten().filter_map(PartRecord::sums).collect()
        };
        let destination: Arc<dyn Destination> = Arc::clone(&self.shelf) as _;
        let (send, receive) = mpsc::channel(WAITING);
        let (there, elsewhere): (Vec<_>, Vec<_>) =
            entries.iter().partition(|entry| reuse.has(entry) && only(entry).is_none());
        let elsewhere: Vec<_> =
            elsewhere.into_iter().map(|entry| Job { entry, kept: kept(entry), only: only(entry) }).collect();
        let taker = Taker { reuse, storage: &*self.storage, progress: &self.progress, shelf: &self.shelf };
        let run = async {
            let (there, mut fetch) = taker.decide(there).await;
            fetch.extend(elsewhere);
            let fetch = self.transfer.run(fetch, &destination, send.clone());
            let ((), left) = futures::try_join!(fetch, taker.run(there, &send))?;
            if left.is_empty() { Ok(()) } else { self.transfer.run(left, &destination, send).await }
        };
        // When reading fails, what came before is settled all the same. When settling fails, nobody listens to the reads.
        let (run, settled) = futures::join!(run, self.settle(receive));
        let copied = settled?;
        run?;
        Ok(copied)
    }

    async fn settle(&self, mut events: mpsc::Receiver<Event>) -> Result<Copied, Failure> {
        let mut copied = Copied::default();
        let mut batch = Batch::default();
        loop {
            let event = match batch.begun.map(|begun| begun + BATCH_AGE) {
                None => Ok(events.recv().await),
                Some(due) => tokio::time::timeout_at(due, events.recv()).await,
            };
            let Ok(event) = event else {
                copied.records.extend(self.flush(&mut batch).await?);
                continue;
            };
            let Some(event) = event else { break };
            self.add(event, &mut batch, &mut copied);
            if batch.is_full() {
                copied.records.extend(self.flush(&mut batch).await?);
            }
        }
        copied.records.extend(self.flush(&mut batch).await?);
        Ok(copied)
    }

    fn add(&self, event: Event, batch: &mut Batch, copied: &mut Copied) {
        match event {
            Event::Part { entry, target, index, sums } => {
                let Entry { path, size, version, .. } = Entry::clone(&entry);
                batch.parts.push(Part { path, size, version, target, index, sums });
                batch.grow(PART.min(entry.size));
            }
            Event::File { entry, target: Some(target), hash, verified } => {
                let identity = entry.identity().map(|sum| sum.to_string());
                let Entry { path, size, version, .. } = Entry::clone(&entry);
                batch.files.push(Staged { path, size, version, target, hash, verified, identity });
                batch.grow(size.min(PART));
            }
            // The shelf gives every file a target.
            Event::File { target: None, .. } => {}
            Event::Wrong { entry, target, windows } => {
                if let Some(target) = target {
                    batch.parts.retain(|part| part.target.name != target.name);
                    self.shelf.workspace.discard(&target.name);
                }
                copied.wrong.push((Entry::clone(&entry), windows));
            }
        }
    }

    async fn flush(&self, batch: &mut Batch) -> Result<Vec<Record>, Failure> {
        let batch = std::mem::take(batch);
        if batch.parts.is_empty() && batch.files.is_empty() {
            return Ok(Vec::new());
        }
        let to = Arc::clone(&self.shelf);
        blocking(move || to.complete(&batch)).await
    }
}
