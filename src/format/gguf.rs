//! GGUF models of llama.cpp, also split ones (`gguf.md` of ggml; gguf 0.19): header, key-value pairs and tensor infos against the
//! file's size. Pure, no I/O.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    counts::Counts,
    evidence::{CodeFact, Evidence, fact},
    findings::{Notes, UPLOAD_AGAIN},
    names,
    probe::{Problem, note_problem},
    table::Family,
    window::{Parse, Parsed, Stop, Window, WindowProbe},
};
use crate::contract::{Contents, Format, Reason};

const MAGIC: &[u8] = b"GGUF";
/// What came before it, each a word of a little-endian machine: no loader reads them any more.
const OBSOLETE: [(&[u8], &str); 4] = [(b"lmgg", "ggml"), (b"fmgg", "ggmf"), (b"tjgg", "ggjt"), (b"algg", "ggla")];
/// The most key-value pairs and tensors that are read.
const MANY: u64 = 1 << 20;
/// The longest name of a tensor, in bytes: C puts a zero behind it (`GGML_MAX_NAME`).
const NAME: u64 = 63;
/// The longest key, in bytes.
const KEY: u64 = 65_535;
/// The longest text that is kept, in bytes.
const TEXT: u64 = 4 << 10;

/// Type number, name, elements of a block, bytes of a block (`ggml-common.h`).
const TYPES: [(u32, &str, u64, u64); 32] = [
    (0, "F32", 1, 4),
    (1, "F16", 1, 2),
    (2, "Q4_0", 32, 18),
    (3, "Q4_1", 32, 20),
    (6, "Q5_0", 32, 22),
    (7, "Q5_1", 32, 24),
    (8, "Q8_0", 32, 34),
    (9, "Q8_1", 32, 40),
    (10, "Q2_K", 256, 84),
    (11, "Q3_K", 256, 110),
    (12, "Q4_K", 256, 144),
    (13, "Q5_K", 256, 176),
    (14, "Q6_K", 256, 210),
    (15, "Q8_K", 256, 292),
    (16, "IQ2_XXS", 256, 66),
    (17, "IQ2_XS", 256, 74),
    (18, "IQ3_XXS", 256, 98),
    (19, "IQ1_S", 256, 50),
    (20, "IQ4_NL", 32, 18),
    (21, "IQ3_S", 256, 110),
    (22, "IQ2_S", 256, 82),
    (23, "IQ4_XS", 256, 136),
    (24, "I8", 1, 1),
    (25, "I16", 1, 2),
    (26, "I32", 1, 4),
    (27, "I64", 1, 8),
    (28, "F64", 1, 8),
    (29, "IQ1_M", 256, 56),
    (30, "BF16", 1, 2),
    (34, "TQ1_0", 256, 54),
    (35, "TQ2_0", 256, 66),
    (39, "MXFP4", 32, 17),
];
const NEWER_TYPES: [(u32, &str, u64, u64); 2] = [(40, "NVFP4", 64, 36), (41, "Q1_0", 128, 18)];

/// Sizes of the scalar values by their type number; 8 is a text, 9 an array.
const SCALARS: [u64; 13] = [1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8];

/// GGUF files.
pub(super) const FAMILY: Family = Family {
    claims: |evidence| evidence.all::<Model>().next().is_some(),
    places: |evidence| evidence.all::<Model>().map(|(file, _)| evidence.tree.file(file).path.clone()).collect(),
    sniff: |path, size, start| {
        let old = OBSOLETE.iter().any(|(magic, _)| start.starts_with(magic));
        let is = start.starts_with(MAGIC) || old || names::has_extension(path, "gguf");
        is.then(|| WindowProbe::boxed(GgufFile, size, start))
    },
    check,
    describe,
    judged: "header, keys, tensors without gaps, file size, splits",
    ..Family::of(Format::Gguf)
};

/// What a file says.
#[derive(Debug, Default)]
struct Model {
    counts: Counts,
    architecture: Option<String>,
    base: Option<String>,
    quantization: Option<&'static str>,
    chat_template: bool,
    /// `split.no`, `split.count`, `split.tensors.count`
    split: [Option<u64>; 3],
}

struct GgufFile;

impl Parse for GgufFile {
    type Output = Model;

    fn remembered(model: &Model) -> u64 {
        model.counts.tensors
    }

