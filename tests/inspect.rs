//! `checkpoint-operator inspect` on every fixture: what it prints lets a person act, and a program read it (runs the program).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests stand outside of test functions here"
)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use checkpoint_operator::contract::{Format, Outcome, PickleTier, Report, VERSION};
use serde_json::Value;

/// What one can be told to do. A message about a file that is wrong says one of them.
const REMEDIES: &[&str] = &["upload", "set ", "exclude", "run `", "point ", "save it again", "name "];

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("e2e/fixtures")
}

/// All folders below the fixtures: what holds several checkpoints is judged too.
fn folders() -> Vec<PathBuf> {
    let mut ahead = vec![fixtures()];
    let mut found = Vec::new();
    while let Some(folder) = ahead.pop() {
        for item in fs::read_dir(folder).unwrap() {
            let path = item.unwrap().path();
            if path.is_dir() && !path.ends_with("__pycache__") {
                found.push(path.clone());
                ahead.push(path);
            }
        }
    }
    found.sort();
    assert!(found.len() > 20, "{found:?}");
    found
}

fn inspect(folder: &Path, options: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_checkpoint-operator"));
    command.arg("inspect").arg(folder).args(options).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// The report, read from JSON and from YAML, with nothing lost on the way.
fn report(folder: &Path) -> Report {
    let json = inspect(folder, &["--output", "json"]);
    let value: Value = serde_json::from_slice(&json.stdout).unwrap();
    let report = Report::decode(text(&json.stdout)).unwrap();
    assert_eq!(serde_json::to_value(&report).unwrap(), value, "{}", folder.display());
    assert_eq!(report.version, VERSION);
    let yaml = inspect(folder, &["--output", "yaml"]);
    assert_eq!(serde_yaml::from_slice::<Value>(&yaml.stdout).unwrap(), value, "{}", folder.display());
    assert_eq!(json.status.code(), yaml.status.code());
    report
}

/// The value of a fact in the table.
fn fact<'a>(table: &'a str, name: &str) -> Option<&'a str> {
    let line = table.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with("  ")))?;
    Some(line[name.len()..].trim())
}

fn check_table(folder: &Path, table: &str, report: &Report) {
    let shown = || format!("{}\n{table}", folder.display());
    let reason = report.reason.unwrap();
    let verdict = if report.outcome == Outcome::Good { "good" } else { "bad" };
    assert_eq!(fact(table, "Verdict"), Some(format!("{verdict} ({reason})").as_str()), "{}", shown());
    assert_eq!(fact(table, "Message"), Some(report.message.as_str()), "{}", shown());
    assert_eq!(fact(table, "Location"), folder.to_str(), "{}", shown());
    let contents = report.contents.as_ref().expect("a verdict has contents");
    assert_eq!(fact(table, "Format"), contents.format.map(Format::as_str), "{}", shown());
    let tier = contents.pickle.map(PickleTier::as_str).unwrap_or_default();
    assert!(fact(table, "Pickles").is_some_and(|value| value.starts_with(&format!("{tier} ("))), "{}", shown());
    assert_eq!(fact(table, "Code"), contents.code.first().map(String::as_str), "{}", shown());
    for line in table.lines() {
        assert!(line == line.trim_end() && !line.chars().any(char::is_control), "{line:?} in {}", shown());
    }
}

/// What is the matter names the file and what to do, and nothing that is fatal is left unsaid.
fn check_findings(folder: &Path, table: &str, report: &Report) {
    for finding in report.findings.iter().filter(|finding| finding.fatal) {
        let message = &finding.message;
        assert!(table.contains(message.as_str()), "{}: {message}\n{table}", folder.display());
        let file = finding.file.as_deref().unwrap_or_default();
        assert!(message.contains(file), "{}: {message} does not name {file}", folder.display());
        assert!(
            REMEDIES.iter().any(|remedy| message.contains(remedy)),
            "{}: {message} does not say what to do",
            folder.display()
        );
    }
}

#[test]
fn every_fixture_is_shown_so_that_one_can_act() {
    for folder in folders() {
        let output = inspect(&folder, &[]);
        let table = text(&output.stdout);
        assert_eq!(text(&output.stderr), "", "{}", folder.display());
        let report = report(&folder);
        let code = match report.outcome {
            Outcome::Good => 0,
            Outcome::Bad => 1,
            Outcome::Failed => panic!("{}: {}", folder.display(), report.message),
        };
        assert_eq!(output.status.code(), Some(code), "{}", folder.display());
        check_table(&folder, table, &report);
        check_findings(&folder, table, &report);
    }
}

/// The option that the table names does what it says.
#[test]
fn a_refused_pickle_can_be_accepted() {
    let folder = fixtures().join("joblib/plain");
    let refused = inspect(&folder, &[]);
    assert!(fact(text(&refused.stdout), "Option").is_some_and(|option| option.starts_with("--pickle Allow ")));
    let accepted = inspect(&folder, &["--pickle", "Allow"]);
    assert_eq!(accepted.status.code(), Some(0), "{}", text(&accepted.stdout));
    assert_eq!(fact(text(&accepted.stdout), "Option"), None);
}

/// Damage is exit code 1, what cannot be looked at is exit code 2 and one line that says so.
#[test]
fn damage_and_failure_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = fs::read(fixtures().join("torch/state_dict/model.pt")).unwrap();
    fs::write(folder.path().join("model.pt"), &bytes[..bytes.len() / 2]).unwrap();
    let damaged = inspect(folder.path(), &[]);
    assert_eq!(damaged.status.code(), Some(1), "{}", text(&damaged.stdout));
    assert!(fact(text(&damaged.stdout), "Message").is_some_and(|message| message.contains("model.pt is damaged")));
    check_findings(folder.path(), text(&damaged.stdout), &report(folder.path()));
    let nothing = inspect(&folder.path().join("nothing"), &[]);
    assert_eq!(nothing.status.code(), Some(2));
    assert!(nothing.stdout.is_empty() && text(&nothing.stderr).lines().count() == 1, "{nothing:?}");
}
