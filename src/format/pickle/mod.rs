//! Pickles, read and never loaded: what a stream builds, what it imports, and how dangerous that is. Pure, no I/O.
//!
//! A pickle is a program for a stack machine of Python (`pickletools` documents the opcodes). Whatever it imports and calls runs
//! while it is loaded, so imports are compared with lists of what is known to be harmless; what is on none counts as code.

mod file;
mod globals;
mod joblib;
mod machine;
#[cfg(test)]
pub(in crate::format) mod tests;
mod values;

pub(super) use file::{FAMILY, JOBLIB};
pub(super) use globals::tier;
use machine::Gap;
pub(super) use values::{Value, ValueId, Values};

use super::{
    evidence::PickleFact,
    magic,
    window::{Parsed, Stop, Window},
};
use crate::contract::{PickleTier, report};

/// Bounds of one stream.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Bytes that are looked at.
    pub bytes: u64,
    /// Opcodes that are followed.
    pub opcodes: u64,
    /// Values that are built.
    pub values: u64,
}

impl Limits {
    /// For files that are pickles.
    pub const WHOLE: Self = Self { bytes: 48 << 20, opcodes: 20_000_000, values: 3_000_000 };
    /// For bytes that may be anything.
    pub const GUESS: Self = Self { bytes: 1 << 20, opcodes: 200_000, values: 100_000 };
    /// Longest text that is kept, in bytes.
    pub(super) const TEXT: u64 = 4 << 10;
    /// Texts and arrays of this size and more are not fetched, in bytes.
    pub(super) const JUMP: u64 = 1 << 20;
    /// The most of them in one stream.
    pub(super) const JUMPS: u32 = 256;
}

/// The most streams one after another.
const STREAMS: usize = 4096;
/// The most levels of pickles in bytes of pickles.
const NESTED: u32 = 3;
/// The most bytes objects of a stream that are looked into for pickles.
const NESTED_BYTES: usize = 4096;

/// Something that a stream imports.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Import {
    /// Module, in Python 3's name.
    pub module: String,
    /// Name in it.
    pub name: String,
    /// Where in the window.
    pub at: u64,
    /// How dangerous it is.
    pub tier: PickleTier,
}

/// One stream, followed to its `STOP` or to where it breaks.
#[derive(Clone, Debug)]
pub(super) struct Stream {
    /// Behind its `STOP`, or where it broke.
    pub end: u64,
    /// Calls that it makes.
    pub calls: u64,
    /// What it builds; none when it broke.
    pub root: Option<ValueId>,
    /// All values.
    pub values: Values,
    /// All imports (the first thousand).
    pub imports: Vec<Import>,
    /// How dangerous it is.
    pub tier: PickleTier,
    /// What makes it so dangerous, such as `imports os.system`.
    pub offence: Option<String>,
    /// Why it cannot be followed to its end.
    pub problem: Option<String>,
}

/// Reads one stream from `at`. What a stream may do wrong is said in the stream.
///
/// # Errors
/// `Need` and `TooLarge`, never `Bad`.
pub(super) fn read(window: &Window<'_>, at: u64, limits: &Limits) -> Parsed<Stream> {
    machine::run(*window, at, limits, &mut |_, _, _| Ok(None))
}

/// As [`read`], with raw bytes in the stream that `gap` knows.
///
/// # Errors
/// As [`read`], and what `gap` returns.
fn read_with(window: &Window<'_>, at: u64, limits: &Limits, gap: Gap<'_>) -> Parsed<Stream> {
    machine::run(*window, at, limits, gap)
}

/// Judges all streams of a window, those in their bytes too. None when it is no pickle. `place` is where the window lies in its
/// file, such as `data.pkl`; empty for the file itself.
///
/// # Errors
/// `Need` and `TooLarge`.
pub(super) fn judge_all(window: &Window<'_>, place: &str) -> Parsed<Option<PickleFact>> {
    judge(window, place, false, 0)
}

/// As [`judge_all`], for a window that is a pickle by its name: one that cannot be followed is code.
///
/// # Errors
/// `Need` and `TooLarge`.
pub(super) fn judge_named(window: &Window<'_>, place: &str) -> Parsed<Option<PickleFact>> {
    judge(window, place, true, 0)
}

