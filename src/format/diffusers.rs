//! Pipelines of diffusers: `model_index.json` and a folder for each component it names (diffusers 0.36, `pipeline_utils.py`). No I/O.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{
    document,
    evidence::{CodeFact, Document, Evidence, fact},
    findings::{Notes, UPLOAD_AGAIN},
    names,
    table::Family,
};
use crate::contract::{Contents, Format, Reason};

const INDEX: &str = "model_index.json";
/// Libraries whose components have weights of their own.
const LIBRARIES: [&str; 2] = ["diffusers", "transformers"];
/// Ends of the names of classes that have none.
const WEIGHTLESS: [&str; 7] = [
    "Scheduler",
    "Tokenizer",
    "TokenizerFast",
    "FeatureExtractor",
    "ImageProcessor",
    "Processor",
    "ImageProcessorFast",
];

/// The class of a component that is an ONNX model, which has all that it is made from in it.
const ONNX: &str = "OnnxRuntimeModel";

/// Pipelines.
pub(super) const FAMILY: Family = Family {
    claims: |evidence| evidence.tree.at_home(INDEX).is_some(),
    places: |evidence| {
        if evidence.tree.at_home(INDEX).is_some() { vec![evidence.tree.home().to_owned()] } else { Vec::new() }
    },
    probe: |tree, file| document::probe(tree, file, INDEX, |evidence| &mut evidence.pipeline),
    check,
    describe,
    judged: "every component's folder is there, with weights where its class has some",
    ..Family::of(Format::Diffusers)
};

/// Name, library and class of the components that are not left out.
fn components(index: &Document) -> Vec<(String, String, String)> {
    let Document::Value(Value::Object(members)) = index else { return Vec::new() };
    let part = |value: &Value, at: usize| value.get(at).and_then(Value::as_str).map(str::to_owned);
    let named = members
        .iter()
        .filter(|(name, value)| !name.starts_with('_') && value.as_array().is_some_and(|parts| parts.len() == 2));
    named.filter_map(|(name, value)| Some((name.clone(), part(value, 0)?, part(value, 1)?))).collect()
}

fn check(evidence: &mut Evidence, notes: &mut Notes) {
    let Some(index) = evidence.tree.at_home(INDEX) else { return };
    let path = evidence.tree.file(index).path.clone();
    if let Document::Broken(problem) = &evidence.pipeline {
        let message = format!("{} is damaged: {problem}; {UPLOAD_AGAIN}", names::shown(&path));
        return notes.fatal(Reason::Corrupt, Some(&path), message);
    }
    let home = evidence.tree.home().to_owned();
    let mut code = Vec::new();
    let mut variants: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (name, library, class) in components(&evidence.pipeline) {
        let folder = format!("{home}{name}/");
        let files: Vec<&str> =
            evidence.tree.below(&folder).filter_map(|(_, file)| file.path.strip_prefix(folder.as_str())).collect();
        let shown = names::shown(&folder);
        let (library_shown, class_shown) = (names::shown(&library), names::shown(&class));
        if files.is_empty() {
            let message = format!(
                "{shown} is missing: {} names it as {class_shown} of {library_shown}; upload it",
                names::shown(&path)
            );
            notes.fatal(Reason::Incomplete, Some(&folder), message);
            continue;
        }
        let weightless = WEIGHTLESS.iter().any(|end| class.ends_with(end));
        let has_weights = files.iter().any(|file| names::is_weights(file) || names::index(names::base(file)).is_some());
        if LIBRARIES.contains(&library.as_str()) && !weightless && !has_weights {
            let message = format!(
                "{shown} has no weights: {} names it as {class_shown} of {library_shown}; upload them",
                names::shown(&path)
            );
            notes.fatal(Reason::Incomplete, Some(&folder), message);
        }
        // A component with weights is made from its configuration.
        let configured = !weightless && has_weights && class != ONNX;
        if LIBRARIES.contains(&library.as_str()) && configured && !files.contains(&"config.json") {
            let missing = format!("{folder}config.json");
            let message = format!(
                "{} is missing: {} names {shown} as {class_shown}, which is made from it; upload it",
                names::shown(&missing),
                names::shown(&path)
            );
            notes.fatal(Reason::Incomplete, Some(&missing), message);
        }
        if !weightless {
            variants.insert(name.clone(), files.iter().filter_map(|file| variant(names::base(file))).collect());
        }
        // A class of no library is a Python file in the folder, which diffusers runs when it is told to trust it.
        if files.iter().any(|file| names::has_extension(file, "py"))
            && files.contains(&format!("{library}.py").as_str())
        {
            let what = format!("the component {} is Python code of its own", names::shown(&name));
            code.push(CodeFact { on_load: false, file: index, what });
        }
    }
    for fact in code {
        evidence.note_code(fact);
    }
    one_variant(&path, &variants, notes);
}

/// The variant in the name of weights: `fp16` of `model.fp16.safetensors`, none of `model.safetensors`. In the names of shards it
/// stands before the number, and in older ones behind it.
fn variant(name: &str) -> Option<String> {
    let whole = names::shard(name).map(|shard| format!("{}{}", shard.prefix, shard.suffix));
    let (stem, _) = whole.as_deref().unwrap_or(name).rsplit_once('.')?;
    names::is_weights(name).then(|| stem.split_once('.').map_or("", |(_, variant)| variant).to_owned())
}

