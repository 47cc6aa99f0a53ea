//! A runtime that follows a script: it delays, fails, answers and exits as a test says. Runs nothing.
//! For the tests of this crate and of those above it (feature `fake`).

use super::{
    CallMeter, ExitReason, FreezeError, Instance, InstanceUsage, MeterSource, PrepareError, Runtime,
    RuntimeCall, Start, StartError,
};
use crate::{Artifact, Body, CallError, Runtimes, logs::LogStream};
use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt as _};
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use neap_sdk::InstanceId;
use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::sync::watch;

/// How a scripted instance answers.
pub type Answer = Arc<
    dyn Fn(InstanceId, Request<Body>) -> BoxFuture<'static, Result<Response<Body>, CallError>> + Send + Sync,
>;

/// What happens to instances that are started from now on.
#[derive(Clone)]
pub struct Script {
    /// How long a start takes.
    pub start_delay: Duration,
    /// Why starts fail, if they do.
    pub start_failure: Option<String>,
    /// What an instance writes to its standard error while it starts; no line end is added.
    pub start_log: String,
    /// Why freezing fails, if it does.
    pub freeze_failure: Option<String>,
    /// Why thawing fails, if it does.
    pub thaw_failure: Option<String>,
    /// How long a freeze and a thaw take.
    pub freeze_delay: Duration,
    /// How long a stop takes.
    pub stop_delay: Duration,
    /// What it says to requests.
    pub answer: Answer,
    /// CPU time that each call reports, in microseconds, where `measured_whole` is not set.
    pub call_cpu_us: u64,
    /// Whether only the whole instance can be measured, as with containers; see [`FakeRuntime::use_cpu`].
    pub measured_whole: bool,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            start_delay: Duration::ZERO,
            start_failure: None,
            start_log: String::new(),
            freeze_failure: None,
            thaw_failure: None,
            freeze_delay: Duration::ZERO,
            stop_delay: Duration::ZERO,
            answer: answer_text("hello"),
            call_cpu_us: 0,
            measured_whole: false,
        }
    }
}

/// Answers every request with 200 and this text.
pub fn answer_text(text: &'static str) -> Answer {
    Arc::new(move |_, _| async move { Ok(Response::new(text_body(text))) }.boxed())
}

/// A body of one piece.
pub fn text_body(text: &'static str) -> Body {
    Full::new(Bytes::from_static(text.as_bytes())).map_err(|never| match never {}).boxed_unsync()
}

/// A runtime that follows a script. Clones share it.
#[derive(Clone, Default)]
pub struct FakeRuntime(Arc<Inner>);

#[derive(Default)]
struct Inner {
    script: Mutex<Script>,
    starts: AtomicU32,
    live: Mutex<BTreeMap<InstanceId, Arc<Puppet>>>,
}

impl fmt::Debug for FakeRuntime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeRuntime").field("live", &self.live()).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl FakeRuntime {
    /// A runtime whose instances start at once and say hello.
    pub fn new() -> Self {
        Self::default()
    }

    /// Changes what happens to instances that are started from now on.
    pub fn script(&self, change: impl FnOnce(&mut Script)) {
        change(&mut lock(&self.0.script));
    }

    /// This runtime for every kind of artifact.
    pub fn runtimes(&self) -> Runtimes {
        Runtimes { wasm: Some(Arc::new(self.clone())), oci: Ok(Arc::new(self.clone())) }
    }

    /// How many starts were asked for.
    pub fn starts(&self) -> u32 {
        self.0.starts.load(Ordering::Acquire)
    }

    /// Instances that started and were not stopped, by id.
    pub fn live(&self) -> Vec<InstanceId> {
        lock(&self.0.live).keys().copied().collect()
    }

    /// Of those, the frozen ones.
    pub fn frozen(&self) -> Vec<InstanceId> {
        let live = lock(&self.0.live);
        live.iter().filter(|(_, puppet)| puppet.frozen.load(Ordering::Acquire)).map(|(id, _)| *id).collect()
    }

    /// Makes an instance end by itself; false where it is not live.
    pub fn exit(&self, instance: InstanceId, reason: &str) -> bool {
        let live = lock(&self.0.live);
        live.get(&instance).is_some_and(|puppet| {
            puppet.exited.send_replace(Some(reason.to_owned()));
            true
        })
    }

    /// Lets an instance use CPU time.
    pub fn use_cpu(&self, instance: InstanceId, cpu_us: u64) {
        if let Some(puppet) = lock(&self.0.live).get(&instance) {
            puppet.cpu_us.fetch_add(cpu_us, Ordering::AcqRel);
        }
    }
}

