//! `checkpoint-operator inspect` at depth `Headers`, beside what safetensors and picklescan do of it (runs them, file I/O).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use checkpoint_operator::contract::{Outcome, Report};
use checkpoint_operator::output::table::count;
use checkpoint_operator::plan::quantity::human;

use crate::command::capture;
use crate::folder_server::{BUCKET, Manner, Server};
use crate::{paths, python};

use super::measure::{Usage, floor, measure, spread};
use super::{machine, product, remove, sources, table};

/// What the design promises for 1,000 shards of 10 GB, in bytes.
const MEMORY_BAR: u64 = 64 << 20;
/// How long a server that is some way off takes before it answers.
const AWAY: Duration = Duration::from_millis(20);
const REQUIREMENTS: &str = "bench-requirements.txt";
const DOCUMENT: &str = "docs/benchmarks.md";

/// How much is measured.
#[derive(clap::Args)]
pub struct Arguments {
    /// How often each program runs, after one run that does not count
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Shards of 10 GB
    #[arg(long, default_value_t = 1_000)]
    shards: u64,
    /// Small files
    #[arg(long, default_value_t = 100_000)]
    files: u64,
    /// Files of torch, with pickles
    #[arg(long, default_value_t = 2_000)]
    pickles: u64,
    /// A release build of the product; left out: it is built
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
    /// Write the table into docs/benchmarks.md
    #[arg(long)]
    write: bool,
}

/// Reads the output of a program that ended.
type Check<'a> = Box<dyn Fn(&str) -> Result<()> + 'a>;

/// A program that does its part.
struct Contender<'a> {
    source: String,
    program: String,
    command: Box<dyn Fn() -> Command + 'a>,
    /// Whether it did what it was measured for.
    check: Check<'a>,
    /// The server that it asks, whose counts are exact.
    server: Option<&'a Server>,
    runs: Vec<Run>,
}

#[derive(Clone, Copy)]
struct Run {
    usage: Usage,
    /// Requests and bytes.
    read: (u64, u64),
}

/// The programs that are compared.
struct Programs {
    product: PathBuf,
    python: PathBuf,
}

/// Makes the sources, runs everything in turn, prints the table.
pub fn run(arguments: &Arguments) -> Result<()> {
    let product = product(arguments.binary.as_deref())?;
    let programs = Programs { product, python: python::environment_of(REQUIREMENTS)? };
    let root = paths::target().join("bench/inspect");
    remove(&root)?;
    fs::create_dir_all(&root)?;
    println!("Making the sources below {}", root.display());
    let (shards, files, pickles) = (root.join("shards"), root.join("files"), root.join("pickles"));
    let tensors = (sources::shards(&shards, arguments.shards)?, sources::files(&files, arguments.files)?);
    sources::pickles(&pickles, arguments.pickles)?;
    let servers = (
        Server::start(&shards, Manner::default())?,
        Server::start(&shards, Manner { wait: AWAY, ..Manner::default() })?,
    );
    let many = Server::start(&files, Manner::default())?;
    let huge = format!("{} shards of 10 GB", count(arguments.shards));
    let small = format!("{} files of 0.3 KB", count(arguments.files));
    let torch = format!("{} files of torch", count(arguments.pickles));
    let mut contenders = vec![
        programs.inspect(&huge, &shards, Some(tensors.0)),
        programs.safetensors(&huge, &shards, tensors.0),
        programs.inspect_bucket(&huge, &servers.0, "S3", tensors.0),
        programs.inspect_bucket(&huge, &servers.1, "S3 20 ms away", tensors.0),
        programs.inspect(&small, &files, Some(tensors.1)),
        programs.safetensors(&small, &files, tensors.1),
        programs.inspect_bucket(&small, &many, "S3", tensors.1),
        programs.inspect(&torch, &pickles, None),
        programs.picklescan(&torch, &pickles, arguments.pickles),
    ];
    let work = root.join("output");
    fs::create_dir_all(&work)?;
    for number in 0..=arguments.runs {
        println!("Run {number} of {}{}", arguments.runs, if number == 0 { " (does not count)" } else { "" });
        for contender in &mut contenders {
            let run = contender.run(&work)?;
            if number > 0 {
                contender.runs.push(run);
            }
        }
    }
    let text = programs.report(&contenders, floor(&work)?)?;
    print!("\n{text}");
    drop(contenders);
    remove(&root)?;
    if arguments.write {
        table::write_between(&paths::workspace().join(DOCUMENT), "inspect", &text)?;
    }
    Ok(())
}

impl Programs {
    fn inspect<'a>(&'a self, source: &str, folder: &'a Path, tensors: Option<u64>) -> Contender<'a> {
        Contender {
            source: source.to_owned(),
            program: "inspect, folder".to_owned(),
            command: Box::new(move || {
                let mut command = Command::new(&self.product);
                command.args(["inspect", "--output", "json"]).arg(folder);
                command
            }),
            check: Box::new(move |output| good(output, tensors)),
            server: None,
            runs: Vec::new(),
        }
    }

    fn inspect_bucket<'a>(&'a self, source: &str, server: &'a Server, place: &str, tensors: u64) -> Contender<'a> {
        Contender {
            program: format!("inspect, {place}"),
            command: Box::new(move || {
                let mut command = Command::new(&self.product);
                let bucket = format!("s3://{BUCKET}");
                command.args(["inspect", "--output", "json", &bucket, "--endpoint", &server.endpoint()]);
                command.args(["--insecure", "--anonymous", "--region", "us-east-1"]);
                command
            }),
            server: Some(server),
            ..self.inspect(source, Path::new(""), Some(tensors))
        }
    }

