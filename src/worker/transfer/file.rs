//! A file under way: its parts in any order, then what they make up. Does I/O through storages and targets.

use std::{
    ops::Range,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use tokio::{
    sync::{OnceCell, mpsc},
    task::JoinHandle,
};

use crate::storage::{Entry, Pieces, Window};
use crate::worker::failure::{Failure, blocking};

use super::{
    Check, Destination, Event, Job, PART, PartHash, PartSums, Transfer,
    hash::{self, PartHasher},
    pool::CHUNK,
    reader::Reader,
    sums::{OrderedSums, Piece, PieceSums},
    target::{self, Target},
    told,
};

/// Files up to this size are written through the page cache: many of them share one sync.
const BUFFERED: u64 = 1 << 20;

/// Work that is done at one go.
pub(super) enum Item {
    /// A file from its beginning to its end.
    Whole(Arc<Entry>),
    /// A part of a file.
    Part(Arc<Under>, usize),
    /// A file that has all its parts.
    Nothing(Arc<Under>),
}

/// A file that is read part by part.
#[derive(Debug)]
pub(super) struct Under {
    entry: Arc<Entry>,
    opened: OnceCell<Opened>,
    parts: Mutex<Vec<Option<PartSums>>>,
    missing: AtomicUsize,
    partial: bool,
}

/// What is known when the first part is begun.
#[derive(Debug)]
struct Opened {
    target: Option<Arc<Target>>,
    check: Check,
    /// The sums that need an order: they follow the parts through what was written.
    trail: Option<Arc<Mutex<Trail>>>,
    /// Such sums without anything written that they could follow: whoever sets this reads the file from its beginning, and what
    /// other parts there are is done with that.
    at_once: Option<AtomicBool>,
}

#[derive(Debug)]
struct Trail {
    sums: OrderedSums,
    next: usize,
}

impl Under {
    /// The file and the parts that are missing.
    pub(super) fn new(job: Job<'_>) -> (Self, Vec<usize>) {
        let count = usize::try_from(job.entry.size.div_ceil(PART)).unwrap_or(usize::MAX);
        let mut parts = vec![None; count];
        for (index, sums) in job.kept {
            if let Some(part) = parts.get_mut(index) {
                *part = Some(sums);
            }
        }
        let partial = job.only.is_some();
        let only = job.only.unwrap_or(0..count);
        let missing: Vec<usize> = only.filter(|index| parts.get(*index).is_some_and(Option::is_none)).collect();
        let left = AtomicUsize::new(missing.len());
        let entry = Arc::new(job.entry.clone());
        let file = Self { entry, opened: OnceCell::new(), parts: Mutex::new(parts), missing: left, partial };
        (file, missing)
    }

    /// Whether others read parts of it too.
    pub(super) fn is_partial(&self) -> bool {
        self.partial
    }

    fn range(&self, index: usize) -> Range<u64> {
        range(index, self.entry.size)
    }

    fn keep(&self, index: usize, sums: PartSums) {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)[index] = Some(sums);
    }

    fn has(&self, index: usize) -> bool {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner).get(index).is_some_and(Option::is_some)
    }

    /// Parts that are there, but without the pieces that this check wants.
    fn without_pieces(&self, check: &Check) -> Vec<usize> {
        let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let lacks =
            |index: &usize| parts[*index].as_ref().is_some_and(|part| !check.fits(&self.range(*index), &part.pieces));
        (0..parts.len()).filter(lacks).collect()
    }

    /// The hash of the file and what is wrong with it.
    fn sums(&self, check: &Check) -> (Option<blake3::Hash>, Vec<Window>) {
        let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let hashes: Option<Vec<PartHash>> = parts.iter().map(|part| part.as_ref().map(|part| part.hash)).collect();
        let pieces: Vec<Piece> = parts.iter().flatten().flat_map(|part| part.pieces.iter().cloned()).collect();
        (hashes.and_then(|hashes| hash::merge(&hashes)), check.wrong_pieces(&pieces))
    }
}

fn range(index: usize, size: u64) -> Range<u64> {
    let start = index as u64 * PART;
    start..(start + PART).min(size)
}

/// The sums of a part.
struct Sums {
    hasher: PartHasher,
    pieces: PieceSums,
    ordered: Option<OrderedSums>,
}

impl Sums {
    fn new(entry: &Entry, range: &Range<u64>, check: &Check, ordered: Option<OrderedSums>) -> Self {
        let hasher = PartHasher::new(range.start, entry.size);
        Self { hasher, pieces: PieceSums::new(check.clone(), range.start), ordered }
    }

    /// The next bytes, while they are in the processor's caches.
    fn update(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        self.pieces.update(bytes);
        if let Some(ordered) = &mut self.ordered {
            ordered.update(bytes);
        }
    }
}

