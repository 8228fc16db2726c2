//! TensorFlow Lite models (`LiteRT`; `schema.fbs` version 3 of TensorFlow 2.21): tensors, their buffers and operators within bounds.
//! Operators of other libraries run only where these are linked. Pure, no I/O.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use super::{
    counts::Counts,
    evidence::{CodeFact, Evidence, fact},
    findings::Notes,
    flatbuffer::{self, Budget, Table},
    names,
    probe::{Problem, note_problem},
    saved_model::reaches_out,
    table::Family,
    window::{Parse, Parsed, Stop, Window, WindowProbe},
};
use crate::contract::{Contents, Format, Reason};

const IDENTIFIER: &[u8] = b"TFL3";
const VERSION: u64 = 3;
/// `BuiltinOperator.CUSTOM`
const CUSTOM: u64 = 32;
/// The beginning of the names of operators that TensorFlow itself runs.
const FLEX: &str = "Flex";
/// The most dimensions of a tensor.
const DIMENSIONS: u64 = 64;
/// The most operators and files that are named.
const NAMED: usize = 16;

/// Names and bits of the elements of `TensorType`, in the order of their numbers; 0 where they vary.
const TYPES: [(&str, u64); 21] = [
    ("F32", 32),
    ("F16", 16),
    ("I32", 32),
    ("U8", 8),
    ("I64", 64),
    ("text", 0),
    ("BOOL", 8),
    ("I16", 16),
    ("C64", 64),
    ("I8", 8),
    ("F64", 64),
    ("C128", 128),
    ("U64", 64),
    ("resource", 0),
    ("variant", 0),
    ("U32", 32),
    ("U16", 16),
    ("I4", 4),
    ("BF16", 16),
    ("I2", 2),
    ("U4", 4),
];

/// TensorFlow Lite models.
pub(super) const FAMILY: Family = Family {
    claims: |evidence| evidence.all::<Model>().next().is_some(),
    places: |evidence| evidence.all::<Model>().map(|(file, _)| evidence.tree.file(file).path.clone()).collect(),
    sniff: |path, size, start| {
        let is = start.get(4..8) == Some(IDENTIFIER) || names::has_extension(path, "tflite");
        is.then(|| WindowProbe::boxed(TfLiteFile, size, start))
    },
    check,
    describe,
    judged: "tables, tensors' sizes, buffers and operators within bounds; operators of other libraries are reported as code",
    ..Family::of(Format::TfLite)
};

/// What a model says.
#[derive(Debug, Default)]
struct Model {
    counts: Counts,
    /// Names of operators that TensorFlow Lite does not have.
    custom: BTreeSet<String>,
    /// Other files with weights.
    external: BTreeSet<String>,
}

struct TfLiteFile;

impl Parse for TfLiteFile {
    type Output = Model;

    fn remembered(model: &Model) -> u64 {
        model.counts.tensors
    }

    fn parse(&self, file: &Window<'_>) -> Parsed<Model> {
        if file.up_to(4, 4)? != IDENTIFIER {
            return Err(Stop::bad("it does not have TFL3 at byte 4"));
        }
        let mut budget = Budget::default();
        let root = flatbuffer::root(file, &mut budget)?;
        match root.number::<4>(0)?.unwrap_or(0) {
            VERSION => {}
            version => return Err(Stop::Bad(format!("its version {version} is not read by current interpreters"))),
        }
        let mut reader = Reader { file, model: Model::default(), buffers: Vec::new(), operators: 0 };
        reader.operators(&root, &mut budget)?;
        reader.buffers(&root, &mut budget)?;
        let graphs = root.tables(2, &mut budget, |graph, budget| reader.graph(graph, budget))?;
        if graphs == 0 {
            return Err(Stop::bad("it has no graph"));
        }
        reader.rest(&root, &mut budget)?;
        Ok(reader.model)
    }

    fn finish(self, outcome: Result<Model, Problem>, file: usize, evidence: &mut Evidence, notes: &mut Notes) {
        match outcome {
            Ok(model) => {
                let (outside, library): (Vec<&String>, Vec<&String>) =
                    model.custom.iter().partition(|name| is_outside(name));
                let mut note = |on_load, what: &str, names: Vec<&String>| {
                    if !names.is_empty() {
                        let names: Vec<&str> = names.into_iter().map(String::as_str).collect();
                        evidence.note_code(CodeFact { on_load, file, what: format!("{what} ({})", names.join(", ")) });
                    }
                };
                note(true, "operators that reach for files, the network or Python", outside);
                note(false, "operators of another library, which has to be linked", library);
                evidence.put(file, model);
            }
            Err(problem) => note_problem(&problem, file, evidence, notes),
        }
    }
}

