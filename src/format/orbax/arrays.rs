//! The arrays of a tree: each is described, in a database or in a folder of its own, and has all of its chunks. Pure, no I/O.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    super::{
        counts::Counts,
        evidence::{Evidence, Tree},
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
    for (_, file) in evidence.tree.iter().filter(|(_, file)| names::base(&file.path) == TREE) {
        let folder = names::folder(&file.path);
        if database_is_there(evidence, folder, &file.path, notes) {
            parameters(evidence, folder, &file.path, notes);
        }
    }
    without_tree(evidence, notes);
    for (file, array) in evidence.all::<Array>() {
        let path = &evidence.tree.file(file).path;
        missing_chunk(evidence, names::folder(path), array, path, notes);
    }
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
    let below = || tree.iter().filter_map(|(_, file)| file.path.strip_prefix(folder));
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
        if extent.end > size {
            let end = extent.end;
            let message =
                format!("{shown} is truncated: it has {size} bytes, its items end at byte {end}; {UPLOAD_AGAIN}");
            notes.fatal(Reason::Corrupt, Some(path), message);
        }
    }
    for (path, problem) in databases.broken.iter().take(SHOWN) {
        let message = format!("{} is damaged: {problem}; {UPLOAD_AGAIN}", names::shown(path));
        notes.fatal(Reason::Corrupt, Some(path), message);
    }
}

/// Every parameter of the tree has its array. Where the names agree in nothing, they are made in a way that is not known here.
fn parameters(evidence: &Evidence, folder: &str, path: &str, notes: &mut Notes) {
    let Some(parameters) = evidence.tree.find(path).and_then(|file| evidence.get::<Parameters>(file)) else { return };
    let mut arrays: BTreeMap<&str, u64> = BTreeMap::new();
    for ((database, name), stored) in &evidence.databases.arrays {
        if database == folder
            && let Some(array) = &stored.array
        {
            arrays.insert(name, stored.chunks);
            if let Some(expected) =
                array.chunks().filter(|expected| parameters.every_chunk && stored.chunks < *expected)
            {
                let message = format!(
                    "the array {:?} of {} has {} of its {expected} chunks; upload the folder again",
                    names::shown(name),
                    names::shown(folder),
                    stored.chunks
                );
                notes.fatal(Reason::Incomplete, Some(folder), message);
            }
        }
    }
    for (_, file) in evidence.tree.iter().filter(|(_, file)| DESCRIPTIONS.contains(&names::base(&file.path))) {
        let described = names::folder(&file.path).trim_end_matches('/');
        arrays.extend(described.strip_prefix(folder).map(|name| (name, 0)));
    }
    // What could not be read has been said already.
    let unread = !evidence.databases.broken.is_empty()
        || evidence.databases.arrays.values().any(|stored| stored.array.is_none());
    let missing: BTreeSet<&String> =
        parameters.names.iter().filter(|name| !arrays.contains_key(name.as_str())).collect();
    if unread || arrays.is_empty() || missing.len() == parameters.names.len() || parameters.ocdbt.is_none() {
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
    let there = evidence.tree.iter().filter(|(_, file)| file.path.starts_with(folder)).count().saturating_sub(1) as u64;
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
