//! Checkpoints of Ray AIR (Ray 2.0 to 2.6), of Ray Train's framework helpers and of RLlib, by the names they give (ray 2.2 and 2.60).
//! Pure, no I/O.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{
    document,
    evidence::{Document, Evidence, Tree, fact},
    findings::{Notes, UPLOAD_AGAIN},
    names,
    probe::Probe,
    table::Family,
};
use crate::contract::{Contents, Format, Reason, manifest::METADATA_FILE};

/// A dict, pickled as a whole.
const DICT: &str = "dict_checkpoint.pkl";
/// What AIR writes beside a model; none of it is the model.
const BESIDE: [&str; 4] = [".metadata.pkl", ".tune_metadata", ".is_checkpoint", "_preprocessor"];
/// The key with which `TensorflowCheckpoint` tells where its model lies.
const MODEL: &str = "_model_filename";
/// RLlib's description of itself, in its old and its new stack.
const OLD: &str = "rllib_checkpoint.json";
const NEW: &str = "metadata.json";
const CLASS: &str = "class_and_ctor_args.pkl";
const SHOWN: usize = 8;

/// Ray AIR.
pub(super) const AIR: Family = Family {
    claims: is_air,
    places: |evidence| if is_air(evidence) { vec![evidence.tree.home().to_owned()] } else { Vec::new() },
    check: check_air,
    judged: "its files by name, and the pickles in them; the model that Ray's metadata names",
    ..Family::of(Format::RayAir)
};

/// RLlib, its new and its old stack.
pub(super) const RLLIB: Family = Family {
    claims: is_rllib,
    places: |evidence| if is_rllib(evidence) { vec![evidence.tree.home().to_owned()] } else { Vec::new() },
    probe: probe_rllib,
    check: check_rllib,
    describe,
    judged: "its files by name, and the pickles in them; a state for every component and policy",
    ..Family::of(Format::Rllib)
};

fn is_beside(name: &str) -> bool {
    BESIDE.contains(&name) || name.ends_with(".meta.pkl")
}

fn is_air(evidence: &Evidence) -> bool {
    evidence.tree.home_names().any(|name| name == DICT || is_beside(name))
}

/// What AIR wrote beside a model is none; and the model that Ray Train's metadata names is there.
fn check_air(evidence: &mut Evidence, notes: &mut Notes) {
    let tree = &evidence.tree;
    let home = tree.home();
    if is_air(evidence)
        && tree.iter().all(|(_, file)| is_beside(names::base(&file.path)) || names::is_ignorable(&file.path))
    {
        let beside = tree.home_names().find(|name| is_beside(name)).unwrap_or_default();
        let missing = format!("{home}{DICT}");
        let message = format!(
            "the checkpoint is missing: {} tells about it, and there is neither {} nor any other file; upload it",
            names::shown(&format!("{home}{beside}")),
            names::shown(&missing)
        );
        notes.fatal(Reason::Incomplete, Some(&missing), message);
    }
    let named = evidence.metadata.as_ref().and_then(|metadata| metadata.get(MODEL)).and_then(Value::as_str);
    let Some(named) = named else { return };
    let path = if named == "." { "saved_model.pb" } else { named.trim_start_matches("./").trim_end_matches('/') };
    let folder = format!("{path}/");
    if tree.find(path).is_none() && !tree.has_below(&folder) {
        let message =
            format!("{} is missing: {METADATA_FILE} names it as the model ({MODEL}); upload it", names::shown(path));
        notes.fatal(Reason::Incomplete, Some(path), message);
    }
}

fn is_rllib(evidence: &Evidence) -> bool {
    let at_home = |name: &str| evidence.tree.at_home(name).is_some();
    at_home(OLD) || at_home("algorithm_state.pkl") || at_home(CLASS) || numbered(&evidence.tree)
}

