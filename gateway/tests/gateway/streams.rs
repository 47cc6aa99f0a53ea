//! Bodies and connections: both directions at once, keep-alive, pipelining, HTTP/2, disconnects.

use crate::world::World;
use bytes::Bytes;
use futures_util::future::join_all;
use http::{Request, Version};
use http_body_util::{BodyExt, Empty, channel::Channel};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::collections::HashSet;
use tokio::net::TcpStream;

#[tokio::test(flavor = "multi_thread")]
async fn the_first_chunk_comes_back_before_the_request_ends() {
    let world = World::new().await;
    let mut client = world.client().await;
    client.send("POST /echo HTTP/1.1\r\nHost: hello.localhost\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    client.send("3\r\none\r\n").await;
    assert_eq!(client.head().await.status, 200);
    assert_eq!(client.chunk().await.as_deref(), Some(&b"one"[..]));
    client.send("3\r\ntwo\r\n").await;
    assert_eq!(client.chunk().await.as_deref(), Some(&b"two"[..]));
    client.send("0\r\n\r\n").await;
    assert_eq!(client.chunk().await, None);
    assert_eq!(client.get("hello.localhost", "/").await.text(), "hello", "the connection is as good as new");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_sent_together_are_answered_in_order() {
    let world = World::new().await;
    let mut client = world.client().await;
    let post = |body: &str| {
        format!(
            "POST /echo HTTP/1.1\r\nHost: hello.localhost\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let get = "GET / HTTP/1.1\r\nHost: hello.localhost\r\n\r\n";
    client.send([&post("a"), get, &post("b\nb"), get].concat()).await;
    let mut answers = Vec::new();
    for _ in 0..4 {
        answers.push(client.answer().await.text());
    }
    assert_eq!(answers, ["a", "hello", "b\nb", "hello"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_cancels_the_work() {
    let world = World::new().await;
    let mut before_head = world.client().await;
    before_head.send("GET /hang HTTP/1.1\r\nHost: hello.localhost\r\n\r\n").await;
    world.until("both calls to begin", |world| world.began() == 1).await;
    let mut in_body = world.client().await;
    in_body.send("GET /drip HTTP/1.1\r\nHost: hello.localhost\r\n\r\n").await;
    assert_eq!(in_body.head().await.status, 200);
    assert_eq!(in_body.chunk().await.as_deref(), Some(&b"first"[..]));
    assert_eq!(world.cancelled(), 0);
    drop(before_head);
    world.until("the call without an answer to be dropped", |world| world.cancelled() == 1).await;
    drop(in_body);
    world.until("the call with half an answer to be dropped", |world| world.cancelled() == 2).await;
    world
        .until("nothing to be in flight", |world| world.metric("neap_requests_in_flight") == Some(0.0))
        .await;
    let left = r#"neap_requests_total{function="hello",code_class="4xx"}"#;
    assert_eq!(world.metric(left), Some(1.0), "one left before its answer, as status 499");
}

#[tokio::test(flavor = "multi_thread")]
async fn http2_without_tls_streams_both_ways_on_one_connection() {
    let world = World::new().await;
    let stream = TcpStream::connect(world.address()).await.expect("connects");
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .expect("HTTP/2");
    tokio::spawn(connection);
    let (mut frames, body) = Channel::<Bytes>::new(1);
    let request = Request::post("http://hello.localhost/echo?x").body(body.boxed());
    let response = sender.send_request(request.expect("request"));
    frames.send_data("one".into()).await.expect("sends");
    let mut response = response.await.expect("an answer while the request goes on");
    assert_eq!((response.status().as_u16(), response.version()), (200, Version::HTTP_2));
    let first = response.frame().await.expect("a frame").expect("no error");
    assert_eq!(first.into_data().expect("data"), "one");

    let shown = Request::get("http://HELLO.localhost/show").body(Empty::<Bytes>::new().boxed());
    let shown = sender.send_request(shown.expect("request")).await.expect("a second stream beside the first");
    let shown = shown.collect().await.expect("a body").to_bytes();
    let shown = str::from_utf8(&shown).expect("text");
    assert!(shown.starts_with("GET /show\n") && shown.contains("host: HELLO.localhost\n"), "{shown}");

    drop(frames);
    assert!(response.collect().await.expect("an end").to_bytes().is_empty());
    assert_eq!(world.metric("neap_connections"), Some(1.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_clients_at_once_are_all_answered_and_told_apart() {
    let world = World::new().await;
    let calls = (0..1_000).map(|number| {
        let world = &world;
        async move {
            let mut client = world.client().await;
            let body = format!("request {number}");
            let length = body.len();
            client
                .send(format!(
                    "POST /echo HTTP/1.1\r\nHost: hello.localhost\r\nContent-Length: {length}\r\n\r\n{body}"
                ))
                .await;
            let answer = client.answer().await;
            assert_eq!((answer.status, answer.text()), (200, body));
            answer.header("x-request-id").expect("an id").to_owned()
        }
    });
    let ids: HashSet<String> = join_all(calls).await.into_iter().collect();
    assert_eq!(ids.len(), 1_000, "no id twice");
    assert_eq!(world.metric(r#"neap_requests_total{function="hello",code_class="2xx"}"#), Some(1_000.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_control_plane_streams_both_ways_too() {
    let world = World::new().await;
    let mut client = world.client().await;
    let host = world.address();
    client
        .send(format!(
            "POST /upload HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n"
        ))
        .await;
    assert_eq!(client.head().await.status, 200);
    assert_eq!(client.chunk().await.as_deref(), Some(&b"one"[..]));
    client.send("3\r\ntwo\r\n0\r\n\r\n").await;
    assert_eq!(client.chunk().await.as_deref(), Some(&b"two"[..]));
    assert_eq!(client.chunk().await, None);
    client.get("localhost", "/panic").await.problem(500, "internal");
    assert_eq!(
        client.get("localhost", "/").await.text(),
        "system",
        "one broken answer, not one broken server"
    );
}
