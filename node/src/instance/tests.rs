//! The machine by property, and the driver with the scripted runtime on paused time.

use super::{Action, Event, Machine, State};
use crate::{
    CallError, InvocationCall, Node, NodeSettings, StartFailure, StartOrder,
    runtime::fake::{Answer, FakeRuntime, text_body},
};
use futures_util::FutureExt as _;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use neap_sdk::{Digest, FunctionSpec, InstanceId, RevisionId, artifact::ArtifactKind};
use prometheus_client::registry::Registry;
use proptest::prelude::*;
use std::{sync::Arc, time::Duration};
use tempfile::TempDir;

fn any_event() -> impl Strategy<Value = Event> {
    let reason = || "because".to_owned();
    prop_oneof![
        Just(Event::Started),
        Just(Event::StartFailed(reason())),
        Just(Event::Freeze),
        Just(Event::Froze),
        Just(Event::FreezeFailed(reason())),
        Just(Event::Thaw),
        Just(Event::Thawed),
        Just(Event::ThawFailed(reason())),
        Just(Event::Stop),
        Just(Event::Drained),
        Just(Event::Exited(reason())),
        Just(Event::Gone),
    ]
}

/// What the actions of a machine have come to.
#[derive(Debug, Default)]
struct World {
    open: bool,
    removals: u32,
    announcements: u32,
    forgotten: u32,
}

impl World {
    fn apply(&mut self, event: &Event, actions: &[Action]) {
        // Whoever sends `Freeze` has closed the gate, which only works while it is open.
        if *event == Event::Freeze && !actions.is_empty() {
            self.open = false;
        }
        for action in actions {
            match action {
                Action::OpenGate => self.open = true,
                Action::CloseGate => self.open = false,
                Action::Remove => self.removals += 1,
                Action::Announce(_) => self.announcements += 1,
                Action::Forget => self.forgotten += 1,
                Action::Freeze | Action::Thaw | Action::Drain | Action::FailCalls(_) => {}
            }
        }
    }
}

/// The event that ends the operation that a state waits for, when all goes well.
fn completion(state: &State, removed: bool) -> Option<Event> {
    match state {
        State::Starting | State::Aborting => Some(Event::Started),
        State::Freezing => Some(Event::Froze),
        State::Thawing => Some(Event::Thawed),
        State::Draining => Some(Event::Drained),
        State::Stopping => Some(Event::Gone),
        State::Failed(_) if !removed => Some(Event::Gone),
        _ => None,
    }
}

proptest! {
    /// Whatever happens in whatever order: calls get in exactly while ready, nothing is removed, announced or
    /// forgotten twice, and nothing leaves a final state.
    #[test]
    fn no_order_of_events_breaks_an_instance(events in proptest::collection::vec(any_event(), 0..40)) {
        let (mut machine, mut world) = (Machine::default(), World::default());
        for event in events {
            let before = machine.state().clone();
            let actions = machine.on(event.clone());
            world.apply(&event, &actions);
            prop_assert_eq!(world.open, *machine.state() == State::Ready, "{:?} after {:?}", machine.state(), event);
            prop_assert!(world.removals <= 1 && world.announcements <= 1);
            if before.is_final() {
                prop_assert_eq!(machine.state(), &before);
            }
        }
    }

    /// An instance that is told to stop does, from every state, and is forgotten exactly once.
    #[test]
    fn stop_ends_in_forgetting(events in proptest::collection::vec(any_event(), 0..20)) {
        let (mut machine, mut world) = (Machine::default(), World::default());
        // Only what can happen: an operation completes, the instance exits, or somebody asks for something.
        for event in events {
            let asked = matches!(event, Event::Freeze | Event::Thaw | Event::Exited(_) | Event::Stop);
            let live = world.removals == 0 && !matches!(machine.state(), State::Starting | State::Aborting);
            let can = if matches!(event, Event::Exited(_)) { live } else { asked };
            let next = if can { Some(event) } else { completion(machine.state(), world.forgotten > 0) };
            if let Some(next) = next {
                let actions = machine.on(next.clone());
                world.apply(&next, &actions);
            }
        }
        for _ in 0..8 {
            let next = completion(machine.state(), world.forgotten > 0).unwrap_or(Event::Stop);
            let actions = machine.on(next.clone());
            world.apply(&next, &actions);
        }
        prop_assert!(machine.state().is_final());
        prop_assert_eq!(world.forgotten, 1);
    }
}

