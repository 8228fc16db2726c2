//! Judges the items of a `.distcp` file one after another, each as a file of its own. Pure, no I/O.

use std::{mem, ops::Range};

use super::super::{
    archive,
    evidence::{Evidence, Ledger, PickleFact},
    findings::{Notes, UPLOAD_AGAIN},
    names,
    probe::{Probe, Problem},
    window::{Parse, Parsed, Stop, Window, WindowProbe},
};
use crate::contract::{PickleTier, Reason};

/// Length of the record at the end of an archive, in bytes.
const END: u64 = 22;

/// The items of one file.
pub(super) struct Slices {
    ranges: std::vec::IntoIter<Range<u64>>,
    current: Option<(u64, WindowProbe<Item>)>,
    worst: Option<PickleFact>,
    problem: Option<String>,
}

impl Slices {
    pub fn new(ranges: Vec<Range<u64>>) -> Self {
        let mut slices = Self { ranges: ranges.into_iter(), current: None, worst: None, problem: None };
        slices.go_on();
        slices
    }

    /// Takes the next item when the current one is read.
    fn go_on(&mut self) {
        while self.current.as_ref().is_none_or(|(_, probe)| probe.next().is_none()) {
            if let Some((begin, probe)) = mem::take(&mut self.current) {
                self.leave(begin, probe);
            }
            let Some(range) = self.ranges.next() else { return };
            self.current = Some((range.start, WindowProbe::new(Item, range.end - range.start, &[])));
        }
    }

    fn leave(&mut self, begin: u64, probe: WindowProbe<Item>) {
        let fact = match probe.outcome() {
            Some(Ok(scan)) => {
                if let Some(problem) = scan.problems.into_iter().next() {
                    self.problem.get_or_insert_with(|| format!("its item at byte {begin}: {problem}"));
                }
                scan.worst
            }
            Some(Err(Problem::Broken(problem))) => {
                self.problem.get_or_insert_with(|| format!("its item at byte {begin}: {problem}"));
                None
            }
            Some(Err(Problem::TooLarge(problem))) => Some(PickleFact {
                tier: PickleTier::Unchecked,
                what: format!("was not checked ({problem})"),
                broken: None,
            }),
            Some(Err(Problem::Foreign)) | None => None,
        };
        if let Some(fact) = fact
            && self.worst.as_ref().is_none_or(|worst| worst.tier < fact.tier)
        {
            self.worst = Some(fact);
        }
    }
}

impl Probe for Slices {
    fn next(&self) -> Option<Range<u64>> {
        let (begin, probe) = self.current.as_ref()?;
        let range = probe.next()?;
        Some(begin + range.start..begin + range.end)
    }

    fn take(&mut self, bytes: &[u8], ledger: &mut Ledger) {
        if let Some((_, probe)) = &mut self.current {
            probe.take(bytes, ledger);
        }
        self.go_on();
    }

    fn held(&self) -> u64 {
        self.current.as_ref().map_or(0, |(_, probe)| probe.held())
    }

    fn finish(self: Box<Self>, file: usize, evidence: &mut Evidence, notes: &mut Notes) {
        if let Some(problem) = &self.problem {
            let path = &evidence.tree.file(file).path;
            let message = format!("{} is damaged: {problem}; {UPLOAD_AGAIN}", names::shown(path));
            notes.fatal(Reason::Corrupt, Some(path), message);
        }
        if let Some(fact) = self.worst {
            evidence.note_pickle(file, fact);
        }
    }
}

/// What `torch.save` wrote of one item, or raw safetensors.
struct Item;

impl Parse for Item {
    type Output = archive::Scan;

    fn parse(&self, item: &Window<'_>) -> Parsed<Self::Output> {
        let fact = archive::item(item)?;
        // torch takes an item for an archive by its first bytes, which the archive's directory does not need.
        let tail = item.up_to(item.len().saturating_sub(END), END)?;
        if tail.starts_with(b"PK\x05\x06") && !item.up_to(0, 4)?.starts_with(b"PK\x03\x04") {
            return Err(Stop::bad("it is an archive whose first bytes are not those of one"));
        }
        Ok(fact)
    }

    fn finish(self, _: Result<Self::Output, Problem>, _: usize, _: &mut Evidence, _: &mut Notes) {}
}
