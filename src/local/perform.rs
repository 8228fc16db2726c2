//! The seam to the worker: what a Job does in a pod is done in this process. Does I/O through the worker.

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
        mounts: &'a Mounts,
        progress: &'a ProgressSink,
        cancel: CancellationToken,
    ) -> BoxFuture<'a, Report>;
}

/// The worker, as pods run it.
#[derive(Clone, Copy, Debug, Default)]
pub struct InProcess;

impl Perform for InProcess {
    fn perform<'a>(
        &'a self,
        task: &'a Task,
        mounts: &'a Mounts,
        progress: &'a ProgressSink,
        cancel: CancellationToken,
    ) -> BoxFuture<'a, Report> {
        let mut task = task.clone();
        // On one machine, several workers would only share its network and its disk.
        if let Some(load) = &mut task.load {
            load.workers = 1;
        }
        async move { worker::perform(&task, mounts, progress, cancel).await }.boxed()
    }
}

/// Tells people what goes on.
pub trait Display: Send + Sync {
    /// A task begins.
    fn begin(&self, what: &str);
    /// How far it is.
    fn progress(&self, progress: Progress);
    /// It ended.
    fn end(&self, report: &Report);
    /// Anything else.
    fn note(&self, text: &str);
}
