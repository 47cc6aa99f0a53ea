//! Runs OCI images as containers on this machine: unpacks an image, starts, connects to, freezes and stops.
//!
//! # Layout
//! - [`OciRuntime`] and [`Container`] (`client/`): what the server calls. Async, no forks, no mounts.
//! - `spawner/`: a process of its own with one thread; forks sandboxes, holds libcontainer, reaps.
//! - `protocol`: what the two say to each other.
//! - `unpack/`: layers to one folder per image. `image/`: what the image runs.
//! - `cgroup/`: limits, freezing, usage; v1, hybrid and v2.
//!
//! It must not know routes, tenants or placement, or where an image came from.

#![allow(
    unsafe_code,
    reason = "fork, mount_setattr and ioctl have no safe form; each use says why it is sound"
)]

mod cgroup;
mod client;
mod image;
mod protocol;
pub mod spawner;
mod unpack;

pub use client::{
    Container, ContainerSpec, ContainerUsage, Exit, FreezeError, LogSink, OciRuntime, RunError, Settings,
    Stream, UnavailableError,
};
pub use image::{ImageFiles, LayerFile};
pub use unpack::{EntryError, LayerError, PathError, UnpackError};
