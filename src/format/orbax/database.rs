//! Walks the OCDBT databases of a checkpoint from their manifests: every file that they name is there and long enough, every node is
//! whole, every array has its chunks. Of the arrays only their descriptions are read. Pure, no I/O.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use super::{
    super::{
        MAX_READ,
        evidence::{Evidence, Ledger, Tree},
        findings::Notes,
        names,
        probe::{Probe, Problem, note_problem},
        table::FileProbe,
        window::{Parse, Parsed, Stop, Window},
    },
    node::{self, Child, Manifest, Node, Place, Value},
    zarr::{self, Array},
};

/// The largest manifest and node that are read, in bytes.
const LIMIT: u64 = 32 << 20;
/// Descriptions that lie this near to each other are read together, in bytes.
const NEAR: u64 = 4 << 10;
/// Names of descriptions of arrays.
pub(super) const DESCRIPTIONS: [&str; 2] = [".zarray", "zarr.json"];

/// All databases of a checkpoint.
#[derive(Debug, Default)]
pub(in crate::format) struct Databases {
    /// What is to be read, by the database's folder and the place in it.
    wanted: BTreeMap<(String, Place), Wanted>,
    /// What was read of it.
    done: BTreeSet<(String, Place)>,
    /// Files that the databases name: where what lies in them ends, and how much it is.
    pub(super) extents: BTreeMap<String, Extent>,
    /// Arrays by the database's folder and their name.
    pub(super) arrays: BTreeMap<(String, String), Stored>,
    /// Nodes that could not be read: the file, and why.
    pub(super) broken: BTreeSet<(String, String)>,
    /// Folders of databases whose roots were read.
    pub(super) roots: BTreeSet<String>,
    /// Whether there was more than is remembered, so that nothing more is read.
    pub(super) overfull: bool,
    /// Whether a node was too large to be read.
    pub(super) partial: bool,
}

#[derive(Clone, Debug)]
enum Wanted {
    Node(Child),
    /// The description of the array of this name.
    Array(String),
}

/// What lies in a file.
#[derive(Debug, Default)]
pub(super) struct Extent {
    pub end: u64,
    pub items: u64,
    /// Bytes of the nodes and descriptions in it. They never share bytes, so they are no more than the file has.
    pub read: u64,
}

/// An array of a database.
#[derive(Debug, Default)]
pub(super) struct Stored {
    pub array: Option<Array>,
    pub chunks: u64,
}

pub(super) struct ManifestFile;

impl Parse for ManifestFile {
    type Output = Manifest;

    fn parse(&self, file: &Window<'_>) -> Parsed<Manifest> {
        if file.len() > LIMIT {
            return Err(Stop::TooLarge(format!("it has {} bytes, more than {LIMIT}", file.len())));
        }
        node::manifest(file.bytes(0..file.len())?)
    }

    fn finish(self, outcome: Result<Manifest, Problem>, file: usize, evidence: &mut Evidence, notes: &mut Notes) {
        match outcome {
            Ok(Manifest::Root(root)) if is_current(&evidence.tree, file) => {
                let folder = names::folder(&evidence.tree.file(file).path).to_owned();
                evidence.databases.roots.insert(folder.clone());
                if let Some(root) = root {
                    evidence.databases.want(&folder, root.place.clone(), Wanted::Node(root));
                }
            }
            Ok(_) => {}
            Err(problem) => note_problem(&problem, file, evidence, notes),
        }
    }
}

/// Whether loaders begin with this manifest: not with those of single processes, which were merged, nor with older ones.
fn is_current(tree: &Tree, file: usize) -> bool {
    let path = &tree.file(file).path;
    let folder = names::folder(path);
    let newer =
        |other: &str| names::folder(other) == folder && is_numbered(names::base(other)) && other > path.as_str();
    let beside = format!("{folder}manifest.");
    let merged = names::base(folder.trim_end_matches('/')).starts_with(super::PROCESS);
    !merged && (!is_numbered(names::base(path)) || !tree.below(&beside).any(|(_, file)| newer(&file.path)))
}

