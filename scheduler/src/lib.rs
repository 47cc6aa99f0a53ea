//! The scheduler: what tenants asked for (functions, revisions, traffic), and instances that follow it.
//!
//! # Layout, in the order in which a request, then a deployment, meets it
//! - [`route`]: host and path → function → revision, an immutable snapshot.
//! - `target`: one revision at run time; `queue` is its pure heart, [`Lease`] what a request holds.
//! - [`autoscale`], [`place`]: how many instances, and where. Pure.
//! - [`fleet`]: the seam to the nodes. [`admissions`]: the seam to the registry.
//! - [`deploy`]: push → admitted → started → traffic.
//! - [`cluster`]: the desired state as values and pure transitions; [`store`] keeps it; `live` is what is known of it.
//! - `driver`: makes what is follow what is wanted.
//! - [`api`]: the admin API; `view` is what it shows.
//!
//! It must not know Wasm or OCI beyond [`neap_sdk::artifact::ArtifactKind`], and no socket.

pub mod admissions;
pub mod api;
pub mod autoscale;
pub mod cluster;
pub mod deploy;
mod drain;
mod driver;
mod error;
pub mod fleet;
mod lease;
mod live;
mod metrics;
pub mod place;
mod queue;
pub mod route;
mod scheduler;
pub mod store;
mod target;
mod view;

pub use error::AcquireError;
pub use fleet::{Body, BoxError, CallError};
pub use lease::{Lease, Waited};
pub use route::{Route, RouteTable};
pub use scheduler::{OpenError, Scheduler, SchedulerSettings};
pub use target::Target;
