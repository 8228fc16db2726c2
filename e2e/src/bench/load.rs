//! A load into a volume beside what others do: rclone, s5cmd, boto3, pyarrow (runs them, network and file I/O).
//!
//! All of them fetch the same bucket from a server on loopback that costs next to nothing, into a folder on the same disk, one
//! after the other. Whatever does not make its files durable itself is followed by a sync of that file system.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use checkpoint_operator::output::table::count;
use checkpoint_operator::plan::quantity::human;

use crate::command::capture;
use crate::folder_server::{BUCKET, Manner, Server};
use crate::{paths, python};

use super::measure::{Usage, measure, spread};
use super::{machine, product, remove, sources, table};

const REQUIREMENTS: &str = "load-bench-requirements.txt";
const DOCUMENT: &str = "docs/benchmarks.md";
/// What a connection to S3 brings, roughly, in bytes per second.
const CONNECTION: u64 = 64 << 20;
/// How long a server that is some way off takes before it answers.
const AWAY: Duration = Duration::from_millis(40);

/// How much is measured.
#[derive(clap::Args)]
pub struct Arguments {
    /// How often each program runs, after one run that does not count
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Bytes of each scenario, in GiB; the real size of a scenario of small files is an eighth of it
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=64))]
    gibibytes: u64,
    /// A release build of the product; left out: it is built
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
    /// Write the table into docs/benchmarks.md
    #[arg(long)]
    write: bool,
}

/// A bucket on a server.
struct Scenario {
    name: String,
    server: Server,
    files: u64,
    bytes: u64,
}

/// Who fetches.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Program {
    Product,
    Rclone,
    S5cmd,
    Boto3,
    Pyarrow,
}

const PROGRAMS: [Program; 5] = [Program::Product, Program::Rclone, Program::S5cmd, Program::Boto3, Program::Pyarrow];

impl Program {
    fn name(self) -> &'static str {
        match self {
            Self::Product => "checkpoint-operator",
            Self::Rclone => "rclone, then sync",
            Self::S5cmd => "s5cmd, then sync",
            Self::Boto3 => "boto3, then sync",
            Self::Pyarrow => "pyarrow, then sync",
        }
    }
}

#[derive(Clone, Copy)]
struct Run {
    usage: Usage,
    /// Requests and bytes that the server counted.
    read: (u64, u64),
}

/// Where the programs are.
struct Programs {
    product: PathBuf,
    python: PathBuf,
}

/// Makes the sources, runs everything in turn, prints the table.
pub fn run(arguments: &Arguments) -> Result<()> {
    let product = product(arguments.binary.as_deref())?;
    let programs = Programs { product, python: python::environment_of(REQUIREMENTS)? };
    let root = paths::target().join("bench/load");
    remove(&root)?;
    let scenarios = scenarios(&root, arguments.gibibytes << 30)?;
    let mut table = Vec::new();
    for scenario in &scenarios {
        let mut runs: Vec<(Program, Vec<Run>)> = PROGRAMS.iter().map(|program| (*program, Vec::new())).collect();
        for number in 0..=arguments.runs {
            for (program, runs) in &mut runs {
                let run = programs.run(*program, scenario, &root)?;
                if number > 0 {
                    runs.push(run);
                }
            }
            println!(
                "{}: run {number} of {}{}",
                scenario.name,
                arguments.runs,
                if number == 0 { " (does not count)" } else { "" }
            );
        }
        table.extend(rows(scenario, &runs));
    }
    let text = programs.report(arguments.runs, table)?;
    print!("\n{text}");
    drop(scenarios);
    remove(&root)?;
    if arguments.write {
        table::write_between(&paths::workspace().join(DOCUMENT), "load", &text)?;
    }
    Ok(())
}

