//! How one file is read: a probe asks for ranges, is given them, and leaves what it found. Pure, no I/O.

use std::ops::Range;

use super::{
    MAX_READ,
    evidence::{Evidence, Ledger, PickleFact},
    findings::{Draft, Notes, UPLOAD_AGAIN},
    json::{self, Limits, Parser},
    magic::{self, Magic},
    names,
};
use crate::contract::{Reason, report};

/// Reads one file, one range at a time.
pub(super) trait Probe: Send {
    /// The next range that is needed, within the file and not longer than [`MAX_READ`]; none when it has seen enough.
    fn next(&self) -> Option<Range<u64>>;
    /// Takes the bytes of that range.
    fn take(&mut self, bytes: &[u8], ledger: &mut Ledger);
    /// Bytes that it holds or is about to hold.
    fn held(&self) -> u64 {
        0
    }
    /// Leaves what was found.
    fn finish(self: Box<Self>, file: usize, evidence: &mut Evidence, notes: &mut Notes);
}

/// Takes note of what the first bytes say; true when they make the file something else than its name says.
pub(super) fn note_magic(magic: Magic, file: usize, evidence: &mut Evidence, notes: &mut Notes) -> bool {
    match magic {
        Magic::Other => false,
        Magic::Pickle(kind) => {
            evidence.note_pickle(file, PickleFact::unchecked(kind));
            true
        }
        Magic::LfsPointer => {
            let path = &evidence.tree.file(file).path;
            let message = format!(
                "{} is a Git LFS pointer, not the file itself: run `git lfs pull` before you upload it again",
                names::shown(path)
            );
            notes.fatal(Reason::Incomplete, Some(path), message);
            true
        }
    }
}

/// Looks at the first bytes, and hands over to the first format that knows them.
pub(super) struct SniffProbe {
    path: String,
    size: u64,
    sniffers: Vec<Sniff>,
    found: Found,
}

/// Recognises a file by its path, its size and its first bytes ([`magic::SNIFF`] of them, unless it is shorter).
pub(super) type Sniff = fn(&str, u64, &[u8]) -> Option<Box<dyn Probe>>;

enum Found {
    Nothing,
    Magic(Magic),
    Probe(Box<dyn Probe>),
}

impl SniffProbe {
    pub fn new(path: &str, size: u64, sniffers: Vec<Sniff>) -> Self {
        Self { path: path.to_owned(), size, sniffers, found: Found::Nothing }
    }
}

impl Probe for SniffProbe {
    fn next(&self) -> Option<Range<u64>> {
        match &self.found {
            Found::Nothing => (self.size > 0).then(|| 0..self.size.min(magic::SNIFF)),
            Found::Magic(_) => None,
            Found::Probe(probe) => probe.next(),
        }
    }

    fn take(&mut self, bytes: &[u8], ledger: &mut Ledger) {
        if let Found::Probe(probe) = &mut self.found {
            return probe.take(bytes, ledger);
        }
        let sniffed = magic::sniff(bytes, &self.path, self.size);
        let known = || self.sniffers.iter().find_map(|sniff| sniff(&self.path, self.size, bytes));
        self.found = match (sniffed, if sniffed == Magic::LfsPointer { None } else { known() }) {
            (_, Some(probe)) => Found::Probe(probe),
            (magic, None) => Found::Magic(magic),
        };
    }

    fn held(&self) -> u64 {
        if let Found::Probe(probe) = &self.found { probe.held() } else { 0 }
    }

    fn finish(self: Box<Self>, file: usize, evidence: &mut Evidence, notes: &mut Notes) {
        match self.found {
            Found::Nothing => {}
            Found::Magic(magic) => {
                note_magic(magic, file, evidence, notes);
            }
            Found::Probe(probe) => probe.finish(file, evidence, notes),
        }
    }
}

/// Why a document has no content.
#[derive(Debug, PartialEq)]
pub(super) enum Problem {
    /// It was not read because of its size.
    TooLarge(String),
    /// It is not what it should be.
    Broken(String),
    /// It is another kind of file; that has been noted.
    Foreign,
}

