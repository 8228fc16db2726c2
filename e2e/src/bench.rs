//! `cargo e2e bench`: the product beside other programs. It measures and prints, and nothing fails for being slow (process I/O).
//!
//! Another benchmark is a module here and a member of [`Benchmark`]; [`measure`], [`machine`] and [`table`] are shared.

pub mod inspect;
pub mod load;
mod machine;
mod measure;
mod sources;
mod table;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Subcommand;

use crate::{command, paths};

/// What is measured.
#[derive(Subcommand)]
pub enum Benchmark {
    /// `checkpoint-operator inspect` beside safetensors and picklescan: time, processor, memory, requests, bytes
    #[command(
        after_help = "Makes its sources below target/bench (sparse files of 10 TB in all, which take some MB), runs all\n\
        programs in turn, prints one table and removes the sources.\n\
        Example: cargo e2e bench inspect --runs 9 --write    also writes docs/benchmarks.md"
    )]
    Inspect(inspect::Arguments),
    /// A load into a volume beside rclone, s5cmd, boto3, pyarrow and `huggingface_hub`: time, processor, memory, requests, over-read
    #[command(
        after_help = "Makes its sources below target/bench (sparse files), runs all programs in turn from a server on loopback,\n\
        prints one table and removes what it made. Needs as much disk as --mebibytes says.\n\
        Examples:\n  cargo e2e bench load --runs 5 --write                    also writes docs/benchmarks.md\n  \
        cargo e2e bench load --scenario tls --scenario deep      what is not measured by default"
    )]
    Load(load::Arguments),
}

/// Runs a benchmark.
pub fn run(benchmark: &Benchmark) -> Result<()> {
    match benchmark {
        Benchmark::Inspect(arguments) => inspect::run(arguments),
        Benchmark::Load(arguments) => load::run(arguments),
    }
}

/// The release build that is measured: the one that was named, or one that is made now.
fn product(binary: Option<&Path>) -> Result<PathBuf> {
    if let Some(binary) = binary {
        return Ok(binary.to_owned());
    }
    command::run(paths::cargo().args(["build", "--release", "--quiet", "--package", "checkpoint-operator"]))?;
    Ok(paths::product_binary())
}

/// Removes a folder that need not be there.
fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}
