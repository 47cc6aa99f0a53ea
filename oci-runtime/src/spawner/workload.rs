//! The last steps inside a container before its program: signals, parent, system call filter, exec.
//!
//! Runs in the container's first process, after libcontainer dropped every capability. It must not return: whatever
//! fails is written to the container's stderr, so that it stands in its logs, and ends the process.

use super::seccomp::{self, Filters};
use libcontainer::workload::{Executor, ExecutorError, ExecutorValidationError};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use oci_spec::runtime::Spec;
use std::ffi::{CString, NulError};
use std::fmt::Display;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Runs the program of a container.
#[derive(Clone)]
pub struct Workload {
    /// Compiled once per spawner.
    pub filters: Arc<Filters>,
}

/// What a shell returns for a program that is there but cannot be run, and for one that is not there.
const CANNOT_RUN: i32 = 126;
const NOT_FOUND: i32 = 127;

impl Executor for Workload {
    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        let args: Result<Vec<CString>, NulError> =
            args(spec).iter().map(|arg| CString::new(arg.as_str())).collect();
        let args = args.map_err(|_| ExecutorError::InvalidArg)?;
        let program = args.first().ok_or(ExecutorError::InvalidArg)?;
        if let Err(error) = settle() {
            give_up(CANNOT_RUN, &"the sandbox", &error);
        }
        if let Err(error) = seccomp::install(&self.filters) {
            give_up(CANNOT_RUN, &"the system call filter", &error);
        }
        let Err(error) = nix::unistd::execvp(program, &args);
        let code = if error == nix::errno::Errno::ENOENT { NOT_FOUND } else { CANNOT_RUN };
        give_up(code, &program.to_string_lossy(), &error)
    }

    fn validate(&self, spec: &Spec) -> Result<(), ExecutorValidationError> {
        let broken = ExecutorValidationError::ArgValidationError;
        let args = args(spec);
        let program = args.first().ok_or_else(|| broken("the image names no program".into()))?;
        let env = spec.process().as_ref().and_then(|process| process.env().as_ref());
        let path = env.and_then(|env| env.iter().find_map(|entry| entry.strip_prefix("PATH="))).unwrap_or("");
        let found = candidates(program, path).into_iter().find(|path| path.exists());
        let found = found.ok_or_else(|| broken(format!("its program {program:?} does not exist in it")))?;
        match found.metadata() {
            Ok(metadata) if metadata.is_file() && metadata.permissions().mode() & 0o111 != 0 => Ok(()),
            Ok(_) => Err(broken(format!("its program {program:?} is not executable"))),
            Err(error) => Err(broken(format!("its program {program:?} cannot be read: {error}"))),
        }
    }
}

fn args(spec: &Spec) -> &[String] {
    spec.process().as_ref().and_then(|process| process.args().as_deref()).unwrap_or_default()
}

fn candidates(program: &str, path: &str) -> Vec<PathBuf> {
    if program.contains('/') {
        return vec![program.into()];
    }
    path.split(':').map(|dir| Path::new(dir).join(program)).collect()
}

/// Gives the process the signal state of a fresh one, and ends it with the spawner.
fn settle() -> nix::Result<()> {
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    for signal in [Signal::SIGPIPE, Signal::SIGCHLD] {
        // SAFETY: the default action runs no code of ours.
        unsafe { sigaction(signal, &default) }?;
    }
    SigSet::empty().thread_set_mask()?;
    // Only if the spawner itself is killed; else it ends its containers. The parent is the spawner and has one
    // thread, so the signal means what it says.
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)
}

fn give_up(code: i32, what: &impl Display, error: &dyn Display) -> ! {
    let _ = writeln!(std::io::stderr(), "neap: cannot run {what}: {error}");
    // SAFETY: ends the process without running destructors that belong to the process it was forked from.
    unsafe { libc::_exit(code) }
}
