//! MLflow models: `MLmodel` names the files of each flavour (mlflow 3.17, `models/model.py`). Pure, no I/O.

mod signature;

use std::collections::BTreeSet;

use serde_json::Value;

use super::{
    evidence::{CodeFact, Evidence, fact},
    findings::{Notes, UPLOAD_AGAIN},
    names,
    table::Family,
    text,
};
use crate::{
    contract::{Contents, Depth, Format, Reason},
    yaml,
};

const FILE: &str = "MLmodel";
/// Names the module that the flavour pytorch unpickles with, in the folder of the model.
const PICKLE_MODULE: &str = "pickle_module_info.txt";
/// Such modules that are known.
const PICKLE_MODULES: [&str; 3] = ["mlflow.pytorch.pickle_module", "pickle", "cloudpickle"];
/// Members of a flavour that name a file or a folder below the model.
const PATHS: [&str; 10] = [
    "data",
    "model_path",
    "model_data",
    "pickled_model",
    "python_model",
    "model_binary",
    "saved_model_dir",
    "peft_adaptor",
    "model_code_path",
    "code",
];
/// Members of flavours with versions, under names that their libraries do not have.
const ABBREVIATED: [(&str, &str); 3] = [("xgb", "xgboost"), ("lgb", "lightgbm"), ("cb", "catboost")];
/// The most versions that are reported.
const VERSIONS: usize = 16;

/// MLflow models.
pub(super) const FAMILY: Family = Family {
    claims: |evidence| evidence.tree.at_home(FILE).is_some(),
    places: |evidence| {
        if evidence.tree.at_home(FILE).is_some() { vec![evidence.tree.home().to_owned()] } else { Vec::new() }
    },
    probe: |tree, file| {
        let model = tree.at_home(FILE)?;
        if file == model { text::probe(tree, file, FILE) } else { text::probe(tree, file, PICKLE_MODULE) }
    },
    check,
    describe,
    judged: "every file that a flavour names, each by its own format; signature and versions are facts; loaders of its own are code that runs on load",
    ..Family::of(Format::MlflowModel)
};

fn model(evidence: &Evidence) -> Option<Result<Value, String>> {
    let text = text::at(evidence, &format!("{}{FILE}", evidence.tree.home()))?;
    Some(match yaml::documents(text) {
        Ok(documents) => match documents.into_iter().next() {
            Some(value @ Value::Object(_)) => Ok(value),
            _ => Err("it is no YAML mapping".to_owned()),
        },
        Err(error) => Err(error.to_string()),
    })
}

/// Paths that the flavours name, each with the flavour.
fn named(model: &Value) -> BTreeSet<(String, String)> {
    let mut paths = BTreeSet::new();
    for (flavour, members) in model.get("flavors").and_then(Value::as_object).into_iter().flatten() {
        let text = |key: &str| members.get(key).and_then(Value::as_str);
        paths.extend(PATHS.iter().filter_map(|key| Some((text(key)?.to_owned(), flavour.clone()))));
        match members.get("env") {
            Some(Value::String(path)) => {
                paths.insert((path.clone(), flavour.clone()));
            }
            Some(Value::Object(kinds)) => {
                paths.extend(kinds.values().filter_map(|path| Some((path.as_str()?.to_owned(), flavour.clone()))));
            }
            _ => {}
        }
        // The transformers flavour has the tokenizer and its like beside the model.
        for component in members.get("components").and_then(Value::as_array).into_iter().flatten() {
            paths.extend(component.as_str().map(|name| (format!("components/{name}"), flavour.clone())));
        }
        for artifact in members.get("artifacts").and_then(Value::as_object).into_iter().flat_map(|map| map.values()) {
            paths.extend(artifact.get("path").and_then(Value::as_str).map(|path| (path.to_owned(), flavour.clone())));
        }
    }
    paths
}

/// What MLflow runs when it loads the model: a loader of the model's own, a script that makes the model, or what any import takes
/// from a folder that every flavour puts before all other places of modules.
fn code(model: &Value) -> Vec<String> {
    let function = model.get("flavors").and_then(|flavours| flavours.get("python_function"));
    let text = |key: &str| function.and_then(|function| function.get(key)).and_then(Value::as_str);
    let loader = text("loader_module").filter(|module| module.split('.').next() != Some("mlflow"));
    let loader = loader.map(|module| format!("its loader {} is no part of MLflow", names::shown(module)));
    let script = text("model_code_path").map(|path| format!("the script {} makes the model", names::shown(path)));
    let flavours = model.get("flavors").and_then(Value::as_object).into_iter().flatten();
    let folders = flavours.filter_map(|(_, members)| members.get("code")?.as_str()).filter(|folder| !folder.is_empty());
    let folders: BTreeSet<String> =
        folders.map(|folder| format!("modules are imported from its folder {}", names::shown(folder))).collect();
    loader.into_iter().chain(script).chain(folders).collect()
}