impl Transfer {
    /// Does one item.
    pub(super) async fn item(
        self: Arc<Self>,
        item: Item,
        destination: Arc<dyn Destination>,
        events: mpsc::Sender<Event>,
    ) -> Result<(), Failure> {
        let event = match item {
            Item::Whole(entry) => Some(self.whole(entry, destination).await?),
            Item::Part(file, index) => self.part(&file, index, &destination, &events).await?,
            Item::Nothing(file) => Some(self.finish(&file, self.opened(&file, &destination).await?).await?),
        };
        match event {
            Some(event) => told(&events, event).await,
            None => Ok(()),
        }
    }

    /// Reads a file from its beginning to its end with one request, part by part.
    async fn whole(&self, entry: Arc<Entry>, destination: Arc<dyn Destination>) -> Result<Event, Failure> {
        let (checksum, pieces) = self.storage.read_whole(&entry).await?;
        let windows = checksum.map(|checksum| Window { range: 0..entry.size, checksum });
        let check = Check::new(windows.into_iter().collect(), entry.size);
        let target = open(&entry, destination, &check).await?;
        self.in_order(&entry, pieces, target, &check).await
    }

    /// Reads a file from its beginning to its end, part by part.
    async fn in_order(
        &self,
        entry: &Arc<Entry>,
        pieces: Pieces<'_>,
        target: Option<Arc<Target>>,
        check: &Check,
    ) -> Result<Event, Failure> {
        let mut reader = Reader::new(entry, pieces);
        let mut ordered = OrderedSums::new(check);
        let (mut hashes, mut all) = (Vec::new(), Vec::new());
        let parts = entry.size.div_ceil(PART).max(1);
        for index in 0..usize::try_from(parts).unwrap_or(usize::MAX) {
            let range = range(index, entry.size);
            let sums = Sums::new(entry, &range, check, ordered.take());
            let done = self.stream(&mut reader, range, sums, target.as_ref()).await?;
            hashes.push(done.hasher.finish());
            all.extend(done.pieces.finish());
            ordered = done.ordered;
        }
        let wrong = ordered.map_or_else(|| check.wrong_pieces(&all), OrderedSums::finish);
        self.ended(entry, target, hash::merge(&hashes), wrong, check).await
    }

    async fn part(
        &self,
        file: &Arc<Under>,
        index: usize,
        destination: &Arc<dyn Destination>,
        events: &mpsc::Sender<Event>,
    ) -> Result<Option<Event>, Failure> {
        let opened = self.opened(file, destination).await?;
        let (entry, range) = (&file.entry, file.range(index));
        if let Some(begun) = &opened.at_once {
            if begun.swap(true, Ordering::AcqRel) {
                return Ok(None);
            }
            let pieces = self.storage.read(entry, 0..entry.size);
            return self.in_order(entry, pieces, None, &opened.check).await.map(Some);
        }
        let mut reader = Reader::new(entry, self.storage.read(entry, range.clone()));
        let sums = Sums::new(entry, &range, &opened.check, None);
        let done = self.stream(&mut reader, range, sums, opened.target.as_ref()).await?;
        let sums = PartSums { hash: done.hasher.finish(), pieces: done.pieces.finish() };
        file.keep(index, sums.clone());
        if let Some(target) = &opened.target {
            follow(file, opened).await?;
            told(events, Event::Part { entry: Arc::clone(entry), target: Arc::clone(target), index, sums }).await?;
        }
        if file.missing.fetch_sub(1, Ordering::AcqRel) > 1 || file.partial {
            return Ok(None);
        }
        self.finish(file, opened).await.map(Some)
    }

