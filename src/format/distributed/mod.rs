//! Checkpoints of torch.distributed (DCP): `.metadata` tells which tensors lie in which slices of the `.distcp` files; it is
//! written last (torch 2.15, `torch/distributed/checkpoint`). FSDP, Megatron's `torch_dist` and NeMo 2 use it. Pure, no I/O.

mod metadata;
mod parts;
mod slices;
#[cfg(test)]
mod tests;
mod zarr;

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use super::{
    accelerate,
    counts::Counts,
    evidence::{Evidence, Ledger, PickleFact, Tree},
    findings::{Notes, UPLOAD_AGAIN},
    names,
    probe::Probe,
    table::{Family, FileProbe},
    trainer,
    window::WindowProbe,
};
use crate::contract::{Contents, Format, PickleTier, Reason};

use metadata::{Metadata, MetadataFile, Slice};
use slices::Slices;

const METADATA: &str = ".metadata";
/// Megatron's mark of a complete checkpoint beside it.
const MEGATRON: &str = "metadata.json";
/// What all ranks share, in a file of its own.
const COMMON: &str = "common.pt";
/// How many leftovers are named.
const SHOWN: usize = 8;

/// Checkpoints of torch.distributed.
pub(super) const FAMILY: Family = Family {
    claims: |evidence| is_whole(evidence) || parts::claims(evidence),
    places: |evidence| [places(evidence), parts::places(evidence)].concat(),
    probe,
    follow,
    check,
    describe,
    judged: "`.metadata`, which is written last: every chunk placed, volumes add up, files end where their items do; every item's pickle. The safetensors variant before and after it is put together",
    ..Family::of(Format::TorchDistributed)
};

/// The same with Megatron's mark beside it.
pub(super) const MEGATRON_FAMILY: Family = Family {
    claims: |evidence| !megatron(evidence).is_empty(),
    places: megatron,
    probe: zarr::probe,
    check: |evidence, notes| zarr::check(evidence, notes),
    describe,
    judged: "as `TorchDistributed`, with Megatron's mark beside it",
    ..Family::of(Format::MegatronDistributed)
};

/// Whether the checkpoint is one, and not the folder of a training that keeps its weights in one (FSDP).
fn is_whole(evidence: &Evidence) -> bool {
    let training = [trainer::FAMILY, accelerate::FAMILY];
    let places = places(evidence);
    let at_home = places.iter().any(|folder| folder == evidence.tree.home());
    at_home || (!places.is_empty() && !training.iter().any(|family| (family.claims)(evidence)))
}

/// Folders with `.distcp` files.
fn places(evidence: &Evidence) -> Vec<String> {
    folders(evidence).into_keys().map(str::to_owned).collect()
}

/// What lies in a folder with `.distcp` files.
#[derive(Default)]
struct Folder<'a> {
    /// Its `.distcp` files.
    data: Vec<(usize, &'a str)>,
    /// Whether it has metadata, of all ranks or of one.
    metadata: bool,
}

/// All folders with `.distcp` files, in one pass over all files.
fn folders(evidence: &Evidence) -> BTreeMap<&str, Folder<'_>> {
    let mut folders: BTreeMap<&str, Folder<'_>> = BTreeMap::new();
    for (file, listed) in evidence.tree.iter() {
        let path = listed.path.as_str();
        if is_data(path) {
            folders.entry(names::folder(path)).or_default().data.push((file, path));
        } else if is_metadata(names::base(path)) {
            folders.entry(names::folder(path)).or_default().metadata = true;
        }
    }
    folders.retain(|_, folder| !folder.data.is_empty());
    folders
}

fn megatron(evidence: &Evidence) -> Vec<String> {
    let mut folders = places(evidence);
    folders.retain(|folder| evidence.tree.find(&format!("{folder}{MEGATRON}")).is_some());
    folders.extend(zarr::folders(evidence));
    folders.sort();
    folders.dedup();
    folders
}

fn is_data(path: &str) -> bool {
    names::has_extension(path, "distcp")
}

/// `.metadata`, or `__3.metadata` of one rank.
fn is_metadata(name: &str) -> bool {
    let rank = name.strip_prefix("__").and_then(|rest| rest.strip_suffix(METADATA));
    name == METADATA || rank.is_some_and(|rank| !rank.is_empty() && rank.bytes().all(|byte| byte.is_ascii_digit()))
}

