//! Recomputes the CRC-32 of every entry of an archive, in one pass over it. Pure, no I/O.

use std::{io::Write, ops::Range};

use flate2::{Crc, CrcWriter, write::DeflateDecoder};

use super::super::{
    MAX_READ,
    evidence::{Evidence, Ledger},
    findings::{Notes, UPLOAD_AGAIN},
    names,
    probe::Probe,
    zip::{Entry, local_length},
};
use crate::contract::Reason;

/// Goes through the entries one after another.
pub(super) struct Checksums {
    entries: Vec<Entry>,
    /// Of the file, in bytes.
    size: u64,
    /// The entry that is read.
    current: usize,
    /// What is left of its bytes; none before its header was read.
    rest: Option<Range<u64>>,
    sum: Sum,
    problems: Vec<String>,
}

enum Sum {
    Stored(Crc),
    Deflated(Box<DeflateDecoder<CrcWriter<std::io::Sink>>>),
}

impl Checksums {
    pub fn new(entries: &[Entry], size: u64) -> Self {
        // Writers that compute no checksum leave 0.
        let mut entries: Vec<Entry> =
            entries.iter().filter(|entry| entry.crc != 0 && matches!(entry.method, 0 | 8)).cloned().collect();
        entries.sort_by_key(|entry| entry.header);
        Self { entries, size, current: 0, rest: None, sum: Sum::Stored(Crc::new()), problems: Vec::new() }
    }

    fn close(&mut self, problem: Option<&str>) {
        let Some(entry) = self.entries.get(self.current) else { return };
        let (sum, written) = match &mut self.sum {
            Sum::Stored(crc) => (crc.sum(), true),
            Sum::Deflated(decoder) => {
                let ended = decoder.try_finish().is_ok();
                (decoder.get_ref().crc().sum(), ended)
            }
        };
        let problem = problem.or(if !written {
            Some("cannot be unpacked")
        } else if sum != entry.crc {
            Some("has another CRC-32 than the archive says")
        } else {
            None
        });
        if let Some(problem) = problem {
            self.problems.push(format!("its entry {} {problem}", names::shown(&entry.name)));
        }
        self.current += 1;
        self.rest = None;
    }

    fn begin(&mut self, header: &[u8]) {
        let Some(entry) = self.entries.get(self.current) else { return };
        let Ok(length) = local_length(header, entry) else { return self.close(Some("has a damaged header")) };
        let begin = entry.header + length;
        self.sum = if entry.method == 0 {
            Sum::Stored(Crc::new())
        } else {
            Sum::Deflated(Box::new(DeflateDecoder::new(CrcWriter::new(std::io::sink()))))
        };
        let rest = begin..begin.saturating_add(entry.compressed);
        if rest.end > self.size {
            return self.close(Some("does not fit into it"));
        }
        if rest.is_empty() {
            return self.close(None);
        }
        self.rest = Some(rest);
    }
}

impl Probe for Checksums {
    fn next(&self) -> Option<Range<u64>> {
        let entry = self.entries.get(self.current)?;
        Some(match &self.rest {
            None => entry.header..entry.header + 30,
            Some(rest) => rest.start..rest.end.min(rest.start + MAX_READ),
        })
    }

    fn take(&mut self, bytes: &[u8], _: &mut Ledger) {
        let Some(rest) = &mut self.rest else { return self.begin(bytes) };
        rest.start += bytes.len() as u64;
        let (ended, read) = (
            rest.is_empty(),
            match &mut self.sum {
                Sum::Stored(crc) => {
                    crc.update(bytes);
                    Ok(())
                }
                Sum::Deflated(decoder) => decoder.write_all(bytes),
            },
        );
        if read.is_err() {
            self.close(Some("cannot be unpacked"));
        } else if ended {
            self.close(None);
        }
    }

    fn finish(self: Box<Self>, file: usize, evidence: &mut Evidence, notes: &mut Notes) {
        let path = &evidence.tree.file(file).path;
        for problem in self.problems.iter().take(8) {
            let message = format!("{} is damaged: {problem}; {UPLOAD_AGAIN}", names::shown(path));
            notes.fatal(Reason::Corrupt, Some(path), message);
        }
    }
}
