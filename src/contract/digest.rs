//! Fingerprints of listings and digests of trees. Pure, no I/O.

use super::{
    filter::Filter,
    manifest::{METADATA_FILE, is_reserved},
};

const TREE_CONTEXT: &[u8] = b"checkpoints.dev/tree/v1\0";
const LISTING_CONTEXT: &[u8] = b"checkpoints.dev/listing/v1\0";

/// Prefix of every digest.
pub const ALGORITHM: &str = "blake3:";

/// BLAKE3 over the tree: for each file in byte order of its path, u32le path length, path, u64le size and the file's BLAKE3.
/// `.checkpoint/`, `lost+found` and the root's `.metadata.json` are left out.
#[derive(Debug)]
pub struct Tree {
    files: Vec<(String, u64, blake3::Hash)>,
}

impl Tree {
    /// An empty tree.
    #[must_use]
    pub fn new() -> Self {
        Self { files: Vec::new() }
    }

    /// Adds a file, in any order.
    pub fn add(&mut self, path: &str, size: u64, hash: &blake3::Hash) {
        if path != METADATA_FILE && !is_reserved(path) {
            self.files.push((path.to_owned(), size, *hash));
        }
    }

    /// The digest: `blake3:` and 64 hexadecimal digits.
    #[must_use]
    pub fn finish(mut self) -> String {
        self.files.sort_by(|left, right| left.0.cmp(&right.0));
        let mut hasher = blake3::Hasher::new();
        hasher.update(TREE_CONTEXT);
        for (path, size, hash) in &self.files {
            update_text(&mut hasher, path);
            hasher.update(&size.to_le_bytes());
            hasher.update(hash.as_bytes());
        }
        format!("{ALGORITHM}{}", hasher.finalize().to_hex())
    }
}

impl Default for Tree {
    fn default() -> Self {
        Self::new()
    }
}

/// BLAKE3 over the path-sorted listing: path, size, and what tells versions of a file apart (ETag or version; for claims
/// the modification time). Items must be sorted by the bytes of their paths.
pub fn fingerprint<'a>(entries: impl IntoIterator<Item = (&'a str, u64, &'a str)>) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(LISTING_CONTEXT);
    for (path, size, version) in entries {
        update_text(&mut hasher, path);
        hasher.update(&size.to_le_bytes());
        update_text(&mut hasher, version);
    }
    format!("{ALGORITHM}{}", hasher.finalize().to_hex())
}

/// A short hash of a volume's filter, in which the order of the globs does not matter.
#[must_use]
pub fn filter_hash(filter: &Filter) -> String {
    let mut hasher = blake3::Hasher::new();
    for globs in [&filter.include, &filter.exclude] {
        let mut sorted: Vec<_> = globs.iter().collect();
        sorted.sort();
        sorted.dedup();
        hasher.update(&(sorted.len() as u64).to_le_bytes());
        for glob in sorted {
            update_text(&mut hasher, glob);
        }
    }
    hasher.finalize().to_hex()[..16].to_owned()
}

/// BLAKE3 of a value's canonical JSON (object keys sorted), the first 16 hexadecimal digits: names inputs.
#[must_use]
pub fn inputs_hash(value: &serde_json::Value) -> String {
    blake3::hash(value.to_string().as_bytes()).to_hex()[..16].to_owned()
}

fn update_text(hasher: &mut blake3::Hasher, text: &str) {
    hasher.update(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_le_bytes());
    hasher.update(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_digest_is_the_documented_one() {
        let hash = blake3::hash(b"hello");
        let mut tree = Tree::new();
        tree.add("b/c", 5, &hash);
        tree.add("a", 5, &hash);
        tree.add(".metadata.json", 2, &hash);
        tree.add(".checkpoint/manifest.json", 2, &hash);
        tree.add("lost+found/x", 2, &hash);
        let mut expected = b"checkpoints.dev/tree/v1\0".to_vec();
        for path in ["a", "b/c"] {
            expected.extend(u32::try_from(path.len()).unwrap().to_le_bytes());
            expected.extend(path.as_bytes());
            expected.extend(5u64.to_le_bytes());
            expected.extend(hash.as_bytes());
        }
        assert_eq!(tree.finish(), format!("blake3:{}", blake3::hash(&expected).to_hex()));
    }

    #[test]
    fn nested_metadata_counts() {
        let hash = blake3::hash(b"hello");
        let mut tree = Tree::new();
        tree.add("x/.metadata.json", 5, &hash);
        assert_ne!(tree.finish(), Tree::new().finish());
    }

    #[test]
    fn fingerprints_tell_field_boundaries_apart() {
        assert_ne!(fingerprint([("ab", 1, "c")]), fingerprint([("a", 1, "bc")]));
        assert_ne!(fingerprint([("a", 1, "")]), fingerprint([("a", 2, "")]));
    }

    #[test]
    fn the_order_of_globs_does_not_matter() {
        let filter =
            |include: &[&str]| Filter { include: include.iter().map(|&glob| glob.into()).collect(), exclude: vec![] };
        assert_eq!(filter_hash(&filter(&["a", "b"])), filter_hash(&filter(&["b", "a", "b"])));
        assert_ne!(filter_hash(&filter(&["a"])), filter_hash(&Filter { include: vec![], exclude: vec!["a".into()] }));
    }
}
