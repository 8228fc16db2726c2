//! `cargo e2e bench`: the product beside other programs. It measures and prints, and nothing fails for being slow (process I/O).
//!
//! Another benchmark is a module here and a member of [`Benchmark`]; [`measure`], [`machine`] and [`table`] are shared.

pub mod inspect;
pub mod load;
mod machine;
mod measure;
mod server;
mod sources;
mod table;

use anyhow::Result;
use clap::Subcommand;

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
    /// A load into a volume beside rclone, s5cmd, boto3 and pyarrow: time, processor, memory, requests, over-read
    #[command(
        after_help = "Makes its sources below target/bench (sparse files), runs all programs in turn from a server on loopback,\n\
        prints one table and removes what it made. Needs as much disk as --gibibytes says.\n\
        Example: cargo e2e bench load --runs 5 --write    also writes docs/benchmarks.md"
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
