//! The whole test suite as named stages: what they are, their order, their report (runs other programs).

mod chart;
mod commands;
mod fuzz;
mod readme;

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Result, bail};

/// One stage of the suite.
struct Stage {
    name: &'static str,
    what: &'static str,
    run: fn(arguments: &[String]) -> Result<()>,
}

/// In the order in which they run: what fails fast and needs little comes first.
const STAGES: &[Stage] = &[
    Stage { name: "format", what: "the code is formatted", run: commands::format },
    Stage { name: "lint", what: "clippy has nothing to say", run: commands::lint },
    Stage { name: "unit", what: "unit, property, contract and storage tests; no cluster", run: commands::unit },
    Stage { name: "deny", what: "licences, sources and banned crates", run: commands::deny },
    Stage {
        name: "chart",
        what: "helm lint, unit tests of the chart, its manifests against Kubernetes' schemas",
        run: chart::check,
    },
    Stage { name: "fuzz", what: "every parser, some seconds of arbitrary bytes each", run: fuzz::check },
    Stage { name: "release", what: "the product as it ships", run: commands::release },
    Stage { name: "up", what: "the one-node cluster", run: commands::up },
    Stage { name: "cluster", what: "the tests on the cluster, inside its network", run: commands::cluster },
    Stage { name: "readme", what: "the README's own commands", run: readme::check },
];

enum Outcome {
    Passed,
    Failed,
    Skipped,
}

/// Prints the stages.
pub fn list() {
    for stage in STAGES {
        println!("{:<10} {}", stage.name, stage.what);
    }
}

/// Runs the named stages (all, when none is named) in their order until one fails. `arguments` go to the test programs.
pub fn run(names: &[String], arguments: &[String]) -> Result<ExitCode> {
    if let Some(unknown) = names.iter().find(|name| STAGES.iter().all(|stage| stage.name != name.as_str())) {
        let known: Vec<_> = STAGES.iter().map(|stage| stage.name).collect();
        bail!("there is no stage `{unknown}`; the stages are {}", known.join(", "));
    }
    let chosen = STAGES.iter().filter(|stage| names.is_empty() || names.iter().any(|name| name == stage.name));
    let begun = Instant::now();
    let mut report = Vec::new();
    let mut failed = false;
    for stage in chosen {
        if failed {
            report.push((stage.name, Outcome::Skipped, 0.0));
            continue;
        }
        println!("==> {}: {}", stage.name, stage.what);
        let started = Instant::now();
        let result = (stage.run)(arguments);
        let seconds = started.elapsed().as_secs_f64();
        if let Err(error) = &result {
            failed = true;
            eprintln!("error: {error:#}");
        }
        let outcome = if result.is_ok() { Outcome::Passed } else { Outcome::Failed };
        println!("<== {}: {} in {seconds:.1} s\n", stage.name, word(&outcome));
        report.push((stage.name, outcome, seconds));
    }
    summarise(&report, begun.elapsed().as_secs_f64());
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn summarise(report: &[(&str, Outcome, f64)], seconds: f64) {
    for (name, outcome, seconds) in report {
        println!("{name:<10} {:<8} {seconds:>8.1} s", word(outcome));
    }
    let count = |wanted: fn(&Outcome) -> bool| report.iter().filter(|(_, outcome, _)| wanted(outcome)).count();
    let skipped = count(|outcome| matches!(outcome, Outcome::Skipped));
    if skipped > 0 {
        println!("{skipped} skipped after the failure");
    }
    println!(
        "{} passed, {} failed in {seconds:.1} s",
        count(|outcome| matches!(outcome, Outcome::Passed)),
        count(|outcome| matches!(outcome, Outcome::Failed)),
    );
}

fn word(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Passed => "passed",
        Outcome::Failed => "failed",
        Outcome::Skipped => "skipped",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_stage_is_answered_with_the_known_ones() {
        let error = run(&["frmat".to_owned()], &[]).unwrap_err().to_string();
        assert!(error.contains("frmat") && error.contains("format, lint"), "{error}");
    }
}
