//! DeepSpeed checkpoints: a folder (the tag) with files for each rank, and `latest`, which names the tag and is written last
//! (deepspeed 0.18, `runtime/engine.py`); universal ones with a folder for each parameter. Pure, no I/O.

mod tag;
#[cfg(test)]
mod tests;
mod universal;

use std::collections::{BTreeMap, BTreeSet};

use super::{
    evidence::{Evidence, fact},
    findings::Notes,
    names,
    table::Family,
    text::{self, Text},
    torch::{parallel::Parallel, tensors::Saved},
};
use crate::contract::{Contents, Format, Reason};

use tag::{SHOWN, Tag, number};

/// Beside the tags, to convert one of them.
const SCRIPT: &str = "zero_to_fp32.py";
/// Names the tag of the last save, and that of the last conversion.
const LATEST: [&str; 2] = ["latest", "latest_universal"];
/// The tag that DeepSpeed chooses by itself, before the step.
const STEP: &str = "global_step";

/// ZeRO checkpoints of stages 1 to 3, of mixtures of experts and pipelines, and universal ones.
pub(super) const FAMILY: Family = Family {
    claims: |evidence| !places(evidence).is_empty(),
    places,
    probe: |tree, file| LATEST.iter().find_map(|name| text::probe(tree, file, name)),
    check,
    describe,
    judged: "the grid of ranks (ZeRO 1 to 3, experts, pipelines, universal) is complete, also against the sizes that the files say; `latest` names a folder that is there",
    ..Family::of(Format::DeepSpeed)
};

fn places(evidence: &Evidence) -> Vec<String> {
    let mut places: BTreeSet<String> = tag::tags(evidence).into_keys().map(str::to_owned).collect();
    places.extend(universal::parameters(evidence).into_keys().map(str::to_owned));
    // A file that names a tag of DeepSpeed's own choice is one of DeepSpeed, also when the tag is gone.
    places.extend(
        latest(evidence).into_iter().filter(|latest| step(&latest.folder).is_some()).map(|latest| latest.folder),
    );
    places.into_iter().collect()
}

/// The step that the name of a tag has.
fn step(folder: &str) -> Option<u64> {
    let name = names::base(folder.trim_end_matches('/')).strip_prefix(STEP)?;
    number(name.strip_suffix("_universal").unwrap_or(name))
}

/// A file that names a tag.
struct Latest<'a> {
    path: &'a str,
    /// The folder that it names.
    folder: String,
}

fn latest(evidence: &Evidence) -> Vec<Latest<'_>> {
    let texts = evidence.all::<Text>().map(|(file, text)| (evidence.tree.file(file).path.as_str(), text.0.trim()));
    let named = texts
        .filter(|(path, tag)| LATEST.contains(&names::base(path)) && !tag.is_empty() && !tag.contains(['\n', '\\']));
    named.map(|(path, tag)| Latest { path, folder: format!("{}{tag}/", names::folder(path)) }).collect()
}

fn check(evidence: &mut Evidence, notes: &mut Notes) {
    let tags = tag::tags(evidence);
    for (folder, tag) in &tags {
        let saved = World::of(evidence, tag);
        let mut missing = tag.missing(saved.models, saved.data);
        missing.extend(saved.experts.iter().flat_map(|experts| tag.missing_of(experts)));
        for name in missing.iter().take(SHOWN) {
            let path = format!("{folder}{name}");
            let message =
                format!("{} is missing: the files of the other ranks are there; upload it", names::shown(&path));
            notes.fatal(Reason::Incomplete, Some(&path), message);
        }
        leftovers(folder, tag, saved.data, notes);
    }
    universal::check(evidence, notes);
    check_latest(evidence, &tags, notes);
}

/// What the files of a tag say of all its files together.
#[derive(Default)]
struct World {
    data: u64,
    models: u64,
    experts: Option<Vec<u64>>,
}

