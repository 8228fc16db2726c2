//! The dependency rules of the crate, read from its source: the core is pure, and shells know only what is theirs.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::repository;

/// Folder, and what no line of code in it may mention.
const RULES: &[(&str, &[&str])] = &[
    ("format", PURE),
    ("plan", PURE),
    ("contract", PURE),
    ("storage", &["kube::", "k8s_openapi"]),
    ("worker", &["kube::", "k8s_openapi", "crate::controller", "crate::plan"]),
    ("controller", &["object_store", "crate::storage", "crate::worker", "crate::format"]),
    ("local/world", PURE),
];

const PURE: &[&str] = &[
    "async ",
    ".await",
    "tokio",
    "object_store",
    "reqwest",
    "kube::Client",
    "kube::Api",
    "Api::<",
    "std::env",
    "env::var",
    "SystemTime",
    "Timestamp::now",
    "Instant",
    "std::fs",
    "fs::",
    "std::net",
    "std::process",
    "std::thread",
    "rand::",
    "crate::storage",
    "crate::worker",
    "crate::controller",
    "crate::runtime",
];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            if name != "tests" {
                sources(&path, found);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") && name != "tests.rs" {
            found.push(path);
        }
    }
}

/// The code of a file: no comments, no tests.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let product = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    product.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//"))
}

#[test]
fn every_module_keeps_to_its_side() {
    let mut broken = Vec::new();
    for (folder, forbidden) in RULES {
        let mut files = Vec::new();
        sources(&repository("src").join(folder), &mut files);
        assert!(!files.is_empty(), "src/{folder} has no source files: is the rule out of date?");
        for file in files {
            let text = fs::read_to_string(&file).unwrap();
            for (number, line) in code(&text) {
                for word in forbidden.iter().filter(|word| line.contains(**word)) {
                    broken.push(format!(
                        "{}:{}: {folder} must not use {word:?}: {}",
                        file.display(),
                        number + 1,
                        line.trim()
                    ));
                }
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// A person who opens a file learns from its first line which idea it is and whether it does I/O.
#[test]
fn every_file_says_what_it_is() {
    let mut files = Vec::new();
    sources(&repository("src"), &mut files);
    let silent: Vec<_> = files.iter().filter(|file| !fs::read_to_string(file).unwrap().starts_with("//! ")).collect();
    assert!(silent.is_empty(), "{silent:?}");
}
