//! Signs: what `neap push` attaches to an artifact so that admission, and stock cosign, accept it.
//!
//! A signature is a sigstore bundle v0.3 with a DSSE envelope over an in-toto statement, an SBOM attestation the
//! same with the SBOM as predicate; each goes into a referrer manifest as cosign 3 writes it. Nothing is sent
//! from here: the caller gets bytes ready to be pushed. No transparency log is asked.
//! Sources: sigstore protobuf-specs (bundle v0.3), DSSE v1, in-toto attestation v1, OCI image-spec 1.1.

mod key;

#[cfg(test)]
mod tests;

pub use key::{KeyFileError, SigningKey};

use crate::{
    admission::{CYCLONEDX_PREDICATE, SIGNATURE_PREDICATE, SPDX_PREDICATE},
    manifest::Descriptor,
    sbom::{Family, Inventory, InventoryError},
};
use neap_sdk::{Digest, artifact::media_type, limits::BUNDLE_BYTES_MAX};
use serde::Serialize;
use serde_json::{json, value::RawValue};
use sigstore_types::{
    Bundle, DsseEnvelope, DsseSignature, KeyId, PayloadBytes, SignatureBytes, SignatureContent,
    bundle::{MediaType, PublicKeyIdentifier, VerificationMaterial, VerificationMaterialContent},
};
use std::collections::BTreeMap;

/// A signature or attestation, ready to be pushed: first the blobs, then the manifest by its digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// The referrer manifest; its media type is [`media_type::MANIFEST`].
    pub manifest: Vec<u8>,
    /// The blobs that it names: the empty configuration and the bundle.
    pub blobs: [Vec<u8>; 2],
}

impl Attachment {
    /// The digest to push the manifest by.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.manifest)
    }
}

/// Why nothing was signed.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// The cryptographic library failed.
    #[error("the signing key cannot sign")]
    Crypto(#[source] sigstore_crypto::Error),
    /// The SBOM is not one that admission would accept.
    #[error("the SBOM cannot be attested")]
    Sbom(#[from] InventoryError),
    /// The SBOM lists nothing, which admission refuses.
    #[error("the SBOM lists no component; admission would refuse it")]
    SbomEmpty,
    /// The result would be larger than admission reads.
    #[error(
        "the SBOM is too large: its attestation has {0} bytes, and admission reads at most {BUNDLE_BYTES_MAX}"
    )]
    TooLarge(usize),
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Statement<'a> {
    #[serde(rename = "_type")]
    kind: &'static str,
    subject: [Subject; 1],
    predicate_type: &'static str,
    predicate: &'a RawValue,
}

#[derive(Serialize)]
struct Subject {
    digest: BTreeMap<&'static str, String>,
}

/// Signs the manifest that `target` describes.
pub fn sign(key: &SigningKey, target: &Descriptor, now_ms: u64) -> Result<Attachment, SignError> {
    let empty = RawValue::from_string("{}".to_owned()).expect("{} is JSON");
    attach(key, target, SIGNATURE_PREDICATE, &empty, now_ms)
}

/// Attests that `sbom` (CycloneDX or SPDX JSON) says what is in the manifest that `target` describes. The
/// document goes in byte for byte, without white space around it.
pub fn attest_sbom(
    key: &SigningKey,
    target: &Descriptor,
    sbom: &[u8],
    now_ms: u64,
) -> Result<Attachment, SignError> {
    let inventory = Inventory::read(sbom)?;
    if inventory.components.is_empty() {
        return Err(SignError::SbomEmpty);
    }
    let predicate_type = match inventory.family {
        Family::CycloneDx => CYCLONEDX_PREDICATE,
        Family::Spdx => SPDX_PREDICATE,
    };
    let document: Box<RawValue> =
        serde_json::from_slice(sbom).map_err(|error| InventoryError::Json(error.to_string()))?;
    attach(key, target, predicate_type, &document, now_ms)
}

fn attach(
    key: &SigningKey,
    target: &Descriptor,
    predicate_type: &'static str,
    predicate: &RawValue,
    now_ms: u64,
) -> Result<Attachment, SignError> {
    let subject = Subject { digest: BTreeMap::from([("sha256", target.digest.hex())]) };
    let statement =
        Statement { kind: "https://in-toto.io/Statement/v1", subject: [subject], predicate_type, predicate };
    let payload = serde_json::to_vec(&statement).expect("strings and checked JSON always serialise");
    let bundle = bundle(key, payload)?;
    if bundle.len() as u64 > BUNDLE_BYTES_MAX {
        return Err(SignError::TooLarge(bundle.len()));
    }
    let config = b"{}".to_vec();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": media_type::MANIFEST,
        "artifactType": media_type::SIGSTORE_BUNDLE,
        "config": Descriptor::of(media_type::EMPTY, &config),
        "layers": [Descriptor::of(media_type::SIGSTORE_BUNDLE, &bundle)],
        "subject": Descriptor::new(&target.media_type, target.digest, target.size),
        "annotations": {
            "dev.sigstore.bundle.content": "dsse-envelope",
            "dev.sigstore.bundle.predicateType": predicate_type,
            "org.opencontainers.image.created": crate::sbom::rfc3339(now_ms / 1_000),
        },
    });
    let manifest = serde_json::to_vec(&manifest).expect("a JSON value always serialises");
    Ok(Attachment { manifest, blobs: [config, bundle] })
}

fn bundle(key: &SigningKey, payload: Vec<u8>) -> Result<Vec<u8>, SignError> {
    let signature =
        key.sign(&sigstore_types::pae(media_type::IN_TOTO, &payload)).map_err(SignError::Crypto)?;
    // cosign leaves the envelope's own key id out; the bundle names the key.
    let signature = DsseSignature::new(SignatureBytes::new(signature), KeyId::new(""));
    let envelope = DsseEnvelope::new(media_type::IN_TOTO, PayloadBytes::new(payload), signature);
    let hint = PublicKeyIdentifier::new(key.public_key().hint());
    let material = VerificationMaterial::new(VerificationMaterialContent::PublicKey(hint));
    let bundle = Bundle::new(MediaType::Bundle0_3, material, SignatureContent::DsseEnvelope(envelope));
    Ok(bundle.to_json().expect("a bundle of strings always serialises").into_bytes())
}
