//! Which function answers which host and path.

use crate::harness::World;
use neap_sdk::FunctionSpec;

async fn deploy(world: &World, name: &str, routes: &[&str]) {
    let routes = routes.iter().map(|route| route.parse().unwrap()).collect();
    world.deploy(name, name, FunctionSpec { routes, ..FunctionSpec::default() }).await.unwrap();
}

#[tokio::test]
async fn exact_hosts_beat_any_host_and_longer_paths_beat_shorter_ones() {
    let world = World::containers().await;
    deploy(&world, "shop", &["shop.example"]).await;
    deploy(&world, "api", &["shop.example/api"]).await;
    deploy(&world, "v2", &["shop.example/api/v2"]).await;
    deploy(&world, "any", &["*/api", "*/health"]).await;
    let routes = world.scheduler.routes();
    for (host, path, expected) in [
        ("shop.localhost", "/", Some("shop")),
        ("shop.localhost", "/deep/path", Some("shop")),
        ("shop.example", "/", Some("shop")),
        ("shop.example", "/apix", Some("shop")),
        ("shop.example", "/api", Some("api")),
        ("shop.example", "/api/", Some("api")),
        ("shop.example", "/api/v2/x", Some("v2")),
        ("shop.example", "/health", Some("shop")),
        ("else.example", "/api/x", Some("any")),
        ("else.example", "/health", Some("any")),
        ("else.example", "/", None),
        ("none.localhost", "/", None),
        ("shop", "/", None),
        ("", "/", None),
    ] {
        let found = routes.find(host, path).map(|route| route.function.as_str());
        assert_eq!(found, expected, "{host}{path}");
    }
}

#[tokio::test]
async fn a_snapshot_does_not_change_under_its_reader() {
    let world = World::containers().await;
    deploy(&world, "shop", &["shop.example"]).await;
    let before = world.scheduler.routes().clone();
    deploy(&world, "shop", &["other.example"]).await;
    assert!(before.find("shop.example", "/").is_some());
    let after = world.scheduler.routes();
    assert!(after.find("shop.example", "/").is_none() && after.find("other.example", "/").is_some());
}
