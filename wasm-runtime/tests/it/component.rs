//! `wasi:http` 0.2 components: what they are given, what comes back, and what their failures are called.

use crate::harness::{Caller, full, get, invoke_error, load, text};
use http_body_util::BodyExt as _;
use neap_sdk::artifact::ArtifactKind;
use neap_wasm_runtime::InvokeError;

#[tokio::test]
async fn the_example_greets() {
    let hello = load("hello").await;
    assert_eq!(hello.kind(), ArtifactKind::WasmComponent);
    let caller = Caller::default();
    assert_eq!(caller.text(&hello, "/?name=neap").await, "hello, neap\n");
    assert_eq!(caller.text(&hello, "/").await, "hello, world\n");
    assert!(caller.meter.cpu_us() > 0 && caller.meter.memory_bytes() >= 64 << 10);
}

#[tokio::test]
async fn a_guest_gets_the_request_as_it_was_meant() {
    let behave = load("behave").await;
    let request = http::Request::put("/headers?a=%20b")
        .header("host", "shop.example:8080")
        .header("x-one", "1")
        .header("connection", "x-hop")
        .header("x-hop", "1")
        .header("te", "trailers");
    let response =
        Caller::default().call(&behave, request.body(full("x")).expect("request")).await.expect("response");
    assert_eq!(response.headers()["content-type"], "text/plain");
    let seen = text(response).await.expect("body");
    for line in
        ["method PUT", "scheme http", "authority shop.example:8080", "path /headers?a=%20b", "x-one: 1"]
    {
        assert!(seen.lines().any(|seen| seen == line), "{line} in:\n{seen}");
    }
    assert!(!seen.contains("x-hop") && !seen.contains("te:"), "{seen}");
}

#[tokio::test]
async fn environment_and_log_are_the_functions_own() {
    let behave = load("behave").await;
    let caller = Caller { env: vec![("GREETING".into(), "moin".into())], ..Caller::default() };
    assert_eq!(caller.text(&behave, "/env").await, "GREETING=moin\n", "and nothing of the server's");
    assert_eq!(caller.text(&behave, "/log").await, "logged\n");
    assert_eq!(caller.logs.text("stdout"), "to stdout\n");
    assert_eq!(caller.logs.text("stderr"), "to stderr\n");
}

#[tokio::test]
async fn every_failure_has_its_name() {
    let behave = load("behave").await;
    let caller = Caller::default();
    let failed = async |path| caller.get(&behave, path).await.expect_err(path);
    assert_eq!(failed("/no-response").await, InvokeError::NoResponse);
    // WASI 0.2 knows only success and failure.
    assert_eq!(failed("/exit").await, InvokeError::Exited(1));
    assert!(matches!(failed("/trap").await, InvokeError::Trapped(reason) if reason.contains("unreachable")));
    assert!(matches!(failed("/fail").await, InvokeError::Failed(reason) if reason.contains("told to fail")));
    assert_eq!(caller.text(&behave, "/").await, "hello\n", "the next request is served");
}

#[tokio::test]
async fn a_trap_after_the_head_is_no_complete_body() {
    let behave = load("behave").await;
    let response = Caller::default().get(&behave, "/trap-late").await.expect("head");
    let mut body = response.into_body();
    let first = body.frame().await.expect("a frame").expect("data").into_data().expect("data");
    assert_eq!(first, "first\n");
    let error = loop {
        match body.frame().await {
            Some(Ok(_)) => {}
            Some(Err(error)) => break error,
            None => panic!("the body ended as if it were complete"),
        }
    };
    assert!(matches!(invoke_error(&error), InvokeError::Trapped(_)), "{error}");
}

#[tokio::test]
async fn instances_share_nothing() {
    let behave = load("behave").await;
    let other = behave.clone();
    // On a task of its own, which also shows that a call may move between threads.
    let one = tokio::spawn(async move { Caller::default().text(&other, "/sleep?30").await });
    let two = Caller::default().get(&behave, "/trap").await;
    assert!(matches!(two, Err(InvokeError::Trapped(_))));
    assert_eq!(one.await.expect("the other call goes on"), "slept\n");
}

#[tokio::test]
async fn a_malformed_host_is_refused_before_the_guest() {
    let behave = load("behave").await;
    let mut request = get("/");
    request.headers_mut().insert("host", "not a host".parse().expect("value"));
    let error = Caller::default().call(&behave, request).await.expect_err("refused");
    assert!(matches!(error, InvokeError::BadRequest(_)), "{error}");
}
