//! The judge: hands out reads for many files at once, and says what the checkpoint is when all are answered. Pure, no I/O.

use std::{collections::BTreeMap, mem, ops::Range};

use super::{
    File, Input, Read, ReadId, Step, Verdict,
    evidence::{Evidence, Ledger, PickleFact, Tree},
    findings::Notes,
    metadata, names,
    probe::{NameProbe, Probe, SniffProbe},
    table, verdict,
};
use crate::contract::{CodePolicy, Depth, PicklePolicy, Reason, Validation, filter::Selector};

/// How many files are read at once: with [`super::MAX_READ`] this bounds the bytes under way.
const IN_FLIGHT: usize = 64;
/// How often what was read may ask for more: databases are trees of few levels.
const ROUNDS: u32 = 32;
/// When probes hold more bytes than this in all, others wait until they are done.
const HELD: u64 = 32 << 20;

/// Judges one checkpoint. Memory grows with the number of files and tensors, never with their sizes.
pub struct Judge {
    evidence: Evidence,
    notes: Notes,
    ledger: Ledger,
    validation: Validation,
    volumes: Vec<Selector>,
    stage: Stage,
    pending: BTreeMap<ReadId, Pending>,
    /// Probes that go on when others are done.
    parked: Vec<(usize, Box<dyn Probe>)>,
    next_id: usize,
    rounds: u32,
}

/// A file that is being read.
struct Pending {
    file: usize,
    range: Range<u64>,
    probe: Box<dyn Probe>,
}

enum Stage {
    /// `Start` has not come yet.
    Idle,
    /// The files are read in path order; so many have begun.
    Reading(usize),
    /// What the files asked for is read.
    Following(Vec<(usize, Box<dyn Probe>)>),
    /// Names that findings need are read.
    Naming(Vec<(usize, Box<dyn Probe>)>),
    Done(Box<Verdict>),
}

impl Judge {
    /// A judge of these files. `volumes` are the filters of the volumes: the pickle policy judges what any of them takes, all
    /// files when there is none.
    #[must_use]
    pub fn new(files: Vec<File>, validation: &Validation, volumes: &[Selector]) -> Self {
        Self::of(files, validation, volumes, false)
    }

    /// A judge of the files that [`super::pickle_encoder`] and the worker make of inline data: they are known to be good, so
    /// none is read, and the pickle among them is known to hold plain data only.
    #[must_use]
    pub fn dict(files: Vec<File>, validation: &Validation, volumes: &[Selector]) -> Self {
        Self::of(files, validation, volumes, true)
    }

    /// A judge of the files within a file, so many archives deep. What is asked of the checkpoint is asked of the outer file.
    pub(super) fn inside(files: Vec<File>, depth: Depth, level: u32) -> Self {
        let validation =
            Validation { depth, pickle: PicklePolicy::Allow, code: CodePolicy::Allow, ..Validation::default() };
        let mut judge = Self::of(files, &validation, &[], false);
        judge.evidence.level = level;
        judge
    }

    /// What is known so far.
    pub(super) fn evidence(&self) -> &Evidence {
        &self.evidence
    }

    /// Bytes that its probes hold or are about to hold.
    pub(super) fn held(&self) -> u64 {
        let parked = self.parked.iter().map(|(_, probe)| probe.held());
        self.pending.values().map(|pending| pending.probe.held()).chain(parked).fold(0, u64::saturating_add)
    }

    fn of(files: Vec<File>, validation: &Validation, volumes: &[Selector], inline: bool) -> Self {
        Self {
            evidence: Evidence::new(Tree::new(files), validation.depth, inline),
            notes: Notes::default(),
            ledger: Ledger::new(),
            validation: validation.clone(),
            volumes: volumes.to_vec(),
            stage: Stage::Idle,
            pending: BTreeMap::new(),
            parked: Vec::new(),
            next_id: 0,
            rounds: 0,
        }
    }

    /// Takes an input and says what is needed next. After [`Step::Done`] it says the same again; an answer that was not
    /// asked for is ignored.
    pub fn step(&mut self, input: Input<'_>) -> Step {
        let mut reads = Vec::new();
        match input {
            Input::Start => {
                if matches!(self.stage, Stage::Idle) {
                    self.stage = self.begin();
                }
            }
            Input::Bytes { id, bytes } => {
                if let Some(pending) = self.pending.remove(&id) {
                    self.answer(pending, bytes, &mut reads);
                }
            }
        }
        loop {
            if self.ledger.is_overdrawn() {
                self.parked.clear();
            }
            self.fill(&mut reads);
            if !reads.is_empty() || !self.pending.is_empty() || !self.parked.is_empty() {
                return Step::Read(reads);
            }
            match &self.stage {
                Stage::Idle => return Step::Read(reads),
                Stage::Reading(_) => self.stage = self.follow(),
                Stage::Following(_) => self.stage = self.deepen(),
                Stage::Naming(_) => self.stage = Stage::Done(Box::new(self.conclude())),
                Stage::Done(verdict) => return Step::Done(verdict.clone()),
            }
        }
    }

    /// What names say is all that depth `Listing` has.
    fn begin(&mut self) -> Stage {
        if self.evidence.inline {
            return Stage::Reading(self.evidence.tree.len());
        }
        if self.evidence.depth > Depth::Listing {
            return Stage::Reading(0);
        }
        let tree = &self.evidence.tree;
        let pickles = tree.iter().filter(|(_, file)| names::is_pickle(&file.path)).map(|(index, _)| index);
        let found: Vec<usize> = pickles.collect();
        for file in found {
            self.evidence.note_pickle(file, PickleFact::unchecked("a pickle by its name"));
        }
        Stage::Reading(self.evidence.tree.len())
    }