pub(crate) struct Bench {
    pub(crate) node: Node,
    pub(crate) runtime: FakeRuntime,
    pub(crate) metrics: Registry,
    _dir: TempDir,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let (dir, runtime, mut metrics) = (TempDir::new().unwrap(), FakeRuntime::new(), Registry::default());
        let settings = NodeSettings { memory_bytes: Some(1 << 30), ..NodeSettings::new(dir.path()) };
        let node = Node::open(settings, runtime.runtimes(), &mut metrics).unwrap();
        Self { node, runtime, metrics, _dir: dir }
    }

    pub(crate) fn order(kind: ArtifactKind, spec: FunctionSpec) -> StartOrder {
        let revision =
            RevisionId { tenant: Default::default(), function: "hello".parse().unwrap(), number: 1 };
        let artifact = crate::Artifact {
            digest: Digest::of(b"hello"),
            kind,
            config: "config".into(),
            layers: Vec::new(),
        };
        StartOrder { revision, artifact, spec: Arc::new(spec) }
    }

    pub(crate) async fn start(&self) -> InstanceId {
        self.start_with(FunctionSpec::default()).await
    }

    pub(crate) async fn start_with(&self, spec: FunctionSpec) -> InstanceId {
        self.node.start(Self::order(ArtifactKind::Image, spec)).await.unwrap().instance
    }

    pub(crate) async fn call(&self, instance: InstanceId) -> Result<Response<crate::Body>, CallError> {
        self.node.call(instance, Request::new(text_body("")), invocation()).await
    }

    fn state(&self, instance: InstanceId) -> Option<&'static str> {
        let info = self.node.instances().into_iter().find(|info| info.instance == instance)?;
        Some(info.state.name())
    }

    fn metric(&self, line: &str) -> bool {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.metrics).unwrap();
        text.lines().any(|found| found == line)
    }
}

pub(crate) fn invocation() -> InvocationCall {
    InvocationCall { request_id: "r1".parse().unwrap(), cold: false }
}

/// Answers with hello after a time.
pub(crate) fn slow_answer(delay: Duration) -> Answer {
    Arc::new(move |_, _| {
        async move {
            tokio::time::sleep(delay).await;
            Ok(Response::new(text_body("hello")))
        }
        .boxed()
    })
}

#[tokio::test(start_paused = true)]
async fn an_instance_starts_answers_and_goes() {
    let bench = Bench::new();
    bench.runtime.script(|script| script.start_delay = Duration::from_millis(30));
    let report = bench.node.start(Bench::order(ArtifactKind::Image, FunctionSpec::default())).await.unwrap();
    let response = bench.call(report.instance).await.unwrap();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "hello");
    assert!(bench.metric("neap_instances{state=\"ready\"} 1"));

    bench.node.stop(report.instance).await;
    assert_eq!(bench.runtime.live(), []);
    assert_eq!(bench.node.instances(), []);
    assert!(bench.metric("neap_instances{state=\"ready\"} 0"));
    assert!(bench.metric("neap_instances{state=\"stopped\"} 0"));
    let error = bench.call(report.instance).await.map(drop).unwrap_err();
    assert_eq!(error, CallError::NoInstance(report.instance));
    assert!(!error.began());
}

#[tokio::test(start_paused = true)]
async fn a_failed_start_says_why_with_its_last_lines_and_leaves_nothing() {
    let bench = Bench::new();
    bench.runtime.script(|script| {
        script.start_failure = Some("exited with status 1".into());
        script.start_log = "reading config\nno such file: a.toml".into();
    });
    let error =
        bench.node.start(Bench::order(ArtifactKind::Image, FunctionSpec::default())).await.unwrap_err();
    assert_eq!(error.to_string(), "exited with status 1\nreading config\nno such file: a.toml");
    assert_eq!(bench.node.instances(), []);
}

#[tokio::test(start_paused = true)]
async fn memory_is_given_and_taken_back() {
    let bench = Bench::new();
    let spec = || FunctionSpec { memory_bytes: 1 << 29, ..Default::default() };
    let first = bench.start_with(spec()).await;
    bench.start_with(spec()).await;
    let third = bench.node.start(Bench::order(ArtifactKind::Image, spec())).await;
    assert!(matches!(third, Err(StartFailure::Capacity(_))), "{third:?}");
    bench.node.start(Bench::order(ArtifactKind::WasmComponent, spec())).await.expect("Wasm holds no memory");
    bench.node.stop(first).await;
    bench.start_with(spec()).await;
}

