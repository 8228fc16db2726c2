//! Model checkpoints as Kubernetes objects: validated, then materialised into volumes that pods wait for.
//!
//! ```text
//!  kubectl / Helm / GitOps          laptop: checkpoint-operator run -f checkpoint.yaml
//!         |                                     |
//!         v                                     v
//!   controller  --- Jobs --->  worker inspect / load / verify  (tenant's namespace and service account)
//!   observe -> plan -> apply      storage -> format -> report
//!         ^                                     |
//!         +---- report (termination message) ---+
//! ```
//!
//! | module | what it is | I/O |
//! |---|---|---|
//! | [`api`] | the `Checkpoint` resource | none |
//! | [`contract`] | what controller and worker say to each other: tasks, reports, reasons, exit codes, digests | none |
//! | [`format`] | judges: bytes and listings in, verdict and facts out | none |
//! | [`plan`] | decides: `(Config, Observed, now) -> Plan` | none |
//! | [`storage`] | lists and reads where checkpoints lie | storage |
//! | [`worker`] | inspects, loads, verifies | storage, files |
//! | [`controller`] | observes and applies with the Kubernetes API | Kubernetes |
//! | [`local`] | observes and applies without a cluster | files |
//! | [`cli`], [`output`] | the command line; tables, progress | terminal |
//! | [`yaml`] | the one place that reads and writes YAML | none |
//! | [`runtime`] | telemetry, metrics, probes, shutdown | process |
//!
//! `format`, `plan` and `contract` use no async, no clock, no environment and no client, and a test holds that. `worker`,
//! `storage` and `format` know nothing of Kubernetes clients; `controller` knows nothing of storage clients and reads no
//! Secret. A new format is one file in [`format`] and a line in its table; a new backend is one file in [`storage`] and a
//! member of the API's `Storage`; a new reason is one constant in [`contract::Reason`] and the rule that emits it.
//!
//! Without the feature `operator` there is only what needs no client: [`contract`], [`format`], [`yaml`], and of [`storage`] the
//! rules for paths and listings. The fuzz targets are built on that.

#[cfg(feature = "operator")]
pub mod api;
#[cfg(feature = "operator")]
pub mod cli;
pub mod contract;
#[cfg(feature = "operator")]
pub mod controller;
pub mod format;
#[cfg(feature = "operator")]
pub mod local;
#[cfg(feature = "operator")]
pub mod output;
#[cfg(feature = "operator")]
pub mod plan;
#[cfg(feature = "operator")]
pub mod runtime;
pub mod storage;
#[cfg(feature = "operator")]
pub mod worker;
pub mod yaml;

/// What we call ourselves to servers.
#[cfg(feature = "operator")]
pub(crate) const USER_AGENT: &str = concat!("checkpoint-operator/", env!("CARGO_PKG_VERSION"));
