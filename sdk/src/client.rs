//! The admin API client: one HTTP/1.1 connection per call, over the server's Unix socket or over loopback with
//! a token. It decides nothing; failures come back as the server's problem document or as what kept it from
//! being reached.

use crate::{
    Problem,
    admission::Verdict,
    api::{
        DeployRequest, FunctionUsage, FunctionView, KeyView, RollbackRequest, ServerView, TrafficShare,
        TrustKeyRequest, VerifyRequest,
    },
    error::ErrorCode,
    id::{FunctionName, TenantName},
    limits,
};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use std::{io, net::SocketAddr, path::PathBuf};
use tokio::net::{TcpStream, UnixStream};

/// Where the admin API answers.
#[derive(Debug, Clone)]
pub enum Endpoint {
    /// The server's socket in its data folder; who may open the file may do everything.
    Unix(PathBuf),
    /// Loopback, with the token that lies in the data folder.
    Tcp {
        /// The gateway's address.
        address: SocketAddr,
        /// The bearer token.
        token: String,
    },
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "{}", path.display()),
            Self::Tcp { address, .. } => write!(f, "http://{address}"),
        }
    }
}

/// Why a call did not give an answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No server answers there.
    #[error("no neap server answers at {endpoint}")]
    Unreachable {
        /// Where it was looked for.
        endpoint: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The connection broke; the outcome is unknown.
    #[error("the connection to the neap server broke, so the outcome is unknown")]
    Broken(#[source] hyper::Error),
    /// The server refused or failed.
    #[error(transparent)]
    Problem(Box<Problem>),
    /// The answer is not one of this API; perhaps another program listens there.
    #[error("the server's answer is not one of neap's admin API: {0}")]
    Foreign(String),
}

impl ClientError {
    /// The exit code that the CLI ends with.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Unreachable { .. } | Self::Broken(_) => crate::error::exit::UNREACHABLE,
            Self::Problem(problem) => problem.code.exit_code(),
            Self::Foreign(_) => crate::error::exit::FAILED,
        }
    }
}

/// Calls one server for one tenant.
#[derive(Debug, Clone)]
pub struct Client {
    endpoint: Endpoint,
    tenant: TenantName,
}

/// Most bytes of an answer that is not a stream.
const ANSWER_BYTES_MAX: usize = 64 << 20;

impl Client {
    /// A client for `tenant` at `endpoint`; nothing is connected yet.
    pub fn new(endpoint: Endpoint, tenant: TenantName) -> Self {
        Self { endpoint, tenant }
    }

    /// The tenant it speaks for.
    pub fn tenant(&self) -> &TenantName {
        &self.tenant
    }

    /// Deploys; returns once the new revision is ready, or the kept one when nothing changed.
    pub async fn deploy(
        &self,
        name: &FunctionName,
        order: &DeployRequest,
    ) -> Result<FunctionView, ClientError> {
        self.json(Method::POST, &format!("functions/{name}/deploy"), Some(order)).await
    }

    /// All functions of the tenant.
    pub async fn functions(&self) -> Result<Vec<FunctionView>, ClientError> {
        self.json(Method::GET, "functions", None::<&()>).await
    }

    /// One function.
    pub async fn function(&self, name: &FunctionName) -> Result<FunctionView, ClientError> {
        self.json(Method::GET, &format!("functions/{name}"), None::<&()>).await
    }

    /// Removes a function; its usage stays.
    pub async fn delete(&self, name: &FunctionName) -> Result<(), ClientError> {
        self.send(Method::DELETE, &format!("functions/{name}"), None::<&()>).await.map(drop)
    }

    /// Sends all traffic to an older revision.
    pub async fn rollback(
        &self,
        name: &FunctionName,
        revision: Option<u32>,
    ) -> Result<FunctionView, ClientError> {
        self.json(Method::POST, &format!("functions/{name}/rollback"), Some(&RollbackRequest { revision }))
            .await
    }

    /// Splits traffic.
    pub async fn traffic(
        &self,
        name: &FunctionName,
        shares: &[TrafficShare],
    ) -> Result<FunctionView, ClientError> {
        self.json(Method::PUT, &format!("functions/{name}/traffic"), Some(shares)).await
    }

    /// Sums of usage, of one function or of all.
    pub async fn usage(
        &self,
        function: Option<&FunctionName>,
        since_ms: Option<u64>,
    ) -> Result<Vec<FunctionUsage>, ClientError> {
        let path = format!("usage?{}", filter(function, since_ms));
        self.json(Method::GET, &path, None::<&()>).await
    }

    /// Single usage records as lines of JSON.
    pub async fn usage_records(
        &self,
        function: Option<&FunctionName>,
        since_ms: Option<u64>,
    ) -> Result<Lines, ClientError> {
        let path = format!("usage/records?{}", filter(function, since_ms));
        Ok(Lines::new(self.send(Method::GET, &path, None::<&()>).await?))
    }

    /// Log lines as lines of JSON; with `follow` the stream does not end by itself.
    pub async fn logs(
        &self,
        name: &FunctionName,
        since_ms: Option<u64>,
        follow: bool,
    ) -> Result<Lines, ClientError> {
        let path = format!("functions/{name}/logs?follow={follow}&{}", filter(None, since_ms));
        Ok(Lines::new(self.send(Method::GET, &path, None::<&()>).await?))
    }

    /// The verdict on an artifact in the server's registry.
    pub async fn verify(&self, request: &VerifyRequest) -> Result<Verdict, ClientError> {
        self.json(Method::POST, "verify", Some(request)).await
    }

