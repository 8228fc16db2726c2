//! Files that are pickles, whatever their name. Pure, no I/O.

use super::{
    super::{
        evidence::{Evidence, PickleFact},
        findings::Notes,
        magic,
        probe::{Probe, Problem},
        table::Family,
        window::{Parse, Parsed, Window, WindowProbe},
    },
    judge_all, judge_named,
};
use crate::contract::{Format, PickleTier};

/// Plain pickles.
pub(in crate::format) const FAMILY: Family = Family {
    claims: |evidence| evidence.all::<IsPickle>().next().is_some(),
    places: |evidence| evidence.all::<IsPickle>().map(|(file, _)| evidence.tree.file(file).path.clone()).collect(),
    sniff,
    ..Family::of(Format::Pickle)
};

/// The file is a pickle and nothing more special.
struct IsPickle;

/// A file that is a pickle by its first bytes or its name, or that may be one.
struct PickleFile {
    named: bool,
}

/// Asked last of all formats: names decide only that what cannot be followed is not harmless.
fn sniff(path: &str, size: u64, start: &[u8]) -> Option<Box<dyn Probe>> {
    let named = magic::is_pickle_by_name(start, path);
    let first = start.first().copied()?;
    // Compressed data and archives are told by their own magic, which an opcode's letter must not hide.
    if !named && !magic::is_marked_pickle(start) && magic::sniff(start, path, size) != magic::Magic::Other {
        return None;
    }
    if !named && !magic::is_marked_pickle(start) && !magic::may_begin_pickle(first) {
        return None;
    }
    Some(WindowProbe::boxed(PickleFile { named }, size, start))
}

impl Parse for PickleFile {
    type Output = Option<PickleFact>;

    fn parse(&self, file: &Window<'_>) -> Parsed<Self::Output> {
        if self.named { judge_named(file, "") } else { judge_all(file, "") }
    }

    fn finish(self, outcome: Result<Self::Output, Problem>, file: usize, evidence: &mut Evidence, _: &mut Notes) {
        let fact = match outcome {
            Ok(None) | Err(Problem::Foreign) => return,
            Ok(Some(fact)) => fact,
            Err(Problem::Broken(problem)) => {
                PickleFact { tier: PickleTier::Code, what: format!("cannot be followed to its end ({problem})") }
            }
            Err(Problem::TooLarge(problem)) => {
                PickleFact { tier: PickleTier::Unchecked, what: format!("was not checked ({problem})") }
            }
        };
        evidence.put(file, IsPickle);
        evidence.note_pickle(file, fact);
    }
}