    fn parse(&self, file: &Window<'_>) -> Parsed<Model> {
        let mut reader = Reader { file, at: 0 };
        reader.header()
    }

    fn finish(self, outcome: Result<Model, Problem>, file: usize, evidence: &mut Evidence, notes: &mut Notes) {
        match outcome {
            Ok(model) => {
                if model.chat_template {
                    evidence.note_code(CodeFact { on_load: false, file, what: "a chat template".to_owned() });
                }
                evidence.put(file, model);
            }
            Err(problem) => note_problem(&problem, file, evidence, notes),
        }
    }
}

struct Reader<'a, 'b> {
    file: &'b Window<'a>,
    at: u64,
}

/// A value that facts come from.
enum Scalar {
    Number(u64),
    Text(String),
    Other,
}

impl Reader<'_, '_> {
    fn skip(&mut self, length: u64) -> Parsed<u64> {
        let at = self.at;
        let end = at.checked_add(length).filter(|end| *end <= self.file.len());
        self.at = end.ok_or_else(|| {
            Stop::Bad(format!(
                "it ends at byte {}, but its header goes on for {length} bytes from byte {at}",
                self.file.len()
            ))
        })?;
        Ok(at)
    }

    fn u32(&mut self) -> Parsed<u32> {
        let at = self.skip(4)?;
        Ok(u32::from_le_bytes(self.file.array(at)?))
    }

    fn u64(&mut self) -> Parsed<u64> {
        let at = self.skip(8)?;
        Ok(u64::from_le_bytes(self.file.array(at)?))
    }

    fn text(&mut self, limit: u64, what: &str) -> Parsed<String> {
        let length = self.u64()?;
        if length > limit {
            return Err(Stop::Bad(format!("{what} has {length} bytes, more than {limit}")));
        }
        let at = self.skip(length)?;
        let bytes = self.file.bytes(at..at + length)?;
        Ok(String::from_utf8_lossy(bytes).into_owned())
    }

    fn header(&mut self) -> Parsed<Model> {
        let magic = self.file.up_to(0, 4)?;
        if let Some((_, name)) = OBSOLETE.iter().find(|(old, _)| *old == magic) {
            return Err(Stop::Bad(format!(
                "it is of the obsolete format {name}, which llama.cpp does not read any more: convert the original model to GGUF"
            )));
        }
        if magic != MAGIC {
            return Err(Stop::bad("it does not begin with GGUF"));
        }
        self.at = 4;
        match self.u32()? {
            2 | 3 => {}
            version if version.trailing_zeros() >= 16 => {
                return Err(Stop::bad("it is of big-endian machines, which no common loader reads"));
            }
            version => return Err(Stop::Bad(format!("its version {version} is not read by current loaders"))),
        }
        let (tensors, pairs) = (self.u64()?, self.u64()?);
        // The smallest pair has 13 bytes, the smallest tensor info 25.
        if tensors > MANY || pairs > MANY || tensors.saturating_mul(24) + pairs.saturating_mul(13) > self.file.len() {
            return Err(Stop::Bad(format!(
                "it announces {tensors} tensors and {pairs} key-value pairs, which cannot be"
            )));
        }
        let mut model = Model::default();
        let alignment = self.pairs(pairs, &mut model)?;
        self.tensors(tensors, alignment, &mut model)?;
        Ok(model)
    }

    fn pairs(&mut self, count: u64, model: &mut Model) -> Parsed<u64> {
        let mut keys = BTreeSet::new();
        let mut alignment = 32;
        for _ in 0..count {
            let key = self.text(KEY, "a key")?;
            let kind = self.u32()?;
            let value = self.value(kind)?;
            if key.is_empty() || keys.contains(&key) {
                return Err(Stop::Bad(format!("its key {:?} is empty or there twice", names::shown(&key))));
            }
            match (key.as_str(), value) {
                ("general.alignment", Scalar::Number(number)) if number.is_power_of_two() && number <= 1 << 20 => {
                    alignment = number;
                }
                ("general.alignment", _) => return Err(Stop::bad("its alignment is no power of two")),
                ("general.architecture", Scalar::Text(text)) => model.architecture = Some(fact(&text)),
                ("general.base_model.0.name", Scalar::Text(text)) => model.base = Some(fact(&text)),
                ("general.file_type", Scalar::Number(number)) => model.quantization = file_type(number),
                ("split.no", Scalar::Number(number)) => model.split[0] = Some(number),
                ("split.count", Scalar::Number(number)) => model.split[1] = Some(number),
                ("split.tensors.count", Scalar::Number(number)) => model.split[2] = Some(number),
                (key, _) if key.starts_with("tokenizer.chat_template") => model.chat_template = true,
                _ => {}
            }
            keys.insert(key);
        }
        Ok(alignment)
    }

