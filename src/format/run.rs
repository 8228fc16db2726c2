//! Folders of training runs and experiments: they hold checkpoints and are none. What Ray Train, Ray Tune, the Hugging Face
//! Trainer and Lightning leave there. Pure, no I/O.

use std::collections::BTreeSet;

use super::{
    document,
    evidence::{Document, Evidence, fact},
    findings::Notes,
    names,
    table::Family,
};
use crate::contract::Format;

/// Ray Train's list of the checkpoints that are committed.
const SNAPSHOT: &str = "checkpoint_manager_snapshot.json";
/// Files that only the folder of a trial or an experiment has (Ray Tune, Ray Train before 2.43).
const TRIAL: [&str; 2] = ["result.json", "progress.csv"];
const EXPERIMENT: [&str; 2] = ["tuner.pkl", "trainer.pkl"];
/// The most checkpoints that a message names.
const SHOWN: usize = 4;

/// A run.
pub(super) const FAMILY: Family = Family {
    claims: |evidence| kind(evidence).is_some(),
    probe: |tree, file| document::probe(tree, file, SNAPSHOT, |evidence| &mut evidence.snapshot),
    judged: "the folder of a run or an experiment: refused (`FormatNotAllowed`) with the name of its latest \
        checkpoint",
    ..Family::of(Format::RunDirectory)
};

/// What kind of run it is.
fn kind(evidence: &Evidence) -> Option<&'static str> {
    let tree = &evidence.tree;
    let at_home = |name: &str| tree.at_home(name).is_some();
    if at_home(SNAPSHOT) {
        return Some("a run of Ray Train");
    }
    if tree.home_names().any(|name| name.starts_with("experiment_state-") || EXPERIMENT.contains(&name)) {
        return Some("an experiment of Ray Tune");
    }
    if at_home("params.json") && TRIAL.iter().any(|name| at_home(name)) {
        return Some("a trial of Ray Tune");
    }
    // Without a file that says so, only folders for several steps and no weights beside them are a run.
    let steps = steps(evidence);
    let weights = tree.home_names().any(names::is_weights);
    (steps.len() > 1 && !weights).then_some("a run with several checkpoints")
}

/// Folders below the home that are named as checkpoints are, in the order of their numbers.
fn checkpoints(evidence: &Evidence) -> Vec<String> {
    let home = evidence.tree.home();
    let folders: BTreeSet<&str> = evidence
        .tree
        .iter()
        .filter_map(|(_, file)| file.path.strip_prefix(home)?.rsplit_once('/').map(|(folder, _)| folder))
        .flat_map(|folder| folder.match_indices('/').map(|(at, _)| &folder[..at]).chain([folder]).take(2))
        .filter(|folder| names::base(folder).starts_with("checkpoint"))
        .collect();
    let mut folders: Vec<String> = folders.into_iter().map(str::to_owned).collect();
    folders.sort_by_key(|folder| (step(names::base(folder)), folder.clone()));
    folders
}

/// Checkpoints that are told apart by a number alone.
fn steps(evidence: &Evidence) -> Vec<String> {
    let mut steps = checkpoints(evidence);
    steps.retain(|folder| !folder.contains('/') && step(folder).is_some());
    steps
}

/// `checkpoint-500`, `checkpoint_000003`
fn step(name: &str) -> Option<u64> {
    name.strip_prefix("checkpoint")?.trim_start_matches(['-', '_']).parse().ok()
}

/// What Ray says is the latest.
fn latest(snapshot: &Document) -> Option<String> {
    let name = snapshot.get("latest_checkpoint_result")?.get("checkpoint_dir_name")?.as_str()?;
    (!name.is_empty() && !name.starts_with('/') && !name.split('/').any(|part| part == "..")).then(|| fact(name))
}

/// Why the folder is no checkpoint, and which one to take; none when it is no run.
pub(super) fn advice(evidence: &Evidence) -> Option<String> {
    let kind = kind(evidence)?;
    let all = checkpoints(evidence);
    let latest = latest(&evidence.snapshot).or_else(|| all.last().map(|folder| fact(folder)));
    let home = names::shown(evidence.tree.home());
    let Some(latest) = latest else {
        return Some(format!("this is the folder of {kind}, not a checkpoint, and no checkpoint is in it yet"));
    };
    let mut others: Vec<String> =
        all.iter().rev().map(|folder| fact(folder)).filter(|folder| *folder != latest).collect();
    let count = others.len();
    others.truncate(SHOWN - 1);
    let others = match others.as_slice() {
        [] => String::new(),
        some => format!(" (others: {}{})", some.join(", "), if count > some.len() { ", ..." } else { "" }),
    };
    Some(format!(
        "this is the folder of {kind}, not a checkpoint: set spec.path to one below it, such as the latest, {home}{latest}{others}"
    ))
}

/// The folder is refused unless it is asked for by name.
pub(super) fn refuse(evidence: &Evidence, allowed: bool, notes: &mut Notes) {
    if let Some(advice) = advice(evidence).filter(|_| !allowed) {
        notes.fatal(crate::contract::Reason::FormatNotAllowed, None, advice);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Folder, assert_bad, assert_good, tensors};
    use crate::contract::{Format, Reason, Validation};

    fn model() -> Vec<u8> {
        tensors(&[("a", 1)])
    }

    #[test]
    fn runs_are_named_and_point_to_their_checkpoints() {
        let ray = Folder::new([
            (
                "checkpoint_manager_snapshot.json",
                br#"{"latest_checkpoint_result": {"checkpoint_dir_name": "checkpoint_2026-01-02", "metrics": {}}}"#
                    .to_vec(),
            ),
            (".validate_storage_marker", vec![]),
            ("checkpoint_2026-01-01/model.safetensors", model()),
            ("checkpoint_2026-01-02/model.safetensors", model()),
        ]);
        let tune = Folder::new([
            ("experiment_state-2026.json", b"{}".to_vec()),
            ("trial_1/result.json", b"{}".to_vec()),
            ("trial_1/checkpoint_000000/model.safetensors", model()),
        ]);
        let trainer = Folder::new([
            ("out/checkpoint-9/model.safetensors", model()),
            ("out/checkpoint-10/model.safetensors", model()),
        ]);
        for (folder, words, latest) in [
            (ray, "a run of Ray Train", "the latest, checkpoint_2026-01-02 (others: checkpoint_2026-01-01)"),
            (tune, "an experiment of Ray Tune", "trial_1/checkpoint_000000"),
            (trainer, "several checkpoints", "the latest, out/checkpoint-10 (others: checkpoint-9)"),
        ] {
            let verdict = folder.judge();
            assert_bad(&verdict, Reason::FormatNotAllowed, latest, words);
            assert_eq!(verdict.contents.format, Some(Format::RunDirectory));
            let wanted = Validation { formats: vec![Format::RunDirectory], ..Validation::default() };
            assert_good(&folder.judge_with(&wanted, &[]));
        }
    }

    #[test]
    fn a_checkpoint_with_folders_is_no_run() {
        for folder in [
            Folder::new([("checkpoint-1/model.safetensors", model())]),
            Folder::new([("model.safetensors", model()), ("checkpoint-1/x", vec![1]), ("checkpoint-2/x", vec![1])]),
            Folder::new([("result.json", b"{}".to_vec()), ("model.safetensors", model())]),
        ] {
            assert_ne!(folder.judge().contents.format, Some(Format::RunDirectory));
        }
    }
}
