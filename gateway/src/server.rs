//! The gateway as a whole: a thread, a runtime and a listener per core, all alike; and how they end.
//!
//! Draining, in order: the listeners close, every connection ends after what it is doing (`Connection: close`,
//! GOAWAY), what is left at the deadline is dropped, the threads end.

use crate::{
    connection, id::Random, listen, listen::ListenError, metrics::CoreMetrics, metrics::Metrics,
    request::Core, system::SystemService,
};
use hyper::rt::Executor;
use hyper_util::{rt::TokioTimer, server::conn::auto};
use neap_scheduler::Scheduler;
use neap_sdk::limits;
use prometheus_client::registry::Registry;
use std::{
    future::Future,
    io,
    net::SocketAddr,
    rc::Rc,
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::{Builder, Handle, LocalOptions, LocalRuntime},
    sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch},
    time::{sleep, sleep_until},
};
use tokio_util::task::TaskTracker;

/// How the gateway is run.
#[derive(Debug, Clone)]
pub struct GatewaySettings {
    /// Where to listen; port 0 lets the kernel choose.
    pub listen: SocketAddr,
    /// Threads, each with a runtime and a listener of its own.
    pub cores: usize,
    /// The runtime of the control plane, on which the [`SystemService`] runs.
    pub control: Handle,
    /// Most bytes of a function's request body.
    pub request_body_bytes_max: u64,
    /// Connections open at once, over all cores; the next ones wait.
    pub connections_max: usize,
    /// Time for a request's head.
    pub header_read_timeout: Duration,
    /// Time that a connection may stay open between requests.
    pub idle_timeout: Duration,
    /// Whether clients are proxies of ours, whose `X-Forwarded-*` headers are kept and added to.
    pub trust_forwarded: bool,
    /// Whether every request is logged (tracing target `access`).
    pub access_log: bool,
}

impl GatewaySettings {
    /// The defaults of [`limits`], a core per CPU, no trust in forwarded headers, no access log.
    pub fn new(listen: SocketAddr, control: Handle) -> Self {
        Self {
            listen,
            cores: thread::available_parallelism().map_or(1, usize::from),
            control,
            request_body_bytes_max: limits::REQUEST_BODY_BYTES_MAX_DEFAULT,
            connections_max: limits::CONNECTIONS_MAX,
            header_read_timeout: Duration::from_millis(limits::HEADER_READ_TIMEOUT_MS),
            idle_timeout: Duration::from_millis(limits::IDLE_CONNECTION_TIMEOUT_MS),
            trust_forwarded: false,
            access_log: false,
        }
    }
}

/// Why the gateway did not start.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The address cannot be had.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// A thread or its runtime could not be made.
    #[error("cannot start a thread of the gateway; this machine may be out of threads, files or memory")]
    Core(#[source] io::Error),
}

/// How a drain ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drained {
    /// Requests that were still running at the deadline and were cut off.
    pub cut: usize,
}

/// A running gateway. Dropping it cuts everything off at once; [`Gateway::drain`] is the polite way.
#[derive(Debug)]
pub struct Gateway {
    local_addr: SocketAddr,
    /// When the cores are to have ended; `None` while they serve.
    end: watch::Sender<Option<Instant>>,
    cores: Vec<CoreHandle>,
}

#[derive(Debug)]
struct CoreHandle {
    thread: thread::JoinHandle<()>,
    /// Requests cut off, once the thread is done.
    cut: oneshot::Receiver<usize>,
}

