//! Models of sentence-transformers: `modules.json` lists the folders of the modules (sentence-transformers 5). Pure, no I/O.

use serde_json::Value;

use super::{
    evidence::{CodeFact, Evidence, fact},
    findings::{Notes, UPLOAD_AGAIN},
    names,
    table::Family,
    text,
};
use crate::contract::{Contents, Format, Reason};

const MODULES: &str = "modules.json";
/// Says which versions wrote the model.
const CONFIG: &str = "config_sentence_transformers.json";
/// Ends of the names of modules that have weights.
const WEIGHTED: [&str; 7] =
    [".Transformer", ".Dense", ".LSTM", ".CNN", ".WeightedLayerPooling", ".CLIPModel", ".StaticEmbedding"];
/// Ends of the names of modules that have a configuration, and its name.
const CONFIGURED: [(&str, &str); 5] = [
    (".Transformer", "config.json"),
    (".Dense", "config.json"),
    (".Pooling", "config.json"),
    (".LSTM", "lstm_config.json"),
    (".CNN", "cnn_config.json"),
];
/// Folders in which other backends keep the weights of a module that lies in the root.
const BACKENDS: [&str; 2] = ["onnx/", "openvino/"];
/// Where its own modules come from.
const OWN: &str = "sentence_transformers.";

/// Its models.
pub(super) const FAMILY: Family = Family {
    claims: |evidence| modules(evidence).is_some(),
    places: |evidence| if modules(evidence).is_some() { vec![evidence.tree.home().to_owned()] } else { Vec::new() },
    probe: |tree, file| {
        let name = [MODULES, CONFIG].into_iter().find(|name| tree.at_home(name) == Some(file))?;
        text::probe(tree, file, name)
    },
    check,
    describe,
    judged: "every module's folder is there; module classes from elsewhere are code",
    ..Family::of(Format::SentenceTransformers)
};

fn modules(evidence: &Evidence) -> Option<&str> {
    text::at(evidence, &format!("{}{MODULES}", evidence.tree.home()))
}

fn check(evidence: &mut Evidence, notes: &mut Notes) {
    let Some(content) = modules(evidence) else { return };
    let home = evidence.tree.home();
    let path = format!("{home}{MODULES}");
    let Ok(Value::Array(listed)) = serde_json::from_str(content) else {
        let message = format!("{} is damaged: it is no JSON list; {UPLOAD_AGAIN}", names::shown(&path));
        return notes.fatal(Reason::Corrupt, Some(&path), message);
    };
    let config = format!("{home}{CONFIG}");
    if text::at(evidence, &config).is_some_and(|text| serde_json::from_str::<Value>(text).is_err()) {
        let message = format!("{} is damaged: it is no JSON; {UPLOAD_AGAIN}", names::shown(&config));
        notes.fatal(Reason::Corrupt, Some(&config), message);
    }
    let mut foreign = Vec::new();
    for module in &listed {
        let member = |key: &str| module.get(key).and_then(Value::as_str).unwrap_or_default();
        let (folder, class) = (member("path"), member("type"));
        let below = format!("{home}{folder}/");
        settings(evidence, &path, if folder.is_empty() { home } else { &below }, class, notes);
        // The first module usually lies in the root.
        if !folder.is_empty() && !class.ends_with(".Normalize") && !evidence.tree.has_below(&below) {
            let shown = names::shown(&below);
            let message =
                format!("{shown} is missing: {} names it as {}; upload it", names::shown(&path), names::shown(class));
            notes.fatal(Reason::Incomplete, Some(&below), message);
        } else if WEIGHTED.iter().any(|end| class.ends_with(end))
            && !has_weights(evidence, if folder.is_empty() { home } else { &below }, folder.is_empty())
        {
            let shown = if folder.is_empty() { "the root".to_owned() } else { names::shown(&below) };
            let message = format!(
                "{shown} has no weights: {} names it as {}; upload them",
                names::shown(&path),
                names::shown(class)
            );
            notes.fatal(Reason::Incomplete, Some(&below), message);
        }
        if !class.starts_with(OWN) && !class.is_empty() {
            foreign.push(format!("the module class {}, which is not of sentence-transformers", names::shown(class)));
        }
    }
    let Some(file) = evidence.tree.find(&path) else { return };
    for what in foreign {
        evidence.note_code(CodeFact { on_load: false, file, what });
    }
}

