//! One invocation: a fresh instance, driven by whoever waits for its response.
//!
//! No task is spawned for the guest. It runs while the future of [`Program::call`] is polled and, after the head,
//! while the response body is; dropping either ends it. So a request costs no hop between cores, and a client
//! that goes away stops the work.

mod body;
mod drive;
mod request;

use crate::{
    cgi,
    error::InvokeError,
    host::{ComponentState, ModuleState},
    meter::{Budget, Memory, Meter},
    program::{Entry, Handler, Program},
};
use body::DrivenBody;
use drive::{Drive, Head, HeadSender};
use http_body_util::BodyExt as _;
use neap_sdk::function::HostPattern;
pub(crate) use request::remove_hop_by_hop;
use std::{
    pin::Pin,
    sync::{Arc, atomic::AtomicBool},
    task::Poll,
    time::Duration,
};
use tokio::io::DuplexStream;
use wasmtime::{Engine, Store, UpdateDeadline};
use wasmtime_wasi_http::{
    Error as HttpError, WasiHttpView as _,
    p2::{self, bindings::http::types::Scheme},
    p3,
};

/// An error that can cross crates.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// A request's or a response's body. Response bodies fail with an [`InvokeError`].
pub type Body = http_body_util::combinators::UnsyncBoxBody<bytes::Bytes, BoxError>;

/// What one invocation may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallLimits {
    /// All linear memories together, in bytes.
    pub memory_bytes: u64,
    /// From the call to the end of the response body.
    pub wall: Duration,
    /// CPU time.
    pub cpu: Duration,
}

/// What a function's guests are given, the same for every invocation.
pub struct Grants {
    /// Environment variables.
    pub env: Vec<(String, String)>,
    /// Where outgoing requests may go.
    pub outbound_hosts: Vec<HostPattern>,
    /// Where standard output and error go.
    pub logs: Arc<dyn LogSink>,
}

/// Takes what guests print.
pub trait LogSink: Send + Sync {
    /// Raw bytes, as the guest wrote them; lines may come in pieces. Must not block.
    fn write(&self, stream: Stream, bytes: &[u8]);
}

/// One of a guest's output streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output; of a module in CGI style it is the response, not the log.
    Stdout,
    /// Standard error.
    Stderr,
}

/// One invocation's limits, grants and meter.
pub struct Call {
    /// What it may use.
    pub limits: CallLimits,
    /// What it is given.
    pub grants: Arc<Grants>,
    /// Where its use is recorded; the figures are final once the response body has ended or was dropped.
    pub meter: Arc<Meter>,
}

impl Program {
    /// Calls the program in a fresh instance and gives its response once the head is there.
    ///
    /// The response body drives the guest on. It ends when the guest has ended its body and returned; work that a
    /// guest does after its response holds the end back, until its time is up. Dropping the future or the body
    /// ends the guest at once. Needs a tokio runtime with I/O and time, and runs on it without spawning the guest.
    ///
    /// The guest gets the request without hop-by-hop headers; scheme and authority come from the URI, else `http`
    /// and the Host header. A `SocketAddr` among the request's extensions is the client, for CGI's `REMOTE_ADDR`.
    ///
    /// # Errors
    /// When the guest gives no response head; what goes wrong after the head is an error of the body.
    pub async fn call(
        &self,
        request: http::Request<Body>,
        call: Call,
    ) -> Result<http::Response<Body>, InvokeError> {
        let request = request::prepare(request)?;
        let (mut drive, mut head) = self.begin(request, call);
        let response = std::future::poll_fn(|cx| {
            // The guest first: the head is what it leaves.
            let driven = drive.poll(cx);
            match (head.poll(cx), driven) {
                (Poll::Ready(Some(head)), _) => Poll::Ready(head),
                (_, Poll::Ready(Err(error))) => Poll::Ready(Err(error)),
                (Poll::Ready(None), Poll::Ready(Ok(()))) => Poll::Ready(Err(InvokeError::NoResponse)),
                _ => Poll::Pending,
            }
        });
        let (parts, body) = response.await?.into_parts();
        if parts.status.is_informational() {
            return Err(InvokeError::BadResponse(format!("{} is no final status", parts.status)));
        }
        Ok(http::Response::from_parts(parts, DrivenBody::new(body, drive, self.kind()).boxed_unsync()))
    }

    /// The invocation, ready to be driven: everything that costs time happens while it is measured.
    fn begin(&self, request: http::Request<Body>, call: Call) -> (Drive, Head) {
        let refused = Arc::new(AtomicBool::new(false));
        let budget = Arc::new(Budget::new(call.limits, call.meter.clone()));
        let memory = Memory::new(call.limits.memory_bytes, call.meter, refused.clone());
        let guard = Guard { grants: call.grants, memory, budget: budget.clone() };
        match &self.0 {
            Entry::Component(handler) => {
                let (sender, head) = tokio::sync::oneshot::channel();
                let work = run_component(handler.clone(), guard, request, sender);
                (Drive::new(work, budget, refused), Head::Component(head))
            }
            Entry::Command(command) => {
                let (output, head) = cgi::pipe();
                let work = run_command(command.clone(), guard, request, output);
                (Drive::new(work, budget, refused), Head::Cgi(head))
            }
        }
    }
}

