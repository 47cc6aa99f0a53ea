//! neap's public vocabulary: what a function, a revision, an artifact, a verdict and an invocation are,
//! which limits hold, and which error codes exist.
//!
//! # Layout
//! - [`id`], [`digest`], [`artifact`]: names, parsed once at the edge into newtypes.
//! - [`function`]: what a person asks for (`FunctionSpec`).
//! - [`admission`]: the verdict on an artifact, with its evidence.
//! - [`invocation`]: one handled request, as it is billed.
//! - [`limits`]: every limit, with its unit and its reason.
//! - [`error`]: stable codes, their HTTP status and exit code, and problem documents.
//! - [`api`]: the bodies of the admin API.
//! - `client` (feature `client`): calls the admin API.
//! - `guest` (feature `guest`): what a Wasm function is written with.
//! - `build` (feature `build`): builds a function from its source.
//!
//! With default features this crate knows no tokio, no hyper and no wasmtime, so that it also builds for
//! `wasm32-wasip2`. It must not hold decisions, only words.

pub mod admission;
pub mod api;
pub mod artifact;
#[cfg(feature = "build")]
pub mod build;
pub mod capability;
#[cfg(feature = "client")]
pub mod client;
pub mod digest;
pub mod error;
pub mod function;
#[cfg(feature = "guest")]
pub mod guest;
pub mod id;
pub mod invocation;
pub mod limits;

pub use digest::Digest;
pub use error::{ErrorCode, Problem};
pub use function::FunctionSpec;
pub use id::{FunctionName, InstanceId, RevisionId, TenantName};
