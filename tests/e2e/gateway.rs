//! The gateway from outside: routes, limits, headers, protocols, and clients that misbehave.

use crate::{
    harness::{Server, behave, hello, wait_until},
    http::{self, request},
};
use neap_sdk::ErrorCode;
use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    process::Command,
    time::Duration,
};

#[test]
fn unknown_hosts_get_a_problem_document() {
    let server = Server::start();
    let problem = server.get("nobody", "/").assert_problem(ErrorCode::NoRoute);
    assert!(problem.request_id.is_some(), "{problem:?}");
    http::get(server.address, "other.example", "/").assert_problem(ErrorCode::NoRoute);
}

#[test]
fn request_ids_and_forwarded_headers_are_the_gateways() {
    let server = Server::start();
    server.push(behave(), "echo", &[]);
    let with_id =
        request("GET", "/headers").header("x-request-id", "mine-1").header("x-forwarded-for", "6.6.6.6");
    let answer = http::send(server.address, &server.host("echo"), with_id, "").expect("an answer");
    assert_eq!(answer.header("x-request-id"), "mine-1");
    let seen = answer.text();
    assert!(seen.contains("x-request-id: mine-1") && seen.contains("x-forwarded-for: 127.0.0.1"), "{seen}");
    assert!(!seen.contains("6.6.6.6"), "{seen}");
    let other = server.get("echo", "/headers");
    assert!(other.header("x-request-id").len() >= 16);
}

#[test]
fn bodies_over_the_limit_are_refused_whole_or_cut() {
    let server = Server::start_with(&["--max-body-bytes", "1000"]);
    server.push(behave(), "echo", &[]);
    server.post("echo", "/echo", vec![b'x'; 2_000]).assert_problem(ErrorCode::TooLarge);
    assert_eq!(server.post("echo", "/echo", vec![b'x'; 1_000]).body.len(), 1_000);
}

#[test]
fn a_client_that_goes_away_ends_the_work() {
    let server = Server::start();
    server.push(behave(), "slow", &["--timeout-ms", "60000"]);
    let running = || server.function("slow").revisions[0].instances.iter().map(|i| i.in_flight).sum::<u32>();
    let mut stream = TcpStream::connect(server.address).expect("connect");
    write!(stream, "GET /sleep?50000 HTTP/1.1\r\nHost: {}\r\n\r\n", server.host("slow")).expect("request");
    wait_until("the request runs", || running() == 1);
    drop(stream);
    wait_until("the work has ended", || running() == 0);
}

#[test]
fn http2_without_tls_works() {
    let server = Server::start();
    server.push(hello(), "two", &[]);
    let output = Command::new("curl")
        .args(["--silent", "--http2-prior-knowledge", "--write-out", " %{http_version} %{http_code}"])
        .args(["--resolve", &format!("two.localhost:{}:127.0.0.1", server.address.port())])
        .arg(format!("http://two.localhost:{}/", server.address.port()))
        .output();
    match output {
        Ok(output) => {
            assert_eq!(String::from_utf8_lossy(&output.stdout), "hello, world\n 2 200", "{output:?}")
        }
        Err(error) => eprintln!("SKIPPED: curl cannot be run: {error}"),
    }
}

#[test]
fn a_slow_head_is_cut_off_and_bad_heads_are_refused() {
    let server = Server::start();
    for head in [
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a.localhost\r\nHost: b.localhost\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: bad host\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a.localhost\r\nTransfer-Encoding: gzip\r\n\r\n",
    ] {
        let mut stream = TcpStream::connect(server.address).expect("connect");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("timeout");
        stream.write_all(head.as_bytes()).expect("send");
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).expect("a status line");
        assert_eq!(&answer[..], b"HTTP/1.1 400", "{head:?}");
    }
    let mut slow = TcpStream::connect(server.address).expect("connect");
    slow.set_read_timeout(Some(Duration::from_secs(30))).expect("timeout");
    slow.write_all(b"GET / HTTP/1.1\r\nHost: a").expect("send");
    let mut rest = Vec::new();
    slow.read_to_end(&mut rest).expect("the connection is closed, not kept for ever");
}

#[test]
fn plain_host_answers_for_the_server() {
    let server = Server::start();
    server.push(hello(), "counted", &[]);
    server.get("counted", "/");
    let plain = |path: &str| http::get(server.address, &server.plain_host(), path);
    assert_eq!(plain("/healthz").status, 200);
    assert_eq!(plain("/readyz").status, 200);
    let metrics = plain("/metrics").text();
    for name in [
        "neap_requests_total",
        "neap_request_duration_seconds",
        "neap_instances",
        "neap_ledger_records_total",
    ] {
        assert!(metrics.contains(name), "{name} in\n{metrics}");
    }
    assert!(metrics.contains("function=\"counted\""), "{metrics}");
}

#[test]
fn the_admin_api_needs_its_token() {
    let server = Server::start();
    let token = std::fs::read_to_string(server.data_dir().join("admin.token")).expect("token");
    let ask = |authorization: Option<String>| {
        let mut request = request("GET", "/api/v1/functions");
        if let Some(value) = authorization {
            request = request.header("authorization", value);
        }
        http::send(server.address, &server.plain_host(), request, "").expect("an answer")
    };
    ask(None).assert_problem(ErrorCode::Unauthorized);
    ask(Some("Bearer wrong".into())).assert_problem(ErrorCode::Unauthorized);
    assert_eq!(ask(Some(format!("Bearer {token}"))).status, 200);
    // A page elsewhere that makes its name point here gets no admin API.
    let rebound = request("GET", "/api/v1/functions").header("authorization", format!("Bearer {token}"));
    let answer = http::send(server.address, "evil.example", rebound, "").expect("an answer");
    answer.assert_problem(ErrorCode::NoRoute);
    let done = crate::harness::neap()
        .args(["ls", "--token", &token, "--listen", &server.address.to_string()])
        .output()
        .expect("neap");
    assert!(done.status.success(), "{done:?}");
}
