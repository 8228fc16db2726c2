//! The schema of the resource against the real API server: every rule accepts and refuses what it should (network I/O).
//!
//! Everything but the objects that updates start from is a dry run, and those are suspended: no worker ever starts.

use anyhow::{Context, Result, bail};
use checkpoint_operator::api;
use checkpoint_operator_e2e::command::capture;
use checkpoint_operator_e2e::kubernetes::{CHECKPOINT, FIELD_MANAGER};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::{Map, Value, json};

use crate::support::{Scene, shared};

/// What the API server says of a spec: nothing, or why it refuses it.
async fn verdict(scene: &Scene, spec: &Value) -> Result<Option<String>> {
    let api = scene.kube.api(CHECKPOINT, &scene.namespace).await?;
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    let object = serde_json::from_value(scene.manifest("example", spec.clone()))?;
    refusal(api.create(&dry, &object).await)
}

/// What the API server says of a spec that replaces the one of an existing object.
async fn update_verdict(scene: &Scene, name: &str, spec: &Value) -> Result<Option<String>> {
    let api = scene.kube.api(CHECKPOINT, &scene.namespace).await?;
    // A patch, because the controller writes the status of these objects meanwhile and a replacement would conflict.
    let patch = serde_json::from_value(json!([{"op": "replace", "path": "/spec", "value": spec}]))?;
    let dry = PatchParams { dry_run: true, ..PatchParams::default() };
    refusal(api.patch(name, &dry, &Patch::<()>::Json(patch)).await)
}

fn refusal<T>(answer: kube::Result<T>) -> Result<Option<String>> {
    match answer {
        Ok(_) => Ok(None),
        Err(kube::Error::Api(status)) => Ok(Some(status.message.clone())),
        Err(error) => Err(error.into()),
    }
}

fn must_say(said: Option<String>, expected: &str, what: &Value) -> Result<()> {
    match said {
        None => bail!("accepted, but should have been refused with {expected:?}: {what}"),
        Some(said) if !said.contains(expected) => bail!("refused with {said:?}, not with {expected:?}: {what}"),
        Some(_) => Ok(()),
    }
}

pub(crate) async fn all_refused(scene: &Scene, cases: impl IntoIterator<Item = (Value, &str)>) -> Result<()> {
    for (spec, expected) in cases {
        must_say(verdict(scene, &spec).await?, expected, &spec)?;
    }
    Ok(())
}

pub(crate) async fn all_accepted(scene: &Scene, specs: impl IntoIterator<Item = Value>) -> Result<()> {
    for spec in specs {
        if let Some(said) = verdict(scene, &spec).await? {
            bail!("refused, but should have been accepted: {spec}: {said}");
        }
    }
    Ok(())
}

pub(crate) fn with(mut spec: Value, pointer: &str, value: Value) -> Value {
    let (parent, key) = pointer.rsplit_once('/').unwrap_or(("", pointer));
    if let Some(parent) = spec.pointer_mut(parent).and_then(Value::as_object_mut) {
        parent.insert(key.to_owned(), value);
    }
    spec
}

pub(crate) fn without(mut spec: Value, pointer: &str) -> Value {
    let (parent, key) = pointer.rsplit_once('/').unwrap_or(("", pointer));
    if let Some(parent) = spec.pointer_mut(parent).and_then(Value::as_object_mut) {
        parent.remove(key);
    }
    spec
}

pub(crate) fn bucket(path: &str) -> Value {
    json!({"path": path, "storage": {"s3": {"bucket": "models"}}})
}

fn s3(member: &str, value: Value) -> Value {
    with(bucket("p"), &format!("/storage/s3/{member}"), value)
}

pub fn spec_with(member: &str, value: Value) -> Value {
    with(json!({"path": "s3://models/p"}), &format!("/{member}"), value)
}

