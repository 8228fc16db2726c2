//! Random access to one file for parsers that are written in straight lines: bytes that are not there yet stop the parser, are
//! fetched, and it begins again. Pure, no I/O.

use std::{
    cell::Cell,
    collections::{BTreeMap, btree_map::Entry},
    ops::Range,
};

use super::{
    MAX_READ,
    evidence::{Evidence, Ledger},
    findings::Notes,
    magic::{self, Magic},
    probe::{Probe, Problem, note_magic},
};

/// The least that is fetched at a time, in bytes.
const SMALL_READ: u64 = 4 << 10;

/// A parser that asked a file this often, over all its beginnings, is given no more of it: some seconds of work.
const ASKED: u64 = 200_000_000;

/// The most bytes that are unpacked of one file, over all beginnings of its parser: a second or two of work.
pub(super) const INFLATED: u64 = 1 << 30;

/// Why a parser stops before its end.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Stop {
    /// These bytes of the file are needed first; the parser is then called again from its beginning.
    Need(Range<u64>),
    /// The bytes are not what they should be; the text completes "FILE is damaged: ".
    Bad(String),
    /// It is more than is read; the text says of what and how much is the limit.
    TooLarge(String),
}

impl Stop {
    /// Bytes that are not what they should be.
    pub fn bad(text: impl Into<String>) -> Self {
        Self::Bad(text.into())
    }
}

/// What a parser comes to.
pub(super) type Parsed<T> = Result<T, Stop>;

/// Pieces of a file that were fetched; neighbours are joined.
#[derive(Debug, Default)]
pub(super) struct Cache {
    pieces: BTreeMap<u64, Vec<u8>>,
    held: u64,
    /// How often a parser asked for bytes, over all its beginnings.
    asked: Cell<u64>,
    /// What was unpacked for it, over all its beginnings, in bytes.
    inflated: Cell<u64>,
}

impl Cache {
    /// Bytes that are held.
    pub fn held(&self) -> u64 {
        self.held
    }

    /// Bytes that were unpacked of the file so far.
    #[cfg(test)]
    pub fn inflated(&self) -> u64 {
        self.inflated.get()
    }

    /// Counts bytes as unpacked.
    #[cfg(test)]
    pub fn spend(&self, bytes: u64) {
        self.inflated.set(self.inflated.get() + bytes);
    }

    /// Adds a piece, which must not overlap others.
    pub fn insert(&mut self, at: u64, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        self.held += bytes.len() as u64;
        let before =
            self.pieces.range_mut(..=at).next_back().filter(|(start, piece)| **start + piece.len() as u64 == at);
        let start = if let Some((&start, piece)) = before {
            piece.extend_from_slice(bytes);
            start
        } else {
            self.pieces.insert(at, bytes.to_vec());
            at
        };
        let end = at + bytes.len() as u64;
        if let Entry::Occupied(next) = self.pieces.entry(end) {
            let next = next.remove();
            if let Some(piece) = self.pieces.get_mut(&start) {
                piece.extend_from_slice(&next);
            }
        }
    }

    /// The bytes, when they are all there.
    fn get(&self, range: &Range<u64>) -> Option<&[u8]> {
        self.asked.set(self.asked.get() + 1);
        let (start, piece) = self.pieces.range(..=range.start).next_back()?;
        let from = usize::try_from(range.start - start).ok()?;
        let to = usize::try_from(range.end - start).ok()?;
        piece.get(from..to)
    }

    /// The first part of the range that is not there.
    fn gap(&self, range: &Range<u64>) -> Range<u64> {
        let mut begin = range.start;
        while let Some((start, piece)) = self.pieces.range(..=begin).next_back()
            && start + piece.len() as u64 > begin
        {
            begin = start + piece.len() as u64;
        }
        let end = self.pieces.range(begin..).next().map_or(range.end, |(start, _)| range.end.min(*start));
        begin..end.max(begin)
    }
}

/// A part of a file (or of bytes that came out of one) as a parser sees it; offsets count from its beginning.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window<'a> {
    bytes: Bytes<'a>,
    begin: u64,
    end: u64,
    /// What was unpacked of the file that it is of, however deep it lies in archives.
    inflated: Option<&'a Cell<u64>>,
}

