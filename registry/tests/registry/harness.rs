//! A registry in a temporary folder behind a socket on port 0, and small artifacts to push to it.

use futures_util::future::BoxFuture;
use neap_registry::{
    Preparer, Registry, RegistrySettings, Release,
    access::Access,
    admission::Policy,
    client::{ClientSettings, CredentialSource, Credentials, RegistryClient, no_progress},
    package::LocalArtifact,
    sign::{self, SigningKey},
};
use neap_sdk::{
    Digest, ErrorCode,
    admission::Reason,
    artifact::{Repository, Tag, TagOrDigest},
};
use serde_json::json;
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::task::JoinHandle;

/// Says yes, or no with this text.
pub struct Scripted(pub Option<&'static str>);

impl Preparer for Scripted {
    fn prepare<'a>(&'a self, _: &'a Release) -> BoxFuture<'a, Result<(), Reason>> {
        let refusal = self.0.map(|text| Reason { code: ErrorCode::Unsupported, text: text.to_owned() });
        Box::pin(async move { refusal.map_or(Ok(()), Err) })
    }
}

/// A registry that serves until it is dropped.
pub struct Server {
    pub registry: Registry,
    pub host: String,
    pub dir: Arc<tempfile::TempDir>,
    serving: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Server {
    pub async fn start() -> Self {
        Self::start_with(Access::Anonymous, Scripted(None)).await
    }

    pub async fn start_with(access: Access, preparer: Scripted) -> Self {
        let dir = Arc::new(tempfile::tempdir().expect("a temporary folder"));
        Self::open(dir, access, preparer).await
    }

    async fn open(dir: Arc<tempfile::TempDir>, access: Access, preparer: Scripted) -> Self {
        let settings = RegistrySettings { dir: dir.path().to_owned(), access, policy: Policy::default() };
        let registry = Registry::open(settings, Arc::new(preparer)).await.expect("the registry opens");
        let router = registry.router();
        let (host, serving) = serve(router).await;
        Self { registry, host, dir, serving }
    }

    /// Stops it and opens the same folder again.
    pub async fn restart(self) -> Self {
        let dir = self.dir.clone();
        drop(self);
        Self::open(dir, Access::Anonymous, Scripted(None)).await
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.host)
    }

    pub fn client(&self) -> RegistryClient {
        RegistryClient::new(&self.host, ClientSettings::default()).expect("loopback is a registry")
    }

    pub fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    /// Pushes bytes as one blob.
    pub async fn push_blob(&self, repository: &str, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        let url = self.url(&format!("/v2/{repository}/blobs/uploads/?digest={digest}"));
        let answer = http().post(url).body(bytes.to_vec()).send().await.expect("an answer");
        assert_eq!(answer.status(), 201);
        digest
    }
}

/// Serves a router on loopback.
pub async fn serve(router: axum::Router) -> (String, JoinHandle<()>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let host = listener.local_addr().expect("an address").to_string();
    let serving = tokio::spawn(async move { axum::serve(listener, router).await.expect("serving") });
    (host, serving)
}

/// A bare HTTP client.
pub fn http() -> reqwest::Client {
    let plain = reqwest::Client::builder().tls_certs_only([]).redirect(reqwest::redirect::Policy::none());
    plain.build().expect("an HTTP client")
}

pub fn header<'a>(response: &'a reqwest::Response, name: &str) -> &'a str {
    response.headers().get(name).unwrap_or_else(|| panic!("{name} is set")).to_str().expect("text")
}

/// The code of the first error in a distribution error body.
pub async fn error_code(response: reqwest::Response) -> String {
    let body: serde_json::Value =
        serde_json::from_slice(&response.bytes().await.expect("a body")).expect("errors are JSON");
    body["errors"][0]["code"].as_str().expect("a code").to_owned()
}

pub fn repository(name: &str) -> Repository {
    name.parse().expect("a repository")
}

pub fn tag(name: &str) -> Tag {
    name.parse().expect("a tag")
}

pub fn by_tag(name: &str) -> TagOrDigest {
    TagOrDigest::Tag(tag(name))
}

pub fn basic(user: &str, password: &str) -> ClientSettings {
    let credentials = Credentials::Basic { user: user.to_owned(), password: password.to_owned() };
    ClientSettings { credentials: CredentialSource::Given(credentials), ..ClientSettings::default() }
}

/// The smallest component that exports what `name` says; it holds no code.
pub fn component_exporting(name: &str) -> Vec<u8> {
    let mut export = vec![1, 0, u8::try_from(name.len()).expect("a short name")];
    export.extend_from_slice(name.as_bytes());
    export.extend_from_slice(&[5, 0, 0]);
    let mut bytes = b"\0asm\x0d\0\x01\0\x05\x03\x01\x01\0\x0b".to_vec();
    bytes.push(u8::try_from(export.len()).expect("a short section"));
    bytes.extend(export);
    bytes
}

/// A component with a handler; different `variant`s have different bytes.
pub fn component(variant: u8) -> Vec<u8> {
    component_exporting(&format!("wasi:http/incoming-handler@0.2.{variant}"))
}

/// The smallest command: a module with an empty `_start`.
pub fn command() -> Vec<u8> {
    let mut bytes = b"\0asm\x01\0\0\0".to_vec();
    bytes.extend_from_slice(b"\x01\x04\x01\x60\0\0\x03\x02\x01\0");
    bytes.extend_from_slice(b"\x07\x0a\x01\x06_start\0\0\x0a\x04\x01\x02\0\x0b");
    bytes
}

/// An SBOM that lists one component.
pub fn sbom() -> Vec<u8> {
    let component =
        json!({ "type": "library", "name": "serde", "version": "1.0.0", "purl": "pkg:cargo/serde@1.0.0" });
    let document = json!({
        "bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1, "components": [component],
    });
    document.to_string().into_bytes()
}

/// A new key in a temporary folder.
pub fn signing_key(dir: &Path, name: &str) -> SigningKey {
    SigningKey::generate(&dir.join(format!("{name}.key"))).expect("a new key")
}

/// Pushes an artifact with a tag.
pub async fn push(server: &Server, name: &str, tagged: &str, artifact: &LocalArtifact) {
    let pushed = server.client().push(&repository(name), Some(&tag(tagged)), artifact, no_progress()).await;
    assert_eq!(pushed.expect("pushed"), artifact.digest);
}

/// Signs an artifact and attests an SBOM for it, both in the registry.
pub async fn attest(server: &Server, name: &str, artifact: &LocalArtifact, key: &SigningKey) {
    let target = artifact.descriptor();
    for attachment in [sign::sign(key, &target, 0), sign::attest_sbom(key, &target, &sbom(), 0)] {
        let attachment = attachment.expect("signed");
        server.client().push_attachment(&repository(name), &attachment).await.expect("attached");
    }
}
