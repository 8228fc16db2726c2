//! Files that are pickles, whatever their name. Pure, no I/O.

use super::{
    super::{
        compression::{self, Compression},
        evidence::{Evidence, PickleFact},
        findings::{Notes, UPLOAD_AGAIN},
        magic, names,
        probe::{Probe, Problem},
        table::Family,
        window::{Parse, Parsed, Stop, Window, WindowProbe},
    },
    attribute, judge_all, judge_named,
};
use crate::contract::{Contents, Format, PickleTier, Reason};

/// Compressed files without a pickle's name are looked into up to this size, in bytes.
const LOOKED_INTO: u64 = 1 << 20;

/// Plain pickles.
pub(in crate::format) const FAMILY: Family = Family {
    claims: |evidence| evidence.all::<IsPickle>().next().is_some(),
    places: |evidence| evidence.all::<IsPickle>().map(|(file, _)| evidence.tree.file(file).path.clone()).collect(),
    sniff,
    describe,
    judged: "what pickles import, also compressed",
    ..Family::of(Format::Pickle)
};

/// Files that joblib wrote, by their name.
pub(in crate::format) const JOBLIB: Family = Family {
    claims: |evidence| joblib(evidence).next().is_some(),
    places: |evidence| joblib(evidence).map(str::to_owned).collect(),
    judged: "what its pickles import, also compressed, around the arrays between them",
    ..Family::of(Format::Joblib)
};

fn joblib(evidence: &Evidence) -> impl Iterator<Item = &str> {
    let paths = evidence.all::<IsPickle>().map(|(file, _)| evidence.tree.file(file).path.as_str());
    paths.filter(|path| names::base(path).contains(".joblib"))
}

/// The file is a pickle and nothing more special.
struct IsPickle;

/// The version of scikit-learn that every estimator of it carries (`BaseEstimator.__getstate__`).
struct Sklearn(String);

const SKLEARN: &str = "sklearn";
const SKLEARN_VERSION: &str = "_sklearn_version";

fn describe(evidence: &Evidence, contents: &mut Contents) {
    let Some((_, Sklearn(version))) = evidence.all::<Sklearn>().next() else { return };
    contents.framework = contents.framework.take().or_else(|| Some(format!("{SKLEARN} {version}")));
    contents.versions.entry(SKLEARN.to_owned()).or_insert_with(|| version.clone());
}

/// A file that is a pickle by its first bytes or its name, or that may be one.
struct PickleFile {
    /// Whether its first bytes are those of a pickle.
    marked: bool,
    named: bool,
    packed: Option<Compression>,
}

/// Asked last of all formats: names decide only that what cannot be followed is not harmless.
fn sniff(path: &str, size: u64, start: &[u8]) -> Option<Box<dyn Probe>> {
    let named = magic::is_pickle_by_name(start, path);
    let packed = compression::sniff(start, names::is_pickle(path));
    if packed.is_some() {
        return Some(WindowProbe::boxed(
            PickleFile { marked: false, named: names::is_pickle(path), packed },
            size,
            start,
        ));
    }
    let first = start.first().copied()?;
    // Compressed data and archives are told by their own magic, which an opcode's letter must not hide.
    if !named && !magic::is_marked_pickle(start) && magic::sniff(start, path, size) != magic::Magic::Other {
        return None;
    }
    if !named && !names::is_certain_pickle(path) && !magic::is_marked_pickle(start) && !magic::may_begin_pickle(first) {
        return None;
    }
    Some(WindowProbe::boxed(PickleFile { marked: magic::is_marked_pickle(start), named, packed }, size, start))
}

impl PickleFile {
    fn judge(&self, window: &Window<'_>, place: &str) -> Parsed<Output> {
        let fact = if self.named { judge_named(window, place)? } else { judge_all(window, place)? };
        // What makes nothing but plain data is no estimator.
        let is_whole = fact.as_ref().is_some_and(|fact| fact.broken.is_none() && fact.tier > PickleTier::TensorsOnly);
        let version = if is_whole { attribute(window, SKLEARN_VERSION)? } else { None };
        Ok(Output { fact, version })
    }
}

/// What a pickle comes to.
#[derive(Default)]
struct Output {
    fact: Option<PickleFact>,
    version: Option<String>,
}

impl Parse for PickleFile {
    type Output = Output;

    fn parse(&self, file: &Window<'_>) -> Parsed<Output> {
        let Some(packed) = self.packed else { return self.judge(file, "") };
        // Data that is named as something else is only asked for its beginning: a corpus is no checkpoint.
        if !self.named && file.len() > LOOKED_INTO {
            return Ok(Output::default());
        }
        let content = match compression::unpack(file, packed) {
            Err(Stop::Bad(_) | Stop::TooLarge(_)) if !self.named => return Ok(Output::default()),
            content => content?,
        };
        self.judge(&Window::of_bytes(&content), "compressed data")
    }

    fn finish(self, outcome: Result<Output, Problem>, file: usize, evidence: &mut Evidence, notes: &mut Notes) {
        let path = evidence.tree.file(file).path.clone();
        let certain = names::is_certain_pickle(&path);
        let outcome = outcome.map(|Output { fact, version }| {
            if let Some(version) = version {
                evidence.put(file, Sklearn(version));
            }
            fact
        });
        let fact = match outcome {
            Err(Problem::Foreign) => return,
            Ok(None) if !certain => return,
            Ok(None) => PickleFact {
                tier: PickleTier::Unchecked,
                what: "has a pickle's name and unknown content".to_owned(),
                broken: Some("it is no pickle, no archive and no array".to_owned()),
            },
            Ok(Some(fact)) => fact,
            Err(Problem::Broken(problem)) => {
                let what = format!("cannot be followed to its end ({problem})");
                PickleFact { tier: PickleTier::Code, what, broken: Some(problem) }
            }
            Err(Problem::TooLarge(problem)) => {
                PickleFact { tier: PickleTier::Unchecked, what: format!("was not checked ({problem})"), broken: None }
            }
        };
        if let Some(problem) = fact.broken.as_ref().filter(|_| certain || self.marked) {
            let message = format!("{} is damaged: {problem}; {UPLOAD_AGAIN}", names::shown(&path));
            notes.fatal(Reason::Corrupt, Some(&path), message);
        }
        evidence.put(file, IsPickle);
        evidence.note_pickle(file, fact);
    }
}
