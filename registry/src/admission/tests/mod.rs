//! Tests of admission: what is admitted, what is refused and why, recorded cosign artefacts, attacks, byte flips.

mod attacks;
mod component;
mod cosign;
mod flips;
mod policy;
mod store;
mod verdicts;

pub(crate) use store::MemoryStore;

use super::{Policy, Subject, judge};
use crate::{
    keys::{PublicKey, TrustedKey},
    manifest::Descriptor,
    sign::{self, Attachment, SigningKey},
};
use neap_sdk::{
    Digest, ErrorCode, TenantName,
    admission::Verdict,
    artifact::{ArtifactKind, Repository, media_type},
};
use serde_json::{Value, json};

pub(super) const NOW_MS: u64 = 1_760_000_000_000;
pub(super) const MANIFEST: &[u8] = br#"{"schemaVersion":2,"what":"is judged"}"#;
pub(super) const SBOM: &[u8] =
    br#"{"bomFormat":"CycloneDX","specVersion":"1.6","components":[{"name":"a"},{"name":"b"}]}"#;

/// A key that signs, in a folder of its own that goes with it.
pub(super) struct Signer {
    pub key: SigningKey,
    _dir: tempfile::TempDir,
}

impl Signer {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { key: SigningKey::generate(&dir.path().join("key")).unwrap(), _dir: dir }
    }

    pub fn trusted(&self, name: &str) -> TrustedKey {
        trusted(name, self.key.public_key().clone())
    }

    pub fn sign(&self, manifest: &[u8]) -> Attachment {
        sign::sign(&self.key, &target(manifest), NOW_MS).unwrap()
    }

    pub fn attest(&self, manifest: &[u8], sbom: &[u8]) -> Attachment {
        sign::attest_sbom(&self.key, &target(manifest), sbom, NOW_MS).unwrap()
    }

    /// A bundle over any payload, signed for real.
    pub fn bundle(&self, payload: &str) -> Value {
        let signature = self.key.sign(&sigstore_types::pae(media_type::IN_TOTO, payload.as_bytes())).unwrap();
        json!({
            "mediaType": media_type::SIGSTORE_BUNDLE,
            "verificationMaterial": { "publicKey": { "hint": self.key.public_key().hint() } },
            "dsseEnvelope": {
                "payload": base64(payload.as_bytes()),
                "payloadType": media_type::IN_TOTO,
                "signatures": [{ "sig": base64(&signature) }],
            },
        })
    }
}

pub(super) fn base64(bytes: &[u8]) -> String {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    STANDARD.encode(bytes)
}

pub(super) fn trusted(name: &str, key: PublicKey) -> TrustedKey {
    TrustedKey { name: name.to_owned(), key, trusted_at_ms: NOW_MS, operator: false }
}

pub(super) fn target(manifest: &[u8]) -> Descriptor {
    Descriptor::of(media_type::MANIFEST, manifest)
}

/// A statement as cosign writes it, about `digest`.
pub(super) fn statement(digest: Digest, predicate_type: &str, predicate: &str) -> String {
    let subject = json!([{ "digest": { "sha256": digest.hex() } }]);
    let kind = "https://in-toto.io/Statement/v1";
    format!(
        r#"{{"_type":"{kind}","subject":{subject},"predicateType":"{predicate_type}","predicate":{predicate}}}"#
    )
}

/// Judges [`MANIFEST`] by the default policy.
pub(super) async fn judged(store: &MemoryStore, keys: &[TrustedKey]) -> Verdict {
    judged_by(store, keys, &Policy::default(), MANIFEST, &[]).await
}

pub(super) async fn judged_by(
    store: &MemoryStore,
    keys: &[TrustedKey],
    policy: &Policy,
    manifest: &[u8],
    ancestors: &[Digest],
) -> Verdict {
    let tenant: TenantName = "team".parse().unwrap();
    let repository: Repository = "team/app".parse().unwrap();
    let subject = Subject {
        tenant: &tenant,
        repository: &repository,
        digest: Digest::of(manifest),
        ancestors,
        manifest,
        kind: ArtifactKind::WasmComponent,
    };
    judge(&subject, store, keys, policy, NOW_MS).await
}

pub(super) fn codes(verdict: &Verdict) -> Vec<ErrorCode> {
    assert_eq!(
        verdict.admitted,
        verdict.reasons.is_empty(),
        "admitted exactly when there is no reason against"
    );
    verdict.reasons.iter().map(|reason| reason.code).collect()
}
