//! The fuzz targets (`e2e/fuzz`): built once with coverage, then run for a few seconds each (process and file I/O).
//!
//! The flags are those that cargo-fuzz uses without a sanitizer: they work with a stable compiler, and nothing has to be
//! installed. `cargo fuzz run --fuzz-dir e2e/fuzz --sanitizer none TARGET` does the same for one target.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::Instant;
use std::{env, thread};

use anyhow::{Context, Result, bail};

use crate::command::{capture, line, run};
use crate::fuzzing::{SUBJECTS, Subject};
use crate::paths;

/// Seconds for each target.
const SECONDS: &str = "CHECKPOINT_E2E_FUZZ_SECONDS";
const DEFAULT_SECONDS: u64 = 1;
/// Targets at once.
const AT_ONCE: usize = 2;
/// The longest input, in bytes: all fixtures fit, and an execution stays short.
const LONGEST: usize = 32 << 10;

const FLAGS: &[&str] = &[
    "--cfg",
    "fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Cllvm-args=-simplifycfg-branch-fold-threshold=0",
];

/// Builds the targets and runs them; arguments choose those whose names contain one of them.
pub fn check(arguments: &[String]) -> Result<()> {
    let words: Vec<_> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let chosen = |subject: &&Subject| words.is_empty() || words.iter().any(|word| subject.target.contains(*word));
    let subjects: Vec<_> = SUBJECTS.iter().filter(chosen).collect();
    if subjects.is_empty() {
        println!("no target has such a name");
        return Ok(());
    }
    let seconds = env::var(SECONDS).ok().map_or(Ok(DEFAULT_SECONDS), |text| text.parse());
    let seconds = seconds.with_context(|| format!("{SECONDS} must be a number of seconds"))?;
    let programs = build()?;
    println!("{:<24} {:>10} {:>9} {:>8} {:>9}", "target", "executions", "coverage", "seconds", "memory");
    let queue = Mutex::new(subjects.into_iter());
    let next = || queue.lock().ok().and_then(|mut queue| queue.next());
    let work = || {
        let mut failures = Vec::new();
        while let Some(subject) = next() {
            match fuzz(subject, &programs, seconds) {
                Ok(row) => println!("{row}"),
                Err(failure) => {
                    println!("{:<24} FAILED", subject.target);
                    failures.push(format!("{failure:#}"));
                }
            }
        }
        failures
    };
    let failures = thread::scope(|scope| {
        let workers: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(work)).collect();
        let ended =
            workers.into_iter().map(|worker| worker.join().unwrap_or_else(|_| vec!["a thread ended".to_owned()]));
        ended.flatten().collect::<Vec<_>>()
    });
    if failures.is_empty() {
        return Ok(());
    }
    bail!("{}", failures.join("\n\n"))
}

