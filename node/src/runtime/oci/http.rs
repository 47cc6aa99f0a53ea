//! HTTP/1.1 to one container: a connection per call in flight, kept alive and used again, newest first.
//!
//! - Bodies stream both ways. Dropping the call or the response body closes the connection, which is how the
//!   container learns of it.
//! - Hop-by-hop headers (RFC 9110, 7.6.1) are taken off both ways; `X-Forwarded-*` stay as the gateway gave them.
//! - A kept connection may turn out to be closed. A request that was not written is sent again on a new one;
//!   one that was written is only if it is safe (RFC 9110, 9.2.1) and has no body, and only once.
//! - Each connection is driven on the core that opened it, and only used from there.
//!
//! Must not know containers: it is given a way to connect.

use crate::{Body, BoxError, CallError};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{
    HeaderMap, HeaderName, HeaderValue, Request, Response, Uri, Version,
    header::{self, CONNECTION, HOST},
    uri::PathAndQuery,
};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::{BodyExt as _, Empty};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use neap_sdk::limits;
use std::{
    io, mem,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    thread::{self, ThreadId},
};
use tokio::net::TcpStream;

type Sender = http1::SendRequest<Body>;

/// Opens a connection to the container's port.
pub(super) type Connect = Arc<dyn Fn() -> BoxFuture<'static, io::Result<TcpStream>> + Send + Sync>;

/// Headers that concern one connection only, besides those that `Connection` names. `Expect` is answered by the
/// gateway's own server.
const HOP_BY_HOP: [HeaderName; 9] = [
    CONNECTION,
    header::EXPECT,
    HeaderName::from_static("keep-alive"),
    header::PROXY_AUTHORIZATION,
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// A client of one container.
#[derive(Clone)]
pub(super) struct HttpClient {
    connect: Connect,
    idle: Arc<Idle>,
}

/// Connections that nobody uses, the newest last, each with the core that drives it.
#[derive(Default)]
struct Idle(Mutex<Vec<(ThreadId, Sender)>>);

impl Idle {
    fn lock(&self) -> MutexGuard<'_, Vec<(ThreadId, Sender)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Option<Sender> {
        let here = thread::current().id();
        let mut idle = self.lock();
        idle.retain(|(_, sender)| !sender.is_closed());
        let newest = idle.iter().rposition(|(thread, sender)| *thread == here && sender.is_ready())?;
        Some(idle.remove(newest).1)
    }

    fn put(&self, sender: Sender) {
        let mut idle = self.lock();
        if sender.is_closed() {
            return;
        }
        if idle.len() >= limits::CONTAINER_CONNECTIONS_IDLE_MAX {
            idle.remove(0);
        }
        idle.push((thread::current().id(), sender));
    }
}

impl HttpClient {
    pub(super) fn new(connect: Connect) -> Self {
        Self { connect, idle: Arc::default() }
    }

    /// Closes the connections that nobody uses.
    pub(super) fn close_idle(&self) {
        let idle = mem::take(&mut *self.idle.lock());
        drop(idle);
    }

    #[cfg(test)]
    pub(super) fn idle_connections(&self) -> usize {
        self.idle.lock().len()
    }

    /// Sends a request and waits for the response's head.
    pub(super) async fn call(&self, request: Request<Body>) -> Result<Response<Body>, CallError> {
        let request = for_container(request)?;
        let Some(mut sender) = self.idle.take() else { return self.call_anew(request).await };
        let again = repeatable(&request);
        match sender.try_send_request(request).await {
            Ok(response) => Ok(self.received(response, sender)),
            Err(mut error) => match (error.take_message(), again) {
                (Some(unsent), _) => self.call_anew(unsent).await,
                (None, Some(again)) if broke_at_once(error.error()) => self.call_anew(again).await,
                (None, _) => Err(failed(error.error())),
            },
        }
    }

    async fn call_anew(&self, request: Request<Body>) -> Result<Response<Body>, CallError> {
        let stream = (self.connect)().await;
        let stream = stream.map_err(|error| CallError::Failed(format!("it takes no connection: {error}")))?;
        // A small answer must not wait for the acknowledgement of the one before.
        let _ = stream.set_nodelay(true);
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|e| failed(&e))?;
        // Ends when the sender and the response are gone, or the container closes; its error reaches the call.
        tokio::spawn(async move {
            let _ = connection.await;
        });
        let response = sender.send_request(request).await.map_err(|error| failed(&error))?;
        Ok(self.received(response, sender))
    }

    fn received(&self, response: Response<Incoming>, sender: Sender) -> Response<Body> {
        let mut response = response.map(|inner| {
            let mut body = KeptBody { inner, sender: Some(sender), idle: self.idle.clone() };
            body.release_at_end();
            body.boxed_unsync()
        });
        strip_hop_by_hop(response.headers_mut());
        response
    }
}

/// Whether a kept connection was closed before it gave any of the answer.
fn broke_at_once(error: &hyper::Error) -> bool {
    error.is_incomplete_message() || error.is_canceled() || error.is_closed()
}

fn failed(error: &hyper::Error) -> CallError {
    let causes = std::iter::successors(std::error::Error::source(error), |cause| cause.source());
    CallError::Failed(causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}")))
}

/// The same request once more, if it may be sent twice.
fn repeatable(request: &Request<Body>) -> Option<Request<Body>> {
    if !request.method().is_safe() || !request.body().is_end_stream() {
        return None;
    }
    let mut again = Request::new(Empty::new().map_err(|never| match never {}).boxed_unsync());
    *again.method_mut() = request.method().clone();
    *again.uri_mut() = request.uri().clone();
    *again.headers_mut() = request.headers().clone();
    Some(again)
}

/// The request as it goes to an origin server over HTTP/1.1: path only, with a `Host`.
fn for_container(mut request: Request<Body>) -> Result<Request<Body>, CallError> {
    let uri = mem::take(request.uri_mut());
    if !request.headers().contains_key(HOST) {
        let host = uri.authority().map_or("localhost", |authority| authority.as_str());
        let host =
            HeaderValue::from_str(host).map_err(|_| CallError::BadRequest("its host is not valid".into()))?;
        request.headers_mut().insert(HOST, host);
    }
    let path = uri.into_parts().path_and_query.unwrap_or_else(|| PathAndQuery::from_static("/"));
    *request.uri_mut() = Uri::from(path);
    *request.version_mut() = Version::HTTP_11;
    strip_hop_by_hop(request.headers_mut());
    Ok(request)
}

fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

/// A response body that gives its connection back when it has ended, and closes it when it is dropped earlier.
struct KeptBody {
    inner: Incoming,
    sender: Option<Sender>,
    idle: Arc<Idle>,
}

impl KeptBody {
    fn release_at_end(&mut self) {
        if self.inner.is_end_stream()
            && let Some(sender) = self.sender.take()
        {
            self.idle.put(sender);
        }
    }
}

impl http_body::Body for KeptBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        self.release_at_end();
        match polled {
            Poll::Ready(None) => {
                if let Some(sender) = self.sender.take() {
                    self.idle.put(sender);
                }
                Poll::Ready(None)
            }
            other => other.map_err(|error| failed(&error).into()),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
