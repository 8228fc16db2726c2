//! Classic checkpoints of Megatron-LM: a folder for each model-parallel rank, and a tracker that names the iteration (Megatron-LM
//! core 0.15, `training/checkpointing.py`). Pure, no I/O.

mod grid;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use super::{
    evidence::Evidence,
    findings::Notes,
    names,
    table::Family,
    text::{self, Text},
};
use crate::contract::{Contents, Format, Reason};

use grid::Iteration;

const TRACKER: &str = "latest_checkpointed_iteration.txt";
/// The most missing files that are named.
const SHOWN: usize = 8;

/// Classic checkpoints.
pub(super) const FAMILY: Family = Family {
    claims: |evidence| !iterations(evidence).is_empty(),
    places: |evidence| iterations(evidence).into_keys().map(str::to_owned).collect(),
    probe: |tree, file| text::probe(tree, file, TRACKER),
    check,
    describe,
    judged: "the grid of ranks is complete, the tracker names a folder that is there",
    ..Family::of(Format::Megatron)
};

/// The folders of iterations.
fn iterations(evidence: &Evidence) -> BTreeMap<&str, Iteration> {
    let mut iterations: BTreeMap<&str, Iteration> = BTreeMap::new();
    for (index, file) in evidence.tree.iter() {
        let folder = names::folder(&file.path).trim_end_matches('/');
        if let Some(rank) = grid::rank(names::base(folder)) {
            iterations.entry(names::folder(folder)).or_default().take(rank, index, names::base(&file.path));
        }
    }
    // Other frameworks name folders of ranks in the same way, and keep other files in them.
    iterations.retain(|_, iteration| iteration.is_own());
    iterations
}

fn check(evidence: &mut Evidence, notes: &mut Notes) {
    for (folder, iteration) in iterations(evidence) {
        let missing = iteration.missing(evidence);
        for name in missing.iter().take(SHOWN) {
            let path = format!("{folder}{name}");
            let message = format!("{} is missing: the files of other ranks are there; upload it", names::shown(&path));
            notes.fatal(Reason::Incomplete, Some(&path), message);
        }
    }
    for (path, tracker) in trackers(evidence) {
        check_tracker(evidence, path, tracker, notes);
    }
}

/// Trackers with their text.
fn trackers(evidence: &Evidence) -> impl Iterator<Item = (&str, &str)> {
    let texts = evidence.all::<Text>().map(|(file, text)| (evidence.tree.file(file).path.as_str(), text.0.trim()));
    texts.filter(|(path, _)| names::base(path) == TRACKER)
}

fn check_tracker(evidence: &Evidence, path: &str, tracker: &str, notes: &mut Notes) {
    let around = names::folder(path);
    let named = match tracker.parse::<u64>() {
        Ok(iteration) => format!("{around}iter_{iteration:07}/"),
        Err(_) if tracker == "release" => format!("{around}release/"),
        Err(_) => {
            let message = format!("{} names no iteration: it is neither a number nor `release`", names::shown(path));
            return notes.fatal(Reason::Corrupt, Some(path), message);
        }
    };
    if !evidence.tree.has_below(&named) {
        let message = format!(
            "{} names {}, which is not there: upload that folder, or an earlier save whole",
            names::shown(path),
            names::shown(&named)
        );
        notes.fatal(Reason::Incomplete, Some(&named), message);
    }
}

fn describe(evidence: &Evidence, contents: &mut Contents) {
    let iterations = iterations(evidence);
    let tracked = trackers(evidence).next();
    if iterations.is_empty() && tracked.is_none() {
        return;
    }
    let tracked = tracked.and_then(|(_, text)| text.parse().ok());
    let step = |folder: &str| {
        names::base(folder.trim_end_matches('/')).strip_prefix("iter_").and_then(|step| step.parse().ok())
    };
    contents.step = contents.step.or(tracked).or_else(|| iterations.keys().filter_map(|folder| step(folder)).max());
    contents.framework =
        contents.framework.take().filter(|framework| framework != "pytorch").or_else(|| Some("megatron-lm".to_owned()));
}
