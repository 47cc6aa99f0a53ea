//! Containers from outside: images of every form, and containers that fail in every way a user meets.

use crate::harness::{Server, container_server, hello_container, skip_without_containers, wait_until};
use neap_sdk::ErrorCode;
use std::{path::Path, process::Command, time::Duration};

fn push(server: &Server, name: &str, mode: &str, options: &[&str]) {
    let mode = format!("MODE={mode}");
    server.push(container_server(), name, &[&["--env", &mode, "--env", "COLOUR=blue"], options].concat());
}

fn pid_of(server: &Server, name: &str) -> u32 {
    server.function(name).revisions[0].instances[0].pid.expect("a container has a process")
}

#[test]
fn serves_isolated_and_is_metered() {
    let server = Server::start();
    if skip_without_containers(&server) {
        return;
    }
    push(&server, "web", "", &[]);
    assert_eq!(server.get("web", "/").text(), "hello from a container\n");
    assert_eq!(server.post("web", "/echo", "body").text(), "body");
    let env = server.get("web", "/env").text();
    assert!(env.contains("PORT=") && env.contains("COLOUR=blue"), "{env}");
    let status = server.get("web", "/read?/proc/self/status").text();
    for line in ["NoNewPrivs:\t1", "Seccomp:\t2", "CapEff:\t0000000000000000"] {
        assert!(status.contains(line), "{line} in\n{status}");
    }
    let interfaces = server.get("web", "/list?/sys/class/net").text();
    assert!(interfaces.trim() == "lo" || interfaces.contains("No such file"), "{interfaces}");
    wait_until("its lines are in the logs", || server.ok(&["logs", "web"]).contains("as process 1"));
    let usage: Vec<neap_sdk::api::FunctionUsage> = server.json(&["usage", "--function", "web"]);
    assert!(usage[0].sum.invocations >= 5 && usage[0].sum.memory_byte_us > 0, "{usage:?}");
}

#[test]
fn goes_to_zero_without_a_process_left_and_comes_back() {
    let server = Server::start();
    if skip_without_containers(&server) {
        return;
    }
    push(&server, "web", "", &["--idle-timeout-ms", "400"]);
    assert_eq!(server.get("web", "/").status, 200);
    let pid = pid_of(&server, "web");
    wait_until("it is at zero", || server.instances("web") == 0);
    wait_until("its process is gone", || !Path::new(&format!("/proc/{pid}")).exists());
    assert_eq!(server.get("web", "/").status, 200);
}

#[test]
fn a_killed_process_is_noticed_and_replaced() {
    let server = Server::start();
    if skip_without_containers(&server) {
        return;
    }
    push(&server, "web", "", &["--min-instances", "1"]);
    let pid = pid_of(&server, "web");
    assert!(Command::new("kill").args(["-KILL", &pid.to_string()]).status().expect("kill").success());
    wait_until("another process serves", || {
        let view = server.function("web");
        view.revisions[0].instances.iter().any(|instance| instance.pid.is_some_and(|other| other != pid))
    });
    assert_eq!(server.get("web", "/").status, 200);
}

#[test]
fn containers_that_do_not_start_say_why() {
    let server = Server::start();
    if skip_without_containers(&server) {
        return;
    }
    let artifact = container_server().to_str().expect("path");
    let try_push = |name: &str, mode: &str, startup_ms: &str| {
        let mode = format!("MODE={mode}");
        server.run(&["push", artifact, "--name", name, "--env", &mode, "--startup-timeout-ms", startup_ms])
    };
    try_push("exits", "exit", "5000").assert_failed(7, &["cannot find my database", "7"]);
    let answer = server.get("exits", "/");
    let problem = answer.assert_problem(ErrorCode::StartFailed);
    assert!(problem.detail.contains("cannot find my database"), "{problem:?}");
    assert!(server.ok(&["get", "exits"]).contains("cannot find my database"));
    try_push("deaf", "never", "700").assert_failed(7, &["listen"]);
    let late = try_push("late", "late", "20000");
    assert_eq!(late.code, 0, "{late:?}");
    assert_eq!(server.get("late", "/").status, 200);
}

#[test]
fn a_bad_new_revision_leaves_the_old_one_serving() {
    let server = Server::start();
    if skip_without_containers(&server) {
        return;
    }
    push(&server, "web", "", &[]);
    let artifact = container_server().to_str().expect("path");
    server.run(&["push", artifact, "--name", "web", "--env", "MODE=exit"]).assert_failed(7, &["cannot find"]);
    assert_eq!(server.get("web", "/").text(), "hello from a container\n");
}

