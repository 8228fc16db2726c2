//! What is known about a checkpoint while it is judged: its files, and what was read from them. Pure, no I/O.

use std::{
    any::{Any, TypeId},
    collections::BTreeMap,
};

use serde_json::Value;

use super::{File, names, orbax, safetensors, sharded, trainer};
use crate::contract::{Depth, PickleTier};

/// The files in byte order of their paths.
#[derive(Debug)]
pub(super) struct Tree {
    files: Vec<File>,
    by_path: Vec<usize>,
    home: String,
    /// How often a file was looked at in search of others.
    #[cfg(test)]
    pub looked: std::cell::Cell<u64>,
}

impl Tree {
    pub fn new(files: Vec<File>) -> Self {
        let mut by_path: Vec<usize> = (0..files.len()).collect();
        by_path.sort_by(|&left, &right| files[left].path.cmp(&files[right].path));
        let home = home(&files);
        Self {
            files,
            by_path,
            home,
            #[cfg(test)]
            looked: std::cell::Cell::default(),
        }
    }

    /// The file that the judge was given at this index.
    pub fn file(&self, index: usize) -> &File {
        &self.files[index]
    }

    /// The index of the file that is the `position`-th in path order.
    pub fn at_position(&self, position: usize) -> Option<usize> {
        self.by_path.get(position).copied()
    }

    /// All files in path order.
    pub fn iter(&self) -> impl Iterator<Item = (usize, &File)> {
        self.by_path.iter().map(|&index| (index, self.looked_at(index)))
    }

    /// The file at a path.
    pub fn find(&self, path: &str) -> Option<usize> {
        let position = self.by_path.binary_search_by(|&index| self.looked_at(index).path.as_str().cmp(path)).ok()?;
        self.at_position(position)
    }

    /// The files whose paths begin so, in path order. They lie together, so the others are not looked at: a folder may have as many
    /// folders as files.
    pub fn below(&self, beginning: &str) -> impl Iterator<Item = (usize, &File)> {
        let first = self.by_path.partition_point(|&index| self.looked_at(index).path.as_str() < beginning);
        let rest = self.by_path.get(first..).unwrap_or_default().iter();
        rest.map(|&index| (index, self.looked_at(index))).take_while(move |(_, file)| file.path.starts_with(beginning))
    }

    /// Whether there is a file whose path begins so.
    pub fn has_below(&self, beginning: &str) -> bool {
        self.below(beginning).next().is_some()
    }

    /// The file at an index; tests count how often one is looked at, so that checks stay in proportion to the files.
    fn looked_at(&self, index: usize) -> &File {
        #[cfg(test)]
        self.looked.set(self.looked.get() + 1);
        &self.files[index]
    }

    /// The folder, with its slash, that all files lie in: frameworks like to put one folder around everything.
    pub fn home(&self) -> &str {
        &self.home
    }

    /// The file of this name directly in [`Self::home`].
    pub fn at_home(&self, name: &str) -> Option<usize> {
        self.find(&format!("{}{name}", self.home))
    }

    /// Names of the files directly in [`Self::home`].
    pub fn home_names(&self) -> impl Iterator<Item = &str> {
        let names = self.iter().filter_map(|(_, file)| file.path.strip_prefix(self.home.as_str()));
        names.filter(|name| !name.contains('/'))
    }

    /// Sum of the sizes in bytes.
    pub fn bytes(&self) -> u64 {
        self.files.iter().fold(0, |sum, file| sum.saturating_add(file.size))
    }

    /// How many files there are.
    pub fn len(&self) -> usize {
        self.files.len()
    }
}

fn home(files: &[File]) -> String {
    let mut folders =
        files.iter().map(|file| &file.path).filter(|path| !names::is_ignorable(path)).map(|path| names::folder(path));
    let Some(first) = folders.next() else { return String::new() };
    let common = folders.fold(first, |common, folder| {
        let same = common.bytes().zip(folder.bytes()).take_while(|(left, right)| left == right).count();
        common[..same_end(common, same)].trim_end_matches(|character| character != '/')
    });
    common.to_owned()
}

/// The last character boundary at or before `at`.
fn same_end(text: &str, at: usize) -> usize {
    (0..=at).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0)
}

/// A small JSON document.
#[derive(Debug, Default, PartialEq)]
pub(super) enum Document {
    /// It is not there, or nothing was read.
    #[default]
    Unread,
    /// It is not what it should be; the text says why, the file's name is not in it.
    Broken(String),
    /// Its content.
    Value(Value),
}

