//! The command line itself: exit codes, streams, errors that say what to do.

use crate::harness::{Done, Server, hello, neap};
use neap_sdk::api::FunctionView;
use std::{
    io::{BufRead as _, BufReader},
    net::TcpListener,
    process::Stdio,
};

#[test]
fn without_a_server_the_errors_say_so() {
    let folder = tempfile::tempdir().expect("folder");
    for args in [&["ls"][..], &["get", "x"], &["usage"], &["logs", "x"], &["rollback", "x"]] {
        let output = neap().args(args).env("NEAP_DATA_DIR", folder.path()).output().expect("neap");
        Done::new(output).assert_failed(8, &["neap up"]);
    }
}

#[test]
fn usage_errors_end_with_2() {
    for args in [
        &["frob"][..],
        &["get"],
        &["get", "Not_A_Name"],
        &["traffic", "x"],
        &["logs", "x", "--since", "soon"],
    ] {
        let done = Done::new(neap().args(args).output().expect("neap"));
        assert_eq!(done.code, 2, "{args:?}: {done:?}");
    }
    assert_eq!(Done::new(neap().arg("--help").output().expect("neap")).code, 0);
    assert!(Done::new(neap().args(["completion", "bash"]).output().expect("neap")).stdout.contains("neap"));
}

#[test]
fn a_port_in_use_and_a_folder_in_use_are_named() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("listener");
    let address = taken.local_addr().expect("address").to_string();
    let folder = tempfile::tempdir().expect("folder");
    let up = |listen: &str, folder: &std::path::Path| {
        Done::new(
            neap().args(["up", "--listen", listen]).env("NEAP_DATA_DIR", folder).output().expect("neap"),
        )
    };
    let done = up(&address, folder.path());
    done.assert_failed(1, &[&address, "use"]);

    let server = Server::start();
    let done = up("127.0.0.1:0", &server.data_dir());
    done.assert_failed(5, &["another neap server", &server.pid().to_string(), "--data-dir"]);
    let second = tempfile::tempdir().expect("folder");
    let done = up(&server.address.to_string(), second.path());
    done.assert_failed(1, &["use"]);
}

#[test]
fn data_is_on_stdout_and_the_rest_on_stderr() {
    let server = Server::start();
    assert_eq!(server.ok(&["ls", "-o", "json"]).trim(), "[]");
    let done = server.run(&["push", hello().to_str().expect("path"), "--name", "hi"]);
    assert_eq!(done.stdout.lines().count(), 1, "only the URL: {done:?}");
    let functions: Vec<FunctionView> = server.json(&["ls"]);
    assert_eq!(functions.len(), 1);
    let view: FunctionView = server.json(&["push", hello().to_str().expect("path"), "--name", "hi"]);
    assert_eq!(view.name.as_str(), "hi");
    let done = server.run(&["invoke", "hi", "/?name=x", "-i"]);
    assert_eq!((done.code, done.stdout.as_str()), (0, "hello, x\n"));
    assert!(done.stderr.contains("200"));
    assert_eq!(server.run(&["invoke", "nobody"]).code, 4);
}

#[test]
fn a_manifest_is_read_and_its_mistakes_are_pointed_at() {
    let server = Server::start();
    let folder = server.folder.path();
    std::fs::copy(hello(), folder.join("app.wasm")).expect("copy");
    let manifest =
        "name = \"listed\"\nartifact = \"app.wasm\"\n[function]\nconcurrency = 7\nenv = { A = \"B\" }\n";
    std::fs::write(folder.join("neap.toml"), manifest).expect("manifest");
    server.ok(&["push", "--timeout-ms", "1234"]);
    let spec = server.function("listed").revisions[0].spec.clone();
    assert_eq!((spec.concurrency, spec.timeout_ms, spec.env["A"].as_str()), (7, 1234, "B"));
    std::fs::write(folder.join("neap.toml"), "name = \"x\"\n[function]\nmemori = 1\n").expect("manifest");
    server.run(&["push", "app.wasm"]).assert_failed(2, &["memori", "line 3"]);
    std::fs::write(folder.join("neap.toml"), "[function]\nmemory_bytes = 5\n").expect("manifest");
    server.run(&["push", "app.wasm"]).assert_failed(2, &["memory_bytes"]);
}

#[test]
fn logs_follow_what_comes() {
    let server = Server::start();
    server.push(crate::harness::behave(), "talker", &[]);
    let mut follower = server
        .command(&["logs", "-f", "talker"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("neap");
    let mut lines = BufReader::new(follower.stdout.take().expect("stdout")).lines();
    std::thread::sleep(std::time::Duration::from_millis(500));
    server.get("talker", "/log");
    let line = lines.next().expect("a line").expect("text");
    assert!(line.contains("to std"), "{line}");
    server.ok(&["delete", "talker"]);
    crate::harness::wait_until("the end of the function ends its log", || {
        follower.try_wait().expect("status").is_some_and(|status| status.success())
    });
}
