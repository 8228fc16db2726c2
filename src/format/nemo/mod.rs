//! Checkpoints of NeMo: `.nemo` archives of NeMo 1, packed or unpacked (nemo 1.23, `core/connectors/save_restore_connector.py`), and
//! folders of NeMo 2 with `weights/` and `context/` (nemo 2.7, `lightning/io`). Pure, no I/O.

mod context;
mod grid;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use serde_json::Value;

use super::{
    evidence::{Evidence, Tree, fact},
    findings::{Notes, UPLOAD_AGAIN},
    names,
    probe::Probe,
    table::Family,
    tar, text,
    torch::tensors::Saved,
};
use crate::{
    contract::{Contents, Format, Reason},
    yaml,
};

const CONFIG: &str = "model_config.yaml";
const WEIGHTS: &str = "model_weights.ckpt";
/// A distributed checkpoint in place of [`WEIGHTS`].
const FOLDER: &str = "model_weights/";
/// What NeMo puts behind a checkpoint's name while it is written.
const UNFINISHED: &str = "-unfinished";
/// Names of files in the archive, in the configuration.
const ARTIFACT: &str = "nemo:";
/// The most missing files that are named.
const SHOWN: usize = 8;

/// Checkpoints of NeMo 1 and 2.
pub(super) const FAMILY: Family = Family {
    claims: |evidence| !places(evidence).is_empty(),
    places,
    probe,
    sniff: tar::sniff,
    follow: tar::follow,
    check,
    describe,
    judged: "`.nemo` archives in place, as the folder that they are: configuration, artifacts, weights of every rank; folders of NeMo 2 with `weights/` and `context/`; marks of unfinished saves",
    ..Family::of(Format::Nemo)
};

fn probe(tree: &Tree, file: usize) -> Option<Box<dyn Probe>> {
    let model = || text::probe(tree, file, context::MODEL).filter(|_| context::is_within(&tree.file(file).path));
    text::probe(tree, file, CONFIG).or_else(model).or_else(|| context::probe(tree, file))
}

fn places(evidence: &Evidence) -> Vec<String> {
    let mut places = tar::places(evidence, Format::Nemo);
    places.extend(first(evidence).into_iter().chain(second(evidence)).map(str::to_owned));
    places.sort();
    places.dedup();
    places
}

/// Folders of NeMo 1: a configuration, and weights beside it. In an archive, a configuration is enough.
fn first(evidence: &Evidence) -> BTreeSet<&str> {
    let packed = evidence.level > 0;
    let ranks = grid::places(evidence);
    let configs = evidence.tree.iter().filter(|(_, file)| names::base(&file.path) == CONFIG);
    configs
        .map(|(_, file)| names::folder(&file.path))
        .filter(|folder| (packed && *folder == evidence.tree.home()) || has_weights(evidence, &ranks, folder))
        .collect()
}

fn has_weights(evidence: &Evidence, ranks: &BTreeSet<&str>, folder: &str) -> bool {
    evidence.tree.find(&format!("{folder}{WEIGHTS}")).is_some()
        || has_any(evidence, &format!("{folder}{FOLDER}"))
        || ranks.contains(folder)
}

/// Folders of NeMo 2.
fn second(evidence: &Evidence) -> BTreeSet<&str> {
    let within = |path| {
        context::folder(path)
            .filter(|folder| has_any(evidence, &format!("{folder}weights/")) || is_context(evidence, folder))
    };
    evidence.tree.iter().filter_map(|(_, file)| within(file.path.as_str())).collect()
}

/// Whether the context was written by NeMo: other things are kept in folders of that name, too.
fn is_context(evidence: &Evidence, folder: &str) -> bool {
    let has = |name| evidence.tree.find(&format!("{folder}context/{name}")).is_some();
    has(context::IO) && has(context::MODEL)
}

fn has_any(evidence: &Evidence, folder: &str) -> bool {
    evidence.tree.below(folder).next().is_some()
}

fn check(evidence: &mut Evidence, notes: &mut Notes) {
    let ranks = grid::places(evidence);
    for folder in first(evidence) {
        check_first(evidence, &ranks, folder, notes);
    }
    for folder in second(evidence) {
        check_second(evidence, folder, notes);
    }
    grid::check(evidence, notes);
    check_markers(evidence, notes);
    context::note_code(evidence);
}

fn missing(path: &str, why: &str, notes: &mut Notes) {
    let message = format!("{} is missing: {why}; upload it", names::shown(path));
    notes.fatal(Reason::Incomplete, Some(path), message);
}

