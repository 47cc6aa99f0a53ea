//! The registry: stores OCI artifacts, decides which of them may run, and publishes the admitted ones; and the
//! client half of a push (packaging, SBOM, signing, transport).
//!
//! # Layout
//! - [`store`]: blobs, manifests, tags, referrers and uploads on disk. [`api`]: the OCI distribution API over it.
//! - [`admission`], [`keys`]: the verdict on an artifact and the keys that it rests on.
//! - [`service`]: [`Registry`] ties both together. [`release`]: what was admitted, durable and watched.
//! - [`client`], [`package`], [`sign`], [`sbom`]: what `neap push` does before and while it uploads.
//! - [`manifest`]: the one strict reader of manifests that all of them share.
//!
//! It must not know nodes, schedulers or wasmtime: whether an artifact can run here is asked through [`Preparer`].

pub mod access;
pub mod admission;
pub mod api;
pub mod client;
mod durable;
pub mod gc;
pub mod keys;
pub mod manifest;
pub mod package;
pub mod release;
pub mod sbom;
pub mod service;
pub mod sign;
pub mod store;

pub use release::{Layer, Release, ReleaseSet};
pub use service::{AdmitError, Admitted, OpenError, Preparer, Registry, RegistrySettings};
