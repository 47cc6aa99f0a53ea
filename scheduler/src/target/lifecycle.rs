//! A target's instances: starting, thawing, freezing, stopping them as the pool and the autoscaler decided, and telling
//! the pool how it went. Runs on the control runtime only.

use super::{Gate, Shared, Snapshot, State, Target};
use crate::{
    autoscale::{Decision, Observed, tick_ms},
    error::AcquireError,
    fleet::{InstanceExit, RunningInstance, StartReport},
    metrics::Scaling,
    place,
    queue::{Member, MemberState, Raise, Readiness, ReadyBy},
};
use neap_sdk::InstanceId;
use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::time::Instant;

/// What a look at a target led to.
#[derive(Debug, Default)]
struct Steps {
    raise: Raise,
    freeze: Vec<InstanceId>,
    stop: Vec<InstanceId>,
    scaled: Option<Scaling>,
}

impl Target {
    /// One look of the driver: lets the autoscaler decide when it is due, and carries out what was decided.
    /// Answers when to look again; `None` when there is nothing to look at.
    pub(crate) fn look(self: &Arc<Self>, now: Instant) -> Option<Instant> {
        let now_ms = self.shared.millis(now);
        let mut state = self.lock();
        let mut steps = Steps::default();
        if state.gate != Gate::Gone {
            self.decide(&mut state, now_ms, &mut steps);
        } else {
            state.pool.lower(0);
            state.look_at_ms = now_ms + tick_ms(&self.scale);
        }
        steps.stop = state.pool.take_stoppable();
        let idle = state.pool.members().is_empty() && state.pool.starting() == 0 && state.pool.queued() == 0;
        let minimum = self.scale.instances_min > 0 && state.gate == Gate::Open && self.has_traffic();
        let watched = !idle || minimum;
        let again_ms = state.look_at_ms.saturating_sub(now_ms).max(1);
        drop(state);
        self.execute(steps);
        watched.then(|| now + Duration::from_millis(again_ms))
    }

    fn decide(&self, state: &mut State, now_ms: u64, steps: &mut Steps) {
        let may_start = state.gate != Gate::Gone && state.backoff.remaining_ms(now_ms).is_none();
        if may_start && state.pool.queued() > 0 {
            // Somebody waits although an instance went away or a pause has ended.
            steps.raise = self.press(state, now_ms);
        }
        if now_ms < state.look_at_ms {
            return;
        }
        state.look_at_ms = now_ms + tick_ms(&self.scale);
        if !self.has_traffic() {
            // What was started for a deployment is leased by it, so it is not idle.
            state.pool.lower_idle(0);
            return;
        }
        let seen = observe(state);
        let decision = state.scaler.decide(now_ms, &self.scale, seen);
        steps.scaled = match decision {
            Decision::Stay => None,
            Decision::Raise(want) if may_start && state.gate == Gate::Open => {
                let raise = state.pool.raise(want);
                let raised = raise != Raise::default();
                steps.raise.start += raise.start;
                steps.raise.thaw.extend(raise.thaw);
                raised.then_some(Scaling::Up)
            }
            Decision::Raise(_) => None,
            Decision::Lower(want) => state.pool.lower(want).then_some(Scaling::Down),
            Decision::Idle(want) => {
                let decision = if want == 0 { Scaling::Zero } else { Scaling::Down };
                state.pool.lower_idle(want).then_some(decision)
            }
            Decision::Freeze(keep) => {
                steps.freeze = state.pool.take_freezable(keep);
                (!steps.freeze.is_empty()).then_some(Scaling::Freeze)
            }
        };
    }

    fn execute(self: &Arc<Self>, steps: Steps) {
        if let Some(decision) = steps.scaled {
            self.shared.metrics.scaled(decision);
        }
        self.carry_out(steps.raise);
        for instance in steps.freeze {
            self.spawn(Self::freeze(Arc::clone(self), instance));
        }
        for instance in steps.stop {
            self.spawn(Self::stop(Arc::clone(self), instance));
        }
    }

    /// Starts and thaws what the pool planned.
    pub(super) fn carry_out(self: &Arc<Self>, raise: Raise) {
        for instance in raise.thaw {
            self.shared.metrics.scaled(Scaling::Thaw);
            self.spawn(Self::thaw(Arc::clone(self), instance));
        }
        for _ in 0..raise.start {
            let planned = PlannedStart { target: Some(Arc::clone(self)) };
            self.spawn(planned.run());
        }
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.shared.tasks.spawn_on(task, &self.shared.control);
    }