impl Runtime for FakeRuntime {
    fn prepare<'a>(&'a self, _artifact: &'a Artifact) -> BoxFuture<'a, Result<(), PrepareError>> {
        async { Ok(()) }.boxed()
    }

    fn start(&self, start: Start) -> BoxFuture<'_, Result<Box<dyn Instance>, StartError>> {
        let script = lock(&self.0.script).clone();
        self.0.starts.fetch_add(1, Ordering::AcqRel);
        async move {
            tokio::time::sleep(script.start_delay).await;
            start.logs.write(LogStream::Stderr, script.start_log.as_bytes());
            if let Some(reason) = script.start_failure {
                return Err(StartError(reason));
            }
            let puppet = Arc::new(Puppet {
                id: start.instance,
                script,
                frozen: AtomicBool::new(false),
                exited: watch::Sender::new(None),
                cpu_us: AtomicU64::new(0),
            });
            lock(&self.0.live).insert(start.instance, puppet.clone());
            let instance: Box<dyn Instance> = Box::new(FakeInstance { puppet, runtime: self.0.clone() });
            Ok(instance)
        }
        .boxed()
    }
}

/// What a test holds on an instance.
struct Puppet {
    id: InstanceId,
    script: Script,
    frozen: AtomicBool,
    exited: watch::Sender<Option<String>>,
    cpu_us: AtomicU64,
}

struct FakeInstance {
    puppet: Arc<Puppet>,
    runtime: Arc<Inner>,
}

struct FixedMeter(u64);

impl MeterSource for FixedMeter {
    fn cpu_us(&self) -> u64 {
        self.0
    }

    fn memory_bytes(&self) -> u64 {
        1 << 20
    }
}

impl FakeInstance {
    async fn freeze_or_thaw(&self, freeze: bool) -> Result<(), FreezeError> {
        let script = &self.puppet.script;
        tokio::time::sleep(script.freeze_delay).await;
        let failure = if freeze { &script.freeze_failure } else { &script.thaw_failure };
        if let Some(reason) = failure {
            return Err(FreezeError(reason.clone()));
        }
        self.puppet.frozen.store(freeze, Ordering::Release);
        Ok(())
    }
}

fn attach(meter: &CallMeter, cpu_us: u64) {
    meter.attach(Arc::new(FixedMeter(cpu_us)));
}

impl Instance for FakeInstance {
    fn call(
        &self,
        request: Request<Body>,
        call: RuntimeCall,
    ) -> BoxFuture<'_, Result<Response<Body>, CallError>> {
        if self.puppet.frozen.load(Ordering::Acquire) {
            return async { Err(CallError::Failed("called while frozen".to_owned())) }.boxed();
        }
        attach(&call.meter, self.puppet.script.call_cpu_us);
        (self.puppet.script.answer)(self.puppet.id, request)
    }

    fn freeze(&self) -> BoxFuture<'_, Result<(), FreezeError>> {
        self.freeze_or_thaw(true).boxed()
    }

    fn thaw(&self) -> BoxFuture<'_, Result<(), FreezeError>> {
        self.freeze_or_thaw(false).boxed()
    }

    fn stop(&self, _grace: Duration) -> BoxFuture<'_, ()> {
        async {
            tokio::time::sleep(self.puppet.script.stop_delay).await;
            lock(&self.runtime.live).remove(&self.puppet.id);
        }
        .boxed()
    }

    fn exited(&self) -> BoxFuture<'_, ExitReason> {
        let mut exited = self.puppet.exited.subscribe();
        async move {
            // The sender lives in `self`, so the wait cannot fail.
            let reason = exited.wait_for(Option::is_some).await.map(|reason| reason.clone());
            ExitReason(reason.ok().flatten().unwrap_or_default())
        }
        .boxed()
    }

    fn pid(&self) -> Option<u32> {
        None
    }

    fn usage(&self) -> Option<InstanceUsage> {
        let script = &self.puppet.script;
        let cpu_us = self.puppet.cpu_us.load(Ordering::Acquire);
        script.measured_whole.then_some(InstanceUsage { cpu_us, memory_peak_bytes: 2 << 20 })
    }
}
