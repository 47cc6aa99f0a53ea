//! How containers come up, and what is said when they do not.

use crate::support::{fixture, get, image};
use neap_oci_runtime::{Exit, RunError, Stream};
use serde_json::json;
use std::time::{Duration, Instant};

#[tokio::test]
async fn serves_http_on_the_exposed_port_and_logs() {
    let Some(fixture) = fixture().await else { return };
    let container = fixture.run(&[("GREETING", "hi")]).await.unwrap();
    assert_eq!(get(&container, "/").await.unwrap(), "hello from a container\n");
    let env = get(&container, "/env").await.unwrap();
    assert!(env.contains("PORT=9000\n") && env.contains("GREETING=hi\n") && env.contains("PATH="), "{env}");
    assert!(!env.contains("CARGO"), "the server's environment leaks: {env}");
    // More connections than one batch of sockets, all at once.
    let mut many = tokio::task::JoinSet::new();
    for _ in 0..30 {
        let container = container.clone();
        many.spawn(async move { get(&container, "/").await });
    }
    for answer in many.join_all().await {
        assert_eq!(answer.unwrap(), "hello from a container\n");
    }
    container.stop(Duration::ZERO).await;
    assert!(get(&container, "/").await.is_err());
    assert!(fixture.logs.text(Stream::Stdout).contains("as process 1\n"));
    fixture.finish().await;
}

#[tokio::test]
async fn the_functions_port_wins_and_loopback_of_version_6_is_found() {
    let Some(fixture) = fixture().await else { return };
    let container = fixture.run(&[("PORT", "80"), ("MODE", "ipv6-only")]).await.unwrap();
    assert!(get(&container, "/env").await.unwrap().contains("PORT=80\n"));
    drop(container);
    fixture.finish().await;
}

#[tokio::test]
async fn an_early_exit_is_told_with_its_last_words() {
    let Some(fixture) = fixture().await else { return };
    let error = fixture.run(&[("MODE", "exit")]).await.unwrap_err();
    assert!(matches!(error, RunError::Exited { exit: Exit::Code(7), port: 9000 }), "{error}");
    assert_eq!(fixture.logs.text(Stream::Stderr), "cannot find my database\n");
    fixture.finish().await;
}

#[tokio::test]
async fn running_out_of_memory_is_told() {
    let Some(fixture) = fixture().await else { return };
    let error = fixture.run(&[("MODE", "eat")]).await.unwrap_err();
    assert!(matches!(error, RunError::Exited { exit: Exit::OutOfMemory, .. }), "{error}");
    assert!(error.to_string().contains("used up its memory"), "{error}");
    fixture.finish().await;
}

#[tokio::test]
async fn late_is_waited_for_and_never_is_not() {
    let Some(fixture) = fixture().await else { return };
    let begun = Instant::now();
    let container = fixture.run(&[("MODE", "late")]).await.unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(300));
    assert_eq!(get(&container, "/").await.unwrap(), "hello from a container\n");

    let mut spec = fixture.spec(&[("MODE", "never")]);
    spec.startup_timeout = Duration::from_millis(400);
    let begun = Instant::now();
    let error = fixture.runtime.run(spec).await.unwrap_err();
    assert!(matches!(error, RunError::NeverListened { port: 9000, .. }), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(3));
    fixture.finish().await;
}

#[tokio::test]
async fn a_program_that_is_not_there_is_named() {
    let Some(mut fixture) = fixture().await else { return };
    for (config, word) in [
        (json!({"Cmd": ["/bin/missing"]}), "/bin/missing"),
        (json!({"Cmd": ["/etc/passwd"]}), "not executable"),
        (json!({"Cmd": ["server"], "Env": ["PATH=/nowhere"]}), "\"server\" does not exist"),
    ] {
        fixture.image = image(fixture.dir.path(), config);
        let error = fixture.run(&[]).await.unwrap_err();
        assert!(matches!(&error, RunError::Setup(reason) if reason.contains(word)), "{error}");
    }
    // Found in the image's PATH, in the image's folder, as the image's user.
    let config = json!({"Cmd": ["server"], "Env": ["PATH=/bin"], "User": "web", "WorkingDir": "/srv/app"});
    fixture.image = image(fixture.dir.path(), config);
    let container = fixture.run(&[]).await.unwrap();
    let status = get(&container, "/read?/proc/self/status").await.unwrap();
    assert!(status.contains("Uid:\t1000\t1000\t1000\t1000\n"), "{status}");
    assert!(get(&container, "/read?/root-only").await.unwrap().contains("ermission denied"));
    drop(container);
    fixture.finish().await;
}

#[tokio::test]
async fn a_dropped_start_leaves_nothing() {
    let Some(fixture) = fixture().await else { return };
    for wait_ms in [0, 1, 3, 10, 40] {
        let start = fixture.run(&[("MODE", "never")]);
        assert!(tokio::time::timeout(Duration::from_millis(wait_ms), start).await.is_err());
    }
    fixture.finish().await;
}

#[tokio::test]
async fn more_at_once_than_sandboxes_are_prepared() {
    let Some(fixture) = fixture().await else { return };
    let mut starts = tokio::task::JoinSet::new();
    for number in 0..12 {
        let (runtime, spec) = (fixture.runtime.clone(), fixture.spec(&[("NUMBER", &number.to_string())]));
        starts.spawn(async move {
            let container = runtime.run(spec).await.unwrap();
            assert!(get(&container, "/env").await.unwrap().contains(&format!("NUMBER={number}\n")));
            container
        });
    }
    let containers = starts.join_all().await;
    let pids: std::collections::HashSet<u32> = containers.iter().map(|container| container.pid()).collect();
    assert_eq!(pids.len(), 12);
    drop(containers);
    fixture.finish().await;
}
