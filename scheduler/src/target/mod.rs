//! One revision at run time: its pool behind one short lock, its waiters, its starts. Requests enter here; the driver
//! looks in from time to time.
//!
//! Decisions are the pure [`crate::queue::Pool`]'s and [`crate::autoscale`]'s; this adds the lock, the clock and the
//! tasks. The lock is never held across an await, nor while a slot is dropped.

mod lifecycle;

pub(crate) use lifecycle::unix_ms;

use crate::{
    autoscale::{self, Autoscaler, Backoff, ScaleSpec},
    error::AcquireError,
    fleet::{Fleet, StartOrder},
    lease::{Lease, Slot},
    metrics::Metrics,
    queue::{Grant, Member, MemberState, Pool, PoolLimits, Raise, Ticket},
};
use neap_sdk::{
    Digest, FunctionSpec, InstanceId, RevisionId,
    artifact::{ArtifactKind, Repository},
    limits,
};
use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    runtime::Handle,
    sync::{Notify, Semaphore, oneshot},
    time::Instant,
};
use tokio_util::task::TaskTracker;

/// What every target shares.
pub(crate) struct Shared {
    pub fleet: Arc<dyn Fleet>,
    pub metrics: Metrics,
    /// Wakes the driver, which then takes `attention`.
    pub awake: Notify,
    /// Targets that the driver should look at; each at most once.
    attention: Mutex<Vec<Arc<Target>>>,
    /// Where starts run: never on the runtime of a request.
    pub control: Handle,
    /// Starts, thaws, freezes and stops under way.
    pub tasks: TaskTracker,
    starts: Semaphore,
    epoch: Instant,
}

impl Shared {
    pub fn new(fleet: Arc<dyn Fleet>, metrics: Metrics, control: Handle) -> Self {
        Self {
            fleet,
            metrics,
            awake: Notify::new(),
            attention: Mutex::new(Vec::new()),
            control,
            tasks: TaskTracker::new(),
            starts: Semaphore::new(limits::STARTS_CONCURRENT_MAX),
            epoch: Instant::now(),
        }
    }

    /// Asks the driver to look at a target soon.
    pub fn wake(&self, target: &Arc<Target>) {
        if !target.noticed.swap(true, Ordering::AcqRel) {
            self.attention.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(target));
            self.awake.notify_one();
        }
    }

    /// The targets that asked for a look since the last call.
    pub fn take_attention(&self) -> Vec<Arc<Target>> {
        let targets = std::mem::take(&mut *self.attention.lock().unwrap_or_else(PoisonError::into_inner));
        // From here on a target that changes asks again, so that no change is missed.
        targets.iter().for_each(|target| target.noticed.store(false, Ordering::Release));
        targets
    }

    /// Milliseconds since this scheduler began; what the pure parts are told as the time.
    pub fn millis(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.epoch).as_millis() as u64
    }
}

/// What a waiter gets in the end.
type Handed = Result<(Slot, Grant), AcquireError>;

type Waiter = oneshot::Sender<Handed>;

/// Whether requests may enter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gate {
    Open,
    /// The server stops: whoever is in may finish.
    Draining,
    /// The revision is no more.
    Gone,
}

struct State {
    gate: Gate,
    pool: Pool<Waiter>,
    scaler: Autoscaler,
    backoff: Backoff,
    failure: Option<Arc<str>>,
    /// When the autoscaler looks next.
    look_at_ms: u64,
}

/// One revision that requests can be sent to.
pub struct Target {
    /// Which.
    pub revision: RevisionId,
    /// How it is run.
    pub spec: Arc<FunctionSpec>,
    order: StartOrder,
    scale: ScaleSpec,
    /// Set where no revision of the function ever worked: whoever enters is told why this one did not.
    reports_for: Option<Arc<Target>>,
    /// Whether routes lead here.
    traffic: AtomicBool,
    /// Whether it waits for a look of the driver.
    noticed: AtomicBool,
    state: Mutex<State>,
    shared: Arc<Shared>,
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Target({})", self.revision)
    }
}

/// What the API shows of a target.
pub(crate) struct Snapshot {
    pub members: Vec<Member>,
    pub starting: u32,
    pub queued: u64,
    pub failure: Option<Arc<str>>,
}

