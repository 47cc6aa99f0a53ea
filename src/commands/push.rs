//! `neap push`: package, SBOM, sign, upload, deploy. Everything that speaks of trust is done here, on the user's
//! machine with the user's key; the server only judges.

use crate::{
    cli::{PushArgs, SpecArgs},
    commands::{invoke, package, progress::Progress},
    config::{Manifest, Server},
    exit::{Failure, Outcome},
    output::{self, Format},
};
use http_body_util::Full;
use hyper::{Request, header};
use neap_registry::{
    client::{ClientSettings, CredentialSource, Credentials, RegistryClient},
    package::LocalArtifact,
    sbom, sign,
};
use neap_sdk::{
    FunctionName, FunctionSpec,
    api::{DeployRequest, VerifyRequest},
    artifact::{Repository, Tag},
    client::Client,
    error::exit,
};
use std::{net::SocketAddr, path::PathBuf, process::ExitCode, time::Duration};

/// How long a push waits for the answer to its probe.
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);

/// Ends with 0 once the new revision has traffic and has answered its probe.
pub async fn run(args: PushArgs, server: &Server, format: Format) -> Outcome {
    let manifest = Manifest::load(args.manifest.as_deref())?;
    let what = args.what.clone().or(manifest.artifact.clone()).ok_or_else(|| {
        Failure::usage("nothing to push")
            .hint("name a file, a folder or a reference, or set `artifact` in neap.toml")
    })?;
    let name = match args.name.clone().or(manifest.name.clone()) {
        Some(name) => name,
        None => package::default_name(&what)?,
    };
    let spec = spec(manifest.function, args.spec)?;
    let key = if args.no_sign { None } else { Some(signing_key(args.key, server)?) };
    let progress = Progress::new();
    let client = server.client()?;
    // Asked before the work: without a server all of it would be for nothing.
    let gateway = server.gateway(&client).await?;

    progress.phase(&format!("packaging {what}"));
    let artifact = package::package(&what, &progress).await?;
    output::say(format!("{} {} ({})", artifact.kind, artifact.digest, output::size(artifact.size_bytes())));
    let repository: Repository = format!("{}/{name}", server.tenant)
        .parse()
        .map_err(|error| Failure::usage(format!("{name} cannot be a repository")).because(&error))?;
    let settings = ClientSettings { credentials: own_credentials(server), ..ClientSettings::default() };
    let registry = RegistryClient::new(&gateway.to_string(), settings)
        .map_err(|error| Failure::failed("the server's registry cannot be used", &error))?;
    progress.phase("uploading");
    let tag: Tag = "latest".parse().map_err(|error| Failure::failed("a bad tag", &error))?;
    registry
        .push(&repository, Some(&tag), &artifact, progress.transfers())
        .await
        .map_err(|error| Failure::failed("the upload failed", &error))?;
    match key {
        None => output::say("not signed, as asked"),
        Some(key) => {
            let sbom_file = args.sbom.or(manifest.sbom);
            let signing = Signing { key, sbom_file, lockfile: args.lockfile, what: &what, name: &name };
            signing.run(&artifact, &repository, &client, &registry, &progress).await?;
        }
    }
    progress.phase("deploying: the server verifies, and starts an instance");
    let order = DeployRequest { repository, digest: artifact.digest, spec };
    let function = client.deploy(&name, &order).await?;
    progress.phase("probing");
    let answer = probe(&name, server, gateway).await?;
    progress.done();
    output::say(answer);
    output::print(format, &function, |function| function.url.clone())?;
    Ok(ExitCode::SUCCESS)
}

/// Sends one request through the gateway. An answer of any status shows that the new revision is reached; a function
/// that fails on it is told to the person, and stays deployed: perhaps `/` is just no path of its own.
async fn probe(name: &FunctionName, server: &Server, gateway: SocketAddr) -> Outcome<String> {
    let request = Request::get("/")
        .header(header::HOST, invoke::host(name, &server.tenant, gateway))
        .header(header::USER_AGENT, "neap-probe")
        .body(Full::default())
        .map_err(|error| Failure::failed("the probe is no request", &error))?;
    let Ok(response) = tokio::time::timeout(PROBE_TIMEOUT, invoke::send(gateway, request)).await else {
        return Ok(format!(
            "warning: the probe GET / was not answered within {}",
            output::duration(PROBE_TIMEOUT)
        ));
    };
    let response = response?;
    let code = response.headers().get("x-neap-error").and_then(|value| value.to_str().ok());
    match code {
        None => Ok(format!("probed: GET / answered {}", response.status().as_u16())),
        Some("start_failed" | "no_route" | "draining") => {
            let what = format!("the new revision did not answer its probe: {}", response.status());
            Err(Failure::new(exit::NOT_READY, what).hint(format!("`neap get {name}` shows why")))
        }
        Some(code) => {
            Ok(format!("warning: the probe GET / was answered {} ({code})", response.status().as_u16()))
        }
    }
}

/// The key named, or the operator's, which the server trusts from its first start.
fn signing_key(named: Option<PathBuf>, server: &Server) -> Outcome<sign::SigningKey> {
    let path = match named {
        Some(path) => path,
        None => server.data_dir()?.operator_key(),
    };
    sign::SigningKey::load(&path).map_err(|error| {
        Failure::new(exit::USAGE, format!("the signing key {} cannot be used", path.display()))
            .because(&error)
            .hint("name one with --key or NEAP_KEY; `neap key generate` makes one; --no-sign uploads without")
    })
}

