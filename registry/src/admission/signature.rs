//! Verifies one candidate with trusted keys: is this exactly what a trusted key signed?
//!
//! Pure: bytes and keys in, a verified payload out. What the payload says is read elsewhere, and only after
//! this. Sources: sigstore protobuf-specs bundle v0.3, DSSE protocol v1 (PAE), cosign `SIGNATURE_SPEC.md`.

use super::strict::{self, Twins};
use crate::keys::TrustedKey;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use neap_sdk::{admission::Signer, artifact::media_type, limits::BUNDLE_LOG_ENTRIES_MAX};
use serde::{Deserialize, de::IgnoredAny};

/// Bytes that a trusted key signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// Whose key.
    pub signer: Signer,
    /// What was signed.
    pub payload: Vec<u8>,
}

/// Why a candidate proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// It cannot be read.
    #[error("malformed: {0}")]
    Malformed(String),
    /// It is of a kind that does not rest on a key.
    #[error("{0}")]
    Unsupported(&'static str),
    /// No trusted key made it.
    #[error("made by a key that is not trusted ({0})")]
    Untrusted(String),
    /// It names a trusted key, but the signature is not that key's over this payload.
    #[error("it names the trusted key {0:?}, but the signature is not over this content")]
    Forged(String),
}

/// Bundle versions that are read; older ones carry no key.
const BUNDLE_TYPES: [&str; 2] =
    [media_type::SIGSTORE_BUNDLE, "application/vnd.dev.sigstore.bundle+json;version=0.3"];
const TEXT_MAX: usize = 120;

/// Unknown fields are refused, as protobuf's own JSON reader does.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Bundle {
    media_type: String,
    verification_material: Material,
    dsse_envelope: Option<Envelope>,
    message_signature: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Material {
    public_key: Option<KeyHint>,
    certificate: Option<IgnoredAny>,
    x509_certificate_chain: Option<IgnoredAny>,
    #[serde(default)]
    tlog_entries: Vec<IgnoredAny>,
    timestamp_verification_data: Option<Timestamps>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyHint {
    #[serde(default)]
    hint: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Timestamps {
    #[serde(default)]
    rfc3161_timestamps: Vec<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Envelope {
    payload_type: String,
    payload: String,
    signatures: Vec<EnvelopeSignature>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EnvelopeSignature {
    sig: String,
    #[serde(default)]
    keyid: String,
}

fn malformed(error: impl ToString) -> SignatureError {
    SignatureError::Malformed(error.to_string().chars().take(TEXT_MAX).collect())
}

fn decode(what: &str, text: &str) -> Result<Vec<u8>, SignatureError> {
    STANDARD.decode(text).map_err(|error| malformed(format!("{what} is not base64: {error}")))
}

/// Verifies a sigstore bundle that holds a DSSE envelope signed with a key.
pub fn verify_bundle(bytes: &[u8], keys: &[TrustedKey]) -> Result<Verified, SignatureError> {
    let bundle: Bundle = strict::from_slice(bytes, Twins::AnyCase).map_err(malformed)?;
    if !BUNDLE_TYPES.contains(&bundle.media_type.as_str()) {
        return Err(malformed(format!("bundle version {:?}; only 0.3 is read", bundle.media_type)));
    }
    let material = bundle.verification_material;
    let timestamps = material.timestamp_verification_data.map_or(0, |data| data.rfc3161_timestamps.len());
    if material.tlog_entries.len() > BUNDLE_LOG_ENTRIES_MAX || timestamps > BUNDLE_LOG_ENTRIES_MAX {
        return Err(malformed("more log entries or timestamps than are read (32)"));
    }
    let certificate = material.certificate.is_some() || material.x509_certificate_chain.is_some();
    let key = match (material.public_key, certificate) {
        (Some(key), false) => key,
        (None, true) => {
            return Err(SignatureError::Unsupported(
                "signed with a certificate (keyless); only signatures by a key count",
            ));
        }
        _ => return Err(malformed("the bundle must name one key or one certificate")),
    };
    match (bundle.dsse_envelope, bundle.message_signature) {
        (Some(envelope), None) => envelope_payload(envelope, &key.hint, keys),
        (None, Some(_)) => Err(SignatureError::Unsupported("a bundle over bare bytes, without a statement")),
        _ => Err(malformed("the bundle must hold one envelope or one message signature")),
    }
}

/// Verifies a bare DSSE envelope.
pub fn verify_envelope(bytes: &[u8], keys: &[TrustedKey]) -> Result<Verified, SignatureError> {
    let envelope: Envelope = strict::from_slice(bytes, Twins::AnyCase).map_err(malformed)?;
    envelope_payload(envelope, "", keys)
}

fn envelope_payload(envelope: Envelope, hint: &str, keys: &[TrustedKey]) -> Result<Verified, SignatureError> {
    if envelope.payload_type != media_type::IN_TOTO {
        return Err(malformed(format!(
            "payload type {:?} is not an in-toto statement",
            envelope.payload_type
        )));
    }
    let [signature] = envelope.signatures.as_slice() else {
        return Err(malformed(format!("{} signatures; exactly one is read", envelope.signatures.len())));
    };
    if !signature.keyid.is_empty() && !hint.is_empty() && signature.keyid != hint {
        return Err(malformed("the envelope and the bundle name different keys"));
    }
    let hint = if hint.is_empty() { &signature.keyid } else { hint };
    let payload = decode("the payload", &envelope.payload)?;
    let message = sigstore_types::pae(&envelope.payload_type, &payload);
    let signer = signer(hint, &message, &decode("the signature", &signature.sig)?, keys)?;
    Ok(Verified { signer, payload })
}

/// Verifies cosign's older form: a signature over the payload itself.
pub fn verify_simple(
    payload: &[u8],
    signature: &str,
    keys: &[TrustedKey],
) -> Result<Verified, SignatureError> {
    let signature: String = signature.split_ascii_whitespace().collect();
    let signer = signer("", payload, &decode("the signature", &signature)?, keys)?;
    Ok(Verified { signer, payload: payload.to_vec() })
}

/// Finds the trusted key that made a signature. A hint narrows the search and can only make it fail: the key
/// that it names must be the one that verifies.
fn signer(
    hint: &str,
    message: &[u8],
    signature: &[u8],
    keys: &[TrustedKey],
) -> Result<Signer, SignatureError> {
    let named = |key: &&TrustedKey| hint.is_empty() || hint == key.key.hint() || hint == key.key.id();
    let mut candidates = keys.iter().filter(named).peekable();
    let first_named = candidates.peek().map(|key| key.name.clone());
    if let Some(key) = candidates.find(|key| key.key.verifies(message, signature)) {
        return Ok(Signer { key_id: key.key.id().to_owned(), name: key.name.clone() });
    }
    Err(match (hint.is_empty(), first_named) {
        (false, Some(name)) => SignatureError::Forged(name),
        (false, None) => {
            SignatureError::Untrusted(format!("key {}", hint.chars().take(TEXT_MAX).collect::<String>()))
        }
        (true, _) => SignatureError::Untrusted("it does not say which".to_owned()),
    })
}
