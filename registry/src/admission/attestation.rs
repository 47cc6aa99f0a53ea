//! Reads what a verified payload says: which digest it is about, and whether it is a signature or an SBOM.
//!
//! Pure, and only ever given bytes that a trusted key signed. One kind never counts as the other: a signature
//! is a statement of cosign's own predicate type, an SBOM is one of CycloneDX's or SPDX's.
//! Sources: in-toto attestation `spec/v1`, cosign `SIGNATURE_SPEC.md`.

use super::strict::{self, Twins};
use neap_sdk::{
    Digest,
    limits::{STATEMENT_DIGESTS_MAX, STATEMENT_SUBJECTS_MAX},
};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::collections::BTreeMap;

/// The predicate type of a cosign signature.
pub const SIGNATURE_PREDICATE: &str = "https://sigstore.dev/cosign/sign/v1";
/// The predicate type of a CycloneDX SBOM.
pub const CYCLONEDX_PREDICATE: &str = "https://cyclonedx.org/bom";
/// The predicate type of an SPDX SBOM.
pub const SPDX_PREDICATE: &str = "https://spdx.dev/Document";
/// The statement's type; 0.1 is still what cosign writes for SBOMs.
const STATEMENT_TYPES: [&str; 2] = ["https://in-toto.io/Statement/v1", "https://in-toto.io/Statement/v0.1"];
const SIMPLE_SIGNING_TYPE: &str = "cosign container image signature";
const TEXT_MAX: usize = 120;

/// What a payload claims.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// The signer stands behind these digests.
    Signature {
        /// The digests.
        about: Vec<Digest>,
    },
    /// The signer says what is in them.
    Sbom {
        /// The digests.
        about: Vec<Digest>,
        /// The SBOM document, byte for byte as signed.
        document: String,
    },
    /// Another predicate, of no use here.
    Other(String),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Statement<'a> {
    #[serde(rename = "_type")]
    kind: String,
    subject: Vec<Subject>,
    predicate_type: String,
    #[serde(borrow)]
    predicate: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Subject {
    #[serde(default)]
    digest: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct SimpleSigning {
    critical: Critical,
}

#[derive(Deserialize)]
struct Critical {
    #[serde(rename = "type")]
    kind: String,
    image: SimpleImage,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct SimpleImage {
    docker_manifest_digest: Digest,
}

/// Reads an in-toto statement. The error is a text for people.
pub fn read_statement(payload: &[u8]) -> Result<Claim, String> {
    strict::check(payload, Twins::AnyCase).map_err(|error| error.to_string())?;
    let statement: Statement<'_> =
        serde_json::from_slice(payload).map_err(|error| format!("no in-toto statement: {error}"))?;
    if !STATEMENT_TYPES.contains(&statement.kind.as_str()) {
        return Err(format!("unknown statement type {:?}", cut(&statement.kind)));
    }
    let about = digests(&statement.subject)?;
    let kind = statement.predicate_type.as_str();
    if kind == SIGNATURE_PREDICATE {
        return Ok(Claim::Signature { about });
    }
    if !is_family(kind, CYCLONEDX_PREDICATE) && !is_family(kind, SPDX_PREDICATE) {
        return Ok(Claim::Other(cut(kind)));
    }
    let document = statement.predicate.map(|raw| raw.get().to_owned());
    Ok(Claim::Sbom { about, document: document.ok_or("the SBOM attestation has no predicate")? })
}

/// Reads a simple-signing payload.
pub fn read_simple(payload: &[u8]) -> Result<Claim, String> {
    let simple: SimpleSigning = strict::from_slice(payload, Twins::AnyCase)
        .map_err(|error| format!("no simple-signing payload: {error}"))?;
    if simple.critical.kind != SIMPLE_SIGNING_TYPE {
        return Err(format!("unknown payload type {:?}", cut(&simple.critical.kind)));
    }
    Ok(Claim::Signature { about: vec![simple.critical.image.docker_manifest_digest] })
}

/// `family` itself or a version of it: `family/v…`.
fn is_family(predicate_type: &str, family: &str) -> bool {
    let rest = predicate_type.strip_prefix(family);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with("/v"))
}

fn digests(subjects: &[Subject]) -> Result<Vec<Digest>, String> {
    if subjects.is_empty() || subjects.len() > STATEMENT_SUBJECTS_MAX {
        return Err(format!("{} subjects; 1 to {STATEMENT_SUBJECTS_MAX} are read", subjects.len()));
    }
    let mut found = Vec::new();
    for subject in subjects {
        if subject.digest.len() > STATEMENT_DIGESTS_MAX {
            return Err(format!("a subject has more than {STATEMENT_DIGESTS_MAX} digests"));
        }
        // Other algorithms may stand beside it; only sha256 is compared.
        if let Some(hex) = subject.digest.get("sha256") {
            found.push(format!("sha256:{hex}").parse().map_err(|error| format!("subject: {error}"))?);
        }
    }
    if found.is_empty() {
        return Err("no subject has a sha256 digest".to_owned());
    }
    Ok(found)
}

fn cut(text: &str) -> String {
    text.chars().take(TEXT_MAX).collect()
}
