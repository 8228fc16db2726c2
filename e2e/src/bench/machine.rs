//! What a benchmark ran on, for its readers (reads /proc, runs `date` and the programs' own `--version`).

use std::fs;
use std::process::Command;
use std::thread;

use anyhow::Result;

use crate::command::capture;

/// Processor, memory, kernel, and how busy the machine is, in one line.
pub fn describe() -> String {
    let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let value = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let unknown = || "unknown".to_owned();
    let processor = value(&text("/proc/cpuinfo"), "model name").unwrap_or_else(unknown);
    let threads = thread::available_parallelism().map_or(0, usize::from);
    let memory = value(&text("/proc/meminfo"), "MemTotal");
    let kibibytes: u64 = memory.and_then(|text| text.split(' ').next()?.parse().ok()).unwrap_or(0);
    let kernel = text("/proc/sys/kernel/osrelease");
    let load = text("/proc/loadavg");
    let load = load.split(' ').next().unwrap_or_default();
    format!(
        "{processor}, {threads} threads, {} GiB of memory, Linux {}, load average {load}",
        kibibytes >> 20,
        kernel.trim()
    )
}

/// Today, as in `2026-01-31`.
pub fn date() -> Result<String> {
    Ok(capture(Command::new("date").args(["-u", "+%F"]))?.trim().to_owned())
}
