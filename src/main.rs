//! The command line of neap; to be written.

fn main() {}
