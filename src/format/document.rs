//! Small JSON documents with facts in them, read whole. Pure, no I/O.

use serde_json::Value;

use super::{
    evidence::{Document, Evidence, Tree},
    findings::Notes,
    json::{Event, Limits, Sink, tree},
    names,
    probe::{Collect, JsonProbe, Probe, Problem},
};
use crate::contract::Reason;

/// The largest document that is read, in bytes.
const MAX_DOCUMENT: u64 = 1 << 20;
const LIMITS: Limits = Limits { depth: 100, text: 1 << 20, python: true, halves: true };

/// Where in the evidence a document goes.
type Slot = fn(&mut Evidence) -> &mut Document;

struct DocumentSink {
    tree: tree::Tree,
    slot: Slot,
}

/// A reader of the file, when it is the one of this name in the home folder.
pub(super) fn probe(tree: &Tree, file: usize, name: &str, slot: Slot) -> Option<Box<dyn Probe>> {
    if tree.at_home(name) != Some(file) {
        return None;
    }
    let file = tree.file(file);
    let sink = DocumentSink { tree: tree::Tree::default(), slot };
    Some(Box::new(JsonProbe::new(&file.path, file.size, MAX_DOCUMENT, LIMITS, sink)))
}

impl Sink for DocumentSink {
    fn event(&mut self, event: Event<'_>, token: std::ops::Range<u64>) -> Result<(), String> {
        self.tree.event(event, token)
    }
}

impl Collect for DocumentSink {
    fn finish(self, outcome: Result<(), Problem>, file: usize, evidence: &mut Evidence, notes: &mut Notes) {
        let document = match outcome {
            Ok(()) => match self.tree.into_value() {
                Some(value @ Value::Object(_)) => Document::Value(value),
                _ => Document::Broken("it is not a JSON object".to_owned()),
            },
            Err(Problem::Broken(text)) => Document::Broken(text),
            Err(Problem::Foreign) => Document::Unread,
            Err(Problem::TooLarge(text)) => {
                let path = &evidence.tree.file(file).path;
                notes.warn(Reason::Corrupt, Some(path), format!("{} was not read: {text}", names::shown(path)));
                Document::Unread
            }
        };
        *(self.slot)(evidence) = document;
    }
}
