//! Owns every instance on one machine: starts, calls, freezes and stops it, keeps its logs, meters its use.
//!
//! # Layout
//! - [`node`](Node): the one door; a cheap handle over everything below.
//! - [`instance`]: the lifecycle as a pure state machine, the one driver per instance, the table of all.
//! - [`runtime`]: the small trait that a Wasm engine, a container runtime and the scripted fake implement.
//! - [`call`]: what can become of a call, and the bodies that are counted and timed.
//! - [`meter`]: the usage ledger; one record per invocation, written before its response ends.
//! - [`logs`]: what functions write, by line. [`capacity`]: how much memory there is to give.
//! - [`artifacts`]: where the files of an admitted release lie.
//!
//! This crate must never know other nodes, routes or users: it is told a revision and an artifact, never asked
//! who may call it. Of the registry it knows `Release` only.

pub mod artifacts;
pub mod call;
pub mod capacity;
pub mod instance;
pub mod logs;
pub mod meter;
mod metrics;
mod node;
pub mod runtime;

pub use artifacts::{Artifact, ArtifactLayer};
pub use call::{CallError, InvocationCall};
pub use logs::{LogEvent, LogFollower, LogStore, LogWriter};
pub use meter::{Ledger, UsageFilter};
pub use node::{
    FreezeFailure, InstanceExit, InstanceInfo, Node, NodeSettings, OpenError, Runtimes, StartFailure,
    StartOrder, StartReport,
};
pub use runtime::{Instance, PrepareError, Runtime};

/// What can go wrong inside a body, opaque to whoever passes it on.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// Request and response bodies between crates.
pub type Body = http_body_util::combinators::UnsyncBoxBody<bytes::Bytes, BoxError>;
