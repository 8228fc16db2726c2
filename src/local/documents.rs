//! What a user hands to `run`: manifests in, typed objects out, with the defaults and refusals of an API server. Pure, no I/O.

use std::collections::BTreeMap;

use base64::{Engine, prelude::BASE64_STANDARD};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;

use crate::{
    api::{self, Checkpoint, GROUP, VERSION},
    yaml::{self, YamlError},
};

use super::{schema, world::is_dns_subdomain};

/// Files by key.
pub type Files = BTreeMap<String, Vec<u8>>;

/// The documents of all inputs.
#[derive(Clone, Default)]
pub struct Documents {
    /// Checkpoints in the order of the input, with a namespace and a UID that depends on their name alone.
    pub checkpoints: Vec<Checkpoint>,
    /// Secrets by namespace and name.
    pub secrets: BTreeMap<(String, String), Files>,
    /// `ConfigMaps` by namespace and name.
    pub config_maps: BTreeMap<(String, String), Files>,
    /// What was left alone, such as `Deployment/web`.
    pub skipped: Vec<String>,
}

/// Names what is there, and nothing that is secret.
impl std::fmt::Debug for Documents {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Documents")
            .field("checkpoints", &self.checkpoints.len())
            .field("secrets", &self.secrets.keys())
            .field("config_maps", &self.config_maps.keys())
            .finish_non_exhaustive()
    }
}

/// An input that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// Not YAML.
    #[error("{input}: {source}")]
    Yaml {
        /// The input's name.
        input: String,
        /// What is wrong.
        source: YamlError,
    },
    /// Not what its kind allows.
    #[error("{input}: {object}: {}", .problems.join("; "))]
    Invalid {
        /// The input's name.
        input: String,
        /// Such as `Checkpoint/llama`.
        object: String,
        /// What is wrong.
        problems: Vec<String>,
    },
}

impl Documents {
    /// Reads one input; `name` is for messages.
    ///
    /// # Errors
    /// When it is not YAML, or one of its Checkpoints, Secrets or `ConfigMaps` would be refused by an API server.
    pub fn read(&mut self, name: &str, text: &str) -> Result<(), DocumentError> {
        let values = yaml::documents(text).map_err(|source| DocumentError::Yaml { input: name.to_owned(), source })?;
        for value in values {
            self.take(name, value)?;
        }
        Ok(())
    }

    fn take(&mut self, input: &str, mut value: Value) -> Result<(), DocumentError> {
        let kind = value["kind"].as_str().unwrap_or_default().to_owned();
        let version = value["apiVersion"].as_str().unwrap_or_default().to_owned();
        if version == "v1" && kind == "List" {
            let items = value["items"].take();
            return items.as_array().into_iter().flatten().try_for_each(|item| self.take(input, item.clone()));
        }
        let object = format!("{kind}/{}", value["metadata"]["name"].as_str().unwrap_or("?"));
        let invalid = |problems| DocumentError::Invalid { input: input.to_owned(), object: object.clone(), problems };
        match (version.as_str(), kind.as_str()) {
            ("", _) | (_, "") => Err(invalid(vec!["apiVersion and kind are required".to_owned()])),
            ("v1", "Secret") => {
                let files = files(&value, "data", "stringData").map_err(|problem| invalid(vec![problem]))?;
                self.secrets.insert(key(&value), files);
                Ok(())
            }
            ("v1", "ConfigMap") => {
                let files = files(&value, "binaryData", "data").map_err(|problem| invalid(vec![problem]))?;
                self.config_maps.insert(key(&value), files);
                Ok(())
            }
            (version, "Checkpoint") if version.starts_with(&format!("{GROUP}/")) => {
                let checkpoint = checkpoint(&value).map_err(invalid)?;
                if self.checkpoints.iter().any(|other| other.metadata.uid == checkpoint.metadata.uid) {
                    return Err(invalid(vec!["there are two Checkpoints of this name".to_owned()]));
                }
                self.checkpoints.push(checkpoint);
                Ok(())
            }
            _ => {
                self.skipped.push(object);
                Ok(())
            }
        }
    }
}