    /// Trusted keys.
    pub async fn keys(&self) -> Result<Vec<KeyView>, ClientError> {
        self.json(Method::GET, "keys", None::<&()>).await
    }

    /// Trusts a public key.
    pub async fn trust_key(&self, request: &TrustKeyRequest) -> Result<KeyView, ClientError> {
        self.json(Method::POST, "keys", Some(request)).await
    }

    /// Trusts a key no longer; what was admitted stays admitted.
    pub async fn revoke_key(&self, key_id: &str) -> Result<(), ClientError> {
        self.send(Method::DELETE, &format!("keys/{key_id}"), None::<&()>).await.map(drop)
    }

    /// What the server is and can do.
    pub async fn server(&self) -> Result<ServerView, ClientError> {
        self.json(Method::GET, "server", None::<&()>).await
    }

    async fn json<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&(impl Serialize + ?Sized)>,
    ) -> Result<T, ClientError> {
        let bytes = read_all(self.send(method, path, body).await?).await?;
        serde_json::from_slice(&bytes).map_err(|error| ClientError::Foreign(error.to_string()))
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&(impl Serialize + ?Sized)>,
    ) -> Result<Response<Incoming>, ClientError> {
        let request = self.request(method, path, body)?;
        let response = match &self.endpoint {
            Endpoint::Unix(socket) => exchange(UnixStream::connect(socket).await, request).await,
            Endpoint::Tcp { address, .. } => exchange(TcpStream::connect(address).await, request).await,
        };
        let response = response.map_err(|error| match error {
            ExchangeError::Connect(source) => {
                ClientError::Unreachable { endpoint: self.endpoint.to_string(), source }
            }
            ExchangeError::Http(source) => ClientError::Broken(source),
        })?;
        if response.status().is_success() { Ok(response) } else { Err(problem_of(response).await) }
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<&(impl Serialize + ?Sized)>,
    ) -> Result<Request<Full<Bytes>>, ClientError> {
        let separator = if path.contains('?') { '&' } else { '?' };
        let mut request = Request::builder()
            .method(method)
            .uri(format!("/api/v1/{path}{separator}tenant={}", self.tenant))
            .header(header::HOST, "localhost")
            .header(header::USER_AGENT, concat!("neap/", env!("CARGO_PKG_VERSION")));
        if let Endpoint::Tcp { token, .. } = &self.endpoint {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let bytes = match body {
            None => Bytes::new(),
            Some(body) => {
                request = request.header(header::CONTENT_TYPE, "application/json");
                serde_json::to_vec(body).map_err(|error| ClientError::Foreign(error.to_string()))?.into()
            }
        };
        request.body(Full::new(bytes)).map_err(|error| ClientError::Foreign(error.to_string()))
    }
}

fn filter(function: Option<&FunctionName>, since_ms: Option<u64>) -> String {
    let function = function.map(|name| format!("function={name}"));
    let since = since_ms.map(|since_ms| format!("since_ms={since_ms}"));
    function.into_iter().chain(since).collect::<Vec<_>>().join("&")
}

enum ExchangeError {
    Connect(io::Error),
    Http(hyper::Error),
}

async fn exchange<S>(
    stream: io::Result<S>,
    request: Request<Full<Bytes>>,
) -> Result<Response<Incoming>, ExchangeError>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let stream = TokioIo::new(stream.map_err(ExchangeError::Connect)?);
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(stream).await.map_err(ExchangeError::Http)?;
    // Ends when the response body has been read or dropped.
    tokio::spawn(connection);
    sender.send_request(request).await.map_err(ExchangeError::Http)
}

async fn read_all(response: Response<Incoming>) -> Result<Bytes, ClientError> {
    match Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) => Err(ClientError::Foreign(error.to_string())),
    }
}

async fn problem_of(response: Response<Incoming>) -> ClientError {
    let status = response.status();
    let body = match read_all(response).await {
        Ok(body) => body,
        Err(error) => return error,
    };
    if let Ok(problem) = serde_json::from_slice::<Problem>(&body) {
        return ClientError::Problem(Box::new(problem));
    }
    let text: String = String::from_utf8_lossy(&body).chars().take(200).collect();
    if status == StatusCode::UNAUTHORIZED {
        return ClientError::Problem(Box::new(Problem::new(ErrorCode::Unauthorized, text)));
    }
    ClientError::Foreign(format!("status {status}: {text}"))
}

/// A stream of text lines.
pub struct Lines {
    body: Incoming,
    buffer: Vec<u8>,
    ended: bool,
}

impl Lines {
    fn new(response: Response<Incoming>) -> Self {
        Self { body: response.into_body(), buffer: Vec::new(), ended: false }
    }

    /// The next line without its end, or `None` at the end. Safe to cancel: nothing read is lost.
    pub async fn next(&mut self) -> Result<Option<String>, ClientError> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Ok(Some(String::from_utf8_lossy(&line[..end]).into_owned()));
            }
            if self.ended {
                let rest = std::mem::take(&mut self.buffer);
                return Ok((!rest.is_empty()).then(|| String::from_utf8_lossy(&rest).into_owned()));
            }
            if self.buffer.len() > limits::ADMIN_BODY_BYTES_MAX {
                return Err(ClientError::Foreign("a line has no end".to_owned()));
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        self.buffer.extend_from_slice(data);
                    }
                }
                Some(Err(error)) => return Err(ClientError::Broken(error)),
                None => self.ended = true,
            }
        }
    }
}
