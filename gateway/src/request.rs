//! A request's way from its head to its answer: who is asked, may it pass, which instance, call. Every step is
//! awaited in place, on the connection's core; dropping the future ends whatever step it is in.

use crate::{
    Body,
    connection::Connection,
    exchange::{Exchange, ReplyBody, Timing},
    forward,
    host::{self, Host},
    id::{Random, X_REQUEST_ID},
    limit::{self, BodyMeter},
    metrics::CoreMetrics,
    reply::Refusal,
    server::{GatewaySettings, Http},
    system::{self, SystemService},
    watch::Patience,
};
use http::{HeaderValue, Method, Request, Response, Version, header::HOST, request::Parts};
use hyper::body::Incoming;
use neap_scheduler::{CallError, Scheduler, Target};
use neap_sdk::{ErrorCode, Problem, limits};
use std::{
    cell::Cell,
    convert::Infallible,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// What one core has. Nothing in it is shared with another core but handles.
pub(crate) struct Core {
    settings: GatewaySettings,
    scheduler: Scheduler,
    system: SystemService,
    http: Http,
    random: Random,
    metrics: CoreMetrics,
    running: Cell<usize>,
    draining: CancellationToken,
}

impl Core {
    /// A core that serves nothing yet.
    pub(crate) fn new(
        settings: GatewaySettings,
        scheduler: Scheduler,
        system: SystemService,
        http: Http,
        random: Random,
        metrics: CoreMetrics,
    ) -> Self {
        let (running, draining) = (Cell::new(0), CancellationToken::new());
        Self { settings, scheduler, system, http, random, metrics, running, draining }
    }

    pub(crate) fn settings(&self) -> &GatewaySettings {
        &self.settings
    }

    pub(crate) fn http(&self) -> &Http {
        &self.http
    }

    pub(crate) fn random(&self) -> &Random {
        &self.random
    }

    pub(crate) fn metrics(&self) -> &CoreMetrics {
        &self.metrics
    }

    pub(crate) fn patience(&self) -> Patience {
        Patience { head: self.settings.header_read_timeout, idle: self.settings.idle_timeout }
    }

    /// Cancelled when connections are to end after what they are doing.
    pub(crate) fn draining(&self) -> &CancellationToken {
        &self.draining
    }

    /// Requests that are being answered.
    pub(crate) fn running(&self) -> usize {
        self.running.get()
    }

    /// A request has begun.
    pub(crate) fn on_request(&self) {
        self.running.set(self.running.get() + 1);
        self.metrics.shared().in_flight.inc();
    }

    /// An answer has ended.
    pub(crate) fn on_answered(&self) {
        self.running.set(self.running.get() - 1);
        self.metrics.shared().in_flight.dec();
    }
}

/// Answers one request.
pub(crate) async fn handle(
    core: Rc<Core>,
    connection: Rc<Connection>,
    request: Request<Incoming>,
) -> Result<Response<ReplyBody>, Infallible> {
    let mut exchange = Exchange::begin(&core, &connection, &request);
    let answer = answer(&core, &connection, &mut exchange, request).await;
    Ok(match answer {
        Ok(response) => exchange.reply(response),
        Err(refusal) => exchange.refuse(refusal),
    })
}

/// Who answers.
enum Place {
    System,
    Function(Arc<Target>),
}

async fn answer(
    core: &Core,
    connection: &Connection,
    exchange: &mut Exchange,
    request: Request<Incoming>,
) -> Result<Response<Body>, Refusal> {
    let (mut head, incoming) = request.into_parts();
    check_head(&head)?;
    let authority = host::authority(&head.uri, &head.headers, head.version == Version::HTTP_2)?;
    let place = match host::parse(authority, connection.local)? {
        Host::Plain => Place::System,
        Host::Name(host) => Place::Function(find(core, exchange, &host, head.uri.path())?),
    };
    let authority = match head.headers.get(HOST) {
        Some(value) => value.clone(),
        None => HeaderValue::from_str(authority).expect("a checked authority is visible ASCII"),
    };
    forward::request(&mut head.headers, &mut head.uri, &authority, &connection.client);
    head.headers.insert(X_REQUEST_ID, exchange.id_value());
    match place {
        Place::System => {
            exchange.count_as(Rc::clone(&core.metrics.system));
            let request = Request::from_parts(head, incoming);
            Ok(system::call(&core.settings.control, &core.system, request).await?)
        }
        Place::Function(target) => call(core, exchange, &target, head, incoming).await,
    }
}

fn check_head(head: &Parts) -> Result<(), Refusal> {
    let invalid = |detail: &str| Err(Problem::new(ErrorCode::Invalid, detail).into());
    if head.method == Method::CONNECT {
        return invalid("CONNECT asks for a proxy, and this is none");
    }
    // hyper holds HTTP/1 to the same number; HTTP/2 only to bytes.
    if head.headers.len() > limits::REQUEST_HEADERS_MAX {
        return invalid("the request has too many headers");
    }
    Ok(())
}

fn find(core: &Core, exchange: &mut Exchange, host: &str, path: &str) -> Result<Arc<Target>, Refusal> {
    let routes = core.scheduler.routes();
    let route = routes.find(host, path).ok_or_else(|| Refusal::no_route(host))?;
    exchange.count_as(core.metrics.function(&route.tenant, &route.function));
    let target = route.pick(core.random.next_u32()).ok_or_else(|| Refusal::no_revision(&route.function))?;
    Ok(Arc::clone(target))
}

async fn call(
    core: &Core,
    exchange: &mut Exchange,
    target: &Arc<Target>,
    head: Parts,
    incoming: Incoming,
) -> Result<Response<Body>, Refusal> {
    // Before any work: who says that he will send too much is told at once.
    let (body, meter) = limit::admit(incoming, core.settings.request_body_bytes_max)?;
    exchange.meter(meter.clone());
    let spare = meter.is_none().then(|| head.clone());
    let request = Request::from_parts(head, body);
    let response = match (attempt(core, exchange, target, meter.as_deref(), request).await?, spare) {
        (Err(error), Some(head)) if is_worth_another_instance(&error) => {
            // Long enough for the news of its end to reach the scheduler.
            sleep(Duration::from_millis(limits::RETRY_PAUSE_MS)).await;
            attempt(core, exchange, target, None, Request::from_parts(head, limit::empty())).await??
        }
        (outcome, _) => outcome?,
    };
    if response.status().is_informational() {
        let detail = format!("the function answered with {}, which is no final status", response.status());
        return Err(Problem::new(ErrorCode::FunctionFailed, detail).into());
    }
    Ok(response)
}

async fn attempt(
    core: &Core,
    exchange: &mut Exchange,
    target: &Arc<Target>,
    meter: Option<&BodyMeter>,
    request: Request<Body>,
) -> Result<Result<Response<Body>, CallError>, Refusal> {
    let lease = core.scheduler.acquire(target).await?;
    let (waited, cold, began) = (lease.waited(), lease.cold(), Instant::now());
    let call = lease.call(request, exchange.id().clone());
    let outcome = limit::unless_cut(meter, call).await;
    exchange.time(Timing { waited, run: began.elapsed(), cold });
    Ok(outcome?)
}

/// Whether an instance ended between lease and call, before it saw anything of the request.
fn is_worth_another_instance(error: &CallError) -> bool {
    !error.began() && matches!(error.code(), ErrorCode::FunctionFailed | ErrorCode::StartFailed)
}
