//! A function's life: pushed, called, to zero and back, rolled back, deleted; over restarts and signals.

use crate::{
    harness::{PATIENCE, Server, behave, hello, wait_until},
    http,
};
use neap_sdk::{ErrorCode, api::FunctionView};
use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::{Duration, Instant},
};

#[test]
fn pushed_then_called_then_the_same_again_makes_no_second_revision() {
    let server = Server::start();
    let url = server.push(hello(), "greeter", &[]);
    assert_eq!(url.trim(), format!("http://greeter.localhost:{}/", server.address.port()));
    let answer = server.get("greeter", "/?name=neap");
    assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, "hello, neap\n"));

    server.push(hello(), "greeter", &[]);
    assert_eq!(server.function("greeter").revisions.len(), 1, "the same digest and spec");
    server.push(hello(), "greeter", &["--env", "A=B"]);
    let view = server.function("greeter");
    assert_eq!(view.revisions.len(), 2, "another spec");
    assert_eq!(view.traffic.iter().map(|share| share.revision).collect::<Vec<_>>(), [2]);
    assert!(view.revisions.iter().all(|revision| revision.verdict.admitted));
}

#[test]
fn goes_to_zero_and_comes_back() {
    let server = Server::start();
    server.push(hello(), "sleeper", &["--idle-timeout-ms", "300"]);
    assert_eq!(server.get("sleeper", "/").status, 200);
    wait_until("it is at zero", || server.instances("sleeper") == 0);
    let answer = server.get("sleeper", "/");
    assert_eq!(answer.status, 200);
    let timing = answer.header("server-timing").to_owned();
    for part in ["queue;dur=", "start;dur=", "run;dur="] {
        assert!(timing.contains(part), "{timing}");
    }
}

#[test]
fn min_instances_stay_up() {
    let server = Server::start();
    server.push(hello(), "ready", &["--idle-timeout-ms", "100", "--min-instances", "1"]);
    std::thread::sleep(Duration::from_millis(1_500));
    assert_eq!(server.instances("ready"), 1);
}

#[test]
fn rollback_is_quick_and_rebuilds_nothing() {
    let server = Server::start();
    server.push(behave(), "app", &["--env", "VERSION=one"]);
    server.push(behave(), "app", &["--env", "VERSION=two"]);
    let version = || server.get("app", "/env").text();
    assert!(version().contains("VERSION=two"));
    let begun = Instant::now();
    server.ok(&["rollback", "app"]);
    assert!(version().contains("VERSION=one"), "right after the command");
    assert!(begun.elapsed() < Duration::from_secs(5), "took {:?}", begun.elapsed());
    server.ok(&["rollback", "app", "2"]);
    assert!(version().contains("VERSION=two"));
    server.run(&["rollback", "app", "9"]).assert_failed(4, &["9"]);

    let view: FunctionView = server.json(&["traffic", "app", "1=50", "2=50"]);
    assert_eq!(view.traffic.len(), 2);
    let answers: Vec<String> = (0..60).map(|_| version()).collect();
    assert!(
        answers.iter().any(|text| text.contains("=one")) && answers.iter().any(|text| text.contains("=two"))
    );
}

#[test]
fn a_restart_finds_everything_again() {
    let server = Server::start();
    server.push(behave(), "app", &["--env", "VERSION=one"]);
    server.push(behave(), "app", &["--env", "VERSION=two", "--route", "shop.example/api"]);
    server.ok(&["rollback", "app"]);
    assert_eq!(server.get("app", "/").status, 200);
    let invocations = |server: &Server| {
        let usage: Vec<neap_sdk::api::FunctionUsage> = server.json(&["usage", "--function", "app"]);
        usage[0].sum.invocations
    };
    let before = invocations(&server);
    let (code, folder) = server.terminate();
    assert_eq!(code, Some(0), "SIGTERM ends with 0");

    let server = Server::start_in(folder, &[]);
    assert!(server.get("app", "/env").text().contains("VERSION=one"), "the rollback held");
    assert_eq!(server.function("app").revisions.len(), 2);
    assert_eq!(invocations(&server), before + 1);
}

#[test]
fn claimed_hosts_and_paths_lead_to_their_function() {
    let server = Server::start();
    server.push(behave(), "shop", &["--route", "shop.example/api", "--route", "api.example"]);
    assert_eq!(
        http::get(server.address, "shop.example", "/api/headers").status,
        404,
        "the guest has no such path"
    );
    assert!(http::get(server.address, "api.example", "/headers").text().contains("path /headers"));
    http::get(server.address, "shop.example", "/apix").assert_problem(ErrorCode::NoRoute);
    let done =
        server.run(&["push", behave().to_str().expect("path"), "--name", "thief", "--route", "api.example"]);
    done.assert_failed(5, &["api.example", "shop"]);
}

#[test]
fn deleted_functions_are_gone_and_their_usage_stays() {
    let server = Server::start();
    server.push(hello(), "brief", &[]);
    assert_eq!(server.get("brief", "/").status, 200);
    server.ok(&["delete", "brief"]);
    server.get("brief", "/").assert_problem(ErrorCode::NoRoute);
    server.run(&["get", "brief"]).assert_failed(4, &["brief"]);
    assert!(server.ok(&["usage", "--function", "brief"]).contains("brief"));
}

#[test]
fn sigterm_lets_running_requests_finish() {
    let server = Server::start();
    server.push(behave(), "slow", &[]);
    let mut stream = TcpStream::connect(server.address).expect("connect");
    stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
    let head = format!("GET /sleep?1500 HTTP/1.1\r\nHost: {}\r\n\r\n", server.host("slow"));
    stream.write_all(head.as_bytes()).expect("request");
    wait_until("the request runs", || {
        server.function("slow").revisions[0].instances.iter().any(|instance| instance.in_flight == 1)
    });
    let (code, _folder) = server.terminate();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("the answer and the end");
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.contains("slept\n") && answer.ends_with("0\r\n\r\n"),
        "{answer}"
    );
    assert_eq!(code, Some(0));
}
