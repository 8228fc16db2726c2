//! Pickles, read and never loaded: what a stream builds, what it imports, and how dangerous that is. Pure, no I/O.
//!
//! A pickle is a program for a stack machine of Python (`pickletools` documents the opcodes). Whatever it imports and calls runs
//! while it is loaded, so imports are compared with lists of what is known to be harmless; what is on none counts as code.

mod file;
mod gadgets;
mod globals;
mod joblib;
mod machine;
#[cfg(test)]
pub(in crate::format) mod tests;
mod values;

pub(super) use file::{FAMILY, JOBLIB};
pub(super) use globals::tier;
pub(super) use values::{Value, ValueId, Values};

use std::collections::BTreeMap;

use super::{
    archive,
    evidence::PickleFact,
    magic,
    torch::legacy,
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
    /// Memory for what is built, in bytes.
    pub memory: u64,
    /// Texts and arrays of this size and more are not fetched, in bytes.
    pub jump: u64,
    /// Whether reading goes on behind what would stop Python.
    pub lenient: bool,
    /// Whether the classes of TorchScript are known.
    pub script: bool,
}

impl Limits {
    /// For files that are pickles.
    pub const WHOLE: Self =
        Self { bytes: 48 << 20, opcodes: 20_000_000, memory: 24 << 20, jump: 1 << 20, lenient: true, script: false };
    /// For bytes that may be anything.
    pub const GUESS: Self = Self { bytes: 1 << 20, opcodes: 200_000, memory: 8 << 20, lenient: false, ..Self::WHOLE };
    /// For the metadata of distributed checkpoints, which has objects for every chunk of every tensor.
    pub const METADATA: Self = Self { memory: 192 << 20, ..Self::WHOLE };
    /// Longest text that is kept, in bytes.
    pub(super) const TEXT: u64 = 4 << 10;
    /// The most texts and arrays of one stream that are not fetched.
    pub(super) const JUMPS: u32 = 256;
}

/// The largest window that is read twice, in bytes.
const RETURNED_TO: u64 = 16 << 20;
/// The most streams one after another.
const STREAMS: usize = 4096;
/// The most levels of pickles in bytes of pickles, also in archives in them.
const NESTED: u32 = 4;
/// The most bytes objects of a stream that are looked into for pickles.
const NESTED_BYTES: usize = 4096;

/// Something that a stream imports.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Import {
    /// Module, in Python 3's name.
    pub module: String,
    /// Name in it.
    pub name: String,
    /// How dangerous it is.
    pub tier: PickleTier,
}

/// One stream, followed to its `STOP` or to where it breaks.
#[derive(Clone, Debug)]
pub(super) struct Stream {
    /// Behind its `STOP`, or where it broke.
    pub end: u64,
    /// Calls that it makes, also of methods.
    pub calls: u64,
    /// Imports whose names cannot be read.
    hidden: u64,
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
    /// Why it was not followed to its end: it is larger than the limits.
    cut: Option<String>,
}

impl Stream {
    /// That it was not followed to its end because it is larger than the limits.
    pub fn is_cut(&self) -> Option<Stop> {
        self.cut.clone().map(Stop::TooLarge)
    }
}

/// What is known of a window besides its bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Context {
    /// It is a pickle by its name, or because something loads it as one: one that cannot be followed is code.
    pub named: bool,
    /// It lies in an archive of TorchScript, whose own loader reads it.
    pub script: bool,
    /// It is the metadata of a distributed checkpoint.
    pub metadata: bool,
    /// In so many pickles and archives it lies.
    pub level: u32,
}

/// Reads one stream from `at`. What a stream may do wrong is said in the stream.
///
/// # Errors
/// `Need` and `TooLarge`, never `Bad`.
pub(super) fn read(window: &Window<'_>, at: u64, limits: &Limits) -> Parsed<Stream> {
    let stream = machine::run(*window, at, limits, &mut |_, _, _| Ok(None))?;
    match stream.cut {
        Some(cut) => Err(Stop::TooLarge(cut)),
        None => Ok(stream),
    }
}

/// Judges all streams of a window, those in their bytes too. None when it is no pickle. `place` is where the window lies in its
/// file, such as `data.pkl`; empty for the file itself.
///
/// # Errors
/// `Need` and `TooLarge`.
pub(super) fn judge_all(window: &Window<'_>, place: &str) -> Parsed<Option<PickleFact>> {
    judge(window, place, Context::default())
}

