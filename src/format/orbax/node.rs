//! Nodes of an OCDBT database: the manifest and the B+tree below it, each with its checksum (`kvstore/ocdbt` of TensorStore, storage
//! format). Pure, no I/O.

use super::super::{
    compression::{self, Compression},
    evidence::Ledger,
    window::{Parsed, Stop, Window},
};

/// First bytes of a manifest, and of a node of the tree.
pub(super) const MANIFEST: [u8; 4] = [0x0C, 0xDB, 0x3A, 0x2A];
const NODE: [u8; 4] = [0x0C, 0xDB, 0x20, 0xDE];
/// The longest path of a file, and key, in bytes.
const TEXT: u64 = 65_535;

/// The most bytes of names that one node may come to: what its entries share is repeated in each of them.
const NAMES: usize = 64 << 20;

/// Where something lies: a file below the database's folder, and bytes of it.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Place {
    pub path: String,
    pub offset: u64,
    pub length: u64,
}

/// A child of a node: where it lies, what stands before the paths and before the keys in it, and how high it is.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Child {
    pub place: Place,
    pub base: String,
    pub prefix: Vec<u8>,
    pub height: u8,
}

/// The value of a key.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Value {
    Inline(Vec<u8>),
    Placed(Place),
}

/// What a node says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Node {
    Interior(Vec<Child>),
    Leaf(Vec<(Vec<u8>, Value)>),
}

impl Node {
    /// What its entries count for among all that is remembered: one each, and more where their names are long.
    pub fn weight(&self) -> u64 {
        const USUAL: usize = 256;
        let counted = |length: usize| (length / USUAL).max(1) as u64;
        match self {
            Self::Interior(children) => children.iter().map(|child| counted(child.names())).sum(),
            Self::Leaf(entries) => entries.iter().map(|(key, value)| counted(key.len() + value.names())).sum(),
        }
    }
}

impl Child {
    fn names(&self) -> usize {
        self.place.path.len() + self.base.len() + self.prefix.len()
    }
}

impl Value {
    fn names(&self) -> usize {
        match self {
            Self::Inline(bytes) => bytes.len(),
            Self::Placed(place) => place.path.len(),
        }
    }
}

/// Adds up the names of a node.
#[derive(Default)]
struct Names(usize);

impl Names {
    fn add(&mut self, length: usize) -> Parsed<()> {
        self.0 = self.0.saturating_add(length);
        if self.0 > NAMES {
            return Err(Stop::TooLarge("its names are longer than is read".to_owned()));
        }
        Ok(())
    }
}

/// What a manifest says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Manifest {
    /// The latest tree; none when nothing was ever written.
    Root(Option<Child>),
    /// Other files named `manifest.` and a number tell.
    Numbered,
}

/// The content of a manifest or node, once its header and checksum passed.
fn body(bytes: &[u8], magic: [u8; 4]) -> Parsed<Vec<u8>> {
    let mut reader = Reader { bytes, at: 0 };
    if reader.take(4)? != magic {
        return Err(Stop::bad("it does not begin as OCDBT does"));
    }
    let length = reader.u64()?;
    if length != bytes.len() as u64 {
        return Err(Stop::Bad(format!("it has {} bytes, its header says {length}", bytes.len())));
    }
    let (version, method) = (reader.varint()?, reader.varint()?);
    if version != 0 {
        return Err(Stop::Bad(format!("its version {version} is not known")));
    }
    let end = bytes.len().saturating_sub(4).max(reader.at);
    let (content, checksum) = bytes.split_at(end);
    let computed = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, content);
    let stored = checksum.first_chunk().map(|bytes| u64::from(u32::from_le_bytes(*bytes)));
    if stored != Some(computed) {
        return Err(Stop::bad("its checksum is not that of its bytes"));
    }
    let packed = content.get(reader.at..).unwrap_or_default();
    match method {
        0 => Ok(packed.to_vec()),
        1 => compression::unpack(&Window::of_bytes(packed), Compression::Zstd),
        other => Err(Stop::Bad(format!("its compression {other} is not known"))),
    }
}

