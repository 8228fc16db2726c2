//! What loads have put into a volume, in `.checkpoint/journal`: checked lines, only ever appended. Does I/O, blocking.
//!
//! A file's line is written after its bytes are durable under a temporary name and before it gets its own name. So
//! every file of ours has a line, and a file without one is somebody else's. Parts of large files have lines too, once they are
//! durable: another attempt fetches only what is missing.

use std::{
    collections::{BTreeMap, HashMap},
    fs::File,
    io::{BufRead, BufReader, Read, Seek, SeekFrom, Write},
};

use serde::{Deserialize, Serialize};

use super::{
    failure::Failure,
    transfer::{
        PartSums,
        hash::{PART, PartHash},
        sums::Piece,
    },
    volume::{Found, Workspace},
};

/// The journal's name below [`crate::contract::manifest::FOLDER`]; workers that load together have one each, with a number.
const NAME: &str = "journal";
const WHAT: &str = ".checkpoint/journal";
const CHECK: usize = 16;
/// Longest line, in bytes: a part whose CRCs are those of an upload in the smallest pieces takes a few KiB.
const LINE_LIMIT: u64 = 1 << 20;

/// A file that a load completed.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct Record {
    /// Path below the volume's root.
    pub path: String,
    /// Size in bytes.
    pub size: u64,
    /// Version at the source; empty when it is not worth anything any more.
    pub version: String,
    /// BLAKE3 of the content, 64 hexadecimal digits.
    pub blake3: String,
    /// The name that it had in the staging folder.
    pub temporary: String,
    /// Modification time in the volume.
    pub modified: String,
    /// Whether the source holds a checksum of it, which was compared.
    #[serde(default)]
    pub verified: bool,
    /// [`crate::storage::Entry::identity`], as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
}

impl Record {
    /// Whether this is the file that was completed, untouched since.
    pub(super) fn is_of(&self, found: &Found) -> bool {
        found.is_file && found.size == self.size && found.modified == self.modified
    }
}

/// A part of a file that is not complete.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct PartRecord {
    /// Path below the volume's root.
    pub path: String,
    /// Size of the whole file in bytes.
    pub size: u64,
    /// Version at the source.
    pub version: String,
    /// The name that it has in the staging folder.
    pub temporary: String,
    /// Length of a part in bytes, but for the last one.
    pub length: u64,
    /// Which part.
    pub index: usize,
    /// Chaining value of its BLAKE3 subtree, 64 hexadecimal digits.
    pub blake3: String,
    /// Its CRCs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pieces: Vec<Piece>,
}

impl PartRecord {
    /// The offset of its end in the file.
    pub(super) fn end(&self) -> u64 {
        (self.index as u64).saturating_add(1).saturating_mul(self.length).min(self.size)
    }

    /// Its length in bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.end().saturating_sub((self.index as u64).saturating_mul(self.length))
    }

    /// What is known of the part; none when it cannot be used.
    pub(super) fn sums(&self) -> Option<(usize, PartSums)> {
        let whole = self.length == PART && (self.index as u64) < self.size.div_ceil(PART);
        let hash = PartHash::subtree_from_hex(&self.blake3).filter(|_| whole)?;
        Some((self.index, PartSums { hash, pieces: self.pieces.clone() }))
    }
}

/// A line of the journal.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Line {
    /// The files below come from here.
    Source(String),
    /// A file is complete.
    File(Record),
    /// A part of a file is.
    Part(PartRecord),
}

/// What a journal says.
#[derive(Clone, Debug, Default)]
pub(super) struct Past {
    /// The latest line of each path.
    pub records: BTreeMap<String, Record>,
    /// Where records without a version come from, and the version there, by their path.
    pub earlier: BTreeMap<String, (String, String)>,
    /// Parts of files that are not complete, by the temporary name.
    pub parts: BTreeMap<String, Vec<PartRecord>>,
    /// Where the latest lines come from.
    pub source: Option<String>,
}

impl Past {
    fn add(&mut self, line: Line) {
        match line {
            Line::Source(place) => self.turn_to(place),
            Line::File(record) => {
                self.parts.remove(&record.temporary);
                self.earlier.remove(&record.path);
                self.records.insert(record.path.clone(), record);
            }
            Line::Part(part) => self.parts.entry(part.temporary.clone()).or_default().push(part),
        }
    }

    /// What is known does not come from the source that is read from here on: it is ours, and may be of use again.
    fn turn_to(&mut self, place: String) {
        let before = self.source.replace(place);
        if before == self.source {
            return;
        }
        self.parts.clear();
        for record in self.records.values_mut().filter(|record| !record.version.is_empty()) {
            let version = std::mem::take(&mut record.version);
            self.earlier.insert(record.path.clone(), (before.clone().unwrap_or_default(), version));
        }
    }

