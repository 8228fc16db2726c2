//! Verdicts on damaged fixtures beside the answers of the formats' own readers (`e2e/fixtures/agreement.json`; file I/O).
//!
//! Where a reader refuses a damaged copy, the judge must, too, at depth `Content` at the latest. Where it does not, because the
//! damage is nothing that the reader looks at, `EXCEPTIONS` says why.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests stand outside of test functions here"
)]

use std::collections::{BTreeMap, BTreeSet};

use checkpoint_operator::contract::Depth;
use checkpoint_operator_e2e::{
    fixtures::{self, Files},
    paths,
};
use serde::Deserialize;

/// One case of `agreement.json`.
#[derive(Debug, Deserialize)]
struct Case {
    fixture: String,
    file: Option<String>,
    damage: Option<Damage>,
    reader: Option<String>,
    answer: Answer,
    #[serde(default)]
    why: String,
}

/// What is done to a file.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Damage {
    Truncate(usize),
    Flip(usize, u8),
    Append(String),
    Remove(bool),
    Replace(usize, String),
    Swap(String),
}

/// What the format's own reader came to.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd)]
#[serde(rename_all = "lowercase")]
enum Answer {
    Refused,
    Same,
    Other,
    Crashed,
    None,
}

impl Damage {
    fn name(&self) -> &'static str {
        match self {
            Self::Truncate(_) => "truncate",
            Self::Flip(..) => "flip",
            Self::Append(_) => "append",
            Self::Remove(_) => "remove",
            Self::Replace(..) => "replace",
            Self::Swap(_) => "swap",
        }
    }

    /// The files as they are then.
    fn apply(&self, files: &Files, path: &str) -> Files {
        let mut changed = files.clone();
        let bytes = changed.get_mut(path).unwrap_or_else(|| panic!("there is no {path}"));
        match self {
            Self::Truncate(length) => bytes.truncate(*length),
            Self::Flip(at, mask) => bytes[*at] ^= mask,
            Self::Append(hex) => bytes.extend(unhex(hex)),
            Self::Replace(at, hex) => {
                let new = unhex(hex);
                bytes.splice(*at..*at + new.len(), new);
            }
            Self::Remove(whole) => {
                assert!(whole, "a removal that is none");
                changed.remove(path);
            }
            Self::Swap(other) => {
                let theirs = files[other].clone();
                let ours = std::mem::replace(bytes, theirs);
                changed.insert(other.clone(), ours);
            }
        }
        changed
    }
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn cases() -> Vec<Case> {
    let text = std::fs::read(paths::workspace().join("e2e/fixtures/agreement.json")).unwrap();
    serde_json::from_slice(&text).unwrap()
}

const MARK: &str = "without the file that makes it one, the folder is of another format, and as such whole";
const NAME: &str = "a name that tells nothing and first bytes that are nothing known: any file may look so";
const TEXT: &str = "names and values within the structure that only the library itself can tell apart";
const CODE: &str = "Python is not parsed";
const NATIVE: &str =
    "models that the library knows itself need no Python file, and no file says which it knows: a warning";
const OPTIONAL: &str = "other loaders of the format do without the file";
const CHUNK: &str = "a compressed chunk has no checksum of its own; its size and place are right";
const SWAP: &str = "both are settings, and each is where the other belongs: their content is the library's business";
const PACKED: &str =
    "what cannot be unpacked is Unchecked and refused by every policy but Allow, which this test asks with";
const TAIL: &str = "the byte is of the frame's end mark, behind all content";

