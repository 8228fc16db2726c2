//! Process plumbing that knows nothing of Checkpoints: logs, metrics, probes, signals. Does I/O.

pub mod health;
pub mod metrics;
pub mod shutdown;
pub mod telemetry;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks, also after another thread panicked while it held the lock: our critical sections leave no half-made state.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
