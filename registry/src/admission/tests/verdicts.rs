//! What a user sees: admitted with its evidence, or refused with a code and a text that says what to do.

use super::{MANIFEST, MemoryStore, NOW_MS, SBOM, Signer, codes, judged, judged_by, statement};
use crate::admission::{CYCLONEDX_PREDICATE, Policy};
use neap_sdk::{Digest, ErrorCode};

#[tokio::test]
async fn signed_and_attested_is_admitted_with_its_evidence() {
    let (signer, mut store) = (Signer::new(), MemoryStore::default());
    store.attach(&signer.sign(MANIFEST));
    store.attach(&signer.attest(MANIFEST, SBOM));
    let verdict = judged(&store, &[signer.trusted("ada")]).await;
    assert_eq!(codes(&verdict), []);
    assert_eq!(verdict.digest, Digest::of(MANIFEST));
    assert_eq!(verdict.policy, Policy::default().digest());
    assert_eq!(verdict.decided_at_ms, NOW_MS);
    assert_eq!(verdict.evidence.signers.len(), 1);
    assert_eq!(verdict.evidence.signers[0].name, "ada");
    assert_eq!(verdict.evidence.signers[0].key_id, signer.key.public_key().id());
    let sbom = verdict.evidence.sbom.expect("the SBOM is evidence");
    assert_eq!((sbom.format.as_str(), sbom.packages), ("CycloneDX 1.6", 2));
    assert_eq!(sbom.digest, Digest::of(SBOM), "the document is attested byte for byte");
}

#[tokio::test]
async fn nothing_attached_is_unsigned_and_says_what_to_do() {
    let signer = Signer::new();
    let verdict = judged(&MemoryStore::default(), &[signer.trusted("ada")]).await;
    assert_eq!(codes(&verdict), [ErrorCode::Unsigned, ErrorCode::Policy]);
    let text = &verdict.reasons[0].text;
    for needed in ["neap push", "cosign sign --key", "team/app@sha256:", "tenant team: ada"] {
        assert!(text.contains(needed), "{needed:?} is missing in: {text}");
    }
    assert!(verdict.reasons[1].text.contains("SBOM"));
    let nobody = judged(&MemoryStore::default(), &[]).await;
    assert!(nobody.reasons[0].text.contains("neap key trust"), "{:?}", nobody.reasons);
}

#[tokio::test]
async fn a_key_that_nobody_trusts_does_not_count() {
    let (stranger, friend, mut store) = (Signer::new(), Signer::new(), MemoryStore::default());
    store.attach(&stranger.sign(MANIFEST));
    store.attach(&stranger.attest(MANIFEST, SBOM));
    let verdict = judged(&store, &[friend.trusted("friend")]).await;
    assert_eq!(codes(&verdict), [ErrorCode::Untrusted, ErrorCode::Policy]);
    assert!(verdict.reasons[0].text.contains(&stranger.key.public_key().hint()), "names the key that signed");
    assert_eq!(verdict.evidence, Default::default(), "strangers leave no evidence");
    // A trusted signature beside it is enough: others cannot spoil it.
    store.attach(&friend.sign(MANIFEST));
    store.attach(&friend.attest(MANIFEST, SBOM));
    assert_eq!(codes(&judged(&store, &[friend.trusted("friend")]).await), []);
}

#[tokio::test]
async fn a_signature_or_an_sbom_for_something_else_is_a_mismatch() {
    let (signer, mut store) = (Signer::new(), MemoryStore::default());
    let other = b"another manifest";
    // Both are genuine, but about `other`; somebody hung them onto this artifact.
    let [_, signature] = signer.sign(other).blobs;
    let [_, attestation] = signer.attest(other, SBOM).blobs;
    store.attach_bundle(Digest::of(MANIFEST), &signature);
    store.attach_bundle(Digest::of(MANIFEST), &attestation);
    let verdict = judged(&store, &[signer.trusted("ada")]).await;
    assert_eq!(codes(&verdict), [ErrorCode::Mismatch, ErrorCode::Mismatch]);
    assert!(verdict.reasons.iter().all(|reason| reason.text.contains(&Digest::of(other).to_string())));
}

