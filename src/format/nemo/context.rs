//! `context/` of a NeMo 2 checkpoint: `io.json` names the Python classes and functions that NeMo calls to build the model (fiddle
//! 0.3, `experimental/serialization.py`). Pure, no I/O.

use std::collections::BTreeSet;

use serde_json::Value;

use super::super::{
    evidence::{CodeFact, Evidence, Tree},
    findings::Notes,
    names, pickle,
    probe::{Probe, Problem, note_problem},
    window::{Parse, Parsed, Stop, Window, WindowProbe},
};
use crate::contract::{PickleTier, report};

/// What the model is built from.
pub(super) const IO: &str = "io.json";
/// The same for people to read.
pub(super) const MODEL: &str = "model.yaml";
/// The largest file that is read, in bytes.
const LIMIT: u64 = 8 << 20;
/// Names of so many imports are kept.
const IMPORTS: usize = 10_000;
/// Libraries that NeMo itself is made of; what they export is what NeMo checkpoints name.
const KNOWN: [&str; 13] = [
    "nemo",
    "nemo_run",
    "megatron",
    "torch",
    "lightning",
    "pytorch_lightning",
    "fiddle",
    "transformer_engine",
    "transformers",
    "numpy",
    "omegaconf",
    "modelopt",
    "bionemo",
];

/// What a context imports: module and name.
struct Imports(BTreeSet<(String, String)>);

struct IoFile;

/// The folder of the checkpoint, when the path is that of a file directly in its `context/`.
pub(super) fn folder(path: &str) -> Option<&str> {
    let folder = names::folder(path).strip_suffix("context/")?;
    (matches!(names::base(path), IO | MODEL) && (folder.is_empty() || folder.ends_with('/'))).then_some(folder)
}

/// Whether the file is one of a context.
pub(super) fn is_within(path: &str) -> bool {
    folder(path).is_some()
}

/// A reader of `io.json`.
pub(super) fn probe(tree: &Tree, file: usize) -> Option<Box<dyn Probe>> {
    let listed = tree.file(file);
    let is_io = names::base(&listed.path) == IO && is_within(&listed.path);
    is_io.then(|| WindowProbe::boxed(IoFile, listed.size, &[]))
}

impl Parse for IoFile {
    type Output = Imports;

    fn remembered(imports: &Imports) -> u64 {
        imports.0.len() as u64
    }

    fn parse(&self, file: &Window<'_>) -> Parsed<Imports> {
        if file.len() > LIMIT {
            return Err(Stop::TooLarge(format!("it has {} bytes, more than {LIMIT}", file.len())));
        }
        let bytes = file.bytes(0..file.len())?;
        let value: Value = serde_json::from_slice(bytes).map_err(|error| Stop::Bad(error.to_string()))?;
        if !value.is_object() {
            return Err(Stop::bad("it is not a JSON object"));
        }
        let mut imports = BTreeSet::new();
        collect(&value, &mut imports)?;
        Ok(Imports(imports))
    }

    fn finish(self, outcome: Result<Imports, Problem>, file: usize, evidence: &mut Evidence, notes: &mut Notes) {
        match outcome {
            Ok(imports) => evidence.put(file, imports),
            Err(problem) => {
                if let Problem::TooLarge(text) = &problem {
                    let what = format!("names Python classes that NeMo builds, and was not checked ({text})");
                    evidence.note_code(CodeFact { on_load: true, file, what });
                }
                note_problem(&problem, file, evidence, notes);
            }
        }
    }
}

/// Every object with a module and a name in it: fiddle writes classes, functions and constants in this way.
fn collect(value: &Value, imports: &mut BTreeSet<(String, String)>) -> Parsed<()> {
    match value {
        Value::Array(items) => items.iter().try_for_each(|item| collect(item, imports)),
        Value::Object(members) => {
            let text = |key: &str| members.get(key).and_then(Value::as_str);
            if let (Some(module), Some(name)) = (text("module"), text("name")) {
                imports.insert((report::clean(module, 128), report::clean(name, 128)));
                if imports.len() > IMPORTS {
                    return Err(Stop::TooLarge(format!("it names more than {IMPORTS} classes")));
                }
            }
            members.values().try_for_each(|member| collect(member, imports))
        }
        _ => Ok(()),
    }
}

/// What NeMo calls when it loads the context.
pub(super) fn note_code(evidence: &mut Evidence) {
    let mut found = Vec::new();
    for (file, imports) in evidence.all::<Imports>() {
        let is_known = |module: &str| KNOWN.contains(&module.split('.').next().unwrap_or(module));
        let dangerous = |(module, name): &&(String, String)| pickle::tier(module, name, false) == PickleTier::Dangerous;
        if let Some((module, name)) = imports.0.iter().find(dangerous) {
            let what = format!("calls {module}.{name} while NeMo builds the model");
            found.push(CodeFact { on_load: true, file, what });
        }
        let foreign = |(module, _): &&(String, String)| {
            !is_known(module) && !matches!(module.as_str(), "builtins" | "pathlib" | "collections" | "datetime")
        };
        if let Some((module, name)) = imports.0.iter().find(foreign) {
            let what = format!("names {module}.{name} and other Python classes, which NeMo imports and builds");
            found.push(CodeFact { on_load: false, file, what });
        } else if !imports.0.is_empty() {
            let what = "names classes of NeMo and its libraries, which NeMo builds".to_owned();
            found.push(CodeFact { on_load: false, file, what });
        }
    }
    for fact in found {
        evidence.note_code(fact);
    }
}