/// Modules that the flavour pytorch imports by the name that a file gives.
fn pickle_modules(evidence: &mut Evidence) {
    let files = evidence.tree.iter().filter(|(_, file)| names::base(&file.path) == PICKLE_MODULE);
    let mut found = Vec::new();
    for (file, listed) in files {
        let what = match text::at(evidence, &listed.path) {
            Some(module) if PICKLE_MODULES.contains(&module) => continue,
            Some(module) => format!("it names the module {} to unpickle with", names::shown(module)),
            None if evidence.depth == Depth::Listing => continue,
            None => "the module to unpickle with could not be read".to_owned(),
        };
        found.push(CodeFact { on_load: true, file, what });
    }
    evidence.code.extend(found);
}

fn check(evidence: &mut Evidence, notes: &mut Notes) {
    let home = evidence.tree.home();
    let path = format!("{home}{FILE}");
    let model = match model(evidence) {
        None => return,
        Some(Ok(model)) => model,
        Some(Err(problem)) => {
            let message = format!("{} is damaged: {problem}; {UPLOAD_AGAIN}", names::shown(&path));
            return notes.fatal(Reason::Corrupt, Some(&path), message);
        }
    };
    if model.get("flavors").and_then(Value::as_object).is_none_or(serde_json::Map::is_empty) {
        let message = format!("{} is damaged: it names no flavour; {UPLOAD_AGAIN}", names::shown(&path));
        notes.fatal(Reason::Corrupt, Some(&path), message);
    }
    if let Some(file) = evidence.tree.find(&path) {
        for what in code(&model) {
            evidence.note_code(CodeFact { on_load: true, file, what });
        }
    }
    pickle_modules(evidence);
    transformers_weights(evidence, &model, notes);
    let home = evidence.tree.home();
    for (name, flavour) in named(&model) {
        let wanted = name.trim_start_matches("./").trim_end_matches('/');
        let full = format!("{home}{wanted}");
        let folder = format!("{full}/");
        let there = wanted.is_empty()
            || wanted == "."
            || evidence.tree.find(&full).is_some()
            || evidence.tree.has_below(&folder);
        if !there {
            let message = format!(
                "{} is missing: {} names it for its flavour {}; upload it",
                names::shown(&full),
                names::shown(&path),
                names::shown(&flavour)
            );
            notes.fatal(Reason::Incomplete, Some(&full), message);
        }
    }
}

/// A model that the transformers flavour saved has weights in its folder.
fn transformers_weights(evidence: &Evidence, model: &Value, notes: &mut Notes) {
    let Some(name) = model.pointer("/flavors/transformers/model_binary").and_then(Value::as_str) else { return };
    let folder = format!("{}{}/", evidence.tree.home(), name.trim_start_matches("./").trim_end_matches('/'));
    let mut inside =
        evidence.tree.below(&folder).filter_map(|(_, file)| file.path.strip_prefix(folder.as_str())).peekable();
    if inside.peek().is_some()
        && !inside.any(|name| names::is_weights(name) || names::index(names::base(name)).is_some())
    {
        let message = format!(
            "{} has no weights: the flavour transformers names it as its model; upload them",
            names::shown(&folder)
        );
        notes.fatal(Reason::Incomplete, Some(&folder), message);
    }
}

fn describe(evidence: &Evidence, contents: &mut Contents) {
    let Some(Ok(model)) = model(evidence) else { return };
    let version = model.get("mlflow_version").and_then(Value::as_str);
    let flavours = model.get("flavors").and_then(Value::as_object);
    let own = flavours.into_iter().flatten().find(|(name, _)| name.as_str() != "python_function");
    versions(&model, contents);
    let library = own.and_then(|(name, _)| Some(format!("{name} {}", contents.versions.get(name)?)));
    if contents.signature.is_empty() {
        contents.signature = signature::lines(&model);
    }
    let framework = library.or_else(|| version.map(|version| format!("mlflow {version}"))).map(|text| fact(&text));
    contents.framework = contents.framework.take().or(framework);
    let class =
        own.and_then(|(_, members)| ["model_class", "model_type"].iter().find_map(|key| members.get(*key)?.as_str()));
    contents.architecture = contents.architecture.take().or_else(|| class.map(fact));
}

