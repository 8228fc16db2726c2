//! What the names of the files of a tag say (deepspeed 0.18, `runtime/engine.py` and `runtime/pipe/module.py`). Pure, no I/O.

use std::collections::{BTreeMap, BTreeSet};

use super::super::{evidence::Evidence, names};

const MODEL: &str = "_model_states.pt";
const OPTIMIZER: &str = "_optim_states.pt";
/// The optimizer's precision, before the names of its files.
const PRECISIONS: [&str; 2] = ["bf16_", "fp16_"];
/// The most missing files that are named.
pub(super) const SHOWN: usize = 8;
/// The most ranks that are believed.
const RANKS: u64 = 1 << 20;

/// The files of one tag.
#[derive(Debug, Default)]
pub(super) struct Tag<'a> {
    /// Model-parallel ranks with one file of model states.
    pub models: BTreeSet<u64>,
    /// Data- and model-parallel ranks with files of model states (ZeRO 3).
    pub shards: BTreeSet<(u64, u64)>,
    /// Data- and model-parallel ranks with files of optimizer states.
    pub optimizers: BTreeSet<(u64, u64)>,
    /// What stands before the names of optimizer files.
    pub prefix: &'a str,
    /// Expert- and model-parallel ranks with files of optimizer states.
    pub expert_optimizers: BTreeSet<(u64, u64)>,
    /// For each layer with experts (0 for files that name none) the experts and model-parallel ranks that have files.
    pub experts: BTreeMap<u64, BTreeSet<(u64, u64)>>,
    /// Whether files of experts name their layer: old ones do not.
    pub layered: bool,
    /// For each layer of a pipeline the parts of it that have files; an empty part when it has but one.
    pub layers: BTreeMap<&'a str, BTreeSet<&'a str>>,
    /// Files of model states, then of optimizer states, by index.
    pub files: [Vec<usize>; 2],
}

pub(super) fn number(text: &str) -> Option<u64> {
    (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok()).flatten()
}

/// `zero_pp_rank_3_mp_rank_00` and its like.
fn pair(stem: &str, prefix: &str) -> Option<(u64, u64)> {
    let (first, model) = stem.strip_prefix(prefix)?.split_once("_mp_rank_")?;
    Some((number(first)?, number(model)?))
}

/// `layer_3_expert_7_mp_rank_00`, or `expert_7_mp_rank_00` of old writers.
fn expert(stem: &str) -> Option<(Option<u64>, (u64, u64))> {
    if let Some(pair) = pair(stem, "expert_") {
        return Some((None, pair));
    }
    let (layer, rest) = stem.strip_prefix("layer_")?.split_once('_')?;
    Some((Some(number(layer)?), pair(rest, "expert_")?))
}

/// `layer_03-model_00-model_states.pt`, or `layer_03-model_states.pt` without tensor parallelism.
fn layer(name: &str) -> Option<(&str, &str)> {
    let stem = name.strip_suffix("-model_states.pt")?;
    let (layer, part) = stem.split_once('-').unwrap_or((stem, ""));
    number(layer.strip_prefix("layer_")?).map(|_| (layer, part))
}

/// All tags, by their folder.
pub(super) fn tags(evidence: &Evidence) -> BTreeMap<&str, Tag<'_>> {
    let mut tags: BTreeMap<&str, Tag<'_>> = BTreeMap::new();
    for (index, file) in evidence.tree.iter() {
        let folder = names::folder(&file.path);
        let name = names::base(&file.path);
        // Files of other frameworks end in the same way, so a tag begins with the first name that is known.
        let mut found = Tag::default();
        if found.take(name) {
            let kind = usize::from(name.ends_with(OPTIMIZER));
            let tag = tags.entry(folder).or_default();
            tag.take(name);
            if let Some(files) = tag.files.get_mut(kind) {
                files.push(index);
            }
        }
    }
    tags
}

impl<'a> Tag<'a> {
    /// Takes note of a file; whether it is one of DeepSpeed's.
    fn take(&mut self, name: &'a str) -> bool {
        if let Some((layer, part)) = layer(name) {
            self.layers.entry(layer).or_default().insert(part);
            return true;
        }
        if let Some(stem) = name.strip_suffix(OPTIMIZER) {
            let prefix =
                PRECISIONS.iter().find(|prefix| stem.starts_with(*prefix)).map_or("", |prefix| &stem[..prefix.len()]);
            if let Some(rank) = pair(&stem[prefix.len()..], "zero_pp_rank_") {
                self.prefix = prefix;
                return self.optimizers.insert(rank);
            }
            return pair(stem, "expp_rank_").is_some_and(|rank| self.expert_optimizers.insert(rank));
        }
        let Some(stem) = name.strip_suffix(MODEL) else { return false };
        if let Some(rank) = pair(stem, "zero_pp_rank_") {
            self.shards.insert(rank)
        } else if let Some((layer, rank)) = expert(stem) {
            self.layered |= layer.is_some();
            self.experts.entry(layer.unwrap_or_default()).or_default().insert(rank)
        } else {
            stem.strip_prefix("mp_rank_").and_then(number).is_some_and(|model| self.models.insert(model))
        }
    }

    /// The name of an optimizer's file.
    pub fn optimizer(&self, data: u64, model: u64) -> String {
        format!("{}zero_pp_rank_{data}_mp_rank_{model:02}{OPTIMIZER}", self.prefix)
    }

