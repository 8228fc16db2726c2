//! Weights in several files: the index, and what must be true of the shards together. Pure, no I/O.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    ops::Range,
};

use super::{
    evidence::{Evidence, Tree},
    findings::{Draft, Notes, UPLOAD_AGAIN},
    json::{Event, Limits, Sink},
    names::{self, Shard},
    probe::{Collect, JsonProbe, Probe, Problem, quoted},
    safetensors::{Name, Summary},
    table::Family,
};
use crate::contract::{Format, Reason};

/// The largest index that is read, in bytes: some 600,000 tensors.
const MAX_INDEX: u64 = 64 << 20;
/// The most shards that an index may name.
const MAX_SHARDS: usize = 100_000;
/// How many findings of one kind an index leads to; the others say the same.
const SHOWN: usize = 8;
const LIMITS: Limits = Limits { depth: 64, text: 4 << 10, python: true, halves: false };

/// Safetensors shards, with an index or numbered names.
pub(super) const FAMILY: Family = Family {
    format: Format::ShardedSafetensors,
    claims,
    probe: |tree, file| {
        let file = tree.file(file);
        names::index(names::base(&file.path))?;
        Some(Box::new(JsonProbe::new(&file.path, file.size, MAX_INDEX, LIMITS, IndexSink::default())) as Box<dyn Probe>)
    },
    check,
    judged: "every shard of the index is there, every mapped tensor in its shard, none twice, no strays; each \
        shard as `Safetensors`",
    ..Family::of(Format::ShardedSafetensors)
};

fn claims(evidence: &Evidence) -> bool {
    evidence.tree.iter().any(|(_, file)| {
        let name = names::base(&file.path);
        names::index(name).is_some_and(|index| index.safetensors)
            || (names::is_safetensors(name) && names::shard(name).is_some() && names::rank_shard(name).is_none())
    })
}

/// An index that could be read.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// Names of the shards.
    pub shards: Vec<String>,
    entries: Vec<Mapped>,
    total_size: Option<u64>,
}

/// A tensor that the index maps to a shard.
#[derive(Clone, Copy, Debug)]
struct Mapped {
    name: Name,
    shard: u32,
}

#[derive(Debug, Default)]
enum Place {
    #[default]
    Start,
    Root,
    /// A member that does not matter, so many levels deep.
    Skip(u32),
    MapStart,
    Map,
    MapValue,
    MetadataStart,
    Metadata(u32),
    TotalSize,
}

#[derive(Debug, Default)]
struct IndexSink {
    place: Place,
    name: Option<Name>,
    numbers: BTreeMap<String, u32>,
    shards: Vec<String>,
    entries: Vec<Mapped>,
    mapped: bool,
    total_size: Option<u64>,
}

impl IndexSink {
    fn map(&mut self, shard: &str) -> Result<(), String> {
        let number = if let Some(&number) = self.numbers.get(shard) {
            number
        } else {
            if shard.is_empty()
                || shard.contains(['/', '\\'])
                || matches!(shard, "." | "..")
                || shard.chars().any(char::is_control)
            {
                return Err(format!("it maps a tensor to {}, which is no plain file name", quoted(shard)));
            }
            if self.shards.len() >= MAX_SHARDS {
                return Err(format!("it names more than {MAX_SHARDS} shards"));
            }
            let number = u32::try_from(self.shards.len()).unwrap_or(u32::MAX);
            self.shards.push(shard.to_owned());
            self.numbers.insert(shard.to_owned(), number);
            number
        };
        if let Some(name) = self.name.take() {
            self.entries.push(Mapped { name, shard: number });
        }
        Ok(())
    }
}

