//! The chart's values and versions fit the code. Reads files.

use checkpoint_operator::api::{Amount, Worker};
use serde_json::Value;

use super::{examples::unknown, read, repository};

fn chart_file(name: &str) -> Value {
    serde_yaml::from_str(&read(&repository("charts/checkpoint-operator").join(name))).unwrap()
}

/// The controller takes them as the JSON of `--worker-defaults`.
#[test]
fn worker_values_are_defaults_of_the_spec() {
    let worker: Worker = serde_json::from_value(chart_file("values.yaml")["worker"].clone()).unwrap();
    assert_eq!((worker.run_as_user, worker.fs_group), (Some(65532), Some(65532)));
    let resources = worker.resources.unwrap();
    assert_eq!(resources.requests["memory"], Amount::Text("256Mi".to_owned()));
    assert_eq!(resources.limits["memory"], Amount::Text("512Mi".to_owned()));
    assert_eq!(unknown::<Worker>(&chart_file("ci/everything-values.yaml")["worker"]), Vec::<String>::new());
}

/// Every member of `spec.worker` has a default in the chart, and every default a schema.
#[test]
fn worker_values_and_their_schema_have_the_members_of_the_spec() {
    let names = |object: &Value| {
        let mut names: Vec<_> = object.as_object().unwrap().keys().cloned().collect();
        names.sort();
        names
    };
    let definition = serde_json::to_value(checkpoint_operator::api::definition()).unwrap();
    let spec = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"];
    let expected = names(&spec["worker"]["properties"]);
    assert_eq!(names(&chart_file("values.yaml")["worker"]), expected);
    assert_eq!(names(&chart_file("values.schema.json")["properties"]["worker"]["properties"]), expected);
}

/// The image's tag is the chart's `appVersion` unless someone says otherwise.
#[test]
fn chart_and_crate_have_one_version() {
    let chart = chart_file("Chart.yaml");
    assert_eq!(chart["appVersion"], env!("CARGO_PKG_VERSION"));
    assert_eq!(chart["version"], env!("CARGO_PKG_VERSION"));
}
