//! What is said to the node and what it answers: settings, orders, reports, failures. Only words.

use crate::{
    Artifact, Runtime, capacity::NoCapacity, instance::State, logs::OpenLogsError, meter::OpenLedgerError,
};
use neap_sdk::{FunctionSpec, InstanceId, RevisionId, api::InstanceView, artifact::ArtifactKind};
use std::{io, path::PathBuf, sync::Arc, time::Duration};

/// How a node is set up.
#[derive(Debug, Clone)]
pub struct NodeSettings {
    /// Where usage and logs are kept.
    pub dir: PathBuf,
    /// Memory to give to instances; `None` means all that the machine has.
    pub memory_bytes: Option<u64>,
}

impl NodeSettings {
    /// The settings for a folder, with the machine's memory.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), memory_bytes: None }
    }
}

/// What this node can run.
#[derive(Clone)]
pub struct Runtimes {
    /// Runs components and modules.
    pub wasm: Option<Arc<dyn Runtime>>,
    /// Runs images, or why this machine cannot.
    pub oci: Result<Arc<dyn Runtime>, String>,
}

/// Why a node could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The usage ledger.
    #[error("the node's usage ledger could not be opened")]
    Ledger(#[source] OpenLedgerError),
    /// The logs.
    #[error("the node's logs could not be opened")]
    Logs(#[source] OpenLogsError),
    /// The machine's memory is unknown.
    #[error("the size of this machine's memory cannot be read from /proc/meminfo; name one in the settings")]
    Memory(#[source] io::Error),
}

/// Asks for an instance.
#[derive(Debug, Clone)]
pub struct StartOrder {
    /// Of which revision.
    pub revision: RevisionId,
    /// Its files.
    pub artifact: Artifact,
    /// How to run it.
    pub spec: Arc<FunctionSpec>,
}

/// An instance that takes calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartReport {
    /// Its id.
    pub instance: InstanceId,
    /// How long its start took.
    pub took: Duration,
    /// The main process of a container.
    pub pid: Option<u32>,
}

/// Why an instance did not start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StartFailure {
    /// Not enough memory.
    #[error(transparent)]
    Capacity(#[from] NoCapacity),
    /// This machine cannot run such artifacts.
    #[error("this machine cannot run {kind} artifacts: {reason}")]
    Runtime {
        /// Which.
        kind: ArtifactKind,
        /// What it lacks.
        reason: String,
    },
    /// It failed; the text ends with its last log lines.
    #[error("{0}")]
    Failed(String),
    /// It was stopped before it was ready.
    #[error("the start was given up because the instance was stopped")]
    Stopped,
    /// The node is shutting down.
    #[error("the node is shutting down")]
    Draining,
}

/// Why an instance could not be frozen or thawed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FreezeFailure {
    /// There is no such instance.
    #[error("instance {0} is gone")]
    NoInstance(InstanceId),
    /// It handles calls, or is in a state that does not allow it.
    #[error("instance {instance} is {state} with {in_flight} calls in flight")]
    Busy {
        /// Which.
        instance: InstanceId,
        /// What it does.
        state: &'static str,
        /// How many calls it handles.
        in_flight: u32,
    },
    /// The runtime could not.
    #[error("the runtime could not: {0}")]
    Runtime(String),
}

/// An instance ended without being asked to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceExit {
    /// Which.
    pub instance: InstanceId,
    /// Of which revision.
    pub revision: RevisionId,
    /// Why, with its last log lines.
    pub reason: String,
}

/// One instance as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceInfo {
    /// Its id.
    pub instance: InstanceId,
    /// Of which revision.
    pub revision: RevisionId,
    /// What it runs.
    pub kind: ArtifactKind,
    /// Where it is in its life.
    pub state: State,
    /// Calls that it handles.
    pub in_flight: u32,
    /// When its start was ordered, in milliseconds since 1970.
    pub started_at_ms: u64,
    /// How long its start took, in microseconds, once it worked.
    pub start_us: Option<u64>,
    /// The main process of a container.
    pub pid: Option<u32>,
}

impl From<InstanceInfo> for InstanceView {
    fn from(info: InstanceInfo) -> Self {
        Self {
            id: info.instance.to_string(),
            state: info.state.name().to_owned(),
            in_flight: info.in_flight,
            started_at_ms: info.started_at_ms,
            start_us: info.start_us,
            pid: info.pid,
        }
    }
}