impl World {
    fn of(evidence: &Evidence, tag: &Tag<'_>) -> Self {
        let parallel = |file: &usize| evidence.get::<Saved>(*file).map(|saved| &saved.parallel);
        let [models, optimizers] = &tag.files;
        let models: Vec<&Parallel> = models.iter().filter_map(parallel).collect();
        let partitions = optimizers.iter().filter_map(parallel).filter_map(|parallel| parallel.partitions);
        // Model states speak of the optimizer's files, which a conversion to universal form leaves behind.
        let data = if tag.optimizers.is_empty() && tag.shards.is_empty() {
            None
        } else {
            partitions.max().or_else(|| models.iter().filter_map(|parallel| parallel.data).max())
        };
        Self {
            data: data.unwrap_or(0),
            models: models.iter().filter_map(|parallel| parallel.model).max().unwrap_or(0),
            experts: models.iter().find_map(|parallel| parallel.experts.clone()).filter(|_| !tag.experts.is_empty()),
        }
    }
}

/// Files of more ranks than the save had are of an earlier save into the same folder; DeepSpeed's own converter refuses them.
fn leftovers(folder: &str, tag: &Tag<'_>, data: u64, notes: &mut Notes) {
    let extra = tag.optimizers.iter().filter(|(rank, _)| data > 0 && *rank >= data);
    for (rank, model) in extra.take(SHOWN) {
        let path = format!("{folder}{}", tag.optimizer(*rank, *model));
        let message = format!(
            "{} is left over from another save: this one has {}; delete it",
            names::shown(&path),
            names::counted(data, "data-parallel rank")
        );
        notes.warn(Reason::Incomplete, Some(&path), message);
    }
}

fn check_latest(evidence: &Evidence, tags: &BTreeMap<&str, Tag<'_>>, notes: &mut Notes) {
    let universal = universal::parameters(evidence);
    // The script that DeepSpeed leaves beside the tags says where their root is.
    let root = evidence.tree.iter().find_map(|(_, file)| file.path.strip_suffix(SCRIPT));
    if let Some(root) = root.filter(|root| tags.keys().any(|tag| tag.starts_with(root)))
        && LATEST.iter().all(|name| evidence.tree.find(&format!("{root}{name}")).is_none())
    {
        let missing = format!("{root}{}", LATEST[0]);
        let message = format!(
            "{} is missing: it is written last and names the folder to load, so the save or the upload did not finish: upload \
             it, or let path name the folder of one save",
            names::shown(&missing)
        );
        notes.fatal(Reason::Incomplete, Some(&missing), message);
    }
    for latest in latest(evidence) {
        let folder = latest.folder.as_str();
        let is_there = tags.contains_key(folder) || universal.contains_key(folder);
        let around = names::folder(latest.path);
        let is_own =
            step(folder).is_some() || tags.keys().chain(universal.keys()).any(|known| known.starts_with(around));
        if is_there || !is_own {
            continue;
        }
        let message = format!(
            "{} names {}, which is not there: upload that folder, or an earlier save whole",
            names::shown(latest.path),
            names::shown(folder)
        );
        notes.fatal(Reason::Incomplete, Some(folder), message);
    }
}

fn describe(evidence: &Evidence, contents: &mut Contents) {
    let tags = tag::tags(evidence);
    let universal = universal::parameters(evidence);
    if tags.is_empty() && universal.is_empty() {
        return;
    }
    let files = || tags.values().flat_map(|tag| tag.files.iter().flatten());
    let saved = || files().filter_map(|file| evidence.get::<Saved>(*file));
    let named = tags.keys().chain(universal.keys()).filter_map(|folder| step(folder)).max();
    let counted = saved().filter_map(|saved| saved.step).max();
    contents.step = contents.step.or(counted).or_else(|| named.and_then(|step| i64::try_from(step).ok()));
    let version = saved().find_map(|saved| saved.parallel.version.as_deref());
    let own = version.map_or("deepspeed".to_owned(), |version| fact(&format!("deepspeed {version}")));
    contents.framework = contents.framework.take().filter(|framework| framework != "pytorch").or(Some(own));
}
