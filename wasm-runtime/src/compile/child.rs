//! The compile child: limits itself, compiles one file into another, and ends. It talks to nobody.

use super::{EXIT_INVALID, Format};
use crate::engine;
use neap_sdk::limits;
use rustix::process::{Resource, Rlimit, Signal, set_parent_process_death_signal, setrlimit};
use std::{
    env, fs,
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

enum Failure {
    /// The input's fault.
    Invalid(String),
    /// Anything else.
    Other(String),
}

/// What the compile child's `main` calls: its last two arguments name the Wasm file and the file to make of it.
///
/// Exit code 0: the output is there. 10: the input is not valid Wasm, the reason is on stderr. Anything else: the
/// child could not do its work. A child that hits its limits is killed by a signal.
pub fn child_main() -> ExitCode {
    let arguments: Vec<_> = env::args_os().skip(1).map(PathBuf::from).collect();
    let result = match &arguments[..] {
        [.., input, output] => limit().and_then(|()| compile(input, output)),
        _ => Err(Failure::Other("usage: INPUT OUTPUT".into())),
    };
    let (code, text) = match result {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Invalid(text)) => (ExitCode::from(EXIT_INVALID), text),
        Err(Failure::Other(text)) => (ExitCode::FAILURE, text),
    };
    // Nobody is left to tell where stderr is gone.
    let _ = writeln!(io::stderr(), "{text}");
    code
}

/// Caps address space and CPU time, forbids core dumps, and ends with the parent.
fn limit() -> Result<(), Failure> {
    let cap = |resource, value| {
        let limit = Rlimit { current: Some(value), maximum: Some(value) };
        setrlimit(resource, limit).map_err(|error| Failure::Other(format!("cannot limit itself: {error}")))
    };
    cap(Resource::As, limits::COMPILE_MEMORY_BYTES_MAX)?;
    cap(Resource::Cpu, limits::COMPILE_TIMEOUT_MS.div_ceil(1_000))?;
    cap(Resource::Core, 0)?;
    set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|error| Failure::Other(format!("cannot tie itself to its parent: {error}")))
}

fn compile(input: &Path, output: &Path) -> Result<(), Failure> {
    let other = |what: &str, path: &Path, error: io::Error| {
        Failure::Other(format!("cannot {what} {}: {error}", path.display()))
    };
    let mut wasm = Vec::new();
    let file = fs::File::open(input).map_err(|error| other("open", input, error))?;
    let mut file = file.take(limits::WASM_BYTES_MAX + 1);
    file.read_to_end(&mut wasm).map_err(|error| other("read", input, error))?;
    if wasm.len() as u64 > limits::WASM_BYTES_MAX {
        return Err(Failure::Invalid(format!("it has more than {} bytes", limits::WASM_BYTES_MAX)));
    }
    let engine = engine::compiling().map_err(|error| Failure::Other(format!("{error:#}")))?;
    let code = match Format::of(&wasm) {
        Some(Format::Component) => engine.precompile_component(&wasm),
        Some(Format::Module) => engine.precompile_module(&wasm),
        None => return Err(Failure::Invalid("it does not begin as Wasm does".into())),
    };
    let code = code.map_err(|error| Failure::Invalid(format!("{error:#}")))?;
    let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(output);
    let mut file = file.map_err(|error| other("make", output, error))?;
    file.write_all(&code).map_err(|error| other("write", output, error))
}
