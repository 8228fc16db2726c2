//! What the repository promises in more than one place agrees: chart, generated files, examples and code. Reads files, needs no cluster.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests stand outside of test functions here")]

mod chart_crd;
mod chart_rbac;
mod chart_values;
mod examples;
mod purity;
mod readme_formats;

use std::path::{Path, PathBuf};

/// A file or folder of the repository.
fn repository(relative: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join(relative)
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()))
}