/// The version of MLflow, of Python, and of every library whose flavour tells it.
fn versions(model: &Value, contents: &mut Contents) {
    let mut add = |name: &str, version: Option<&str>| {
        if let Some(version) = version.filter(|_| contents.versions.len() < VERSIONS) {
            contents.versions.entry(fact(name)).or_insert_with(|| fact(version));
        }
    };
    add("mlflow", model.get("mlflow_version").and_then(Value::as_str));
    for (_, members) in model.get("flavors").and_then(Value::as_object).into_iter().flatten() {
        for (key, version) in members.as_object().into_iter().flatten() {
            let Some(name) = key.strip_suffix("_version") else { continue };
            let full = ABBREVIATED.iter().find(|(short, _)| *short == name).map_or(name, |(_, full)| *full);
            add(full, version.as_str());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{
        tests::{Folder, assert_bad, assert_good, tensors, torch_file},
        zip::tests::archive,
    };
    use super::*;

    const MODEL: &str = "
flavors:
  python_function: {loader_module: mlflow.xgboost, data: model.ubj, env: {conda: conda.yaml, virtualenv: python_env.yaml}}
  xgboost: {data: model.ubj, model_class: xgboost.core.Booster, xgb_version: 3.2.0}
mlflow_version: 3.17.2
model_uuid: 1
signature:
  inputs: '[{\"type\": \"double\", \"name\": \"length\", \"required\": true}, {\"type\": \"array\", \"items\": {\"type\": \"long\"}, \"name\": \"ids\", \"required\": false}]'
  outputs: '[{\"type\": \"tensor\", \"tensor-spec\": {\"dtype\": \"float32\", \"shape\": [-1, 3]}}]'
  params: '[{\"name\": \"heat\", \"type\": \"float\", \"default\": 0.5, \"shape\": null}]'
";

    #[test]
    fn every_flavour_has_its_files() {
        let files = ["model.ubj", "conda.yaml", "python_env.yaml"];
        let folder = Folder::new([("MLmodel", MODEL.as_bytes().to_vec())]);
        let folder = files.iter().fold(folder, |folder, file| folder.with(file, "{}"));
        let verdict = folder.judge();
        assert_good(&verdict);
        let contents = verdict.contents;
        assert_eq!(
            (contents.format, contents.framework.as_deref()),
            (Some(Format::MlflowModel), Some("xgboost 3.2.0"))
        );
        assert_eq!(
            contents.versions,
            [("mlflow", "3.17.2"), ("xgboost", "3.2.0")].map(|(name, version)| (name.into(), version.into())).into()
        );
        assert_eq!(
            contents.signature,
            [
                "input length: double",
                "input ids: array of long, optional",
                "output: tensor of float32 [-1, 3]",
                "parameter heat: float"
            ]
        );
        for file in files {
            assert_bad(&folder.clone().without(file).judge(), Reason::Incomplete, file, "names it for its flavour");
        }
        for broken in ["signature: {inputs: '['}", "signature: {inputs: 3}", "signature: x"] {
            let start = &MODEL[..MODEL.find("signature").unwrap()];
            let verdict = folder.clone().with("MLmodel", format!("{start}{broken}")).judge();
            assert!(verdict.is_good() && verdict.contents.signature.is_empty(), "{broken}");
        }
        for (text, words) in
            [("a: [", "is damaged"), ("- a", "no YAML mapping"), ("a: 1", "names no flavour"), ("", "no YAML mapping")]
        {
            let verdict = folder.clone().with("MLmodel", text).judge();
            assert_bad(&verdict, Reason::Corrupt, "MLmodel", words);
        }
        let line = |number: u32| {
            let before = number - 1;
            format!("a{number}: &a{number} [*a{before}, *a{before}, *a{before}]")
        };
        let laughs = format!("a0: &a0 x\n{}", (1..40).map(line).collect::<Vec<_>>().join("\n"));
        assert_bad(&folder.with("MLmodel", laughs).judge(), Reason::Corrupt, "MLmodel", "is damaged");
    }

    #[test]
    fn versions_are_bounded() {
        let members: Vec<String> = (0..20).map(|number| format!("library{number:02}_version: '1'")).collect();
        let model = format!("flavors: {{x: {{{}}}}}", members.join(", "));
        let folder = Folder::new([
            ("MLmodel", model.into_bytes()),
            ("config.json", br#"{"model_type": "bert", "transformers_version": "5.1.0"}"#.to_vec()),
            ("model.safetensors", tensors(&[("a", 1)])),
        ]);
        assert_eq!(folder.judge().contents.versions.len(), VERSIONS);
    }

    #[test]
    fn payloads_are_components_of_their_own_format() {
        let lightgbm = "tree\nversion=v4\ntree_sizes=\n\nend of trees\n";
        let skops = archive(&[("schema.json", b"{\"__class__\": \"A\", \"__module__\": \"b\"}")]);
        for (name, bytes, format) in [
            ("model.lgb", lightgbm.as_bytes().to_vec(), Format::LightGbm),
            ("model.skops", skops, Format::Skops),
            ("data/model.pth", torch_file(), Format::Torch),
            ("python_model.pkl", b"\x80\x04N.".to_vec(), Format::Pickle),
            ("model.xgb", br#"{"learner":{},"version":[3,2,0]}"#.to_vec(), Format::XgBoost),
        ] {
            let model = format!("flavors: {{python_function: {{loader_module: mlflow.x, data: {name}}}}}\n");
            let folder = Folder::new([("MLmodel", model.into_bytes()), (name, bytes)]);
            let verdict = folder.judge();
            assert_good(&verdict);
            let found = verdict.contents.components.iter().find(|component| component.path == name);
            assert_eq!(found.map(|component| component.format), Some(format), "{name}");
        }
        let damaged = Folder::new([("MLmodel", b"flavors: {lightgbm: {data: model.lgb}}".to_vec())]);
        let damaged = damaged.with("model.lgb", lightgbm.replace("end of", "end"));
        assert_bad(&damaged.judge(), Reason::Corrupt, "model.lgb", "is damaged");
    }

    #[test]
    fn transformers_have_weights_and_components() {
        let model =
            "flavors: {transformers: {model_binary: model, components: [tokenizer], transformers_version: 5.24.0}}";
        let folder = Folder::new([
            ("MLmodel", model.into()),
            ("model/config.json", br#"{"model_type": "bert"}"#.to_vec()),
            ("model/model.safetensors", tensors(&[("a", 1)])),
            ("components/tokenizer/tokenizer.json", b"{}".to_vec()),
        ]);
        let verdict = folder.judge();
        assert_good(&verdict);
        let part = &verdict.contents.components[0];
        assert_eq!((part.path.as_str(), part.format), ("model/", Format::HuggingFace));
        let verdict = folder.clone().without("model/model.safetensors").judge();
        assert_bad(&verdict, Reason::Incomplete, "model/", "has no weights");
        let verdict = folder.without("components/tokenizer/tokenizer.json").judge();
        assert_bad(&verdict, Reason::Incomplete, "components/tokenizer", "names it for its flavour transformers");
    }

    #[test]
    fn loaders_of_its_own_are_code() {
        let model = "flavors: {python_function: {loader_module: mine.loader, model_code_path: model.py}}";
        let folder = Folder::new([("MLmodel", model.into()), ("model.py", b"pass".to_vec())]);
        let verdict = folder.judge();
        assert_bad(&verdict, Reason::UnsafeCode, "MLmodel", "mine.loader");
        assert!(verdict.contents.code.contains(&"MLmodel: the script model.py makes the model".to_owned()));
    }

    /// `code/sklearn.py` is what `import sklearn` then finds.
    #[test]
    fn folders_of_modules_are_code() {
        for flavour in ["python_function", "sklearn"] {
            let model = format!("flavors: {{{flavour}: {{code: code}}, xgboost: {{code: null}}}}");
            let folder = Folder::new([("MLmodel", model.into_bytes()), ("code/sklearn.py", b"pass".to_vec())]);
            assert_bad(&folder.judge(), Reason::UnsafeCode, "MLmodel", "imported from its folder code");
        }
    }

    #[test]
    fn modules_to_unpickle_with_are_code_unless_they_are_known() {
        let model = b"flavors: {pytorch: {model_data: data}}";
        let path = "data/pickle_module_info.txt";
        let folder = |module: &str| Folder::new([("MLmodel", model.to_vec()), (path, module.as_bytes().to_vec())]);
        for module in PICKLE_MODULES {
            assert_good(&folder(module).judge());
        }
        for (module, words) in [("antigravity", "the module antigravity"), ("", "it names the module")] {
            assert_bad(&folder(module).judge(), Reason::UnsafeCode, path, words);
        }
        assert_good(&folder("antigravity").without("MLmodel").judge());
    }
}
