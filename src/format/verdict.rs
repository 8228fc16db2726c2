//! The end of the judging: policies, facts, and one message that says what is the matter. Pure, no I/O.

use super::{
    Verdict,
    evidence::{CodeFact, Evidence},
    findings::Notes,
    names, policy, run,
    table::FORMATS,
};
use crate::contract::{Component, Contents, Depth, Format, PickleTier, Reason, Validation, filter::Selector, report};

/// The most code that the facts name.
const MAX_CODE: usize = 16;
/// The most versions that the facts name.
const MAX_VERSIONS: usize = 16;
/// The most components that the facts name.
const MAX_COMPONENTS: usize = 32;

/// Whether there is no file that makes a checkpoint.
pub(super) fn is_empty(evidence: &Evidence) -> bool {
    evidence.tree.iter().all(|(_, file)| names::is_ignorable(&file.path))
}

/// Says what the checkpoint is. Facts are left out when `partial`, because only a part of the files was read.
pub(super) fn conclude(
    evidence: &mut Evidence,
    mut notes: Notes,
    validation: &Validation,
    volumes: &[Selector],
    partial: bool,
) -> Verdict {
    let empty = is_empty(evidence);
    let format =
        FORMATS.iter().find(|family| (family.claims)(evidence)).map_or(Format::Generic, |family| family.format);
    let mut contents = Contents { format: (!empty).then_some(format), ..Contents::default() };
    if empty {
        notes.clear();
        let message = "there is no checkpoint: no file, or none but README.md, .gitattributes and .metadata.json";
        notes.fatal(Reason::Empty, None, message);
    } else if !partial {
        // A run's facts would be a mixture of all its checkpoints.
        for family in FORMATS.iter().filter(|_| format != Format::RunDirectory) {
            (family.describe)(evidence, &mut contents);
        }
        while contents.versions.len() > MAX_VERSIONS {
            contents.versions.pop_last();
        }
        contents.pickle = Some(evidence.pickles.values().map(|fact| fact.tier).max().unwrap_or_default());
        let tree = &evidence.tree;
        evidence
            .code
            .sort_by(|left, right| (&tree.file(left.file).path, left).cmp(&(&tree.file(right.file).path, right)));
        evidence.code.dedup();
        contents.code = code(evidence);
        contents.components = components(evidence, format);
        run::refuse(evidence, format != Format::RunDirectory || validation.formats.contains(&format), &mut notes);
        policy::formats(format, validation, &mut notes);
        policy::required_files(evidence, validation, &mut notes);
        policy::pickles(evidence, validation, volumes, &mut notes);
        policy::code(evidence, validation, volumes, &mut notes);
    }
    let (findings, fatal) = notes.finish();
    let (reason, message) = match findings.first().filter(|finding| finding.fatal) {
        Some(finding) => (finding.reason, lead(&finding.message, fatal - 1)),
        None => (Reason::Complete, summary(evidence, &contents, format)),
    };
    let metadata = if partial { None } else { evidence.metadata.take() };
    Verdict { reason, message, contents, metadata, findings }
}

fn code(evidence: &Evidence) -> Vec<String> {
    let shown = |fact: &CodeFact| {
        report::clean(&format!("{}: {}", names::shown(&evidence.tree.file(fact.file).path), fact.what), 256)
    };
    evidence.code.iter().take(MAX_CODE).map(shown).collect()
}

/// What else the folder is, besides what it is called.
fn components(evidence: &Evidence, primary: Format) -> Vec<Component> {
    let mut all: Vec<Component> = Vec::new();
    for family in FORMATS.iter().filter(|family| family.format != Format::Generic) {
        let places = (family.places)(evidence).into_iter().take(MAX_COMPONENTS);
        all.extend(places.map(|path| Component { path: report::clean(&path, 256), format: family.format }));
    }
    all.retain(|component| component.format != primary || component.path != evidence.tree.home());
    all.sort();
    all.truncate(MAX_COMPONENTS);
    all
}

fn lead(message: &str, others: u64) -> String {
    if others == 0 { message.to_owned() } else { format!("{message} (and {})", names::counted(others, "more problem")) }
}

fn summary(evidence: &Evidence, contents: &Contents, format: Format) -> String {
    let files = names::counted(evidence.tree.len() as u64, "file");
    let mut text = format!("{}: {files}, {} bytes", format.as_str(), evidence.tree.bytes());
    if let (Some(tensors), Some(parameters)) = (contents.tensors, contents.parameters) {
        for (count, thing) in [(tensors, "tensor"), (parameters, "parameter")] {
            text += ", ";
            text += &names::counted(count.unsigned_abs(), thing);
        }
    }
    if format == Format::PeftAdapter {
        text += &contents.base_model.as_ref().map_or(", an adapter that needs its base model".to_owned(), |base| {
            format!(", an adapter that needs {base}")
        });
    }
    text += match (evidence.depth, format) {
        (_, Format::Dict) => "",
        (Depth::Listing, _) => "; only names and sizes were looked at (validation.depth: Listing)",
        (_, Format::Generic) => "; of no known format, so only names and sizes were judged",
        _ => "",
    };
    if contents.pickle == Some(PickleTier::Unchecked) {
        text += "; it has pickles that were not checked";
    }
    report::clean(&text, report::MESSAGE_LIMIT)
}
