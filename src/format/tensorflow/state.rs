//! What is said about a checkpoint beside its tensors: the text file `checkpoint` that names the latest one
//! (`checkpoint_state.proto`), and the step of the training in a data file. Pure, no I/O.

use std::ops::Range;

use super::{
    super::{
        evidence::{Evidence, Ledger},
        findings::Notes,
        names,
        probe::{Probe, Problem, note_problem},
        text_proto::{self, Token},
        window::{Parse, Parsed, Stop, Window},
    },
    INDEX,
};
use crate::contract::Reason;

const FILE: &str = "checkpoint";
const LATEST: &str = "model_checkpoint_path";
/// The largest file that is read, in bytes.
const LIMIT: u64 = 1 << 20;

/// Whether a file is the one that names the latest checkpoint.
pub(super) fn is_state(path: &str, start: &[u8]) -> bool {
    let key = LATEST.as_bytes();
    names::base(path) == FILE && !start.is_empty() && (start.starts_with(key) || key.starts_with(start))
}

/// Which checkpoint is the latest, as it is written.
pub(super) struct State(String);

/// Reads the file.
pub(super) struct StateFile;

impl Parse for StateFile {
    type Output = State;

    fn parse(&self, file: &Window<'_>) -> Parsed<State> {
        if file.len() > LIMIT {
            return Err(Stop::TooLarge(format!("it has {} bytes, more than {LIMIT}", file.len())));
        }
        let mut latest = None;
        text_proto::read(file.bytes(0..file.len())?, |depth, name, token| {
            if let (0, LATEST, Token::Text(path)) = (depth, name, token) {
                latest = Some(String::from_utf8_lossy(&path).into_owned());
            }
            Ok(())
        })?;
        latest.filter(|path| !path.is_empty()).map(State).ok_or_else(|| Stop::bad("it names no checkpoint"))
    }

    fn finish(self, outcome: Result<State, Problem>, file: usize, evidence: &mut Evidence, notes: &mut Notes) {
        match outcome {
            Ok(state) => evidence.put(file, state),
            Err(problem) => note_problem(&problem, file, evidence, notes),
        }
    }
}

/// The path of the index that a file names. Absolute paths are those of the machine that saved it, where it lay beside.
fn index_path(folder: &str, latest: &str) -> String {
    let drive = matches!(latest.as_bytes(), [letter, b':', b'/' | b'\\', ..] if letter.is_ascii_alphabetic());
    let share = latest.starts_with("\\\\");
    let local = if drive || share {
        latest.rsplit(['/', '\\']).next().unwrap_or(latest)
    } else if latest.starts_with('/') || latest.contains("://") {
        names::base(latest)
    } else {
        latest
    };
    format!("{folder}{}{INDEX}", local.trim_start_matches("./"))
}

/// The checkpoint that is named is there.
pub(super) fn check(evidence: &Evidence, notes: &mut Notes) {
    for (file, State(latest)) in evidence.all::<State>() {
        let path = &evidence.tree.file(file).path;
        let index = index_path(names::folder(path), latest);
        if evidence.tree.find(&index).is_none() {
            let message = format!(
                "{} is missing: {} names it as the latest checkpoint; upload it, or name another one there",
                names::shown(&index),
                names::shown(path)
            );
            notes.fatal(Reason::Incomplete, Some(&index), message);
        }
    }
}

/// The index of the latest checkpoint.
pub(super) fn latest(evidence: &Evidence) -> Option<usize> {
    let mut named = evidence.all::<State>().filter_map(|(file, State(latest))| {
        evidence.tree.find(&index_path(names::folder(&evidence.tree.file(file).path), latest))
    });
    named.next()
}

/// The number that a checkpoint's name ends with.
pub(super) fn number(path: &str) -> Option<u64> {
    path.strip_suffix(INDEX)?.rsplit_once('-')?.1.parse().ok()
}

/// The step of the training.
pub(super) struct Step(pub i64);

/// Reads it.
pub(super) struct StepProbe {
    range: Range<u64>,
    big_endian: bool,
    step: Option<i64>,
}

impl StepProbe {
    pub fn new(range: Range<u64>, big_endian: bool) -> Self {
        Self { range, big_endian, step: None }
    }
}

impl Probe for StepProbe {
    fn next(&self) -> Option<Range<u64>> {
        self.step.is_none().then(|| self.range.clone())
    }

    fn take(&mut self, bytes: &[u8], _: &mut Ledger) {
        let mut bytes = bytes.to_vec();
        if self.big_endian {
            bytes.reverse();
        }
        let narrow = || bytes.first_chunk().map(|bytes| i64::from(i32::from_le_bytes(*bytes)));
        let wide = bytes.first_chunk().map(|bytes| i64::from_le_bytes(*bytes));
        self.step = Some(wide.or_else(narrow).unwrap_or(-1));
    }

    fn finish(self: Box<Self>, file: usize, evidence: &mut Evidence, _: &mut Notes) {
        if let Some(step) = self.step.filter(|step| *step >= 0) {
            evidence.put(file, Step(step));
        }
    }
}