    fn value(&mut self, kind: u32) -> Parsed<Scalar> {
        match kind {
            8 => {
                let length = self.u64()?;
                let at = self.skip(length)?;
                if length > TEXT {
                    return Ok(Scalar::Other);
                }
                Ok(Scalar::Text(String::from_utf8_lossy(self.file.bytes(at..at + length)?).into_owned()))
            }
            9 => {
                let (kind, count) = (self.u32()?, self.u64()?);
                match kind {
                    8 => {
                        for _ in 0..count {
                            let length = self.u64()?;
                            self.skip(length)?;
                        }
                    }
                    kind => {
                        let bytes = scalar(kind)?.checked_mul(count);
                        self.skip(bytes.ok_or_else(|| Stop::bad("an array is longer than 64 bits can count"))?)?;
                    }
                }
                Ok(Scalar::Other)
            }
            kind => {
                let length = scalar(kind)?;
                let at = self.skip(length)?;
                let bytes = self.file.bytes(at..at + length)?;
                // Only whole numbers become facts; floats (6, 12) are passed over.
                let number = bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte));
                Ok(if matches!(kind, 6 | 12) { Scalar::Other } else { Scalar::Number(number) })
            }
        }
    }

    fn tensors(&mut self, count: u64, alignment: u64, model: &mut Model) -> Parsed<()> {
        let mut names = BTreeSet::new();
        let mut extents = Vec::new();
        for _ in 0..count {
            let name = self.text(NAME, "a tensor's name")?;
            let dimensions = self.u32()?;
            if dimensions > 4 {
                return Err(Stop::Bad(format!("its tensor {:?} has {dimensions} dimensions", names::shown(&name))));
            }
            let mut elements = Some(1u64);
            let mut first = 1;
            for dimension in 0..dimensions {
                let size = self.u64()?;
                if dimension == 0 {
                    first = size;
                }
                elements = elements.and_then(|product| product.checked_mul(size)).filter(|product| *product < 1 << 63);
            }
            let kind = self.u32()?;
            let offset = self.u64()?;
            let known = TYPES.iter().chain(&NEWER_TYPES).find(|(number, ..)| *number == kind);
            let Some(&(_, dtype, block, bytes)) = known else {
                return Err(Stop::Bad(format!("its tensor {:?} has the unknown type {kind}", names::shown(&name))));
            };
            let size = elements
                .filter(|_| first.is_multiple_of(block))
                .and_then(|elements| (elements / block).checked_mul(bytes));
            let (Some(elements), Some(size)) = (elements, size) else {
                return Err(Stop::Bad(format!("its tensor {:?} has an impossible shape", names::shown(&name))));
            };
            if !names.insert(name.clone()) {
                return Err(Stop::Bad(format!("its tensor {:?} is there twice", names::shown(&name))));
            }
            model.counts.add(dtype, elements);
            extents.push((name, offset, size));
        }
        let begin = self.at.next_multiple_of(alignment);
        let mut next = 0u64;
        for (name, offset, size) in extents {
            if offset != next {
                let name = names::shown(&name);
                return Err(Stop::Bad(format!(
                    "its tensor {name:?} begins at byte {offset} of the data, where {next} comes next"
                )));
            }
            let end =
                begin.checked_add(offset).and_then(|at| at.checked_add(size)).filter(|end| *end <= self.file.len());
            if end.is_none() {
                let name = names::shown(&name);
                let length = self.file.len();
                return Err(Stop::Bad(format!(
                    "it is truncated: it has {length} bytes, and its tensor {name:?} goes further"
                )));
            }
            next = offset + size.next_multiple_of(alignment);
        }
        Ok(())
    }
}

fn scalar(kind: u32) -> Parsed<u64> {
    let size = SCALARS.get(kind as usize).copied().filter(|size| *size > 0);
    size.ok_or_else(|| Stop::Bad(format!("a value has the unknown type {kind}")))
}

