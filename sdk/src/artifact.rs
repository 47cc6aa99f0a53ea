//! Artifacts: what can be pushed, how it is named, and the media types that tell the kinds apart.
//!
//! Sources: OCI image-spec 1.1, OCI distribution-spec 1.1 (`spec.md#pulling-manifests` for the name grammar),
//! CNCF TAG Runtime "Wasm OCI Artifact" layout.

use crate::{digest::Digest, id::TenantName};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// Media types that neap reads or writes.
pub mod media_type {
    /// An OCI image manifest.
    pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    /// An OCI image index.
    pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
    /// Docker's name for a manifest.
    pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    /// Docker's name for an index.
    pub const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    /// The configuration of a container image.
    pub const IMAGE_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    /// Docker's name for it.
    pub const DOCKER_IMAGE_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
    /// The configuration of a Wasm artifact in the CNCF layout.
    pub const WASM_CONFIG: &str = "application/vnd.wasm.config.v0+json";
    /// The single layer of a Wasm artifact.
    pub const WASM_LAYER: &str = "application/wasm";
    /// The empty JSON object, as configuration of artifacts without one.
    pub const EMPTY: &str = "application/vnd.oci.empty.v1+json";
    /// A sigstore bundle, version 0.3.
    pub const SIGSTORE_BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
    /// An in-toto statement in a DSSE envelope.
    pub const IN_TOTO: &str = "application/vnd.in-toto+json";
    /// A tar layer, uncompressed, gzip, zstd.
    pub const LAYER_TAR: &str = "application/vnd.oci.image.layer.v1.tar";
    /// The gzip form.
    pub const LAYER_TAR_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
    /// The zstd form.
    pub const LAYER_TAR_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
    /// Docker's gzip form.
    pub const DOCKER_LAYER_TAR_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
}

/// What an admitted artifact is, decided from its verified manifest and bytes, never from a client's claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ArtifactKind {
    /// A component that exports a `wasi:http` handler.
    WasmComponent,
    /// A preview 1 core module, run in CGI style.
    WasmModule,
    /// A Linux container image.
    Image,
}

impl fmt::Display for ArtifactKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::WasmComponent => "wasm-component",
            Self::WasmModule => "wasm-module",
            Self::Image => "image",
        })
    }
}

/// The name of a repository: `tenant/app`, or `app` which belongs to the default tenant.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Repository(Box<str>);

/// Why a text is not a reference, a repository or a tag.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseReferenceError {
    /// The repository's name is malformed.
    #[error(
        "repository name {0:?} must be lower-case path parts of a-z, 0-9, '.', '_' and '-' joined by '/'"
    )]
    Repository(String),
    /// The tag is malformed.
    #[error("tag {0:?} must be up to 128 of A-Z, a-z, 0-9, '_', '.' and '-', not starting with '.' or '-'")]
    Tag(String),
    /// The digest is malformed.
    #[error(transparent)]
    Digest(#[from] crate::digest::ParseDigestError),
}

const REPOSITORY_BYTES_MAX: usize = 255;

impl Repository {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The tenant that owns the repository: the first of several parts, else the default tenant.
    /// `None` where the first part is no tenant name; such a repository belongs to nobody.
    pub fn tenant(&self) -> Option<TenantName> {
        match self.0.split_once('/') {
            Some((tenant, _)) => tenant.parse().ok(),
            None => Some(TenantName::default()),
        }
    }
}

/// One path part: runs of `[a-z0-9]` separated by `.`, `_`, `__` or any number of `-`.
fn is_path_part(part: &str) -> bool {
    let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = part.as_bytes();
    let edges =
        bytes.first().is_some_and(|b| alphanumeric(*b)) && bytes.last().is_some_and(|b| alphanumeric(*b));
    let mut separators = bytes.split(|byte| alphanumeric(*byte)).filter(|run| !run.is_empty());
    edges
        && separators.all(|run| run == b"." || run == b"_" || run == b"__" || run.iter().all(|b| *b == b'-'))
}

impl FromStr for Repository {
    type Err = ParseReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() <= REPOSITORY_BYTES_MAX && text.split('/').all(is_path_part) {
            return Ok(Self(text.into()));
        }
        Err(ParseReferenceError::Repository(text.chars().take(80).collect()))
    }
}

