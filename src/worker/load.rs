//! Copies the selected files into a volume: temporary names, durable bytes, own names, verdict, manifest. Does I/O.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Instant};

use crate::{
    contract::{
        LoadTask, Outcome, Report, Task, TaskKind, Transfer as TransferFacts,
        digest::{Tree, filter_hash},
        filter::Filter,
        manifest::{Manifest, ManifestFile},
    },
    storage::{Entry, Listing, Storage, StorageError},
};

use super::{
    copy::Shelf,
    failure::{Failure, blocking},
    inspect::{of_verdict, pin_message, selectors},
    journal::{self, Record},
    progress::{ProgressSink, Stage},
    reuse::{self, Reuse, donor},
    review::{Review, review},
    rounds::Rounds,
    selection::{Inventory, Resume, Work, blocks},
    split::{
        self,
        share::{Share, is_shared},
    },
    transfer,
    volume::{Staged, Volume, Workspace},
};

/// A volume that a load may write to, and what is to be done in it.
pub(super) struct Prepared {
    pub shelf: Arc<Shelf>,
    pub work: Work,
    pub reuse: Arc<Reuse>,
}

/// What a load is about.
#[derive(Clone, Copy)]
pub(super) struct Loading<'a> {
    pub task: &'a Task,
    pub load: &'a LoadTask,
    pub storage: &'a Arc<dyn Storage>,
    /// The volume to fill.
    pub volume: &'a Path,
    /// The claim whose files are taken where they are what is wanted.
    pub sibling: Option<&'a Path>,
    pub progress: &'a ProgressSink,
}

/// What the source has, and what of it is wanted.
pub(super) struct Listed {
    pub listing: Listing,
    pub wanted: Vec<Entry>,
}

/// Fills the volume and says what it holds, alone or as one of several workers.
pub(super) async fn load(loading: Loading<'_>) -> Result<Report, Failure> {
    loading.progress.enter(Stage::Listing);
    let listed = list(loading.load, &**loading.storage).await?;
    if loading.load.workers > 1 { split::load(loading, listed).await } else { whole(loading, listed).await }
}

/// Fills the volume, of which nobody else writes anything meanwhile.
pub(super) async fn whole(loading: Loading<'_>, listed: Listed) -> Result<Report, Failure> {
    let Loading { task, load, storage, volume, progress, .. } = loading;
    let Listed { listing, wanted } = listed;
    let begun = Instant::now();
    let Prepared { shelf, work, reuse } = make_room(prepare(loading, wanted.clone(), None).await?).await?;
    let (files, bytes) = (wanted.len() as u64, wanted.iter().map(|entry| entry.size).sum());
    let bytes_kept = announce(&work, (files, bytes), progress);
    let mut facts = TransferFacts { files, bytes, bytes_kept, ..TransferFacts::default() };
    let mut done: BTreeMap<String, Record> =
        work.keep.iter().chain(&work.finish).map(|record| (record.path.clone(), record.clone())).collect();
    let mut rounds = Rounds::new(storage, progress, None, &work, &reuse);
    let (shelf, mut later) = tidy(shelf, work, reuse).await?;
    let verdict = loop {
        let copied = rounds.copy(&shelf, &mut facts).await?;
        let wrong = copied.wrong();
        done.extend(copied.records.into_iter().map(|record| (record.path.clone(), record)));
        remove(Arc::clone(&shelf), std::mem::take(&mut later)).await?;
        let (files, message) = if let Some(wrong) = wrong {
            wrong
        } else {
            settle(Arc::clone(&shelf), wanted.clone()).await?;
            progress.enter(Stage::Judging);
            match review(task, &listing, &**storage, volume, &wanted).await? {
                Review::Good(verdict) => break verdict,
                Review::Bad { files, message } => (files, message),
            }
        };
        rounds.again(files, message)?;
        let to = Arc::clone(&shelf);
        // An earlier one may be there, when everything was.
        blocking(move || to.workspace.remove_manifest()).await?;
        progress.enter(Stage::Copying);
    };
    let manifest = manifest(load, &**storage, &wanted, &done)?;
    check_digests(task, load, &listing, &manifest)?;
    facts.bytes_verified = done.values().filter(|record| record.verified).map(|record| record.size).sum();
    facts.milliseconds = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    let digest = manifest.digest.clone();
    blocking(move || shelf.workspace.write_manifest(&manifest)).await?;
    Ok(Report {
        source: Some(listing.facts(&storage.uri())),
        digest: Some(digest),
        transfer: Some(facts),
        outcome: Outcome::Good,
        ..of_verdict(TaskKind::Load, *verdict)
    })
}

/// The listing, which must be the inspected one, and the selected files.
async fn list(load: &LoadTask, storage: &dyn Storage) -> Result<Listed, Failure> {
    let filters = selectors(std::slice::from_ref(&load.filter))?;
    let listing = storage.list().await?;
    if listing.fingerprint() != load.fingerprint {
        let changed = "the source is no longer what was inspected: it will be inspected again";
        return Err(StorageError::Changed(changed.into()).into());
    }
    let takes = |entry: &&Entry| filters.iter().all(|filter| filter.selects(&entry.path));
    let wanted: Vec<Entry> = listing.entries.iter().filter(takes).cloned().collect();
    if wanted.is_empty() {
        return Err(Failure::Task("include and exclude of the volume leave no file of the checkpoint".into()));
    }
    Ok(Listed { listing, wanted })
}