    /// How many model-parallel ranks there are.
    pub fn model_ranks(&self) -> u64 {
        let pairs = self.optimizers.iter().chain(&self.shards).map(|(_, model)| *model);
        pairs.chain(self.models.iter().copied()).max().map_or(0, |last| last.saturating_add(1))
    }

    /// How many data-parallel ranks there are.
    pub fn data_ranks(&self) -> u64 {
        self.optimizers.iter().chain(&self.shards).map(|(data, _)| data.saturating_add(1)).max().unwrap_or(0)
    }

    /// Names of files that the others ask for: every rank up to the largest. `models` and `data` say how many there are besides.
    pub fn missing(&self, models: u64, data: u64) -> BTreeSet<String> {
        let mut missing = BTreeSet::new();
        let models = self.model_ranks().max(models);
        if !self.optimizers.is_empty() {
            let count = self.optimizers.iter().map(|rank| rank.0.saturating_add(1)).max().unwrap_or(0).max(data);
            grid(&self.optimizers, (count, models), |data, model| self.optimizer(data, model), &mut missing);
        }
        if self.shards.is_empty() {
            // A pipeline keeps its model in files of layers, and leaves only small states here.
            let absent = (0..models.min(RANKS)).filter(|model| !self.models.contains(model));
            missing.extend(absent.take(SHOWN).map(|model| format!("mp_rank_{model:02}{MODEL}")));
        } else {
            let name = |data, model| format!("zero_pp_rank_{data}_mp_rank_{model:02}{MODEL}");
            grid(&self.shards, (self.data_ranks().max(data), models), name, &mut missing);
        }
        self.missing_layers(&mut missing);
        self.missing_experts(&mut missing);
        missing
    }

    /// Layers without parameters have no files, so only the parts of those that are there are compared.
    fn missing_layers(&self, missing: &mut BTreeSet<String>) {
        let parts: BTreeSet<&str> = self.layers.values().flatten().copied().collect();
        for (layer, present) in &self.layers {
            let absent = parts.difference(present).filter(|part| !part.is_empty());
            missing.extend(absent.take(SHOWN).map(|part| format!("{layer}-{part}-model_states.pt")));
        }
    }

    fn missing_experts(&self, missing: &mut BTreeSet<String>) {
        let name = |layer: u64, expert: u64, model: u64| {
            let layer = if self.layered { format!("layer_{layer}_") } else { String::new() };
            format!("{layer}expert_{expert}_mp_rank_{model:02}{MODEL}")
        };
        let last = self.experts.keys().max().copied();
        let layers = (0..last.map_or(0, |last| last.saturating_add(1)).min(RANKS))
            .filter(|layer| !self.experts.contains_key(layer));
        missing.extend(layers.take(SHOWN).map(|layer| name(layer, 0, 0)));
        let count = |ranks: &BTreeSet<(u64, u64)>| ranks.last().map_or(0, |(expert, _)| expert.saturating_add(1));
        // Layers with as many experts have the same files; which model-parallel rank writes an expert is theirs to know.
        let mut alike: BTreeMap<u64, BTreeSet<(u64, u64)>> = BTreeMap::new();
        for ranks in self.experts.values() {
            alike.entry(count(ranks)).or_default().extend(ranks);
        }
        for (layer, ranks) in &self.experts {
            let count = count(ranks);
            let known: BTreeSet<u64> = ranks.iter().map(|(expert, _)| *expert).collect();
            let holes = (0..count.min(RANKS)).filter(|expert| !known.contains(expert)).take(SHOWN);
            missing.extend(holes.map(|expert| name(*layer, expert, 0)));
            let others =
                alike.get(&count).into_iter().flatten().filter(|rank| !ranks.contains(rank) && known.contains(&rank.0));
            missing.extend(others.take(SHOWN).map(|(expert, model)| name(*layer, *expert, *model)));
        }
        let ranks: BTreeSet<u64> = self.expert_optimizers.iter().map(|(expert, _)| *expert).collect();
        let count = ranks.last().map_or(0, |last| last.saturating_add(1)).min(RANKS);
        let absent = (0..count).filter(|rank| !ranks.contains(rank)).take(SHOWN);
        missing.extend(absent.map(|rank| format!("expp_rank_{rank}_mp_rank_00{OPTIMIZER}")));
    }

    /// Names of the files of experts that a model with so many experts in each layer lacks.
    pub fn missing_of(&self, experts: &[u64]) -> BTreeSet<String> {
        let mut missing = BTreeSet::new();
        if !self.layered {
            return missing;
        }
        for (layer, count) in (0u64..).zip(experts) {
            let last = self
                .experts
                .get(&layer)
                .and_then(|ranks| ranks.last())
                .map_or(0, |(expert, _)| expert.saturating_add(1));
            if last < *count {
                missing.insert(format!("layer_{layer}_expert_{last}_mp_rank_00{MODEL}"));
            }
        }
        missing
    }
}

/// Every data-parallel rank for every model-parallel rank.
fn grid(
    present: &BTreeSet<(u64, u64)>,
    (data, models): (u64, u64),
    name: impl Fn(u64, u64) -> String,
    missing: &mut BTreeSet<String>,
) {
    if data.saturating_mul(models) > RANKS {
        missing.insert(name(0, 0));
        return;
    }
    let all = (0..data).flat_map(|data| (0..models).map(move |model| (data, model)));
    missing.extend(all.filter(|rank| !present.contains(rank)).take(SHOWN).map(|(data, model)| name(data, model)));
}