/// Reads a manifest.
pub(super) fn manifest(bytes: &[u8]) -> Parsed<Manifest> {
    let body = body(bytes, MANIFEST)?;
    let mut reader = Reader { bytes: &body, at: 0 };
    reader.take(16)?;
    let kind = reader.varint()?;
    let [_, _] = [reader.varint()?, reader.varint()?];
    reader.take(1)?;
    if reader.varint()? == 1 {
        reader.take(4)?;
    }
    if kind == 1 {
        return Ok(Manifest::Numbered);
    }
    let files = Files::read(&mut reader, "")?;
    let count = reader.count()?;
    reader.varints(count)?;
    let heights = reader.take(count)?.to_vec();
    let places = reader.places(count)?;
    let lengths = reader.varints(count)?;
    let Some(last) = count.checked_sub(1) else { return Ok(Manifest::Root(None)) };
    let pick = |column: &[u64]| column.get(last).copied().unwrap_or_default();
    let (file, offset, length) = (pick(&places.0), pick(&places.1), pick(&lengths));
    // An empty tree has no root; its place is at the end of all numbers.
    if offset == u64::MAX || length == 0 {
        return Ok(Manifest::Root(None));
    }
    let (path, base) = files.get(file)?;
    let height = heights.get(last).copied().unwrap_or_default();
    Ok(Manifest::Root(Some(Child { place: Place { path, offset, length }, base, prefix: Vec::new(), height })))
}

/// Reads a node whose keys stand behind `prefix`, and whose files behind `base`.
pub(super) fn node(bytes: &[u8], child: &Child) -> Parsed<Node> {
    let body = body(bytes, NODE)?;
    let mut reader = Reader { bytes: &body, at: 0 };
    let height = reader.take(1)?.first().copied().unwrap_or_default();
    if height != child.height {
        return Err(Stop::Bad(format!("a node of height {height} lies where one of height {} belongs", child.height)));
    }
    let files = Files::read(&mut reader, &child.base)?;
    let count = reader.count()?;
    let prefixes = reader.varints(count.saturating_sub(1))?;
    let suffixes = reader.varints(count)?;
    if height > 0 {
        let common = reader.varints(count)?;
        let keys = reader.keys(&prefixes, &suffixes)?;
        return interior(&mut reader, &files, child, &keys, &common);
    }
    let keys = reader.keys(&prefixes, &suffixes)?;
    leaf(&mut reader, &files, child, keys)
}

fn interior(reader: &mut Reader<'_>, files: &Files, parent: &Child, keys: &[Vec<u8>], common: &[u64]) -> Parsed<Node> {
    let (ids, offsets) = reader.places(keys.len())?;
    let lengths = reader.varints(keys.len())?;
    let mut names = Names::default();
    let mut children = Vec::with_capacity(keys.len());
    for ((((key, common), id), offset), length) in keys.iter().zip(common).zip(ids).zip(offsets).zip(lengths) {
        names.add(files.length(id) + parent.prefix.len() + key.len())?;
        let (path, base) = files.get(id)?;
        let common = usize::try_from(*common).ok().and_then(|common| key.get(..common));
        let common = common.ok_or_else(|| Stop::bad("a key of it is shorter than what its children share"))?;
        let prefix = [&parent.prefix, common].concat();
        let height = parent.height.saturating_sub(1);
        children.push(Child { place: Place { path, offset, length }, base, prefix, height });
    }
    Ok(Node::Interior(children))
}

fn leaf(reader: &mut Reader<'_>, files: &Files, parent: &Child, keys: Vec<Vec<u8>>) -> Parsed<Node> {
    let lengths = reader.varints(keys.len())?;
    let kinds = reader.varints(keys.len())?;
    let placed = kinds.iter().filter(|kind| **kind == 1).count();
    let (ids, offsets) = reader.places(placed)?;
    let mut outside = ids.into_iter().zip(offsets);
    let mut names = Names::default();
    let mut entries = Vec::with_capacity(keys.len());
    for ((key, length), kind) in keys.into_iter().zip(lengths).zip(kinds) {
        names.add(parent.prefix.len() + key.len())?;
        let key = [&parent.prefix[..], &key].concat();
        let value = match (kind, if kind == 1 { outside.next() } else { None }) {
            (0, _) => {
                let length = usize::try_from(length).unwrap_or(usize::MAX);
                Value::Inline(reader.take(length)?.to_vec())
            }
            (1, Some((id, offset))) => {
                names.add(files.length(id))?;
                let (path, _) = files.get(id)?;
                Value::Placed(Place { path, offset, length })
            }
            _ => return Err(Stop::Bad(format!("a value of it is of the unknown kind {kind}"))),
        };
        entries.push((key, value));
    }
    Ok(Node::Leaf(entries))
}

/// The files that a node names: the whole path, and the part of it that its children's paths begin with.
struct Files(Vec<(String, String)>);