/// A text among the attributes of what the first stream builds. It is read once more for it, so only a window that was judged and
/// is not large is asked.
///
/// # Errors
/// `Need` and `TooLarge`.
pub(super) fn attribute(window: &Window<'_>, name: &str) -> Parsed<Option<String>> {
    if window.len() > RETURNED_TO {
        return Ok(None);
    }
    let stream = follow(window, 0, &Limits::WHOLE, 0, &mut None)?;
    let attribute = stream.root.and_then(|root| stream.values.attribute(root, name));
    Ok(attribute.and_then(|attribute| stream.values.text(attribute)).map(super::evidence::fact))
}

/// As [`judge_all`], for a window that is a pickle by its name: one that cannot be followed is code.
///
/// # Errors
/// `Need` and `TooLarge`.
pub(super) fn judge_named(window: &Window<'_>, place: &str) -> Parsed<Option<PickleFact>> {
    judge(window, place, Context { named: true, ..Context::default() })
}

/// Reads and judges the one stream that begins at `at`, and the pickles in its bytes; what comes behind it is not looked at.
///
/// # Errors
/// `Need` and `TooLarge`.
pub(super) fn one(window: &Window<'_>, at: u64, place: &str, level: u32) -> Parsed<(Stream, PickleFact)> {
    let mut worst = None;
    let stream = machine::run(*window, at, &Limits::WHOLE, &mut |_, _, _| Ok(None))?;
    worse(&mut worst, fact(&stream, place));
    nested(window, &stream, place, level, &mut worst)?;
    let fact = worst.unwrap_or_else(|| fact(&stream, place));
    Ok((stream, fact))
}

/// The fact that a stream is.
pub(super) fn fact(stream: &Stream, place: &str) -> PickleFact {
    let place = placed(place);
    let what = match &stream.offence {
        Some(offence) => format!("{}{place}", report::clean(offence, 256)),
        None => format!("is a pickle of plain data{place}"),
    };
    PickleFact { tier: stream.tier, what, broken: stream.problem.clone() }
}

fn placed(place: &str) -> String {
    if place.is_empty() { String::new() } else { format!(" in its {}", report::clean(place, 160)) }
}

fn worse(worst: &mut Option<PickleFact>, fact: PickleFact) {
    if worst.as_ref().is_none_or(|known| known.tier < fact.tier) {
        *worst = Some(fact);
    }
}

/// As [`judge_all`], with what is known of the window.
///
/// # Errors
/// `Need` and `TooLarge`.
pub(super) fn judge(window: &Window<'_>, place: &str, context: Context) -> Parsed<Option<PickleFact>> {
    let mut worst = None;
    let mut at = 0;
    for number in 0..STREAMS {
        if at >= window.len() {
            return Ok(worst);
        }
        let named = context.named && number == 0;
        let sure = is_marked(window, at)? || named;
        let most = if context.metadata { Limits::METADATA } else { Limits::WHOLE };
        let whole = Limits { script: context.script, ..most };
        let limits = if sure { whole } else { Limits::GUESS };
        let mut arrays = None;
        let mut stream = follow(window, at, &limits, context.level, &mut arrays)?;
        if !sure && stream.cut.is_some() {
            // So many opcodes that fit each other are a pickle, whatever it begins with.
            arrays = None;
            stream = follow(window, at, &Limits { lenient: false, ..whole }, context.level, &mut arrays)?;
        }
        if stream.cut.is_none() && !named && !is_pickle(window, at, &stream, sure)? {
            if number > 0 {
                let rest = window.len() - at;
                let what = format!("has {rest} bytes behind its pickle that are none{}", placed(place));
                worse(&mut worst, PickleFact { tier: PickleTier::Code, what, broken: None });
            }
            return Ok(worst);
        }
        let found = fact(&stream, place);
        let is_code = found.tier >= PickleTier::Code;
        worse(&mut worst, found);
        if let Some(fact) = arrays {
            worse(&mut worst, fact);
        }
        if let Some(cut) = stream.cut.clone().filter(|_| !is_code) {
            return clean_or_stopped(worst, Stop::TooLarge(cut));
        }
        if let Err(stop) = nested(window, &stream, place, context.level, &mut worst) {
            return clean_or_stopped(worst, stop);
        }
        if stream.problem.is_some() || stream.cut.is_some() {
            return Ok(worst);
        }
        at = stream.end;
    }
    let what = format!("holds more than {STREAMS} pickles, which is more than is read{}", placed(place));
    worse(&mut worst, PickleFact { tier: PickleTier::Code, what, broken: None });
    Ok(worst)
}