    /// Begins further files as long as there is room.
    fn fill(&mut self, reads: &mut Vec<Read>) {
        while self.pending.len() < IN_FLIGHT && !self.ledger.is_overdrawn() {
            if let Some((file, probe)) = self.unpark() {
                self.go_on(file, probe, reads);
                continue;
            }
            if !self.has_room() {
                return;
            }
            let next = match &mut self.stage {
                Stage::Reading(position) => self.evidence.tree.at_position(*position).map(|file| {
                    *position += 1;
                    (file, probe(&self.evidence.tree, file))
                }),
                Stage::Following(probes) | Stage::Naming(probes) => probes.pop(),
                Stage::Idle | Stage::Done(_) => None,
            };
            let Some((file, probe)) = next else { return };
            self.go_on(file, probe, reads);
        }
    }

    fn answer(&mut self, pending: Pending, bytes: &[u8], reads: &mut Vec<Read>) {
        let Pending { file, range, mut probe } = pending;
        let asked = range.end - range.start;
        if bytes.len() as u64 != asked {
            let path = &self.evidence.tree.file(file).path;
            let message =
                format!("{} gave {} bytes where {asked} were asked for: it changed", names::shown(path), bytes.len());
            self.notes.fatal(Reason::SourceChanged, Some(path), message);
            return;
        }
        probe.take(bytes, &mut self.ledger);
        self.go_on(file, probe, reads);
    }

    fn go_on(&mut self, file: usize, probe: Box<dyn Probe>, reads: &mut Vec<Read>) {
        let next = if self.ledger.is_overdrawn() { None } else { probe.next() };
        let Some(range) = next else { return probe.finish(file, &mut self.evidence, &mut self.notes) };
        let listed = self.evidence.tree.file(file);
        if range.end > listed.size {
            // No reader may ask for it; one that does has followed the file out of its bounds.
            let message = format!("{} is damaged: its structure goes on behind its end", names::shown(&listed.path));
            return self.notes.fatal(Reason::Corrupt, Some(&listed.path), message);
        }
        if !self.has_room() {
            return self.parked.push((file, probe));
        }
        let id = ReadId(self.next_id);
        self.next_id += 1;
        reads.push(Read { id, file, range: range.clone() });
        self.pending.insert(id, Pending { file, range, probe });
    }

    /// Whether another probe may go on: one always may.
    fn has_room(&self) -> bool {
        self.pending.is_empty()
            || self.pending.values().map(|pending| pending.probe.held()).fold(0, u64::saturating_add) < HELD
    }

    fn unpark(&mut self) -> Option<(usize, Box<dyn Probe>)> {
        if self.has_room() { self.parked.pop() } else { None }
    }

    /// What the files that were read ask for.
    fn follow(&mut self) -> Stage {
        let none = self.ledger.is_overdrawn() || self.evidence.inline || self.evidence.depth == Depth::Listing;
        let families = table::all().filter(|_| !none);
        Stage::Following(families.flat_map(|family| (family.follow)(&self.evidence)).collect())
    }

    /// What was read then asks for in its turn; when that is nothing, the files are checked.
    fn deepen(&mut self) -> Stage {
        self.rounds += 1;
        let none = self.ledger.is_overdrawn() || self.evidence.inline || self.evidence.depth == Depth::Listing;
        let families = table::all().filter(|_| !none && self.rounds <= ROUNDS);
        let probes: Vec<_> = families.flat_map(|family| (family.deepen)(&self.evidence)).collect();
        if probes.is_empty() { self.compare() } else { Stage::Following(probes) }
    }

    /// Checks the files together.
    fn compare(&mut self) -> Stage {
        if !self.ledger.is_overdrawn() && !verdict::is_empty(&self.evidence) && !self.evidence.inline {
            for family in table::all() {
                (family.check)(&mut self.evidence, &mut self.notes);
            }
        }
        let drafts = mem::take(&mut self.notes.drafts).into_iter();
        Stage::Naming(
            drafts.map(|draft| (draft.name_file, Box::new(NameProbe::new(draft)) as Box<dyn Probe>)).collect(),
        )
    }

    fn conclude(&mut self) -> Verdict {
        if self.ledger.is_overdrawn() {
            // How far the other files came depends on the order of the answers, so nothing is said about them.
            self.notes.clear();
            let message = format!(
                "the headers and indexes describe more than {} tensors in all, which is more than is read",
                Ledger::LIMIT
            );
            self.notes.fatal(Reason::Corrupt, None, message);
        }
        let notes = mem::take(&mut self.notes);
        verdict::conclude(&mut self.evidence, notes, &self.validation, &self.volumes, self.ledger.is_overdrawn())
    }
}

/// How a file is read: as metadata, in the way of the first format that knows it, or only its first bytes.
fn probe(tree: &Tree, file: usize) -> Box<dyn Probe> {
    let known = || table::all().find_map(|family| (family.probe)(tree, file));
    metadata::probe(tree, file).or_else(known).unwrap_or_else(|| {
        let file = tree.file(file);
        Box::new(SniffProbe::new(&file.path, file.size, table::all().map(|family| family.sniff).collect()))
    })
}
