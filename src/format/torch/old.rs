//! What torch wrote before 0.1.10: a tar archive with `sys_info`, `storages`, `tensors` and `pickle` (torch 2.1, `legacy_load` in
//! `torch/serialization.py`). The members are judged as files; here is what they say together. Pure, no I/O.

use std::collections::BTreeMap;

use super::{
    super::{
        counts::Counts,
        evidence::{Evidence, PickleFact, Tree},
        findings::{Notes, UPLOAD_AGAIN},
        names,
        pickle::{self, Stream, Value, ValueId},
        probe::{Probe, Problem},
        window::{Parse, Parsed, Stop, Window, WindowProbe},
    },
    tensors::{self, Saved},
};
use crate::contract::{PickleTier, Reason};

const OBJECT: &str = "pickle";
const STORAGES: &str = "storages";
const TENSORS: &str = "tensors";
const MEMBERS: [&str; 4] = ["sys_info", OBJECT, STORAGES, TENSORS];
/// The most storages, views or tensors that are read.
const LIMIT: u64 = 200_000;
/// The most dimensions that torch gives a tensor.
const DIMENSIONS: i32 = 64;

/// Whether the files are the members of such an archive.
pub(in crate::format) fn is_there(evidence: &Evidence) -> bool {
    evidence.level > 0 && is_layout(&evidence.tree)
}

/// Two of the three members make it one that lacks the third.
fn is_layout(tree: &Tree) -> bool {
    tree.len() <= 16 && [OBJECT, STORAGES, TENSORS].iter().filter(|name| tree.find(name).is_some()).count() >= 2
}

/// Whether the file is the member whose tensors are counted.
pub(super) fn is_tensors(path: &str) -> bool {
    path == TENSORS
}

/// A reader of a member.
pub(super) fn probe(tree: &Tree, file: usize) -> Option<Box<dyn Probe>> {
    let listed = tree.file(file);
    let kind = match listed.path.as_str() {
        STORAGES => Kind::Storages,
        TENSORS => Kind::Tensors,
        "sys_info" | OBJECT => Kind::Object,
        _ => return None,
    };
    is_layout(tree).then(|| WindowProbe::boxed(Member(kind), listed.size, &[]))
}

#[derive(Clone, Copy)]
enum Kind {
    Storages,
    Tensors,
    /// One pickle and nothing else.
    Object,
}

struct Member(Kind);

/// What `storages` says: the length and type of each storage, views resolved.
#[derive(Debug, Default)]
struct Storages(BTreeMap<i64, Storage>);

#[derive(Clone, Copy, Debug)]
struct Storage {
    dtype: &'static str,
    elements: u64,
}

/// What `tensors` says.
#[derive(Debug, Default)]
struct Tensors(Vec<Tensor>);

#[derive(Debug)]
struct Tensor {
    storage: i64,
    /// Elements of the storage that are needed.
    end: u64,
    elements: u64,
}

enum Content {
    Storages(Storages),
    Tensors(Tensors),
    Object,
}

struct Found {
    pickle: Option<PickleFact>,
    content: Content,
}

impl Parse for Member {
    type Output = Found;

    fn remembered(found: &Found) -> u64 {
        match &found.content {
            Content::Storages(storages) => storages.0.len() as u64,
            Content::Tensors(tensors) => tensors.0.len() as u64,
            Content::Object => 0,
        }
    }

    fn parse(&self, file: &Window<'_>) -> Parsed<Found> {
        let mut reader = Reader { file, at: 0, worst: None };
        let content = match self.0 {
            Kind::Storages => Content::Storages(reader.storages()?),
            Kind::Tensors => Content::Tensors(reader.tensors()?),
            Kind::Object => {
                let pickle = pickle::judge_named(file, "")?;
                return Ok(Found { pickle, content: Content::Object });
            }
        };
        if reader.at != file.len() {
            return Err(Stop::Bad(format!("it has {} bytes, and ends at byte {}", file.len(), reader.at)));
        }
        Ok(Found { pickle: reader.worst, content })
    }

