//! A file under way: its parts in any order, then what they make up. Does I/O through storages and targets.

use std::{
    ops::Range,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{
    sync::{OnceCell, mpsc},
    task::JoinHandle,
};

use crate::storage::{Entry, Window};
use crate::worker::failure::{Failure, blocking};

use super::{
    Check, Destination, Event, Job, PART, PartHash, PartSums, Transfer,
    hash::{self, PartHasher},
    pool::{Buffer, CHUNK},
    reader::Reader,
    sums::{OrderedSums, Piece, PieceSums},
    target::{self, Target},
    told,
};

/// Files up to this size are written through the page cache: many of them share one sync.
const BUFFERED: u64 = 1 << 20;

/// Work that is done at one go.
pub(super) enum Item<'a> {
    /// A file from its beginning to its end.
    Whole(&'a Entry),
    /// A part of a file.
    Part(Arc<Under<'a>>, usize),
    /// A file that has all its parts.
    Nothing(Arc<Under<'a>>),
}

/// A file that is read part by part.
#[derive(Debug)]
pub(super) struct Under<'a> {
    entry: &'a Entry,
    opened: OnceCell<Opened>,
    parts: Mutex<Vec<Option<PartSums>>>,
    missing: AtomicUsize,
}

/// What is known when the first part is begun.
#[derive(Debug)]
struct Opened {
    target: Option<Arc<Target>>,
    check: Check,
    /// The sums that need an order: they follow the parts through what was written.
    trail: Option<Arc<Mutex<Trail>>>,
}

#[derive(Debug)]
struct Trail {
    sums: OrderedSums,
    next: usize,
}

impl<'a> Under<'a> {
    /// The file and the parts that are missing.
    pub(super) fn new(job: Job<'a>) -> (Self, Vec<usize>) {
        let count = usize::try_from(job.entry.size.div_ceil(PART)).unwrap_or(usize::MAX);
        let mut parts = vec![None; count];
        for (index, sums) in job.kept {
            if let Some(part) = parts.get_mut(index) {
                *part = Some(sums);
            }
        }
        let missing: Vec<usize> = (0..count).filter(|index| parts[*index].is_none()).collect();
        let left = AtomicUsize::new(missing.len());
        let file = Self { entry: job.entry, opened: OnceCell::new(), parts: Mutex::new(parts), missing: left };
        (file, missing)
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

/// A part that is being hashed and written.
struct Working {
    hasher: PartHasher,
    pieces: PieceSums,
    ordered: Option<OrderedSums>,
    target: Option<Arc<Target>>,
    path: Arc<str>,
}

impl Working {
    /// Hashes and writes while the bytes are in the processor's caches. Blocks.
    fn work(mut self, mut buffer: Buffer, at: u64) -> Result<Self, Failure> {
        let bytes = buffer.bytes();
        self.hasher.update(bytes);
        self.pieces.update(bytes);
        if let Some(ordered) = &mut self.ordered {
            ordered.update(bytes);
        }
        if let Some(target) = &self.target {
            target.write(&mut buffer, at).map_err(|error| Failure::of_io(&error, &self.path))?;
        }
        Ok(self)
    }
}

impl<'a> Transfer<'a> {
    /// Does one item.
    pub(super) async fn item(
        &self,
        item: Item<'a>,
        destination: Arc<dyn Destination>,
        events: mpsc::Sender<Event<'a>>,
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
    async fn whole(&self, entry: &'a Entry, destination: Arc<dyn Destination>) -> Result<Event<'a>, Failure> {
        let (checksum, pieces) = self.storage.read_whole(entry).await?;
        let windows = checksum.map(|checksum| Window { range: 0..entry.size, checksum });
        let check = Check::new(windows.into_iter().collect(), entry.size);
        let target = open(entry, destination, &check).await?;
        let mut reader = Reader::new(entry, pieces);
        let mut ordered = OrderedSums::new(&check);
        let (mut hashes, mut all) = (Vec::new(), Vec::new());
        let parts = entry.size.div_ceil(PART).max(1);
        for index in 0..usize::try_from(parts).unwrap_or(usize::MAX) {
            let range = range(index, entry.size);
            let working = working(entry, &range, &check, ordered.take(), target.clone());
            let done = self.stream(&mut reader, range, working).await?;
            hashes.push(done.hasher.finish());
            all.extend(done.pieces.finish());
            ordered = done.ordered;
        }
        let wrong = ordered.map_or_else(|| check.wrong_pieces(&all), OrderedSums::finish);
        self.ended(entry, target, hash::merge(&hashes), wrong, &check).await
    }

    async fn part(
        &self,
        file: &Arc<Under<'a>>,
        index: usize,
        destination: &Arc<dyn Destination>,
        events: &mpsc::Sender<Event<'a>>,
    ) -> Result<Option<Event<'a>>, Failure> {
        let opened = self.opened(file, destination).await?;
        let (entry, range) = (file.entry, file.range(index));
        let mut reader = Reader::new(entry, self.storage.read(entry, range.clone()));
        let working = working(entry, &range, &opened.check, None, opened.target.clone());
        let done = self.stream(&mut reader, range, working).await?;
        let sums = PartSums { hash: done.hasher.finish(), pieces: done.pieces.finish() };
        file.keep(index, sums.clone());
        if let Some(target) = &opened.target {
            follow(file, opened).await?;
            told(events, Event::Part { entry, target: Arc::clone(target), index, sums }).await?;
        }
        if file.missing.fetch_sub(1, Ordering::AcqRel) > 1 {
            return Ok(None);
        }
        self.finish(file, opened).await.map(Some)
    }

    /// Opens the target of a file, once, and asks for its checksums.
    async fn opened<'f>(
        &self,
        file: &'f Arc<Under<'a>>,
        destination: &Arc<dyn Destination>,
    ) -> Result<&'f Opened, Failure> {
        let open = async {
            let entry = file.entry;
            let check = Check::new(self.storage.checksums(entry).await, entry.size);
            let target = open(entry, Arc::clone(destination), &check).await?;
            // Without a target there is nothing that sums could follow the parts through.
            let check = if target.is_none() && check.is_in_order() { Check::None } else { check };
            let sums = OrderedSums::new(&check);
            let trail = sums.map(|sums| Arc::new(Mutex::new(Trail { sums, next: 0 })));
            if let Some(target) = &target {
                for index in file.without_pieces(&check) {
                    self.read_again(file, index, &check, target).await?;
                }
            }
            Ok(Opened { target, check, trail })
        };
        file.opened.get_or_try_init(|| open).await
    }

    /// Sums a part that an earlier attempt wrote, from what it wrote.
    async fn read_again(
        &self,
        file: &Arc<Under<'a>>,
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

    /// Reads a range, and hashes and writes each buffer while the next one fills.
    async fn stream(&self, reader: &mut Reader<'_>, range: Range<u64>, working: Working) -> Result<Working, Failure> {
        let mut ready = Some(working);
        let mut busy: Option<JoinHandle<Result<Working, Failure>>> = None;
        let mut at = range.start;
        while at < range.end {
            let closed = || Failure::Volume("the transfer was closed".into());
            let mut buffer = self.pool.buffer().await.ok_or_else(closed)?;
            let length = usize::try_from(range.end - at).unwrap_or(CHUNK).min(CHUNK);
            reader.fill(&mut buffer, length, self).await?;
            let working = match busy.take() {
                Some(busy) => idle(busy).await?,
                None => ready.take().ok_or_else(closed)?,
            };
            busy = Some(tokio::task::spawn_blocking(move || working.work(buffer, at)));
            at += length as u64;
        }
        match (busy, ready) {
            (Some(busy), _) => idle(busy).await,
            (None, Some(ready)) => Ok(ready),
            (None, None) => Err(Failure::Volume("a part was lost".into())),
        }
    }

    async fn finish(&self, file: &Arc<Under<'a>>, opened: &Opened) -> Result<Event<'a>, Failure> {
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
        self.ended(file.entry, opened.target.clone(), hash, wrong, &opened.check).await
    }

    /// The end of a file.
    async fn ended(
        &self,
        entry: &'a Entry,
        target: Option<Arc<Target>>,
        hash: Option<blake3::Hash>,
        wrong: Vec<Window>,
        check: &Check,
    ) -> Result<Event<'a>, Failure> {
        if let Some(target) = &target {
            target::finish(Arc::clone(target), entry.size, entry.path.clone()).await?;
        }
        if !wrong.is_empty() {
            self.progress.update(|progress| progress.bytes_done -= entry.size.min(progress.bytes_done));
            return Ok(Event::Wrong { entry, target, windows: wrong });
        }
        self.progress.update(|progress| progress.files_done += 1);
        let lost = || Failure::Volume(format!("the parts of {} do not make up a file", entry.path));
        Ok(Event::File { entry, target, hash: hash.ok_or_else(lost)?, verified: check.covers(entry.size) })
    }
}

fn working(
    entry: &Entry,
    range: &Range<u64>,
    check: &Check,
    ordered: Option<OrderedSums>,
    target: Option<Arc<Target>>,
) -> Working {
    Working {
        hasher: PartHasher::new(range.start, entry.size),
        pieces: PieceSums::new(check.clone(), range.start),
        ordered,
        target,
        path: entry.path.as_str().into(),
    }
}

async fn open(entry: &Entry, destination: Arc<dyn Destination>, check: &Check) -> Result<Option<Arc<Target>>, Failure> {
    // Sums that follow the parts read them back: from the page cache, not from the disk.
    let direct = entry.size > BUFFERED && !(check.is_in_order() && entry.size > PART);
    let entry = entry.clone();
    Ok(blocking(move || destination.target(&entry, direct)).await?.map(Arc::new))
}

/// Lets the sums that need an order follow the parts that are complete.
async fn follow(file: &Arc<Under<'_>>, opened: &Opened) -> Result<(), Failure> {
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

async fn idle(busy: JoinHandle<Result<Working, Failure>>) -> Result<Working, Failure> {
    busy.await.unwrap_or_else(|error| Err(Failure::Volume(format!("the work on the volume was given up: {error}"))))
}
