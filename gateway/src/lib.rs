//! The front door: listens, finds whom a request is for, limits it, waits for an instance, streams both ways.
//!
//! # Layout
//! - [`server`]: one thread, runtime and listener per core; drain. [`listen`]: their sockets.
//! - [`connection`]: one client connection, its timeouts and its end. [`watch`]: those timeouts, as a state machine.
//!   [`screen`]: refuses requests whose borders are ambiguous.
//! - [`request`]: a request's way from head to answer. [`exchange`]: what is noted of it, and the answer's body.
//! - [`host`], [`id`], [`limit`], [`forward`]: single steps of that way. [`reply`]: problem documents.
//! - [`system`]: the way to the control plane. [`metrics`]: what is counted.
//!
//! A request stays on the core that accepted its connection, from the socket to the instance and back; nothing is
//! spawned for it and no lock is shared on the warm path. Dropping is cancelling: where a client goes away, hyper
//! drops the request's future or its response body, and with it the lease and the work.
//!
//! What the function gets is one form, whatever the client spoke: the target is path and query, `Host` is the
//! one checked authority, headers of the connection are gone, and `X-Request-Id` and `X-Forwarded-*` are ours.
//!
//! It must not know nodes, artifacts or runtimes.

mod connection;
mod exchange;
mod forward;
mod host;
mod id;
mod limit;
mod listen;
mod metrics;
mod reply;
mod request;
mod screen;
mod server;
mod system;
mod watch;

pub use listen::ListenError;
pub use server::{BindError, Drained, Gateway, GatewaySettings};
pub use system::SystemService;

/// What a body between crates fails with.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// Request and response bodies between crates.
pub type Body = http_body_util::combinators::UnsyncBoxBody<bytes::Bytes, BoxError>;
