//! What a function's user, and its neighbour, notices of the runtime: real guests, called as the node calls them.

mod cgi;
mod component;
mod harness;
mod limits;
mod outbound;
mod p3;
mod prepare;
mod streaming;
