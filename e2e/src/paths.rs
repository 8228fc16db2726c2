//! Where things lie: the workspace, the cache, the state of the cluster. Reads the environment, no other I/O.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

/// The root of the repository.
#[must_use]
pub fn workspace() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

/// A file or folder of this crate, for example `tools/helm`.
#[must_use]
pub fn of_this_crate(relative: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(relative)
}

/// The cargo that runs us, in the workspace.
#[must_use]
pub fn cargo() -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    in_workspace(&mut cargo);
    cargo
}

/// Puts a command into the workspace, without what `cargo run` told us about our own package.
pub fn in_workspace(command: &mut Command) {
    command.current_dir(workspace());
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
}

/// Cargo's target folder.
#[must_use]
pub fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), |folder| workspace().join(folder))
}

/// The product's binary as `cargo build --release` leaves it.
#[must_use]
pub fn product_binary() -> PathBuf {
    target().join("release/checkpoint-operator")
}

/// What survives `cargo clean` and is shared between checkouts: built tools and the Python environment.
pub fn cache() -> Result<PathBuf> {
    let base = match env::var_os("XDG_CACHE_HOME") {
        Some(folder) if !folder.is_empty() => PathBuf::from(folder),
        _ => PathBuf::from(env::var_os("HOME").context("neither XDG_CACHE_HOME nor HOME is set")?).join(".cache"),
    };
    Ok(base.join("checkpoint-operator-e2e"))
}

/// The state of the test cluster: `CHECKPOINT_E2E_ROOT`, by default `target/e2e/cluster`.
#[must_use]
pub fn cluster_state() -> PathBuf {
    let default = workspace().join("target/e2e/cluster");
    env::var_os("CHECKPOINT_E2E_ROOT").map_or(default, |folder| workspace().join(folder))
}
