//! Collects what each candidate proves. Every candidate is judged whole before anything is combined, so that
//! no two of them can each meet half a demand. Pure.

use super::{
    Subject,
    attestation::{Claim, read_simple, read_statement},
    discover::Candidate,
    sbom,
    signature::{SignatureError, Verified, verify_bundle, verify_envelope, verify_simple},
};
use crate::keys::TrustedKey;
use neap_sdk::{
    Digest, TenantName,
    admission::{SbomEvidence, Signer},
    artifact::{ArtifactKind, Repository},
};

/// What was proven, and what was not.
#[derive(Debug, Default)]
pub struct Findings {
    /// Trusted keys that signed the digest or an index that contains it; each once.
    pub signers: Vec<Signer>,
    /// Usable SBOMs of exactly the digest.
    pub sboms: Vec<SbomEvidence>,
    /// What trusted keys signed that is attached here but is about something else.
    pub signed_other: Vec<Digest>,
    /// The same for SBOMs.
    pub sbom_other: Vec<Digest>,
    /// SBOMs of the digest by trusted keys that cannot be used, and why.
    pub unusable_sboms: Vec<String>,
    /// Signatures that no trusted key made, and why.
    pub untrusted: Vec<String>,
    /// What cannot be read, and why.
    pub broken: Vec<String>,
    /// Whether there was more than is examined.
    pub cut: bool,
}

/// Words for the texts of refusals.
#[derive(Debug, Clone, Copy)]
pub struct Scope<'a> {
    /// Who owns the artifact.
    pub tenant: &'a TenantName,
    /// Where it lies.
    pub repository: &'a Repository,
    /// What it is.
    pub kind: ArtifactKind,
    /// Its digest.
    pub digest: Digest,
    /// Keys that would count.
    pub keys: &'a [TrustedKey],
}

/// Keys that a refusal names; the others are counted.
const KEYS_NAMED_MAX: usize = 5;

impl Scope<'_> {
    /// What to do about a missing signature.
    pub fn remedy(&self) -> String {
        let named = |key: &TrustedKey| format!("{} ({:.12}…)", key.name, key.key.id());
        let mut names: Vec<String> = self.keys.iter().take(KEYS_NAMED_MAX).map(named).collect();
        if let more @ 1.. = self.keys.len().saturating_sub(KEYS_NAMED_MAX) {
            names.push(format!("{more} more"));
        }
        let trusted = match names.as_slice() {
            [] => format!("Tenant {} trusts no key yet: `neap key trust FILE` adds one", self.tenant),
            names => format!("Trusted keys of tenant {}: {}", self.tenant, names.join(", ")),
        };
        format!(
            "Sign it with `neap push`, or with `cosign sign --key KEY HOST/{}@{}`, by a trusted key. {trusted}",
            self.repository, self.digest
        )
    }
}

impl Findings {
    /// Judges one candidate that was found for `target`: the subject's digest or one of its ancestors.
    pub fn add(&mut self, candidate: &Candidate, target: Digest, subject: &Subject<'_>, keys: &[TrustedKey]) {
        type Read = fn(&[u8]) -> Result<Claim, String>;
        let (verified, read): (Result<Verified, SignatureError>, Read) = match candidate {
            Candidate::Bundle(bytes) => (verify_bundle(bytes, keys), read_statement),
            Candidate::Envelope(bytes) => (verify_envelope(bytes, keys), read_statement),
            Candidate::Simple { payload, signature } => {
                (verify_simple(payload, signature, keys), read_simple)
            }
            Candidate::Broken(why) => return self.broken.push(why.clone()),
        };
        let verified = match verified {
            Ok(verified) => verified,
            Err(error @ SignatureError::Malformed(_)) => return self.broken.push(error.to_string()),
            Err(error) => return self.untrusted.push(error.to_string()),
        };
        match read(&verified.payload) {
            Ok(claim) => self.add_claim(claim, verified.signer, target, subject),
            Err(why) => self.broken.push(why),
        }
    }

    fn add_claim(&mut self, claim: Claim, signer: Signer, target: Digest, subject: &Subject<'_>) {
        match claim {
            Claim::Signature { about } if about.contains(&target) => {
                if !self.signers.iter().any(|known| known.key_id == signer.key_id) {
                    self.signers.push(signer);
                }
            }
            Claim::Signature { about } => self.signed_other.extend(about.first()),
            // An SBOM of an index says nothing about which child it describes.
            Claim::Sbom { about, document } if target == subject.digest && about.contains(&target) => {
                match sbom::evidence(&document, signer) {
                    Ok(evidence) => self.sboms.push(evidence),
                    Err(why) => self.unusable_sboms.push(why),
                }
            }
            Claim::Sbom { about, .. } => self.sbom_other.extend(about.first()),
            Claim::Other(_) => {}
        }
    }

    /// The SBOM that the verdict shows: the one that lists most, and of equals the same one every time.
    pub fn best_sbom(&self) -> Option<&SbomEvidence> {
        self.sboms.iter().max_by_key(|sbom| (sbom.packages, sbom.digest))
    }
}
