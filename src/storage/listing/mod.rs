//! Gathers the pages of a listing: keys become files, folder markers are told apart from them. Pure, no I/O.

pub mod s3;

use crate::contract::manifest::is_reserved;

use super::{
    Checksum, Entry, Listing, StorageError,
    paths::{self, ENTRY_LIMIT},
};

/// Most pages in a row that name nothing: stores that filter send some, a broken one sends them for ever.
const EMPTY_PAGES: usize = 1000;

/// A key of a store without folders.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Object {
    /// The whole key.
    pub key: String,
    /// Size in bytes.
    pub size: u64,
    /// As [`Entry::version`].
    pub version: String,
    /// As [`Entry::checksum`].
    pub checksum: Option<Checksum>,
    /// As [`Entry::content`].
    pub content: Option<Checksum>,
}

/// Gathers the pages of a listing.
#[derive(Debug)]
pub struct Gathering {
    uri: String,
    /// With a slash at its end, or empty.
    prefix: String,
    entries: Vec<Entry>,
    markers: usize,
    /// Pages without a key since the last one with some.
    empty_pages: usize,
}

impl Gathering {
    /// For the keys below a path, which has no slash at its ends.
    #[must_use]
    pub fn new(uri: String, path: &str) -> Self {
        let prefix = if path.is_empty() { String::new() } else { format!("{path}/") };
        Self { uri, prefix, entries: Vec::new(), markers: 0, empty_pages: 0 }
    }

    /// What keys must begin with: whole segments, so that `step-1` does not bring `step-10`.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Takes a page.
    ///
    /// # Errors
    /// When a key cannot be a file of a volume, or there are too many.
    pub fn add(&mut self, objects: impl IntoIterator<Item = Object>) -> Result<(), StorageError> {
        let mut empty = true;
        for object in objects {
            empty = false;
            // Servers that ignore the prefix exist; what lies beside it is not ours to judge.
            let Some(path) = object.key.strip_prefix(&self.prefix).map(str::to_owned) else { continue };
            if object.size == 0 && (path.is_empty() || path.ends_with('/')) {
                self.markers += 1;
                continue;
            }
            paths::check(&path).map_err(|problem| {
                StorageError::InvalidPath(format!("the key {:?} cannot be a file: {problem}; rename it", object.key))
            })?;
            if is_reserved(&path) {
                return Err(StorageError::InvalidPath(format!(
                    "the key {:?} has a name that volumes use themselves; rename or remove it",
                    object.key
                )));
            }
            if self.entries.len() >= ENTRY_LIMIT {
                return Err(StorageError::InvalidPath(format!(
                    "{} has more than {ENTRY_LIMIT} files, the most that a checkpoint can have",
                    self.uri
                )));
            }
            let Object { size, version, checksum, content, .. } = object;
            self.entries.push(Entry { path, size, version, checksum, content });
        }
        self.empty_pages = if empty { self.empty_pages + 1 } else { 0 };
        if self.empty_pages > EMPTY_PAGES {
            return Err(StorageError::Unreachable(format!("the listing of {} goes on without an end", self.uri)));
        }
        Ok(())
    }

    /// The listing; none when there is nothing, not even a marker.
    ///
    /// # Errors
    /// When there are only markers, or files that cannot be together in a volume.
    pub fn finish(self) -> Result<Option<Listing>, StorageError> {
        let Self { mut entries, mut markers, uri, .. } = self;
        entries.sort_by(|left, right| left.path.cmp(&right.path));
        entries.dedup();
        let parents: std::collections::HashSet<String> =
            paths::folders(entries.iter().map(|entry| entry.path.as_str())).into_iter().map(str::to_owned).collect();
        let before = entries.len();
        entries.retain(|entry| entry.size > 0 || !parents.contains(&entry.path));
        markers += before - entries.len();
        if entries.is_empty() {
            return if markers == 0 {
                Ok(None)
            } else {
                Err(StorageError::Empty(format!("{uri} holds folder markers and no file")))
            };
        }
        if let Some(pair) = entries.windows(2).find(|pair| pair[0].path == pair[1].path) {
            return Err(StorageError::Changed(format!("{} was replaced while it was listed", pair[0].path)));
        }
        paths::check_clashes(&entries)?;
        Ok(Some(Listing { entries }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Keys<'a> = &'a [(&'a str, u64)];

    fn gather(path: &str, keys: Keys<'_>) -> Result<Option<Vec<String>>, StorageError> {
        let mut gathering = Gathering::new("s3://b".into(), path);
        gathering.add(keys.iter().map(|(key, size)| Object {
            key: (*key).into(),
            size: *size,
            version: "e".into(),
            checksum: None,
            content: None,
        }))?;
        Ok(gathering.finish()?.map(|listing| listing.entries.into_iter().map(|entry| entry.path).collect()))
    }

    #[test]
    fn keys_become_files_or_markers() {
        let table: &[(&str, Keys<'_>, &[&str])] = &[
            ("", &[("b", 1), ("a/c", 1), ("a-b", 0)], &["a-b", "a/c", "b"]),
            ("step-1", &[("step-1/", 0), ("step-1/x", 1), ("step-10/y", 1)], &["x"]),
            ("", &[("a", 0), ("a/b", 1), ("a/", 0), ("empty", 0)], &["a/b", "empty"]),
            ("", &[("a", 0), ("a/b", 0), ("a/b/c", 1)], &["a/b/c"]),
            ("p", &[("p/a b+c%20ü#?", 1)], &["a b+c%20ü#?"]),
        ];
        for (path, keys, expected) in table {
            assert_eq!(gather(path, keys).unwrap().unwrap(), *expected, "{keys:?}");
        }
    }

    #[test]
    fn what_cannot_be_a_checkpoint_is_said() {
        use crate::contract::Reason;
        let table: &[(Keys<'_>, Reason, &str)] = &[
            (&[("a//b", 1)], Reason::InvalidPath, "a//b"),
            (&[("/a", 1)], Reason::InvalidPath, "/a"),
            (&[("a/", 1)], Reason::InvalidPath, "a/"),
            (&[("a/../b", 1)], Reason::InvalidPath, "a/../b"),
            (&[("a\u{1}", 1)], Reason::InvalidPath, "a\\u{1}"),
            (&[("a", 1), ("a/b", 1)], Reason::InvalidPath, "a/b"),
            (&[(".checkpoint/manifest.json", 1)], Reason::InvalidPath, ".checkpoint"),
            (&[("lost+found/x", 1)], Reason::InvalidPath, "lost+found"),
            (&[("a/", 0), ("b/", 0)], Reason::Empty, "no file"),
            (&[("a", 1), ("a", 2)], Reason::SourceChanged, "a was replaced"),
        ];
        for (keys, reason, part) in table {
            let error = gather("", keys).unwrap_err();
            assert_eq!(error.reason(), *reason, "{keys:?}: {error}");
            assert!(error.to_string().contains(part), "{keys:?}: {error}");
        }
        assert_eq!(gather("a", &[("ab", 1)]).unwrap(), None);
        let mut endless = Gathering::new("s3://b".into(), "");
        let error = (0..=EMPTY_PAGES).find_map(|_| endless.add([]).err()).unwrap();
        assert_eq!(error.reason(), Reason::Unreachable);
    }
}
