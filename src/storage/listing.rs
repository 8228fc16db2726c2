//! Lists a bucket as it is: keys whole, folder markers told apart from files. Parsing is pure; requests are made by the caller.
//!
//! `object_store` drops slashes at the ends of keys, which makes a marker `a/` look like an empty file `a`, and refuses
//! whole pages for one odd key. The XML is that of `ListObjectsV2`:
//! <https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjectsV2.html>.

use serde::Deserialize;

use crate::contract::manifest::is_reserved;

use super::{
    Entry, Listing, StorageError,
    paths::{self, ENTRY_LIMIT},
};

/// A page of keys.
#[derive(Debug, Deserialize)]
#[serde(rename = "ListBucketResult", rename_all = "PascalCase")]
pub struct Page {
    /// The keys.
    #[serde(default)]
    pub contents: Vec<Object>,
    /// Whether there are more pages.
    #[serde(default)]
    pub is_truncated: bool,
    /// What to ask for the next one with.
    #[serde(default)]
    pub next_continuation_token: Option<String>,
}

/// A key.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Object {
    /// The whole key.
    pub key: String,
    /// Size in bytes.
    pub size: u64,
    /// What tells versions apart, with its quotes.
    #[serde(rename = "ETag", default)]
    pub e_tag: String,
}

impl Page {
    /// Parses the body of an answer; none when it is something else.
    #[must_use]
    pub fn parse(body: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(body).ok()?;
        if !text.contains("<ListBucketResult") {
            return None;
        }
        quick_xml::de::from_str(text).ok()
    }
}

/// Gathers the pages of a listing.
#[derive(Debug)]
pub struct Gathering {
    uri: String,
    /// With a slash at its end, or empty.
    prefix: String,
    entries: Vec<Entry>,
    markers: usize,
}

impl Gathering {
    /// Of the keys below a path in the bucket; the URI is for messages.
    #[must_use]
    pub fn new(uri: String, path: &str) -> Self {
        let prefix = if path.is_empty() { String::new() } else { format!("{path}/") };
        Self { uri, prefix, entries: Vec::new(), markers: 0 }
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
    pub fn add(&mut self, objects: Vec<Object>) -> Result<(), StorageError> {
        for object in objects {
            // Servers that ignore the prefix exist; what lies beside it is not ours to judge.
            let Some(path) = object.key.strip_prefix(&self.prefix) else { continue };
            if object.size == 0 && (path.is_empty() || path.ends_with('/')) {
                self.markers += 1;
                continue;
            }
            paths::check(path).map_err(|problem| {
                StorageError::InvalidPath(format!("the key {:?} cannot be a file: {problem}; rename it", object.key))
            })?;
            if is_reserved(path) {
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
            self.entries.push(Entry { path: path.to_owned(), size: object.size, version: object.e_tag });
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
        let objects = keys.iter().map(|(key, size)| Object { key: (*key).into(), size: *size, e_tag: "\"e\"".into() });
        gathering.add(objects.collect())?;
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
    }

    #[test]
    fn pages_are_parsed() {
        let page = Page::parse(
            br#"<?xml version="1.0" encoding="UTF-8"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>b</Name>
            <IsTruncated>true</IsTruncated><Contents><Key>a &amp; b/</Key><Size>0</Size><ETag>&quot;x&quot;</ETag></Contents><KeyCount>2</KeyCount>
            <Contents><Key>&lt;c </Key><LastModified>2024-01-01T00:00:00Z</LastModified><Size>5000000000000</Size></Contents>
            <NextContinuationToken>t/=</NextContinuationToken></ListBucketResult>"#,
        )
        .unwrap();
        assert_eq!(page.contents[0].key, "a & b/");
        assert_eq!(page.contents[0].e_tag, "\"x\"");
        assert_eq!(page.contents[1].key, "<c ");
        assert_eq!(page.contents[1].size, 5_000_000_000_000);
        assert_eq!((page.is_truncated, page.next_continuation_token.as_deref()), (true, Some("t/=")));
        assert!(Page::parse(b"<html>hello</html>").is_none());
        assert!(Page::parse(b"").is_none());
    }
}