/// `manifest.0000000000000001`
fn is_numbered(name: &str) -> bool {
    name.strip_prefix("manifest.")
        .is_some_and(|rest| rest.len() == 16 && rest.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

impl Databases {
    fn extend(&mut self, folder: &str, place: &Place) -> &mut Extent {
        let extent = self.extents.entry(format!("{folder}{}", place.path)).or_default();
        extent.end = extent.end.max(place.offset.saturating_add(place.length));
        extent.items += 1;
        extent
    }

    fn want(&mut self, folder: &str, place: Place, wanted: Wanted) {
        let key = (folder.to_owned(), place);
        let known = self.done.contains(&key) || self.wanted.contains_key(&key);
        let extent = self.extend(folder, &key.1);
        if !known {
            extent.read = extent.read.saturating_add(key.1.length);
            self.wanted.insert(key, wanted);
        }
    }

    /// Nodes and descriptions that were not read although they lie in a file that is long enough: the file, and why.
    pub(super) fn unread(&self, tree: &Tree) -> BTreeMap<String, String> {
        let mut unread = BTreeMap::new();
        for (folder, place) in self.wanted.keys().filter(|_| !self.overfull) {
            let path = format!("{folder}{}", place.path);
            let Some(file) = tree.find(&path).filter(|file| self.is_apart(&path, tree.file(*file).size)) else {
                continue;
            };
            if place.offset.saturating_add(place.length) <= tree.file(file).size {
                let (length, at) = (place.length, place.offset);
                let why = if length > LIMIT { format!(", more than {LIMIT}") } else { " and lies too deep".to_owned() };
                unread.entry(path).or_insert_with(|| format!("what lies at byte {at} of it has {length} bytes{why}"));
            }
        }
        unread
    }

    /// Whether what is to be read of a file can be in it without sharing bytes.
    fn is_apart(&self, path: &str, size: u64) -> bool {
        self.extents.get(path).is_none_or(|extent| extent.read <= size)
    }

    /// How far the nodes came depends on the order of the answers, so nothing of them is kept.
    fn overflow(&mut self) {
        *self = Self { overfull: true, roots: std::mem::take(&mut self.roots), ..Self::default() };
    }

    fn describe(&mut self, folder: &str, name: String, path: &str, bytes: &[u8]) {
        match zarr::array(bytes) {
            Ok(array) => self.arrays.entry((folder.to_owned(), name)).or_default().array = Some(array),
            Err(problem) => {
                self.broken.insert((path.to_owned(), format!("the description of its array {name:?}: {problem}")));
            }
        }
    }

    fn leaf(&mut self, folder: &str, path: &str, entries: Vec<(Vec<u8>, Value)>) {
        for (key, value) in entries {
            let key = String::from_utf8(key).ok();
            let found = key.as_deref().and_then(split);
            if let (Value::Placed(place), Some((_, false)) | None) = (&value, found) {
                self.extend(folder, place);
            }
            let Some((name, description)) = found else { continue };
            let name = name.to_owned();
            let stored = self.arrays.entry((folder.to_owned(), name.clone())).or_default();
            match (description, value) {
                (false, _) => stored.chunks += 1,
                (true, Value::Inline(bytes)) => self.describe(folder, name, path, &bytes),
                (true, Value::Placed(place)) => self.want(folder, place, Wanted::Array(name)),
            }
        }
    }
}

/// The array that a key belongs to, and whether the key is its description; else it is a chunk (`w/0.0`, `w/c/0/0`).
pub(super) fn split(key: &str) -> Option<(&str, bool)> {
    let (name, last) = key.rsplit_once('/')?;
    if DESCRIPTIONS.contains(&last) {
        return Some((name, true));
    }
    let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if last == "c" {
        return Some((name, false));
    }
    if let Some((array, rest)) = key.rsplit_once("/c/")
        && rest.split(['/', '.']).all(number)
    {
        return Some((array, false));
    }
    if last.split('.').all(number) {
        return Some((name, false));
    }
    None
}

/// The next level: nodes that were named, and descriptions of arrays.
pub(super) fn deepen(evidence: &Evidence) -> Vec<FileProbe> {
    let databases = &evidence.databases;
    if databases.overfull {
        return Vec::new();
    }
    let mut by_file: BTreeMap<usize, Vec<Item>> = BTreeMap::new();
    for ((folder, place), wanted) in &databases.wanted {
        let path = format!("{folder}{}", place.path);
        let Some(file) = evidence.tree.find(&path) else { continue };
        let (end, size) = (place.offset.saturating_add(place.length), evidence.tree.file(file).size);
        if end <= size && place.length <= LIMIT && databases.is_apart(&path, size) {
            let item = Item { folder: folder.clone(), place: place.clone(), wanted: wanted.clone() };
            by_file.entry(file).or_default().push(item);
        }
    }
    let mut probes: Vec<FileProbe> = Vec::new();
    for (file, mut items) in by_file {
        items.sort_by_key(|item| (item.place.offset, item.place.length));
        let mut together: Vec<Item> = Vec::new();
        let mut range = 0..0;
        for item in items {
            let next = item.place.offset..item.place.offset + item.place.length;
            let end = range.end.max(next.end);
            if !together.is_empty() && (next.start > range.end + NEAR || end - range.start > MAX_READ) {
                probes.push((file, Box::new(Pieces::new(range.clone(), std::mem::take(&mut together)))));
            }
            range = if together.is_empty() { next } else { range.start..end };
            together.push(item);
        }
        probes.push((file, Box::new(Pieces::new(range, together))));
    }
    probes
}

struct Item {
    folder: String,
    place: Place,
    wanted: Wanted,
}

/// Reads a range of a file and what lies in it.
struct Pieces {
    range: Range<u64>,
    bytes: Vec<u8>,
    items: Vec<Item>,
    found: Vec<Parsed<Found>>,
    overfull: bool,
}

enum Found {
    Node(Node),
    Description(Vec<u8>),
}

impl Pieces {
    fn new(range: Range<u64>, items: Vec<Item>) -> Self {
        Self { range, bytes: Vec::new(), items, found: Vec::new(), overfull: false }
    }

    fn read(&self, item: &Item) -> Parsed<Found> {
        let index = |at: u64| usize::try_from(at.saturating_sub(self.range.start)).unwrap_or(usize::MAX);
        let end = item.place.offset + item.place.length;
        let bytes =
            self.bytes.get(index(item.place.offset)..index(end)).ok_or_else(|| Stop::bad("it ends too early"))?;
        match &item.wanted {
            Wanted::Node(child) => node::node(bytes, child).map(Found::Node),
            Wanted::Array(_) => Ok(Found::Description(bytes.to_vec())),
        }
    }
}

impl Probe for Pieces {
    fn next(&self) -> Option<Range<u64>> {
        let at = self.range.start + self.bytes.len() as u64;
        (at < self.range.end).then(|| at..self.range.end.min(at + MAX_READ))
    }

    fn take(&mut self, bytes: &[u8], ledger: &mut Ledger) {
        self.bytes.extend_from_slice(bytes);
        if self.next().is_none() {
            for item in &self.items {
                let found = self.read(item);
                let weight = if let Ok(Found::Node(node)) = &found { node.weight() } else { 1 };
                // What is too much is not kept until the others were read.
                if !ledger.take_entries(weight) {
                    self.overfull = true;
                    break;
                }
                self.found.push(found);
            }
        }
    }

    fn held(&self) -> u64 {
        self.range.end - self.range.start
    }

    fn finish(self: Box<Self>, file: usize, evidence: &mut Evidence, notes: &mut Notes) {
        let path = evidence.tree.file(file).path.clone();
        let databases = &mut evidence.databases;
        if self.overfull || databases.overfull {
            return databases.overflow();
        }
        let mut found = self.found.into_iter();
        let mut unread = Vec::new();
        for Item { folder, place, wanted } in self.items {
            let key = (folder.clone(), place.clone());
            databases.wanted.remove(&key);
            databases.done.insert(key);
            match (found.next(), wanted) {
                (Some(Ok(Found::Node(Node::Interior(children)))), _) => {
                    for child in children {
                        databases.want(&folder, child.place.clone(), Wanted::Node(child));
                    }
                }
                (Some(Ok(Found::Node(Node::Leaf(entries)))), _) => databases.leaf(&folder, &path, entries),
                (Some(Ok(Found::Description(bytes))), Wanted::Array(name)) => {
                    databases.describe(&folder, name, &path, &bytes);
                }
                (Some(Err(Stop::TooLarge(problem))), _) => {
                    databases.partial = true;
                    unread.push(Problem::TooLarge(problem));
                }
                (Some(Err(Stop::Bad(problem))), _) => {
                    databases
                        .broken
                        .insert((path.clone(), format!("what lies at byte {} of it: {problem}", place.offset)));
                }
                _ => {}
            }
        }
        for problem in unread {
            note_problem(&problem, file, evidence, notes);
        }
    }
}

#[cfg(test)]
mod tests;
