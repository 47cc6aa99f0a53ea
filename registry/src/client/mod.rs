//! The client half: pushes to and pulls from any registry that speaks the OCI distribution API.
//!
//! Source: OCI distribution-spec 1.1. Whatever a registry answers is checked: lengths, digests, where it points to.
//! Credentials go to the registry itself and to nobody else. Foreign layers (`urls`) are never fetched.

mod auth;
mod credentials;
mod host;
mod http;
mod pull;
mod push;
mod referrers;

pub use credentials::{CredentialSource, Credentials};
pub use pull::RemoteManifest;

use crate::{durable::DiskError, manifest::ManifestError, package::PackageError, store::blocking};
use ::http::HeaderValue;
use host::Host;
use neap_sdk::{Digest, artifact::Repository, limits};
use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// How to speak to a registry.
#[derive(Debug, Clone, Default)]
pub struct ClientSettings {
    /// Who the client is.
    pub credentials: CredentialSource,
    /// Hosts besides the registry's own that may turn the user's password into a token.
    pub trusted_realms: Vec<String>,
}

/// A client for one registry. Cheap to clone; clones share connections and tokens.
#[derive(Clone)]
pub struct RegistryClient {
    http: reqwest::Client,
    host: Host,
    credentials: CredentialSource,
    trusted_realms: Vec<String>,
    /// `Authorization` by scope.
    tokens: Arc<Mutex<HashMap<String, HeaderValue>>>,
}

impl fmt::Debug for RegistryClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistryClient").field("host", &self.host).finish_non_exhaustive()
    }
}

/// What happens to one blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transfer {
    /// Which blob.
    pub digest: Digest,
    /// Bytes that are done. It can go back when a broken upload is resumed.
    pub done_bytes: u64,
    /// Its length. A blob that is on the other side already is done at once.
    pub total_bytes: u64,
}

/// Told about transfers while they go on, from several at once. Must not block.
pub type Progress = Arc<dyn Fn(Transfer) + Send + Sync>;

/// Nobody wants to know.
pub fn no_progress() -> Progress {
    Arc::new(|_| {})
}

/// The progress of one blob.
#[derive(Clone)]
struct TransferProgress {
    report: Progress,
    digest: Digest,
    total_bytes: u64,
}

impl TransferProgress {
    fn at(&self, done_bytes: u64) {
        (self.report)(Transfer { digest: self.digest, done_bytes, total_bytes: self.total_bytes });
    }
}

impl fmt::Debug for TransferProgress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.digest, f)
    }
}

/// Why a registry could not be used.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The name of the registry is malformed.
    #[error("{0:?} is not a registry; write host[:port], such as ghcr.io or localhost:8080")]
    Host(String),
    /// Plain HTTP to another machine, asked for or pointed to.
    #[error("{0} would be reached over plain HTTP; only a registry on this machine may be, use https")]
    Insecure(String),
    /// TLS could not be set up.
    #[error("the HTTP client cannot be set up; are the system's root certificates installed?")]
    Setup(#[source] reqwest::Error),
    /// No connection, or it broke.
    #[error("registry {host} cannot be reached")]
    Connect {
        /// Which registry.
        host: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// Nothing came for too long.
    #[error("registry {0} stopped answering; try again")]
    Stalled(String),
    /// No credentials, or wrong ones.
    #[error("registry {0} wants other credentials; log in with `docker login {0}`")]
    Unauthorized(String),
    /// The registry sends passwords somewhere else.
    #[error(
        "registry {registry} asks to send the password to {realm:?}, which is neither the registry nor trusted"
    )]
    Realm {
        /// Which registry.
        registry: String,
        /// Where to.
        realm: String,
    },
    /// The credentials could not be read.
    #[error("credentials cannot be read from {what}: {reason}")]
    Credentials {
        /// The file or program.
        what: String,
        /// What is wrong.
        reason: String,
    },
    /// It is not there.
    #[error("{0} is not in the registry")]
    NotFound(String),
    /// The registry said no.
    #[error("{what} was refused with status {status}: {detail}")]
    Refused {
        /// What was asked for.
        what: String,
        /// The HTTP status.
        status: u16,
        /// What the registry said.
        detail: String,
    },
    /// The bytes are not the ones that were named.
    #[error("{what} is not what its digest says: expected {expected}, got {got}")]
    Digest {
        /// What was fetched.
        what: String,
        /// What was named.
        expected: String,
        /// What came.
        got: String,
    },
    /// The registry does not keep to the protocol.
    #[error("the registry does not keep to the protocol: {0}")]
    Protocol(String),
    /// The manifest is unusable.
    #[error("the manifest cannot be used")]
    Manifest(#[from] ManifestError),
    /// What was pulled is unusable.
    #[error("the artifact cannot be used")]
    Package(#[from] PackageError),
    /// A file of this machine failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

impl RegistryClient {
    /// A client for `registry`: `host[:port]`, or a URL. Loopback is spoken to in plain HTTP, everything else
    /// encrypted. Nothing is sent yet.
    pub fn new(registry: &str, settings: ClientSettings) -> Result<Self, ClientError> {
        let host = Host::parse(registry)?;
        let mut http = reqwest::Client::builder()
            .user_agent(concat!("neap/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(Duration::from_millis(limits::REGISTRY_CONNECT_TIMEOUT_MS))
            .redirect(reqwest::redirect::Policy::none());
        if host.is_plain() {
            // Nothing is encrypted, so a machine without root certificates will do.
            http = http.tls_certs_only([]).no_proxy();
        }
        let http = http.build().map_err(ClientError::Setup)?;
        let ClientSettings { credentials, trusted_realms } = settings;
        Ok(Self { http, host, credentials, trusted_realms, tokens: Arc::default() })
    }

    fn tokens(&self) -> MutexGuard<'_, HashMap<String, HeaderValue>> {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn authorization(&self, scope: &str) -> Option<HeaderValue> {
        self.tokens().get(scope).cloned()
    }

    fn remember(&self, scope: &str, authorization: HeaderValue) {
        const SCOPES_MAX: usize = 64;
        let mut tokens = self.tokens();
        if tokens.len() >= SCOPES_MAX {
            tokens.clear();
        }
        tokens.insert(scope.to_owned(), authorization);
    }

    /// The path of something in a repository.
    fn path(&self, repository: &Repository, rest: &str) -> String {
        format!("/v2/{}/{rest}", self.host.repository(repository.as_str()))
    }

    /// What a token must allow: `pull`, or `pull,push`.
    fn scope(&self, repository: &Repository, actions: &str) -> String {
        format!("repository:{}:{actions}", self.host.repository(repository.as_str()))
    }
}

/// A folder for files that are on their way.
async fn scratch() -> Result<tempfile::TempDir, ClientError> {
    let made = blocking(tempfile::tempdir).await;
    Ok(made.map_err(crate::durable::failed("make a folder in", &std::env::temp_dir()))?)
}
