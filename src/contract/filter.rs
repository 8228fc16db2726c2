//! Globs that select files, and the size that a selection needs. Pure, no I/O.

use globset::{GlobBuilder, GlobMatcher};
use serde::{Deserialize, Serialize};

/// `include` and `exclude` of a volume, as written.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Filter {
    /// Globs of the files to take; all when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub include: Vec<String>,
    /// Globs of files to leave out; they win.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
}

/// A glob that is not one.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{glob:?} is not a glob: {problem}")]
pub struct GlobError {
    /// The text as written.
    pub glob: String,
    /// What is wrong with it.
    pub problem: String,
}

/// A compiled [`Filter`].
#[derive(Clone, Debug)]
pub struct Selector {
    include: Vec<Pattern>,
    exclude: Vec<Pattern>,
}

/// One compiled glob. Without a slash it matches any one segment of a path, with a slash the whole path; a matched folder
/// means its tree.
#[derive(Clone, Debug)]
pub struct Pattern {
    matcher: GlobMatcher,
    whole: bool,
}

impl Filter {
    /// Whether it takes everything.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.include.is_empty() && self.exclude.is_empty()
    }

    /// Compiles the globs.
    ///
    /// # Errors
    /// The first text that is not a glob.
    pub fn compile(&self) -> Result<Selector, GlobError> {
        let patterns = |globs: &[String]| globs.iter().map(|glob| Pattern::new(glob)).collect::<Result<Vec<_>, _>>();
        Ok(Selector { include: patterns(&self.include)?, exclude: patterns(&self.exclude)? })
    }
}

impl Selector {
    /// Whether the file at this path, relative to the checkpoint's root, is taken.
    #[must_use]
    pub fn selects(&self, path: &str) -> bool {
        (self.include.is_empty() || self.include.iter().any(|pattern| pattern.matches(path)))
            && !self.exclude.iter().any(|pattern| pattern.matches(path))
    }
}

impl Pattern {
    /// Compiles one glob: `*`, `?`, `[...]`, `{a,b}`, and `**` over levels.
    ///
    /// # Errors
    /// When the text is not a glob.
    pub fn new(glob: &str) -> Result<Self, GlobError> {
        let trimmed = glob.trim_start_matches('/').trim_end_matches('/');
        GlobBuilder::new(trimmed)
            .literal_separator(true)
            .backslash_escape(true)
            .build()
            .map(|built| Self { matcher: built.compile_matcher(), whole: trimmed.contains('/') })
            .map_err(|error| GlobError { glob: glob.to_owned(), problem: error.kind().to_string() })
    }

    /// Whether the path, or a folder above it, matches.
    #[must_use]
    pub fn matches(&self, path: &str) -> bool {
        if !self.whole {
            return path.split('/').any(|segment| self.matcher.is_match(segment));
        }
        let folders = path.match_indices('/').map(|(at, _)| &path[..at]);
        folders.chain([path]).any(|prefix| self.matcher.is_match(prefix))
    }
}

/// Bytes that a volume needs for files of these sizes: each file rounded up to 4 KiB, plus 5 %, plus 64 MiB, rounded up to MiB.
pub fn required_bytes(sizes: impl IntoIterator<Item = u64>) -> u64 {
    const BLOCK: u64 = 4096;
    const MEBIBYTE: u64 = 1 << 20;
    let blocks =
        sizes.into_iter().fold(0u64, |sum, size| sum.saturating_add(size.div_ceil(BLOCK).saturating_mul(BLOCK)));
    blocks.saturating_add(blocks / 20).saturating_add(64 * MEBIBYTE).div_ceil(MEBIBYTE).saturating_mul(MEBIBYTE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selects(include: &[&str], exclude: &[&str], path: &str) -> bool {
        let texts = |globs: &[&str]| globs.iter().map(|glob| (*glob).to_owned()).collect();
        Filter { include: texts(include), exclude: texts(exclude) }.compile().unwrap().selects(path)
    }

    #[test]
    fn globs_follow_the_contract() {
        let table: &[(&[&str], &[&str], &str, bool)] = &[
            (&[], &[], "a/b", true),
            (&["*.safetensors"], &[], "model.safetensors", true),
            (&["*.safetensors"], &[], "deep/er/model.safetensors", true),
            (&["*.safetensors"], &[], "model.safetensors.index.json", false),
            (&["optimizer*"], &[], "optimizer_0/x.distcp", true),
            (&["a/*.json"], &[], "a/b.json", true),
            (&["a/*.json"], &[], "c/a/b.json", false),
            (&["a/*.json"], &[], "a/c/b.json", false),
            (&["a/**/b.json"], &[], "a/c/d/b.json", true),
            (&["a/b"], &[], "a/b/c/d", true),
            (&["a/"], &[], "a/b", true),
            (&["*.json"], &["config.json"], "config.json", false),
            (&[], &["optimizer*"], "x/optimizer.pt", false),
            (&["[ab].bin"], &[], "b.bin", true),
            (&["{x,y}.bin"], &[], "y.bin", true),
        ];
        for (include, exclude, path, expected) in table {
            assert_eq!(selects(include, exclude, path), *expected, "{include:?} {exclude:?} {path}");
        }
        assert!(Filter { include: vec!["[".into()], exclude: vec![] }.compile().is_err());
    }

    #[test]
    fn required_bytes_round_up() {
        assert_eq!(required_bytes([]), 64 << 20);
        assert_eq!(required_bytes([1]), 65 << 20);
        assert_eq!(required_bytes([100 << 20]), 169 << 20);
        assert!(required_bytes([u64::MAX, u64::MAX]) > 1 << 60);
    }
}
