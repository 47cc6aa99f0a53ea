//! What is too much, too slow, or too many.

use crate::{client::Client, world::World};
use futures_util::future::join_all;
use neap_sdk::limits;
use std::time::{Duration, Instant};

fn small(settings: &mut neap_gateway::GatewaySettings) {
    settings.request_body_bytes_max = 10;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_said_to_be_too_large_is_refused_before_any_work() {
    let world = World::with(small).await;
    let mut client = world.client().await;
    let post = "POST /read HTTP/1.1\r\nHost: hello.localhost\r\n";
    client.send(format!("{post}Content-Length: 11\r\nExpect: 100-continue\r\n\r\n")).await;
    client.answer().await.problem(413, "too_large");
    let mut client = world.client().await;
    // The client goes on sending all the same, more than sockets buffer, and only then reads.
    let body = vec![b'x'; 3 << 20];
    client.send(format!("{post}Content-Length: {}\r\n\r\n", body.len())).await;
    client.send(&body).await;
    client.answer().await.problem(413, "too_large");
    assert_eq!(world.began(), 0);
    let mut client = world.client().await;
    client.send(format!("{post}Content-Length: 10\r\nExpect: 100-continue\r\n\r\n")).await;
    assert_eq!(client.head().await.status, 100);
    client.send("0123456789").await;
    assert_eq!(client.answer().await.text(), "10");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_of_unknown_length_is_cut_at_the_limit() {
    let world = World::with(small).await;
    let post =
        |path| format!("POST {path} HTTP/1.1\r\nHost: hello.localhost\r\nTransfer-Encoding: chunked\r\n\r\n");
    let mut client = world.client().await;
    client.send(post("/read") + "a\r\n0123456789\r\n0\r\n\r\n").await;
    assert_eq!(client.answer().await.text(), "10", "as much as allowed");
    client.send(post("/read") + "a\r\n0123456789\r\n").await;
    assert!(client.is_silent().await);
    client.send("1\r\nx\r\n").await;
    client.answer().await.problem(413, "too_large");

    for path in ["/echo", "/swallow"] {
        let mut client = world.client().await;
        client.send(post(path) + "5\r\n01234\r\n").await;
        assert_eq!(client.head().await.status, 200);
        assert_eq!(client.chunk().await.as_deref(), Some(&b"01234"[..]));
        client.send("6\r\n567890\r\n0\r\n\r\n").await;
        let rest = client.rest().await;
        let text = String::from_utf8_lossy(&rest);
        assert!(!rest.ends_with(b"0\r\n\r\n"), "{path}: half an answer must not look whole: {text:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_are_limited() {
    let world = World::new().await;
    let many = "X-A: 1\r\n".repeat(limits::REQUEST_HEADERS_MAX);
    let large = format!("X-A: {}\r\n", "a".repeat(limits::REQUEST_HEAD_BYTES_MAX));
    for headers in [many, large] {
        let mut client = world.client().await;
        client.try_send(format!("GET / HTTP/1.1\r\nHost: hello.localhost\r\n{headers}\r\n")).await;
        let rest = String::from_utf8_lossy(&client.rest().await).into_owned();
        assert!(rest.is_empty() || rest.starts_with("HTTP/1.1 4"), "{rest}");
    }
    assert_eq!(world.began(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_is_said_at_once() {
    let world = World::new().await;
    let request = "GET /hang HTTP/1.1\r\nHost: full.localhost\r\n\r\n";
    let waiting = join_all((0..=limits::QUEUE_LENGTH_MAX).map(|_| async {
        let mut client = world.client().await;
        client.send(request).await;
        client
    }));
    let waiting: Vec<Client> = waiting.await;
    let all = waiting.len() as f64;
    world.until("all to wait", |world| world.metric("neap_requests_in_flight") == Some(all)).await;
    let answer = world.client().await.get("full.localhost", "/").await;
    answer.problem(429, "queue_full");
    assert_eq!(answer.header("retry-after"), Some("1"));
    assert_eq!(world.client().await.get("hello.localhost", "/").await.status, 200, "others are served");
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_clients_and_idle_connections_are_cut() {
    let world = World::with(|settings| {
        settings.header_read_timeout = Duration::from_millis(300);
        settings.idle_timeout = Duration::from_millis(900);
    })
    .await;
    let start = Instant::now();
    let mut silent = world.client().await;
    let mut dripping = world.client().await;
    let mut idle = world.client().await;
    let mut busy = world.client().await;
    busy.send("GET /gate HTTP/1.1\r\nHost: hello.localhost\r\n\r\n").await;
    assert_eq!(idle.get("hello.localhost", "/").await.text(), "hello");
    let drip = async {
        for byte in "GET / HTTP/1.1\r\nHost: hello.localhost\r\nX: ".bytes().chain(std::iter::repeat(b'x')) {
            if !dripping.try_send([byte]).await || start.elapsed() > crate::client::PATIENCE {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        start.elapsed()
    };
    let (dripped, silent) = tokio::join!(drip, async {
        silent.rest().await;
        start.elapsed()
    });
    for took in [dripped, silent] {
        assert!((Duration::from_millis(250)..Duration::from_secs(10)).contains(&took), "{took:?}");
    }
    assert!(
        idle.rest().await.is_empty() && start.elapsed() >= Duration::from_millis(800),
        "idle lives longer"
    );
    tokio::time::sleep(Duration::from_millis(500)).await;
    world.open_gate();
    assert_eq!(busy.answer().await.text(), "late", "a request that runs is not idle");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_beyond_the_limit_wait_for_their_turn() {
    let world = World::with(|settings| settings.connections_max = 1).await;
    let mut first = world.client().await;
    assert_eq!(first.get("hello.localhost", "/").await.status, 200);
    let mut second = world.client().await;
    second.send("GET / HTTP/1.1\r\nHost: hello.localhost\r\n\r\n").await;
    assert!(second.is_silent().await);
    drop(first);
    assert_eq!(second.answer().await.status, 200);
}
