//! The ranks of one iteration: tensor, pipeline and expert parallel, and the files that each of them has. Pure, no I/O.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    super::{evidence::Evidence, torch::tensors::Saved},
    SHOWN,
};

/// Files of which each rank's folder has one: with the optimizer's states, or without those of a distributed optimizer (2022).
const STATES: [&str; 2] = ["model_optim_rng.pt", "model_rng.pt"];
/// What a distributed optimizer keeps, beside the states.
const OPTIMIZER: &str = "distrib_optim.pt";
/// What it kept in 2022, in folders with a data-parallel rank at their end.
const OLD_OPTIMIZER: &str = "optim.pt";
/// What a layer-wise optimizer keeps, before the data-parallel rank.
const LAYER_WISE: &str = "layer_wise_optimizer_";
/// The most ranks that are believed.
const RANKS: u64 = 1 << 20;

/// Tensor, pipeline and expert parallel rank; those that the name does not have are missing.
pub(super) type Rank = Vec<u64>;

/// `mp_rank_03`, `mp_rank_03_001`, `mp_rank_03_001_002`, and with a data-parallel rank behind it
pub(super) fn rank(name: &str) -> Option<Rank> {
    let parts: Option<Rank> = name.strip_prefix("mp_rank_")?.split('_').map(|part| part.parse().ok()).collect();
    parts.filter(|parts| (1..=4).contains(&parts.len()))
}

fn name(rank: &[u64]) -> String {
    let part = |(position, number): (usize, &u64)| {
        let digits = if position == 0 { 2 } else { 3 };
        format!("{number:0digits$}")
    };
    format!("mp_rank_{}", rank.iter().enumerate().map(part).collect::<Vec<_>>().join("_"))
}

/// The files of one rank.
#[derive(Debug, Default)]
struct Files {
    /// Index and name of the states.
    states: Option<(usize, &'static str)>,
    optimizer: bool,
    old_optimizer: bool,
    layer_wise: BTreeSet<u64>,
}

/// The folders of one iteration.
#[derive(Debug, Default)]
pub(super) struct Iteration(BTreeMap<Rank, Files>);

impl Iteration {
    /// Takes note of a file in a rank's folder.
    pub fn take(&mut self, rank: Rank, index: usize, file: &str) {
        let files = self.0.entry(rank).or_default();
        if let Some(states) = STATES.into_iter().find(|states| *states == file) {
            files.states = Some((index, states));
        }
        files.optimizer |= file == OPTIMIZER;
        files.old_optimizer |= file == OLD_OPTIMIZER;
        let layer_wise: Option<u64> =
            file.strip_prefix(LAYER_WISE).and_then(|rest| rest.strip_suffix(".pt")?.parse().ok());
        files.layer_wise.extend(layer_wise);
    }

    /// Whether any file is one of Megatron's.
    pub fn is_own(&self) -> bool {
        self.0.values().any(|files| files.states.is_some() || files.optimizer || files.old_optimizer)
    }

    /// Names of files, below the iteration's folder, that the others ask for.
    pub fn missing(&self, evidence: &Evidence) -> BTreeSet<String> {
        // Folders with an old optimizer alone have a data-parallel rank more in their name.
        let (models, optimizers): (Vec<_>, Vec<_>) =
            self.0.iter().partition(|(_, files)| files.states.is_some() || !files.old_optimizer);
        let models: BTreeMap<&Rank, &Files> = models.into_iter().collect();
        let states = models.values().find_map(|files| files.states).map_or(STATES[0], |(_, name)| name);
        let has_optimizer = models.values().any(|files| files.optimizer);
        let mut missing = BTreeSet::new();
        for (rank, files) in &models {
            if files.states.is_none() {
                missing.insert(format!("{}/{states}", name(rank)));
            }
            if has_optimizer && !files.optimizer {
                missing.insert(format!("{}/{OPTIMIZER}", name(rank)));
            }
            let layer_wise = (0..files.layer_wise.last().copied().unwrap_or(0).min(RANKS))
                .filter(|rank| !files.layer_wise.contains(rank));
            missing.extend(layer_wise.take(SHOWN).map(|number| format!("{}/{LAYER_WISE}{number}.pt", name(rank))));
        }
        let ranks: BTreeSet<&Rank> = models.keys().copied().collect();
        let sizes = models.values().find_map(|files| sizes(evidence, files)).unwrap_or_default();
        for rank in absent(&ranks, &sizes) {
            missing.insert(format!("{}/{states}", name(&rank)));
            if has_optimizer {
                missing.insert(format!("{}/{OPTIMIZER}", name(&rank)));
            }
        }
        let old: BTreeSet<&Rank> = optimizers.iter().map(|(rank, _)| *rank).collect();
        missing.extend(absent(&old, &[]).iter().map(|rank| format!("{}/{OLD_OPTIMIZER}", name(rank))));
        missing
    }
}

/// Tensor, pipeline and expert parallel sizes, as the arguments in a rank's states say.
fn sizes(evidence: &Evidence, files: &Files) -> Option<[u64; 3]> {
    let parallel = &evidence.get::<Saved>(files.states?.0)?.parallel;
    let tensor = parallel.tensor?;
    Some([tensor, parallel.pipeline.unwrap_or(1), parallel.expert.unwrap_or(1)])
}

/// Ranks of the full grid that have no folder. `sizes` are those that the save had; none when nothing says.
fn absent(ranks: &BTreeSet<&Rank>, sizes: &[u64]) -> Vec<Rank> {
    let width = ranks.iter().map(|rank| rank.len()).max().unwrap_or(0);
    let count = |position: usize| {
        ranks.iter().filter_map(|rank| rank.get(position)).max().map_or(1, |last| last.saturating_add(1))
    };
    let mut counts: Vec<u64> = (0..width).map(count).collect();
    // Without a pipeline, or without experts in parallel, names leave out that part.
    let said: Vec<u64> = match (sizes, width) {
        ([tensor, 1, expert, ..], 2) if *expert > 1 => vec![*tensor, *expert],
        ([tensor, pipeline, ..], 2) => vec![*tensor, *pipeline],
        (sizes, 1 | 3) => sizes.to_vec(),
        _ => Vec::new(),
    };
    for (count, said) in counts.iter_mut().zip(said) {
        *count = said.max(*count);
    }
    let all = counts.iter().fold(1u64, |product, count| product.saturating_mul(*count));
    if width == 0 || all > RANKS {
        return if width == 0 { Vec::new() } else { vec![vec![0; width]] };
    }
    let grid = (0..all).map(|mut number| {
        let mut rank = vec![0; width];
        for (place, count) in rank.iter_mut().zip(&counts).rev() {
            *place = number % count;
            number /= count;
        }
        rank
    });
    grid.filter(|rank| !ranks.contains(rank)).take(SHOWN).collect()
}
