//! Workers: inspect, load, verify, report. They know storages, formats and volumes, and nothing of Kubernetes. Does I/O.

mod copy;
mod failure;
mod inspect;
mod journal;
mod judging;
mod load;
mod progress;
mod report;
mod reuse;
mod review;
mod rounds;
mod selection;
mod split;
mod tell;
mod transfer;
mod verify;
mod volume;

#[cfg(test)]
mod tests;

use std::{panic::AssertUnwindSafe, path::Path, sync::Arc};

use futures::FutureExt;
use tokio_util::sync::CancellationToken;

pub use progress::{Meter, Pace, Progress, ProgressSink, Stage};
pub use report::{exit_code, run};

use crate::{
    contract::{LoadTask, Outcome, Report, Task, TaskKind, VERSION, report::MESSAGE_LIMIT},
    format::pickle_encoder,
    storage::{Mounts, Storage, open},
};

use failure::Failure;
use load::Loading;

/// Does a task. Never fails: what went wrong is in the report. When it is cancelled, what is durable stays, and the next
/// attempt goes on from there. A panic is a failed attempt.
pub async fn perform(task: &Task, mounts: &Mounts, progress: &ProgressSink, cancel: CancellationToken) -> Report {
    let report = attended(task.kind, done(task, mounts, progress), &cancel).await;
    progress.enter(Stage::Done);
    report
}

async fn attended(kind: TaskKind, work: impl Future<Output = Report>, cancel: &CancellationToken) -> Report {
    match cancel.run_until_cancelled(AssertUnwindSafe(work).catch_unwind()).await {
        Some(Ok(report)) => report,
        Some(Err(_)) => attempt_failed(kind, "the worker failed because of an error in itself; its log says where"),
        None => attempt_failed(kind, "the worker was stopped; what is complete is kept"),
    }
}

/// A failed attempt without a reason of its own: another attempt is the remedy.
fn attempt_failed(kind: TaskKind, message: &str) -> Report {
    let message = crate::contract::report::clean(message, MESSAGE_LIMIT);
    Report { version: VERSION, task: Some(kind), outcome: Outcome::Failed, message, ..Report::default() }
}

async fn done(task: &Task, mounts: &Mounts, progress: &ProgressSink) -> Report {
    let result = match checked(task) {
        Ok(()) => work(task, mounts, progress).await,
        Err(failure) => Err(failure),
    };
    result.unwrap_or_else(|failure| {
        let digest = match &failure {
            Failure::Digest { digest, .. } => Some(digest.clone()),
            _ => None,
        };
        Report { digest, ..Report::new(task.kind, Outcome::Failed, failure.reason(), failure.to_string()) }
    })
}

fn checked(task: &Task) -> Result<(), Failure> {
    if task.version != VERSION {
        return Err(Failure::Task(format!(
            "the task has version {}, this worker does version {VERSION}",
            task.version
        )));
    }
    Ok(())
}

async fn work(task: &Task, mounts: &Mounts, progress: &ProgressSink) -> Result<Report, Failure> {
    match task.kind {
        TaskKind::Inspect => inspect::inspect(task, &storage(task, mounts)?, progress).await,
        TaskKind::Load => {
            let load = load_task(task)?;
            let sibling = load.reuse_from.as_ref().and(mounts.reuse.as_deref());
            let (storage, volume) = (&storage(task, mounts)?, volume(mounts)?);
            load::load(Loading { task, load, storage, volume, sibling, progress }).await
        }
        TaskKind::Verify => verify::verify(load_task(task)?, volume(mounts)?, progress).await,
    }
}

fn storage(task: &Task, mounts: &Mounts) -> Result<Arc<dyn Storage>, Failure> {
    let encode = |text: &str| pickle_encoder::encode(text).map_err(|error| error.to_string());
    Ok(open(&task.source, mounts, encode)?.into())
}

fn load_task(task: &Task) -> Result<&LoadTask, Failure> {
    task.load.as_ref().ok_or_else(|| Failure::Task("the task does not say what to load".into()))
}

fn volume(mounts: &Mounts) -> Result<&Path, Failure> {
    mounts.volume.as_deref().ok_or_else(|| Failure::Task("no volume is mounted".into()))
}
