//! Tests of the whole judge, with a driver that answers in any order and checks every request.

mod folders;
mod headers;
mod malicious;
mod metadata;
mod policies;
mod properties;
mod scale;
mod shards;

use std::ops::Range;

use serde_json::json;

use super::{zip::tests::archive, *};
use crate::contract::{Depth, PicklePolicy, Validation, filter::Selector};

/// Where bytes come from.
pub(super) trait Source {
    fn read(&self, file: &File, range: Range<u64>) -> Vec<u8>;
}

/// What a run asked for.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Cost {
    pub reads: u64,
    pub bytes: u64,
}

/// Drives a judge to its end. `seed` decides which of the outstanding reads is answered next.
pub(super) fn drive(mut judge: Judge, files: &[File], source: &impl Source, mut seed: u64) -> (Verdict, Cost) {
    let mut cost = Cost::default();
    let mut outstanding: Vec<Read> = vec![];
    let mut step = judge.step(Input::Start);
    loop {
        match step {
            Step::Done(verdict) => return (*verdict, cost),
            Step::Read(reads) => {
                for read in &reads {
                    let length = read.range.end - read.range.start;
                    assert!(length > 0 && length <= MAX_READ && read.range.end <= files[read.file].size, "{read:?}");
                    cost.reads += 1;
                    cost.bytes += length;
                }
                outstanding.extend(reads);
            }
        }
        assert!(!outstanding.is_empty(), "the judge waits for nothing");
        assert!(outstanding.len() <= 64, "{} reads at once", outstanding.len());
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let pick = usize::try_from(seed >> 33).unwrap() % outstanding.len();
        let read = outstanding.swap_remove(if seed == 0 { 0 } else { pick });
        let bytes = source.read(&files[read.file], read.range.clone());
        step = judge.step(Input::Bytes { id: read.id, bytes: &bytes });
    }
}

/// A folder in memory.
#[derive(Clone, Debug, Default)]
pub(super) struct Folder(pub Vec<(String, Vec<u8>)>);

impl Source for Folder {
    fn read(&self, file: &File, range: Range<u64>) -> Vec<u8> {
        let (_, bytes) = self.0.iter().find(|(path, _)| *path == file.path).unwrap();
        bytes[usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()].to_vec()
    }
}

impl Folder {
    pub fn new<const N: usize>(files: [(&str, Vec<u8>); N]) -> Self {
        Self(files.into_iter().map(|(path, bytes)| (path.to_owned(), bytes)).collect())
    }

    pub fn with(mut self, path: &str, bytes: impl Into<Vec<u8>>) -> Self {
        self.0.retain(|(known, _)| known != path);
        self.0.push((path.to_owned(), bytes.into()));
        self
    }

    pub fn without(mut self, path: &str) -> Self {
        self.0.retain(|(known, _)| known != path);
        self
    }

    pub fn files(&self) -> Vec<File> {
        self.0.iter().map(|(path, bytes)| File { path: path.clone(), size: bytes.len() as u64 }).collect()
    }

    pub fn judge_with(&self, validation: &Validation, volumes: &[Selector]) -> Verdict {
        let files = self.files();
        drive(Judge::new(files.clone(), validation, volumes), &files, self, 7).0
    }

    /// At the default depth, with pickles accepted.
    pub fn judge(&self) -> Verdict {
        self.judge_with(&allowing(Depth::Headers), &[])
    }
}

pub(super) fn allowing(depth: Depth) -> Validation {
    Validation { depth, pickle: PicklePolicy::Allow, ..Validation::default() }
}

/// An empty dict as `torch.save` writes it.
pub(super) fn torch_file() -> Vec<u8> {
    archive(&[("archive/data.pkl", b"\x80\x02}q\x00."), ("archive/version", b"3\n")])
}

/// A safetensors file of U8 tensors.
pub(super) fn tensors(names: &[(&str, usize)]) -> Vec<u8> {
    let mut entries = serde_json::Map::new();
    let mut end = 0;
    for (name, size) in names {
        entries.insert((*name).to_owned(), json!({"dtype": "U8", "shape": [size], "data_offsets": [end, end + size]}));
        end += size;
    }
    safetensors(&serde_json::Value::Object(entries).to_string(), end)
}

/// A safetensors file with this header and so many bytes of data.
pub(super) fn safetensors(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + data, 0);
    bytes
}

/// An index that maps these tensors.
pub(super) fn index(total: u64, map: &[(&str, &str)]) -> Vec<u8> {
    let map: serde_json::Map<_, _> = map.iter().map(|(name, shard)| ((*name).to_owned(), json!(shard))).collect();
    json!({"metadata": {"total_size": total, "x": {"total_size": 1}}, "weight_map": map}).to_string().into_bytes()
}

/// Asserts the reason and that the message names the file and says these words.
#[track_caller]
pub(super) fn assert_bad(verdict: &Verdict, reason: Reason, file: &str, words: &str) {
    assert_eq!(verdict.reason, reason, "{}", verdict.message);
    assert!(verdict.message.contains(file), "{file} is not in {:?}", verdict.message);
    assert!(verdict.message.contains(words), "{words:?} is not in {:?}", verdict.message);
    let first = &verdict.findings[0];
    assert!(first.fatal && first.reason == reason);
}

#[track_caller]
pub(super) fn assert_good(verdict: &Verdict) {
    assert!(verdict.is_good(), "{}", verdict.message);
    assert!(verdict.findings.iter().all(|finding| !finding.fatal));
}

#[test]
fn judges_can_be_held_while_waiting() {
    fn is_send<T: Send>() {}
    is_send::<Judge>();
}
