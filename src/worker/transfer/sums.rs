//! Compares the bytes that came with the checksums that their store holds. Pure, no I/O.
//!
//! CRCs are computed for pieces, in any order, and combined. MD5 and SHA-256 need the bytes in order.

use std::{ops::Range, sync::Arc};

use crc_fast::CrcAlgorithm;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::storage::{Checksum, Window};

/// How a file can be checked.
#[derive(Clone, Debug, Default)]
pub(super) enum Check {
    /// The store holds nothing to compare with.
    #[default]
    None,
    /// By sums of pieces.
    Crc(CrcAlgorithm, Arc<[Window]>),
    /// By reading from the beginning to the end.
    InOrder(Arc<[Window]>),
}

/// The CRC of a piece of a file that lies in one window.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(in crate::worker) struct Piece {
    /// Offset in the file, in bytes.
    pub at: u64,
    /// Length in bytes.
    pub length: u64,
    /// Its CRC, in the algorithm of the windows.
    pub crc: u64,
}

impl Check {
    /// A check by these windows. Windows that are not in order, overlap, leave the file or mix algorithms are of no use.
    pub(super) fn new(windows: Vec<Window>, size: u64) -> Self {
        let Some(first) = windows.first() else { return Self::None };
        let algorithm = first.checksum;
        let same = windows.iter().all(|window| window.checksum.name() == algorithm.name());
        let mut end = 0;
        let ordered = windows.iter().all(|window| {
            let fits = window.range.start >= end && window.range.end >= window.range.start;
            end = window.range.end;
            fits && end <= size
        });
        if !same || !ordered {
            return Self::None;
        }
        match algorithm {
            Checksum::Crc32C(_) => Self::Crc(CrcAlgorithm::Crc32Iscsi, windows.into()),
            Checksum::Crc32(_) => Self::Crc(CrcAlgorithm::Crc32IsoHdlc, windows.into()),
            Checksum::Crc64Nvme(_) => Self::Crc(CrcAlgorithm::Crc64Nvme, windows.into()),
            Checksum::Md5(_) | Checksum::Sha256(_) => Self::InOrder(windows.into()),
        }
    }

    fn windows(&self) -> &[Window] {
        match self {
            Self::None => &[],
            Self::Crc(_, windows) | Self::InOrder(windows) => windows,
        }
    }

    /// The windows that end behind this offset: they are in order, and an object of many parts has thousands.
    fn windows_after(&self, at: u64) -> &[Window] {
        let windows = self.windows();
        &windows[windows.partition_point(|window| window.range.end <= at)..]
    }

    /// Whether the windows hold every byte of a file of this size.
    pub(super) fn covers(&self, size: u64) -> bool {
        size == 0 || self.windows().iter().map(|window| window.range.end - window.range.start).sum::<u64>() == size
    }

    /// Whether it needs the bytes in order.
    pub(super) fn is_in_order(&self) -> bool {
        matches!(self, Self::InOrder(_))
    }

    /// The pieces of this range, without their sums: where windows begin and end in it.
    pub(super) fn outline(&self, range: &Range<u64>) -> Vec<Range<u64>> {
        let cut = |window: &Window| window.range.start.max(range.start)..window.range.end.min(range.end);
        if !matches!(self, Self::Crc(..)) {
            return Vec::new();
        }
        let near = self.windows_after(range.start).iter().take_while(|window| window.range.start < range.end);
        near.map(cut).filter(|piece| piece.start < piece.end).collect()
    }

    /// Whether these are the pieces of this range.
    pub(super) fn fits(&self, range: &Range<u64>, pieces: &[Piece]) -> bool {
        self.outline(range).into_iter().eq(pieces.iter().map(|piece| piece.at..piece.at + piece.length))
    }

    /// What does not sum up as its store says, from the pieces of the whole file in order.
    pub(super) fn wrong_pieces(&self, pieces: &[Piece]) -> Vec<Window> {
        let Self::Crc(algorithm, windows) = self else { return Vec::new() };
        let sum = |window: &&Window| {
            let first = pieces.partition_point(|piece| piece.at < window.range.start);
            let own = pieces[first..].iter().take_while(|piece| piece.at < window.range.end);
            own.fold((0, crc_fast::checksum(*algorithm, &[])), |(length, crc), piece| {
                (length + piece.length, crc_fast::checksum_combine(*algorithm, crc, piece.crc, piece.length))
            })
        };
        let wrong = |window: &&Window| {
            sum(window) != (window.range.end - window.range.start, window.checksum.crc().unwrap_or_default())
        };
        windows.iter().filter(wrong).cloned().collect()
    }
}

/// Sums a range of a file piece by piece.
#[derive(Debug)]
pub(super) struct PieceSums {
    check: Check,
    at: u64,
    open: Option<(u64, crc_fast::Digest)>,
    done: Vec<Piece>,
}

