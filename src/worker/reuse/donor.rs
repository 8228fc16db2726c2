//! Which file that is there may hold what is to be fetched, and what must be seen in its bytes to believe it. Pure, no I/O.
//!
//! What a manifest or journal says only points at a file. Its bytes are hashed in any case, and must give the BLAKE3 that was
//! recorded when they were loaded. Beyond that, one of these must hold, see [`means`]:
//!
//! - the same version of the same file of the same source: what the journal goes by, too;
//! - the bytes have the SHA-256 or the MD5 that the source has of the file now: it does not matter where they come from;
//! - the source has the same tag for both files, and the bytes have the CRC-64 of 64 bits that it has now. Tags of S3 are made
//!   from MD5s of what was uploaded. A CRC alone proves nothing, see [`Checksum::is_strong`].
//!
//! Parts of a file count by SHA-256 or MD5 of the ranges that its store keeps sums of, and by nothing else.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use crate::{
    contract::manifest::Manifest,
    storage::{Checksum, Entry, Window},
    worker::{journal::Past, transfer::hash::PART, volume::Found},
};

/// Whose file it is.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(in crate::worker) enum Owner {
    /// The volume that is filled.
    Own,
    /// The claim that the volume entry names.
    Sibling,
}

/// A file that is there.
#[derive(Clone, Debug)]
pub(in crate::worker) struct Donor {
    pub owner: Owner,
    /// Path below the root of its volume.
    pub path: String,
    pub size: u64,
    /// What its bytes hashed to when they were loaded.
    pub blake3: blake3::Hash,
    /// Where they came from.
    pub uri: Arc<str>,
    /// The version there; empty when it is not known.
    pub version: String,
    /// [`Entry::identity`] of then, as text.
    pub identity: Option<String>,
    /// Whether they were compared with a checksum of that source.
    pub verified: bool,
    /// The modification time that it must still have; none where that was not written down.
    pub modified: Option<String>,
}

/// Why a donor may be what is wanted, the best reason first.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(in crate::worker) enum Likeness {
    /// The same version of the same file.
    Version,
    /// The same sum at the source.
    Sum,
    /// The same tag at a store of S3, of an object that was uploaded in parts.
    Tag,
    /// The same path: some of it may be the same.
    Name,
}

/// How a donor is used.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(in crate::worker) enum Means {
    /// As it is, when its bytes sum up to these windows.
    Whole(Vec<Window>),
    /// The parts whose bytes sum up to these windows.
    Parts(Vec<Window>),
}

/// The files of a volume that loads have put there.
pub(in crate::worker) fn own(past: &Past, found: &[Found], uri: &str) -> Vec<Donor> {
    let uri: Arc<str> = uri.into();
    let donor = |found: &Found| {
        let record = past.records.get(&found.path).filter(|record| record.is_of(found))?;
        let (uri, version) = match past.earlier.get(&found.path) {
            Some((uri, version)) => (Arc::from(uri.as_str()), version.clone()),
            None => (Arc::clone(&uri), record.version.clone()),
        };
        Some(Donor {
            owner: Owner::Own,
            path: found.path.clone(),
            size: found.size,
            blake3: blake3::Hash::from_hex(&record.blake3).ok()?,
            uri,
            version,
            identity: record.identity.clone(),
            verified: record.verified,
            modified: Some(record.modified.clone()),
        })
    };
    found.iter().filter_map(donor).collect()
}

/// The files of a claim with this manifest.
pub(in crate::worker) fn sibling(manifest: Manifest) -> Vec<Donor> {
    let uri: Arc<str> = manifest.uri.into();
    let donors = manifest.files.into_iter().filter_map(|file| {
        Some(Donor {
            owner: Owner::Sibling,
            size: file.size,
            blake3: blake3::Hash::from_hex(&file.blake3).ok()?,
            path: file.path,
            uri: Arc::clone(&uri),
            version: file.version,
            identity: file.identity,
            verified: file.verified,
            modified: None,
        })
    });
    donors.collect()
}

/// The tag of an object that was uploaded in parts: an MD5 of their MD5s, and their number.
fn is_tag_of_parts(version: &str) -> bool {
    let digits = version.trim_matches('"').rsplit_once('-');
    digits.is_some_and(|(sum, parts)| Checksum::md5_of_tag(sum).is_some() && parts.parse::<u32>().is_ok())
}

/// The donors, by what may tell that they are wanted.
pub(in crate::worker) struct Donors {
    all: Vec<Donor>,
    by_path: HashMap<String, Vec<usize>>,
    by_sum: HashMap<String, Vec<usize>>,
}

impl Donors {
    pub(in crate::worker) fn new(donors: Vec<Donor>) -> Self {
        let (mut by_path, mut by_sum): (HashMap<_, Vec<_>>, HashMap<_, Vec<_>>) = Default::default();
        for (index, donor) in donors.iter().enumerate() {
            by_path.entry(donor.path.clone()).or_default().push(index);
            let tag = Some(&donor.version).filter(|version| is_tag_of_parts(version));
            for sum in donor.identity.iter().chain(tag) {
                by_sum.entry(sum.clone()).or_default().push(index);
            }
        }
        Self { all: donors, by_path, by_sum }
    }