fn check_first(evidence: &Evidence, ranks: &BTreeSet<&str>, folder: &str, notes: &mut Notes) {
    let path = format!("{folder}{CONFIG}");
    if !has_weights(evidence, ranks, folder) {
        missing(&format!("{folder}{WEIGHTS}"), "and there are no weights in another form", notes);
    }
    let config = match config(evidence, folder) {
        None => return,
        Some(Ok(config)) => config,
        Some(Err(problem)) => {
            let message = format!("{} is damaged: {problem}; {UPLOAD_AGAIN}", names::shown(&path));
            return notes.fatal(Reason::Corrupt, Some(&path), message);
        }
    };
    let mut artifacts = BTreeSet::new();
    collect_artifacts(&config, &mut artifacts);
    let absent =
        artifacts.iter().map(|name| format!("{folder}{name}")).filter(|path| evidence.tree.find(path).is_none());
    for absent in absent.take(SHOWN) {
        missing(&absent, &format!("{} names it", names::shown(&path)), notes);
    }
}

/// The configuration; none when it was not read, which was said then.
fn config(evidence: &Evidence, folder: &str) -> Option<Result<Value, String>> {
    mapping(text::at(evidence, &format!("{folder}{CONFIG}"))?)
}

fn mapping(text: &str) -> Option<Result<Value, String>> {
    Some(match yaml::documents(text) {
        Ok(documents) => match documents.into_iter().next() {
            Some(value @ Value::Object(_)) => Ok(value),
            _ => Err("it is no YAML mapping".to_owned()),
        },
        // Tags of Python are no damage, and only readers that run code understand them.
        Err(yaml::YamlError::NotJson { .. } | yaml::YamlError::TooLarge) => return None,
        Err(error) => Err(error.to_string()),
    })
}

fn collect_artifacts<'a>(value: &'a Value, found: &mut BTreeSet<&'a str>) {
    match value {
        Value::String(text) => found.extend(text.strip_prefix(ARTIFACT).filter(|name| !name.is_empty())),
        Value::Array(items) => items.iter().for_each(|item| collect_artifacts(item, found)),
        Value::Object(members) => members.values().for_each(|member| collect_artifacts(member, found)),
        _ => {}
    }
}

fn check_second(evidence: &Evidence, folder: &str, notes: &mut Notes) {
    let io = format!("{folder}context/{}", context::IO);
    if evidence.tree.find(&io).is_none() {
        missing(&io, "NeMo builds the model from it", notes);
    }
    let weights = format!("{folder}weights/");
    if !has_any(evidence, &weights) {
        return missing(&weights, &format!("{folder}context/ is there without its weights"), notes);
    }
    // Only Megatron's own writer leaves `common.pt`, and `metadata.json` is the last file that it writes.
    let has = |name: &str| evidence.tree.find(&format!("{weights}{name}")).is_some();
    if has("common.pt") && !has("metadata.json") {
        let path = format!("{weights}metadata.json");
        missing(&path, "it is written last, so the save or the upload did not finish", notes);
    }
}

/// A mark beside a checkpoint, or in it, is removed when all of it is written.
fn check_markers(evidence: &Evidence, notes: &mut Notes) {
    let second = second(evidence);
    for (_, file) in evidence.tree.iter() {
        let Some(stem) = file.path.strip_suffix(UNFINISHED) else { continue };
        let below = format!("{stem}/");
        let within = second.contains(names::folder(&file.path));
        let files =
            [".ckpt", ".nemo"].iter().any(|extension| evidence.tree.find(&format!("{stem}{extension}")).is_some());
        if !within && !files && !has_any(evidence, &below) {
            continue;
        }
        let message = format!(
            "{} marks a checkpoint that was not written to its end: wait until NeMo removes it, or use an earlier checkpoint",
            names::shown(&file.path)
        );
        notes.fatal(Reason::Incomplete, Some(&file.path), message);
    }
}

fn describe(evidence: &Evidence, contents: &mut Contents) {
    tar::describe(evidence, Format::Nemo, contents);
    let class = |target: &str| target.rsplit('.').next().map(fact).filter(|class| !class.is_empty());
    for folder in first(evidence) {
        let Some(Ok(config)) = config(evidence, folder) else { continue };
        // Some configurations are those of a whole training.
        let model = config.get("model").filter(|model| model.get("target").is_some()).unwrap_or(&config);
        let member = |key: &str| [model, &config].iter().find_map(|place| place.get(key)?.as_str());
        contents.architecture = contents.architecture.take().or_else(|| member("target").and_then(class));
        framework(contents, member("nemo_version").unwrap_or("1"));
    }
    for folder in second(evidence) {
        let model = text::at(evidence, &format!("{folder}context/{}", context::MODEL)).and_then(mapping);
        let target = model.and_then(Result::ok).and_then(|model| class(model.get("_target_")?.as_str()?));
        contents.architecture = contents.architecture.take().or(target);
        let common = evidence.tree.find(&format!("{folder}weights/common.pt"));
        if let Some(saved) = common.and_then(|file| evidence.get::<Saved>(file)) {
            contents.step = contents.step.or(saved.step);
            contents.epoch = contents.epoch.take().or_else(|| saved.epoch.map(|epoch| epoch.to_string()));
        }
        framework(contents, "2");
    }
}

fn framework(contents: &mut Contents, version: &str) {
    let own = Some(fact(&format!("nemo {version}")));
    contents.framework = contents.framework.take().filter(|known| known.starts_with("nemo")).or(own);
}
