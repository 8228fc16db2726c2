//! Keras 3 models (`.keras`): a zip archive of `metadata.json`, `config.json` and `model.weights.h5` (keras 3.15,
//! `saving_lib.py`). Lambda layers and classes from elsewhere run code when the model is loaded. Pure, no I/O.

use serde_json::Value;

use super::{
    archive::{self, Kind},
    evidence::{Evidence, fact},
    hdf5, names,
    table::Family,
    window::{Parsed, Stop, Window},
    zip::{self, Directory},
};
use crate::contract::{Contents, Format};

/// The largest configuration that is read, in bytes.
const MAX_CONFIG: u64 = 16 << 20;
/// The most pieces of code that are named.
const CODE: usize = 16;

/// Keras 3 models.
pub(super) const FAMILY: Family = Family {
    claims: |evidence| archive::of_kind(evidence, Kind::Keras).next().is_some(),
    places: |evidence| archive::paths(evidence, Kind::Keras),
    describe,
    judged: "the archive; Lambda layers and classes from elsewhere are code that runs on load",
    ..Family::of(Format::Keras)
};

/// What an archive says.
#[derive(Debug)]
pub(super) struct Model {
    class: Option<String>,
    version: Option<String>,
    /// Code, and whether it runs when the model is loaded.
    pub code: Vec<(bool, String)>,
}

/// Reads an archive.
pub(super) fn archive(file: &Window<'_>, directory: &Directory) -> Parsed<Model> {
    let read = |name: &str| -> Parsed<Value> {
        let entry = directory.find(name).ok_or_else(|| Stop::Bad(format!("its entry {name} is missing")))?;
        let content = zip::content(file, entry, MAX_CONFIG)?;
        serde_json::from_slice(&content)
            .map_err(|error| Stop::Bad(format!("its entry {name} is no usable JSON: {error}")))
    };
    let (metadata, config) = (read("metadata.json")?, read("config.json")?);
    if let Some(weights) = directory.find("model.weights.h5").filter(|weights| weights.method == 0) {
        let inner = file.part(zip::data(file, weights)?)?;
        hdf5::check(&inner).map_err(|stop| match stop {
            Stop::Bad(text) => Stop::Bad(format!("its entry model.weights.h5: {text}")),
            stop => stop,
        })?;
    }
    let text = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).map(fact);
    Ok(Model { class: text(&config, "class_name"), version: text(&metadata, "keras_version"), code: code(&config) })
}

/// Layers and objects of a configuration that are more than Keras's own classes.
pub(super) fn code(config: &Value) -> Vec<(bool, String)> {
    let mut found = Vec::new();
    let mut open = vec![config];
    while let Some(value) = open.pop() {
        match value {
            Value::Array(items) => open.extend(items),
            Value::Object(members) => {
                open.extend(members.values());
                if let Some(what) = foreign(value) {
                    found.push((true, what));
                }
            }
            _ => {}
        }
        if found.len() >= CODE {
            break;
        }
    }
    found.sort();
    found.dedup();
    found
}

fn foreign(object: &Value) -> Option<String> {
    let text = |key: &str| object.get(key).and_then(Value::as_str);
    let class = text("class_name")?;
    let shown = names::shown(class);
    if class == "__lambda__" || class.ends_with("Lambda") {
        let name = object.get("config").and_then(|config| config.get("name")).and_then(Value::as_str);
        return Some(format!(
            "a Lambda layer{}",
            name.map(|name| format!(" {}", names::shown(name))).unwrap_or_default()
        ));
    }
    let module = text("module").unwrap_or_default();
    let is_keras = ["keras", "keras_nlp", "keras_cv", "keras_hub", "builtins", "tensorflow.keras", "tf_keras"]
        .iter()
        .any(|own| module == *own || module.strip_prefix(own).is_some_and(|rest| rest.starts_with('.')));
    if !module.is_empty() && !is_keras {
        return Some(format!("the class {shown} of the module {}, which is not of Keras", names::shown(module)));
    }
    let registered = text("registered_name").unwrap_or_default();
    (module.is_empty() && registered.contains('>') && !registered.starts_with("keras"))
        .then(|| format!("the registered custom class {}", names::shown(registered)))
}

fn describe(evidence: &Evidence, contents: &mut Contents) {
    let Some((_, model)) = evidence.all::<Model>().next() else { return };
    contents.architecture = contents.architecture.take().or_else(|| model.class.clone());
    let framework = model.version.as_ref().map(|version| format!("keras {version}"));
    contents.framework = contents.framework.take().or(framework);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn code_is_found_at_any_depth() {
        let layer = |class: &str, module: Option<&str>, registered: Option<&str>| json!({"config": {"layers": [{"module": module, "class_name": class, "registered_name": registered, "config": {"name": "x"}}]}});
        for (config, expected) in [
            (layer("Dense", Some("keras.layers"), None), None),
            (layer("Lambda", Some("keras.layers"), None), Some("a Lambda layer x")),
            (layer("__lambda__", None, None), Some("a Lambda layer x")),
            (layer("system", Some("os"), None), Some("the class system of the module os")),
            (layer("Own", Some("kerasevil"), None), Some("of the module kerasevil")),
            (layer("Own", None, Some("Custom>Own")), Some("the registered custom class Custom>Own")),
        ] {
            let found = code(&config);
            match expected {
                None => assert_eq!(found, []),
                Some(words) => {
                    assert!(found.iter().any(|(on_load, what)| *on_load && what.contains(words)), "{found:?}");
                }
            }
        }
    }
}
