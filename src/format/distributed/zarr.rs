//! Megatron's `metadata.json`, and its old backend `zarr`: one zarr array for each tensor (Megatron-LM core 0.7,
//! `core/dist_checkpointing/strategies/zarr.py`; zarr format 2). Pure, no I/O.

use serde_json::Value;

use super::{
    super::{
        counts::Counts,
        evidence::{Evidence, Tree},
        findings::{Notes, UPLOAD_AGAIN},
        names,
        probe::{Probe, Problem, note_problem},
        window::{Parse, Parsed, Stop, Window, WindowProbe},
    },
    MEGATRON,
};
use crate::contract::Reason;

/// All that is not tensors; Megatron alone writes it.
const COMMON: &str = "common.pt";
const ARRAY: &str = ".zarray";
/// The largest document that is read, in bytes.
const LIMIT: u64 = 1 << 20;
/// The most chunks of one array that are looked for.
const CHUNKS: u64 = 1 << 20;
/// The most missing chunks that are named.
const SHOWN: usize = 8;

/// Element types: as zarr names them, as they are reported, and their bytes.
const TYPES: [(&str, &str, u64); 12] = [
    ("bfloat16", "BF16", 2),
    ("<f2", "F16", 2),
    ("<f4", "F32", 4),
    ("<f8", "F64", 8),
    ("<i2", "I16", 2),
    ("<i4", "I32", 4),
    ("<i8", "I64", 8),
    ("|i1", "I8", 1),
    ("|u1", "U8", 1),
    ("|b1", "BOOL", 1),
    // What zarr makes of bfloat16 where tensorstore is not there.
    ("|V2", "BF16", 2),
    ("<V2", "BF16", 2),
];

/// `metadata.json`: which backend wrote the tensors.
#[derive(Debug)]
pub(super) struct Config {
    backend: String,
}

/// `.zarray`: what one array is.
#[derive(Debug)]
struct Array {
    shape: Vec<u64>,
    chunks: Vec<u64>,
    separator: char,
    /// Name, and bytes of an element.
    dtype: Option<(&'static str, u64)>,
    compressed: bool,
}

enum Kind {
    Config,
    Array,
}

struct Document(Kind);

enum Found {
    Config(Option<Config>),
    Array(Array),
}

/// Folders whose `metadata.json` says that zarr wrote them.
pub(super) fn folders(evidence: &Evidence) -> Vec<String> {
    let configs = evidence.all::<Config>().filter(|(_, config)| config.backend == "zarr");
    configs.map(|(file, _)| names::folder(&evidence.tree.file(file).path).to_owned()).collect()
}

/// A reader of `metadata.json` and `.zarray`.
pub(super) fn probe(tree: &Tree, file: usize) -> Option<Box<dyn Probe>> {
    let listed = tree.file(file);
    let folder = names::folder(&listed.path);
    let has = |folder: &str, name: &str| tree.find(&format!("{folder}{name}")).is_some();
    let kind = match names::base(&listed.path) {
        MEGATRON if has(folder, COMMON) || has(folder, super::METADATA) => Kind::Config,
        ARRAY => {
            let around = names::folder(folder.trim_end_matches('/'));
            (has(around, COMMON) && has(around, MEGATRON)).then_some(Kind::Array)?
        }
        _ => return None,
    };
    Some(WindowProbe::boxed(Document(kind), listed.size, &[]))
}

impl Parse for Document {
    type Output = Found;

    fn parse(&self, file: &Window<'_>) -> Parsed<Found> {
        if file.len() > LIMIT {
            return Err(Stop::TooLarge(format!("it has {} bytes, more than {LIMIT}", file.len())));
        }
        let bytes = file.bytes(0..file.len())?;
        let value: Value = serde_json::from_slice(bytes).map_err(|error| Stop::Bad(error.to_string()))?;
        match self.0 {
            Kind::Config => {
                let backend = value.get("sharded_backend").and_then(Value::as_str);
                Ok(Found::Config(backend.map(|backend| Config { backend: backend.to_owned() })))
            }
            Kind::Array => {
                array(&value).map(Found::Array).ok_or_else(|| Stop::bad("it describes no array of zarr format 2"))
            }
        }
    }

