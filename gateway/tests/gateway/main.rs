//! The gateway from outside: real sockets on loopback, port 0, a scheduler over scripted instances.

mod client;
mod desync;
mod guest;
mod lifecycle;
mod limits;
mod logs;
mod routes;
mod streams;
mod world;
