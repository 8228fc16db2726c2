//! What people and programs read: tables, YAML, JSON, progress. Colours only on a terminal, and not with `NO_COLOR`.

pub mod progress;
pub mod report;
pub mod status;
pub mod table;

use serde::Serialize;

use crate::yaml::{self, YamlError};

/// How results are printed.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub enum Format {
    /// YAML, as `kubectl get -o yaml` prints it.
    Yaml,
    /// JSON.
    Json,
    /// A table for people.
    Table,
}

/// Columns of the terminal that standard output goes to; none when it goes elsewhere, where lines stay whole.
#[must_use]
pub fn terminal_columns() -> Option<usize> {
    console::Term::stdout().size_checked().map(|(_, columns)| usize::from(columns))
}

/// A value as pretty JSON with a line end.
///
/// # Errors
/// When it does not serialise.
pub fn json(value: &impl Serialize) -> Result<String, YamlError> {
    let text = serde_json::to_string_pretty(value).map_err(|error| YamlError::Write(error.to_string()))?;
    Ok(text + "\n")
}

/// A value as YAML.
///
/// # Errors
/// When it does not serialise.
pub fn yaml(value: &impl Serialize) -> Result<String, YamlError> {
    yaml::to_string(value)
}
