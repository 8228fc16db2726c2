//! The schema's rules for the backends besides S3 against the real API server (network I/O). As in [`crate::schema`] everything but the
//! objects that updates start from is a dry run.

use anyhow::Result;
use serde_json::{Value, json};

use crate::{
    schema::{all_accepted, all_refused, bucket, updates, with, without},
    support::{Scene, shared},
};

type Members = Vec<(&'static str, Value)>;

fn member(name: &str, value: &Value) -> Value {
    json!({"path": "p", "storage": {name: value}})
}

#[tokio::test]
async fn places_are_accepted_and_refused_by_their_rules() -> Result<()> {
    shared("schema-backends", async |scene| {
        all_accepted(
            scene,
            [
                json!({"path": "gs://models/a b/100%/ü+"}),
                json!({"path": "gcs://models", "storage": {"gcs": {"credentials": {"anonymous": true}}}}),
                json!({"path": "p", "storage": {"gcs": {"bucket": "models"}}}),
                json!({"path": "abfs://c@account.dfs.core.windows.net/p"}),
                json!({"path": "abfss://c@account.dfs.core.windows.net"}),
                json!({"path": "az://container/p", "storage": {"azure": {"account": "account"}}}),
                json!({"path": "p", "storage": {"azure": {"account": "account", "container": "$web"}}}),
                json!({"path": "https://models.example.com:8443/llama/model.gguf"}),
                json!({"path": "http://models/llama", "storage": {"http": {"insecure": true, "files": ["a", "b/c"]}}}),
                json!({"path": "p", "storage": {"http": {"url": "https://models.example.com/x", "manifest": "SHA256SUMS"}}}),
                json!({"path": "hf://org/name"}),
                json!({"path": "hf://datasets/org/name@v1.0/sub/folder", "storage": {"huggingFace": {"endpoint": "https://mirror"}}}),
                json!({"storage": {"huggingFace": {"repository": "gpt2", "revision": "refs/pr/1", "kind": "Dataset"}}}),
                member("gcs", &json!({"bucket": "b.b-b", "endpoint": "http://gcs:4443", "insecure": true})),
                member("gcs", &json!({"bucket": "bbb", "caBundle": {"configMapRef": {"name": "x"}}})),
                member("gcs", &json!({"bucket": "bbb", "credentials": {"secretRef": {"name": "x"}}})),
                member("azure", &json!({"account": "abc", "container": "ccc", "credentials": {"anonymous": true}})),
                member("azure", &json!({"account": "abc", "container": "ccc", "endpoint": "http://azurite:10000"})),
                member("http", &json!({"url": "https://h/a%20b", "credentials": {"secretRef": {"name": "x"}}})),
                member("huggingFace", &json!({"repository": "a/b.c-d_e", "credentials": {"secretRef": {"name": "x"}}})),
            ],
        )
        .await?;
        places_are_refused(scene).await?;
        settings_are_refused(scene).await
    })
    .await
}

async fn places_are_refused(scene: &Scene) -> Result<()> {
    let not_understood = "path is a URI that is not understood";
    let dots = "path must not contain the segments . and ..";
    all_refused(
        scene,
        [
            (json!({"path": "gs:///p"}), not_understood),
            (json!({"path": "gs://user@bucket/p"}), not_understood),
            (json!({"path": "abfs://c@account@x/p"}), not_understood),
            (json!({"path": "abfs://c@account:443/p"}), not_understood),
            (json!({"path": "https://user:password@host/p"}), not_understood),
            (json!({"path": "https:///p"}), not_understood),
            (json!({"path": "hf://"}), not_understood),
            (json!({"path": "gs://b/p", "storage": {"gcs": {"bucket": "models"}}}), "of storage, set only gcs"),
            (json!({"path": "gs://b/p", "storage": {"s3": {}}}), "path is a gs:// URI"),
            (json!({"path": "az://c/p", "storage": {"azure": {"container": "models"}}}), "of storage, set only azure"),
            (json!({"path": "abfs://c@a/p", "storage": {"gcs": {}}}), "of storage, set only azure"),
            (json!({"path": "https://h/p", "storage": {"http": {"url": "https://h"}}}), "of storage, set only http"),
            (json!({"path": "https://h/p", "storage": {"huggingFace": {}}}), "of storage, set only http"),
            (
                json!({"path": "hf://o/n", "storage": {"huggingFace": {"repository": "o/n"}}}),
                "of storage, set only huggingFace",
            ),
            (json!({"path": "hf://o/n", "storage": {"http": {}}}), "of storage, set only huggingFace"),
            (json!({"path": "https://h/p?signature=x"}), "this URI has no query"),
            (json!({"path": "gs://b/p?x=y"}), "this URI has no query"),
            (json!({"path": "abfs://c@a/p?x=y"}), "this URI has no query"),
            (json!({"path": "hf://o/n?x=y"}), "this URI has no query"),
            (json!({"path": "https://h/a/../b"}), dots),
            (json!({"path": "gs://b/./p"}), dots),
            (json!({"path": "p", "storage": {"gcs": {}}}), "set storage.gcs.bucket"),
            (json!({"path": "p", "storage": {"azure": {"account": "account"}}}), "set storage.azure.container"),
            (json!({"path": "p", "storage": {"http": {}}}), "set storage.http.url"),
            (json!({"path": "p", "storage": {"huggingFace": {}}}), "set storage.huggingFace.repository"),
            (
                json!({"storage": {"gcs": {"bucket": "models"}, "huggingFace": {"repository": "o/n"}}}),
                "set at most one of",
            ),
        ],
    )
    .await
}

async fn settings_are_refused(scene: &Scene) -> Result<()> {
    let credentials = "set either secretRef or anonymous: true";
    all_refused(
        scene,
        [
            (member("gcs", &json!({"bucket": "Bucket"})), "storage.gcs.bucket"),
            (member("gcs", &json!({"bucket": "a/b"})), "storage.gcs.bucket"),
            (member("gcs", &json!({"bucket": "bbb", "endpoint": "gcs:4443"})), "storage.gcs.endpoint"),
            (member("gcs", &json!({"bucket": "bbb", "credentials": {}})), credentials),
            (member("azure", &json!({"account": "a-b", "container": "ccc"})), "storage.azure.account"),
            (member("azure", &json!({"account": "abc", "container": "c_c"})), "storage.azure.container"),
            (member("azure", &json!({"account": "abc", "container": "ccc", "credentials": {}})), credentials),
            (member("http", &json!({"url": "https://u:p@h"})), "storage.http.url"),
            (member("http", &json!({"url": "https://h/x?y"})), "storage.http.url"),
            (member("http", &json!({"url": "h/x"})), "storage.http.url"),
            (member("http", &json!({"url": "https://h", "files": []})), "storage.http.files"),
            (member("http", &json!({"url": "https://h", "files": [""]})), "storage.http.files[0]"),
            (
                member("http", &json!({"url": "https://h", "files": ["a"], "manifest": "m"})),
                "set files or manifest, not both",
            ),
            (member("http", &json!({"url": "https://h", "credentials": {}})), "credentials.secretRef: Required"),
            (member("huggingFace", &json!({"repository": "a/b/c"})), "storage.huggingFace.repository"),
            (member("huggingFace", &json!({"repository": "a/b", "revision": "a b"})), "storage.huggingFace.revision"),
            (
                member("huggingFace", &json!({"repository": "a/b", "kind": "Space"})),
                "storage.huggingFace.kind: Unsupported value",
            ),
            (
                member("huggingFace", &json!({"repository": "a/b", "credentials": {}})),
                "credentials.secretRef: Required",
            ),
        ],
    )
    .await
}

/// Members by kind: what names the data with another value for it, and settings that may change.
fn table() -> [(&'static str, Value, Members, Members); 4] {
    [
        (
            "gcs",
            json!({"bucket": "models", "endpoint": "https://gcs"}),
            vec![("bucket", json!("others"))],
            vec![("endpoint", json!("https://other")), ("credentials", json!({"anonymous": true}))],
        ),
        (
            "azure",
            json!({"account": "abc", "container": "models", "endpoint": "https://blobs"}),
            vec![("account", json!("def")), ("container", json!("others"))],
            vec![("endpoint", json!("https://other")), ("credentials", json!({"anonymous": true}))],
        ),
        (
            "http",
            json!({"url": "https://h/x", "files": ["a", "b"]}),
            vec![("url", json!("https://h/y")), ("files", json!(["a"]))],
            vec![("insecure", json!(true)), ("credentials", json!({"secretRef": {"name": "x"}}))],
        ),
        (
            "huggingFace",
            json!({"repository": "org/name", "kind": "Model", "revision": "v1"}),
            vec![("repository", json!("org/other")), ("kind", json!("Dataset")), ("revision", json!("v2"))],
            vec![("endpoint", json!("https://mirror")), ("credentials", json!({"secretRef": {"name": "x"}}))],
        ),
    ]
}

#[tokio::test]
async fn what_names_the_data_cannot_be_changed() -> Result<()> {
    shared("schema-immutable-backends", async |scene| {
        for (kind, settings, data, connection) in table() {
            let before = member(kind, &settings);
            let at = |name: &str| format!("/storage/{kind}/{name}");
            let messages: Vec<_> =
                data.iter().map(|(name, _)| format!("storage.{kind}.{name} cannot be changed")).collect();
            let mut cases: Vec<(Value, Option<&str>)> = connection
                .iter()
                .map(|(name, value)| (with(before.clone(), &at(name), value.clone()), None))
                .chain([(bucket("p"), Some("the kind of storage cannot be changed"))])
                .collect();
            for ((name, value), message) in data.iter().zip(&messages) {
                cases.push((with(before.clone(), &at(name), value.clone()), Some(message)));
                cases.push((without(before.clone(), &at(name)), Some(message)));
            }
            updates(scene, &kind.to_lowercase(), &before, cases).await?;
        }
        let before = member("http", &json!({"url": "https://h/x", "manifest": "m"}));
        let other = with(before.clone(), "/storage/http/manifest", json!("n"));
        updates(scene, "web-manifest", &before, vec![(other, Some("storage.http.manifest cannot be changed"))]).await
    })
    .await
}
