//! What controller and worker say to each other: tasks, progress, reports, reasons, exit codes, digests. Pure, no I/O.

pub mod digest;
pub mod environment;
pub mod exit;
pub mod filter;
pub mod manifest;
pub mod progress;
mod reason;
pub mod report;
mod task;
mod validation;

pub use progress::ProgressMessage;
pub use reason::{ConditionType, Reason};
pub use report::{Component, Contents, Finding, Outcome, Report, Selection, SourceFacts, Transfer};
pub use task::{
    Access, AzureTask, Connection, GcsTask, HttpTask, HuggingFaceTask, InlineTask, LoadTask, S3Task, Source, Task,
    TaskKind,
};
pub use validation::{CodePolicy, Depth, Format, PicklePolicy, PickleTier, Validation};

/// Version of [`Task`], [`ProgressMessage`] and [`Report`]; a worker refuses a task of another version.
pub const VERSION: u32 = 1;
