//! The unzipped form of a Keras 3 model: `config.json` beside `model.weights.h5` (keras 3.15, `_load_model_from_dir`). No I/O.

use std::ops::Range;

use serde_json::Value;

use super::{
    super::{
        counts::Counts,
        evidence::{CodeFact, Document, Evidence, Tree, fact},
        findings::Notes,
        json::{Event, Sink, tree},
        names,
        probe::{Collect, JsonProbe, Probe, Problem, note_problem},
    },
    LIMITS, MAX_CONFIG, Model, WEIGHTS, code,
};

const CONFIG: &str = "config.json";

struct ConfigSink(tree::Tree);

/// Whether a file is a configuration that Keras would read. Other libraries have files of this name, and their content decides.
pub(in crate::format) fn is_beside_weights(tree: &Tree, file: usize) -> bool {
    let path = &tree.file(file).path;
    let folder = names::folder(path);
    names::base(path) == CONFIG && WEIGHTS.iter().any(|weights| tree.find(&format!("{folder}{weights}")).is_some())
}

/// A reader of such a file.
pub(super) fn probe(tree: &Tree, file: usize) -> Option<Box<dyn Probe>> {
    let listed = tree.file(file);
    is_beside_weights(tree, file).then(|| {
        let sink = ConfigSink(tree::Tree::default());
        Box::new(JsonProbe::new(&listed.path, listed.size, MAX_CONFIG, LIMITS, sink)) as Box<dyn Probe>
    })
}

/// Whether the whole checkpoint is such a folder.
pub(in crate::format) fn is_home(evidence: &Evidence) -> bool {
    evidence.tree.at_home(CONFIG).is_some_and(|file| evidence.get::<Model>(file).is_some())
}

/// Folders that are such models.
pub(super) fn places(evidence: &Evidence) -> impl Iterator<Item = String> {
    let paths = evidence.all::<Model>().map(|(file, _)| evidence.tree.file(file).path.as_str());
    paths.filter(|path| names::base(path) == CONFIG).map(|path| names::folder(path).to_owned())
}

impl Sink for ConfigSink {
    fn event(&mut self, event: Event<'_>, token: Range<u64>) -> Result<(), String> {
        self.0.event(event, token)
    }
}

impl Collect for ConfigSink {
    fn finish(self, outcome: Result<(), Problem>, file: usize, evidence: &mut Evidence, notes: &mut Notes) {
        let is_home = evidence.tree.at_home(CONFIG) == Some(file);
        let document = match outcome.map(|()| self.0.into_value()) {
            Ok(Some(value @ Value::Object(_))) => {
                leave(&value, file, evidence);
                Document::Value(value)
            }
            Ok(_) => Document::Broken("it is not a JSON object".to_owned()),
            Err(Problem::Broken(text)) if is_home => Document::Broken(text),
            Err(problem) => {
                if matches!(problem, Problem::TooLarge(_)) {
                    let what = "a configuration that was not read, which may be layers of a Keras model".to_owned();
                    evidence.note_code(CodeFact { on_load: true, file, what });
                }
                note_problem(&problem, file, evidence, notes);
                Document::Unread
            }
        };
        if is_home {
            evidence.config = document;
        }
    }
}

/// Keras names the class of the model and its configuration.
fn leave(value: &Value, file: usize, evidence: &mut Evidence) {
    let Some(class) = value.get("class_name").and_then(Value::as_str) else { return };
    for (on_load, what) in code(value) {
        evidence.note_code(CodeFact { on_load, file, what });
    }
    evidence.put(file, Model { class: Some(fact(class)), counts: Some(Counts::default()), ..Model::default() });
}
