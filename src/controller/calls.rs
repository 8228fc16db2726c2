//! Every call that the controller makes: its deadline, and the table that the chart's RBAC is compared with. Does I/O.

use std::{future::Future, time::Duration};

use super::error::Error;

/// How long one call may take. The client retries 429, 503 and 504 by itself, for minutes; this bounds it.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// What the controller does to one resource. A test compares the chart's rules with these, and the calls of the tests too.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ApiCall {
    /// API group, empty for the core group.
    pub group: &'static str,
    /// Plural name, with the subresource after a slash.
    pub resource: &'static str,
    /// Verbs as RBAC writes them.
    pub verbs: &'static [&'static str],
    /// Whether the resource has namespaces, so that namespaced mode needs no cluster-wide right to it.
    pub namespaced: bool,
}

/// Everything that the controller may do.
pub const API_CALLS: &[ApiCall] = &[
    ApiCall { group: "checkpoints.dev", resource: "checkpoints", verbs: &["get", "list", "watch"], namespaced: true },
    ApiCall { group: "checkpoints.dev", resource: "checkpoints/status", verbs: &["patch"], namespaced: true },
    // No call: owner references that block deletion need it where OwnerReferencesPermissionEnforcement is on.
    ApiCall { group: "checkpoints.dev", resource: "checkpoints/finalizers", verbs: &["update"], namespaced: true },
    ApiCall {
        group: "batch",
        resource: "jobs",
        verbs: &["get", "list", "watch", "create", "delete"],
        namespaced: true,
    },
    ApiCall { group: "", resource: "pods", verbs: &["list", "watch"], namespaced: true },
    ApiCall {
        group: "",
        resource: "persistentvolumeclaims",
        verbs: &["get", "list", "watch", "create", "patch", "delete"],
        namespaced: true,
    },
    // Why a Job has no pod is told nowhere but in its events.
    ApiCall { group: "", resource: "events", verbs: &["list"], namespaced: true },
    ApiCall { group: "events.k8s.io", resource: "events", verbs: &["create", "patch"], namespaced: true },
    ApiCall { group: "", resource: "persistentvolumes", verbs: &["get", "patch"], namespaced: false },
    ApiCall { group: "storage.k8s.io", resource: "storageclasses", verbs: &["list", "watch"], namespaced: false },
    // Whose token a worker shows that tells how far it is.
    ApiCall { group: "authentication.k8s.io", resource: "tokenreviews", verbs: &["create"], namespaced: false },
];

/// Waits for one call, at most [`DEADLINE`].
///
/// # Errors
/// When it fails or takes too long; `action` says what was tried.
pub async fn call<T>(
    action: impl Into<String>,
    request: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, Error> {
    match tokio::time::timeout(DEADLINE, request).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(source)) => Err(Error::Api { action: action.into(), source: Box::new(source) }),
        Err(_) => Err(Error::Timeout { action: action.into(), deadline: DEADLINE }),
    }
}

/// Whether the object is not there.
#[must_use]
pub fn absent(error: &Error) -> bool {
    error.status().is_some_and(kube::core::Status::is_not_found)
}