/// What a guest's store is made with.
struct Guard {
    grants: Arc<Grants>,
    memory: Memory,
    budget: Arc<Budget>,
}

async fn run_component(
    handler: Arc<Handler>,
    guard: Guard,
    request: http::Request<Body>,
    sender: HeadSender,
) -> wasmtime::Result<()> {
    match &*handler {
        Handler::Http2(program) => {
            handle_2(program, component_store(program.engine(), guard), request, sender).await
        }
        Handler::Http3(program) => {
            handle_3(program, component_store(program.engine(), guard), request, sender).await
        }
    }
}

/// An invocation in CGI style: until the command ends.
async fn run_command(
    command: Arc<wasmtime::InstancePre<ModuleState>>,
    guard: Guard,
    request: http::Request<Body>,
    output: DuplexStream,
) -> wasmtime::Result<()> {
    let wasi = cgi::prepare(request, &guard.grants, output);
    let mut store = guarded(command.module().engine(), ModuleState::new(wasi, guard.memory), guard.budget);
    store.limiter(|state| &mut state.memory);
    let instance = command.instantiate_async(&mut store).await?;
    let start = instance.get_typed_func::<(), ()>(&mut store, "_start")?;
    start.call_async(&mut store, ()).await
}

/// A `wasi:http` 0.2 invocation: until the guest returns.
async fn handle_2(
    program: &p2::bindings::ProxyPre<ComponentState>,
    mut store: Store<ComponentState>,
    request: http::Request<Body>,
    sender: HeadSender,
) -> wasmtime::Result<()> {
    let out = store.data_mut().http().new_response_outparam_from_callback(move |response| {
        // Nobody listens any more when the invocation was given up.
        let _ = sender.send(response.map_err(|code| refusal(&code)));
    })?;
    let request = store.data_mut().http().new_incoming_request(scheme(&request), wasi(request))?;
    let instance = program.instantiate_async(&mut store).await?;
    instance.wasi_http_incoming_handler().call_handle(&mut store, request, out).await
}

/// A `wasi:http` 0.3 invocation: until the response body is taken and no task of the guest is left.
async fn handle_3(
    program: &p3::bindings::ServicePre<ComponentState>,
    mut store: Store<ComponentState>,
    request: http::Request<Body>,
    sender: HeadSender,
) -> wasmtime::Result<()> {
    let service = program.instantiate_async(&mut store).await?;
    store
        .run_concurrent(async |accessor| -> wasmtime::Result<()> {
            let (request, sent) = accessor.with(|mut store| {
                let (request, sent) = p3::Request::from_http(store.data_mut().http().hooks, wasi(request));
                let sent: Pin<Box<dyn Future<Output = Result<(), HttpError>> + Send>> = Box::pin(sent);
                (request, sent)
            });
            let response = match service.handle(accessor, request).await? {
                Ok(response) => response,
                Err(code) => {
                    let _ = sender.send(Err(refusal(&code)));
                    return Ok(());
                }
            };
            let response = accessor.with(|mut store| response.into_http(&mut store, sent))?;
            let (response, taken) = body::watched(response);
            let _ = sender.send(Ok(response));
            taken.await;
            std::future::poll_fn(|cx| accessor.poll_no_interesting_tasks(cx)).await;
            Ok(())
        })
        .await?
}

fn component_store(engine: &Engine, guard: Guard) -> Store<ComponentState> {
    let mut store = guarded(engine, ComponentState::new(guard.grants, guard.memory), guard.budget);
    store.limiter(|state| &mut state.memory);
    store.set_hostcall_fuel(neap_sdk::limits::WASM_HOSTCALL_BYTES_MAX);
    store
}

/// A store whose guest gives way to others at every tick and is stopped when its time is used up.
fn guarded<T: Send>(engine: &Engine, state: T, budget: Arc<Budget>) -> Store<T> {
    let mut store = Store::new(engine, state);
    store.epoch_deadline_callback(move |_| {
        budget.check()?;
        // Unlike a bare wake-up, tokio's own yield lets the runtime look at its sockets in between.
        Ok(UpdateDeadline::YieldCustom(1, Box::pin(tokio::task::yield_now())))
    });
    // Not 0: that would enter the callback before the guest's first instruction.
    store.set_epoch_deadline(1);
    store
}

fn scheme(request: &http::Request<Body>) -> Scheme {
    match request.uri().scheme_str() {
        Some("https") => Scheme::Https,
        _ => Scheme::Http,
    }
}

/// The same request with the error type that wasi-http knows.
fn wasi(
    request: http::Request<Body>,
) -> http::Request<impl http_body::Body<Data = bytes::Bytes, Error = HttpError>> {
    request.map(|body| body.map_err(|error| HttpError::InternalError(Some(error.to_string()))))
}

/// What a guest's error code says.
fn refusal(code: &impl std::fmt::Debug) -> InvokeError {
    InvokeError::Failed(format!("{code:?}"))
}
