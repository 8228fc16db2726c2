//! Universal checkpoints of DeepSpeed: a folder for each parameter, with its weights and what the optimizer keeps (deepspeed 0.18,
//! `checkpoint/ds_to_universal.py`). Pure, no I/O.

use std::collections::{BTreeMap, BTreeSet};

use super::super::{evidence::Evidence, findings::Notes, names};
use crate::contract::Reason;

/// The weights of a parameter in full precision.
const WEIGHTS: &str = "fp32.pt";
/// What Adam keeps: one is no use without the other.
const MOMENTS: [&str; 2] = ["exp_avg.pt", "exp_avg_sq.pt"];
/// Written when all parameters are there.
const OPTIMIZER: &str = "optimizer_state.pt";
/// The most missing files that are named.
const SHOWN: usize = 8;

/// Parameters (folders) with their files, by the folder around `zero/`.
type Parameters<'a> = BTreeMap<&'a str, BTreeMap<&'a str, BTreeSet<&'a str>>>;

/// Universal checkpoints, by their folder.
pub(super) fn parameters(evidence: &Evidence) -> Parameters<'_> {
    let mut all = Parameters::new();
    for (_, file) in evidence.tree.iter().filter(|(_, file)| names::has_extension(&file.path, "pt")) {
        let path = file.path.as_str();
        let folder = names::folder(path);
        let Some(at) = folder.rfind("/zero/").map(|at| at + 1).or_else(|| folder.starts_with("zero/").then_some(0))
        else {
            continue;
        };
        if folder.len() > at + "zero/".len() {
            all.entry(&path[..at]).or_default().entry(folder).or_default().insert(names::base(path));
        }
    }
    // Other frameworks have folders of that name, too.
    all.retain(|_, parameters| parameters.values().any(|files| files.contains(WEIGHTS)));
    all
}

/// Every parameter has its weights, and both moments or none; what is written last is there.
pub(super) fn check(evidence: &Evidence, notes: &mut Notes) {
    for (folder, parameters) in parameters(evidence) {
        let mut missing = Vec::new();
        let adam = parameters.values().any(|files| files.contains(MOMENTS[1]));
        for (parameter, files) in &parameters {
            if !files.contains(WEIGHTS) {
                missing.push((format!("{parameter}{WEIGHTS}"), "the optimizer's states of the parameter are there"));
            }
            let absent: Vec<&str> = MOMENTS.into_iter().filter(|moment| !files.contains(moment)).collect();
            if let ([moment], true) = (absent.as_slice(), adam) {
                missing.push((format!("{parameter}{moment}"), "the other moment of the parameter is there"));
            }
        }
        let has = |path: &str| evidence.tree.find(path).is_some();
        let optimizer = format!("{folder}zero/{OPTIMIZER}");
        if !has(&optimizer) {
            missing.push((
                optimizer,
                "it is written when all parameters are, so the conversion or the upload did not finish",
            ));
        }
        let models = evidence
            .tree
            .below(folder)
            .any(|(_, file)| names::folder(&file.path) == folder && file.path.ends_with("_model_states.pt"));
        if !models {
            let path = format!("{folder}mp_rank_00_model_states.pt");
            missing.push((path, "the conversion copies the model states at its end"));
        }
        for (path, why) in missing.iter().take(SHOWN) {
            let message = format!("{} is missing: {why}; upload it", names::shown(path));
            notes.fatal(Reason::Incomplete, Some(path), message);
        }
    }
}