/// A pipeline is loaded in one variant; where a component has only another, a part of it is loaded in other precision or not at all.
fn one_variant(path: &str, components: &BTreeMap<String, BTreeSet<String>>, notes: &mut Notes) {
    let mut sets = components.values().filter(|variants| !variants.is_empty());
    let Some(first) = sets.next() else { return };
    let common = sets.fold(first.clone(), |common, variants| common.intersection(variants).cloned().collect());
    if !common.is_empty() {
        return;
    }
    let shown = |variant: &String| if variant.is_empty() { "none".to_owned() } else { names::shown(variant) };
    let lists = components.iter().filter(|(_, variants)| !variants.is_empty()).take(8).map(|(name, variants)| {
        format!("{}: {}", names::shown(name), variants.iter().take(4).map(shown).collect::<Vec<_>>().join(", "))
    });
    let message = format!(
        "no variant of the weights is there for every component of {} ({}): upload the missing ones",
        names::shown(path),
        lists.collect::<Vec<_>>().join("; ")
    );
    notes.warn(Reason::Incomplete, Some(path), message);
}

fn describe(evidence: &Evidence, contents: &mut Contents) {
    contents.architecture = contents.architecture.take().or_else(|| evidence.pipeline.text("_class_name"));
    let version = evidence.pipeline.text("_diffusers_version").map(|version| format!("diffusers {}", fact(&version)));
    contents.framework = contents.framework.take().or(version);
    if let Some(version) = evidence.pipeline.text("_diffusers_version") {
        contents.versions.entry("diffusers".to_owned()).or_insert(version);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Folder, assert_bad, assert_good, tensors};
    use super::*;

    fn pipeline() -> Folder {
        let index = br#"{"_class_name": "StableDiffusionPipeline", "_diffusers_version": "0.36.0", "safety_checker": [null, null],
            "scheduler": ["diffusers", "PNDMScheduler"], "unet": ["diffusers", "UNet2DConditionModel"], "requires": true}"#;
        Folder::new([
            ("model_index.json", index.to_vec()),
            ("scheduler/scheduler_config.json", b"{}".to_vec()),
            ("unet/config.json", br#"{"_class_name": "UNet2DConditionModel"}"#.to_vec()),
            ("unet/diffusion_pytorch_model.safetensors", tensors(&[("a", 4)])),
        ])
    }

    #[test]
    fn variants_are_told_by_names() {
        for (name, expected) in [
            ("model.safetensors", Some("")),
            ("model.fp16.safetensors", Some("fp16")),
            ("model-00001-of-00002.safetensors", Some("")),
            ("model.fp16-00001-of-00002.safetensors", Some("fp16")),
            ("model-00001-of-00002.fp16.safetensors", Some("fp16")),
            ("config.json", None),
            ("model", None),
        ] {
            assert_eq!(variant(name).as_deref(), expected, "{name}");
        }
    }

    #[test]
    fn onnx_models_have_no_configuration() {
        let index = br#"{"unet": ["diffusers", "OnnxRuntimeModel"]}"#;
        let weights = tensors(&[("a", 1)]);
        let folder = |name: &str| Folder::new([("model_index.json", index.to_vec()), (name, weights.clone())]);
        assert_good(&folder("unet/model.safetensors").judge());
        assert_bad(&folder("unet/notes.txt").judge(), Reason::Incomplete, "unet/", "has no weights");
    }

    #[test]
    fn components_are_there_with_their_weights() {
        let verdict = pipeline().judge();
        assert_good(&verdict);
        let contents = verdict.contents;
        assert_eq!((contents.format, contents.tensors), (Some(Format::Diffusers), Some(1)));
        assert_eq!(contents.architecture.as_deref(), Some("StableDiffusionPipeline"));
        assert_eq!(contents.framework.as_deref(), Some("diffusers 0.36.0"));
        let without = |path: &str| pipeline().without(path).judge();
        assert_bad(&without("scheduler/scheduler_config.json"), Reason::Incomplete, "scheduler/", "PNDMScheduler");
        assert_bad(&without("unet/diffusion_pytorch_model.safetensors"), Reason::Incomplete, "unet/", "has no weights");
        let index = br#"{"unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"]}"#;
        let two = pipeline().with("model_index.json", *index).with("vae/config.json", "{}");
        let half = two.clone().with("vae/diffusion_pytorch_model.fp16.safetensors", tensors(&[("a", 1)]));
        let verdict = half.judge();
        assert_good(&verdict);
        let message = &verdict.findings[0].message;
        assert!(message.contains("(unet: none; vae: fp16)"), "{message}");
        let whole = half.with("unet/diffusion_pytorch_model.fp16.safetensors", tensors(&[("a", 1)])).judge();
        assert!(whole.findings.is_empty(), "{:?}", whole.findings);
        assert_bad(&two.judge(), Reason::Incomplete, "vae/", "has no weights");
        assert_bad(
            &pipeline().with("model_index.json", "{").judge(),
            Reason::Corrupt,
            "model_index.json",
            "is damaged",
        );
    }
}
