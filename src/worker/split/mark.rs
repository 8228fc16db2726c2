//! Says on the volume that a worker's share is durable. Does I/O, blocking.

use crate::{
    contract::{LoadTask, digest::filter_hash},
    worker::{
        failure::Failure,
        volume::{Volume, Workspace},
    },
};

/// What was shared out, and among how many: marks of anything else do not count.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Mark {
    text: String,
    workers: u32,
}

impl Mark {
    /// The mark of this load.
    pub(super) fn of(load: &LoadTask) -> Self {
        let text = format!("{} {} {}\n", load.fingerprint, filter_hash(&load.filter), load.workers);
        Self { text, workers: load.workers }
    }

    /// Whether this worker's share is there.
    pub(super) fn is_set(&self, volume: &Volume, worker: u32) -> Result<bool, Failure> {
        Ok(volume.mark(worker)?.as_deref() == Some(self.text.as_str()))
    }

    /// Whether all shares are there.
    pub(super) fn is_set_by_all(&self, volume: &Volume) -> Result<bool, Failure> {
        for worker in 0..self.workers {
            if !self.is_set(volume, worker)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Says that this worker's share is there.
    pub(super) fn set(&self, workspace: &Workspace, worker: u32) -> Result<(), Failure> {
        workspace.set_mark(worker, &self.text)
    }
}