impl Document {
    /// A member of the object that it is.
    pub fn get(&self, key: &str) -> Option<&Value> {
        if let Self::Value(value) = self { value.get(key) } else { None }
    }

    /// A member that is text, without control characters and bounded; none when it is empty.
    pub fn text(&self, key: &str) -> Option<String> {
        let text = self.get(key)?.as_str()?;
        (!text.is_empty()).then(|| fact(text))
    }
}

/// A text from a file as a fact: bounded, without control characters.
pub(super) fn fact(text: &str) -> String {
    crate::contract::report::clean(text, 256)
}

/// All that is known.
#[derive(Debug)]
pub(super) struct Evidence {
    pub tree: Tree,
    pub depth: Depth,
    /// Whether our own encoder made the files.
    pub inline: bool,
    /// Headers that passed, by file.
    pub safetensors: BTreeMap<usize, safetensors::Summary>,
    /// Indexes that could be read, by file.
    pub indexes: BTreeMap<usize, sharded::Index>,
    /// `config.json`
    pub config: Document,
    /// `adapter_config.json`
    pub adapter: Document,
    /// `_CHECKPOINT_METADATA` of Orbax
    pub orbax: Document,
    /// Databases of Orbax
    pub databases: orbax::Databases,
    /// `model_index.json` of diffusers
    pub pipeline: Document,
    /// `checkpoint_manager_snapshot.json` of Ray Train
    pub snapshot: Document,
    /// `rllib_checkpoint.json`, or the `metadata.json` of RLlib's new stack
    pub rllib: Document,
    /// `tokenizer_config.json`
    pub tokenizer: Document,
    /// `trainer_state.json`
    pub trainer: Option<trainer::State>,
    /// `.metadata.json`
    pub metadata: Option<Value>,
    /// Files that are or hold pickles, each with the most dangerous one.
    pub pickles: BTreeMap<usize, PickleFact>,
    /// Other code.
    pub code: Vec<CodeFact>,
    /// What formats found in files, by the type of what it is.
    found: BTreeMap<(TypeId, usize), Box<dyn Any + Send>>,
    /// Whether tensors' names are needed to compare shards.
    pub keep_names: bool,
    /// In how many archives the files lie.
    pub level: u32,
}

impl Evidence {
    pub fn new(tree: Tree, depth: Depth, inline: bool) -> Self {
        let keep_names =
            tree.iter().any(|(_, file)| names::index(names::base(&file.path)).is_some_and(|index| index.safetensors));
        Self {
            tree,
            depth,
            inline,
            keep_names,
            safetensors: BTreeMap::new(),
            indexes: BTreeMap::new(),
            config: Document::Unread,
            adapter: Document::Unread,
            orbax: Document::Unread,
            databases: orbax::Databases::default(),
            pipeline: Document::Unread,
            snapshot: Document::Unread,
            rllib: Document::Unread,
            tokenizer: Document::Unread,
            trainer: None,
            metadata: None,
            pickles: BTreeMap::new(),
            code: Vec::new(),
            found: BTreeMap::new(),
            level: 0,
        }
    }

    /// Keeps what was found in a file. One thing of each type.
    pub fn put<T: Any + Send>(&mut self, file: usize, found: T) {
        self.found.insert((TypeId::of::<T>(), file), Box::new(found));
    }

    /// What was found in a file.
    pub fn get<T: Any + Send>(&self, file: usize) -> Option<&T> {
        self.found.get(&(TypeId::of::<T>(), file))?.downcast_ref()
    }

    /// All things of a type, in path order.
    pub fn all<T: Any + Send>(&self) -> impl Iterator<Item = (usize, &T)> {
        self.tree.iter().filter_map(|(file, _)| Some((file, self.get::<T>(file)?)))
    }

    /// Takes note of a pickle in a file; the most dangerous one stays.
    pub fn note_pickle(&mut self, file: usize, fact: PickleFact) {
        let known = self.pickles.get(&file);
        if known.is_none_or(|known| (known.tier, &fact.what) < (fact.tier, &known.what)) {
            self.pickles.insert(file, fact);
        }
    }

    /// Takes note of code.
    pub fn note_code(&mut self, fact: CodeFact) {
        self.code.push(fact);
    }
}

/// A pickle in a file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct PickleFact {
    /// How dangerous it is.
    pub tier: PickleTier,
    /// Completes "FILE ": such as `imports os.system in its data.pkl`.
    pub what: String,
    /// Why it cannot be read to its end; completes "FILE is damaged: ".
    pub broken: Option<String>,
}