    /// Adds what another journal says of the same source, and returns what of it was news. Of two records of a file, the one
    /// counts whose file is there.
    fn join(&mut self, other: Self, is_there: impl Fn(&Record) -> bool) -> Vec<Line> {
        let mut news = Vec::new();
        for (path, record) in other.records {
            let known = self.records.get(&path);
            if known.is_none_or(|known| *known != record && is_there(&record) && !is_there(known)) {
                self.earlier.remove(&path);
                news.push(Line::File(record.clone()));
                self.records.insert(path, record);
            }
        }
        for (name, parts) in other.parts {
            news.extend(parts.iter().cloned().map(Line::Part));
            self.parts.entry(name).or_default().extend(parts);
        }
        news
    }
}

/// An open journal.
#[derive(Debug)]
pub(super) struct Journal {
    file: File,
}

impl Journal {
    /// Reads what it says, cuts off what a crash tore, and goes on for this source. Lines of another source still say what is
    /// ours, but have no version.
    pub(super) fn open(mut file: File, uri: &str) -> Result<(Self, Past), Failure> {
        let fail = |error: std::io::Error| Failure::of_io(&error, WHAT);
        let (mut past, good) = read(&file)?;
        file.set_len(good).map_err(fail)?;
        file.seek(SeekFrom::Start(good)).map_err(fail)?;
        let mut journal = Self { file };
        if past.source.as_deref() != Some(uri) {
            past.turn_to(uri.to_owned());
            journal.append(&[Line::Source(uri.to_owned())])?;
        }
        Ok((journal, past))
    }

    /// Appends lines and makes them durable. After an error the journal must not be used again.
    pub(super) fn append(&mut self, lines: &[Line]) -> Result<(), Failure> {
        let mut text = Vec::new();
        for line in lines {
            let json = serde_json::to_vec(line).map_err(|error| Failure::Volume(format!("{WHAT}: {error}")))?;
            text.extend_from_slice(check(&json).as_bytes());
            text.push(b' ');
            text.extend_from_slice(&json);
            text.push(b'\n');
        }
        let fail = |error: std::io::Error| Failure::of_io(&error, WHAT);
        self.file.write_all(&text).map_err(fail)?;
        self.file.sync_data().map_err(fail)
    }
}

/// What a journal says, and how many of its bytes are whole lines.
fn read(file: &File) -> Result<(Past, u64), Failure> {
    let mut past = Past::default();
    let mut good = 0;
    let mut reader = BufReader::new(file);
    let mut text = Vec::new();
    loop {
        text.clear();
        let mut line = reader.by_ref().take(LINE_LIMIT);
        let length = line.read_until(b'\n', &mut text).map_err(|error| Failure::of_io(&error, WHAT))?;
        match parse(&text) {
            Some(line) => past.add(line),
            None => return Ok((past, good)),
        }
        good += length as u64;
    }
}

/// Opens the journal of a worker that has this number, or that is alone, and reads what those of others say. Whoever is alone
/// takes over what the others wrote: then there is one journal again. `found` is what lies in the volume.
pub(super) fn of(
    workspace: &Workspace,
    worker: Option<u32>,
    uri: &str,
    found: &[Found],
) -> Result<(Journal, Past), Failure> {
    let own = worker.map_or_else(|| NAME.to_owned(), |worker| format!("{NAME}.{worker}"));
    let (mut journal, mut past) = Journal::open(workspace.journal(&own)?, uri)?;
    let numbered = format!("{NAME}.");
    let is_other = |name: &String| *name != own && (name == NAME || name.starts_with(&numbered));
    let others: Vec<String> = workspace.own_names()?.into_iter().filter(is_other).collect();
    let found: HashMap<&str, &Found> = found.iter().map(|found| (found.path.as_str(), found)).collect();
    let is_there = |record: &Record| {
        let in_place = found.get(record.path.as_str()).is_some_and(|found| record.is_of(found));
        !record.version.is_empty() && (in_place || workspace.is_staged(&record.temporary))
    };
    let mut news = Vec::new();
    for name in &others {
        let Some(file) = workspace.own_file(name)? else { continue };
        let (mut other, _) = read(&file)?;
        other.turn_to(uri.to_owned());
        news.extend(past.join(other, is_there));
    }
    if worker.is_none() && !others.is_empty() {
        workspace.step()?;
        journal.append(&news)?;
        others.iter().try_for_each(|name| workspace.remove_own(name))?;
        workspace.settle_own()?;
    }
    Ok((journal, past))
}

fn check(json: &[u8]) -> String {
    blake3::hash(json).to_hex()[..CHECK].to_owned()
}

