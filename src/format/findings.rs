//! What was noticed: bounded, and the same in whatever order it came. Pure, no I/O.

use std::ops::Range;

use crate::contract::{Finding, Reason, report};

/// The most findings that a verdict carries.
const KEPT: usize = 256;
/// The longest message of a finding, in bytes.
const MESSAGE: usize = 900;

/// Remedy for files that are not what they were.
pub(super) const UPLOAD_AGAIN: &str = "upload it again";

/// The worst findings, and how many there were.
#[derive(Debug, Default)]
pub(super) struct Notes {
    kept: Vec<Finding>,
    fatal: u64,
    /// Findings that still need the name of a tensor.
    pub drafts: Vec<Draft>,
}

/// A finding whose tensor is known only by where its name stands.
#[derive(Clone, Debug)]
pub(super) struct Draft {
    /// Why the verdict is bad.
    pub reason: Reason,
    /// Path of the file that it is about.
    pub file: String,
    /// Index of the file in which the name stands.
    pub name_file: usize,
    /// Where in it, quotes included.
    pub name: Range<u64>,
    /// The message before the name.
    pub before: String,
    /// The message after the name.
    pub after: String,
}

impl Notes {
    /// Something that makes the verdict bad.
    pub fn fatal(&mut self, reason: Reason, file: Option<&str>, message: impl AsRef<str>) {
        self.fatal += 1;
        self.keep(reason, file, message.as_ref(), true);
    }

    /// Something to know.
    pub fn warn(&mut self, reason: Reason, file: Option<&str>, message: impl AsRef<str>) {
        self.keep(reason, file, message.as_ref(), false);
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    fn keep(&mut self, reason: Reason, file: Option<&str>, message: &str, fatal: bool) {
        let message = report::clean(message, MESSAGE);
        let file = file.map(|path| report::clean(path, MESSAGE));
        self.kept.push(Finding { reason, file, message, fatal });
        if self.kept.len() >= 2 * KEPT {
            self.trim();
        }
    }

    fn trim(&mut self) {
        self.kept.sort_by(|left, right| key(left).cmp(&key(right)));
        self.kept.truncate(KEPT);
    }

    /// The findings, the verdict's reason first, and how many of all there were are fatal.
    pub fn finish(mut self) -> (Vec<Finding>, u64) {
        self.trim();
        (self.kept, self.fatal)
    }
}

type Key<'a> = (bool, u8, &'a Option<String>, &'a str);

fn key(finding: &Finding) -> Key<'_> {
    (!finding.fatal, rank(finding.reason), &finding.file, &finding.message)
}

/// What a person has to know first: what the bytes are, before what was asked of them.
fn rank(reason: Reason) -> u8 {
    match reason {
        Reason::InvalidSpec => 0,
        Reason::Empty | Reason::Incomplete | Reason::Corrupt | Reason::SourceChanged => 1,
        Reason::FormatNotAllowed => 2,
        Reason::MissingRequiredFile => 3,
        _ => 4,
    }
}
