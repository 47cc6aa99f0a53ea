//! The seam to the nodes: what the scheduler asks of the machines that run instances. Owned here, by its consumer;
//! [`LocalFleet`] is the node of this process, [`fake`] a scripted one for tests.
//!
//! It must not decide anything: how many instances, and where, is the scheduler's business.

#[cfg(any(test, feature = "fake"))]
pub mod fake;
mod local;

pub use local::LocalFleet;

use bytes::Bytes;
use futures_util::{future::BoxFuture, stream::BoxStream};
use http::{Request, Response};
use neap_sdk::{
    Digest, ErrorCode, FunctionSpec, InstanceId, Problem, RevisionId,
    artifact::{ArtifactKind, Repository},
    id::RequestId,
};
use std::{fmt, sync::Arc, time::Duration};

/// What a body between crates fails with.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// Request and response bodies between crates.
pub type Body = http_body_util::combinators::UnsyncBoxBody<Bytes, BoxError>;

/// The machines that run instances.
pub trait Fleet: Send + Sync + 'static {
    /// Every node with what is free on it now.
    fn nodes(&self) -> Vec<NodeState>;

    /// Starts one instance and waits until it can take a request: a Wasm program is loaded, a container listens.
    /// Dropping the future gives the start up; whatever it made is removed.
    fn start<'a>(
        &'a self,
        node: &'a NodeName,
        order: StartOrder,
    ) -> BoxFuture<'a, Result<StartReport, StartFailure>>;

    /// Hands one request to an instance. Dropping the future, or the response's body, ends the work.
    fn call(
        &self,
        instance: InstanceId,
        request: Request<Body>,
        call: InvocationCall,
    ) -> BoxFuture<'_, Result<Response<Body>, CallError>>;

    /// Takes the CPU from an idle instance; its memory stays. Fails where the kind or the machine cannot.
    fn freeze(&self, instance: InstanceId) -> BoxFuture<'_, Result<(), FreezeError>>;

    /// Gives the CPU back.
    fn thaw(&self, instance: InstanceId) -> BoxFuture<'_, Result<(), FreezeError>>;

    /// Stops an instance, frozen or not, and returns when nothing of it is left. Unknown ids are none's business: done.
    fn stop(&self, instance: InstanceId) -> BoxFuture<'_, ()>;

    /// Instances that end on their own after this call.
    fn exits(&self) -> BoxStream<'static, ExitEvent>;

    /// Every instance that is up now, on every node.
    fn instances(&self) -> Vec<RunningInstance>;
}

/// A node's name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeName(pub Box<str>);

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A node, as placement sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeState {
    /// Its name.
    pub name: NodeName,
    /// Memory that instances may be promised, in bytes.
    pub memory_bytes: u64,
    /// Of that, promised already, in bytes.
    pub memory_promised_bytes: u64,
    /// Instances that are up.
    pub instances: u32,
}

/// Which instance to start.
#[derive(Debug, Clone)]
pub struct StartOrder {
    /// Of which revision.
    pub revision: RevisionId,
    /// Where its release lies.
    pub repository: Repository,
    /// The manifest that runs.
    pub digest: Digest,
    /// Of which kind.
    pub kind: ArtifactKind,
    /// How to run it.
    pub spec: Arc<FunctionSpec>,
}

/// An instance that is ready.
#[derive(Debug, Clone)]
pub struct StartReport {
    /// Its id.
    pub instance: InstanceId,
    /// How long the start took.
    pub took: Duration,
    /// The main process of a container.
    pub pid: Option<u32>,
}

/// Why an instance did not start, with its last log lines where there are any.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct StartFailure {
    /// The reason, for people.
    pub text: String,
}

/// What a call needs besides the request.
#[derive(Debug, Clone)]
pub struct InvocationCall {
    /// The request's id.
    pub request_id: RequestId,
    /// Whether the request waited for a start; it is metered as such.
    pub cold: bool,
}

/// Why a call had no response. Holds what the client is told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct CallError {
    problem: Box<Problem>,
    began: bool,
}

impl CallError {
    /// A failed call that the client is told of like this; `began` says whether the function may have seen the request.
    pub fn new(problem: Problem, began: bool) -> Self {
        Self { problem: Box::new(problem), began }
    }

    /// What the client is told.
    pub fn problem(&self) -> Problem {
        (*self.problem).clone()
    }

    /// The stable code.
    pub fn code(&self) -> ErrorCode {
        self.problem.code
    }

    /// Whether the function may have seen the request. If not, another instance may be tried.
    pub fn began(&self) -> bool {
        self.began
    }
}

/// Why an instance could not be frozen or thawed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct FreezeError {
    /// The reason, for people.
    pub text: String,
}

/// What a fleet tells of ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExitEvent {
    /// An instance ended.
    Ended(InstanceExit),
    /// The reader was too slow and missed some: [`Fleet::instances`] tells which are left.
    Lost,
}

/// An instance that ended on its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceExit {
    /// Which.
    pub instance: InstanceId,
    /// Of which revision.
    pub revision: RevisionId,
    /// Why, for people.
    pub reason: String,
}

/// An instance that is up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunningInstance {
    /// Which.
    pub instance: InstanceId,
    /// Of which revision.
    pub revision: RevisionId,
    /// Whether it is frozen.
    pub frozen: bool,
    /// When it was started, in milliseconds since 1970.
    pub started_at_ms: u64,
    /// The main process of a container.
    pub pid: Option<u32>,
}
