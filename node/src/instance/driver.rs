//! The one task that owns an instance: it alone feeds the state machine, talks to the runtime about starting,
//! freezing and ending, and publishes the state. Calls do not pass through here.
//!
//! ```text
//!   commands ─┐
//!   exit ─────┼─▶ machine.on(event) ─▶ actions ─▶ gate, table, announcements
//!   operation ┘                          └──────▶ the next operation (at most one at a time)
//! ```
//!
//! It ends when the machine says `Forget`, which it does exactly once. Must not hold a rule of its own: what is
//! allowed when stands in [`super`].

use super::{
    Action, Event, Machine, State,
    pool::{Cell, Running},
};
use crate::{
    node::{InstanceExit, Shared},
    runtime::{FreezeError, Instance, Runtime, Start},
};
use futures_util::future::{BoxFuture, FutureExt, pending};
use neap_sdk::limits;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::{mpsc, oneshot};

/// What others may ask of an instance. A command that means nothing in its state is dropped.
#[derive(Debug)]
pub(crate) enum Command {
    /// Freeze it if no call is in flight; the answer is the state that it is in then, or what the runtime said.
    Freeze(oneshot::Sender<Result<State, FreezeError>>),
    /// Thaw it.
    Thaw,
    /// Let calls in flight finish within `drain`, then end it within `grace`.
    Stop {
        /// For calls in flight.
        drain: Duration,
        /// For its processes, after that.
        grace: Duration,
    },
}

/// Commands that wait for one instance; whoever comes later waits to send.
pub(crate) const COMMANDS_QUEUED_MAX: usize = 16;

/// A freezer that does not answer for so long is broken: the instance is treated as if it had failed to.
const FREEZE_TIMEOUT: Duration = Duration::from_secs(5);

type Operation = BoxFuture<'static, Event>;

pub(crate) struct Driver {
    shared: Arc<Shared>,
    cell: Arc<Cell>,
    commands: mpsc::Receiver<Command>,
    machine: Machine,
    instance: Option<Arc<dyn Instance>>,
    operation: Option<Operation>,
    exit: BoxFuture<'static, Event>,
    /// Who waits for the freeze that is going on.
    freezer: Option<oneshot::Sender<Result<State, FreezeError>>>,
    drain: Duration,
    grace: Duration,
    begun: Instant,
}

/// What a runtime's start comes to.
type Starting = BoxFuture<'static, Result<Box<dyn Instance>, String>>;

impl Driver {
    pub(crate) fn new(shared: Arc<Shared>, cell: Arc<Cell>, commands: mpsc::Receiver<Command>) -> Self {
        Self {
            shared,
            cell,
            commands,
            machine: Machine::default(),
            instance: None,
            operation: None,
            exit: pending().boxed(),
            freezer: None,
            drain: Duration::ZERO,
            grace: Duration::from_millis(limits::STOP_GRACE_MS),
            begun: Instant::now(),
        }
    }

    /// Starts the instance and lives as long as it does.
    pub(crate) async fn run(mut self, runtime: Arc<dyn Runtime>, start: Start) {
        let mut starting: Starting =
            async move { runtime.start(start).await.map_err(|error| error.to_string()) }.boxed();
        self.shared.metrics.entered(self.machine.state());
        let started = loop {
            tokio::select! {
                started = &mut starting => break started,
                Some(command) = self.commands.recv() => self.command(command),
            }
        };
        let event = match started {
            Ok(instance) => self.started(instance.into()),
            Err(reason) => Event::StartFailed(reason),
        };
        let mut forgotten = self.step(event);
        while !forgotten {
            forgotten = self.turn().await;
        }
    }

