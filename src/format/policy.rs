//! What was asked of the checkpoint: formats, required files, pickles. Pure, no I/O.

use super::{evidence::Evidence, findings::Notes, names};
use crate::contract::{
    CodePolicy, Depth, Format, PicklePolicy, PickleTier, Reason, Validation,
    filter::{Pattern, Selector},
};

/// Checks the allow-list of formats.
pub(super) fn formats(format: Format, validation: &Validation, notes: &mut Notes) {
    if !validation.formats.is_empty() && !validation.formats.contains(&format) {
        let allowed: Vec<_> = validation.formats.iter().map(|format| format.as_str()).collect();
        let message =
            format!("the format is {}, but validation.formats accepts only {}", format.as_str(), allowed.join(", "));
        notes.fatal(Reason::FormatNotAllowed, None, message);
    }
}

/// Checks that each required glob matches a file.
pub(super) fn required_files(evidence: &Evidence, validation: &Validation, notes: &mut Notes) {
    for glob in &validation.required_files {
        match Pattern::new(glob) {
            Ok(pattern) if evidence.tree.iter().any(|(_, file)| pattern.matches(&file.path)) => {}
            Ok(_) => notes.fatal(
                Reason::MissingRequiredFile,
                None,
                format!("no file matches {glob:?} of validation.requiredFiles: upload it or remove the entry"),
            ),
            Err(error) => notes.fatal(Reason::InvalidSpec, None, format!("validation.requiredFiles: {error}")),
        }
    }
}

/// Whether a volume takes the file; every file counts when there is no volume.
fn is_taken(path: &str, volumes: &[Selector]) -> bool {
    volumes.is_empty() || volumes.iter().any(|volume| volume.selects(path))
}

/// The most dangerous tier that a policy accepts.
fn accepted(policy: PicklePolicy) -> PickleTier {
    match policy {
        PicklePolicy::Forbid => PickleTier::None,
        PicklePolicy::TensorsOnly => PickleTier::TensorsOnly,
        PicklePolicy::KnownSafe => PickleTier::KnownSafe,
        PicklePolicy::Allow => PickleTier::Dangerous,
    }
}

/// Checks the pickles among the files that any volume takes; all files, when there is no volume.
pub(super) fn pickles(evidence: &Evidence, validation: &Validation, volumes: &[Selector], notes: &mut Notes) {
    for (&file, fact) in &evidence.pickles {
        let path = &evidence.tree.file(file).path;
        // A pickle of plain data is harmless and still a pickle.
        let refused = validation.pickle == PicklePolicy::Forbid || fact.tier > accepted(validation.pickle);
        if !refused || !is_taken(path, volumes) {
            continue;
        }
        let setting = match fact.tier {
            PickleTier::None | PickleTier::TensorsOnly => "TensorsOnly",
            PickleTier::KnownSafe => "KnownSafe",
            PickleTier::Unchecked | PickleTier::Code | PickleTier::Dangerous => "Allow",
        };
        let trust = if setting == "Allow" { " if you trust it" } else { "" };
        let deeper = if evidence.depth == Depth::Listing { ", set validation.depth: Headers" } else { "" };
        let message = format!(
            "{} {}: pickles can run code when they are loaded (tier {}, validation.pickle is {}); leave it out with the volumes' exclude{deeper}, or set validation.pickle: {setting}{trust}",
            names::shown(path),
            fact.what,
            fact.tier.as_str(),
            validation.pickle.as_str(),
        );
        notes.fatal(Reason::UnsafePickle, Some(path), message);
    }
}

/// Checks other code in the files that any volume takes; all files, when there is no volume.
pub(super) fn code(evidence: &Evidence, validation: &Validation, volumes: &[Selector], notes: &mut Notes) {
    for fact in &evidence.code {
        let path = &evidence.tree.file(fact.file).path;
        let accepted = match validation.code {
            CodePolicy::Forbid => false,
            CodePolicy::OptIn => !fact.on_load,
            CodePolicy::Allow => true,
        };
        if accepted || !is_taken(path, volumes) {
            continue;
        }
        let (when, setting) =
            if fact.on_load { ("when it is loaded", "Allow") } else { ("when a loader is told to", "OptIn") };
        let message = format!(
            "{} has code that runs {when}: {}; leave it out with the volumes' exclude, or set validation.code: {setting} if you trust it",
            names::shown(path),
            fact.what
        );
        notes.fatal(Reason::UnsafeCode, Some(path), message);
    }
}
