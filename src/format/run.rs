//! Folders of training runs and experiments: they hold checkpoints and are none. What Ray Train, Ray Tune, the Hugging Face
//! Trainer, Orbax and DeepSpeed leave there. Pure, no I/O.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{
    document,
    evidence::{Document, Evidence, fact},
    findings::{Notes, UPLOAD_AGAIN},
    names,
    table::Family,
    text,
};
use crate::contract::{Format, Reason};

/// Ray Train's list of the checkpoints that are committed.
const SNAPSHOT: &str = "checkpoint_manager_snapshot.json";
/// Files that only the folder of a trial or an experiment has (Ray Tune, Ray Train before 2.43).
const TRIAL: [&str; 2] = ["result.json", "progress.csv"];
const EXPERIMENT: [&str; 2] = ["tuner.pkl", "trainer.pkl"];
/// Files that finished checkpoints have; where one of several checkpoints has such a file, those without it were not finished.
const FINISHED: [&str; 4] = ["trainer_state.json", "_CHECKPOINT_METADATA", "commit_success.txt", ".metadata"];
/// The file of DeepSpeed that names the latest of its folders.
const LATEST: &str = "latest";
/// The most checkpoints that a message names.
const SHOWN: usize = 4;

/// A run.
pub(super) const FAMILY: Family = Family {
    claims: |evidence| kind(evidence).is_some(),
    probe: |tree, file| document::probe(tree, file, SNAPSHOT, |evidence| &mut evidence.snapshot),
    check,
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
        .collect();
    let named = |folder: &&str| names::base(folder).starts_with("checkpoint") || is_step(evidence, folder);
    let mut folders: Vec<String> = folders.into_iter().filter(named).map(str::to_owned).collect();
    folders.sort_by_key(|folder| (step(names::base(folder)), folder.clone()));
    folders
}

/// Checkpoints that are told apart by a number alone.
fn steps(evidence: &Evidence) -> Vec<String> {
    let mut steps = checkpoints(evidence);
    steps.retain(|folder| !folder.contains('/') && step(folder).is_some());
    steps
}

/// `checkpoint-500`, `checkpoint_000003`, `global_step500` of DeepSpeed, `500` and `default_500` of Orbax
fn step(name: &str) -> Option<u64> {
    let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten();
    if let Some(rest) = name.strip_prefix("checkpoint") {
        return number(rest.trim_start_matches(['-', '_']));
    }
    number(name.strip_prefix("global_step").unwrap_or(name)).or_else(|| number(name.rsplit_once('_')?.1))
}

/// A folder below the home whose name is a step and that holds a checkpoint of Orbax or DeepSpeed; other numbers mean other things.
fn is_step(evidence: &Evidence, folder: &str) -> bool {
    let home = evidence.tree.home();
    if folder.contains('/') || step(folder).is_none() {
        return false;
    }
    let orbax = ["_CHECKPOINT_METADATA", "commit_success.txt", "_METADATA", "orbax.checkpoint"];
    let has = |name: &str| evidence.tree.find(&format!("{home}{folder}/{name}")).is_some();
    let below = format!("{home}{folder}/");
    let zero = || evidence.tree.below(&below).any(|(_, file)| file.path.ends_with("_states.pt"));
    orbax.iter().any(|name| has(name)) || (folder.starts_with("global_step") && zero())
}

/// The last checkpoint that was finished, as far as its files tell.
fn last_finished(evidence: &Evidence, all: &[String]) -> Option<String> {
    let home = evidence.tree.home();
    let has = |folder: &String, name: &str| evidence.tree.find(&format!("{home}{folder}/{name}")).is_some();
    let mark = FINISHED.iter().find(|name| all.iter().any(|folder| has(folder, name)));
    let finished = |folder: &&String| mark.is_none_or(|name| has(folder, name));
    all.iter().rev().find(finished).or(all.last()).cloned()
}

/// What DeepSpeed says is the latest.
fn latest_tag(evidence: &Evidence, all: &[String]) -> Option<String> {
    let tag = text::at(evidence, &format!("{}{LATEST}", evidence.tree.home()))?;
    all.iter().find(|folder| *folder == tag).cloned()
}

