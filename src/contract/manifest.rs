//! `.checkpoint/manifest.json`: what a volume holds. Written last. Pure, no I/O.

use serde::{Deserialize, Serialize};

use super::digest;

/// The folder at a volume's root that is ours.
pub const FOLDER: &str = ".checkpoint";
/// The manifest's path below the volume's root.
pub const PATH: &str = ".checkpoint/manifest.json";
/// The user's metadata file, as Ray writes it, at the checkpoint's root.
pub const METADATA_FILE: &str = ".metadata.json";
/// The folder that file systems make at their root.
pub const LOST_AND_FOUND: &str = "lost+found";

/// What a volume holds.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Version of this format, 1.
    pub version: u32,
    /// Where the files came from.
    pub uri: String,
    /// The listing that they came from.
    pub fingerprint: String,
    /// [`digest::filter_hash`] of the volume's filter.
    pub filter: String,
    /// Digest of the tree below.
    pub digest: String,
    /// All files, in byte order of their paths.
    pub files: Vec<ManifestFile>,
}

/// A file of the volume.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ManifestFile {
    /// Path below the volume's root.
    pub path: String,
    /// Size in bytes.
    pub size: u64,
    /// BLAKE3 of the content, 64 hexadecimal digits.
    pub blake3: String,
    /// Version at the source; empty when it has none, or when the manifest is of an older program.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// The sum by which the source tells equal contents, such as `md5:` and hexadecimal digits; none when it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// Whether the source holds a checksum of it, which was compared.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub verified: bool,
}

impl Manifest {
    /// The tree digest of the files as listed.
    ///
    /// # Errors
    /// When a hash is not 64 hexadecimal digits.
    pub fn tree_digest(&self) -> Result<String, blake3::HexError> {
        let mut tree = digest::Tree::new();
        for file in &self.files {
            tree.add(&file.path, file.size, &blake3::Hash::from_hex(&file.blake3)?);
        }
        Ok(tree.finish())
    }
}

/// Whether a path below the root of a claim or volume is never a part of a checkpoint.
#[must_use]
pub fn is_reserved(path: &str) -> bool {
    let first = path.split('/').next().unwrap_or_default();
    first == FOLDER || first == LOST_AND_FOUND
}
