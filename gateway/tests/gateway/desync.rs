//! Requests on whose borders, or hosts, two readers could disagree: refused, and nothing after them is read.

use crate::{client::Client, world::World};
use std::time::Duration;
use tokio::time::sleep;

/// What an attacker would like to have taken for a second request.
const SMUGGLED: &str = "GET /show/smuggled HTTP/1.1\r\nHost: hello.localhost\r\n\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn ambiguous_requests_end_their_connection() {
    let world = World::new().await;
    let host = "Host: hello.localhost\r\n";
    let post = |headers: &str| format!("POST /echo HTTP/1.1\r\n{host}{headers}\r\n");
    let cases = [
        ("length beside encoding", post("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n") + "0\r\n\r\n"),
        ("encoding beside length", post("Transfer-Encoding: chunked\r\nContent-Length: 3\r\n") + "0\r\n\r\n"),
        ("a negative length", post("Content-Length: -1\r\n")),
        ("two lengths", post("Content-Length: 0\r\nContent-Length: 3\r\n")),
        ("a list of lengths", post("Content-Length: 0, 3\r\n")),
        ("a signed length", post("Content-Length: +0\r\n")),
        ("encoding that is not chunked", post("Transfer-Encoding: gzip\r\n")),
        ("encoding that does not end in chunked", post("Transfer-Encoding: chunked, identity\r\n")),
        (
            "encoding in HTTP/1.0",
            format!("POST /echo HTTP/1.0\r\n{host}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        ),
        ("space before the colon", post("Content-Length : 0\r\n")),
        ("folded line", post("X-A: 1\r\n Content-Length: 0\r\n")),
        ("bare line feed after a header", format!("GET /show HTTP/1.1\r\n{host}X-A: 1\n\r\n")),
        ("bare line feed after the request line", format!("GET /show HTTP/1.1\n{host}\r\n")),
        ("bare line feed as the empty line", format!("GET /show HTTP/1.1\r\n{host}\n")),
        ("bare carriage return", format!("GET /show HTTP/1.1\r\n{host}X-A: 1\rX-B: 2\r\n\r\n")),
        ("zero byte", format!("GET /show HTTP/1.1\r\n{host}X-A: \0\r\n\r\n")),
        ("unknown version", format!("GET /show HTTP/3.0\r\n{host}\r\n")),
        ("HTTP/0.9", "GET /show\r\n".to_owned()),
    ];
    for (what, head) in cases {
        let request = head + SMUGGLED;
        for is_cut in [false, true] {
            let mut client = world.client().await;
            send(&mut client, request.as_bytes(), is_cut).await;
            let rest = String::from_utf8(client.rest().await).expect("text");
            let is_refused = rest.starts_with("HTTP/1.1 400") || rest.starts_with("HTTP/1.0 400");
            assert!(is_refused, "{what}, cut: {is_cut}: {rest:?}");
            assert_eq!(rest.matches("HTTP/1.").count(), 1, "{what}, cut: {is_cut}: {rest}");
            assert_eq!(world.began(), 0, "{what}, cut: {is_cut} reached the function");
        }
    }
}

/// Sends a connection's first bytes in one write, or one by one, each in a packet of its own.
async fn send(client: &mut Client, bytes: &[u8], is_cut: bool) {
    for piece in bytes.chunks(if is_cut { 1 } else { bytes.len() }) {
        if !client.try_send(piece).await {
            return;
        }
        if is_cut {
            sleep(Duration::from_millis(1)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_names_one_host() {
    let world = World::new().await;
    let cases = [
        ("no host", "GET / HTTP/1.1\r\n\r\n"),
        ("two hosts", "GET / HTTP/1.1\r\nHost: hello.localhost\r\nHost: other.localhost\r\n\r\n"),
        ("the same host twice", "GET / HTTP/1.1\r\nHost: hello.localhost\r\nHost: hello.localhost\r\n\r\n"),
        ("an empty host", "GET / HTTP/1.1\r\nHost: \r\n\r\n"),
        ("a list of hosts", "GET / HTTP/1.1\r\nHost: hello.localhost, other.localhost\r\n\r\n"),
        ("a path", "GET / HTTP/1.1\r\nHost: hello.localhost/x\r\n\r\n"),
        ("credentials", "GET / HTTP/1.1\r\nHost: me@hello.localhost\r\n\r\n"),
        ("a port that is none", "GET / HTTP/1.1\r\nHost: hello.localhost:x\r\n\r\n"),
        ("an underscore only", "GET / HTTP/1.1\r\nHost: ..\r\n\r\n"),
        (
            "another host in the target",
            "GET http://hello.localhost/ HTTP/1.1\r\nHost: other.localhost\r\n\r\n",
        ),
        ("a tunnel", "CONNECT hello.localhost:80 HTTP/1.1\r\nHost: hello.localhost:80\r\n\r\n"),
    ];
    for (what, request) in cases {
        let mut client = world.client().await;
        client.send(request).await;
        let answer = client.answer().await;
        assert_eq!(answer.status, 400, "{what}");
        answer.problem(400, "invalid");
    }
    assert_eq!(world.began(), 0);
    let mut client = world.client().await;
    client.send("GET http://hello.localhost/show?q HTTP/1.1\r\nHost: hello.localhost\r\n\r\n").await;
    let shown = client.answer().await.text();
    assert!(shown.starts_with("GET /show?q\n"), "the absolute form is the same request: {shown}");
}
