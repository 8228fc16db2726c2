//! Tar archives: a checkpoint in one file (`.nemo`, torch before 0.1.10), judged in place as the folder that it is. Pure, no I/O.
//!
//! First the headers are walked; then a judge of its own reads the members, at the same depth. What it finds becomes findings,
//! pickles and code of the archive. Compressed archives cannot be read in places: they are unpacked within bounds.

mod inside;
#[cfg(test)]
pub(in crate::format) mod tests;
mod walk;

use std::ops::Range;

use super::{
    MAX_READ,
    archive::{self, Scan},
    compression::{self, Compression},
    evidence::{Evidence, Ledger, PickleFact},
    findings::{Notes, UPLOAD_AGAIN},
    names,
    probe::{Probe, Problem, note_problem},
    table::FileProbe,
    window::{Parse, Parsed, Stop, Window, WindowProbe},
};
use crate::contract::{Contents, Depth, Format, PickleTier, Reason};

pub(super) use inside::Inside;
use inside::{InsideProbe, Judged};
use walk::{Listing, Member, Walk};

/// Archives in archives, so deep.
const LEVELS: u32 = 2;
/// Read at a time where members are large, in bytes.
const SMALL_READ: u64 = 4 << 10;
/// Where headers are no farther apart, many are read at once, in bytes.
const NEAR: u64 = 1 << 20;

/// An archive whose headers were walked, and whose members are still to be judged.
struct Walked(Vec<Member>);

/// An archive, by its first header or, when it is compressed, by its name.
pub(super) fn sniff(path: &str, size: u64, start: &[u8]) -> Option<Box<dyn Probe>> {
    // A damaged header has the magic and not the sum; a file that must be an archive is then a damaged one.
    let damaged = || start.get(257..262) == Some(b"ustar") && names::is_certain_pickle(path);
    if walk::is_header(start) || damaged() {
        return Some(Box::new(TarFile::new(size, start)));
    }
    let compression = compression::sniff(start, true).filter(|_| is_packed_name(path))?;
    Some(WindowProbe::boxed(PackedFile { compression, nemo: is_nemo(path) }, size, start))
}

/// Whether bytes begin with the header of an archive.
pub(super) fn is_header(start: &[u8]) -> bool {
    walk::is_header(start)
}

/// The files of an archive, and where their bytes lie in it.
///
/// # Errors
/// `Bad` when it is damaged, and what the window says.
pub(super) fn members(window: &Window<'_>) -> Parsed<Vec<(String, Range<u64>)>> {
    let mut walk = Walk::new(window.len());
    while let Some(range) = walk.next() {
        walk.take(window.bytes(range)?)?;
    }
    Ok(walk.finish().members.into_iter().map(|member| (member.name, member.data)).collect())
}

/// What the members of walked archives are.
pub(super) fn follow(evidence: &Evidence) -> Vec<FileProbe> {
    let probe = |(file, walked): (usize, &Walked)| {
        let probe: Box<dyn Probe> = if evidence.level < LEVELS {
            Box::new(InsideProbe::new(&walked.0, evidence.depth, evidence.level + 1))
        } else {
            Box::new(TooDeep)
        };
        (file, probe)
    };
    evidence.all::<Walked>().map(probe).collect()
}

/// Archives that hold a checkpoint of this format, which is only found in archives.
pub(super) fn places(evidence: &Evidence, format: Format) -> Vec<String> {
    let all = evidence.all::<Inside>().filter(|(_, inside)| inside.format == Some(format));
    all.map(|(file, _)| evidence.tree.file(file).path.clone()).collect()
}

