//! End to end, from outside: the real binary, real sockets, real components and containers, temporary folders.
//! One binary, so that the server is built once; a file for each part that a user meets.

mod harness;
mod http;

mod admission;
mod cli;
mod container;
mod crash;
mod demo;
mod gateway;
mod lifecycle;
mod metering;
mod registry;
mod wasm;
