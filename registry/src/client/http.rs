//! One request of the client: with credentials where the registry asks for them, redirects followed with care, and
//! every wait and every answer bounded.

use super::{ClientError, RegistryClient, TransferProgress};
use bytes::{Bytes, BytesMut};
use futures_util::TryStreamExt as _;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use neap_sdk::limits;
use reqwest::{Body, Response, Url};
use serde::Deserialize;
use std::{io, ops::Range, path::PathBuf, time::Duration};
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};

/// What a request carries. It can be sent again after a challenge or a redirect.
#[derive(Debug, Clone)]
pub(super) enum Payload {
    Bytes(Bytes),
    /// A part of a file.
    File(PathBuf, Range<u64>),
}

impl Payload {
    fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File(_, range) => range.end - range.start,
        }
    }
}

/// A request that is not sent yet.
#[derive(Debug, Clone)]
pub(super) struct Call {
    method: Method,
    url: Url,
    headers: HeaderMap,
    payload: Payload,
    progress: Option<TransferProgress>,
}

impl Call {
    pub(super) fn new(method: Method, url: Url) -> Self {
        let payload = Payload::Bytes(Bytes::new());
        Self { method, url, headers: HeaderMap::new(), payload, progress: None }
    }

    pub(super) fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    pub(super) fn payload(mut self, payload: Payload) -> Self {
        self.payload = payload;
        self
    }

    pub(super) fn progress(mut self, progress: TransferProgress) -> Self {
        self.progress = Some(progress);
        self
    }
}

impl RegistryClient {
    /// Sends a request; where the registry wants credentials for `scope`, gets them and sends it once more.
    pub(super) async fn send(&self, call: Call, scope: &str) -> Result<Response, ClientError> {
        let known = self.authorization(scope);
        let response = self.follow(&call, known.as_ref()).await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return Ok(response);
        }
        let authorization = self.authenticate(response.headers(), scope).await?;
        self.remember(scope, authorization.clone());
        let response = self.follow(&call, Some(&authorization)).await?;
        match response.status() {
            StatusCode::UNAUTHORIZED => Err(ClientError::Unauthorized(self.host.name())),
            _ => Ok(response),
        }
    }

    /// Sends a request and follows redirects: reads anywhere that is allowed, writes only where the answer keeps the
    /// method. Only the registry itself sees `authorization`.
    async fn follow(
        &self,
        call: &Call,
        authorization: Option<&HeaderValue>,
    ) -> Result<Response, ClientError> {
        let mut call = call.clone();
        for _ in 0..=limits::REGISTRY_REDIRECTS_MAX {
            let authorization = authorization.filter(|_| self.host.is(&call.url));
            let response = self.send_once(&call, authorization).await?;
            let reading = call.method == Method::GET || call.method == Method::HEAD;
            let redirected = match response.status().as_u16() {
                301..=303 => reading,
                307 | 308 => true,
                _ => false,
            };
            if !redirected {
                return Ok(response);
            }
            call.url = self.location(&call.url, response.headers())?;
        }
        Err(ClientError::Protocol(format!("more than {} redirects", limits::REGISTRY_REDIRECTS_MAX)))
    }

    /// Where an answer from `base` points on to.
    pub(super) fn location(&self, base: &Url, headers: &HeaderMap) -> Result<Url, ClientError> {
        let location = headers.get(header::LOCATION).and_then(|location| location.to_str().ok());
        let missing = || ClientError::Protocol("an answer lacks its Location".to_owned());
        let url = base.join(location.ok_or_else(missing)?).map_err(|_| missing())?;
        if self.host.allows(&url) {
            return Ok(url);
        }
        // Without its query, which may hold a signature.
        let shown: String = format!("{}://{}", url.scheme(), url.host_str().unwrap_or_default());
        Err(ClientError::Insecure(shown.chars().take(200).collect()))
    }

    /// Sends a request exactly once and waits for the head of its answer.
    pub(super) async fn send_once(
        &self,
        call: &Call,
        authorization: Option<&HeaderValue>,
    ) -> Result<Response, ClientError> {
        let mut request =
            self.http.request(call.method.clone(), call.url.clone()).headers(call.headers.clone());
        if let Some(authorization) = authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        let len = call.payload.len();
        if !matches!(call.method, Method::GET | Method::HEAD | Method::DELETE) {
            request = request.header(header::CONTENT_LENGTH, len).body(body(call).await?);
        }
        let wait = limits::REGISTRY_READ_TIMEOUT_MS + len * 1_000 / limits::REGISTRY_UPLOAD_BYTES_PER_S_MIN;
        match tokio::time::timeout(Duration::from_millis(wait), request.send()).await {
            Ok(Ok(response)) => Ok(response),
            // The address in the error may hold a signature.
            Ok(Err(error)) => {
                Err(ClientError::Connect { host: self.host.name(), source: error.without_url() })
            }
            Err(_) => Err(ClientError::Stalled(self.host.name())),
        }
    }
}

