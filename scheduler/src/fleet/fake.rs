//! A scripted fleet for tests: instances that are entries in a table, starts that take as long, or fail, as a test says,
//! and calls that echo the request.

use super::{
    Body, CallError, ExitEvent, Fleet, FreezeError, InstanceExit, InvocationCall, NodeName, NodeState,
    RunningInstance, StartFailure, StartOrder, StartReport,
};
use futures_util::{future::BoxFuture, stream, stream::BoxStream};
use http::{Request, Response};
use neap_sdk::{ErrorCode, InstanceId, Problem, RevisionId};
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::broadcast::{self, error::RecvError};

/// The header of an echo that names the instance.
pub const INSTANCE_HEADER: &str = "x-instance";
/// The header of an echo that names the revision's number.
pub const REVISION_HEADER: &str = "x-revision";

const EXITS_QUEUED_MAX: usize = 64;
const NODE_MEMORY_BYTES: u64 = 64 << 30;

/// How the fleet behaves.
#[derive(Debug, Clone, Default)]
pub struct Script {
    /// How long a start takes.
    pub start_delay: Duration,
    /// Which revisions, by number, do not start, and why.
    pub start_failures: HashMap<u32, String>,
    /// How long a call takes before its response begins.
    pub call_delay: Duration,
    /// What calls fail with.
    pub call_failure: Option<Problem>,
    /// How long a thaw takes.
    pub thaw_delay: Duration,
    /// Whether freezing fails, as on a machine without a freezer.
    pub no_freezer: bool,
}

/// The scripted fleet. Cheap to clone; clones are one fleet.
#[derive(Debug, Clone)]
pub struct FakeFleet {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    table: Mutex<Table>,
    exits: broadcast::Sender<InstanceExit>,
}

#[derive(Debug, Default)]
struct Table {
    script: Script,
    up: BTreeMap<InstanceId, RunningInstance>,
    next: u64,
    starts: u64,
    thaws: u64,
    stopped: Vec<InstanceId>,
}

impl Default for FakeFleet {
    fn default() -> Self {
        let exits = broadcast::Sender::new(EXITS_QUEUED_MAX);
        Self { inner: Arc::new(Inner { table: Mutex::default(), exits }) }
    }
}

impl FakeFleet {
    /// Changes how the fleet behaves from now on.
    pub fn script(&self, change: impl FnOnce(&mut Script)) {
        change(&mut self.table().script);
    }

    /// Starts that were asked for, whatever came of them.
    pub fn starts(&self) -> u64 {
        self.table().starts
    }

    /// Thaws that were asked for.
    pub fn thaws(&self) -> u64 {
        self.table().thaws
    }

    /// Instances that were stopped, in order.
    pub fn stopped(&self) -> Vec<InstanceId> {
        self.table().stopped.clone()
    }

    /// The instances of a revision that are up.
    pub fn up(&self, revision: &RevisionId) -> Vec<RunningInstance> {
        self.table().up.values().filter(|running| running.revision == *revision).cloned().collect()
    }

    /// Ends an instance as if its process had ended on its own. Answers whether it was up.
    pub fn kill(&self, instance: InstanceId, reason: &str) -> bool {
        let Some(running) = self.table().up.remove(&instance) else { return false };
        let exit = InstanceExit { instance, revision: running.revision, reason: reason.to_owned() };
        // Nobody listens while no scheduler is open.
        let _ = self.inner.exits.send(exit);
        true
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.inner.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_frozen(&self, instance: InstanceId, frozen: bool) -> Result<(), FreezeError> {
        let mut table = self.table();
        let running = table.up.get_mut(&instance);
        let running = running.ok_or_else(|| FreezeError { text: format!("{instance} is gone") })?;
        running.frozen = frozen;
        Ok(())
    }
}

impl Fleet for FakeFleet {
    fn nodes(&self) -> Vec<NodeState> {
        let instances = self.table().up.len() as u32;
        let name = NodeName("fake".into());
        vec![NodeState { name, memory_bytes: NODE_MEMORY_BYTES, memory_promised_bytes: 0, instances }]
    }

    fn start<'a>(
        &'a self,
        _node: &'a NodeName,
        order: StartOrder,
    ) -> BoxFuture<'a, Result<StartReport, StartFailure>> {
        let (took, failure) = {
            let mut table = self.table();
            table.starts += 1;
            (table.script.start_delay, table.script.start_failures.get(&order.revision.number).cloned())
        };
        Box::pin(async move {
            tokio::time::sleep(took).await;
            if let Some(text) = failure {
                return Err(StartFailure { text });
            }
            let mut table = self.table();
            table.next += 1;
            let instance = InstanceId(table.next);
            let running = RunningInstance {
                instance,
                revision: order.revision,
                frozen: false,
                started_at_ms: 1,
                pid: None,
            };
            table.up.insert(instance, running);
            Ok(StartReport { instance, took, pid: None })
        })
    }

    fn call(
        &self,
        instance: InstanceId,
        request: Request<Body>,
        _call: InvocationCall,
    ) -> BoxFuture<'_, Result<Response<Body>, CallError>> {
        Box::pin(async move {
            let script = self.table().script.clone();
            tokio::time::sleep(script.call_delay).await;
            if let Some(problem) = script.call_failure {
                return Err(CallError::new(problem, true));
            }
            let running = self.table().up.get(&instance).filter(|running| !running.frozen).cloned();
            let Some(running) = running else {
                let problem = Problem::new(ErrorCode::FunctionFailed, format!("{instance} takes no calls"));
                return Err(CallError::new(problem, false));
            };
            let response = Response::builder()
                .header(INSTANCE_HEADER, instance.to_string())
                .header(REVISION_HEADER, running.revision.number)
                .body(request.into_body());
            Ok(response.expect("an instance's id and a number are header values"))
        })
    }

    fn freeze(&self, instance: InstanceId) -> BoxFuture<'_, Result<(), FreezeError>> {
        Box::pin(async move {
            if self.table().script.no_freezer {
                return Err(FreezeError { text: "this machine has no freezer".to_owned() });
            }
            self.set_frozen(instance, true)
        })
    }

    fn thaw(&self, instance: InstanceId) -> BoxFuture<'_, Result<(), FreezeError>> {
        Box::pin(async move {
            let delay = {
                let mut table = self.table();
                table.thaws += 1;
                table.script.thaw_delay
            };
            tokio::time::sleep(delay).await;
            self.set_frozen(instance, false)
        })
    }

    fn stop(&self, instance: InstanceId) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let mut table = self.table();
            if table.up.remove(&instance).is_some() {
                table.stopped.push(instance);
            }
        })
    }

    fn exits(&self) -> BoxStream<'static, ExitEvent> {
        Box::pin(stream::unfold(self.inner.exits.subscribe(), |mut exits| async move {
            match exits.recv().await {
                Ok(exit) => Some((ExitEvent::Ended(exit), exits)),
                Err(RecvError::Lagged(_)) => Some((ExitEvent::Lost, exits)),
                Err(RecvError::Closed) => None,
            }
        }))
    }

    fn instances(&self) -> Vec<RunningInstance> {
        self.table().up.values().cloned().collect()
    }
}
