//! Drives the judge over a small folder and holds it to what it promises: reads within files and in proportion to them, one
//! verdict in whatever order, texts that a terminal can show. Pure, no I/O.

use std::collections::BTreeSet;

use checkpoint_operator::{
    contract::{
        CodePolicy, Depth, Outcome, PicklePolicy, PickleTier, Report, TaskKind, Validation,
        report::TERMINATION_MESSAGE_LIMIT,
    },
    format::{File, Input, Judge, MAX_READ, Read, Step, Verdict},
};
use serde_json::Value;

/// Paths and what is there.
type Files<'a> = [(&'a str, &'a [u8])];

/// The most reads that the judge may have open.
const OPEN: usize = 64;
/// How often every byte of a folder may be read in all: by its name, by its first bytes, by what follows, for its checksum.
const TIMES: usize = 8;
/// Reads that a file may take besides one for each of its blocks.
const READS: usize = 32;
/// Bytes of a block: no entry of any archive is smaller.
const BLOCK: usize = 64;

/// In which order files are listed and reads are answered.
#[derive(Clone, Copy)]
enum Order {
    Forwards,
    Backwards,
}

/// What must hold for any files.
pub(super) fn check(files: &Files<'_>) {
    let anything = Validation {
        depth: Depth::Content,
        pickle: PicklePolicy::Allow,
        code: CodePolicy::Allow,
        ..Validation::default()
    };
    let verdict = judge(files, &anything, Order::Forwards);
    assert_eq!(verdict, judge(files, &anything, Order::Backwards), "the verdict depends on an order");
    says_what_can_be_shown(&verdict);
    let careful = judge(files, &Validation::default(), Order::Forwards);
    let tier = careful.contents.pickle.unwrap_or(PickleTier::None);
    assert!(!careful.is_good() || tier <= PickleTier::KnownSafe, "{tier:?} was accepted: {}", careful.message);
}

/// One run of the judge.
fn judge(files: &Files<'_>, validation: &Validation, order: Order) -> Verdict {
    let mut listed: Vec<(&str, &[u8])> = files.to_vec();
    if matches!(order, Order::Backwards) {
        listed.reverse();
    }
    let names = listed.iter().map(|(path, bytes)| File { path: (*path).to_owned(), size: bytes.len() as u64 });
    let mut judge = Judge::new(names.collect(), validation, &[]);
    let (mut reads, mut bytes) = (0, 0);
    let mut open: Vec<Read> = Vec::new();
    let mut step = judge.step(Input::Start);
    loop {
        match step {
            Step::Done(verdict) => return *verdict,
            Step::Read(more) => open.extend(more),
        }
        assert!(!open.is_empty(), "the judge waits for nothing");
        assert!(open.len() <= OPEN, "{} reads are open", open.len());
        let read = if matches!(order, Order::Backwards) { open.swap_remove(open.len() - 1) } else { open.remove(0) };
        let answer = answer(&listed, &read);
        reads += 1;
        bytes += answer.len();
        is_in_proportion(&listed, reads, bytes);
        step = judge.step(Input::Bytes { id: read.id, bytes: answer });
    }
}

/// The bytes of a read, which must lie within its file.
fn answer<'a>(files: &Files<'a>, read: &Read) -> &'a [u8] {
    let length = read.range.end.saturating_sub(read.range.start);
    assert!(0 < length && length <= MAX_READ, "{read:?}");
    let range = usize::try_from(read.range.start).ok().zip(usize::try_from(read.range.end).ok());
    let file = files.get(read.file).zip(range);
    let bytes = file.and_then(|((_, bytes), (start, end))| bytes.get(start..end));
    bytes.unwrap_or_else(|| unreachable!("outside of its file: {read:?}"))
}

/// What a run may cost: so many reads and bytes for so large a folder.
fn is_in_proportion(files: &Files<'_>, reads: usize, bytes: usize) {
    let size: usize = files.iter().map(|(_, bytes)| bytes.len()).sum();
    assert!(bytes <= TIMES * size, "{bytes} bytes were read of {size}");
    let most = READS * files.len() + size / BLOCK;
    assert!(reads <= most, "{reads} reads for {size} bytes in {} files", files.len());
}

