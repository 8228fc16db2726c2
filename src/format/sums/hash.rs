//! Recomputes the SHA-256 of a file in one pass over it. Pure, no I/O.

use std::ops::Range;

use sha2::{Digest, Sha256};

use super::{
    super::{
        MAX_READ,
        evidence::{Evidence, Ledger},
        findings::{Notes, UPLOAD_AGAIN},
        names,
        probe::Probe,
    },
    Sum,
};
use crate::contract::Reason;

/// Reads a file from its first byte to its last.
pub(super) struct HashProbe {
    size: u64,
    at: u64,
    state: Sha256,
    /// Sums that it may have, each with the file that says so.
    expected: Vec<(String, Sum)>,
}

impl HashProbe {
    pub fn new(size: u64, expected: Vec<(String, Sum)>) -> Self {
        Self { size, at: 0, state: Sha256::new(), expected }
    }
}

impl Probe for HashProbe {
    fn next(&self) -> Option<Range<u64>> {
        (self.at < self.size).then(|| self.at..self.size.min(self.at + MAX_READ))
    }

    fn take(&mut self, bytes: &[u8], _: &mut Ledger) {
        self.state.update(bytes);
        self.at += bytes.len() as u64;
    }

    fn finish(self: Box<Self>, file: usize, evidence: &mut Evidence, notes: &mut Notes) {
        // When the judging ends early, the file was not read.
        if self.at < self.size {
            return;
        }
        let found: Sum = self.state.finalize().into();
        let path = &evidence.tree.file(file).path;
        if let Some((source, _)) = self.expected.iter().find(|(_, sum)| *sum != found) {
            let message = format!(
                "{} is damaged: its SHA-256 is not the one in {}; {UPLOAD_AGAIN}",
                names::shown(path),
                names::shown(source)
            );
            notes.fatal(Reason::Corrupt, Some(path), message);
        }
    }
}
