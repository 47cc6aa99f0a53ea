//! Signing keys as files, and what attachments look like to a registry. That they verify is tested in
//! `admission`, and with stock cosign in `tests/cosign.rs`.

use super::{KeyFileError, SignError, SigningKey, attest_sbom, sign};
use crate::{
    admission::{CYCLONEDX_PREDICATE, SIGNATURE_PREDICATE, SPDX_PREDICATE},
    manifest::{Descriptor, Manifest},
};
use neap_sdk::{Digest, artifact::media_type};
use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_key_is_private_kept_and_never_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("key.pem");
    let key = SigningKey::generate(&path).unwrap();
    assert_eq!(mode(&path), 0o600);
    let public = fs::read_to_string(dir.path().join("key.pem.pub")).unwrap();
    assert_eq!(public, key.public_key().to_pem());
    let loaded = SigningKey::load(&path).unwrap();
    assert_eq!(loaded.public_key(), key.public_key());
    assert!(key.public_key().verifies(b"hello", &loaded.sign(b"hello").unwrap()));

    let before = fs::read(&path).unwrap();
    assert!(matches!(SigningKey::generate(&path), Err(KeyFileError::Exists(_))));
    assert_eq!(fs::read(&path).unwrap(), before);
    // Nor is a public key that is there, and then no private one stays behind.
    let other = dir.path().join("other");
    fs::write(dir.path().join("other.pub"), "mine").unwrap();
    assert!(matches!(SigningKey::generate(&other), Err(KeyFileError::Exists(_))));
    assert!(!other.exists());

    let shown = format!("{key:?} {:?}", SigningKey::load(&other));
    let secret = String::from_utf8(before).unwrap();
    assert!(!shown.contains(&secret.lines().nth(1).unwrap()[..16]), "nothing secret is printed");
}

#[test]
fn what_is_no_private_signing_key_is_refused_with_advice() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("key.pem");
    SigningKey::generate(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let exposed = SigningKey::load(&path).expect_err("others can read it");
    assert!(matches!(exposed, KeyFileError::Exposed { mode: 0o644, .. }));
    assert!(exposed.to_string().contains("chmod 600"));
    assert!(matches!(SigningKey::load(&dir.path().join("none")), Err(KeyFileError::Io { .. })));
    for (text, advice) in [
        (
            "-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED SIGSTORE PRIVATE KEY-----",
            "encrypted",
        ),
        ("-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----", "openssl pkcs8"),
        ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----", "public"),
        ("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----", "P-256"),
        ("hello", "not PEM"),
    ] {
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let error = SigningKey::load(&path).expect_err(advice).to_string();
        assert!(error.contains(advice), "{advice:?} is missing in: {error}");
    }
}

#[test]
fn an_attachment_is_a_referrer_as_cosign_writes_it() {
    let dir = tempfile::tempdir().unwrap();
    let key = SigningKey::generate(&dir.path().join("key")).unwrap();
    let target = Descriptor::of(media_type::MANIFEST, b"{}");
    let cyclonedx = br#"{"bomFormat":"CycloneDX","specVersion":"1.6","components":[{"name":"a"}]}"#;
    let spdx = br#"{"spdxVersion":"SPDX-2.3","packages":[{"name":"a"}]}"#;
    for (attachment, predicate_type) in [
        (sign(&key, &target, 0).unwrap(), SIGNATURE_PREDICATE),
        (attest_sbom(&key, &target, cyclonedx, 0).unwrap(), CYCLONEDX_PREDICATE),
        (attest_sbom(&key, &target, spdx, 0).unwrap(), SPDX_PREDICATE),
    ] {
        let Manifest::Image(manifest) = Manifest::parse(&attachment.manifest, media_type::MANIFEST).unwrap()
        else {
            panic!("an attachment is an image manifest");
        };
        assert_eq!(manifest.artifact_type.as_deref(), Some(media_type::SIGSTORE_BUNDLE));
        assert_eq!(manifest.subject.as_ref().map(|subject| subject.digest), Some(target.digest));
        assert_eq!(manifest.annotations["dev.sigstore.bundle.predicateType"], predicate_type);
        assert_eq!(manifest.annotations["dev.sigstore.bundle.content"], "dsse-envelope");
        assert_eq!(manifest.annotations["org.opencontainers.image.created"], "1970-01-01T00:00:00Z");
        let named: Vec<Digest> = [&manifest.config, &manifest.layers[0]].map(|part| part.digest).into();
        assert_eq!(
            named,
            attachment.blobs.each_ref().map(|blob| Digest::of(blob)),
            "every blob comes with it"
        );
        assert_eq!(attachment.digest(), Digest::of(&attachment.manifest));
    }
}

#[test]
fn an_sbom_that_admission_would_refuse_is_not_attested() {
    let dir = tempfile::tempdir().unwrap();
    let key = SigningKey::generate(&dir.path().join("key")).unwrap();
    let target = Descriptor::of(media_type::MANIFEST, b"{}");
    let attest = |sbom: &[u8]| attest_sbom(&key, &target, sbom, 0).expect_err("must be refused");
    assert!(matches!(attest(b"{}"), SignError::Sbom(_)));
    assert!(matches!(attest(br#"{"spdxVersion":"SPDX-2.3","packages":[]}"#), SignError::SbomEmpty));
    let padding = "x".repeat(8 << 20);
    let large = format!(r#"{{"spdxVersion":"SPDX-2.3","packages":[{{"name":"a"}}],"comment":"{padding}"}}"#);
    assert!(matches!(attest(large.as_bytes()), SignError::TooLarge(_)));
}
