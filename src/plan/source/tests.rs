//! Every kind of place, as users write it.

use serde_json::{Value, json};

use super::*;
use crate::contract::{AzureTask, Connection, GcsTask, HttpTask, HuggingFaceTask};

fn read(spec: &Value) -> Outcome {
    let storage: Option<Storage> = serde_json::from_value(spec["storage"].clone()).unwrap();
    locate(spec["path"].as_str().unwrap_or_default(), storage.as_ref())
}

fn gcs(spec: &Value) -> GcsTask {
    let Source::Gcs(task) = read(spec).unwrap().source else { panic!("{spec}") };
    task
}

fn azure(spec: &Value) -> AzureTask {
    let Source::Azure(task) = read(spec).unwrap().source else { panic!("{spec}") };
    task
}

fn http(spec: &Value) -> HttpTask {
    let Source::Http(task) = read(spec).unwrap().source else { panic!("{spec}") };
    task
}

fn hub(spec: &Value) -> HuggingFaceTask {
    let Source::HuggingFace(task) = read(spec).unwrap().source else { panic!("{spec}") };
    task
}

#[test]
fn each_kind_is_located() {
    let account = json!({"azure": {"account": "acct"}});
    for (spec, uri) in [
        (json!({"path": "gs://models/a b/100%"}), "gs://models/a b/100%"),
        (json!({"path": "gcs://models/x/"}), "gs://models/x"),
        (json!({"path": "gs://models", "storage": {"gcs": {"credentials": {"anonymous": true}}}}), "gs://models"),
        (json!({"path": "x", "storage": {"gcs": {"bucket": "models"}}}), "gs://models/x"),
        (json!({"path": "abfs://c-1@acct.dfs.core.windows.net/x/y"}), "abfs://c-1@acct.dfs.core.windows.net/x/y"),
        (json!({"path": "abfss://c-1@acct.dfs.core.windows.net/x"}), "abfs://c-1@acct.dfs.core.windows.net/x"),
        (json!({"path": "abfs://c-1@acct.blob.core.windows.net"}), "abfs://c-1@acct.dfs.core.windows.net"),
        (json!({"path": "abfs://c-1@acct"}), "abfs://c-1@acct.dfs.core.windows.net"),
        (json!({"path": "abfs://c-1@acct.dfs.core.chinacloudapi.cn/x"}), "abfs://c-1@acct.dfs.core.chinacloudapi.cn/x"),
        (json!({"path": "az://c-1/x", "storage": account}), "abfs://c-1@acct.dfs.core.windows.net/x"),
        (json!({"path": "abfs://c-1/x", "storage": account}), "abfs://c-1@acct.dfs.core.windows.net/x"),
        (
            json!({"path": "x", "storage": {"azure": {"account": "acct", "container": "$web"}}}),
            "abfs://$web@acct.dfs.core.windows.net/x",
        ),
        (json!({"path": "https://h.test:8443/a/b.gguf"}), "https://h.test:8443/a/b.gguf"),
        (json!({"path": "https://h.test/a/", "storage": {"http": {"files": ["x"]}}}), "https://h.test/a"),
        (json!({"path": "x", "storage": {"http": {"url": "https://h.test/a/"}}}), "https://h.test/a/x"),
        (json!({"storage": {"http": {"url": "https://h.test"}}}), "https://h.test"),
        (json!({"path": "hf://org/name"}), "hf://org/name@main"),
        (json!({"path": "hf://models/org/name/sub/x"}), "hf://org/name@main/sub/x"),
        (json!({"path": "hf://org/na.me@v1.0/sub"}), "hf://org/na.me@v1.0/sub"),
        (json!({"path": "hf://org/name@refs/pr/12/sub"}), "hf://org/name@refs/pr/12/sub"),
        (json!({"path": "hf://datasets/org/name@refs/convert/parquet"}), "hf://datasets/org/name@refs/convert/parquet"),
        (
            json!({"path": "sub", "storage": {"huggingFace": {"repository": "gpt2", "revision": "refs/pr/1", "kind": "Dataset"}}}),
            "hf://datasets/gpt2@refs/pr/1/sub",
        ),
    ] {
        assert_eq!(read(&spec).unwrap_or_else(|error| panic!("{spec}: {error}")).uri, uri, "{spec}");
    }
}

