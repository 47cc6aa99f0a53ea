//! Core modules of WASI preview 1 as functions, in the style of CGI (RFC 3875): the request in the environment and
//! on stdin, the response on stdout, stderr to the log. Both bodies are streamed.
//!
//! What a module prints begins with a head (`Status:`, other header fields, an empty line) as CGI asks for. A
//! program that knows nothing of CGI is not turned away: output whose first line is no header field is a body,
//! sent as plain text with status 200.

mod environment;
mod head;

use crate::{
    call::{Body, Grants, Stream},
    error::InvokeError,
    host::{self, cli::LogStream},
};
use bytes::{Bytes, BytesMut};
use head::Parsed;
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt as _, Limited};
use neap_sdk::limits;
use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, ready},
};
use tokio::io::{AsyncRead, DuplexStream, ReadBuf};
use wasmtime_wasi::{
    WasiCtxBuilder,
    cli::{AsyncStdinStream, AsyncStdoutStream},
};
use wasmtime_wasi_http::{Error as HttpError, WasiBody};

/// Bytes that a guest is ahead of whoever reads its response.
const PIPE_BYTES: usize = 64 << 10;

/// The guest's stdout, and the response that will come out of it.
pub(crate) fn pipe() -> (DuplexStream, CgiHead) {
    let (pipe, output) = tokio::io::duplex(PIPE_BYTES);
    (output, CgiHead { pipe: Some(pipe), read: BytesMut::new() })
}

/// The guest's side of a request.
pub(crate) fn prepare(
    request: http::Request<Body>,
    grants: &Arc<Grants>,
    output: DuplexStream,
) -> WasiCtxBuilder {
    let (request, body) = request.into_parts();
    let mut wasi = host::basics();
    wasi.arg("function");
    wasi.envs(&environment::of(&request, &grants.env));
    wasi.stdin(AsyncStdinStream::new(BodyReader::new(body)));
    wasi.stdout(AsyncStdoutStream::new(PIPE_BYTES, output));
    wasi.stderr(LogStream::new(grants, Stream::Stderr));
    wasi
}

/// A request body as a guest's stdin.
struct BodyReader {
    /// Nobody else has it; the lock only makes it shareable in the eyes of the type system.
    body: Mutex<Limited<Body>>,
    rest: Bytes,
}

impl BodyReader {
    fn new(body: Body) -> Self {
        let most = usize::try_from(limits::CGI_REQUEST_BYTES_MAX).unwrap_or(usize::MAX);
        Self { body: Mutex::new(Limited::new(body, most)), rest: Bytes::new() }
    }
}

impl AsyncRead for BodyReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.rest.is_empty() {
            let body = self.body.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
            match ready!(Pin::new(body).poll_frame(cx)) {
                Some(Ok(frame)) => self.rest = frame.into_data().unwrap_or_default(),
                Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
                None => return Poll::Ready(Ok(())),
            }
        }
        let length = self.rest.len().min(out.remaining());
        out.put_slice(&self.rest.split_to(length));
        Poll::Ready(Ok(()))
    }
}

/// The response's head, as it comes out of the guest.
pub(crate) struct CgiHead {
    /// Gone once the head is complete.
    pipe: Option<DuplexStream>,
    read: BytesMut,
}

impl CgiHead {
    /// The head, if it is there; `None` if the guest ended without a byte.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http::Response<WasiBody>, InvokeError>>> {
        loop {
            let Some(pipe) = &mut self.pipe else { return Poll::Ready(None) };
            let piece = ready!(poll_piece(pipe, cx));
            if let Some(piece) = &piece {
                self.read.extend_from_slice(piece);
            }
            let response = match head::parse(&self.read, piece.is_none()) {
                Parsed::Incomplete if piece.is_none() => return Poll::Ready(None),
                Parsed::Incomplete if self.read.len() > limits::CGI_HEAD_BYTES_MAX => {
                    Err(format!("its head is longer than {} bytes", limits::CGI_HEAD_BYTES_MAX))
                }
                Parsed::Incomplete => continue,
                Parsed::Head { response, length } => {
                    drop(self.read.split_to(length));
                    Ok(response)
                }
                Parsed::Bad(reason) => Err(reason),
            };
            let body = CgiBody { first: self.read.split().freeze(), pipe: self.pipe.take(), sent: 0 };
            let response = response.map(|response| response.map(|()| body.boxed_unsync()));
            return Poll::Ready(Some(response.map_err(InvokeError::BadResponse)));
        }
    }
}

/// What a guest prints after the head.
struct CgiBody {
    first: Bytes,
    pipe: Option<DuplexStream>,
    sent: usize,
}

impl http_body::Body for CgiBody {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        let first = std::mem::take(&mut self.first);
        let piece = match &mut self.pipe {
            _ if !first.is_empty() => Some(first),
            Some(pipe) => ready!(poll_piece(pipe, cx)),
            None => None,
        };
        self.sent += piece.as_ref().map_or(0, Bytes::len);
        if self.sent > limits::CGI_RESPONSE_BYTES_MAX {
            // Without a reader the guest gets a broken pipe.
            self.pipe = None;
            return Poll::Ready(Some(Err(HttpError::HttpResponseBodySize(Some(self.sent as u64)))));
        }
        Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
    }
}

/// What stands in the pipe; `None` at its end. A pipe in memory has no other errors than its end.
fn poll_piece(pipe: &mut DuplexStream, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
    let mut space = [std::mem::MaybeUninit::uninit(); 16 << 10];
    let mut buffer = ReadBuf::uninit(&mut space);
    let ended = ready!(Pin::new(pipe).poll_read(cx, &mut buffer)).is_err() || buffer.filled().is_empty();
    Poll::Ready((!ended).then(|| Bytes::copy_from_slice(buffer.filled())))
}
