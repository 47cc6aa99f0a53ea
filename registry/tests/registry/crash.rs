//! `kill -9` while clients push: whatever was acknowledged is there afterwards and intact, and nothing that is
//! half written is served.

use crate::harness::{http, repository, tag};
use neap_registry::{
    client::{ClientSettings, RegistryClient, no_progress},
    package,
    store::Store,
};
use neap_sdk::{Digest, artifact::TagOrDigest};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
};

/// The example server, which `cargo test` builds beside this test.
pub fn program() -> Option<PathBuf> {
    let deps = std::env::current_exe().ok()?;
    let path = deps.parent()?.parent()?.join("examples/serve");
    if path.is_file() {
        return Some(path);
    }
    println!("skipped: the example `serve` is not built; run `cargo build -p neap-registry --example serve`");
    None
}

/// Starts the server by `command`; its address is what it prints.
pub async fn start(mut command: Command) -> (Child, String) {
    let mut child =
        command.stdout(Stdio::piped()).kill_on_drop(true).spawn().expect("the example server starts");
    let stdout = BufReader::new(child.stdout.take().expect("a pipe"));
    let host = stdout.lines().next_line().await.expect("readable").expect("it prints its address");
    (child, host)
}

fn serving(program: &Path, dir: &Path) -> Command {
    let mut command = Command::new(program);
    command.arg(dir);
    command
}

/// Pushes one artifact after another under ever new tags; what was acknowledged goes into `acked`.
async fn push_for_ever(host: String, worker: u32, round: u32, acked: Arc<Mutex<BTreeMap<String, Digest>>>) {
    let client = RegistryClient::new(&host, ClientSettings::default()).expect("a client");
    for index in 0_u32.. {
        let dir = tempfile::tempdir().expect("a folder");
        let path = crate::chunks::executable(dir.path(), 1 << 20);
        let mut bytes = std::fs::read(&path).expect("readable");
        bytes.extend_from_slice(format!("{round} {worker} {index}").as_bytes());
        std::fs::write(&path, bytes).expect("written");
        let artifact = package::static_image(&path).expect("packaged");
        let name = format!("r{round}-w{worker}-{index}");
        let pushed = client.push(&repository("team/app"), Some(&tag(&name)), &artifact, no_progress()).await;
        match pushed {
            Ok(digest) => acked.lock().expect("no panic").insert(name, digest),
            Err(_) => return,
        };
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_was_acknowledged_is_lost() {
    let Some(program) = program() else { return };
    let dir = tempfile::tempdir().expect("a folder");
    let acked: Arc<Mutex<BTreeMap<String, Digest>>> = Arc::default();
    for round in 0..6 {
        let (mut child, host) = start(serving(&program, dir.path())).await;
        let pushing =
            (0..3).map(|worker| tokio::spawn(push_for_ever(host.clone(), worker, round, acked.clone())));
        let pushing: Vec<_> = pushing.collect();
        tokio::time::sleep(Duration::from_millis(250 + u64::from(round) * 37)).await;
        child.kill().await.expect("killed");
        for task in pushing {
            task.await.expect("no panic");
        }
    }
    let acked = acked.lock().expect("no panic").clone();
    assert!(acked.len() >= 6, "only {} pushes were acknowledged: the test did not do its work", acked.len());

    let (_child, host) = start(serving(&program, dir.path())).await;
    let client = RegistryClient::new(&host, ClientSettings::default()).expect("a client");
    for (name, digest) in &acked {
        let target = TagOrDigest::Tag(tag(name));
        let client = client.clone();
        // Spawned, as a server would: the future must be `Send`.
        let pulling = async move { client.pull(&repository("team/app"), &target, no_progress()).await };
        let pulled = tokio::spawn(pulling).await.expect("no panic");
        assert_eq!(pulled.expect("whole").digest, *digest, "{name}");
    }
    // Also what was not acknowledged is whole where it can be seen at all.
    let store = Store::open(dir.path().to_owned()).await.expect("opens");
    for found in store.tags(&repository("team/app")).expect("tags") {
        let manifest = store.manifest(&repository("team/app"), &TagOrDigest::Tag(found.clone()));
        assert!(manifest.expect("intact").is_some(), "{found}");
    }
    for folder in std::fs::read_dir(dir.path().join("blobs/sha256")).expect("blobs") {
        for blob in std::fs::read_dir(folder.expect("readable").path()).expect("blobs") {
            let path = blob.expect("readable").path();
            let digest = Digest::of(&std::fs::read(&path).expect("readable"));
            assert!(path.ends_with(digest.hex()), "{} is half written", path.display());
        }
    }
    assert_eq!(http().get(format!("http://{host}/v2/")).send().await.expect("an answer").status(), 200);
}
