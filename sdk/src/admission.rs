//! The verdict on an artifact and the evidence it rests on. Written by the registry, shown by the CLI,
//! kept with every release. Holds no rule of its own.

use crate::{digest::Digest, error::ErrorCode};
use serde::{Deserialize, Serialize};

/// What admission found: admitted, or refused with at least one reason. Kept as it was decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// The manifest that was judged.
    pub digest: Digest,
    /// Whether it may run.
    pub admitted: bool,
    /// Why not; empty exactly when `admitted`.
    pub reasons: Vec<Reason>,
    /// What was looked at.
    pub evidence: Evidence,
    /// The policy that judged, by the digest of its text.
    pub policy: Digest,
    /// When, in milliseconds since 1970.
    pub decided_at_ms: u64,
}

/// One reason for a refusal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// Which kind.
    pub code: ErrorCode,
    /// What was found, and what to do about it.
    pub text: String,
}

/// What a verdict rests on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// Signatures by trusted keys over exactly this digest.
    pub signers: Vec<Signer>,
    /// The SBOM attestation that was accepted.
    pub sbom: Option<SbomEvidence>,
}

/// A trusted key that signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signer {
    /// SHA-256 of the key's DER SubjectPublicKeyInfo, which is also cosign's key hint.
    pub key_id: String,
    /// The name under which the key was trusted.
    pub name: String,
}

/// The SBOM that a trusted key attested for this digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SbomEvidence {
    /// SHA-256 of the SBOM document (the predicate).
    pub digest: Digest,
    /// `CycloneDX 1.6`, `SPDX-2.3`, …
    pub format: String,
    /// Packages that it lists.
    pub packages: usize,
    /// Who attested it.
    pub signer: Signer,
}
