//! Waiting for an instance: single flight, limits, order, cancellation, back-off.

use crate::harness::{World, empty, eventually, text};
use futures_util::future::join_all;
use http_body_util::BodyExt as _;
use neap_scheduler::AcquireError;
use neap_sdk::{FunctionSpec, artifact::ArtifactKind, limits};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

const SOON: u64 = limits::IDLE_TIMEOUT_MS_MIN;

/// A function that has been deployed and went to zero again.
async fn at_zero(kind: ArtifactKind, spec: FunctionSpec) -> World {
    let world = World::new(kind).await;
    world.deploy("hello", "one", FunctionSpec { idle_timeout_ms: SOON, ..spec }).await.unwrap();
    eventually("it goes to zero", || world.up("hello", 1).is_empty()).await;
    world
}

#[tokio::test]
async fn a_hundred_first_requests_lead_to_one_start() {
    for kind in [ArtifactKind::Image, ArtifactKind::WasmComponent] {
        let world = at_zero(kind, FunctionSpec::default()).await;
        world.fleet.script(|script| script.start_delay = Duration::from_millis(50));
        let before = world.fleet.starts();
        let leases = join_all((0..100).map(|_| world.acquire("hello"))).await;
        assert_eq!(world.fleet.starts() - before, 1, "{kind}");
        for lease in leases {
            let lease = lease.unwrap();
            assert!(lease.cold());
            assert!(lease.waited().start >= Duration::from_millis(40), "{:?}", lease.waited());
        }
        let warm = world.acquire("hello").await.unwrap();
        assert!(!warm.cold());
        assert_eq!(warm.waited().start, Duration::ZERO);
    }
}

#[tokio::test]
async fn a_burst_starts_as_many_as_it_needs_and_no_more_than_allowed() {
    let spec = FunctionSpec { concurrency: 2, max_instances: 3, ..FunctionSpec::default() };
    let world = at_zero(ArtifactKind::Image, spec).await;
    world.fleet.script(|script| script.start_delay = Duration::from_millis(20));
    let before = world.fleet.starts();
    let mut waiting: Vec<_> = (0..10).map(|_| Box::pin(world.acquire("hello"))).collect();
    let held = join_all(waiting.drain(..6)).await;
    assert_eq!(world.fleet.starts() - before, 3, "3 instances with 2 slots each");
    let mut rest = join_all(waiting);
    let blocked = tokio::time::timeout(Duration::from_millis(50), &mut rest).await;
    assert!(blocked.is_err(), "every slot is taken");
    drop(held);
    assert!(rest.await.iter().all(Result::is_ok));
}

#[tokio::test]
async fn the_queue_is_bounded_and_the_wait_is_too() {
    let spec = FunctionSpec { concurrency: 1, max_instances: 1, ..FunctionSpec::default() };
    let world = World::containers().await;
    world.deploy("hello", "one", spec).await.unwrap();
    let held = world.acquire("hello").await.unwrap();
    tokio::time::pause();
    let waiting: Vec<_> = (0..limits::QUEUE_LENGTH_MAX)
        .map(|_| {
            let (scheduler, target) = (world.scheduler.clone(), world.target("hello"));
            tokio::spawn(async move { scheduler.acquire(&target).await.map(drop) })
        })
        .collect();
    eventually("all of them wait", || world.newest("hello").queued == limits::QUEUE_LENGTH_MAX as u64).await;
    assert!(world.metrics_text().contains("neap_queue_depth 1000"), "{}", world.metrics_text());
    let full = world.acquire("hello").await.unwrap_err();
    assert_eq!((full.problem().code.name(), full.problem().status), ("queue_full", 429));
    for waiter in waiting {
        let error = waiter.await.unwrap().unwrap_err();
        assert_eq!((error.problem().code.name(), error.problem().status), ("queue_timeout", 503));
    }
    assert!(world.metrics_text().contains("neap_queue_depth 0"), "{}", world.metrics_text());
    drop(held);
    world.acquire("hello").await.expect("the slot is free again");
}

#[tokio::test]
async fn a_waiter_that_leaves_gives_its_place_to_the_next() {
    let spec = FunctionSpec { concurrency: 1, max_instances: 1, ..FunctionSpec::default() };
    let world = World::containers().await;
    world.deploy("hello", "one", spec).await.unwrap();
    let held = world.acquire("hello").await.unwrap();
    let target = world.target("hello");
    let mut first = Box::pin(world.scheduler.acquire(&target));
    let mut second = Box::pin(world.scheduler.acquire(&target));
    assert!(tokio::time::timeout(Duration::from_millis(5), &mut first).await.is_err());
    assert!(tokio::time::timeout(Duration::from_millis(5), &mut second).await.is_err());
    drop(held);
    // The slot was granted to the first, who has not looked yet, and now goes away.
    drop(first);
    tokio::time::timeout(Duration::from_secs(5), second).await.expect("it goes on to the second").unwrap();
}

#[tokio::test]
async fn the_lease_lives_as_long_as_the_response() {
    let spec = FunctionSpec { concurrency: 1, max_instances: 1, ..FunctionSpec::default() };
    let world = World::containers().await;
    world.deploy("hello", "one", spec).await.unwrap();
    let busy = || world.newest("hello").instances[0].in_flight;
    let call = async |body| {
        let lease = world.acquire("hello").await.unwrap();
        lease.call(http::Request::new(text(body)), "r1".parse().unwrap()).await.unwrap()
    };
    let response = call("hello").await;
    assert_eq!(busy(), 1, "the body was not read yet");
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "hello");
    assert_eq!(busy(), 0);
    drop(call("never read").await);
    assert_eq!(busy(), 0, "a body that is dropped frees the slot");
    let lease = world.acquire("hello").await.unwrap();
    drop(lease.call(http::Request::new(empty()), "r2".parse().unwrap()));
    assert_eq!(busy(), 0, "a call that is never made frees it too");
}

