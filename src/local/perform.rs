//! The seam to the worker: what a Job does in a pod is done in this process. No I/O of its own.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

use futures::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use crate::contract::{Report, Task};

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

/// Where the things are that a task refers to.
#[derive(Clone, Debug, Default)]
pub struct Mounts {
    /// Folder with one file a key of the Secret.
    pub credentials: PathBuf,
    /// File with the certificate authorities.
    pub ca: PathBuf,
    /// Root of the claim that is the source.
    pub source: PathBuf,
    /// Root of the volume to fill or to verify.
    pub volume: Option<PathBuf>,
    /// The inline data as the user wrote it.
    pub inline: Option<String>,
    /// Environment variables that carry the user's own identity.
    pub identity: BTreeMap<String, String>,
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