#[derive(Clone, Copy, Debug)]
enum Bytes<'a> {
    Cache(&'a Cache),
    Memory(&'a [u8]),
}

impl<'a> Window<'a> {
    /// A whole file of this size.
    pub fn of_file(cache: &'a Cache, size: u64) -> Self {
        Self { bytes: Bytes::Cache(cache), begin: 0, end: size, inflated: Some(&cache.inflated) }
    }

    /// Bytes in memory, such as those of a compressed entry.
    pub fn of_bytes(bytes: &'a [u8]) -> Self {
        Self { bytes: Bytes::Memory(bytes), begin: 0, end: bytes.len() as u64, inflated: None }
    }

    /// Bytes that came out of it; what is unpacked of them counts as unpacked of it.
    pub fn within<'b>(&self, bytes: &'b [u8]) -> Window<'b>
    where
        'a: 'b,
    {
        Window { inflated: self.inflated, ..Window::of_bytes(bytes) }
    }

    /// The bytes of a cache of its own, of which there may be more; what is unpacked of them counts as unpacked of it.
    pub fn open<'b>(&self, beginning: &'b Cache) -> Window<'b>
    where
        'a: 'b,
    {
        Window { inflated: self.inflated, ..Window::of_file(beginning, u64::MAX >> 1) }
    }

    /// Takes note of bytes that are unpacked.
    ///
    /// # Errors
    /// `TooLarge` when they are too many in all.
    pub fn inflate(&self, bytes: u64) -> Parsed<()> {
        let Some(inflated) = self.inflated else { return Ok(()) };
        let sum = inflated.get().saturating_add(bytes);
        if sum > INFLATED {
            return Err(Stop::TooLarge(format!("more than {INFLATED} bytes would have to be unpacked of it in all")));
        }
        inflated.set(sum);
        Ok(())
    }

    /// Length in bytes.
    pub fn len(&self) -> u64 {
        self.end - self.begin
    }

    /// A part of it.
    ///
    /// # Errors
    /// `Bad` when the range is not within it.
    pub fn part(&self, range: Range<u64>) -> Parsed<Self> {
        self.check(&range)?;
        Ok(Self { begin: self.begin + range.start, end: self.begin + range.end, ..*self })
    }

    /// Bytes of it.
    ///
    /// # Errors
    /// `Need` when they were not fetched yet, `Bad` when the range is not within it, `TooLarge` when the file was asked too often.
    pub fn bytes(&self, range: Range<u64>) -> Parsed<&'a [u8]> {
        self.check(&range)?;
        let range = self.begin + range.start..self.begin + range.end;
        if range.is_empty() {
            return Ok(&[]);
        }
        match self.bytes {
            Bytes::Memory(bytes) => {
                let index = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
                bytes.get(index(range.start)..index(range.end)).ok_or_else(|| Stop::bad("it ends too early"))
            }
            Bytes::Cache(cache) if cache.asked.get() >= ASKED => {
                Err(Stop::TooLarge("what has to be read of it is too scattered".to_owned()))
            }
            Bytes::Cache(cache) => cache.get(&range).ok_or_else(|| Stop::Need(cache.gap(&range))),
        }
    }

    /// So many bytes from there, or fewer at its end.
    ///
    /// # Errors
    /// `Need` when they were not fetched yet.
    pub fn up_to(&self, at: u64, length: u64) -> Parsed<&'a [u8]> {
        let at = at.min(self.len());
        self.bytes(at..at.saturating_add(length).min(self.len()))
    }

    /// An array of bytes, for `u32::from_le_bytes` and its like.
    ///
    /// # Errors
    /// As [`Self::bytes`].
    pub fn array<const N: usize>(&self, at: u64) -> Parsed<[u8; N]> {
        let bytes = self.bytes(at..at.saturating_add(N as u64))?;
        bytes.first_chunk().copied().ok_or_else(|| Stop::bad("it ends too early"))
    }

    fn check(&self, range: &Range<u64>) -> Parsed<()> {
        if range.start <= range.end && range.end <= self.len() {
            return Ok(());
        }
        Err(Stop::Bad(format!("it ends at byte {}, but its structure goes on to byte {}", self.len(), range.end)))
    }
}

/// A parser of one file. It is called again from the beginning whenever bytes were missing; what was fetched stays.
pub(super) trait Parse: Send + 'static {
    /// What it finds.
    type Output: Send;
    /// The most bytes of the file that it may hold at a time.
    const CAP: u64 = 64 << 20;
    /// How many tensors, entries or other things the output remembers.
    fn remembered(_: &Self::Output) -> u64 {
        0
    }
    /// Reads the file; LFS pointers never come here.
    fn parse(&self, file: &Window<'_>) -> Parsed<Self::Output>;
    /// Leaves what was found.
    fn finish(self, outcome: Result<Self::Output, Problem>, file: usize, evidence: &mut Evidence, notes: &mut Notes);
}

/// Runs a parser.
pub(super) struct WindowProbe<P: Parse> {
    parser: P,
    size: u64,
    cache: Cache,
    /// What is still to be fetched before the parser is called again.
    wanted: Range<u64>,
    outcome: Option<Result<P::Output, Problem>>,
    pointer: bool,
}

impl<P: Parse> WindowProbe<P> {
    /// A probe of a file of this size. `start` holds bytes of its beginning that are there already.
    pub fn new(parser: P, size: u64, start: &[u8]) -> Self {
        let mut cache = Cache::default();
        cache.insert(0, start);
        let mut probe = Self { parser, size, cache, wanted: 0..0, outcome: None, pointer: false };
        if start.is_empty() {
            probe.wanted = 0..size.min(SMALL_READ);
        }
        probe.look(start);
        probe.go_on();
        probe
    }

