//! The keys of a folder's files, and pages of them as `ListObjectsV2` answers (file I/O when they are read, none afterwards).

use std::fmt::Write as _;
use std::fs::{self, Metadata};
use std::path::Path;
use std::time::UNIX_EPOCH;

use anyhow::{Context, Result};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use super::BUCKET;

/// So many keys and common prefixes are on a page, unless fewer are asked for.
const PAGE: usize = 1000;

/// Keys in the order of their bytes.
pub(super) struct Keys {
    /// One after the other: a long listing must not make this process large.
    text: String,
    objects: Vec<Object>,
}

struct Object {
    /// Where its key ends.
    end: usize,
    version: Version,
}

/// What tells the versions of a file apart.
#[derive(Clone, Copy)]
pub(super) struct Version {
    pub(super) size: u64,
    modified: i64,
}

impl Version {
    pub(super) fn of(metadata: &Metadata) -> Self {
        let modified = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let modified = modified.and_then(|since| i64::try_from(since.as_secs()).ok()).unwrap_or_default();
        Self { size: metadata.len(), modified }
    }

    /// As that of an object that was uploaded in parts: clients take any other for an MD5 of the content.
    pub(super) fn tag(self) -> String {
        format!("\"{:016x}{:016x}-1\"", self.modified, self.size)
    }

    /// When it was modified, in a format of `strftime`.
    pub(super) fn modified(self, format: &str) -> Result<String> {
        Ok(jiff::Timestamp::from_second(self.modified)?.strftime(format).to_string())
    }
}

/// What a listing is asked for.
#[derive(Default)]
struct Query {
    prefix: String,
    /// Whether keys below a further slash are summed up.
    folders: bool,
    first: Option<usize>,
    most: usize,
}

impl Query {
    fn parse(text: &str) -> Result<Self> {
        let mut query = Self { most: PAGE, ..Self::default() };
        for (name, value) in text.split('&').filter_map(|pair| pair.split_once('=')) {
            let value = value.replace('+', " ");
            let value = percent_decode_str(&value).decode_utf8().context("a query that is not UTF-8")?;
            match name {
                "prefix" => query.prefix = value.into_owned(),
                "delimiter" => query.folders = value == "/",
                "continuation-token" => query.first = Some(value.parse()?),
                "max-keys" => query.most = value.parse::<usize>()?.min(PAGE),
                _ => {}
            }
        }
        Ok(query)
    }
}

impl Keys {
    /// Of the files below a folder.
    pub(super) fn below(root: &Path) -> Result<Self> {
        let mut keys = Self { text: String::new(), objects: Vec::new() };
        keys.add(root, "")?;
        Ok(keys)
    }

    /// Adds the files below a folder in the byte order of their keys.
    fn add(&mut self, root: &Path, prefix: &str) -> Result<()> {
        let mut names = Vec::new();
        for entry in fs::read_dir(root.join(prefix))? {
            let entry = entry?;
            let slash = if entry.file_type()?.is_dir() { "/" } else { "" };
            let name = entry.file_name().into_string().ok().context("a name that is not UTF-8 cannot be a key")?;
            names.push(format!("{prefix}{name}{slash}"));
        }
        names.sort_unstable();
        for name in names {
            if name.ends_with('/') {
                self.add(root, &name)?;
            } else {
                self.text.push_str(&name);
                let version = Version::of(&fs::metadata(root.join(&name))?);
                self.objects.push(Object { end: self.text.len(), version });
            }
        }
        Ok(())
    }

    fn key(&self, number: usize) -> &str {
        let begin = number.checked_sub(1).map_or(0, |before| self.objects[before].end);
        &self.text[begin..self.objects[number].end]
    }

    /// The first key that is not below this text.
    fn from(&self, text: &str) -> usize {
        let (mut low, mut high) = (0, self.objects.len());
        while low < high {
            let middle = low.midpoint(high);
            if self.key(middle) < text { low = middle + 1 } else { high = middle }
        }
        low
    }

    /// The answer to a listing with this query.
    pub(super) fn page(&self, query: &str) -> Result<String> {
        let Query { prefix, folders, first, most } = Query::parse(query)?;
        let mut at = first.unwrap_or_else(|| self.from(&prefix));
        let is_there = |at: usize| at < self.objects.len() && self.key(at).starts_with(&prefix);
        let (mut listed, mut count) = (String::new(), 0);
        while is_there(at) && count < most {
            let key = self.key(at);
            count += 1;
            if let Some(slash) = key[prefix.len()..].find('/').filter(|_| folders) {
                let folder = &key[..prefix.len() + slash];
                write!(listed, "<CommonPrefixes><Prefix>{}/</Prefix></CommonPrefixes>", escaped(folder))?;
                // What follows a slash in the order of bytes is a zero.
                at = self.from(&format!("{folder}0"));
            } else {
                let version = self.objects[at].version;
                write!(
                    listed,
                    "<Contents><Key>{}</Key><LastModified>{}</LastModified><ETag>{}</ETag><Size>{}</Size>\
                         <StorageClass>STANDARD</StorageClass></Contents>",
                    escaped(key),
                    version.modified("%Y-%m-%dT%H:%M:%S.000Z")?,
                    escaped(&version.tag()),
                    version.size
                )?;
                at += 1;
            }
        }
        let more = is_there(at);
        let next = if more { format!("<NextContinuationToken>{at}</NextContinuationToken>") } else { String::new() };
        Ok(format!(
            "<ListBucketResult><Name>{BUCKET}</Name><Prefix>{}</Prefix><KeyCount>{count}</KeyCount>\
             <IsTruncated>{more}</IsTruncated>{next}{listed}</ListBucketResult>",
            escaped(&prefix)
        ))
    }
}

/// A key as a path of a URL has it.
pub(super) fn encoded(key: &str) -> String {
    const KEPT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');
    utf8_percent_encode(key, KEPT).to_string()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_those_of_a_bucket() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a", "b/c/d", "b/e", "b-", "b0", "f & <g>"] {
            let file = folder.path().join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, name).unwrap();
        }
        let keys = Keys::below(folder.path()).unwrap();
        let listed = |query: &str| {
            let page = keys.page(query).unwrap();
            let found = |tag: &str| {
                let open = format!("<{tag}>");
                page.split(open.as_str()).skip(1).map(|rest| rest.split('<').next().unwrap().to_owned()).collect()
            };
            let prefixes: Vec<String> = found("CommonPrefixes><Prefix");
            (found("Key"), prefixes, page.contains("<IsTruncated>true<"))
        };
        let texts = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let all = texts(&["a", "b-", "b/c/d", "b/e", "b0", "f &amp; &lt;g&gt;"]);
        assert_eq!(listed("list-type=2"), (all, vec![], false));
        let root = texts(&["a", "b-", "b0", "f &amp; &lt;g&gt;"]);
        assert_eq!(listed("delimiter=%2F"), (root, texts(&["b/"]), false));
        assert_eq!(listed("delimiter=%2F&prefix=b%2F"), (texts(&["b/e"]), texts(&["b/c/"]), false));
        assert_eq!(listed("prefix=f+%26"), (texts(&["f &amp; &lt;g&gt;"]), vec![], false));
        assert_eq!(listed("max-keys=2"), (texts(&["a", "b-"]), vec![], true));
        assert_eq!(listed("max-keys=2&continuation-token=2"), (texts(&["b/c/d", "b/e"]), vec![], true));
        assert_eq!(listed("prefix=nothing"), (vec![], vec![], false));
    }
}
