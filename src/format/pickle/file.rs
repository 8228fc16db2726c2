//! Files that are pickles, whatever their name. Pure, no I/O.

use super::{
    super::{
        archive::{self, Scan},
        compression::{self, Compression},
        evidence::{Evidence, PickleFact},
        findings::{Notes, UPLOAD_AGAIN},
        magic, names,
        probe::{Probe, Problem},
        table::Family,
        window::{Parse, Parsed, Window, WindowProbe},
    },
    attribute, judge_all, judge_named,
};
use crate::contract::{Contents, Format, PickleTier, Reason};

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
    /// Whether it must be a pickle, or an archive or array that may hold some.
    certain: bool,
    packed: Option<Compression>,
}

/// Asked last of all formats: names decide only that what cannot be followed is not harmless.
fn sniff(path: &str, size: u64, start: &[u8]) -> Option<Box<dyn Probe>> {
    let named = magic::is_pickle_by_name(start, path);
    let certain = names::is_certain_pickle(path);
    // Loaders of joblib unpack whatever begins like compressed data, under any name.
    let packed = compression::sniff(start, true);
    if packed.is_some() {
        let file = PickleFile { marked: false, named: names::is_pickle(path), certain, packed };
        return Some(WindowProbe::boxed(file, size, start));
    }
    let first = start.first().copied()?;
    // Compressed data and archives are told by their own magic, which an opcode's letter must not hide.
    if !named && !magic::is_marked_pickle(start) && magic::sniff(start, path, size) != magic::Magic::Other {
        return None;
    }
    if !named && !certain && !magic::is_marked_pickle(start) && !magic::may_begin_pickle(first) {
        return None;
    }
    let marked = magic::is_marked_pickle(start);
    Some(WindowProbe::boxed(PickleFile { marked, named, certain, packed }, size, start))
}

/// What a pickle comes to.
struct Output {
    scan: Scan,
    /// The version of scikit-learn that its estimator carries.
    version: Option<String>,
}

/// The version of scikit-learn that the estimator in a window carries. What makes nothing but plain data is no estimator.
fn version(window: &Window<'_>, scan: &Scan) -> Parsed<Option<String>> {
    let estimator = |fact: &PickleFact| fact.broken.is_none() && fact.tier > PickleTier::TensorsOnly;
    let may_be = scan.problems.is_empty() && !scan.known && scan.worst.as_ref().is_some_and(estimator);
    if may_be { attribute(window, SKLEARN_VERSION) } else { Ok(None) }
}

impl Parse for PickleFile {
    type Output = Output;

    fn parse(&self, file: &Window<'_>) -> Parsed<Output> {
        const PLACE: &str = "compressed data";
        let (scan, version) = match self.packed {
            None => {
                let worst = if self.named { judge_named(file, "") } else { judge_all(file, "") }?;
                let scan = Scan { worst, ..Scan::default() };
                let version = version(file, &scan)?;
                (scan, version)
            }
            Some(packed) if self.certain || (self.named && !packed.is_weak()) => {
                let content = compression::unpack(file, packed)?;
                let inner = file.within(&content);
                let scan = archive::contents(&inner, PLACE, self.certain)?;
                let version = version(&inner, &scan)?;
                (scan, version)
            }
            Some(_) => (archive::contents(file, PLACE, false)?, None),
        };
        Ok(Output { scan, version })
    }

    fn finish(self, outcome: Result<Output, Problem>, file: usize, evidence: &mut Evidence, notes: &mut Notes) {
        let path = evidence.tree.file(file).path.clone();
        let outcome = outcome.map(|Output { scan, version }| {
            if let Some(version) = version {
                evidence.put(file, Sklearn(version));
            }
            scan
        });
        let followed = |problem: String| PickleFact {
            tier: PickleTier::Code,
            what: format!("cannot be followed to its end ({problem})"),
            broken: Some(problem),
        };
        let fact = match outcome {
            Err(Problem::Foreign) => return,
            Err(Problem::Broken(problem)) => followed(problem),
            Err(Problem::TooLarge(problem)) => {
                PickleFact { tier: PickleTier::Unchecked, what: format!("was not checked ({problem})"), broken: None }
            }
            Ok(scan) => match (scan.worst, scan.problems.into_iter().next()) {
                (Some(fact), problem) => PickleFact { broken: fact.broken.clone().or(problem), ..fact },
                (None, _) if !self.certain => return,
                (None, Some(problem)) => followed(problem),
                (None, None) if scan.known => return,
                (None, None) => PickleFact {
                    tier: PickleTier::Unchecked,
                    what: "has a pickle's name and unknown content".to_owned(),
                    broken: Some("it is no pickle, no archive and no array".to_owned()),
                },
            },
        };
        if let Some(problem) = fact.broken.as_ref().filter(|_| self.certain || self.marked) {
            let message = format!("{} is damaged: {problem}; {UPLOAD_AGAIN}", names::shown(&path));
            notes.fatal(Reason::Corrupt, Some(&path), message);
        }
        evidence.put(file, IsPickle);
        evidence.note_pickle(file, fact);
    }
}
