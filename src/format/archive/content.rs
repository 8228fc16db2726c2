//! What bytes under any name are or hold: pickles, arrays, archives in archives, compressed data. Pure, no I/O.

use super::{
    super::{
        compression::{self, Compression},
        evidence::PickleFact,
        magic, names, numpy, pickle, tar,
        torch::legacy,
        window::{Cache, Parsed, Stop, Window},
        zip,
    },
    entries::{self, Scan, unchecked},
};
use crate::contract::PickleTier;

/// Archives and compressed data in each other, so deep. Pickles in them are followed one level further.
const LEVELS: u32 = 3;

/// As many first bytes as containers are told by.
const START: usize = 512;
/// As many bytes as a pickle's beginning is told by.
const MARK: usize = 16;

/// What is known of bytes besides their name.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Asked {
    /// TorchScript's own loader reads them.
    pub script: bool,
    /// They must be a pickle or hold one, whatever their name.
    pub named: bool,
    /// In so many pickles and archives they lie.
    pub level: u32,
}

/// Something that holds other things.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Container {
    Zip,
    Tar,
    SevenZip,
    Array,
    Compressed(Compression),
}

fn container(start: &[u8], weak: bool) -> Option<Container> {
    if start.starts_with(b"PK\x03\x04") || start.starts_with(b"PK\x05\x06") {
        Some(Container::Zip)
    } else if start.starts_with(b"7z\xbc\xaf\x27\x1c") {
        Some(Container::SevenZip)
    } else if start.starts_with(numpy::MAGIC) {
        Some(Container::Array)
    } else if tar::is_header(start) {
        Some(Container::Tar)
    } else {
        compression::sniff(start, weak).map(Container::Compressed)
    }
}

/// Whether the first bytes are those of something that holds other things.
pub(super) fn is_container(start: &[u8]) -> bool {
    container(start, false).is_some()
}

/// Whether bytes that begin like this may be a pickle or hold one.
pub(super) fn may_hold(start: &[u8]) -> bool {
    let first = start.first().copied();
    container(start, true).is_some() || first.is_some_and(|first| first == 0x80 || magic::may_begin_pickle(first))
}

/// The pickle that bytes under a name are, also within arrays, further archives and compressed data.
pub(super) fn inner(window: &Window<'_>, name: &str, asked: Asked, scan: &mut Scan) -> Parsed<()> {
    begun(window, window.up_to(0, magic::SNIFF)?, name, asked, scan)
}

/// As [`inner`], for bytes that begin like this.
fn begun(window: &Window<'_>, start: &[u8], name: &str, asked: Asked, scan: &mut Scan) -> Parsed<()> {
    let named = asked.named || names::is_pickle(name);
    let certain = asked.named || names::is_certain_pickle(name);
    let within = container(start, true);
    if matches!(within, Some(Container::Zip | Container::Tar | Container::Compressed(_))) && asked.level >= LEVELS {
        let what = format!("has archives within archives, and was not checked in its {}", names::shown(name));
        scan.note(PickleFact { tier: PickleTier::Unchecked, what, broken: None });
        return Ok(());
    }
    let deeper = Asked { level: asked.level + 1, ..asked };
    let fact = match within {
        Some(Container::Zip) => return archive(window, name, asked.level, scan),
        Some(Container::Tar) => return members(window, deeper, scan),
        Some(Container::Compressed(kind)) if certain || (named && !kind.is_weak()) => {
            let content = compression::unpack(window, kind)?;
            return inner(&window.within(&content), name, Asked { named: certain, ..deeper }, scan);
        }
        Some(Container::Compressed(kind)) => return peek(window, name, kind, deeper, scan),
        Some(Container::SevenZip) => {
            scan.note(unchecked(&format!("its entry {} is a 7z archive", names::shown(name))));
            return Ok(());
        }
        Some(Container::Array) => {
            scan.known = true;
            numpy::pickle(window, name, asked.level)?
        }
        None if legacy::is_legacy(start) => Some(legacy::fact(window, name, asked.level)?),
        None => {
            let named = asked.named || names::has_extension(name, "pkl") || names::has_extension(name, "pickle");
            let script = asked.script && named;
            let context = pickle::Context { named, script, level: asked.level, ..pickle::Context::default() };
            pickle::judge(window, name, context)?
        }
    };
    if let Some(fact) = fact {
        if let Some(problem) = fact.broken.as_ref().filter(|_| named) {
            scan.problem(format!("its entry {}: {problem}", names::shown(name)));
        }
        scan.note(fact);
    }
    Ok(())
}

fn archive(window: &Window<'_>, name: &str, level: u32, scan: &mut Scan) -> Parsed<()> {
    scan.known = true;
    let directory = zip::directory(window)?;
    for finding in &directory.findings {
        scan.problem(format!("its entry {} {finding}", names::shown(name)));
    }
    entries::pickles(window, &directory, entries::kind(&directory, ""), level + 1, scan)
}

/// The members of a tar archive, each as a file of its own.
fn members(window: &Window<'_>, asked: Asked, scan: &mut Scan) -> Parsed<()> {
    scan.known = true;
    for (name, range) in tar::members(window)? {
        if !range.is_empty() {
            let found = window.part(range).and_then(|part| inner(&part, &name, Asked { named: false, ..asked }, scan));
            scan.keep(found)?;
        }
    }
    Ok(())
}

/// Data that no name calls a pickle: what comes out first tells whether it is one, so that a corpus is not read as a whole.
fn peek(window: &Window<'_>, name: &str, kind: Compression, asked: Asked, scan: &mut Scan) -> Parsed<()> {
    let (content, whole) = compression::beginning(window, kind)?;
    let known = window.within(&content);
    if whole {
        return inner(&known, name, asked, scan);
    }
    let more =
        || unchecked(&format!("its {} goes on as a pickle may, behind what is unpacked of it", names::shown(name)));
    if content.is_empty() {
        // A header of any length may stand before the data; marks of two bytes mostly are none.
        if !kind.is_weak() && window.len() > compression::PEEKED {
            scan.note(more());
        }
        return Ok(());
    }
    let Some(start) = content.get(..content.len().min(START)).filter(|start| start.len() >= MARK) else {
        return inner(&known, name, asked, scan);
    };
    let mut cache = Cache::default();
    cache.insert(0, &content);
    let mut found = Scan::default();
    match begun(&window.open(&cache), start, name, asked, &mut found) {
        // It is something else, or a pickle whose end was seen.
        Ok(()) => found.worst.into_iter().for_each(|fact| scan.note(fact)),
        Err(Stop::Bad(_)) => {}
        Err(Stop::Need(_) | Stop::TooLarge(_)) => {
            scan.note(more());
            let mut seen = Scan::default();
            let _ = inner(&known, name, asked, &mut seen);
            seen.worst.into_iter().filter(|fact| fact.tier == PickleTier::Dangerous).for_each(|fact| scan.note(fact));
        }
    }
    Ok(())
}