    async fn start(self: &Arc<Self>) -> Result<StartReport, String> {
        let permit = self.shared.starts.acquire().await;
        let _permit = permit.map_err(|_| "the server is stopping".to_owned())?;
        let nodes = self.shared.fleet.nodes();
        let need_bytes = if self.scale.freezes { self.spec.memory_bytes } else { 0 };
        let node = place::choose(&nodes, need_bytes)
            .ok_or_else(|| format!("no node has {need_bytes} bytes of memory left for another instance"))?;
        let patience_ms = self.start_timeout_ms();
        let start = self.shared.fleet.start(node, self.order.clone());
        match tokio::time::timeout(Duration::from_millis(patience_ms), start).await {
            Ok(started) => started.map_err(|failure| failure.text),
            Err(_) => Err(format!("it was not ready within {patience_ms} ms")),
        }
    }

    fn start_succeeded(self: &Arc<Self>, report: StartReport) {
        let now = Instant::now();
        let member = Member {
            id: report.instance,
            state: MemberState::Ready,
            in_flight: 0,
            readiness: Readiness { by: ReadyBy::Start, at: now, took: report.took },
            started: now,
            started_at_ms: unix_ms().saturating_sub(report.took.as_millis() as u64),
            start_us: Some(report.took.as_micros() as u64),
            pid: report.pid,
        };
        let mut state = self.lock();
        state.backoff.succeeded();
        state.failure = None;
        let grants = state.pool.start_succeeded(member);
        drop(state);
        self.hand_out(grants);
        self.shared.wake(self);
    }

    fn start_ended_badly(self: &Arc<Self>, text: String) {
        tracing::warn!(revision = %self.revision, reason = %text, "an instance did not start");
        let now_ms = self.shared.millis(Instant::now());
        let mut state = self.lock();
        state.backoff.failed(now_ms);
        state.failure = Some(text.into());
        let hopeless = !state.pool.start_failed();
        let waiters = if hopeless { state.pool.take_queue() } else { Vec::new() };
        let retry_after = state.backoff.remaining_ms(now_ms).map(Duration::from_millis);
        let error = self.start_failed(&state, retry_after);
        drop(state);
        self.turn_away(waiters, &error);
        self.shared.wake(self);
    }

    async fn thaw(self: Arc<Self>, instance: InstanceId) {
        let began = Instant::now();
        let outcome = self.shared.fleet.thaw(instance).await;
        let now = Instant::now();
        match outcome {
            Ok(()) => {
                let readiness = Readiness { by: ReadyBy::Thaw, at: now, took: now - began };
                let grants = self.lock().pool.thawed(instance, readiness);
                self.hand_out(grants);
            }
            Err(error) => {
                tracing::warn!(revision = %self.revision, %instance, %error, "an instance did not thaw; it is replaced");
                self.lock().pool.thaw_failed(instance);
                self.shared.wake(&self);
            }
        }
    }

    async fn freeze(self: Arc<Self>, instance: InstanceId) {
        let outcome = self.shared.fleet.freeze(instance).await;
        if let Err(error) = &outcome {
            tracing::debug!(revision = %self.revision, %instance, %error, "an idle instance could not be frozen");
        }
        let grants = self.lock().pool.freeze_ended(instance, outcome.is_ok());
        self.hand_out(grants);
        // Requests that came in between wait for the thaw.
        self.shared.wake(&self);
    }

    async fn stop(self: Arc<Self>, instance: InstanceId) {
        self.shared.fleet.stop(instance).await;
        self.lock().pool.remove(instance);
        self.shared.wake(&self);
    }

    /// An instance ended on its own.
    pub(crate) fn exited(&self, exit: &InstanceExit) {
        let now = Instant::now();
        let now_ms = self.shared.millis(now);
        let mut state = self.lock();
        let Some(member) = state.pool.remove(exit.instance) else { return };
        if matches!(member.state, MemberState::Draining | MemberState::Stopping) {
            return;
        }
        state.backoff.ended(now_ms, now.saturating_duration_since(member.started).as_millis() as u64);
        state.failure = Some(exit.reason.as_str().into());
        // The minimum is restored now, not at the next tick.
        state.look_at_ms = now_ms;
        let pause = state.backoff.remaining_ms(now_ms).map(Duration::from_millis);
        let hopeless = pause.is_some() && !state.pool.has_hope();
        let waiters = if hopeless { state.pool.take_queue() } else { Vec::new() };
        let error = self.start_failed(&state, pause);
        drop(state);
        tracing::warn!(revision = %self.revision, instance = %exit.instance, reason = %exit.reason, "an instance ended on its own");
        self.turn_away(waiters, &error);
    }

