//! A second observer and applier for the same plan, without a cluster: claims are folders. Only `plan` computes conditions.
//!
//! [`world`] is pure, a Kubernetes in memory; [`runner`] drives the plan over it and does the work of its Jobs in this
//! process; [`folders`] and [`keyring`] are what a laptop has in place of volumes and Secrets.

pub mod documents;
pub mod folders;
pub mod keyring;
pub mod perform;
pub mod runner;
pub mod schema;
pub mod world;

pub use documents::{DocumentError, Documents};
pub use perform::{Display, InProcess, Perform};
pub use runner::{LocalError, Run, Settings, condition, exit_code, run};
pub use world::World;
