//! Recomputes the checksum of every tensor of a data file, in one pass over it (TensorFlow 2.21, `tensor_bundle.cc`). No I/O.

use std::ops::Range;

use super::{
    super::{
        MAX_READ,
        evidence::{Evidence, Ledger},
        findings::{Notes, UPLOAD_AGAIN},
        names,
        probe::{Probe, quoted},
    },
    bundle::Extent,
    table::Checksum,
    types,
};
use crate::contract::Reason;

/// The most tensors of a file that are named.
const NAMED: usize = 8;
/// Bytes between two tensors that are read with them.
const GAP: u64 = 4 << 10;

/// Goes through the tensors one after another.
pub(super) struct Checksums {
    extents: Vec<Extent>,
    current: usize,
    /// Where the next byte of the current tensor lies.
    at: u64,
    sum: Sum,
    problems: Vec<(String, &'static str)>,
}

enum Sum {
    Bytes(Checksum),
    Texts(Texts),
}

/// Texts of a tensor: their lengths, a checksum of these, the texts. The checksum of all is over lengths of four bytes, or eight
/// for those that need them, not over the varints in the file.
struct Texts {
    sum: Checksum,
    /// Lengths that are still to come, and what is known of the next one.
    left: u64,
    number: u64,
    shift: u32,
    /// The checksum of the lengths, as far as it was read.
    stored: Vec<u8>,
    /// Bytes of the texts, by their lengths and found.
    expected: u64,
    found: u64,
    damaged: bool,
}

impl Checksums {
    pub fn new(extents: &[Extent], size: u64, big_endian: bool) -> Self {
        let known = |extent: &&Extent| {
            let fits = extent.end() <= size && extent.size > 0;
            // Lengths of texts are swapped on such machines; variants are a format of their own.
            fits && (extent.kind.bytes > 0 || (extent.kind.name == types::TEXT && !big_endian))
        };
        let extents: Vec<Extent> = extents.iter().filter(known).cloned().collect();
        let mut checksums = Self { extents, current: 0, at: 0, sum: Sum::Bytes(Checksum::new()), problems: Vec::new() };
        checksums.begin();
        checksums
    }

    fn begin(&mut self) {
        let Some(extent) = self.extents.get(self.current) else { return };
        self.at = extent.offset;
        self.sum =
            if extent.kind.bytes > 0 { Sum::Bytes(Checksum::new()) } else { Sum::Texts(Texts::new(extent.elements)) };
    }

    fn close(&mut self) {
        let Some(extent) = self.extents.get(self.current) else { return };
        let sum = match &self.sum {
            Sum::Bytes(sum) => Some(sum.masked()),
            Sum::Texts(texts) => texts.finish(),
        };
        let problem = match sum {
            Some(sum) if sum == extent.crc => None,
            Some(_) => Some("has another checksum than the index says"),
            None => Some("has texts that do not fit their lengths"),
        };
        if let Some(problem) = problem {
            self.problems.push((extent.name.clone(), problem));
        }
        self.current += 1;
        self.begin();
    }
}

impl Texts {
    fn new(count: u64) -> Self {
        let (stored, sum) = (Vec::new(), Checksum::new());
        Self { sum, left: count, number: 0, shift: 0, stored, expected: 0, found: 0, damaged: false }
    }

    fn update(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while self.left > 0 && !self.damaged {
            let Some((byte, tail)) = rest.split_first() else { return };
            rest = tail;
            self.damaged = self.shift > 63;
            self.number |= u64::from(byte & 0x7F).checked_shl(self.shift).unwrap_or_default();
            self.shift += 7;
            if byte & 0x80 == 0 {
                match u32::try_from(self.number) {
                    Ok(length) => self.sum.update(&length.to_le_bytes()),
                    Err(_) => self.sum.update(&self.number.to_le_bytes()),
                }
                self.expected = self.expected.saturating_add(self.number);
                self.left -= 1;
                (self.number, self.shift) = (0, 0);
            }
        }
        if self.stored.len() < 4 {
            let (sum, tail) = rest.split_at(rest.len().min(4 - self.stored.len()));
            self.stored.extend_from_slice(sum);
            rest = tail;
            if self.stored.len() < 4 {
                return;
            }
            self.damaged |= self.stored != self.sum.masked().to_le_bytes();
            self.sum.update(&self.stored);
        }
        self.sum.update(rest);
        self.found += rest.len() as u64;
    }

    fn finish(&self) -> Option<u32> {
        let whole = !self.damaged && self.left == 0 && self.stored.len() == 4 && self.found == self.expected;
        whole.then(|| self.sum.masked())
    }
}

impl Probe for Checksums {
    /// Neighbours are read together: many tensors are small.
    fn next(&self) -> Option<Range<u64>> {
        let (extent, others) = self.extents.get(self.current..)?.split_first()?;
        let most = self.at.saturating_add(MAX_READ);
        let mut end = extent.end();
        for next in others {
            if end >= most || next.offset > end.saturating_add(GAP) {
                break;
            }
            end = end.max(next.end());
        }
        Some(self.at..end.min(most))
    }

    fn take(&mut self, bytes: &[u8], _: &mut Ledger) {
        let (mut rest, mut position) = (bytes, self.at);
        while let Some(extent) = self.extents.get(self.current) {
            let ahead = usize::try_from(self.at.saturating_sub(position)).unwrap_or(usize::MAX);
            let left = usize::try_from(extent.end() - self.at).unwrap_or(usize::MAX);
            let part = rest.get(ahead..).unwrap_or_default();
            let part = &part[..part.len().min(left)];
            if part.is_empty() {
                return;
            }
            match &mut self.sum {
                Sum::Bytes(sum) => sum.update(part),
                Sum::Texts(texts) => texts.update(part),
            }
            self.at += part.len() as u64;
            position = self.at;
            rest = &rest[ahead + part.len()..];
            if self.at >= extent.end() {
                self.close();
            }
        }
    }

    fn finish(self: Box<Self>, file: usize, evidence: &mut Evidence, notes: &mut Notes) {
        let path = &evidence.tree.file(file).path;
        for (name, problem) in self.problems.iter().take(NAMED) {
            let message =
                format!("{} is damaged: its tensor {} {problem}; {UPLOAD_AGAIN}", names::shown(path), quoted(name));
            notes.fatal(Reason::Corrupt, Some(path), message);
        }
    }
}