/// Whether what was followed is a pickle, when no name says so. Nearly any bytes begin like one without a protocol's mark; only what
/// imports and goes on is one. With its two bytes a few files of numbers begin, too: what breaks behind it must import something by
/// a name, or have done something before Python itself stops.
fn is_pickle(window: &Window<'_>, at: u64, stream: &Stream, marked: bool) -> Parsed<bool> {
    let imports = stream.imports.iter().any(is_name);
    if !marked {
        return Ok((imports || stream.hidden > 0) && (stream.problem.is_none() || stream.calls > 0));
    }
    if imports || stream.problem.is_none() {
        return Ok(true);
    }
    let strict = machine::run(*window, at, &Limits::GUESS, &mut |_, _, _| Ok(None))?;
    let acts = !strict.imports.is_empty() || strict.calls > 0 || strict.tier >= PickleTier::Dangerous;
    Ok(acts || strict.problem.is_none())
}

/// What is too large to be read to its end is at least what was seen of it.
fn clean_or_stopped(worst: Option<PickleFact>, stop: Stop) -> Parsed<Option<PickleFact>> {
    match stop {
        Stop::TooLarge(_) if worst.as_ref().is_some_and(|worst| worst.tier >= PickleTier::Code) => Ok(worst),
        stop => Err(stop),
    }
}

/// Follows one stream, over the raw arrays in it.
fn follow(
    window: &Window<'_>,
    at: u64,
    limits: &Limits,
    level: u32,
    arrays: &mut Option<PickleFact>,
) -> Parsed<Stream> {
    let mut gap = |values: &Values, id, at| {
        let found = joblib::gap(window, values, id, at, level)?;
        Ok(found.map(|found| {
            if let Some(fact) = found.pickle {
                worse(arrays, fact);
            }
            found.next
        }))
    };
    machine::run(*window, at, limits, &mut gap)
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
    // Bytes can be loaded any number of times; they are judged once.
    let mut all: BTreeMap<u64, (u64, bool)> = BTreeMap::new();
    for (id, value) in stream.values.iter() {
        if let Value::Bytes(range) = value
            && range.end - range.start > 2
        {
            all.entry(range.start).or_insert((range.end, false));
        }
        let loads = stream.values.is_call(id, globals::NESTED.0, globals::NESTED.1);
        if let Some(&argument) = loads.and_then(<[_]>::first)
            && let Value::Bytes(range) = stream.values.get(argument)
        {
            all.insert(range.start, (range.end, true));
        }
    }
    let mut seen = 0;
    for (begin, (end, loads)) in all {
        let part = window.part(begin..end)?;
        let marked = is_marked(&part, 0)?;
        if !loads && !marked && !archive::is_container(&part)? {
            continue;
        }
        seen += 1;
        if level >= NESTED || seen > NESTED_BYTES {
            let what = format!("holds pickles in pickles, more or deeper than is read{}", placed(place));
            worse(worst, PickleFact { tier: PickleTier::Code, what, broken: None });
            return Ok(());
        }
        let inner = format!("{}bytes", if place.is_empty() { String::new() } else { format!("{place}, in ") });
        let found = if loads && legacy::is_legacy(part.up_to(0, 64)?) {
            // As torch does: its old format by the number that it begins with.
            Some(legacy::fact(&part, &inner, level + 1)?)
        } else if loads || marked {
            judge(&part, &inner, Context { named: loads, level: level + 1, ..Context::default() })?
        } else {
            archive::within(&part, &inner, level + 1)?
        };
        match found {
            Some(fact) => worse(worst, fact),
            None if loads => {
                let what = format!("loads something from bytes in it that cannot be followed{}", placed(place));
                worse(worst, PickleFact { tier: PickleTier::Code, what, broken: None });
            }
            None => {}
        }
    }
    Ok(())
}
