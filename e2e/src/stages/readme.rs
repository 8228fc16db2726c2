//! The stage that does what the README tells its readers to do (process I/O).

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::command::run;
use crate::paths;

const SECTION: &str = "## Three commands";
/// The command of this very suite.
const SUITE: &str = "cargo e2e test";

/// Runs the commands of the README's first section, word for word.
pub fn check(_: &[String]) -> Result<()> {
    let readme = fs::read_to_string(paths::workspace().join("README.md"))?;
    let commands = commands(&readme)?;
    for command in commands.iter().filter(|command| **command != SUITE) {
        println!("$ {command}");
        let mut words = command.split_whitespace();
        let program = words.next().context("an empty command")?;
        let mut process = if program == "cargo" { paths::cargo() } else { Command::new(program) };
        run(process.args(words).current_dir(paths::workspace()))?;
    }
    Ok(())
}

fn commands(readme: &str) -> Result<Vec<&str>> {
    let section = readme.split_once(SECTION).with_context(|| format!("the README has no section {SECTION:?}"))?.1;
    let block = section.split_once("```sh\n").and_then(|(_, rest)| rest.split_once("```")).context("no commands")?.0;
    let commands: Vec<_> = block
        .lines()
        .map(|line| line.split_once('#').map_or(line, |(command, _)| command).trim())
        .filter(|command| !command.is_empty())
        .collect();
    if !commands.contains(&SUITE) || commands.len() < 3 {
        bail!("the README's section {SECTION:?} is to show the laptop, the demo and the suite; it shows {commands:?}");
    }
    Ok(commands)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readme_shows_three_commands() {
        let readme = fs::read_to_string(paths::workspace().join("README.md")).unwrap();
        let found = commands(&readme).unwrap();
        assert_eq!(found.len(), 3);
        assert!(found[0].starts_with("cargo run --release -- run -f examples/"), "{found:?}");
        assert_eq!(found[1], "cargo e2e demo");
    }

    #[test]
    fn a_readme_without_the_suite_is_noticed() {
        assert!(commands("## Three commands\n```sh\nls\n```\n").is_err());
    }
}
