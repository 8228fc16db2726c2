//! What the entries of an archive are: its kind, the tensors of torch, pickles under any name. Pure, no I/O.

use std::collections::BTreeSet;

use super::{
    super::{
        compression,
        evidence::PickleFact,
        keras, names, numpy,
        pickle::{self, Limits},
        torch::{
            legacy,
            tensors::{self, Saved},
        },
        window::{Parsed, Stop, Window},
        zip::{self, Directory, Entry},
    },
    Kind,
};
use crate::contract::PickleTier;

/// The most entries that are looked into for pickles.
const LOOKED_INTO: usize = 1024;
/// The largest deflated entry that is looked into, in bytes.
const UNPACKED: u64 = 32 << 20;
/// The most problems of one archive.
const PROBLEMS: usize = 8;
/// Archives in archives, so deep.
const LEVELS: u32 = 2;

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
}

impl Scan {
    fn note(&mut self, fact: PickleFact) {
        if self.worst.as_ref().is_none_or(|known| known.tier < fact.tier) {
            self.worst = Some(fact);
        }
    }

    fn problem(&mut self, problem: String) {
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

fn unchecked(text: &str) -> PickleFact {
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
    for (number, entry) in asked.enumerate() {
        if number >= LOOKED_INTO {
            let what = format!("has more than {LOOKED_INTO} entries that may be pickles, and was not checked");
            scan.note(PickleFact { tier: PickleTier::Unchecked, what, broken: None });
            break;
        }
        let found = look_into(file, entry, script, level, scan);
        scan.keep(found)?;
    }
    Ok(())
}

fn look_into(file: &Window<'_>, entry: &Entry, script: bool, level: u32, scan: &mut Scan) -> Parsed<()> {
    let (range, problem) = zip::locate(file, entry)?;
    if let Some(problem) = problem {
        scan.problem(problem);
    }
    if entry.method == 0 {
        return inner(&file.part(range)?, &entry.name, script, level, scan);
    }
    let content = zip::unpack(file, entry, range, UNPACKED)?;
    if let Some(problem) = zip::checksum(entry, &content) {
        scan.problem(problem);
    }
    inner(&Window::of_bytes(&content), &entry.name, script, level, scan)
}

/// The pickle that bytes under a name are, also within arrays, further archives and compressed data.
pub(super) fn inner(window: &Window<'_>, name: &str, script: bool, level: u32, scan: &mut Scan) -> Parsed<()> {
    let start = window.up_to(0, 16)?;
    let shown = || names::shown(name);
    if start.starts_with(b"PK\x03\x04") {
        if level >= LEVELS {
            let what = format!("has archives within archives, and was not checked in its {}", shown());
            scan.note(PickleFact { tier: PickleTier::Unchecked, what, broken: None });
            return Ok(());
        }
        let directory = zip::directory(window)?;
        for finding in &directory.findings {
            scan.problem(format!("its entry {} {finding}", shown()));
        }
        return pickles(window, &directory, kind(&directory, ""), level + 1, scan);
    }
    let named = names::is_pickle(name);
    if start.starts_with(b"7z\xbc\xaf\x27\x1c") {
        scan.note(unchecked(&format!("its entry {} is a 7z archive", shown())));
        return Ok(());
    }
    let fact = if start.starts_with(numpy::MAGIC) {
        numpy::pickle(window, name)?
    } else if legacy::is_legacy(window.up_to(0, 64)?) {
        Some(legacy::fact(window, name, 0)?)
    } else if let Some(packed) = compression::sniff(start, named).filter(|_| named) {
        let content = compression::unpack(window, packed)?;
        pickle::judge_named(&Window::of_bytes(&content), name)?
    } else if names::has_extension(name, "pkl") || names::has_extension(name, "pickle") {
        if script { pickle::judge_script(window, name)? } else { pickle::judge_named(window, name)? }
    } else {
        pickle::judge_all(window, name)?
    };
    if let Some(fact) = fact {
        if let Some(problem) = fact.broken.as_ref().filter(|_| named) {
            scan.problem(format!("its entry {}: {problem}", shown()));
        }
        scan.note(fact);
    }
    Ok(())
}
