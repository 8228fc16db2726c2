//! Folders for the model-parallel ranks of NeMo 1: `mp_rank_00/`, or `tp_rank_00_pp_rank_000/` with a pipeline. Pure, no I/O.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    super::{evidence::Evidence, findings::Notes, names},
    SHOWN, missing,
};

/// The most ranks that are believed.
const RANKS: u64 = 1 << 20;

/// Tensor-parallel rank, and that of the pipeline when there is one.
type Rank = (u64, Option<u64>);

fn rank(folder: &str) -> Option<Rank> {
    if let Some(tensor) = folder.strip_prefix("mp_rank_") {
        return Some((tensor.parse().ok()?, None));
    }
    let (tensor, pipeline) = folder.strip_prefix("tp_rank_")?.split_once("_pp_rank_")?;
    Some((tensor.parse().ok()?, Some(pipeline.parse().ok()?)))
}

fn name((tensor, pipeline): Rank) -> String {
    pipeline
        .map_or_else(|| format!("mp_rank_{tensor:02}"), |pipeline| format!("tp_rank_{tensor:02}_pp_rank_{pipeline:03}"))
}

/// Checkpoints (folder around the ranks, and name of the file) with the ranks that have it.
fn ranks(evidence: &Evidence) -> BTreeMap<(&str, &str), BTreeSet<Rank>> {
    let mut ranks: BTreeMap<(&str, &str), BTreeSet<Rank>> = BTreeMap::new();
    for (_, file) in evidence.tree.iter().filter(|(_, file)| names::has_extension(&file.path, "ckpt")) {
        let folder = names::folder(&file.path).trim_end_matches('/');
        if let Some(rank) = rank(names::base(folder)) {
            ranks.entry((names::folder(folder), names::base(&file.path))).or_default().insert(rank);
        }
    }
    ranks
}

/// Folders that hold folders of ranks.
pub(super) fn places(evidence: &Evidence) -> BTreeSet<&str> {
    ranks(evidence).into_keys().map(|(place, _)| place).collect()
}

/// Every rank up to the largest has its file.
pub(super) fn check(evidence: &Evidence, notes: &mut Notes) {
    for ((folder, file), present) in ranks(evidence) {
        let after = |numbers: &mut dyn Iterator<Item = u64>| numbers.max().map_or(0, |last| last.saturating_add(1));
        let tensor = after(&mut present.iter().map(|rank| rank.0));
        let pipeline = after(&mut present.iter().filter_map(|rank| rank.1));
        let all: Box<dyn Iterator<Item = Rank>> = if tensor.saturating_mul(pipeline.max(1)) > RANKS {
            Box::new(std::iter::once((0, (pipeline > 0).then_some(0))))
        } else if pipeline == 0 {
            Box::new((0..tensor).map(|tensor| (tensor, None)))
        } else {
            Box::new((0..tensor).flat_map(move |tensor| (0..pipeline).map(move |rank| (tensor, Some(rank)))))
        };
        for rank in all.filter(|rank| !present.contains(rank)).take(SHOWN) {
            missing(&format!("{folder}{}/{file}", name(rank)), "the files of the other ranks are there", notes);
        }
    }
}