#[tokio::test(start_paused = true)]
async fn an_exit_is_noticed_and_ends_calls() {
    let bench = Bench::new();
    bench.runtime.script(|script| {
        script.answer = slow_answer(Duration::from_secs(20));
        script.start_log = "out of ideas".into();
    });
    let instance = bench.start().await;
    let mut exits = bench.node.exits();
    let exit = async {
        tokio::time::sleep(Duration::from_millis(5)).await;
        assert!(bench.runtime.exit(instance, "exited with status 3"));
    };
    let (response, ()) = tokio::join!(bench.call(instance), exit);
    let error = response.map(drop).unwrap_err();
    assert_eq!(error, CallError::Failed("exited with status 3".into()));
    assert_eq!(error.problem().status, 502);
    let exit = exits.recv().await.unwrap();
    assert_eq!((exit.instance, exit.reason.as_str()), (instance, "exited with status 3\nout of ideas"));
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!((bench.runtime.live(), bench.node.instances().len()), (vec![], 0), "cleaned up");
}

#[tokio::test(start_paused = true)]
async fn stop_waits_for_calls_in_flight() {
    let bench = Bench::new();
    bench.runtime.script(|script| script.answer = slow_answer(Duration::from_secs(2)));
    let instance = bench.start().await;
    let stop = async {
        tokio::time::sleep(Duration::from_millis(5)).await;
        let begun = tokio::time::Instant::now();
        bench.node.stop(instance).await;
        begun.elapsed()
    };
    let late = async {
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert_eq!(bench.state(instance), Some("draining"));
        bench.call(instance).await.map(drop)
    };
    let first = async { bench.call(instance).await.unwrap().into_body().collect().await.unwrap().to_bytes() };
    let (first, waited, late) = tokio::join!(first, stop, late);
    assert_eq!(first, "hello");
    assert!(waited >= Duration::from_millis(1_990), "{waited:?}");
    assert_eq!(late, Err(CallError::NotReady { instance, state: "draining" }));
}

#[tokio::test(start_paused = true)]
async fn shutdown_gives_calls_its_grace_and_no_more() {
    let bench = Bench::new();
    bench.runtime.script(|script| script.answer = slow_answer(Duration::from_secs(3_600)));
    let spec = || FunctionSpec { timeout_ms: 3_600_000, ..Default::default() };
    let (instance, _other) = (bench.start_with(spec()).await, bench.start_with(spec()).await);
    let (response, ()) = tokio::join!(bench.call(instance), async {
        tokio::time::sleep(Duration::from_millis(5)).await;
        bench.node.shutdown(Duration::from_secs(1)).await;
    });
    assert_eq!(response.map(drop), Err(CallError::Failed("the instance was stopped".into())));
    assert_eq!((bench.runtime.live(), bench.node.instances().len()), (vec![], 0));
    let refused = bench.node.start(Bench::order(ArtifactKind::Image, spec())).await;
    assert_eq!(refused, Err(StartFailure::Draining));
}

#[tokio::test(start_paused = true)]
async fn a_call_thaws_a_frozen_instance() {
    let bench = Bench::new();
    bench.runtime.script(|script| script.freeze_delay = Duration::from_millis(3));
    let instance = bench.start().await;
    bench.node.freeze(instance).await.unwrap();
    assert_eq!((bench.state(instance), bench.runtime.frozen()), (Some("frozen"), vec![instance]));
    let (one, two) = tokio::join!(bench.call(instance), bench.call(instance));
    assert!(one.is_ok() && two.is_ok());
    assert_eq!((bench.state(instance), bench.runtime.frozen()), (Some("ready"), vec![]));

    bench.node.freeze(instance).await.unwrap_err(); // the two responses are still held
    drop((one, two));
    bench.node.freeze(instance).await.unwrap();
    bench.node.freeze(instance).await.expect("frozen is frozen");
    bench.node.stop(instance).await;
    assert_eq!(bench.runtime.live(), []);
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_cannot_be_thawed_is_lost_and_says_so() {
    let bench = Bench::new();
    bench.runtime.script(|script| script.thaw_failure = Some("freezer.state: I/O error".into()));
    let instance = bench.start().await;
    let mut exits = bench.node.exits();
    bench.node.freeze(instance).await.unwrap();
    let error = bench.call(instance).await.map(drop).unwrap_err();
    assert!(matches!(&error, CallError::Thaw { reason, .. } if reason.contains("I/O error")), "{error}");
    assert!(!error.began());
    assert!(exits.recv().await.unwrap().reason.contains("could not be thawed"));
}

#[tokio::test(start_paused = true)]
async fn a_start_that_nobody_waits_for_is_given_up() {
    let bench = Bench::new();
    bench.runtime.script(|script| script.start_delay = Duration::from_secs(1));
    let order = Bench::order(ArtifactKind::Image, FunctionSpec::default());
    let start = tokio::time::timeout(Duration::from_millis(10), bench.node.start(order)).await;
    assert!(start.is_err());
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!((bench.runtime.starts(), bench.runtime.live(), bench.node.instances().len()), (1, vec![], 0));
}
