//! Files of torch before 1.6: five pickles (magic number, protocol, system, object, keys of the storages), then the storages. No I/O.

use super::{
    super::{
        evidence::{Evidence, PickleFact},
        findings::{Notes, UPLOAD_AGAIN},
        names,
        pickle::{self, Limits, Stream, Value},
        probe::{Probe, Problem},
        window::{Parse, Parsed, Stop, Window, WindowProbe},
    },
    tensors::{self, Saved},
};
use crate::contract::Reason;

/// A pickle of the number 0x1950A86A20F9469CFC6C.
const MAGIC: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19\x2e";
const PROTOCOL: i64 = 1001;

struct LegacyFile;

/// A file that begins with the magic number.
pub(super) fn sniff(_: &str, size: u64, start: &[u8]) -> Option<Box<dyn Probe>> {
    start.starts_with(MAGIC).then(|| WindowProbe::boxed(LegacyFile, size, start))
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
        let pickle = pickle::judge_named(file, "")?.ok_or_else(|| Stop::bad("it holds no pickle"))?;
        let mut streams = Vec::new();
        let mut at = 0;
        for _ in 0..5 {
            let stream = pickle::read(file, at, &Limits::WHOLE)?;
            at = stream.end;
            let broken = stream.problem.clone();
            streams.push(stream);
            if let Some(problem) = broken {
                let saved = Err(format!("pickle {} of its five cannot be read ({problem})", streams.len()));
                return Ok(Legacy { pickle, saved });
            }
        }
        Ok(Legacy { pickle, saved: saved(&streams, at, file.len()) })
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
                return evidence.note_pickle(
                    file,
                    PickleFact { tier: crate::contract::PickleTier::Unchecked, what, broken: None },
                );
            }
            Err(Problem::Broken(text)) => text,
            Err(Problem::Foreign) => return,
        };
        let message = format!("{} is damaged: {problem}; {UPLOAD_AGAIN}", names::shown(&path));
        notes.fatal(Reason::Corrupt, Some(&path), message);
    }
}

fn saved(streams: &[Stream], data: u64, size: u64) -> Result<Saved, String> {
    let [_, protocol, _, object, keys] = streams else { return Err("it has not five pickles".to_owned()) };
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
