//! What can go wrong, one enum per operation. The texts say what failed and why, for the person who pushed the
//! function; they never repeat their source.

use neap_sdk::{Digest, limits};
use std::{io, path::PathBuf, time::Duration};

/// Why the engine could not be started.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The folder for native code cannot be made or read.
    #[error("cannot use {} as the cache of compiled Wasm", path.display())]
    Cache {
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The engine does not start; most likely not even a small pool of instances fits into the address space.
    #[error("cannot start the Wasm engine (is the address space limited with `ulimit -v`?): {0}")]
    Engine(String),
    /// The thread that advances the engine's clock could not be started.
    #[error("cannot start the thread that interrupts busy guests")]
    Ticker(#[source] io::Error),
    /// No compiler was named.
    #[error("the settings name no compile child")]
    NoCompiler,
}

/// Why a program cannot be run here.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// The artifact's file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The bytes do not begin as Wasm does.
    #[error("not a Wasm file: it does not begin with the bytes 00 61 73 6d of a binary component or module")]
    NotWasm,
    /// It begins as Wasm does, but it is broken or uses what the engine does not know.
    #[error("not a valid Wasm file: {0}")]
    Invalid(String),
    /// The file is larger than the limit.
    #[error("the Wasm file has {bytes} bytes; at most {} are allowed", limits::WASM_BYTES_MAX)]
    TooLarge {
        /// Its size.
        bytes: u64,
    },
    /// The file on disk is not the one that the digest speaks of.
    #[error("{} does not have the digest {digest} any more; it was changed or damaged on disk", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
        /// What it should have.
        digest: Digest,
    },
    /// It exports nothing that can answer a request.
    #[error("{0}")]
    NoHandler(String),
    /// It needs what the host does not have.
    #[error("{}", missing(.0))]
    MissingImports(Vec<String>),
    /// It imports something that the host has, but in another form.
    #[error("an import differs from what neap offers: {0}")]
    Incompatible(String),
    /// The compilation took too long.
    #[error("compiling took longer than {} s and was stopped", limits::COMPILE_TIMEOUT_MS / 1_000)]
    CompileTimeout,
    /// The compilation was killed, most likely by its memory limit.
    #[error("compiling was stopped ({status}); it may use {} MiB of address space", limits::COMPILE_MEMORY_BYTES_MAX >> 20)]
    CompileKilled {
        /// How the child ended.
        status: String,
    },
    /// The compile child could not do its work; not the artifact's fault.
    #[error("the compile child {program:?} failed: {reason}")]
    Compiler {
        /// What was run.
        program: PathBuf,
        /// Why it failed.
        reason: String,
    },
    /// Native code could not be kept.
    #[error("cannot keep compiled code in {}", path.display())]
    Cache {
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

impl PrepareError {
    /// Whether the artifact is at fault, rather than this machine: the same file would be refused again.
    pub fn blames_artifact(&self) -> bool {
        !matches!(self, Self::Read { .. } | Self::Changed { .. } | Self::Compiler { .. } | Self::Cache { .. })
    }
}

/// `imports a, b and c, which neap does not offer`.
fn missing(names: &[String]) -> String {
    let list = match names {
        [] => String::new(),
        [name] => name.clone(),
        [names @ .., last] => format!("{} and {last}", names.join(", ")),
    };
    format!("imports {list}, which neap does not offer")
}

/// Why an invocation gave no response, or did not finish it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvokeError {
    /// The guest broke a rule of Wasm, or gave up.
    #[error("the function trapped: {0}")]
    Trapped(String),
    /// The guest needed more memory than it may have.
    #[error("the function needs more than its {} MiB of memory", limit_bytes >> 20)]
    OutOfMemory {
        /// What it may have.
        limit_bytes: u64,
    },
    /// The invocation took longer than it may.
    #[error("the function took longer than {} ms", .0.as_millis())]
    Timeout(Duration),
    /// The guest used more CPU time than it may.
    #[error("the function used more than {} ms of CPU time", .0.as_millis())]
    CpuExhausted(Duration),
    /// The guest returned without a response.
    #[error("the function ended without a response")]
    NoResponse,
    /// The guest ended its program before the response was complete.
    #[error("the function exited with status {0}")]
    Exited(i32),
    /// The guest answered with an error of `wasi:http`, or its response body failed.
    #[error("the function reported an error: {0}")]
    Failed(String),
    /// The guest's response is none.
    #[error("the function's response is not valid: {0}")]
    BadResponse(String),
    /// The request cannot be given to a guest.
    #[error("the request cannot be given to a function: {0}")]
    BadRequest(String),
    /// All instances are in use.
    #[error("all Wasm instances of this server are in use")]
    Busy,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_missing_import_is_named() {
        let names = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect();
        let text = PrepareError::MissingImports(names(&["a:b/c@1.0.0", "d", "e"])).to_string();
        assert_eq!(text, "imports a:b/c@1.0.0, d and e, which neap does not offer");
        let text = PrepareError::MissingImports(names(&["wasi:keyvalue/store@0.2.0"])).to_string();
        assert_eq!(text, "imports wasi:keyvalue/store@0.2.0, which neap does not offer");
    }
}