async fn body(call: &Call) -> Result<Body, ClientError> {
    let progress = call.progress.clone();
    match &call.payload {
        Payload::Bytes(bytes) => {
            let bytes = bytes.clone();
            Ok(Body::from(bytes))
        }
        Payload::File(path, range) => {
            let failed = |error| ClientError::from(crate::durable::failed("read", path)(error));
            let mut file = tokio::fs::File::open(path).await.map_err(failed)?;
            file.seek(io::SeekFrom::Start(range.start)).await.map_err(failed)?;
            let part = file.take(range.end - range.start);
            let start = range.start;
            let mut sent = 0;
            let stream = tokio_util::io::ReaderStream::with_capacity(part, limits::BLOB_BUFFER_BYTES);
            Ok(Body::wrap_stream(stream.inspect_ok(move |piece| {
                sent += piece.len() as u64;
                if let Some(progress) = &progress {
                    progress.at(start + sent);
                }
            })))
        }
    }
}

/// The next piece of an answer; `None` at its end. A registry that stalls is given up.
pub(super) async fn next_piece(response: &mut Response, host: &str) -> Result<Option<Bytes>, ClientError> {
    let limit = Duration::from_millis(limits::REGISTRY_READ_TIMEOUT_MS);
    match tokio::time::timeout(limit, response.chunk()).await {
        Ok(Ok(piece)) => Ok(piece),
        Ok(Err(error)) => Err(ClientError::Connect { host: host.to_owned(), source: error.without_url() }),
        Err(_) => Err(ClientError::Stalled(host.to_owned())),
    }
}

/// Reads an answer whole; more than `max` bytes are an error.
pub(super) async fn read_body(mut response: Response, max: usize) -> Result<Bytes, ClientError> {
    let host = response.url().host_str().unwrap_or_default().to_owned();
    let mut body = BytesMut::new();
    while let Some(piece) = next_piece(&mut response, &host).await? {
        if body.len() + piece.len() > max {
            return Err(ClientError::Protocol(format!("an answer has more than {max} bytes")));
        }
        body.extend_from_slice(&piece);
    }
    Ok(body.freeze())
}

#[derive(Deserialize)]
struct Errors {
    errors: Vec<OneError>,
}

#[derive(Deserialize)]
struct OneError {
    code: String,
    #[serde(default)]
    message: String,
}

/// The error that an unexpected answer is: its status and what its body says.
pub(super) async fn refusal(what: impl Into<String>, response: Response) -> ClientError {
    let status = response.status().as_u16();
    let body = read_body(response, limits::REGISTRY_ANSWER_BYTES_MAX).await.unwrap_or_default();
    let detail = match serde_json::from_slice::<Errors>(&body) {
        Ok(Errors { errors }) => {
            let texts: Vec<String> =
                errors.iter().map(|error| format!("{} ({})", error.message, error.code)).collect();
            texts.join("; ")
        }
        Err(_) => String::from_utf8_lossy(&body).into_owned(),
    };
    // What a server says goes to a terminal: no control characters.
    let detail: String = detail.chars().filter(|letter| !letter.is_control()).take(500).collect();
    ClientError::Refused { what: what.into(), status, detail }
}
