//! CatBoost's models: `.cbm` (`model.fbs` and `model.cpp` of catboost 1.2), a FlatBuffer and its parts to the exact end, and the JSON
//! that it exports (`json_model_helpers.cpp`). Pure, no I/O.

mod binary;
mod document;

use serde_json::Value;

use crate::{
    contract::{Contents, Format},
    format::{
        evidence::{Evidence, fact},
        findings::Notes,
        json::Limits,
        names,
        probe::{JsonProbe, Probe, Problem, note_problem},
        table::Family,
        window::WindowProbe,
    },
};

const MAGIC: &[u8] = b"CBM1";
/// The largest JSON model that is read, in bytes.
const LIMIT: u64 = 256 << 20;
const LIMITS: Limits = Limits { depth: 512, text: 64 << 10, python: true, halves: false };
/// Keys of which one stands near the beginning of the JSON, and in no other JSON.
const KEYS: [&[u8]; 4] = [b"\"float_features\"", b"\"oblivious_trees\"", b"\"scale_and_bias\"", b"\"ctr_data\""];

/// CatBoost models.
pub(in crate::format) const FAMILY: Family = Family {
    claims: |evidence| evidence.all::<Model>().next().is_some(),
    places: |evidence| evidence.all::<Model>().map(|(file, _)| evidence.tree.file(file).path.clone()).collect(),
    sniff,
    describe,
    judged: "binary and JSON, read to their exact end; as many leaves and splits as the trees need",
    ..Family::of(Format::CatBoost)
};

/// What a model says.
#[derive(Debug, Default)]
struct Model {
    version: String,
    /// The training's parameters, as JSON.
    loss: Option<String>,
}

fn sniff(path: &str, size: u64, start: &[u8]) -> Option<Box<dyn Probe>> {
    if start.starts_with(MAGIC) || names::has_extension(path, "cbm") {
        return Some(WindowProbe::boxed(binary::File, size, start));
    }
    let is = start.trim_ascii_start().starts_with(b"{")
        && KEYS.iter().any(|key| start.windows(key.len()).any(|text| text == *key));
    is.then(|| Box::new(JsonProbe::new(path, size, LIMIT, LIMITS, document::Export::default())) as Box<dyn Probe>)
}

/// The loss in the training's parameters, when they can be read.
fn loss(parameters: &str) -> Option<String> {
    let parameters: Value = serde_json::from_str(parameters).ok()?;
    parameters.get("loss_function")?.get("type")?.as_str().map(fact)
}

fn leave(outcome: Result<Model, Problem>, file: usize, evidence: &mut Evidence, notes: &mut Notes) {
    match outcome {
        Ok(model) => evidence.put(file, model),
        Err(problem) => note_problem(&problem, file, evidence, notes),
    }
}

fn describe(evidence: &Evidence, contents: &mut Contents) {
    let Some((_, model)) = evidence.all::<Model>().next() else { return };
    // Builds from source have a text of several lines about their revision in place of a version.
    let plain = !model.version.is_empty() && model.version.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let version = if plain { format!("catboost {}", fact(&model.version)) } else { "catboost".to_owned() };
    contents.framework = contents.framework.take().or(Some(version));
    contents.architecture = contents.architecture.take().or_else(|| model.loss.clone());
}

#[cfg(test)]
mod tests;
