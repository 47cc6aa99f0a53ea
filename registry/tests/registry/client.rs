//! The client where the registry is honest: docker's configuration, registries without the referrers API, indexes.

use crate::harness::{Scripted, Server, by_tag, component, http, push, repository, serve, signing_key, tag};
use axum::{extract::Request, response::IntoResponse};
use neap_registry::{
    access::{Access, Token},
    client::{ClientError, ClientSettings, CredentialSource, RegistryClient, no_progress},
    package, sign,
};
use neap_sdk::artifact::media_type;
use serde_json::json;

#[tokio::test]
async fn credentials_come_from_dockers_configuration() {
    let server = Server::start_with(Access::Token(Token::new("s3cret")), Scripted(None)).await;
    let artifact = package::wasm(component(1)).expect("packaged");
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("config.json");
    let push = async |config: &str| {
        std::fs::write(&path, config).expect("written");
        let credentials = CredentialSource::DockerConfig(path.clone());
        let settings = ClientSettings { credentials, ..ClientSettings::default() };
        let client = RegistryClient::new(&server.host, settings).expect("a client");
        client.push(&repository("a"), Some(&tag("v1")), &artifact, no_progress()).await
    };
    let config = json!({ "auths": { &server.host: { "auth": "bWU6czNjcmV0" } } });
    assert_eq!(push(&config.to_string()).await.expect("pushed"), artifact.digest);
    let error = push("{}").await.expect_err("no credentials");
    assert!(error.to_string().contains("docker login"), "{error}");
    let helper = json!({ "credHelpers": { &server.host: "neap-test-that-nobody-installed" } });
    let error = push(&helper.to_string()).await.expect_err("no such helper");
    assert!(error.to_string().contains("docker-credential-neap-test-that-nobody-installed"), "{error}");
    let path = json!({ "credsStore": "../../bin/sh" });
    assert!(matches!(push(&path.to_string()).await, Err(ClientError::Credentials { .. })));
    let error = push("{\"auths\": s3cret").await.expect_err("no JSON");
    assert!(!error.to_string().contains("s3cret"), "{error}");
}

#[tokio::test]
async fn without_the_referrers_api_the_fallback_tag_is_kept() {
    let server = Server::start().await;
    let inner = server.registry.router();
    // What an older registry does: no referrers API, no OCI-Subject.
    let older = axum::Router::new().fallback(move |request: Request| {
        let inner = inner.clone();
        async move {
            if request.uri().path().contains("/referrers/") {
                return http::StatusCode::NOT_FOUND.into_response();
            }
            let mut response = tower::ServiceExt::oneshot(inner, request).await.expect("infallible");
            response.headers_mut().remove("oci-subject");
            response
        }
    });
    let (host, _serving) = serve(older).await;
    let client = RegistryClient::new(&host, ClientSettings::default()).expect("a client");
    let artifact = package::wasm(component(1)).expect("packaged");
    client.push(&repository("a"), None, &artifact, no_progress()).await.expect("pushed");
    let dir = tempfile::tempdir().expect("a folder");
    let mut expected = Vec::new();
    for name in ["one", "two"] {
        let key = signing_key(dir.path(), name);
        let signature = sign::sign(&key, &artifact.descriptor(), 0).expect("signed");
        for _ in 0..2 {
            client.push_attachment(&repository("a"), &signature).await.expect("attached");
        }
        expected.push(signature.digest());
    }
    let listed = client.referrers(&repository("a"), artifact.digest).await.expect("referrers");
    assert_eq!(listed.iter().map(|entry| entry.digest).collect::<Vec<_>>(), expected);
    let direct = server.client().referrers(&repository("a"), artifact.digest).await.expect("referrers");
    assert_eq!(direct.len(), 2, "the registry itself lists the same");
}

#[tokio::test]
async fn of_an_index_the_child_for_this_platform_is_pulled() {
    let server = Server::start().await;
    let (one, two) =
        (package::wasm(component(1)).expect("packaged"), package::wasm(component(2)).expect("packaged"));
    push(&server, "a", "one", &one).await;
    push(&server, "a", "two", &two).await;
    let mut children = [one.descriptor(), two.descriptor()].map(|descriptor| json!(descriptor));
    children[0]["platform"] = json!({ "os": "linux", "architecture": "arm64" });
    children[1]["platform"] = json!({ "os": "linux", "architecture": "amd64" });
    let index =
        json!({ "schemaVersion": 2, "mediaType": media_type::INDEX, "manifests": children }).to_string();
    let url = server.url("/v2/a/manifests/both");
    let put = http().put(url).header("content-type", media_type::INDEX).body(index).send().await;
    assert_eq!(put.expect("an answer").status(), 201);
    let pulled =
        server.client().pull(&repository("a"), &by_tag("both"), no_progress()).await.expect("pulled");
    assert_eq!(pulled.digest, two.digest);
    assert_eq!(pulled.wasm_bytes().expect("readable").expect("Wasm"), component(2));
    let missing = server.client().pull(&repository("a"), &by_tag("none"), no_progress()).await;
    assert!(matches!(missing, Err(ClientError::NotFound(_))));
    let nobody = RegistryClient::new("127.0.0.1:1", ClientSettings::default()).expect("a client");
    let error =
        nobody.pull(&repository("a"), &by_tag("v1"), no_progress()).await.expect_err("nobody listens");
    assert!(matches!(error, ClientError::Connect { .. }), "{error}");
}