/// Looks at the volume and decides what is to be done, by this worker if there are several. Writes nothing but the folder and
/// the journal that are ours.
pub(super) async fn prepare(
    loading: Loading<'_>,
    wanted: Vec<Entry>,
    share: Option<Share>,
) -> Result<Prepared, Failure> {
    let (volume, sibling) = (loading.volume.to_owned(), loading.sibling.map(Path::to_owned));
    let uri = loading.storage.uri();
    blocking(move || {
        let workspace = Workspace::open(&volume, share.is_none())?;
        let manifest = match workspace.volume.manifest() {
            Err(Failure::Corrupt(_)) => None,
            other => other?,
        };
        let found = workspace.volume.scan()?;
        // After the files: what others finish meanwhile is in their journals before it has its name.
        let (journal, past) = journal::of(&workspace, share.as_ref().map(Share::worker), &uri, &found)?;
        let all = workspace.staged()?;
        let may_use = |staged: &&Staged| share.as_ref().is_none_or(|share| share.may_use(&staged.name));
        let staged = all.iter().filter(may_use).cloned().collect();
        let inventory = Inventory { past, manifest, found, staged };
        let mut work = inventory.work(&wanted)?;
        if let Some(share) = &share {
            share.restrict(&mut work, &inventory, &all);
        }
        sample(&workspace, &mut work)?;
        let own = donor::own(&inventory.past, &inventory.found, &uri);
        let sibling = sibling.as_deref().and_then(reuse::sibling);
        // What was begun goes on as it was begun.
        let anew = work.fetch.iter().filter(|entry| !work.resume.contains_key(&entry.path));
        let reuse = Arc::new(Reuse::plan(anew, &uri, own, sibling, &workspace));
        let present = inventory.found.into_iter().map(|found| found.path);
        let names = share.map(|share| share.own_names()).unwrap_or_default();
        let shelf = Arc::new(Shelf::new(workspace, journal, present, &names));
        Ok(Prepared { shelf, work, reuse })
    })
    .await
}

/// Reads one durable part of each file that was begun, unless others may be writing to it. When it is not what the journal says,
/// the file begins anew.
fn sample(workspace: &Workspace, work: &mut Work) -> Result<(), Failure> {
    let mut lost = Vec::new();
    for (path, begun) in work.resume.iter().filter(|(_, begun)| !is_shared(&begun.temporary)) {
        let skipped = rand::random_range(0..begun.parts.len().max(1));
        let Some(part) = begun.parts.values().nth(skipped) else { continue };
        let file = workspace.reopen(&begun.temporary, path)?;
        if !transfer::is_part(file, part.size, part.sums()).map_err(|error| Failure::of_io(&error, path))? {
            tracing::warn!(
                path,
                part = part.index,
                "what an earlier attempt left is not what it wrote: beginning anew"
            );
            workspace.discard(&begun.temporary);
            lost.push(path.clone());
        }
    }
    for path in &lost {
        work.resume.remove(path);
    }
    Ok(())
}

/// Removes what is of no use and only holds space, and looks whether there is enough for the rest.
pub(super) async fn make_room(prepared: Prepared) -> Result<Prepared, Failure> {
    blocking(move || {
        for name in &prepared.work.discard {
            prepared.shelf.workspace.discard(name);
        }
        check_space(&prepared)?;
        Ok(prepared)
    })
    .await
}

fn check_space(prepared: &Prepared) -> Result<(), Failure> {
    let shared = prepared.reuse.shared(&prepared.shelf);
    let needed = blocks(prepared.work.fetch.iter().filter(|entry| !shared.contains(entry.path.as_str())));
    // Before what is set aside: other workers do that at any time.
    let available = prepared.shelf.workspace.available();
    let needed = needed.saturating_sub(reserved(prepared));
    match available {
        Some(available) if available < needed => Err(Failure::NoSpace(format!(
            "the volume has {available} bytes left and {needed} are needed: give the volume a larger size, or include fewer files"
        ))),
        _ => Ok(()),
    }
}

/// Bytes that are set aside for what is to be fetched, by this worker or by others that write the same file.
pub(super) fn reserved(prepared: &Prepared) -> u64 {
    let of = |begun: &Resume| {
        if is_shared(&begun.temporary) { prepared.shelf.workspace.allocated(&begun.temporary) } else { begun.allocated }
    };
    prepared.work.resume.values().fold(0u64, |sum, begun| sum.saturating_add(of(begun)))
}

