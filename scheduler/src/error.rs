//! Why a request got no instance, and what its client is told.

use neap_sdk::{ErrorCode, Problem, RevisionId, limits};
use std::{sync::Arc, time::Duration};

/// Why [`crate::Scheduler::acquire`] gave no lease.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AcquireError {
    /// Too many requests wait already.
    #[error("{} requests wait for {revision} already", limits::QUEUE_LENGTH_MAX)]
    QueueFull {
        /// Of which revision.
        revision: RevisionId,
    },
    /// No slot became free in time.
    #[error("no instance of {revision} became free within {} ms", waited.as_millis())]
    QueueTimeout {
        /// Of which revision.
        revision: RevisionId,
        /// How long the request waited.
        waited: Duration,
    },
    /// No instance is up, and the last start failed.
    #[error("{revision} did not start: {reason}")]
    StartFailed {
        /// Which revision.
        revision: RevisionId,
        /// Why, with the last log lines.
        reason: Arc<str>,
        /// When the next request may try again; `None` where only a new deployment helps.
        retry_after: Option<Duration>,
    },
    /// The server is stopping.
    #[error("the server is stopping and takes no new requests")]
    Draining,
    /// The revision was deleted between routing and now.
    #[error("{revision} was deleted")]
    Gone {
        /// Which revision.
        revision: RevisionId,
    },
}

impl AcquireError {
    /// What the client is told.
    pub fn problem(&self) -> Problem {
        let (code, hint) = match self {
            Self::QueueFull { .. } => (
                ErrorCode::QueueFull,
                Some("send fewer requests at once, or deploy with a larger concurrency or max_instances"),
            ),
            Self::QueueTimeout { .. } => {
                (ErrorCode::QueueTimeout, Some("deploy with a larger concurrency or max_instances"))
            }
            Self::StartFailed { retry_after: Some(_), .. } => {
                (ErrorCode::StartFailed, Some("try again later"))
            }
            Self::StartFailed { .. } => (ErrorCode::StartFailed, Some("deploy a revision that starts")),
            Self::Draining => (ErrorCode::Draining, Some("try again in a moment")),
            Self::Gone { .. } => (ErrorCode::NoRoute, None),
        };
        let problem = Problem::new(code, self.to_string());
        match hint {
            Some(hint) => problem.with_hint(hint),
            None => problem,
        }
    }

    /// After which time a client may try again: the value of `Retry-After`, rounded up to seconds by the gateway.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::StartFailed { retry_after, .. } => *retry_after,
            Self::QueueFull { .. } | Self::QueueTimeout { .. } | Self::Draining => {
                Some(Duration::from_secs(1))
            }
            Self::Gone { .. } => None,
        }
    }
}

/// An error with its causes in one line, for a person at the other end of a wire.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
