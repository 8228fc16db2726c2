//! What a load has to do in a volume: keep, finish, fetch, remove. Pure, no I/O.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::{contract::manifest::Manifest, storage::Entry};

use super::{
    failure::Failure,
    journal::{PartRecord, Past, Record},
    volume::{Found, Staged},
};

/// What is to be done, so that the volume holds the wanted files and nothing else.
#[derive(Debug, Default, Eq, PartialEq)]
pub(super) struct Work {
    /// In place already.
    pub keep: Vec<Record>,
    /// Complete under a temporary name.
    pub finish: Vec<Record>,
    /// To be copied.
    pub fetch: Vec<Entry>,
    /// Parts of files to be copied that are durable under a temporary name.
    pub resume: BTreeMap<String, Resume>,
    /// Ours and not wanted any more.
    pub remove: Vec<String>,
    /// Temporary names that are of no use.
    pub discard: Vec<String>,
}

/// A file that an earlier attempt began.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Resume {
    /// Its name in the staging folder.
    pub temporary: String,
    /// Bytes that the file system has set aside for it.
    pub allocated: u64,
    /// Its durable parts, by their index.
    pub parts: BTreeMap<usize, PartRecord>,
    /// Whether it may have to be made: several workers write it, and no part of it is known.
    pub create: bool,
}

impl Resume {
    /// Bytes of the durable parts.
    pub(super) fn bytes(&self) -> u64 {
        self.parts.values().map(PartRecord::bytes).sum()
    }
}

/// What was found in a volume.
#[derive(Debug, Default)]
pub(super) struct Inventory {
    pub past: Past,
    pub manifest: Option<Manifest>,
    pub found: Vec<Found>,
    pub staged: Vec<Staged>,
}

impl Inventory {
    /// Decides. What is in the volume and not ours is a conflict.
    pub(super) fn work(&self, wanted: &[Entry]) -> Result<Work, Failure> {
        let listed: BTreeSet<&str> = match &self.manifest {
            Some(manifest) => manifest.files.iter().map(|file| file.path.as_str()).collect(),
            None => BTreeSet::new(),
        };
        for found in &self.found {
            let ours = self.past.records.contains_key(&found.path) || listed.contains(found.path.as_str());
            if !found.is_file || !ours {
                return Err(Failure::Conflict(format!(
                    "{} is in the volume and was not put there by a load: it is left alone; use an empty volume",
                    found.path
                )));
            }
        }
        let found: HashMap<&str, &Found> = self.found.iter().map(|found| (found.path.as_str(), found)).collect();
        let mut staged: HashMap<&str, u64> =
            self.staged.iter().map(|staged| (staged.name.as_str(), staged.size)).collect();
        let mut work = Work::default();
        for entry in wanted {
            let record = self.past.records.get(&entry.path).filter(|record| {
                !entry.version.is_empty() && record.version == entry.version && record.size == entry.size
            });
            let Some(record) = record else {
                work.fetch.push(entry.clone());
                continue;
            };
            let in_place = found.get(entry.path.as_str()).is_some_and(|found| record.is_of(found));
            // The temporary name goes with the rename: while it is there, what has the path is an older version.
            if staged.remove(record.temporary.as_str()) == Some(record.size) {
                work.finish.push(record.clone());
            } else if in_place {
                work.keep.push(record.clone());
            } else {
                work.fetch.push(entry.clone());
            }
        }
        work.resume = work.fetch.iter().filter_map(|entry| Some((entry.path.clone(), self.begun(entry)?))).collect();
        let wanted: BTreeSet<&str> = wanted.iter().map(|entry| entry.path.as_str()).collect();
        work.remove = self
            .found
            .iter()
            .map(|found| &found.path)
            .filter(|path| !wanted.contains(path.as_str()))
            .cloned()
            .collect();
        let finished = work.finish.iter().map(|record| record.temporary.as_str());
        let useful: BTreeSet<&str> =
            finished.chain(work.resume.values().map(|begun| begun.temporary.as_str())).collect();
        work.discard = self
            .staged
            .iter()
            .map(|staged| &staged.name)
            .filter(|name| !useful.contains(name.as_str()))
            .cloned()
            .collect();
        Ok(work)
    }

    /// What an earlier attempt left of a file: the one with the most parts, if there are several.
    fn begun(&self, entry: &Entry) -> Option<Resume> {
        let candidate = |staged: &Staged| {
            let parts = self.past.parts.get(&staged.name)?.iter().filter(|part| {
                let same = part.path == entry.path && part.size == entry.size && part.version == entry.version;
                same && part.sums().is_some() && part.end() <= staged.size
            });
            let (temporary, allocated) = (staged.name.clone(), staged.allocated);
            Some(Resume { temporary, allocated, parts: agreed(parts), create: false })
        };
        let known = self.staged.iter().filter(|_| !entry.version.is_empty()).filter_map(candidate);
        // Several workers come to the same choice.
        known.filter(|begun| !begun.parts.is_empty()).max_by_key(|begun| (begun.parts.len(), begun.temporary.clone()))
    }

    /// Whether a journal speaks of a file with this temporary name that is not there any more: whatever gets the name now is not
    /// what the journal means.
    pub(super) fn is_spent(&self, name: &str) -> bool {
        let is_begun = self.past.parts.contains_key(name) && !self.staged.iter().any(|staged| staged.name == name);
        is_begun || self.past.records.values().any(|record| record.temporary == name)
    }
}

/// The parts that all lines agree on: of two writers, nobody knows who was the last.
fn agreed<'a>(lines: impl Iterator<Item = &'a PartRecord>) -> BTreeMap<usize, PartRecord> {
    let (mut parts, mut unsure) = (BTreeMap::<usize, PartRecord>::new(), BTreeSet::new());
    for line in lines {
        if parts.insert(line.index, line.clone()).is_some_and(|other| other.blake3 != line.blake3) {
            unsure.insert(line.index);
        }
    }
    parts.retain(|index, _| !unsure.contains(index));
    parts
}

