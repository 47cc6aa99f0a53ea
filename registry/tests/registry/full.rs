//! A full disk: pushes are refused with 507 and a clear text, what is there stays served, and space that comes back
//! is used.

use crate::{
    crash::{program, start},
    harness::{error_code, http},
};
use neap_sdk::Digest;
use std::path::{Path, PathBuf};
use tokio::process::Command;

/// A command that runs `program DIR` where DIR is a file system of 2 MiB that nobody else sees.
fn confined(program: &Path, dir: &Path) -> Command {
    let mut command = Command::new("unshare");
    let script = "mount -t tmpfs -o size=2m none \"$1\" && exec \"$0\" \"$1\"";
    command.args(["--mount", "--propagation", "private", "sh", "-c", script]).arg(program).arg(dir);
    command
}

async fn can_confine(dir: &Path) -> bool {
    let probe = confined(&PathBuf::from("true"), dir).output().await;
    probe.is_ok_and(|output| output.status.success())
}

#[tokio::test]
async fn a_full_disk_is_said_and_survived() {
    let dir = tempfile::tempdir().expect("a folder");
    let Some(program) = program() else { return };
    if !can_confine(dir.path()).await {
        println!("skipped: no mount namespace of its own can be made here (not root)");
        return;
    }
    let (_child, host) = start(confined(&program, dir.path())).await;
    let put = async |bytes: Vec<u8>| {
        let url = format!("http://{host}/v2/a/blobs/uploads/?digest={}", Digest::of(&bytes));
        http().post(url).body(bytes).send().await.expect("an answer")
    };
    let get = async |digest: Digest| {
        http().get(format!("http://{host}/v2/a/blobs/{digest}")).send().await.expect("an answer")
    };
    let small = vec![1; 700_000];
    assert_eq!(put(small.clone()).await.status(), 201);
    let refused = put(vec![2; 1_900_000]).await;
    assert_eq!(refused.status(), 507);
    let text = refused.text().await.expect("a body");
    assert!(text.contains("disk is full"), "{text}");
    assert_eq!(get(Digest::of(&vec![2; 1_900_000])).await.status(), 404, "nothing half written is there");
    assert!(get(Digest::of(&small)).await.bytes().await.expect("a body") == small);

    let begun = http().post(format!("http://{host}/v2/a/blobs/uploads/")).send().await.expect("an answer");
    let location = format!("http://{host}{}", begun.headers()["location"].to_str().expect("text"));
    let part = http().patch(&location).body(vec![3; 1_900_000]).send().await.expect("an answer");
    assert_eq!(error_code(part).await, "STORAGE");
    assert_eq!(http().delete(&location).send().await.expect("an answer").status(), 204);
    assert_eq!(put(vec![4; 700_000]).await.status(), 201, "the space of refused uploads came back");
}
