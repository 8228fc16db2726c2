//! Takes files that are there already instead of fetching them: those of an earlier checkpoint in the same volume, and those
//! of a claim that the volume entry names. Does I/O.
//!
//! A donor is only read. Its bytes go under a temporary name, are hashed as fetched ones are, and become durable with the batch.
//! What does not turn out to be what is wanted is fetched: a donor can cost time and never a load.

pub(super) mod donor;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    fs::File,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use rustix::io::Errno;
use tokio::sync::mpsc;

use crate::storage::{Entry, Storage, Window};

use super::{
    copy::Shelf,
    failure::{Failure, blocking},
    progress::ProgressSink,
    transfer::{
        Event, Job, PartSums,
        clone::{self, Bringing, Brought},
        hash::PART,
        target::{self, Target},
        told,
    },
    volume::{Volume, Workspace},
};

use donor::{Donor, Donors, Likeness, Means, Owner, means};

/// Donors that are read at once. Each has one buffer.
const AT_ONCE: usize = 2;
/// Files that the storage is asked about at once.
const ASKED: usize = 16;
/// Files up to this size are not asked about.
const SMALL: u64 = 1 << 20;
/// Donors of the volume itself that are opened before anything takes their names: the largest ones.
const OPEN: usize = 256;

/// A file that may be there.
#[derive(Debug)]
struct Candidate {
    donor: Donor,
    like: Likeness,
    size: u64,
    open: Mutex<Option<File>>,
}

/// The files that may be there.
#[derive(Debug, Default)]
pub(super) struct Reuse {
    candidates: BTreeMap<String, Candidate>,
    sibling: Option<Volume>,
    reused: AtomicU64,
}

/// The claim that files may be taken from, and its files. Nothing that is wrong with it is an error. Blocks.
pub(super) fn sibling(root: &Path) -> Option<(Volume, Vec<Donor>)> {
    let opened = Volume::open(root).and_then(|volume| Ok((volume.manifest()?, volume)));
    match opened {
        Ok((Some(manifest), volume)) if manifest.version == 1 => Some((volume, donor::sibling(manifest))),
        Ok(_) => {
            tracing::warn!("the claim in reuseFrom holds no checkpoint that was loaded: everything is fetched");
            None
        }
        Err(failure) => {
            tracing::warn!(%failure, "the claim in reuseFrom cannot be read: everything is fetched");
            None
        }
    }
}

