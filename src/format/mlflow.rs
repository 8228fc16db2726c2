//! MLflow models: `MLmodel` names the files of each flavour (mlflow 3.17, `models/model.py`). Pure, no I/O.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{
    evidence::{Evidence, fact},
    findings::{Notes, UPLOAD_AGAIN},
    names,
    table::Family,
    text,
};
use crate::{
    contract::{Contents, Format, Reason},
    yaml,
};

const FILE: &str = "MLmodel";
/// Members of a flavour that name a file or a folder below the model.
const PATHS: [&str; 8] =
    ["data", "model_path", "model_data", "pickled_model", "python_model", "model_binary", "saved_model_dir", "code"];

/// MLflow models.
pub(super) const FAMILY: Family = Family {
    claims: |evidence| evidence.tree.at_home(FILE).is_some(),
    places: |evidence| {
        if evidence.tree.at_home(FILE).is_some() { vec![evidence.tree.home().to_owned()] } else { Vec::new() }
    },
    probe: |tree, file| text::probe(tree, file, FILE).filter(|_| tree.at_home(FILE) == Some(file)),
    check,
    describe,
    judged: "every file that a flavour names",
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
    }
    paths
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
    for (name, flavour) in named(&model) {
        let wanted = name.trim_start_matches("./").trim_end_matches('/');
        let full = format!("{home}{wanted}");
        let folder = format!("{full}/");
        let there = wanted.is_empty()
            || wanted == "."
            || evidence.tree.find(&full).is_some()
            || evidence.tree.iter().any(|(_, file)| file.path.starts_with(&folder));
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

fn describe(evidence: &Evidence, contents: &mut Contents) {
    let Some(Ok(model)) = model(evidence) else { return };
    let version = model.get("mlflow_version").and_then(Value::as_str);
    let flavours = model.get("flavors").and_then(Value::as_object);
    let own = flavours.into_iter().flatten().find(|(name, _)| name.as_str() != "python_function");
    let library = own.and_then(|(name, members)| {
        let versions = [
            format!("{name}_version"),
            "xgb_version".to_owned(),
            "lgb_version".to_owned(),
            "pytorch_version".to_owned(),
        ];
        let version = versions.iter().find_map(|key| members.get(key)?.as_str())?;
        Some(format!("{name} {version}"))
    });
    let framework = library.or_else(|| version.map(|version| format!("mlflow {version}"))).map(|text| fact(&text));
    contents.framework = contents.framework.take().or(framework);
    let class =
        own.and_then(|(_, members)| ["model_class", "model_type"].iter().find_map(|key| members.get(*key)?.as_str()));
    contents.architecture = contents.architecture.take().or_else(|| class.map(fact));
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Folder, assert_bad, assert_good};
    use super::*;

    const MODEL: &str = "
flavors:
  python_function: {loader_module: mlflow.xgboost, data: model.ubj, env: {conda: conda.yaml, virtualenv: python_env.yaml}}
  xgboost: {data: model.ubj, model_class: xgboost.core.Booster, xgb_version: 3.2.0}
mlflow_version: 3.17.2
model_uuid: 1
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
        for file in files {
            assert_bad(&folder.clone().without(file).judge(), Reason::Incomplete, file, "names it for its flavour");
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
}
