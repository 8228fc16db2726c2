//! The folder as a repository of the Hugging Face Hub, [`REPOSITORY`], all of whose files are large ones (runs `sha256sum`).
//!
//! <https://huggingface.co/docs/hub/api>: the tree in pages, and each file behind a redirect to where it is stored.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::BUCKET;
use super::keys::encoded;
use crate::command::capture;

/// The repository's name.
pub const REPOSITORY: &str = "bench/bench";
const COMMIT: &str = "89abcdef0123456789abcdef0123456789abcdef";
const PAGE: usize = 1000;

/// Files with their sizes and the SHA-256 of their content.
pub(super) struct Hub {
    /// Where they are stored.
    store: String,
    files: BTreeMap<String, (u64, String)>,
}

impl Hub {
    /// Sums up all files below a folder, which are stored at this address, too.
    pub(super) fn of(root: &Path, store: String) -> Result<Self> {
        let sums = "find . -type f -printf '%P\\0' | sort -z | xargs -0 -P 2 -n 16 sha256sum";
        let listed = capture(Command::new("sh").args(["-c", sums]).current_dir(root))?;
        let file = |line: &str| {
            let (sum, name) = line.split_once("  ").context("not a line of sha256sum")?;
            Ok((name.to_owned(), (root.join(name).metadata()?.len(), sum.to_owned())))
        };
        Ok(Self { store, files: listed.lines().map(file).collect::<Result<_>>()? })
    }

    /// The status, headers and body of an answer; none when the path is not one of the Hub's.
    pub(super) fn answer(&self, path: &str, query: &str) -> Option<(String, String)> {
        if let Some(rest) = path.strip_prefix(&format!("/api/models/{REPOSITORY}/")) {
            let (verb, _) = rest.split_once('/')?;
            return match verb {
                "revision" => Some(found(&[], &self.description())),
                "tree" => Some(self.tree(query)),
                _ => None,
            };
        }
        let (_, key) = path.strip_prefix(&format!("/{REPOSITORY}/resolve/"))?.split_once('/')?;
        let (size, sum) = self.files.get(key)?;
        let head = format!(
            "HTTP/1.1 302 Found\r\nx-repo-commit: {COMMIT}\r\nx-linked-size: {size}\r\nx-linked-etag: \"{sum}\"\r\n\
             location: {}/{BUCKET}/{}\r\n",
            self.store,
            encoded(key)
        );
        Some((head, String::new()))
    }

    fn description(&self) -> Value {
        let siblings: Vec<Value> = self.files.keys().map(|path| json!({"rfilename": path})).collect();
        json!({
            "_id": "1", "id": REPOSITORY, "modelId": REPOSITORY, "sha": COMMIT, "private": false, "gated": false,
            "disabled": false, "downloads": 0, "likes": 0, "tags": [], "siblings": siblings,
        })
    }

    fn tree(&self, query: &str) -> (String, String) {
        let cursor = query.split('&').find_map(|pair| pair.strip_prefix("cursor=")?.parse().ok()).unwrap_or(0);
        let item = |(path, (size, sum)): (&String, &(u64, String))| {
            json!({
                "type": "file", "path": path, "size": size, "oid": "0".repeat(40),
                "lfs": {"oid": sum, "size": size, "pointerSize": 130},
            })
        };
        let items: Vec<Value> = self.files.iter().skip(cursor).take(PAGE).map(item).collect();
        let next = cursor + PAGE;
        let link = format!("link: </api/models/{REPOSITORY}/tree/{COMMIT}?recursive=true&cursor={next}>; rel=\"next\"");
        let more: &[&str] = if next < self.files.len() { &[link.as_str()] } else { &[] };
        found(more, &Value::Array(items))
    }
}

fn found(headers: &[&str], body: &Value) -> (String, String) {
    let headers: String = headers.iter().flat_map(|header| [*header, "\r\n"]).collect();
    (format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n{headers}"), body.to_string())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn files_are_listed_with_their_sums_and_stored_elsewhere() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("a b")).unwrap();
        fs::write(folder.path().join("a b/c"), "abc").unwrap();
        let hub = Hub::of(folder.path(), "http://store".into()).unwrap();
        let sum = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let (head, body) = hub.answer(&format!("/api/models/{REPOSITORY}/tree/main"), "recursive=true").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && !head.contains("link:"), "{head}");
        let tree: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((&tree[0]["path"], &tree[0]["lfs"]["oid"]), (&json!("a b/c"), &json!(sum)));
        let (head, _) = hub.answer(&format!("/{REPOSITORY}/resolve/main/a b/c"), "").unwrap();
        assert!(head.contains("location: http://store/bench/a%20b/c\r\n") && head.contains(sum), "{head}");
        let (_, description) = hub.answer(&format!("/api/models/{REPOSITORY}/revision/main"), "").unwrap();
        assert!(description.contains(COMMIT), "{description}");
        assert!(hub.answer("/bench/a b/c", "").is_none());
    }
}
