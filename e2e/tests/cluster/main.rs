//! The operator on a real cluster, installed by its own chart (network and process I/O).
//!
//! Run with `cargo e2e test --stage cluster`, one test with `-- NAME` after it. Tests run side by side, each in a
//! namespace and a bucket of its own; see [`support`] for how to write one.

mod backends;
mod crash;
mod deletion;
mod held;
mod keys;
mod main_job;
mod operator_wide;
mod progress;
mod scale;
mod schema;
mod schema_backends;
mod schema_volumes;
#[path = "../servers/mod.rs"]
#[allow(dead_code, reason = "other tests use more of them")]
mod servers;
mod split;
mod support;
mod traces;
mod troubles;
mod valve;
mod verdicts;
