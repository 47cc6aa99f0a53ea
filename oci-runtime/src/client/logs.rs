//! Hands what a container writes to its log sink, in pieces.
//!
//! A sink that is slow slows the container down: its pipe fills. It must not buffer beyond one piece.

use neap_sdk::limits;
use std::io::{self, PipeReader};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

/// Which output a piece of text came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Takes what a container writes. Called from an async task: it must not block for long.
pub trait LogSink: Send + Sync {
    /// Some bytes, cut anywhere.
    fn write(&self, stream: Stream, bytes: &[u8]);
}

/// The tasks that read one container's output.
pub struct LogTasks(Vec<JoinHandle<()>>);

impl LogTasks {
    /// Reads both pipes until their writers are gone.
    pub fn start(
        runtime: &Handle,
        sink: &Arc<dyn LogSink>,
        pipes: [(Stream, PipeReader); 2],
    ) -> io::Result<Self> {
        let _context = runtime.enter();
        let start = |(stream, pipe): (Stream, PipeReader)| {
            let pipe = pipe::Receiver::from_owned_fd(OwnedFd::from(pipe))?;
            Ok(runtime.spawn(copy(pipe, stream, sink.clone())))
        };
        Ok(Self(pipes.into_iter().map(start).collect::<io::Result<_>>()?))
    }

    /// Waits until everything that an ended container wrote has reached the sink.
    pub async fn drained(self) {
        let all = async {
            for task in self.0 {
                let _ = task.await;
            }
        };
        let _ = tokio::time::timeout(Duration::from_millis(limits::CONTAINER_LOG_DRAIN_MS), all).await;
    }
}

async fn copy(mut pipe: pipe::Receiver, stream: Stream, sink: Arc<dyn LogSink>) {
    let mut buffer = vec![0; limits::CONTAINER_LOG_CHUNK_BYTES];
    while let Ok(count @ 1..) = pipe.read(&mut buffer).await {
        sink.write(stream, &buffer[..count]);
    }
}