impl TryFrom<String> for Repository {
    type Error = ParseReferenceError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Repository> for String {
    fn from(repository: Repository) -> Self {
        repository.0.into()
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A mutable name inside a repository.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Tag(Box<str>);

impl Tag {
    /// The tag as text; a safe file name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Tag {
    type Err = ParseReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
        let bytes = text.as_bytes();
        let inner = |byte: &u8| word(byte) || matches!(byte, b'.' | b'-');
        if (1..=128).contains(&bytes.len()) && word(&bytes[0]) && bytes.iter().all(inner) {
            return Ok(Self(text.into()));
        }
        Err(ParseReferenceError::Tag(text.chars().take(80).collect()))
    }
}

impl TryFrom<String> for Tag {
    type Error = ParseReferenceError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Tag> for String {
    fn from(tag: Tag) -> Self {
        tag.0.into()
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a manifest is asked for by.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum TagOrDigest {
    /// A mutable name.
    Tag(Tag),
    /// The content itself.
    Digest(Digest),
}

impl FromStr for TagOrDigest {
    type Err = ParseReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // A tag holds no ':', so nothing is a tag and a digest at once.
        if text.contains(':') { Ok(Self::Digest(text.parse()?)) } else { Ok(Self::Tag(text.parse()?)) }
    }
}

impl fmt::Display for TagOrDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => tag.fmt(f),
            Self::Digest(digest) => fmt::Display::fmt(digest, f),
        }
    }
}

/// `[host[:port]/]repository[:tag][@digest]`. A first part with a '.', a ':' or the name `localhost` is a host.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reference {
    /// Where the repository lives; `None` means the neap server that is asked.
    pub host: Option<String>,
    /// The repository.
    pub repository: Repository,
    /// Tag or digest; a digest wins over a tag, and neither means `latest`.
    pub target: TagOrDigest,
}

impl FromStr for Reference {
    type Err = ParseReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(digest.parse::<Digest>()?)),
            None => (text, None),
        };
        let (host, path) = match name.split_once('/') {
            Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => (Some(first), rest),
            _ => (None, name),
        };
        let (repository, tag) = match path.rsplit_once(':') {
            Some((repository, tag)) => (repository, Some(tag.parse::<Tag>()?)),
            None => (path, None),
        };
        let target = match (digest, tag) {
            (Some(digest), _) => TagOrDigest::Digest(digest),
            (None, Some(tag)) => TagOrDigest::Tag(tag),
            (None, None) => TagOrDigest::Tag("latest".parse()?),
        };
        Ok(Self { host: host.map(str::to_owned), repository: repository.parse()?, target })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(host) = &self.host {
            write!(f, "{host}/")?;
        }
        match &self.target {
            TagOrDigest::Tag(tag) => write!(f, "{}:{tag}", self.repository),
            TagOrDigest::Digest(digest) => write!(f, "{}@{digest}", self.repository),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_parse_as_docker_users_expect() {
        let digest = Digest::of(b"x");
        for (text, host, repository, target) in [
            ("hello", None, "hello", "latest".to_owned()),
            ("team/app:v1", None, "team/app", "v1".to_owned()),
            ("localhost:8080/team/app:v1", Some("localhost:8080"), "team/app", "v1".to_owned()),
            ("ghcr.io/a/b/c", Some("ghcr.io"), "a/b/c", "latest".to_owned()),
            (&format!("app:v1@{digest}"), None, "app", digest.to_string()),
        ] {
            let reference: Reference = text.parse().expect(text);
            assert_eq!(reference.host.as_deref(), host, "{text}");
            assert_eq!(reference.repository.as_str(), repository, "{text}");
            assert_eq!(reference.target.to_string(), target, "{text}");
        }
    }

    #[test]
    fn repositories_cannot_climb() {
        for bad in ["", "/", "a//b", "../a", "a/..", "A", "a/.b", "a_", "a...b", "a___b", &"a".repeat(256)] {
            assert!(bad.parse::<Repository>().is_err(), "{bad:?} must be refused");
        }
        for good in ["a", "a/b", "a.b/c_d/e__f/g---h"] {
            assert!(good.parse::<Repository>().is_ok(), "{good:?} must be accepted");
        }
    }

    #[test]
    fn tenants_own_repositories() {
        let tenant = |text: &str| text.parse::<Repository>().ok()?.tenant().map(String::from);
        assert_eq!(tenant("app"), Some("default".into()));
        assert_eq!(tenant("team/app"), Some("team".into()));
        assert_eq!(tenant("te.am/app"), None);
    }
}
