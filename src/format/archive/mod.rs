//! Zip archives of every kind: what they are, pickles in their entries, and what their own format asks of them. Pure, no I/O.

mod checksums;
mod content;
mod described;
mod entries;
#[cfg(test)]
mod tests;

use std::{cell::OnceCell, ops::Range};

use super::{
    evidence::{CodeFact, Evidence, Ledger, PickleFact},
    findings::{Notes, UPLOAD_AGAIN},
    keras, magic, names, numpy,
    probe::{Probe, Problem},
    table::Family,
    torch::tensors::Saved,
    window::{Parse, Parsed, Stop, Window, WindowProbe},
    zip::{self, Directory, Entry},
};
use crate::contract::{Depth, Format, PickleTier, Reason};

use content::Asked;
pub(super) use entries::Scan;

/// The first bytes of an HDF5 file, as Keras 2 wrote under the same name.
const HDF5: &[u8] = b"\x89HDF\r\n\x1a\n";

/// What kind of archive it is.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum Kind {
    /// `torch.save`
    Torch,
    /// `torch.jit.save`
    TorchScript,
    /// `torch.export.save`
    TorchExport,
    /// `numpy.savez`
    NumPy,
    /// Keras 3
    Keras,
    /// skops
    Skops,
    /// Anything else.
    #[default]
    Other,
}

/// An archive that could be read.
#[derive(Debug)]
pub(super) struct Archive {
    /// What it is.
    pub kind: Kind,
    /// Its entries, for those who read on.
    pub entries: Vec<Entry>,
}

/// What was found in an archive.
#[derive(Default)]
pub(super) struct Found {
    directory: Directory,
    kind: Kind,
    scan: Scan,
    saved: Option<Saved>,
    keras: Option<keras::Model>,
    counts: Option<super::counts::Counts>,
    code: Vec<(bool, String)>,
    /// Things that are there and that nothing uses.
    unused: Option<String>,
}

/// Files of skops: what they name is imported, but nothing in them is a pickle.
pub(super) const SKOPS: Family = Family {
    claims: |evidence| of_kind(evidence, Kind::Skops).next().is_some(),
    places: |evidence| paths(evidence, Kind::Skops),
    judged: "the archive, with every array that its `schema.json` names; what it names is not imported by itself",
    ..Family::of(Format::Skops)
};

/// A zip archive: every one is read here, whatever format it then belongs to.
pub(super) fn sniff(path: &str, size: u64, start: &[u8]) -> Option<Box<dyn Probe>> {
    let is_zip = start.starts_with(b"PK\x03\x04") || start.starts_with(b"PK\x05\x06");
    if is_zip {
        let archive = ArchiveFile { path: path.to_owned(), directory: OnceCell::new() };
        return Some(WindowProbe::boxed(archive, size, start));
    }
    let keras = names::has_extension(path, "keras") && !start.starts_with(HDF5);
    keras.then(|| Box::new(NoKeras) as Box<dyn Probe>)
}

/// Files of a kind.
pub(super) fn of_kind(evidence: &Evidence, kind: Kind) -> impl Iterator<Item = usize> {
    evidence.all::<Archive>().filter(move |(_, archive)| archive.kind == kind).map(|(file, _)| file)
}

/// Their paths.
pub(super) fn paths(evidence: &Evidence, kind: Kind) -> Vec<String> {
    of_kind(evidence, kind).map(|file| evidence.tree.file(file).path.clone()).collect()
}

/// At depth `Content`, the checksums of all entries.
pub(super) fn follow(evidence: &Evidence) -> Vec<(usize, Box<dyn Probe>)> {
    if evidence.depth < Depth::Content {
        return Vec::new();
    }
    let probe = |(file, archive): (usize, &Archive)| {
        let checksums = checksums::Checksums::new(&archive.entries, evidence.tree.file(file).size);
        (file, Box::new(checksums) as Box<dyn Probe>)
    };
    evidence.all::<Archive>().map(probe).collect()
}

/// The pickles of a part of a file, such as an item of a distributed checkpoint.
pub(super) fn item(window: &Window<'_>) -> Parsed<Scan> {
    // Compressed by a transformation of the writer, it is a pickle all the same.
    contents(window, "item.distcp", false)
}

/// The pickles of bytes under a name. `certain` when they must be a pickle or hold one.
pub(super) fn contents(window: &Window<'_>, name: &str, certain: bool) -> Parsed<Scan> {
    let mut scan = Scan::default();
    let found = content::inner(window, name, Asked { named: certain, ..Asked::default() }, &mut scan);
    scan.keep(found)?;
    Ok(scan)
}

/// Whether bytes are an archive, an array or compressed data.
pub(super) fn is_container(window: &Window<'_>) -> Parsed<bool> {
    Ok(content::is_container(window.up_to(0, magic::SNIFF)?))
}

/// The most dangerous pickle of such bytes in a pickle, so many pickles deep. What cannot be read may hold any.
pub(super) fn within(window: &Window<'_>, place: &str, level: u32) -> Parsed<Option<PickleFact>> {
    let mut scan = Scan::default();
    match content::inner(window, place, Asked { level, ..Asked::default() }, &mut scan) {
        Err(Stop::Bad(problem) | Stop::TooLarge(problem)) => scan.note(entries::unchecked(&problem)),
        found => found?,
    }
    Ok(scan.worst)
}