impl Sink for IndexSink {
    fn event(&mut self, event: Event<'_>, token: Range<u64>) -> Result<(), String> {
        self.place = match (&self.place, event) {
            (Place::Start, Event::BeginObject) => Place::Root,
            (Place::Start, _) => return Err("it is not a JSON object".to_owned()),
            (Place::Root, Event::Key("weight_map")) if mem::replace(&mut self.mapped, true) => {
                return Err("it has weight_map twice".to_owned());
            }
            (Place::Root, Event::Key("weight_map")) => Place::MapStart,
            (Place::Root, Event::Key("metadata")) => Place::MetadataStart,
            (Place::Root, Event::Key(_)) => Place::Skip(0),
            (Place::Skip(depth), Event::BeginObject | Event::BeginArray) => Place::Skip(depth + 1),
            (Place::Skip(0 | 1), Event::EndObject | Event::EndArray) | (Place::Skip(0), _) => Place::Root,
            (Place::Skip(depth), Event::EndObject | Event::EndArray) => Place::Skip(depth - 1),
            (Place::Skip(depth), _) => Place::Skip(*depth),
            (Place::MapStart, Event::BeginObject) => Place::Map,
            (Place::MapStart, _) => return Err("its weight_map is no object".to_owned()),
            (Place::Map, Event::Key(name)) => {
                self.name = Some(Name::new(name, &token));
                Place::MapValue
            }
            (Place::MapValue, Event::String(shard)) => {
                self.map(shard)?;
                Place::Map
            }
            (Place::MapValue, _) => return Err("its weight_map maps a tensor to something that is no text".to_owned()),
            (Place::MetadataStart, Event::BeginObject) => Place::Metadata(1),
            (Place::MetadataStart, Event::BeginArray) => Place::Skip(1),
            (Place::Metadata(1), Event::Key("total_size")) => Place::TotalSize,
            (Place::TotalSize, Event::BeginObject | Event::BeginArray) => Place::Metadata(2),
            (Place::TotalSize, event) => {
                self.total_size = if let Event::Number(text) = event { whole(text) } else { None };
                Place::Metadata(1)
            }
            (Place::Metadata(depth), Event::BeginObject | Event::BeginArray) => Place::Metadata(depth + 1),
            (Place::Metadata(1), Event::EndObject) | (Place::Map | Place::MetadataStart | Place::Root, _) => {
                Place::Root
            }
            (Place::Metadata(depth), Event::EndObject | Event::EndArray) => Place::Metadata(depth - 1),
            (Place::Metadata(depth), _) => Place::Metadata(*depth),
        };
        Ok(())
    }
}

/// A size as Python writes it; some writers made it a float.
fn whole(text: &str) -> Option<u64> {
    let digits = text.strip_suffix(".0").unwrap_or(text);
    digits.parse().ok()
}

impl Collect for IndexSink {
    fn remembered(&self) -> u64 {
        self.entries.len() as u64
    }

    fn finish(mut self, outcome: Result<(), Problem>, file: usize, evidence: &mut Evidence, notes: &mut Notes) {
        let problem = match outcome {
            Err(Problem::Foreign) => return,
            Err(Problem::TooLarge(text) | Problem::Broken(text)) => Some(text),
            Ok(()) if self.entries.is_empty() => Some("its weight_map names no tensor".to_owned()),
            Ok(()) => self.twice(),
        };
        let path = &evidence.tree.file(file).path;
        if let Some(problem) = problem {
            let message = format!("{} is no usable index: {problem}; {UPLOAD_AGAIN}", names::shown(path));
            notes.fatal(Reason::Corrupt, Some(path), message);
            return;
        }
        self.entries.shrink_to_fit();
        let (shards, entries, total_size) = (self.shards, self.entries, self.total_size);
        evidence.indexes.insert(file, Index { shards, entries, total_size });
    }
}

impl IndexSink {
    /// A tensor that is mapped to two shards. Leaves the entries in the order of the hashes.
    fn twice(&mut self) -> Option<String> {
        self.entries.sort_unstable_by_key(|entry| (entry.name.hash, entry.shard, entry.name.at));
        let pair = self
            .entries
            .windows(2)
            .find(|pair| pair[0].name.hash == pair[1].name.hash && pair[0].shard != pair[1].shard)?;
        let [first, second] = [pair[0].shard, pair[1].shard].map(|shard| quoted(&self.shards[shard as usize]));
        Some(format!("it maps one tensor to both {first} and {second}"))
    }
}

/// The files of an index's shards, in its order; none for a shard that is not there.
pub(super) fn shards_of(tree: &Tree, index_file: usize, index: &Index) -> Vec<Option<usize>> {
    let folder = names::folder(&tree.file(index_file).path);
    index.shards.iter().map(|shard| tree.find(&format!("{folder}{shard}"))).collect()
}

fn check(evidence: &mut Evidence, notes: &mut Notes) {
    let mut indexed = Vec::new();
    let mut mapped = BTreeSet::new();
    for (&file, index) in &evidence.indexes {
        let path = &evidence.tree.file(file).path;
        let shards = shards_of(&evidence.tree, file, index);
        missing_shards(path, index, &shards, notes);
        if names::index(names::base(path)).is_some_and(|name| name.safetensors) {
            missing_tensors(evidence, file, index, &shards, notes);
            doubled_tensors(evidence, &shards, notes);
            total_size(evidence, path, index, &shards, notes);
        }
        shadowed(evidence, path, notes);
        mapped.extend(shards.into_iter().flatten());
        indexed.extend(index.shards.iter().filter_map(|name| {
            let shard = names::shard(name)?;
            Some((names::folder(path), shard.prefix, shard.suffix, shard.total))
        }));
    }
    indexed.sort_unstable();
    indexed.dedup();
    numbers(evidence, &indexed, &mapped, notes);
}

