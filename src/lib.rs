//! Model checkpoints as Kubernetes objects.

pub mod api;
pub mod contract;
pub mod format;
pub mod plan;
pub mod storage;
pub mod worker;
