//! The chart ships the generated definition. Reads files.

use checkpoint_operator::api::definition;
use serde_json::Value;

use super::{read, repository};

const GENERATED: &str = "crds/checkpoints.checkpoints.dev.yaml";
const SHIPPED: &str = "charts/checkpoint-operator/files/checkpoints.checkpoints.dev.yaml";

#[test]
fn the_chart_ships_the_generated_definition() {
    let (generated, shipped) = (read(&repository(GENERATED)), read(&repository(SHIPPED)));
    assert!(
        generated == shipped,
        "{SHIPPED} differs from {GENERATED}. Write both again:\n  cargo run -- crd | tee {GENERATED} > {SHIPPED}"
    );
}

#[test]
fn the_chart_ships_the_definition_of_the_code() {
    let shipped: Value = serde_yaml::from_str(&read(&repository(SHIPPED))).unwrap();
    let coded = serde_json::to_value(definition()).unwrap();
    assert!(shipped == coded, "{SHIPPED} is not what `checkpoint-operator crd` prints");
}

/// The template takes everything in `files/` for a definition.
#[test]
fn the_chart_ships_nothing_else() {
    let folder = repository("charts/checkpoint-operator/files");
    let names: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["checkpoints.checkpoints.dev.yaml"]);
}

/// A custom schema hides from the generator that a field is optional; a status without it would then be refused.
#[test]
fn neither_status_nor_placement_demands_a_field() {
    let definition = serde_json::to_value(definition()).unwrap();
    let root = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"];
    let spec = &root["spec"]["properties"];
    for (name, schema) in [
        ("status", &root["status"]),
        ("worker.placement", &spec["worker"]["properties"]["placement"]),
        ("volumes[].placement", &spec["volumes"]["items"]["properties"]["placement"]),
    ] {
        assert_eq!(schema["type"], "object", "{name}");
        assert_eq!(schema.get("required"), None, "{name}");
    }
}
