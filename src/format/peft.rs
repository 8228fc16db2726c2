//! A PEFT adapter: `adapter_config.json` and the adapter's weights; its base model is elsewhere. Pure, no I/O.

use super::{
    document,
    evidence::{Document, Evidence},
    findings::{Notes, UPLOAD_AGAIN},
    names,
    table::Family,
};
use crate::contract::{Contents, Format, Reason};

const CONFIG: &str = "adapter_config.json";

/// An adapter.
pub(super) const FAMILY: Family = Family {
    format: Format::PeftAdapter,
    claims,
    probe: |tree, file| document::probe(tree, file, CONFIG, |evidence| &mut evidence.adapter),
    check,
    describe,
    places: |evidence| if claims(evidence) { vec![evidence.tree.home().to_owned()] } else { Vec::new() },
    judged: "the adapter's configuration and weights; its base model is named",
    ..Family::of(Format::PeftAdapter)
};

fn claims(evidence: &Evidence) -> bool {
    evidence.tree.at_home(CONFIG).is_some()
}

fn check(evidence: &mut Evidence, notes: &mut Notes) {
    let Some(file) = evidence.tree.at_home(CONFIG) else { return };
    let path = &evidence.tree.file(file).path;
    if let Document::Broken(problem) = &evidence.adapter {
        let message = format!("{} is damaged: {problem}; {UPLOAD_AGAIN}", names::shown(path));
        notes.fatal(Reason::Corrupt, Some(path), message);
    }
    let is_adapter =
        |name: &str| name.starts_with("adapter_model") && (names::is_weights(name) || names::index(name).is_some());
    if !evidence.tree.home_names().any(is_adapter) {
        let missing = format!("{}adapter_model.safetensors", evidence.tree.home());
        let message = format!(
            "{} is missing: {} describes an adapter without weights; upload it",
            names::shown(&missing),
            names::shown(path)
        );
        notes.fatal(Reason::Incomplete, Some(&missing), message);
    }
}

fn describe(evidence: &Evidence, contents: &mut Contents) {
    let adapter = &evidence.adapter;
    contents.base_model = contents.base_model.take().or_else(|| adapter.text("base_model_name_or_path"));
    contents.architecture = contents.architecture.take().or_else(|| adapter.text("peft_type"));
    let framework = adapter.text("peft_version").map(|version| format!("peft {version}"));
    contents.framework = contents.framework.take().or(framework);
    if let Some(version) = adapter.text("peft_version") {
        contents.versions.entry("peft".to_owned()).or_insert(version);
    }
}
