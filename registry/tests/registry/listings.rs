//! Pages of tags and referrers, and the referrers index after its loss.

use crate::harness::{Server, header, http, push, repository};
use neap_registry::{manifest::Descriptor, package};
use neap_sdk::{Digest, artifact::media_type};
use serde_json::{Value, json};

async fn json_of(response: reqwest::Response) -> Value {
    serde_json::from_slice(&response.bytes().await.expect("a body")).expect("JSON")
}

#[tokio::test]
async fn tags_come_in_pages() {
    let server = Server::start().await;
    let artifact = package::wasm(crate::harness::command()).expect("packaged");
    for tag in ["c", "a", "b", "B", "d"] {
        push(&server, "a/b", tag, &artifact).await;
    }
    let mut next = Some("/v2/a/b/tags/list?n=2".to_owned());
    let mut seen = Vec::new();
    while let Some(path) = next {
        let answer = http().get(server.url(&path)).send().await.expect("an answer");
        let link = answer.headers().get("link").map(|link| link.to_str().expect("text").to_owned());
        next =
            link.and_then(|link| Some(link.strip_prefix('<')?.split_once(">; rel=\"next\"")?.0.to_owned()));
        let page = json_of(answer).await;
        assert!(page["tags"].as_array().expect("tags").len() <= 2);
        seen.extend(
            page["tags"].as_array().expect("tags").iter().map(|tag| tag.as_str().expect("text").to_owned()),
        );
    }
    assert_eq!(seen, ["B", "a", "b", "c", "d"]);
    let none =
        json_of(http().get(server.url("/v2/a/b/tags/list?n=0")).send().await.expect("an answer")).await;
    assert_eq!(none["tags"], json!([]));
    let unknown = http().get(server.url("/v2/a/tags/list")).send().await.expect("an answer");
    assert_eq!(unknown.status(), 404);
    let catalog = json_of(http().get(server.url("/v2/_catalog")).send().await.expect("an answer")).await;
    assert_eq!(catalog["repositories"], json!(["a/b"]));
}

/// Pushes a referrer of `subject` with `padding` bytes of annotation.
async fn refer(server: &Server, subject: &Descriptor, artifact_type: &str, padding: usize) -> Digest {
    server.push_blob("a", b"{}").await;
    let body = json!({
        "schemaVersion": 2,
        "mediaType": media_type::MANIFEST,
        "artifactType": artifact_type,
        "config": Descriptor::of(media_type::EMPTY, b"{}"),
        "layers": [],
        "subject": subject,
        "annotations": { "padding": "x".repeat(padding) },
    });
    let body = body.to_string();
    let digest = Digest::of(body.as_bytes());
    let url = server.url(&format!("/v2/a/manifests/{digest}"));
    let answer = http().put(url).header("content-type", media_type::MANIFEST).body(body).send();
    assert_eq!(answer.await.expect("an answer").status(), 201);
    digest
}

#[tokio::test]
async fn referrers_come_in_pages_and_the_index_can_be_rebuilt() {
    let server = Server::start().await;
    let subject = Descriptor::of(media_type::MANIFEST, b"a manifest that nobody pushed");
    let mut expected = Vec::new();
    for (index, padding) in [1_500_000, 1_500_001, 1_500_002, 10].into_iter().enumerate() {
        expected.push(refer(&server, &subject, &format!("application/x{}", index % 2), padding).await);
    }
    expected.sort();
    let listed = async |server: &Server| {
        let entries = server.client().referrers(&repository("a"), subject.digest).await.expect("referrers");
        entries.into_iter().map(|entry| entry.digest).collect::<Vec<_>>()
    };
    assert_eq!(listed(&server).await, expected, "the client follows every page");

    let url = server.url(&format!("/v2/a/referrers/{}?artifactType=application/x1", subject.digest));
    let answer = http().get(url).send().await.expect("an answer");
    assert_eq!(header(&answer, "oci-filters-applied"), "artifactType");
    assert_eq!(header(&answer, "content-type"), media_type::INDEX);
    let entries = json_of(answer).await;
    let types: Vec<&str> = entries["manifests"]
        .as_array()
        .expect("entries")
        .iter()
        .filter_map(|e| e["artifactType"].as_str())
        .collect();
    assert!(!types.is_empty() && types.iter().all(|found| *found == "application/x1"), "{types:?}");
    let nobody = server.url(&format!("/v2/nobody/referrers/{}", subject.digest));
    assert_eq!(json_of(http().get(nobody).send().await.expect("an answer")).await["manifests"], json!([]));

    std::fs::remove_dir_all(server.path("repositories/a/_referrers")).expect("the index is lost");
    std::fs::remove_file(server.path("referrers-built")).expect("and its mark");
    let server = server.restart().await;
    assert_eq!(listed(&server).await, expected, "it is rebuilt from the manifests");

    let last = server.url(&format!("/v2/a/manifests/{}", expected[3]));
    assert_eq!(http().delete(last).send().await.expect("an answer").status(), 202);
    assert_eq!(listed(&server).await, expected[..3], "a deleted referrer is no longer listed");
}