/// `general.file_type`, as `llama-quantize` names it.
fn file_type(number: u64) -> Option<&'static str> {
    let known = [
        (0, "F32"),
        (1, "F16"),
        (2, "Q4_0"),
        (3, "Q4_1"),
        (7, "Q8_0"),
        (8, "Q5_0"),
        (9, "Q5_1"),
        (10, "Q2_K"),
        (11, "Q3_K_S"),
        (12, "Q3_K_M"),
        (13, "Q3_K_L"),
        (14, "Q4_K_S"),
        (15, "Q4_K_M"),
        (16, "Q5_K_S"),
        (17, "Q5_K_M"),
        (18, "Q6_K"),
        (19, "IQ2_XXS"),
        (20, "IQ2_XS"),
        (21, "Q2_K_S"),
        (22, "IQ3_XS"),
        (23, "IQ3_XXS"),
        (24, "IQ1_S"),
        (25, "IQ4_NL"),
        (26, "IQ3_S"),
        (27, "IQ3_M"),
        (28, "IQ2_S"),
        (29, "IQ2_M"),
        (30, "IQ4_XS"),
        (31, "IQ1_M"),
        (32, "BF16"),
        (36, "TQ1_0"),
        (37, "TQ2_0"),
        (38, "MXFP4_MOE"),
    ];
    known.iter().find(|(known, _)| *known == number).map(|(_, name)| *name)
}

/// The parts of a split model: as many as each says, and as many tensors in all. Missing numbers are found by the names of shards.
fn check(evidence: &mut Evidence, notes: &mut Notes) {
    let mut groups: BTreeMap<_, Vec<(&str, &Model)>> = BTreeMap::new();
    for (file, model) in evidence.all::<Model>() {
        let path = evidence.tree.file(file).path.as_str();
        let Some(shard) = names::shard(names::base(path)) else {
            if model.split[1].is_some_and(|count| count > 1) {
                let message = format!(
                    "{} is one of several parts, but its name does not say which: give it its name back",
                    names::shown(path)
                );
                notes.fatal(Reason::Incomplete, Some(path), message);
            }
            continue;
        };
        let [number, count, _] = model.split;
        if count.is_some_and(|count| count != u64::from(shard.total))
            || number.is_some_and(|number| number.saturating_add(1) != u64::from(shard.number))
        {
            let [number, count] = [number, count].map(Option::unwrap_or_default);
            let message = format!(
                "{} says that it is part {} of {count}: it is another part under this name; {UPLOAD_AGAIN}",
                names::shown(path),
                number.saturating_add(1)
            );
            notes.fatal(Reason::Incomplete, Some(path), message);
        }
        groups.entry((names::folder(path), shard.prefix, shard.total)).or_default().push((path, model));
    }
    for ((.., total), parts) in groups {
        let tensors: u64 = parts.iter().map(|(_, model)| model.counts.tensors).sum();
        let announced = parts.iter().find_map(|(path, model)| Some((*path, model.split[2]?)));
        if let Some((path, announced)) = announced
            && parts.len() == total as usize
            && announced != tensors
        {
            let message = format!(
                "the {total} parts of {} have {tensors} tensors, and {announced} are announced: they are of different models; {UPLOAD_AGAIN}",
                names::shown(path)
            );
            notes.fatal(Reason::Incomplete, Some(path), message);
        }
    }
}

fn describe(evidence: &Evidence, contents: &mut Contents) {
    let models: Vec<&Model> = evidence.all::<Model>().map(|(_, model)| model).collect();
    // Several models in one folder are often the same in several quantisations: counting them together would say nothing.
    let split = models.iter().all(|model| model.split[1].is_some_and(|count| count > 1));
    if models.len() == 1 || split {
        let mut counts = Counts::default();
        for model in &models {
            counts.merge(&model.counts);
        }
        counts.describe(contents);
        contents.quantization = contents
            .quantization
            .take()
            .or_else(|| models.iter().find_map(|model| model.quantization).map(str::to_owned));
    }
    let first = |get: fn(&Model) -> &Option<String>| models.iter().find_map(|model| get(model).clone());
    contents.architecture = contents.architecture.take().or_else(|| first(|model| &model.architecture));
    contents.base_model = contents.base_model.take().or_else(|| first(|model| &model.base));
}

#[cfg(test)]
mod tests;
