//! ONNX models (`onnx.proto3` of onnx 1.23): the message to its exact end, tensors inside and in external files. Pure, no I/O.

mod operators;
#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, ops::Range};

use super::{
    counts::Counts,
    evidence::{CodeFact, Evidence, fact},
    findings::{Notes, UPLOAD_AGAIN},
    names,
    probe::{Problem, note_problem},
    protobuf::{Budget, Fields, Value, packed, text},
    table::Family,
    window::{Parse, Parsed, Stop, Window, WindowProbe},
};
use crate::contract::{Contents, Format, Reason};
use operators::Operators;

/// Graphs within graphs, so deep.
const DEPTH: u32 = 16;
/// The most tensors of a model.
const TENSORS: usize = 500_000;

/// Numbers of `TensorProto.DataType`, names, bits of an element; 0 where it varies.
const TYPES: [(u64, &str, u64); 28] = [
    (1, "F32", 32),
    (2, "U8", 8),
    (3, "I8", 8),
    (4, "U16", 16),
    (5, "I16", 16),
    (6, "I32", 32),
    (7, "I64", 64),
    (8, "text", 0),
    (9, "BOOL", 8),
    (10, "F16", 16),
    (11, "F64", 64),
    (12, "U32", 32),
    (13, "U64", 64),
    (14, "C64", 64),
    (15, "C128", 128),
    (16, "BF16", 16),
    (17, "F8_E4M3", 8),
    (18, "F8_E4M3FNUZ", 8),
    (19, "F8_E5M2", 8),
    (20, "F8_E5M2FNUZ", 8),
    (21, "U4", 4),
    (22, "I4", 4),
    (23, "F4_E2M1", 4),
    (24, "F8_E8M0", 8),
    (25, "U2", 2),
    (26, "I2", 2),
    (27, "F6_E2M3", 0),
    (28, "F6_E3M2", 0),
];

/// ONNX models.
pub(super) const FAMILY: Family = Family {
    claims: |evidence| evidence.all::<Model>().next().is_some(),
    places: |evidence| evidence.all::<Model>().map(|(file, _)| evidence.tree.file(file).path.clone()).collect(),
    sniff: |path, size, _| names::has_extension(path, "onnx").then(|| WindowProbe::boxed(ModelFile, size, &[])),
    check,
    describe,
    judged: "the message to its exact end, tensors' sizes, external files and offsets; operators of other libraries are reported as code",
    ..Family::of(Format::Onnx)
};

/// A tensor whose bytes lie in another file.
#[derive(Debug)]
struct External {
    name: String,
    location: String,
    offset: u64,
    length: Option<u64>,
    /// What its shape and type say.
    bytes: Option<u64>,
}

/// What a model says.
#[derive(Debug, Default)]
struct Model {
    counts: Counts,
    external: Vec<External>,
    producer: String,
    version: String,
    graph: bool,
    /// Whether it names its own version and those of the operators; no reader takes a model without.
    format: bool,
    operator_sets: bool,
    operators: Operators,
}

struct ModelFile;

impl Parse for ModelFile {
    type Output = Model;

    fn remembered(model: &Model) -> u64 {
        model.counts.tensors
    }

    fn parse(&self, file: &Window<'_>) -> Parsed<Model> {
        let mut model = Model::default();
        let mut budget = Budget::default();
        let mut fields = Fields::new(file, &(0..file.len()));
        while let Some((number, value)) = fields.next(&mut budget)? {
            match (number, value) {
                (1, Value::Varint(version)) => model.format = version > 0,
                (2, Value::Bytes(range)) => model.producer = text(file, &range)?,
                (3, Value::Bytes(range)) => model.version = text(file, &range)?,
                (7, Value::Bytes(range)) => {
                    model.graph = true;
                    graph(file, &range, &mut budget, &mut model, 0)?;
                }
                (8, Value::Bytes(_)) => model.operator_sets = true,
                (25, Value::Bytes(range)) => function(file, &range, &mut budget, &mut model)?,
                _ => {}
            }
        }
        match (model.graph, model.operator_sets) {
            (true, true) if model.format => Ok(model),
            (true, true) => Err(Stop::bad("it does not say which version of ONNX it is of")),
            (true, false) => Err(Stop::bad("it names no operator set: it is truncated")),
            (false, _) => Err(Stop::bad("it has no graph: it is truncated, or no ONNX model")),
        }
    }

