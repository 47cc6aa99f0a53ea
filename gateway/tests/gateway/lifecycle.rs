//! How the gateway begins and ends.

use crate::{client::Client, world::World};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;

const LONG: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_is_said_with_what_to_do() {
    let world = World::new().await;
    let error = world.bind_again().expect_err("the port is taken");
    let text = error.to_string();
    assert!(text.contains(&format!("port {} is in use", world.address().port())), "{text}");
    assert!(text.contains("--listen"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_lets_running_requests_end_and_takes_no_new_ones() {
    let mut world = World::new().await;
    let mut idle = world.client().await;
    assert_eq!(idle.get("hello.localhost", "/").await.status, 200);
    let mut running = world.client().await;
    running.send("GET /gate HTTP/1.1\r\nHost: hello.localhost\r\n\r\n").await;
    let stream = TcpStream::connect(world.address()).await.expect("connects");
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .expect("HTTP/2");
    tokio::spawn(connection);
    let request = Request::get("http://hello.localhost/gate").body(Empty::<Bytes>::new());
    let multiplexed = tokio::spawn(sender.send_request(request.expect("request")));
    world.until("both requests to run", |world| world.began() == 3).await;

    let drained = tokio::spawn(world.take_gateway().drain(LONG));
    assert!(idle.rest().await.is_empty(), "an idle connection is closed");
    // Each core closes its own listener.
    while TcpStream::connect(world.address()).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(!drained.is_finished() && running.is_silent().await);
    world.open_gate();
    world.open_gate();
    let answer = running.answer().await;
    assert_eq!((answer.text().as_str(), answer.header("connection")), ("late", Some("close")));
    assert!(running.rest().await.is_empty());
    let answer = multiplexed.await.expect("no panic").expect("an answer");
    assert_eq!(answer.collect().await.expect("a body").to_bytes(), "late");
    assert_eq!(drained.await.expect("no panic").cut, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_runs_beyond_the_deadline_is_cut_and_counted() {
    let mut world = World::new().await;
    let mut clients: Vec<Client> = Vec::new();
    for path in ["/hang", "/drip"] {
        let mut client = world.client().await;
        client.send(format!("GET {path} HTTP/1.1\r\nHost: hello.localhost\r\n\r\n")).await;
        clients.push(client);
    }
    world.until("both requests to run", |world| world.began() == 2).await;
    let start = Instant::now();
    let drained = world.take_gateway().drain(Duration::from_millis(300)).await;
    assert_eq!(drained.cut, 2);
    assert!((Duration::from_millis(300)..LONG).contains(&start.elapsed()), "{:?}", start.elapsed());
    assert_eq!(world.cancelled(), 2, "their work has ended too");
    for mut client in clients {
        assert!(!client.rest().await.ends_with(b"0\r\n\r\n"));
    }
    assert_eq!(world.metric("neap_connections"), Some(0.0));
}
