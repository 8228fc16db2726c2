//! Small text files that name other files: `latest`, trackers, `modules.json`, `MLmodel`. Pure, no I/O.

use super::{
    evidence::{Evidence, PickleFact, Tree},
    findings::Notes,
    names, pickle,
    probe::{Probe, Problem, note_problem},
    window::{Parse, Parsed, Window, WindowProbe},
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

/// What a file holds: its text, or why it is not read, and the pickle that it is all the same.
struct Found {
    text: Result<String, Problem>,
    pickle: Option<PickleFact>,
}

impl Parse for TextFile {
    type Output = Found;

    fn parse(&self, file: &Window<'_>) -> Parsed<Found> {
        // A name makes nothing harmless, and pickles of protocol 0 are texts.
        let pickle = pickle::judge_all(file, "")?;
        if file.len() > LIMIT {
            let problem = Problem::TooLarge(format!("it has {} bytes, more than {LIMIT}", file.len()));
            return Ok(Found { text: Err(problem), pickle });
        }
        let bytes = file.bytes(0..file.len())?;
        let text = std::str::from_utf8(bytes).map(str::to_owned);
        Ok(Found { text: text.map_err(|_| Problem::Broken("it is no UTF-8 text".to_owned())), pickle })
    }

    fn finish(self, outcome: Result<Found, Problem>, file: usize, evidence: &mut Evidence, notes: &mut Notes) {
        let text = match outcome {
            Ok(found) => {
                if let Some(fact) = found.pickle {
                    evidence.note_pickle(file, fact);
                }
                found.text
            }
            Err(problem) => {
                if let Problem::TooLarge(_) = &problem {
                    evidence.note_pickle(file, PickleFact::unchecked("too large a pickle"));
                }
                Err(problem)
            }
        };
        match text {
            Ok(text) => evidence.put(file, Text(text)),
            Err(problem) => note_problem(&problem, file, evidence, notes),
        }
    }
}
