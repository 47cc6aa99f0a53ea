//! What is left when the spawner or the server is killed: nothing.

use crate::support::{Logs, MEMORY_BYTES, assert_clean, eventually, fixture, get, groups, image, settings};
use neap_oci_runtime::{ContainerSpec, Exit, OciRuntime};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

/// The process whose child `pid` is.
fn parent(pid: u32) -> Pid {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap();
    Pid::from_raw(line.trim().parse().unwrap()).unwrap()
}

#[tokio::test]
async fn a_killed_spawner_takes_its_containers_along_and_is_replaced() {
    let Some(fixture) = fixture().await else { return };
    let container = fixture.run(&[]).await.unwrap();
    let pid = container.pid();
    kill_process(parent(pid), Signal::KILL).unwrap();
    assert_eq!(container.exited().await, Exit::SpawnerLost);
    eventually("the container is gone", || !Path::new(&format!("/proc/{pid}/ns/net")).exists()).await;
    assert!(get(&container, "/").await.is_err());

    let container = fixture.run(&[]).await.unwrap();
    assert_eq!(get(&container, "/").await.unwrap(), "hello from a container\n");
    drop(container);
    fixture.finish().await;
}

/// Tells the process started below, which is this test executable again, where to run.
const DIR: &str = "NEAP_TEST_SERVER_DIR";

#[tokio::test]
#[ignore = "the server that another test kills"]
async fn a_server_to_be_killed() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let dir = Path::new(&dir);
    let runtime = OciRuntime::start(settings(dir)).await.unwrap();
    let image = image(dir, serde_json::json!({"Cmd": ["/bin/server"]}));
    let spec = ContainerSpec {
        id: "doomed".into(),
        image,
        env: Vec::new(),
        memory_bytes: MEMORY_BYTES,
        startup_timeout: Duration::from_secs(10),
        logs: Arc::new(Logs::default()),
    };
    let container = runtime.run(spec).await.unwrap();
    println!("\ncontainer {}", container.pid());
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn a_killed_server_leaves_nothing_and_a_new_one_takes_over() {
    let Some(fixture) = fixture().await else { return };
    fixture.runtime.shutdown().await;
    let dir = fixture.dir.path();
    let mut server = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture", "restart::a_server_to_be_killed"])
        .env(DIR, dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(server.stdout.take().unwrap()).lines();
    let pid = lines.find_map(|line| line.unwrap().strip_prefix("container ")?.parse::<u32>().ok()).unwrap();
    assert!(!groups(dir).is_empty());

    // A second server on the folder is refused while the first one lives.
    let second = OciRuntime::start(settings(dir)).await.map(drop).unwrap_err();
    assert!(second.to_string().contains("another neap"), "{second}");

    server.kill().unwrap();
    server.wait().unwrap();
    // At once, and without help: the old spawner may still be cleaning up.
    let runtime = OciRuntime::start(settings(dir)).await.unwrap();
    assert!(!Path::new(&format!("/proc/{pid}/ns/net")).exists(), "the container outlived its server");
    runtime.shutdown().await;
    assert_clean(dir);
}

#[tokio::test]
async fn a_start_ends_what_an_earlier_one_left_in_its_groups() {
    let Some(fixture) = fixture().await else { return };
    fixture.run(&[]).await.map(drop).unwrap();
    fixture.runtime.shutdown().await;
    // As if the spawner had been killed before its containers' processes: a process in a group of this folder.
    let dir = fixture.dir.path();
    let state = dir.join("state").canonicalize().unwrap();
    let owner = neap_sdk::Digest::of(state.as_os_str().as_encoded_bytes()).short();
    let tree = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"].map(Path::new);
    let Some(tree) = tree.into_iter().find(|tree| tree.join("cgroup.procs").exists()) else {
        println!("skipped: no cgroup v2 tree");
        return;
    };
    let group = tree.join("neap").join(owner).join("left");
    std::fs::create_dir_all(&group).unwrap();
    let mut left = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
    std::fs::write(group.join("cgroup.procs"), left.id().to_string()).unwrap();
    let waiter = tokio::task::spawn_blocking(move || left.wait().unwrap());
    let runtime = OciRuntime::start(settings(dir)).await.unwrap();
    assert!(!waiter.await.unwrap().success());
    assert!(!group.exists());
    runtime.shutdown().await;
    assert_clean(dir);
}
