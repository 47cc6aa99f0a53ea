//! The lifecycle of one instance, as a pure state machine: `machine.on(event)` returns what is to be done.
//!
//! ```text
//!            ┌────────── StartFailed ─────────────────────────────▶ Failed
//!            │                                                       ▲ │ Gone: forget
//!   Starting ┼─ Started ─▶ Ready ◀─── Thawed ──── Thawing            │ ▼
//!      │Stop │               │ ▲                     ▲        Exited, ThawFailed,
//!      ▼     │        Freeze │ │FreezeFailed         │Thaw    from any state with
//!   Aborting │               ▼ │                     │        a running instance
//!      │     │            Freezing ─── Froze ─▶ Frozen
//!      │     │                                       │
//!      │     │               Ready ─ Stop ▶ Draining │Stop
//!      │     │                                 │     │
//!      │     │                          Drained│     │
//!      └─────┴── Started ──▶ Stopping ◀────────┴─────┘
//!                               │
//!                               └─ Gone ─▶ Stopped: forget
//! ```
//!
//! Calls are let in exactly in `Ready` (the gate is open exactly there). [`driver`] is the one task that feeds the
//! machine and carries out its actions; [`pool`] is what the rest of the node may see and touch.
//! This file must not know clocks, tasks or runtimes.

pub(crate) mod driver;
pub(crate) mod gate;
pub(crate) mod pool;
#[cfg(test)]
pub(crate) mod tests;

use std::sync::Arc;

/// Where an instance is in its life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// The runtime starts it.
    Starting,
    /// The runtime still starts it, but nobody wants it any more.
    Aborting,
    /// It takes calls.
    Ready,
    /// The runtime freezes it.
    Freezing,
    /// It holds memory but no CPU.
    Frozen,
    /// The runtime thaws it.
    Thawing,
    /// It takes no new calls; those in flight may finish.
    Draining,
    /// The runtime removes it.
    Stopping,
    /// It was stopped, and nothing is left of it.
    Stopped,
    /// It did not start, or ended by itself.
    Failed(Arc<str>),
}

impl State {
    /// The states that an instance can stay in, other than for good.
    pub const LIVING: [Self; 8] = [
        Self::Starting,
        Self::Aborting,
        Self::Ready,
        Self::Freezing,
        Self::Frozen,
        Self::Thawing,
        Self::Draining,
        Self::Stopping,
    ];

    /// The state in one word, for views and metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Aborting => "aborting",
            Self::Ready => "ready",
            Self::Freezing => "freezing",
            Self::Frozen => "frozen",
            Self::Thawing => "thawing",
            Self::Draining => "draining",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Failed(_) => "failed",
        }
    }

    /// Whether nothing can change any more.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Stopped | Self::Failed(_))
    }
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The runtime started it.
    Started,
    /// The runtime could not start it.
    StartFailed(String),
    /// It shall be frozen; whoever says so has closed the gate, and no call is in flight.
    Freeze,
    /// The runtime froze it.
    Froze,
    /// The runtime could not freeze it; it runs on.
    FreezeFailed(String),
    /// It shall be thawed.
    Thaw,
    /// The runtime thawed it.
    Thawed,
    /// The runtime could not thaw it.
    ThawFailed(String),
    /// It shall end.
    Stop,
    /// No call is in flight any more, or the time for that is over.
    Drained,
    /// It ended by itself.
    Exited(String),
    /// The runtime removed everything of it.
    Gone,
}

/// What is to be done, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Let calls in.
    OpenGate,
    /// Let no call in.
    CloseGate,
    /// Tell the runtime to freeze it, and report `Froze` or `FreezeFailed`.
    Freeze,
    /// Tell the runtime to thaw it, and report `Thawed` or `ThawFailed`.
    Thaw,
    /// Wait for calls in flight up to the grace, and report `Drained`.
    Drain,
    /// End calls in flight with this reason.
    FailCalls(Arc<str>),
    /// Tell the world that it ended without being asked to.
    Announce(Arc<str>),
    /// Tell the runtime to remove it, and report `Gone`.
    Remove,
    /// Take it out of the table and give its memory back; nothing follows.
    Forget,
}

/// The machine: a state, and the one way to change it.
#[derive(Debug, Clone)]
pub struct Machine {
    state: State,
}

impl Default for Machine {
    fn default() -> Self {
        Self { state: State::Starting }
    }
}

impl Machine {
    /// Where it is.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Takes an event. One that means nothing in the present state changes nothing: whoever sends commands looks
    /// at the state that came out, not at the command.
    pub fn on(&mut self, event: Event) -> Vec<Action> {
        use Action::{Drain, FailCalls, Forget, Freeze, OpenGate, Remove, Thaw};
        let (state, actions) = match (&self.state, event) {
            (State::Starting, Event::Started) => (State::Ready, vec![OpenGate]),
            (State::Starting, Event::StartFailed(reason)) => (State::Failed(reason.into()), vec![Forget]),
            (State::Starting, Event::Stop) => (State::Aborting, vec![]),
            (State::Aborting, Event::Started) => (State::Stopping, vec![Remove]),
            (State::Aborting, Event::StartFailed(_)) => (State::Stopped, vec![Forget]),

            (State::Ready, Event::Freeze) => (State::Freezing, vec![Freeze]),
            (State::Freezing, Event::Froze) => (State::Frozen, vec![]),
            (State::Freezing, Event::FreezeFailed(_)) => (State::Ready, vec![OpenGate]),
            (State::Frozen, Event::Thaw) => (State::Thawing, vec![Thaw]),
            (State::Thawing, Event::Thawed) => (State::Ready, vec![OpenGate]),
            (State::Thawing, Event::ThawFailed(reason)) => fail(&format!("could not be thawed: {reason}")),

            (State::Ready, Event::Stop) => (State::Draining, vec![Action::CloseGate, Drain]),
            (State::Frozen, Event::Stop) => (State::Stopping, vec![Remove]),
            (State::Draining, Event::Drained) => {
                (State::Stopping, vec![FailCalls("the instance was stopped".into()), Remove])
            }
            (State::Stopping, Event::Gone) => (State::Stopped, vec![Forget]),

            // An instance that ends while it drains was going to: nobody needs to be told.
            (State::Draining, Event::Exited(reason)) => {
                (State::Stopping, vec![FailCalls(reason.into()), Remove])
            }
            (State::Ready | State::Freezing | State::Frozen | State::Thawing, Event::Exited(reason)) => {
                fail(&reason)
            }
            (State::Failed(_), Event::Gone) => (self.state.clone(), vec![Forget]),
            _ => return Vec::new(),
        };
        self.state = state;
        actions
    }
}

/// The one path on which a running instance is lost: close, tell those inside, tell those outside, clean up.
fn fail(reason: &str) -> (State, Vec<Action>) {
    let reason: Arc<str> = reason.into();
    let actions = vec![
        Action::CloseGate,
        Action::FailCalls(reason.clone()),
        Action::Announce(reason.clone()),
        Action::Remove,
    ];
    (State::Failed(reason), actions)
}
