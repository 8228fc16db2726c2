//! Chat templates in JSON files, in any folder: programs in Jinja that a tokenizer or processor runs (transformers 5). No I/O.

use std::ops::Range;

use serde_json::Value;

use super::super::{
    evidence::{CodeFact, Document, Evidence, Tree},
    findings::Notes,
    json::{Event, Limits, Sink, tree},
    names,
    probe::{Collect, JsonProbe, Probe, Problem, note_problem},
};

/// Files that have them.
const NAMES: [&str; 2] = [super::TOKENIZER, "chat_template.json"];
/// Their member.
const MEMBER: &str = "chat_template";
/// The largest file that is read, in bytes, and the largest that is kept.
const LARGEST: u64 = 16 << 20;
const KEPT: u64 = 1 << 20;
const LIMITS: Limits = Limits { depth: 128, text: 1 << 20, python: true, halves: true };

/// Whether it is a file of this kind that is read here.
pub(in crate::format) fn is_read(path: &str, size: u64) -> bool {
    NAMES.contains(&names::base(path)) && size <= LARGEST
}

/// Looks for a template; keeps the settings of the tokenizer in the home folder.
#[derive(Default)]
struct TemplateSink {
    depth: u32,
    /// Whether the member's value comes next.
    next: bool,
    found: bool,
    kept: Option<tree::Tree>,
}

/// A reader of the file, when it is one of these.
pub(super) fn probe(tree: &Tree, file: usize) -> Option<Box<dyn Probe>> {
    let listed = tree.file(file);
    NAMES.contains(&names::base(&listed.path)).then(|| {
        let is_kept = tree.at_home(super::TOKENIZER) == Some(file) && listed.size <= KEPT;
        let sink = TemplateSink { kept: is_kept.then(tree::Tree::default), ..TemplateSink::default() };
        Box::new(JsonProbe::new(&listed.path, listed.size, LARGEST, LIMITS, sink)) as Box<dyn Probe>
    })
}

impl Sink for TemplateSink {
    fn event(&mut self, event: Event<'_>, token: Range<u64>) -> Result<(), String> {
        let is_value = !matches!(event, Event::Key(_) | Event::EndObject | Event::EndArray);
        if is_value && std::mem::take(&mut self.next) {
            self.found |= event != Event::Null;
        }
        match event {
            Event::BeginObject | Event::BeginArray => self.depth += 1,
            Event::EndObject | Event::EndArray => self.depth = self.depth.saturating_sub(1),
            Event::Key(key) => self.next = self.depth == 1 && key == MEMBER,
            _ => {}
        }
        self.kept.as_mut().map_or(Ok(()), |kept| kept.event(event, token))
    }
}

impl Collect for TemplateSink {
    fn finish(self, outcome: Result<(), Problem>, file: usize, evidence: &mut Evidence, notes: &mut Notes) {
        let is_kept = self.kept.is_some();
        if let Some(kept) = self.kept {
            evidence.tokenizer = match &outcome {
                Ok(()) => match kept.into_value() {
                    Some(value @ Value::Object(_)) => Document::Value(value),
                    _ => Document::Broken("it is not a JSON object".to_owned()),
                },
                Err(Problem::Broken(text)) => Document::Broken(text.clone()),
                Err(_) => Document::Unread,
            };
        }
        match &outcome {
            Ok(()) if self.found => {
                evidence.note_code(CodeFact { on_load: false, file, what: "a chat template".to_owned() });
            }
            Err(Problem::TooLarge(_)) => {
                let what = "it is too large to be read, and may have a chat template".to_owned();
                evidence.note_code(CodeFact { on_load: false, file, what });
            }
            _ => {}
        }
        // What is wrong with the one in the home folder is told with the rest of it.
        if let Err(problem) = outcome
            && !(is_kept && matches!(problem, Problem::Broken(_)))
        {
            note_problem(&problem, file, evidence, notes);
        }
    }
}