fn missing_shards(path: &str, index: &Index, shards: &[Option<usize>], notes: &mut Notes) {
    let mut tensors = vec![0u64; shards.len()];
    for entry in &index.entries {
        tensors[entry.shard as usize] += 1;
    }
    for ((name, shard), tensors) in index.shards.iter().zip(shards).zip(tensors) {
        if shard.is_none() {
            let missing = format!("{}{name}", names::folder(path));
            let (shown, index) = (names::shown(&missing), names::shown(path));
            let message =
                format!("{shown} is missing: {index} maps {} to it; upload it", names::counted(tensors, "tensor"));
            notes.fatal(Reason::Incomplete, Some(&missing), message);
        }
    }
}

/// Tensors that the index promises and that the shard does not have.
fn missing_tensors(evidence: &Evidence, file: usize, index: &Index, shards: &[Option<usize>], notes: &mut Notes) {
    let summaries: Vec<Option<&Summary>> =
        shards.iter().map(|shard| shard.and_then(|shard| evidence.safetensors.get(&shard))).collect();
    let mut missing: Vec<&Mapped> = index
        .entries
        .iter()
        .filter(|entry| {
            summaries[entry.shard as usize]
                .is_some_and(|summary| summary.names.binary_search_by(|name| name.hash.cmp(&entry.name.hash)).is_err())
        })
        .collect();
    missing.sort_unstable_by_key(|entry| (entry.shard, entry.name.at));
    let path = names::shown(&evidence.tree.file(file).path);
    for entry in missing.iter().take(SHOWN) {
        let Some(shard) = shards[entry.shard as usize] else { continue };
        let shard = evidence.tree.file(shard).path.clone();
        notes.drafts.push(Draft {
            reason: Reason::Incomplete,
            before: format!("{} lacks the tensor ", names::shown(&shard)),
            after: format!(", which {path} maps to it: they are of different saves; upload both again"),
            file: shard,
            name_file: file,
            name: entry.name.range(),
        });
    }
}

/// Tensors that two shards have.
fn doubled_tensors(evidence: &Evidence, shards: &[Option<usize>], notes: &mut Notes) {
    let mut files: Vec<usize> = shards.iter().flatten().copied().collect();
    files.sort_by_key(|&file| &evidence.tree.file(file).path);
    let mut all: Vec<([u8; 16], u32)> = Vec::new();
    for (position, file) in (0u32..).zip(&files) {
        let names = evidence.safetensors.get(file).into_iter().flat_map(|summary| &summary.names);
        all.extend(names.map(|name| (name.hash, position)));
    }
    all.sort_unstable();
    let mut doubled: Vec<_> =
        all.windows(2).filter(|pair| pair[0].0 == pair[1].0).map(|pair| (pair[0].1, pair[1].1, pair[0].0)).collect();
    doubled.sort_unstable();
    for (first, second, hash) in doubled.into_iter().take(SHOWN) {
        let [first, second] = [first, second].map(|position| files[position as usize]);
        let Some(summary) = evidence.safetensors.get(&second) else { continue };
        let Ok(at) = summary.names.binary_search_by(|name| name.hash.cmp(&hash)) else { continue };
        let [first, second_path] = [first, second].map(|file| evidence.tree.file(file).path.clone());
        notes.drafts.push(Draft {
            reason: Reason::Corrupt,
            before: format!("{} and {} both have the tensor ", names::shown(&first), names::shown(&second_path)),
            after: ": they are of different saves; upload all shards again".to_owned(),
            file: first,
            name_file: second,
            name: summary.names[at].range(),
        });
    }
}

fn total_size(evidence: &Evidence, path: &str, index: &Index, shards: &[Option<usize>], notes: &mut Notes) {
    let data: Option<u64> = shards
        .iter()
        .map(|shard| Some(evidence.safetensors.get(&(*shard)?)?.data))
        .try_fold(0u64, |sum, data| Some(sum.saturating_add(data?)));
    if let (Some(data), Some(total)) = (data, index.total_size)
        && data != total
    {
        let message =
            format!("{} says total_size {total}, the shards have {data} bytes of tensors", names::shown(path));
        notes.warn(Reason::Incomplete, Some(path), message);
    }
}

fn shadowed(evidence: &Evidence, path: &str, notes: &mut Notes) {
    let Some(name) = names::index(names::base(path)) else { return };
    let single = format!("{}{}", names::folder(path), name.single);
    if evidence.tree.find(&single).is_some() {
        let (single_shown, path_shown) = (names::shown(&single), names::shown(path));
        let message =
            format!("loaders take {single_shown}, so {path_shown} and its shards are ignored; delete one of them");
        notes.warn(Reason::Incomplete, Some(&single), message);
    }
}