/// The oldest checkpoints are one file `checkpoint-5` beside what Tune wrote about it.
fn numbered(tree: &Tree) -> bool {
    let step = |name: &str| name.strip_prefix("checkpoint-")?.strip_suffix(".tune_metadata")?.parse::<u64>().ok();
    tree.home_names().any(|name| step(name).is_some_and(|step| tree.at_home(&format!("checkpoint-{step}")).is_some()))
}

fn probe_rllib(tree: &Tree, file: usize) -> Option<Box<dyn Probe>> {
    let name = if tree.at_home(OLD).is_some() { OLD } else { NEW };
    let described = name == OLD || tree.at_home(CLASS).is_some();
    if described { document::probe(tree, file, name, |evidence| &mut evidence.rllib) } else { None }
}

/// The state of a component: `state.pkl`, `module_state.msgpack`, `policy_state.pkl` and their like.
fn is_state(name: &str) -> bool {
    let stem = ["pkl", "msgpack", "msgpck", "pt"].iter().find_map(|end| name.strip_suffix(end)?.strip_suffix('.'));
    stem.is_some_and(|stem| stem.ends_with("state"))
}

/// Folders with files of states.
fn states(evidence: &Evidence) -> BTreeSet<&str> {
    let files = evidence.tree.iter().filter(|(_, file)| is_state(names::base(&file.path)));
    files.map(|(_, file)| names::folder(&file.path)).collect()
}

fn check_rllib(evidence: &mut Evidence, notes: &mut Notes) {
    if !is_rllib(evidence) {
        return;
    }
    let tree = &evidence.tree;
    let home = tree.home();
    if let Document::Broken(problem) = &evidence.rllib {
        let path = format!("{home}{}", if tree.at_home(OLD).is_some() { OLD } else { NEW });
        let message = format!("{} is damaged: {problem}; {UPLOAD_AGAIN}", names::shown(&path));
        notes.fatal(Reason::Corrupt, Some(&path), message);
    }
    let states = states(evidence);
    let mut missing: BTreeSet<String> = BTreeSet::new();
    // In the new stack every component has a state beside the class that it is given to.
    for (_, file) in tree.iter().filter(|(_, file)| names::base(&file.path) == CLASS) {
        let folder = names::folder(&file.path);
        if !states.contains(folder) {
            missing.insert(format!("{folder}state.pkl"));
        }
    }
    for policy in evidence.rllib.get("policy_ids").and_then(Value::as_array).into_iter().flatten() {
        let Some(policy) = policy.as_str() else { continue };
        let folder = format!("{home}policies/{policy}/");
        if !states.contains(folder.as_str()) {
            missing.insert(format!("{folder}policy_state.pkl"));
        }
    }
    if states.is_empty() && missing.is_empty() && !numbered(tree) {
        missing.insert(format!("{home}algorithm_state.pkl"));
    }
    for path in missing.iter().take(SHOWN) {
        let message = format!("{} is missing: the other files of RLlib are there; upload it", names::shown(path));
        notes.fatal(Reason::Incomplete, Some(path), message);
    }
}

