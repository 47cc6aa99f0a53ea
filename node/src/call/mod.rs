//! One call: what it is told, what can become of it, and (in `body`) how its bodies are counted and timed.
//! The order of a call's steps is in `invoke`.

pub(crate) mod body;
pub(crate) mod invoke;
#[cfg(test)]
mod tests;

use neap_sdk::{ErrorCode, InstanceId, Problem, id::RequestId};

/// What the caller knows about an invocation.
#[derive(Debug, Clone)]
pub struct InvocationCall {
    /// The request's id, as the client sees it.
    pub request_id: RequestId,
    /// Whether the request waited for a start.
    pub cold: bool,
}

/// Why a call ended without a response.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// There is no such instance; it has ended, or never was.
    #[error("instance {0} is gone")]
    NoInstance(InstanceId),
    /// The instance takes no calls any more.
    #[error("instance {instance} is {state}")]
    NotReady {
        /// Which.
        instance: InstanceId,
        /// What it is doing instead.
        state: &'static str,
    },
    /// The instance could not be thawed.
    #[error("instance {instance} could not be thawed: {reason}")]
    Thaw {
        /// Which.
        instance: InstanceId,
        /// What the runtime said.
        reason: String,
    },
    /// It took longer than the function's limit.
    #[error("the function did not finish within its limit of {timeout_ms} ms")]
    Timeout {
        /// The limit.
        timeout_ms: u64,
    },
    /// A guest ran out of its CPU time.
    #[error("the function used up its CPU time of {cpu_ms} ms")]
    CpuTime {
        /// The limit.
        cpu_ms: u64,
    },
    /// A guest trapped.
    #[error("the function trapped: {0}")]
    Trapped(String),
    /// A guest grew past its memory.
    #[error("the function needed more than its memory of {memory_bytes} bytes")]
    OutOfMemory {
        /// The limit.
        memory_bytes: u64,
    },
    /// The engine has no room for another call now.
    #[error("{0}")]
    Busy(String),
    /// The request is none that a function can be given.
    #[error("{0}")]
    BadRequest(String),
    /// The function ended without a response, answered with something that is not HTTP, or was killed.
    #[error("the function failed: {0}")]
    Failed(String),
}

impl CallError {
    /// Whether the function may have seen the request. If not, another instance may be tried.
    pub fn began(&self) -> bool {
        !matches!(self, Self::NoInstance(_) | Self::NotReady { .. } | Self::Thaw { .. } | Self::Busy(_))
    }

    /// The stable code.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::NoInstance(_) | Self::NotReady { .. } | Self::Failed(_) => ErrorCode::FunctionFailed,
            Self::Thaw { .. } => ErrorCode::StartFailed,
            Self::Busy(_) => ErrorCode::QueueFull,
            Self::BadRequest(_) => ErrorCode::Invalid,
            Self::Timeout { .. } | Self::CpuTime { .. } => ErrorCode::Timeout,
            Self::Trapped(_) | Self::OutOfMemory { .. } => ErrorCode::GuestTrapped,
        }
    }

    /// The problem document that a client gets.
    pub fn problem(&self) -> Problem {
        let problem = Problem::new(self.code(), self.to_string());
        match self {
            Self::Timeout { .. } => problem.with_hint("raise timeout_ms in the function's spec"),
            Self::CpuTime { .. } => problem.with_hint("raise cpu_ms in the function's spec"),
            Self::OutOfMemory { .. } => problem.with_hint("raise memory_bytes in the function's spec"),
            Self::Trapped(_) | Self::Failed(_) => {
                problem.with_hint("`neap logs` shows what the function wrote")
            }
            Self::Busy(_) => problem.with_hint("try again shortly"),
            Self::NoInstance(_) | Self::NotReady { .. } | Self::Thaw { .. } | Self::BadRequest(_) => problem,
        }
    }
}
