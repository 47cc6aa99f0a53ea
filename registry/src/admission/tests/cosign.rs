//! Artefacts that cosign 3.1.3 wrote (`tests/fixtures/cosign`), in both of its formats.

use super::{MemoryStore, Signer, codes, judged_by, trusted};
use crate::{admission::Policy, keys::PublicKey};
use neap_sdk::{Digest, ErrorCode};

macro_rules! recorded {
    ($name:literal) => {
        include_bytes!(concat!("../../../tests/fixtures/cosign/", $name))
    };
}

const ARTIFACT: &[u8] = recorded!("artifact.manifest.json");

fn cosign_key() -> PublicKey {
    PublicKey::from_pem(std::str::from_utf8(recorded!("cosign.pub")).unwrap()).unwrap()
}

fn bundles() -> MemoryStore {
    let mut store = MemoryStore::default();
    store.put(&recorded!("signature.bundle.json")[..]);
    store.put(&recorded!("sbom.bundle.json")[..]);
    store.put_manifest(recorded!("signature.manifest.json"));
    store.put_manifest(recorded!("sbom.manifest.json"));
    store
}

fn legacy() -> MemoryStore {
    let mut store = MemoryStore::default();
    let tag = |suffix: &str| format!("sha256-{}.{suffix}", Digest::of(ARTIFACT).hex());
    store.put(&recorded!("legacy-sig.payload.json")[..]);
    store.put(&recorded!("legacy-att.envelope.json")[..]);
    store.tag(&tag("sig"), recorded!("legacy-sig.manifest.json"));
    store.tag(&tag("att"), recorded!("legacy-att.manifest.json"));
    store
}

/// The same referrers on a registry without the referrers API.
fn fallback_tag() -> MemoryStore {
    let mut store = bundles();
    let referrers = store.referrers.remove(&Digest::of(ARTIFACT)).unwrap();
    let entries: Vec<_> = referrers
        .iter()
        .map(|digest| {
            // What cosign writes there as artifactType is the configuration's type, not the bundle's.
            serde_json::json!({
                "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest,
                "size": store.content[digest].len(), "artifactType": "application/vnd.oci.empty.v1+json",
            })
        })
        .collect();
    let media_type = "application/vnd.oci.image.index.v1+json";
    let index = serde_json::json!({ "schemaVersion": 2, "mediaType": media_type, "manifests": entries });
    store.tag(&format!("sha256-{}", Digest::of(ARTIFACT).hex()), index.to_string().as_bytes());
    store
}

#[tokio::test]
async fn what_cosign_signed_and_attested_is_admitted() {
    let key = trusted("cosign", cosign_key());
    for (format, store) in [("bundles", bundles()), ("legacy", legacy()), ("fallback tag", fallback_tag())] {
        let keys = std::slice::from_ref(&key);
        let verdict = judged_by(&store, keys, &Policy::default(), ARTIFACT, &[]).await;
        assert_eq!(codes(&verdict), [], "{format}: {:?}", verdict.reasons);
        let sbom = verdict.evidence.sbom.expect("cosign attested one");
        assert_eq!((sbom.format.as_str(), sbom.packages), ("CycloneDX 1.5", 1), "{format}");
    }
}

#[tokio::test]
async fn the_same_under_another_key_is_not() {
    let stranger = Signer::new().trusted("stranger");
    for store in [bundles(), legacy(), fallback_tag()] {
        let keys = std::slice::from_ref(&stranger);
        let verdict = judged_by(&store, keys, &Policy::default(), ARTIFACT, &[]).await;
        assert_eq!(codes(&verdict), [ErrorCode::Untrusted, ErrorCode::Policy]);
    }
}

#[tokio::test]
async fn a_legacy_signature_does_not_move_to_another_artifact() {
    let mut store = legacy();
    let other = b"another manifest";
    for suffix in ["sig", "att"] {
        let digest = store.tags[&format!("sha256-{}.{suffix}", Digest::of(ARTIFACT).hex())];
        store.tags.insert(format!("sha256-{}.{suffix}", Digest::of(other).hex()), digest);
    }
    let verdict = judged_by(&store, &[trusted("cosign", cosign_key())], &Policy::default(), other, &[]).await;
    assert_eq!(codes(&verdict), [ErrorCode::Mismatch, ErrorCode::Mismatch]);
}

#[test]
fn the_hint_that_cosign_writes_is_ours() {
    let bundle: serde_json::Value = serde_json::from_slice(recorded!("signature.bundle.json")).unwrap();
    assert_eq!(bundle["verificationMaterial"]["publicKey"]["hint"], cosign_key().hint());
}
