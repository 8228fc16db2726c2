//! Flax's MessagePack files, also `checkpoint_N` of its old checkpoints (flax 0.12, `serialization.py`): the tree to its exact end,
//! every array against its shape. Arrays themselves are never read. Pure, no I/O.

use std::ops::Range;

use super::{
    counts::Counts,
    evidence::{Evidence, PickleFact},
    findings::Notes,
    msgpack::{Item, Items, text},
    names,
    probe::{Probe, Problem, note_problem},
    table::Family,
    window::{Parse, Parsed, Stop, Window, WindowProbe},
};
use crate::contract::{Contents, Format};

/// Types of extensions that Flax gives.
const ARRAY: i8 = 1;
const COMPLEX: i8 = 2;
const SCALAR: i8 = 3;
/// Marks a map that stands for an array in pieces, which Flax makes of arrays above 1 GiB.
const CHUNKED: &str = "__msgpack_chunked_array__";
/// Maps within maps.
const DEPTH: usize = 128;
/// Array data types as NumPy names them: ours, and bytes of an element.
const TYPES: [(&str, &str, u64); 24] = [
    ("bool", "BOOL", 1),
    ("int8", "I8", 1),
    ("int16", "I16", 2),
    ("int32", "I32", 4),
    ("int64", "I64", 8),
    ("uint8", "U8", 1),
    ("uint16", "U16", 2),
    ("uint32", "U32", 4),
    ("uint64", "U64", 8),
    ("float16", "F16", 2),
    ("bfloat16", "BF16", 2),
    ("float32", "F32", 4),
    ("float64", "F64", 8),
    ("complex64", "C64", 8),
    ("complex128", "C128", 16),
    ("float8_e4m3fn", "F8_E4M3", 1),
    ("float8_e4m3fnuz", "F8_E4M3FNUZ", 1),
    ("float8_e5m2", "F8_E5M2", 1),
    ("float8_e5m2fnuz", "F8_E5M2FNUZ", 1),
    ("float8_e8m0fnu", "F8_E8M0", 1),
    // Smaller ones have a byte each in memory, and so here.
    ("int4", "I4", 1),
    ("uint4", "U4", 1),
    ("int2", "I2", 1),
    ("uint2", "U2", 1),
];

/// Flax files.
pub(super) const FAMILY: Family = Family {
    claims: |evidence| models(evidence).next().is_some(),
    places: |evidence| models(evidence).map(|(file, _)| evidence.tree.file(file).path.clone()).collect(),
    sniff: |path, size, start| {
        let is = names::has_extension(path, "msgpack") || is_old_checkpoint(path, start);
        is.then(|| WindowProbe::boxed(TreeFile, size, start) as Box<dyn Probe>)
    },
    describe,
    judged: "the tree to its exact end, every array (also in pieces) against its shape",
    ..Family::of(Format::Flax)
};

/// Other libraries write MessagePack too, such as RLlib: only arrays of Flax, or its file names, make it Flax.
fn models(evidence: &Evidence) -> impl Iterator<Item = (usize, &Tree)> {
    evidence.all::<Tree>().filter(|(file, tree)| {
        tree.counts.tensors > 0 || names::base(&evidence.tree.file(*file).path).starts_with("flax_model")
    })
}

/// `checkpoint_500` without an extension: a map whose first key is text.
fn is_old_checkpoint(path: &str, start: &[u8]) -> bool {
    let step = names::base(path).strip_prefix("checkpoint_");
    let numbered = step.is_some_and(|step| !step.is_empty() && step.bytes().all(|byte| byte.is_ascii_digit()));
    numbered && matches!(start, [0x81..=0x8F, 0xA0..=0xBF | 0xD9, ..] | [0xDE, _, _, 0xA0..=0xBF | 0xD9, ..])
}

/// What a file holds.
#[derive(Debug, Default)]
struct Tree {
    counts: Counts,
    step: Option<u64>,
    /// Whether another library put an array of Python objects in it, which is a pickle (`msgpack_numpy`).
    objects: bool,
}

