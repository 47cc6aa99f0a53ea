//! What the Wasm host can offer a guest; `ls wasm-runtime/src/host` holds one file for each.

use serde::{Deserialize, Serialize};

/// One thing that a guest may import, or be refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Capability {
    /// `wasi:cli`: arguments, environment and standard streams.
    Cli,
    /// `wasi:http` outgoing requests, to granted hosts only.
    OutboundHttp,
}

impl Capability {
    /// Every capability, in the order of the files of `wasm-runtime/src/host`.
    pub const ALL: [Self; 2] = [Self::Cli, Self::OutboundHttp];

    /// The name, as it stands in a spec and as the host's file is called.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cli => "cli",
            Self::OutboundHttp => "outbound_http",
        }
    }
}