/// The facts of these archives; counts of several are added up.
pub(super) fn describe(evidence: &Evidence, format: Format, contents: &mut Contents) {
    let all = evidence.all::<Inside>().filter(|(_, inside)| inside.format == Some(format));
    let counted = contents.tensors.is_some();
    for (_, inside) in all {
        let found = &inside.contents;
        if !counted && found.tensors.is_some() {
            let sum = |left: Option<i64>, right: Option<i64>| {
                Some(left.unwrap_or_default().saturating_add(right.unwrap_or_default()))
            };
            contents.tensors = sum(contents.tensors, found.tensors);
            contents.parameters = sum(contents.parameters, found.parameters);
            for (dtype, count) in &found.dtypes {
                let all = contents.dtypes.entry(dtype.clone()).or_default();
                *all = all.saturating_add(*count);
            }
        }
        let text = |own: &mut Option<String>, found: &Option<String>| *own = own.take().or_else(|| found.clone());
        text(&mut contents.architecture, &found.architecture);
        text(&mut contents.framework, &found.framework);
        text(&mut contents.quantization, &found.quantization);
        text(&mut contents.base_model, &found.base_model);
        text(&mut contents.epoch, &found.epoch);
        contents.step = contents.step.or(found.step);
    }
}

/// Whether a name says that there is an archive below a compression.
fn is_packed_name(path: &str) -> bool {
    let name = names::base(path);
    is_nemo(path)
        || names::has_extension(path, "tgz")
        || name.rsplit_once('.').is_some_and(|(stem, _)| names::has_extension(stem, "tar"))
}

fn is_nemo(path: &str) -> bool {
    names::has_extension(path, "nemo")
}

/// Walks over the headers of a file.
struct TarFile {
    size: u64,
    walk: Walk,
    /// The bytes that were read last, and where they begin.
    buffer: (u64, Vec<u8>),
    problem: Option<Stop>,
}

impl TarFile {
    fn new(size: u64, start: &[u8]) -> Self {
        let mut probe = Self { size, walk: Walk::new(size), buffer: (0, start.to_vec()), problem: None };
        probe.go_on();
        probe
    }

    fn go_on(&mut self) {
        while let (Some(range), None) = (self.walk.next(), &self.problem) {
            let (begin, bytes) = &self.buffer;
            let index = |at: u64| at.checked_sub(*begin).and_then(|at| usize::try_from(at).ok());
            let within = index(range.start).zip(index(range.end));
            let piece =
                if range.is_empty() { Some(&[][..]) } else { within.and_then(|(from, to)| bytes.get(from..to)) };
            let Some(piece) = piece else { return };
            self.problem = self.walk.take(piece).err();
        }
    }
}

impl Probe for TarFile {
    fn next(&self) -> Option<Range<u64>> {
        let range = self.walk.next().filter(|_| self.problem.is_none())?;
        let read = self.buffer.0 + self.buffer.1.len() as u64;
        let ahead = if range.start.saturating_sub(read) < NEAR { MAX_READ } else { SMALL_READ };
        Some(range.start..range.end.max(range.start.saturating_add(ahead)).min(self.size).min(range.start + MAX_READ))
    }

    fn take(&mut self, bytes: &[u8], ledger: &mut Ledger) {
        let before = self.walk.found();
        if let Some(range) = self.next() {
            self.buffer = (range.start, bytes.to_vec());
        }
        self.go_on();
        ledger.charge(self.walk.found() - before);
    }

    fn held(&self) -> u64 {
        self.buffer.1.len() as u64
    }

    fn finish(self: Box<Self>, file: usize, evidence: &mut Evidence, notes: &mut Notes) {
        match self.problem {
            None => {
                let listing = self.walk.finish();
                note_listing(&listing, file, evidence, notes);
                evidence.put(file, Walked(listing.members));
            }
            Some(Stop::Bad(problem)) => unreadable(&Problem::Broken(problem), file, evidence, notes),
            Some(Stop::TooLarge(problem)) => unreadable(&Problem::TooLarge(problem), file, evidence, notes),
            Some(Stop::Need(_)) => {}
        }
    }
}

/// What the headers alone say.
fn note_listing(listing: &Listing, file: usize, evidence: &Evidence, notes: &mut Notes) {
    let path = &evidence.tree.file(file).path;
    let shown = names::shown(path);
    for finding in &listing.findings {
        let message = format!("{shown} {finding}: such an archive was not written by a library; {UPLOAD_AGAIN}");
        notes.fatal(Reason::Corrupt, Some(path), message);
    }
    if let Some(link) = listing.links.first() {
        let others = match listing.links.len() {
            1 => String::new(),
            count => format!(" (and {} more)", count - 1),
        };
        notes.warn(Reason::Corrupt, Some(path), format!("{shown} has a link {link}{others}; only files are judged"));
    }
}

