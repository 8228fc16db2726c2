//! ONNX models (`onnx.proto3` of onnx 1.23): the message to its exact end, tensors inside and in external files. Pure, no I/O.

use std::ops::Range;

use super::{
    counts::Counts,
    evidence::{Evidence, fact},
    findings::{Notes, UPLOAD_AGAIN},
    names,
    probe::{Problem, note_problem},
    protobuf::{Budget, Fields, Value, packed, text},
    table::Family,
    window::{Parse, Parsed, Stop, Window, WindowProbe},
};
use crate::contract::{Contents, Format, Reason};

/// Graphs within graphs, so deep.
const DEPTH: u32 = 16;
/// The most tensors of a model.
const TENSORS: usize = 500_000;

/// Numbers of `TensorProto.DataType`, names, bits of an element; 0 where it varies.
const TYPES: [(u64, &str, u64); 21] = [
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
];

/// ONNX models.
pub(super) const FAMILY: Family = Family {
    claims: |evidence| evidence.all::<Model>().next().is_some(),
    places: |evidence| evidence.all::<Model>().map(|(file, _)| evidence.tree.file(file).path.clone()).collect(),
    sniff: |path, size, _| names::has_extension(path, "onnx").then(|| WindowProbe::boxed(ModelFile, size, &[])),
    check,
    describe,
    judged: "the message to its exact end, tensors' sizes, external files and offsets",
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
    operators: bool,
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
                (8, Value::Bytes(_)) => model.operators = true,
                _ => {}
            }
        }
        match (model.graph, model.operators) {
            (true, true) if model.format => Ok(model),
            (true, true) => Err(Stop::bad("it does not say which version of ONNX it is of")),
            (true, false) => Err(Stop::bad("it names no operator set: it is truncated")),
            (false, _) => Err(Stop::bad("it has no graph: it is truncated, or no ONNX model")),
        }
    }

    fn finish(self, outcome: Result<Model, Problem>, file: usize, evidence: &mut Evidence, notes: &mut Notes) {
        match outcome {
            Ok(model) => evidence.put(file, model),
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
            (1, Value::Bytes(node)) => {
                let mut members = Fields::new(file, &node);
                while let Some((number, value)) = members.next(budget)? {
                    if let (5, Value::Bytes(attribute)) = (number, value) {
                        self::attribute(file, &attribute, budget, model, depth)?;
                    }
                }
            }
            (5, Value::Bytes(initializer)) => tensor(file, &initializer, budget, model, true)?,
            _ => {}
        }
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
                notes.fatal(Reason::Incomplete, Some(&data), message);
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

#[cfg(test)]
mod tests {
    use super::super::tests::{Folder, assert_bad, assert_good};
    use super::*;

    /// A field with bytes.
    fn field(number: u8, content: &[u8]) -> Vec<u8> {
        [&[number << 3 | 2, u8::try_from(content.len()).unwrap()][..], content].concat()
    }

    /// A tensor of 3 F32, inside or in `location`.
    fn tensor(location: Option<(&str, &str, &str)>) -> Vec<u8> {
        let mut bytes = vec![1 << 3, 3, 2 << 3, 1];
        bytes.extend(field(8, b"weight"));
        if let Some((location, offset, length)) = location {
            for (key, value) in [("location", location), ("offset", offset), ("length", length)] {
                bytes.extend(field(13, &[field(1, key.as_bytes()), field(2, value.as_bytes())].concat()));
            }
            bytes.extend([14 << 3, 1]);
        } else {
            bytes.extend(field(9, &[0; 12]));
        }
        bytes
    }

    fn model(tensor: &[u8]) -> Vec<u8> {
        [vec![8, 10], field(2, b"pytorch"), field(3, b"2.15"), field(7, &field(5, tensor)), field(8, &[2 << 3, 21])]
            .concat()
    }

    fn judge(bytes: Vec<u8>) -> crate::format::Verdict {
        Folder::new([("m/model.onnx", bytes), ("m/weights.bin", vec![0; 12])]).judge()
    }

    #[test]
    fn tensors_inside_and_outside() {
        for bytes in [model(&tensor(None)), model(&tensor(Some(("weights.bin", "0", "12"))))] {
            let verdict = judge(bytes.clone());
            assert_good(&verdict);
            let contents = verdict.contents;
            assert_eq!((contents.format, contents.parameters), (Some(Format::Onnx), Some(3)));
            assert_eq!(contents.framework.as_deref(), Some("pytorch 2.15"));
            for length in 0..bytes.len() {
                assert!(!judge(bytes[..length].to_vec()).is_good() || length == 0, "{length}");
            }
        }
    }

    #[test]
    fn damage_is_named() {
        for (location, reason, file, words) in [
            (("other.bin", "0", "12"), Reason::Incomplete, "m/other.bin", "is missing"),
            (("weights.bin", "4", "12"), Reason::Corrupt, "m/weights.bin", "ends at byte 16"),
            (("weights.bin", "0", "8"), Reason::Corrupt, "m/model.onnx", "its shape says 12"),
            (("../weights.bin", "0", "12"), Reason::Corrupt, "m/model.onnx", "no safe path"),
            (("weights.bin", "x", "12"), Reason::Corrupt, "m/model.onnx", "no usable offset"),
        ] {
            assert_bad(&judge(model(&tensor(Some(location)))), reason, file, words);
        }
        let mut short = tensor(None);
        short[1] = 4;
        assert_bad(&judge(model(&short)), Reason::Corrupt, "m/model.onnx", "its shape says 16");
    }

    proptest::proptest! {
        #[test]
        fn changed_models_end(changes in proptest::collection::vec((0usize..80, proptest::prelude::any::<u8>()), 1..6)) {
            let mut bytes = model(&tensor(Some(("weights.bin", "0", "12"))));
            let length = bytes.len();
            for (at, byte) in changes {
                bytes[at % length] = byte;
            }
            judge(bytes);
        }
    }
}
