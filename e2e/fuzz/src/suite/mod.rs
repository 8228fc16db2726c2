//! The subjects that are fuzzed, and what must hold whatever the bytes. Shared with the harness and its tests. Pure, no I/O.

mod judging;
mod sealed;
mod subjects;
mod texts;

pub use subjects::{SUBJECTS, Subject, What};

/// The subject of this name.
#[must_use]
pub fn subject(target: &str) -> Option<&'static Subject> {
    SUBJECTS.iter().find(|subject| subject.target == target)
}

/// Holds the subject against its properties.
///
/// # Panics
/// When one does not hold.
pub fn check(subject: &Subject, bytes: &[u8]) {
    match subject.what {
        What::File { path, beside } => {
            let mut files = vec![(path, bytes)];
            files.extend(beside.iter().filter(|(other, _)| *other != path));
            judging::check(&files);
        }
        What::Folder => judging::check(&judging::folder(bytes)),
        What::Made(make) => {
            let checkpoint = make(bytes);
            let files: Vec<_> = checkpoint.iter().map(|(path, bytes)| (*path, bytes.as_slice())).collect();
            judging::check(&files);
        }
        What::Text(check) => {
            if let Ok(text) = std::str::from_utf8(bytes) {
                check(text);
            }
        }
    }
}
