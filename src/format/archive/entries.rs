//! What the entries of an archive are: its kind, the tensors of torch, pickles under any name. Pure, no I/O.

use std::collections::BTreeSet;

use super::{
    super::{
        evidence::PickleFact,
        keras, magic, names, numpy,
        pickle::{self, Limits},
        torch::tensors::{self, Saved},
        window::{Parsed, Stop, Window},
        zip::{self, Directory, Entry},
    },
    Kind,
    content::{self, Asked},
};
use crate::contract::PickleTier;

/// The most entries that are looked into for pickles.
const LOOKED_INTO: usize = 1024;
/// The most entries whose first bytes are looked at.
const LOOKED_AT: usize = 10_000;
/// The largest deflated entry that is looked into, in bytes.
const UNPACKED: u64 = 32 << 20;
/// The most problems of one archive.
const PROBLEMS: usize = 8;
/// The folder around all of a torch archive's entries, with its slash.
fn torch_top(directory: &Directory) -> Option<&str> {
    directory.entries.iter().find_map(|entry| {
        let top = entry.name.strip_suffix("data.pkl")?;
        (top.ends_with('/') && !top.trim_end_matches('/').contains('/')).then_some(top)
    })
}

/// What kind of archive a file of this name is. Keras goes by the name alone, and runs the configuration before it looks for weights.
pub(super) fn kind(directory: &Directory, path: &str) -> Kind {
    let named = |extension: &str| names::has_extension(path, extension);
    let has = |name: &str| directory.find(name).is_some();
    let ends = |suffix: &str| directory.entries.iter().any(|entry| entry.name.ends_with(suffix));
    if let Some(top) = torch_top(directory) {
        let code = format!("{top}code/");
        let script =
            has(&format!("{top}constants.pkl")) || directory.entries.iter().any(|entry| entry.name.starts_with(&code));
        return if script { Kind::TorchScript } else { Kind::Torch };
    }
    if has("archive_format") || ends("/archive_format") {
        Kind::TorchExport
    } else if has("config.json") && (named("keras") || keras::WEIGHTS.iter().any(|weights| has(weights))) {
        Kind::Keras
    } else if has("schema.json") {
        Kind::Skops
    } else if named("npz")
        || (!directory.entries.is_empty()
            && directory.entries.iter().all(|entry| names::has_extension(&entry.name, "npy")))
    {
        Kind::NumPy
    } else {
        Kind::Other
    }
}

/// What a torch archive comes to.
pub(super) struct Torch {
    pub saved: Saved,
    pub unused: Option<String>,
}

/// `data.pkl` against the entries: every storage is there, in its size, and every tensor lies within its storage.
pub(super) fn torch(file: &Window<'_>, directory: &Directory, script: bool) -> Parsed<Torch> {
    let top = torch_top(directory).unwrap_or_default();
    let Some(entry) = directory.find(&format!("{top}data.pkl")) else { return Err(Stop::bad("it has no data.pkl")) };
    if directory.find(&format!("{top}version")).is_none() && directory.find(&format!("{top}.data/version")).is_none() {
        return Err(Stop::Bad(format!("its entry {top}version is missing")));
    }
    let content = zip::content(file, entry, UNPACKED)?;
    let window = Window::of_bytes(&content);
    let stream = pickle::read(&window, 0, &Limits { script, ..Limits::WHOLE })?;
    if let Some(problem) = &stream.problem {
        return Err(Stop::Bad(format!("its {top}data.pkl cannot be read: {problem}")));
    }
    let described = tensors::described(&stream).map_err(Stop::Bad)?;
    let mut used = BTreeSet::new();
    for (key, storage) in &described.storages {
        let names = [format!("{top}data/{key}"), format!("{top}tensors/{key}")];
        let Some(entry) = names.iter().find_map(|name| directory.find(name)) else {
            return Err(Stop::Bad(format!("its storage {} is missing", names::shown(&names[0]))));
        };
        if entry.size != storage.bytes {
            return Err(Stop::Bad(format!(
                "its storage {} has {} bytes, its tensors say {}",
                names::shown(&entry.name),
                entry.size,
                storage.bytes
            )));
        }
        used.insert(entry.name.as_str());
    }
    let data = format!("{top}data/");
    let unused =
        directory.entries.iter().find(|entry| entry.name.starts_with(&data) && !used.contains(entry.name.as_str()));
    let unused = unused.filter(|_| !script).map(|entry| names::shown(&entry.name));
    Ok(Torch { saved: Saved { script, ..described.saved }, unused })
}

