//! A small HTTP client for tests: one connection per request, whole bodies, any host name at the gateway's address.

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{HeaderMap, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use neap_sdk::{ErrorCode, Problem};
use std::{net::SocketAddr, time::Duration};

/// Longest wait for an answer; a hang fails the test instead of stopping it.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A response that was read to its end.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A header as text, empty when it is not there.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The problem document that the answer must be.
    pub fn problem(&self) -> Problem {
        assert_eq!(self.header("content-type"), Problem::MEDIA_TYPE, "{}", self.text());
        let problem: Problem = serde_json::from_slice(&self.body).expect("a problem document");
        assert_eq!(problem.status, self.status.as_u16(), "status of head and document");
        problem
    }

    /// Asserts the kind of failure.
    pub fn assert_problem(&self, code: ErrorCode) -> Problem {
        let problem = self.problem();
        assert_eq!(problem.code, code, "{problem:?}");
        problem
    }
}

/// A request to `path`, for the builder's further calls.
pub fn request(method: &str, path: &str) -> hyper::http::request::Builder {
    Request::builder().method(method).uri(path)
}

/// Sends a request to the gateway under the host name `host`.
pub fn send(
    gateway: SocketAddr,
    host: &str,
    request: hyper::http::request::Builder,
    body: impl Into<Bytes>,
) -> Result<Answer, String> {
    let request = request.header(header::HOST, host).body(Full::new(body.into())).expect("a request");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    runtime.block_on(async {
        let exchange = async {
            let stream = tokio::net::TcpStream::connect(gateway).await.map_err(|error| error.to_string())?;
            let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
            let (mut sender, connection) = handshake.map_err(|error| error.to_string())?;
            tokio::spawn(connection);
            let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
            let (head, body) = response.into_parts();
            let body = body.collect().await.map_err(|error| error.to_string())?.to_bytes();
            Ok(Answer { status: head.status, headers: head.headers, body })
        };
        tokio::time::timeout(TIMEOUT, exchange).await.unwrap_or_else(|_| Err("no answer in time".to_owned()))
    })
}

/// GET, which must be answered.
pub fn get(gateway: SocketAddr, host: &str, path: &str) -> Answer {
    send(gateway, host, request("GET", path), Bytes::new()).expect("an answer")
}

/// POST, which must be answered.
pub fn post(gateway: SocketAddr, host: &str, path: &str, body: impl Into<Bytes>) -> Answer {
    send(gateway, host, request("POST", path), body).expect("an answer")
}
