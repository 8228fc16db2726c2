//! Checkpoints that the formats' own light libraries write afresh in every run: what they are and what is in them is what the
//! libraries say, and what a library cannot read back is not called good (runs Python, file I/O).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests stand outside of test functions here"
)]

use std::{collections::BTreeMap, path::Path};

use checkpoint_operator::{contract::Depth, format::Verdict};
use checkpoint_operator_e2e::{
    command::capture,
    fixtures::{self, Files, bytes_alone},
    python,
};
use serde::{Deserialize, de::DeserializeOwned};

/// Sets of checkpoints that are written; set `CHECKPOINT_E2E_SEED` to begin with another than last time.
const SETS: u64 = 3;

/// What a library says of what it wrote.
#[derive(Debug, Deserialize)]
struct Written {
    folder: String,
    format: String,
    tensors: Option<i64>,
    parameters: Option<i64>,
    dtypes: Option<BTreeMap<String, i64>>,
}

/// Whether it can be read back.
#[derive(Debug, Deserialize)]
struct Read {
    folder: String,
    ok: bool,
    #[serde(default)]
    error: String,
}

fn oracle<T: DeserializeOwned>(arguments: &[&str]) -> Vec<T> {
    let printed = capture(python::script("oracles.py").unwrap().args(arguments)).unwrap();
    printed.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"))).collect()
}

fn judge(root: &Path, folder: &str) -> (Files, Verdict) {
    let files = fixtures::read_folder(&root.join(folder)).unwrap();
    let verdict = fixtures::judge(&files, &bytes_alone(Depth::Content)).unwrap();
    (files, verdict)
}

#[test]
fn what_libraries_write_is_what_they_say() {
    let first = std::env::var("CHECKPOINT_E2E_SEED").map_or(20_261_125, |seed| seed.parse().unwrap());
    for seed in first..first + SETS {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().to_str().unwrap();
        let written: Vec<Written> = oracle(&["write", root, &seed.to_string()]);
        assert!(written.len() > 5, "seed {seed}: {written:?}");
        for Written { folder: name, format, tensors, parameters, dtypes } in written {
            let (_, verdict) = judge(folder.path(), &name);
            assert!(verdict.is_good(), "seed {seed}, {name}: {}", verdict.message);
            let contents = verdict.contents;
            assert_eq!(contents.format.map(|format| format.as_str()), Some(format.as_str()), "seed {seed}, {name}");
            if tensors.is_some() {
                assert_eq!((contents.tensors, contents.parameters), (tensors, parameters), "seed {seed}, {name}");
                let empty =
                    |dtypes: BTreeMap<String, i64>| dtypes.into_iter().filter(|(_, count)| *count > 0).collect();
                let (ours, theirs): (BTreeMap<_, _>, BTreeMap<_, _>) =
                    (empty(contents.dtypes), empty(dtypes.unwrap_or_default()));
                assert_eq!(ours, theirs, "seed {seed}, {name}");
            }
        }
    }
}

/// Each file of each checkpoint is cut somewhere; a library that then refuses it must not find it called good here.
#[test]
fn what_libraries_cannot_read_is_not_good() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().to_str().unwrap();
    let written: Vec<Written> = oracle(&["write", root, "7"]);
    for (number, Written { folder: name, .. }) in written.iter().enumerate() {
        let (files, _) = judge(folder.path(), name);
        let (path, bytes) = files.iter().max_by_key(|(_, bytes)| bytes.len()).unwrap();
        let cut = bytes.len() - 1 - (bytes.len() / 3) * (number % 2);
        std::fs::write(folder.path().join(name).join(path), &bytes[..cut]).unwrap();
    }
    let mut refused = 0;
    for Read { folder: name, ok, error } in oracle::<Read>(&["read", root]) {
        if !ok {
            refused += 1;
            let (_, verdict) = judge(folder.path(), &name);
            assert!(!verdict.is_good(), "{name}: its library says {error}, here: {}", verdict.message);
        }
    }
    assert!(refused > 5, "only {refused} were refused");
}
