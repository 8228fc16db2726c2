//! Weights of Keras in several HDF5 files: `NAME.weights.json` says which file has what (keras 3.15, `ShardedH5IOStore`). No I/O.

use std::collections::BTreeSet;

use serde_json::Value;

use super::super::{
    evidence::{Evidence, Tree},
    findings::Notes,
    names,
    probe::{Probe, Problem, note_problem},
    window::{Parse, Parsed, Stop, Window, WindowProbe},
};
use crate::contract::Reason;

const INDEX: &str = ".weights.json";
/// The largest index that is read, in bytes.
const LIMIT: u64 = 16 << 20;
/// The most missing files that are named.
const NAMED: usize = 8;

/// Files that an index names.
pub(super) struct Files(BTreeSet<String>);

pub(super) struct IndexFile;

pub(super) fn probe(tree: &Tree, file: usize) -> Option<Box<dyn Probe>> {
    let listed = tree.file(file);
    listed.path.ends_with(INDEX).then(|| WindowProbe::boxed(IndexFile, listed.size, &[]))
}

impl Parse for IndexFile {
    type Output = Files;

    fn remembered(files: &Files) -> u64 {
        files.0.len() as u64
    }

    fn parse(&self, file: &Window<'_>) -> Parsed<Files> {
        if file.len() > LIMIT {
            return Err(Stop::TooLarge(format!("it has {} bytes, more than {LIMIT}", file.len())));
        }
        let value = super::parse(file.bytes(0..file.len())?).map_err(Stop::Bad)?;
        // Other libraries have files of this name.
        let Some(map) = value.get("weight_map").and_then(Value::as_object) else { return Ok(Files(BTreeSet::new())) };
        let lists = map.values().flat_map(|value| match value {
            Value::Array(list) => list.as_slice(),
            other => std::slice::from_ref(other),
        });
        let names = lists.map(|name| name.as_str().map(str::to_owned));
        names
            .collect::<Option<_>>()
            .map(Files)
            .ok_or_else(|| Stop::bad("its weight_map names something else than files"))
    }

    fn finish(self, outcome: Result<Files, Problem>, file: usize, evidence: &mut Evidence, notes: &mut Notes) {
        match outcome {
            Ok(files) => evidence.put(file, files),
            Err(problem) => note_problem(&problem, file, evidence, notes),
        }
    }
}

/// Every file that is named is there.
pub(super) fn check(evidence: &mut Evidence, notes: &mut Notes) {
    for (file, Files(files)) in evidence.all::<Files>() {
        let path = &evidence.tree.file(file).path;
        let shards = files.iter().map(|name| format!("{}{name}", names::folder(path)));
        for shard in shards.filter(|shard| evidence.tree.find(shard).is_none()).take(NAMED) {
            let message =
                format!("{} is missing: {} has weights in it; upload it", names::shown(&shard), names::shown(path));
            notes.fatal(Reason::Incomplete, Some(&shard), message);
        }
    }
}