    fn finish(self, outcome: Result<Found, Problem>, file: usize, evidence: &mut Evidence, notes: &mut Notes) {
        let path = evidence.tree.file(file).path.clone();
        let (fact, broken) = match outcome {
            Ok(found) => {
                match found.content {
                    Content::Storages(storages) => evidence.put(file, storages),
                    Content::Tensors(tensors) => evidence.put(file, tensors),
                    Content::Object => {}
                }
                let broken = found.pickle.as_ref().and_then(|fact| fact.broken.clone());
                (found.pickle, broken)
            }
            Err(Problem::Broken(problem)) => {
                let what = format!("cannot be followed to its end ({problem})");
                (Some(PickleFact { tier: PickleTier::Code, what, broken: None }), Some(problem))
            }
            Err(Problem::TooLarge(problem)) => {
                let what = format!("was not checked ({problem})");
                (Some(PickleFact { tier: PickleTier::Unchecked, what, broken: None }), None)
            }
            Err(Problem::Foreign) => (None, None),
        };
        if let Some(problem) = broken {
            let message = format!("{} is damaged: {problem}; {UPLOAD_AGAIN}", names::shown(&path));
            notes.fatal(Reason::Corrupt, Some(&path), message);
        }
        if let Some(fact) = fact {
            evidence.note_pickle(file, fact);
        }
    }
}

/// Reads pickles and the raw numbers between them.
struct Reader<'a> {
    file: &'a Window<'a>,
    at: u64,
    worst: Option<PickleFact>,
}

impl Reader<'_> {
    fn stream(&mut self) -> Parsed<(Stream, ValueId)> {
        let (stream, fact) = pickle::one(self.file, self.at, "", 0)?;
        if let Some(stop) = stream.is_cut() {
            return Err(stop);
        }
        if self.worst.as_ref().is_none_or(|worst| worst.tier < fact.tier) {
            self.worst = Some(fact);
        }
        self.at = stream.end;
        match (&stream.problem, stream.root) {
            (None, Some(root)) => Ok((stream, root)),
            (Some(problem), _) => Err(Stop::Bad(format!("a pickle in it cannot be read: {problem}"))),
            (None, None) => Err(Stop::bad("a pickle in it is empty")),
        }
    }

    fn count(&mut self) -> Parsed<u64> {
        let (stream, root) = self.stream()?;
        let count = stream.values.size(root).ok_or_else(|| Stop::bad("it does not begin with a count"))?;
        if count > LIMIT {
            return Err(Stop::TooLarge(format!("it announces {count} things, more than {LIMIT}")));
        }
        Ok(count)
    }

    fn whole(&mut self) -> Parsed<u64> {
        let number = i64::from_le_bytes(self.file.array(self.at)?);
        self.at += 8;
        u64::try_from(number).map_err(|_| Stop::bad("a size in it is negative"))
    }

    /// A count; for each storage a tuple `(key, location, class)`, its length and its bytes; views on storages.
    fn storages(&mut self) -> Parsed<Storages> {
        let malformed = || Stop::bad("it describes a storage in a way that torch does not");
        let mut storages = BTreeMap::new();
        for _ in 0..self.count()? {
            let (stream, root) = self.stream()?;
            let Some([key, _, class]) = stream.values.elements(root) else { return Err(malformed()) };
            let key = stream.values.int(*key).ok_or_else(malformed)?;
            let class = stream.values.global(*class).ok_or_else(malformed)?.1;
            let (dtype, size) = tensors::storage_class(class).ok_or_else(malformed)?;
            let elements = self.whole()?;
            let bytes = elements.checked_mul(size).ok_or_else(malformed)?;
            let end = self.at.checked_add(bytes).filter(|end| *end <= self.file.len()).ok_or_else(|| {
                Stop::Bad(format!("it is truncated: a storage of {bytes} bytes begins at byte {}", self.at))
            })?;
            self.at = end;
            storages.insert(key, Storage { dtype, elements });
        }
        let (stream, root) = self.stream()?;
        let (Value::List(views) | Value::Tuple(views)) = stream.values.get(root) else { return Err(malformed()) };
        for view in views {
            let parts: Option<Vec<i64>> = stream
                .values
                .elements(*view)
                .and_then(|parts| parts.iter().map(|part| stream.values.int(*part)).collect());
            let Some([target, root, offset, elements]) = parts.as_deref() else { return Err(malformed()) };
            let storage = storages.get(root).copied().ok_or_else(malformed)?;
            let (offset, elements) =
                u64::try_from(*offset).ok().zip(u64::try_from(*elements).ok()).ok_or_else(malformed)?;
            if offset.checked_add(elements).is_none_or(|end| end > storage.elements) {
                return Err(Stop::bad("a view in it reaches beyond its storage"));
            }
            storages.insert(*target, Storage { elements, ..storage });
        }
        Ok(Storages(storages))
    }

    /// A count; for each tensor a tuple `(key, storage, class)`, then its dimensions, sizes, strides and offset.
    fn tensors(&mut self) -> Parsed<Tensors> {
        let malformed = || Stop::bad("it describes a tensor in a way that torch does not");
        let mut found = Vec::new();
        for _ in 0..self.count()? {
            let (stream, root) = self.stream()?;
            let Some([_, storage, _]) = stream.values.elements(root) else { return Err(malformed()) };
            let storage = stream.values.int(*storage).ok_or_else(malformed)?;
            let dimensions = i32::from_le_bytes(self.file.array(self.at)?);
            if !(0..=DIMENSIONS).contains(&dimensions) {
                return Err(malformed());
            }
            // The number of dimensions was written as eight bytes once; four are skipped.
            self.at += 8;
            let shape = (0..dimensions).map(|_| self.whole()).collect::<Parsed<Vec<u64>>>()?;
            let strides = (0..dimensions).map(|_| self.whole()).collect::<Parsed<Vec<u64>>>()?;
            let offset = self.whole()?;
            let end = tensors::extent(offset, &shape, &strides).ok_or_else(malformed)?;
            let elements =
                shape.iter().try_fold(1u64, |product, size| product.checked_mul(*size)).ok_or_else(malformed)?;
            // In the first releases a tensor without dimensions was an empty one.
            let (end, elements) = if dimensions == 0 { (0, 0) } else { (end, elements) };
            found.push(Tensor { storage, end, elements });
        }
        Ok(Tensors(found))
    }
}

