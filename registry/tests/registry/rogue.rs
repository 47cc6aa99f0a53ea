//! Registries that lie: the client must notice, and must not give its password away.

use crate::harness::{basic, repository, serve};
use axum::{
    Router,
    body::Body,
    extract::Request,
    response::{IntoResponse, Response},
};
use futures_util::stream;
use http::StatusCode;
use neap_registry::{
    client::{ClientError, ClientSettings, RegistryClient, no_progress},
    manifest::Descriptor,
};
use neap_sdk::{
    Digest,
    artifact::{TagOrDigest, media_type},
};
use serde_json::json;
use std::sync::{Arc, Mutex};

/// Everything that a server was asked, with the credentials it was shown.
type Asked = Arc<Mutex<Vec<(String, Option<String>)>>>;

async fn rogue(answer: impl Fn(&Request) -> Response + Clone + Send + Sync + 'static) -> (String, Asked) {
    let asked: Asked = Arc::default();
    let log = asked.clone();
    let router = Router::new().fallback(move |request: Request| {
        let shown =
            request.headers().get("authorization").map(|value| value.to_str().expect("text").to_owned());
        let line = format!("{} {}", request.method(), request.uri());
        log.lock().expect("no panic").push((line, shown));
        let response = answer(&request);
        async move { response }
    });
    (serve(router).await.0, asked)
}

fn image() -> (String, Descriptor) {
    let layer = Descriptor::of(media_type::LAYER_TAR, b"the layer");
    let config = Descriptor::of(media_type::IMAGE_CONFIG, b"the layer");
    let manifest =
        json!({ "schemaVersion": 2, "mediaType": media_type::MANIFEST, "config": config, "layers": [layer] });
    (manifest.to_string(), layer)
}

fn manifest_answer(body: String) -> Response {
    ([("content-type", media_type::MANIFEST)], body).into_response()
}

async fn pull(host: &str, settings: ClientSettings, target: &str) -> ClientError {
    let client = RegistryClient::new(host, settings).expect("a client");
    let target: TagOrDigest = target.parse().expect("a target");
    client.pull(&repository("a"), &target, no_progress()).await.expect_err("a rogue registry is noticed")
}

