//! SHA-256 sums beside files: `integrity.json` of Megatron-LM (`core/dist_checkpointing/integrity.py`), `SHA256SUMS` and `*.sha256`
//! of sha256sum (coreutils 9). The files that they name must be there; depth `Content` recomputes the sums. Pure, no I/O.

mod hash;
mod read;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use super::{
    evidence::{Evidence, PickleFact, Tree},
    findings::{Notes, UPLOAD_AGAIN},
    names, pickle,
    probe::{Probe, Problem},
    table::{Family, FileProbe},
    window::{Parse, Parsed, Window, WindowProbe},
};
use crate::contract::{Depth, Format, PickleTier, Reason};

use hash::HashProbe;
use read::{Kind, Sums};

/// The largest file of sums that is read, in bytes.
const LIMIT: u64 = 32 << 20;
/// The most missing files that are named.
const SHOWN: usize = 8;

/// Sums belong to whatever format the folder has; they claim none.
pub(super) const READER: Family = Family { probe, follow, check, ..Family::of(Format::Generic) };

/// The sum of a file, in bytes.
type Sum = [u8; 32];

fn kind(path: &str) -> Option<Kind> {
    let name = names::base(path);
    if name == "integrity.json" {
        return Some(Kind::Integrity);
    }
    let lower = name.to_ascii_lowercase();
    let listed = matches!(lower.as_str(), "sha256sums" | "sha256sum" | "sha256sums.txt" | "sha256sum.txt");
    (listed || names::has_extension(name, "sha256")).then_some(Kind::Lines)
}

fn probe(tree: &Tree, file: usize) -> Option<Box<dyn Probe>> {
    let listed = tree.file(file);
    let kind = kind(&listed.path)?;
    let own = names::base(&listed.path).to_owned();
    Some(WindowProbe::boxed(SumsFile { kind, own }, listed.size, &[]))
}

struct SumsFile {
    kind: Kind,
    /// Name of the file itself.
    own: String,
}

/// What a file of sums says; none that is damaged, with what is the matter.
struct Found {
    sums: Result<Sums, String>,
    /// A name makes nothing harmless.
    pickle: Option<PickleFact>,
}

impl Parse for SumsFile {
    type Output = Found;

    fn remembered(found: &Found) -> u64 {
        found.sums.as_ref().map_or(0, |sums| sums.named.len() as u64)
    }

    fn parse(&self, file: &Window<'_>) -> Parsed<Found> {
        let pickle = pickle::judge_all(file, "")?;
        if file.len() > LIMIT {
            return Ok(Found { sums: Err(format!("it has {} bytes, more than {LIMIT}", file.len())), pickle });
        }
        let bytes = file.bytes(0..file.len())?;
        let text = std::str::from_utf8(bytes).map_err(|_| "it is no UTF-8 text".to_owned());
        Ok(Found { sums: text.and_then(|text| read::sums(self.kind, text, &self.own)), pickle })
    }

    fn finish(self, outcome: Result<Found, Problem>, file: usize, evidence: &mut Evidence, notes: &mut Notes) {
        let path = evidence.tree.file(file).path.clone();
        let shown = names::shown(&path);
        let problem = match outcome {
            Err(Problem::Foreign) => return,
            Err(Problem::Broken(problem)) => problem,
            Err(Problem::TooLarge(problem)) => {
                let what = format!("was not checked ({problem})");
                evidence.note_pickle(file, PickleFact { tier: PickleTier::Unchecked, what, broken: None });
                problem
            }
            Ok(found) => {
                if let Some(fact) = found.pickle {
                    evidence.note_pickle(file, fact);
                }
                match found.sums {
                    Ok(sums) => return evidence.put(file, sums),
                    Err(problem) => problem,
                }
            }
        };
        // In a distributed checkpoint it is Megatron's own; other files of sums are named by people.
        if self.kind == Kind::Integrity && is_distributed(evidence, &path) {
            notes.fatal(Reason::Corrupt, Some(&path), format!("{shown} is damaged: {problem}; {UPLOAD_AGAIN}"));
        } else {
            notes.warn(Reason::Corrupt, Some(&path), format!("{shown} was not used: {problem}"));
        }
    }
}

fn is_distributed(evidence: &Evidence, path: &str) -> bool {
    evidence.tree.find(&format!("{}.metadata", names::folder(path))).is_some()
}

/// The files that sums name (by their path, those outside left out), each with the sums and the file that says them.
fn expected(evidence: &Evidence) -> BTreeMap<String, Vec<(&str, Sum)>> {
    let mut expected: BTreeMap<String, Vec<(&str, Sum)>> = BTreeMap::new();
    for (file, sums) in evidence.all::<Sums>() {
        let source = evidence.tree.file(file).path.as_str();
        let folder = names::folder(source);
        for (name, sum) in &sums.named {
            if let Some(name) = within(name) {
                expected.entry(format!("{folder}{name}")).or_default().push((source, *sum));
            }
        }
    }
    expected
}

/// A path below the folder of the sums, without `./`; none when it leads elsewhere.
fn within(name: &str) -> Option<&str> {
    let name = name.trim_start_matches("./");
    let leads_away = name.is_empty()
        || name.starts_with('/')
        || name.contains('\\')
        || name.split('/').any(|part| matches!(part, "" | "." | ".."));
    (!leads_away).then_some(name)
}

fn follow(evidence: &Evidence) -> Vec<FileProbe> {
    if evidence.depth < Depth::Content {
        return Vec::new();
    }
    let probe = |(path, sums): (String, Vec<(&str, Sum)>)| {
        let file = evidence.tree.find(&path)?;
        let sums = sums.into_iter().map(|(source, sum)| (source.to_owned(), sum)).collect();
        Some((file, Box::new(HashProbe::new(evidence.tree.file(file).size, sums)) as Box<dyn Probe>))
    };
    expected(evidence).into_iter().filter_map(probe).collect()
}

fn check(evidence: &mut Evidence, notes: &mut Notes) {
    let expected = expected(evidence);
    let missing = expected.iter().filter(|(path, _)| evidence.tree.find(path).is_none());
    for (path, sums) in missing.take(SHOWN) {
        let source = sums.first().map_or("", |(source, _)| source);
        let message = format!("{} is missing: {} names it; upload it", names::shown(path), names::shown(source));
        notes.fatal(Reason::Incomplete, Some(path), message);
    }
    for (path, sums) in &expected {
        if let [(first, sum), rest @ ..] = sums.as_slice()
            && let Some((second, _)) = rest.iter().find(|(_, other)| other != sum)
        {
            let message = format!(
                "{} has one SHA-256 in {} and another in {}: one of them is of another save",
                names::shown(path),
                names::shown(first),
                names::shown(second)
            );
            notes.warn(Reason::Corrupt, Some(path), message);
        }
    }
    for (file, sums) in evidence.all::<Sums>() {
        if let Some((name, _)) = sums.named.iter().find(|(name, _)| within(name).is_none()) {
            let path = &evidence.tree.file(file).path;
            let message = format!(
                "{} names {}, which is no file below it; it is not used",
                names::shown(path),
                names::shown(name)
            );
            notes.warn(Reason::Corrupt, Some(path), message);
        }
    }
}