/// Damages that a reader refuses and the judge may accept: fixture, file, damage, and why that is right.
const EXCEPTIONS: &[(&str, &str, &str, &str)] = &[
    ("accelerate", "optimizer.bin", "remove", OPTIONAL),
    ("catboost/cbm", "model.cbm", "flip", TEXT),
    ("catboost/json", "model.json", "flip", NAME),
    ("catboost/json", "model.json", "truncate", NAME),
    ("dcp-ranks", ".metadata", "flip", TEXT),
    ("diffusers", "model_index.json", "remove", MARK),
    ("diffusers-text", "model_index.json", "remove", MARK),
    ("flax/checkpoint", "checkpoint_7", "flip", NAME),
    ("flax/checkpoint", "checkpoint_7", "truncate", NAME),
    ("hugging_face/remote_code", "config.json", "remove", MARK),
    ("hugging_face/remote_code", "modeling_tiny.py", "flip", CODE),
    ("hugging_face/remote_code", "modeling_tiny.py", "remove", NATIVE),
    ("hugging_face/remote_code", "modeling_tiny.py", "truncate", CODE),
    ("hugging_face/sharded", "config.json", "remove", MARK),
    ("hugging_face/single", "config.json", "remove", MARK),
    ("hugging_face/single", "config.json", "swap", SWAP),
    ("hugging_face/single", "tokenizer.json", "remove", OPTIONAL),
    ("hugging_face/single", "tokenizer.json", "swap", SWAP),
    ("hugging_face/torch_bin", "config.json", "remove", MARK),
    ("hugging_face/torch_bin_sharded", "config.json", "remove", MARK),
    ("joblib/bzip2", "m.joblib.bz2", "flip", PACKED),
    ("joblib/bzip2", "m.joblib.bz2", "truncate", PACKED),
    ("joblib/lz4", "m.joblib.lz4", "truncate", TAIL),
    ("keras/sharded", "model.weights.json", "remove", OPTIONAL),
    ("keras/sharded", "model_00000.weights.h5", "swap", SWAP),
    ("lightgbm", "model.txt", "flip", NAME),
    ("lightgbm", "model.txt", "truncate", NAME),
    ("lightgbm-json", "model.txt", "flip", NAME),
    ("lightgbm-json", "model.txt", "remove", MARK),
    ("lightgbm-json", "model.txt", "truncate", NAME),
    ("megatron/distributed", "iter_0000010/common.pt", "remove", OPTIONAL),
    ("mlflow/onnx", "MLmodel", "remove", MARK),
    ("mlflow/pyfunc", "MLmodel", "remove", MARK),
    ("mlflow/pytorch", "MLmodel", "remove", MARK),
    ("mlflow/sklearn", "MLmodel", "remove", MARK),
    ("mlflow/sklearn_pickle", "MLmodel", "remove", MARK),
    ("mlflow/sklearn_pickle", "model.pkl", "flip", TEXT),
    ("numpy/objects", "o.npy", "flip", TEXT),
    ("onnx/custom_operator", "model.onnx", "flip", TEXT),
    ("onnx/external", "m.onnx", "remove", MARK),
    ("onnx/inside", "m.onnx", "flip", TEXT),
    ("onnx/several", "model.onnx", "remove", MARK),
    ("onnx/shared", "model.onnx", "remove", MARK),
    ("orbax/v1", "state/_sharding", "remove", OPTIONAL),
    ("orbax/zarr", "_sharding", "remove", OPTIONAL),
    ("orbax/zarr", "opt.0/0.0", "flip", CHUNK),
    ("orbax/zarr", "opt.1/0", "flip", CHUNK),
    ("peft", "adapter_config.json", "remove", MARK),
    ("peft-torch_bin", "adapter_config.json", "remove", MARK),
    ("peft-torch_bin", "adapter_config.json", "replace", TEXT),
    ("sentence_transformers", "tokenizer.json", "remove", OPTIONAL),
    ("sentence_transformers", "tokenizer_config.json", "remove", OPTIONAL),
    ("sklearn/pickle", "m.pkl", "flip", TEXT),
    ("tensorflow/checkpoint", "checkpoint", "flip", NAME),
    ("tensorflow/checkpoint", "checkpoint", "remove", OPTIONAL),
    ("tensorflow/checkpoint", "checkpoint", "truncate", NAME),
    ("tensorflow/checkpoint_v1", "checkpoint", "flip", NAME),
    ("tensorflow/checkpoint_v1", "checkpoint", "remove", OPTIONAL),
    ("tensorflow/checkpoint_v1", "checkpoint", "truncate", NAME),
    ("tensorflow/saved_model", "saved_model.pb", "flip", TEXT),
    ("torch/no_checksums", "model.bin", "flip", NAME),
    ("trainer/checkpoint-2", "config.json", "remove", OPTIONAL),
    ("xgboost/dart", "model.ubj", "flip", TEXT),
    ("xgboost/json", "model.json", "flip", NAME),
    ("xgboost/json", "model.json", "truncate", NAME),
    ("xgboost/linear", "model.json", "flip", NAME),
    ("xgboost/linear", "model.json", "truncate", NAME),
    ("xgboost/ubjson", "model.ubj", "flip", TEXT),
];

