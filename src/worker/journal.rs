//! What loads have put into a volume, in `.checkpoint/journal`: one checked line a file, only ever appended. Does I/O, blocking.
//!
//! A line is written after the file's bytes are durable under a temporary name and before it gets its own name. So
//! every file of ours has a line, and a file without one is somebody else's.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufRead, BufReader, Seek, SeekFrom, Write},
};

use serde::{Deserialize, Serialize};

use super::failure::Failure;

/// The journal's name below [`crate::contract::manifest::FOLDER`].
pub(super) const NAME: &str = "journal";
const WHAT: &str = ".checkpoint/journal";
const CHECK: usize = 16;

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
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
enum Line {
    /// The files below come from here.
    Source(String),
    File(Record),
}

/// An open journal.
#[derive(Debug)]
pub(super) struct Journal {
    file: File,
}

impl Journal {
    /// Reads the latest line of each path, cuts off what a crash tore, and goes on for this source. Lines of another source
    /// still say what is ours, but have no version.
    pub(super) fn open(mut file: File, uri: &str) -> Result<(Self, BTreeMap<String, Record>), Failure> {
        let fail = |error: std::io::Error| Failure::of_io(&error, WHAT);
        let mut records: BTreeMap<String, Record> = BTreeMap::new();
        let (mut good, mut source) = (0, None);
        let mut reader = BufReader::new(&file);
        let mut text = Vec::new();
        loop {
            text.clear();
            let length = reader.read_until(b'\n', &mut text).map_err(fail)?;
            match parse(&text) {
                Some(Line::File(record)) => _ = records.insert(record.path.clone(), record),
                Some(Line::Source(place)) => {
                    if source.as_ref() != Some(&place) {
                        forget_versions(&mut records);
                    }
                    source = Some(place);
                }
                None => break,
            }
            good += length as u64;
        }
        if source.as_deref() != Some(uri) {
            forget_versions(&mut records);
        }
        file.set_len(good).map_err(fail)?;
        file.seek(SeekFrom::Start(good)).map_err(fail)?;
        let mut journal = Self { file };
        if source.as_deref() != Some(uri) {
            journal.write(&[Line::Source(uri.to_owned())])?;
        }
        Ok((journal, records))
    }

    /// Appends lines and makes them durable. After an error the journal must not be used again.
    pub(super) fn append(&mut self, records: &[Record]) -> Result<(), Failure> {
        let lines: Vec<_> = records.iter().cloned().map(Line::File).collect();
        self.write(&lines)
    }

    fn write(&mut self, lines: &[Line]) -> Result<(), Failure> {
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

fn forget_versions(records: &mut BTreeMap<String, Record>) {
    for record in records.values_mut() {
        record.version.clear();
    }
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

    fn record(path: &str, version: &str) -> Record {
        Record {
            path: path.into(),
            size: 1,
            version: version.into(),
            blake3: "00".repeat(32),
            temporary: "t".into(),
            modified: "1.0".into(),
        }
    }

    fn open(path: &std::path::Path, uri: &str) -> (Journal, BTreeMap<String, Record>) {
        let file = File::options().read(true).write(true).create(true).truncate(false).open(path).unwrap();
        Journal::open(file, uri).unwrap()
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
        let (_, records) = open(&path, "b");
        assert_eq!((records["x"].version.as_str(), records["y"].version.as_str()), ("", "1"));
        assert_eq!(open(&path, "a").1["y"].version, "");
    }
}
