//! Deploying, rolling back, shifting traffic, deleting: what is answered is true, now and after a crash.

use crate::harness::{World, empty, eventually, key, revision_id};
use neap_scheduler::{AcquireError, deploy::DeployError};
use neap_sdk::{
    Digest, ErrorCode, FunctionSpec,
    api::{DeployRequest, TrafficShare},
    artifact::ArtifactKind,
};
use std::time::{Duration, Instant};

fn spec() -> FunctionSpec {
    FunctionSpec::default()
}

async fn serving_revision(world: &World, name: &str) -> String {
    let lease = world.acquire(name).await.unwrap();
    let response = lease.call(http::Request::new(empty()), "r1".parse().unwrap()).await.unwrap();
    response.headers()["x-revision"].to_str().unwrap().to_owned()
}

#[tokio::test]
async fn an_answered_deployment_is_up_and_serves() {
    let world = World::containers().await;
    let view = world.deploy("hello", "one", spec()).await.unwrap();
    assert_eq!(view.url, "http://hello.localhost:8080/");
    assert_eq!(view.traffic, [TrafficShare { revision: 1, weight: 100 }]);
    assert_eq!(view.revisions[0].instances[0].state, "ready");
    assert_eq!(serving_revision(&world, "hello").await, "1");

    let again = world.deploy("hello", "one", spec()).await.unwrap();
    assert_eq!(again.revisions.len(), 1, "the same digest and spec make no second revision");
    world.deploy("hello", "two", spec()).await.unwrap();
    assert_eq!(serving_revision(&world, "hello").await, "2");
    eventually("the old revision's instances are stopped", || world.up("hello", 1).is_empty()).await;
    let metrics = world.metrics_text();
    assert!(metrics.contains(r#"neap_deploys_total{outcome="deployed"} 2"#), "{metrics}");
    assert!(metrics.contains(r#"neap_deploys_total{outcome="unchanged"} 1"#), "{metrics}");
}

#[tokio::test]
async fn a_revision_that_does_not_start_leaves_the_old_one_serving() {
    let world = World::containers().await;
    world.deploy("hello", "one", spec()).await.unwrap();
    world.fleet.script(|script| {
        script.start_failures.insert(2, "exited with status 3\npanic: no database".to_owned());
    });
    let error = world.deploy("hello", "two", spec()).await.unwrap_err();
    let problem = error.problem();
    assert_eq!((problem.code, problem.code.exit_code()), (ErrorCode::StartFailed, 7));
    assert!(problem.detail.contains("panic: no database"), "{}", problem.detail);
    assert_eq!(serving_revision(&world, "hello").await, "1");
    let view = world.view("hello");
    assert_eq!(view.traffic, [TrafficShare { revision: 1, weight: 100 }]);
    assert!(view.revisions[0].failure.as_deref().unwrap().contains("no database"));

    // The reason goes away: the next push of the same thing may try at once, and clears it.
    world.fleet.script(|script| script.start_failures.clear());
    let view = world.deploy("hello", "two", spec()).await.unwrap();
    assert_eq!((view.revisions.len(), &view.revisions[0].failure), (2, &None));
}

#[tokio::test]
async fn a_function_that_never_started_says_why() {
    let world = World::containers().await;
    world.fleet.script(|script| {
        script.start_failures.insert(1, "it never listened on $PORT".to_owned());
    });
    world.deploy("hello", "one", spec()).await.unwrap_err();
    let starts = world.fleet.starts();
    let error = world.acquire("hello").await.unwrap_err();
    assert!(matches!(&error, AcquireError::StartFailed { reason, .. } if reason.contains("never listened")));
    assert_eq!(error.problem().status, 503);
    assert_eq!(
        world.fleet.starts(),
        starts,
        "what was answered as failed does not go live behind one's back"
    );
}

#[tokio::test]
async fn refusals_carry_the_first_code_and_all_reasons() {
    let world = World::containers().await;
    let digest = Digest::of(b"bad");
    world.admissions.refuse(
        digest,
        &[(ErrorCode::Unsigned, "no trusted signature"), (ErrorCode::Policy, "no SBOM is attached")],
    );
    let problem = world.deploy("hello", "bad", spec()).await.unwrap_err().problem();
    assert_eq!((problem.code, problem.code.exit_code()), (ErrorCode::Unsigned, 6));
    assert!(
        problem.detail.contains("no trusted signature") && problem.detail.contains("no SBOM is attached")
    );
    assert!(world.scheduler.function(&key("hello")).is_err(), "nothing was made");
    assert_eq!(world.fleet.starts(), 0);
}

#[tokio::test]
async fn only_own_repositories_and_valid_specs_are_deployed() {
    let world = World::containers().await;
    let request = |repository: &str, spec| DeployRequest {
        repository: repository.parse().unwrap(),
        digest: Digest::of(b"x"),
        spec,
    };
    let foreign = world.scheduler.deploy(&key("hello"), request("team/app", spec())).await.unwrap_err();
    assert_eq!(foreign.problem().code, ErrorCode::Forbidden);
    let bad = FunctionSpec { concurrency: 0, ..spec() };
    let invalid = world.scheduler.deploy(&key("hello"), request("app", bad)).await.unwrap_err();
    assert_eq!(invalid.problem().code, ErrorCode::Invalid);
    assert!(invalid.to_string().contains("concurrency"), "{invalid}");
}

#[tokio::test]
async fn rollback_is_quick_even_where_the_old_revision_is_slow() {
    let world = World::containers().await;
    world.deploy("hello", "one", spec()).await.unwrap();
    world.deploy("hello", "two", spec()).await.unwrap();
    eventually("the first revision is at zero", || world.up("hello", 1).is_empty()).await;
    world.fleet.script(|script| script.start_delay = Duration::from_secs(2));
    let began = Instant::now();
    let view = world.scheduler.rollback(&key("hello"), None).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    assert_eq!(view.traffic, [TrafficShare { revision: 1, weight: 100 }]);
    let starts = world.fleet.starts();
    assert_eq!(serving_revision(&world, "hello").await, "1");
    assert_eq!(world.fleet.starts(), starts, "the request waits for the start that the rollback began");
    let missing = world.scheduler.rollback(&key("hello"), Some(7)).await.unwrap_err();
    assert_eq!(missing.problem().code, ErrorCode::NotFound);
}

#[tokio::test]
async fn rollback_to_a_revision_that_fails_changes_nothing() {
    let world = World::containers().await;
    world.deploy("hello", "one", spec()).await.unwrap();
    world.deploy("hello", "two", spec()).await.unwrap();
    eventually("the first revision is at zero", || world.up("hello", 1).is_empty()).await;
    world.fleet.script(|script| {
        script.start_failures.insert(1, "gone bad".to_owned());
    });
    let error = world.scheduler.rollback(&key("hello"), Some(1)).await.unwrap_err();
    assert!(matches!(error, DeployError::Start { serving: true, .. }), "{error:?}");
    assert_eq!(serving_revision(&world, "hello").await, "2");
}

#[tokio::test]
async fn traffic_is_split_by_weight() {
    let world = World::containers().await;
    world.deploy("hello", "one", spec()).await.unwrap();
    world.deploy("hello", "two", spec()).await.unwrap();
    let shares = [TrafficShare { revision: 1, weight: 1 }, TrafficShare { revision: 2, weight: 3 }];
    let view = world.scheduler.set_traffic(&key("hello"), &shares).await.unwrap();
    assert_eq!(view.traffic, shares);
    let routes = world.scheduler.routes();
    let route = routes.find("hello.localhost", "/").unwrap();
    let picks = (0..4_000_u32).map(|n| route.pick(n * (u32::MAX / 4_000)).unwrap().revision.number);
    let first = picks.filter(|number| *number == 1).count();
    assert!((990..=1_010).contains(&first), "a quarter of 4000: {first}");
    let wrong = world.scheduler.set_traffic(&key("hello"), &[TrafficShare { revision: 9, weight: 1 }]).await;
    assert_eq!(wrong.unwrap_err().problem().code, ErrorCode::NotFound);
}

#[tokio::test]
async fn a_deleted_function_is_gone_with_its_instances() {
    let world = World::containers().await;
    world.deploy("hello", "one", spec()).await.unwrap();
    let held = world.acquire("hello").await.unwrap();
    let target = world.target("hello");
    world.scheduler.delete(&key("hello")).await.unwrap();
    assert!(world.scheduler.routes().find("hello.localhost", "/").is_none());
    let late = world.scheduler.acquire(&target).await.unwrap_err();
    assert_eq!(late.problem().status, 404);
    assert_eq!(world.up("hello", 1).len(), 1, "a request still runs there");
    drop(held);
    eventually("its instance is stopped", || world.up("hello", 1).is_empty()).await;
    assert!(world.scheduler.delete(&key("hello")).await.is_err());
    world.deploy("hello", "one", spec()).await.unwrap();
    assert_eq!(
        world.newest("hello").number,
        2,
        "numbers are not used twice: usage and logs keep their meaning"
    );
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_by_a_crash() {
    let world = World::containers().await;
    for number in 0..5 {
        world.deploy("hello", &format!("artifact {number}"), spec()).await.unwrap();
        world.deploy(&format!("other-{number}"), "one", spec()).await.unwrap();
        let found = world.after_a_crash().await;
        let (before, after) = (world.view("hello"), found.view("hello"));
        assert_eq!(after.traffic, before.traffic);
        assert_eq!(after.revisions.len(), number + 1);
        assert_eq!(after.revisions[0].spec, before.revisions[0].spec);
        assert_eq!(found.scheduler.functions(&"default".parse().unwrap()).len(), number + 2);
        assert_eq!(serving_revision(&found, "hello").await, (number + 1).to_string(), "it starts on request");
    }
    world.scheduler.delete(&key("hello")).await.unwrap();
    world.scheduler.rollback(&key("other-1"), None).await.unwrap_err();
    let found = world.after_a_crash().await;
    assert!(found.scheduler.function(&key("hello")).is_err());
}

#[tokio::test]
async fn an_orderly_restart_finds_everything_again() {
    let world = World::new(ArtifactKind::WasmComponent).await;
    let routes = vec!["shop.example/api".parse().unwrap()];
    world.deploy("hello", "one", FunctionSpec { routes, ..spec() }).await.unwrap();
    world.scheduler.drain(Duration::from_secs(5)).await;
    let World { scheduler, dir, fleet, .. } = world;
    assert!(fleet.up(&revision_id("hello", 1)).is_empty());
    drop(scheduler);
    let world = World::open(dir, ArtifactKind::WasmComponent).await;
    assert!(world.scheduler.routes().find("shop.example", "/api/x").is_some());
    assert_eq!(serving_revision(&world, "hello").await, "1");
}

#[tokio::test]
async fn pushes_of_one_function_go_one_after_the_other() {
    let world = World::containers().await;
    world.fleet.script(|script| script.start_delay = Duration::from_millis(100));
    let slow = world.deploy("hello", "older", spec());
    let quick = async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        world.fleet.script(|script| script.start_delay = Duration::ZERO);
        world.deploy("hello", "newer", spec()).await
    };
    let (slow, quick) = tokio::join!(slow, quick);
    slow.unwrap();
    quick.unwrap();
    assert_eq!(serving_revision(&world, "hello").await, "2", "the one that was pushed last");
}