impl Files {
    fn read(reader: &mut Reader<'_>, base: &str) -> Parsed<Self> {
        let count = reader.count()?;
        let prefixes = reader.varints(count.saturating_sub(1))?;
        let suffixes = reader.varints(count)?;
        let bases = reader.varints(count)?;
        let paths = reader.keys(&prefixes, &suffixes)?;
        let mut names = Names::default();
        let mut files = Vec::with_capacity(count);
        for (path, length) in paths.into_iter().zip(bases) {
            let path = String::from_utf8(path).map_err(|_| Stop::bad("the name of a file in it is no UTF-8"))?;
            let own = usize::try_from(length).ok().and_then(|length| path.get(..length));
            let own = own.ok_or_else(|| Stop::bad("the name of a file in it is shorter than its folder's"))?;
            names.add(2 * base.len() + path.len() + own.len())?;
            let (full, folder) = (format!("{base}{path}"), format!("{base}{own}"));
            files.push((full, folder));
        }
        Ok(Self(files))
    }

    /// How long the names of a file are.
    fn length(&self, id: u64) -> usize {
        let file = usize::try_from(id).ok().and_then(|id| self.0.get(id));
        file.map_or(0, |(path, folder)| path.len() + folder.len())
    }

    /// A file that something lies in. An empty tree has its place in a file without a name, so only what is asked for is checked.
    fn get(&self, id: u64) -> Parsed<(String, String)> {
        let file = usize::try_from(id).ok().and_then(|id| self.0.get(id)).cloned();
        let (path, folder) =
            file.ok_or_else(|| Stop::Bad(format!("it names its file number {id}, and has {}", self.0.len())))?;
        if path.starts_with('/') || path.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err(Stop::Bad(format!("it names the file {path:?}, which is no safe path")));
        }
        Ok((path, folder))
    }
}

/// Reads columns of numbers.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Parsed<&'a [u8]> {
        let end = self.at.checked_add(length);
        let bytes = end.and_then(|end| self.bytes.get(self.at..end)).ok_or_else(|| Stop::bad("it ends too early"))?;
        self.at += length;
        Ok(bytes)
    }

    fn u64(&mut self) -> Parsed<u64> {
        let bytes = self.take(8)?;
        Ok(bytes.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes)))
    }

    fn varint(&mut self) -> Parsed<u64> {
        let mut number = 0u64;
        for position in 0..10 {
            let byte = self.take(1)?.first().copied().unwrap_or_default();
            number |= u64::from(byte & 0x7F).checked_shl(7 * position).unwrap_or_default();
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(Stop::bad("a number in it does not end"))
    }

    /// How many entries follow; every one takes at least a byte, and many more in memory.
    fn count(&mut self) -> Parsed<usize> {
        let count = self.varint()?;
        if count > Ledger::LIMIT {
            return Err(Stop::TooLarge(format!("it announces {count} entries, more than {}", Ledger::LIMIT)));
        }
        let left = self.bytes.len() - self.at;
        usize::try_from(count)
            .ok()
            .filter(|count| *count <= left)
            .ok_or_else(|| Stop::Bad(format!("it announces {count} entries, and {left} bytes follow")))
    }

    fn varints(&mut self, count: usize) -> Parsed<Vec<u64>> {
        (0..count).map(|_| self.varint()).collect()
    }

    fn places(&mut self, count: usize) -> Parsed<(Vec<u64>, Vec<u64>)> {
        Ok((self.varints(count)?, self.varints(count)?))
    }

    /// Texts that each begin as the one before them does.
    fn keys(&mut self, prefixes: &[u64], suffixes: &[u64]) -> Parsed<Vec<Vec<u8>>> {
        let mut keys: Vec<Vec<u8>> = Vec::with_capacity(suffixes.len());
        let mut kept = 0u64;
        for (index, suffix) in suffixes.iter().enumerate() {
            let prefix = index.checked_sub(1).and_then(|before| prefixes.get(before)).copied().unwrap_or(0);
            let shared = keys.last().map_or(Some(&[][..]), |last| last.get(..usize::try_from(prefix).ok()?));
            let shared = shared.ok_or_else(|| Stop::bad("a key of it begins with more than the key before it has"))?;
            let length = usize::try_from(*suffix).unwrap_or(usize::MAX);
            let key = [shared, self.take(length)?].concat();
            kept = kept.saturating_add(key.len() as u64);
            if key.len() as u64 > TEXT || kept > compression::UNPACKED {
                return Err(Stop::TooLarge("its keys are longer than is read".to_owned()));
            }
            keys.push(key);
        }
        Ok(keys)
    }
}
