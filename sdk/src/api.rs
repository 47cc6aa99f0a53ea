//! Bodies of the admin API (`/api/v1/…`), as the server writes and the client reads them.
//!
//! | call | body | answer |
//! |---|---|---|
//! | `POST /api/v1/functions/{name}/deploy` | [`DeployRequest`] | [`FunctionView`] once the revision is ready |
//! | `GET /api/v1/functions` | – | `Vec<FunctionView>` |
//! | `GET /api/v1/functions/{name}` | – | [`FunctionView`] |
//! | `DELETE /api/v1/functions/{name}` | – | 204 |
//! | `POST /api/v1/functions/{name}/rollback` | [`RollbackRequest`] | [`FunctionView`] |
//! | `PUT /api/v1/functions/{name}/traffic` | `Vec<TrafficShare>` | [`FunctionView`] |
//! | `GET /api/v1/functions/{name}/logs?follow&since_ms` | – | [`LogLine`] per line (NDJSON) |
//! | `GET /api/v1/usage?function&since_ms` | – | `Vec<FunctionUsage>` |
//! | `GET /api/v1/usage/records?function&since_ms` | – | [`crate::invocation::UsageRecord`] per line (NDJSON) |
//! | `POST /api/v1/verify` | [`VerifyRequest`] | [`crate::admission::Verdict`] |
//! | `GET /api/v1/keys`, `POST /api/v1/keys` | [`TrustKeyRequest`] | `Vec<KeyView>` / [`KeyView`] |
//! | `DELETE /api/v1/keys/{key_id}` | – | 204 |
//! | `GET /api/v1/server` | – | [`ServerView`] |
//!
//! Every call takes `?tenant=NAME` (default tenant without). Failures are problem documents.

use crate::{
    admission::Verdict,
    artifact::{ArtifactKind, Repository},
    digest::Digest,
    function::FunctionSpec,
    id::{FunctionName, TenantName},
    invocation::UsageSum,
};
use serde::{Deserialize, Serialize};

/// Asks for a function to run an artifact that is in the registry. The same digest and spec make no new revision.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeployRequest {
    /// Where the artifact lies.
    pub repository: Repository,
    /// Which one.
    pub digest: Digest,
    /// How to run it.
    #[serde(default)]
    pub spec: FunctionSpec,
}

/// Asks for all traffic to go to an older revision.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RollbackRequest {
    /// The revision; the one that had traffic before when left out.
    #[serde(default)]
    pub revision: Option<u32>,
}

/// A revision's share of a function's traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrafficShare {
    /// The revision.
    pub revision: u32,
    /// Its weight; shares are weight over the sum of weights.
    pub weight: u32,
}

/// A function as `neap get` shows it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FunctionView {
    /// Who owns it.
    pub tenant: TenantName,
    /// Its name.
    pub name: FunctionName,
    /// Where it answers.
    pub url: String,
    /// Shares of traffic.
    pub traffic: Vec<TrafficShare>,
    /// Revisions, newest first.
    pub revisions: Vec<RevisionView>,
}

/// One revision of a function.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RevisionView {
    /// Its number.
    pub number: u32,
    /// What it runs.
    pub digest: Digest,
    /// Of which kind.
    pub kind: ArtifactKind,
    /// How it is run.
    pub spec: FunctionSpec,
    /// Why it was admitted.
    pub verdict: Verdict,
    /// When it was made, in milliseconds since 1970.
    pub created_at_ms: u64,
    /// Its instances now.
    pub instances: Vec<InstanceView>,
    /// Requests that wait for an instance.
    pub queued: u64,
    /// Why the last start failed, with the last log lines; gone after a start that worked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

/// One instance.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct InstanceView {
    /// Its id on its node.
    pub id: String,
    /// `starting`, `ready`, `frozen`, `draining`.
    pub state: String,
    /// Invocations it handles now.
    pub in_flight: u32,
    /// When it was started, in milliseconds since 1970.
    pub started_at_ms: u64,
    /// How long its start took, in microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_us: Option<u64>,
    /// The main process of a container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
}

/// One line that a function wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// When it was read, in milliseconds since 1970.
    pub at_ms: u64,
    /// The revision that wrote it.
    pub revision: u32,
    /// The instance that wrote it.
    pub instance: String,
    /// `stdout` or `stderr`.
    pub stream: String,
    /// The line without its end; invalid UTF-8 is replaced.
    pub text: String,
}

/// What one function used.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FunctionUsage {
    /// Who pays.
    pub tenant: TenantName,
    /// The function.
    pub function: FunctionName,
    /// The sums.
    pub sum: UsageSum,
    /// The same memory as GB-seconds.
    pub gb_seconds: f64,
    /// The same CPU time in seconds.
    pub cpu_seconds: f64,
}

/// Asks for a verdict without deploying.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VerifyRequest {
    /// Repository.
    pub repository: Repository,
    /// Tag or digest.
    pub target: String,
}

/// Asks the server to trust a public key for a tenant.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrustKeyRequest {
    /// What to call it.
    pub name: String,
    /// The public key as PEM SubjectPublicKeyInfo (P-256 or Ed25519).
    pub pem: String,
}

/// A trusted key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyView {
    /// SHA-256 of the DER SubjectPublicKeyInfo, in hex.
    pub key_id: String,
    /// Its name.
    pub name: String,
    /// The public key as PEM.
    pub pem: String,
    /// When it was trusted, in milliseconds since 1970.
    pub trusted_at_ms: u64,
}

/// The server itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ServerView {
    /// Its version.
    pub version: String,
    /// Where the gateway listens, such as `127.0.0.1:8080`.
    pub listen: String,
    /// What this machine cannot do, and why (`containers: not root`); empty when it can do all.
    pub missing: Vec<String>,
}