#[test]
fn memory_beyond_the_limit_ends_the_container_and_not_the_server() {
    let server = Server::start();
    if skip_without_containers(&server) {
        return;
    }
    push(&server, "greedy", "", &["--memory-mib", "32", "--timeout-ms", "20000"]);
    let answer = server.get("greedy", "/eat?1000000000");
    assert!(answer.status.is_server_error(), "{} {}", answer.status, answer.text());
    wait_until("it serves again", || server.get("greedy", "/").status == 200);
}

#[test]
fn a_slow_container_is_cut_off_at_its_deadline() {
    let server = Server::start();
    if skip_without_containers(&server) {
        return;
    }
    push(&server, "slow", "", &["--timeout-ms", "500"]);
    server.get("slow", "/spin?20000").assert_problem(ErrorCode::Timeout);
    assert_eq!(server.get("slow", "/").status, 200);
}

#[test]
fn archives_of_other_architectures_and_climbing_layers_are_refused() {
    let server = Server::start();
    let folder = server.folder.path();
    let layers = |script: &str| {
        let done = Command::new("python3").args(["-c", script]).current_dir(folder).output();
        done.is_ok_and(|output| output.status.success())
    };
    if !layers(IMAGES) {
        return eprintln!("SKIPPED: python3 cannot be run to make the images");
    }
    let done = server.run(&["push", "other-arch", "--name", "other"]);
    assert_eq!(done.code, 6, "{done:?}");
    assert!(done.stderr.contains("s390x"), "{}", done.stderr);
    if server.missing.is_empty() {
        let done = server.run(&["push", "climber", "--name", "climber"]);
        assert_eq!(done.code, 6, "{done:?}");
        assert!(done.stderr.contains("escaped"), "the entry is named: {}", done.stderr);
    }
    assert!(!folder.join("escaped").exists() && !Path::new("/tmp/neap-escaped").exists());
}

/// Two OCI layout folders: one for another machine, one with a layer that climbs out of its root.
const IMAGES: &str = r#"
import hashlib, io, json, os, tarfile
def layout(folder, architecture, entry):
    os.makedirs(f"{folder}/blobs/sha256")
    def blob(data):
        digest = hashlib.sha256(data).hexdigest()
        open(f"{folder}/blobs/sha256/{digest}", "wb").write(data)
        return {"digest": f"sha256:{digest}", "size": len(data)}
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        info = tarfile.TarInfo(entry); info.size = 2
        archive.addfile(info, io.BytesIO(b"hi"))
    layer = blob(tar.getvalue())
    config = blob(json.dumps({"architecture": architecture, "os": "linux", "config": {"Entrypoint": ["/app"]},
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]}}).encode())
    config["mediaType"] = "application/vnd.oci.image.config.v1+json"
    layer["mediaType"] = "application/vnd.oci.image.layer.v1.tar"
    kind = "application/vnd.oci.image.manifest.v1+json"
    manifest = blob(json.dumps({"schemaVersion": 2, "mediaType": kind, "config": config, "layers": [layer]}).encode())
    manifest["mediaType"] = kind
    index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [manifest]}
    open(f"{folder}/index.json", "w").write(json.dumps(index))
    open(f"{folder}/oci-layout", "w").write('{"imageLayoutVersion":"1.0.0"}')
layout("other-arch", "s390x", "app")
layout("climber", "amd64", "../../../../tmp/neap-escaped")
"#;

#[test]
fn docker_archives_and_layouts_are_pushed_by_other_tools_too() {
    let server = Server::start();
    if skip_without_containers(&server) {
        return;
    }
    server.push(hello_container(), "first", &[]);
    let folder = server.folder.path();
    let source = format!("docker://{}/default/first:latest", server.plain_host());
    let copy = Command::new("skopeo")
        .args(["copy", "--src-tls-verify=false", &source, "docker-archive:image.tar:first:v1"])
        .current_dir(folder)
        .output();
    match copy {
        Err(error) => return eprintln!("SKIPPED: skopeo cannot be run: {error}"),
        Ok(output) => assert!(output.status.success(), "{output:?}"),
    }
    server.ok(&["push", "image.tar", "--name", "second"]);
    assert_eq!(server.get("second", "/").status, 200);
}

#[test]
fn nothing_is_left_after_kill_9() {
    let server = Server::start();
    if skip_without_containers(&server) {
        return;
    }
    push(&server, "web", "ignore-term", &["--min-instances", "1"]);
    let pid = pid_of(&server, "web");
    let folder = server.kill();
    let server = Server::start_in(folder, &[]);
    wait_until("the old process is gone or serves again", || {
        let now = server.function("web").revisions[0].instances.first().and_then(|instance| instance.pid);
        now == Some(pid) || !Path::new(&format!("/proc/{pid}")).exists()
    });
    assert_eq!(server.get("web", "/").status, 200);
    drop(server);
    std::thread::sleep(Duration::from_millis(200));
    wait_until("nothing is left after the end", || !Path::new(&format!("/proc/{pid}")).exists());
}
