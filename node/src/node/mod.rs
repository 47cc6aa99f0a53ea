//! The node itself: one cheap handle through which others start, call, freeze, stop and look at instances.
//! Wires the parts and holds no rule: what an instance may do is in [`crate::instance`], what fits in
//! [`crate::capacity`].

mod types;

pub use types::{
    FreezeFailure, InstanceExit, InstanceInfo, NodeSettings, OpenError, Runtimes, StartFailure, StartOrder,
    StartReport,
};

use crate::{
    Artifact, Body, CallError, InvocationCall, Ledger, LogStore, Runtime,
    call::invoke::invoke,
    capacity::{self, Capacity},
    instance::{
        State,
        driver::{self, COMMANDS_QUEUED_MAX, Command, Driver, FreezeRequestError},
        gate::Gate,
        pool::{Cell, Pool},
    },
    meter::{LedgerSettings, recorder::now_ms},
    metrics::Metrics,
    runtime::{PrepareError, Start},
};
use futures_util::future::join_all;
use http::{Request, Response};
use neap_sdk::{FunctionSpec, InstanceId, artifact::ArtifactKind, limits};
use prometheus_client::registry::Registry;
use std::{
    fmt,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::sync::{broadcast, mpsc, watch};
use tokio_util::sync::CancellationToken;

/// Exits that a slow listener may have outstanding; one that lags more reads the table again.
const EXITS_QUEUED_MAX: usize = 256;

/// Every instance on this machine. Cheap to clone.
#[derive(Clone)]
pub struct Node {
    shared: Arc<Shared>,
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("instances", &self.shared.pool.all().len()).finish_non_exhaustive()
    }
}

/// What the node's parts share.
pub(crate) struct Shared {
    pub(crate) pool: Pool,
    pub(crate) metrics: Metrics,
    pub(crate) ledger: Ledger,
    pub(crate) exits: broadcast::Sender<InstanceExit>,
    logs: LogStore,
    runtimes: Runtimes,
    capacity: Mutex<Capacity>,
    next_instance: AtomicU64,
    draining: AtomicBool,
    /// Where drivers run: the control plane, whoever asks for a start.
    control: tokio::runtime::Handle,
}

impl Shared {
    fn capacity(&self) -> std::sync::MutexGuard<'_, Capacity> {
        self.capacity.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives back what an instance held.
    pub(crate) fn release(&self, cell: &Cell) {
        self.capacity().release(held_bytes(cell.kind, &cell.spec));
    }

    /// A reason and the last lines of the instance's log, one below the other.
    pub(crate) fn with_last_lines(&self, cell: &Cell, reason: &str) -> String {
        cell.logs.flush();
        let lines = self.logs.last_lines(&cell.revision, cell.id, limits::LOG_LINES_SHOWN_ON_FAILURE);
        lines.iter().fold(reason.to_owned(), |text, line| format!("{text}\n{}", line.text))
    }

    fn runtime(&self, kind: ArtifactKind) -> Result<&Arc<dyn Runtime>, String> {
        match kind {
            ArtifactKind::WasmComponent | ArtifactKind::WasmModule => self
                .runtimes
                .wasm
                .as_ref()
                .ok_or_else(|| "the Wasm runtime is not part of this node".to_owned()),
            ArtifactKind::Image => self.runtimes.oci.as_ref().map_err(Clone::clone),
        }
    }
}

/// A container holds its memory as long as it lives. A Wasm program holds none: each call brings its own, and
/// the engine's pool limits those.
fn held_bytes(kind: ArtifactKind, spec: &FunctionSpec) -> u64 {
    match kind {
        ArtifactKind::WasmComponent | ArtifactKind::WasmModule => 0,
        ArtifactKind::Image => spec.memory_bytes,
    }
}

