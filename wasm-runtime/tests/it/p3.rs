//! `wasi:http` 0.3 components.

use crate::harness::{Caller, invoke_error, load, text};
use neap_sdk::artifact::ArtifactKind;
use neap_wasm_runtime::InvokeError;
use std::time::Duration;

#[tokio::test]
async fn it_answers() {
    let program = load("p3").await;
    assert_eq!(program.kind(), ArtifactKind::WasmComponent);
    let caller = Caller::default();
    assert_eq!(caller.text(&program, "/").await, "hello from 0.3\n");
    let seen = caller.text(&program, "/headers").await;
    assert!(seen.contains("Http") && seen.contains("shop.example"), "{seen}");
    assert!(caller.meter.cpu_us() > 0 && caller.meter.memory_bytes() > 0);
}

#[tokio::test]
async fn it_fails_by_the_same_names() {
    let program = load("p3").await;
    let caller = Caller::default();
    let trap = caller.get(&program, "/trap").await.expect_err("trapped");
    assert!(matches!(&trap, InvokeError::Trapped(reason) if reason.contains("unreachable")), "{trap}");
    let fail = caller.get(&program, "/fail").await.expect_err("failed");
    assert!(matches!(&fail, InvokeError::Failed(reason) if reason.contains("told to fail")), "{fail}");
    assert_eq!(caller.text(&program, "/log").await, "logged\n");
    assert_eq!(
        (caller.logs.text("stdout"), caller.logs.text("stderr")),
        ("to stdout\n".into(), "to stderr\n".into())
    );
}

#[tokio::test]
async fn work_after_the_response_is_finished() {
    let program = load("p3").await;
    let caller = Caller::default();
    assert_eq!(caller.text(&program, "/after").await, "done\n");
    assert_eq!(caller.logs.text("stdout"), "after the response\n");
}

#[tokio::test]
async fn work_after_a_complete_response_that_runs_late_is_no_error() {
    let program = load("p3").await;
    let mut caller = Caller::default();
    caller.limits.wall = Duration::from_millis(20);
    let Ok(response) = caller.get(&program, "/after").await else {
        println!("skipped: this machine is too busy to answer within 20 ms");
        return;
    };
    match text(response).await {
        Ok(body) => assert_eq!(body, "done\n"),
        // So busy that the body itself came late.
        Err(error) => assert!(matches!(invoke_error(&error), InvokeError::Timeout(_)), "{error}"),
    }
    assert_eq!(caller.logs.text("stdout"), "", "it was ended before its late work was done");
}
