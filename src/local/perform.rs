//! The seam to the worker: what a Job does in a pod is done in this process. Does I/O through the worker.

use std::sync::{Mutex, PoisonError};

use futures::{FutureExt, future::BoxFuture};
use tokio_util::sync::CancellationToken;

use crate::{
    contract::{Report, Task},
    storage::Mounts,
    worker::{self, Progress, ProgressSink},
};

/// Carries out tasks.
pub trait Perform: Send + Sync {
    /// Does the task and says what came of it. A cancelled task ends soon and leaves what a later one continues.
    fn perform<'a>(
        &'a self,
        task: &'a Task,
        mounts: Mounts,
        meter: &'a Meter,
        cancel: CancellationToken,
    ) -> BoxFuture<'a, Report>;
}

/// How far a task is. Counts are zero until they are known.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Amounts {
    /// Files that are complete.
    pub files_done: u64,
    /// Files in all.
    pub files_total: u64,
    /// Bytes that are done.
    pub bytes_done: u64,
    /// Bytes in all.
    pub bytes_total: u64,
    /// Of the bytes that are done, those that an earlier run had left: no part of a rate.
    pub bytes_kept: u64,
}

/// Where a task says how far it is.
#[derive(Debug, Default)]
pub struct Meter(Mutex<Amounts>);

impl Meter {
    /// Says how far the task is.
    pub fn set(&self, amounts: Amounts) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = amounts;
    }

    /// How far it is.
    #[must_use]
    pub fn read(&self) -> Amounts {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl From<Progress> for Amounts {
    fn from(progress: Progress) -> Self {
        Self {
            files_done: progress.files_done,
            files_total: progress.files_total,
            bytes_done: progress.bytes_done,
            bytes_total: progress.bytes_total,
            bytes_kept: progress.bytes_kept,
        }
    }
}

/// The worker, as pods run it.
#[derive(Clone, Copy, Debug, Default)]
pub struct InProcess;

impl Perform for InProcess {
    fn perform<'a>(
        &'a self,
        task: &'a Task,
        mounts: Mounts,
        meter: &'a Meter,
        cancel: CancellationToken,
    ) -> BoxFuture<'a, Report> {
        async move {
            let sink = ProgressSink::default();
            let mut changes = sink.subscribe();
            let work = worker::perform(task, &mounts, &sink, cancel);
            tokio::pin!(work);
            loop {
                tokio::select! {
                    report = &mut work => return report,
                    Ok(()) = changes.changed() => meter.set((*changes.borrow_and_update()).into()),
                }
            }
        }
        .boxed()
    }
}

/// Tells people what goes on.
pub trait Display: Send + Sync {
    /// A task begins.
    fn begin(&self, what: &str);
    /// How far it is.
    fn progress(&self, amounts: Amounts);
    /// It ended.
    fn end(&self, report: &Report);
    /// Anything else.
    fn note(&self, text: &str);
}
