//! What fuzzing begins with and what it ever found, held against the same properties without a fuzzer (file I/O, no network).

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests stand outside of test functions here")]

use std::{
    collections::BTreeSet,
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

use checkpoint_operator_e2e::{
    fuzzing::{self, SUBJECTS},
    paths,
};

fn folder(relative: &str) -> PathBuf {
    paths::of_this_crate("fuzz").join(relative)
}

/// Names below a folder; none when it is not there.
fn names(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
}

/// Files below a folder, at any depth.
fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for name in names(folder) {
        let path = folder.join(name);
        if path.is_dir() { files(&path, found) } else { found.push(path) }
    }
}

#[test]
fn what_was_found_stays_mended() {
    let mut broken = Vec::new();
    for subject in SUBJECTS {
        let mut inputs = Vec::new();
        for kind in ["seeds", "regressions"] {
            files(&folder(kind).join(subject.target), &mut inputs);
        }
        for fixture in subject.fixtures {
            files(&paths::of_this_crate("fixtures").join(fixture), &mut inputs);
        }
        for input in inputs {
            let bytes = fs::read(&input).unwrap();
            // All that is broken is told, not the first alone.
            if catch_unwind(AssertUnwindSafe(|| fuzzing::check(subject, &bytes))).is_err() {
                broken.push(format!("{}: {}", subject.target, input.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// A target that is forgotten in one of its three places would not be run, or its seeds would be for nothing.
#[test]
fn every_subject_is_a_target_with_seeds() {
    let subjects: BTreeSet<String> = SUBJECTS.iter().map(|subject| subject.target.to_owned()).collect();
    assert_eq!(subjects.len(), SUBJECTS.len(), "two subjects have one name");
    let programs: BTreeSet<String> = subjects.iter().map(|name| format!("{name}.rs")).collect();
    assert_eq!(names(&folder("targets")), programs);
    let manifest = fs::read_to_string(folder("Cargo.toml")).unwrap();
    let missing: Vec<_> = subjects.iter().filter(|name| !manifest.contains(&format!("name = \"{name}\""))).collect();
    assert!(missing.is_empty(), "not in Cargo.toml: {missing:?}");
    for kind in ["seeds", "regressions"] {
        let strange: Vec<_> = names(&folder(kind)).difference(&subjects).cloned().collect();
        assert!(strange.is_empty(), "{kind} of nothing: {strange:?}");
    }
    let seeded = names(&folder("seeds"));
    let seedless: Vec<_> = subjects.difference(&seeded).collect();
    assert!(seedless.is_empty(), "no seeds: {seedless:?}");
    for subject in SUBJECTS.iter().filter(|subject| !subject.dictionary.is_empty()) {
        assert!(
            folder("dictionaries").join(format!("{}.dict", subject.dictionary)).is_file(),
            "{}",
            subject.dictionary
        );
    }
}
