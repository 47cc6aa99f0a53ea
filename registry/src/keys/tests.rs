//! Trusted keys: which are accepted, that they survive a restart, and that a damaged file is not ignored.

use super::{KeyAlgorithm, OpenError, ParseKeyError, PublicKey, TrustError, TrustedKeys};
use neap_sdk::{TenantName, limits::TRUSTED_KEYS_PER_TENANT_MAX};
use std::fs;

const P256: &str = include_str!("../../tests/fixtures/cosign/cosign.pub");
const ED25519: &str = r"-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEABoUNJl0rA+qXHoUC2xj2osswJsTqqMFug5zwMD6jFQ8=
-----END PUBLIC KEY-----";
const ED25519_ID: &str = "128a635ce002229073056cc6d27c0ce31849fd6d153d3bc7fb8fa94a95b20865";
/// `openssl pkeyutl -sign -rawin` of `hello`.
const ED25519_HELLO: &str =
    "wZX3z4WL+gPhPWGjrOlTAPLNI/LbLYUg+qdoeaEZraBzka505WTElWBRTHngcrvv/gaU9zQ9BKLNkeWd7oUeBw==";
const P384: &str = r"-----BEGIN PUBLIC KEY-----
MHYwEAYHKoZIzj0CAQYFK4EEACIDYgAEhR+ED0FQ65tvxXDRTNf0R6YiIT4kSuAC
A515t9PGDtFhViLJDe+GooPlNfqlZ5smE1lMdafHbbLEBoVJ5ofPqqGHVrUCci/Z
NUijJCXMW6K6dLcsCOhyF8VIGmNKH5nW
-----END PUBLIC KEY-----";
const RSA: &str = r"-----BEGIN PUBLIC KEY-----
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAsuG/oDhCHF38ZBVa1C3h
kGfZ/FV814Ygg7iT1LivgRmvvpysKClj0lQXgjM4w0km7crG4ziSKLYWhLTOH/FO
uydLkIC9D/u0iKNxuAigTus/zO/0yHyc+QbRiHBEpdBY3ovq1on2cUtjhfO8Jpv5
5DznoDJy5X1LkUoToIwhzs41hZ2REQBLplBtueMt42/PKJESvEbQYCO0wmvF8Nyo
p5NxrTrxm5OQZ0VC7rqx5vkImcTJhp5V4yL1L4SneovFXxpMSmVbB18H8toEEFcZ
MzHHbqZ3bmDP778vZnrbW7xZaJ8wR3BeS4ERYF5dh017MQe5WYp5p3mBrfA61pio
lwIDAQAB
-----END PUBLIC KEY-----";
const P256_COMPRESSED: &str = r"-----BEGIN PUBLIC KEY-----
MDkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDIgADaOgUQqtwQ2CxrMezXOWrdYMU8u4G
az8/jggLE/3uHxA=
-----END PUBLIC KEY-----";

fn tenant(name: &str) -> TenantName {
    name.parse().unwrap()
}

fn ids(keys: &TrustedKeys, tenant: &TenantName) -> Vec<String> {
    keys.list(tenant).iter().map(|key| key.key.id().to_owned()).collect()
}

#[test]
fn p256_and_ed25519_are_accepted_and_named_as_openssl_does() {
    let key = PublicKey::from_pem(ED25519).unwrap();
    assert_eq!(key.algorithm(), KeyAlgorithm::Ed25519);
    // `openssl pkey -pubin -outform DER | sha256sum`
    assert_eq!(key.id(), ED25519_ID);
    assert_eq!(PublicKey::from_pem(&key.to_pem()), Ok(key.clone()));
    let signature = {
        use base64::{Engine as _, engine::general_purpose::STANDARD};
        STANDARD.decode(ED25519_HELLO).unwrap()
    };
    assert!(key.verifies(b"hello", &signature));
    assert!(!key.verifies(b"hello!", &signature));
    assert!(!PublicKey::from_pem(P256).unwrap().verifies(b"hello", &signature));
    assert_eq!(PublicKey::from_pem(P256).unwrap().algorithm(), KeyAlgorithm::EcdsaP256);
}