/// The folder that an entry of Ray's list names; none when it is no safe path below the run.
fn listed(entry: &Value) -> Option<&str> {
    let name = entry.get("checkpoint_dir_name")?.as_str()?;
    (!name.is_empty() && !name.starts_with('/') && !name.split('/').any(|part| part == "..")).then_some(name)
}

/// What Ray says is the latest.
fn latest(snapshot: &Document) -> Option<String> {
    listed(snapshot.get("latest_checkpoint_result")?).map(fact)
}

/// Ray's list can be read, and what it names is there: Ray refuses the run otherwise.
fn check(evidence: &mut Evidence, notes: &mut Notes) {
    let home = evidence.tree.home();
    let path = format!("{home}{SNAPSHOT}");
    if let Document::Broken(problem) = &evidence.snapshot {
        let message = format!("{} is damaged: {problem}; {UPLOAD_AGAIN}", names::shown(&path));
        return notes.fatal(Reason::Corrupt, Some(&path), message);
    }
    let entries = evidence.snapshot.get("checkpoint_results").and_then(Value::as_array);
    for name in entries.into_iter().flatten().filter_map(listed) {
        let folder = format!("{home}{name}/");
        if !evidence.tree.has_below(&folder) {
            let message = format!("{} is missing: {} names it; upload it", names::shown(&folder), names::shown(&path));
            notes.fatal(Reason::Incomplete, Some(&folder), message);
        }
    }
}

/// Why the folder is no checkpoint, and which one to take; none when it is no run.
pub(super) fn advice(evidence: &Evidence) -> Option<String> {
    let kind = kind(evidence)?;
    let all = checkpoints(evidence);
    let named = || latest_tag(evidence, &all).or_else(|| last_finished(evidence, &all)).map(|folder| fact(&folder));
    let latest = latest(&evidence.snapshot).or_else(named);
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
        notes.fatal(Reason::FormatNotAllowed, None, advice);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Folder, assert_bad, assert_good, tensors, torch_file};
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
        let unfinished = Folder::new([
            ("checkpoint-9/model.safetensors", model()),
            ("checkpoint-9/trainer_state.json", b"{}".to_vec()),
            ("checkpoint-10/model.safetensors", model()),
        ]);
        let committed = br#"{"init_timestamp_nsecs": 1, "commit_timestamp_nsecs": 2}"#;
        let orbax = Folder::new([
            ("9/_CHECKPOINT_METADATA", committed.to_vec()),
            ("10/_CHECKPOINT_METADATA", committed.to_vec()),
            ("11.orbax-checkpoint-tmp-5/_CHECKPOINT_METADATA", b"{}".to_vec()),
        ]);
        let deepspeed = Folder::new([
            ("global_step5/mp_rank_00_model_states.pt", torch_file()),
            ("global_step10/mp_rank_00_model_states.pt", torch_file()),
            ("latest", b"global_step5".to_vec()),
        ]);
        for (folder, words, latest) in [
            (unfinished, "several checkpoints", "the latest, checkpoint-9 (others: checkpoint-10)"),
            (orbax, "several checkpoints", "the latest, 10 (others: 9)"),
            (deepspeed, "several checkpoints", "the latest, global_step5 (others: global_step10)"),
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
    fn what_ray_lists_is_there() {
        let snapshot = r#"{"checkpoint_results": [{"checkpoint_dir_name": "a"}, {"checkpoint_dir_name": "../x"}],
            "latest_checkpoint_result": {"checkpoint_dir_name": "a"}}"#;
        let folder = Folder::new([
            ("checkpoint_manager_snapshot.json", snapshot.into()),
            ("a/model.safetensors", model()),
            ("b/model.safetensors", model()),
        ]);
        let wanted = Validation { formats: vec![Format::RunDirectory], ..Validation::default() };
        assert_good(&folder.judge_with(&wanted, &[]));
        let missing = folder.clone().without("a/model.safetensors").judge_with(&wanted, &[]);
        assert_bad(&missing, Reason::Incomplete, "a/", "names it");
        let cut = folder.with("checkpoint_manager_snapshot.json", "{").judge_with(&wanted, &[]);
        assert_bad(&cut, Reason::Corrupt, "checkpoint_manager_snapshot.json", "is damaged");
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
