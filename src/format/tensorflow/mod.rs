//! Checkpoints of TensorFlow: an index, data files and a text file that names the latest one (TensorFlow 2.21,
//! `util/tensor_bundle`); also the variables of a SavedModel. Pure, no I/O.

mod bundle;
mod checksums;
mod state;
mod table;
#[cfg(test)]
pub(super) mod tests;
mod types;

use std::collections::{BTreeMap, BTreeSet};

use super::{
    counts::Counts,
    evidence::{Evidence, Tree},
    findings::{Notes, UPLOAD_AGAIN},
    names,
    probe::{Problem, note_problem, quoted},
    saved_model,
    table::{Family, FileProbe},
    window::{Parse, Parsed, Stop, Window, WindowProbe},
};
use crate::contract::{Contents, Depth, Format, Reason};

use bundle::Bundle;

const INDEX: &str = ".index";
/// The largest index that is read, in bytes.
const LIMIT: u64 = 56 << 20;
/// The most missing data files that are named.
const NAMED: usize = 8;
/// What TensorFlow adds to the names of files and folders that it has not finished.
const UNFINISHED: [&str; 2] = ["_temp/part-", ".tempstate"];

/// Checkpoints of TensorFlow.
pub(super) const FAMILY: Family = Family {
    claims: |evidence| !places(evidence).is_empty() || unfinished(&evidence.tree).is_some(),
    places,
    sniff: |path, size, start| {
        if state::is_state(path, start) {
            return Some(WindowProbe::boxed(state::StateFile, size, start));
        }
        let begins = begins_like_an_index(start);
        (begins || path.ends_with(INDEX)).then(|| WindowProbe::boxed(IndexFile { certain: begins }, size, start))
    },
    follow,
    check,
    describe,
    judged: "the index's blocks and their checksums; every data file there and as long as its tensors, sizes against shapes, slices complete; `checkpoint` names one that is there. `Content` recomputes every tensor's checksum",
    ..Family::of(Format::TensorFlowCheckpoint)
};

/// Whether it begins with the entry of the empty key: the header, whose first field is the number of data files.
fn begins_like_an_index(start: &[u8]) -> bool {
    matches!(start, [0, 0, 4..=16, 8, rest @ ..] if rest.iter().take(8).any(|byte| *byte == 0x1A))
}

struct IndexFile {
    /// Whether it is an index whatever its end says.
    certain: bool,
}

impl Parse for IndexFile {
    type Output = Option<Bundle>;

    fn remembered(bundle: &Option<Bundle>) -> u64 {
        bundle.as_ref().map_or(0, |bundle| bundle.weight)
    }

    fn parse(&self, file: &Window<'_>) -> Parsed<Option<Bundle>> {
        let tail = file.bytes(file.len().saturating_sub(table::MAGIC.len() as u64)..file.len())?;
        if tail != table::MAGIC {
            // Other libraries name their files so, too.
            return if self.certain { Err(Stop::bad("its footer is missing: it is truncated")) } else { Ok(None) };
        }
        if file.len() > LIMIT {
            return Err(Stop::TooLarge(format!("it has {} bytes, more than {LIMIT}", file.len())));
        }
        bundle::read(file.bytes(0..file.len())?).map(Some)
    }

    fn finish(self, outcome: Result<Option<Bundle>, Problem>, file: usize, evidence: &mut Evidence, notes: &mut Notes) {
        match outcome {
            Ok(Some(bundle)) => evidence.put(file, bundle),
            Ok(None) => {}
            Err(problem) => {
                evidence.put(file, Broken);
                note_problem(&problem, file, evidence, notes);
            }
        }
    }
}

/// An index that could not be read; what is wrong has been noted.
struct Broken;

/// A data file's name, which begins with the checkpoint's.
struct DataFile<'a> {
    prefix: &'a str,
    number: u64,
    total: u64,
}

/// `PREFIX.data-00000-of-00001`
fn data_file(path: &str) -> Option<DataFile<'_>> {
    let (prefix, numbers) = path.rsplit_once(".data-")?;
    let (number, total) = numbers.split_once("-of-")?;
    let parse = |text: &str| -> Option<u64> {
        let plausible = text.len() >= 5 && text.bytes().all(|byte| byte.is_ascii_digit());
        plausible.then(|| text.parse().ok()).flatten()
    };
    let name = DataFile { prefix, number: parse(number)?, total: parse(total)? };
    (!names::base(prefix).is_empty() && name.number < name.total).then_some(name)
}