/// A module is made from its configuration.
fn settings(evidence: &Evidence, path: &str, folder: &str, class: &str, notes: &mut Notes) {
    let Some((_, name)) = CONFIGURED.iter().find(|(end, _)| class.ends_with(end)) else { return };
    let missing = format!("{folder}{name}");
    if evidence.tree.has_below(folder) && evidence.tree.find(&missing).is_none() {
        let message = format!(
            "{} is missing: {} names the module as {}, which is made from it; upload it",
            names::shown(&missing),
            names::shown(path),
            names::shown(class)
        );
        notes.fatal(Reason::Incomplete, Some(&missing), message);
    }
}

/// Whether there are weights below the folder, or directly in it.
fn has_weights(evidence: &Evidence, folder: &str, directly: bool) -> bool {
    let is_direct = |rest: &str| !rest.contains('/') || BACKENDS.iter().any(|backend| rest.starts_with(backend));
    evidence.tree.below(folder).any(|(_, file)| {
        file.path.strip_prefix(folder).is_some_and(|rest| !directly || is_direct(rest))
            && (names::is_weights(&file.path) || names::index(names::base(&file.path)).is_some())
    })
}

fn describe(evidence: &Evidence, contents: &mut Contents) {
    let config = text::at(evidence, &format!("{}{CONFIG}", evidence.tree.home()));
    let config: Option<Value> = config.and_then(|text| serde_json::from_str(text).ok());
    let versions = config.as_ref().and_then(|config| config.get("__version__")).and_then(Value::as_object);
    for (library, version) in versions.into_iter().flatten().take(8) {
        if let Some(version) = version.as_str() {
            contents.versions.entry(fact(library)).or_insert_with(|| fact(version));
        }
    }
    if let Some(version) = contents.versions.get("sentence_transformers") {
        contents.framework = contents.framework.take().or_else(|| Some(format!("sentence-transformers {version}")));
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Folder, assert_bad, assert_good, tensors};
    use super::*;

    #[test]
    fn modules_are_there() {
        let modules = br#"[{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
            {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
            {"idx": 3, "name": "3", "path": "3_Dense", "type": "sentence_transformers.models.Dense"},
            {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"}]"#;
        let folder = Folder::new([
            ("modules.json", modules.to_vec()),
            ("config.json", br#"{"model_type": "bert"}"#.to_vec()),
            ("model.safetensors", tensors(&[("a", 1)])),
            ("1_Pooling/config.json", b"{}".to_vec()),
            ("3_Dense/config.json", b"{}".to_vec()),
            ("3_Dense/model.safetensors", tensors(&[("b", 1)])),
            (CONFIG, br#"{"__version__": {"sentence_transformers": "5.1.0", "pytorch": "2.15"}}"#.to_vec()),
        ]);
        let verdict = folder.judge();
        assert_good(&verdict);
        assert_eq!(verdict.contents.format, Some(Format::SentenceTransformers));
        assert_bad(
            &folder.clone().without("1_Pooling/config.json").judge(),
            Reason::Incomplete,
            "1_Pooling/",
            "is missing",
        );
        assert_eq!(verdict.contents.framework.as_deref(), Some("sentence-transformers 5.1.0"));
        let verdict = folder.clone().without("3_Dense/model.safetensors").judge();
        assert_bad(&verdict, Reason::Incomplete, "3_Dense/", "has no weights");
        assert_bad(&folder.with("modules.json", "{}").judge(), Reason::Corrupt, "modules.json", "no JSON list");
    }

    #[test]
    fn modules_have_configurations_and_weights_where_their_backends_look() {
        let modules = br#"[{"path": "", "type": "sentence_transformers.models.Transformer"},
            {"path": "1_LSTM", "type": "sentence_transformers.models.LSTM"}]"#;
        let folder = |weights: &str| {
            let folder = Folder::new([
                ("modules.json", modules.to_vec()),
                ("config.json", br#"{"model_type": "bert"}"#.to_vec()),
                ("1_LSTM/lstm_config.json", b"{}".to_vec()),
                ("1_LSTM/model.safetensors", tensors(&[("b", 1)])),
            ]);
            folder.with(weights, tensors(&[("a", 1)]))
        };
        for weights in ["model.safetensors", "onnx/model.safetensors", "openvino/openvino_model.bin"] {
            assert_good(&folder(weights).judge());
        }
        assert_bad(&folder("other/model.safetensors").judge(), Reason::Incomplete, "the root", "has no weights");
        let without = folder("model.safetensors").without("1_LSTM/lstm_config.json").judge();
        assert_bad(&without, Reason::Incomplete, "1_LSTM/lstm_config.json", "is missing");
    }
}