    fn safetensors<'a>(&'a self, source: &str, folder: &'a Path, tensors: u64) -> Contender<'a> {
        Contender {
            source: source.to_owned(),
            program: "safetensors, folder".to_owned(),
            command: Box::new(move || {
                let mut command = Command::new(self.python.join("bin/python"));
                command.arg(paths::of_this_crate("python/read_headers.py")).arg(folder);
                command
            }),
            check: Box::new(move |output| {
                ensure!(output.trim() == tensors.to_string(), "safetensors read {output} of {tensors} tensors");
                Ok(())
            }),
            server: None,
            runs: Vec::new(),
        }
    }

    fn picklescan<'a>(&'a self, source: &str, folder: &'a Path, files: u64) -> Contender<'a> {
        Contender {
            source: source.to_owned(),
            program: "picklescan, folder".to_owned(),
            command: Box::new(move || {
                let mut command = Command::new(self.python.join("bin/picklescan"));
                command.arg("--path").arg(folder);
                command
            }),
            check: Box::new(move |output| {
                ensure!(output.contains(&format!("Scanned files: {files}")), "picklescan said: {output}");
                Ok(())
            }),
            server: None,
            runs: Vec::new(),
        }
    }

    /// The table, with what one must know to read it.
    fn report(&self, contenders: &[Contender<'_>], floor: u64) -> Result<String> {
        let version = capture(Command::new(&self.product).arg("--version"))?;
        let python = capture(Command::new(self.python.join("bin/python")).arg("--version"))?;
        let pins = fs::read_to_string(paths::of_this_crate(REQUIREMENTS))?;
        let pins: Vec<&str> = pins.lines().filter(|line| !line.starts_with('#')).collect();
        let runs = contenders.first().map_or(0, |contender| contender.runs.len());
        let mut rows = vec![
            [
                "source",
                "program",
                "seconds: least",
                "median",
                "most",
                "of inspect",
                "CPU s",
                "MiB: least",
                "median",
                "most",
                "requests",
                "bytes read",
            ]
            .map(str::to_owned)
            .to_vec(),
        ];
        for contender in contenders {
            let base = contenders.iter().find(|other| other.source == contender.source).unwrap_or(contender);
            rows.push(contender.row(base));
        }
        let peak = |of: &dyn Fn(&Contender<'_>) -> bool| {
            let peaks = contenders.iter().filter(|contender| of(contender)).flat_map(|contender| &contender.runs);
            peaks.map(|run| run.usage.peak).max().unwrap_or(0)
        };
        let first = contenders.first().map(|contender| contender.source.clone()).unwrap_or_default();
        let largest = peak(&|contender| contender.source == first && contender.program.starts_with("inspect"));
        let verdict = if largest < MEMORY_BAR { "holds" } else { "IS MISSED" };
        Ok(format!(
            "`cargo e2e bench inspect --runs {runs}` on {}: {}; {}, {}, {}. All programs in turn, after one run each \
             that does not count: caches are warm.\n\n{}\n\
             Memory of an inspection of {first}: at most {}; the bar of {} {verdict}. (A program that does nothing gets {} in \
             this measurement.)\n",
            machine::date()?,
            machine::describe(),
            version.trim(),
            python.trim(),
            pins.join(", "),
            table::markdown(&rows, 2),
            human(largest),
            human(MEMORY_BAR),
            human(floor),
        ))
    }
}

/// An inspection ended well and saw every tensor.
fn good(output: &str, tensors: Option<u64>) -> Result<()> {
    let report = Report::decode(output).with_context(|| format!("no report: {output}"))?;
    ensure!(report.outcome == Outcome::Good, "{}", report.message);
    let seen = report.contents.unwrap_or_default().tensors;
    if let Some(tensors) = tensors {
        ensure!(seen == i64::try_from(tensors).ok(), "it saw {seen:?} of {tensors} tensors");
    }
    Ok(())
}

impl Contender<'_> {
    fn run(&self, work: &Path) -> Result<Run> {
        let counts = || self.server.map(Server::take_counts);
        counts();
        let ended = measure(&mut (self.command)(), work)?;
        let what = || format!("{} of {}", self.program, self.source);
        (self.check)(&ended.output).with_context(what)?;
        ensure!(ended.status.success(), "{} ended with {}", what(), ended.status);
        Ok(Run { usage: ended.usage, read: counts().unwrap_or(ended.usage.read) })
    }

    fn row(&self, base: &Contender<'_>) -> Vec<String> {
        let seconds = |duration: Duration| format!("{:.3}", duration.as_secs_f64());
        let wall = self.wall();
        let ratio = wall[1].as_secs_f64() / base.wall()[1].as_secs_f64();
        let processor = spread(self.runs.iter().map(|run| run.usage.processor)).unwrap_or_default();
        let peak = spread(self.runs.iter().map(|run| run.usage.peak)).unwrap_or_default();
        let (requests, bytes) = self.runs.last().map_or((0, 0), |run| run.read);
        let mut row = vec![self.source.clone(), self.program.clone()];
        row.extend(wall.map(seconds));
        row.push(format!("{ratio:.2}"));
        row.push(seconds(processor[1]));
        row.extend(peak.map(|bytes| format!("{:.1}", bytes as f64 / f64::from(1 << 20))));
        row.extend([count(requests), human(bytes)]);
        row
    }

    fn wall(&self) -> [Duration; 3] {
        spread(self.runs.iter().map(|run| run.usage.wall)).unwrap_or_default()
    }
}