#[tokio::test]
async fn start_failures_reach_every_waiter_and_are_not_repeated_at_once() {
    let world = at_zero(ArtifactKind::Image, FunctionSpec::default()).await;
    world.fleet.script(|script| {
        script.start_delay = Duration::from_millis(20);
        script.start_failures.insert(1, "exited with status 1\nlast words".to_owned());
    });
    let before = world.fleet.starts();
    for outcome in join_all((0..20).map(|_| world.acquire("hello"))).await {
        let error = outcome.unwrap_err();
        assert_eq!((error.problem().code.name(), error.problem().status), ("start_failed", 503));
        assert!(error.problem().detail.contains("last words"));
    }
    let began = Instant::now();
    let error = world.acquire("hello").await.unwrap_err();
    assert!(began.elapsed() < Duration::from_millis(15), "answered at once: {:?}", began.elapsed());
    let retry_after = error.retry_after().expect("a hint when to come back");
    assert!(retry_after <= Duration::from_millis(limits::START_BACKOFF_MS_MIN));
    assert_eq!(world.fleet.starts() - before, 1);
    assert!(world.newest("hello").failure.unwrap().contains("last words"));

    world.fleet.script(|script| script.start_failures.clear());
    tokio::time::sleep(retry_after + Duration::from_millis(20)).await;
    world.acquire("hello").await.expect("it is tried again after the pause");
    assert_eq!(world.newest("hello").failure, None);
}

#[tokio::test]
async fn a_new_release_ends_the_back_off() {
    let world = at_zero(ArtifactKind::Image, FunctionSpec::default()).await;
    world.fleet.script(|script| {
        script.start_failures.insert(1, "its release is not there".to_owned());
    });
    world.acquire("hello").await.unwrap_err();
    world.fleet.script(|script| script.start_failures.clear());
    assert!(world.acquire("hello").await.is_err(), "the pause holds");
    world.admissions.announce();
    let began = Instant::now();
    while world.acquire("hello").await.is_err() {
        assert!(began.elapsed() < Duration::from_millis(limits::START_BACKOFF_MS_MIN - 100));
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn draining_refuses_new_requests_and_lets_the_others_finish() {
    let world = World::containers().await;
    world.deploy("hello", "one", FunctionSpec::default()).await.unwrap();
    let held = world.acquire("hello").await.unwrap();
    let target = world.target("hello");
    let scheduler = world.scheduler.clone();
    let drain = tokio::spawn(async move {
        scheduler.drain(Duration::from_secs(20)).await;
    });
    eventually("new requests are refused", || {
        let refused = futures_util::FutureExt::now_or_never(world.scheduler.acquire(&target));
        matches!(refused, Some(Err(AcquireError::Draining)))
    })
    .await;
    assert!(!drain.is_finished(), "a request still runs");
    assert_eq!(world.up("hello", 1).len(), 1);
    drop(held);
    drain.await.unwrap();
    assert!(world.up("hello", 1).is_empty(), "nothing is left running");
}

/// Many requests on several threads, most of which go away at some random moment, while instances are killed: in the end
/// every slot is there again.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_slot_is_lost_under_random_cancellation() {
    let spec = FunctionSpec { concurrency: 3, max_instances: 4, ..FunctionSpec::default() };
    let world = Arc::new(World::containers().await);
    world.fleet.script(|script| script.start_delay = Duration::from_millis(1));
    world.deploy("hello", "one", spec).await.unwrap();
    let target = world.target("hello");
    let requests = (0..2_000_u64).map(|number| {
        let (world, target) = (Arc::clone(&world), Arc::clone(&target));
        tokio::spawn(async move {
            // Spread over time and patience without a random source: runs are alike.
            let mixed = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
            tokio::time::sleep(Duration::from_micros(mixed % 200_000)).await;
            let request = async {
                let lease = world.scheduler.acquire(&target).await?;
                tokio::time::sleep(Duration::from_micros(mixed % 1_500)).await;
                let call = lease.call(http::Request::new(empty()), "r".parse().unwrap());
                let _ = call.await;
                Ok::<_, AcquireError>(())
            };
            let _ = tokio::time::timeout(Duration::from_micros(mixed % 3_000), request).await;
        })
    });
    let requests = join_all(requests.collect::<Vec<_>>());
    let killer = async {
        for _ in 0..8 {
            tokio::time::sleep(Duration::from_millis(20)).await;
            if let Some(victim) = world.up("hello", 1).first() {
                world.fleet.kill(victim.instance, "killed by the test");
            }
        }
    };
    tokio::join!(requests, killer);
    eventually("nothing runs or waits any more", || {
        let revision = world.newest("hello");
        revision.queued == 0 && revision.instances.iter().all(|instance| instance.in_flight == 0)
    })
    .await;
    world.admissions.announce();
    eventually("every slot can be had again", || {
        let all = (0..12).map(|_| world.scheduler.acquire(&target));
        let mut all = Box::pin(join_all(all));
        let done = futures_util::FutureExt::now_or_never(&mut all);
        done.is_some_and(|leases| leases.iter().all(Result::is_ok))
    })
    .await;
    assert!(world.metrics_text().contains("neap_queue_depth 0"), "{}", world.metrics_text());
}
