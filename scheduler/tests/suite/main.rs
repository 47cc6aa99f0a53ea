//! The scheduler from outside: a real store in a temporary folder, a scripted fleet, scripted admissions.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

mod api;
mod deploy;
mod harness;
mod local;
mod queue;
mod routes;
mod scale;
mod store;
