//! What can go wrong with containers, and how they end.

use crate::protocol::Status;
use crate::unpack::UnpackError;
use neap_sdk::limits;
use std::fmt;
use std::time::Duration;

/// Why this machine cannot run containers; one line.
#[derive(Debug, thiserror::Error)]
#[error("containers cannot run here: {0}")]
pub struct UnavailableError(pub(super) String);

/// Why a container did not come up.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The image could not be unpacked.
    #[error("the image could not be unpacked")]
    Unpack(#[from] UnpackError),
    /// Something in the request cannot be.
    #[error("the container cannot be started: {0}")]
    Invalid(String),
    /// The sandbox or the program could not be set up.
    #[error("the container could not be set up: {0}")]
    Setup(String),
    /// The program ended before it listened. Everything that it wrote has reached the log sink.
    #[error("the program {exit} before it listened on port {port} ($PORT)")]
    Exited {
        /// How it ended.
        exit: Exit,
        /// Where it should have listened.
        port: u16,
    },
    /// The program runs but does not listen. It was stopped.
    #[error("the program did not listen on 127.0.0.1:{port} ($PORT) within {waited:?}")]
    NeverListened {
        /// Where it should have listened.
        port: u16,
        /// How long it had.
        waited: Duration,
    },
    /// The spawner cannot be reached.
    #[error("the spawner process does not answer")]
    Spawner(#[source] std::io::Error),
    /// The spawner ended and no new one could be started.
    #[error("the spawner process ended and could not be started again")]
    Unavailable(#[from] UnavailableError),
}

/// Why a container could not be frozen or thawed.
#[derive(Debug, thiserror::Error)]
pub enum FreezeError {
    /// It does not run any more.
    #[error("the container has ended")]
    Exited,
    /// The kernel did not stop all its processes in time; it runs on.
    #[error("the container's processes did not stop within {} ms", limits::CONTAINER_FREEZE_TIMEOUT_MS)]
    Timeout,
    /// The control group does not do what it should.
    #[error("the container's control group cannot be used")]
    Group(#[source] std::io::Error),
}

/// How a container ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Its first process returned this status.
    Code(i32),
    /// A signal ended its first process.
    Signal(i32),
    /// The kernel ended its first process because the container used up its memory.
    OutOfMemory,
    /// The spawner ended, and the container with it.
    SpawnerLost,
}

impl From<Status> for Exit {
    fn from(status: Status) -> Self {
        match status {
            Status::Code(code) => Self::Code(code),
            Status::Signal(signal) => Self::Signal(signal),
            Status::OutOfMemory => Self::OutOfMemory,
        }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exited with status {code}"),
            Self::Signal(signal) => {
                let name = nix::sys::signal::Signal::try_from(*signal);
                write!(f, "was ended by signal {signal}")?;
                name.map_or(Ok(()), |name| write!(f, " ({name})"))
            }
            Self::OutOfMemory => f.write_str("was ended because it used up its memory"),
            Self::SpawnerLost => f.write_str("was ended together with the spawner process"),
        }
    }
}