#[test]
fn anything_else_is_refused_with_a_reason() {
    let refused = |pem: &str| PublicKey::from_pem(pem).expect_err("must be refused");
    assert!(
        matches!(refused(P384), ParseKeyError::Algorithm(why) if why.contains("P-384") || why.contains("P384"))
    );
    assert!(matches!(refused(RSA), ParseKeyError::Algorithm(why) if why.contains("RSA")));
    assert!(matches!(refused(P256_COMPRESSED), ParseKeyError::Algorithm(_)));
    assert_eq!(
        refused("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----"),
        ParseKeyError::Private
    );
    assert!(matches!(refused("ssh-ed25519 AAAA"), ParseKeyError::Pem(_)));
    assert!(matches!(refused(&format!("{P256}{P256}")), ParseKeyError::Pem(_)));
    assert!(matches!(refused(&" ".repeat(1 << 20)), ParseKeyError::TooLarge(_)));
    // One bit of the point, so that it is on no curve.
    let off_curve = P256.replace(&P256.lines().nth(2).unwrap()[..1], "A");
    assert_ne!(off_curve, P256);
    assert!(matches!(refused(&off_curve), ParseKeyError::Algorithm(_) | ParseKeyError::Pem(_)));
}

#[test]
fn trust_is_per_tenant_durable_and_ends() {
    let dir = tempfile::tempdir().unwrap();
    let (ours, theirs) = (tenant("ours"), tenant("theirs"));
    let keys = TrustedKeys::open(dir.path()).unwrap();
    let operator = keys.trust_operator("operator", P256, 1).unwrap();
    let own = keys.trust(&ours, "release key", ED25519, 2).unwrap();
    assert!(operator.operator && !own.operator);
    let both = vec![own.key.id().to_owned(), operator.key.id().to_owned()];
    assert_eq!(ids(&keys, &ours), both, "a tenant's own keys and the operator's");
    assert_eq!(ids(&keys, &theirs), both[1..], "another tenant has only the operator's");

    let again = TrustedKeys::open(dir.path()).unwrap();
    assert_eq!(ids(&again, &ours), both);
    assert_eq!(again.list(&ours)[0].name, "release key");
    assert_eq!(again.list(&ours)[0].trusted_at_ms, 2);
    assert_eq!(again.list(&ours)[0].view().pem, own.key.to_pem());

    assert!(!again.revoke(&ours, operator.key.id()).unwrap(), "a tenant cannot revoke the operator's key");
    assert!(!again.revoke(&theirs, own.key.id()).unwrap(), "nor another tenant's");
    assert!(!again.revoke(&ours, "../_operator/x").unwrap());
    assert!(again.revoke(&ours, own.key.id()).unwrap());
    assert!(again.revoke_operator(operator.key.id()).unwrap());
    assert_eq!(ids(&again, &ours), [""; 0]);
    assert_eq!(ids(&TrustedKeys::open(dir.path()).unwrap(), &ours), [""; 0], "revoked for good");
}

#[test]
fn a_damaged_file_is_an_error_not_a_missing_key() {
    let dir = tempfile::tempdir().unwrap();
    let keys = TrustedKeys::open(dir.path()).unwrap();
    let key = keys.trust(&tenant("ours"), "k", ED25519, 1).unwrap();
    let path = dir.path().join("ours").join(format!("{}.json", key.key.id()));
    let good = fs::read(&path).unwrap();
    let unknown_field = String::from_utf8(good.clone()).unwrap().replace("name", "nick");
    for bad in [&good[..good.len() / 2], b"", unknown_field.as_bytes()] {
        fs::write(&path, bad).unwrap();
        let opened = TrustedKeys::open(dir.path());
        assert!(matches!(opened, Err(OpenError::NotAKey { .. })), "{opened:?}");
    }
    fs::rename(&path, path.with_file_name("0000.json")).unwrap();
    fs::write(path.with_file_name("0000.json"), &good).unwrap();
    assert!(
        matches!(TrustedKeys::open(dir.path()), Err(OpenError::NotAKey { .. })),
        "a key under another id"
    );
}

#[test]
fn names_and_numbers_are_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let keys = TrustedKeys::open(dir.path()).unwrap();
    for bad in ["", "  ", "a\nb", &"x".repeat(101)] {
        assert!(matches!(keys.trust(&tenant("t"), bad, P256, 1), Err(TrustError::Name(_))), "{bad:?}");
    }
    assert!(matches!(keys.trust(&tenant("t"), "k", RSA, 1), Err(TrustError::Key { .. })));
    for number in 0..TRUSTED_KEYS_PER_TENANT_MAX {
        let path = dir.path().join(format!("_signing-{number}"));
        let key = crate::sign::SigningKey::generate(&path).unwrap();
        keys.trust(&tenant("t"), "k", &key.public_key().to_pem(), 1).unwrap();
    }
    assert!(matches!(keys.trust(&tenant("t"), "k", P256, 1), Err(TrustError::TooMany(_))));
    let known = keys.list(&tenant("t"))[0].key.to_pem();
    assert_eq!(keys.trust(&tenant("t"), "renamed", &known, 1).unwrap().name, "renamed");
}
