//! What is noted of one request while it is answered, and the answer's body that carries the notes to its end.
//! However a request ends (answered, refused, broken off, left by its client), it is counted and logged once:
//! when the [`Exchange`] is dropped.
//!
//! Headers, queries and bodies are never logged; they may hold secrets.

use crate::{
    Body, BoxError, connection::Connection, forward, limit::BodyMeter, metrics::FunctionMetrics,
    reply::Refusal, request::Core,
};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Version};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use neap_scheduler::Waited;
use neap_sdk::id::RequestId;
use std::{
    fmt::Write,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
/// The status, in logs and counts, of a request whose client left before there was an answer (nginx's word).
const CLIENT_LEFT: u16 = 499;

/// Where a function's answer took its time.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Timing {
    /// Before the work began.
    pub(crate) waited: Waited,
    /// From the beginning of the work to the answer's head.
    pub(crate) run: Duration,
    /// Whether the request waited for a start.
    pub(crate) cold: bool,
}

/// One request and its answer.
pub(crate) struct Exchange {
    core: Rc<Core>,
    connection: Rc<Connection>,
    id: RequestId,
    began: Instant,
    counted_as: Rc<FunctionMetrics>,
    timing: Option<Timing>,
    meter: Option<Arc<BodyMeter>>,
    status: u16,
    bytes_out: u64,
    logged: Option<(Method, Box<str>)>,
}

impl Exchange {
    /// A request whose head has come.
    pub(crate) fn begin(core: &Rc<Core>, connection: &Rc<Connection>, request: &Request<Incoming>) -> Self {
        connection.on_request(!request.body().is_end_stream());
        core.on_request();
        let logged = || (request.method().clone(), request.uri().path().into());
        Self {
            core: Rc::clone(core),
            connection: Rc::clone(connection),
            id: core.random().request_id(request.headers()),
            began: Instant::now(),
            counted_as: Rc::clone(&core.metrics().unrouted),
            timing: None,
            meter: None,
            status: CLIENT_LEFT,
            bytes_out: 0,
            logged: core.settings().access_log.then(logged),
        }
    }

    /// The request's id.
    pub(crate) fn id(&self) -> &RequestId {
        &self.id
    }

    /// The request's id as a header's value.
    pub(crate) fn id_value(&self) -> HeaderValue {
        HeaderValue::from_str(self.id.as_str()).expect("request ids are visible ASCII")
    }

    /// Whose request it is.
    pub(crate) fn count_as(&mut self, function: Rc<FunctionMetrics>) {
        self.counted_as = function;
    }

    /// Where its time went.
    pub(crate) fn time(&mut self, timing: Timing) {
        self.timing = Some(timing);
    }

    /// Its body.
    pub(crate) fn meter(&mut self, meter: Option<Arc<BodyMeter>>) {
        self.meter = meter;
    }

    /// Answers with what a function, or the control plane, gave.
    pub(crate) fn reply(self, response: Response<Body>) -> Response<ReplyBody> {
        self.finish(response, Content::Stream)
    }

    /// Answers with a problem document.
    pub(crate) fn refuse(self, refusal: Refusal) -> Response<ReplyBody> {
        let response = refusal.into_response(&self.id);
        self.finish(response, |bytes| Content::Whole(Some(bytes)))
    }

    fn finish<B>(mut self, response: Response<B>, content: impl FnOnce(B) -> Content) -> Response<ReplyBody> {
        let (mut head, body) = response.into_parts();
        // A container may speak an older one; what this connection speaks is hyper's to say.
        head.version = Version::HTTP_11;
        forward::response(&mut head.headers, self.id_value());
        if let Some(timing) = self.timing {
            append_timing(&mut head.headers, timing);
        }
        self.status = head.status.as_u16();
        Response::from_parts(head, ReplyBody { content: content(body), exchange: self })
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let now = Instant::now();
        let took = now - self.began;
        self.connection.on_answered(now);
        if self.meter.as_ref().is_some_and(|meter| meter.is_read()) {
            self.connection.on_body_read();
        }
        self.core.on_answered();
        self.counted_as.ended(self.status, took);
        let Some((method, path)) = &self.logged else { return };
        let Timing { waited, run, cold } = self.timing.unwrap_or_default();
        tracing::info!(
            target: "access",
            request_id = self.id.as_str(),
            function = self.counted_as.label(),
            %method,
            path = &**path,
            status = self.status,
            queue_us = waited.queue.as_micros() as u64,
            start_us = waited.start.as_micros() as u64,
            run_us = run.as_micros() as u64,
            total_us = took.as_micros() as u64,
            bytes_in = self.meter.as_ref().map_or(0, |meter| meter.bytes()),
            bytes_out = self.bytes_out,
            cold,
        );
    }
}

/// Adds to what the function itself may have said of its time.
fn append_timing(headers: &mut HeaderMap, timing: Timing) {
    let mut text = String::with_capacity(64);
    let parts = [("queue", timing.waited.queue), ("start", timing.waited.start), ("run", timing.run)];
    for (name, duration) in parts {
        let separator = if text.is_empty() { "" } else { ", " };
        let us = duration.as_micros();
        write!(text, "{separator}{name};dur={}.{:03}", us / 1_000, us % 1_000).expect("a String takes all");
    }
    headers.append(SERVER_TIMING, HeaderValue::try_from(text).expect("digits and words are a header value"));
}

/// An answer's body, on its way to the client.
pub(crate) struct ReplyBody {
    content: Content,
    exchange: Exchange,
}

enum Content {
    Whole(Option<Bytes>),
    Stream(Body),
}

impl HttpBody for ReplyBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Self { content, exchange } = &mut *self;
        let poll = match content {
            Content::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Content::Stream(body) => {
                let poll = Pin::new(body).poll_frame(cx);
                // An answer to half a request must not look complete.
                if let Some(meter) = exchange.meter.as_ref().filter(|meter| !meter.is_read()) {
                    meter.poll_cut(cx)?;
                }
                poll
            }
        };
        if let Poll::Ready(Some(Ok(frame))) = &poll {
            exchange.bytes_out += frame.data_ref().map_or(0, |data| data.len() as u64);
        }
        poll
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Whole(bytes) => bytes.is_none(),
            Content::Stream(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Whole(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Content::Stream(body) => body.size_hint(),
        }
    }
}
