//! Settings beside a model as JSON: tokenizers, schedulers, processors, layouts. Their content is the libraries' business; that
//! they are JSON is not. Pure, no I/O.

use std::ops::Range;

use super::{
    File,
    code::templates,
    evidence::{Evidence, Tree},
    findings::Notes,
    json::{Event, Limits, Sink},
    names,
    probe::{Collect, JsonProbe, Probe, Problem, note_problem},
    table::{Family, FileProbe},
};
use crate::contract::{Depth, Format};

/// The largest file that is read at depth `Headers`, in bytes: larger are vocabularies.
const SMALL: u64 = 1 << 20;
/// The largest file that is read at all, in bytes.
const LARGEST: u64 = 64 << 20;
const LIMITS: Limits = Limits { depth: 128, text: 4 << 20, python: true, halves: true };
/// Names that the libraries of Hugging Face and Orbax give to JSON files; what ends in `_config.json` is one, too.
const NAMES: [&str; 16] = [
    "_sharding",
    "added_tokens.json",
    "chat_template.json",
    "config.json",
    "config_sentence_transformers.json",
    "generation_config.json",
    "model_index.json",
    "modules.json",
    "preprocessor_config.json",
    "processor_config.json",
    "quantize_config.json",
    "sentence_bert_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
];

/// What it finds belongs to whatever format the folder has; it claims none.
pub(super) const READER: Family = Family { probe, follow, ..Family::of(Format::Generic) };

/// Asked last: a format that knows the file reads it itself. A larger file is looked at like any other under that name.
fn probe(tree: &Tree, file: usize) -> Option<Box<dyn Probe>> {
    let File { path, size } = tree.file(file);
    (is_known(path) && *size <= SMALL).then(|| reader(path, *size))
}

/// The large ones, when everything is read.
fn follow(evidence: &Evidence) -> Vec<FileProbe> {
    if evidence.depth < Depth::Content {
        return Vec::new();
    }
    let is_large =
        |file: &File| file.size > SMALL && file.size <= LARGEST && !templates::is_read(&file.path, file.size);
    let large = evidence.tree.iter().filter(|(_, file)| is_known(&file.path) && is_large(file));
    large.map(|(index, file)| (index, reader(&file.path, file.size))).collect()
}

fn is_known(path: &str) -> bool {
    let name = names::base(path);
    NAMES.contains(&name) || name.ends_with("_config.json") || names::folder(path).ends_with("array_metadatas/")
}

fn reader(path: &str, size: u64) -> Box<dyn Probe> {
    Box::new(JsonProbe::new(path, size, LARGEST, LIMITS, Ignored))
}

/// What is read is only read.
struct Ignored;

impl Sink for Ignored {
    fn event(&mut self, _: Event<'_>, _: Range<u64>) -> Result<(), String> {
        Ok(())
    }
}

impl Collect for Ignored {
    fn finish(self, outcome: Result<(), Problem>, file: usize, evidence: &mut Evidence, notes: &mut Notes) {
        if let Err(problem) = outcome {
            note_problem(&problem, file, evidence, notes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Folder, allowing, assert_bad, assert_good, tensors};
    use crate::contract::{Depth, Reason};

    fn folder(name: &str, text: &str) -> Folder {
        Folder::new([("model.safetensors", tensors(&[("a", 1)])), (name, text.as_bytes().to_vec())])
    }

    #[test]
    fn settings_are_json() {
        for name in ["tokenizer.json", "unet/config.json", "scheduler/scheduler_config.json", "state/_sharding"] {
            assert_good(&folder(name, r#"{"a": [1, NaN, "\ud800x"]}"#).judge());
            for text in ["{\"a\": ", "", "{\"a\": 1} x"] {
                assert_bad(&folder(name, text).judge(), Reason::Corrupt, name, "is damaged");
            }
        }
        assert_good(&folder("notes.json", "{").judge());
    }

    #[test]
    fn large_ones_are_read_with_everything_else() {
        let text = format!("{{\"a\": {}", "1".repeat(2 << 20));
        assert_good(&folder("tokenizer.json", &text).judge_with(&allowing(Depth::Headers), &[]));
        let verdict = folder("tokenizer.json", &text).judge_with(&allowing(Depth::Content), &[]);
        assert_bad(&verdict, Reason::Corrupt, "tokenizer.json", "is damaged");
    }
}
