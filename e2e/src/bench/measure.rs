//! Runs a program and says what it took: time, processor, memory, bytes read (process I/O).

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
use wait4::Wait4;

use crate::command::line;

/// What one run took.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// From its start to its end.
    pub wall: Duration,
    /// Of all its threads, in user and kernel mode.
    pub processor: Duration,
    /// Peak of its resident memory, in bytes. Linux counts the parent's peak before `exec` too: see [`floor`].
    pub peak: u64,
    /// Calls that read, and the bytes that they read, files and sockets alike; mapped files are not in it.
    pub read: (u64, u64),
}

/// A program that ended.
pub struct Ended {
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output.
    pub output: String,
    /// What it took.
    pub usage: Usage,
}

/// Runs a command to its end; its output goes through files in `folder`, so that nothing waits for us.
pub fn measure(command: &mut Command, folder: &Path) -> Result<Ended> {
    let (out, errors) = (folder.join("stdout"), folder.join("stderr"));
    command.stdin(Stdio::null()).stdout(File::create(&out)?).stderr(File::create(&errors)?);
    let begun = Instant::now();
    let child = command.spawn().with_context(|| format!("cannot start `{}`", line(command)))?;
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("the child has no number")?;
    // Ended, but not gone: the kernel still knows what it read.
    waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT)?;
    let wall = begun.elapsed();
    let read = reads(&fs::read_to_string(format!("/proc/{}/io", child.id())).unwrap_or_default());
    let ended = child.wait4()?;
    let usage = Usage { wall, processor: ended.rusage.utime + ended.rusage.stime, peak: ended.rusage.maxrss, read };
    let mut output = fs::read_to_string(&out)?;
    if !ended.status.success() && output.trim().is_empty() {
        output = fs::read_to_string(&errors)?;
    }
    Ok(Ended { status: ended.status, output, usage })
}

/// The peak that a program gets for nothing, because its parent is as large as this.
pub fn floor(folder: &Path) -> Result<u64> {
    Ok(measure(&mut Command::new("true"), folder)?.usage.peak)
}

/// Calls and bytes of `/proc/PID/io`.
fn reads(text: &str) -> (u64, u64) {
    let number = |name: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(name))?;
        value.trim().parse().ok()
    };
    (number("syscr:").unwrap_or(0), number("rchar:").unwrap_or(0))
}

/// The smallest, the middle and the largest of some values.
pub fn spread<T: Copy + Ord>(values: impl Iterator<Item = T>) -> Option<[T; 3]> {
    let mut sorted: Vec<T> = values.collect();
    sorted.sort_unstable();
    Some([*sorted.first()?, *sorted.get(sorted.len() / 2)?, *sorted.last()?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_tells_what_was_read() {
        assert_eq!(reads("rchar: 6976\nwchar: 0\nsyscr: 10\nsyscw: 0\n"), (10, 6976));
        assert_eq!(reads(""), (0, 0));
    }

    #[test]
    fn a_program_is_measured() {
        let folder = tempfile::tempdir().unwrap();
        let ended =
            measure(Command::new("sh").args(["-c", "cat /dev/null; echo said; exit 3"]), folder.path()).unwrap();
        assert_eq!((ended.status.code(), ended.output.as_str()), (Some(3), "said\n"));
        assert!(ended.usage.peak > 0 && ended.usage.read.0 > 0, "{:?}", ended.usage);
    }

    #[test]
    fn the_middle_is_in_the_middle() {
        assert_eq!(spread([3, 1, 2].into_iter()), Some([1, 2, 3]));
        assert_eq!(spread([0_u8; 0].into_iter()), None);
    }
}
