//! Garbage collection: what nothing needs goes, what anything needs stays.

use crate::harness::{Server, attest, by_tag, component, http, push, repository, signing_key};
use neap_registry::{gc::Swept, package};
use neap_sdk::artifact::TagOrDigest;
use std::time::Duration;

const NOW: Duration = Duration::ZERO;

#[tokio::test]
async fn only_what_nothing_needs_is_removed() {
    let server = Server::start().await;
    let kept = package::wasm(component(1)).expect("packaged");
    push(&server, "a", "v1", &kept).await;
    let orphan = server.push_blob("a", b"no manifest names this").await;
    let pinned = server.push_blob("a", b"nor this, but it is pinned").await;
    let _upload = server.registry.store().begin_upload(&repository("a")).await.expect("a session");
    let pin = server.registry.pin(vec![pinned]);

    let swept = server.registry.collect_garbage(Duration::from_secs(3600)).await.expect("collected");
    assert_eq!(swept, Swept::default(), "what is fresh stays");
    let swept = server.registry.collect_garbage(NOW).await.expect("collected");
    assert_eq!((swept.blobs, swept.bytes, swept.links, swept.uploads), (1, 22, 2, 0));
    assert!(!server.registry.blob_path(&orphan).exists() && server.registry.blob_path(&pinned).exists());
    let url = server.url(&format!("/v2/a/blobs/{orphan}"));
    assert_eq!(http().head(url).send().await.expect("an answer").status(), 404);
    drop(pin);
    assert_eq!(server.registry.collect_garbage(NOW).await.expect("collected").blobs, 1);
    let pulled =
        server.client().pull(&repository("a"), &by_tag("v1"), neap_registry::client::no_progress()).await;
    assert_eq!(pulled.expect("whole").digest, kept.digest);
}

#[tokio::test]
async fn a_release_outlives_its_tag_and_manifest() {
    let server = Server::start().await;
    let key = signing_key(server.dir.path(), "key");
    server.registry.keys().trust_operator("operator", &key.public_key().to_pem(), 1).expect("trusted");
    let (released, other) =
        (package::wasm(component(1)).expect("packaged"), package::wasm(component(2)).expect("packaged"));
    push(&server, "a", "v1", &released).await;
    push(&server, "a", "v2", &other).await;
    attest(&server, "a", &released, &key).await;
    let admitted = server.registry.admit(&repository("a"), &by_tag("v1")).await.expect("decided");
    assert!(admitted.release.is_some());
    for artifact in [&released, &other] {
        let url = server.url(&format!("/v2/a/manifests/{}", artifact.digest));
        assert_eq!(http().delete(url).send().await.expect("an answer").status(), 202);
    }
    let server = server.restart().await;
    server.registry.collect_garbage(NOW).await.expect("collected");
    for blob in &released.blobs {
        assert!(server.registry.blob_path(&blob.digest).exists(), "the release needs {}", blob.digest);
    }
    assert!(server.registry.blob_path(&released.digest).exists());
    for blob in &other.blobs {
        assert!(!server.registry.blob_path(&blob.digest).exists(), "nothing needs {}", blob.digest);
    }
    let gone = server.registry.admit(&repository("a"), &TagOrDigest::Digest(other.digest)).await;
    assert!(gone.is_err());
}

#[tokio::test]
async fn pushes_and_collections_at_once_lose_nothing() {
    let server = Server::start().await;
    let collecting = async {
        for _ in 0..30 {
            // A grace shorter than a push would remove blobs before their manifest comes.
            server.registry.collect_garbage(Duration::from_secs(5)).await.expect("collected");
        }
    };
    let pushing = async {
        for variant in 0..10 {
            let artifact = package::wasm(component(variant)).expect("packaged");
            push(&server, "a", &format!("v{variant}"), &artifact).await;
        }
    };
    tokio::join!(collecting, pushing);
    for variant in 0..10 {
        let target = by_tag(&format!("v{variant}"));
        let pulled =
            server.client().pull(&repository("a"), &target, neap_registry::client::no_progress()).await;
        assert_eq!(pulled.expect("whole").wasm_bytes().expect("readable").expect("Wasm"), component(variant));
    }
}