/// Bytes on a file system with blocks of 4 KiB.
pub(super) fn blocks<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> u64 {
    const BLOCK: u64 = 4096;
    entries.into_iter().fold(0u64, |sum, entry| sum.saturating_add(entry.size.div_ceil(BLOCK).saturating_mul(BLOCK)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::transfer::hash::PART;

    fn entry(path: &str, version: &str) -> Entry {
        Entry { path: path.into(), size: 5, version: version.into(), checksum: None, content: None }
    }

    fn record(path: &str, version: &str) -> Record {
        Record {
            path: path.into(),
            size: 5,
            version: version.into(),
            blake3: String::new(),
            temporary: format!("t-{path}"),
            modified: "1".into(),
            verified: false,
            identity: None,
        }
    }

    fn found(path: &str) -> Found {
        Found { path: path.into(), size: 5, modified: "1".into(), is_file: true }
    }

    fn staged(name: &str, size: u64) -> Staged {
        Staged { name: name.into(), size, allocated: size }
    }

    fn inventory(records: &[Record], found: &[Found], names: &[&str]) -> Inventory {
        let records = records.iter().map(|record| (record.path.clone(), record.clone())).collect();
        Inventory {
            past: Past { records, ..Past::default() },
            manifest: None,
            found: found.to_vec(),
            staged: names.iter().map(|name| staged(name, 5)).collect(),
        }
    }

    #[test]
    fn what_was_begun_goes_on_unless_anything_is_different() {
        let part = |temporary: &str, index| PartRecord {
            path: "large".into(),
            size: 3 * PART,
            version: "1".into(),
            temporary: temporary.into(),
            length: PART,
            index,
            blake3: "00".repeat(32),
            pieces: vec![],
        };
        let mut inventory = inventory(&[], &[], &["t-other"]);
        inventory.staged.extend([staged("a", 3 * PART), staged("b", 3 * PART), staged("short", PART)]);
        for (name, indices) in [("a", vec![0]), ("b", vec![0, 2, 2]), ("short", vec![0, 1, 2]), ("gone", vec![0, 1, 2])]
        {
            let parts = indices.into_iter().map(|index| part(name, index)).collect();
            inventory.past.parts.insert(name.into(), parts);
        }
        let large = |version: &str, size| Entry { size, ..entry("large", version) };
        let work = inventory.work(&[large("1", 3 * PART)]).unwrap();
        let begun = &work.resume["large"];
        assert_eq!((begun.temporary.as_str(), begun.bytes()), ("b", 2 * PART));
        assert_eq!(work.discard, ["t-other", "a", "short"]);
        for other in [large("2", 3 * PART), large("", 3 * PART), large("1", 4 * PART), entry("small", "1")] {
            let work = inventory.work(&[other]).unwrap();
            assert_eq!((work.resume.len(), work.discard.len()), (0, 4));
        }
    }

    #[test]
    fn parts_that_lines_disagree_on_do_not_count() {
        let line = |index, hash: &str| PartRecord {
            path: "large".into(),
            size: 3 * PART,
            version: "1".into(),
            temporary: "t".into(),
            length: PART,
            index,
            blake3: hash.repeat(32),
            pieces: vec![],
        };
        let lines = [line(0, "00"), line(1, "00"), line(2, "00"), line(0, "11"), line(2, "00"), line(0, "00")];
        assert_eq!(agreed(lines.iter()).into_keys().collect::<Vec<_>>(), [1, 2]);
    }

    #[test]
    fn each_file_has_its_turn() {
        let kept = record("keep", "1");
        let finished = record("finish", "1");
        let inventory = inventory(
            &[
                kept.clone(),
                finished.clone(),
                record("changed", "1"),
                record("lost", "1"),
                record("old", "1"),
                record("stale", ""),
            ],
            &[found("keep"), found("finish"), found("changed"), found("old"), found("stale")],
            &["t-finish", "t-rest"],
        );
        let wanted = [
            entry("keep", "1"),
            entry("finish", "1"),
            entry("changed", "2"),
            entry("lost", "1"),
            entry("new", "1"),
            entry("stale", ""),
        ];
        let work = inventory.work(&wanted).unwrap();
        assert_eq!(work.keep, [kept]);
        assert_eq!(work.finish, [finished]);
        assert_eq!(
            work.fetch.iter().map(|entry| entry.path.as_str()).collect::<Vec<_>>(),
            ["changed", "lost", "new", "stale"]
        );
        assert_eq!(work.remove, ["old"]);
        assert_eq!(work.discard, ["t-rest"]);
    }

    #[test]
    fn what_was_touched_is_fetched_again() {
        let touched = Found { modified: "2".into(), ..found("a") };
        let shorter = Found { size: 4, ..found("b") };
        let inventory = inventory(&[record("a", "1"), record("b", "1")], &[touched, shorter], &[]);
        assert_eq!(inventory.work(&[entry("a", "1"), entry("b", "1")]).unwrap().fetch.len(), 2);
    }

    #[test]
    fn what_is_not_ours_is_a_conflict() {
        let link = Found { is_file: false, ..found("a") };
        for (records, found) in [(&[][..], found("a")), (&[record("a", "1")], link)] {
            let conflict = inventory(records, &[found], &[]).work(&[entry("a", "1")]).unwrap_err();
            assert!(
                matches!(&conflict, Failure::Conflict(text) if text.starts_with("a is in the volume")),
                "{conflict}"
            );
        }
    }
}