/// Whether it is an operator of TensorFlow that reaches for files, the network or Python.
fn is_outside(name: &str) -> bool {
    name.strip_prefix(FLEX).is_some_and(reaches_out)
}

/// Keeps the name of an operator. Those that reach out are few, and others must not hide them.
fn note(custom: &mut BTreeSet<String>, name: &str) {
    if custom.len() < NAMED || is_outside(name) {
        custom.insert(fact(name));
    }
}

/// A buffer's length, and whether a tensor with it was counted.
struct Buffer {
    length: u64,
    counted: bool,
}

struct Reader<'a, 'w> {
    file: &'a Window<'w>,
    model: Model,
    buffers: Vec<Buffer>,
    operators: u64,
}

impl<'a, 'w> Reader<'a, 'w> {
    /// `OperatorCode`: deprecated number (0), name of a custom operator (1), number (3).
    fn operators(&mut self, root: &Table<'a, 'w>, budget: &mut Budget) -> Parsed<()> {
        let custom = &mut self.model.custom;
        self.operators = root.tables(1, budget, |code, budget| {
            let (old, new) = (code.number::<1>(0)?.unwrap_or(0), code.number::<4>(3)?.unwrap_or(0));
            let name = code.text(1, budget)?;
            if old.max(new) == CUSTOM {
                note(custom, name.as_deref().unwrap_or("without a name"));
            }
            Ok(())
        })?;
        Ok(())
    }

    /// `Buffer`: data (0), or offset (1) and size (2) of data behind the tables.
    fn buffers(&mut self, root: &Table<'a, 'w>, budget: &mut Budget) -> Parsed<()> {
        let (file, buffers) = (self.file, &mut self.buffers);
        root.tables(4, budget, |buffer, budget| {
            let data = buffer.vector(0, 1, budget)?.map_or(0, |data| data.count);
            let (offset, size) = (buffer.number::<8>(1)?.unwrap_or(0), buffer.number::<8>(2)?.unwrap_or(0));
            // Writers put 1 where they mean none.
            if offset > 1 {
                file.part(offset..offset.saturating_add(size))?;
            }
            buffers.push(Buffer { length: if offset > 1 { size } else { data }, counted: false });
            Ok(())
        })?;
        Ok(())
    }

    /// `SubGraph`: tensors (0), inputs (1), outputs (2), operators (3), name (4).
    fn graph(&mut self, graph: &Table<'a, 'w>, budget: &mut Budget) -> Parsed<()> {
        let tensors = graph.tables(0, budget, |tensor, budget| self.tensor(tensor, budget))?;
        let in_bounds = |owner: &Table<'_, '_>, slots: [u64; 2], what: &str, budget: &mut Budget| {
            for slot in slots {
                let numbers = owner.integers(slot, 1 << 20, budget)?.unwrap_or_default();
                // Operators have -1 for an input that is left out.
                if let Some(wrong) = numbers
                    .iter()
                    .find(|number| u64::try_from(**number).map_or(**number != -1, |number| number >= tensors))
                {
                    return Err(Stop::Bad(format!("{what} has tensor {wrong}, but there are {tensors}")));
                }
            }
            Ok(())
        };
        in_bounds(graph, [1, 2], "a graph", budget)?;
        let (file, operators) = (self.file, self.operators);
        graph.tables(3, budget, |operator, budget| {
            let code = operator.number::<4>(0)?.unwrap_or(0);
            if code >= operators {
                return Err(Stop::Bad(format!("an operator is of kind {code}, but there are {operators}")));
            }
            operator.table(4, budget)?;
            operator.vector(5, 1, budget)?;
            let (offset, size) = (operator.number::<8>(9)?.unwrap_or(0), operator.number::<8>(10)?.unwrap_or(0));
            if offset > 1 {
                file.part(offset..offset.saturating_add(size))?;
            }
            in_bounds(operator, [1, 2], "an operator", budget)
        })?;
        graph.text(4, budget)?;
        Ok(())
    }