/// The admin token, which a registry that does not listen on loopback asks for.
fn own_credentials(server: &Server) -> CredentialSource {
    let file = || std::fs::read_to_string(server.data_dir().ok()?.admin_token()).ok();
    match server.token.clone().or_else(file) {
        Some(token) => {
            let password = token.trim().to_owned();
            CredentialSource::Given(Credentials::Basic { user: "neap".to_owned(), password })
        }
        None => CredentialSource::Anonymous,
    }
}

struct Signing<'a> {
    key: sign::SigningKey,
    sbom_file: Option<PathBuf>,
    lockfile: Option<PathBuf>,
    what: &'a str,
    name: &'a FunctionName,
}

impl Signing<'_> {
    /// Signs and attests, unless this key has done both for this digest already.
    async fn run(
        &self,
        artifact: &LocalArtifact,
        repository: &Repository,
        client: &Client,
        registry: &RegistryClient,
        progress: &Progress,
    ) -> Outcome<()> {
        progress.phase("signing");
        if self.sbom_file.is_none() && self.is_signed(artifact, repository, client).await {
            output::say("signed and attested before, by the same key");
            return Ok(());
        }
        let now_ms = output::now_ms();
        let sbom = self.sbom(artifact, now_ms)?;
        let descriptor = artifact.descriptor();
        let attestation = sign::attest_sbom(&self.key, &descriptor, &sbom, now_ms)
            .map_err(|error| Failure::new(exit::USAGE, "the SBOM cannot be attested").because(&error))?;
        let signature = sign::sign(&self.key, &descriptor, now_ms)
            .map_err(|error| Failure::failed("the artifact cannot be signed", &error))?;
        for attachment in [&attestation, &signature] {
            registry
                .push_attachment(repository, attachment)
                .await
                .map_err(|error| Failure::failed("the signature cannot be uploaded", &error))?;
        }
        output::say(format!(
            "signed by {}, with an SBOM of {}",
            self.key.public_key().id(),
            output::size(sbom.len() as u64)
        ));
        Ok(())
    }

    async fn is_signed(&self, artifact: &LocalArtifact, repository: &Repository, client: &Client) -> bool {
        let request = VerifyRequest { repository: repository.clone(), target: artifact.digest.to_string() };
        // A server that cannot tell is no reason to stop: signing twice is harmless.
        let Ok(verdict) = client.verify(&request).await else { return false };
        let ours = self.key.public_key().id();
        let sbom_is_ours = verdict.evidence.sbom.as_ref().is_some_and(|sbom| sbom.signer.key_id == ours);
        sbom_is_ours && verdict.evidence.signers.iter().any(|signer| signer.key_id == ours)
    }

    fn sbom(&self, artifact: &LocalArtifact, now_ms: u64) -> Outcome<Vec<u8>> {
        if let Some(path) = &self.sbom_file {
            return std::fs::read(path).map_err(|error| {
                Failure::new(exit::USAGE, format!("the SBOM {} cannot be read", path.display()))
                    .because(&error)
            });
        }
        let contents = package::contents(self.what, self.lockfile.as_deref(), artifact)?;
        let parts: Vec<sbom::Part> = artifact
            .blobs
            .iter()
            .enumerate()
            .map(|(index, blob)| sbom::Part {
                name: format!("blob {}", index + 1),
                descriptor: blob.descriptor(),
            })
            .collect();
        Ok(sbom::generate(&sbom::Target {
            name: self.name.as_str(),
            version: None,
            kind: artifact.kind,
            digest: artifact.digest,
            parts: &parts,
            contents: &contents,
            created_at_ms: now_ms,
        }))
    }
}

/// The manifest's spec with the options laid over it.
fn spec(mut spec: FunctionSpec, args: SpecArgs) -> Outcome<FunctionSpec> {
    for text in &args.env {
        let (name, value) =
            text.split_once('=').ok_or_else(|| Failure::usage(format!("{text:?} is not NAME=VALUE")))?;
        spec.env.insert(name.to_owned(), value.to_owned());
    }
    spec.routes.extend(args.route);
    spec.outbound_hosts.extend(args.allow_host);
    spec.memory_bytes = args.memory_mib.map_or(spec.memory_bytes, |mib| mib.saturating_mul(1 << 20));
    spec.timeout_ms = args.timeout_ms.unwrap_or(spec.timeout_ms);
    spec.cpu_ms = args.cpu_ms.or(spec.cpu_ms);
    spec.concurrency = args.concurrency.unwrap_or(spec.concurrency);
    spec.min_instances = args.min_instances.unwrap_or(spec.min_instances);
    spec.max_instances = args.max_instances.unwrap_or(spec.max_instances);
    spec.idle_timeout_ms = args.idle_timeout_ms.unwrap_or(spec.idle_timeout_ms);
    spec.startup_timeout_ms = args.startup_timeout_ms.unwrap_or(spec.startup_timeout_ms);
    spec.check().map_err(|error| Failure::usage("the function's spec is not valid").because(&error))?;
    Ok(spec)
}
