//! The policy: data that says what an artifact must show, and the pure decision over what was found.
//!
//! Anything left out of a policy is strict, unknown fields are refused, and no policy can admit everything.

use super::findings::{Findings, Scope};
use neap_sdk::{Digest, ErrorCode, admission::Reason};
use serde::{Deserialize, Serialize};

/// What an artifact must show to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// A signature over its digest by a trusted key.
    pub require_signature: bool,
    /// By how many different trusted keys.
    pub threshold: u32,
    /// An SBOM of its digest, not empty, attested by a trusted key.
    pub require_sbom: bool,
}

impl Default for Policy {
    /// A signature by one trusted key, and an SBOM.
    fn default() -> Self {
        Self { require_signature: true, threshold: 1, require_sbom: true }
    }
}

/// Why a text is not a policy.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// Not TOML, an unknown field, or a value of the wrong type.
    #[error("the policy is not valid TOML of this form: {0}")]
    Form(#[from] toml::de::Error),
    /// Nobody would have to sign.
    #[error(
        "`threshold` is 0: it would let unsigned artifacts pass; say how many keys must sign, at least 1"
    )]
    ThresholdZero,
    /// Nothing would be asked for.
    #[error("`require_signature` and `require_sbom` are both false: everything would be admitted; set one")]
    AllowsEverything,
}

impl Policy {
    /// Reads a policy from TOML; what is left out is as in the default.
    pub fn from_toml(text: &str) -> Result<Self, PolicyError> {
        let policy: Self = toml::from_str(text)?;
        policy.check()?;
        Ok(policy)
    }

    /// The policy as text, the same for the same policy.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("two flags and a number always serialise")
    }

    /// The digest of its text, kept with every verdict.
    pub fn digest(&self) -> Digest {
        Digest::of(self.to_toml().as_bytes())
    }

    /// Whether it asks for anything at all.
    pub fn check(&self) -> Result<(), PolicyError> {
        match (self.require_signature, self.require_sbom, self.threshold) {
            (false, false, _) => Err(PolicyError::AllowsEverything),
            (_, _, 0) => Err(PolicyError::ThresholdZero),
            _ => Ok(()),
        }
    }

    /// The reasons not to admit; none means that it may run. A policy that asks for nothing refuses.
    pub fn refusals(&self, findings: &Findings, scope: &Scope<'_>) -> Vec<Reason> {
        if let Err(error) = self.check() {
            return vec![Reason { code: ErrorCode::Policy, text: error.to_string() }];
        }
        let signature = self.require_signature.then(|| self.signature_refusal(findings, scope)).flatten();
        let sbom = self.require_sbom.then(|| sbom_refusal(findings, scope)).flatten();
        signature.into_iter().chain(sbom).collect()
    }

    fn signature_refusal(&self, findings: &Findings, scope: &Scope<'_>) -> Option<Reason> {
        let have = findings.signers.len();
        if have >= self.threshold as usize {
            return None;
        }
        let remedy = scope.remedy();
        if have > 0 {
            let text = format!(
                "signed by {have} trusted keys, but the policy asks for {}. {remedy}",
                self.threshold
            );
            return Some(Reason { code: ErrorCode::Policy, text });
        }
        let (code, what) = if let Some(about) = findings.signed_other.first() {
            (
                ErrorCode::Mismatch,
                format!("the signature found here is for {about}, not for this {}", scope.kind),
            )
        } else if let Some(problem) = findings.untrusted.first() {
            (ErrorCode::Untrusted, format!("signed, but not by a key that counts: {problem}"))
        } else if let Some(problem) = findings.broken.first() {
            (ErrorCode::Unsigned, format!("no signature that can be read: {problem}"))
        } else {
            (ErrorCode::Unsigned, format!("this {} has no signature", scope.kind))
        };
        Some(Reason { code, text: format!("{what}{}. {remedy}", cut_note(findings)) })
    }
}

fn sbom_refusal(findings: &Findings, scope: &Scope<'_>) -> Option<Reason> {
    if !findings.sboms.is_empty() {
        return None;
    }
    let remedy = "Push it with `neap push` (which makes an SBOM), or attest one with \
                  `cosign attest --key … --type cyclonedx --predicate sbom.json`";
    let (code, what) = if let Some(problem) = findings.unusable_sboms.first() {
        (ErrorCode::Policy, format!("the attested SBOM is not usable: {problem}"))
    } else if let Some(about) = findings.sbom_other.first() {
        (ErrorCode::Mismatch, format!("the SBOM attested here is for {about}, not for this {}", scope.kind))
    } else {
        (ErrorCode::Policy, format!("no trusted key attested an SBOM for this {}", scope.kind))
    };
    Some(Reason { code, text: format!("{what}{}. {remedy}", cut_note(findings)) })
}

fn cut_note(findings: &Findings) -> &'static str {
    if findings.cut { " (it has more attachments than are examined)" } else { "" }
}