/// Whatever stands in the files, no text of the verdict can move a cursor, and the verdict fits where reports go.
fn says_what_can_be_shown(verdict: &Verdict) {
    let fatal = verdict.findings.iter().any(|finding| finding.fatal);
    assert!(!(verdict.is_good() && fatal), "good with a fatal finding: {:?}", verdict.findings);
    let mut report = Report::new(TaskKind::Inspect, Outcome::Good, verdict.reason, verdict.message.clone());
    report.contents = Some(verdict.contents.clone());
    report.metadata.clone_from(&verdict.metadata);
    report.findings.clone_from(&verdict.findings);
    let value = serde_json::to_value(&report).unwrap_or_default();
    assert!(value.is_object(), "the report cannot be written");
    assert!(is_printable(&value), "a control character: {value:?}");
    let encoded = report.encode(TERMINATION_MESSAGE_LIMIT);
    assert!(encoded.len() <= TERMINATION_MESSAGE_LIMIT, "{} bytes of report", encoded.len());
    assert!(Report::decode(&encoded).is_ok(), "the report does not read back: {encoded}");
}

fn is_printable(value: &Value) -> bool {
    let text = |text: &str| !text.chars().any(char::is_control);
    match value {
        Value::String(value) => text(value),
        Value::Array(list) => list.iter().all(is_printable),
        Value::Object(map) => map.iter().all(|(key, value)| text(key) && is_printable(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => true,
    }
}

/// Names that mean something to some format; a folder of the fuzzer is made of these.
const NAMES: &[&str] = &[
    "model.safetensors",
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors",
    "model.safetensors.index.json",
    "config.json",
    "adapter_config.json",
    "adapter_model.safetensors",
    "trainer_state.json",
    "tokenizer_config.json",
    ".metadata.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "optimizer.pt",
    "rng_state_0.pth",
    "model_index.json",
    "unet/config.json",
    "unet/diffusion_pytorch_model.safetensors",
    "modules.json",
    ".metadata",
    "__0_0.distcp",
    "metadata.json",
    "latest",
    "global_step1/mp_rank_00_model_states.pt",
    "global_step1/zero_pp_rank_0_mp_rank_00_optim_states.pt",
    "latest_checkpointed_iteration.txt",
    "iter_0000001/mp_rank_00/model_optim_rng.pt",
    "_CHECKPOINT_METADATA",
    "_METADATA",
    "manifest.ocdbt",
    "d/0123456789abcdef",
    "saved_model.pb",
    "variables/variables.index",
    "variables/variables.data-00000-of-00001",
    "model.keras",
    "model.h5",
    "model.onnx",
    "weights.bin",
    "model.gguf",
    "model-00001-of-00002.gguf",
    "model.json",
    "model.ubj",
    "model.txt",
    "MLmodel",
    "model.pkl",
    "model.joblib",
    "a.npy",
    "a.npz",
    "model.skops",
    "dict_checkpoint.pkl",
    "algorithm_state.pkl",
    "rllib_checkpoint.json",
    "checkpoint_manager_snapshot.json",
    "random_states_0.pkl",
    "model.nemo",
    "model.tflite",
    "model.cbm",
    "model.msgpack",
    "model.ckpt.index",
    "model.ckpt.data-00000-of-00001",
    "checkpoint",
    "README.md",
    "step-1/model.safetensors",
    "step-2/model.safetensors",
    "data",
];

/// A folder from the bytes: for each file the number of a name, the length in two bytes, and so many bytes.
pub(super) fn folder(mut bytes: &[u8]) -> Vec<(&'static str, &[u8])> {
    let mut files = Vec::new();
    let mut known = BTreeSet::new();
    while let [name, low, high, rest @ ..] = bytes {
        let length = usize::from(u16::from_le_bytes([*low, *high])).min(rest.len());
        let (content, rest) = rest.split_at(length);
        bytes = rest;
        let Some(name) = NAMES.get(usize::from(*name) % NAMES.len()) else { break };
        if known.insert(*name) {
            files.push((*name, content));
        }
    }
    files
}
