//! Safetensors that the ranks of torch.distributed wrote (`HuggingFaceStorageWriter`, torch 2.15) and that were not put together yet:
//! each tells in `DCP_SHARDING_INFO` where its parts of the tensors begin. Pure, no I/O.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::super::{
    counts::Counts,
    evidence::Evidence,
    findings::{Notes, UPLOAD_AGAIN},
    names::{self, RankShard},
    probe::{Problem, note_problem},
    safetensors::DTYPES,
    table::FileProbe,
    window::{Parse, Parsed, Stop, Window, WindowProbe},
};
use crate::contract::Reason;

/// The longest header that is read a second time, in bytes: some 200,000 tensors.
const HEADER: u64 = 32 << 20;
/// The most findings of one kind.
const SHOWN: usize = 8;

/// A part of a tensor.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Part {
    offsets: Vec<u64>,
    sizes: Vec<u64>,
    dtype: &'static str,
}

/// What a file holds.
#[derive(Debug)]
struct Parts(BTreeMap<String, Part>);

struct PartsFile;

/// A member of a header: a tensor, or `__metadata__`.
#[derive(Debug, Default, Deserialize)]
struct Member {
    #[serde(default)]
    dtype: String,
    #[serde(default)]
    shape: Vec<u64>,
    #[serde(rename = "DCP_SHARDING_INFO")]
    info: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Place {
    saved_offsets: Vec<u64>,
}

impl Parse for PartsFile {
    type Output = Parts;

    fn remembered(parts: &Parts) -> u64 {
        parts.0.len() as u64
    }

    fn parse(&self, file: &Window<'_>) -> Parsed<Parts> {
        let length = u64::from_le_bytes(file.array(0)?);
        if length > HEADER {
            return Err(Stop::TooLarge(format!("its header has {length} bytes, more than {HEADER}")));
        }
        let header = file.bytes(8..8u64.saturating_add(length))?;
        let malformed = |error: serde_json::Error| Stop::Bad(format!("its header cannot be read: {error}"));
        let mut members: BTreeMap<String, Option<Member>> = serde_json::from_slice(header).map_err(malformed)?;
        let info = members.remove("__metadata__").flatten().and_then(|metadata| metadata.info);
        let info =
            info.ok_or_else(|| Stop::bad("it has no DCP_SHARDING_INFO, so nobody can put its parts together"))?;
        let places: BTreeMap<String, Place> = serde_json::from_str(&info)
            .map_err(|error| Stop::Bad(format!("its DCP_SHARDING_INFO cannot be read: {error}")))?;
        let mut parts = BTreeMap::new();
        for (name, member) in members {
            let Member { dtype, shape: sizes, .. } = member.unwrap_or_default();
            let place = places.get(&name).filter(|place| place.saved_offsets.len() == sizes.len());
            let place = place.ok_or_else(|| {
                Stop::Bad(format!("its DCP_SHARDING_INFO does not place the tensor {:?}", names::shown(&name)))
            })?;
            let dtype = DTYPES.iter().find(|(known, _)| *known == dtype).map_or("unknown", |(known, _)| *known);
            parts.insert(name, Part { offsets: place.saved_offsets.clone(), sizes, dtype });
        }
        Ok(Parts(parts))
    }

