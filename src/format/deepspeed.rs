//! DeepSpeed ZeRO checkpoints: a folder (the tag) with one file for each rank, and `latest`, which names the tag and is written
//! last (deepspeed 0.16, `runtime/engine.py`). Pure, no I/O.

use std::collections::{BTreeMap, BTreeSet};

use super::{evidence::Evidence, findings::Notes, names, table::Family, text};
use crate::contract::{Contents, Format, Reason};

const LATEST: &str = "latest";
const MODEL: &str = "_model_states.pt";
const OPTIMIZER: &str = "_optim_states.pt";
/// The most missing files that are named.
const SHOWN: usize = 8;
/// The most ranks that are believed.
const RANKS: u64 = 1 << 20;

/// ZeRO checkpoints.
pub(super) const FAMILY: Family = Family {
    claims: |evidence| !tags(evidence).is_empty(),
    places: |evidence| tags(evidence).into_keys().map(str::to_owned).collect(),
    probe: |tree, file| text::probe(tree, file, LATEST),
    check,
    describe,
    judged: "the grid of ranks is complete, `latest` names a folder that is there",
    ..Family::of(Format::DeepSpeed)
};

/// What the names of a tag's files say.
#[derive(Debug, Default)]
struct Tag<'a> {
    /// Model-parallel ranks with one file of model states.
    models: BTreeSet<u64>,
    /// Data- and model-parallel ranks with files of model states (ZeRO 3).
    shards: BTreeSet<(u64, u64)>,
    /// Data- and model-parallel ranks with files of optimizer states.
    optimizers: BTreeSet<(u64, u64)>,
    /// Model-parallel ranks that have files of a layer (pipelines).
    layers: BTreeMap<&'a str, BTreeSet<&'a str>>,
    /// What stands before the names of optimizer files.
    prefix: &'a str,
}

fn number(text: &str) -> Option<u64> {
    (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok()).flatten()
}

/// `zero_pp_rank_3_mp_rank_00`
fn rank(stem: &str) -> Option<(u64, u64)> {
    let (data, model) = stem.strip_prefix("zero_pp_rank_")?.split_once("_mp_rank_")?;
    Some((number(data)?, number(model)?))
}

fn tags(evidence: &Evidence) -> BTreeMap<&str, Tag<'_>> {
    let mut tags: BTreeMap<&str, Tag<'_>> = BTreeMap::new();
    for (_, file) in evidence.tree.iter() {
        let name = names::base(&file.path);
        let folder = names::folder(&file.path);
        if let Some(stem) = name.strip_suffix(OPTIMIZER) {
            let prefix = if stem.starts_with("bf16_") { "bf16_" } else { "" };
            if let Some(rank) = rank(&stem[prefix.len()..]) {
                let tag = tags.entry(folder).or_default();
                tag.prefix = prefix;
                tag.optimizers.insert(rank);
            }
        } else if let Some(stem) = name.strip_suffix(MODEL) {
            if let Some(rank) = rank(stem) {
                tags.entry(folder).or_default().shards.insert(rank);
            } else if let Some(model) = stem.strip_prefix("mp_rank_").and_then(number) {
                tags.entry(folder).or_default().models.insert(model);
            }
        } else if let Some((layer, model)) =
            name.strip_suffix("-model_states.pt").and_then(|stem| stem.split_once("-model_"))
            && layer.strip_prefix("layer_").and_then(number).is_some()
        {
            tags.entry(folder).or_default().layers.entry(layer).or_default().insert(model);
        }
    }
    tags
}

fn check(evidence: &mut Evidence, notes: &mut Notes) {
    let tags = tags(evidence);
    for (folder, tag) in &tags {
        let mut missing: Vec<String> = Vec::new();
        grid(
            &tag.optimizers,
            |data, model| format!("{}zero_pp_rank_{data}_mp_rank_{model:02}{OPTIMIZER}", tag.prefix),
            &mut missing,
        );
        if tag.shards.is_empty() {
            let count = tag
                .models
                .last()
                .map_or(0, |last| last + 1)
                .max(tag.optimizers.iter().map(|(_, model)| model + 1).max().unwrap_or(0));
            let absent = (0..count.min(RANKS)).filter(|model| !tag.models.contains(model));
            // A pipeline keeps its model in files of layers, and leaves only small states here.
            missing.extend(absent.take(SHOWN).map(|model| format!("mp_rank_{model:02}{MODEL}")));
        } else {
            let both: BTreeSet<_> = tag.shards.union(&tag.optimizers).copied().collect();
            let names = |data, model| format!("zero_pp_rank_{data}_mp_rank_{model:02}{MODEL}");
            grid(&tag.shards, names, &mut missing);
            missing.extend(both.difference(&tag.shards).map(|(data, model)| names(*data, *model)));
        }
        let parts: BTreeSet<&str> = tag.layers.values().flatten().copied().collect();
        for (layer, present) in &tag.layers {
            missing.extend(parts.difference(present).map(|part| format!("{layer}-model_{part}-model_states.pt")));
        }
        missing.sort();
        missing.dedup();
        for name in missing.iter().take(SHOWN) {
            let path = format!("{folder}{name}");
            let message =
                format!("{} is missing: the files of the other ranks are there; upload it", names::shown(&path));
            notes.fatal(Reason::Incomplete, Some(&path), message);
        }
    }
    let home = evidence.tree.home();
    let path = format!("{home}{LATEST}");
    if let Some(tag) = text::at(evidence, &path).filter(|_| !tags.is_empty()) {
        let folder = format!("{home}{tag}/");
        if !tags.contains_key(folder.as_str()) {
            let message = format!(
                "{} names {}, which is not there: upload that folder, or an earlier save whole",
                names::shown(&path),
                names::shown(&folder)
            );
            notes.fatal(Reason::Incomplete, Some(&folder), message);
        }
    }
}

