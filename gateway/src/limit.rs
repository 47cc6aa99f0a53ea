//! Request bodies: counted while they stream, cut at the limit. Buffers nothing.

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
};

use crate::{Body, BoxError};

/// The request body was larger than the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the request body is larger than {bytes_max} bytes")]
pub(crate) struct TooLarge {
    /// The limit.
    pub(crate) bytes_max: u64,
}

/// What is known of a request body, to the body itself and to the one who waits for the answer. The two may run
/// on different threads where a runtime moves the body to one of its own.
#[derive(Debug)]
pub(crate) struct BodyMeter {
    bytes: AtomicU64,
    bytes_max: u64,
    is_cut: AtomicBool,
    is_read: AtomicBool,
    waiter: AtomicWaker,
}

impl BodyMeter {
    /// Bytes that have come.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    /// Whether the function has read it to its end.
    pub(crate) fn is_read(&self) -> bool {
        self.is_read.load(Relaxed)
    }

    /// Whether the body was cut. Wakes the caller's task when that happens later.
    pub(crate) fn poll_cut(&self, cx: &Context<'_>) -> Result<(), TooLarge> {
        self.waiter.register(cx.waker());
        match self.is_cut.load(Relaxed) {
            true => Err(TooLarge { bytes_max: self.bytes_max }),
            false => Ok(()),
        }
    }
}

/// The body of a request that has none. Allocates nothing.
pub(crate) fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// Makes the body that goes down to the function, and its meter; an empty body needs none.
///
/// # Errors
/// The client said beforehand that the body is too large.
pub(crate) fn admit(incoming: Incoming, bytes_max: u64) -> Result<(Body, Option<Arc<BodyMeter>>), TooLarge> {
    if incoming.is_end_stream() {
        return Ok((empty(), None));
    }
    if incoming.size_hint().lower() > bytes_max {
        return Err(TooLarge { bytes_max });
    }
    let meter = Arc::new(BodyMeter {
        bytes: AtomicU64::new(0),
        bytes_max,
        is_cut: AtomicBool::new(false),
        is_read: AtomicBool::new(false),
        waiter: AtomicWaker::new(),
    });
    let body = Metered { inner: incoming, meter: Arc::clone(&meter) };
    Ok((body.boxed_unsync(), Some(meter)))
}

/// Runs `call` to its end, or until the request body was cut.
///
/// # Errors
/// The body was cut; what the call did with half of a request is of no interest.
pub(crate) async fn unless_cut<F: Future>(meter: Option<&BodyMeter>, call: F) -> Result<F::Output, TooLarge> {
    let Some(meter) = meter else { return Ok(call.await) };
    let mut call = pin!(call);
    poll_fn(|cx| {
        let poll = call.as_mut().poll(cx);
        match meter.poll_cut(cx) {
            Ok(()) => poll.map(Ok),
            Err(too_large) => Poll::Ready(Err(too_large)),
        }
    })
    .await
}

struct Metered<B> {
    inner: B,
    meter: Arc<BodyMeter>,
}

impl<B> HttpBody for Metered<B>
where
    B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Unpin,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let poll = Pin::new(&mut self.inner).poll_frame(cx).map_err(Into::into);
        let meter = &self.meter;
        let length = match &poll {
            Poll::Ready(Some(Ok(frame))) => frame.data_ref().map_or(0, |data| data.len() as u64),
            Poll::Ready(Some(Err(_))) | Poll::Pending => return poll,
            Poll::Ready(None) => 0,
        };
        if matches!(poll, Poll::Ready(None)) || self.inner.is_end_stream() {
            meter.is_read.store(true, Relaxed);
        }
        // One writer: this body. A plain load and store, without a locked instruction, is enough.
        let bytes = meter.bytes.load(Relaxed) + length;
        meter.bytes.store(bytes, Relaxed);
        if bytes <= meter.bytes_max {
            return poll;
        }
        meter.is_cut.store(true, Relaxed);
        meter.waiter.wake();
        Poll::Ready(Some(Err(TooLarge { bytes_max: meter.bytes_max }.into())))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
