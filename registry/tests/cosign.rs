//! Stock cosign against the real registry over HTTP, in both directions: it verifies what neap signs, and
//! admission accepts what it signs. Skipped, with a word on stdout, where there is no cosign (`NEAP_COSIGN`, else
//! on the `PATH`). What cosign 3.1.3 wrote is also recorded in `fixtures/cosign` and always tested.

use futures_util::future::{BoxFuture, FutureExt as _, ready};
use neap_registry::{
    Preparer, Registry, RegistrySettings, Release,
    client::{ClientSettings, RegistryClient, no_progress},
    package,
    sbom::{Contents, Part, Target, generate},
    sign::{self, SigningKey},
};
use neap_sdk::{
    Digest, ErrorCode,
    admission::Reason,
    artifact::{Repository, TagOrDigest},
};
use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

/// A component that exports an empty instance as its handler: enough to be admitted, if not to run.
const COMPONENT: &[u8] =
    b"\0asm\x0d\0\x01\0\x05\x03\x01\x01\0\x0b\x27\x01\0\x21wasi:http/incoming-handler@0.2.0\0\x05\0\0";

struct AnythingRuns;

impl Preparer for AnythingRuns {
    fn prepare<'a>(&'a self, _: &'a Release) -> BoxFuture<'a, Result<(), Reason>> {
        ready(Ok(())).boxed()
    }
}

struct Cosign {
    program: OsString,
    home: PathBuf,
}

impl Cosign {
    /// `None`, and a word about it, where there is no cosign.
    fn find(home: &Path) -> Option<Self> {
        let program = std::env::var_os("NEAP_COSIGN").unwrap_or_else(|| "cosign".into());
        if Command::new(&program).arg("version").output().is_ok_and(|output| output.status.success()) {
            return Some(Self { program, home: home.to_owned() });
        }
        println!("skipped: no cosign on the PATH; NEAP_COSIGN=/path/to/cosign names one");
        None
    }

    /// Runs it; its stdout, or its stderr.
    async fn run(&self, args: &[&str]) -> Result<String, String> {
        let mut command = tokio::process::Command::new(&self.program);
        command.args(args).current_dir(&self.home).env("HOME", &self.home).env("COSIGN_PASSWORD", "");
        let output = command.output().await.expect("cosign starts");
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
    }

    async fn sign(&self, verb: &[&str], bundles: bool, reference: &str) -> Result<String, String> {
        let format = format!("--new-bundle-format={bundles}");
        let offline = ["--use-signing-config=false", "--tlog-upload=false", "--allow-http-registry", "-y"];
        let args = [verb, &["--key", "cosign.key", &format], &offline, &[reference]].concat();
        self.run(&args).await
    }

    async fn verify(&self, verb: &[&str], key: &str, reference: &str) -> Result<String, String> {
        let rest = ["--key", key, "--insecure-ignore-tlog", "--allow-http-registry", reference];
        self.run(&[verb, &rest].concat()).await
    }
}

struct Server {
    registry: Registry,
    client: RegistryClient,
    address: String,
}

impl Server {
    async fn start(dir: &Path) -> Self {
        let settings = RegistrySettings::new(dir.join("registry"));
        let registry = Registry::open(settings, Arc::new(AnythingRuns)).await.expect("the registry opens");
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("loopback has ports");
        let address = listener.local_addr().expect("it is bound").to_string();
        let router = registry.router();
        tokio::spawn(async move { axum::serve(listener, router).await });
        let client =
            RegistryClient::new(&address, ClientSettings::default()).expect("an address is a registry");
        Self { registry, client, address }
    }

    async fn push(&self, repository: &str) -> (Repository, package::LocalArtifact, String) {
        let repository: Repository = repository.parse().expect("a repository");
        let artifact = package::wasm(COMPONENT.to_vec()).expect("a component");
        let digest =
            self.client.push(&repository, None, &artifact, no_progress()).await.expect("it is pushed");
        let reference = format!("{}/{repository}@{digest}", self.address);
        (repository, artifact, reference)
    }

