//! Long-running processes with a record each: started detached in the network namespace, found again, stopped.
//! Only recorded processes are ever signalled, and only when boot, process id and start time all agree.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use crate::cache::short_hash;
use crate::wait::{Now, wait_until};

const PATIENCE: Duration = Duration::from_secs(10);
const SHOWN_LOG_LINES: usize = 15;

/// The recorded processes of one cluster.
pub struct Processes {
    records: PathBuf,
    logs: PathBuf,
    namespace: PathBuf,
}

/// A process to run.
pub struct Service<'a> {
    /// Its name, for its record and its log.
    pub name: &'a str,
    /// Program and arguments.
    pub arguments: Vec<String>,
    /// Files whose change asks for a restart.
    pub configuration: Vec<PathBuf>,
}

#[derive(Serialize, Deserialize)]
struct Record {
    pid: i32,
    started: u64,
    boot: String,
    version: String,
}

impl Processes {
    /// The processes whose records lie below `root`, in the namespace of the given file.
    pub fn new(root: &Path, namespace: &Path) -> Self {
        Self { records: root.join("run"), logs: root.join("log"), namespace: namespace.to_path_buf() }
    }

    /// Starts the service unless it already runs as described; restarts it when its arguments or files changed.
    pub fn start(&self, service: &Service) -> Result<()> {
        let version = version_of(service)?;
        if let Some(record) = self.living(service.name) {
            if record.version == version {
                return Ok(());
            }
            self.stop(service.name)?;
        }
        let log = self.log(service.name);
        if log.exists() {
            fs::rename(&log, log.with_extension("log.before"))?;
        }
        let out = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        // setsid and nsenter replace themselves by the program, so the child's id is the program's id.
        let mut command = Command::new("setsid");
        command.arg("nsenter").arg(format!("--net={}", self.namespace.display())).arg("--").args(&service.arguments);
        command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
        let child = command.spawn().with_context(|| format!("cannot start {}", service.name))?;
        let pid = i32::try_from(child.id())?;
        let Some(started) = start_time(pid) else {
            bail!("{} ended at once; {}", service.name, self.last_words(service.name))
        };
        let record = Record { pid, started, boot: boot()?, version };
        fs::write(self.record(service.name), serde_json::to_vec(&record)?)?;
        Ok(())
    }

    /// Fails with the end of its log unless the process lives.
    pub fn must_live(&self, name: &str) -> Result<()> {
        if self.living(name).is_none() {
            bail!("{name} is not running; {}", self.last_words(name));
        }
        Ok(())
    }

    /// Asks the process to end and waits until it has; kills it when it takes too long.
    pub fn stop(&self, name: &str) -> Result<()> {
        self.signal(name, Signal::TERM).or_else(|_| self.signal(name, Signal::KILL))
    }

    /// Ends the process at once, for when its data goes too.
    pub fn kill(&self, name: &str) -> Result<()> {
        self.signal(name, Signal::KILL)
    }

    fn signal(&self, name: &str, signal: Signal) -> Result<()> {
        if let Some(pid) = self.living(name).and_then(|record| Pid::from_raw(record.pid)) {
            // It may end between the look and the signal.
            kill_process(pid, signal).ok();
            wait_until(&format!("{name} to end"), PATIENCE, || {
                Ok(Now::when(self.living(name).is_none(), "it still runs"))
            })?;
        }
        match fs::remove_file(self.record(name)) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    fn living(&self, name: &str) -> Option<Record> {
        let record: Record = serde_json::from_slice(&fs::read(self.record(name)).ok()?).ok()?;
        let same = record.boot == boot().ok()? && start_time(record.pid) == Some(record.started);
        same.then_some(record)
    }

    fn last_words(&self, name: &str) -> String {
        let log = self.log(name);
        let text = fs::read_to_string(&log).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        format!(
            "its log {} ends with:\n{}",
            log.display(),
            lines[lines.len().saturating_sub(SHOWN_LOG_LINES)..].join("\n")
        )
    }

    fn record(&self, name: &str) -> PathBuf {
        self.records.join(format!("{name}.json"))
    }

    fn log(&self, name: &str) -> PathBuf {
        self.logs.join(format!("{name}.log"))
    }
}

fn version_of(service: &Service) -> Result<String> {
    let mut inputs: Vec<Vec<u8>> = service.arguments.iter().map(|argument| argument.clone().into_bytes()).collect();
    for file in &service.configuration {
        inputs.push(fs::read(file).with_context(|| format!("cannot read {}", file.display()))?);
    }
    Ok(short_hash(&inputs.iter().map(Vec::as_slice).collect::<Vec<_>>()))
}

fn boot() -> Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// When a process began, in ticks since boot; `None` when there is none or it is a zombie.
fn start_time(pid: i32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may itself hold anything; the state is the first field after it, the time the 20th.
    let fields: Vec<&str> = text.get(text.rfind(')')? + 2..)?.split(' ').collect();
    if fields.first() == Some(&"Z") { None } else { fields.get(19)?.parse().ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_a_start_time_until_it_ends() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        assert!(start_time(pid).is_some());
        child.kill().unwrap();
        wait_until("a zombie", PATIENCE, || Ok(Now::when(start_time(pid).is_none(), "alive"))).unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_record_of_another_process_is_not_alive() {
        let own = i32::try_from(std::process::id()).unwrap();
        let root = std::env::temp_dir().join(format!("ckpt-processes-{own}"));
        fs::create_dir_all(root.join("run")).unwrap();
        let processes = Processes::new(&root, Path::new("/run/netns/none"));
        let record = Record { pid: own, started: 1, boot: boot().unwrap(), version: String::new() };
        fs::write(processes.record("other"), serde_json::to_vec(&record).unwrap()).unwrap();
        assert!(processes.living("other").is_none());
        processes.stop("other").unwrap();
        assert!(!processes.record("other").exists());
        fs::remove_dir_all(root).unwrap();
    }
}