fn probe(tree: &Tree, file: usize) -> Option<Box<dyn Probe>> {
    let listed = tree.file(file);
    if is_data(&listed.path) {
        // Where its items begin only the metadata knows.
        return Some(Box::new(Later));
    }
    is_metadata(names::base(&listed.path)).then(|| WindowProbe::boxed(MetadataFile, listed.size, &[]))
}

/// A file that is read when the metadata is known.
struct Later;

impl Probe for Later {
    fn next(&self) -> Option<Range<u64>> {
        None
    }

    fn take(&mut self, _: &[u8], _: &mut Ledger) {}

    fn finish(self: Box<Self>, _: usize, _: &mut Evidence, _: &mut Notes) {}
}

type Placed<'a> = BTreeMap<String, Vec<&'a Slice>>;

/// The slices of each file, in their order.
fn placed(evidence: &Evidence) -> Placed<'_> {
    let mut placed = Placed::new();
    for (file, metadata) in evidence.all::<Metadata>() {
        let folder = names::folder(&evidence.tree.file(file).path);
        for slice in &metadata.slices {
            placed.entry(format!("{folder}{}", slice.path)).or_default().push(slice);
        }
    }
    for slices in placed.values_mut() {
        slices.sort_by_key(|slice| (slice.offset, slice.length));
    }
    placed
}

/// Every item is an archive with a pickle of its own.
fn follow(evidence: &Evidence) -> Vec<FileProbe> {
    let mut probes: Vec<FileProbe> = parts::follow(evidence);
    for (path, slices) in placed(evidence) {
        if let Some(file) = evidence.tree.find(&path) {
            let within = spans(&slices, evidence.tree.file(file).size);
            probes.push((file, Box::new(Slices::new(within))));
        }
    }
    probes
}

/// The items of a file in their order, and what lies between them: no loader of torch's reads that, but others read the file as
/// what it begins with. Items that lie over each other are refused below, so they need not be read, however many they are.
fn spans(slices: &[&Slice], size: u64) -> Vec<Range<u64>> {
    let mut end = 0;
    let mut spans = Vec::new();
    for slice in slices {
        let range = slice.offset..slice.offset.saturating_add(slice.length);
        if range.is_empty() || range.start < end || range.end > size {
            continue;
        }
        if range.start > end {
            spans.push(end..range.start);
        }
        end = range.end;
        spans.push(range);
    }
    spans
}

fn check(evidence: &mut Evidence, notes: &mut Notes) {
    parts::check(evidence, notes);
    let placed = placed(evidence);
    for (path, slices) in &placed {
        check_file(evidence, path, slices, notes);
    }
    let mut unread = Vec::new();
    let read: BTreeSet<&str> =
        evidence.all::<Metadata>().map(|(file, _)| names::folder(&evidence.tree.file(file).path)).collect();
    for (folder, Folder { data, metadata }) in folders(evidence) {
        megatron_mark(evidence, folder, notes);
        let has = |name: &str| evidence.tree.find(&format!("{folder}{name}")).is_some();
        if metadata {
            let left = data.into_iter().filter(|(_, path)| !placed.contains_key(*path));
            // Ranks without items leave empty files.
            let left: Vec<(usize, &str)> = left.filter(|(file, _)| evidence.tree.file(*file).size > 0).collect();
            unread.extend(
                left.iter()
                    .map(|(file, _)| (*file, "a part of a distributed checkpoint that its metadata does not name")),
            );
            let left = left.into_iter().map(|(_, path)| path).collect();
            let left = if has(METADATA) { left } else { ranks_without(evidence, folder, left, notes) };
            // Files of another save are harmless, unless the metadata itself could not be read.
            if read.contains(folder) {
                leftovers(folder, &left, notes);
            }
            continue;
        }
        unread.extend(
            data.into_iter().map(|(file, _)| (file, "a part of a distributed checkpoint without its metadata")),
        );
        let missing = format!("{folder}{METADATA}");
        let cause = if has(".metadata.tmp") { ": only its unfinished form .metadata.tmp is there" } else { "" };
        let message = format!(
            "{} is missing{cause}; it is written last, so the save or the upload did not finish: upload it again or use an earlier checkpoint",
            names::shown(&missing)
        );
        notes.fatal(Reason::Incomplete, Some(&missing), message);
    }
    for (file, kind) in unread {
        evidence.note_pickle(file, PickleFact::unchecked(kind));
    }
}