/// The fact that a stream is.
pub(super) fn fact(stream: &Stream, place: &str) -> PickleFact {
    let place = if place.is_empty() { String::new() } else { format!(" in its {}", report::clean(place, 160)) };
    let what = match &stream.offence {
        Some(offence) => format!("{}{place}", report::clean(offence, 256)),
        None => format!("is a pickle of plain data{place}"),
    };
    PickleFact { tier: stream.tier, what, broken: stream.problem.clone() }
}

fn worse(worst: &mut Option<PickleFact>, fact: PickleFact) {
    if worst.as_ref().is_none_or(|known| known.tier < fact.tier) {
        *worst = Some(fact);
    }
}

fn judge(window: &Window<'_>, place: &str, named: bool, level: u32) -> Parsed<Option<PickleFact>> {
    let mut worst = None;
    let mut at = 0;
    for number in 0..STREAMS {
        if at >= window.len() {
            return Ok(worst);
        }
        let marked = is_marked(window, at)?;
        let sure = marked || (named && number == 0);
        let limits = if sure { Limits::WHOLE } else { Limits::GUESS };
        let mut arrays = None;
        let mut gap = |values: &Values, id, at| {
            let found = joblib::gap(window, values, id, at)?;
            Ok(found.map(|found| {
                if let Some(fact) = found.pickle {
                    worse(&mut arrays, fact);
                }
                found.next
            }))
        };
        let stream = match read_with(window, at, &limits, &mut gap) {
            Ok(stream) => stream,
            Err(Stop::TooLarge(_)) if !sure => return Ok(worst),
            Err(stop) => return Err(stop),
        };
        // Without a protocol's mark nearly any bytes begin like a pickle; only what imports and goes on is one.
        let imports = !stream.imports.is_empty() && stream.imports.iter().all(is_name);
        let is_pickle = sure || (imports && (stream.problem.is_none() || stream.calls > 0));
        if !is_pickle {
            return Ok(worst);
        }
        worse(&mut worst, fact(&stream, place));
        if let Some(fact) = arrays {
            worse(&mut worst, fact);
        }
        nested(window, &stream, place, level, &mut worst)?;
        if stream.problem.is_some() {
            return Ok(worst);
        }
        at = stream.end;
    }
    let what = format!("holds more than {STREAMS} pickles, which is more than are read");
    worse(&mut worst, PickleFact { tier: PickleTier::Code, what, broken: None });
    Ok(worst)
}

/// Whether the protocol's mark of a pickle stands there.
fn is_marked(window: &Window<'_>, at: u64) -> Parsed<bool> {
    let start = window.up_to(at, magic::SNIFF.min(16))?;
    Ok(magic::is_marked_pickle(start))
}

fn is_name(import: &Import) -> bool {
    let word = |text: &str| {
        !text.is_empty() && text.chars().all(|character| character.is_alphanumeric() || matches!(character, '_' | '.'))
    };
    word(&import.module) && word(&import.name)
}

/// Pickles in the bytes of a stream: something loads them later.
fn nested(window: &Window<'_>, stream: &Stream, place: &str, level: u32, worst: &mut Option<PickleFact>) -> Parsed<()> {
    let mut seen = 0;
    for (id, value) in stream.values.iter() {
        let loads = stream.values.is_call(id, globals::NESTED.0, globals::NESTED.1);
        let bytes = match (value, loads.and_then(<[_]>::first)) {
            (Value::Bytes(range), _) => Some(range),
            (_, Some(&argument)) => match stream.values.get(argument) {
                Value::Bytes(range) => Some(range),
                _ => None,
            },
            _ => None,
        };
        let Some(range) = bytes.filter(|range| range.end - range.start > 2) else { continue };
        let part = window.part(range.clone())?;
        if loads.is_none() && !is_marked(&part, 0)? {
            continue;
        }
        seen += 1;
        if level >= NESTED || seen > NESTED_BYTES {
            let what = "holds pickles in pickles, more or deeper than is read".to_owned();
            worse(worst, PickleFact { tier: PickleTier::Code, what, broken: None });
            return Ok(());
        }
        let inner = format!("{}bytes", if place.is_empty() { String::new() } else { format!("{place}, in ") });
        match judge(&part, &inner, loads.is_some(), level + 1)? {
            Some(fact) => worse(worst, fact),
            None if loads.is_some() => {
                let what = "loads something from bytes in it that cannot be followed".to_owned();
                worse(worst, PickleFact { tier: PickleTier::Code, what, broken: None });
            }
            None => {}
        }
    }
    Ok(())
}
