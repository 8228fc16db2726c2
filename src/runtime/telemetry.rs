//! Logs to standard error, for people or for machines. Does I/O.

use tracing_subscriber::{EnvFilter, filter::ParseError, util::TryInitError};

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, clap::ValueEnum)]
pub enum Format {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Why logs cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The text is neither a level nor a list of directives.
    #[error(
        "log level {level:?} is not understood, use error, warn, info, debug, trace or directives such as info,kube=debug: {source}"
    )]
    Level {
        /// As given.
        level: String,
        /// What is wrong with it.
        source: ParseError,
    },
    /// Somebody else installed a subscriber before.
    #[error("logs are set up twice: {0}")]
    Installed(#[from] TryInitError),
}

/// Sends logs at `level` (a level, or directives such as `info,kube=debug`) to standard error. Once a process.
///
/// # Errors
/// When the level is not understood, or logs were set up before.
pub fn install(format: Format, level: &str) -> Result<(), Error> {
    use tracing_subscriber::util::SubscriberInitExt as _;
    let filter = EnvFilter::try_new(level).map_err(|source| Error::Level { level: level.to_owned(), source })?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        Format::Text => builder.finish().try_init()?,
        Format::Json => builder.json().flatten_event(true).finish().try_init()?,
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_level_is_named() {
        let error = install(Format::Json, "info,kube=loud").unwrap_err();
        assert!(error.to_string().contains("kube=loud"), "{error}");
    }
}
