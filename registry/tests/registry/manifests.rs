//! What is taken as a manifest, how tags move, what a deletion takes along.

use crate::harness::{Server, error_code, header, http};
use neap_registry::manifest::Descriptor;
use neap_sdk::{Digest, artifact::media_type};
use serde_json::{Value, json};

async fn put(server: &Server, path: &str, content_type: &str, body: Vec<u8>) -> reqwest::Response {
    let request = http().put(server.url(path)).header("content-type", content_type).body(body);
    request.send().await.expect("an answer")
}

async fn status(server: &Server, path: &str) -> u16 {
    http().get(server.url(path)).send().await.expect("an answer").status().as_u16()
}

fn manifest(config: &[u8], subject: Option<Descriptor>) -> Value {
    let mut manifest = json!({
        "schemaVersion": 2,
        "mediaType": media_type::MANIFEST,
        "config": Descriptor::of("application/x", config),
        "layers": [],
    });
    if let Some(subject) = subject {
        manifest["subject"] = json!(subject);
    }
    manifest
}

#[tokio::test]
async fn only_complete_and_unambiguous_manifests_are_taken() {
    let server = Server::start().await;
    let body = manifest(b"config", None).to_string().into_bytes();
    let refused = async |content_type: &str, body: &[u8], code: &str| {
        let answer = put(&server, "/v2/a/manifests/v1", content_type, body.to_vec()).await;
        assert_eq!(answer.status(), 400, "{code}");
        assert_eq!(error_code(answer).await, code);
    };
    refused(media_type::MANIFEST, &body, "MANIFEST_BLOB_UNKNOWN").await;
    server.push_blob("b", b"config").await;
    refused(media_type::MANIFEST, &body, "MANIFEST_BLOB_UNKNOWN").await;
    server.push_blob("a", b"config").await;
    refused(media_type::INDEX, &body, "MANIFEST_INVALID").await;
    refused("text/plain", &body, "MANIFEST_INVALID").await;
    refused(media_type::MANIFEST, b"{", "MANIFEST_INVALID").await;
    let mut both = manifest(b"config", None);
    both["manifests"] = json!([]);
    refused(media_type::MANIFEST, both.to_string().as_bytes(), "MANIFEST_INVALID").await;
    let mut longer = manifest(b"config", None);
    longer["config"]["size"] = json!(7);
    refused(media_type::MANIFEST, longer.to_string().as_bytes(), "SIZE_INVALID").await;
    let other = Digest::of(b"other");
    let answer = put(&server, &format!("/v2/a/manifests/{other}"), media_type::MANIFEST, body.clone()).await;
    assert_eq!(error_code(answer).await, "DIGEST_INVALID");
    let huge = [body.as_slice(), &[b' '; 5 << 20]].concat();
    assert_eq!(put(&server, "/v2/a/manifests/v1", media_type::MANIFEST, huge).await.status(), 413);
    assert_eq!(status(&server, "/v2/a/manifests/v1").await, 404, "nothing of that was kept");
    assert_eq!(put(&server, "/v2/a/manifests/v1", media_type::MANIFEST, body).await.status(), 201);
}

#[tokio::test]
async fn tags_move_and_a_deleted_manifest_takes_its_tags_along() {
    let server = Server::start().await;
    for config in ["one", "two"] {
        server.push_blob("a", config.as_bytes()).await;
    }
    let (one, two) = (manifest(b"one", None).to_string(), manifest(b"two", None).to_string());
    for (tag, body) in [("v1", &one), ("latest", &one), ("latest", &two)] {
        let answer =
            put(&server, &format!("/v2/a/manifests/{tag}"), media_type::MANIFEST, body.clone().into()).await;
        assert_eq!(header(&answer, "docker-content-digest"), Digest::of(body.as_bytes()).to_string());
    }
    let server = server.restart().await;
    let answer = http().get(server.url("/v2/a/manifests/latest")).send().await.expect("an answer");
    assert_eq!(header(&answer, "content-type"), media_type::MANIFEST);
    assert_eq!(answer.text().await.expect("a body"), two);
    let digest = Digest::of(two.as_bytes());
    let head = http().head(server.url("/v2/a/manifests/latest")).send().await.expect("an answer");
    assert_eq!(header(&head, "content-length"), two.len().to_string());
    let gone =
        http().delete(server.url(&format!("/v2/a/manifests/{digest}"))).send().await.expect("an answer");
    assert_eq!(gone.status(), 202);
    for path in ["latest".to_owned(), digest.to_string()] {
        assert_eq!(status(&server, &format!("/v2/a/manifests/{path}")).await, 404);
    }
    assert_eq!(status(&server, "/v2/a/manifests/v1").await, 200);
    assert_eq!(status(&server, &format!("/v2/b/manifests/{}", Digest::of(one.as_bytes()))).await, 404);
}

#[tokio::test]
async fn a_changed_manifest_is_not_served() {
    let server = Server::start().await;
    server.push_blob("a", b"config").await;
    let body = manifest(b"config", None).to_string();
    put(&server, "/v2/a/manifests/v1", media_type::MANIFEST, body.clone().into()).await;
    let path = server.registry.blob_path(&Digest::of(body.as_bytes()));
    std::fs::write(path, body.replace("\"layers\":[]", "\"layers\": []")).expect("somebody changes the file");
    assert_eq!(status(&server, "/v2/a/manifests/v1").await, 500);
}

#[tokio::test]
async fn a_subject_may_come_later_or_never() {
    let server = Server::start().await;
    server.push_blob("a", b"config").await;
    let subject = Descriptor::of(media_type::MANIFEST, b"not there");
    let body = manifest(b"config", Some(subject.clone())).to_string();
    let answer = put(&server, "/v2/a/manifests/v1", media_type::MANIFEST, body.into()).await;
    assert_eq!(answer.status(), 201);
    assert_eq!(header(&answer, "oci-subject"), subject.digest.to_string());
}
