//! Turns Wasm into native code, in a child process with limits: denial of service while compiling is no bug of a
//! compiler, so it must not be able to harm the server. The server only starts the child and waits for it.

mod child;

use crate::error::PrepareError;
use neap_sdk::limits;
use std::{
    ffi::OsString,
    fs,
    io::Read as _,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};
use tokio::{io::AsyncReadExt as _, process::Command, sync::Semaphore};

pub use child::child_main;

/// The child's exit code for "the input is not valid Wasm", with the reason on stderr.
const EXIT_INVALID: u8 = 10;
/// Most bytes of the child's stderr that are kept.
const REASON_BYTES_MAX: u64 = 8 << 10;

/// The two binary formats of Wasm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Component,
    Module,
}

impl Format {
    /// Decides from the first eight bytes: `\0asm`, a version, and a layer that is 1 for components.
    /// Source: component-model `Binary.md`, "Component Definitions".
    pub(crate) fn of(bytes: &[u8]) -> Option<Self> {
        match bytes.strip_prefix(b"\0asm")?.get(..4)? {
            [1, 0, 0, 0] => Some(Self::Module),
            [_, _, 1, 0] => Some(Self::Component),
            _ => None,
        }
    }

    /// The format of a file of acceptable size.
    pub(crate) fn of_file(path: &Path) -> Result<Self, PrepareError> {
        let read_error = |source| PrepareError::Read { path: path.to_owned(), source };
        let file = fs::File::open(path).map_err(read_error)?;
        let bytes = file.metadata().map_err(read_error)?.len();
        if bytes > limits::WASM_BYTES_MAX {
            return Err(PrepareError::TooLarge { bytes });
        }
        let mut head = Vec::new();
        file.take(8).read_to_end(&mut head).map_err(read_error)?;
        match Self::of(&head) {
            Some(format) => Ok(format),
            None if head.starts_with(b"\0asm") && head.len() < 8 => {
                Err(PrepareError::Invalid("the file ends within its first eight bytes".into()))
            }
            None if head.starts_with(b"\0asm") => Err(PrepareError::Invalid(
                "its version is neither that of a component nor of a module".into(),
            )),
            None => Err(PrepareError::NotWasm),
        }
    }
}

/// Starts compile children, a few at a time.
#[derive(Debug)]
pub(crate) struct Compiler {
    argv: Vec<OsString>,
    slots: Semaphore,
}

impl Compiler {
    /// `argv` is the child's program and its arguments; input and output are added to it.
    pub(crate) fn new(argv: Vec<OsString>) -> Option<Self> {
        (!argv.is_empty()).then(|| Self { argv, slots: Semaphore::new(limits::COMPILES_AT_ONCE_MAX) })
    }

    /// Compiles `wasm` into the file `output`, which the child makes. Dropping the future kills the child.
    pub(crate) async fn compile(&self, wasm: &Path, output: &Path) -> Result<(), PrepareError> {
        let _slot = self.slots.acquire().await.map_err(|error| self.failed(error.to_string()))?;
        let mut command = Command::new(&self.argv[0]);
        command.args(&self.argv[1..]).arg(wasm).arg(output).env_clear().kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| self.failed(error.to_string()))?;
        let mut reason = Vec::new();
        let work = async {
            if let Some(stderr) = child.stderr.take() {
                let _ = stderr.take(REASON_BYTES_MAX).read_to_end(&mut reason).await;
            }
            child.wait().await
        };
        let limit = Duration::from_millis(limits::COMPILE_TIMEOUT_MS);
        let ended = tokio::time::timeout(limit, work).await;
        let status = ended.map_err(|_| PrepareError::CompileTimeout)?;
        let reason = String::from_utf8_lossy(&reason).trim().to_owned();
        self.judge(status.map_err(|error| self.failed(error.to_string()))?, reason)
    }

    fn judge(&self, status: ExitStatus, reason: String) -> Result<(), PrepareError> {
        use std::os::unix::process::ExitStatusExt as _;
        let cpu_limit = rustix::process::Signal::XCPU.as_raw();
        match (status.code(), status.signal()) {
            (Some(0), _) => Ok(()),
            (Some(code), _) if code == i32::from(EXIT_INVALID) => Err(PrepareError::Invalid(reason)),
            (Some(_), _) => Err(self.failed(if reason.is_empty() { status.to_string() } else { reason })),
            (None, Some(signal)) if signal == cpu_limit => Err(PrepareError::CompileTimeout),
            (None, _) => Err(PrepareError::CompileKilled { status: status.to_string() }),
        }
    }

    pub(crate) fn failed(&self, reason: String) -> PrepareError {
        PrepareError::Compiler { program: PathBuf::from(&self.argv[0]), reason }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_told_by_their_first_bytes() {
        assert_eq!(Format::of(b"\0asm\x01\0\0\0rest"), Some(Format::Module));
        assert_eq!(Format::of(b"\0asm\x0d\0\x01\0"), Some(Format::Component));
        for bad in [&b"\0asm\x02\0\0\0"[..], b"\0asm", b"", b"(module)", b"\x7fELF\x01\0\0\0"] {
            assert_eq!(Format::of(bad), None, "{bad:?}");
        }
    }
}