    /// The best donor for a file of the source at `uri`.
    pub(in crate::worker) fn best(&self, entry: &Entry, uri: &str) -> Option<(&Donor, Likeness)> {
        if entry.size == 0 {
            return None;
        }
        let sum = entry.identity().map(|sum| sum.to_string());
        let same = |index: &HashMap<String, Vec<usize>>, key: &str| index.get(key).cloned().unwrap_or_default();
        let mut near: BTreeSet<usize> = same(&self.by_path, &entry.path).into_iter().collect();
        near.extend(same(&self.by_sum, &entry.version));
        near.extend(sum.iter().flat_map(|sum| same(&self.by_sum, sum)));
        let likeness = |donor: &Donor| {
            let same_size = donor.size == entry.size;
            let same_path = donor.path == entry.path;
            if same_size
                && same_path
                && !entry.version.is_empty()
                && donor.version == entry.version
                && *donor.uri == *uri
            {
                Some(Likeness::Version)
            } else if same_size && sum.is_some() && donor.identity == sum {
                Some(Likeness::Sum)
            } else if same_size && donor.version == entry.version && is_tag_of_parts(&entry.version) {
                Some(Likeness::Tag)
            } else {
                // The sums of then and now are known and differ: what was uploaded at once has no sums of parts.
                let changed = sum.is_some() && donor.identity.is_some();
                (same_path && !changed).then_some(Likeness::Name)
            }
        };
        let known = near.iter().filter_map(|index| self.all.get(*index));
        known.filter_map(|donor| Some((donor, likeness(donor)?))).min_by_key(|(donor, like)| (*like, donor.owner))
    }
}