    fn finish(self, outcome: Result<Found, Problem>, file: usize, evidence: &mut Evidence, notes: &mut Notes) {
        match outcome {
            Ok(Found::Config(Some(config))) => evidence.put(file, config),
            Ok(Found::Config(None)) => {}
            Ok(Found::Array(array)) => evidence.put(file, array),
            Err(problem) => note_problem(&problem, file, evidence, notes),
        }
    }
}

fn array(value: &Value) -> Option<Array> {
    let numbers = |key: &str| -> Option<Vec<u64>> { value.get(key)?.as_array()?.iter().map(Value::as_u64).collect() };
    let (shape, chunks) = (numbers("shape")?, numbers("chunks")?);
    if value.get("zarr_format")?.as_u64()? != 2 || shape.len() != chunks.len() || chunks.contains(&0) {
        return None;
    }
    let dtype = value.get("dtype")?.as_str();
    let dtype = TYPES.iter().find(|(name, ..)| Some(*name) == dtype).map(|&(_, dtype, size)| (dtype, size));
    let filters = value.get("filters").is_some_and(|filters| !filters.is_null());
    let separator = value.get("dimension_separator").and_then(Value::as_str).and_then(|text| text.chars().next());
    Some(Array {
        shape,
        chunks,
        separator: separator.unwrap_or('.'),
        dtype,
        compressed: filters || !value.get("compressor")?.is_null(),
    })
}

/// Every array has all its chunks (Megatron writes empty ones, too), in their size when they are not compressed.
pub(super) fn check(evidence: &Evidence, notes: &mut Notes) {
    for folder in folders(evidence) {
        if evidence.tree.find(&format!("{folder}{COMMON}")).is_none() {
            missing(&format!("{folder}{COMMON}"), "it holds all that is not tensors", notes);
        }
        let mut seen = false;
        for (index, file) in evidence.tree.below(&folder) {
            let within = names::folder(&file.path);
            let Some(array) = evidence.get::<Array>(index) else { continue };
            if within.strip_prefix(folder.as_str()).is_some_and(|name| !name.is_empty()) {
                seen = true;
                check_array(evidence, within, array, notes);
            }
        }
        if !seen {
            let message =
                format!("{folder}{MEGATRON} says that the tensors are zarr arrays, and there is none; upload them");
            notes.fatal(Reason::Incomplete, Some(&folder), message);
        }
    }
}

fn missing(path: &str, why: &str, notes: &mut Notes) {
    notes.fatal(Reason::Incomplete, Some(path), format!("{} is missing: {why}; upload it", names::shown(path)));
}

fn check_array(evidence: &Evidence, folder: &str, array: &Array, notes: &mut Notes) {
    let counts: Vec<u64> = array.shape.iter().zip(&array.chunks).map(|(size, chunk)| size.div_ceil(*chunk)).collect();
    let all = counts.iter().fold(1u64, |product, count| product.saturating_mul(*count));
    let elements = array.chunks.iter().fold(1u64, |product, chunk| product.saturating_mul(*chunk));
    let bytes = array.dtype.filter(|_| !array.compressed).map(|(_, size)| elements.saturating_mul(size));
    if all > CHUNKS {
        let path = format!("{folder}{ARRAY}");
        let message = format!("{} describes {all} chunks, more than {CHUNKS}; {UPLOAD_AGAIN}", names::shown(&path));
        return notes.fatal(Reason::Corrupt, Some(&path), message);
    }
    let mut lost = 0;
    for number in 0..all {
        let path = format!("{folder}{}", chunk(number, &counts, array.separator));
        match evidence.tree.find(&path).map(|file| evidence.tree.file(file).size) {
            None => {
                lost += 1;
                missing(&path, &format!("{folder}{ARRAY} describes {all} chunks"), notes);
                if lost >= SHOWN {
                    break;
                }
            }
            Some(size) if bytes.is_some_and(|bytes| bytes != size) => {
                let bytes = bytes.unwrap_or_default();
                let shown = names::shown(&path);
                let message = format!("{shown} has {size} bytes, a chunk of its array has {bytes}; {UPLOAD_AGAIN}");
                notes.fatal(Reason::Corrupt, Some(&path), message);
            }
            Some(_) => {}
        }
    }
}

/// `2.0.1`; arrays without dimensions have the chunk `0`.
fn chunk(number: u64, counts: &[u64], separator: char) -> String {
    let mut rest = number;
    let mut parts: Vec<String> = Vec::new();
    for count in counts.iter().rev() {
        parts.push((rest % count).to_string());
        rest /= count;
    }
    parts.reverse();
    if parts.is_empty() { "0".to_owned() } else { parts.join(&separator.to_string()) }
}

/// Adds up the arrays.
pub(super) fn count(evidence: &Evidence, counts: &mut Counts) {
    let folders = folders(evidence);
    for (file, array) in evidence.all::<Array>() {
        let path = &evidence.tree.file(file).path;
        // Optimizers' states are no parameters.
        let is_state = path.contains("/optimizer.") || path.starts_with("optimizer.");
        if let Some((dtype, _)) =
            array.dtype.filter(|_| !is_state && folders.iter().any(|folder| path.starts_with(folder.as_str())))
        {
            counts.add(dtype, array.shape.iter().fold(1u64, |product, size| product.saturating_mul(*size)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::tests::{Folder, assert_bad, assert_good, torch_file};
    use super::*;
    use crate::{
        contract::{Depth, Format},
        format::File,
    };

    fn array(dtype: &str, compressor: &str) -> String {
        format!(
            r#"{{"chunks": [2, 3], "compressor": {compressor}, "dtype": "{dtype}", "fill_value": null, "filters": null, "order": "C", "shape": [3, 3], "zarr_format": 2}}"#
        )
    }

    fn folder() -> Folder {
        Folder::new([
            ("metadata.json", br#"{"sharded_backend": "zarr", "sharded_backend_version": 1, "common_backend": "torch"}"#.to_vec()),
            ("common.pt", torch_file()),
            ("model.weight/.zarray", array("bfloat16", "null").into_bytes()),
            ("model.weight/0.0", vec![1; 12]),
            ("model.weight/1.0", vec![1; 12]),
            ("model.bias/.zarray", br#"{"chunks": [], "compressor": null, "dtype": "<f4", "fill_value": null, "filters": null, "order": "C", "shape": [], "zarr_format": 2}"#.to_vec()),
            ("model.bias/0", vec![1; 4]),
            ("optimizer.state.exp_avg.model.weight/.zarray", array("<f4", "{\"id\": \"zstd\"}").into_bytes()),
            ("optimizer.state.exp_avg.model.weight/0.0", vec![1; 5]),
            ("optimizer.state.exp_avg.model.weight/1.0", vec![1; 7]),
        ])
    }

    #[test]
    fn arrays_have_all_their_chunks() {
        let verdict = folder().judge();
        assert_good(&verdict);
        let contents = verdict.contents;
        assert_eq!((contents.format, contents.tensors), (Some(Format::MegatronDistributed), Some(2)));
        assert_eq!(contents.dtypes, [("BF16".to_owned(), 9), ("F32".to_owned(), 1)].into());
        for lost in ["model.weight/1.0", "model.bias/0", "optimizer.state.exp_avg.model.weight/0.0"] {
            assert_bad(&folder().without(lost).judge(), Reason::Incomplete, lost, "is missing");
        }
        assert_bad(
            &folder().with("model.weight/1.0", vec![1; 11]).judge(),
            Reason::Corrupt,
            "model.weight/1.0",
            "has 11 bytes",
        );
    }

    #[test]
    fn a_few_missing_chunks_are_enough() {
        let file = |path: &str| File { path: path.to_owned(), size: 1 };
        let tree = Tree::new(["common.pt", "metadata.json", "w/.zarray"].map(file).to_vec());
        let mut evidence = Evidence::new(tree, Depth::Headers, false);
        evidence.put(1, Config { backend: "zarr".to_owned() });
        let array = Array { shape: vec![CHUNKS], chunks: vec![1], separator: '.', dtype: None, compressed: false };
        evidence.put(2, array);
        let mut notes = Notes::default();
        check(&evidence, &mut notes);
        assert_eq!(notes.finish().1, SHOWN as u64);
        assert!(evidence.tree.looked.get() < 200, "{}", evidence.tree.looked.get());
    }

    #[test]
    fn what_describes_arrays_is_damaged_or_absurd() {
        for (path, text, reason, words) in [
            ("metadata.json", "{".to_owned(), Reason::Corrupt, "is damaged"),
            (
                "model.weight/.zarray",
                array("<f4", "null").replace('2', "0"),
                Reason::Corrupt,
                "no array of zarr format 2",
            ),
            (
                "model.weight/.zarray",
                array("<f4", "null").replace("[3, 3]", "[9000000000, 9000000000]"),
                Reason::Corrupt,
                "chunks, more than",
            ),
            ("model.weight/.zarray", "[".to_owned(), Reason::Corrupt, "is damaged"),
        ] {
            assert_bad(&folder().with(path, text).judge(), reason, path, words);
        }
        let none = Folder(folder().0.into_iter().filter(|(path, _)| !path.contains('/')).collect());
        assert_bad(&none.judge(), Reason::Incomplete, "metadata.json", "there is none");
    }
}