struct TreeFile;

impl Parse for TreeFile {
    type Output = Tree;

    fn remembered(tree: &Tree) -> u64 {
        tree.counts.tensors
    }

    fn parse(&self, file: &Window<'_>) -> Parsed<Tree> {
        let mut walk = Walk { file, open: Vec::new(), tree: Tree::default() };
        walk.run()?;
        Ok(walk.tree)
    }

    fn finish(self, outcome: Result<Tree, Problem>, file: usize, evidence: &mut Evidence, notes: &mut Notes) {
        match outcome {
            Ok(tree) => {
                if tree.objects {
                    evidence.note_pickle(
                        file,
                        PickleFact::unchecked("MessagePack with an array of Python objects, a pickle"),
                    );
                }
                evidence.put(file, tree);
            }
            Err(problem) => note_problem(&problem, file, evidence, notes),
        }
    }
}

/// What a map is to the arrays in it.
#[derive(Clone, Copy, Debug)]
enum Role {
    Plain,
    /// An array in pieces: elements of its shape, and of the pieces so far, of which type.
    Chunked {
        shape: Option<u64>,
        elements: u64,
        dtype: &'static str,
    },
    /// The sizes of that array.
    Shape,
    /// Its pieces.
    Chunks,
}

/// A map or list that is being read.
#[derive(Debug)]
struct Open {
    left: u64,
    map: bool,
    key: String,
    role: Role,
}

struct Walk<'a, 'w> {
    file: &'a Window<'w>,
    open: Vec<Open>,
    tree: Tree,
}

impl Walk<'_, '_> {
    fn run(&mut self) -> Parsed<()> {
        let file = self.file;
        let mut items = Items::new(file, &(0..file.len()));
        loop {
            let item = items.next()?;
            match item {
                Item::Map(_) | Item::Array(_) => self.begin(&item)?,
                other => self.leaf(&other)?,
            }
            if self.advance(&mut items)? {
                break;
            }
        }
        if items.at() == file.len() {
            return Ok(());
        }
        Err(Stop::Bad(format!("its tree ends at byte {}, and {} bytes follow", items.at(), file.len() - items.at())))
    }

    fn begin(&mut self, item: &Item) -> Parsed<()> {
        if self.open.len() >= DEPTH {
            return Err(Stop::Bad(format!("its values are nested more than {DEPTH} deep")));
        }
        let role = match self.open.last() {
            Some(Open { role: Role::Chunked { .. }, key, .. }) if key == "shape" => Role::Shape,
            Some(Open { role: Role::Chunked { .. }, key, .. }) if key == "chunks" => Role::Chunks,
            _ => Role::Plain,
        };
        let (left, map) = match item {
            Item::Map(count) => (*count, true),
            Item::Array(count) => (*count, false),
            _ => return Ok(()),
        };
        self.open.push(Open { left, map, key: String::new(), role });
        Ok(())
    }

    /// Closes what is complete and reads the next key; true when the root is complete.
    fn advance(&mut self, items: &mut Items<'_, '_>) -> Parsed<bool> {
        while self.open.last().is_some_and(|open| open.left == 0) {
            if let Some(Open { role: Role::Chunked { shape, elements, dtype }, .. }) = self.open.pop() {
                if shape != Some(elements) {
                    let shape = shape.map_or("too many".to_owned(), |shape| shape.to_string());
                    return Err(self.bad(&format!("has {elements} elements in its pieces, its shape has {shape}")));
                }
                self.tree.counts.add(dtype, elements);
            }
        }
        let Some(open) = self.open.last_mut() else { return Ok(true) };
        open.left -= 1;
        if open.map {
            open.key = match items.next()? {
                Item::Text(range) | Item::Bytes(range) => text(self.file, &range)?,
                Item::Number(number) => number.to_string(),
                _ => return Err(Stop::Bad(format!("a key before byte {} is no text", items.at()))),
            };
            if open.key == CHUNKED {
                open.role = Role::Chunked { shape: Some(1), elements: 0, dtype: "unknown" };
            }
        }
        Ok(false)
    }