    /// `Tensor`: shape (0), type (1), buffer (2), name (3), quantisation (4), sparsity (6).
    fn tensor(&mut self, tensor: &Table<'a, 'w>, budget: &mut Budget) -> Parsed<()> {
        let name = names::shown(&tensor.text(3, budget)?.unwrap_or_default());
        let shape = tensor.integers(0, DIMENSIONS, budget)?.unwrap_or_default();
        let kind = tensor.number::<1>(1)?.unwrap_or(0);
        let known = usize::try_from(kind).ok().and_then(|kind| TYPES.get(kind));
        let Some(&(dtype, bits)) = known else {
            return Err(Stop::Bad(format!("its tensor {name:?} has the unknown type {kind}")));
        };
        if let Some(quantization) = tensor.table(4, budget)? {
            for (slot, bytes) in [(0, 4), (1, 4), (2, 4), (3, 8)] {
                quantization.vector(slot, bytes, budget)?;
            }
        }
        let number = tensor.number::<4>(2)?.unwrap_or(0);
        let count = self.buffers.len();
        let Some(buffer) = usize::try_from(number).ok().and_then(|number| self.buffers.get_mut(number)) else {
            return Err(Stop::Bad(format!("its tensor {name:?} is in buffer {number}, but there are {count}")));
        };
        // Without bytes it is computed; with a table of its zeros the bytes are fewer.
        if buffer.length == 0 {
            return Ok(());
        }
        let elements = shape.iter().try_fold(1u64, |product, size| product.checked_mul(u64::try_from(*size).ok()?));
        let elements = elements.ok_or_else(|| Stop::Bad(format!("its tensor {name:?} has an impossible shape")))?;
        let bytes = elements.checked_mul(bits).map(|bits| bits.div_ceil(8));
        if bits > 0 && bytes != Some(buffer.length) && tensor.table(6, budget)?.is_none() {
            return Err(Stop::Bad(format!(
                "its tensor {name:?} has {} bytes, its shape says {}",
                buffer.length,
                bytes.unwrap_or(u64::MAX)
            )));
        }
        // Graphs of several signatures share their weights.
        if !std::mem::replace(&mut buffer.counted, true) && bits > 0 {
            self.model.counts.add(dtype, elements);
        }
        Ok(())
    }

    /// Description (3), metadata (6) with a name (0) and a buffer (1), signatures (7), groups of external buffers (8).
    fn rest(&mut self, root: &Table<'a, 'w>, budget: &mut Budget) -> Parsed<()> {
        root.text(3, budget)?;
        let count = self.buffers.len() as u64;
        root.tables(6, budget, |entry, budget| {
            let name = names::shown(&entry.text(0, budget)?.unwrap_or_default());
            let buffer = entry.number::<4>(1)?.unwrap_or(0);
            if buffer < count {
                return Ok(());
            }
            Err(Stop::Bad(format!("its metadata {name:?} is in buffer {buffer}, but there are {count}")))
        })?;
        root.tables(7, budget, |signature, budget| {
            for slot in [0, 1] {
                signature.tables(slot, budget, |entry, budget| entry.text(0, budget).map(drop))?;
            }
            signature.text(2, budget).map(drop)
        })?;
        let external = &mut self.model.external;
        root.tables(8, budget, |group, budget| {
            if let Some(name) = group.text(0, budget)?.filter(|_| external.len() < NAMED) {
                external.insert(name);
            }
            Ok(())
        })?;
        Ok(())
    }
}

/// Other files with weights; the model only names them, and says nothing of their sizes.
fn check(evidence: &mut Evidence, notes: &mut Notes) {
    for (file, model) in evidence.all::<Model>() {
        let path = &evidence.tree.file(file).path;
        for name in &model.external {
            let data = format!("{}{name}", names::folder(path));
            if evidence.tree.find(&data).is_none() {
                let message =
                    format!("{} is not there, and {} has weights in it", names::shown(&data), names::shown(path));
                notes.warn(Reason::Incomplete, Some(&data), message);
            }
        }
    }
}

fn describe(evidence: &Evidence, contents: &mut Contents) {
    let mut counts = Counts::default();
    let mut found = false;
    for (_, model) in evidence.all::<Model>() {
        counts.merge(&model.counts);
        found = true;
    }
    counts.describe(contents);
    contents.framework = contents.framework.take().or_else(|| found.then(|| "tflite".to_owned()));
}