    fn finish(self, outcome: Result<Parts, Problem>, file: usize, evidence: &mut Evidence, notes: &mut Notes) {
        match outcome {
            Ok(parts) => evidence.put(file, parts),
            Err(problem) => note_problem(&problem, file, evidence, notes),
        }
    }
}

/// Headers that passed are read again for where their parts belong.
pub(super) fn follow(evidence: &Evidence) -> Vec<FileProbe> {
    let files = evidence.safetensors.keys().copied();
    let parts = files.filter(|file| names::rank_shard(names::base(&evidence.tree.file(*file).path)).is_some());
    parts.map(|file| (file, WindowProbe::boxed(PartsFile, evidence.tree.file(file).size, &[]))).collect()
}

/// The files of the ranks by their folder.
fn folders(evidence: &Evidence) -> BTreeMap<&str, Vec<(usize, RankShard)>> {
    let mut folders: BTreeMap<&str, Vec<(usize, RankShard)>> = BTreeMap::new();
    for (file, listed) in evidence.tree.iter() {
        if let Some(shard) = names::rank_shard(names::base(&listed.path)) {
            folders.entry(names::folder(&listed.path)).or_default().push((file, shard));
        }
    }
    folders
}

/// Folders with such files.
pub(super) fn places(evidence: &Evidence) -> Vec<String> {
    folders(evidence).into_keys().map(str::to_owned).collect()
}

/// Whether what the ranks wrote is all there is: nobody has put it together.
pub(super) fn claims(evidence: &Evidence) -> bool {
    let (folders, whole) = (folders(evidence), whole_tensors(evidence));
    !folders.is_empty() && folders.keys().all(|folder| !is_consolidated(&whole, folder))
}

/// Folders with whole tensors.
fn whole_tensors(evidence: &Evidence) -> BTreeSet<&str> {
    let paths = evidence.tree.iter().map(|(_, file)| file.path.as_str());
    let is_whole = |path: &&str| {
        let name = names::base(path);
        names::is_safetensors(name) && names::rank_shard(name).is_none()
    };
    paths.filter(is_whole).map(names::folder).collect()
}

/// Whether the whole tensors lie beside the folder, or in it.
fn is_consolidated(whole: &BTreeSet<&str>, folder: &str) -> bool {
    whole.contains(folder) || whole.contains(names::folder(folder.trim_end_matches('/')))
}

pub(super) fn check(evidence: &mut Evidence, notes: &mut Notes) {
    let whole = whole_tensors(evidence);
    for (folder, files) in folders(evidence) {
        let problems = problems(evidence, folder, &files);
        let consolidated = is_consolidated(&whole, folder);
        for (reason, path, text) in problems {
            if consolidated {
                // Nobody needs the parts any more.
                notes.warn(reason, Some(&path), text);
            } else {
                notes.fatal(reason, Some(&path), text);
            }
        }
    }
}

type Found = (Reason, String, String);

fn problems(evidence: &Evidence, folder: &str, files: &[(usize, RankShard)]) -> Vec<Found> {
    let mut found = Vec::new();
    // The save with the most files is the one that counts; others are left over.
    let mut totals: BTreeMap<u32, usize> = BTreeMap::new();
    for (_, shard) in files {
        *totals.entry(shard.total).or_default() += 1;
    }
    let Some((&total, _)) = totals.iter().max_by_key(|(total, count)| (**count, **total)) else { return found };
    for (file, _) in files.iter().filter(|(_, shard)| shard.total != total).take(SHOWN) {
        let path = evidence.tree.file(*file).path.clone();
        let text =
            format!("{} is left over from another save: the others are of {total}; delete it", names::shown(&path));
        found.push((Reason::Incomplete, path, text));
    }
    let of_save = || files.iter().filter(|(_, shard)| shard.total == total);
    let numbers: BTreeSet<u32> = of_save().map(|(_, shard)| shard.number).collect();
    for number in (1..=total).filter(|number| !numbers.contains(number)).take(SHOWN) {
        let path = format!("{folder}{}", RankShard { rank: 1, number, total }.name());
        let text = format!(
            "{} is missing, and so is that file of every other rank; upload what the ranks wrote again",
            names::shown(&path)
        );
        found.push((Reason::Incomplete, path, text));
    }
    let tensors = tensors(evidence, of_save().map(|(file, _)| *file));
    let split = tensors.values().any(|parts| parts.len() > 1);
    let present: BTreeSet<(u32, u32)> = of_save().map(|(_, shard)| (shard.rank, shard.number)).collect();
    let last = present.last().map_or(0, |(rank, _)| *rank);
    // A rank whose tensors others hold writes nothing; where tensors are split, every rank has its part of each file. How many ranks
    // there were is written nowhere, so the loss of all files of the last ones cannot be seen.
    let wanted = (1..=last).flat_map(|rank| numbers.iter().map(move |number| (rank, *number)));
    for (rank, number) in wanted.filter(|key| split && !present.contains(key)).take(SHOWN) {
        let path = format!("{folder}{}", RankShard { rank, number, total }.name());
        let text = format!("{} is missing: other ranks wrote their parts of this file; upload it", names::shown(&path));
        found.push((Reason::Incomplete, path, text));
    }
    for (name, parts) in tensors.iter().take(if found.is_empty() { usize::MAX } else { 0 }) {
        if let Some((reason, problem)) = uneven(parts) {
            let text = format!("the tensor {:?} in {} {problem}", names::shown(name), names::shown(folder));
            found.push((reason, folder.to_owned(), text));
            if found.len() >= SHOWN {
                break;
            }
        }
    }
    found
}

/// All parts of every tensor; the same part on two ranks counts once.
fn tensors(evidence: &Evidence, files: impl Iterator<Item = usize>) -> BTreeMap<&str, BTreeSet<&Part>> {
    let mut tensors: BTreeMap<&str, BTreeSet<&Part>> = BTreeMap::new();
    for parts in files.filter_map(|file| evidence.get::<Parts>(file)) {
        for (name, part) in &parts.0 {
            tensors.entry(name).or_default().insert(part);
        }
    }
    tensors
}

/// The size of the whole tensor is written nowhere: it is where the last part ends in each dimension.
fn whole(parts: &BTreeSet<&Part>) -> Option<Vec<u64>> {
    let dimensions = parts.first()?.sizes.len();
    let mut size = vec![0u64; dimensions];
    for part in parts {
        if part.sizes.len() != dimensions {
            return None;
        }
        for ((end, offset), length) in size.iter_mut().zip(&part.offsets).zip(&part.sizes) {
            *end = (*end).max(offset.checked_add(*length)?);
        }
    }
    Some(size)
}

fn volume(sizes: &[u64]) -> Option<u64> {
    sizes.iter().try_fold(1u64, |product, size| product.checked_mul(*size))
}

/// Why the parts make no tensor.
fn uneven(parts: &BTreeSet<&Part>) -> Option<(Reason, String)> {
    let mut dtypes = parts.iter().map(|part| part.dtype);
    let first = dtypes.next()?;
    if dtypes.any(|dtype| dtype != first) {
        return Some((Reason::Corrupt, format!("has parts of several data types: {UPLOAD_AGAIN}")));
    }
    let elements = whole(parts).and_then(|size| volume(&size));
    let Some(elements) = elements else {
        return Some((Reason::Corrupt, format!("has parts that do not fit each other; {UPLOAD_AGAIN}")));
    };
    let sum = parts.iter().fold(0u64, |sum, part| sum.saturating_add(volume(&part.sizes).unwrap_or(u64::MAX)));
    if sum < elements {
        return Some((
            Reason::Incomplete,
            format!("has {elements} elements, its parts have {sum}: files of a rank are missing; upload them"),
        ));
    }
    (sum > elements).then(|| {
        (
            Reason::Corrupt,
            format!("has {elements} elements, its parts have {sum}: they are of different saves; {UPLOAD_AGAIN}"),
        )
    })
}

/// Tensors and elements of what was not put together.
pub(super) fn counts(evidence: &Evidence) -> Counts {
    let mut counts = Counts::default();
    let whole = whole_tensors(evidence);
    for (folder, files) in folders(evidence) {
        if is_consolidated(&whole, folder) {
            continue;
        }
        for parts in tensors(evidence, files.iter().map(|(file, _)| *file)).values() {
            let elements = self::whole(parts).and_then(|size| volume(&size));
            if let (Some(part), Some(elements)) = (parts.first(), elements) {
                counts.add(part.dtype, elements);
            }
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::super::super::tests::{Folder, assert_bad, assert_good, index, safetensors, tensors};
    use crate::contract::{Format, Reason};

    /// A file with one part of each of these tensors: name, offsets, sizes.
    fn part(parts: &[(&str, [u64; 2], [u64; 2])]) -> Vec<u8> {
        let mut header = serde_json::Map::new();
        let mut places = serde_json::Map::new();
        let mut end = 0;
        for (name, offsets, sizes) in parts {
            let begin = end;
            end += sizes[0] * sizes[1];
            let entry = serde_json::json!({"dtype": "U8", "shape": sizes, "data_offsets": [begin, end]});
            header.insert((*name).to_owned(), entry);
            places.insert((*name).to_owned(), serde_json::json!({ "saved_offsets": offsets }));
        }
        let metadata =
            serde_json::json!({"DCP_SHARDING_INFO": serde_json::Value::Object(places).to_string(), "format": "pt"});
        header.insert("__metadata__".to_owned(), metadata);
        safetensors(&serde_json::Value::Object(header).to_string(), usize::try_from(end).unwrap())
    }

    fn name(rank: u32, number: u32) -> String {
        format!("sharded/shard-{rank:05}-model-{number:05}-of-00002.safetensors")
    }

    fn good() -> Folder {
        Folder::default()
            .with(&name(1, 1), part(&[("a", [0, 0], [2, 3]), ("whole", [0, 0], [1, 1])]))
            .with(&name(2, 1), part(&[("a", [2, 0], [2, 3])]))
            .with(&name(3, 1), part(&[("a", [4, 0], [1, 3])]))
            .with(&name(1, 2), part(&[("b", [0, 0], [1, 2])]))
            .with(&name(2, 2), part(&[("b", [1, 0], [1, 2])]))
            .with(&name(3, 2), part(&[("b", [2, 0], [1, 2])]))
    }

    #[test]
    fn parts_make_whole_tensors() {
        let verdict = good().judge();
        assert_good(&verdict);
        assert!(verdict.findings.is_empty(), "{:?}", verdict.findings);
        let contents = verdict.contents;
        assert_eq!(contents.format, Some(Format::TorchDistributed));
        assert_eq!((contents.tensors, contents.parameters), (Some(3), Some(22)));
        assert_eq!(contents.dtypes, [("U8".to_owned(), 22)].into());
    }

    #[test]
    fn what_is_missing_is_named() {
        for lost in [name(1, 1), name(2, 1), name(3, 2)] {
            let verdict = good().without(&lost).judge();
            assert_bad(&verdict, Reason::Incomplete, &lost, "other ranks wrote their parts");
        }
        let second = (1..=3).fold(good(), |folder, rank| folder.without(&name(rank, 2)));
        assert_bad(&second.judge(), Reason::Incomplete, &name(1, 2), "every other rank");
        let part_lost = good().with(&name(1, 1), part(&[("whole", [0, 0], [1, 1])])).judge();
        assert_bad(&part_lost, Reason::Incomplete, "sharded/", "\"a\" in sharded/ has 15 elements, its parts have 9");
        let other = good().with(&name(2, 1), part(&[("a", [1, 0], [2, 3])]));
        let verdict = other.with(&name(3, 1), part(&[("a", [3, 0], [2, 3])])).judge();
        assert_bad(&verdict, Reason::Corrupt, "sharded/", "different saves");
        let plain = good().with(&name(3, 1), tensors(&[("a", 3)])).judge();
        assert_bad(&plain, Reason::Corrupt, &name(3, 1), "no DCP_SHARDING_INFO");
        let stray = "sharded/shard-00001-model-00001-of-00003.safetensors";
        let verdict = good().with(stray, part(&[("a", [0, 0], [1, 3])])).judge();
        assert_bad(&verdict, Reason::Incomplete, stray, "left over from another save");
    }

    #[test]
    fn put_together_it_is_an_ordinary_model() {
        let shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
        let folder = good()
            .with("model.safetensors.index.json", index(21, &[("a", shards[0]), ("b", shards[1])]))
            .with(shards[0], tensors(&[("a", 15)]))
            .with(shards[1], tensors(&[("b", 6)]));
        let verdict = folder.judge();
        assert_good(&verdict);
        let contents = &verdict.contents;
        assert_eq!((contents.format, contents.parameters), (Some(Format::ShardedSafetensors), Some(21)));
        assert!(contents.components.iter().any(|part| part.path == "sharded/"), "{:?}", contents.components);
        let verdict = folder.without(&name(2, 1)).judge();
        assert_good(&verdict);
        assert!(verdict.findings[0].message.contains("other ranks wrote"), "{:?}", verdict.findings);
    }
}