fn exception(case: &Case, damage: &Damage) -> Option<usize> {
    let is = |(fixture, file, kind, _): &(&str, &str, &str, &str)| {
        case.fixture == *fixture && case.file.as_deref() == Some(*file) && *kind == damage.name()
    };
    EXCEPTIONS.iter().position(is)
}

/// Found at `Headers`, only at `Content`, or not at all.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    headers: u32,
    content: u32,
    accepted: u32,
}

#[test]
fn what_the_own_reader_refuses_is_refused() {
    let mut table: BTreeMap<(String, &str, Answer), Tally> = BTreeMap::new();
    let (mut wrong, mut used) = (Vec::new(), BTreeSet::new());
    let mut fixture = (String::new(), Files::new());
    for case in cases() {
        let (Some(path), Some(damage)) = (&case.file, &case.damage) else { continue };
        if fixture.0 != case.fixture {
            fixture = (case.fixture.clone(), fixtures::read(&case.fixture).unwrap());
        }
        let changed = damage.apply(&fixture.1, path);
        let good = |depth| {
            let verdict = fixtures::judge(&changed, &fixtures::bytes_alone(depth)).unwrap();
            (verdict.is_good(), verdict.message)
        };
        let tally = table.entry((case.fixture.clone(), damage.name(), case.answer)).or_default();
        if !good(Depth::Headers).0 {
            tally.headers += 1;
            continue;
        }
        let (accepted, message) = good(Depth::Content);
        if !accepted {
            tally.content += 1;
            continue;
        }
        tally.accepted += 1;
        if case.answer != Answer::Refused {
            continue;
        }
        if let Some(known) = exception(&case, damage) {
            used.insert(known);
        } else {
            let reader = case.reader.as_deref().unwrap_or_default();
            wrong.push(format!("{} {path} {damage:?}: {reader} refuses ({}), here: {message}", case.fixture, case.why));
        }
    }
    println!("{:32} {:9} {:9} {:>8} {:>8} {:>8}", "fixture", "damage", "reader", "headers", "content", "accepted");
    let mut sums: BTreeMap<Answer, Tally> = BTreeMap::new();
    for ((fixture, damage, answer), tally) in &table {
        let answer_name = format!("{answer:?}").to_lowercase();
        println!(
            "{fixture:32} {damage:9} {answer_name:9} {:8} {:8} {:8}",
            tally.headers, tally.content, tally.accepted
        );
        let sum = sums.entry(*answer).or_default();
        sum.headers += tally.headers;
        sum.content += tally.content;
        sum.accepted += tally.accepted;
    }
    for (answer, sum) in &sums {
        println!("all that is {answer:?}: {sum:?}");
    }
    let unused: Vec<_> =
        (0..EXCEPTIONS.len()).filter(|known| !used.contains(known)).map(|known| EXCEPTIONS[known]).collect();
    assert!(unused.is_empty(), "exceptions that are none any more: {unused:?}");
    assert!(wrong.is_empty(), "{} cases:\n{}", wrong.len(), wrong.join("\n"));
}