#[tokio::test]
async fn other_bytes_than_asked_for_are_refused() {
    let (manifest, _) = image();
    let digest = Digest::of(manifest.as_bytes());
    let other = manifest.replace("\"layers\"", "\"annotations\":{},\"layers\"");
    let (host, _) = rogue(move |_| manifest_answer(other.clone())).await;
    let error = pull(&host, ClientSettings::default(), &digest.to_string()).await;
    assert!(matches!(error, ClientError::Digest { .. }), "{error}");

    type Case = (&'static str, fn() -> Body);
    let bodies: [Case; 4] = [
        ("other bytes", || Body::from("THE LAYER")),
        ("too few", || Body::from("the lay")),
        ("too many", || Body::from("the layer and more")),
        ("endless", || {
            Body::from_stream(stream::repeat_with(|| Ok::<_, std::io::Error>(vec![0_u8; 1 << 16])))
        }),
    ];
    for (what, body) in bodies {
        let manifest = manifest.clone();
        let (host, _) = rogue(move |request| match request.uri().path().contains("/manifests/") {
            true => manifest_answer(manifest.clone()),
            false => body().into_response(),
        })
        .await;
        let error = pull(&host, ClientSettings::default(), "latest").await;
        assert!(matches!(error, ClientError::Digest { .. } | ClientError::Protocol(_)), "{what}: {error}");
    }
}

#[tokio::test]
async fn an_endless_manifest_ends() {
    let (host, _) = rogue(|_| {
        let body = stream::repeat_with(|| Ok::<_, std::io::Error>(vec![b' '; 1 << 16]));
        ([("content-type", media_type::MANIFEST)], Body::from_stream(body)).into_response()
    })
    .await;
    assert!(matches!(pull(&host, ClientSettings::default(), "latest").await, ClientError::Protocol(_)));
}

#[tokio::test]
async fn the_password_does_not_follow_a_foreign_realm() {
    let (thief, stolen) = rogue(|_| "{\"token\":\"x\"}".into_response()).await;
    // The same machine under another name is another host.
    let realm = format!("http://localhost:{}/token", thief.rsplit_once(':').expect("a port").1);
    let (host, _) = rogue(move |_| {
        let challenge = format!("Bearer realm=\"{realm}\",service=\"x\"");
        (StatusCode::UNAUTHORIZED, [("www-authenticate", challenge)]).into_response()
    })
    .await;
    let error = pull(&host, basic("me", "s3cret"), "latest").await;
    assert!(matches!(error, ClientError::Realm { .. }), "{error}");
    assert!(stolen.lock().expect("no panic").is_empty(), "nobody was asked there");

    let trusting = ClientSettings { trusted_realms: vec!["localhost".to_owned()], ..basic("me", "s3cret") };
    let error = pull(&host, trusting, "latest").await;
    assert!(matches!(error, ClientError::Unauthorized(_)), "{error}");
    assert_eq!(stolen.lock().expect("no panic").len(), 1, "a host that the user trusts is asked");
}

#[tokio::test]
async fn a_token_is_fetched_once_and_used() {
    let (manifest, layer) = image();
    let (host, asked) = rogue(move |request| {
        let path = request.uri().path();
        let shown = request.headers().get("authorization").and_then(|value| value.to_str().ok());
        match (path, shown) {
            ("/token", Some("Basic bWU6czNjcmV0")) => "{\"access_token\":\"short-lived\"}".into_response(),
            ("/token", _) => StatusCode::UNAUTHORIZED.into_response(),
            (path, Some("Bearer short-lived")) if path.contains("/manifests/") => {
                manifest_answer(manifest.clone())
            }
            (_, Some("Bearer short-lived")) => "the layer".into_response(),
            _ => {
                let host = request.headers()["host"].to_str().expect("text");
                let challenge = format!("Bearer realm=\"http://{host}/token\",service=\"neap test\"");
                (StatusCode::UNAUTHORIZED, [("www-authenticate", challenge)]).into_response()
            }
        }
    })
    .await;
    let client = RegistryClient::new(&host, basic("me", "s3cret")).expect("a client");
    let target = "latest".parse().expect("a tag");
    let pulled = client.pull(&repository("team/app"), &target, no_progress()).await.expect("pulled");
    assert_eq!(pulled.blobs[0].digest, layer.digest);
    let asked = asked.lock().expect("no panic").clone();
    let tokens: Vec<&str> =
        asked.iter().map(|(line, _)| line.as_str()).filter(|line| line.contains("/token")).collect();
    assert_eq!(tokens, ["GET /token?service=neap+test&scope=repository%3Ateam%2Fapp%3Apull"]);
}

#[tokio::test]
async fn a_redirect_elsewhere_goes_without_credentials() {
    let (manifest, _) = image();
    let (storage, seen) = rogue(|_| "the layer".into_response()).await;
    let (host, _) = rogue(move |request| {
        let path = request.uri().path();
        if request.headers().get("authorization").is_none() {
            return (StatusCode::UNAUTHORIZED, [("www-authenticate", "Basic realm=\"x\"")]).into_response();
        }
        match path.contains("/manifests/") {
            true => manifest_answer(manifest.clone()),
            false => {
                let location = format!("http://{storage}/bucket?signature=abc");
                (StatusCode::TEMPORARY_REDIRECT, [("location", location)]).into_response()
            }
        }
    })
    .await;
    let client = RegistryClient::new(&host, basic("me", "s3cret")).expect("a client");
    let target = "latest".parse().expect("a tag");
    client.pull(&repository("a"), &target, no_progress()).await.expect("pulled from the storage");
    let seen = seen.lock().expect("no panic").clone();
    assert_eq!(seen.first(), Some(&("GET /bucket?signature=abc".to_owned(), None)));

    let (loops, _) = rogue(|_| (StatusCode::FOUND, [("location", "/again")]).into_response()).await;
    assert!(matches!(pull(&loops, ClientSettings::default(), "latest").await, ClientError::Protocol(_)));
    let (leads_out, _) =
        rogue(|_| (StatusCode::FOUND, [("location", "http://10.1.2.3/x")]).into_response()).await;
    assert!(matches!(pull(&leads_out, ClientSettings::default(), "latest").await, ClientError::Insecure(_)));
}