impl PickleFact {
    /// A file that was not looked into; the text completes "it is ".
    pub fn unchecked(kind: &str) -> Self {
        Self { tier: PickleTier::Unchecked, what: format!("is {kind}, and was not checked"), broken: None }
    }
}

/// Code other than pickles that comes with a checkpoint.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct CodeFact {
    /// Whether loaders run it without being asked to.
    pub on_load: bool,
    /// Index of the file.
    pub file: usize,
    /// What it is, such as `Python code of the model (auto_map)`; completes "FILE: ".
    pub what: String,
}

/// How many tensors may still be remembered. One bound for the whole checkpoint keeps memory bounded whatever the headers say.
#[derive(Debug)]
pub(super) struct Ledger {
    left: u64,
    /// Entries of databases, of which as many are taken and the others left out.
    entries_left: u64,
    overdrawn: bool,
}

impl Ledger {
    /// The most tensors, in headers and indexes together, that are taken.
    pub const LIMIT: u64 = 1_000_000;

    pub fn new() -> Self {
        Self { left: Self::LIMIT, entries_left: Self::LIMIT, overdrawn: false }
    }

    /// Takes note of further tensors.
    pub fn charge(&mut self, count: u64) {
        match self.left.checked_sub(count) {
            Some(left) => self.left = left,
            None => self.overdrawn = true,
        }
    }

    /// Takes note of further entries of databases, unless they are too many: the caller then reads no more. Large checkpoints have
    /// more chunks than tensors.
    pub fn take_entries(&mut self, entries: u64) -> bool {
        let left = self.entries_left.checked_sub(entries);
        self.entries_left = left.unwrap_or(self.entries_left);
        left.is_some()
    }

    /// Whether there were too many.
    pub fn is_overdrawn(&self) -> bool {
        self.overdrawn
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(paths: &[&str]) -> Tree {
        Tree::new(paths.iter().map(|&path| File { path: path.to_owned(), size: 1 }).collect())
    }

    #[test]
    fn home_is_the_folder_around_everything() {
        let table: &[(&[&str], &str)] = &[
            (&["a", "b"], ""),
            (&["checkpoint/a", "checkpoint/b/c", ".metadata.json"], "checkpoint/"),
            (&["x/step-1/a", "x/step-10/b"], "x/"),
            (&["x/é1/a", "x/è1/b"], "x/"),
            (&["x/y/a"], "x/y/"),
            (&["README.md"], ""),
            (&[], ""),
        ];
        for (paths, expected) in table {
            assert_eq!(tree(paths).home(), *expected, "{paths:?}");
        }
    }

    #[test]
    fn files_are_found_whatever_the_order() {
        let tree = tree(&["c", "a/b", "b"]);
        assert_eq!(tree.find("a/b"), Some(1));
        assert_eq!(tree.find("a"), None);
        assert_eq!(tree.iter().map(|(_, file)| file.path.as_str()).collect::<Vec<_>>(), ["a/b", "b", "c"]);
    }

    #[test]
    fn what_lies_below_a_folder_lies_together() {
        let tree = tree(&["b/x", "a-b", "a/b/c", "a/é", "a.b", "a/b", "b"]);
        let table: &[(&str, &[&str])] = &[
            ("a/", &["a/b", "a/b/c", "a/é"]),
            ("a/b", &["a/b", "a/b/c"]),
            ("a/b/", &["a/b/c"]),
            ("b/", &["b/x"]),
            ("c/", &[]),
            ("", &["a-b", "a.b", "a/b", "a/b/c", "a/é", "b", "b/x"]),
        ];
        for (beginning, expected) in table {
            let found: Vec<_> = tree.below(beginning).map(|(_, file)| file.path.as_str()).collect();
            assert_eq!((found.as_slice(), tree.has_below(beginning)), (*expected, !expected.is_empty()), "{beginning}");
        }
    }

    #[test]
    fn files_below_a_folder_are_found_without_looking_at_others() {
        let paths: Vec<String> = (0..1000).map(|number| format!("{number:04}/a")).collect();
        let tree = tree(&paths.iter().map(String::as_str).collect::<Vec<_>>());
        let below = |beginning| tree.below(beginning).map(|(_, file)| file.path.as_str()).collect::<Vec<_>>();
        tree.looked.set(0);
        assert_eq!(below("0500/"), ["0500/a"]);
        assert!(tree.looked.get() < 20, "{}", tree.looked.get());
        assert_eq!(below("0500/b"), Vec::<&str>::new());
        assert_eq!(below("9/"), Vec::<&str>::new());
        assert_eq!(below("").len(), 1000);
    }
}
