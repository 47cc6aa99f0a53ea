//! The machines behind the scheduler: instances that do what a request's path says.

use futures_util::{future::BoxFuture, stream::BoxStream};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use neap_scheduler::fleet::{
    Body, CallError, ExitEvent, Fleet, FreezeError, InvocationCall, NodeName, NodeState, RunningInstance,
    StartFailure, StartOrder, StartReport,
};
use neap_scheduler::{Scheduler, SchedulerSettings, admissions::fake::FakeAdmissions, cluster::FunctionKey};
use neap_sdk::{
    Digest, ErrorCode, FunctionSpec, InstanceId, Problem, TenantName, api::DeployRequest,
    artifact::ArtifactKind,
};
use prometheus_client::registry::Registry;
use std::{
    fmt::Write,
    future::pending,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};
use tokio::sync::Semaphore;

/// What tests look at and turn.
#[derive(Debug)]
pub struct Guests {
    /// Calls that have begun.
    pub began: AtomicUsize,
    /// Calls to `/hang` and `/drip` that were dropped before they ended.
    pub cancelled: Arc<AtomicUsize>,
    /// Lets calls to `/gate` end.
    pub gate: Semaphore,
    /// The next call to `/flaky` finds no instance, where this is not 0.
    pub flaws: AtomicUsize,
    instances: AtomicU64,
}

impl Guests {
    pub fn new() -> Self {
        Self {
            began: AtomicUsize::new(0),
            cancelled: Arc::default(),
            gate: Semaphore::new(0),
            flaws: AtomicUsize::new(0),
            instances: AtomicU64::new(0),
        }
    }

    async fn answer(&self, request: Request<Body>) -> Result<Response<Body>, CallError> {
        self.began.fetch_add(1, SeqCst);
        let path = request.uri().path().to_owned();
        let mut parts = path.trim_start_matches('/').splitn(2, '/');
        match (parts.next().unwrap_or_default(), parts.next()) {
            ("echo", _) => Ok(Response::new(request.into_body())),
            ("swallow", _) => Ok(Response::new(swallow(request.into_body()))),
            ("flaky", _) if self.flaws.swap(0, SeqCst) > 0 => Err(gone()),
            ("read", _) => {
                let body =
                    request.into_body().collect().await.map_err(|_| failed(ErrorCode::FunctionFailed))?;
                Ok(text(&body.to_bytes().len().to_string()))
            }
            ("show", _) => Ok(text(&show(&request))),
            ("status", Some(number)) => {
                let mut response = text("body");
                *response.status_mut() = number.parse::<StatusCode>().expect("a status");
                Ok(response)
            }
            ("fail", Some(code)) => {
                let code = ErrorCode::ALL.iter().find(|known| known.name() == code).expect("a code");
                Err(failed(*code))
            }
            ("hop", _) => Ok(with_connection_headers()),
            ("gate", _) => {
                self.gate.acquire().await.expect("never closed").forget();
                Ok(text("late"))
            }
            ("hang", _) => {
                let _guard = Guard(Arc::clone(&self.cancelled));
                pending().await
            }
            ("drip", _) => Ok(Response::new(drip(Guard(Arc::clone(&self.cancelled))))),
            _ => Ok(text("hello")),
        }
    }
}

/// Counts that a call was given up.
struct Guard(Arc<AtomicUsize>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.fetch_add(1, SeqCst);
    }
}

fn failed(code: ErrorCode) -> CallError {
    CallError::new(Problem::new(code, "the guest failed as it was told to"), true)
}

/// The instance ended before the request reached it.
fn gone() -> CallError {
    CallError::new(Problem::new(ErrorCode::FunctionFailed, "the instance is gone"), false)
}

/// Gives the request's body back, and takes an error of it for its end.
fn swallow(body: Body) -> Body {
    let frames = futures_util::stream::unfold(body, |mut body| async move {
        let frame = body.frame().await?.ok()?;
        Some((Ok(frame), body))
    });
    StreamBody::new(Box::pin(frames)).boxed_unsync()
}