/// How the donor can be used for a file of which the store holds these sums; none when nothing would prove that it is the same.
pub(in crate::worker) fn means(entry: &Entry, donor: &Donor, like: Likeness, windows: Vec<Window>) -> Option<Means> {
    let whole = |checksum| vec![Window { range: 0..entry.size, checksum }];
    let covered: u64 = windows.iter().map(|window| window.range.end.saturating_sub(window.range.start)).sum();
    let covered = covered == entry.size;
    let strong = !windows.is_empty() && windows.iter().all(|window| window.checksum.is_strong());
    let crc64 = windows.iter().all(|window| matches!(window.checksum, Checksum::Crc64Nvme(_)));
    let one = windows.len() == 1;
    match like {
        Likeness::Version => Some(Means::Whole(Vec::new())),
        Likeness::Sum if covered && (strong || crc64) => Some(Means::Whole(windows)),
        Likeness::Sum => entry.identity().map(whole).map(Means::Whole),
        Likeness::Tag => (covered && (strong || crc64)).then_some(Means::Whole(windows)),
        Likeness::Name if strong && one && covered => (donor.size == entry.size).then_some(Means::Whole(windows)),
        Likeness::Name if strong => (entry.size > PART).then_some(Means::Parts(windows)),
        Likeness::Name => entry.identity().filter(|_| donor.size == entry.size).map(whole).map(Means::Whole),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const URI: &str = "s3://bucket/step-2";
    const TAG: &str = "\"0123456789abcdef0123456789abcdef-3\"";
    const OTHER_TAG: &str = "\"1123456789abcdef0123456789abcdef-3\"";
    const SIZE: u64 = 3 * PART;

    fn md5(byte: u8) -> Checksum {
        Checksum::Md5([byte; 16])
    }

    fn entry(version: &str, content: Option<Checksum>) -> Entry {
        Entry { path: "a".into(), size: SIZE, version: version.into(), checksum: None, content }
    }

    fn donor(path: &str, version: &str, identity: Option<Checksum>) -> Donor {
        Donor {
            owner: Owner::Sibling,
            path: path.into(),
            size: SIZE,
            blake3: blake3::hash(b""),
            uri: "s3://bucket/step-1".into(),
            version: version.into(),
            identity: identity.map(|sum| sum.to_string()),
            verified: true,
            modified: None,
        }
    }

    #[test]
    fn the_best_reason_wins() {
        let here = |donor: Donor| Donor { uri: URI.into(), ..donor };
        let table = [
            (entry("1", None), vec![here(donor("a", "1", None))], Some(("a", Likeness::Version))),
            (entry("1", None), vec![donor("a", "1", None)], Some(("a", Likeness::Name))),
            (entry("", None), vec![here(donor("a", "", None))], Some(("a", Likeness::Name))),
            (entry("1", None), vec![here(donor("b", "1", None))], None),
            (entry("2", Some(md5(1))), vec![donor("b", "1", Some(md5(1)))], Some(("b", Likeness::Sum))),
            (entry("2", Some(md5(1))), vec![donor("b", "1", Some(md5(2)))], None),
            (
                entry("2", Some(md5(1))),
                vec![donor("a", "1", None), donor("b", "1", Some(md5(1)))],
                Some(("b", Likeness::Sum)),
            ),
            (entry(TAG, None), vec![donor("b", TAG, None)], Some(("b", Likeness::Tag))),
            (entry(TAG, None), vec![donor("b", OTHER_TAG, None)], None),
            (entry("2", Some(md5(1))), vec![donor("a", "1", Some(md5(2)))], None),
            (entry("2", Some(md5(1))), vec![donor("a", "1", None)], Some(("a", Likeness::Name))),
            (entry("2", None), vec![donor("a", "1", Some(md5(2)))], Some(("a", Likeness::Name))),
            // A tag of another shape may be a time and a length.
            (entry("\"5f3e-1a\"", None), vec![donor("b", "\"5f3e-1a\"", None)], None),
        ];
        for (entry, donors, expected) in table {
            let shown = format!("{entry:?} {donors:?}");
            let donors = Donors::new(donors);
            let best = donors.best(&entry, URI).map(|(donor, like)| (donor.path.as_str(), like));
            assert_eq!(best, expected, "{shown}");
        }
    }

    #[test]
    fn another_size_is_another_file_and_the_own_volume_comes_first() {
        let wanted = entry(TAG, Some(md5(1)));
        let shorter = Donor { size: SIZE - 1, ..donor("b", TAG, Some(md5(1))) };
        assert!(Donors::new(vec![shorter]).best(&wanted, URI).is_none());
        let shorter = Donor { size: SIZE - 1, ..donor("a", TAG, None) };
        assert_eq!(Donors::new(vec![shorter]).best(&wanted, URI).unwrap().1, Likeness::Name);
        let both = vec![donor("b", "1", Some(md5(1))), Donor { owner: Owner::Own, ..donor("c", "1", Some(md5(1))) }];
        assert_eq!(Donors::new(both).best(&wanted, URI).unwrap().0.path, "c");
        let empty = Entry { size: 0, ..wanted };
        assert!(Donors::new(vec![Donor { size: 0, ..donor("a", TAG, Some(md5(1))) }]).best(&empty, URI).is_none());
    }

    #[test]
    fn only_what_proves_equality_counts() {
        let whole = |checksum| vec![Window { range: 0..SIZE, checksum }];
        let halves = |checksum| vec![Window { range: 0..PART, checksum }, Window { range: PART..SIZE, checksum }];
        let crc64 = Checksum::Crc64Nvme(1);
        let crc32 = Checksum::Crc32C(1);
        let sha = Checksum::Sha256([1; 32]);
        let plain = entry("2", None);
        let tagged = entry("2", Some(md5(1)));
        let bare = donor("a", "1", None);
        let summed = donor("a", "1", Some(md5(2)));
        let table = [
            (&plain, &bare, Likeness::Version, vec![], Some(Means::Whole(vec![]))),
            // The same MD5 at the source, and the CRC-64 of the bytes: or else their MD5.
            (&tagged, &summed, Likeness::Sum, whole(crc64), Some(Means::Whole(whole(crc64)))),
            (&tagged, &summed, Likeness::Sum, whole(crc32), Some(Means::Whole(whole(md5(1))))),
            (&tagged, &summed, Likeness::Sum, vec![], Some(Means::Whole(whole(md5(1))))),
            (&plain, &bare, Likeness::Tag, whole(crc64), Some(Means::Whole(whole(crc64)))),
            (&plain, &bare, Likeness::Tag, halves(sha), Some(Means::Whole(halves(sha)))),
            (&plain, &bare, Likeness::Tag, whole(crc32), None),
            (&plain, &bare, Likeness::Tag, halves(crc64)[..1].to_vec(), None),
            (&plain, &bare, Likeness::Tag, vec![], None),
            // A CRC alone is nothing to go by.
            (&plain, &bare, Likeness::Name, whole(crc64), None),
            (&plain, &bare, Likeness::Name, halves(crc32), None),
            (&plain, &bare, Likeness::Name, vec![], None),
            (&plain, &bare, Likeness::Name, whole(sha), Some(Means::Whole(whole(sha)))),
            (&plain, &bare, Likeness::Name, halves(sha), Some(Means::Parts(halves(sha)))),
            (&plain, &bare, Likeness::Name, halves(sha)[..1].to_vec(), Some(Means::Parts(halves(sha)[..1].to_vec()))),
            // A manifest that does not know the sum.
            (&tagged, &bare, Likeness::Name, vec![], Some(Means::Whole(whole(md5(1))))),
        ];
        for (entry, donor, like, windows, expected) in table {
            assert_eq!(means(entry, donor, like, windows.clone()), expected, "{entry:?} {like:?} {windows:?}");
        }
        let longer = Donor { size: SIZE + 1, ..bare };
        assert_eq!(means(&plain, &longer, Likeness::Name, whole(sha)), None);
        assert_eq!(means(&tagged, &longer, Likeness::Name, vec![]), None);
        assert_eq!(means(&plain, &longer, Likeness::Name, halves(sha)), Some(Means::Parts(halves(sha))));
    }
}
