//! `_METADATA`: the tree of the parameters, as Orbax lists it (orbax-checkpoint 0.12, `tree_metadata`). Pure, no I/O.

use serde_json::Value;

use super::super::{
    evidence::{Evidence, Tree},
    findings::Notes,
    json::{Event, Limits, Sink, tree},
    names,
    probe::{Collect, JsonProbe, Probe, Problem, note_problem},
};

/// The largest tree that is read, in bytes: some 30,000 parameters.
const LIMIT: u64 = 16 << 20;
const LIMITS: Limits = Limits { depth: 64, text: 16 << 10, python: true, halves: false };
/// Kinds of values that are stored as arrays.
const ARRAYS: [&str; 3] = ["jax.Array", "np.ndarray", "scalar"];

/// What it says.
#[derive(Debug, Default)]
pub(super) struct Parameters {
    /// Names of those that are stored as arrays, as the arrays are named.
    pub names: Vec<String>,
    /// Whether they are stored in a database.
    pub ocdbt: Option<bool>,
    /// Whether chunks that hold nothing but zeros are stored too.
    pub every_chunk: bool,
}

struct TreeSink(tree::Tree);

/// A reader of the file, when it is a tree, in any folder.
pub(super) fn probe(tree: &Tree, file: usize) -> Option<Box<dyn Probe>> {
    let file = tree.file(file);
    (names::base(&file.path) == super::TREE).then(|| {
        let sink = TreeSink(tree::Tree::default());
        Box::new(JsonProbe::new(&file.path, file.size, LIMIT, LIMITS, sink)) as Box<dyn Probe>
    })
}

impl Sink for TreeSink {
    fn event(&mut self, event: Event<'_>, token: std::ops::Range<u64>) -> Result<(), String> {
        self.0.event(event, token)
    }
}

impl Collect for TreeSink {
    fn finish(self, outcome: Result<(), Problem>, file: usize, evidence: &mut Evidence, notes: &mut Notes) {
        let outcome = outcome.and_then(|()| match self.0.into_value() {
            Some(value @ Value::Object(_)) => Ok(value),
            _ => Err(Problem::Broken("it is not a JSON object".to_owned())),
        });
        match outcome {
            Ok(value) => evidence.put(file, parameters(&value)),
            Err(problem) => note_problem(&problem, file, evidence, notes),
        }
    }
}

fn parameters(value: &Value) -> Parameters {
    let flag = |name: &str| value.get(name).and_then(Value::as_bool);
    let entries =
        value.get("tree_metadata").and_then(Value::as_object).into_iter().flat_map(|entries| entries.values());
    Parameters {
        names: entries.filter_map(name).collect(),
        ocdbt: flag("use_ocdbt"),
        every_chunk: flag("store_array_data_equal_to_fill_value") == Some(true),
    }
}

/// The keys that lead to a value, joined as its array is named; none when it is no array.
fn name(entry: &Value) -> Option<String> {
    let kind = entry.pointer("/value_metadata/value_type")?.as_str()?;
    if !ARRAYS.contains(&kind) {
        return None;
    }
    let keys = entry.get("key_metadata")?.as_array()?.iter();
    let text = |key: &Value| match key.get("key") {
        Some(Value::String(text)) => Some(text.clone()),
        Some(Value::Number(number)) => Some(number.to_string()),
        _ => None,
    };
    Some(keys.map(text).collect::<Option<Vec<_>>>()?.join("."))
}