    /// Opens the target of a file, once, and asks for its checksums.
    async fn opened<'f>(
        &self,
        file: &'f Arc<Under>,
        destination: &Arc<dyn Destination>,
    ) -> Result<&'f Opened, Failure> {
        let open = async {
            let entry = &file.entry;
            let check = Check::new(self.storage.checksums(entry).await, entry.size);
            let target = open(entry, Arc::clone(destination), &check).await?;
            let sums = OrderedSums::new(&check).filter(|_| target.is_some() && !file.partial);
            let trail = sums.map(|sums| Arc::new(Mutex::new(Trail { sums, next: 0 })));
            let at_once = (target.is_none() && check.is_in_order()).then(AtomicBool::default);
            if let Some(target) = &target {
                for index in file.without_pieces(&check) {
                    self.read_again(file, index, &check, target).await?;
                }
            }
            Ok(Opened { target, check, trail, at_once })
        };
        file.opened.get_or_try_init(|| open).await
    }

    /// Sums a part that an earlier attempt wrote, from what it wrote.
    async fn read_again(
        &self,
        file: &Arc<Under>,
        index: usize,
        check: &Check,
        target: &Arc<Target>,
    ) -> Result<(), Failure> {
        let (range, size, path) = (file.range(index), file.entry.size, file.entry.path.clone());
        let (check, target) = (check.clone(), Arc::clone(target));
        let sums = blocking(move || {
            let mut hasher = PartHasher::new(range.start, size);
            let mut pieces = PieceSums::new(check, range.start);
            let each = |bytes: &[u8]| {
                hasher.update(bytes);
                pieces.update(bytes);
            };
            target.read(range, each).map_err(|error| Failure::of_io(&error, &path))?;
            Ok(PartSums { hash: hasher.finish(), pieces: pieces.finish() })
        })
        .await?;
        file.keep(index, sums);
        Ok(())
    }

    /// Reads and sums a range, and writes each buffer while the next one fills.
    async fn stream(
        &self,
        reader: &mut Reader<'_>,
        range: Range<u64>,
        mut sums: Sums,
        target: Option<&Arc<Target>>,
    ) -> Result<Sums, Failure> {
        let mut writing: Option<JoinHandle<Result<(), Failure>>> = None;
        let mut at = range.start;
        while at < range.end {
            let closed = || Failure::Volume("the transfer was closed".into());
            let mut buffer = self.pool.buffer().await.ok_or_else(closed)?;
            let length = usize::try_from(range.end - at).unwrap_or(CHUNK).min(CHUNK);
            reader.fill(&mut buffer, length, self, |bytes| sums.update(bytes)).await?;
            if let Some(before) = writing.take() {
                written(before).await?;
            }
            writing = target.map(|target| {
                let (target, path) = (Arc::clone(target), Arc::clone(reader.entry()));
                tokio::task::spawn_blocking(move || {
                    target.write(&mut buffer, at).map_err(|error| Failure::of_io(&error, &path.path))
                })
            });
            at += length as u64;
        }
        match writing {
            Some(last) => written(last).await.map(|()| sums),
            None => Ok(sums),
        }
    }

    async fn finish(&self, file: &Arc<Under>, opened: &Opened) -> Result<Event, Failure> {
        if opened.target.is_some() {
            follow(file, opened).await?;
        }
        let (hash, mut wrong) = file.sums(&opened.check);
        if let Some(trail) = &opened.trail {
            let mut trail = trail.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(fresh) = OrderedSums::new(&opened.check) {
                wrong = std::mem::replace(&mut trail.sums, fresh).finish();
            }
        }
        self.ended(&file.entry, opened.target.clone(), hash, wrong, &opened.check).await
    }

    /// The end of a file.
    async fn ended(
        &self,
        entry: &Arc<Entry>,
        target: Option<Arc<Target>>,
        hash: Option<blake3::Hash>,
        wrong: Vec<Window>,
        check: &Check,
    ) -> Result<Event, Failure> {
        let entry = Arc::clone(entry);
        if let Some(target) = &target {
            target::finish(Arc::clone(target), entry.size, entry.path.clone()).await?;
        }
        if !wrong.is_empty() {
            self.progress.update(|progress| progress.bytes_done -= entry.size.min(progress.bytes_done));
            return Ok(Event::Wrong { entry, target, windows: wrong });
        }
        self.progress.update(|progress| progress.files_done += 1);
        let lost = || Failure::Volume(format!("the parts of {} do not make up a file", entry.path));
        let (hash, verified) = (hash.ok_or_else(lost)?, check.covers(entry.size));
        Ok(Event::File { entry, target, hash, verified })
    }
}

async fn open(entry: &Entry, destination: Arc<dyn Destination>, check: &Check) -> Result<Option<Arc<Target>>, Failure> {
    // Sums that follow the parts read them back: from the page cache, not from the disk.
    let direct = entry.size > BUFFERED && !(check.is_in_order() && entry.size > PART);
    let entry = entry.clone();
    Ok(blocking(move || destination.target(&entry, direct)).await?.map(Arc::new))
}

/// Lets the sums that need an order follow the parts that are complete.
async fn follow(file: &Arc<Under>, opened: &Opened) -> Result<(), Failure> {
    let (Some(trail), Some(target)) = (&opened.trail, &opened.target) else { return Ok(()) };
    let (trail, target, path, size) = (Arc::clone(trail), Arc::clone(target), file.entry.path.clone(), file.entry.size);
    loop {
        let next = trail.lock().unwrap_or_else(PoisonError::into_inner).next;
        if !file.has(next) {
            return Ok(());
        }
        let (trail, target, path) = (Arc::clone(&trail), Arc::clone(&target), path.clone());
        blocking(move || {
            let mut trail = trail.lock().unwrap_or_else(PoisonError::into_inner);
            if trail.next == next {
                let Trail { sums, next } = &mut *trail;
                let read = target.read(range(*next, size), |bytes| sums.update(bytes));
                read.map_err(|error| Failure::of_io(&error, &path))?;
                *next += 1;
            }
            Ok(())
        })
        .await?;
    }
}

async fn written(writing: JoinHandle<Result<(), Failure>>) -> Result<(), Failure> {
    writing.await.unwrap_or_else(|error| Err(Failure::Volume(format!("the work on the volume was given up: {error}"))))
}
