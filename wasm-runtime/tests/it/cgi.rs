//! Core modules of preview 1 in CGI style.

use crate::harness::{Caller, full, get, invoke_error, load, text};
use http_body_util::BodyExt as _;
use neap_sdk::{artifact::ArtifactKind, limits::CGI_RESPONSE_BYTES_MAX};
use neap_wasm_runtime::{CallLimits, InvokeError};
use std::time::Duration;

#[tokio::test]
async fn request_in_response_out() {
    let echo = load("cgi-echo").await;
    assert_eq!(echo.kind(), ArtifactKind::WasmModule);
    let caller = Caller { env: vec![("OWN".into(), "1".into())], ..Caller::default() };
    let request = http::Request::post("/a%20b?q=1")
        .header("host", "shop.example:8080")
        .header("x-one", "1")
        .header("proxy", "http://evil.example");
    let sent = "body ".repeat(50_000);
    let response =
        caller.call(&echo, request.body(full(sent.clone())).expect("request")).await.expect("response");
    assert_eq!(response.status(), 201);
    assert_eq!(response.headers()["x-guest"], "cgi");
    assert!(!response.headers().contains_key("connection"), "concerns one hop alone");
    let body = text(response).await.expect("body");
    for line in [
        "REQUEST_METHOD=POST",
        "PATH_INFO=/a b",
        "QUERY_STRING=q=1",
        "SERVER_PORT=8080",
        "HTTP_X_ONE=1",
        "OWN=1",
    ] {
        assert!(body.contains(&format!("{line}\n")), "{line} in:\n{:.2000}", body);
    }
    assert!(!body.contains("HTTP_PROXY"));
    assert!(body.ends_with(&sent), "{} bytes", body.len());
    assert!(caller.meter.cpu_us() > 0 && caller.meter.memory_bytes() == 4 * (64 << 10));
}

#[tokio::test]
async fn a_program_that_just_prints_is_served_as_text() {
    let plain = load("cgi-plain").await;
    let response = Caller::default().get(&plain, "/").await.expect("response");
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "text/plain; charset=utf-8");
    assert_eq!(text(response).await.expect("body"), "hello from a plain program\n");
}

#[tokio::test]
async fn an_exit_without_a_response_is_an_error() {
    let exit = load("cgi-exit").await;
    let error = Caller::default().get(&exit, "/").await.expect_err("no response");
    assert_eq!(error, InvokeError::Exited(3));
}

#[tokio::test]
async fn a_flood_is_cut_at_the_limit_and_costs_no_memory() {
    let flood = load("cgi-flood").await;
    let mut body = Caller::default().get(&flood, "/").await.expect("head").into_body();
    let mut bytes = 0;
    let error = loop {
        match body.frame().await.expect("never an ordinary end") {
            Ok(frame) => bytes += frame.into_data().expect("data").len(),
            Err(error) => break error,
        }
    };
    assert!(bytes <= CGI_RESPONSE_BYTES_MAX && bytes > CGI_RESPONSE_BYTES_MAX / 2, "{bytes}");
    assert!(matches!(invoke_error(&error), InvokeError::Failed(_)), "{error}");
}

#[tokio::test]
async fn a_module_that_waits_for_its_input_is_timed() {
    let echo = load("cgi-echo").await;
    let wall = Duration::from_secs(1);
    let caller =
        Caller { limits: CallLimits { memory_bytes: 1 << 20, wall, cpu: wall }, ..Caller::default() };
    let silent = http_body_util::StreamBody::new(futures_util::stream::pending()).boxed_unsync();
    let request = get("/").map(|_| silent);
    let body = caller.call(&echo, request).await.expect("the head does not need the input").into_body();
    let error = body.collect().await.expect_err("cut");
    assert_eq!(invoke_error(&error), InvokeError::Timeout(wall));
}