impl Gateway {
    /// Listens and serves. Returns when every core accepts connections.
    ///
    /// # Errors
    /// The port is taken, the address is not ours, or the machine has no room for another thread.
    pub fn bind(
        settings: GatewaySettings,
        scheduler: Scheduler,
        system: SystemService,
        metrics: &mut Registry,
    ) -> Result<Self, BindError> {
        let listeners = listen::listen(settings.listen, settings.cores.max(1))?;
        let local_addr = listeners[0].local_addr().map_err(BindError::Core)?;
        let metrics = Metrics::register(metrics);
        let slots = Arc::new(Semaphore::new(settings.connections_max));
        let (end, _) = watch::channel(None);
        let mut gateway = Self { local_addr, end, cores: Vec::new() };
        for (number, listener) in listeners.into_iter().enumerate() {
            let plan = CorePlan {
                listener,
                settings: settings.clone(),
                scheduler: scheduler.clone(),
                system: Arc::clone(&system),
                metrics: metrics.clone(),
                slots: Arc::clone(&slots),
                end: gateway.end.subscribe(),
            };
            // Where a later core fails, dropping the gateway ends the earlier ones.
            gateway.cores.push(start_core(number, plan).map_err(BindError::Core)?);
        }
        Ok(gateway)
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Takes no more connections, lets running requests end, cuts off what is left after `deadline`, and returns
    /// when every thread is gone.
    ///
    /// # Cancellation
    /// Dropping the future cuts everything off at once.
    pub async fn drain(mut self, deadline: Duration) -> Drained {
        self.end.send_replace(Some(Instant::now() + deadline));
        let mut cut = 0;
        for core in std::mem::take(&mut self.cores) {
            // A core that panicked has nothing left to cut.
            cut += core.cut.await.unwrap_or(0);
            // It said so with its last breath: this does not block.
            let _ = core.thread.join();
        }
        Drained { cut }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.end.send_replace(Some(Instant::now()));
    }
}

/// All that a core is made of, before it is on its thread.
struct CorePlan {
    listener: std::net::TcpListener,
    settings: GatewaySettings,
    scheduler: Scheduler,
    system: SystemService,
    metrics: Metrics,
    slots: Arc<Semaphore>,
    end: watch::Receiver<Option<Instant>>,
}

fn start_core(number: usize, plan: CorePlan) -> io::Result<CoreHandle> {
    let (ready, is_ready) = mpsc::sync_channel(1);
    let (done, cut) = oneshot::channel();
    let thread = thread::Builder::new().name(format!("gateway-{number}")).spawn(move || {
        let (runtime, core) = match make_core(plan) {
            Ok(made) => made,
            Err(error) => return drop(ready.send(Err(error))),
        };
        let _ = ready.send(Ok(()));
        let cut = runtime.block_on(core);
        // Drops every connection that is left, and with it its request.
        runtime.shutdown_timeout(Duration::from_millis(100));
        let _ = done.send(cut);
    })?;
    let died = || Err(io::Error::other("the thread died while it started"));
    is_ready.recv().unwrap_or_else(|_| died())?;
    Ok(CoreHandle { thread, cut })
}

fn make_core(plan: CorePlan) -> io::Result<(LocalRuntime, impl Future<Output = usize>)> {
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
    let listener = {
        let _guard = runtime.enter();
        TcpListener::from_std(plan.listener)?
    };
    let random = Random::from_os().map_err(io::Error::other)?;
    let metrics = CoreMetrics::new(plan.metrics);
    let core = Core::new(plan.settings, plan.scheduler, plan.system, http(), random, metrics);
    Ok((runtime, run_core(Rc::new(core), listener, plan.slots, plan.end)))
}

/// Serves until told to end; returns how many requests were still running then.
async fn run_core(
    core: Rc<Core>,
    listener: TcpListener,
    slots: Arc<Semaphore>,
    mut end: watch::Receiver<Option<Instant>>,
) -> usize {
    let connections = TaskTracker::new();
    let deadline = loop {
        let next = tokio::select! {
            biased;
            deadline = ended(&mut end) => break deadline,
            next = accept(&listener, &slots) => next,
        };
        let (stream, peer, slot) = next;
        let core = Rc::clone(&core);
        connections.spawn_local(async move {
            core.metrics().shared().connections.inc();
            let _open = OpenConnection { core: Rc::clone(&core), _slot: slot };
            connection::serve(core, stream, peer).await;
        });
    };
    drop(listener);
    core.draining().cancel();
    connections.close();
    tokio::select! {
        () = connections.wait() => {}
        () = sleep_until(deadline.into()) => {}
    }
    core.running()
}

/// When the core is to have ended, as soon as that is said.
async fn ended(end: &mut watch::Receiver<Option<Instant>>) -> Instant {
    match end.wait_for(Option::is_some).await {
        Ok(deadline) => deadline.unwrap_or_else(Instant::now),
        Err(_) => Instant::now(),
    }
}

/// The next connection for which there is room.
async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> (TcpStream, SocketAddr, OwnedSemaphorePermit) {
    let mut pause = Duration::from_millis(5);
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let slot = Arc::clone(slots).acquire_owned().await.expect("the semaphore is never closed");
                return (stream, peer, slot);
            }
            // The client went away between its handshake and now.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                tracing::warn!(%error, ?pause, "cannot accept connections; trying again");
                sleep(pause).await;
                pause = (pause * 2).min(Duration::from_millis(limits::ACCEPT_BACKOFF_MS_MAX));
            }
        }
    }
}

struct OpenConnection {
    core: Rc<Core>,
    _slot: OwnedSemaphorePermit,
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.core.metrics().shared().connections.dec();
    }
}

/// hyper, as every connection of a core uses it.
pub(crate) type Http = auto::Builder<OnThisCore>;

/// Runs HTTP/2 streams on the connection's core.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OnThisCore;

impl<F> Executor<F> for OnThisCore
where
    F: Future<Output: 'static> + 'static,
{
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}

fn http() -> Http {
    let mut http = auto::Builder::new(OnThisCore);
    // Not set: `max_headers`, whose default is REQUEST_HEADERS_MAX and spares an allocation; `pipeline_flush`,
    // which holds an answer back while bytes of the request's body lie unread. Timeouts are `watch`'s.
    http.http1().header_read_timeout(None).max_buf_size(limits::REQUEST_HEAD_BYTES_MAX);
    http.http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(Duration::from_millis(limits::H2_PING_INTERVAL_MS))
        .keep_alive_timeout(Duration::from_millis(limits::H2_PING_TIMEOUT_MS))
        .max_concurrent_streams(limits::H2_STREAMS_MAX)
        .max_header_list_size(limits::H2_HEADER_LIST_BYTES_MAX)
        .max_send_buf_size(limits::H2_SEND_BUFFER_BYTES_MAX)
        .max_pending_accept_reset_streams(limits::H2_RESETS_PENDING_MAX)
        .max_local_error_reset_streams(limits::H2_RESETS_LOCAL_MAX);
    http
}
