//! Small text files that name other files: `latest`, trackers, `modules.json`, `MLmodel`. Pure, no I/O.

use super::{
    evidence::{Evidence, Tree},
    findings::Notes,
    names,
    probe::{Probe, Problem, note_problem},
    window::{Parse, Parsed, Stop, Window, WindowProbe},
};

/// The largest file that is read, in bytes.
const LIMIT: u64 = 1 << 20;

/// The content of a small text file.
#[derive(Debug)]
pub(super) struct Text(pub String);

struct TextFile;

/// A reader of the file when it has this name, in any folder.
pub(super) fn probe(tree: &Tree, file: usize, name: &str) -> Option<Box<dyn Probe>> {
    let listed = tree.file(file);
    (names::base(&listed.path) == name).then(|| WindowProbe::boxed(TextFile, listed.size, &[]))
}

/// The text at a path.
pub(super) fn at<'a>(evidence: &'a Evidence, path: &str) -> Option<&'a str> {
    let file = evidence.tree.find(path)?;
    evidence.get::<Text>(file).map(|text| text.0.trim())
}

impl Parse for TextFile {
    type Output = String;

    fn parse(&self, file: &Window<'_>) -> Parsed<String> {
        if file.len() > LIMIT {
            return Err(Stop::TooLarge(format!("it has {} bytes, more than {LIMIT}", file.len())));
        }
        let bytes = file.bytes(0..file.len())?;
        std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| Stop::bad("it is no UTF-8 text"))
    }

    fn finish(self, outcome: Result<String, Problem>, file: usize, evidence: &mut Evidence, notes: &mut Notes) {
        match outcome {
            Ok(text) => evidence.put(file, Text(text)),
            Err(problem) => note_problem(&problem, file, evidence, notes),
        }
    }
}