/// Every member that a spec can have.
pub fn everything() -> Value {
    let placement = json!({
        "nodeSelector": {"disk": "fast"},
        "tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}],
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]},
        ]}}},
    });
    json!({
        "path": "runs/a b/100%/ü+/checkpoint_000012",
        "storage": {"s3": {
            "bucket": "models", "region": "eu-west-1", "endpoint": "https://minio.storage.svc:9000", "addressing": "Path",
            "insecure": false, "caBundle": {"configMapRef": {"name": "ca", "key": "ca.crt"}},
            "credentials": {"secretRef": {"name": "s3"}},
        }},
        "serviceAccountName": "trainer",
        "validation": {
            "depth": "Content", "formats": ["HuggingFace", "Safetensors"], "requiredFiles": ["tokenizer.json"],
            "digest": format!("blake3:{}", "a".repeat(64)), "pickle": "Forbid", "code": "Allow",
        },
        "volumes": [
            {
                "claimName": "a", "reuseFrom": "step-1", "storageClassName": "fast", "accessModes": ["ReadWriteOnce", "ReadWriteMany"], "size": "20Gi", "parallelism": 2,
                "include": ["*.safetensors"], "exclude": ["optimizer*"], "placement": placement, "deletionPolicy": "Delete",
            },
            {"claimName": "b", "size": 1_073_741_824},
        ],
        "worker": {
            "resources": {"requests": {"cpu": "500m", "memory": "256Mi"}, "limits": {"cpu": 2}}, "placement": placement,
            "priorityClassName": "high", "imagePullSecrets": [{"name": "registry"}], "podLabels": {"team": "a"},
            "podAnnotations": {"note": "b"}, "runAsUser": 1000, "fsGroup": 1000,
        },
        "revalidateEvery": "24h",
        "suspend": true,
    })
}

