//! The neap binary: reads the command line and hands over. Also the two child processes that the server starts
//! from the same file: the compiler of Wasm code and the spawner of containers.

mod cli;
mod commands;
mod config;
mod demo;
mod exit;
mod output;
mod platform;
mod prepare;
mod system;
mod telemetry;

use clap::Parser as _;
use std::process::ExitCode;

/// Allocation is on every request's path; mimalloc keeps it on one core.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // The children come first: they must start in microseconds and know nothing of the command line.
    match std::env::args_os().nth(1).as_deref().and_then(std::ffi::OsStr::to_str) {
        Some(platform::COMPILER_CHILD) => return neap_wasm_runtime::compile::child_main(),
        Some(platform::SPAWNER_CHILD) => return neap_oci_runtime::spawner::child_main(),
        _ => {}
    }
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { neap_sdk::error::exit::USAGE } else { 0 });
        }
    };
    match commands::run(cli) {
        Ok(code) => code,
        Err(failure) => failure.report(),
    }
}