    fn started(&mut self, instance: Arc<dyn Instance>) -> Event {
        let took = self.begun.elapsed();
        let _ = self.cell.start_us.set(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
        let _ = self.cell.running.set(Running::new(instance.clone()));
        self.shared.metrics.started(self.cell.kind, took);
        let watched = instance.clone();
        self.exit = async move { Event::Exited(watched.exited().await.0) }.boxed();
        self.instance = Some(instance);
        Event::Started
    }

    /// Waits for the next thing to happen and handles it; true when it was the last.
    async fn turn(&mut self) -> bool {
        let state = self.machine.state();
        // A command waits until a freeze or a thaw is over, so that it meets a state it can mean something in.
        let listening = !matches!(state, State::Freezing | State::Thawing);
        let watching = !matches!(state, State::Stopping | State::Failed(_));
        let operation = self.operation.as_mut();
        tokio::select! {
            biased;
            event = &mut self.exit, if watching => {
                self.exit = pending().boxed();
                self.operation = None;
                self.step(event)
            }
            event = async { match operation { Some(operation) => operation.await, None => pending().await } } => {
                self.operation = None;
                self.step(event)
            }
            Some(command) = self.commands.recv(), if listening => {
                self.command(command);
                false
            }
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Freeze(answer) if self.cell.gate.close_if_empty() => {
                self.freezer = Some(answer);
                self.step(Event::Freeze);
            }
            Command::Freeze(answer) => {
                let _ = answer.send(Ok(self.machine.state().clone()));
            }
            Command::Thaw => {
                self.step(Event::Thaw);
            }
            Command::Stop { drain, grace } => {
                if matches!(self.machine.state(), State::Starting | State::Ready | State::Frozen) {
                    (self.drain, self.grace) = (drain, grace);
                }
                self.step(Event::Stop);
            }
        }
    }

    /// Feeds the machine and does what it says; true when the instance is forgotten.
    fn step(&mut self, event: Event) -> bool {
        let refused = match &event {
            Event::FreezeFailed(reason) => Some(FreezeError(reason.clone())),
            _ => None,
        };
        let before = self.machine.state().clone();
        let actions = self.machine.on(event);
        let forgotten = actions.contains(&Action::Forget);
        for action in actions {
            self.act(action);
        }
        let state = self.machine.state();
        if *state != before {
            tracing::debug!(instance = %self.cell.id, revision = %self.cell.revision, from = before.name(), to = state.name());
            self.shared.metrics.moved(&before, state);
            self.cell.state.send_replace(state.clone());
        }
        if before == State::Freezing
            && let Some(freezer) = self.freezer.take()
        {
            let _ = freezer.send(refused.map_or_else(|| Ok(state.clone()), Err));
        }
        forgotten
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::OpenGate => self.cell.gate.open(),
            Action::CloseGate => self.cell.gate.close(),
            Action::Freeze => self.operation = self.freezing(true),
            Action::Thaw => self.operation = self.freezing(false),
            Action::Drain => self.operation = Some(self.draining()),
            Action::FailCalls(reason) => {
                let _ = self.cell.end_reason.set(reason);
                self.cell.ended.cancel();
            }
            Action::Announce(reason) => self.announce(&reason),
            Action::Remove => self.operation = self.removing(),
            Action::Forget => {
                self.shared.pool.remove(self.cell.id);
                self.shared.release(&self.cell);
                self.shared.metrics.forgotten(self.machine.state());
            }
        }
    }

    fn freezing(&self, freeze: bool) -> Option<Operation> {
        let instance = self.instance.clone()?;
        let work = async move {
            let done = async { if freeze { instance.freeze().await } else { instance.thaw().await } };
            let result = match tokio::time::timeout(FREEZE_TIMEOUT, done).await {
                Ok(result) => result.map_err(|error| error.0),
                Err(_) => Err(format!("no answer within {} s", FREEZE_TIMEOUT.as_secs())),
            };
            match (freeze, result) {
                (true, Ok(())) => Event::Froze,
                (true, Err(reason)) => Event::FreezeFailed(reason),
                (false, Ok(())) => Event::Thawed,
                (false, Err(reason)) => Event::ThawFailed(reason),
            }
        };
        Some(work.boxed())
    }

    fn draining(&self) -> Operation {
        let (gate, drain) = (self.cell.gate.clone(), self.drain);
        async move {
            // Too late is as good as in time here: whoever is still inside is ended next.
            let _ = tokio::time::timeout(drain, gate.emptied()).await;
            Event::Drained
        }
        .boxed()
    }

    fn removing(&self) -> Option<Operation> {
        let (instance, grace) = (self.instance.clone()?, self.grace);
        let work = async move {
            instance.stop(grace).await;
            Event::Gone
        };
        Some(work.boxed())
    }

    fn announce(&self, reason: &str) {
        let reason = self.shared.with_last_lines(&self.cell, reason);
        tracing::warn!(instance = %self.cell.id, revision = %self.cell.revision, reason, "an instance ended by itself");
        let exit = InstanceExit { instance: self.cell.id, revision: (*self.cell.revision).clone(), reason };
        // Nobody listening is fine: the table says the same.
        let _ = self.shared.exits.send(exit);
    }
}

/// Asks for a freeze and waits for the state that came of it.
pub(crate) async fn freeze(cell: &Cell) -> Result<State, FreezeRequestError> {
    let (answer, answered) = oneshot::channel();
    cell.commands.send(Command::Freeze(answer)).await.map_err(|_| FreezeRequestError::Gone)?;
    answered.await.map_err(|_| FreezeRequestError::Gone)?.map_err(FreezeRequestError::Runtime)
}

/// Why a freeze did not come about.
#[derive(Debug)]
pub(crate) enum FreezeRequestError {
    /// The instance has ended.
    Gone,
    /// What the runtime said.
    Runtime(FreezeError),
}
