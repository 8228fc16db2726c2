//! Orbax checkpoints of JAX: commit marks, unfinished saves, items, the tree of the parameters and the arrays that belong to it, in
//! OCDBT databases or Zarr folders (orbax-checkpoint 0.12). Pure, no I/O.

mod arrays;
mod database;
mod node;
#[cfg(test)]
mod tests;
mod tree;
mod zarr;

pub(super) use database::Databases;

use serde_json::Value;

use super::{
    document,
    evidence::{Document, Evidence, Tree, fact},
    findings::{Notes, UPLOAD_AGAIN},
    names,
    probe::Probe,
    table::Family,
    text,
    window::WindowProbe,
};
use crate::contract::{Contents, Format, Reason};

/// The state of the save: when it began, when it was committed, which items it has.
const STATE: &str = "_CHECKPOINT_METADATA";
/// The tree of the parameters.
const TREE: &str = "_METADATA";
/// How the arrays lay on devices; written beside the tree.
const SHARDING: &str = "_sharding";
const MANIFEST: &str = "manifest.ocdbt";
const COMMITTED: &str = "commit_success.txt";
/// The mark of Orbax's new interface.
const INDICATOR: &str = "orbax.checkpoint";
/// Beginning of the folders that single processes write before they are merged.
const PROCESS: &str = "ocdbt.process_";
/// Part of the names of folders that are being written.
const UNFINISHED: &str = ".orbax-checkpoint-tmp";
/// The item with the metrics that a `CheckpointManager` was given.
const METRICS: &str = "metrics/metrics";
/// The most metrics that are reported.
const MAX_METRICS: usize = 64;

/// Orbax checkpoints.
pub(super) const FAMILY: Family = Family {
    claims: |evidence| {
        [STATE, TREE, INDICATOR].iter().any(|name| evidence.tree.at_home(name).is_some())
            || unfinished(evidence).is_some()
            || (evidence.tree.at_home(COMMITTED).is_some() && !trees(&evidence.tree).is_empty())
    },
    places: |evidence| trees(&evidence.tree),
    probe,
    sniff: |_, size, start| {
        start.starts_with(&node::MANIFEST).then(|| WindowProbe::boxed(database::ManifestFile, size, start))
    },
    deepen: database::deepen,
    check,
    describe,
    judged: "commit marks, unfinished folders, items; OCDBT databases from the manifest to every array: files there and long enough, checksums of all nodes, all chunks, an array for every parameter; Zarr folders too",
    ..Family::of(Format::Orbax)
};

fn probe(tree: &Tree, file: usize) -> Option<Box<dyn Probe>> {
    let listed = tree.file(file);
    let name = names::base(&listed.path);
    if name == MANIFEST {
        return Some(WindowProbe::boxed(database::ManifestFile, listed.size, &[]));
    }
    if listed.path.strip_prefix(tree.home()) == Some(METRICS) {
        return text::probe(tree, file, "metrics");
    }
    document::probe(tree, file, STATE, |evidence| &mut evidence.orbax)
        .or_else(|| tree::probe(tree, file))
        .or_else(|| arrays::probe(tree, file))
}

/// Folders with trees of parameters.
fn trees(tree: &Tree) -> Vec<String> {
    let files = tree.iter().filter(|(_, file)| names::base(&file.path) == TREE);
    files.map(|(_, file)| names::folder(&file.path).to_owned()).collect()
}

/// A file in a folder that was being written.
fn unfinished(evidence: &Evidence) -> Option<&str> {
    let mut paths = evidence.tree.iter().map(|(_, file)| file.path.as_str());
    paths.find(|path| path.split('/').any(|part| part.contains(UNFINISHED)))
}

/// Whether other steps beside the unfinished one were finished: then a loader passes it over.
fn has_finished(evidence: &Evidence) -> bool {
    let marks = evidence.tree.iter().filter(|(_, file)| [STATE, COMMITTED].contains(&names::base(&file.path)));
    marks.into_iter().any(|(_, file)| !file.path.contains(UNFINISHED))
}

fn check(evidence: &mut Evidence, notes: &mut Notes) {
    if let Some(path) = unfinished(evidence) {
        let message = format!(
            "{} lies in a folder that Orbax was still writing: use a checkpoint that was finished",
            names::shown(path)
        );
        if has_finished(evidence) {
            notes.warn(Reason::Incomplete, Some(path), message);
        } else {
            notes.fatal(Reason::Incomplete, Some(path), message);
        }
    }
    committed(evidence, notes);
    missing_marks(evidence, notes);
    items(evidence, notes);
    arrays::check(evidence, notes);
}

