//! What the entries of an archive are: its kind, the tensors of torch, pickles under any name. Pure, no I/O.

use std::collections::BTreeSet;

use super::{
    super::{
        evidence::PickleFact,
        names, numpy,
        pickle::{self, Limits},
        torch::tensors::{self, Saved},
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
/// Archives in archives, so deep.
const LEVELS: u32 = 2;

/// The folder around all of a torch archive's entries, with its slash.
fn torch_top(directory: &Directory) -> Option<&str> {
    directory.entries.iter().find_map(|entry| {
        let top = entry.name.strip_suffix("data.pkl")?;
        (top.ends_with('/') && !top.trim_end_matches('/').contains('/')).then_some(top)
    })
}

pub(super) fn kind(directory: &Directory, npz: bool) -> Kind {
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
    } else if has("config.json") && has("metadata.json") && (has("model.weights.h5") || has("model.weights.json")) {
        Kind::Keras
    } else if has("schema.json") {
        Kind::Skops
    } else if npz
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
    let stream = pickle::read(&window, 0, &Limits::WHOLE)?;
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

/// The worst pickle among all entries, whatever their names. Raw storages of torch are never unpickled, so they are not asked.
pub(super) fn pickles(file: &Window<'_>, directory: &Directory, kind: Kind, level: u32) -> Parsed<Option<PickleFact>> {
    let top = torch_top(directory).unwrap_or_default();
    let is_storage = |entry: &Entry| {
        matches!(kind, Kind::Torch | Kind::TorchScript)
            && [format!("{top}data/"), format!("{top}tensors/"), format!("{top}constants/"), format!("{top}code/")]
                .iter()
                .any(|folder| entry.name.starts_with(folder))
    };
    let mut worst: Option<PickleFact> = None;
    let mut note = |fact: PickleFact| {
        if worst.as_ref().is_none_or(|known| known.tier < fact.tier) {
            worst = Some(fact);
        }
    };
    for (number, entry) in directory.entries.iter().filter(|entry| entry.size > 0 && !is_storage(entry)).enumerate() {
        if number >= LOOKED_INTO {
            let what = format!("has more than {LOOKED_INTO} entries that may be pickles, and was not checked");
            note(PickleFact { tier: PickleTier::Unchecked, what, broken: None });
            break;
        }
        if let Some(fact) = entry_fact(file, entry, level)? {
            note(fact);
        }
    }
    Ok(worst)
}

fn entry_fact(file: &Window<'_>, entry: &Entry, level: u32) -> Parsed<Option<PickleFact>> {
    if entry.method == 0 {
        return inner_fact(&file.part(zip::data(file, entry)?)?, &entry.name, level);
    }
    match zip::content(file, entry, UNPACKED) {
        Ok(content) => inner_fact(&Window::of_bytes(&content), &entry.name, level),
        Err(Stop::TooLarge(text)) => {
            let what = format!("was not checked ({text})");
            Ok(Some(PickleFact { tier: PickleTier::Unchecked, what, broken: None }))
        }
        Err(stop) => Err(stop),
    }
}

/// The pickle that bytes under a name are, also within arrays and further archives.
pub(super) fn inner_fact(window: &Window<'_>, name: &str, level: u32) -> Parsed<Option<PickleFact>> {
    let start = window.up_to(0, 16)?;
    if start.starts_with(b"PK\x03\x04") {
        if level >= LEVELS {
            let what = format!("has archives within archives, and was not checked in its {}", names::shown(name));
            return Ok(Some(PickleFact { tier: PickleTier::Unchecked, what, broken: None }));
        }
        let directory = zip::directory(window)?;
        if let Some(finding) = directory.findings.first() {
            return Err(Stop::Bad(format!("its entry {} {finding}", names::shown(name))));
        }
        return pickles(window, &directory, kind(&directory, false), level + 1);
    }
    if start.starts_with(numpy::MAGIC) {
        return numpy::pickle(window, name);
    }
    if names::has_extension(name, "pkl") || names::has_extension(name, "pickle") {
        pickle::judge_named(window, name)
    } else {
        pickle::judge_all(window, name)
    }
}
