//! A load into a volume beside what others do: rclone, s5cmd, boto3, pyarrow, `huggingface_hub` (runs them, network and file I/O).
//!
//! All of them fetch the same bucket from a server on loopback that costs next to nothing, into a folder on the same disk, one
//! after the other. Whatever does not make its files durable itself is followed by a sync of that file system.

mod program;
mod scenario;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};
use checkpoint_operator::output::table::count;
use checkpoint_operator::plan::quantity::human;

use crate::command::capture;
use crate::{paths, python};

use super::measure::{Usage, measure, spread};
use super::{machine, product, remove, table};
use program::{BEFORE, Program, Programs};
use scenario::{Kind, Scenario};

const REQUIREMENTS: &str = "load-bench-requirements.txt";
const DOCUMENT: &str = "docs/benchmarks.md";

/// How much is measured.
#[derive(clap::Args)]
pub struct Arguments {
    /// How often each program runs, after one run that does not count
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Size of a scenario, in MiB
    #[arg(long, default_value_t = 4096, value_parser = clap::value_parser!(u64).range(64..=65536))]
    mebibytes: u64,
    /// What is loaded; may be repeated
    #[arg(long = "scenario", value_enum, default_values_t = Kind::DEFAULT)]
    scenarios: Vec<Kind>,
    /// A release build of the product; left out: it is built
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
    /// Write the table into docs/benchmarks.md
    #[arg(long)]
    write: bool,
}

#[derive(Clone, Copy)]
struct Run {
    usage: Usage,
    /// Requests and bytes that the server counted.
    read: (u64, u64),
}

/// Makes the sources, runs everything in turn, prints the table.
pub fn run(arguments: &Arguments) -> Result<()> {
    let product = product(arguments.binary.as_deref())?;
    let programs = Programs { product, python: python::environment_of(REQUIREMENTS)? };
    let root = paths::target().join("bench/load");
    remove(&root)?;
    let mut table = Vec::new();
    for kind in &arguments.scenarios {
        let scenario = Scenario::make(*kind, &root, arguments.mebibytes << 20)?;
        table.extend(rows(&scenario, &measured(&programs, &scenario, arguments.runs, &root)?));
        remove(&root)?;
    }
    let text = report(&programs, arguments, table)?;
    print!("\n{text}");
    if arguments.write {
        table::write_between(&paths::workspace().join(DOCUMENT), "load", &text)?;
    }
    Ok(())
}

/// All programs in turn, so often and once more.
fn measured(programs: &Programs, scenario: &Scenario, times: u32, root: &Path) -> Result<Vec<(Program, Vec<Run>)>> {
    let mut runs: Vec<_> = scenario.programs().iter().map(|program| (*program, Vec::new())).collect();
    for number in 0..=times {
        for (program, runs) in &mut runs {
            let run = measured_once(programs, *program, scenario, root)?;
            if number > 0 {
                runs.push(run);
            }
        }
        let counts = if number == 0 { " (does not count)" } else { "" };
        println!("{}: run {number} of {times}{counts}", scenario.name);
    }
    Ok(runs)
}

fn measured_once(programs: &Programs, program: Program, scenario: &Scenario, root: &Path) -> Result<Run> {
    let (target, work) = (root.join("target"), root.join("output"));
    remove(&target)?;
    fs::create_dir_all(&target)?;
    fs::create_dir_all(&work)?;
    if let Some(before) = &scenario.before {
        capture(&mut programs.command(program, scenario, before, &target, BEFORE)?)?;
    }
    let mut command = programs.command(program, scenario, &scenario.server, &target, "bench")?;
    _ = scenario.server.take_counts();
    let ended = measure(&mut command, &work)?;
    let read = scenario.server.take_counts();
    let what = || format!("{} of {}", program.name(), scenario.name);
    ensure!(ended.status.success(), "{} ended with {}: {}", what(), ended.status, ended.output);
    let (files, bytes) = holds(&program.folder(&target, "bench"))?;
    ensure!(files == scenario.files && bytes == scenario.bytes, "{} brought {files} files, {bytes} bytes", what());
    remove(&target)?;
    Ok(Run { usage: ended.usage, read })
}

fn report(programs: &Programs, arguments: &Arguments, mut rows: Vec<Vec<String>>) -> Result<String> {
    let version = capture(Command::new(&programs.product).arg("--version"))?;
    let pins = fs::read_to_string(paths::of_this_crate(REQUIREMENTS))?;
    let pins: Vec<&str> = pins.lines().filter(|line| !line.starts_with('#')).collect();
    let head = [
        "source",
        "program",
        "seconds: least",
        "median",
        "times ours",
        "MiB/s",
        "CPU s/GiB",
        "MiB",
        "requests",
        "over-read",
    ];
    rows.insert(0, head.map(str::to_owned).to_vec());
    Ok(format!(
        "`cargo e2e bench load --runs {} --mebibytes {}` on {}: {}; {}, {}. All programs in turn, after one run each that does not \
         count.\n\n{}",
        arguments.runs,
        arguments.mebibytes,
        machine::date()?,
        machine::describe(),
        version.trim(),
        pins.join(", "),
        table::markdown(&rows, 2),
    ))
}

/// Files below a folder and their bytes, without what the product keeps for itself.
fn holds(folder: &Path) -> Result<(u64, u64)> {
    let (mut files, mut bytes) = (0, 0);
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        if entry.file_type()?.is_dir() {
            let (more, larger) = holds(&entry.path())?;
            (files, bytes) = (files + more, bytes + larger);
        } else {
            (files, bytes) = (files + 1, bytes + entry.metadata()?.len());
        }
    }
    Ok((files, bytes))
}

fn rows(scenario: &Scenario, runs: &[(Program, Vec<Run>)]) -> Vec<Vec<String>> {
    let wall = |runs: &[Run]| spread(runs.iter().map(|run| run.usage.wall)).unwrap_or_default();
    let ours = runs.first().map(|(_, runs)| wall(runs)[1]).unwrap_or_default();
    let row = |(program, runs): &(Program, Vec<Run>)| {
        let [least, median, _] = wall(runs).map(|duration| duration.as_secs_f64());
        let processor = spread(runs.iter().map(|run| run.usage.processor)).unwrap_or_default()[1].as_secs_f64();
        let peak = spread(runs.iter().map(|run| run.usage.peak)).unwrap_or_default()[2];
        let (requests, bytes) = runs.last().map_or((0, 0), |run| run.read);
        vec![
            scenario.name.clone(),
            program.name().to_owned(),
            format!("{least:.2}"),
            format!("{median:.2}"),
            format!("{:.2}", median / ours.as_secs_f64()),
            format!("{:.0}", scenario.bytes as f64 / f64::from(1 << 20) / median),
            format!("{:.2}", processor / (scenario.bytes as f64 / f64::from(1 << 30))),
            format!("{:.0}", peak as f64 / f64::from(1 << 20)),
            count(requests),
            human(bytes.saturating_sub(scenario.new)),
        ]
    };
    runs.iter().map(row).collect()
}