fn parse(text: &[u8]) -> Option<Line> {
    let line = text.strip_suffix(b"\n")?;
    let (sum, json) = line.split_at_checked(CHECK)?;
    let json = json.strip_prefix(b" ")?;
    if sum != check(json).as_bytes() {
        return None;
    }
    serde_json::from_slice(json).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(path: &str, version: &str) -> Line {
        Line::File(Record {
            path: path.into(),
            size: 1,
            version: version.into(),
            blake3: "00".repeat(32),
            temporary: "t".into(),
            modified: "1.0".into(),
            verified: false,
            identity: None,
        })
    }

    fn part(index: usize) -> Line {
        Line::Part(PartRecord {
            path: "large".into(),
            size: 3 * PART,
            version: "1".into(),
            temporary: "u".into(),
            length: PART,
            index,
            blake3: "00".repeat(32),
            pieces: vec![Piece { at: 0, length: 5, crc: u64::MAX }],
        })
    }

    #[test]
    fn parts_count_until_their_file_is_complete() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        open_all(&path, "a").0.append(&[part(0), part(2)]).unwrap();
        let (mut journal, past) = open_all(&path, "a");
        let kept: Vec<_> = past.parts["u"].iter().filter_map(PartRecord::sums).collect();
        assert_eq!(kept.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [0, 2]);
        assert_eq!(kept[0].1.pieces, [Piece { at: 0, length: 5, crc: u64::MAX }]);
        let Line::Part(mut odd) = part(3) else { unreachable!() };
        assert_eq!(odd.sums(), None, "beyond the end");
        (odd.index, odd.length) = (0, PART / 2);
        assert_eq!(odd.sums(), None, "parts of another length");
        let Line::File(mut done) = record("large", "1") else { unreachable!() };
        done.temporary = "u".into();
        journal.append(&[Line::File(done)]).unwrap();
        assert!(open_all(&path, "a").1.parts.is_empty());
        journal.append(&[part(1)]).unwrap();
        assert!(open_all(&path, "b").1.parts.is_empty(), "of another source");
    }

    fn open_all(path: &std::path::Path, uri: &str) -> (Journal, Past) {
        let file = File::options().read(true).write(true).create(true).truncate(false).open(path).unwrap();
        Journal::open(file, uri).unwrap()
    }

    fn open(path: &std::path::Path, uri: &str) -> (Journal, BTreeMap<String, Record>) {
        let (journal, past) = open_all(path, uri);
        (journal, past.records)
    }

    #[test]
    fn the_latest_line_counts_and_a_torn_end_is_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let (mut journal, records) = open(&path, "s3://b/a");
        assert!(records.is_empty());
        journal.append(&[record("x\ny", "1"), record("z", "1")]).unwrap();
        journal.append(&[record("x\ny", "2")]).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for cut in 0..whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let (mut journal, records) = open(&path, "s3://b/a");
            assert!(records.len() <= 2);
            journal.append(&[record("new", "1")]).unwrap();
            let (_, again) = open(&path, "s3://b/a");
            assert_eq!(again.len(), records.len() + 1, "{cut}");
        }
        std::fs::write(&path, &whole).unwrap();
        assert_eq!(open(&path, "s3://b/a").1["x\ny"].version, "2");
    }

    #[test]
    fn a_damaged_line_ends_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        open(&path, "a").0.append(&[record("x", "1"), record("y", "1")]).unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        let end = bytes.len() - 5;
        bytes[end] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(open(&path, "a").1.into_keys().collect::<Vec<_>>(), ["x"]);
    }

    #[test]
    fn files_of_another_source_are_ours_without_a_version() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        open(&path, "a").0.append(&[record("x", "1")]).unwrap();
        let (mut journal, records) = open(&path, "b");
        assert_eq!(records["x"].version, "");
        journal.append(&[record("y", "1")]).unwrap();
        let (_, past) = open_all(&path, "b");
        let version = |path: &str| past.records[path].version.as_str();
        assert_eq!((version("x"), version("y")), ("", "1"));
        let earlier = |past: &Past, path: &str| past.earlier.get(path).cloned();
        assert_eq!((earlier(&past, "x"), earlier(&past, "y")), (Some(("a".into(), "1".into())), None));
        let (mut journal, past) = open_all(&path, "a");
        assert_eq!((past.records["y"].version.as_str(), earlier(&past, "y")), ("", Some(("b".into(), "1".into()))));
        assert_eq!((past.records["x"].version.as_str(), earlier(&past, "x")), ("", Some(("a".into(), "1".into()))));
        journal.append(&[record("x", "2")]).unwrap();
        assert_eq!(earlier(&open_all(&path, "c").1, "x"), Some(("a".into(), "2".into())));
    }
}