#[tokio::test]
async fn the_installed_definition_is_that_of_the_source() -> Result<()> {
    shared("schema-definition", async |scene| {
        let definitions: Api<CustomResourceDefinition> = Api::all(scene.kube.client.clone());
        let installed = definitions.get("checkpoints.checkpoints.dev").await?;
        // Compared as the API types: JSON would tell 1 from 1.0.
        let differs = installed.spec.versions[0].schema != api::definition().spec.versions[0].schema;
        assert!(!differs, "the chart's definition is not that of src/api: regenerate both copies");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn places_are_accepted_and_refused_by_their_rules() -> Result<()> {
    shared("schema-places", async |scene| {
        all_accepted(
            scene,
            [
                bucket("p"),
                bucket(""),
                bucket("a/b/"),
                bucket("a..b/...c/d."),
                json!({"path": "s3://models"}),
                json!({"path": "s3://models/a b/100%/ü+"}),
                json!({"path": "s3://models/p", "storage": {"s3": {"region": "eu-west-1"}}}),
                json!({"path": "s3://models/p?"}),
                json!({"path": "s3://models/p?endpoint_override=minio:9000&scheme=http&region=eu", "storage": {"s3": {"insecure": true}}}),
                json!({"path": "pvc://claim/a/b"}),
                json!({"path": "pvc://claim"}),
                json!({"path": "p", "storage": {"persistentVolumeClaim": {"claimName": "claim"}}}),
                json!({"storage": {"inline": {"json": "{\"epoch\": 3}"}}}),
                everything(),
            ],
        )
        .await?;
        let (claim, inline) = (json!({"claimName": "claim"}), json!({"json": "{}"}));
        let (not_understood, where_it_lies) = ("path is a URI that is not understood", "say where the data lies");
        let query = "only endpoint_override, scheme and region are understood";
        let dots = "path must not contain the segments . and ..";
        all_refused(
            scene,
            [
                (json!({}), where_it_lies),
                (json!({"path": "p"}), where_it_lies),
                (json!({"path": "p", "storage": {}}), where_it_lies),
                (json!({"storage": {"s3": {"bucket": "models"}, "inline": inline}}), "set at most one of"),
                (json!({"storage": {"s3": {"bucket": "models"}, "persistentVolumeClaim": claim}}), "set at most one of"),
                (json!({"storage": {"persistentVolumeClaim": claim, "inline": inline}}), "set at most one of"),
                (json!({"path": "ftp://bucket/p"}), not_understood),
                (json!({"path": "s3://"}), not_understood),
                (json!({"path": "s3:///p"}), not_understood),
                (json!({"path": "s3://user:password@bucket/p"}), not_understood),
                (json!({"path": "s3://bucket:9000/p"}), not_understood),
                (json!({"path": "pvc:///p"}), not_understood),
                (json!({"path": "S3://bucket/p"}), not_understood),
                (json!({"path": "s3://models/p", "storage": {"s3": {"bucket": "models"}}}), "of storage, set only s3"),
                (json!({"path": "s3://models/p", "storage": {"persistentVolumeClaim": claim}}), "of storage, set only s3"),
                (json!({"path": "pvc://claim/p", "storage": {"persistentVolumeClaim": claim}}), "leave out storage"),
                (json!({"path": "pvc://claim/p", "storage": {"s3": {"bucket": "models"}}}), "leave out storage"),
                (json!({"path": "s3://models/p?versionId=3"}), query),
                (json!({"path": "s3://models/p?region=eu&access_key=x"}), query),
                (json!({"path": "s3://models/p?region="}), query),
                (json!({"path": "s3://models/p?region=eu?"}), query),
                (json!({"path": "pvc://claim/p?x=y"}), "this URI has no query"),
                (json!({"path": "p", "storage": {"s3": {}}}), "set storage.s3.bucket"),
                (json!({"path": "p", "storage": {"inline": inline}}), "inline data has no path"),
                (bucket("/a"), "leave out the slash at its start"),
                (bucket(".."), dots),
                (bucket("a/../b"), dots),
                (bucket("a/./b"), dots),
                (bucket("a/.."), dots),
                (json!({"path": "s3://models/../b"}), dots),
                (json!({"path": "s3://models/a/..?region=eu"}), dots),
                (json!({"path": "pvc://claim/.."}), dots),
                (bucket(&"p".repeat(1025)), "may not be more than 1024"),
            ],
        )
        .await
    })
    .await
}

#[tokio::test]
async fn connection_settings_are_accepted_and_refused_by_their_rules() -> Result<()> {
    shared("schema-connections", async |scene| {
        let credentials = "set either secretRef or anonymous: true";
        all_accepted(
            scene,
            [
                s3("credentials", json!({"anonymous": true})),
                s3("credentials", json!({"secretRef": {"name": "x"}, "anonymous": false})),
                s3("endpoint", json!("http://minio:9000/")),
                s3("caBundle", json!({"configMapRef": {"name": "x"}})),
                s3("addressing", json!("VirtualHosted")),
                s3("credentials", Value::Null),
                json!({"storage": {"inline": {"json": format!("{{\"a\": \"{}\"}}", "x".repeat(65536 - 9))}}}),
            ],
        )
        .await?;
        all_refused(
            scene,
            [
                (s3("credentials", json!({})), credentials),
                (s3("credentials", json!({"anonymous": false})), credentials),
                (s3("credentials", json!({"secretRef": {"name": "x"}, "anonymous": true})), credentials),
                (s3("credentials", json!({"secretRef": {"name": ""}})), "credentials.secretRef.name"),
                (s3("credentials", json!({"secretRef": {}})), "credentials.secretRef.name: Required"),
                (s3("bucket", json!("ab")), "storage.s3.bucket"),
                (s3("bucket", json!("a/b/c")), "storage.s3.bucket"),
                (s3("bucket", json!("a".repeat(64))), "storage.s3.bucket"),
                (s3("region", json!("eu west")), "storage.s3.region"),
                (s3("endpoint", json!("minio:9000")), "storage.s3.endpoint"),
                (s3("endpoint", json!("https://user@minio")), "storage.s3.endpoint"),
                (s3("endpoint", json!("https://minio/path")), "storage.s3.endpoint"),
                (s3("endpoint", json!("https://minio?x=y")), "storage.s3.endpoint"),
                (s3("addressing", json!("path")), "storage.s3.addressing: Unsupported value"),
                (s3("insecure", json!("yes")), "storage.s3.insecure"),
                (s3("caBundle", json!({"configMapRef": {"name": "x", "key": "a/b"}})), "caBundle.configMapRef.key"),
                (s3("caBundle", json!({"configMapRef": {}})), "caBundle.configMapRef.name: Required"),
                (s3("bucket", Value::Null), "set storage.s3.bucket"),
                (json!({"storage": {"persistentVolumeClaim": {"claimName": ""}}}), "persistentVolumeClaim.claimName"),
                (json!({"storage": {"inline": {"json": "x".repeat(65537)}}}), "storage.inline.json"),
                (json!({"storage": {"inline": {}}}), "storage.inline.json: Required"),
            ],
        )
        .await
    })
    .await
}

#[tokio::test]
async fn what_is_asked_of_a_checkpoint_is_accepted_and_refused_by_its_rules() -> Result<()> {
    shared("schema-validation", async |scene| {
        let every = "revalidateEvery";
        all_accepted(scene, ["5m", "300s", "1h30m", "24h", "0h5m"].map(|value| spec_with(every, json!(value)))).await?;
        let too_often = ["", "4m59s", "0h", "299s"].map(|value| (spec_with(every, json!(value)), "at least 5m"));
        all_refused(scene, too_often).await?;
        let malformed = ["5", "1d", "5 m", "-5m", "5m1h"].map(|value| (spec_with(every, json!(value)), every));
        all_refused(scene, malformed).await?;
        let asks = |member: &str, value: Value| spec_with("validation", json!({member: value}));
        let worker = |member: &str, value: Value| spec_with("worker", json!({member: value}));
        let many = |count: usize| (0..count).map(|number| (format!("k{number}"), json!("v"))).collect::<Map<_, _>>();
        all_accepted(
            scene,
            [
                asks("depth", json!("Listing")),
                asks("pickle", json!("TensorsOnly")),
                asks("code", json!("Forbid")),
                asks("formats", json!(["Onnx", "MlflowModel", "RunDirectory"])),
                asks("requiredFiles", json!(["**/*.json"])),
                worker("podLabels", json!(many(32))),
                worker("runAsUser", json!(1)),
                spec_with("volumes", json!([])),
            ],
        )
        .await?;
        all_refused(
            scene,
            [
                (asks("depth", json!("headers")), "validation.depth: Unsupported value"),
                (asks("formats", json!(["onnx"])), "validation.formats[0]: Unsupported value"),
                (asks("pickle", json!("Never")), "validation.pickle: Unsupported value"),
                (asks("code", json!("Never")), "validation.code: Unsupported value"),
                (asks("digest", json!("blake3:abc")), "validation.digest"),
                (asks("digest", json!(format!("sha256:{}", "a".repeat(64)))), "validation.digest"),
                (asks("digest", json!(format!("blake3:{}", "A".repeat(64)))), "validation.digest"),
                (asks("requiredFiles", json!([""])), "validation.requiredFiles[0]"),
                (asks("requiredFiles", json!(vec!["x"; 65])), "must have at most 64 items"),
                (worker("runAsUser", json!(0)), "worker.runAsUser"),
                (worker("fsGroup", json!(0)), "worker.fsGroup"),
                (worker("podLabels", json!(many(33))), "worker.podLabels"),
                (worker("podAnnotations", json!(many(33))), "worker.podAnnotations"),
                (worker("imagePullSecrets", json!([{"name": ""}])), "worker.imagePullSecrets[0].name"),
                (worker("imagePullSecrets", json!(vec![json!({"name": "x"}); 17])), "must have at most 16 items"),
                (worker("resources", json!({"requests": {"cpu": "lots"}})), "worker.resources.requests.cpu"),
                (spec_with("serviceAccountName", json!("")), "spec.serviceAccountName"),
                (spec_with("suspend", json!("no")), "spec.suspend"),
            ],
        )
        .await
    })
    .await
}

/// An object that is there, suspended, and what the API server says of other specs for it.
pub(crate) async fn updates(
    scene: &Scene,
    name: &str,
    before: &Value,
    cases: Vec<(Value, Option<&str>)>,
) -> Result<()> {
    let before = with(before.clone(), "/suspend", json!(true));
    scene.checkpoint(name, before).await?;
    for (after, expected) in cases {
        let after = with(after, "/suspend", json!(true));
        let said = update_verdict(scene, name, &after).await?;
        match (expected, said) {
            (None, None) => {}
            (None, Some(said)) => bail!("{name}: refused, but should have been accepted: {after}: {said}"),
            (Some(expected), said) => must_say(said, expected, &after).with_context(|| name.to_owned())?,
        }
    }
    Ok(())
}

#[tokio::test]
async fn what_names_the_data_cannot_be_changed() -> Result<()> {
    shared("schema-immutable-data", async |scene| {
        let (path, kind) = ("path cannot be changed", "the kind of storage cannot be changed");
        let storage = "storage cannot be added or removed";
        let claim = json!({"persistentVolumeClaim": {"claimName": "claim"}});
        let all = everything();
        updates(
            scene,
            "bucket",
            &all,
            vec![
                (with(all.clone(), "/path", json!("other")), Some(path)),
                (without(all.clone(), "/path"), Some(path)),
                (with(all.clone(), "/path", json!("s3://models/p")), Some(path)),
                (with(all.clone(), "/storage/s3/bucket", json!("other")), Some("storage.s3.bucket cannot be changed")),
                (without(all.clone(), "/storage/s3/bucket"), Some("storage.s3.bucket cannot be changed")),
                (with(all.clone(), "/storage", claim.clone()), Some(kind)),
                (with(all.clone(), "/storage/inline", json!({"json": "{}"})), Some(kind)),
                (without(all.clone(), "/storage"), Some(storage)),
                (with(all.clone(), "/storage/s3/endpoint", json!("https://other:9000")), None),
                (without(all.clone(), "/storage/s3/endpoint"), None),
                (with(all.clone(), "/storage/s3/region", json!("other")), None),
                (without(all.clone(), "/storage/s3/caBundle"), None),
                (with(all.clone(), "/storage/s3/credentials", json!({"secretRef": {"name": "other"}})), None),
                (without(all.clone(), "/storage/s3/credentials"), None),
                (with(all.clone(), "/serviceAccountName", json!("other")), None),
                (without(all.clone(), "/validation"), None),
                (without(all.clone(), "/worker"), None),
                (without(all.clone(), "/revalidateEvery"), None),
            ],
        )
        .await?;
        let uri = json!({"path": "s3://models/p?region=eu"});
        updates(
            scene,
            "uri",
            &uri,
            vec![
                (with(uri.clone(), "/storage", json!({"s3": {"region": "eu"}})), Some(storage)),
                (with(uri.clone(), "/path", json!("s3://models/p")), Some(path)),
                (with(uri.clone(), "/storage", json!({"s3": {"bucket": "models"}})), Some(storage)),
            ],
        )
        .await?;
        let uri = json!({"path": "s3://models/p", "storage": {"s3": {"region": "eu"}}});
        updates(
            scene,
            "uri-and-settings",
            &uri,
            vec![
                (without(uri.clone(), "/storage"), Some(storage)),
                (with(uri.clone(), "/storage/s3/bucket", json!("models")), Some("storage.s3.bucket cannot be changed")),
                (with(uri.clone(), "/storage", json!({})), Some(kind)),
                (with(uri.clone(), "/storage/s3/region", json!("us")), None),
                (with(uri.clone(), "/storage/s3/endpoint", json!("https://minio")), None),
            ],
        )
        .await?;
        let spec = with(json!({"path": "p"}), "/storage", claim);
        let renamed = with(spec.clone(), "/storage/persistentVolumeClaim/claimName", json!("other"));
        let message = "storage.persistentVolumeClaim.claimName cannot be changed";
        updates(scene, "claim", &spec, vec![(renamed, Some(message)), (bucket("p"), Some(kind))]).await?;
        let spec = json!({"storage": {"inline": {"json": "{}"}}});
        let changed = with(spec.clone(), "/storage/inline/json", json!("{\"a\": 1}"));
        updates(scene, "inline", &spec, vec![(changed, Some("storage.inline.json cannot be changed"))]).await
    })
    .await
}

#[tokio::test]
async fn unknown_fields_are_refused_when_asked_for() -> Result<()> {
    shared("schema-unknown-fields", async |scene| {
        let api = scene.kube.api(CHECKPOINT, &scene.namespace).await?;
        // What kubectl asks for unless told otherwise.
        let strict = PatchParams { dry_run: true, ..PatchParams::apply(FIELD_MANAGER).validation_strict() };
        for (pointer, value) in [
            ("/storge", json!({})),
            ("/storage/gs", json!({"bucket": "b"})),
            ("/storage/huggingFace", json!({"repository": "a/b", "token": "x"})),
            ("/storage/s3/secretRef", json!({"name": "x"})),
            ("/storage/s3/credentials", json!({"secretRef": {"name": "x", "namespace": "other"}})),
            ("/validation", json!({"codes": "Allow"})),
            ("/select", json!({"latest": {}})),
        ] {
            let manifest = scene.manifest("unknown", with(bucket("p"), pointer, value));
            let said = refusal(api.patch("unknown", &strict, &Patch::Apply(&manifest)).await)?;
            must_say(said, "field not declared in schema", &manifest)?;
        }
        Ok(())
    })
    .await
}

/// The properties without a description.
fn undescribed(schema: &Value, path: &str, found: &mut Vec<String>) {
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        if property["description"].as_str().unwrap_or_default().trim().is_empty() {
            found.push(path.clone());
        }
        undescribed(property, &path, found);
        undescribed(&property["items"], &path, found);
    }
}

#[tokio::test]
async fn explain_reads_well_down_to_each_leaf() -> Result<()> {
    shared("schema-explain", async |scene| {
        let kind = "apiextensions.k8s.io/v1/CustomResourceDefinition";
        let installed = scene.kube.get(kind, "", "checkpoints.checkpoints.dev").await?.context("no definition")?;
        let schema = &installed.data["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        let mut missing = Vec::new();
        for part in ["spec", "status"] {
            undescribed(&schema["properties"][part], part, &mut missing);
        }
        assert!(missing.is_empty(), "without a description: {missing:#?}");
        let explain = |what: &[&str]| capture(scene.cluster.kubectl()?.arg("explain").args(what));
        let tree = explain(&["checkpoint.spec", "--recursive"])?;
        for field in
            ["path\t<string>", "claimName\t<string> -required-", "secretRef\t<Object>", "tolerations\t<[]Object>"]
        {
            assert!(tree.contains(field), "{field:?} is not in\n{tree}");
        }
        for (field, text) in [
            ("ckpt", "proves that it is complete"),
            ("checkpoint.spec.path", "below the root of the storage"),
            ("checkpoint.spec.volumes.claimName", "which pods put into"),
            ("checkpoint.spec.storage.s3.credentials.secretRef.name", "The Secret's name"),
            ("checkpoint.spec.worker.resources.limits", "at most"),
            ("checkpoint.status.volumes.remainingSeconds", "Time left"),
        ] {
            let said = explain(&[field])?;
            // kubectl breaks lines wherever they are full.
            let words = said.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(words.contains(text), "{field}: {text:?} is not in\n{said}");
        }
        Ok(())
    })
    .await
}
