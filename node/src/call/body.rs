//! The bodies of a call: the request's is counted on its way in; the response's is counted, timed, cut off when
//! its instance ends, and makes sure that the record is written before its last frame leaves.

use super::CallError;
use crate::{Body, BoxError, meter::recorder::Recorder, runtime::CallMeter};
use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::{BodyExt as _, Empty};
use std::{
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
};
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::sync::WaitForCancellationFutureOwned;

/// A request body that counts what the function reads of it.
pub(crate) struct CountedBody {
    inner: Body,
    meter: Arc<CallMeter>,
}

impl CountedBody {
    /// Wraps a body; an empty one needs no counting.
    pub(crate) fn wrap(inner: Body, meter: &Arc<CallMeter>) -> Body {
        if inner.is_end_stream() {
            return inner;
        }
        Self { inner, meter: meter.clone() }.boxed_unsync()
    }
}

impl http_body::Body for CountedBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(data) = frame.data_ref()
        {
            self.meter.bytes_in.fetch_add(data.len() as u64, Ordering::Relaxed);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// A response body with its invocation. Dropping it ends the work and writes the record.
pub(crate) struct MeteredBody {
    inner: Body,
    recorder: Recorder,
    deadline: Instant,
    timeout_ms: u64,
    /// What `Content-Length` promised: an HTTP/1 server does not ask for more after that.
    length: Option<u64>,
    /// Made when the function is first waited for; most bodies are there at once.
    waits: Option<Waits>,
}

struct Waits {
    deadline: Pin<Box<Sleep>>,
    ended: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl MeteredBody {
    pub(crate) fn new(
        inner: Body,
        recorder: Recorder,
        deadline: Instant,
        timeout_ms: u64,
        length: Option<u64>,
    ) -> Self {
        Self { inner, recorder, deadline, timeout_ms, length, waits: None }
    }

    /// Whether nothing follows what has been handed on.
    fn is_last(&self, frame: &Frame<Bytes>) -> bool {
        frame.is_trailers()
            || self.inner.is_end_stream()
            || self.length.is_some_and(|length| self.recorder.bytes_out >= length)
    }

    fn cut_off(&mut self, error: CallError) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        // Drops the function's body, which ends its work.
        self.inner = Empty::new().map_err(|never| match never {}).boxed_unsync();
        self.recorder.finish();
        Poll::Ready(Some(Err(error.into())))
    }

    /// Why the work must end now, if it must.
    fn poll_waits(&mut self, cx: &mut Context<'_>) -> Poll<CallError> {
        let (deadline, cell) = (self.deadline, self.recorder.cell());
        let waits = self.waits.get_or_insert_with(|| Waits {
            deadline: Box::pin(sleep_until(deadline)),
            ended: Box::pin(cell.ended.clone().cancelled_owned()),
        });
        if waits.ended.as_mut().poll(cx).is_ready() {
            return Poll::Ready(CallError::Failed(cell.end_reason().to_string()));
        }
        waits.deadline.as_mut().poll(cx).map(|()| CallError::Timeout { timeout_ms: self.timeout_ms })
    }
}

impl http_body::Body for MeteredBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if Instant::now() >= self.deadline && !self.inner.is_end_stream() {
            let timeout_ms = self.timeout_ms;
            return self.cut_off(CallError::Timeout { timeout_ms });
        }
        match Pin::new(&mut self.inner).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                self.recorder.bytes_out += frame.data_ref().map_or(0, |data| data.len() as u64);
                if self.is_last(&frame) {
                    self.recorder.finish();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(end) => {
                self.recorder.finish();
                Poll::Ready(end)
            }
            Poll::Pending => match self.poll_waits(cx) {
                Poll::Ready(error) => self.cut_off(error),
                Poll::Pending => Poll::Pending,
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