/// Says what is the matter with a file: what is damaged fails the verdict, what is too large to be read is only told.
pub(super) fn note_problem(problem: &Problem, file: usize, evidence: &Evidence, notes: &mut Notes) {
    let path = &evidence.tree.file(file).path;
    let shown = names::shown(path);
    match problem {
        Problem::Broken(text) => {
            notes.fatal(Reason::Corrupt, Some(path), format!("{shown} is damaged: {text}; {UPLOAD_AGAIN}"));
        }
        Problem::TooLarge(text) => {
            notes.warn(Reason::Corrupt, Some(path), format!("{shown} was not read to its end: {text}"));
        }
        Problem::Foreign => {}
    }
}

/// Collects what a document says.
pub(super) trait Collect: json::Sink + Send {
    /// Tensors that were remembered so far.
    fn remembered(&self) -> u64 {
        0
    }
    /// Leaves it.
    fn finish(self, outcome: Result<(), Problem>, file: usize, evidence: &mut Evidence, notes: &mut Notes);
}

/// Reads a JSON document from its first byte to its last, in pieces.
pub(super) struct JsonProbe<S> {
    path: String,
    size: u64,
    cap: u64,
    at: u64,
    parser: Parser,
    sink: S,
    magic: Magic,
    error: Option<String>,
    charged: u64,
}

impl<S: Collect> JsonProbe<S> {
    /// A reader of a file of this size, of which nothing is taken when it is larger than `cap` bytes.
    pub fn new(path: &str, size: u64, cap: u64, limits: Limits, sink: S) -> Self {
        let parser = Parser::new(limits, 0);
        Self { path: path.to_owned(), size, cap, at: 0, parser, sink, magic: Magic::Other, error: None, charged: 0 }
    }

    fn end(&self) -> u64 {
        if self.size > self.cap { self.size.min(magic::SNIFF) } else { self.size }
    }
}

impl<S: Collect> Probe for JsonProbe<S> {
    fn next(&self) -> Option<Range<u64>> {
        let more = self.at < self.end() && self.error.is_none() && self.magic == Magic::Other;
        more.then(|| self.at..self.end().min(self.at + MAX_READ))
    }

    fn take(&mut self, bytes: &[u8], ledger: &mut Ledger) {
        if self.at == 0 {
            self.magic = magic::sniff(bytes, &self.path, self.size);
        }
        self.at += bytes.len() as u64;
        if self.magic != Magic::Other || self.size > self.cap {
            return;
        }
        let mut result = self.parser.feed(bytes, &mut self.sink);
        if result.is_ok() && self.at >= self.size {
            result = self.parser.finish(&mut self.sink);
        }
        self.error = result.err().map(|error| error.to_string());
        ledger.charge(self.sink.remembered() - self.charged);
        self.charged = self.sink.remembered();
    }

    fn finish(self: Box<Self>, file: usize, evidence: &mut Evidence, notes: &mut Notes) {
        let outcome = if note_magic(self.magic, file, evidence, notes) {
            Err(Problem::Foreign)
        } else if self.size > self.cap {
            Err(Problem::TooLarge(format!(
                "it has {} bytes, more than the {} that are read of it",
                self.size, self.cap
            )))
        } else if self.size == 0 {
            Err(Problem::Broken("it is empty".to_owned()))
        } else {
            self.error.map_or(Ok(()), |error| Err(Problem::Broken(error)))
        };
        self.sink.finish(outcome, file, evidence, notes);
    }
}

/// Reads the name of a tensor, to complete a finding.
pub(super) struct NameProbe {
    draft: Draft,
    name: Option<String>,
}

impl NameProbe {
    pub fn new(draft: Draft) -> Self {
        Self { draft, name: None }
    }
}

impl Probe for NameProbe {
    fn next(&self) -> Option<Range<u64>> {
        self.name.is_none().then(|| self.draft.name.clone())
    }

    fn take(&mut self, bytes: &[u8], _: &mut Ledger) {
        self.name = Some(serde_json::from_slice(bytes).unwrap_or_else(|_| "?".to_owned()));
    }

    fn finish(self: Box<Self>, _: usize, _: &mut Evidence, notes: &mut Notes) {
        let Draft { reason, file, before, after, .. } = self.draft;
        let name = quoted(&self.name.unwrap_or_default());
        notes.fatal(reason, Some(&file), format!("{before}{name}{after}"));
    }
}

/// A tensor's name for a message: quoted and bounded.
pub(super) fn quoted(name: &str) -> String {
    format!("{:?}", report::clean(name, 160))
}
