//! Files made to deceive: one for each advisory and trick. Nothing in them runs more than an import of a harmless name, and
//! nothing here loads them. With `MALICIOUS_FOLDER` set, the table is written there for `e2e/python/pickle_oracle.py`.

mod archives;
mod bombs;
mod hidden;
mod mutations;
mod streams;

use std::fmt::Write;

use super::*;
use crate::contract::PickleTier;

/// A file, and what it must come to.
pub(super) struct Case {
    /// What it is known by.
    pub id: &'static str,
    /// Its name.
    pub path: &'static str,
    pub bytes: Vec<u8>,
    pub tier: PickleTier,
    /// What the message must say of it, besides the file's name: mostly the import.
    pub words: &'static str,
    /// What is damaged besides, by the message.
    pub corrupt: Option<&'static str>,
}

/// A dangerous file.
pub(super) fn case(id: &'static str, path: &'static str, bytes: Vec<u8>, words: &'static str) -> Case {
    Case { id, path, bytes, tier: PickleTier::Dangerous, words, corrupt: None }
}

impl Case {
    /// It is code and no more.
    pub fn code(self) -> Self {
        Self { tier: PickleTier::Code, ..self }
    }

    /// It cannot be looked into.
    pub fn unchecked(self) -> Self {
        Self { tier: PickleTier::Unchecked, ..self }
    }

    /// It is damaged too.
    pub fn corrupt(self, words: &'static str) -> Self {
        Self { corrupt: Some(words), ..self }
    }
}

fn all() -> Vec<Case> {
    [streams::advisories(), streams::tricks(), streams::gadgets(), archives::files(), hidden::files()]
        .into_iter()
        .flatten()
        .collect()
}

#[test]
fn each_is_refused_with_its_file_its_import_and_the_setting() {
    let mut problems = String::new();
    for case in all() {
        let folder = Folder::new([(case.path, case.bytes.clone())]);
        let verdict = folder.judge_with(&Validation::default(), &[]);
        let finding = |reason| verdict.findings.iter().filter(move |finding| finding.fatal && finding.reason == reason);
        let unsafe_pickle = finding(Reason::UnsafePickle).any(|finding| {
            let message = &finding.message;
            message.contains(case.path) && message.contains(case.words) && message.contains("validation.pickle: Allow")
        });
        let corrupt =
            case.corrupt.is_none_or(|words| finding(Reason::Corrupt).any(|finding| finding.message.contains(words)));
        if verdict.is_good() || !unsafe_pickle || !corrupt || verdict.contents.pickle != Some(case.tier) {
            let found: Vec<_> = verdict.findings.iter().map(|finding| &finding.message).collect();
            writeln!(problems, "{} ({}): {:?} {found:#?}", case.id, case.path, verdict.contents.pickle).unwrap();
        }
    }
    assert!(problems.is_empty(), "{problems}");
}

#[test]
fn identifiers_are_unique() {
    let mut known = std::collections::BTreeSet::new();
    for case in all() {
        assert!(known.insert(case.id), "{}", case.id);
    }
    assert!(known.len() > 100, "{}", known.len());
}

/// Nothing is written unless a folder is given.
#[test]
fn the_table_can_be_written_for_other_readers() {
    let Ok(folder) = std::env::var("MALICIOUS_FOLDER") else { return };
    let mut table = String::new();
    for (number, case) in all().into_iter().enumerate() {
        let folder = std::path::Path::new(&folder).join(number.to_string());
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(case.path), &case.bytes).unwrap();
        writeln!(table, "{number}\t{}\t{}\t{}\t{}", case.path, case.tier.as_str(), case.id, case.words).unwrap();
    }
    std::fs::write(std::path::Path::new(&folder).join("table.tsv"), table).unwrap();
}
