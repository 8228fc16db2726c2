//! States that accelerate saved: the model, the optimizer and the random states of every process (accelerate 1.15). Pure, no I/O.

use std::collections::BTreeSet;

use super::{evidence::Evidence, findings::Notes, hugging_face, names, table::Family};
use crate::contract::{Contents, Format, Reason};

const RANDOM: &str = "random_states_";

/// Folders of `Accelerator.save_state`.
pub(super) const FAMILY: Family = Family {
    claims: |evidence| !ranks(evidence).is_empty(),
    places: |evidence| if ranks(evidence).is_empty() { Vec::new() } else { vec![evidence.tree.home().to_owned()] },
    check,
    describe,
    judged: "weights, and the random states of every process",
    ..Family::of(Format::Accelerate)
};

/// Processes whose random states are there.
fn ranks(evidence: &Evidence) -> BTreeSet<u32> {
    let rank = |name: &str| name.strip_prefix(RANDOM)?.strip_suffix(".pkl")?.parse().ok();
    evidence.tree.home_names().filter_map(rank).collect()
}

fn check(evidence: &mut Evidence, notes: &mut Notes) {
    let ranks = ranks(evidence);
    let Some(last) = ranks.last().copied() else { return };
    for rank in (0..last).filter(|rank| !ranks.contains(rank)).take(8) {
        let missing = format!("{}{RANDOM}{rank}.pkl", evidence.tree.home());
        let message =
            format!("{} is missing: the states of process {last} are there; upload it", names::shown(&missing));
        notes.fatal(Reason::Incomplete, Some(&missing), message);
    }
    if !hugging_face::has_weights(evidence) {
        let missing = format!("{}model.safetensors", evidence.tree.home());
        let message = format!("{} is missing, and no other weights are there; upload them", names::shown(&missing));
        notes.fatal(Reason::Incomplete, Some(&missing), message);
    }
}

fn describe(evidence: &Evidence, contents: &mut Contents) {
    if (FAMILY.claims)(evidence) {
        contents.framework = contents.framework.take().or_else(|| Some("accelerate".to_owned()));
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Folder, assert_bad, assert_good, tensors, torch_file};
    use super::*;

    #[test]
    fn every_process_left_its_states() {
        let folder = Folder::new([
            ("model.safetensors", tensors(&[("a", 1)])),
            ("optimizer.bin", torch_file()),
            ("random_states_0.pkl", torch_file()),
            ("random_states_1.pkl", torch_file()),
        ]);
        let verdict = folder.judge();
        assert_good(&verdict);
        assert_eq!(verdict.contents.format, Some(Format::Accelerate));
        assert_eq!(verdict.contents.framework.as_deref(), Some("accelerate"));
        for (lost, words) in [("random_states_0.pkl", "process 1"), ("model.safetensors", "no other weights")] {
            assert_bad(&folder.clone().without(lost).judge(), Reason::Incomplete, lost, words);
        }
    }
}
