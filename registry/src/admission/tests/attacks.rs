//! Attacks on verifiers that are known from elsewhere; each artefact here is signed for real where it can be.

use super::{MANIFEST, MemoryStore, SBOM, Signer, base64, codes, judged, statement, store::referrer};
use crate::{
    admission::{CYCLONEDX_PREDICATE, SIGNATURE_PREDICATE},
    keys::TrustedKey,
    manifest::Descriptor,
};
use neap_sdk::{
    Digest, ErrorCode,
    artifact::media_type,
    limits::{BUNDLE_BYTES_MAX, REFERRERS_EXAMINED_MAX},
};
use serde_json::{Value, json};

fn digest() -> Digest {
    Digest::of(MANIFEST)
}

/// What the default policy says about one bundle as the only signature, beside a good SBOM.
async fn with_signature(signer: &Signer, bundle: &str) -> Vec<ErrorCode> {
    let mut store = MemoryStore::default();
    store.attach(&signer.attest(MANIFEST, SBOM));
    store.attach_bundle(digest(), bundle.as_bytes());
    codes(&judged(&store, &[signer.trusted("ada")]).await)
}

fn good(signer: &Signer) -> Value {
    signer.bundle(&statement(digest(), SIGNATURE_PREDICATE, "{}"))
}

#[tokio::test]
async fn a_bundle_has_one_meaning_or_none() {
    let signer = Signer::new();
    let good = good(&signer);
    assert_eq!(with_signature(&signer, &good.to_string()).await, [], "unchanged it is valid");
    let changed = |change: &dyn Fn(&mut Value)| {
        let mut bundle = good.clone();
        change(&mut bundle);
        bundle.to_string()
    };
    let signatures = "/dsseEnvelope/signatures";
    let cases: [(&str, String); 14] = [
        (
            "downgraded",
            changed(&|b| b["mediaType"] = json!("application/vnd.dev.sigstore.bundle+json;version=0.1")),
        ),
        ("no version", changed(&|b| drop(b.as_object_mut().unwrap().remove("mediaType")))),
        ("unknown field", changed(&|b| b["extra"] = json!(1))),
        ("two contents", changed(&|b| b["messageSignature"] = json!({ "signature": "" }))),
        (
            "key and certificate",
            changed(&|b| b["verificationMaterial"]["certificate"] = json!({ "rawBytes": "" })),
        ),
        (
            "certificate only",
            changed(&|b| b["verificationMaterial"] = json!({ "certificate": { "rawBytes": "" } })),
        ),
        (
            "two signatures",
            changed(&|b| {
                let list = b.pointer_mut(signatures).unwrap().as_array_mut().unwrap();
                list.push(list[0].clone());
            }),
        ),
        ("no signature", changed(&|b| *b.pointer_mut(signatures).unwrap() = json!([]))),
        ("another key id", changed(&|b| b["dsseEnvelope"]["signatures"][0]["keyid"] = json!("someone"))),
        ("another payload type", changed(&|b| b["dsseEnvelope"]["payloadType"] = json!("text/plain"))),
        (
            "33 log entries",
            changed(&|b| b["verificationMaterial"]["tlogEntries"] = json!(vec![json!({}); 33])),
        ),
        ("twice a key", good.to_string().replacen('{', r#"{"mediaType":"x","#, 1)),
        ("twice by case", good.to_string().replacen('{', r#"{"MediaType":"x","#, 1)),
        ("more behind it", good.to_string() + "{}"),
    ];
    for (name, bundle) in cases {
        let codes = with_signature(&signer, &bundle).await;
        assert!(matches!(codes[..], [ErrorCode::Unsigned | ErrorCode::Untrusted]), "{name}: {codes:?}");
    }
}

#[tokio::test]
async fn a_statement_has_one_meaning_or_none() {
    let signer = Signer::new();
    let good = statement(digest(), SIGNATURE_PREDICATE, "{}");
    let hex = digest().hex();
    let twice = r#"{"predicateType":"https://cyclonedx.org/bom","#;
    let by_case = r#"{"PredicateType":"https://cyclonedx.org/bom","#;
    for (name, payload) in [
        ("predicate type twice", good.replacen('{', twice, 1)),
        ("predicate type twice by case", good.replacen('{', by_case, 1)),
        ("predicate type in another case", good.replace("predicateType", "PredicateType")),
        ("another statement type", good.replace("Statement/v1", "Statement/v2")),
        ("no subject", good.replace(&format!(r#"[{{"digest":{{"sha256":"{hex}"}}}}]"#), "[]")),
        ("upper case", good.replace(&hex, &hex.to_uppercase())),
        ("another algorithm", good.replace("sha256", "sha512")),
        ("cut digest", good.replace(&hex, &hex[..40])),
        ("not JSON", "sha256".to_owned()),
        ("deep", good.replace("{}", &("[".repeat(300) + &"]".repeat(300)))),
        ("lone surrogate", good.replace("{}", r#""\ud800""#)),
        ("another predicate", good.replace("cosign/sign/v1", "cosign/sign/v2")),
    ] {
        assert_ne!(payload, good, "{name} changes something");
        let codes = with_signature(&signer, &signer.bundle(&payload).to_string()).await;
        assert_eq!(codes, [ErrorCode::Unsigned], "{name}");
    }
}

#[tokio::test]
async fn an_sbom_is_no_signature_and_a_signature_is_no_sbom() {
    let signer = Signer::new();
    let keys = [signer.trusted("ada")];
    let mut store = MemoryStore::default();
    store.attach(&signer.attest(MANIFEST, SBOM));
    assert_eq!(codes(&judged(&store, &keys).await), [ErrorCode::Unsigned]);
    // A signature whose predicate happens to be an SBOM.
    let sbom = std::str::from_utf8(SBOM).unwrap();
    let payload = statement(digest(), SIGNATURE_PREDICATE, sbom);
    let mut store = MemoryStore::default();
    store.attach_bundle(digest(), signer.bundle(&payload).to_string().as_bytes());
    assert_eq!(codes(&judged(&store, &keys).await), [ErrorCode::Policy]);
    // Predicate types that only look alike.
    for alike in ["https://cyclonedx.org/bomb", "https://cyclonedx.org/BOM", "http://cyclonedx.org/bom"] {
        let payload = statement(digest(), alike, sbom);
        store.attach_bundle(digest(), signer.bundle(&payload).to_string().as_bytes());
        assert_eq!(codes(&judged(&store, &keys).await), [ErrorCode::Policy], "{alike}");
    }
    let payload = statement(digest(), &format!("{CYCLONEDX_PREDICATE}/v1.6"), sbom);
    store.attach_bundle(digest(), signer.bundle(&payload).to_string().as_bytes());
    assert_eq!(codes(&judged(&store, &keys).await), [], "a versioned predicate type is the same family");
}

#[tokio::test]
async fn lengths_are_counted_in_bytes() {
    let signer = Signer::new();
    let payload = statement(digest(), SIGNATURE_PREDICATE, r#"{"é":"ü"}"#);
    let chars = payload.chars().count();
    assert_ne!(chars, payload.len());
    let mut message =
        format!("DSSEv1 {} {} {chars} ", media_type::IN_TOTO.len(), media_type::IN_TOTO).into_bytes();
    message.extend_from_slice(payload.as_bytes());
    let mut bundle = signer.bundle(&payload);
    assert_eq!(with_signature(&signer, &bundle.to_string()).await, []);
    let wrong = signer.key.sign(&message).unwrap();
    bundle["dsseEnvelope"]["signatures"][0]["sig"] = json!(base64(&wrong));
    assert_eq!(with_signature(&signer, &bundle.to_string()).await, [ErrorCode::Untrusted]);
}

#[tokio::test]
async fn a_signature_does_not_count_for_the_key_that_it_names() {
    let (ada, mallory) = (Signer::new(), Signer::new());
    let mut forged = good(&mallory);
    forged["verificationMaterial"]["publicKey"]["hint"] = json!(ada.key.public_key().hint());
    assert_eq!(with_signature(&ada, &forged.to_string()).await, [ErrorCode::Untrusted]);
    // Without a hint each trusted key is tried.
    let mut quiet = good(&ada);
    quiet["verificationMaterial"]["publicKey"] = json!({});
    assert_eq!(with_signature(&ada, &quiet.to_string()).await, []);
}

async fn signed_by(store: &MemoryStore, keys: &[TrustedKey]) -> bool {
    !codes(&judged(store, keys).await).contains(&ErrorCode::Unsigned)
}

#[tokio::test]
async fn a_referrer_must_be_about_this_artifact_and_nothing_else() {
    let signer = Signer::new();
    let keys = [signer.trusted("ada")];
    let bundle = good(&signer).to_string();
    let layer = Descriptor::of(media_type::SIGSTORE_BUNDLE, bundle.as_bytes());
    let listed = |manifest: Value| {
        let mut store = MemoryStore::default();
        store.put(bundle.clone());
        let listed = store.put(manifest.to_string());
        store.referrers.insert(digest(), vec![listed]);
        store
    };
    let whole = referrer(digest(), &layer);
    assert!(signed_by(&listed(whole.clone()), &keys).await, "unchanged it counts");
    let changed = |pointer: &str, value: Value| {
        let mut manifest = whole.clone();
        let (parent, field) = pointer.rsplit_once('/').unwrap();
        manifest.pointer_mut(parent).unwrap()[field] = value;
        manifest
    };
    let two_layers = json!([layer, layer]);
    for (name, manifest) in [
        ("another subject", referrer(Digest::of(b"other"), &layer)),
        ("no subject", changed("/subject", Value::Null)),
        ("two layers", changed("/layers", two_layers)),
        ("another layer type", changed("/layers", json!([Descriptor::of(media_type::WASM_LAYER, b"x")]))),
        ("a real configuration", changed("/config", json!(Descriptor::of(media_type::IMAGE_CONFIG, b"{}")))),
        ("an index too", changed("/manifests", json!([]))),
        ("foreign layer", changed("/config/urls", json!(["http://169.254.169.254/"]))),
        ("schema 1", changed("/schemaVersion", json!(1))),
        (
            "another size",
            referrer(digest(), &Descriptor::new(&layer.media_type, layer.digest, layer.size - 1)),
        ),
        (
            "too large",
            referrer(digest(), &Descriptor::new(&layer.media_type, layer.digest, BUNDLE_BYTES_MAX + 1)),
        ),
    ] {
        assert!(!signed_by(&listed(manifest), &keys).await, "{name}");
    }
}

#[tokio::test]
async fn a_store_that_answers_with_other_bytes_is_not_believed() {
    let signer = Signer::new();
    let mut store = MemoryStore::default();
    let unsigned = Signer::new().sign(MANIFEST);
    let listed = store.attach(&unsigned);
    let genuine = signer.sign(MANIFEST);
    store.attach(&genuine);
    store.referrers.insert(digest(), vec![listed]);
    store.content.insert(listed, genuine.manifest.into());
    let verdict = judged(&store, &[signer.trusted("ada")]).await;
    assert_eq!(codes(&verdict), [ErrorCode::EvidenceUnavailable]);
}

#[tokio::test]
async fn a_flood_of_attachments_is_bounded_and_refused() {
    let (signer, mut store) = (Signer::new(), MemoryStore::default());
    for number in 0..=REFERRERS_EXAMINED_MAX {
        store.attach_bundle(digest(), format!("{{\"n\":{number}}}").as_bytes());
    }
    let verdict = judged(&store, &[signer.trusted("ada")]).await;
    assert_eq!(codes(&verdict), [ErrorCode::Unsigned, ErrorCode::Policy]);
    assert!(verdict.reasons[0].text.contains("more attachments than are examined"), "{:?}", verdict.reasons);
}

#[tokio::test]
async fn a_manifest_that_is_not_the_one_named_is_refused() {
    let (signer, mut store) = (Signer::new(), MemoryStore::default());
    store.attach(&signer.sign(MANIFEST));
    store.attach(&signer.attest(MANIFEST, SBOM));
    let (tenant, repository) = ("team".parse().unwrap(), "team/app".parse().unwrap());
    let subject = super::Subject {
        tenant: &tenant,
        repository: &repository,
        digest: digest(),
        ancestors: &[],
        manifest: b"swapped",
        kind: neap_sdk::artifact::ArtifactKind::Image,
    };
    let verdict = super::judge(&subject, &store, &[signer.trusted("ada")], &Default::default(), 0).await;
    assert_eq!(codes(&verdict), [ErrorCode::Mismatch]);
}