impl Target {
    pub(crate) fn new(
        revision: RevisionId,
        artifact: (Repository, Digest, ArtifactKind),
        spec: Arc<FunctionSpec>,
        shared: Arc<Shared>,
    ) -> Self {
        let (repository, digest, kind) = artifact;
        let (scale, pool_limits) = scaling(kind, &spec);
        let order =
            StartOrder { revision: revision.clone(), repository, digest, kind, spec: Arc::clone(&spec) };
        let now_ms = shared.millis(Instant::now());
        let state = State {
            gate: Gate::Open,
            pool: Pool::new(pool_limits),
            scaler: Autoscaler::new(now_ms),
            backoff: Backoff::default(),
            failure: None,
            look_at_ms: 0,
        };
        Self {
            revision,
            spec,
            order,
            scale,
            reports_for: None,
            traffic: AtomicBool::new(false),
            noticed: AtomicBool::new(false),
            state: Mutex::new(state),
            shared,
        }
    }

    /// A target that serves nobody and tells why `broken`, of which it is a stand-in, did not start.
    pub(crate) fn reporting(broken: &Arc<Self>) -> Self {
        let order = &broken.order;
        let artifact = (order.repository.clone(), order.digest, order.kind);
        let target = Self::new(
            broken.revision.clone(),
            artifact,
            Arc::clone(&broken.spec),
            Arc::clone(&broken.shared),
        );
        Self { reports_for: Some(Arc::clone(broken)), ..target }
    }

    /// How long one start may take.
    fn start_timeout_ms(&self) -> u64 {
        self.spec.startup_timeout_ms + limits::START_OVERHEAD_MS_MAX
    }

    pub(crate) fn fleet(&self) -> &dyn Fleet {
        &*self.shared.fleet
    }

    // ---- requests -------------------------------------------------------------------------------------------

    /// A lease at once, or after a wait. See [`crate::Scheduler::acquire`].
    pub(crate) async fn acquire(self: &Arc<Self>) -> Result<Lease, AcquireError> {
        if let Some(slot) = self.enter()? {
            return Ok(Lease::warm(slot));
        }
        self.wait(Duration::from_millis(limits::QUEUE_WAIT_MS_MAX), false).await
    }

    /// Waits for one instance to be ready, and starts one in spite of a back-off. For deployments, which hold the
    /// lease until traffic leads here.
    pub(crate) async fn ensure_ready(self: &Arc<Self>) -> Result<Lease, AcquireError> {
        if let Some(slot) = self.enter()? {
            return Ok(Lease::warm(slot));
        }
        // Longer than a start may take, so that it is the start's own reason that is told.
        let patience_ms = self.start_timeout_ms() + limits::QUEUE_WAIT_MS_MAX;
        self.wait(Duration::from_millis(patience_ms), true).await
    }

    /// The warm path: one short lock, no clock, no allocation.
    fn enter(self: &Arc<Self>) -> Result<Option<Slot>, AcquireError> {
        let mut state = self.lock();
        self.check_gate(state.gate)?;
        if state.pool.queued() > 0 {
            return Ok(None);
        }
        let grant = state.pool.try_acquire();
        drop(state);
        Ok(grant.map(|grant| Slot::new(Arc::clone(self), grant)))
    }

    async fn wait(self: &Arc<Self>, patience: Duration, force: bool) -> Result<Lease, AcquireError> {
        let since = Instant::now();
        let (place, handed) = match self.queue_up(since, force)? {
            Queued::Served(slot, grant) => return Ok(Lease::waited_for(slot, grant, since, since)),
            Queued::Waiting(place, handed) => (place, handed),
        };
        let outcome = tokio::time::timeout(patience, handed).await;
        drop(place);
        match outcome {
            Ok(Ok(Ok((slot, grant)))) => Ok(Lease::waited_for(slot, grant, since, Instant::now())),
            Ok(Ok(Err(error))) => Err(error),
            // The sender is only dropped unused with the target itself.
            Ok(Err(_)) => Err(AcquireError::Gone { revision: self.revision.clone() }),
            Err(_) => {
                Err(AcquireError::QueueTimeout { revision: self.revision.clone(), waited: since.elapsed() })
            }
        }
    }

    fn queue_up(self: &Arc<Self>, since: Instant, force: bool) -> Result<Queued, AcquireError> {
        if let Some(broken) = &self.reports_for {
            return Err(broken.start_failed_error(None));
        }
        let now_ms = self.shared.millis(since);
        let mut state = self.lock();
        self.check_gate(state.gate)?;
        if state.pool.queued() == 0
            && let Some(grant) = state.pool.try_acquire()
        {
            drop(state);
            return Ok(Queued::Served(Slot::new(Arc::clone(self), grant), grant));
        }
        let retry_after_ms = state.backoff.remaining_ms(now_ms).filter(|_| !force);
        if let Some(wait_ms) = retry_after_ms
            && !state.pool.has_hope()
        {
            return Err(self.start_failed(&state, Some(Duration::from_millis(wait_ms))));
        }
        let (tell, handed) = oneshot::channel();
        let Ok(ticket) = state.pool.enqueue(tell) else {
            return Err(AcquireError::QueueFull { revision: self.revision.clone() });
        };
        self.shared.metrics.queue_changed(1);
        let raise = if retry_after_ms.is_none() { self.press(&mut state, now_ms) } else { Raise::default() };
        drop(state);
        self.carry_out(raise);
        Ok(Queued::Waiting(Place { target: Arc::clone(self), ticket }, handed))
    }