#[test]
fn settings_reach_the_task() {
    let settings = |more: Value| {
        let mut settings = json!({
            "endpoint": "http://emulator:10000/", "insecure": true, "caBundle": {"configMapRef": {"name": "ca"}},
            "credentials": {"secretRef": {"name": "keys"}},
        });
        settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        settings
    };
    let expected = Connection {
        endpoint: Some("http://emulator:10000".into()),
        insecure: true,
        ca: Some("ca/ca.crt".into()),
        access: Access::Secret("keys".into()),
    };
    let task = gcs(&json!({"path": "p", "storage": {"gcs": settings(json!({"bucket": "b"}))}}));
    assert_eq!(task, GcsTask { bucket: "b".into(), path: "p".into(), connection: expected.clone() });
    let task =
        azure(&json!({"path": "abfs://c@acct.dfs.core.windows.net/p", "storage": {"azure": settings(json!({}))}}));
    assert_eq!((task.account.as_str(), task.container.as_str(), task.path.as_str()), ("acct", "c", "p"));
    assert_eq!(task.connection, expected);
    let task = hub(&json!({"path": "hf://o/n@v2/p", "storage": {"huggingFace": settings(json!({}))}}));
    assert_eq!((task.repository.as_str(), task.revision.as_str(), task.path.as_str()), ("o/n", "v2", "p"));
    assert_eq!((task.dataset, &task.connection), (false, &expected));
    let http_settings = json!({"url": "http://h/a", "insecure": true, "manifest": "SHA256SUMS", "credentials": {"secretRef": {"name": "keys"}}});
    let task = http(&json!({"path": "p", "storage": {"http": http_settings}}));
    assert_eq!((task.url.as_str(), task.manifest.as_deref()), ("http://h/a/p", Some("SHA256SUMS")));
    assert_eq!(task.connection.access, Access::Secret("keys".into()));
}

#[test]
fn who_reads_when_nothing_is_said() {
    assert_eq!(gcs(&json!({"path": "gs://b"})).connection.access, Access::Ambient);
    assert_eq!(azure(&json!({"path": "abfs://c@a"})).connection.access, Access::Ambient);
    assert_eq!(http(&json!({"path": "https://h/x"})).connection.access, Access::Anonymous);
    assert_eq!(hub(&json!({"path": "hf://o/n"})).connection.access, Access::Anonymous);
    let other = azure(&json!({"path": "abfs://c@a.dfs.core.chinacloudapi.cn"}));
    assert_eq!(other.connection.endpoint.as_deref(), Some("https://a.blob.core.chinacloudapi.cn"));
    let named = json!({"path": "abfs://c@a.dfs.core.windows.net", "storage": {"azure": {"endpoint": "https://e"}}});
    assert_eq!(azure(&named).connection.endpoint.as_deref(), Some("https://e"));
}

