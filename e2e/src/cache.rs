//! Things that are built once and kept: folders in the cache, named by a hash of what they are built from (file I/O).

use std::fmt::Write;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use crate::paths;

/// Fills `<cache>/<name>-<hash of the inputs>` once: a build that was cut short leaves nothing behind that
/// would be taken for a finished one.
pub fn build_once(name: &str, inputs: &[&[u8]], build: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let finished = paths::cache()?.join(format!("{name}-{}", short_hash(inputs)));
    let mark = finished.join(".complete");
    if mark.exists() {
        return Ok(finished);
    }
    // A Python environment knows its own path and cannot be renamed, so the mark, not a rename, makes it complete.
    let lock = lock(&finished.with_extension("lock"))?;
    if !mark.exists() {
        if finished.exists() {
            fs::remove_dir_all(&finished)?;
        }
        fs::create_dir_all(&finished).with_context(|| format!("cannot make {}", finished.display()))?;
        build(&finished)?;
        fs::write(&mark, "")?;
    }
    drop(lock);
    Ok(finished)
}

/// Waits for a lock, which lasts as long as the handle: two runs that want the same thing make it once.
pub fn lock(file: &Path) -> Result<File> {
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder)?;
    }
    let handle = File::create(file).with_context(|| format!("cannot write {}", file.display()))?;
    handle.lock().with_context(|| format!("cannot lock {}", file.display()))?;
    Ok(handle)
}

/// The first 12 hex digits of the inputs' SHA-256, each input framed by its length.
#[must_use]
pub fn short_hash(inputs: &[&[u8]]) -> String {
    let mut hash = Sha256::new();
    for input in inputs {
        hash.update((input.len() as u64).to_le_bytes());
        hash.update(input);
    }
    let digest = hash.finalize();
    hex(&digest[..6])
}

/// Bytes as hex digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        write!(text, "{byte:02x}").ok();
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_knows_where_an_input_ends() {
        assert_ne!(short_hash(&[b"ab", b"c"]), short_hash(&[b"a", b"bc"]));
        assert_eq!(short_hash(&[b"a"]).len(), 12);
    }
}
