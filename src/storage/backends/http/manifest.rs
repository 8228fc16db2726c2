//! Files that name the others: checksums as `sha256sum` writes them, and the indexes of sharded weights. Pure, no I/O.

use std::collections::BTreeSet;

use serde_json::Value;

use super::super::{Checksum, StorageError, paths};

/// A file that is named.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Named {
    /// Path below the address.
    pub path: String,
    /// Its checksum, where it is told.
    pub checksum: Option<Checksum>,
}

/// Reads a manifest; it is itself one of the files.
///
/// # Errors
/// When it is neither kind, or names something that is no path.
pub(super) fn read(manifest: &str, body: &[u8]) -> Result<Vec<Named>, StorageError> {
    let unknown = || {
        StorageError::InvalidSpec(format!(
            "{manifest} is neither a list of checksums (SHA256SUMS) nor an index of weights (with a weight_map)"
        ))
    };
    let text = std::str::from_utf8(body).map_err(|_| unknown())?;
    let folder = manifest.rsplit_once('/').map_or("", |(folder, _)| folder);
    let below = |name: &str| if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") };
    let mut named = match serde_json::from_str::<Value>(text) {
        Ok(index) => {
            let map = index.get("weight_map").and_then(Value::as_object).ok_or_else(unknown)?;
            let names: BTreeSet<&str> = map.values().filter_map(Value::as_str).collect();
            names.into_iter().map(|name| Named { path: below(name), checksum: None }).collect()
        }
        Err(_) => text
            .lines()
            .filter(|line| !line.trim().is_empty())
            .map(|line| sum(line).map(|(name, checksum)| Named { path: below(name), checksum: Some(checksum) }))
            .collect::<Option<Vec<_>>>()
            .filter(|lines| !lines.is_empty())
            .ok_or_else(unknown)?,
    };
    for Named { path, .. } in &named {
        paths::check(path).map_err(|problem| {
            StorageError::InvalidPath(format!("{manifest} names {path:?}, which cannot be a file: {problem}"))
        })?;
    }
    named.retain(|file| file.path != manifest);
    named.push(Named { path: manifest.to_owned(), checksum: None });
    Ok(named)
}

/// `HASH  NAME`, with a star before the name for binary files; or `SHA256 (NAME) = HASH`.
fn sum(line: &str) -> Option<(&str, Checksum)> {
    if let Some(rest) = line.strip_prefix("SHA256 (") {
        let (name, hash) = rest.rsplit_once(") = ")?;
        return Some((tidy(name), Checksum::sha256_hex(hash.trim())?));
    }
    let (hash, name) = line.split_once([' ', '\t'])?;
    let name = name.strip_prefix([' ', '*']).unwrap_or(name);
    Some((tidy(name.trim_end()), Checksum::sha256_hex(hash)?))
}

fn tidy(name: &str) -> &str {
    name.strip_prefix("./").unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(manifest: &str, body: &str) -> Vec<String> {
        read(manifest, body.as_bytes()).unwrap().into_iter().map(|named| named.path).collect()
    }

    #[test]
    fn both_kinds_are_read() {
        let hash = "01".repeat(32);
        let sums = format!("{hash}  ./a.bin\n{hash} *b/c d.bin\n\nSHA256 (e.bin) = {hash}\n{hash}  SHA256SUMS\n");
        assert_eq!(names("SHA256SUMS", &sums), ["a.bin", "b/c d.bin", "e.bin", "SHA256SUMS"]);
        assert_eq!(read("SHA256SUMS", sums.as_bytes()).unwrap()[0].checksum, Some(Checksum::Sha256([1; 32])));
        let index = r#"{"weight_map": {"x": "m-2.safetensors", "y": "m-1.safetensors", "z": "m-2.safetensors"}}"#;
        assert_eq!(names("w/i.json", index), ["w/m-1.safetensors", "w/m-2.safetensors", "w/i.json"]);
    }

    #[test]
    fn anything_else_is_refused() {
        for body in ["", "<html></html>", "{}", "hello  world", "\u{0}"] {
            assert!(matches!(read("SHA256SUMS", body.as_bytes()), Err(StorageError::InvalidSpec(_))), "{body}");
        }
        assert!(matches!(read("x", b"\xff"), Err(StorageError::InvalidSpec(_))));
        let hash = "01".repeat(32);
        for name in ["../x", "/etc/passwd", "a//b"] {
            let body = format!("{hash}  {name}\n");
            assert!(matches!(read("SHA256SUMS", body.as_bytes()), Err(StorageError::InvalidPath(_))), "{name}");
        }
    }
}
