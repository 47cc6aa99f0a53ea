//! What the plain host answers (`localhost`, not `NAME.localhost`): the registry under `/v2/`, the admin API under
//! `/api/v1/` behind its token, health, readiness and metrics; and the admin API's Unix socket.
//! Only wiring and access; the answers come from the crates.

use crate::{config::DataDir, exit::Failure};
use axum::{
    Router,
    extract::{Request, State},
    http::{StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
    routing::get,
};
use http_body_util::BodyExt as _;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use neap_gateway::SystemService;
use neap_registry::{Registry, sign::SigningKey};
use neap_sdk::{ErrorCode, Problem, api::ServerView, limits};
use prometheus_client::registry::Registry as Metrics;
use std::{
    io::Write as _,
    net::SocketAddr,
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::Duration,
};
use tokio::net::UnixListener;
use tower::ServiceExt as _;

/// Set once everything serves; until then `/readyz` says 503.
#[derive(Clone, Default)]
pub struct Ready(Arc<OnceLock<Metrics>>);

impl Ready {
    /// From now on the server is ready and its metrics can be read.
    pub fn set(&self, metrics: Metrics) {
        drop(self.0.set(metrics));
    }
}

/// The service of the plain host.
pub fn plain_host(api: Router, registry: Router, token: String, ready: Ready) -> SystemService {
    let guarded = api.layer(middleware::from_fn_with_state(Arc::<str>::from(token), require_token));
    let health = Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readiness))
        .route("/metrics", get(metrics))
        .with_state(ready);
    let router = Router::new().merge(guarded).merge(registry).merge(health).fallback(async || {
        let problem = Problem::new(ErrorCode::NotFound, "nothing of the server answers at this path")
            .with_hint("functions answer at http://NAME.localhost:PORT/; the registry under /v2/");
        problem_response(&problem)
    });
    Arc::new(move |request| {
        let router = router.clone();
        Box::pin(async move {
            let Ok(response) = router.oneshot(request).await;
            response.map(|body| body.map_err(Into::into).boxed_unsync())
        })
    })
}

fn problem_response(problem: &Problem) -> Response {
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers =
        [(header::CONTENT_TYPE.as_str(), Problem::MEDIA_TYPE), ("x-neap-error", problem.code.name())];
    (status, headers, problem.to_json()).into_response()
}

async fn require_token(State(token): State<Arc<str>>, request: Request, next: Next) -> Response {
    let given = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let given = given.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
    if same(given.as_bytes(), token.as_bytes()) {
        return next.run(request).await;
    }
    let problem = Problem::new(ErrorCode::Unauthorized, "the admin API needs its token")
        .with_hint("send `Authorization: Bearer TOKEN`; the token lies in the data folder as admin.token");
    problem_response(&problem)
}

/// Compares without telling by its time how much of a guess was right.
fn same(given: &[u8], secret: &[u8]) -> bool {
    let different = given.iter().zip(secret).fold(0, |sum, (a, b)| sum | (a ^ b));
    given.len() == secret.len() && different == 0
}

async fn readiness(State(ready): State<Ready>) -> Response {
    match ready.0.get() {
        Some(_) => "ready\n".into_response(),
        None => (StatusCode::SERVICE_UNAVAILABLE, "starting\n").into_response(),
    }
}

async fn metrics(State(ready): State<Ready>) -> Response {
    let mut text = String::new();
    match ready.0.get().map(|metrics| prometheus_client::encoding::text::encode(&mut text, metrics)) {
        Some(Ok(())) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, kind)], text).into_response()
        }
        _ => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}

/// Where the gateway listens, known once it is bound.
#[derive(Clone, Default)]
pub struct ListenAddress(Arc<OnceLock<SocketAddr>>);

impl ListenAddress {
    /// Says it.
    pub fn set(&self, address: SocketAddr) {
        // Said once, by the one who bound it.
        let _ = self.0.set(address);
    }
}

/// `GET /api/v1/server`.
pub fn server_view(address: &ListenAddress, missing: &[String]) -> Router {
    let (address, missing) = (address.clone(), missing.to_vec());
    let view = async move || ServerView {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        listen: address.0.get().map(SocketAddr::to_string).unwrap_or_default(),
        missing: missing.clone(),
    };
    Router::new().route("/api/v1/server", get(async move || axum::Json(view().await)))
}

/// The admin API on a Unix socket that only the owner of the data folder can open.
pub struct AdminSocket {
    path: PathBuf,
    server: tokio::task::JoinHandle<()>,
}

impl AdminSocket {
    /// Begins to serve.
    pub fn serve(path: &Path, api: Router) -> Result<Self, Failure> {
        let failed = |error: std::io::Error| {
            let what = format!("the admin socket {} cannot be made", path.display());
            let failure = Failure::failed(what, &error);
            if path.as_os_str().len() > 107 {
                failure.hint(
                    "its path is longer than the 107 bytes a Unix socket may have; use a shorter --data-dir",
                )
            } else {
                failure
            }
        };
        // Left by a server that was killed; the folder's lock proves that none uses it now.
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let listener = UnixListener::bind(path).map_err(failed)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
        let server = tokio::spawn(accept(listener, api));
        Ok(Self { path: path.to_owned(), server })
    }

    /// Ends it.
    pub fn stop(self) {
        self.server.abort();
        drop(std::fs::remove_file(self.path));
    }
}

async fn accept(listener: UnixListener, api: Router) {
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "the admin socket did not accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let service = TowerToHyperService::new(api.clone());
        tokio::spawn(async move {
            let mut server = hyper::server::conn::http1::Builder::new();
            server
                .timer(TokioTimer::new())
                .header_read_timeout(Duration::from_millis(limits::HEADER_READ_TIMEOUT_MS));
            if let Err(error) = server.serve_connection(TokioIo::new(stream), service).await {
                tracing::debug!(%error, "a connection to the admin socket broke");
            }
        });
    }
}

/// Reads the admin token, or makes one at the first start.
pub fn admin_token(path: &Path) -> Result<String, Failure> {
    let failed = |error: std::io::Error| {
        Failure::failed(format!("the admin token {} cannot be read or made", path.display()), &error)
    };
    match std::fs::read_to_string(path) {
        Ok(token) if token.trim().len() >= 32 => return Ok(token.trim().to_owned()),
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    let mut random = [0_u8; 32];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut source| std::io::Read::read_exact(&mut source, &mut random))
        .map_err(failed)?;
    let token = neap_sdk::Digest::from_sha256(random).hex();
    let mut options = std::fs::File::options();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(path).map_err(failed)?;
    file.write_all(token.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
    Ok(token)
}

/// Makes the operator's signing key at the first start, and trusts it for every tenant.
pub fn trust_operator_key(dir: &DataDir, registry: &Registry) -> Result<(), Failure> {
    let path = dir.operator_key();
    let key = if path.exists() { SigningKey::load(&path) } else { SigningKey::generate(&path) };
    let key = key.map_err(|error| Failure::failed("the operator's signing key cannot be used", &error))?;
    let trusted =
        registry.keys().trust_operator("operator", &key.public_key().to_pem(), crate::output::now_ms());
    trusted.map_err(|error| Failure::failed("the operator's signing key cannot be trusted", &error))?;
    Ok(())
}
