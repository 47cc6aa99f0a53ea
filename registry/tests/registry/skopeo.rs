//! An ordinary client of other people: `skopeo copy` in both directions.

use crate::harness::{Server, by_tag, push, repository};
use neap_registry::{client::no_progress, package};
use std::path::Path;
use tokio::process::Command;

async fn skopeo(arguments: &[&str]) {
    let output = Command::new("skopeo").args(arguments).output().await.expect("skopeo runs");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "skopeo {arguments:?}: {text}");
}

async fn is_there() -> bool {
    let there = Command::new("skopeo").arg("--version").output().await.is_ok();
    if !there {
        println!("skipped: skopeo is not installed");
    }
    there
}

fn image(dir: &Path) -> package::LocalArtifact {
    package::static_image(&crate::chunks::executable(dir, 3 << 20)).expect("packaged")
}

#[tokio::test(flavor = "multi_thread")]
async fn skopeo_copies_in_both_directions() {
    if !is_there().await {
        return;
    }
    let server = Server::start().await;
    let dir = tempfile::tempdir().expect("a folder");
    let artifact = image(dir.path());
    push(&server, "team/app", "v1", &artifact).await;
    let source = format!("docker://{}/team/app:v1", server.host);
    let oci = format!("oci:{}:copied", dir.path().join("oci").display());
    // Without this flag skopeo compresses what it copies.
    skopeo(&["copy", "--preserve-digests", "--src-tls-verify=false", &source, &oci]).await;
    let copied = package::package(&dir.path().join("oci")).expect("a layout");
    assert_eq!(copied.digest, artifact.digest, "skopeo pulled exactly what was pushed");

    let back = format!("docker://{}/other/app:v2", server.host);
    skopeo(&["copy", "--dest-tls-verify=false", &oci, &back]).await;
    let pulled =
        server.client().pull(&repository("other/app"), &by_tag("v2"), no_progress()).await.expect("pulled");
    assert_eq!(pulled.kind, artifact.kind);
    let again = format!("docker://{}/third/app:v2", server.host);
    skopeo(&["copy", "--src-tls-verify=false", "--dest-tls-verify=false", &back, &again]).await;
    let third =
        server.client().pull(&repository("third/app"), &by_tag("v2"), no_progress()).await.expect("pulled");
    assert_eq!(third.digest, pulled.digest, "from registry to registry nothing changes");

    let archive = dir.path().join("saved.tar");
    skopeo(&["copy", "--src-tls-verify=false", &back, &format!("docker-archive:{}", archive.display())])
        .await;
    assert_eq!(package::package(&archive).expect("what docker would save").kind, artifact.kind);
    skopeo(&["delete", "--tls-verify=false", &again]).await;
    assert!(
        server.client().manifest(&repository("third/app"), &by_tag("v2")).await.expect("an answer").is_none()
    );
}
