//! Files of torch before 1.6: five pickles (magic number, protocol, system, object, keys of the storages), then the storages. No I/O.

use super::{
    super::{
        evidence::{Evidence, PickleFact},
        findings::{Notes, UPLOAD_AGAIN},
        names,
        pickle::{self, Stream, Value},
        probe::{Probe, Problem},
        window::{Parse, Parsed, Window, WindowProbe},
    },
    tensors::{self, Saved},
};
use crate::contract::{PickleTier, Reason};

/// The number 0x1950A86A20F9469CFC6C as a pickle has it, and its end.
const MAGIC: &[u8] = b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19\x2e";
const PROTOCOL: i64 = 1001;
/// Pickles that the storages follow.
const PICKLES: usize = 5;

struct LegacyFile;

/// A file that begins with the magic number.
pub(super) fn sniff(_: &str, size: u64, start: &[u8]) -> Option<Box<dyn Probe>> {
    is_legacy(start).then(|| WindowProbe::boxed(LegacyFile, size, start))
}

/// Whether a file begins with the magic number, in whatever protocol. One that computes it is no file of torch's.
pub(in crate::format) fn is_legacy(start: &[u8]) -> bool {
    match start {
        [0x80, 4..=5, 0x95, frame @ ..] => frame.get(8..).is_some_and(|rest| rest.starts_with(MAGIC)),
        [0x80, 2..=5, rest @ ..] => rest.starts_with(MAGIC),
        _ => false,
    }
}

/// The five pickles of such a file, each with what it is. Fewer when one is broken.
fn streams(file: &Window<'_>, place: &str, level: u32) -> Parsed<Vec<(Stream, PickleFact)>> {
    let mut streams = Vec::new();
    let mut at = 0;
    while streams.len() < PICKLES {
        let (stream, fact) = pickle::one(file, at, place, level)?;
        at = stream.end;
        let stop = stream.is_cut();
        let broken = stream.problem.is_some() || stop.is_some();
        let is_code = fact.tier >= PickleTier::Code;
        streams.push((stream, fact));
        match stop {
            Some(stop) if !is_code => return Err(stop),
            _ if broken => break,
            _ => {}
        }
    }
    Ok(streams)
}

/// How dangerous the pickles of such a file are: the storages behind them are data, whatever their bytes.
///
/// # Errors
/// `Need` and `TooLarge`.
pub(in crate::format) fn fact(file: &Window<'_>, place: &str, level: u32) -> Parsed<PickleFact> {
    Ok(worst(streams(file, place, level)?.into_iter().map(|(_, fact)| fact)))
}

fn worst(facts: impl Iterator<Item = PickleFact>) -> PickleFact {
    facts
        .reduce(|worst, fact| if fact.tier > worst.tier { fact } else { worst })
        .unwrap_or_else(|| PickleFact::unchecked("an old file of torch"))
}

/// What such a file comes to.
pub(super) struct Legacy {
    pickle: PickleFact,
    saved: Result<Saved, String>,
}

impl Parse for LegacyFile {
    type Output = Legacy;

    fn remembered(output: &Legacy) -> u64 {
        output.saved.as_ref().map_or(0, |saved| saved.counts.tensors)
    }

    fn parse(&self, file: &Window<'_>) -> Parsed<Legacy> {
        let (streams, facts): (Vec<_>, Vec<_>) = streams(file, "", 0)?.into_iter().unzip();
        let pickle = worst(facts.into_iter());
        let saved = match streams.last().and_then(|last| Some((last.problem.as_ref()?, streams.len()))) {
            Some((problem, number)) => Err(format!("pickle {number} of its five cannot be read ({problem})")),
            None => saved(&streams, file.len()),
        };
        Ok(Legacy { pickle, saved })
    }

    fn finish(self, outcome: Result<Legacy, Problem>, file: usize, evidence: &mut Evidence, notes: &mut Notes) {
        let path = evidence.tree.file(file).path.clone();
        let problem = match outcome {
            Ok(legacy) => {
                evidence.note_pickle(file, legacy.pickle);
                match legacy.saved {
                    Ok(saved) => return evidence.put(file, saved),
                    Err(problem) => problem,
                }
            }
            Err(Problem::TooLarge(text)) => {
                let what = format!("was not checked ({text})");
                return evidence.note_pickle(file, PickleFact { tier: PickleTier::Unchecked, what, broken: None });
            }
            Err(Problem::Broken(text)) => {
                let what = format!("is a pickle that cannot be read ({text})");
                evidence.note_pickle(file, PickleFact { tier: PickleTier::Code, what, broken: None });
                text
            }
            Err(Problem::Foreign) => return,
        };
        let message = format!("{} is damaged: {problem}; {UPLOAD_AGAIN}", names::shown(&path));
        notes.fatal(Reason::Corrupt, Some(&path), message);
    }
}

fn saved(streams: &[Stream], size: u64) -> Result<Saved, String> {
    let [_, protocol, _, object, keys] = streams else { return Err("it has not five pickles".to_owned()) };
    let data = keys.end;
    let root = |stream: &Stream| stream.root.map(|root| stream.values.get(root).clone());
    if root(protocol) != Some(Value::Int(PROTOCOL)) {
        return Err(format!("its second pickle is not the protocol {PROTOCOL}"));
    }
    let described = tensors::described(object)?;
    let keys: Option<Vec<&str>> =
        keys.root.and_then(|root| keys.values.elements(root)?.iter().map(|key| keys.values.text(*key)).collect());
    let keys = keys.ok_or("its last pickle is no list of storages")?;
    let mut end = data;
    for key in &keys {
        let storage =
            described.storages.get(*key).ok_or_else(|| format!("it has data of a storage {key} that nothing uses"))?;
        end = end.saturating_add(8).saturating_add(storage.bytes);
    }
    if keys.len() != described.storages.len() {
        return Err(format!("it names {} storages and has data of {}", described.storages.len(), keys.len()));
    }
    if end != size {
        return Err(format!("it has {size} bytes, its storages end at byte {end}"));
    }
    Ok(described.saved)
}
