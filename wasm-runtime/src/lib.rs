//! Compiles, caches, links and calls one Wasm program: a `wasi:http` component, or a preview 1 module in CGI style.
//!
//! # Layout, in the order in which a program meets it
//! - [`compile`]: Wasm to native code, in a child process with limits.
//! - `cache`: native code on disk, by digest and compiler, with a MAC.
//! - `engine`: wasmtime's configuration, the instance pool, the clock that interrupts busy guests.
//! - `program`: what a program is, which of its imports the host has; linked once.
//! - [`call`]: one invocation in a fresh instance, driven by its response.
//! - `cgi`: a module's environment, stdin and stdout as request and response.
//! - `host`: what guests are offered, one file per capability; `address`: where they may connect to.
//! - `meter`: memory, CPU and wall time of one invocation.
//!
//! It knows no routes, tenants or placement, and not where bytes came from.

mod address;
mod cache;
pub mod call;
mod cgi;
pub mod compile;
mod engine;
mod error;
mod host;
mod meter;
mod program;
mod runtime;

pub use call::{Body, BoxError, Call, CallLimits, Grants, LogSink, Stream};
pub use error::{EngineError, InvokeError, PrepareError};
pub use meter::Meter;
pub use program::Program;
pub use runtime::{Settings, WasmRuntime};
