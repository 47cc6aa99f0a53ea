//! Leases: the right to use one slot of one instance, for exactly as long as it is used.
//!
//! A [`Slot`] gives itself back when dropped, wherever that happens: in a lease that nobody called, in a response body
//! that a client left, in a grant that reached nobody. Nothing here waits or decides.

use crate::{
    fleet::{Body, BoxError, CallError, InvocationCall},
    queue::{Grant, ReadyBy},
    target::Target,
};
use bytes::Bytes;
use http::{Request, Response};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt as _;
use neap_sdk::{InstanceId, id::RequestId};
use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::time::Instant;

/// How long a request waited before it had its lease.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Waited {
    /// For a free slot.
    pub queue: Duration,
    /// For an instance to start or thaw.
    pub start: Duration,
}

/// One slot of one instance; gives itself back when dropped.
pub(crate) struct Slot {
    /// `None` only once dissolved.
    target: Option<Arc<Target>>,
    instance: InstanceId,
}

impl Slot {
    /// Takes over a grant that the target's pool just made.
    pub fn new(target: Arc<Target>, grant: Grant) -> Self {
        Self { target: Some(target), instance: grant.instance }
    }

    /// Takes the slot apart without giving it back; the caller owes the release.
    pub fn dissolve(mut self) -> InstanceId {
        self.target = None;
        self.instance
    }

    fn target(&self) -> &Arc<Target> {
        self.target.as_ref().expect("only dissolve takes the target, and it consumes the slot")
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(target) = self.target.take() {
            target.release(self.instance);
        }
    }
}

/// The right to send one request to one instance. It frees itself: when dropped, or when the response that
/// [`Lease::call`] gave has ended or was dropped.
pub struct Lease {
    slot: Slot,
    cold: bool,
    waited: Waited,
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { slot, cold, waited } = self;
        let revision = &slot.target().revision;
        write!(f, "Lease({revision} on {}, cold: {cold}, waited: {waited:?})", slot.instance)
    }
}

impl Lease {
    /// A lease that did not wait.
    pub(crate) fn warm(slot: Slot) -> Self {
        Self { slot, cold: false, waited: Waited::default() }
    }

    /// A lease that waited since `since`; the part of the wait in which its instance became ready counts as start.
    pub(crate) fn waited_for(slot: Slot, grant: Grant, since: Instant, now: Instant) -> Self {
        let total = now.saturating_duration_since(since);
        let readiness = grant.readiness;
        let start = match readiness.at.checked_duration_since(since) {
            Some(until_ready) => until_ready.min(readiness.took),
            None => Duration::ZERO,
        };
        let cold = readiness.by == ReadyBy::Start && readiness.at >= since;
        Self { slot, cold, waited: Waited { queue: total.saturating_sub(start), start } }
    }

    /// Whether the request waited for a start.
    pub fn cold(&self) -> bool {
        self.cold
    }

    /// How long the request waited.
    pub fn waited(&self) -> Waited {
        self.waited
    }

    /// The instance that is leased.
    pub fn instance(&self) -> InstanceId {
        self.slot.instance
    }

    /// Sends the request to the instance. The lease lives on inside the response's body.
    ///
    /// # Errors
    /// What the instance failed with, as the client is told.
    ///
    /// # Cancellation
    /// Dropping the future, or the response's body, ends the work and frees the slot.
    pub async fn call(
        self,
        request: Request<Body>,
        request_id: RequestId,
    ) -> Result<Response<Body>, CallError> {
        let call = InvocationCall { request_id, cold: self.cold };
        let response = self.slot.target().fleet().call(self.slot.instance, request, call).await?;
        Ok(response.map(|body| LeasedBody { body, slot: Some(self.slot) }.boxed_unsync()))
    }
}

/// A response's body that holds its slot until it ends.
struct LeasedBody {
    body: Body,
    slot: Option<Slot>,
}

impl http_body::Body for LeasedBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if !matches!(frame, Some(Ok(_))) {
            self.slot = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
