//! `wasi:cli`: the environment, and standard streams that lead to the function's log. Nothing of the server's own
//! environment or streams is ever passed on.

use crate::call::{Grants, Stream};
use bytes::Bytes;
use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};
use tokio::io::AsyncWrite;
use wasmtime_wasi::{
    WasiCtxBuilder,
    cli::{IsTerminal, StdoutStream},
    p2::{OutputStream, Pollable, StreamError, StreamResult},
};

/// Most bytes of one write to the log; the guest splits longer ones itself.
const WRITE_BYTES_MAX: usize = 64 << 10;

/// Gives a component the function's environment and its log.
pub(crate) fn grant(wasi: &mut WasiCtxBuilder, grants: &Arc<Grants>) {
    wasi.envs(&grants.env);
    wasi.stdout(LogStream::new(grants, Stream::Stdout)).stderr(LogStream::new(grants, Stream::Stderr));
}

/// A standard stream that ends in the log.
#[derive(Clone)]
pub(crate) struct LogStream {
    grants: Arc<Grants>,
    stream: Stream,
}

impl LogStream {
    pub(crate) fn new(grants: &Arc<Grants>, stream: Stream) -> Self {
        Self { grants: grants.clone(), stream }
    }
}

impl IsTerminal for LogStream {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for LogStream {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

/// For guests of 0.2 and of preview 1.
impl OutputStream for LogStream {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        if bytes.len() > WRITE_BYTES_MAX {
            return Err(StreamError::trap("a write to the log is longer than was allowed"));
        }
        self.grants.logs.write(self.stream, &bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(WRITE_BYTES_MAX)
    }
}

impl Pollable for LogStream {
    fn ready<'a, 'b>(&'a mut self) -> Pin<Box<dyn Future<Output = ()> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(async {})
    }
}

/// For guests of 0.3.
impl AsyncWrite for LogStream {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let bytes = &bytes[..bytes.len().min(WRITE_BYTES_MAX)];
        self.grants.logs.write(self.stream, bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