/// A file of Keras 3 that does not begin as its archives do. Python finds an archive behind any bytes, so it may be one all the
/// same, with code in it.
struct NoKeras;

impl Probe for NoKeras {
    fn next(&self) -> Option<Range<u64>> {
        None
    }

    fn take(&mut self, _: &[u8], _: &mut Ledger) {}

    fn finish(self: Box<Self>, file: usize, evidence: &mut Evidence, notes: &mut Notes) {
        let path = evidence.tree.file(file).path.clone();
        let shown = names::shown(&path);
        let message = format!("{shown} is damaged: it begins as no archive of Keras and no HDF5 file; {UPLOAD_AGAIN}");
        notes.fatal(Reason::Corrupt, Some(&path), message);
        evidence.note_pickle(file, PickleFact::unchecked("a file of Keras that begins with other bytes"));
    }
}

struct ArchiveFile {
    path: String,
    /// Read once, however often the rest begins again.
    directory: OnceCell<Directory>,
}

impl Parse for ArchiveFile {
    type Output = Found;

    fn remembered(found: &Found) -> u64 {
        found.directory.entries.len() as u64 + found.saved.as_ref().map_or(0, |saved| saved.counts.tensors)
    }

    fn parse(&self, file: &Window<'_>) -> Parsed<Found> {
        let directory = if let Some(directory) = self.directory.get() {
            directory
        } else {
            let directory = zip::directory(file)?;
            self.directory.get_or_init(|| directory)
        };
        let kind = entries::kind(directory, &self.path);
        let mut found = Found { kind, ..Found::default() };
        let scan = &mut found.scan;
        match kind {
            Kind::Torch | Kind::TorchScript => {
                entries::torch_disagreements(directory, scan);
                let torch = scan.keep(entries::torch(file, directory, kind == Kind::TorchScript))?;
                (found.saved, found.unused) = torch.map_or((None, None), |torch| (Some(torch.saved), torch.unused));
            }
            Kind::Keras => {
                found.keras = scan.keep(keras::archive(file, directory))?;
                if let Some(model) = &found.keras {
                    found.code.clone_from(&model.code);
                    found.unused.clone_from(&model.unused);
                    if model.weightless {
                        scan.keep::<()>(Err(Stop::bad("it has no weights (model.weights.h5)")))?;
                    }
                }
            }
            Kind::NumPy => found.counts = scan.keep(numpy::archive(file, directory))?,
            Kind::TorchExport => {
                scan.keep(described::export(file, directory))?;
            }
            Kind::Skops => {
                scan.keep(described::skops(file, directory))?;
            }
            Kind::Other => {}
        }
        entries::pickles(file, directory, kind, 0, &mut found.scan)?;
        found.directory = directory.clone();
        Ok(found)
    }

    fn finish(self, outcome: Result<Found, Problem>, file: usize, evidence: &mut Evidence, notes: &mut Notes) {
        let path = evidence.tree.file(file).path.clone();
        let shown = names::shown(&path);
        match outcome {
            Ok(found) => found.leave(file, &path, evidence, notes),
            Err(Problem::Broken(problem)) => {
                let message = format!("{shown} is damaged: {problem}; {UPLOAD_AGAIN}");
                notes.fatal(Reason::Corrupt, Some(&path), message);
                let what = format!("is a zip archive that cannot be read ({problem})");
                evidence.note_pickle(file, PickleFact { tier: PickleTier::Code, what, broken: None });
            }
            Err(Problem::TooLarge(problem)) => {
                let what = format!("is a zip archive that was not checked ({problem})");
                evidence.note_pickle(file, PickleFact { tier: PickleTier::Unchecked, what, broken: None });
            }
            Err(Problem::Foreign) => {}
        }
    }
}

impl Found {
    fn leave(self, file: usize, path: &str, evidence: &mut Evidence, notes: &mut Notes) {
        let shown = names::shown(path);
        for finding in &self.directory.findings {
            let message = format!("{shown} {finding}: such an archive was not written by a library; {UPLOAD_AGAIN}");
            notes.fatal(Reason::Corrupt, Some(path), message);
        }
        if let Some(unused) = &self.unused {
            notes.warn(Reason::Incomplete, Some(path), format!("{shown} has {unused}, which nothing in it uses"));
        }
        for problem in &self.scan.problems {
            notes.fatal(Reason::Corrupt, Some(path), format!("{shown} is damaged: {problem}; {UPLOAD_AGAIN}"));
        }
        if let Some(pickle) = self.scan.worst {
            evidence.note_pickle(file, pickle);
        }
        if self.kind == Kind::TorchScript {
            let what = "a TorchScript program".to_owned();
            evidence.note_code(CodeFact { on_load: false, file, what });
        }
        for (on_load, what) in self.code {
            evidence.note_code(CodeFact { on_load, file, what });
        }
        if let Some(saved) = self.saved {
            evidence.put(file, saved);
        }
        if let Some(model) = self.keras {
            evidence.put(file, model);
        }
        if let Some(counts) = self.counts {
            evidence.put(file, numpy::Arrays(counts));
        }
        evidence.put(file, Archive { kind: self.kind, entries: self.directory.entries });
    }
}
