//! Every condition type and every reason that the project reports, in one place. Pure, no I/O.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Types of the conditions in `status.conditions`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ConditionType {
    /// The storage answered and the checkpoint's files were listed.
    SourceReachable,
    /// The checkpoint is what `spec.validation` asks for.
    Validated,
    /// All volumes hold the verified bytes.
    Materialized,
    /// Pods can use the checkpoint.
    Ready,
    /// Nothing will change until a person or another object does something.
    Stalled,
    /// The source is no longer what was published.
    Drifted,
}

impl ConditionType {
    /// All types, in the order in which they are written.
    pub const ALL: [Self; 6] =
        [Self::SourceReachable, Self::Validated, Self::Materialized, Self::Ready, Self::Stalled, Self::Drifted];

    /// The name in `status.conditions[].type`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SourceReachable => "SourceReachable",
            Self::Validated => "Validated",
            Self::Materialized => "Materialized",
            Self::Ready => "Ready",
            Self::Stalled => "Stalled",
            Self::Drifted => "Drifted",
        }
    }
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident,)+) => {
        /// Why a condition has its value. The text is stable API: scripts compare it.
        #[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, JsonSchema, PartialEq, Serialize)]
        pub enum Reason { $($(#[$doc])* $name,)+ }

        impl Reason {
            /// Every reason there is.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The text in `status.conditions[].reason`.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)+ }
            }

            /// The reason with this text.
            #[must_use]
            pub fn parse(text: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|reason| reason.as_str() == text)
            }
        }
    };
}

reasons! {
    // SourceReachable
    /// The source was listed.
    Reachable,
    /// The bucket, claim or path does not exist.
    NotFound,
    /// The storage refused the credentials, or there are none.
    AccessDenied,
    /// The storage did not answer, or answered with a passing error.
    Unreachable,
    /// The server's certificate is not trusted.
    TlsFailed,
    /// The endpoint is plain HTTP and `insecure: true` is not set.
    InsecureEndpoint,
    /// A key cannot be a safe file path, or the path of the spec is not usable.
    InvalidPath,
    /// The source claim cannot be mounted now because of how it is used.
    SourceInUse,
    /// The first look at the source is under way.
    Checking,

    // Validated
    /// Everything is there and well-formed.
    Complete,
    /// A file is missing, or stands only for another.
    Incomplete,
    /// A file is truncated or malformed.
    Corrupt,
    /// A pickle exceeds the policy.
    UnsafePickle,
    /// Code that loaders run exceeds the policy.
    UnsafeCode,
    /// The format is not on the allow-list.
    FormatNotAllowed,
    /// A glob of `requiredFiles` matches nothing.
    MissingRequiredFile,
    /// The content is not what the pin says.
    DigestMismatch,
    /// There is nothing but folder markers.
    Empty,
    /// The source changed while it was read, or since it was published.
    SourceChanged,
    /// The spec cannot be carried out.
    InvalidSpec,
    /// The checkpoint is being inspected.
    Validating,

    // Materialized
    /// All volumes are published.
    Published,
    /// Files are being copied.
    Loading,
    /// The files of an existing claim are being hashed.
    Verifying,
    /// The volume is not provisioned or not handed over yet.
    WaitingForVolume,
    /// The storage class does not exist.
    StorageClassNotFound,
    /// The files do not fit.
    InsufficientSpace,
    /// The load failed.
    LoadFailed,
    /// A claim of that name is not ours, or holds something else.
    ClaimConflict,
    /// Kubernetes bound an empty volume without asking us.
    BypassedByProvisioner,
    /// The spec asks for no volume.
    NotRequested,

    // Any of them
    /// Other work has its turn first.
    Queued,
    /// `spec.suspend` is true.
    Suspended,
    /// The worker pod cannot start.
    WorkerNotStarting,
    /// The worker ended without a report: it was killed, evicted or ran out of memory.
    WorkerFailed,
    /// Kubernetes refuses to create the worker pod.
    WorkerForbidden,
    /// A resource quota refuses an object.
    QuotaExceeded,

    // Ready
    /// Pods can use the checkpoint.
    Ready,

    // Stalled
    /// Work goes on or is done.
    Progressing,

    // Drifted
    /// The source is what was published.
    InSync,
    /// The source is gone.
    SourceGone,
}

impl std::fmt::Display for Reason {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.as_str())
    }
}