fn key(value: &Value) -> (String, String) {
    let text = |field: &str| value["metadata"][field].as_str().unwrap_or_default().to_owned();
    let namespace = if text("namespace").is_empty() { "default".to_owned() } else { text("namespace") };
    (namespace, text("name"))
}

fn files(value: &Value, encoded: &str, plain: &str) -> Result<Files, String> {
    let mut files = Files::new();
    let text = |field: &str, key: &str, value: &Value| {
        value.as_str().map(str::to_owned).ok_or_else(|| format!("{field}.{key} must be text"))
    };
    for (key, value) in value[encoded].as_object().into_iter().flatten() {
        let bytes = BASE64_STANDARD
            .decode(text(encoded, key, value)?.trim())
            .map_err(|error| format!("{encoded}.{key} is not base64: {error}"))?;
        files.insert(key.clone(), bytes);
    }
    for (key, value) in value[plain].as_object().into_iter().flatten() {
        files.insert(key.clone(), text(plain, key, value)?.into_bytes());
    }
    // Keys become names of files.
    let is_key = |key: &str| {
        key.len() <= 253
            && key != "."
            && key != ".."
            && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    match files.keys().find(|key| !is_key(key)) {
        Some(key) => Err(format!("{key:?} is not a key that Kubernetes accepts")),
        None => Ok(files),
    }
}

fn checkpoint(value: &Value) -> Result<Checkpoint, Vec<String>> {
    let mut problems = Vec::new();
    if value["apiVersion"] != format!("{GROUP}/{VERSION}").as_str() {
        problems.push(format!("apiVersion must be {GROUP}/{VERSION}"));
    }
    for field in value.as_object().into_iter().flat_map(serde_json::Map::keys) {
        if !["apiVersion", "kind", "metadata", "spec", "status"].contains(&field.as_str()) {
            problems.push(format!("unknown field {field:?}"));
        }
    }
    problems.extend(metadata_problems(&value["metadata"]));
    let spec = spec_schema();
    if value.get("spec").is_none() {
        problems.push("spec is required".to_owned());
    } else {
        problems.extend(schema::problems(&spec, &value["spec"], "spec"));
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let mut value = value.clone();
    // Status is written by observers alone, as on the API server.
    if let Some(object) = value.as_object_mut() {
        object.remove("status");
    }
    let mut checkpoint: Checkpoint = serde_json::from_value(value).map_err(|error| vec![error.to_string()])?;
    let metadata = &mut checkpoint.metadata;
    let namespace = metadata.namespace.get_or_insert_with(|| "default".to_owned()).clone();
    metadata.uid = Some(stable_uid(&namespace, metadata.name.as_deref().unwrap_or_default()));
    Ok(checkpoint)
}

fn metadata_problems(metadata: &Value) -> Vec<String> {
    let mut problems = Vec::new();
    let schema = schemars::schema_for!(ObjectMeta);
    for field in metadata.as_object().into_iter().flat_map(serde_json::Map::keys) {
        if schema.as_value()["properties"].get(field).is_none() {
            problems.push(format!("unknown field {:?}", format!("metadata.{field}")));
        }
    }
    match metadata["name"].as_str() {
        None | Some("") => problems.push("metadata.name is required".to_owned()),
        Some(name) if !is_dns_subdomain(name) => {
            problems.push(format!("metadata.name: {name:?} is not a name that Kubernetes accepts"));
        }
        Some(_) => {}
    }
    problems
}

fn spec_schema() -> Value {
    let definition = serde_json::to_value(api::definition()).unwrap_or_default();
    definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"].clone()
}

/// A UID that is the same in every run, so that a second run continues what the first began.
fn stable_uid(namespace: &str, name: &str) -> String {
    let hash = blake3::hash(format!("checkpoints.dev/laptop\0{namespace}\0{name}").as_bytes()).to_hex();
    [&hash[..8], &hash[8..12], &hash[12..16], &hash[16..20], &hash[20..32]].join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "apiVersion: checkpoints.dev/v1alpha1\nkind: Checkpoint\nmetadata: {name: llama}\nspec: {path: \"s3://bucket/x\", volumes: [{claimName: llama}]}\n";

    fn read(text: &str) -> Result<Documents, DocumentError> {
        let mut documents = Documents::default();
        documents.read("test.yaml", text).map(|()| documents)
    }

    #[test]
    fn a_manifest_with_other_things_in_it_works() {
        let text = format!(
            "{GOOD}---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: web}}\n---\napiVersion: v1\nkind: Secret\nmetadata: {{name: keys}}\ndata: {{A: eHg=}}\nstringData: {{B: yy}}\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: ca, namespace: ml}}\ndata: {{ca.crt: PEM}}\n"
        );
        let documents = read(&text).unwrap();
        assert_eq!(documents.skipped, ["Deployment/web"]);
        let secret = &documents.secrets[&("default".to_owned(), "keys".to_owned())];
        assert_eq!((secret["A"].as_slice(), secret["B"].as_slice()), (&b"xx"[..], &b"yy"[..]));
        assert!(documents.config_maps.contains_key(&("ml".to_owned(), "ca".to_owned())));
        let checkpoint = &documents.checkpoints[0];
        assert_eq!(checkpoint.metadata.namespace.as_deref(), Some("default"));
        assert_eq!(checkpoint.metadata.uid, read(GOOD).unwrap().checkpoints[0].metadata.uid);
        assert_eq!(checkpoint.metadata.uid.as_ref().unwrap().len(), 36);
        assert!(!format!("{documents:?}").contains("120"), "no bytes of secrets in debug output");
    }

    #[test]
    fn lists_are_taken_apart() {
        let text = "apiVersion: v1\nkind: List\nitems: [{apiVersion: v1, kind: Service, metadata: {name: a}}]\n";
        assert_eq!(read(text).unwrap().skipped, ["Service/a"]);
    }

    #[test]
    fn what_an_api_server_refuses_is_refused() {
        for (from, to, expected) in [
            ("name: llama}\n", "name: Llama}\n", "not a name"),
            ("metadata: {name: llama}", "metadata: {}", "metadata.name is required"),
            ("metadata: {name: llama}", "metadata: {name: llama, nme: x}", "unknown field \"metadata.nme\""),
            ("path:", "paht:", "unknown field \"spec.paht\""),
            ("[{claimName: llama}]", "[{claimName: llama, sise: 1}]", "unknown field \"spec.volumes[0].sise\""),
            ("[{claimName: llama}]", "[{}]", "spec.volumes[0].claimName is required"),
            ("[{claimName: llama}]", "[{claimName: -x}]", "does not match"),
            ("[{claimName: llama}]", "[{claimName: llama, accessModes: [Some]}]", "must be one of"),
            ("[{claimName: llama}]", "7", "spec.volumes must be a list, not a number"),
            ("v1alpha1", "v1beta9", "apiVersion must be checkpoints.dev/v1alpha1"),
            ("spec:", "extra: 1\nspec:", "unknown field \"extra\""),
            ("kind: Checkpoint\n", "", "apiVersion and kind are required"),
        ] {
            let problem = read(&GOOD.replace(from, to)).unwrap_err().to_string();
            assert!(problem.contains(expected), "{to}: {problem}");
        }
        assert!(read(&format!("{GOOD}---\n{GOOD}")).unwrap_err().to_string().contains("two Checkpoints"));
        let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\nstringData: {../x: y}\n";
        assert!(read(secret).unwrap_err().to_string().contains("not a key"));
        assert!(read("a: 1\na: 2\n").unwrap_err().to_string().starts_with("test.yaml: document 1"));
    }

    #[test]
    fn free_form_members_stay_free() {
        let affinity = "{claimName: llama, size: 20Gi, placement: {affinity: {nodeAffinity: {x: 1}}, tolerations: [{key: a, operator: Exists}]}}";
        read(&GOOD.replace("{claimName: llama}", affinity)).unwrap();
    }
}