/// Ranks that saved each for itself (without a coordinator) have a metadata file each, written after their data. Gives back what
/// is left over of ranks that have one.
fn ranks_without<'a>(evidence: &Evidence, folder: &str, left: Vec<&'a str>, notes: &mut Notes) -> Vec<&'a str> {
    let rank = |path: &str| names::base(path).strip_prefix("__")?.split_once('_')?.0.parse::<u32>().ok();
    let missing = |path: &&str| {
        rank(path).map(|rank| format!("{folder}__{rank}{METADATA}")).filter(|path| evidence.tree.find(path).is_none())
    };
    let absent: BTreeSet<String> = left.iter().filter_map(missing).collect();
    for path in absent.iter().take(SHOWN) {
        let message = format!(
            "{} is missing; a rank writes it last, so its save or the upload did not finish: upload it again or use an earlier checkpoint",
            names::shown(path)
        );
        notes.fatal(Reason::Incomplete, Some(path), message);
    }
    left.into_iter().filter(|path| missing(path).is_none()).collect()
}

/// Megatron writes its mark last, behind what the ranks share.
fn megatron_mark(evidence: &Evidence, folder: &str, notes: &mut Notes) {
    let has = |name: &str| evidence.tree.find(&format!("{folder}{name}")).is_some();
    if has(COMMON) && !has(MEGATRON) {
        let missing = format!("{folder}{MEGATRON}");
        let message = format!(
            "{} is missing: it is Megatron's mark and written last, so the save or the upload did not finish: upload it again or use an \
             earlier checkpoint",
            names::shown(&missing)
        );
        notes.fatal(Reason::Incomplete, Some(&missing), message);
    }
}

fn leftovers(folder: &str, left: &[&str], notes: &mut Notes) {
    for path in left.iter().take(SHOWN) {
        let message = format!(
            "{} is left over from another save: {folder}{METADATA} does not name it; delete it",
            names::shown(path)
        );
        notes.warn(Reason::Incomplete, Some(path), message);
    }
}

fn check_file(evidence: &Evidence, path: &str, slices: &[&Slice], notes: &mut Notes) {
    let shown = names::shown(path);
    let Some(file) = evidence.tree.find(path) else {
        let count = names::counted(slices.len() as u64, "item");
        notes.fatal(
            Reason::Incomplete,
            Some(path),
            format!("{shown} is missing: the metadata places {count} in it; upload it"),
        );
        return;
    };
    let size = evidence.tree.file(file).size;
    let mut end = 0;
    for slice in slices {
        if slice.offset < end {
            let item = names::shown(&slice.item);
            let message =
                format!("{shown} does not fit its metadata: {item:?} overlaps the item before it; {UPLOAD_AGAIN}");
            return notes.fatal(Reason::Corrupt, Some(path), message);
        }
        end = slice.offset.saturating_add(slice.length);
    }
    if end > size {
        let message = format!("{shown} is truncated: it has {size} bytes, its items end at byte {end}; {UPLOAD_AGAIN}");
        notes.fatal(Reason::Corrupt, Some(path), message);
    } else if end < size {
        let message =
            format!("{shown} has {size} bytes, its items end at byte {end}: it is of another save; {UPLOAD_AGAIN}");
        notes.fatal(Reason::Corrupt, Some(path), message);
    }
}

fn describe(evidence: &Evidence, contents: &mut Contents) {
    // One rank's metadata tells only of its own; optimizers beside a model are folders of their own.
    let mut counts = Counts::default();
    for (file, metadata) in evidence.all::<Metadata>() {
        if !names::folder(&evidence.tree.file(file).path).contains("optim") {
            counts.merge(&metadata.counts);
        }
    }
    let parts = parts::counts(evidence);
    let own = evidence.all::<Metadata>().next().is_some() || parts.tensors > 0;
    counts.merge(&parts);
    zarr::count(evidence, &mut counts);
    counts.describe(contents);
    if own {
        contents.framework = contents.framework.take().or_else(|| Some("pytorch".to_owned()));
    }
}

/// What is said of metadata that cannot be read.
fn unreadable(file: usize, problem: &str, evidence: &mut Evidence, notes: &mut Notes) {
    let path = &evidence.tree.file(file).path;
    let message = format!("{} is damaged: {problem}; {UPLOAD_AGAIN}", names::shown(path));
    notes.fatal(Reason::Corrupt, Some(path), message);
    let what = format!("is a pickle that cannot be used ({problem})");
    evidence.note_pickle(file, PickleFact { tier: PickleTier::Code, what, broken: None });
}
