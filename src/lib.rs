//! Model checkpoints as Kubernetes objects.

pub mod api;
pub mod contract;
pub mod controller;
pub mod format;
pub mod local;
pub mod plan;
pub mod runtime;
pub mod storage;