impl Reuse {
    /// Looks for the files that are to be fetched. Blocks.
    pub(super) fn plan<'e>(
        fetch: impl IntoIterator<Item = &'e Entry>,
        uri: &str,
        own: Vec<Donor>,
        sibling: Option<(Volume, Vec<Donor>)>,
        workspace: &Workspace,
    ) -> Self {
        let (sibling, theirs) = sibling.map_or((None, Vec::new()), |(volume, donors)| (Some(volume), donors));
        let donors = Donors::new(own.into_iter().chain(theirs).collect());
        let candidate = |entry: &Entry| {
            let (donor, like) = donors.best(entry, uri)?;
            let open = Mutex::default();
            Some((entry.path.clone(), Candidate { donor: donor.clone(), like, size: entry.size, open }))
        };
        let candidates: BTreeMap<_, _> = fetch.into_iter().filter_map(candidate).collect();
        let mut own: Vec<&Candidate> = candidates.values().filter(|known| known.donor.owner == Owner::Own).collect();
        own.sort_by_key(|candidate| Reverse(candidate.size));
        for candidate in own.into_iter().take(OPEN) {
            let file = workspace.volume.file(&candidate.donor.path).ok();
            *candidate.open.lock().unwrap_or_else(PoisonError::into_inner) = file;
        }
        Self { candidates, sibling, reused: AtomicU64::new(0) }
    }

    /// Whether this file may be there.
    pub(super) fn has(&self, entry: &Entry) -> bool {
        self.candidates.contains_key(&entry.path)
    }

    /// Bytes that were taken.
    pub(super) fn reused(&self) -> u64 {
        self.reused.load(Ordering::Relaxed)
    }

    /// The files of the volume that must stay until their bytes were taken.
    pub(super) fn needed(&self) -> BTreeSet<&str> {
        let own = self.candidates.values().filter(|candidate| candidate.donor.owner == Owner::Own);
        own.map(|candidate| candidate.donor.path.as_str()).collect()
    }

    /// The files that take no space, because they share the blocks of their donors. Blocks.
    pub(super) fn shared(&self, shelf: &Shelf) -> BTreeSet<&str> {
        let mut shared = BTreeSet::new();
        for owner in [Owner::Own, Owner::Sibling] {
            let whole = |like| matches!(like, Likeness::Version | Likeness::Sum | Likeness::Tag);
            let of = self.candidates.iter().filter(|(_, known)| known.donor.owner == owner && whole(known.like));
            let mut of = of.peekable();
            let Some(from) = of.peek().and_then(|(_, first)| self.open(&shelf.workspace, first)) else { continue };
            let Ok((name, probe)) = shelf.blank("", 0) else { continue };
            if clone::share(&from, &probe) {
                shared.extend(of.map(|(path, _)| path.as_str()));
            }
            shelf.workspace.discard(&name);
        }
        shared
    }

    /// The donor, unless it was touched since it was loaded. Blocks.
    fn open(&self, workspace: &Workspace, candidate: &Candidate) -> Option<File> {
        let donor = &candidate.donor;
        let opened = candidate
            .open
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .as_ref()
            .and_then(|file| file.try_clone().ok());
        let volume = if donor.owner == Owner::Own { &workspace.volume } else { self.sibling.as_ref()? };
        let file = opened.or_else(|| volume.file(&donor.path).ok())?;
        let same_size = file.metadata().is_ok_and(|metadata| metadata.len() == donor.size);
        let untouched = donor
            .modified
            .as_ref()
            .is_none_or(|modified| Workspace::modified(&file, &donor.path).is_ok_and(|found| found == *modified));
        (same_size && untouched).then_some(file)
    }
}

/// Takes what is there.
pub(super) struct Taker<'a> {
    pub reuse: &'a Arc<Reuse>,
    pub storage: &'a dyn Storage,
    pub progress: &'a ProgressSink,
    pub shelf: &'a Arc<Shelf>,
}