type Group<'a> = (&'a str, &'a str, &'a str, u32);

/// Numbered names: all numbers are there, and none is left over from another save.
fn numbers(evidence: &Evidence, indexed: &[Group<'_>], mapped: &BTreeSet<usize>, notes: &mut Notes) {
    let mut groups: BTreeMap<Group<'_>, Vec<(Shard<'_>, &str)>> = BTreeMap::new();
    for (_, file) in evidence.tree.iter().filter(|(index, _)| !mapped.contains(index)) {
        let name = names::base(&file.path);
        // What ranks wrote is not numbered in this way; torch.distributed's own rule judges it.
        if let Some(shard) = names::shard(name).filter(|_| names::rank_shard(name).is_none()) {
            let group = (names::folder(&file.path), shard.prefix, shard.suffix, shard.total);
            groups.entry(group).or_default().push((shard, &file.path));
        }
    }
    for (group, files) in groups {
        let same_set = |known: &&Group<'_>| (known.0, known.1, known.2) == (group.0, group.1, group.2);
        let position = indexed.partition_point(|known| (known.0, known.1, known.2) < (group.0, group.1, group.2));
        match indexed.get(position).filter(same_set) {
            None if is_shadowed(evidence, group) => not_taken(group, &files, notes),
            None => {
                missing_numbers(group.0, &files, notes);
                missing_index(evidence, group, notes);
            }
            Some(_) if indexed.binary_search(&group).is_ok() => not_mapped(&files, notes),
            Some(known) => left_over(known.3, &files, notes),
        }
    }
}

/// Whether the same weights are there in one file, which loaders then take; these are not weights of other things, such as GGUF.
fn is_shadowed(evidence: &Evidence, (folder, prefix, suffix, _): Group<'_>) -> bool {
    let saved = matches!(prefix, "model" | "pytorch_model" | "adapter_model" | "diffusion_pytorch_model");
    saved && evidence.tree.find(&format!("{folder}{prefix}{suffix}")).is_some()
}

fn not_taken((folder, prefix, suffix, _): Group<'_>, files: &[(Shard<'_>, &str)], notes: &mut Notes) {
    let single = format!("{folder}{prefix}{suffix}");
    for (_, path) in files.iter().take(SHOWN) {
        let message =
            format!("loaders take {}, so {} is ignored; delete one of them", names::shown(&single), names::shown(path));
        notes.warn(Reason::Incomplete, Some(path), message);
    }
}

fn missing_numbers(folder: &str, files: &[(Shard<'_>, &str)], notes: &mut Notes) {
    let Some((sample, _)) = files.first() else { return };
    let mut present: Vec<u32> = files.iter().map(|(shard, _)| shard.number).collect();
    present.sort_unstable();
    present.dedup();
    // Most writers count from 1, some from 0.
    let first = u32::from(!present.contains(&0));
    let numbers = first..first + sample.total;
    let there = present.iter().filter(|number| numbers.contains(number)).count();
    let missing = u64::from(sample.total).saturating_sub(there as u64);
    let absent = numbers.filter(|number| present.binary_search(number).is_err());
    for number in absent.take(if missing == 0 { 0 } else { SHOWN }) {
        let path = format!("{folder}{}", sample.sibling(number));
        let message =
            format!("{} is missing: {there} of {} shards are there; upload it", names::shown(&path), sample.total);
        notes.fatal(Reason::Incomplete, Some(&path), message);
    }
}

/// Loaders find safetensors shards and those of `torch.save` by their index alone.
fn missing_index(evidence: &Evidence, (folder, prefix, suffix, total): Group<'_>, notes: &mut Notes) {
    let path = format!("{folder}{prefix}{suffix}.index.json");
    if total > 1 && names::index(names::base(&path)).is_some() && evidence.tree.find(&path).is_none() {
        let message = format!(
            "{} is missing: loaders find the {total} shards of {prefix}{suffix} by it; upload it",
            names::shown(&path)
        );
        notes.fatal(Reason::Incomplete, Some(&path), message);
    }
}

fn not_mapped(files: &[(Shard<'_>, &str)], notes: &mut Notes) {
    for (_, path) in files {
        let message = format!("{} is not named by the index, so loaders ignore it", names::shown(path));
        notes.warn(Reason::Incomplete, Some(path), message);
    }
}

fn left_over(total: u32, files: &[(Shard<'_>, &str)], notes: &mut Notes) {
    for (shard, path) in files {
        let message = format!(
            "{} is left over from another save: the index names shards of {total}, this is one of {}; delete it",
            names::shown(path),
            shard.total
        );
        notes.fatal(Reason::Incomplete, Some(path), message);
    }
}
