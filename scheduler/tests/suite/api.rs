//! The admin API over its router: status codes, bodies, problem documents. Logs, usage and keys are a real node's and a
//! real registry's, in the same temporary folder.

use crate::harness::World;
use axum::{
    Router,
    body::Body,
    http::{Method, Request, StatusCode, header},
};
use futures_util::future::BoxFuture;
use http_body_util::BodyExt as _;
use neap_node::{Node, NodeSettings, Runtimes};
use neap_registry::{Preparer, Registry, RegistrySettings, Release};
use neap_sdk::{
    Digest, ErrorCode, Problem,
    admission::Reason,
    api::{FunctionUsage, FunctionView, LogLine},
    limits,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::{path::Path, sync::Arc};
use tower::ServiceExt as _;

struct PreparesNothing;

impl Preparer for PreparesNothing {
    fn prepare<'a>(&'a self, _release: &'a Release) -> BoxFuture<'a, Result<(), Reason>> {
        Box::pin(async { Ok(()) })
    }
}

/// A node that can run nothing.
pub fn node(dir: &Path) -> Node {
    let runtimes = Runtimes { wasm: None, oci: Err("this is a test".to_owned()) };
    let settings = NodeSettings { dir: dir.join("node"), memory_bytes: Some(1 << 30) };
    Node::open(settings, runtimes, &mut prometheus_client::registry::Registry::default()).unwrap()
}

/// An empty registry.
pub async fn registry(dir: &Path) -> Registry {
    let settings = RegistrySettings::new(dir.join("registry"));
    Registry::open(settings, Arc::new(PreparesNothing)).await.unwrap()
}

struct Api {
    world: World,
    node: Node,
    router: Router,
}

struct Answer {
    status: StatusCode,
    media_type: String,
    body: Vec<u8>,
}

impl Answer {
    fn json<T: DeserializeOwned>(&self) -> T {
        let text = String::from_utf8_lossy(&self.body);
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {text}"))
    }

    fn problem(&self) -> (StatusCode, ErrorCode, String) {
        assert_eq!(self.media_type, Problem::MEDIA_TYPE);
        let problem: Problem = self.json();
        assert_eq!(problem.status, self.status.as_u16());
        (self.status, problem.code, problem.detail)
    }
}

impl Api {
    async fn new() -> Self {
        let world = World::containers().await;
        let dir = world.dir.path();
        let node = node(dir);
        let registry = registry(dir).await;
        let router = world.scheduler.api(node.clone(), registry);
        Self { world, node, router }
    }

    async fn send(&self, method: Method, path: &str, body: impl Into<Body>) -> Answer {
        let request =
            Request::builder().method(method).uri(format!("/api/v1{path}")).body(body.into()).unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        let status = response.status();
        let media_type = response.headers().get(header::CONTENT_TYPE);
        let media_type = media_type.map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default();
        let body = response.into_body().collect().await.unwrap().to_bytes().to_vec();
        Answer { status, media_type, body }
    }

    async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, Body::empty()).await
    }

    async fn deploy(&self, name: &str, artifact: &str) -> Answer {
        let body = json!({ "repository": "app", "digest": Digest::of(artifact.as_bytes()) });
        self.send(Method::POST, &format!("/functions/{name}/deploy"), body.to_string()).await
    }
}