fn text(text: &str) -> Response<Body> {
    let body = Full::from(text.to_owned()).map_err(|never| match never {});
    Response::new(body.boxed_unsync())
}

fn show(request: &Request<Body>) -> String {
    let mut shown = format!("{} {}\n", request.method(), request.uri());
    for (name, value) in request.headers() {
        writeln!(shown, "{name}: {}", value.to_str().expect("text")).expect("a String takes all");
    }
    shown
}

fn with_connection_headers() -> Response<Body> {
    let mut response = text("hop");
    let headers = [
        ("connection", "x-private"),
        ("x-private", "1"),
        ("keep-alive", "timeout=1"),
        ("upgrade", "h2c"),
        ("x-public", "1"),
        ("server-timing", "db;dur=1"),
        ("x-request-id", "forged"),
    ];
    for (name, value) in headers {
        response.headers_mut().append(name, HeaderValue::from_static(value));
    }
    response
}

/// One chunk, then nothing, for ever.
fn drip(guard: Guard) -> Body {
    let frames = futures_util::stream::unfold((guard, false), |(guard, sent)| async move {
        match sent {
            false => Some((Ok(Frame::data("first".into())), (guard, true))),
            true => pending().await,
        }
    });
    StreamBody::new(Box::pin(frames)).boxed_unsync()
}

impl Fleet for Guests {
    fn nodes(&self) -> Vec<NodeState> {
        let name = NodeName("here".into());
        vec![NodeState { name, memory_bytes: 1 << 40, memory_promised_bytes: 0, instances: 0 }]
    }

    fn start<'a>(
        &'a self,
        _: &'a NodeName,
        order: StartOrder,
    ) -> BoxFuture<'a, Result<StartReport, StartFailure>> {
        let instance = InstanceId(self.instances.fetch_add(1, SeqCst));
        Box::pin(async move {
            match order.revision.function.as_str() {
                "broken" => Err(StartFailure { text: "exited at once with status 3".to_owned() }),
                _ => Ok(StartReport { instance, took: Duration::from_millis(1), pid: None }),
            }
        })
    }

    fn call(
        &self,
        _: InstanceId,
        request: Request<Body>,
        _: InvocationCall,
    ) -> BoxFuture<'_, Result<Response<Body>, CallError>> {
        Box::pin(self.answer(request))
    }

    fn freeze(&self, _: InstanceId) -> BoxFuture<'_, Result<(), FreezeError>> {
        Box::pin(async { Ok(()) })
    }

    fn thaw(&self, _: InstanceId) -> BoxFuture<'_, Result<(), FreezeError>> {
        Box::pin(async { Ok(()) })
    }

    fn stop(&self, _: InstanceId) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }

    fn exits(&self) -> BoxStream<'static, ExitEvent> {
        Box::pin(futures_util::stream::pending())
    }

    fn instances(&self) -> Vec<RunningInstance> {
        Vec::new()
    }
}

/// A scheduler over these machines, with the three functions.
pub async fn scheduler(guests: Arc<Guests>, dir: PathBuf, metrics: &mut Registry) -> Scheduler {
    let settings = SchedulerSettings { dir, domain: "localhost".to_owned(), port: 0 };
    let admissions = Arc::new(FakeAdmissions::new(ArtifactKind::Image));
    let scheduler = Scheduler::open(settings, admissions, guests, metrics).await.expect("a new folder");
    let narrow = FunctionSpec { concurrency: 1, max_instances: 1, ..FunctionSpec::default() };
    let wide = FunctionSpec { concurrency: 5_000, ..FunctionSpec::default() };
    for (name, spec) in [("hello", wide), ("broken", FunctionSpec::default()), ("full", narrow)] {
        let key = FunctionKey { tenant: TenantName::default(), name: name.parse().expect("name") };
        let repository = format!("default/{name}").parse().expect("repository");
        let request = DeployRequest { repository, digest: Digest::of(name.as_bytes()), spec };
        let deployed = scheduler.deploy(&key, request).await;
        assert_eq!(deployed.is_ok(), name != "broken", "{deployed:?}");
    }
    scheduler
}
