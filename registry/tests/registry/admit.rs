//! Admission from push to release: what is admitted, what is refused and why, and what survives a restart.

use crate::harness::{Scripted, Server, attest, by_tag, component, http, push, repository, signing_key};
use neap_registry::{AdmitError, access::Access, package, sign};
use neap_sdk::{
    Digest, ErrorCode,
    artifact::{ArtifactKind, TagOrDigest, media_type},
};
use serde_json::json;

/// A server that trusts the key it comes with.
async fn trusting() -> (Server, sign::SigningKey) {
    trusting_with(Scripted(None)).await
}

async fn trusting_with(preparer: Scripted) -> (Server, sign::SigningKey) {
    let server = Server::start_with(Access::Anonymous, preparer).await;
    let key = signing_key(server.dir.path(), "operator");
    server.registry.keys().trust_operator("operator", &key.public_key().to_pem(), 1).expect("trusted");
    (server, key)
}

/// Admits and gives back the code of the refusal.
async fn refusal(server: &Server, target: TagOrDigest) -> (ErrorCode, String) {
    let admitted = server.registry.admit(&repository("team/app"), &target).await.expect("decided");
    assert!(!admitted.verdict.admitted && admitted.release.is_none());
    let reason = &admitted.verdict.reasons[0];
    (reason.code, reason.text.clone())
}

#[tokio::test]
async fn a_signed_artifact_with_an_sbom_is_released_and_stays_so() {
    let (server, key) = trusting().await;
    let artifact = package::wasm(component(1)).expect("packaged");
    push(&server, "team/app", "v1", &artifact).await;
    assert_eq!(refusal(&server, by_tag("v1")).await.0, ErrorCode::Unsigned);
    attest(&server, "team/app", &artifact, &key).await;

    let mut watch = server.registry.releases();
    let verdict = server.registry.verify(&repository("team/app"), &by_tag("v1")).await.expect("decided");
    assert!(verdict.admitted && watch.borrow().is_empty(), "verifying publishes nothing");
    let admitted = server.registry.admit(&repository("team/app"), &by_tag("v1")).await.expect("decided");
    let release = admitted.release.expect("released");
    assert_eq!((release.digest, release.kind), (artifact.digest, ArtifactKind::WasmComponent));
    assert_eq!(release.verdict.evidence.signers[0].name, "operator");
    assert_eq!(
        std::fs::read(server.registry.blob_path(&release.layers[0].digest)).expect("there"),
        component(1)
    );
    assert!(watch.has_changed().expect("open"));
    assert_eq!(watch.borrow_and_update().get(&repository("team/app"), &artifact.digest), Some(&release));

    let server = server.restart().await;
    let releases = server.registry.releases().borrow().clone();
    assert_eq!(
        (releases.len(), releases.get(&repository("team/app"), &artifact.digest)),
        (1, Some(&release))
    );
    assert!(releases.get(&repository("team/other"), &artifact.digest).is_none());
    assert!(server.registry.keys().list(&"team".parse().expect("a tenant")).len() == 1, "keys stay too");
}

#[tokio::test]
async fn refusals_say_why() {
    let (server, key) = trusting().await;
    let stranger = signing_key(server.dir.path(), "stranger");
    let artifact = package::wasm(component(1)).expect("packaged");
    push(&server, "team/app", "foreign", &artifact).await;
    attest(&server, "team/app", &artifact, &stranger).await;
    assert_eq!(refusal(&server, by_tag("foreign")).await.0, ErrorCode::Untrusted);

    let signed_only = package::wasm(component(2)).expect("packaged");
    push(&server, "team/app", "bare", &signed_only).await;
    let signature = sign::sign(&key, &signed_only.descriptor(), 0).expect("signed");
    server.client().push_attachment(&repository("team/app"), &signature).await.expect("attached");
    assert_eq!(refusal(&server, by_tag("bare")).await.0, ErrorCode::Policy);

    let missing = server.registry.admit(&repository("team/app"), &by_tag("nothing")).await;
    assert!(matches!(missing, Err(AdmitError::NotFound { .. })));
    let nobodys = server.registry.admit(&repository("te.am/app"), &by_tag("v1")).await;
    assert!(matches!(nobodys, Err(AdmitError::NoTenant(_))));
}

#[tokio::test]
async fn what_cannot_run_here_is_refused_with_the_preparers_reason() {
    let (server, key) = trusting_with(Scripted(Some("imports env::fork, which nobody offers"))).await;
    let artifact = package::wasm(component(1)).expect("packaged");
    push(&server, "team/app", "v1", &artifact).await;
    attest(&server, "team/app", &artifact, &key).await;
    let (code, text) = refusal(&server, by_tag("v1")).await;
    assert_eq!(code, ErrorCode::Unsupported);
    assert!(text.contains("env::fork"), "{text}");
    assert!(server.registry.releases().borrow().is_empty());
    assert_eq!(std::fs::read_dir(server.path("releases")).expect("the folder").count(), 0);
}

