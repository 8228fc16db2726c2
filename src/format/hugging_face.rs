//! A Hugging Face model folder: `config.json` and weights. Pure, no I/O.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{
    document,
    evidence::{Document, Evidence, fact},
    findings::{Notes, UPLOAD_AGAIN},
    keras, names, peft,
    table::Family,
};
use crate::contract::{Contents, Format, Reason};

const CONFIG: &str = "config.json";
/// Files that only models of transformers have beside their configuration.
const COMPANIONS: [&str; 4] =
    ["generation_config.json", "tokenizer_config.json", "tokenizer.json", "preprocessor_config.json"];
/// Members of a configuration that only models have (transformers, timm, diffusers).
const MODEL_MEMBERS: [&str; 4] = ["model_type", "architectures", "architecture", "_class_name"];
/// Names that `save_pretrained` gives to weights.
const WEIGHTS: [&str; 5] = ["model.", "model-", "pytorch_model", "tf_model", "flax_model"];

/// A model folder.
pub(super) const FAMILY: Family = Family {
    format: Format::HuggingFace,
    claims,
    probe: |tree, file| {
        // A model of Keras may have it too, whose configuration is larger and code.
        let others = keras::folder::is_beside_weights(tree, file);
        if others { None } else { document::probe(tree, file, CONFIG, |evidence| &mut evidence.config) }
    },
    check,
    describe,
    places,
    judged: "configuration and weights; Python files and chat templates are reported as code",
    ..Family::of(Format::HuggingFace)
};

fn claims(evidence: &Evidence) -> bool {
    evidence.tree.at_home(CONFIG).is_some()
        && !keras::folder::is_home(evidence)
        && (MODEL_MEMBERS.iter().any(|member| evidence.config.get(member).is_some())
            || COMPANIONS.iter().any(|name| evidence.tree.at_home(name).is_some())
            || evidence.tree.home_names().any(|name| is_saved_weights(name) || is_index(name)))
}

/// The folder itself, and folders below it that have both as well, such as the encoder of a pipeline or the model of an MLflow folder.
fn places(evidence: &Evidence) -> Vec<String> {
    let home = evidence.tree.home();
    let mut weights = BTreeSet::new();
    let mut configured = BTreeSet::new();
    for (index, file) in evidence.tree.iter() {
        let (folder, name) = (names::folder(&file.path), names::base(&file.path));
        if name == CONFIG && evidence.get::<keras::Model>(index).is_none() {
            configured.insert(folder);
        } else if is_saved_weights(name) || is_index(name) {
            weights.insert(folder);
        }
    }
    let own = claims(evidence).then_some(home);
    let below = configured.intersection(&weights).copied().filter(|folder| *folder != home);
    own.into_iter().chain(below).map(str::to_owned).collect()
}

fn is_saved_weights(name: &str) -> bool {
    names::is_weights(name) && WEIGHTS.iter().any(|beginning| name.starts_with(beginning))
}

fn is_index(name: &str) -> bool {
    names::index(name).is_some()
}

/// Whether there are weights of any framework, or an index that names them.
pub(super) fn has_weights(evidence: &Evidence) -> bool {
    // A distributed optimizer has the same kind of files as distributed weights, in a folder of its own.
    let optimizer = |path: &str| path.split('/').any(|part| part.starts_with("optimizer"));
    evidence
        .tree
        .iter()
        .any(|(_, file)| (names::is_weights(&file.path) && !optimizer(&file.path)) || is_index(names::base(&file.path)))
}

fn check(evidence: &mut Evidence, notes: &mut Notes) {
    let Some(file) = evidence.tree.at_home(CONFIG).filter(|_| claims(evidence)) else { return };
    let path = &evidence.tree.file(file).path;
    if let Document::Broken(problem) = &evidence.config {
        let message = format!("{} is damaged: {problem}; {UPLOAD_AGAIN}", names::shown(path));
        notes.fatal(Reason::Corrupt, Some(path), message);
    }
    if !has_weights(evidence) && !(peft::FAMILY.claims)(evidence) {
        let missing = format!("{}model.safetensors", evidence.tree.home());
        let of = architecture(&evidence.config).map(|name| format!(" of {name}")).unwrap_or_default();
        let message = format!(
            "the weights{of} are missing: {} describes a model, but there is neither {} nor shards of it; upload them",
            names::shown(path),
            names::shown(&missing)
        );
        notes.fatal(Reason::Incomplete, Some(&missing), message);
    }
}

fn architecture(config: &Document) -> Option<String> {
    let listed = config.get("architectures").and_then(|list| list.get(0)).and_then(Value::as_str).map(fact);
    listed.or_else(|| ["architecture", "_class_name", "model_type"].iter().find_map(|member| config.text(member)))
}

fn describe(evidence: &Evidence, contents: &mut Contents) {
    let config = &evidence.config;
    contents.architecture = contents.architecture.take().or_else(|| architecture(config));
    contents.quantization = contents.quantization.take().or_else(|| quantization(config));
    let versions = [("transformers", "transformers_version"), ("diffusers", "_diffusers_version")];
    let framework = versions.iter().find_map(|(library, member)| Some(format!("{library} {}", config.text(member)?)));
    contents.framework = contents.framework.take().or(framework);
    for (library, member) in versions {
        if let Some(version) = config.text(member) {
            contents.versions.entry(library.to_owned()).or_insert(version);
        }
    }
}

/// The method by its name; before it was written there, only bitsandbytes was told by what it loads.
fn quantization(config: &Document) -> Option<String> {
    let settings = ["quantization_config", "compression_config"].iter().find_map(|member| config.get(member))?;
    let set = |member: &str| settings.get(member).and_then(Value::as_bool) == Some(true);
    let method = settings.get("quant_method").and_then(Value::as_str).map(fact);
    let old = || (set("load_in_4bit") || set("load_in_8bit")).then(|| "bitsandbytes".to_owned());
    method.or_else(old)
}
