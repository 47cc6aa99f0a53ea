//! Wasm from outside: every kind of guest, and hostile ones next to which the others go on.

use crate::harness::{Server, behave, fetch, hello, p3, text_guest};
use neap_sdk::ErrorCode;
use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    time::{Duration, Instant},
};

#[test]
fn components_of_both_http_versions_and_core_modules_answer() {
    let server = Server::start();
    server.push(behave(), "p2", &[]);
    server.push(p3(), "p3", &[]);
    server.push(&text_guest(&server, "cgi-echo"), "cgi", &[]);
    assert_eq!(server.post("p2", "/echo", "one").text(), "one");
    assert_eq!(server.post("p3", "/echo", "two").text(), "two");
    let answer = server.post("cgi", "/path?q=1", "three");
    assert_eq!(answer.status, 201, "the module's own status: {}", answer.text());
    assert!(answer.text().contains("three"), "{}", answer.text());
    assert!(server.ok(&["get", "p3"]).contains("wasm-component"));
    assert!(server.ok(&["get", "cgi"]).contains("wasm-module"));
}

#[test]
fn guests_that_fail_are_told_apart_and_the_next_request_is_served() {
    let server = Server::start();
    server.push(behave(), "bad", &["--timeout-ms", "1500", "--memory-mib", "32"]);
    server.get("bad", "/trap").assert_problem(ErrorCode::GuestTrapped);
    server.get("bad", "/no-response").assert_problem(ErrorCode::FunctionFailed);
    let grown = server.get("bad", "/grow");
    assert_eq!(grown.status, 500, "{}", grown.text());
    let begun = Instant::now();
    server.get("bad", "/spin").assert_problem(ErrorCode::Timeout);
    server.get("bad", "/sleep?60000").assert_problem(ErrorCode::Timeout);
    assert!(begun.elapsed() < Duration::from_secs(10), "both within their limits: {:?}", begun.elapsed());
    assert_eq!(server.get("bad", "/").text(), "hello\n");
}

#[test]
fn a_busy_guest_does_not_stop_its_neighbours() {
    let server = Server::start_with(&["--cores", "1"]);
    server.push(behave(), "busy", &["--timeout-ms", "3000"]);
    server.push(hello(), "neighbour", &[]);
    assert_eq!(server.get("neighbour", "/").status, 200);
    let mut spinning = TcpStream::connect(server.address).expect("connect");
    write!(spinning, "GET /spin HTTP/1.1\r\nHost: {}\r\n\r\n", server.host("busy")).expect("request");
    std::thread::sleep(Duration::from_millis(300));
    let begun = Instant::now();
    for _ in 0..5 {
        assert_eq!(server.get("neighbour", "/").status, 200);
    }
    assert!(begun.elapsed() < Duration::from_millis(1_500), "neighbours waited {:?}", begun.elapsed());
}

#[test]
fn cpu_time_has_its_own_limit() {
    let server = Server::start();
    server.push(behave(), "cpu", &["--timeout-ms", "20000", "--cpu-ms", "200"]);
    let begun = Instant::now();
    let answer = server.get("cpu", "/spin");
    assert_eq!(answer.status, 504, "{}", answer.text());
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert_eq!(server.get("cpu", "/sleep?800").text(), "slept\n", "waiting costs no CPU");
}

#[test]
fn unknown_imports_are_named_before_anything_is_released() {
    let server = Server::start();
    let guest = text_guest(&server, "unknown-import");
    let done = server.run(&["push", guest.to_str().expect("path"), "--name", "odd"]);
    done.assert_failed(6, &["import"]);
    server.run(&["get", "odd"]).assert_failed(4, &["odd"]);
}

/// Reads a whole request head, answers, and closes only when the other side has: closing on unread bytes would reset
/// the connection under the answer.
fn answer_there(mut stream: TcpStream) {
    let mut head = Vec::new();
    let mut buffer = [0; 2048];
    while !head.windows(4).any(|window| window == b"\r\n\r\n") {
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return,
            Ok(read) => head.extend_from_slice(&buffer[..read]),
        }
    }
    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nthere");
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let _ = stream.read_to_end(&mut head);
}

#[test]
fn outgoing_requests_go_only_where_the_spec_allows() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("listener");
    let address = listener.local_addr().expect("address");
    std::thread::spawn(move || {
        // A thread each: a connection that a cancelled guest left open must not keep the next one waiting.
        while let Ok((stream, _)) = listener.accept() {
            std::thread::spawn(move || answer_there(stream));
        }
    });
    let server = Server::start();
    server.push(behave(), "allowed", &["--allow-host", &address.to_string()]);
    server.push(behave(), "denied", &[]);
    let path = format!("/fetch?http://{address}/");
    let allowed = server.get("allowed", &path);
    assert!(
        allowed.status == 200 && allowed.text().contains("there"),
        "{} {}",
        allowed.status,
        allowed.text()
    );
    let denied = server.get("denied", &path);
    assert!(!denied.text().contains("there"), "{} {}", denied.status, denied.text());

    server.push(
        fetch(),
        "example",
        &["--allow-host", &address.to_string(), "--env", &format!("URL=http://{address}/")],
    );
    let example = server.get("example", &format!("/?url=http://{address}/"));
    assert!(example.text().contains("there"), "{} {}", example.status, example.text());
}

#[test]
fn what_a_guest_prints_is_in_its_logs() {
    let server = Server::start();
    server.push(behave(), "talker", &[]);
    server.get("talker", "/log");
    let logs = server.ok(&["logs", "talker"]);
    assert!(logs.contains("stdout to stdout") && logs.contains("stderr to stderr"), "{logs}");
}

#[test]
fn bodies_stream_both_ways() {
    let server = Server::start();
    server.push(behave(), "stream", &[]);
    let mut stream = TcpStream::connect(server.address).expect("connect");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("timeout");
    let host = server.host("stream");
    write!(stream, "POST /echo HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")
        .expect("send");
    let mut seen = Vec::new();
    let mut buffer = [0; 1024];
    while !seen.windows(5).any(|window| window == b"first") {
        let read = stream.read(&mut buffer).expect("the first piece comes back before the request has ended");
        assert_ne!(read, 0, "{}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(&buffer[..read]);
    }
    write!(stream, "6\r\nsecond\r\n0\r\n\r\n").expect("send");
    while !seen.windows(6).any(|window| window == b"second") {
        let read = stream.read(&mut buffer).expect("the rest");
        assert_ne!(read, 0);
        seen.extend_from_slice(&buffer[..read]);
    }
    let big = server.get("stream", "/big?50000000");
    assert_eq!(big.body.len(), 50_000_000);
}

#[test]
fn a_corrupted_cache_of_native_code_is_rebuilt() {
    let server = Server::start();
    server.push(hello(), "cached", &[]);
    assert_eq!(server.get("cached", "/").status, 200);
    let (_, folder) = server.terminate();
    let mut spoiled = 0;
    for entry in std::fs::read_dir(folder.path().join("data/native")).expect("cache") {
        let path = entry.expect("entry").path();
        let mut bytes = std::fs::read(&path).expect("file");
        if bytes.len() > 10_000 {
            let middle = bytes.len() / 2;
            bytes[middle..middle + 64].fill(0xcc);
            std::fs::write(&path, bytes).expect("write");
            spoiled += 1;
        }
    }
    assert!(spoiled > 0, "the cache holds native code");
    let server = Server::start_in(folder, &[]);
    assert_eq!(server.get("cached", "/").text(), "hello, world\n");
}
