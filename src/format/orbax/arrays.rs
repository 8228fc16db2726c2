//! The arrays of a tree: each is described, in a database or in a folder of its own, and has all of its chunks. Pure, no I/O.

use std::collections::BTreeSet;

use super::{
    super::{
        counts::Counts,
        evidence::{Evidence, Ledger, Tree},
        findings::{Notes, UPLOAD_AGAIN},
        names,
        probe::{Probe, Problem, note_problem},
        window::{Parse, Parsed, Stop, Window, WindowProbe},
    },
    MANIFEST, PROCESS, TREE,
    database::DESCRIPTIONS,
    tree::Parameters,
    zarr::{self, Array},
};
use crate::contract::{Contents, Reason};

/// The largest description that is read, in bytes.
const LIMIT: u64 = 1 << 20;
/// The most findings of one kind.
const SHOWN: usize = 8;

struct Description;

/// A reader of the description of an array, when the folder is one of Orbax.
pub(super) fn probe(tree: &Tree, file: usize) -> Option<Box<dyn Probe>> {
    let listed = tree.file(file);
    if !DESCRIPTIONS.contains(&names::base(&listed.path)) {
        return None;
    }
    let around = names::folder(names::folder(&listed.path).trim_end_matches('/'));
    tree.find(&format!("{around}{TREE}"))?;
    Some(WindowProbe::boxed(Description, listed.size, &[]))
}

impl Parse for Description {
    type Output = Array;

    fn remembered(_: &Array) -> u64 {
        1
    }

    fn parse(&self, file: &Window<'_>) -> Parsed<Array> {
        if file.len() > LIMIT {
            return Err(Stop::TooLarge(format!("it has {} bytes, more than {LIMIT}", file.len())));
        }
        zarr::array(file.bytes(0..file.len())?).map_err(Stop::Bad)
    }

    fn finish(self, outcome: Result<Array, Problem>, file: usize, evidence: &mut Evidence, notes: &mut Notes) {
        match outcome {
            Ok(array) => evidence.put(file, array),
            Err(problem) => note_problem(&problem, file, evidence, notes),
        }
    }
}

pub(super) fn check(evidence: &Evidence, notes: &mut Notes) {
    extents(evidence, notes);
    let is_read = unread(evidence, notes);
    for (_, file) in evidence.tree.iter().filter(|(_, file)| names::base(&file.path) == TREE) {
        let folder = names::folder(&file.path);
        if database_is_there(evidence, folder, &file.path, notes) {
            parameters(evidence, folder, &file.path, is_read, notes);
        }
    }
    without_tree(evidence, notes);
    for (file, array) in evidence.all::<Array>() {
        let path = &evidence.tree.file(file).path;
        missing_chunk(evidence, names::folder(path), array, path, notes);
    }
}

/// Whether all of the databases was read; what was not is told.
fn unread(evidence: &Evidence, notes: &mut Notes) -> bool {
    let databases = &evidence.databases;
    for folder in databases.roots.iter().filter(|_| databases.overfull).take(SHOWN) {
        let path = format!("{folder}{MANIFEST}");
        let message = format!(
            "the database of {} was not judged: it and the others have more than {} entries in all",
            names::shown(&path),
            Ledger::LIMIT
        );
        notes.warn(Reason::Corrupt, Some(&path), message);
    }
    let unread = databases.unread(&evidence.tree);
    for (path, why) in unread.iter().take(SHOWN) {
        notes.warn(Reason::Corrupt, Some(path), format!("{} was not read to its end: {why}", names::shown(path)));
    }
    unread.is_empty() && !databases.overfull && !databases.partial && databases.broken.is_empty()
}

/// A database of a saved tree has the tree beside it; before Orbax 0.4 that was a file `checkpoint`.
fn without_tree(evidence: &Evidence, notes: &mut Notes) {
    if !(super::FAMILY.claims)(evidence) {
        return;
    }
    for folder in &evidence.databases.roots {
        let has = |name: &str| evidence.tree.find(&format!("{folder}{name}")).is_some();
        if !has(TREE) && !has("checkpoint") {
            let missing = format!("{folder}{TREE}");
            let message = format!(
                "{} is missing: {} beside it has arrays, and nothing says which tree they make; upload it",
                names::shown(&missing),
                names::shown(&format!("{folder}{MANIFEST}"))
            );
            notes.fatal(Reason::Incomplete, Some(&missing), message);
        }
    }
}

/// Whether a tree has any arrays: a database with files, or folders of Zarr.
fn database_is_there(evidence: &Evidence, folder: &str, path: &str, notes: &mut Notes) -> bool {
    let tree = &evidence.tree;
    let manifest = format!("{folder}{MANIFEST}");
    let below = || tree.below(folder).filter_map(|(_, file)| file.path.strip_prefix(folder));
    let zarr = below().any(|name| DESCRIPTIONS.contains(&names::base(name)));
    let data = || below().any(|name| name.starts_with("d/") || name.contains("/d/"));
    let (shown, path) = (names::shown(&manifest), names::shown(path));
    if tree.find(&manifest).is_none() && !zarr {
        let merged = if below().any(|name| name.starts_with(PROCESS)) {
            ": only those of single processes are there, so the save was not finished; use a checkpoint that was"
                .to_owned()
        } else {
            format!(": {path} describes parameters, and no array is there; upload it")
        };
        notes.fatal(Reason::Incomplete, Some(&manifest), format!("{shown} is missing{merged}"));
        return false;
    }
    // A small tree may lie in the manifest as a whole; one that was read says itself which files it needs.
    if tree.find(&manifest).is_some() && !data() && !zarr && !evidence.databases.roots.contains(folder) {
        let message = format!("{folder}d/ is missing: {shown} has no data beside it; upload it");
        notes.fatal(Reason::Incomplete, Some(&manifest), message);
        return false;
    }
    true
}