fn scenarios(root: &Path, bytes: u64) -> Result<Vec<Scenario>> {
    let make = |name: &str, files: u64, size: u64, wait: Duration, rate: Option<u64>| {
        let folder = root.join("sources").join(name);
        sources::sized_shards(&folder, files, size)?;
        let server = Server::start(&folder, Manner { wait, rate, tls: false })?;
        Ok::<_, anyhow::Error>(Scenario { name: name.to_owned(), server, files, bytes: files * size })
    };
    let gib = bytes >> 30;
    Ok(vec![
        make(&format!("1 x {gib} GiB"), 1, bytes, Duration::ZERO, None)?,
        make(&format!("64 x {} MiB", (bytes >> 20) / 64), 64, bytes / 64, Duration::ZERO, None)?,
        make(&format!("{} x 1 MiB", count((bytes >> 20) / 8)), (bytes >> 20) / 8, 1 << 20, Duration::ZERO, None)?,
        make(&format!("1 x {gib} GiB, 64 MiB-s a connection"), 1, bytes, Duration::ZERO, Some(CONNECTION))?,
        make(&format!("1 x {gib} GiB, 40 ms away"), 1, bytes, AWAY, None)?,
    ])
}

impl Programs {
    fn run(&self, program: Program, scenario: &Scenario, root: &Path) -> Result<Run> {
        let target = root.join("target");
        remove(&target)?;
        fs::create_dir_all(&target)?;
        let work = root.join("output");
        fs::create_dir_all(&work)?;
        let mut command = self.command(program, scenario, root, &target)?;
        scenario.server.take_counts();
        let ended = measure(&mut command, &work)?;
        let read = scenario.server.take_counts();
        let what = || format!("{} of {}", program.name(), scenario.name);
        ensure!(ended.status.success(), "{} ended with {}: {}", what(), ended.status, ended.output);
        let (files, bytes) = holds(&target)?;
        ensure!(files == scenario.files && bytes == scenario.bytes, "{} brought {files} files, {bytes} bytes", what());
        remove(&target)?;
        Ok(Run { usage: ended.usage, read })
    }

    fn command(&self, program: Program, scenario: &Scenario, root: &Path, target: &Path) -> Result<Command> {
        let endpoint = scenario.server.endpoint();
        let bin = |name: &str| self.python.join("bin").join(name).display().to_string();
        let shown = target.display();
        let fetch = match program {
            Program::Product => {
                let manifest = root.join("checkpoint.yaml");
                fs::write(&manifest, manifest_of(&endpoint))?;
                let mut command = Command::new(&self.product);
                command.arg("run").arg("-f").arg(manifest).arg("--volumes").arg(target);
                return Ok(command);
            }
            Program::Rclone => format!(
                "{} copy :s3:{BUCKET} {shown} --s3-provider Other --s3-endpoint {endpoint} --s3-region us-east-1 \
                 --s3-force-path-style --config /dev/null --s3-no-check-bucket",
                bin("rclone")
            ),
            Program::S5cmd => format!(
                "{} --no-sign-request --endpoint-url {endpoint} --log error cp 's3://{BUCKET}/*' {shown}/",
                bin("s5cmd")
            ),
            Program::Boto3 | Program::Pyarrow => {
                let name = if program == Program::Boto3 { "boto3" } else { "pyarrow" };
                let script = paths::of_this_crate("python/copy_folder.py");
                format!("{} {} {name} {endpoint} {BUCKET} {shown}", bin("python"), script.display())
            }
        };
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!("{fetch} && sync -f {shown}"));
        command.env("AWS_EC2_METADATA_DISABLED", "true").env("AWS_REGION", "us-east-1");
        Ok(command)
    }

    fn report(&self, runs: u32, mut rows: Vec<Vec<String>>) -> Result<String> {
        let version = capture(Command::new(&self.product).arg("--version"))?;
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
            "`cargo e2e bench load --runs {runs}` on {}: {}; {}, {}. All programs in turn, after one run each that does not \
             count.\n\n{}",
            machine::date()?,
            machine::describe(),
            version.trim(),
            pins.join(", "),
            table::markdown(&rows, 2),
        ))
    }
}

/// A Checkpoint of the whole bucket.
fn manifest_of(endpoint: &str) -> String {
    let mut text =
        "apiVersion: checkpoints.dev/v1alpha1\nkind: Checkpoint\nmetadata: {name: bench}\nspec:\n".to_owned();
    // Writing to a string cannot fail.
    _ = write!(
        text,
        "  path: s3://{BUCKET}\n  storage: {{s3: {{endpoint: '{endpoint}', insecure: true, credentials: {{anonymous: true}}}}}}\n  \
         volumes: [{{claimName: bench}}]\n"
    );
    text
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
            human(bytes.saturating_sub(scenario.bytes)),
        ]
    };
    runs.iter().map(row).collect()
}
