//! The table of instances, and what others than its driver may see and touch of one: its gate, its state, its
//! command queue. Reading the table takes no lock; only starts and ends write it.

use super::{
    State,
    driver::Command,
    gate::{Gate, Ticket},
};
use crate::{
    call::CallError,
    logs::LogWriter,
    meter::share::{CpuShare, ShareMark},
    runtime::{Instance, InstanceUsage},
};
use arc_swap::ArcSwap;
use neap_sdk::{FunctionSpec, InstanceId, RevisionId, artifact::ArtifactKind};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// The part of an instance that is shared; everything in it is immutable, atomic, or set once.
pub(crate) struct Cell {
    pub(crate) id: InstanceId,
    pub(crate) revision: Arc<RevisionId>,
    pub(crate) spec: Arc<FunctionSpec>,
    pub(crate) kind: ArtifactKind,
    pub(crate) started_at_ms: u64,
    pub(crate) gate: Arc<Gate>,
    pub(crate) commands: mpsc::Sender<Command>,
    /// Written by the driver only.
    pub(crate) state: watch::Sender<State>,
    /// How long the start took, once it worked.
    pub(crate) start_us: OnceLock<u64>,
    /// Set by the driver when the start worked.
    pub(crate) running: OnceLock<Running>,
    pub(crate) logs: LogWriter,
    /// Cancelled when calls in flight must end; the reason is set before.
    pub(crate) ended: CancellationToken,
    pub(crate) end_reason: OnceLock<Arc<str>>,
}

/// The runtime's half of an instance that has started.
pub(crate) struct Running {
    pub(crate) instance: Arc<dyn Instance>,
    /// How its CPU time is shared among its calls, where only the whole of it is measured.
    cpu: Option<Mutex<CpuShare>>,
}

impl Running {
    /// The account begins now: what the start used is nobody's invocation.
    pub(crate) fn new(instance: Arc<dyn Instance>) -> Self {
        let cpu = instance.usage().map(|usage| Mutex::new(CpuShare::new(usage.cpu_us)));
        Self { instance, cpu }
    }

    /// Notes the start of a call in the CPU account; `None` where each call is measured by itself.
    pub(crate) fn begin_share(&self) -> Option<ShareMark> {
        Some(lock(self.cpu.as_ref()?).begin())
    }

    /// Closes a call's CPU account: its share of CPU time, and the instance's peak memory.
    pub(crate) fn end_share(&self, mark: ShareMark) -> InstanceUsage {
        let usage = self.instance.usage().unwrap_or_default();
        let cpu_us = self.cpu.as_ref().map_or(0, |cpu| lock(cpu).end(mark, usage.cpu_us));
        InstanceUsage { cpu_us, ..usage }
    }
}

fn lock(cpu: &Mutex<CpuShare>) -> MutexGuard<'_, CpuShare> {
    cpu.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Cell {
    /// Enters for one call; thaws first where it is frozen, waits where it is about to be ready.
    pub(crate) async fn enter(&self) -> Result<Ticket, CallError> {
        match self.gate.enter() {
            Some(ticket) => Ok(ticket),
            None => self.enter_slowly().await,
        }
    }

    async fn enter_slowly(&self) -> Result<Ticket, CallError> {
        let mut states = self.state.subscribe();
        loop {
            let state = states.borrow_and_update().clone();
            match state {
                // Closed all the same: it is about to freeze, and the next state says so.
                State::Ready => {
                    if let Some(ticket) = self.gate.enter() {
                        return Ok(ticket);
                    }
                }
                State::Frozen => {
                    if self.commands.send(Command::Thaw).await.is_err() {
                        return Err(CallError::NoInstance(self.id));
                    }
                }
                State::Starting | State::Freezing | State::Thawing => {}
                State::Failed(reason) if reason.starts_with("could not be thawed") => {
                    return Err(CallError::Thaw { instance: self.id, reason: reason.to_string() });
                }
                other => return Err(CallError::NotReady { instance: self.id, state: other.name() }),
            }
            if states.changed().await.is_err() {
                return Err(CallError::NoInstance(self.id));
            }
        }
    }

    /// Why calls in flight had to end.
    pub(crate) fn end_reason(&self) -> Arc<str> {
        self.end_reason.get().cloned().unwrap_or_else(|| "the instance has ended".into())
    }
}

/// All instances of this node, by id.
#[derive(Default)]
pub(crate) struct Pool {
    cells: ArcSwap<HashMap<InstanceId, Arc<Cell>>>,
}

impl Pool {
    pub(crate) fn get(&self, id: InstanceId) -> Option<Arc<Cell>> {
        self.cells.load().get(&id).cloned()
    }

    pub(crate) fn all(&self) -> Arc<HashMap<InstanceId, Arc<Cell>>> {
        self.cells.load_full()
    }

    pub(crate) fn insert(&self, cell: &Arc<Cell>) {
        self.change(|cells| cells.insert(cell.id, cell.clone()));
    }

    pub(crate) fn remove(&self, id: InstanceId) {
        self.change(|cells| cells.remove(&id));
    }

    fn change<T>(&self, mut change: impl FnMut(&mut HashMap<InstanceId, Arc<Cell>>) -> T) {
        self.cells.rcu(|cells| {
            let mut copy = HashMap::clone(cells);
            change(&mut copy);
            copy
        });
    }
}