impl Node {
    /// Opens the node's files. Instances are soft state: a node begins with none.
    ///
    /// # Errors
    /// A folder or file cannot be used.
    ///
    /// # Panics
    /// Outside of a tokio runtime; drivers run on the one it is called in.
    pub fn open(
        settings: NodeSettings,
        runtimes: Runtimes,
        metrics: &mut Registry,
    ) -> Result<Self, OpenError> {
        let metrics = Metrics::register(metrics);
        let total_bytes = match settings.memory_bytes {
            Some(bytes) => bytes,
            None => capacity::machine_memory_bytes().map_err(OpenError::Memory)?,
        };
        let ledger = Ledger::open(LedgerSettings::below(&settings.dir), metrics.ledger.clone());
        let shared = Shared {
            pool: Pool::default(),
            ledger: ledger.map_err(OpenError::Ledger)?,
            metrics,
            exits: broadcast::channel(EXITS_QUEUED_MAX).0,
            logs: LogStore::open(&settings.dir).map_err(OpenError::Logs)?,
            runtimes,
            capacity: Mutex::new(Capacity::new(total_bytes)),
            next_instance: AtomicU64::new(1),
            draining: AtomicBool::new(false),
            control: tokio::runtime::Handle::current(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Makes ready what can be made ready before the first request: compiles, or unpacks. Idempotent.
    ///
    /// # Errors
    /// The artifact cannot run here, with the reason.
    pub async fn prepare(&self, artifact: &Artifact) -> Result<(), PrepareError> {
        match self.shared.runtime(artifact.kind) {
            Ok(runtime) => runtime.prepare(artifact).await,
            Err(reason) => Err(PrepareError::Unavailable(format!(
                "this machine cannot run {} artifacts: {reason}",
                artifact.kind
            ))),
        }
    }

    /// Starts an instance and waits until it takes calls. Dropping the future gives the start up: what may have
    /// come of it is stopped.
    ///
    /// # Errors
    /// It did not start; nothing is left of it.
    pub async fn start(&self, order: StartOrder) -> Result<StartReport, StartFailure> {
        let kind = order.artifact.kind;
        if self.shared.draining.load(Ordering::Acquire) {
            return Err(StartFailure::Draining);
        }
        let runtime =
            self.shared.runtime(kind).map_err(|reason| StartFailure::Runtime { kind, reason })?.clone();
        self.shared.capacity().reserve(held_bytes(kind, &order.spec))?;
        let cell = self.launch(runtime, order);
        let mut unless_dropped = StopOnDrop { node: self, cell: Some(&cell) };
        let mut states = cell.state.subscribe();
        let begun = |state: &State| !matches!(state, State::Starting | State::Aborting);
        // The sender lives in the cell, so the wait cannot fail.
        let state = states.wait_for(begun).await.map_or(State::Stopped, |state| state.clone());
        unless_dropped.cell = None;
        match state {
            State::Failed(reason) => Err(StartFailure::Failed(self.shared.with_last_lines(&cell, &reason))),
            State::Stopping | State::Stopped => Err(StartFailure::Stopped),
            _ => Ok(StartReport {
                instance: cell.id,
                took: Duration::from_micros(cell.start_us.get().copied().unwrap_or_default()),
                pid: cell.running.get().and_then(|running| running.instance.pid()),
            }),
        }
    }

    fn launch(&self, runtime: Arc<dyn Runtime>, order: StartOrder) -> Arc<Cell> {
        let id = InstanceId(self.shared.next_instance.fetch_add(1, Ordering::Relaxed));
        let logs = self.shared.logs.writer(&order.revision, id);
        let (commands, queue) = mpsc::channel(COMMANDS_QUEUED_MAX);
        let cell = Arc::new(Cell {
            id,
            revision: Arc::new(order.revision.clone()),
            spec: order.spec.clone(),
            kind: order.artifact.kind,
            started_at_ms: now_ms(),
            gate: Arc::new(Gate::default()),
            commands,
            state: watch::Sender::new(State::Starting),
            start_us: OnceLock::new(),
            running: OnceLock::new(),
            logs: logs.clone(),
            ended: CancellationToken::new(),
            end_reason: OnceLock::new(),
        });
        self.shared.pool.insert(&cell);
        let driver = Driver::new(self.shared.clone(), cell.clone(), queue);
        let StartOrder { revision, artifact, spec } = order;
        self.shared
            .control
            .spawn(driver.run(runtime, Start { instance: id, revision, artifact, spec, logs }));
        cell
    }

    /// Handles one invocation, inline on the caller's task. Thaws the instance first where it is frozen. The
    /// function's `timeout_ms` holds for the whole: before the head it is an error here, after it an error of
    /// the body. Dropping the future or the body ends the work. Exactly one usage record is written for a call
    /// that began, before the last frame of the response is handed out.
    ///
    /// # Errors
    /// There is no response; [`CallError::began`] says whether the function may have seen the request.
    pub async fn call(
        &self,
        instance: InstanceId,
        request: Request<Body>,
        call: InvocationCall,
    ) -> Result<Response<Body>, CallError> {
        invoke(&self.shared, instance, request, call).await
    }

    /// Freezes an instance that handles no call; one that is frozen stays so.
    ///
    /// # Errors
    /// It is busy, gone, or the runtime could not; then it goes on taking calls.
    pub async fn freeze(&self, instance: InstanceId) -> Result<(), FreezeFailure> {
        let cell = self.shared.pool.get(instance).ok_or(FreezeFailure::NoInstance(instance))?;
        match driver::freeze(&cell).await {
            Ok(State::Frozen) => Ok(()),
            Ok(state) => {
                Err(FreezeFailure::Busy { instance, state: state.name(), in_flight: cell.gate.inside() })
            }
            Err(FreezeRequestError::Gone) => Err(FreezeFailure::NoInstance(instance)),
            Err(FreezeRequestError::Runtime(error)) => Err(FreezeFailure::Runtime(error.0)),
        }
    }

    /// Thaws an instance; one that takes calls already stays so. Calls thaw by themselves.
    ///
    /// # Errors
    /// It is gone, ending, or the runtime could not; then it is lost.
    pub async fn thaw(&self, instance: InstanceId) -> Result<(), FreezeFailure> {
        let cell = self.shared.pool.get(instance).ok_or(FreezeFailure::NoInstance(instance))?;
        match cell.enter().await {
            Ok(_ticket) => Ok(()),
            Err(CallError::NotReady { instance, state }) => {
                Err(FreezeFailure::Busy { instance, state, in_flight: cell.gate.inside() })
            }
            Err(CallError::Thaw { reason, .. }) => Err(FreezeFailure::Runtime(reason)),
            Err(_) => Err(FreezeFailure::NoInstance(instance)),
        }
    }

    /// Stops an instance: calls in flight get [`limits::DRAIN_TIMEOUT_MS`], its processes then
    /// [`limits::STOP_GRACE_MS`]. Returns when nothing of it is left; dropping the future does not undo it. One
    /// that is gone already is fine.
    pub async fn stop(&self, instance: InstanceId) {
        if let Some(cell) = self.shared.pool.get(instance) {
            stop(&cell, Duration::from_millis(limits::DRAIN_TIMEOUT_MS)).await;
        }
    }

    /// Tells of instances that end by themselves. A listener that lags reads [`Node::instances`] again.
    pub fn exits(&self) -> broadcast::Receiver<InstanceExit> {
        self.shared.exits.subscribe()
    }

    /// Every instance that is not gone, by id.
    pub fn instances(&self) -> Vec<InstanceInfo> {
        let cells = self.shared.pool.all();
        let mut infos: Vec<_> = cells.values().map(|cell| info(cell)).collect();
        infos.sort_unstable_by_key(|info| info.instance);
        infos
    }

    /// How much memory there is to give, and how much of it is given.
    pub fn capacity(&self) -> Capacity {
        self.shared.capacity().clone()
    }

    /// What functions wrote.
    pub fn logs(&self) -> &LogStore {
        &self.shared.logs
    }

    /// What functions used.
    pub fn usage(&self) -> &Ledger {
        &self.shared.ledger
    }

    /// Starts nothing more and stops everything: calls in flight get `grace`, processes then
    /// [`limits::STOP_GRACE_MS`]. Returns when nothing is left, or when it has taken twice as long as it may.
    pub async fn shutdown(&self, grace: Duration) {
        self.shared.draining.store(true, Ordering::Release);
        let cells = self.shared.pool.all();
        let all = join_all(cells.values().map(|cell| stop(cell, grace)));
        let patience = (grace + Duration::from_millis(limits::STOP_GRACE_MS)) * 2;
        if tokio::time::timeout(patience, all).await.is_err() {
            tracing::error!(left = self.shared.pool.all().len(), "some instances did not stop in time");
        }
    }
}

async fn stop(cell: &Cell, drain: Duration) {
    let grace = Duration::from_millis(limits::STOP_GRACE_MS);
    // Fails only when the driver is gone, and then so is the instance.
    let _ = cell.commands.send(Command::Stop { drain, grace }).await;
    let _ = cell.state.subscribe().wait_for(State::is_final).await;
}

fn info(cell: &Cell) -> InstanceInfo {
    InstanceInfo {
        instance: cell.id,
        revision: (*cell.revision).clone(),
        kind: cell.kind,
        state: cell.state.borrow().clone(),
        in_flight: cell.gate.inside(),
        started_at_ms: cell.started_at_ms,
        start_us: cell.start_us.get().copied(),
        pid: cell.running.get().and_then(|running| running.instance.pid()),
    }
}

/// Gives a start up whose future was dropped.
struct StopOnDrop<'a> {
    node: &'a Node,
    cell: Option<&'a Arc<Cell>>,
}

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        if let Some(cell) = self.cell.cloned() {
            self.node.shared.control.spawn(async move { stop(&cell, Duration::ZERO).await });
        }
    }
}
