//! Bodies stream both ways, and whoever stops reading stops the guest.

use crate::harness::{Caller, full, invoke_error, load};
use bytes::Bytes;
use futures_util::StreamExt as _;
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use neap_wasm_runtime::{Body, BoxError, InvokeError, Program};
use std::time::Duration;
use tokio::sync::mpsc;

/// A request body whose pieces the test sends one by one.
fn body_by_hand() -> (mpsc::Sender<Result<Frame<Bytes>, BoxError>>, Body) {
    let (sender, receiver) = mpsc::channel(1);
    let stream = futures_util::stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|frame| (frame, receiver))
    });
    (sender, StreamBody::new(stream.boxed()).boxed_unsync())
}

async fn next(body: &mut Body) -> Bytes {
    let frame = tokio::time::timeout(Duration::from_secs(10), body.frame()).await.expect("in time");
    frame.expect("not the end").expect("no error").into_data().expect("data")
}

/// Each piece comes back before the next is sent.
async fn echoes_piece_by_piece(program: &Program) {
    let (sender, body) = body_by_hand();
    let request = http::Request::post("/echo").header("host", "h").body(body).expect("request");
    let response = Caller::default().call(program, request).await.expect("head before the body has come");
    let mut body = response.into_body();
    for piece in ["one", "two", "three"] {
        sender.send(Ok(Frame::data(Bytes::from(piece)))).await.expect("taken");
        assert_eq!(next(&mut body).await, piece);
    }
    drop(sender);
    assert!(body.frame().await.is_none());
}

#[tokio::test]
async fn bodies_stream_both_ways() {
    echoes_piece_by_piece(&load("behave").await).await;
}

#[tokio::test]
async fn bodies_stream_both_ways_in_0_3() {
    echoes_piece_by_piece(&load("p3").await).await;
}

#[tokio::test]
async fn large_bodies_pass_whole() {
    let sent: Vec<u8> = (0..5_000_000_u32).map(|n| n as u8).collect();
    for name in ["behave", "p3"] {
        let program = load(name).await;
        let request =
            http::Request::post("/echo").header("host", "h").body(full(sent.clone())).expect("request");
        let response = Caller::default().call(&program, request).await.expect("response");
        let got = response.into_body().collect().await.expect("body").to_bytes();
        assert!(got == sent, "{name}: {} of {} bytes, or others", got.len(), sent.len());
    }
}

#[tokio::test]
async fn a_slow_reader_holds_the_guest_back() {
    let behave = load("behave").await;
    let caller = Caller::default();
    // Far more than the guest's memory limit: it only fits because nothing heaps up.
    let mut body = caller.get(&behave, "/big?1000000000").await.expect("head").into_body();
    for _ in 0..10 {
        next(&mut body).await;
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(caller.meter.memory_bytes() < 8 << 20, "{}", caller.meter.memory_bytes());
}

#[tokio::test]
async fn dropping_the_body_ends_the_guest() {
    let behave = load("behave").await;
    let caller = Caller::default();
    let mut body = caller.get(&behave, "/tick?1").await.expect("head").into_body();
    next(&mut body).await;
    drop(body);
    let logged = caller.logs.text("stdout");
    assert!(logged.starts_with("tick 0\n"), "{logged}");
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(caller.logs.text("stdout"), logged, "it ticks no more");
}

#[tokio::test]
async fn a_reader_that_stalls_does_not_keep_the_guest() {
    let behave = load("behave").await;
    let mut caller = Caller::default();
    caller.limits.wall = Duration::from_secs(1);
    let mut body = caller.get(&behave, "/tick?1").await.expect("head").into_body();
    next(&mut body).await;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(std::sync::Arc::strong_count(&caller.logs), 1, "nobody read, and yet it was ended in time");
    while let Some(frame) = body.frame().await {
        if let Err(error) = frame {
            assert_eq!(invoke_error(&error), InvokeError::Timeout(caller.limits.wall));
            return;
        }
    }
    panic!("the body ended as if it were complete");
}

#[tokio::test]
async fn dropping_the_call_ends_the_guest() {
    let behave = load("behave").await;
    let caller = Caller::default();
    let call = caller.get(&behave, "/sleep?60000");
    assert!(tokio::time::timeout(Duration::from_millis(50), call).await.is_err(), "still at work");
    assert!(caller.meter.memory_bytes() > 0, "it had begun");
    assert_eq!(std::sync::Arc::strong_count(&caller.logs), 1, "and nothing of it is left");
}

#[tokio::test]
async fn an_interrupted_request_body_reaches_the_guest_as_an_error() {
    let behave = load("behave").await;
    let (sender, body) = body_by_hand();
    let request = http::Request::post("/echo").header("host", "h").body(body).expect("request");
    let mut body = Caller::default().call(&behave, request).await.expect("head").into_body();
    sender.send(Ok(Frame::data(Bytes::from("one")))).await.expect("taken");
    assert_eq!(next(&mut body).await, "one");
    sender.send(Err("the client went away".into())).await.expect("taken");
    let end = body.frame().await;
    assert!(matches!(end, Some(Err(_))), "an echo of half a body must not look whole: {end:?}");
}
