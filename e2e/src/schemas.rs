//! Kubernetes' own schemas in the form that kubeconform reads, from the pinned Kubernetes module (runs `go mod download`, file I/O).
//!
//! Nothing is fetched from a schema site: the module that the test cluster is built from carries them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

use crate::cache::build_once;
use crate::command::capture;
use crate::go_tools::Tool;

const DEFINITIONS: &str = "#/definitions/";

/// The folder with one file for each kind, named for kubeconform's template `{{.ResourceKind}}{{.KindSuffix}}.json`.
pub fn folder() -> Result<PathBuf> {
    let module = Tool::Kubernetes.module();
    let versions = fs::read(module.join("go.mod"))?;
    build_once("schemas", &[&versions, b"1"], |folder| {
        // `go list -m` names no folder for a module that nothing has downloaded yet.
        let download = ["mod", "download", "-json", "k8s.io/kubernetes"];
        let downloaded = capture(Command::new("go").args(download).current_dir(&module))?;
        let downloaded: Value = serde_json::from_str(&downloaded).context("go mod download printed no JSON")?;
        let source = downloaded.get("Dir").and_then(Value::as_str).context("go mod download named no folder")?;
        let file = Path::new(source).join("api/openapi-spec/swagger.json");
        let text = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        write_kinds(&serde_json::from_slice(&text)?, folder)
    })
}

fn write_kinds(openapi: &Value, folder: &Path) -> Result<()> {
    let definitions = openapi.get("definitions").and_then(Value::as_object).context("no definitions")?;
    for (name, definition) in definitions {
        let kinds = definition.get("x-kubernetes-group-version-kind").and_then(Value::as_array);
        // Options of every group share one definition; only kinds with a single identity are written in manifests.
        let Some([kind]) = kinds.map(Vec::as_slice) else { continue };
        let Some(file) = file_name(kind) else { continue };
        fs::write(folder.join(file), serde_json::to_vec(&self_contained(name, definitions))?)?;
    }
    Ok(())
}

/// `deployment-apps-v1.json`, `pod-v1.json`: kubeconform takes the first label of the group.
fn file_name(kind: &Value) -> Option<String> {
    let text = |key: &str| kind.get(key).and_then(Value::as_str);
    let group = text("group")?.split('.').next().unwrap_or_default().to_owned();
    let infix = if group.is_empty() { String::new() } else { format!("{group}-") };
    Some(format!("{}-{infix}{}.json", text("kind")?, text("version")?).to_lowercase())
}

/// A definition with all that it refers to.
fn self_contained(name: &str, definitions: &Map<String, Value>) -> Value {
    let mut reached = Map::new();
    let mut open = vec![name.to_owned()];
    while let Some(next) = open.pop() {
        let Some(definition) = definitions.get(&next).filter(|_| !reached.contains_key(&next)) else { continue };
        let mut names = BTreeSet::new();
        references(definition, &mut names);
        reached.insert(next.clone(), strict(&next, definition));
        open.extend(names);
    }
    json!({"$ref": format!("{DEFINITIONS}{name}"), "definitions": reached})
}

fn references(value: &Value, names: &mut BTreeSet<String>) {
    match value {
        Value::Object(members) => {
            if let Some(name) =
                members.get("$ref").and_then(Value::as_str).and_then(|text| text.strip_prefix(DEFINITIONS))
            {
                names.insert(name.to_owned());
            }
            members.values().for_each(|member| references(member, names));
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, names)),
        _ => {}
    }
}

/// Unknown members are refused, as the API server's strict validation does; numbers pass where Kubernetes takes both.
fn strict(name: &str, definition: &Value) -> Value {
    if name.ends_with(".IntOrString") || name.ends_with(".Quantity") {
        return json!({"type": ["string", "number"]});
    }
    let mut definition = definition.clone();
    if let Some(members) = definition.as_object_mut()
        && members.contains_key("properties")
        && !members.contains_key("additionalProperties")
        && !members.contains_key("x-kubernetes-preserve-unknown-fields")
    {
        members.insert("additionalProperties".to_owned(), Value::Bool(false));
    }
    definition
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_named_as_kubeconform_looks_for_them() {
        let name = |group, version, kind| file_name(&json!({"group": group, "version": version, "kind": kind}));
        assert_eq!(name("", "v1", "Pod").unwrap(), "pod-v1.json");
        assert_eq!(name("rbac.authorization.k8s.io", "v1", "ClusterRole").unwrap(), "clusterrole-rbac-v1.json");
    }

    #[test]
    fn a_schema_carries_what_it_refers_to() {
        let definitions = json!({
            "a": {"properties": {"b": {"$ref": "#/definitions/b"}}},
            "b": {"properties": {"self": {"$ref": "#/definitions/b"}, "q": {"$ref": "#/definitions/x.Quantity"}}},
            "x.Quantity": {"type": "string"},
            "other": {},
        });
        let schema = self_contained("a", definitions.as_object().unwrap());
        let names: Vec<_> = schema["definitions"].as_object().unwrap().keys().collect();
        assert_eq!(names, ["a", "b", "x.Quantity"]);
        assert_eq!(schema["definitions"]["a"]["additionalProperties"], false);
    }
}