/// Every member is there, and every tensor lies within its storage.
pub(super) fn check(evidence: &mut Evidence, notes: &mut Notes) {
    if !is_there(evidence) {
        return;
    }
    for name in MEMBERS.iter().filter(|name| evidence.tree.find(name).is_none()) {
        notes.fatal(
            Reason::Incomplete,
            Some(name),
            format!("{name} is missing: the other members are there; upload it again"),
        );
    }
    let (Some(file), Some(storages)) = (evidence.tree.find(TENSORS), evidence.tree.find(STORAGES)) else { return };
    let (Some(tensors), Some(storages)) = (evidence.get::<Tensors>(file), evidence.get::<Storages>(storages)) else {
        return;
    };
    match counted(tensors, storages) {
        Ok(counts) => evidence.put(file, Saved { counts, ..Saved::default() }),
        Err(problem) => {
            notes.fatal(Reason::Corrupt, Some(TENSORS), format!("{TENSORS} is damaged: {problem}; {UPLOAD_AGAIN}"));
            evidence.put(file, Saved::default());
        }
    }
}

fn counted(tensors: &Tensors, storages: &Storages) -> Result<Counts, String> {
    let mut counts = Counts::default();
    for tensor in &tensors.0 {
        let storage = storages.0.get(&tensor.storage).ok_or("a tensor of it lies in a storage that is not there")?;
        if tensor.end > storage.elements {
            return Err(format!(
                "a tensor of it needs {} elements of a storage that has {}",
                tensor.end, storage.elements
            ));
        }
        counts.add(storage.dtype, tensor.elements);
    }
    Ok(counts)
}

#[cfg(test)]
mod tests {
    use super::super::super::{
        Verdict,
        pickle::tests::Assembler,
        tar::tests::archive,
        tests::{Folder, assert_bad, assert_good},
    };
    use crate::contract::{Format, PickleTier, Reason, Validation};

    fn int(number: u8) -> Vec<u8> {
        Assembler::protocol(2).raw(&[b'K', number]).stop()
    }

