//! Content that was changed on disk: never served or released, and repaired by pushing it again.

use crate::harness::{Server, attest, by_tag, component, error_code, http, push, repository, signing_key};
use neap_registry::{
    gc::Swept,
    package::{self, LocalArtifact},
};
use neap_sdk::{Digest, artifact::media_type};
use std::{path::PathBuf, time::Duration};

/// A server with a signed artifact that it admits, and the bytes of its layer.
async fn admitting() -> (Server, LocalArtifact, Vec<u8>) {
    let server = Server::start().await;
    let key = signing_key(server.dir.path(), "operator");
    server.registry.keys().trust_operator("operator", &key.public_key().to_pem(), 1).expect("trusted");
    let bytes = component(1);
    let artifact = package::wasm(bytes.clone()).expect("packaged");
    push(&server, "team/app", "v1", &artifact).await;
    attest(&server, "team/app", &artifact, &key).await;
    assert!(admitted(&server).await);
    (server, artifact, bytes)
}

/// Whether it is admitted; a refusal says what to do.
async fn admitted(server: &Server) -> bool {
    let admitted = server.registry.admit(&repository("team/app"), &by_tag("v1")).await.expect("decided");
    let advised = admitted.verdict.reasons.iter().all(|reason| reason.text.contains("push it again"));
    assert!(advised, "{:?}", admitted.verdict.reasons);
    admitted.release.is_some()
}

fn changed(whole: &[u8]) -> Vec<u8> {
    let mut bytes = whole.to_vec();
    bytes[whole.len() / 2] ^= 1;
    bytes
}

async fn head(server: &Server, digest: Digest) -> u16 {
    let url = server.url(&format!("/v2/team/app/blobs/{digest}"));
    http().head(url).send().await.expect("an answer").status().as_u16()
}

fn aside(server: &Server, digest: Digest) -> PathBuf {
    let mut path = server.registry.blob_path(&digest).into_os_string();
    path.push(".damaged");
    path.into()
}

#[tokio::test]
async fn pushing_again_repairs_what_admission_refused() {
    let (server, artifact, whole) = admitting().await;
    let layer = Digest::of(&whole);
    let path = server.registry.blob_path(&layer);
    let longer = [&whole[..], b"more"].concat();
    for damaged in [changed(&whole), whole[..whole.len() - 1].to_vec(), longer, Vec::new()] {
        std::fs::write(&path, &damaged).expect("somebody changes the file");
        assert!(!admitted(&server).await);
        assert_eq!(head(&server, layer).await, 404, "a client that asks must send it again");
        assert_eq!(std::fs::read(aside(&server, layer)).expect("moved aside"), damaged);
        assert!(!admitted(&server).await, "not before it is pushed again");
        push(&server, "team/app", "v1", &artifact).await;
        assert_eq!(std::fs::read(&path).expect("there"), whole);
        assert!(admitted(&server).await);
    }
    let manifest = server.registry.blob_path(&artifact.digest);
    std::fs::write(&manifest, changed(&artifact.manifest)).expect("somebody changes the file");
    assert!(!admitted(&server).await);
    push(&server, "team/app", "v1", &artifact).await;
    assert!(admitted(&server).await);
}

#[tokio::test]
async fn another_length_is_repaired_by_the_first_push() {
    let (server, artifact, whole) = admitting().await;
    let path = server.registry.blob_path(&Digest::of(&whole));
    for damaged in [&whole[..whole.len() - 1], b""] {
        std::fs::write(&path, damaged).expect("somebody cuts the file");
        push(&server, "team/app", "v1", &artifact).await;
        assert_eq!(std::fs::read(&path).expect("there"), whole);
    }
    assert!(admitted(&server).await);

    // A client that does not compare lengths is told to send the blob, and then does.
    std::fs::write(&path, &whole[1..]).expect("somebody cuts the file");
    assert_eq!(head(&server, Digest::of(&whole)).await, 200);
    let url = server.url("/v2/team/app/manifests/v1");
    let put = http().put(url).header("content-type", media_type::MANIFEST).body(artifact.manifest.clone());
    assert_eq!(error_code(put.send().await.expect("an answer")).await, "MANIFEST_BLOB_UNKNOWN");
    assert_eq!(head(&server, Digest::of(&whole)).await, 404);
    push(&server, "team/app", "v1", &artifact).await;
    assert!(admitted(&server).await);
}

#[tokio::test]
async fn a_download_that_finds_damage_ends_early_and_lets_it_be_pushed_again() {
    let (server, artifact, whole) = admitting().await;
    let layer = Digest::of(&whole);
    let url = server.url(&format!("/v2/team/app/blobs/{layer}"));
    for damaged in [changed(&whole), whole[1..].to_vec(), Vec::new()] {
        std::fs::write(server.registry.blob_path(&layer), &damaged).expect("somebody changes the file");
        let answer = http().get(&url).send().await.expect("an answer");
        assert!(answer.status() == 404 || answer.bytes().await.is_err(), "{} bytes", damaged.len());
        assert_eq!(head(&server, layer).await, 404);
        push(&server, "team/app", "v1", &artifact).await;
        let got = http().get(&url).send().await.expect("an answer").bytes().await.expect("whole");
        assert!(got == whole && admitted(&server).await);
    }
}

#[tokio::test]
async fn a_manifest_with_a_wrong_size_costs_no_good_blob() {
    let (server, artifact, whole) = admitting().await;
    let layer = Digest::of(&whole);
    let size = format!("\"size\":{}", whole.len());
    let manifest = String::from_utf8(artifact.manifest.to_vec()).expect("JSON");
    let wrong = manifest.replace(&size, "\"size\":7");
    assert_ne!(wrong, manifest);
    let url = server.url("/v2/team/app/manifests/wrong");
    let put = http().put(url).header("content-type", media_type::MANIFEST).body(wrong);
    assert_eq!(error_code(put.send().await.expect("an answer")).await, "SIZE_INVALID");
    assert_eq!(head(&server, layer).await, 200);
    assert!(!aside(&server, layer).exists() && admitted(&server).await);
}

#[tokio::test]
async fn what_was_moved_aside_is_removed_after_the_grace() {
    let (server, artifact, whole) = admitting().await;
    let layer = Digest::of(&whole);
    std::fs::write(server.registry.blob_path(&layer), changed(&whole)).expect("somebody changes the file");
    assert!(!admitted(&server).await);
    push(&server, "team/app", "v1", &artifact).await;
    let hour = server.registry.collect_garbage(Duration::from_secs(3600)).await.expect("collected");
    assert_eq!(hour, Swept::default(), "what is fresh stays");
    assert!(aside(&server, layer).exists());
    let swept = server.registry.collect_garbage(Duration::ZERO).await.expect("collected");
    assert_eq!((swept.blobs, swept.bytes), (1, whole.len() as u64));
    assert!(!aside(&server, layer).exists());
    assert!(admitted(&server).await);
}
