//! Calls through the node: what is counted, when the record is there, and what ends a call early.

use crate::{
    Body, BoxError, CallError, UsageFilter,
    instance::tests::{Bench, invocation, slow_answer},
    runtime::fake::{Answer, text_body},
};
use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _, stream};
use http::{Method, Request, Response, StatusCode};
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt as _, Full, StreamBody};
use neap_sdk::{FunctionSpec, invocation::UsageRecord};
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::sync::mpsc;

fn records(bench: &Bench) -> Vec<UsageRecord> {
    bench.node.usage().records(UsageFilter::default()).map(Result::unwrap).collect()
}

/// A body that a test feeds by hand; it does not know its end before it comes.
fn channel_body() -> (mpsc::Sender<Result<Bytes, BoxError>>, Body) {
    let (sender, receiver) = mpsc::channel(8);
    let frames = stream::unfold(receiver, |mut receiver| async { Some((receiver.recv().await?, receiver)) });
    (sender, StreamBody::new(frames.map(|piece| piece.map(Frame::data))).boxed_unsync())
}

/// Answers with this response, once.
fn answer_once(response: Response<Body>) -> Answer {
    let response = Arc::new(Mutex::new(Some(response)));
    Arc::new(move |_, _| {
        let response = response.lock().unwrap().take().expect("only one call");
        async { Ok(response) }.boxed()
    })
}

#[tokio::test(start_paused = true)]
async fn the_record_is_there_before_the_end_of_the_body() {
    let bench = Bench::new();
    let (sender, body) = channel_body();
    bench.runtime.script(|script| {
        script.answer = answer_once(Response::new(body));
        script.call_cpu_us = 321;
    });
    let instance = bench.start().await;
    let mut response = bench.call(instance).await.unwrap();
    sender.send(Ok("hello ".into())).await.unwrap();
    response.body_mut().frame().await.unwrap().unwrap();
    assert_eq!(records(&bench), [], "not before the end");
    sender.send(Ok("world".into())).await.unwrap();
    response.body_mut().frame().await.unwrap().unwrap();
    drop(sender);
    assert!(response.body_mut().frame().await.is_none());
    let written = records(&bench);
    assert_eq!(written.len(), 1, "at the end, with the body still held");
    assert_eq!((written[0].bytes_out, written[0].status, written[0].cpu_us), (11, 200, 321));
    drop(response);
    assert_eq!(records(&bench), written, "and only once");
}

/// An HTTP/1 server stops asking once it has as many bytes as `Content-Length` promised.
#[tokio::test(start_paused = true)]
async fn the_record_is_there_before_the_last_byte_of_a_known_length() {
    let bench = Bench::new();
    let (sender, body) = channel_body();
    let response = Response::builder().header("content-length", "5").body(body).unwrap();
    bench.runtime.script(|script| script.answer = answer_once(response));
    let instance = bench.start().await;
    let mut response = bench.call(instance).await.unwrap();
    sender.send(Ok("hell".into())).await.unwrap();
    response.body_mut().frame().await.unwrap().unwrap();
    assert_eq!(records(&bench).len(), 0);
    sender.send(Ok("o".into())).await.unwrap();
    response.body_mut().frame().await.unwrap().unwrap();
    assert_eq!(records(&bench)[0].bytes_out, 5);
}