/// Files that databases name are there and as long as what lies in them needs; their nodes could be read.
fn extents(evidence: &Evidence, notes: &mut Notes) {
    let databases = &evidence.databases;
    for (path, extent) in &databases.extents {
        let shown = names::shown(path);
        let Some(file) = evidence.tree.find(path) else {
            let items = names::counted(extent.items, "item");
            let message = format!("{shown} is missing: {MANIFEST} places {items} in it; upload it");
            notes.fatal(Reason::Incomplete, Some(path), message);
            continue;
        };
        let size = evidence.tree.file(file).size;
        let message = if extent.end > size {
            let end = extent.end;
            format!("{shown} is truncated: it has {size} bytes, its items end at byte {end}; {UPLOAD_AGAIN}")
        } else if extent.read > size {
            let read = extent.read;
            format!("{shown} is damaged: {MANIFEST} places nodes of {read} bytes in its {size} bytes; {UPLOAD_AGAIN}")
        } else {
            continue;
        };
        notes.fatal(Reason::Corrupt, Some(path), message);
    }
    for (path, problem) in databases.broken.iter().take(SHOWN) {
        let message = format!("{} is damaged: {problem}; {UPLOAD_AGAIN}", names::shown(path));
        notes.fatal(Reason::Corrupt, Some(path), message);
    }
}

/// Every parameter of the tree has its array. Where the names agree in nothing, they are made in a way that is not known here.
fn parameters(evidence: &Evidence, folder: &str, path: &str, all: bool, notes: &mut Notes) {
    let Some(parameters) = evidence.tree.find(path).and_then(|file| evidence.get::<Parameters>(file)) else { return };
    // Whether the databases were read to their end, and every array has its description.
    let (mut arrays, mut is_read) = (BTreeSet::new(), all);
    let stored = evidence.databases.arrays.range((folder.to_owned(), String::new())..);
    for ((_, name), stored) in stored.take_while(|((database, _), _)| database == folder) {
        let Some(array) = &stored.array else {
            is_read = false;
            continue;
        };
        arrays.insert(name.as_str());
        let few = array.chunks().filter(|expected| parameters.every_chunk && stored.chunks < *expected);
        if let Some(expected) = few.filter(|_| all) {
            let message = format!(
                "the array {:?} of {} has {} of its {expected} chunks; upload the folder again",
                names::shown(name),
                names::shown(folder),
                stored.chunks
            );
            notes.fatal(Reason::Incomplete, Some(folder), message);
        }
    }
    for (_, file) in evidence.tree.below(folder).filter(|(_, file)| DESCRIPTIONS.contains(&names::base(&file.path))) {
        let described = names::folder(&file.path).trim_end_matches('/');
        arrays.extend(described.strip_prefix(folder));
    }
    let missing: BTreeSet<&String> = parameters.names.iter().filter(|name| !arrays.contains(name.as_str())).collect();
    // What could not be read has been said already.
    if !is_read || arrays.is_empty() || missing.len() == parameters.names.len() || parameters.ocdbt.is_none() {
        return;
    }
    for name in missing.into_iter().take(SHOWN) {
        let array = format!("{folder}{name}");
        let message = format!(
            "the array {} is missing: {} has it in its tree; upload the folder again",
            names::shown(&array),
            names::shown(path)
        );
        notes.fatal(Reason::Incomplete, Some(&array), message);
    }
}

/// Chunks of an array in a folder of its own; those that hold nothing but zeros may be left out unless the tree says otherwise.
fn missing_chunk(evidence: &Evidence, folder: &str, array: &Array, path: &str, notes: &mut Notes) {
    let around = names::folder(folder.trim_end_matches('/'));
    let tree = evidence.tree.find(&format!("{around}{TREE}")).and_then(|file| evidence.get::<Parameters>(file));
    let Some(expected) = array.chunks() else { return };
    let there = evidence.tree.below(folder).count().saturating_sub(1) as u64;
    if there >= expected || tree.is_none_or(|tree| !tree.every_chunk) {
        return;
    }
    let absent = (0..expected.min(1 << 16)).map(|number| format!("{folder}{}", array.chunk(number)));
    if let Some(chunk) = absent.into_iter().find(|chunk| evidence.tree.find(chunk).is_none()) {
        let message = format!(
            "{} is missing: {} describes {expected} chunks, {there} are there; upload it",
            names::shown(&chunk),
            names::shown(path)
        );
        notes.fatal(Reason::Incomplete, Some(&chunk), message);
    }
}

/// Counts of the arrays; where no array could be read, the tree's parameters are counted alone.
pub(super) fn describe(evidence: &Evidence, contents: &mut Contents) {
    let mut counts = Counts::default();
    let stored = evidence.databases.arrays.values().filter_map(|stored| stored.array.as_ref());
    for array in stored.chain(evidence.all::<Array>().map(|(_, array)| array)) {
        counts.add(array.dtype, array.elements);
    }
    counts.describe(contents);
    let listed: usize = evidence.all::<Parameters>().map(|(_, parameters)| parameters.names.len()).sum();
    if contents.tensors.is_none() && listed > 0 {
        contents.tensors = i64::try_from(listed).ok();
    }
}
