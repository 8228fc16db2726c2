//! What a load has to do in a volume: keep, finish, fetch, remove. Pure, no I/O.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::{contract::manifest::Manifest, storage::Entry};

use super::{failure::Failure, journal::Record, volume::Found};

/// What is to be done, so that the volume holds the wanted files and nothing else.
#[derive(Debug, Default, Eq, PartialEq)]
pub(super) struct Work {
    /// In place already.
    pub keep: Vec<Record>,
    /// Complete under a temporary name.
    pub finish: Vec<Record>,
    /// To be copied.
    pub fetch: Vec<Entry>,
    /// Ours and not wanted any more.
    pub remove: Vec<String>,
    /// Temporary names that are of no use.
    pub discard: Vec<String>,
}

/// What was found in a volume.
#[derive(Debug, Default)]
pub(super) struct Inventory {
    pub records: BTreeMap<String, Record>,
    pub manifest: Option<Manifest>,
    pub found: Vec<Found>,
    pub staged: Vec<(String, u64)>,
}

impl Inventory {
    /// Decides. What is in the volume and not ours is a conflict.
    pub(super) fn work(&self, wanted: &[Entry]) -> Result<Work, Failure> {
        let listed: BTreeSet<&str> = match &self.manifest {
            Some(manifest) => manifest.files.iter().map(|file| file.path.as_str()).collect(),
            None => BTreeSet::new(),
        };
        for found in &self.found {
            let ours = self.records.contains_key(&found.path) || listed.contains(found.path.as_str());
            if !found.is_file || !ours {
                return Err(Failure::Conflict(format!(
                    "{} is in the volume and was not put there by a load: it is left alone; use an empty volume",
                    found.path
                )));
            }
        }
        let found: HashMap<&str, &Found> = self.found.iter().map(|found| (found.path.as_str(), found)).collect();
        let mut staged: HashMap<&str, u64> = self.staged.iter().map(|(name, size)| (name.as_str(), *size)).collect();
        let mut work = Work::default();
        for entry in wanted {
            let record = self.records.get(&entry.path).filter(|record| {
                !entry.version.is_empty() && record.version == entry.version && record.size == entry.size
            });
            let Some(record) = record else {
                work.fetch.push(entry.clone());
                continue;
            };
            let in_place = found
                .get(entry.path.as_str())
                .is_some_and(|found| found.size == record.size && found.modified == record.modified);
            // The temporary name goes with the rename: while it is there, what has the path is an older version.
            if staged.remove(record.temporary.as_str()) == Some(record.size) {
                work.finish.push(record.clone());
            } else if in_place {
                work.keep.push(record.clone());
            } else {
                work.fetch.push(entry.clone());
            }
        }
        let wanted: BTreeSet<&str> = wanted.iter().map(|entry| entry.path.as_str()).collect();
        work.remove = self
            .found
            .iter()
            .map(|found| &found.path)
            .filter(|path| !wanted.contains(path.as_str()))
            .cloned()
            .collect();
        let finished: BTreeSet<&str> = work.finish.iter().map(|record| record.temporary.as_str()).collect();
        work.discard = self
            .staged
            .iter()
            .map(|(name, _)| name)
            .filter(|name| !finished.contains(name.as_str()))
            .cloned()
            .collect();
        Ok(work)
    }
}

/// Bytes on a file system with blocks of 4 KiB.
pub(super) fn blocks<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> u64 {
    const BLOCK: u64 = 4096;
    entries.into_iter().fold(0u64, |sum, entry| sum.saturating_add(entry.size.div_ceil(BLOCK).saturating_mul(BLOCK)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str, version: &str) -> Entry {
        Entry { path: path.into(), size: 5, version: version.into(), checksum: None }
    }

    fn record(path: &str, version: &str) -> Record {
        Record {
            path: path.into(),
            size: 5,
            version: version.into(),
            blake3: String::new(),
            temporary: format!("t-{path}"),
            modified: "1".into(),
        }
    }

    fn found(path: &str) -> Found {
        Found { path: path.into(), size: 5, modified: "1".into(), is_file: true }
    }

    fn inventory(records: &[Record], found: &[Found], staged: &[&str]) -> Inventory {
        Inventory {
            records: records.iter().map(|record| (record.path.clone(), record.clone())).collect(),
            manifest: None,
            found: found.to_vec(),
            staged: staged.iter().map(|name| ((*name).to_owned(), 5)).collect(),
        }
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