#[test]
fn what_is_wrong_is_said_with_a_remedy() {
    let s3 = json!({"s3": {}});
    let (spec, path, insecure) = (Reason::InvalidSpec, Reason::InvalidPath, Reason::InsecureEndpoint);
    for (written, reason, part) in [
        (json!({"path": "gs://b/p", "storage": s3}), spec, "of storage, set only gcs"),
        (json!({"path": "gs://b/p", "storage": {"gcs": {"bucket": "b"}}}), spec, "path is a gs:// URI"),
        (json!({"path": "gs:///p"}), spec, "is not a bucket"),
        (json!({"path": "gs://b?x=y"}), spec, "no query"),
        (json!({"path": "gs://b/../x"}), path, "\"..\""),
        (json!({"path": "p", "storage": {"gcs": {}}}), spec, "storage.gcs.bucket"),
        (json!({"path": "abfs://c@a/p", "storage": s3}), spec, "of storage, set only azure"),
        (json!({"path": "abfs://c@a/p", "storage": {"azure": {"container": "c"}}}), spec, "an abfs:// URI"),
        (
            json!({"path": "abfs://c@a/p", "storage": {"azure": {"account": "b"}}}),
            spec,
            "leave out storage.azure.account",
        ),
        (json!({"path": "az://c/p"}), spec, "storage.azure.account"),
        (json!({"path": "abfs://c@a.evil.test/p"}), spec, "not a host of Azure"),
        (json!({"path": "abfs://c@a.dfs.core.windows.net.evil.test/p"}), spec, "not a host of Azure"),
        (json!({"path": "abfs://c@/p"}), spec, "no storage account"),
        (json!({"path": "https://h/p", "storage": {"gcs": {}}}), spec, "of storage, set only http"),
        (json!({"path": "https://h/p", "storage": {"http": {"url": "https://h"}}}), spec, "leave out its url"),
        (json!({"path": "https://u:p@h/p"}), spec, "no user name"),
        (json!({"path": "https://h/p?sig=x"}), spec, "signed addresses"),
        (json!({"path": "https:///p"}), spec, "needs a host"),
        (json!({"path": "http://h/p"}), insecure, "storage.http.insecure"),
        (json!({"path": "https://h/a/../b"}), path, "\"..\""),
        (
            json!({"storage": {"http": {"url": "https://h", "files": ["a"], "manifest": "b"}}}),
            spec,
            "files or manifest, not both",
        ),
        (json!({"storage": {"http": {"url": "https://h", "files": ["a", "../b"]}}}), spec, "files[1]"),
        (json!({"storage": {"http": {"url": "https://h", "files": ["a/"]}}}), spec, "files[0]"),
        (json!({"storage": {"http": {"url": "https://h", "manifest": "/b"}}}), spec, "storage.http.manifest"),
        (json!({"path": "p", "storage": {"http": {}}}), spec, "storage.http.url"),
        (json!({"path": "hf://org"}), spec, "hf://organisation/repository"),
        (json!({"path": "hf://org/name?x"}), spec, "no query"),
        (
            json!({"path": "hf://org/name@v1", "storage": {"huggingFace": {"revision": "v2"}}}),
            spec,
            "names the revision",
        ),
        (json!({"path": "hf://org/name@.."}), spec, "no branch, tag or commit"),
        (json!({"path": "hf://org/..name"}), spec, "not a repository"),
        (json!({"path": "hf://org/name", "storage": s3}), spec, "of storage, set only huggingFace"),
        (
            json!({"path": "hf://o/n", "storage": {"huggingFace": {"repository": "o/n"}}}),
            spec,
            "leave out its repository",
        ),
        (json!({"storage": {"huggingFace": {"repository": "a/b/c"}}}), spec, "not a repository"),
        (json!({"storage": {"huggingFace": {}}}), spec, "storage.huggingFace.repository"),
        (
            json!({"path": "hf://o/n", "storage": {"huggingFace": {"endpoint": "http://h"}}}),
            insecure,
            "storage.huggingFace.insecure",
        ),
        (json!({"path": "pvc://c/x", "storage": {"gcs": {}}}), spec, "leave out storage"),
        (json!({"storage": {"gcs": {"bucket": "b"}, "http": {"url": "https://h"}}}), spec, "at most one of"),
        (json!({"path": "oci://x/y"}), spec, "oci:// is not understood"),
    ] {
        let refused = read(&written).err().unwrap_or_else(|| panic!("{written} is accepted"));
        assert_eq!(refused.reason, reason, "{written}: {refused}");
        assert!(refused.message.contains(part), "{written}: {refused}");
    }
}
