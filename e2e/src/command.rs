//! Running other programs with errors that say which command failed and how; process I/O only.

use std::ffi::OsStr;
use std::io::Write;
use std::process::{Command, Output, Stdio};
use std::thread;

use anyhow::{Context, Result, anyhow, bail};

const SHOWN_ERROR_LINES: usize = 20;

/// Runs a command and returns its standard output; an error carries the end of its error output.
pub fn capture(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| cannot_start(command))?;
    text_of(command, output)
}

/// Like [`capture`], with `input` on the command's standard input.
pub fn feed(command: &mut Command, input: &[u8]) -> Result<String> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| cannot_start(command))?;
    let mut pipe = child.stdin.take().context("the child has no standard input")?;
    let output = thread::scope(|scope| {
        // A command that ends without reading everything is judged by its exit status, not by a broken pipe.
        scope.spawn(move || pipe.write_all(input).ok());
        child.wait_with_output()
    })?;
    text_of(command, output)
}

/// Runs a command whose output goes straight to the terminal.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| cannot_start(command))?;
    if !status.success() {
        bail!("`{}` ended with {status}", line(command));
    }
    Ok(())
}

/// Whether the command could be run and exited with 0; its output is dropped.
pub fn succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// The command as one would type it.
pub fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(quoted).collect::<Vec<_>>().join(" ")
}

fn quoted(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.into_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

fn cannot_start(command: &Command) -> String {
    format!("cannot start `{}`", line(command))
}

fn text_of(command: &Command, output: Output) -> Result<String> {
    if output.status.success() {
        return String::from_utf8(output.stdout)
            .with_context(|| format!("`{}` wrote bytes that are not UTF-8", line(command)));
    }
    // Some programs report what is wrong on standard output.
    let said = if output.stderr.trim_ascii().is_empty() { &output.stdout } else { &output.stderr };
    let said = String::from_utf8_lossy(said);
    let lines: Vec<_> = said.trim_end().lines().collect();
    let end = lines[lines.len().saturating_sub(SHOWN_ERROR_LINES)..].join("\n");
    Err(anyhow!("`{}` ended with {}: {end}", line(command), output.status))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_names_the_command_and_its_last_words() {
        let error = capture(Command::new("sh").args(["-c", "echo no such thing >&2; exit 3"])).unwrap_err().to_string();
        assert!(error.contains("sh -c 'echo no such thing >&2; exit 3'"), "{error}");
        assert!(error.contains("exit status: 3: no such thing"), "{error}");
    }

    #[test]
    fn input_larger_than_a_pipe_arrives() {
        let input = vec![b'x'; 1 << 20];
        assert_eq!(feed(&mut Command::new("cat"), &input).unwrap().len(), input.len());
    }
}