/// Files that Orbax does not load without: the state beside the indicator of its newer layout, and the tree beside Zarr folders.
fn missing_marks(evidence: &Evidence, notes: &mut Notes) {
    let tree = &evidence.tree;
    if tree.at_home(INDICATOR).is_some() && tree.at_home(STATE).is_none() {
        let missing = format!("{}{STATE}", tree.home());
        let message =
            format!("{} is missing: Orbax finds the items of a save by it; upload it", names::shown(&missing));
        notes.fatal(Reason::Incomplete, Some(&missing), message);
    }
    if tree.at_home(SHARDING).is_some() && tree.at_home(TREE).is_none() {
        let missing = format!("{}{TREE}", tree.home());
        let message =
            format!("{} is missing: Orbax finds the arrays of a save by it; upload it", names::shown(&missing));
        notes.fatal(Reason::Incomplete, Some(&missing), message);
    }
}

/// A save that began was committed: by the time in its state, or by the file that says so.
fn committed(evidence: &Evidence, notes: &mut Notes) {
    let tree = &evidence.tree;
    let Some(file) = tree.at_home(STATE) else { return };
    let path = &tree.file(file).path;
    if let Document::Broken(problem) = &evidence.orbax {
        let message = format!("{} is damaged: {problem}; {UPLOAD_AGAIN}", names::shown(path));
        return notes.fatal(Reason::Corrupt, Some(path), message);
    }
    let set = |key: &str| evidence.orbax.get(key).is_some_and(|value| !value.is_null());
    if set("init_timestamp_nsecs") && !set("commit_timestamp_nsecs") && tree.at_home(COMMITTED).is_none() {
        let message = format!(
            "{} says that the save began and not that it was committed: use a checkpoint that was finished",
            names::shown(path)
        );
        notes.fatal(Reason::Incomplete, Some(path), message);
    }
}

/// Every item that the state names has its folder.
fn items(evidence: &Evidence, notes: &mut Notes) {
    let home = evidence.tree.home();
    let named = evidence.orbax.get("item_handlers").and_then(Value::as_object);
    for (item, _) in named.into_iter().flatten() {
        let folder = format!("{home}{item}/");
        if !evidence.tree.has_below(&folder) {
            let message = format!(
                "{} is missing: {} names it as an item; upload it",
                names::shown(&folder),
                names::shown(&format!("{home}{STATE}"))
            );
            notes.fatal(Reason::Incomplete, Some(&folder), message);
        }
    }
}

/// `500`, `default_500`: the step in the name of the folder around everything, as a `CheckpointManager` gives it; it has items.
fn step(evidence: &Evidence) -> Option<i64> {
    let folder = names::base(evidence.tree.home().trim_end_matches('/'));
    let managed = evidence.orbax.get("item_handlers").is_some_and(Value::is_object);
    let number = if managed { folder.rsplit('_').next()? } else { folder };
    number.parse().ok()
}

fn describe(evidence: &Evidence, contents: &mut Contents) {
    if !(FAMILY.claims)(evidence) {
        return;
    }
    arrays::describe(evidence, contents);
    contents.framework = contents.framework.take().or_else(|| Some("orbax".to_owned()));
    let custom = evidence.orbax.get("custom_metadata");
    let member = |name: &str| custom.and_then(|custom| custom.get(name));
    contents.step = contents.step.or_else(|| member("step").and_then(Value::as_i64)).or_else(|| step(evidence));
    let epoch = member("epoch").filter(|epoch| epoch.is_number()).map(|epoch| fact(&epoch.to_string()));
    contents.epoch = contents.epoch.take().or(epoch);
    if contents.metrics.is_empty() {
        let recorded = text::at(evidence, &format!("{}{METRICS}", evidence.tree.home()));
        let recorded: Option<Value> = recorded.and_then(|text| serde_json::from_str(text).ok());
        let sources = [recorded.as_ref(), evidence.orbax.get("metrics")];
        let pairs = sources.into_iter().flatten().filter_map(Value::as_object).flatten();
        let numbers = pairs.filter(|(_, value)| value.is_number()).take(MAX_METRICS);
        contents.metrics = numbers.map(|(name, value)| (fact(name), fact(&value.to_string()))).collect();
    }
}
