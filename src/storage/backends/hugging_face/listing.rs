//! Pages of a repository's tree. Pure, no I/O.
//!
//! <https://huggingface.co/docs/hub/api>: `{"type": "file", "path": ..., "size": ..., "oid": ..., "lfs": {"oid": SHA-256, "size": ...}}`;
//! further pages are named by a `Link` header.

use reqwest::header::HeaderValue;
use serde::Deserialize;
use url::Url;

use super::super::{Checksum, listing::Object};

/// A file or a folder.
#[derive(Debug, Deserialize)]
pub(super) struct Item {
    #[serde(rename = "type")]
    kind: String,
    path: String,
    #[serde(default)]
    size: u64,
    /// Git's hash of the file, or of the pointer to it.
    #[serde(default)]
    oid: String,
    #[serde(default)]
    lfs: Option<Large>,
}

/// A file in Git LFS or its successor.
#[derive(Debug, Deserialize)]
struct Large {
    /// SHA-256 of the content.
    oid: String,
    size: u64,
}

impl Item {
    /// The file; none for folders.
    pub(super) fn object(self) -> Option<Object> {
        if self.kind != "file" {
            return None;
        }
        let (version, size, checksum) = match self.lfs {
            Some(large) => {
                let checksum = Checksum::sha256_hex(large.oid.trim_start_matches("sha256:"));
                (large.oid, large.size, checksum)
            }
            None => (self.oid, self.size, None),
        };
        Some(Object { key: self.path, size, version, checksum, content: None })
    }
}

/// The next page: `<https://huggingface.co/api/...&cursor=...>; rel="next"`.
pub(super) fn next(link: Option<&HeaderValue>, of: &Url) -> Option<Url> {
    let link = link?.to_str().ok()?;
    let part = link.split(',').find(|part| part.contains("rel=\"next\""))?;
    let target = part.trim().strip_prefix('<')?.split_once('>')?.0;
    of.join(target).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trees_are_read() {
        let text = r#"[{"type": "directory", "oid": "d", "size": 0, "path": "x"},
            {"type": "file", "oid": "a", "size": 5, "path": "config.json", "xetHash": "z"},
            {"type": "file", "oid": "b", "size": 7000000000, "path": "m.safetensors", "lfs": {"oid":
             "0101010101010101010101010101010101010101010101010101010101010101", "size": 7000000000, "pointerSize": 134}}]"#;
        let items: Vec<Item> = serde_json::from_str(text).unwrap();
        let objects: Vec<Object> = items.into_iter().filter_map(Item::object).collect();
        assert_eq!((objects[0].key.as_str(), objects[0].size, objects[0].version.as_str()), ("config.json", 5, "a"));
        assert_eq!(objects[1].checksum, Some(Checksum::Sha256([1; 32])));
        assert_eq!(objects.len(), 2);
    }

    #[test]
    fn the_next_page_is_found() {
        let of = Url::parse("https://huggingface.co/api/models/a/b/tree/c?recursive=true").unwrap();
        let link = HeaderValue::from_static("<https://huggingface.co/api/models/a/b/tree/c?cursor=x>; rel=\"next\"");
        assert_eq!(next(Some(&link), &of).unwrap().query(), Some("cursor=x"));
        let other = HeaderValue::from_static("<https://huggingface.co/x>; rel=\"prev\"");
        assert_eq!(next(Some(&other), &of), None);
        assert_eq!(next(None, &of), None);
    }
}
