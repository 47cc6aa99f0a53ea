//! `wasi:http` outgoing requests: only to hosts that were granted, and only to addresses that were looked at.
//!
//! A name is resolved once and the connection goes to the very address that was judged, so a name server that
//! answers differently the second time gains nothing. Addresses that are not public (loopback, private,
//! link-local with the cloud's metadata service, and every form that embeds one of them) are reached only by a
//! grant that names the address itself, or `localhost`. Redirects are the guest's own affair: each is a new
//! request and is judged as one.

use crate::{address, call::Grants};
use bytes::Bytes;
use http::uri::Scheme;
use http_body::Frame;
use http_body_util::BodyExt as _;
use neap_sdk::{function::HostPattern, limits};
use std::{
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{Arc, LazyLock},
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, Sleep, timeout},
};
use tokio_rustls::TlsConnector;
use wasmtime_wasi_http::{
    Error, RequestOptions, WasiBody, WasiHttpHooks, io::TokioIo, p2::bindings::http::types as p2,
    p3::bindings::http::types as p3,
};

type IoFuture = Box<dyn Future<Output = Result<(), Error>> + Send>;
type SendFuture = Box<dyn Future<Output = Result<(http::Response<WasiBody>, IoFuture), Error>> + Send>;

/// One invocation's way out.
pub(crate) struct Outbound {
    grants: Arc<Grants>,
    slots: Arc<Semaphore>,
}

impl Outbound {
    pub(crate) fn new(grants: Arc<Grants>) -> Self {
        Self { grants, slots: Arc::new(Semaphore::new(limits::OUTBOUND_REQUESTS_AT_ONCE_MAX)) }
    }
}

impl WasiHttpHooks for Outbound {
    fn send_request(
        &mut self,
        request: http::Request<WasiBody>,
        options: Option<RequestOptions>,
        _result: IoFuture,
    ) -> SendFuture {
        let target = Target::of(request.uri()).and_then(|target| {
            if target.is_granted(&self.grants.outbound_hosts) {
                Ok(target)
            } else {
                Err(Error::HttpRequestDenied)
            }
        });
        let slot = self.slots.clone().try_acquire_owned().map_err(|_| Error::ConnectionLimitReached);
        Box::new(async move { send(target?, request, options.unwrap_or_default(), slot?).await })
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        limits::WASM_BODY_CHUNK_BYTES_MAX
    }

    fn p3_outgoing_body_chunk_size(&mut self) -> usize {
        limits::WASM_BODY_CHUNK_BYTES_MAX
    }

    // The default would log a warning for each; a peer's bad manners are the guest's business.
    fn p2_error_from_hyper(&mut self, _: &hyper::Error) -> p2::ErrorCode {
        p2::ErrorCode::HttpProtocolError
    }

    fn p3_error_from_hyper(&mut self, _: &hyper::Error) -> p3::ErrorCode {
        p3::ErrorCode::HttpProtocolError
    }
}

/// Where a request is to go.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Target {
    /// Without the brackets of an IPv6 address.
    host: String,
    port: u16,
    tls: bool,
}

impl Target {
    fn of(uri: &http::Uri) -> Result<Self, Error> {
        let tls = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            Some(scheme) if *scheme == Scheme::HTTP => false,
            _ => return Err(Error::HttpProtocolError),
        };
        let host = uri.host().filter(|host| !host.is_empty()).ok_or(Error::HttpRequestUriInvalid)?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        Ok(Self { host: host.to_ascii_lowercase(), port: uri.port_u16().unwrap_or(default_port(tls)), tls })
    }

    fn is_granted(&self, patterns: &[HostPattern]) -> bool {
        patterns.iter().any(|pattern| {
            // A pattern of names covers names: `*.0.0.1` is no way to reach an address.
            let fits = pattern.is_exact() || self.address().is_none();
            fits && pattern.covers(&self.host, self.port, default_port(self.tls))
        })
    }

    /// The address, where the host is written as one.
    fn address(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }

    /// Whether the grant for it named this machine or a bare address, so that what is not public may be reached.
    fn is_literal(&self) -> bool {
        self.address().is_some() || self.host == "localhost"
    }

    /// The addresses that may be connected to; resolved once.
    async fn resolve(&self) -> Result<Vec<SocketAddr>, Error> {
        let found: Vec<SocketAddr> = match self.address() {
            Some(address) => vec![SocketAddr::new(address, self.port)],
            None => match tokio::net::lookup_host((self.host.as_str(), self.port)).await {
                Ok(found) => found.collect(),
                Err(_) => return Err(Error::DnsError { rcode: None, info_code: None }),
            },
        };
        if found.is_empty() {
            return Err(Error::DestinationNotFound);
        }
        let may_reach = |found: &SocketAddr| self.is_literal() || address::is_public(found.ip());
        let allowed: Vec<_> = found.into_iter().filter(may_reach).collect();
        if allowed.is_empty() { Err(Error::DestinationIpProhibited) } else { Ok(allowed) }
    }
}

const fn default_port(tls: bool) -> u16 {
    if tls { 443 } else { 80 }
}

