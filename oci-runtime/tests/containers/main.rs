//! Real containers on this machine, seen as a server sees them.
//!
//! Root only; anything else is skipped with a printed reason. Each test has a spawner and a state folder of its own,
//! and most look afterwards whether the machine is as it was before.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod isolation;
mod life;
mod restart;
mod speed;
mod start;
mod support;
