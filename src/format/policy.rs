//! What was asked of the checkpoint: formats, required files, pickles. Pure, no I/O.

use super::{evidence::Evidence, findings::Notes, names};
use crate::contract::{
    Depth, Format, PicklePolicy, Reason, Validation,
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

/// Checks the pickles among the files that any volume takes; all files, when there is no volume.
pub(super) fn pickles(evidence: &Evidence, validation: &Validation, volumes: &[Selector], notes: &mut Notes) {
    if validation.pickle == PicklePolicy::Allow {
        return;
    }
    for (&file, kind) in &evidence.pickles {
        let path = &evidence.tree.file(file).path;
        if !volumes.is_empty() && !volumes.iter().any(|volume| volume.selects(path)) {
            continue;
        }
        let deeper = if evidence.depth == Depth::Listing { ", set validation.depth: Headers" } else { "" };
        let message = format!(
            "{} is {kind}, and pickles can run code when they are loaded; it was not checked: leave it out with the volumes' exclude{deeper}, or set validation.pickle: Allow if you trust it",
            names::shown(path)
        );
        notes.fatal(Reason::UnsafePickle, Some(path), message);
    }
}
