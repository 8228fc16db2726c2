//! Judges the members of an archive as the folder that they are, with a judge of their own. Pure, no I/O.

use std::{collections::VecDeque, ops::Range};

use super::{
    super::{
        File, Input, Judge, Read, Step, Verdict,
        evidence::{CodeFact, Evidence, Ledger, PickleFact},
        findings::{Notes, UPLOAD_AGAIN},
        names,
        probe::Probe,
        torch,
    },
    Member,
};
use crate::contract::{Contents, Depth, Format, Reason};

/// What an archive is.
#[derive(Debug)]
pub(in crate::format) struct Inside {
    /// Its format, when it is one whose files are archives.
    pub format: Option<Format>,
    /// Facts.
    pub contents: Contents,
}

/// Reads the members, one range after another.
pub(super) struct InsideProbe {
    judge: Box<Judge>,
    /// Where each member begins in the archive.
    begins: Vec<u64>,
    queue: VecDeque<Read>,
    verdict: Option<Box<Verdict>>,
}

impl InsideProbe {
    pub fn new(members: &[Member], depth: Depth, level: u32) -> Self {
        let file = |member: &Member| File { path: member.name.clone(), size: member.data.end - member.data.start };
        let judge = Box::new(Judge::inside(members.iter().map(file).collect(), depth, level));
        let begins = members.iter().map(|member| member.data.start).collect();
        let mut probe = Self { judge, begins, queue: VecDeque::new(), verdict: None };
        let step = probe.judge.step(Input::Start);
        probe.follow(step);
        probe
    }

    fn follow(&mut self, step: Step) {
        match step {
            Step::Read(reads) => self.queue.extend(reads),
            Step::Done(verdict) => self.verdict = Some(verdict),
        }
    }

    /// Takes the bytes of the range that was asked for.
    pub fn answer(&mut self, bytes: &[u8]) {
        if let Some(read) = self.queue.pop_front() {
            let step = self.judge.step(Input::Bytes { id: read.id, bytes });
            self.follow(step);
        }
    }

    /// What it came to.
    pub fn judged(self) -> Judged {
        Judged { judge: self.judge, verdict: self.verdict }
    }
}

impl Probe for InsideProbe {
    fn next(&self) -> Option<Range<u64>> {
        let read = self.queue.front()?;
        let begin = self.begins.get(read.file)?;
        Some(begin + read.range.start..begin + read.range.end)
    }

    fn take(&mut self, bytes: &[u8], ledger: &mut Ledger) {
        self.answer(bytes);
        if let Some(tensors) = self.verdict.as_ref().and_then(|verdict| verdict.contents.tensors) {
            ledger.charge(tensors.unsigned_abs());
        }
    }

    fn held(&self) -> u64 {
        self.judge.held()
    }

    fn finish(self: Box<Self>, file: usize, evidence: &mut Evidence, notes: &mut Notes) {
        self.judged().leave(file, evidence, notes);
    }
}

/// Members that were judged.
pub(super) struct Judged {
    judge: Box<Judge>,
    verdict: Option<Box<Verdict>>,
}

impl Judged {
    /// Leaves what was found as what the archive is.
    pub fn leave(self, file: usize, evidence: &mut Evidence, notes: &mut Notes) {
        let path = evidence.tree.file(file).path.clone();
        let Some(verdict) = self.verdict else { return };
        let inner = self.judge.evidence();
        let format = match verdict.contents.format {
            Some(Format::Nemo) => Some(Format::Nemo),
            _ if torch::old::is_there(inner) => Some(Format::Torch),
            _ => None,
        };
        for (member, fact) in &inner.pickles {
            let name = names::shown(&inner.tree.file(*member).path);
            let what = format!("holds {name}, which {}", fact.what);
            evidence.note_pickle(file, PickleFact { tier: fact.tier, what, broken: fact.broken.clone() });
        }
        for fact in &inner.code {
            let what = format!("{} (its {})", fact.what, names::shown(&inner.tree.file(fact.file).path));
            evidence.note_code(CodeFact { on_load: fact.on_load, file, what });
        }
        note_findings(&path, &verdict, format, notes);
        evidence.put(file, Inside { format, contents: verdict.contents });
    }
}

/// Only archives that are checkpoints must be complete; others may hold parts of anything.
fn note_findings(path: &str, verdict: &Verdict, format: Option<Format>, notes: &mut Notes) {
    let shown = names::shown(path);
    for finding in &verdict.findings {
        let message = format!("{shown}: {}", finding.message);
        match finding.reason {
            Reason::Empty if names::is_pickle(path) => {
                let message = format!("{shown} is damaged: it is an archive without files; {UPLOAD_AGAIN}");
                notes.fatal(Reason::Corrupt, Some(path), message);
            }
            Reason::Corrupt | Reason::SourceChanged if finding.fatal => {
                notes.fatal(finding.reason, Some(path), message);
            }
            Reason::Incomplete if finding.fatal && format.is_some() => {
                notes.fatal(Reason::Incomplete, Some(path), message);
            }
            Reason::Corrupt | Reason::Incomplete => notes.warn(finding.reason, Some(path), message),
            _ => {}
        }
    }
}