#[tokio::test]
async fn bytes_that_were_changed_on_disk_are_not_released() {
    let (server, key) = trusting().await;
    let dir = tempfile::tempdir().expect("a folder");
    let artifact = package::static_image(&crate::chunks::executable(dir.path(), 0)).expect("packaged");
    push(&server, "team/app", "v1", &artifact).await;
    attest(&server, "team/app", &artifact, &key).await;
    let layer = artifact.blobs.iter().find(|blob| blob.media_type == media_type::LAYER_TAR).expect("a layer");
    let path = server.registry.blob_path(&layer.digest);
    let whole = std::fs::read(&path).expect("there");
    let mut changed = whole.clone();
    changed[700] ^= 1;
    for bytes in [changed, whole[..whole.len() - 1].to_vec()] {
        std::fs::write(&path, bytes).expect("somebody changes the file");
        assert_eq!(refusal(&server, by_tag("v1")).await.0, ErrorCode::Mismatch);
    }
    let manifest = server.registry.blob_path(&artifact.digest);
    std::fs::write(&path, whole).expect("restored");
    std::fs::write(&manifest, b"{}").expect("somebody changes the file");
    assert_eq!(refusal(&server, by_tag("v1")).await.0, ErrorCode::Mismatch);
}

#[tokio::test]
async fn of_an_index_only_the_child_that_runs_is_released() {
    let (server, key) = trusting().await;
    let dir = tempfile::tempdir().expect("a folder");
    let artifact = package::static_image(&crate::chunks::executable(dir.path(), 0)).expect("packaged");
    push(&server, "team/app", "amd64", &artifact).await;
    let put_index = async |tag: &str, platform: serde_json::Value, digest: Digest| {
        let mut child = json!(artifact.descriptor());
        child["digest"] = json!(digest);
        child["platform"] = platform;
        let index =
            json!({ "schemaVersion": 2, "mediaType": media_type::INDEX, "manifests": [child] }).to_string();
        let url = server.url(&format!("/v2/team/app/manifests/{tag}"));
        let put = http().put(url).header("content-type", media_type::INDEX).body(index.clone()).send().await;
        assert_eq!(put.expect("an answer").status(), 201);
        neap_registry::manifest::Descriptor::of(media_type::INDEX, index.as_bytes())
    };
    let here = json!({ "os": "linux", "architecture": "amd64" });
    let index = put_index("index", here.clone(), artifact.digest).await;
    put_index("arm", json!({ "os": "linux", "architecture": "arm64" }), artifact.digest).await;
    put_index("sparse", here, Digest::of(b"never pushed")).await;
    for (tag, expected) in [("arm", "linux/arm64"), ("sparse", "was not pushed")] {
        let (code, text) = refusal(&server, by_tag(tag)).await;
        assert_eq!(code, ErrorCode::Unsupported);
        assert!(text.contains(expected), "{text}");
    }
    // The signature covers the index, the SBOM the child that it names.
    assert_eq!(refusal(&server, by_tag("index")).await.0, ErrorCode::Unsigned);
    let signature = sign::sign(&key, &index, 0).expect("signed");
    let sbom = sign::attest_sbom(&key, &artifact.descriptor(), &crate::harness::sbom(), 0).expect("signed");
    for attachment in [signature, sbom] {
        server.client().push_attachment(&repository("team/app"), &attachment).await.expect("attached");
    }
    let admitted = server.registry.admit(&repository("team/app"), &by_tag("index")).await.expect("decided");
    assert_eq!(admitted.release.expect("released").digest, artifact.digest);
    let direct = refusal(&server, TagOrDigest::Digest(artifact.digest)).await;
    assert_eq!(direct.0, ErrorCode::Unsigned, "asked for by itself, the child is not covered");
}

#[tokio::test]
async fn a_damaged_release_file_costs_only_its_own_release() {
    let (server, key) = trusting().await;
    for variant in [1, 2] {
        let artifact = package::wasm(component(variant)).expect("packaged");
        push(&server, "team/app", &format!("v{variant}"), &artifact).await;
        attest(&server, "team/app", &artifact, &key).await;
        let admitted = server.registry.admit(&repository("team/app"), &by_tag(&format!("v{variant}"))).await;
        assert!(admitted.expect("decided").release.is_some());
    }
    let file =
        std::fs::read_dir(server.path("releases")).expect("releases").next().expect("one").expect("readable");
    std::fs::write(file.path(), b"{\"repository\":").expect("somebody cuts the file");
    let server = server.restart().await;
    assert_eq!(server.registry.releases().borrow().len(), 1);
}