    /// Plans instances for everybody who runs and waits.
    fn press(&self, state: &mut State, now_ms: u64) -> Raise {
        state.scaler.pressed(now_ms);
        let requests = state.pool.in_flight() + state.pool.queued() as u32;
        state.pool.raise(autoscale::wanted_now(requests, &self.scale).max(1))
    }

    /// Gives a slot back, to the next waiter if there is one.
    pub(crate) fn release(self: &Arc<Self>, instance: InstanceId) {
        let mut instance = instance;
        // A waiter may have left just now: then its slot goes on to the next one.
        loop {
            let mut state = self.lock();
            let next = state.pool.release(instance);
            let leaving = state.pool.count(MemberState::Draining) > 0;
            drop(state);
            if leaving {
                self.shared.wake(self);
            }
            let Some((waiter, grant)) = next else { return };
            match self.hand_over(waiter, grant) {
                Ok(()) => return,
                Err(slot) => {
                    // Taken apart instead of dropped, so that a row of absent waiters costs no stack.
                    instance = slot.dissolve();
                }
            }
        }
    }

    fn hand_over(self: &Arc<Self>, waiter: Waiter, grant: Grant) -> Result<(), Slot> {
        self.shared.metrics.queue_changed(-1);
        let slot = Slot::new(Arc::clone(self), grant);
        match waiter.send(Ok((slot, grant))) {
            Err(Ok((slot, _))) => Err(slot),
            Ok(()) | Err(Err(_)) => Ok(()),
        }
    }

    fn hand_out(self: &Arc<Self>, grants: Vec<(Waiter, Grant)>) {
        for (waiter, grant) in grants {
            if let Err(slot) = self.hand_over(waiter, grant) {
                drop(slot);
            }
        }
    }

    fn turn_away(&self, waiters: Vec<Waiter>, error: &AcquireError) {
        self.shared.metrics.queue_changed(-(waiters.len() as i64));
        for waiter in waiters {
            // A waiter that left needs no answer.
            let _ = waiter.send(Err(error.clone()));
        }
    }

    fn check_gate(&self, gate: Gate) -> Result<(), AcquireError> {
        match gate {
            Gate::Open => Ok(()),
            Gate::Draining => Err(AcquireError::Draining),
            Gate::Gone => Err(AcquireError::Gone { revision: self.revision.clone() }),
        }
    }

    fn start_failed(&self, state: &State, retry_after: Option<Duration>) -> AcquireError {
        let reason = state.failure.clone().unwrap_or_else(|| "no start of it has worked yet".into());
        AcquireError::StartFailed { revision: self.revision.clone(), reason, retry_after }
    }

    fn start_failed_error(&self, retry_after: Option<Duration>) -> AcquireError {
        self.start_failed(&self.lock(), retry_after)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is only changed by code that cannot panic half-way; a poisoned one is still whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Queued {
    Served(Slot, Grant),
    Waiting(Place, oneshot::Receiver<Handed>),
}

/// A place in the queue; leaves it when dropped.
struct Place {
    target: Arc<Target>,
    ticket: Ticket,
}

impl Drop for Place {
    fn drop(&mut self) {
        let left = self.target.lock().pool.cancel(self.ticket);
        self.target.shared.metrics.queue_changed(-i64::from(left));
    }
}

/// For containers an instance has `concurrency` slots. For Wasm, where each request gets an instance of its own, what
/// is "up" is the loaded program: once is enough, and it has the slots of all instances together.
fn scaling(kind: ArtifactKind, spec: &FunctionSpec) -> (ScaleSpec, PoolLimits) {
    let is_image = kind == ArtifactKind::Image;
    let slots_per_instance =
        if is_image { spec.concurrency } else { spec.concurrency.saturating_mul(spec.max_instances) };
    let instances_max = if is_image { spec.max_instances } else { 1 };
    let scale = ScaleSpec {
        slots_per_instance,
        instances_min: spec.min_instances.min(instances_max),
        instances_max,
        idle_timeout_ms: spec.idle_timeout_ms,
        freezes: is_image,
    };
    let pool_limits =
        PoolLimits { slots_per_instance, instances_max, queue_length_max: limits::QUEUE_LENGTH_MAX };
    (scale, pool_limits)
}