    async fn refusals(&self, repository: &Repository, digest: Digest) -> Vec<ErrorCode> {
        let verdict =
            self.registry.verify(repository, &TagOrDigest::Digest(digest)).await.expect("it is judged");
        verdict.reasons.iter().map(|reason| reason.code).collect()
    }
}

fn sbom_of(artifact: &package::LocalArtifact) -> Vec<u8> {
    let parts: Vec<Part> = artifact
        .blobs
        .iter()
        .map(|blob| Part { name: blob.media_type.clone(), descriptor: blob.descriptor() })
        .collect();
    generate(&Target {
        name: "app",
        version: None,
        kind: artifact.kind,
        digest: artifact.digest,
        parts: &parts,
        contents: &Contents::unknown(),
        created_at_ms: 1_760_000_000_000,
    })
}

#[tokio::test]
async fn cosign_verifies_what_neap_signs() {
    let dir = tempfile::tempdir().unwrap();
    let Some(cosign) = Cosign::find(dir.path()) else { return };
    let server = Server::start(dir.path()).await;
    let (repository, artifact, reference) = server.push("team/ours").await;
    let key = SigningKey::generate(&dir.path().join("neap.key")).unwrap();
    SigningKey::generate(&dir.path().join("other.key")).unwrap();
    let target = artifact.descriptor();
    for attachment in [
        sign::sign(&key, &target, 1_760_000_000_000).unwrap(),
        sign::attest_sbom(&key, &target, &sbom_of(&artifact), 1_760_000_000_000).unwrap(),
    ] {
        server.client.push_attachment(&repository, &attachment).await.unwrap();
    }
    let attestation = ["verify-attestation", "--type", "cyclonedx"];
    cosign.verify(&["verify"], "neap.key.pub", &reference).await.expect("cosign verifies the signature");
    cosign.verify(&attestation, "neap.key.pub", &reference).await.expect("cosign verifies the SBOM");
    cosign.verify(&["verify"], "other.key.pub", &reference).await.expect_err("another key did not sign");

    assert_eq!(server.refusals(&repository, artifact.digest).await[0], ErrorCode::Untrusted);
    let tenant = "team".parse().unwrap();
    server.registry.keys().trust(&tenant, "neap", &key.public_key().to_pem(), 1).unwrap();
    assert_eq!(server.refusals(&repository, artifact.digest).await, []);
}

#[tokio::test]
async fn admission_accepts_what_cosign_signs() {
    let dir = tempfile::tempdir().unwrap();
    let Some(cosign) = Cosign::find(dir.path()) else { return };
    let server = Server::start(dir.path()).await;
    cosign.run(&["generate-key-pair"]).await.expect("cosign makes a key");
    let pem = std::fs::read_to_string(dir.path().join("cosign.pub")).unwrap();
    server.registry.keys().trust(&"team".parse().unwrap(), "cosign", &pem, 1).unwrap();
    for (name, bundles) in [("team/bundles", true), ("team/legacy", false)] {
        let (repository, artifact, reference) = server.push(name).await;
        let refused = server.refusals(&repository, artifact.digest).await;
        assert_eq!(refused, [ErrorCode::Unsigned, ErrorCode::Policy], "{name}");
        cosign.sign(&["sign"], bundles, &reference).await.expect("cosign signs");
        assert_eq!(
            server.refusals(&repository, artifact.digest).await,
            [ErrorCode::Policy],
            "{name}: no SBOM yet"
        );
        std::fs::write(dir.path().join("sbom.json"), sbom_of(&artifact)).unwrap();
        let attest = ["attest", "--type", "cyclonedx", "--predicate", "sbom.json"];
        cosign.sign(&attest, bundles, &reference).await.expect("cosign attests");
        assert_eq!(server.refusals(&repository, artifact.digest).await, [], "{name}");
        let admitted =
            server.registry.admit(&repository, &TagOrDigest::Digest(artifact.digest)).await.unwrap();
        assert_eq!(admitted.release.expect("it is published").verdict.evidence.signers[0].name, "cosign");
    }
}
