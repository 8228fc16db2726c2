//! `.metadata.json` as Ray writes it: Python's JSON, which may hold NaN. What cannot be read in it makes no verdict bad;
//! a model that it names and that is not there does (see ray). No I/O.

use std::ops::Range;

use serde_json::Value;

use super::{
    evidence::{Evidence, Tree},
    findings::Notes,
    json::{Event, Limits, Sink, tree},
    names,
    probe::{Collect, JsonProbe, Probe, Problem},
};
use crate::contract::{Reason, manifest::METADATA_FILE};

/// The largest file that is read, in bytes.
const MAX_FILE: u64 = 1 << 20;
/// The largest value that is reported, in bytes of JSON.
const MAX_VALUE: usize = 64 << 10;
const LIMITS: Limits = Limits { depth: 64, text: 1 << 20, python: true, halves: false };

struct MetadataSink(tree::Tree);

/// A reader of the file, when it is the metadata.
pub(super) fn probe(tree: &Tree, file: usize) -> Option<Box<dyn Probe>> {
    let file = tree.file(file);
    (file.path == METADATA_FILE).then(|| {
        let sink = MetadataSink(tree::Tree::default());
        Box::new(JsonProbe::new(&file.path, file.size, MAX_FILE, LIMITS, sink)) as Box<dyn Probe>
    })
}

impl Sink for MetadataSink {
    fn event(&mut self, event: Event<'_>, token: Range<u64>) -> Result<(), String> {
        self.0.event(event, token)
    }
}

impl Collect for MetadataSink {
    fn finish(self, outcome: Result<(), Problem>, file: usize, evidence: &mut Evidence, notes: &mut Notes) {
        let problem = match (outcome, self.0.into_value()) {
            (Ok(()), Some(value @ Value::Object(_))) => {
                let value = printable(value);
                let length = value.to_string().len();
                if length <= MAX_VALUE {
                    evidence.metadata = Some(value);
                    return;
                }
                format!("it has {length} bytes as JSON, more than the {MAX_VALUE} that are reported")
            }
            (Ok(()), _) => "it is not a JSON object".to_owned(),
            (Err(Problem::Broken(text) | Problem::TooLarge(text)), _) => text,
            (Err(Problem::Foreign), _) => "it is not JSON but another kind of file".to_owned(),
        };
        let path = &evidence.tree.file(file).path;
        let message = format!("{} is left out of the metadata: {problem}", names::shown(path));
        notes.warn(Reason::Corrupt, Some(path), message);
    }
}

/// The value without control characters in its texts. The depth is bounded by the reader.
fn printable(value: Value) -> Value {
    let text = |text: String| text.chars().filter(|character| !character.is_control()).collect::<String>();
    match value {
        Value::String(value) => Value::String(text(value)),
        Value::Array(list) => list.into_iter().map(printable).collect(),
        Value::Object(map) => map.into_iter().map(|(key, value)| (text(key), printable(value))).collect(),
        other => other,
    }
}