/// An archive that could not be read to its end may hold anything.
fn unreadable(problem: &Problem, file: usize, evidence: &mut Evidence, notes: &mut Notes) {
    let path = evidence.tree.file(file).path.clone();
    if is_nemo(&path) {
        evidence.put(file, Inside { format: Some(Format::Nemo), contents: Contents::default() });
    }
    let fact = match problem {
        Problem::Broken(text) => PickleFact {
            tier: PickleTier::Code,
            what: format!("is a tar archive that cannot be read ({text})"),
            broken: None,
        },
        Problem::TooLarge(text) => unchecked(text),
        Problem::Foreign => return,
    };
    note_problem(problem, file, evidence, notes);
    evidence.note_pickle(file, fact);
}

fn unchecked(why: &str) -> PickleFact {
    let what = format!("is a tar archive that was not checked ({why})");
    PickleFact { tier: PickleTier::Unchecked, what, broken: None }
}

/// An archive deeper in archives than is read.
struct TooDeep;

impl Probe for TooDeep {
    fn next(&self) -> Option<Range<u64>> {
        None
    }

    fn take(&mut self, _: &[u8], _: &mut Ledger) {}

    fn finish(self: Box<Self>, file: usize, evidence: &mut Evidence, _: &mut Notes) {
        evidence.note_pickle(file, unchecked("it lies in archives within archives"));
    }
}

/// A compressed archive, such as a `.nemo` file before NeMo 1.7.
struct PackedFile {
    compression: Compression,
    nemo: bool,
}

/// What comes out of one.
enum Unpacked {
    Archive(Listing, Box<Judged>),
    /// Something else, and the pickles in it.
    Other(Scan),
}

impl Parse for PackedFile {
    type Output = Unpacked;

    fn remembered(output: &Self::Output) -> u64 {
        if let Unpacked::Archive(listing, _) = output { listing.members.len() as u64 } else { 0 }
    }

    fn parse(&self, file: &Window<'_>) -> Parsed<Self::Output> {
        let content = compression::unpack(file, self.compression)?;
        if !walk::is_header(&content) {
            return Ok(Unpacked::Other(archive::contents(&file.within(&content), "compressed data", false)?));
        }
        let mut walk = Walk::new(content.len() as u64);
        while let Some(range) = walk.next() {
            walk.take(slice(&content, &range)?)?;
        }
        let listing = walk.finish();
        // All bytes are there, so all checksums can be recomputed.
        let mut probe = InsideProbe::new(&listing.members, Depth::Content, LEVELS);
        while let Some(range) = probe.next() {
            probe.answer(slice(&content, &range)?);
        }
        Ok(Unpacked::Archive(listing, Box::new(probe.judged())))
    }

    fn finish(self, outcome: Result<Self::Output, Problem>, file: usize, evidence: &mut Evidence, notes: &mut Notes) {
        match outcome {
            Ok(Unpacked::Archive(listing, judged)) => {
                note_listing(&listing, file, evidence, notes);
                judged.leave(file, evidence, notes);
            }
            Ok(Unpacked::Other(scan)) => {
                if let Some(fact) = scan.worst {
                    evidence.note_pickle(file, fact);
                }
                if self.nemo {
                    let problem = Problem::Broken("what comes out of it is no tar archive".to_owned());
                    unreadable(&problem, file, evidence, notes);
                }
            }
            Err(problem) if self.nemo => unreadable(&problem, file, evidence, notes),
            Err(problem) => {
                if let Problem::TooLarge(text) = &problem {
                    evidence.note_pickle(file, unchecked(text));
                }
                note_problem(&problem, file, evidence, notes);
            }
        }
    }
}

fn slice<'a>(content: &'a [u8], range: &Range<u64>) -> Parsed<&'a [u8]> {
    Window::of_bytes(content).bytes(range.clone())
}