    fn finish(self, outcome: Result<Model, Problem>, file: usize, evidence: &mut Evidence, notes: &mut Notes) {
        match outcome {
            Ok(model) => {
                if let Some(what) = model.operators.foreign() {
                    evidence.note_code(CodeFact { on_load: false, file, what });
                }
                evidence.put(file, model);
            }
            Err(problem) => note_problem(&problem, file, evidence, notes),
        }
    }
}

/// `GraphProto`: nodes (1) with graphs and tensors among their attributes, and initializers (5).
fn graph(file: &Window<'_>, range: &Range<u64>, budget: &mut Budget, model: &mut Model, depth: u32) -> Parsed<()> {
    if depth > DEPTH {
        return Err(Stop::Bad(format!("its graphs are nested more than {DEPTH} deep")));
    }
    let mut fields = Fields::new(file, range);
    while let Some((number, value)) = fields.next(budget)? {
        match (number, value) {
            (1, Value::Bytes(inner)) => node(file, &inner, budget, model, depth)?,
            (5, Value::Bytes(initializer)) => tensor(file, &initializer, budget, model, true)?,
            _ => {}
        }
    }
    Ok(())
}

/// `FunctionProto`: name (1), nodes (7), domain (10).
fn function(file: &Window<'_>, range: &Range<u64>, budget: &mut Budget, model: &mut Model) -> Parsed<()> {
    let (mut name, mut domain) = (String::new(), String::new());
    let mut fields = Fields::new(file, range);
    while let Some((number, value)) = fields.next(budget)? {
        match (number, value) {
            (1, Value::Bytes(range)) => name = text(file, &range)?,
            (7, Value::Bytes(inner)) => node(file, &inner, budget, model, 0)?,
            (10, Value::Bytes(range)) => domain = text(file, &range)?,
            _ => {}
        }
    }
    model.operators.define(&domain, &name);
    Ok(())
}

/// `NodeProto`: operator (4), attributes (5), domain (7).
fn node(file: &Window<'_>, range: &Range<u64>, budget: &mut Budget, model: &mut Model, depth: u32) -> Parsed<()> {
    let (mut name, mut domain) = (None, String::new());
    let mut fields = Fields::new(file, range);
    while let Some((number, value)) = fields.next(budget)? {
        match (number, value) {
            (4, Value::Bytes(range)) => name = Some(range),
            (5, Value::Bytes(inner)) => attribute(file, &inner, budget, model, depth)?,
            (7, Value::Bytes(range)) => domain = text(file, &range)?,
            _ => {}
        }
    }
    if let Some(range) = name.filter(|_| !operators::is_known(&domain)) {
        model.operators.use_one(&domain, &text(file, &range)?);
    }
    Ok(())
}

/// `AttributeProto`: a tensor (5), a graph (6), several of each (10, 11).
fn attribute(file: &Window<'_>, range: &Range<u64>, budget: &mut Budget, model: &mut Model, depth: u32) -> Parsed<()> {
    let mut fields = Fields::new(file, range);
    while let Some((number, value)) = fields.next(budget)? {
        match (number, value) {
            (5 | 10, Value::Bytes(inner)) => tensor(file, &inner, budget, model, false)?,
            (6 | 11, Value::Bytes(inner)) => graph(file, &inner, budget, model, depth + 1)?,
            _ => {}
        }
    }
    Ok(())
}