/// Builds all targets; returns their folder.
fn build() -> Result<PathBuf> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = capture(Command::new(rustc).arg("-vV"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc names no host")?;
    let target = work_folder();
    let mut cargo = paths::cargo();
    // With a target named, the flags are not for build scripts and macros.
    cargo.args(["build", "--release", "--bins", "--locked", "--target", host, "--manifest-path"]);
    cargo.arg(fuzz_folder().join("Cargo.toml")).env("CARGO_TARGET_DIR", &target);
    run(cargo.env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\u{1f}")))?;
    Ok(target.join(host).join("release"))
}

fn fuzz_folder() -> PathBuf {
    paths::of_this_crate("fuzz")
}

/// What builds and runs leave: programs, corpora, logs and crashing inputs.
fn work_folder() -> PathBuf {
    paths::target().join("fuzz")
}

/// Runs one target; a row of the table, or how it failed.
fn fuzz(subject: &Subject, programs: &Path, seconds: u64) -> Result<String> {
    let corpus = work_folder().join("corpus").join(subject.target);
    let crashes = work_folder().join("crashes").join(subject.target);
    let log = work_folder().join("logs").join(format!("{}.log", subject.target));
    for folder in [&corpus, &crashes, &work_folder().join("logs")] {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let mut command = Command::new(programs.join(subject.target));
    command.arg(&corpus).args(seeds(subject));
    command.args([&format!("-max_total_time={seconds}"), &format!("-max_len={LONGEST}")]);
    command.args(["-rss_limit_mb=512", "-timeout=10", "-print_final_stats=1"]);
    command.arg(format!("-artifact_prefix={}/", crashes.display()));
    if !subject.dictionary.is_empty() {
        let words = fuzz_folder().join("dictionaries").join(format!("{}.dict", subject.dictionary));
        command.arg(format!("-dict={}", words.display()));
    }
    let output = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(output);
    let begun = Instant::now();
    let status = command.status().with_context(|| format!("cannot start `{}`", line(&command)))?;
    let said = fs::read(&log).with_context(|| format!("cannot read {}", log.display()))?;
    let said = String::from_utf8_lossy(&said);
    if !status.success() {
        bail!("{}", failure(subject, &said, &log, programs));
    }
    let figure = |name: &str| statistic(&said, name).unwrap_or("?");
    Ok(format!(
        "{:<24} {:>10} {:>9} {:>8.1} {:>5} MiB",
        subject.target,
        figure("stat::number_of_executed_units:"),
        coverage(&said).unwrap_or("?"),
        begun.elapsed().as_secs_f64(),
        figure("stat::peak_rss_mb:"),
    ))
}

/// Where to begin: committed seeds, what was found before, and fixtures.
fn seeds(subject: &Subject) -> Vec<PathBuf> {
    let own = ["seeds", "regressions"].map(|kind| fuzz_folder().join(kind).join(subject.target));
    let fixtures = subject.fixtures.iter().map(|folder| paths::of_this_crate("fixtures").join(folder));
    own.into_iter().chain(fixtures).filter(|folder| folder.is_dir()).collect()
}

/// The edges that were reached, from the last line of progress.
fn coverage(said: &str) -> Option<&str> {
    let last = said.lines().rev().find_map(|line| line.split_once(" cov: "))?;
    last.1.split_whitespace().next()
}

fn statistic<'a>(said: &'a str, name: &str) -> Option<&'a str> {
    said.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

/// What was found, and what to do about it.
fn failure(subject: &Subject, said: &str, log: &Path, programs: &Path) -> String {
    let target = subject.target;
    let what = said.lines().find(|line| ["panicked at", "ERROR: libFuzzer"].iter().any(|mark| line.contains(mark)));
    let detail = said.lines().skip_while(|line| Some(*line) != what).nth(1).filter(|line| !line.starts_with('='));
    let input = said.lines().find_map(|line| line.split_once("Test unit written to ")).map(|(_, path)| path.trim());
    let Some(input) = input else {
        return format!("{target} ended without naming an input; its log: {}", log.display());
    };
    format!(
        "{target}: {}\n{}\n  input:       {input}\n  log:         {}\n  shorten it:  {} -minimize_crash=1 -runs=100000 {input}\n  \
         keep it:     put the shortened file into e2e/fuzz/regressions/{target}, where \
         `cargo test --package checkpoint-operator-e2e --test fuzz` judges it from then on",
        what.unwrap_or("it failed"),
        detail.unwrap_or_default(),
        log.display(),
        programs.join(target).display(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "INFO: Seed: 1\n#2\tINITED cov: 70 ft: 71 corp: 1/1b exec/s: 0 rss: 40Mb\n\
        #97\tDONE   cov: 81 ft: 90 corp: 3/9b lim: 4 exec/s: 0 rss: 40Mb\nDone 97 runs in 1 second(s)\n\
        stat::number_of_executed_units: 97\nstat::peak_rss_mb:              41\n";

    #[test]
    fn figures_are_found() {
        assert_eq!(coverage(SAID), Some("81"));
        assert_eq!(statistic(SAID, "stat::number_of_executed_units:"), Some("97"));
        assert_eq!(statistic(SAID, "stat::peak_rss_mb:"), Some("41"));
        assert_eq!(statistic(SAID, "stat::slowest:"), None);
    }

    #[test]
    fn a_failure_says_what_and_where() {
        let said = "thread '<unnamed>' panicked at src/x.rs:1:2:\nthe verdict depends on an order\n\
            ==1== ERROR: libFuzzer: deadly signal\nartifact_prefix='x/'; Test unit written to x/crash-1\n";
        let text = failure(&SUBJECTS[0], said, Path::new("logs/x.log"), Path::new("bin"));
        for part in
            ["src/x.rs:1:2", "depends on an order", "x/crash-1", "logs/x.log", "e2e/fuzz/regressions/safetensors"]
        {
            assert!(text.contains(part), "{part} is not in {text}");
        }
        assert!(failure(&SUBJECTS[0], "", Path::new("logs/x.log"), Path::new("bin")).contains("logs/x.log"));
    }
}