impl PieceSums {
    /// For bytes that begin at this offset.
    pub(super) fn new(check: Check, at: u64) -> Self {
        Self { check, at, open: None, done: Vec::new() }
    }

    /// The next bytes.
    pub(super) fn update(&mut self, mut bytes: &[u8]) {
        let Check::Crc(algorithm, _) = self.check else { return };
        while !bytes.is_empty() {
            let window = self.check.windows_after(self.at).first();
            let (inside, until) = match window {
                None => break,
                Some(window) if window.range.start > self.at => (false, window.range.start),
                Some(window) => (true, window.range.end),
            };
            let length = usize::try_from(until - self.at).unwrap_or(usize::MAX).min(bytes.len());
            let (now, later) = bytes.split_at(length);
            if inside {
                let (_, digest) = self.open.get_or_insert_with(|| (self.at, crc_fast::Digest::new(algorithm)));
                digest.update(now);
            }
            self.at += length as u64;
            bytes = later;
            if inside && self.at == until {
                close(&mut self.open, &mut self.done, self.at);
            }
        }
    }

    /// All pieces.
    pub(super) fn finish(mut self) -> Vec<Piece> {
        close(&mut self.open, &mut self.done, self.at);
        self.done
    }
}

fn close(open: &mut Option<(u64, crc_fast::Digest)>, done: &mut Vec<Piece>, end: u64) {
    if let Some((at, digest)) = open.take() {
        done.push(Piece { at, length: end - at, crc: digest.finalize() });
    }
}

/// Sums a whole file from its beginning to its end.
#[derive(Debug)]
pub(super) struct OrderedSums {
    windows: Arc<[Window]>,
    next: usize,
    at: u64,
    open: Option<Ordered>,
    wrong: Vec<Window>,
}

#[derive(Debug)]
enum Ordered {
    Md5(md5::Md5),
    Sha256(Sha256),
}

impl OrderedSums {
    /// None when the check needs no order.
    pub(super) fn new(check: &Check) -> Option<Self> {
        let Check::InOrder(windows) = check else { return None };
        Some(Self { windows: Arc::clone(windows), next: 0, at: 0, open: None, wrong: Vec::new() })
    }

    /// The next bytes.
    pub(super) fn update(&mut self, mut bytes: &[u8]) {
        let windows = Arc::clone(&self.windows);
        while let (Some(window), false) = (windows.get(self.next), bytes.is_empty()) {
            let until = if self.at < window.range.start { window.range.start } else { window.range.end };
            let length = usize::try_from(until - self.at).unwrap_or(usize::MAX).min(bytes.len());
            let (now, later) = bytes.split_at(length);
            if self.at >= window.range.start {
                self.open.get_or_insert_with(|| Ordered::of(&window.checksum)).update(now);
            }
            self.at += length as u64;
            bytes = later;
            if self.at == window.range.end {
                self.close(window);
            }
        }
        self.at += bytes.len() as u64;
    }

    /// What does not sum up as its store says.
    pub(super) fn finish(mut self) -> Vec<Window> {
        let windows = Arc::clone(&self.windows);
        while let Some(window) = windows.get(self.next) {
            self.close(window);
        }
        self.wrong
    }

    fn close(&mut self, window: &Window) {
        let sum = self.open.take().unwrap_or_else(|| Ordered::of(&window.checksum)).finish();
        if self.at != window.range.end || sum != window.checksum {
            self.wrong.push(window.clone());
        }
        self.next += 1;
    }
}

impl Ordered {
    fn of(checksum: &Checksum) -> Self {
        match checksum {
            Checksum::Md5(_) => Self::Md5(md5::Md5::new()),
            _ => Self::Sha256(Sha256::new()),
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Md5(hasher) => hasher.update(bytes),
            Self::Sha256(hasher) => hasher.update(bytes),
        }
    }

    fn finish(self) -> Checksum {
        match self {
            Self::Md5(hasher) => Checksum::Md5(hasher.finalize().into()),
            Self::Sha256(hasher) => Checksum::Sha256(hasher.finalize().into()),
        }
    }
}