fn data_path(prefix: &str, number: u64, total: u64) -> String {
    format!("{prefix}.data-{number:05}-of-{total:05}")
}

/// The beginnings of all checkpoints' names, by their index or data files.
fn prefixes(evidence: &Evidence) -> BTreeSet<&str> {
    let indexes = evidence.all::<Bundle>().map(|(file, _)| evidence.tree.file(file).path.as_str());
    let indexes = indexes.filter_map(|path| path.strip_suffix(INDEX));
    let data = evidence.tree.iter().filter_map(|(_, file)| data_file(&file.path)).map(|name| name.prefix);
    indexes.chain(data).filter(|prefix| UNFINISHED.iter().all(|mark| !prefix.contains(mark))).collect()
}

/// Indexes; the variables of a SavedModel are a part of it and no place of their own.
fn places(evidence: &Evidence) -> Vec<String> {
    let free =
        prefixes(evidence).into_iter().filter(|prefix| saved_model::of_variables(&evidence.tree, prefix).is_none());
    free.map(|prefix| format!("{prefix}{INDEX}")).collect()
}

fn unfinished(tree: &Tree) -> Option<&str> {
    let is = |path: &&str| {
        let index = path.contains(INDEX) || path.contains(".data-");
        index && UNFINISHED.iter().any(|mark| path.contains(mark))
    };
    tree.iter().map(|(_, file)| file.path.as_str()).find(is)
}

/// The step of the training, and at depth `Content` every tensor's checksum.
fn follow(evidence: &Evidence) -> Vec<FileProbe> {
    let mut probes: Vec<FileProbe> = Vec::new();
    for (file, bundle) in evidence.all::<Bundle>() {
        let Some(prefix) = evidence.tree.file(file).path.strip_suffix(INDEX) else { continue };
        let data = |shard: u64| {
            let found = evidence.tree.find(&data_path(prefix, shard, bundle.shards))?;
            Some((found, evidence.tree.file(found).size))
        };
        if let Some((shard, offset, size)) = bundle.step
            && let Some((found, length)) = data(shard)
            && offset.saturating_add(size) <= length
        {
            probes.push((found, Box::new(state::StepProbe::new(offset..offset + size, bundle.big_endian))));
        }
        if evidence.depth < Depth::Content {
            continue;
        }
        for extents in bundle.extents.chunk_by(|left, right| left.shard == right.shard) {
            let Some((found, length)) = extents.first().and_then(|extent| data(extent.shard)) else { continue };
            probes.push((found, Box::new(checksums::Checksums::new(extents, length, bundle.big_endian))));
        }
    }
    probes
}

fn check(evidence: &mut Evidence, notes: &mut Notes) {
    if let Some(path) = unfinished(&evidence.tree) {
        let message =
            format!("{} is part of a save that did not finish: use a checkpoint that was finished", names::shown(path));
        notes.fatal(Reason::Incomplete, Some(path), message);
    }
    let mut groups: BTreeMap<&str, Vec<(&str, u64)>> =
        prefixes(evidence).into_iter().map(|prefix| (prefix, Vec::new())).collect();
    for (_, file) in evidence.tree.iter() {
        if let Some(name) = data_file(&file.path)
            && let Some(group) = groups.get_mut(name.prefix)
        {
            group.push((&file.path, name.total));
        }
    }
    for (prefix, files) in groups {
        let index = format!("{prefix}{INDEX}");
        let file = evidence.tree.find(&index);
        match file.and_then(|file| evidence.get::<Bundle>(file)) {
            Some(bundle) => data_files(evidence, prefix, bundle, &files, notes),
            None => unread(evidence, &index, files.iter().map(|(_, total)| *total).max().unwrap_or(0), notes),
        }
    }
    for (file, _) in evidence.all::<Bundle>() {
        let path = &evidence.tree.file(file).path;
        if !path.ends_with(INDEX) && !UNFINISHED.iter().any(|mark| path.contains(mark)) {
            let message = format!(
                "{} is the index of a TensorFlow checkpoint under another name, so its data files cannot be found: name it NAME.index beside NAME.data-00000-of-00001",
                names::shown(path)
            );
            notes.fatal(Reason::Incomplete, Some(path), message);
        }
    }
    state::check(evidence, notes);
}