/// Every data-parallel rank for every model-parallel rank, from the largest of each that is there.
fn grid(present: &BTreeSet<(u64, u64)>, name: impl Fn(u64, u64) -> String, missing: &mut Vec<String>) {
    let largest =
        |pick: fn(&(u64, u64)) -> u64| present.iter().map(pick).max().map_or(0, |last| last.saturating_add(1));
    let (data, model) = (largest(|rank| rank.0), largest(|rank| rank.1));
    if data.saturating_mul(model) > RANKS {
        return missing.push(name(0, 0));
    }
    let all = (0..data).flat_map(|data| (0..model).map(move |model| (data, model)));
    missing.extend(all.filter(|rank| !present.contains(rank)).take(SHOWN).map(|(data, model)| name(data, model)));
}

fn describe(evidence: &Evidence, contents: &mut Contents) {
    let tags = tags(evidence);
    if tags.is_empty() {
        return;
    }
    let step = |folder: &str| names::base(folder.trim_end_matches('/')).strip_prefix("global_step").and_then(number);
    let step = tags.keys().filter_map(|folder| step(folder)).max();
    contents.step = contents.step.or(step.and_then(|step| i64::try_from(step).ok()));
    contents.framework =
        contents.framework.take().filter(|framework| framework != "pytorch").or_else(|| Some("deepspeed".to_owned()));
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Folder, assert_bad, assert_good, torch_file};
    use crate::contract::{Format, Reason};

    fn folder(names: &[&str]) -> Folder {
        let files = names.iter().map(|name| (format!("global_step7/{name}"), torch_file()));
        Folder(files.chain([("latest".to_owned(), b"global_step7".to_vec())]).collect())
    }

    #[test]
    fn grids_of_ranks_are_complete() {
        let two = [
            "mp_rank_00_model_states.pt",
            "bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt",
            "bf16_zero_pp_rank_1_mp_rank_00_optim_states.pt",
        ];
        let three = [
            "zero_pp_rank_0_mp_rank_00_model_states.pt",
            "zero_pp_rank_1_mp_rank_00_model_states.pt",
            "zero_pp_rank_0_mp_rank_00_optim_states.pt",
            "zero_pp_rank_1_mp_rank_00_optim_states.pt",
        ];
        let pipeline = [
            "mp_rank_00_model_states.pt",
            "mp_rank_01_model_states.pt",
            "layer_00-model_00-model_states.pt",
            "layer_00-model_01-model_states.pt",
            "layer_02-model_00-model_states.pt",
            "layer_02-model_01-model_states.pt",
        ];
        for names in [&two[..], &three, &pipeline] {
            let verdict = folder(names).judge();
            assert_good(&verdict);
            assert_eq!((verdict.contents.format, verdict.contents.step), (Some(Format::DeepSpeed), Some(7)));
            assert_eq!(verdict.contents.framework.as_deref(), Some("deepspeed"));
        }
        for (names, lost) in [
            (&two[..], two[0]),
            (&two, two[1]),
            (&three, three[0]),
            (&three, three[1]),
            (&three, three[2]),
            (&pipeline, pipeline[0]),
            (&pipeline, pipeline[5]),
        ] {
            let path = format!("global_step7/{lost}");
            let verdict = folder(names).without(&path).judge();
            assert_bad(&verdict, Reason::Incomplete, &path, "is missing");
        }
    }

    #[test]
    fn latest_names_a_folder_that_is_there() {
        let names = ["mp_rank_00_model_states.pt"];
        let verdict = folder(&names).with("latest", "global_step9").judge();
        assert_bad(&verdict, Reason::Incomplete, "global_step9/", "latest names");
        assert_good(&folder(&names).without("latest").judge());
    }

    #[test]
    fn absurd_ranks_cost_nothing() {
        let verdict = folder(&["zero_pp_rank_99999999999_mp_rank_99999999_optim_states.pt"]).judge();
        assert_bad(&verdict, Reason::Incomplete, "_states.pt", "is missing");
    }
}