/// Says how much there is to do, in files and bytes. The bytes that need not be fetched any more.
pub(super) fn announce(work: &Work, (files_total, bytes_total): (u64, u64), progress: &ProgressSink) -> u64 {
    let files = work.keep.iter().chain(&work.finish).map(|record| record.size);
    let kept = files.chain(work.resume.values().map(Resume::bytes)).sum();
    progress.update(|progress| {
        progress.stage = Stage::Copying;
        progress.files_total = files_total;
        progress.files_done = (work.keep.len() + work.finish.len()) as u64;
        progress.bytes_total = bytes_total;
        progress.bytes_done = kept;
        progress.bytes_kept = kept;
    });
    kept
}

/// Removes what is not wanted and finishes what only lacks its name. The manifest goes first: it describes what was. What is
/// to be removed once its bytes were taken is left, and returned.
pub(super) async fn tidy(
    shelf: Arc<Shelf>,
    work: Work,
    reuse: Arc<Reuse>,
) -> Result<(Arc<Shelf>, Vec<String>), Failure> {
    blocking(move || {
        let workspace = &shelf.workspace;
        if !(work.fetch.is_empty() && work.finish.is_empty() && work.remove.is_empty()) {
            workspace.remove_manifest()?;
        }
        let needed = reuse.needed();
        let (later, now): (Vec<_>, Vec<_>) = work.remove.into_iter().partition(|path| needed.contains(path.as_str()));
        for path in &now {
            workspace.remove(path)?;
        }
        for record in &work.finish {
            shelf.publish(record)?;
        }
        Ok((shelf, later))
    })
    .await
}

/// Removes files of ours.
async fn remove(shelf: Arc<Shelf>, paths: Vec<String>) -> Result<(), Failure> {
    blocking(move || paths.iter().try_for_each(|path| shelf.workspace.remove(path))).await
}

/// Makes all names durable, and looks whether the volume holds the wanted files and nothing else.
async fn settle(shelf: Arc<Shelf>, wanted: Vec<Entry>) -> Result<(), Failure> {
    blocking(move || {
        shelf.workspace.settle_folders(wanted.iter().map(|entry| entry.path.as_str()))?;
        compare(&shelf.workspace.volume, wanted.iter().map(|entry| (entry.path.as_str(), entry.size)))
    })
    .await
}

/// Whether a volume holds exactly these files, which are sorted.
pub(super) fn compare<'a>(volume: &Volume, files: impl Iterator<Item = (&'a str, u64)>) -> Result<(), Failure> {
    let mut found = volume.scan()?.into_iter().peekable();
    for (path, size) in files {
        if let Some(extra) = found.next_if(|found| found.path.as_str() < path) {
            return Err(extra_file(&extra.path));
        }
        match found.next_if(|found| found.path == path) {
            Some(found) if found.is_file && found.size == size => {}
            Some(found) if found.is_file => {
                return Err(Failure::Corrupt(format!("{path} in the volume has {} bytes and not {size}", found.size)));
            }
            Some(_) => return Err(extra_file(path)),
            None => return Err(Failure::Corrupt(format!("{path} is missing in the volume"))),
        }
    }
    found.next().map_or(Ok(()), |extra| Err(extra_file(&extra.path)))
}

fn extra_file(path: &str) -> Failure {
    Failure::Conflict(format!("{path} is in the volume and is not a file of the checkpoint"))
}

fn manifest(
    load: &LoadTask,
    storage: &dyn Storage,
    wanted: &[Entry],
    done: &BTreeMap<String, Record>,
) -> Result<Manifest, Failure> {
    let mut tree = Tree::new();
    let mut files = Vec::with_capacity(wanted.len());
    for entry in wanted {
        let unknown = || Failure::Volume(format!("the hash of {} is not known", entry.path));
        let record = done.get(&entry.path).ok_or_else(unknown)?;
        let hash = blake3::Hash::from_hex(&record.blake3).map_err(|_| unknown())?;
        tree.add(&entry.path, entry.size, &hash);
        files.push(ManifestFile {
            path: entry.path.clone(),
            size: entry.size,
            blake3: record.blake3.clone(),
            version: record.version.clone(),
            identity: entry.identity().map(|sum| sum.to_string()),
            verified: record.verified,
        });
    }
    Ok(Manifest {
        version: 1,
        uri: storage.uri(),
        fingerprint: load.fingerprint.clone(),
        filter: filter_hash(&load.filter),
        digest: tree.finish(),
        files,
    })
}

/// Before the manifest: the pin, which is the digest of everything, and the digest that the volume must have.
fn check_digests(task: &Task, load: &LoadTask, listing: &Listing, manifest: &Manifest) -> Result<(), Failure> {
    let digest = &manifest.digest;
    let whole = Filter::is_everything(&load.filter) || manifest.files.len() == listing.entries.len();
    if let Some(pin) = task.validation.digest.as_ref().filter(|pin| whole && *pin != digest) {
        return Err(Failure::Digest { message: pin_message(pin, digest), digest: digest.clone() });
    }
    if let Some(expected) = load.digest.as_ref().filter(|expected| *expected != digest) {
        let message = format!("the volume has the digest {digest} and not {expected}");
        return Err(Failure::Digest { message, digest: digest.clone() });
    }
    Ok(())
}