#[tokio::test]
async fn an_sbom_must_be_there_and_say_something() {
    let (signer, mut store) = (Signer::new(), MemoryStore::default());
    let keys = [signer.trusted("ada")];
    store.attach(&signer.sign(MANIFEST));
    assert_eq!(codes(&judged(&store, &keys).await), [ErrorCode::Policy]);
    for useless in [
        r#"{"bomFormat":"CycloneDX","specVersion":"1.6","components":[]}"#,
        r#"{"bomFormat":"CycloneDX","specVersion":"2.0","components":[{"name":"a"}]}"#,
        r#""SPDXVersion: SPDX-2.3""#,
        "{}",
    ] {
        let mut store = store.clone();
        let payload = statement(Digest::of(MANIFEST), CYCLONEDX_PREDICATE, useless);
        store.attach_bundle(Digest::of(MANIFEST), signer.bundle(&payload).to_string().as_bytes());
        let verdict = judged(&store, &keys).await;
        assert_eq!(codes(&verdict), [ErrorCode::Policy], "{useless}");
        assert!(verdict.reasons[0].text.contains("not usable"), "{:?}", verdict.reasons);
        // A good one beside it is what counts.
        store.attach(&signer.attest(MANIFEST, SBOM));
        assert_eq!(codes(&judged(&store, &keys).await), []);
    }
}

#[tokio::test]
async fn a_signed_index_covers_its_child_but_its_sbom_does_not() {
    let (signer, mut store) = (Signer::new(), MemoryStore::default());
    let keys = [signer.trusted("ada")];
    let policy = Policy::default();
    let index = br#"{"schemaVersion":2,"manifests":["the child"]}"#;
    store.attach(&signer.sign(index));
    store.attach(&signer.attest(index, SBOM));
    let verdict = judged_by(&store, &keys, &policy, MANIFEST, &[Digest::of(index)]).await;
    assert_eq!(codes(&verdict), [ErrorCode::Mismatch], "an SBOM must be of what runs");
    store.attach(&signer.attest(MANIFEST, SBOM));
    assert_eq!(codes(&judged_by(&store, &keys, &policy, MANIFEST, &[Digest::of(index)]).await), []);
    // Without the proven path the index's signature says nothing about this manifest.
    assert_eq!(codes(&judged(&store, &keys).await), [ErrorCode::Unsigned]);
}

#[tokio::test]
async fn what_cannot_be_read_is_not_taken_for_absent() {
    let (signer, mut store) = (Signer::new(), MemoryStore::default());
    store.attach(&signer.sign(MANIFEST));
    store.attach(&signer.attest(MANIFEST, SBOM));
    store.broken = true;
    let verdict = judged(&store, &[signer.trusted("ada")]).await;
    assert_eq!(codes(&verdict), [ErrorCode::EvidenceUnavailable]);
    assert!(verdict.reasons[0].text.contains("disk on fire"), "{:?}", verdict.reasons);
}

#[tokio::test]
async fn a_threshold_counts_keys_not_signatures() {
    let (ada, bob, mut store) = (Signer::new(), Signer::new(), MemoryStore::default());
    let policy = Policy { threshold: 2, ..Policy::default() };
    let keys = [ada.trusted("ada"), bob.trusted("bob")];
    store.attach(&ada.attest(MANIFEST, SBOM));
    store.attach(&ada.sign(MANIFEST));
    store.attach(&ada.sign(MANIFEST));
    assert_eq!(codes(&judged_by(&store, &keys, &policy, MANIFEST, &[]).await), [ErrorCode::Policy]);
    store.attach(&bob.sign(MANIFEST));
    let verdict = judged_by(&store, &keys, &policy, MANIFEST, &[]).await;
    assert_eq!(codes(&verdict), []);
    assert_eq!(verdict.evidence.signers.len(), 2);
}