    fn storages(elements: i64, data: usize) -> Vec<u8> {
        let storage =
            Assembler::protocol(2).raw(b"K\x07").text("cpu").global("torch", "FloatStorage").raw(b"\x87").stop();
        let view = Assembler::protocol(2).raw(b"](K\x09K\x07K\x01K\x02ta").stop();
        [int(1), storage, elements.to_le_bytes().to_vec(), vec![1; data], view].concat()
    }

    fn tensors(storage: u8, rows: i64) -> Vec<u8> {
        let tensor =
            Assembler::protocol(2).raw(&[b'K', 1, b'K', storage]).global("torch", "FloatTensor").raw(b"\x87").stop();
        let numbers: Vec<u8> = [2, rows, 3, 3, 1, 0].iter().flat_map(|number: &i64| number.to_le_bytes()).collect();
        [int(1), tensor, numbers].concat()
    }

    fn old(storages: &[u8], tensors: &[u8], object: &[u8]) -> Vec<u8> {
        archive(&[("sys_info", b"\x80\x02}."), ("pickle", object), ("tensors", tensors), ("storages", storages)])
    }

    fn object() -> Vec<u8> {
        Assembler::protocol(2).raw(b"}").text("weight").raw(b"K\x01Qs").stop()
    }

    fn judge(bytes: Vec<u8>) -> Verdict {
        Folder::new([("model.pth", bytes)]).judge_with(&Validation::default(), &[])
    }

    #[test]
    fn an_archive_of_the_first_torch_is_judged() {
        let verdict = judge(old(&storages(6, 24), &tensors(7, 2), &object()));
        assert_good(&verdict);
        let contents = verdict.contents;
        assert_eq!((contents.format, contents.pickle), (Some(Format::Torch), Some(PickleTier::TensorsOnly)));
        assert_eq!((contents.tensors, contents.parameters), (Some(1), Some(6)));
        assert_eq!(contents.dtypes, [("F32".to_owned(), 6)].into());
        assert_eq!(contents.framework.as_deref(), Some("pytorch"));
    }

    #[test]
    fn tensors_fit_their_storages() {
        for (bytes, words) in [
            (old(&storages(6, 24), &tensors(7, 3), &object()), "needs 9 elements"),
            (old(&storages(6, 24), &tensors(9, 2), &object()), "needs 6 elements of a storage that has 2"),
            (old(&storages(6, 24), &tensors(8, 2), &object()), "not there"),
            (old(&storages(60, 24), &tensors(7, 2), &object()), "storages is damaged: it is truncated"),
            (old(&storages(-1, 24), &tensors(7, 2), &object()), "negative"),
            (old(&storages(6, 24), b"\x80\x02N.", &object()), "begin with a count"),
        ] {
            let folder = Folder::new([("model.pth", bytes)]);
            assert_bad(&folder.judge(), Reason::Corrupt, "model.pth", words);
        }
        let good = storages(6, 24);
        for length in 0..good.len() {
            let verdict = Folder::new([("model.pth", old(&good[..length], &tensors(7, 2), &object()))]).judge();
            assert_bad(&verdict, Reason::Corrupt, "model.pth", "storages is damaged");
        }
        let tensors = tensors(7, 2);
        for length in 0..tensors.len() {
            let verdict = Folder::new([("model.pth", old(&good, &tensors[..length], &object()))]).judge();
            assert_bad(&verdict, Reason::Corrupt, "model.pth", "tensors is damaged");
        }
    }

    #[test]
    fn missing_members_and_code_are_found() {
        let lost = archive(&[("sys_info", b"\x80\x02}."), ("pickle", &object()), ("storages", &storages(6, 24))]);
        assert_bad(&judge(lost), Reason::Incomplete, "model.pth", "tensors is missing");
        let marker = Assembler::protocol(2).global("os", "system").call("marker").stop();
        let bad = [int(1), marker.clone()].concat();
        for bytes in [
            old(&storages(6, 24), &tensors(7, 2), &marker),
            old(&storages(6, 24), &[tensors(7, 2), marker.clone()].concat(), &object()),
            old(&bad, &tensors(7, 2), &object()),
        ] {
            let verdict = judge(bytes);
            assert!(!verdict.is_good());
            assert!(
                verdict.findings.iter().any(|finding| finding.reason == Reason::UnsafePickle),
                "{:?}",
                verdict.findings
            );
        }
    }
}
