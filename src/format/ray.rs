//! Checkpoints of Ray AIR (Ray 2.0 to 2.6) and of RLlib: pickles under known names (ray 2.2 and 2.60). Pure, no I/O.

use super::{evidence::Evidence, findings::Notes, names, table::Family};
use crate::contract::{Format, Reason};

/// Ray AIR.
pub(super) const AIR: Family = Family {
    claims: |evidence| is_air(evidence),
    places: |evidence| if is_air(evidence) { vec![evidence.tree.home().to_owned()] } else { Vec::new() },
    judged: "its files by name, and the pickles in them",
    ..Family::of(Format::RayAir)
};

/// RLlib, its new and its old stack.
pub(super) const RLLIB: Family = Family {
    claims: |evidence| is_rllib(evidence),
    places: |evidence| if is_rllib(evidence) { vec![evidence.tree.home().to_owned()] } else { Vec::new() },
    check,
    judged: "its files by name, and the pickles in them",
    ..Family::of(Format::Rllib)
};

fn is_air(evidence: &Evidence) -> bool {
    evidence
        .tree
        .home_names()
        .any(|name| matches!(name, "dict_checkpoint.pkl" | ".metadata.pkl") || name.ends_with(".meta.pkl"))
}

fn is_rllib(evidence: &Evidence) -> bool {
    let at_home = |name: &str| evidence.tree.at_home(name).is_some();
    at_home("rllib_checkpoint.json") || at_home("algorithm_state.pkl") || at_home("class_and_ctor_args.pkl")
}

/// The new stack has a state beside the class that it is given to, the old one the algorithm's state.
fn check(evidence: &mut Evidence, notes: &mut Notes) {
    if !is_rllib(evidence) {
        return;
    }
    let at_home = |name: &str| evidence.tree.at_home(name).is_some();
    let state = ["state.pkl", "state.msgpack", "algorithm_state.pkl", "algorithm_state.msgpck", "policy_state.pkl"];
    let below = evidence.tree.iter().any(|(_, file)| state.contains(&names::base(&file.path)));
    if state.iter().any(|name| at_home(name)) || (below && !at_home("class_and_ctor_args.pkl")) {
        return;
    }
    let missing = format!(
        "{}{}",
        evidence.tree.home(),
        if at_home("class_and_ctor_args.pkl") { "state.pkl" } else { "algorithm_state.pkl" }
    );
    let message = format!("{} is missing: the other files of RLlib are there; upload it", names::shown(&missing));
    notes.fatal(Reason::Incomplete, Some(&missing), message);
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Folder, assert_bad, assert_good};
    use super::*;

    #[test]
    fn names_tell() {
        let pickle = || b"\x80\x04N.".to_vec();
        for (names, format) in [
            (&["dict_checkpoint.pkl"][..], Format::RayAir),
            (&[".metadata.pkl", "model"], Format::RayAir),
            (&["class_and_ctor_args.pkl", "state.pkl", "metadata.json"], Format::Rllib),
            (&["rllib_checkpoint.json", "algorithm_state.pkl", "policies/p/policy_state.pkl"], Format::Rllib),
        ] {
            let folder = Folder(names.iter().map(|name| ((*name).to_owned(), pickle())).collect());
            let verdict = folder.judge();
            assert_good(&verdict);
            assert_eq!(verdict.contents.format, Some(format), "{names:?}");
        }
        let folder = Folder::new([("class_and_ctor_args.pkl", pickle()), ("learner/state.pkl", pickle())]);
        assert_bad(&folder.judge(), Reason::Incomplete, "state.pkl", "is missing");
    }
}
