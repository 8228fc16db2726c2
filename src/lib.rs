//! Model checkpoints as Kubernetes objects.

pub mod api;
pub mod cli;
pub mod contract;
pub mod format;
pub mod local;
pub mod output;
pub mod plan;
pub mod storage;
pub mod yaml;