async fn send(
    target: Target,
    mut request: http::Request<WasiBody>,
    options: RequestOptions,
    slot: OwnedSemaphorePermit,
) -> Result<(http::Response<WasiBody>, IoFuture), Error> {
    let connect_timeout =
        options.connect_timeout.unwrap_or(Duration::from_millis(limits::OUTBOUND_CONNECT_TIMEOUT_MS));
    let stream = timeout(connect_timeout, connect(&target)).await.map_err(|_| Error::ConnectionTimeout)??;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // The peer is no proxy: it gets the path alone, and the authority as the Host header.
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    *request.uri_mut() = path.parse().map_err(|_| Error::HttpRequestUriInvalid)?;
    let mut connection = Box::pin(async move {
        let _slot = slot;
        connection.await.map_err(Error::from)
    });
    let response = async {
        let mut response = std::pin::pin!(sender.send_request(request));
        let mut open = true;
        let mut broken = None;
        // The connection moves only while it is polled, here until the head is there.
        std::future::poll_fn(|cx| {
            if open && let Poll::Ready(ended) = connection.as_mut().poll(cx) {
                open = false;
                broken = ended.err();
            }
            // A peer that answers and closes at once may break the connection after its whole answer is here.
            match response.as_mut().poll(cx) {
                Poll::Ready(answer) => {
                    Poll::Ready(answer.map_err(|error| broken.take().unwrap_or(error.into())))
                }
                Poll::Pending => broken.take().map_or(Poll::Pending, |error| Poll::Ready(Err(error))),
            }
        })
        .await
        .map(|response| (response, open))
    };
    let (response, open) = match options.first_byte_timeout {
        Some(limit) => timeout(limit, response).await.map_err(|_| Error::ConnectionReadTimeout)??,
        None => response.await?,
    };
    let between = options.between_bytes_timeout;
    let response = response.map(|body| PacedBody::new(body, between).boxed_unsync());
    let rest: IoFuture = if open { Box::new(connection) } else { Box::new(async { Ok(()) }) };
    Ok((response, rest))
}

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// Connects to the first allowed address that answers; with TLS where the scheme wants it.
async fn connect(target: &Target) -> Result<Box<dyn Io>, Error> {
    let addresses = target.resolve().await?;
    let stream = TcpStream::connect(&addresses[..]).await.map_err(|error| match error.kind() {
        std::io::ErrorKind::ConnectionRefused => Error::ConnectionRefused,
        std::io::ErrorKind::TimedOut => Error::ConnectionTimeout,
        _ => Error::DestinationUnavailable,
    })?;
    let _ = stream.set_nodelay(true);
    if !target.tls {
        return Ok(Box::new(stream));
    }
    let name = rustls::pki_types::ServerName::try_from(target.host.clone())?;
    let tls = TLS.clone().map_err(|error| Error::InternalError(Some(error)))?;
    let stream = TlsConnector::from(tls).connect(name, stream).await.map_err(|error| {
        match error.get_ref().and_then(|source| source.downcast_ref::<rustls::Error>()) {
            Some(rustls::Error::InvalidCertificate(_)) => Error::TlsCertificateError,
            _ => Error::TlsProtocolError,
        }
    })?;
    Ok(Box::new(stream))
}

/// The public certificate authorities, as Mozilla lists them. The provider is named because a process that holds
/// two has no default one.
static TLS: LazyLock<Result<Arc<rustls::ClientConfig>, String>> = LazyLock::new(|| {
    let roots = rustls::RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.into() };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map_err(|error| error.to_string())?;
    Ok(Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
});

/// A response body whose silence has a limit.
struct PacedBody {
    body: hyper::body::Incoming,
    limit: Option<(Duration, Pin<Box<Sleep>>)>,
}

impl PacedBody {
    fn new(body: hyper::body::Incoming, limit: Option<Duration>) -> Self {
        Self { body, limit: limit.map(|limit| (limit, Box::pin(tokio::time::sleep(limit)))) }
    }
}

impl http_body::Body for PacedBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx).map_err(Error::from);
        if let Some((limit, sleep)) = &mut self.limit {
            if polled.is_ready() {
                let next = Instant::now().checked_add(*limit).unwrap_or_else(Instant::now);
                sleep.as_mut().reset(next);
            } else if sleep.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Some(Err(Error::ConnectionReadTimeout)));
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(uri: &str) -> Target {
        Target::of(&uri.parse().expect(uri)).expect(uri)
    }

    fn granted(patterns: &[&str], uri: &str) -> bool {
        let patterns: Vec<_> = patterns.iter().map(|pattern| pattern.parse().expect(pattern)).collect();
        target(uri).is_granted(&patterns)
    }

    #[test]
    fn only_granted_hosts_are_covered() {
        assert!(!granted(&[], "http://api.example/"));
        assert!(granted(&["api.example"], "https://API.example/x"));
        assert!(!granted(&["api.example"], "https://api.example:8443/"));
        assert!(!granted(&["api.example"], "https://api.example.evil/"));
        assert!(granted(&["127.0.0.1:9000"], "http://127.0.0.1:9000/"));
        assert!(!granted(&["*.0.0.1"], "http://127.0.0.1/"), "a wildcard covers no address");
        assert!(!granted(&["127.0.0.1:9000"], "http://user@127.0.0.1:9001/"));
    }

    #[tokio::test]
    async fn a_name_does_not_open_what_is_not_public() {
        // Whatever resolves it, this name stands for this machine.
        let name = Target { host: "localhost.".into(), port: 80, tls: false };
        assert!(matches!(
            name.resolve().await,
            Err(Error::DestinationIpProhibited | Error::DnsError { .. } | Error::DestinationNotFound)
        ));
        assert!(target("http://127.0.0.1:9000/").resolve().await.is_ok(), "an exact grant names it");
    }
}