/// Data files against an index.
fn data_files(evidence: &Evidence, prefix: &str, bundle: &Bundle, files: &[(&str, u64)], notes: &mut Notes) {
    let index = names::shown(&format!("{prefix}{INDEX}"));
    let mut missing = 0;
    for extents in bundle.extents.chunk_by(|left, right| left.shard == right.shard) {
        let Some(last) = extents.iter().max_by_key(|extent| extent.end()) else { continue };
        let path = data_path(prefix, last.shard, bundle.shards);
        let shown = names::shown(&path);
        let Some(found) = evidence.tree.find(&path) else {
            missing += 1;
            if missing <= NAMED {
                let message = format!("{shown} is missing: {index} has tensors in it; upload it");
                notes.fatal(Reason::Incomplete, Some(&path), message);
            }
            continue;
        };
        let (size, end, tensor) = (evidence.tree.file(found).size, last.end(), quoted(&last.name));
        if size < end {
            let message = format!(
                "{shown} is truncated: it has {size} bytes, tensor {tensor} ends at byte {end}; {UPLOAD_AGAIN}"
            );
            notes.fatal(Reason::Corrupt, Some(&path), message);
        } else if size > end {
            let message =
                format!("{shown} has {size} bytes, {index} says {end}: they are of different saves; {UPLOAD_AGAIN}");
            notes.fatal(Reason::Corrupt, Some(&path), message);
        }
    }
    for (path, total) in files.iter().filter(|(_, total)| *total != bundle.shards) {
        let message = format!(
            "{} is one of {}, but {index} has {}: it is left from another save, and nothing reads it",
            names::shown(path),
            names::counted(*total, "data file"),
            bundle.shards
        );
        notes.warn(Reason::Incomplete, Some(path), message);
    }
}

/// Data files without an index that was read.
fn unread(evidence: &Evidence, index: &str, total: u64, notes: &mut Notes) {
    let shown = names::shown(index);
    let prefix = index.strip_suffix(INDEX).unwrap_or(index);
    match evidence.tree.find(index) {
        None => {
            let message =
                format!("{shown} is missing: its data files are there, and nothing reads them without; upload it");
            notes.fatal(Reason::Incomplete, Some(index), message);
        }
        Some(file) if evidence.depth > Depth::Listing && evidence.get::<Broken>(file).is_none() => {
            let message = format!("{shown} is damaged: it is no index of a checkpoint; {UPLOAD_AGAIN}");
            notes.fatal(Reason::Corrupt, Some(index), message);
        }
        Some(_) => {}
    }
    let absent = (0..total.min(100_000)).map(|number| data_path(prefix, number, total));
    for path in absent.filter(|path| evidence.tree.find(path).is_none()).take(NAMED) {
        let message = format!("{} is missing: other data files are there; upload it", names::shown(&path));
        notes.fatal(Reason::Incomplete, Some(&path), message);
    }
}

/// The facts of the latest checkpoint: a folder often has several.
fn describe(evidence: &Evidence, contents: &mut Contents) {
    let all: Vec<(usize, &Bundle)> = evidence.all::<Bundle>().collect();
    let named = state::latest(evidence).and_then(|index| all.iter().find(|(file, _)| *file == index));
    let numbered = || all.iter().max_by_key(|(file, _)| state::number(&evidence.tree.file(*file).path));
    let Some((file, bundle)) = named.or_else(numbered) else { return };
    let path = &evidence.tree.file(*file).path;
    let mut counts = Counts::default();
    counts.merge(&bundle.counts);
    counts.describe(contents);
    if let Some((shard, ..)) = bundle.step
        && let Some(prefix) = path.strip_suffix(INDEX)
        && let Some(data) = evidence.tree.find(&data_path(prefix, shard, bundle.shards))
        && let Some(state::Step(step)) = evidence.get::<state::Step>(data)
    {
        contents.step = contents.step.or(Some(*step));
    }
    if saved_model::of_variables(&evidence.tree, path).is_none() {
        contents.framework = contents.framework.take().or_else(|| Some("tensorflow".to_owned()));
    }
}