    /// Takes over an instance that is up already, as after a restart.
    pub(crate) fn adopt(self: &Arc<Self>, running: &RunningInstance) {
        let now = Instant::now();
        let member = Member {
            id: running.instance,
            state: if running.frozen { MemberState::Frozen } else { MemberState::Ready },
            in_flight: 0,
            readiness: Readiness { by: ReadyBy::Start, at: now, took: Duration::ZERO },
            started: now,
            started_at_ms: running.started_at_ms,
            start_us: None,
            pid: running.pid,
        };
        let now_ms = self.shared.millis(now);
        let mut state = self.lock();
        // What ran before a restart was needed: it is not shrunk before there is an average again.
        state.scaler.pressed(now_ms);
        let grants = state.pool.adopt(member);
        drop(state);
        self.hand_out(grants);
    }

    /// Drops members that the fleet no longer has: for a reader that missed exits.
    pub(crate) fn reconcile(&self, running: impl Fn(InstanceId) -> bool) {
        let known: Vec<InstanceId> = self.lock().pool.members().iter().map(|member| member.id).collect();
        for instance in known.into_iter().filter(|instance| !running(*instance)) {
            let reason = "it ended on its own".to_owned();
            self.exited(&InstanceExit { instance, revision: self.revision.clone(), reason });
        }
    }

    /// Whether the revision is meant to serve; only such ones keep their minimum up.
    fn has_traffic(&self) -> bool {
        self.traffic.load(Ordering::Relaxed)
    }

    /// Tells whether routes lead here now.
    pub(crate) fn set_traffic(self: &Arc<Self>, traffic: bool) {
        if self.traffic.swap(traffic, Ordering::Relaxed) != traffic {
            self.shared.wake(self);
        }
    }

    /// Allows the next start whatever failed before: what was missing may be there now.
    pub(crate) fn forgive(&self) {
        self.lock().backoff.forgive();
    }

    /// Refuses new requests because the server stops; whoever is in may finish.
    pub(crate) fn drain(&self) {
        self.lock().gate = Gate::Draining;
    }

    /// The revision is no more: nobody enters, waiters are turned away, what runs may finish.
    pub(crate) fn retire(self: &Arc<Self>) {
        let mut state = self.lock();
        state.gate = Gate::Gone;
        let waiters = state.pool.take_queue();
        drop(state);
        self.turn_away(waiters, &AcquireError::Gone { revision: self.revision.clone() });
        self.shared.wake(self);
    }

    /// Whether no request runs or waits.
    pub(crate) fn is_quiet(&self) -> bool {
        let state = self.lock();
        state.pool.in_flight() == 0 && state.pool.queued() == 0
    }

    /// What the API shows.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let state = self.lock();
        Snapshot {
            members: state.pool.members().to_vec(),
            starting: state.pool.starting(),
            queued: state.pool.queued() as u64,
            failure: state.failure.clone(),
        }
    }
}

/// A start that the pool counts on. However it ends, even by a panic, the pool hears of it.
struct PlannedStart {
    target: Option<Arc<Target>>,
}

impl PlannedStart {
    async fn run(mut self) {
        let Some(target) = self.target.clone() else { return };
        let outcome = target.start().await;
        self.target = None;
        match outcome {
            Ok(report) => target.start_succeeded(report),
            Err(text) => target.start_ended_badly(text),
        }
    }
}

impl Drop for PlannedStart {
    fn drop(&mut self) {
        if let Some(target) = self.target.take() {
            target.start_ended_badly("its start was given up".to_owned());
        }
    }
}

fn observe(state: &State) -> Observed {
    Observed {
        in_flight: state.pool.in_flight(),
        queued: state.pool.queued() as u32,
        instances: state.pool.alive() + state.pool.starting(),
        granted: state.pool.granted(),
    }
}

/// The wall clock, for people only: nothing is decided by it.
pub(crate) fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

impl Shared {
    /// Lets no further start begin.
    pub(crate) fn close_starts(&self) {
        self.starts.close();
    }
}