#[tokio::test]
async fn the_life_of_a_function() {
    let api = Api::new().await;
    let deployed = api.deploy("hello", "one").await;
    assert_eq!(deployed.status, StatusCode::OK);
    assert_eq!(deployed.json::<FunctionView>().revisions[0].number, 1);
    api.deploy("hello", "two").await;
    let listed: Vec<FunctionView> = api.get("/functions").await.json();
    assert_eq!(listed.len(), 1);
    let other: Vec<FunctionView> = api.get("/functions?tenant=team").await.json();
    assert!(other.is_empty(), "another tenant sees nothing of it");
    assert_eq!(api.get("/functions/hello?tenant=team").await.problem().1, ErrorCode::NotFound);

    let back: FunctionView = api.send(Method::POST, "/functions/hello/rollback", "").await.json();
    assert_eq!(back.traffic[0].revision, 1);
    let forth: FunctionView =
        api.send(Method::POST, "/functions/hello/rollback", r#"{"revision":2}"#).await.json();
    assert_eq!(forth.traffic[0].revision, 2);
    let shares = json!([{ "revision": 1, "weight": 1 }, { "revision": 2, "weight": 1 }]).to_string();
    let split: FunctionView = api.send(Method::PUT, "/functions/hello/traffic", shares).await.json();
    assert_eq!(split.traffic.len(), 2);

    assert_eq!(api.send(Method::DELETE, "/functions/hello", "").await.status, StatusCode::NO_CONTENT);
    assert_eq!(api.send(Method::DELETE, "/functions/hello", "").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn failures_are_problem_documents() {
    let api = Api::new().await;
    let deploy = "/functions/hello/deploy";
    let unknown_field = json!({ "repository": "app", "digest": Digest::of(b"x"), "spec": { "memory": 1 } });
    let too_large = "x".repeat(limits::ADMIN_BODY_BYTES_MAX + 1);
    for (method, path, body, status, code, said) in [
        (Method::POST, deploy, "{", 400, ErrorCode::Invalid, "EOF"),
        (Method::POST, deploy, &unknown_field.to_string(), 400, ErrorCode::Invalid, "unknown field `memory`"),
        (Method::POST, deploy, &too_large, 413, ErrorCode::TooLarge, ""),
        (Method::GET, "/functions/Bad_Name", "", 400, ErrorCode::Invalid, "Bad_Name"),
        (Method::GET, "/functions?tenant=-", "", 400, ErrorCode::Invalid, "tenant name"),
        (Method::GET, "/usage?sinec_ms=1", "", 400, ErrorCode::Invalid, "`sinec_ms`"),
        (Method::GET, "/usage/records?functoin=a", "", 400, ErrorCode::Invalid, "`functoin`"),
        (Method::GET, "/functions/absent/logs?folow", "", 400, ErrorCode::Invalid, "`folow`"),
        (Method::DELETE, "/functions/absent?tennant=team", "", 400, ErrorCode::Invalid, "`tennant`"),
        (Method::GET, "/functions/absent", "", 404, ErrorCode::NotFound, "default/absent"),
        (Method::GET, "/functions/absent/logs", "", 404, ErrorCode::NotFound, "default/absent"),
        (Method::POST, "/functions/absent/rollback", "", 404, ErrorCode::NotFound, "default/absent"),
        (Method::PUT, "/functions/absent/traffic", "[]", 404, ErrorCode::NotFound, "default/absent"),
        (Method::GET, "/nothing", "", 404, ErrorCode::NotFound, "/api/v1/nothing"),
        (Method::PATCH, "/functions", "", 405, ErrorCode::Invalid, "PATCH"),
        (Method::DELETE, "/keys/absent", "", 404, ErrorCode::NotFound, "absent"),
        (Method::POST, "/keys", r#"{"name":"me","pem":"no key"}"#, 400, ErrorCode::Invalid, "me"),
        (
            Method::POST,
            "/verify",
            r#"{"repository":"team/app","target":"v1"}"#,
            403,
            ErrorCode::Forbidden,
            "team",
        ),
        (Method::POST, "/verify", r#"{"repository":"app","target":"/"}"#, 400, ErrorCode::Invalid, "tag"),
    ] {
        let answer = api.send(method.clone(), path, body.to_owned()).await;
        let (found_status, found_code, detail) = answer.problem();
        assert_eq!((found_status.as_u16(), found_code), (status, code), "{method} {path}: {detail}");
        assert!(detail.contains(said), "{method} {path}: {detail}");
    }
}

#[tokio::test]
async fn refused_and_failed_deployments_keep_their_codes() {
    let api = Api::new().await;
    api.world.admissions.refuse(Digest::of(b"bad"), &[(ErrorCode::Untrusted, "signed by a stranger")]);
    let (status, code, detail) = api.deploy("hello", "bad").await.problem();
    assert_eq!((status, code), (StatusCode::FORBIDDEN, ErrorCode::Untrusted));
    assert!(detail.contains("signed by a stranger"));
    api.world.fleet.script(|script| {
        script.start_failures.insert(1, "exited at once".to_owned());
    });
    let (status, code, detail) = api.deploy("hello", "good").await.problem();
    assert_eq!((status, code), (StatusCode::SERVICE_UNAVAILABLE, ErrorCode::StartFailed));
    assert!(detail.contains("exited at once"));
    let shown: FunctionView = api.get("/functions/hello").await.json();
    assert!(shown.traffic.is_empty() && shown.revisions[0].failure.is_some());
}

#[tokio::test]
async fn logs_are_lines_and_can_be_followed() {
    let api = Api::new().await;
    api.deploy("hello", "one").await;
    let revision = crate::harness::revision_id("hello", 1);
    let writer = api.node.logs().writer(&revision, neap_sdk::InstanceId(1));
    writer.write(neap_node::logs::LogStream::Stdout, b"first\nsecond\n");
    let answer = api.get("/functions/hello/logs").await;
    assert_eq!((answer.status, answer.media_type.as_str()), (StatusCode::OK, "application/x-ndjson"));
    let texts: Vec<String> = String::from_utf8(answer.body)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str::<LogLine>(line).unwrap().text)
        .collect();
    assert_eq!(texts, ["first", "second"]);

    let request = Request::get("/api/v1/functions/hello/logs?follow&since_ms=0").body(Body::empty()).unwrap();
    let mut body = api.router.clone().oneshot(request).await.unwrap().into_body();
    for expected in ["first", "second", "third"] {
        if expected == "third" {
            writer.write(neap_node::logs::LogStream::Stderr, b"third\n");
        }
        let frame =
            tokio::time::timeout(crate::harness::PATIENCE, body.frame()).await.expect("a line in time");
        let line: LogLine = serde_json::from_slice(frame.unwrap().unwrap().data_ref().unwrap()).unwrap();
        assert_eq!(line.text, expected);
    }

    // Another function's end is nothing to it; its own ends the stream, after the last line.
    api.deploy("other", "one").await;
    api.send(Method::DELETE, "/functions/other", "").await;
    let waited = tokio::time::timeout(std::time::Duration::from_millis(50), body.frame()).await;
    assert!(waited.is_err(), "still followed");
    writer.write(neap_node::logs::LogStream::Stdout, b"last\n");
    assert_eq!(api.send(Method::DELETE, "/functions/hello", "").await.status, StatusCode::NO_CONTENT);
    let rest = tokio::time::timeout(crate::harness::PATIENCE, body.collect()).await.expect("an end in time");
    let last: LogLine = serde_json::from_slice(&rest.unwrap().to_bytes()).unwrap();
    assert_eq!(last.text, "last");
}

#[tokio::test]
async fn usage_keys_and_verify_answer() {
    let api = Api::new().await;
    assert!(api.get("/usage?since_ms=0&tenant=default").await.json::<Vec<FunctionUsage>>().is_empty());
    let records = api.get("/usage/records?function=hello").await;
    assert_eq!((records.media_type.as_str(), records.body.len()), ("application/x-ndjson", 0));
    assert_eq!(api.get("/keys").await.json::<Value>(), json!([]));
    let verdict = api.send(Method::POST, "/verify", r#"{"repository":"app","target":"v1"}"#).await;
    assert_eq!(verdict.json::<Value>()["admitted"], json!(true));
}

#[tokio::test]
async fn keys_are_trusted_and_revoked() {
    const PEM: &str = "-----BEGIN PUBLIC KEY-----\n\
        MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n\
        -----END PUBLIC KEY-----\n";
    let api = Api::new().await;
    let body = json!({ "name": "laptop", "pem": PEM }).to_string();
    let trusted: Value = api.send(Method::POST, "/keys?tenant=team", body).await.json();
    let key_id = trusted["key_id"].as_str().unwrap().to_owned();
    assert_eq!(api.get("/keys?tenant=team").await.json::<Value>()[0]["name"], json!("laptop"));
    assert_eq!(api.get("/keys").await.json::<Value>(), json!([]), "not another tenant's");
    let revoke = format!("/keys/{key_id}?tenant=team");
    assert_eq!(api.send(Method::DELETE, &revoke, "").await.status, StatusCode::NO_CONTENT);
    assert_eq!(api.get("/keys?tenant=team").await.json::<Value>(), json!([]));
}
