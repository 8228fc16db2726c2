//! What can go wrong between the controller and the API server. No I/O.

use std::{net::SocketAddr, time::Duration};

use crate::runtime::metrics::ErrorClass;

/// Why the controller, or one reconcile, ended early.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server refused, or could not be reached.
    #[error("{action}: {source}")]
    Api {
        /// What was tried, such as `create jobs/x`.
        action: String,
        /// The answer.
        source: Box<kube::Error>,
    },
    /// The API server did not answer. The call may have been carried out.
    #[error("{action}: no answer within {} s", .deadline.as_secs())]
    Timeout {
        /// What was tried.
        action: String,
        /// How long.
        deadline: Duration,
    },
    /// An address for probes and metrics, or for what workers tell, cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// A task that runs as long as the controller ended by itself, which is a bug.
    #[error("a part of the controller ended by itself: {0}")]
    Ended(String),
}

impl Error {
    /// The closed class for metrics.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Api { source, .. } if matches!(**source, kube::Error::Api(_)) => ErrorClass::Api,
            Self::Api { source, .. } if matches!(**source, kube::Error::SerdeError(_)) => ErrorClass::Undecodable,
            Self::Api { .. } => ErrorClass::Connection,
            Self::Timeout { .. } => ErrorClass::Timeout,
            Self::Listen { .. } | Self::Ended(_) => ErrorClass::Internal,
        }
    }

    /// The API server's answer, if it answered.
    #[must_use]
    pub fn status(&self) -> Option<&kube::core::Status> {
        match self {
            Self::Api { source, .. } => match &**source {
                kube::Error::Api(status) => Some(status),
                _ => None,
            },
            _ => None,
        }
    }

    /// Whether somebody else wrote first, or a precondition does not hold.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        self.status().is_some_and(kube::core::Status::is_conflict)
    }
}