impl<'a> Taker<'a> {
    /// Asks the storage what it holds of these files. Those that may be taken, and how; and those that nothing would prove to be
    /// what is there.
    pub(super) async fn decide(&self, entries: Vec<&'a Entry>) -> (Vec<(&'a Entry, Means)>, Vec<Job<'a>>) {
        let mut entries = entries.into_iter();
        let mut asked: FuturesUnordered<BoxFuture<'_, (&'a Entry, Option<Means>)>> = FuturesUnordered::new();
        let (mut taken, mut left) = (Vec::new(), Vec::new());
        loop {
            while asked.len() < ASKED
                && let Some(entry) = entries.next()
            {
                asked.push(self.means(entry).boxed());
            }
            match asked.next().await {
                Some((entry, Some(means))) => taken.push((entry, means)),
                Some((entry, None)) => left.push(Job::whole(entry)),
                None => break,
            }
        }
        taken.sort_by_key(|(entry, _)| Reverse(entry.size));
        (taken, left)
    }

    async fn means(&self, entry: &'a Entry) -> (&'a Entry, Option<Means>) {
        let Some(candidate) = self.reuse.candidates.get(&entry.path) else { return (entry, None) };
        let windows = match candidate.like {
            Likeness::Version => Vec::new(),
            // To fetch it costs no more than to ask.
            _ if entry.size <= SMALL => Window::of(entry.checksum, entry.size),
            _ => self.storage.checksums(entry).await,
        };
        let means = means(entry, &candidate.donor, candidate.like, windows);
        (entry, means.filter(|means| matches!(means, Means::Whole(_)) || !self.storage.in_sequence()))
    }

    /// Takes the files that are what is wanted. What is left to be fetched.
    pub(super) async fn run(
        &self,
        files: Vec<(&'a Entry, Means)>,
        events: &mpsc::Sender<Event>,
    ) -> Result<Vec<Job<'a>>, Failure> {
        let mut files = files.into_iter();
        let mut running: FuturesUnordered<BoxFuture<'_, Result<Option<Job<'a>>, Failure>>> = FuturesUnordered::new();
        let mut left = Vec::new();
        loop {
            while running.len() < AT_ONCE
                && let Some((entry, means)) = files.next()
            {
                running.push(self.take(entry, means, events).boxed());
            }
            match running.next().await {
                Some(taken) => left.extend(taken?),
                None => return Ok(left),
            }
        }
    }

    /// Takes a file; none when there is nothing of it to be fetched.
    async fn take(
        &self,
        entry: &'a Entry,
        means: Means,
        events: &mpsc::Sender<Event>,
    ) -> Result<Option<Job<'a>>, Failure> {
        let left = Ok(Some(Job::whole(entry)));
        let Some(candidate) = self.reuse.candidates.get(&entry.path) else { return left };
        let (donor, like) = (&candidate.donor, candidate.like);
        let (reuse, to, path) = (Arc::clone(self.reuse), Arc::clone(self.shelf), entry.path.clone());
        let opened = blocking(move || {
            let candidate = reuse.candidates.get(&path);
            Ok(candidate.and_then(|candidate| reuse.open(&to.workspace, candidate)))
        });
        let Some(from) = opened.await? else { return left };
        match means {
            Means::Whole(windows) => {
                let Some((target, brought)) = self.whole(entry, donor, from, windows).await? else { return left };
                let verified = if like == Likeness::Version { donor.verified } else { brought.verified };
                self.progress.update(|progress| progress.files_done += 1);
                let entry = Arc::new(entry.clone());
                told(events, Event::File { entry, target: Some(target), hash: brought.hash, verified }).await?;
                Ok(None)
            }
            Means::Parts(windows) => {
                Ok(Some(Job { kept: self.parts(entry, donor, from, windows, events).await?, ..Job::whole(entry) }))
            }
        }
    }

    /// Brings a file as it is; none when it is not what is wanted.
    async fn whole(
        &self,
        entry: &Entry,
        donor: &Donor,
        from: File,
        windows: Vec<Window>,
    ) -> Result<Option<(Arc<Target>, Brought)>, Failure> {
        let (to, path, size) = (Arc::clone(self.shelf), entry.path.clone(), entry.size);
        let (from, target, shared) = blocking(move || {
            let (name, file) = to.blank(&path, 0)?;
            let shared = clone::share(&from, &file);
            if !shared && let Err(failure) = Workspace::reserve(&file, size, &path) {
                to.workspace.discard(&name);
                return Err(failure);
            }
            let target = Target::new(file, name, false).held_by(to.workspace.held());
            Ok((from, Arc::new(target), shared))
        })
        .await?;
        let bringing = Bringing::new(from, Some((Arc::clone(&target), shared)), size, size, windows);
        let mut counted = 0;
        let brought = self.read(bringing, entry, Some(&mut counted)).await;
        let brought = match brought {
            Ok(Some(brought)) if is_sound(entry, donor, &brought) && brought.wrong.is_empty() => brought,
            other => {
                self.shelf.workspace.discard(&target.name);
                self.uncount(counted);
                return other.map(|_| None);
            }
        };
        if shared {
            // Something may have been added to the donor since it was opened.
            target::finish(Arc::clone(&target), size, entry.path.clone()).await?;
        }
        Ok(Some((target, brought)))
    }

    /// Brings the parts of a file that its store has the same sums of, and says which.
    async fn parts(
        &self,
        entry: &'a Entry,
        donor: &Donor,
        from: File,
        windows: Vec<Window>,
        events: &mpsc::Sender<Event>,
    ) -> Result<Vec<(usize, PartSums)>, Failure> {
        let Ok(source) = from.try_clone() else { return Ok(Vec::new()) };
        let bringing = Bringing::new(from, None, donor.size, entry.size, windows.clone());
        let Some(brought) = self.read(bringing, entry, None).await? else { return Ok(Vec::new()) };
        if !is_sound(entry, donor, &brought) {
            return Ok(Vec::new());
        }
        let equal = clone::equal_parts(&windows, &brought.wrong, donor.size, entry.size, &brought.parts);
        if equal.is_empty() {
            return Ok(equal);
        }
        let (to, path, size) = (Arc::clone(self.shelf), entry.path.clone(), entry.size);
        let target = blocking(move || {
            let (name, file) = to.blank(&path, size)?;
            to.begin(&path, &name);
            Ok(Arc::new(Target::new(file, name, false).held_by(to.workspace.held())))
        });
        let target = target.await?;
        let (source, named) = (Arc::new(source), Arc::new(entry.clone()));
        let mut kept = Vec::new();
        for (index, sums) in equal {
            let (from, to, part) = (Arc::clone(&source), Arc::clone(&target), (index, sums.clone()));
            match blocking(move || Ok(clone::part(&from, to.file(), size, part))).await? {
                Ok(true) => {}
                Err(error) if is_full(&error) => return Err(Failure::of_io(&error, &entry.path)),
                changed => {
                    tracing::warn!(path = entry.path, part = index, ?changed, "what is there changed: fetching it");
                    continue;
                }
            }
            self.count(PART.min(size - index as u64 * PART));
            kept.push((index, sums.clone()));
            let (entry, target) = (Arc::clone(&named), Arc::clone(&target));
            told(events, Event::Part { entry, target, index, sums }).await?;
        }
        Ok(kept)
    }

    /// Reads all of a donor; none when that fails for a reason that is not the volume's.
    async fn read(
        &self,
        mut bringing: Bringing,
        entry: &Entry,
        mut counted: Option<&mut u64>,
    ) -> Result<Option<Brought>, Failure> {
        loop {
            let stepped = blocking(move || {
                let stepped = bringing.step();
                Ok((bringing, stepped))
            });
            let (back, stepped) = stepped.await?;
            bringing = back;
            match stepped {
                Ok(Some(bytes)) => {
                    if let Some(counted) = &mut counted {
                        **counted += bytes;
                        self.count(bytes);
                    }
                }
                Ok(None) => return Ok(Some(bringing.finish())),
                Err(error) => {
                    if is_full(&error) {
                        return Err(Failure::of_io(&error, &entry.path));
                    }
                    tracing::warn!(path = entry.path, %error, "what is there cannot be read: fetching it");
                    return Ok(None);
                }
            }
        }
    }

    fn count(&self, bytes: u64) {
        self.reuse.reused.fetch_add(bytes, Ordering::Relaxed);
        self.progress.update(|progress| {
            progress.bytes_done += bytes;
            progress.bytes_reused += bytes;
        });
    }

    fn uncount(&self, bytes: u64) {
        self.reuse.reused.fetch_sub(bytes, Ordering::Relaxed);
        self.progress.update(|progress| {
            progress.bytes_done -= bytes.min(progress.bytes_done);
            progress.bytes_reused -= bytes.min(progress.bytes_reused);
        });
    }
}

fn is_full(error: &std::io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOSPC | Errno::DQUOT))
}

/// Whether a donor is what was once loaded.
fn is_sound(entry: &Entry, donor: &Donor, brought: &Brought) -> bool {
    let sound = brought.hash == donor.blake3;
    if !sound {
        tracing::warn!(path = entry.path, donor = donor.path, "what is there is not what was loaded: fetching it");
    }
    sound
}