/// What was found among the entries.
#[derive(Debug, Default)]
pub(in crate::format) struct Scan {
    /// The most dangerous pickle.
    pub worst: Option<PickleFact>,
    /// What is damaged; each completes "FILE is damaged: ".
    pub problems: Vec<String>,
    /// Whether it is an archive or an array, which need hold no pickle.
    pub known: bool,
}

impl Scan {
    /// Takes note of a pickle; the most dangerous one stays.
    pub fn note(&mut self, fact: PickleFact) {
        if self.worst.as_ref().is_none_or(|known| known.tier < fact.tier) {
            self.worst = Some(fact);
        }
    }

    pub fn problem(&mut self, problem: String) {
        if self.problems.len() < PROBLEMS {
            self.problems.push(problem);
        }
    }

    /// What is wrong with one thing must not hide what others are.
    pub fn keep<T>(&mut self, found: Parsed<T>) -> Parsed<Option<T>> {
        match found {
            Ok(found) => Ok(Some(found)),
            Err(Stop::Bad(problem)) => {
                self.problem(problem);
                Ok(None)
            }
            Err(Stop::TooLarge(text)) => {
                self.note(unchecked(&text));
                Ok(None)
            }
            Err(stop) => Err(stop),
        }
    }
}

/// What was not looked into, and why.
pub(super) fn unchecked(text: &str) -> PickleFact {
    PickleFact { tier: PickleTier::Unchecked, what: format!("was not checked ({text})"), broken: None }
}

/// Torch looks for everything in the folder of the first entry, and for names in any case.
pub(super) fn torch_disagreements(directory: &Directory, scan: &mut Scan) {
    let top = torch_top(directory).unwrap_or_default();
    if let Some(stray) = directory.entries.iter().find(|entry| !entry.name.starts_with(top)) {
        scan.problem(format!("its entry {} lies outside of its folder {top}", names::shown(&stray.name)));
    }
    let mut seen = BTreeSet::new();
    if let Some(twice) = directory.entries.iter().find(|entry| !seen.insert(entry.name.to_ascii_lowercase())) {
        let shown = names::shown(&twice.name);
        scan.problem(format!("it has two entries named {shown} but for the case, and torch takes either"));
    }
}

/// The pickles of all entries, whatever their names. Raw storages of torch are never unpickled, so they are not asked.
pub(super) fn pickles(file: &Window<'_>, directory: &Directory, kind: Kind, level: u32, scan: &mut Scan) -> Parsed<()> {
    let top = torch_top(directory).unwrap_or_default();
    let is_storage = |entry: &Entry| {
        matches!(kind, Kind::Torch | Kind::TorchScript)
            && [format!("{top}data/"), format!("{top}tensors/"), format!("{top}constants/"), format!("{top}code/")]
                .iter()
                .any(|folder| entry.name.starts_with(folder))
    };
    // Python leaves an archive with this entry to TorchScript's own loader.
    let script = kind == Kind::TorchScript && directory.find(&format!("{top}constants.pkl")).is_some();
    let asked = directory.entries.iter().filter(|entry| (entry.size > 0 || entry.compressed > 0) && !is_storage(entry));
    let mut into = 0;
    for (number, entry) in asked.enumerate() {
        if number >= LOOKED_AT || into >= LOOKED_INTO {
            let most = if into >= LOOKED_INTO { LOOKED_INTO } else { LOOKED_AT };
            let what = format!("has more than {most} entries that may be pickles, and was not checked");
            scan.note(PickleFact { tier: PickleTier::Unchecked, what, broken: None });
            break;
        }
        let found = look_into(file, entry, Asked { script, named: false, level }, scan);
        into += usize::from(scan.keep(found)?.unwrap_or(true));
    }
    Ok(())
}

/// Looks into an entry; false when its first bytes told that there is nothing to be looked for.
fn look_into(file: &Window<'_>, entry: &Entry, asked: Asked, scan: &mut Scan) -> Parsed<bool> {
    let (range, problem) = zip::locate(file, entry)?;
    if let Some(problem) = problem {
        scan.problem(problem);
    }
    if entry.method == 0 {
        let part = file.part(range)?;
        let start = part.up_to(0, magic::SNIFF)?;
        if !content::may_hold(start) && !names::is_certain_pickle(&entry.name) {
            return Ok(false);
        }
        content::inner(&part, &entry.name, asked, scan)?;
        return Ok(!start.starts_with(numpy::MAGIC));
    }
    if entry.method == 8 && numpy::is_plain(file, entry, &range)? {
        return Ok(false);
    }
    let content = zip::unpack(file, entry, range, UNPACKED)?;
    if let Some(problem) = zip::checksum(entry, &content) {
        scan.problem(problem);
    }
    content::inner(&file.within(&content), &entry.name, asked, scan)?;
    Ok(true)
}
