//! Classic checkpoints of Megatron-LM: a folder for each model-parallel rank, and a tracker that names the iteration (Megatron-LM,
//! `training/checkpointing.py`). Pure, no I/O.

use std::collections::{BTreeMap, BTreeSet};

use super::{evidence::Evidence, findings::Notes, names, table::Family, text};
use crate::contract::{Contents, Format, Reason};

const TRACKER: &str = "latest_checkpointed_iteration.txt";
/// Files of which each rank's folder has one.
const STATES: [&str; 2] = ["model_optim_rng.pt", "model_rng.pt"];
/// The most missing folders that are named.
const SHOWN: usize = 8;
/// The most ranks that are believed.
const RANKS: u64 = 1 << 20;

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

/// Tensor, pipeline and expert parallel rank; those that the name does not have are missing.
type Rank = Vec<u64>;

/// `mp_rank_03`, `mp_rank_03_001`, `mp_rank_03_001_002`
fn rank(name: &str) -> Option<Rank> {
    let parts: Option<Rank> = name.strip_prefix("mp_rank_")?.split('_').map(|part| part.parse().ok()).collect();
    parts.filter(|parts| (1..=3).contains(&parts.len()))
}

/// The folders of iterations, each with its ranks; a rank counts when its file of states is there.
fn iterations(evidence: &Evidence) -> BTreeMap<&str, BTreeMap<Rank, bool>> {
    let mut iterations: BTreeMap<&str, BTreeMap<Rank, bool>> = BTreeMap::new();
    for (_, file) in evidence.tree.iter() {
        let folder = names::folder(&file.path).trim_end_matches('/');
        if let Some(rank) = rank(names::base(folder)) {
            let complete = iterations.entry(names::folder(folder)).or_default().entry(rank).or_default();
            *complete |= STATES.contains(&names::base(&file.path));
        }
    }
    iterations
}

fn check(evidence: &mut Evidence, notes: &mut Notes) {
    let iterations = iterations(evidence);
    for (folder, ranks) in &iterations {
        let mut missing: BTreeSet<String> = ranks
            .iter()
            .filter(|(_, complete)| !**complete)
            .map(|(rank, _)| format!("{folder}{}/{}", name(rank), STATES[0]))
            .collect();
        missing.extend(absent(ranks).iter().map(|rank| format!("{folder}{}/{}", name(rank), STATES[0])));
        for path in missing.iter().take(SHOWN) {
            let message = format!("{} is missing: the files of other ranks are there; upload it", names::shown(path));
            notes.fatal(Reason::Incomplete, Some(path), message);
        }
    }
    let home = evidence.tree.home();
    let path = format!("{home}{TRACKER}");
    let Some(tracker) = text::at(evidence, &path) else { return };
    let named = match tracker.parse::<u64>() {
        Ok(iteration) => format!("{home}iter_{iteration:07}/"),
        Err(_) if tracker == "release" => format!("{home}release/"),
        Err(_) => {
            let message = format!("{} names no iteration: it is neither a number nor `release`", names::shown(&path));
            return notes.fatal(Reason::Corrupt, Some(&path), message);
        }
    };
    if !evidence.tree.iter().any(|(_, file)| file.path.starts_with(&named)) {
        let message = format!(
            "{} names {}, which is not there: upload that folder, or an earlier save whole",
            names::shown(&path),
            names::shown(&named)
        );
        notes.fatal(Reason::Incomplete, Some(&named), message);
    }
}

fn name(rank: &[u64]) -> String {
    let part = |(position, number): (usize, &u64)| {
        let digits = if position == 0 { 2 } else { 3 };
        format!("{number:0digits$}")
    };
    format!("mp_rank_{}", rank.iter().enumerate().map(part).collect::<Vec<_>>().join("_"))
}

/// Ranks of the full grid that have no folder.
fn absent(ranks: &BTreeMap<Rank, bool>) -> Vec<Rank> {
    let width = ranks.keys().map(Vec::len).max().unwrap_or(0);
    let count = |position: usize| {
        ranks.keys().filter_map(|rank| rank.get(position)).max().map_or(1, |last| last.saturating_add(1))
    };
    let counts: Vec<u64> = (0..width).map(count).collect();
    let all = counts.iter().fold(1u64, |product, count| product.saturating_mul(*count));
    if all > RANKS {
        return vec![vec![0; width]];
    }
    let grid = (0..all).map(|mut number| {
        let mut rank = vec![0; width];
        for (place, count) in rank.iter_mut().zip(&counts).rev() {
            *place = number % count;
            number /= count;
        }
        rank
    });
    grid.filter(|rank| !ranks.contains_key(rank)).take(SHOWN).collect()
}

fn describe(evidence: &Evidence, contents: &mut Contents) {
    let iterations = iterations(evidence);
    let tracker = text::at(evidence, &format!("{}{TRACKER}", evidence.tree.home())).and_then(|text| text.parse().ok());
    let step = |folder: &str| {
        names::base(folder.trim_end_matches('/')).strip_prefix("iter_").and_then(|step| step.parse().ok())
    };
    if iterations.is_empty() && tracker.is_none() {
        return;
    }
    contents.step = contents.step.or(tracker).or_else(|| iterations.keys().filter_map(|folder| step(folder)).max());
    contents.framework =
        contents.framework.take().filter(|framework| framework != "pytorch").or_else(|| Some("megatron-lm".to_owned()));
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Folder, assert_bad, assert_good, torch_file};
    use crate::contract::{Format, Reason};

    fn folder(ranks: &[&str]) -> Folder {
        let files = ranks.iter().map(|rank| (format!("iter_0000500/mp_rank_{rank}/model_optim_rng.pt"), torch_file()));
        Folder(files.chain([("latest_checkpointed_iteration.txt".to_owned(), b"500\n".to_vec())]).collect())
    }

    #[test]
    fn grids_of_ranks_are_complete() {
        for ranks in
            [&["00"][..], &["00", "01"], &["00_000", "00_001", "01_000", "01_001"], &["00_000_000", "00_000_001"]]
        {
            let verdict = folder(ranks).judge();
            assert_good(&verdict);
            assert_eq!((verdict.contents.format, verdict.contents.step), (Some(Format::Megatron), Some(500)));
        }
        let verdict = folder(&["00_000", "00_001", "01_001"]).judge();
        assert_bad(&verdict, Reason::Incomplete, "iter_0000500/mp_rank_01_000/model_optim_rng.pt", "is missing");
        let lost = folder(&["00", "01"])
            .without("iter_0000500/mp_rank_01/model_optim_rng.pt")
            .with("iter_0000500/mp_rank_01/distrib_optim.pt", torch_file());
        assert_bad(&lost.judge(), Reason::Incomplete, "mp_rank_01/model_optim_rng.pt", "is missing");
        assert_bad(&folder(&["99999999_999999999"]).judge(), Reason::Incomplete, "mp_rank_00_000", "is missing");
    }

    #[test]
    fn the_tracker_names_an_iteration_that_is_there() {
        let tracker = "latest_checkpointed_iteration.txt";
        assert_bad(&folder(&["00"]).with(tracker, "600").judge(), Reason::Incomplete, "iter_0000600/", tracker);
        assert_bad(&folder(&["00"]).with(tracker, "soon").judge(), Reason::Corrupt, tracker, "no iteration");
    }
}