#[tokio::test(start_paused = true)]
async fn a_response_without_a_body_is_recorded_before_its_head() {
    let bench = Bench::new();
    let instance = bench.start().await;
    let head = Request::builder().method(Method::HEAD).body(text_body("")).unwrap();
    let response = bench.node.call(instance, head, invocation()).await.unwrap();
    assert_eq!(records(&bench).len(), 1);
    drop(response);

    bench.runtime.script(|script| script.answer = answer_once(Response::new(text_body(""))));
    let instance = bench.start().await;
    let response = bench.call(instance).await.unwrap();
    assert!(response.body().is_end_stream());
    assert_eq!(records(&bench).len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_goes_away_is_recorded_and_its_work_ends() {
    let bench = Bench::new();
    bench.runtime.script(|script| script.answer = slow_answer(Duration::from_secs(5)));
    let instance = bench.start().await;
    let gone = tokio::time::timeout(Duration::from_millis(20), bench.call(instance)).await;
    assert!(gone.is_err());
    assert_eq!(records(&bench)[0].status, 499);
    assert_eq!(bench.node.instances()[0].in_flight, 0);

    let (sender, body) = channel_body();
    let response = Response::builder().status(StatusCode::CREATED).body(body).unwrap();
    bench.runtime.script(|script| script.answer = answer_once(response));
    let instance = bench.start().await;
    let mut response = bench.call(instance).await.unwrap();
    sender.send(Ok("some".into())).await.unwrap();
    response.body_mut().frame().await.unwrap().unwrap();
    drop(response);
    assert!(sender.is_closed(), "the function's body was dropped");
    let last = records(&bench).pop().unwrap();
    assert_eq!((last.status, last.bytes_out), (201, 4));
}

#[tokio::test(start_paused = true)]
async fn the_deadline_holds_before_and_after_the_head() {
    let bench = Bench::new();
    let spec = || FunctionSpec { timeout_ms: 100, ..Default::default() };
    bench.runtime.script(|script| script.answer = slow_answer(Duration::from_secs(5)));
    let instance = bench.start_with(spec()).await;
    let error = bench.call(instance).await.map(drop).unwrap_err();
    assert_eq!((error.clone(), error.problem().status), (CallError::Timeout { timeout_ms: 100 }, 504));
    assert_eq!(records(&bench)[0].status, 504);

    let (sender, body) = channel_body();
    bench.runtime.script(|script| script.answer = answer_once(Response::new(body)));
    let instance = bench.start_with(spec()).await;
    let mut response = bench.call(instance).await.unwrap();
    sender.send(Ok("some".into())).await.unwrap();
    assert!(response.body_mut().frame().await.unwrap().is_ok());
    let error = response.body_mut().frame().await.unwrap().unwrap_err();
    assert_eq!(error.downcast_ref(), Some(&CallError::Timeout { timeout_ms: 100 }));
    assert!(sender.is_closed(), "the function's work has ended");
    let last = records(&bench).pop().unwrap();
    assert_eq!((last.status, last.bytes_out), (200, 4));
    assert!(response.body_mut().frame().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn an_exit_cuts_a_body_off() {
    let bench = Bench::new();
    let (_sender, body) = channel_body();
    bench.runtime.script(|script| script.answer = answer_once(Response::new(body)));
    let instance = bench.start().await;
    let mut response = bench.call(instance).await.unwrap();
    bench.runtime.exit(instance, "was killed by signal 9");
    let error = response.body_mut().frame().await.unwrap().unwrap_err();
    assert_eq!(error.to_string(), "the function failed: was killed by signal 9");
    assert_eq!(records(&bench).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn bytes_in_are_what_the_function_read() {
    let bench = Bench::new();
    bench.runtime.script(|script| {
        script.answer = Arc::new(|_, request: Request<Body>| {
            async {
                let bytes = request.into_body().collect().await.unwrap().to_bytes();
                Ok(Response::new(Full::new(bytes).map_err(|never| match never {}).boxed_unsync()))
            }
            .boxed()
        });
    });
    let instance = bench.start().await;
    let request = Request::new(text_body("twelve bytes"));
    let response = bench.node.call(instance, request, invocation()).await.unwrap();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "twelve bytes");
    let record = records(&bench).pop().unwrap();
    assert_eq!((record.bytes_in, record.bytes_out), (12, 12));
}

#[tokio::test(start_paused = true)]
async fn a_containers_cpu_time_is_shared_among_its_calls() {
    let bench = Bench::new();
    bench.runtime.script(|script| {
        script.measured_whole = true;
        script.answer = slow_answer(Duration::from_millis(10));
    });
    let instance = bench.start().await;
    let (one, two) = tokio::join!(bench.call(instance), bench.call(instance));
    bench.runtime.use_cpu(instance, 1_000);
    drop(one);
    bench.runtime.use_cpu(instance, 300);
    drop(two);
    let shares: Vec<_> = records(&bench).iter().map(|record| (record.cpu_us, record.memory_bytes)).collect();
    assert_eq!(shares, [(500, 2 << 20), (800, 2 << 20)]);
}
