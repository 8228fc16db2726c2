//! Every manifest below `examples/` is one that the types know, to the last field. Reads files.

use std::path::{Path, PathBuf};

use checkpoint_operator::{api::Checkpoint, contract::filter::Filter};
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Pod, Secret},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::{read, repository};

fn manifests(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(manifests(&path));
        } else if path.extension().is_some_and(|end| end == "yaml") {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn documents() -> Vec<(PathBuf, Value)> {
    let parse = |path: PathBuf| {
        let text = read(&path);
        let values: Vec<Value> = serde_yaml::Deserializer::from_str(&text)
            .map(|document| Value::deserialize(document).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
            .collect();
        values.into_iter().map(move |value| (path.clone(), value))
    };
    manifests(&repository("examples")).into_iter().flat_map(parse).collect()
}

/// Fields of the document that are lost on the way through the type: the type does not know them.
pub(super) fn unknown<T: DeserializeOwned + Serialize>(document: &Value) -> Vec<String> {
    let known: T = serde_json::from_value(document.clone()).unwrap_or_else(|error| panic!("{error}: {document}"));
    let mut lost = Vec::new();
    compare(document, &serde_json::to_value(known).unwrap(), "", &mut lost);
    lost
}

fn compare(written: &Value, known: &Value, path: &str, lost: &mut Vec<String>) {
    match (written, known) {
        (Value::Object(written), Value::Object(known)) => {
            for (name, value) in written {
                let path = format!("{path}.{name}");
                match known.get(name) {
                    Some(other) => compare(value, other, &path, lost),
                    None => lost.push(path),
                }
            }
        }
        (Value::Array(written), Value::Array(known)) => {
            for (index, value) in written.iter().enumerate() {
                compare(value, known.get(index).unwrap_or(&Value::Null), &format!("{path}[{index}]"), lost);
            }
        }
        _ if written != known => lost.push(path.to_owned()),
        _ => {}
    }
}

#[test]
fn every_field_is_known() {
    let documents = documents();
    assert!(documents.len() >= 10, "only {} documents", documents.len());
    for (path, document) in documents {
        let lost = match document["kind"].as_str() {
            Some("Checkpoint") => unknown::<Checkpoint>(&document),
            Some("Pod") => unknown::<Pod>(&document),
            Some("Deployment") => unknown::<Deployment>(&document),
            Some("Secret") => unknown::<Secret>(&document),
            kind => panic!("{}: no rule for {kind:?}", path.display()),
        };
        assert!(lost.is_empty(), "{}: unknown or changed {lost:?}", path.display());
    }
}

#[test]
fn globs_compile_and_inline_data_is_an_object() {
    for (path, document) in documents() {
        let Ok(checkpoint) = serde_json::from_value::<Checkpoint>(document.clone()) else { continue };
        for volume in &checkpoint.spec.volumes {
            let filter = Filter { include: volume.include.clone(), exclude: volume.exclude.clone() };
            filter.compile().unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        }
        if let Some(inline) = document["spec"]["storage"]["inline"]["json"].as_str() {
            let data: Value = serde_json::from_str(inline).unwrap();
            assert!(data.is_object(), "{}", path.display());
        }
    }
}

/// Pods only mount what an example's Checkpoint makes.
#[test]
fn mounted_claims_are_made_by_the_same_example() {
    for (path, document) in documents() {
        let pod = if document["kind"] == "Pod" { &document["spec"] } else { &document["spec"]["template"]["spec"] };
        for volume in pod["volumes"].as_array().into_iter().flatten() {
            let claim = &volume["persistentVolumeClaim"]["claimName"];
            let made =
                documents().into_iter().filter(|(other, _)| other.parent() == path.parent()).any(|(_, other)| {
                    other["spec"]["volumes"].as_array().into_iter().flatten().any(|made| made["claimName"] == *claim)
                });
            assert!(made, "{}: nothing makes {claim}", path.display());
        }
    }
}