    fn leaf(&mut self, item: &Item) -> Parsed<()> {
        match item {
            Item::Extension(ARRAY, range) => {
                let (dtype, elements) = self.array(range)?;
                if matches!(self.open.last(), Some(Open { role: Role::Chunks, .. })) {
                    self.piece(dtype, elements);
                } else {
                    self.tree.counts.add(dtype, elements);
                }
            }
            Item::Extension(SCALAR, range) => {
                self.array(range)?;
            }
            Item::Extension(COMPLEX, range) => {
                let mut items = Items::new(self.file, range);
                if items.next()? != Item::Array(2) {
                    return Err(self.bad("is a complex number without two parts"));
                }
            }
            Item::Number(number) => self.number(*number),
            Item::Text(range) | Item::Bytes(range) => {
                let kind = self.open.last().is_some_and(|open| open.key == "kind");
                if kind && range.end - range.start == 1 && self.file.bytes(range.clone())? == b"O" {
                    self.tree.objects = true;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn number(&mut self, number: u64) {
        match self.open.as_mut_slice() {
            [.., Open { role: Role::Chunked { shape, .. }, .. }, Open { role: Role::Shape, .. }] => {
                *shape = shape.and_then(|shape| shape.checked_mul(number));
            }
            [Open { key, .. }] if key == "step" => self.tree.step = Some(number),
            _ => {}
        }
    }

    /// A piece of the array that the map around the pieces stands for.
    fn piece(&mut self, of: &'static str, count: u64) {
        if let [.., Open { role: Role::Chunked { elements, dtype, .. }, .. }, _] = self.open.as_mut_slice() {
            *elements = elements.saturating_add(count);
            *dtype = of;
        }
    }

    /// The list of shape, type and bytes within an extension: the type, and how many elements.
    fn array(&self, range: &Range<u64>) -> Parsed<(&'static str, u64)> {
        let mut items = Items::new(self.file, range);
        let malformed = || self.bad("is no array of Flax");
        if items.next()? != Item::Array(3) {
            return Err(malformed());
        }
        let Item::Array(dimensions @ 0..=64) = items.next()? else { return Err(malformed()) };
        let mut elements = Some(1u64);
        for _ in 0..dimensions {
            let Item::Number(size) = items.next()? else { return Err(malformed()) };
            elements = elements.and_then(|product| product.checked_mul(size));
        }
        let elements = elements.ok_or_else(|| self.bad("has more elements than can be counted"))?;
        let Item::Text(name) = items.next()? else { return Err(malformed()) };
        let name = text(self.file, &name)?;
        let Item::Bytes(data) = items.next()? else { return Err(malformed()) };
        if items.at() != range.end {
            return Err(malformed());
        }
        let known = TYPES.iter().find(|(known, ..)| *known == name);
        let (dtype, width) = known.map_or(("unknown", None), |&(_, dtype, width)| (dtype, Some(width)));
        let bytes = data.end - data.start;
        if let Some(width) = width
            && elements.checked_mul(width) != Some(bytes)
        {
            return Err(self.bad(&format!("has {bytes} bytes, its shape and {dtype} need {elements} times {width}")));
        }
        Ok((dtype, elements))
    }

    fn bad(&self, what: &str) -> Stop {
        let keys: Vec<&str> = self.open.iter().map(|open| open.key.as_str()).filter(|key| !key.is_empty()).collect();
        Stop::Bad(format!("its value {:?} {what}", names::shown(&keys.join("/"))))
    }
}

fn describe(evidence: &Evidence, contents: &mut Contents) {
    let mut counts = Counts::default();
    for (_, tree) in models(evidence) {
        counts.merge(&tree.counts);
        contents.step = contents.step.or(tree.step.and_then(|step| i64::try_from(step).ok()));
    }
    if counts.tensors == 0 {
        return;
    }
    counts.describe(contents);
    contents.framework = contents.framework.take().or_else(|| Some("flax".to_owned()));
}

#[cfg(test)]
mod tests;
