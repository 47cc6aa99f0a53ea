//! Admission: decides whether an artifact may run, from signatures by trusted keys and an SBOM attestation.
//!
//! The caller resolves a tag once and verifies the bytes; [`judge`] reads evidence through a [`ContentStore`]
//! and never speaks HTTP. Whatever cannot be proven is a refusal with a reason. It must not publish, pin or
//! remember anything: it answers with a [`Verdict`] and keeps no state.

pub mod component;

mod attestation;
mod discover;
mod findings;
mod policy;
mod sbom;
mod signature;
mod strict;

#[cfg(test)]
pub(crate) mod tests;

pub(crate) use attestation::{CYCLONEDX_PREDICATE, SIGNATURE_PREDICATE, SPDX_PREDICATE};
pub use policy::{Policy, PolicyError};
pub(crate) use strict::{Twins, check as check_strict};

use crate::keys::TrustedKey;
use bytes::Bytes;
use discover::{Candidate, Seen};
use findings::{Findings, Scope};
use futures_util::future::BoxFuture;
use neap_sdk::{
    Digest, ErrorCode, TenantName,
    admission::{Evidence, Reason, Verdict},
    artifact::{ArtifactKind, Repository, TagOrDigest},
    limits::ADMISSION_TIMEOUT_MS,
};
use std::time::Duration;

/// What is judged: bytes that the caller already verified against their digests.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// Whose trusted keys count.
    pub tenant: &'a TenantName,
    /// Where the artifact and its referrers lie.
    pub repository: &'a Repository,
    /// The manifest that will run.
    pub digest: Digest,
    /// Indexes on the resolved path that provably contain it; a signature over one of them covers it too.
    pub ancestors: &'a [Digest],
    /// The bytes of the manifest.
    pub manifest: &'a [u8],
    /// What [`component::inspect`] found it to be.
    pub kind: ArtifactKind,
}

/// Why evidence could not be read. Absence is not an error: it is `None` or an empty list.
#[derive(Debug, thiserror::Error)]
#[error("{what} could not be read")]
pub struct ReadError {
    /// What was read, for people: `blob sha256:…`.
    pub what: String,
    /// Why.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// Where admission reads from: the local store, without HTTP. Each answer is either definite or an error.
pub trait ContentStore: Send + Sync {
    /// Digests of manifests in `repository` whose `subject` is `digest`; at most `REFERRERS_LISTED_MAX`.
    fn referrers<'a>(
        &'a self,
        repository: &'a Repository,
        digest: Digest,
    ) -> BoxFuture<'a, Result<Vec<Digest>, ReadError>>;

    /// The bytes of a manifest of `repository` (at most `MANIFEST_BYTES_MAX`), or `None` where there is none.
    fn manifest<'a>(
        &'a self,
        repository: &'a Repository,
        target: &'a TagOrDigest,
    ) -> BoxFuture<'a, Result<Option<Bytes>, ReadError>>;

    /// The bytes of a blob of `repository`, or `None` where there is none. More than `bytes_max` is an error.
    fn blob<'a>(
        &'a self,
        repository: &'a Repository,
        digest: Digest,
        bytes_max: u64,
    ) -> BoxFuture<'a, Result<Option<Bytes>, ReadError>>;
}

/// Judges `subject`: looks for evidence, verifies it with `keys` (those that count for its tenant), and decides by
/// `policy`. Never fails: what cannot be read or takes too long is a refusal with its own code. Dropping the
/// future stops it.
pub async fn judge(
    subject: &Subject<'_>,
    store: &dyn ContentStore,
    keys: &[TrustedKey],
    policy: &Policy,
    now_ms: u64,
) -> Verdict {
    let (reasons, evidence) = match look_in_time(subject, store, keys).await {
        Ok(findings) => {
            let Subject { tenant, repository, kind, digest, .. } = *subject;
            let scope = Scope { tenant, repository, kind, digest, keys };
            let sbom = findings.best_sbom().cloned();
            (policy.refusals(&findings, &scope), Evidence { signers: findings.signers, sbom })
        }
        Err(reason) => (vec![reason], Evidence::default()),
    };
    Verdict {
        digest: subject.digest,
        admitted: reasons.is_empty(),
        reasons,
        evidence,
        policy: policy.digest(),
        decided_at_ms: now_ms,
    }
}

async fn look_in_time(
    subject: &Subject<'_>,
    store: &dyn ContentStore,
    keys: &[TrustedKey],
) -> Result<Findings, Reason> {
    if Digest::of(subject.manifest) != subject.digest {
        let text = format!("the manifest's bytes are not those of {}; push it again", subject.digest);
        return Err(Reason { code: ErrorCode::Mismatch, text });
    }
    let limit = Duration::from_millis(ADMISSION_TIMEOUT_MS);
    match tokio::time::timeout(limit, look(subject, store, keys)).await {
        Ok(looked) => looked.map_err(|error| error.reason()),
        Err(_) => {
            let text = format!(
                "looking for signatures took longer than {limit:?}; check the server's disk, and how many \
                 attachments the artifact has, and try again"
            );
            Err(Reason { code: ErrorCode::EvidenceUnavailable, text })
        }
    }
}

async fn look(
    subject: &Subject<'_>,
    store: &dyn ContentStore,
    keys: &[TrustedKey],
) -> Result<Findings, ReadError> {
    let mut findings = Findings::default();
    for target in std::iter::once(subject.digest).chain(subject.ancestors.iter().copied()) {
        let mut judge_one = |candidate: Candidate| findings.add(&candidate, target, subject, keys);
        let seen = discover::discover(store, subject.repository, target, &mut judge_one).await?;
        findings.cut |= seen == Seen::Some;
    }
    Ok(findings)
}

impl ReadError {
    /// The refusal that it leads to.
    pub fn reason(&self) -> Reason {
        let text = format!(
            "{self}: {}; nothing was decided: check the server's data folder and disk, and try again",
            self.source
        );
        Reason { code: ErrorCode::EvidenceUnavailable, text }
    }
}