/// The offsets of windows, for messages: the first few of them.
pub(super) fn offsets(windows: &[Window]) -> String {
    const SHOWN: usize = 3;
    let shown: Vec<_> =
        windows.iter().take(SHOWN).map(|window| format!("{}-{}", window.range.start, window.range.end)).collect();
    let more = windows.len().saturating_sub(SHOWN);
    if more == 0 { shown.join(", ") } else { format!("{} and {more} more", shown.join(", ")) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::worker::tests::sample;

    type Sum = fn(&[u8]) -> Checksum;

    const SUMS: [Sum; 5] = [
        |bytes| Checksum::Crc32C(u32::try_from(crc_fast::checksum(CrcAlgorithm::Crc32Iscsi, bytes)).unwrap()),
        |bytes| Checksum::Crc32(u32::try_from(crc_fast::checksum(CrcAlgorithm::Crc32IsoHdlc, bytes)).unwrap()),
        |bytes| Checksum::Crc64Nvme(crc_fast::checksum(CrcAlgorithm::Crc64Nvme, bytes)),
        |bytes| Checksum::Md5(md5::Md5::digest(bytes).into()),
        |bytes| Checksum::Sha256(Sha256::digest(bytes).into()),
    ];

    fn windows(bytes: &[u8], cuts: &[usize], sum: Sum) -> Vec<Window> {
        let mut bounds: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).chain([0, bytes.len()]).collect();
        bounds.sort_unstable();
        bounds.dedup();
        let window =
            |pair: &[usize]| Window { range: pair[0] as u64..pair[1] as u64, checksum: sum(&bytes[pair[0]..pair[1]]) };
        bounds.windows(2).map(window).collect()
    }

    /// Sums the bytes in parts and says which windows are wrong.
    fn wrong(bytes: &[u8], windows: Vec<Window>, part: usize, step: usize) -> Vec<Window> {
        let check = Check::new(windows, bytes.len() as u64);
        assert!(check.covers(bytes.len() as u64));
        if let Some(mut sums) = OrderedSums::new(&check) {
            bytes.chunks(step).for_each(|piece| sums.update(piece));
            return sums.finish();
        }
        let mut pieces = Vec::new();
        for (index, bytes) in bytes.chunks(part).enumerate() {
            let at = (index * part) as u64;
            let mut sums = PieceSums::new(check.clone(), at);
            bytes.chunks(step).for_each(|piece| sums.update(piece));
            let own = sums.finish();
            assert!(check.fits(&(at..at + bytes.len() as u64), &own));
            pieces.extend(own);
        }
        check.wrong_pieces(&pieces)
    }

    proptest! {
        #[test]
        fn every_flipped_bit_is_found_where_it_is(
            length in 1usize..5000,
            cuts in proptest::collection::vec(0usize..5000, 0..4),
            part in 1usize..2000,
            step in 1usize..900,
            at in 0usize..5000,
            sum in 0usize..SUMS.len(),
        ) {
            let mut bytes = sample(length);
            let windows = windows(&bytes, &cuts, SUMS[sum]);
            prop_assert_eq!(wrong(&bytes, windows.clone(), part, step), vec![]);
            let at = at % length;
            bytes[at] ^= 1;
            let found = wrong(&bytes, windows, part, step);
            prop_assert_eq!(found.len(), 1);
            prop_assert!(found[0].range.contains(&(at as u64)));
        }
    }

    #[test]
    fn empty_windows_between_others_change_nothing() {
        let bytes = sample(10);
        for sum in SUMS {
            let window = |range: Range<u64>| {
                let at = |offset: u64| usize::try_from(offset).unwrap();
                Window { checksum: sum(&bytes[at(range.start)..at(range.end)]), range }
            };
            let windows = vec![window(0..0), window(0..4), window(4..4), window(4..10), window(10..10)];
            assert_eq!(wrong(&bytes, windows, 3, 2), vec![]);
        }
    }

    #[test]
    fn a_file_that_ends_too_early_is_wrong() {
        for sum in SUMS {
            let bytes = sample(100);
            let check = Check::new(windows(&bytes, &[], sum), 100);
            let wrong = if let Some(mut sums) = OrderedSums::new(&check) {
                sums.update(&bytes[..99]);
                sums.finish()
            } else {
                let mut sums = PieceSums::new(check.clone(), 0);
                sums.update(&bytes[..99]);
                check.wrong_pieces(&sums.finish())
            };
            assert_eq!(offsets(&wrong), "0-100");
        }
    }

    #[test]
    fn windows_that_make_no_sense_are_of_no_use() {
        let window = |range, checksum| Window { range, checksum };
        for windows in [
            vec![],
            vec![window(0..11, Checksum::Crc32(1))],
            vec![window(0..6, Checksum::Crc32(1)), window(5..10, Checksum::Crc32(1))],
            vec![window(0..5, Checksum::Crc32(1)), window(5..10, Checksum::Crc32C(1))],
            vec![window(5..10, Checksum::Crc32(1)), window(0..5, Checksum::Crc32(1))],
        ] {
            assert!(matches!(Check::new(windows, 10), Check::None));
        }
        let half = Check::new(vec![window(0..5, Checksum::Crc32(1))], 10);
        assert!(!half.covers(10) && !half.is_in_order());
        assert!(Check::None.covers(0) && !Check::None.covers(1));
    }
}
