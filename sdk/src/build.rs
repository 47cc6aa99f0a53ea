//! Builds a guest from its source with the machine's own cargo; demo, tests and benchmarks share it.
//!
//! It brings the compiler's target itself where rustup can, and says so on stderr: a toolchain file alone does
//! not where `RUSTUP_AUTO_INSTALL=0` is set. It must not be used by a running server.

use std::{
    ffi::OsStr,
    io,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

/// The target that components are built for.
pub const COMPONENT_TARGET: &str = "wasm32-wasip2";

/// Lines of cargo's output that a failure shows.
const LINES_SHOWN: usize = 30;

/// Why a guest could not be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The program is not there, or cannot be started.
    #[error("cannot run {program}; install Rust from https://rustup.rs")]
    Run {
        /// What was to be run.
        program: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// The compiler lacks the target and there is no rustup to bring it.
    #[error(
        "this Rust compiler cannot build for {0}, and there is no rustup; install that target with the tool that installed Rust, or Rust from https://rustup.rs"
    )]
    NoRustup(String),
    /// rustup could not bring the target.
    #[error("rustup could not add the target {target}:\n{output}")]
    TargetAdd {
        /// The target.
        target: String,
        /// The end of what rustup said.
        output: String,
    },
    /// The source does not compile, or a dependency cannot be had.
    #[error("cargo could not build {}:\n{output}", dir.display())]
    Cargo {
        /// The package's folder.
        dir: PathBuf,
        /// The end of what cargo said.
        output: String,
    },
    /// Cargo succeeded without a `.wasm` file or an executable of this package.
    #[error("{} built, but gave no .wasm file and no executable; it needs a binary or a cdylib", .0.display())]
    NoOutput(PathBuf),
}

/// Builds the package in `package_dir` for `target` in release mode, exactly as its `Cargo.lock` says, and gives
/// the path of its `.wasm` file, or of its executable where the target is no Wasm one, below `target_dir`. Blocks until cargo is done; calls side by side take turns.
///
/// # Errors
/// When the compiler, the target or a dependency is missing, or the source does not compile; the error shows
/// the compiler's last lines.
pub fn build_guest(package_dir: &Path, target: &str, target_dir: &Path) -> Result<PathBuf, BuildError> {
    ensure_target(package_dir, target)?;
    let mut cargo = tool("cargo", package_dir);
    cargo.args([
        "build",
        "--release",
        "--locked",
        "--message-format=json-render-diagnostics",
        "--target",
        target,
    ]);
    let output = run("cargo", cargo.env("CARGO_TARGET_DIR", target_dir))?;
    if !output.status.success() {
        return Err(BuildError::Cargo { dir: package_dir.to_owned(), output: tail(&output.stderr) });
    }
    built_file(&output.stdout, package_dir).ok_or_else(|| BuildError::NoOutput(package_dir.to_owned()))
}

/// Brings the target's standard library where it is missing.
fn ensure_target(dir: &Path, target: &str) -> Result<(), BuildError> {
    let output = run("rustc", tool("rustc", dir).args(["--print", "target-libdir", "--target", target]))?;
    let libdir = String::from_utf8_lossy(&output.stdout);
    if output.status.success() && Path::new(libdir.trim()).is_dir() {
        return Ok(());
    }
    eprintln!("the compiler's target {target} is missing; running: rustup target add {target}");
    match run("rustup", tool("rustup", dir).args(["target", "add", target])) {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(BuildError::TargetAdd { target: target.to_owned(), output: tail(&output.stderr) }),
        Err(_) => Err(BuildError::NoRustup(target.to_owned())),
    }
}

/// A tool of the toolchain that `dir` asks for, free of what an outer `cargo test` or `cargo run` has set:
/// its compiler flags and its package's variables would change, or break, the guest's build.
fn tool(program: &str, dir: &Path) -> Command {
    let disturbs = |name: &str| {
        let kept = ["CARGO_HOME", "CARGO_HTTP_", "CARGO_NET_", "CARGO_REGISTR", "CARGO_SOURCE_"];
        let outer = ["CARGO", "RUSTC", "RUSTFLAGS", "RUSTDOC", "MAKEFLAGS", "RUSTUP_TOOLCHAIN"];
        outer.iter().any(|prefix| name.starts_with(prefix))
            && !kept.iter().any(|prefix| name.starts_with(prefix))
    };
    let mut command = Command::new(program);
    command.current_dir(dir).stdin(Stdio::null());
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(disturbs)) {
        command.env_remove(name);
    }
    command
}

fn run(program: &'static str, command: &mut Command) -> Result<Output, BuildError> {
    command.output().map_err(|source| BuildError::Run { program, source })
}

/// The last lines of a tool's output.
fn tail(output: &[u8]) -> String {
    let text = String::from_utf8_lossy(output);
    let lines: Vec<&str> = text.trim_end().lines().collect();
    lines[lines.len().saturating_sub(LINES_SHOWN)..].join("\n")
}

/// The `.wasm` file or the executable in cargo's JSON messages that belongs to the package in `dir`.
fn built_file(messages: &[u8], dir: &Path) -> Option<PathBuf> {
    let manifest = dir.join("Cargo.toml").canonicalize().ok()?;
    String::from_utf8_lossy(messages).lines().rev().find_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        let ours = Path::new(message.get("manifest_path")?.as_str()?) == manifest;
        let files = message.get("filenames").filter(|_| ours)?.as_array()?;
        let mut files = files.iter().filter_map(|file| file.as_str()).map(PathBuf::from);
        let executable = message.get("executable").and_then(|file| file.as_str()).map(PathBuf::from);
        files.find(|file| file.extension() == Some(OsStr::new("wasm"))).or(executable)
    })
}
