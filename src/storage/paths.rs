//! Which keys can be files below a folder. Pure, no I/O.

use std::collections::HashSet;

use super::{Entry, StorageError};

/// Longest segment of a path, in bytes: what Linux file systems allow.
pub const SEGMENT_LIMIT: usize = 255;
/// Longest path, in bytes.
pub const PATH_LIMIT: usize = 4096;
/// Most files of a checkpoint: a bound on the memory of a listing.
pub const ENTRY_LIMIT: usize = 1_000_000;

/// Why a key cannot be a file below a folder.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PathProblem {
    /// `//`, or a slash at an end.
    #[error("it has an empty segment")]
    EmptySegment,
    /// `.` or `..`.
    #[error("it has the segment . or ..")]
    Dots,
    /// NUL, line breaks and their like.
    #[error("it has a control character")]
    Control,
    /// Longer than [`SEGMENT_LIMIT`].
    #[error("a segment is longer than 255 bytes")]
    LongSegment,
    /// Longer than [`PATH_LIMIT`].
    #[error("it is longer than 4096 bytes")]
    LongPath,
}

/// Whether a path, relative to the checkpoint's root, can be created as it is.
///
/// # Errors
/// The first thing that is wrong with it.
pub fn check(path: &str) -> Result<(), PathProblem> {
    if path.len() > PATH_LIMIT {
        return Err(PathProblem::LongPath);
    }
    if path.chars().any(char::is_control) {
        return Err(PathProblem::Control);
    }
    for segment in path.split('/') {
        match segment {
            "" => return Err(PathProblem::EmptySegment),
            "." | ".." => return Err(PathProblem::Dots),
            long if long.len() > SEGMENT_LIMIT => return Err(PathProblem::LongSegment),
            _ => {}
        }
    }
    Ok(())
}

/// The prefix of a checkpoint: without slashes at its ends.
///
/// # Errors
/// [`StorageError::InvalidPath`] when it cannot be a folder's path.
pub fn below(path: &str) -> Result<String, StorageError> {
    let path = path.trim_matches('/');
    if !path.is_empty() {
        check(path).map_err(|problem| StorageError::InvalidPath(format!("path {path:?} cannot be used: {problem}")))?;
    }
    Ok(path.to_owned())
}

/// The folders above a path, from the outermost.
pub fn parents(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').map(|(at, _)| &path[..at])
}

/// Paths that are folders of other paths.
#[must_use]
pub fn folders<'a>(paths: impl IntoIterator<Item = &'a str>) -> HashSet<&'a str> {
    paths.into_iter().flat_map(parents).collect()
}

/// Refuses a listing in which a file is also the folder of another.
///
/// # Errors
/// [`StorageError::InvalidPath`] that names both.
pub fn check_clashes(entries: &[Entry]) -> Result<(), StorageError> {
    let files: HashSet<&str> = entries.iter().map(|entry| entry.path.as_str()).collect();
    for entry in entries {
        if let Some(file) = parents(&entry.path).find(|parent| files.contains(parent)) {
            return Err(StorageError::InvalidPath(format!(
                "{file} is a file and also the folder of {}: a volume cannot hold both; rename one of them",
                entry.path
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_a_path_may_be() {
        let long = "x".repeat(256);
        let deep = vec!["abcdefg"; 600].join("/");
        let table: &[(&str, Result<(), PathProblem>)] = &[
            ("a", Ok(())),
            ("a b/+%25~#?*/ü.bin", Ok(())),
            ("...", Ok(())),
            ("a/..b", Ok(())),
            ("", Err(PathProblem::EmptySegment)),
            ("/a", Err(PathProblem::EmptySegment)),
            ("a/", Err(PathProblem::EmptySegment)),
            ("a//b", Err(PathProblem::EmptySegment)),
            (".", Err(PathProblem::Dots)),
            ("a/../b", Err(PathProblem::Dots)),
            ("a\0b", Err(PathProblem::Control)),
            ("a\nb", Err(PathProblem::Control)),
            ("a\u{85}b", Err(PathProblem::Control)),
            (&long, Err(PathProblem::LongSegment)),
            (&deep, Err(PathProblem::LongPath)),
        ];
        for (path, expected) in table {
            assert_eq!(check(path), *expected, "{path:?}");
        }
    }

    #[test]
    fn a_file_cannot_be_a_folder() {
        let entry =
            |path: &str| Entry { path: path.into(), size: 1, version: String::new(), checksum: None, content: None };
        assert!(check_clashes(&[entry("a"), entry("a-b"), entry("ab/c")]).is_ok());
        let error = check_clashes(&[entry("a"), entry("a-b"), entry("a/b/c")]).unwrap_err();
        assert!(error.to_string().starts_with("a is a file and also the folder of a/b/c"), "{error}");
    }

    proptest! {
        #[test]
        fn a_good_path_stays_below_its_root(path in "[a./]{0,12}") {
            if check(&path).is_ok() {
                let joined = std::path::Path::new("/root").join(&path);
                prop_assert!(joined.components().all(|part| !matches!(part, std::path::Component::ParentDir)));
                prop_assert_eq!(joined.to_str().unwrap(), format!("/root/{path}"));
            }
        }
    }
}
