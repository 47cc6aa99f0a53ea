//! One flipped bit anywhere in what is signed, or in what carries it, is never admitted.

use super::{MANIFEST, MemoryStore, SBOM, Signer, codes, judged, judged_by, trusted};
use crate::{admission::Policy, keys::PublicKey};
use neap_sdk::Digest;

/// Every single-bit change of `bytes`.
fn flips(bytes: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    (0..bytes.len() * 8).map(|bit| {
        let mut flipped = bytes.to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        flipped
    })
}

#[tokio::test]
async fn no_flipped_bit_of_a_bundle_is_admitted() {
    let signer = Signer::new();
    let keys = [signer.trusted("ada")];
    let mut rest = MemoryStore::default();
    rest.attach(&signer.attest(MANIFEST, SBOM));
    let [_, bundle] = signer.sign(MANIFEST).blobs;
    // The attacker also rewrites the carrying manifest, so that digests and sizes agree with the flipped bytes.
    for flipped in flips(&bundle) {
        let mut store = rest.clone();
        store.attach_bundle(Digest::of(MANIFEST), &flipped);
        let verdict = judged(&store, &keys).await;
        assert!(!verdict.admitted, "admitted: {}", String::from_utf8_lossy(&flipped));
        assert!(!codes(&verdict).is_empty());
    }
}

#[tokio::test]
async fn no_flipped_bit_of_cosigns_bundle_is_admitted() {
    let artifact = include_bytes!("../../../tests/fixtures/cosign/artifact.manifest.json");
    let bundle = include_bytes!("../../../tests/fixtures/cosign/signature.bundle.json");
    let pem = include_str!("../../../tests/fixtures/cosign/cosign.pub");
    let keys = [trusted("cosign", PublicKey::from_pem(pem).unwrap())];
    let policy = Policy { require_sbom: false, ..Policy::default() };
    let whole = |bytes: &[u8]| {
        let mut store = MemoryStore::default();
        store.attach_bundle(Digest::of(artifact), bytes);
        store
    };
    assert!(judged_by(&whole(bundle), &keys, &policy, artifact, &[]).await.admitted, "unflipped it is valid");
    for flipped in flips(bundle) {
        let verdict = judged_by(&whole(&flipped), &keys, &policy, artifact, &[]).await;
        assert!(!verdict.admitted, "admitted: {}", String::from_utf8_lossy(&flipped));
    }
}

#[tokio::test]
async fn no_flipped_bit_on_disk_is_admitted() {
    let signer = Signer::new();
    let keys = [signer.trusted("ada")];
    let mut store = MemoryStore::default();
    let attested = signer.attest(MANIFEST, SBOM);
    let signed = signer.sign(MANIFEST);
    store.attach(&attested);
    store.attach(&signed);
    assert!(judged(&store, &keys).await.admitted, "unflipped it is valid");
    for kept in [&attested.manifest, &attested.blobs[1], &signed.manifest, &signed.blobs[1]] {
        for flipped in flips(kept).step_by(7) {
            let mut store = store.clone();
            store.content.insert(Digest::of(kept), flipped.into());
            assert!(!judged(&store, &keys).await.admitted);
        }
    }
}
