//! The newcomer's first command, as it is.

use crate::harness::{Done, Server, neap};

#[test]
fn the_demo_holds() {
    let server = Server::start();
    let containers = server.missing.is_empty();
    drop(server);
    let done = Done::new(neap().arg("demo").output().expect("neap demo"));
    if containers {
        assert_eq!(done.code, 0, "{}\n{}", done.stderr, done.stdout);
        assert!(done.stdout.contains("hello-container"), "{}", done.stdout);
    } else {
        eprintln!("SKIPPED for containers: this machine cannot run them");
    }
    assert!(done.stderr.contains("refused") || done.stderr.contains("unsigned"), "{}", done.stderr);
    assert!(done.stdout.contains("WARM P50") && done.stdout.contains("hello"), "{}", done.stdout);
}

#[test]
fn outside_a_checkout_it_uses_what_the_binary_carries() {
    let elsewhere = tempfile::tempdir().expect("folder");
    let done = Done::new(neap().arg("demo").current_dir(elsewhere.path()).output().expect("neap demo"));
    assert!(done.stderr.contains("carries"), "{}", done.stderr);
    assert!(done.stdout.contains("WARM P50"), "{}\n{}", done.stderr, done.stdout);
}