/// `TensorProto`: dims (1), data type (2), name (8), raw data (9), external data (13), data location (14).
fn tensor(file: &Window<'_>, range: &Range<u64>, budget: &mut Budget, model: &mut Model, counted: bool) -> Parsed<()> {
    let (mut dims, mut kind, mut name, mut raw, mut external) = (Vec::new(), 0, String::new(), None, false);
    let mut entries: Vec<(String, String)> = Vec::new();
    let mut fields = Fields::new(file, range);
    while let Some((number, value)) = fields.next(budget)? {
        match (number, value) {
            (1, Value::Varint(size)) if dims.len() < 64 => dims.push(size),
            (1, Value::Bytes(sizes)) => dims = packed(file, &sizes)?,
            (2, Value::Varint(number)) => kind = number,
            (8, Value::Bytes(text_range)) => name = text(file, &text_range)?,
            (9, Value::Bytes(data)) => raw = Some(data.end - data.start),
            (13, Value::Bytes(entry)) if entries.len() < 16 => entries.push(pair(file, &entry, budget)?),
            (14, Value::Varint(location)) => external = location == 1,
            _ => {}
        }
    }
    let shown = names::shown(&name);
    let elements = dims.iter().try_fold(1u64, |product, size| product.checked_mul(*size));
    let Some(elements) = elements else {
        return Err(Stop::Bad(format!("its tensor {shown:?} has an impossible shape")));
    };
    let known = TYPES.iter().find(|(number, ..)| *number == kind);
    let (dtype, bits) = known.map_or(("unknown", 0), |&(_, dtype, bits)| (dtype, bits));
    let bytes = if bits == 0 { None } else { elements.checked_mul(bits).map(|bits| bits.div_ceil(8)) };
    if counted {
        model.counts.add(dtype, elements);
    }
    if let (Some(raw), Some(bytes), false) = (raw, bytes, external)
        && raw != bytes
    {
        return Err(Stop::Bad(format!("its tensor {shown:?} has {raw} bytes, its shape says {bytes}")));
    }
    if external {
        if model.external.len() >= TENSORS {
            return Err(Stop::TooLarge(format!("it has more than {TENSORS} external tensors")));
        }
        let entry = |key: &str| entries.iter().find(|(known, _)| known == key).map(|(_, value)| value.clone());
        let location =
            entry("location").ok_or_else(|| Stop::Bad(format!("its tensor {shown:?} does not say where it lies")))?;
        let number = |key: &str| match entry(key) {
            None => Ok(None),
            Some(text) => {
                text.parse().map(Some).map_err(|_| Stop::Bad(format!("its tensor {shown:?} has no usable {key}")))
            }
        };
        let (offset, length) = (number("offset")?.unwrap_or(0), number("length")?);
        model.external.push(External { name, location, offset, length, bytes });
    }
    Ok(())
}

/// `StringStringEntryProto`
fn pair(file: &Window<'_>, range: &Range<u64>, budget: &mut Budget) -> Parsed<(String, String)> {
    let (mut key, mut content) = (String::new(), String::new());
    let mut fields = Fields::new(file, range);
    while let Some((number, value)) = fields.next(budget)? {
        match (number, value) {
            (1, Value::Bytes(range)) => key = text(file, &range)?,
            (2, Value::Bytes(range)) => content = text(file, &range)?,
            _ => {}
        }
    }
    Ok((key, content))
}

fn check(evidence: &mut Evidence, notes: &mut Notes) {
    for (file, model) in evidence.all::<Model>() {
        let path = &evidence.tree.file(file).path;
        let mut missing = BTreeSet::new();
        for tensor in &model.external {
            let (shown, name) = (names::shown(path), names::shown(&tensor.name));
            let location = tensor.location.trim_start_matches("./");
            if location.is_empty()
                || location.starts_with('/')
                || location.contains('\\')
                || location.split('/').any(|part| part == "..")
            {
                let place = names::shown(&tensor.location);
                let message = format!(
                    "{shown} is damaged: its tensor {name:?} lies in {place:?}, which is no safe path; {UPLOAD_AGAIN}"
                );
                notes.fatal(Reason::Corrupt, Some(path), message);
                continue;
            }
            let data = format!("{}{location}", names::folder(path));
            let data_shown = names::shown(&data);
            let Some(found) = evidence.tree.find(&data) else {
                let message = format!("{data_shown} is missing: {shown} has tensors in it; upload it");
                if missing.insert(data.clone()) {
                    notes.fatal(Reason::Incomplete, Some(&data), message);
                }
                continue;
            };
            let size = evidence.tree.file(found).size;
            let needed = tensor.length.or(tensor.bytes);
            let end = tensor.offset.saturating_add(needed.unwrap_or(0));
            if end > size {
                let message = format!(
                    "{data_shown} is truncated: it has {size} bytes, tensor {name:?} of {shown} ends at byte {end}; {UPLOAD_AGAIN}"
                );
                notes.fatal(Reason::Corrupt, Some(&data), message);
            } else if let (Some(length), Some(bytes)) = (tensor.length, tensor.bytes)
                && length != bytes
            {
                let message = format!(
                    "{shown} is damaged: its tensor {name:?} has {length} bytes in {data_shown}, its shape says {bytes}; {UPLOAD_AGAIN}"
                );
                notes.fatal(Reason::Corrupt, Some(path), message);
            }
        }
    }
}

fn describe(evidence: &Evidence, contents: &mut Contents) {
    let mut counts = Counts::default();
    let mut framework = None;
    for (_, model) in evidence.all::<Model>() {
        counts.merge(&model.counts);
        let producer = format!("{} {}", model.producer, model.version);
        framework = framework.or_else(|| Some(fact(producer.trim())).filter(|text| !text.is_empty()));
    }
    counts.describe(contents);
    contents.framework = contents.framework.take().or(framework);
}