    /// The probe, ready for the judge.
    pub fn boxed(parser: P, size: u64, start: &[u8]) -> Box<dyn Probe> {
        Box::new(Self::new(parser, size, start))
    }

    /// What the parser came to; none while bytes are missing.
    pub fn outcome(self) -> Option<Result<P::Output, Problem>> {
        self.outcome
    }

    fn look(&mut self, start: &[u8]) {
        self.pointer = magic::is_pointer(start, self.size);
    }

    fn go_on(&mut self) {
        if !self.wanted.is_empty() || self.outcome.is_some() {
            return;
        }
        let outcome = match self.parser.parse(&Window::of_file(&self.cache, self.size)) {
            Ok(output) => Ok(output),
            Err(Stop::Need(range)) => {
                if self.cache.held() + (range.end - range.start) <= P::CAP {
                    self.wanted = self.extended(range);
                    return;
                }
                Err(Problem::TooLarge(format!("more than {} bytes of it would have to be read", P::CAP)))
            }
            Err(Stop::Bad(text)) => Err(Problem::Broken(text)),
            Err(Stop::TooLarge(text)) => Err(Problem::TooLarge(text)),
        };
        self.outcome = Some(outcome);
        self.cache = Cache::default();
    }

    /// Where a parser goes on behind what it has, it is given as much again: so the work stays proportional to what is read.
    fn extended(&self, range: Range<u64>) -> Range<u64> {
        let behind = self.cache.pieces.range(..range.start).next_back();
        let run = behind.filter(|(start, piece)| **start + piece.len() as u64 == range.start);
        let more = run.map_or(0, |(_, piece)| piece.len() as u64).max(SMALL_READ);
        let next = self.cache.pieces.range(range.end..).next().map_or(self.size, |(start, _)| *start);
        let cap = P::CAP.saturating_sub(self.cache.held()).max(range.end - range.start);
        range.start..range.end.max(range.start + more.min(cap)).min(next)
    }
}

impl<P: Parse> Probe for WindowProbe<P> {
    fn next(&self) -> Option<Range<u64>> {
        if self.pointer || self.wanted.is_empty() {
            return None;
        }
        Some(self.wanted.start..self.wanted.end.min(self.wanted.start + MAX_READ))
    }

    fn take(&mut self, bytes: &[u8], ledger: &mut Ledger) {
        if self.wanted.start == 0 {
            self.look(bytes);
        }
        self.cache.insert(self.wanted.start, bytes);
        self.wanted.start += bytes.len() as u64;
        self.go_on();
        if let Some(Ok(output)) = &self.outcome {
            ledger.charge(P::remembered(output));
        }
    }

    fn held(&self) -> u64 {
        self.cache.held() + (self.wanted.end - self.wanted.start)
    }

    fn finish(self: Box<Self>, file: usize, evidence: &mut Evidence, notes: &mut Notes) {
        let outcome = if self.pointer {
            note_magic(Magic::LfsPointer, file, evidence, notes);
            Err(Problem::Foreign)
        } else {
            self.outcome.unwrap_or_else(|| Err(Problem::Broken("it could not be read to its end".to_owned())))
        };
        self.parser.finish(outcome, file, evidence, notes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_joined_and_gaps_are_named() {
        let mut cache = Cache::default();
        cache.insert(0, b"ab");
        cache.insert(4, b"ef");
        let window = Window::of_file(&cache, 8);
        assert_eq!(window.bytes(0..2), Ok(&b"ab"[..]));
        assert_eq!(window.bytes(1..6), Err(Stop::Need(2..4)));
        assert_eq!(window.bytes(5..8), Err(Stop::Need(6..8)));
        assert!(matches!(window.bytes(5..9), Err(Stop::Bad(_))));
        cache.insert(2, b"cd");
        let window = Window::of_file(&cache, 8);
        assert_eq!(window.bytes(0..6), Ok(&b"abcdef"[..]));
        assert_eq!(window.part(2..6).unwrap().bytes(1..3), Ok(&b"de"[..]));
        assert!(window.part(2..6).unwrap().bytes(1..5).is_err());
        assert_eq!(window.array::<2>(4), Ok(*b"ef"));
        assert_eq!(window.up_to(5, 1), Ok(&b"f"[..]));
    }

    /// A parser may go round in bytes that are there, so that it never needs more.
    #[test]
    fn what_is_asked_is_bounded() {
        let mut cache = Cache::default();
        cache.insert(0, b"ab");
        cache.asked.set(ASKED - 1);
        let window = Window::of_file(&cache, 8);
        assert_eq!(window.bytes(0..2), Ok(&b"ab"[..]));
        for range in [0..2, 2..4] {
            assert!(matches!(window.bytes(range), Err(Stop::TooLarge(_))));
        }
    }
}
