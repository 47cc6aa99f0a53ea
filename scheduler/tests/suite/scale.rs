//! Instances over time: to zero and back, frozen in between, killed and replaced, a minimum kept.

use crate::harness::{World, eventually, key};
use neap_sdk::{FunctionSpec, api::TrafficShare, artifact::ArtifactKind};
use std::time::{Duration, Instant};

#[tokio::test]
async fn an_idle_function_goes_to_zero_and_comes_back() {
    for kind in [ArtifactKind::Image, ArtifactKind::WasmModule] {
        let world = World::new(kind).await;
        let spec = FunctionSpec { idle_timeout_ms: 200, ..FunctionSpec::default() };
        world.deploy("hello", "one", spec).await.unwrap();
        let began = Instant::now();
        eventually("it goes to zero", || world.up("hello", 1).is_empty()).await;
        assert!(
            began.elapsed() >= Duration::from_millis(150),
            "{kind}: not before its time: {:?}",
            began.elapsed()
        );
        eventually("and is seen to", || world.newest("hello").instances.is_empty()).await;
        let lease = world.acquire("hello").await.unwrap();
        assert!(lease.cold());
        assert_eq!(world.up("hello", 1).len(), 1);
        assert!(world.metrics_text().contains(r#"neap_autoscaler_decisions_total{decision="zero"} 1"#));
    }
}

#[tokio::test]
async fn a_running_request_is_never_stopped_for_being_long() {
    let world = World::containers().await;
    let spec = FunctionSpec { idle_timeout_ms: 100, ..FunctionSpec::default() };
    world.deploy("hello", "one", spec).await.unwrap();
    let held = world.acquire("hello").await.unwrap();
    tokio::time::sleep(Duration::from_millis(400)).await;
    let running = world.up("hello", 1);
    assert!(running.len() == 1 && !running[0].frozen, "{running:?}");
    drop(held);
    eventually("then it goes", || world.up("hello", 1).is_empty()).await;
}

#[tokio::test]
async fn a_container_is_frozen_before_it_goes_and_thawed_on_request() {
    let world = World::containers().await;
    let spec = FunctionSpec { idle_timeout_ms: 2_000, ..FunctionSpec::default() };
    world.deploy("hello", "one", spec).await.unwrap();
    let frozen =
        || world.newest("hello").instances.first().is_some_and(|instance| instance.state == "frozen");
    eventually("it is frozen", frozen).await;
    assert!(world.up("hello", 1)[0].frozen);
    let starts = world.fleet.starts();
    world.fleet.script(|script| script.thaw_delay = Duration::from_millis(10));
    let lease = world.acquire("hello").await.unwrap();
    assert!(!lease.cold(), "a thaw is no start");
    assert!(lease.waited().start >= Duration::from_millis(8), "{:?}", lease.waited());
    assert_eq!((world.fleet.starts(), world.fleet.thaws()), (starts, 1));
    drop(lease);
    eventually("it goes in the end, frozen again", || world.up("hello", 1).is_empty()).await;
}

#[tokio::test]
async fn wasm_is_never_frozen_and_a_machine_without_freezer_goes_on() {
    let world = World::new(ArtifactKind::WasmComponent).await;
    let spec = FunctionSpec { idle_timeout_ms: 400, ..FunctionSpec::default() };
    world.deploy("wasm", "one", spec.clone()).await.unwrap();
    let other = World::containers().await;
    other.fleet.script(|script| script.no_freezer = true);
    other.deploy("image", "one", spec).await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(world.up("wasm", 1).iter().all(|running| !running.frozen));
    assert!(!other.acquire("image").await.unwrap().cold(), "the instance stays usable");
    eventually("both go to zero", || world.up("wasm", 1).is_empty() && other.up("image", 1).is_empty()).await;
}

#[tokio::test]
async fn the_minimum_is_kept_and_restored() {
    let world = World::containers().await;
    let spec = FunctionSpec { min_instances: 2, idle_timeout_ms: 100, ..FunctionSpec::default() };
    world.deploy("hello", "one", spec).await.unwrap();
    eventually("two are up", || world.up("hello", 1).len() == 2).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(world.up("hello", 1).len(), 2, "idle or not");
    let victim = world.up("hello", 1)[0].instance;
    world.fleet.kill(victim, "killed");
    eventually("it is replaced", || world.up("hello", 1).len() == 2).await;
    assert!(world.up("hello", 1).iter().all(|running| running.instance != victim));
    world
        .deploy("hello", "two", FunctionSpec { idle_timeout_ms: 100, ..FunctionSpec::default() })
        .await
        .unwrap();
    eventually("a revision without traffic keeps no minimum", || world.up("hello", 1).is_empty()).await;
}

#[tokio::test]
async fn a_minimum_is_brought_up_again_after_a_crash_of_the_server() {
    let world = World::containers().await;
    let spec = FunctionSpec { min_instances: 1, ..FunctionSpec::default() };
    world.deploy("hello", "one", spec).await.unwrap();
    let found = world.after_a_crash().await;
    eventually("nobody had to ask", || found.up("hello", 1).len() == 1).await;
}

#[tokio::test]
async fn a_killed_instance_is_replaced_for_those_who_wait() {
    let world = World::containers().await;
    let spec = FunctionSpec { concurrency: 1, max_instances: 1, ..FunctionSpec::default() };
    world.deploy("hello", "one", spec).await.unwrap();
    let held = world.acquire("hello").await.unwrap();
    let target = world.target("hello");
    let waiter = tokio::spawn({
        let scheduler = world.scheduler.clone();
        async move { scheduler.acquire(&target).await }
    });
    eventually("somebody waits", || world.newest("hello").queued == 1).await;
    world.fleet.kill(held.instance(), "out of memory");
    let lease = waiter.await.unwrap().unwrap();
    assert_ne!(lease.instance(), held.instance());
    drop(held);
}

#[tokio::test]
async fn a_crash_loop_is_slowed_down_and_named() {
    let world = World::containers().await;
    world.deploy("hello", "one", FunctionSpec { min_instances: 1, ..FunctionSpec::default() }).await.unwrap();
    let began = Instant::now();
    let mut kills = 0;
    while began.elapsed() < Duration::from_millis(1_200) {
        for running in world.up("hello", 1) {
            kills += 1;
            world.fleet.kill(running.instance, "segmentation fault");
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert!((3..=5).contains(&kills), "0.5 s, 1 s, …: {kills} in 1.2 s");
    assert_eq!(world.newest("hello").failure.as_deref(), Some("segmentation fault"));
    let error = world.acquire("hello").await.unwrap_err();
    assert!(error.to_string().contains("segmentation fault"), "{error}");
}

/// Requests that arrive exactly when the last instance goes: none may fail.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_request_fails_at_the_idle_boundary() {
    let world = World::containers().await;
    let spec = FunctionSpec { idle_timeout_ms: 100, ..FunctionSpec::default() };
    world.deploy("hello", "one", spec).await.unwrap();
    let target = world.target("hello");
    let mut cold = 0;
    for round in 0..60_u64 {
        tokio::time::sleep(Duration::from_millis(85 + round)).await;
        let lease = world.scheduler.acquire(&target).await.unwrap();
        cold += u32::from(lease.cold());
        let request = http::Request::new(crate::harness::empty());
        let response = lease.call(request, "r".parse().unwrap()).await;
        assert_eq!(response.expect("the leased instance takes the call").status(), 200);
    }
    assert!((1..60).contains(&cold), "the boundary was met from both sides: {cold} of 60 were cold");
}

#[tokio::test]
async fn a_shift_of_traffic_loses_no_request() {
    let world = World::containers().await;
    world.deploy("hello", "one", FunctionSpec::default()).await.unwrap();
    world.deploy("hello", "two", FunctionSpec::default()).await.unwrap();
    for round in 0..20_u32 {
        // Routed before the shift, leased after it.
        let target = world.target("hello");
        let revision = 1 + round % 2;
        let share = [TrafficShare { revision, weight: 100 }];
        world.scheduler.set_traffic(&key("hello"), &share).await.unwrap();
        let lease = world.scheduler.acquire(&target).await.unwrap();
        let request = http::Request::new(crate::harness::empty());
        lease.call(request, "r".parse().unwrap()).await.expect("an old route still works");
    }
}
