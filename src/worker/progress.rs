//! How far a task is, for progress bars and logs. No I/O.

use tokio::sync::watch;

/// What a worker is doing.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Stage {
    /// Names and sizes are read.
    #[default]
    Listing,
    /// Small ranges are read and judged.
    Judging,
    /// All bytes are read and hashed.
    Hashing,
    /// Files are copied.
    Copying,
    /// The report is ready.
    Done,
}

/// How far a task is. Counts are zero until they are known.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Progress {
    /// What is being done.
    pub stage: Stage,
    /// Files that are complete.
    pub files_done: u64,
    /// Files in all.
    pub files_total: u64,
    /// Bytes that are done, including those that an earlier attempt had left complete.
    pub bytes_done: u64,
    /// Bytes in all.
    pub bytes_total: u64,
    /// Of `bytes_done`, those that an earlier attempt had left: no part of a rate.
    pub bytes_kept: u64,
    /// Of `bytes_done`, those that were taken from files that were there: no part of a rate.
    pub bytes_reused: u64,
}

/// Where a task says how far it is. Clones say it to the same listeners.
#[derive(Clone, Debug)]
pub struct ProgressSink(watch::Sender<Progress>);

impl Default for ProgressSink {
    fn default() -> Self {
        Self(watch::Sender::new(Progress::default()))
    }
}

impl ProgressSink {
    /// Sees the latest state; intermediate ones may be missed.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Progress> {
        self.0.subscribe()
    }

    pub(crate) fn update(&self, change: impl FnOnce(&mut Progress)) {
        self.0.send_modify(change);
    }

    pub(super) fn enter(&self, stage: Stage) {
        self.update(|progress| progress.stage = stage);
    }
}