fn describe(evidence: &Evidence, contents: &mut Contents) {
    if !is_rllib(evidence) {
        return;
    }
    let version = evidence.rllib.text("ray_version");
    if let Some(version) = &version {
        contents.versions.entry("ray".to_owned()).or_insert_with(|| version.clone());
    }
    let framework = version.map_or("rllib".to_owned(), |version| fact(&format!("rllib {version}")));
    contents.framework = contents.framework.take().or(Some(framework));
    contents.architecture = contents.architecture.take().or_else(|| evidence.rllib.text("type"));
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Folder, assert_bad, assert_good};
    use super::*;

    fn pickle() -> Vec<u8> {
        b"\x80\x04N.".to_vec()
    }

    fn folder(names: &[&str]) -> Folder {
        Folder(names.iter().map(|name| ((*name).to_owned(), pickle())).collect())
    }

    #[test]
    fn names_tell() {
        for (names, format) in [
            (&["dict_checkpoint.pkl"][..], Format::RayAir),
            (&[".metadata.pkl", "model"], Format::RayAir),
            (&["_preprocessor", "model"], Format::RayAir),
            (&["step.meta.pkl", ".is_checkpoint", "weights.bin"], Format::RayAir),
            (&[".tune_metadata", "weights.bin"], Format::RayAir),
            (&["class_and_ctor_args.pkl", "state.pkl"], Format::Rllib),
            (&["algorithm_state.pkl", "policies/p/policy_state.pkl"], Format::Rllib),
            (&["checkpoint-5", "checkpoint-5.tune_metadata"], Format::Rllib),
        ] {
            let verdict = folder(names).judge();
            assert_good(&verdict);
            assert_eq!(verdict.contents.format, Some(format), "{names:?}");
        }
    }

    #[test]
    fn a_description_is_no_checkpoint() {
        for names in [&[".metadata.pkl"][..], &["_preprocessor", ".is_checkpoint"], &["a.meta.pkl", ".tune_metadata"]] {
            assert_bad(&folder(names).judge(), Reason::Incomplete, "dict_checkpoint.pkl", "the checkpoint is missing");
        }
    }

    #[test]
    fn the_model_that_the_metadata_names_is_there() {
        for (named, path) in [("model.h5", "model.h5"), (".", "saved_model.pb"), ("saved", "saved/saved_model.pb")] {
            let metadata = format!("{{\"{MODEL}\": \"{named}\"}}");
            let named = Folder::new([(METADATA_FILE, metadata.into_bytes()), ("other.txt", vec![1])]);
            let missing = if path.starts_with("saved/") { "saved" } else { path };
            assert_bad(&named.judge(), Reason::Incomplete, missing, "names it as the model");
            let verdict = named.with(path, vec![]).judge();
            assert!(!verdict.message.contains("names it as the model"), "{}", verdict.message);
        }
    }

    #[test]
    fn every_component_has_its_state() {
        let folder = folder(&[
            "class_and_ctor_args.pkl",
            "state.pkl",
            "learner_group/class_and_ctor_args.pkl",
            "learner_group/state.pkl",
            "learner_group/learner/rl_module/p/class_and_ctor_args.pkl",
            "learner_group/learner/rl_module/p/module_state.pkl",
        ])
        .with("metadata.json", r#"{"state_file": "state", "ray_version": "2.60.0"}"#);
        let verdict = folder.judge();
        assert_good(&verdict);
        assert_eq!(verdict.contents.framework.as_deref(), Some("rllib 2.60.0"));
        assert_eq!(verdict.contents.versions, [("ray".to_owned(), "2.60.0".to_owned())].into());
        for lost in ["state.pkl", "learner_group/state.pkl"] {
            assert_bad(&folder.clone().without(lost).judge(), Reason::Incomplete, lost, "is missing");
        }
        let lost = "learner_group/learner/rl_module/p/module_state.pkl";
        let verdict = folder.clone().without(lost).judge();
        assert_bad(&verdict, Reason::Incomplete, "rl_module/p/state.pkl", "is missing");
        assert_bad(&folder.with("metadata.json", "{").judge(), Reason::Corrupt, "metadata.json", "is damaged");
    }

    #[test]
    fn every_policy_has_its_state() {
        let folder = folder(&["algorithm_state.pkl", "policies/a/policy_state.pkl", "policies/b/policy_state.pkl"])
            .with(OLD, r#"{"type": "Algorithm", "policy_ids": ["a", "b"], "ray_version": "2.9.0"}"#);
        let verdict = folder.judge();
        assert_good(&verdict);
        assert_eq!(verdict.contents.architecture.as_deref(), Some("Algorithm"));
        let lost = "policies/b/policy_state.pkl";
        assert_bad(&folder.without(lost).judge(), Reason::Incomplete, lost, "is missing");
        let alone = Folder::new([(OLD, b"{}".to_vec())]);
        assert_bad(&alone.judge(), Reason::Incomplete, "algorithm_state.pkl", "is missing");
    }
}
