//! The worker as a process: its task comes from the environment, its report goes into the termination message. Does I/O.

use std::{
    path::Path,
    process::ExitCode,
    time::{Duration, Instant},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
    time::MissedTickBehavior,
};
use tokio_util::sync::CancellationToken;

use crate::{
    contract::{
        Outcome, Reason, Report, Task, TaskKind, environment,
        exit::{self, DONE, RETRY},
        report::TERMINATION_MESSAGE_LIMIT,
    },
    storage::Mounts,
};

use super::{Meter, Progress, ProgressSink, perform, progress::Measured, tell::Teller};

/// How often the pace of a task is measured.
const MEASURE_INTERVAL: Duration = Duration::from_secs(1);
/// How often a log line says how far a task is.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Runs the task of the environment in a pod: `kind` is what the command line says, and must be what the task says.
/// Writes the report to [`environment::TERMINATION_MESSAGE`] and answers with the code of [`exit`].
pub async fn run(kind: TaskKind) -> ExitCode {
    let report = match task_from_environment(kind) {
        Ok(task) => attended(&task).await,
        Err(problem) => {
            let report = Report::new(kind, Outcome::Failed, Reason::InvalidSpec, problem);
            tracing::error!(message = %report.message, "the task cannot be read");
            report
        }
    };
    let code = exit_code(&report);
    tracing::info!(outcome = ?report.outcome, reason = ?report.reason, message = %report.message, code, "done");
    match write(&report, Path::new(environment::TERMINATION_MESSAGE)) {
        Ok(()) => ExitCode::from(code),
        Err(error) => {
            tracing::error!(%error, "the report cannot be written");
            ExitCode::from(RETRY)
        }
    }
}

/// The exit code of a task with this report.
#[must_use]
pub fn exit_code(report: &Report) -> u8 {
    match (report.outcome, report.reason) {
        (Outcome::Good | Outcome::Bad, _) => DONE,
        (Outcome::Failed, Some(reason)) => exit::code(reason),
        (Outcome::Failed, None) => RETRY,
    }
}

fn task_from_environment(kind: TaskKind) -> Result<Task, String> {
    let name = environment::TASK;
    let text = std::env::var(name).map_err(|_| format!("the environment variable {name} is not set"))?;
    parse(&text, std::env::var(environment::COMPLETION_INDEX).ok().as_deref(), kind)
}

fn parse(text: &str, index: Option<&str>, kind: TaskKind) -> Result<Task, String> {
    let name = environment::TASK;
    let json = BASE64_STANDARD.decode(text.trim()).map_err(|_| format!("{name} is not base64"))?;
    let mut task: Task = serde_json::from_slice(&json).map_err(|error| format!("{name} is not a task: {error}"))?;
    if let Some(load) = task.load.as_mut().filter(|load| load.workers > 1) {
        load.worker = index.and_then(|text| text.parse().ok()).ok_or_else(|| {
            format!("{} does not say which of {} workers this is", environment::COMPLETION_INDEX, load.workers)
        })?;
    }
    // A verification is a kind of load to the command line.
    let fits = task.kind == kind || (task.kind == TaskKind::Verify && kind == TaskKind::Load);
    if fits {
        Ok(task)
    } else {
        Err(format!("the task is {}, the worker was started as {}", task.kind.as_str(), kind.as_str()))
    }
}

/// Does the task until it is done or the process is told to stop.
async fn attended(task: &Task) -> Report {
    let cancel = CancellationToken::new();
    let progress = ProgressSink::default();
    let stop = cancel.clone();
    let signals = tokio::spawn(async move {
        let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
        else {
            tracing::warn!("signals cannot be received: the worker will not stop cleanly");
            return;
        };
        tokio::select! { _ = terminate.recv() => {} _ = interrupt.recv() => {} }
        stop.cancel();
    });
    let (state, measured) = watch::channel(Measured::default());
    let mut listeners = vec![tokio::spawn(measure(progress.subscribe(), state)), tokio::spawn(log(measured.clone()))];
    listeners.extend(Teller::from_environment().map(|teller| tokio::spawn(teller.tell(measured))));
    let report = perform(task, &Mounts::in_pod(), &progress, cancel).await;
    signals.abort();
    // The report says the rest.
    listeners.iter().for_each(tokio::task::JoinHandle::abort);
    report
}

/// What all who want to know how far it is are told: one measurement for all of them.
async fn measure(progress: watch::Receiver<Progress>, state: watch::Sender<Measured>) {
    let mut meter = Meter::default();
    let mut ticks = tokio::time::interval(MEASURE_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let progress = *progress.borrow();
        state.send_replace(Measured { progress, pace: meter.observe(Instant::now(), &progress) });
    }
}

async fn log(state: watch::Receiver<Measured>) {
    let mut ticks = tokio::time::interval(LOG_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    loop {
        ticks.tick().await;
        let Measured { progress: now, pace } = *state.borrow();
        let rate = pace.bytes_per_second.unwrap_or(0) as f64 / f64::from(1 << 20);
        tracing::info!(
            stage = ?now.stage,
            files = now.files_done,
            files_total = now.files_total,
            bytes = now.bytes_done,
            bytes_total = now.bytes_total,
            mebibytes_per_second = format!("{rate:.1}"),
            remaining_seconds = pace.remaining_seconds,
            "working"
        );
    }
}

/// The kubelet made the file and reads it after the container's end.
fn write(report: &Report, path: &Path) -> std::io::Result<()> {
    std::fs::write(path, report.encode(TERMINATION_MESSAGE_LIMIT))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::{S3Task, Source, VERSION, Validation};

    fn task(kind: TaskKind) -> String {
        let task = Task {
            version: VERSION,
            kind,
            source: Source::S3(S3Task::default()),
            validation: Validation::default(),
            volumes: vec![],
            load: None,
        };
        BASE64_STANDARD.encode(serde_json::to_vec(&task).unwrap())
    }

    #[test]
    fn tasks_are_read_from_base64() {
        assert!(parse(&task(TaskKind::Inspect), None, TaskKind::Inspect).is_ok());
        assert!(parse(&task(TaskKind::Verify), None, TaskKind::Load).is_ok());
        assert!(parse(&task(TaskKind::Load), None, TaskKind::Inspect).unwrap_err().contains("started as inspect"));
        assert!(parse("{}", None, TaskKind::Load).unwrap_err().contains("not base64"));
        assert!(parse("e30=", None, TaskKind::Load).unwrap_err().contains("not a task"));
    }

    #[test]
    fn codes_follow_the_contract() {
        let report = |outcome, reason| Report { outcome, reason, ..Report::default() };
        for (outcome, reason, code) in [
            (Outcome::Good, Some(Reason::Complete), 0),
            (Outcome::Bad, Some(Reason::Corrupt), 0),
            (Outcome::Failed, Some(Reason::Corrupt), 14),
            (Outcome::Failed, Some(Reason::AccessDenied), 12),
            (Outcome::Failed, Some(Reason::Unreachable), 1),
            (Outcome::Failed, None, 1),
        ] {
            assert_eq!(exit_code(&report(outcome, reason)), code, "{outcome:?} {reason:?}");
        }
    }

    #[test]
    fn the_report_is_written_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let report = Report::new(TaskKind::Load, Outcome::Failed, Reason::Corrupt, "x".repeat(5000));
        write(&report, &path).unwrap();
        let text = std::fs::read_to_string(path).unwrap();
        assert!(text.len() <= TERMINATION_MESSAGE_LIMIT);
        assert_eq!(Report::decode(&text).unwrap().reason, Some(Reason::Corrupt));
    }
}
