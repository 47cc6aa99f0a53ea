//! The seam to what actually runs code: two small traits, owned here because the node is who calls them.
//!
//! - `wasm` (feature `wasm`) adapts `neap-wasm-runtime`, `oci` (feature `oci`) adapts `neap-oci-runtime`;
//! - `fake` (feature `fake`) is scripted, for tests.
//!
//! A runtime knows one instance at a time. It must not retry, queue, meter or decide when to freeze.

#[cfg(any(test, feature = "fake"))]
pub mod fake;
#[cfg(feature = "oci")]
pub mod oci;
#[cfg(feature = "wasm")]
pub mod wasm;

use crate::{Artifact, Body, call::CallError, logs::LogWriter};
use futures_util::future::BoxFuture;
use http::{Request, Response};
use neap_sdk::{FunctionSpec, InstanceId, RevisionId};
use std::{
    fmt,
    sync::{Arc, OnceLock, atomic::AtomicU64},
    time::Duration,
};

/// Runs artifacts of one kind.
pub trait Runtime: Send + Sync + 'static {
    /// Makes ready what can be made ready before the first request: compiles, or unpacks. Idempotent, and cheap
    /// when done before. Called at admission, on the control plane.
    fn prepare<'a>(&'a self, artifact: &'a Artifact) -> BoxFuture<'a, Result<(), PrepareError>>;

    /// Starts an instance and waits until it can be called, or fails. Whoever gets an error has nothing to clean
    /// up. Never dropped half-way by the node, except when the process ends.
    fn start(&self, start: Start) -> BoxFuture<'_, Result<Box<dyn Instance>, StartError>>;
}

/// What is started.
#[derive(Debug, Clone)]
pub struct Start {
    /// The new instance.
    pub instance: InstanceId,
    /// What it is a copy of.
    pub revision: RevisionId,
    /// The files.
    pub artifact: Artifact,
    /// How to run it.
    pub spec: Arc<FunctionSpec>,
    /// Where its output goes.
    pub logs: LogWriter,
}

/// One running copy. Its owner is one driver; only [`Instance::call`] and [`Instance::usage`] come from others.
pub trait Instance: Send + Sync + 'static {
    /// Handles one request. The response body drives the work on; dropping it, or the future, ends the work.
    /// An instance that exits or is stopped ends its calls with an error.
    fn call(
        &self,
        request: Request<Body>,
        call: RuntimeCall,
    ) -> BoxFuture<'_, Result<Response<Body>, CallError>>;

    /// Stops it from using CPU; called only while no call is in flight.
    fn freeze(&self) -> BoxFuture<'_, Result<(), FreezeError>>;

    /// Undoes [`Instance::freeze`].
    fn thaw(&self) -> BoxFuture<'_, Result<(), FreezeError>>;

    /// Ends it, frozen or not: asks, waits `grace`, kills; returns when nothing of it is left. Called once, also
    /// after it exited by itself.
    fn stop(&self, grace: Duration) -> BoxFuture<'_, ()>;

    /// Completes when it has ended by itself; pending for ever where nothing can.
    fn exited(&self) -> BoxFuture<'_, ExitReason>;

    /// The main process, where there is one.
    fn pid(&self) -> Option<u32>;

    /// What it has used since its start, where only the whole instance can be measured (containers); `None`
    /// where each call is measured through its [`CallMeter`] (Wasm). Cheap: called once per invocation.
    fn usage(&self) -> Option<InstanceUsage>;
}

/// What the node tells a runtime about one call.
#[derive(Debug, Clone)]
pub struct RuntimeCall {
    /// Wall-clock time the whole call may take. The node enforces it too; a runtime that can stop a busy guest
    /// must do so itself.
    pub timeout: Duration,
    /// Where a runtime that measures each call reports.
    pub meter: Arc<CallMeter>,
}

/// What one call used, read when its record is written.
pub trait MeterSource: Send + Sync {
    /// CPU time so far, in microseconds.
    fn cpu_us(&self) -> u64;
    /// Peak memory so far, in bytes.
    fn memory_bytes(&self) -> u64;
}

/// Where a runtime hangs its own meter for one call; at most one.
#[derive(Default)]
pub struct CallMeter {
    source: OnceLock<Arc<dyn MeterSource>>,
    /// Request body bytes that the function has read; counted by the node.
    pub(crate) bytes_in: AtomicU64,
}

impl CallMeter {
    /// Attaches the meter of this call; a second one is ignored.
    pub fn attach(&self, source: Arc<dyn MeterSource>) {
        let _ = self.source.set(source);
    }

    /// The meter, if the runtime attached one.
    pub fn source(&self) -> Option<&dyn MeterSource> {
        self.source.get().map(AsRef::as_ref)
    }
}

impl fmt::Debug for CallMeter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallMeter").field("attached", &self.source.get().is_some()).finish()
    }
}

/// What an instance has used since its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct InstanceUsage {
    /// CPU time, in microseconds.
    pub cpu_us: u64,
    /// Peak memory, in bytes.
    pub memory_peak_bytes: u64,
}

/// How an instance ended by itself: `exited with status 1`, `was killed by signal 9 (out of memory)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExitReason(pub String);

impl fmt::Display for ExitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why an artifact cannot run here: what is wrong with it, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PrepareError {
    /// It never will: an unknown import, another architecture, a layer that climbs out of the root.
    #[error("{0}")]
    Unsupported(String),
    /// This machine cannot at the moment: no such runtime, disk full.
    #[error("{0}")]
    Unavailable(String),
}

/// Why an instance did not start, in one line; the node adds its last log lines.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct StartError(pub String);

/// Why an instance could not be frozen or thawed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct FreezeError(pub String);
