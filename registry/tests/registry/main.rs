//! The registry from outside: real HTTP on loopback, real files, real signatures. One binary, so that it links once.

mod access;
mod admit;
mod chunks;
mod client;
mod crash;
mod damaged;
mod full;
mod garbage;
mod harness;
mod listings;
mod manifests;
mod package;
mod rogue;
mod skopeo;
mod uploads;
