//! A public key that neap can verify with: P-256 or Ed25519, as PEM SubjectPublicKeyInfo.
//! The signature scheme follows from the key alone, never from what a signature claims.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use neap_sdk::{Digest, limits::KEY_FILE_BYTES_MAX};
use sigstore_crypto::{SigningScheme, VerificationKey};
use sigstore_types::{DerPublicKey, SignatureBytes};
use std::{fmt, sync::Arc};

/// Which algorithm a key is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyAlgorithm {
    /// ECDSA over P-256 with SHA-256, signatures in DER.
    EcdsaP256,
    /// Ed25519 over the whole message.
    Ed25519,
}

/// Why a text is not a key that neap verifies with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseKeyError {
    /// It is larger than any key file.
    #[error("it has {0} bytes; a public key in PEM has a few hundred")]
    TooLarge(usize),
    /// It holds a private key.
    #[error(
        "it is a private key; give the public one (`-----BEGIN PUBLIC KEY-----`) and keep this one secret"
    )]
    Private,
    /// It is not PEM, or of another kind.
    #[error("it is not a public key in PEM (`-----BEGIN PUBLIC KEY-----`): {0}")]
    Pem(String),
    /// The bytes inside are not a key, or it is for another algorithm.
    #[error("only P-256 (cosign's default) and Ed25519 keys are accepted: {0}")]
    Algorithm(String),
}

/// A public key. Cloning is cheap.
#[derive(Clone)]
pub struct PublicKey {
    der: DerPublicKey,
    id: Arc<str>,
    algorithm: KeyAlgorithm,
    verifier: Arc<VerificationKey>,
}

impl PublicKey {
    /// Parses a PEM SubjectPublicKeyInfo.
    pub fn from_pem(pem: &str) -> Result<Self, ParseKeyError> {
        if pem.len() as u64 > KEY_FILE_BYTES_MAX {
            return Err(ParseKeyError::TooLarge(pem.len()));
        }
        if pem.contains("PRIVATE KEY-----") {
            return Err(ParseKeyError::Private);
        }
        if pem.matches("-----BEGIN ").count() > 1 {
            return Err(ParseKeyError::Pem("it holds more than one block".to_owned()));
        }
        let der =
            DerPublicKey::from_pem(pem.trim()).map_err(|error| ParseKeyError::Pem(error.to_string()))?;
        Self::from_der(der)
    }

    pub(crate) fn from_der(der: DerPublicKey) -> Result<Self, ParseKeyError> {
        let refused = |text: String| ParseKeyError::Algorithm(text);
        let verifier = VerificationKey::from_spki(&der).map_err(|error| refused(error.to_string()))?;
        let (algorithm, parsed) = match verifier.scheme() {
            SigningScheme::EcdsaP256Sha256 => (
                KeyAlgorithm::EcdsaP256,
                aws_lc_rs::signature::ParsedPublicKey::new(
                    &aws_lc_rs::signature::ECDSA_P256_SHA256_ASN1,
                    verifier.as_bytes(),
                ),
            ),
            SigningScheme::Ed25519 => (
                KeyAlgorithm::Ed25519,
                aws_lc_rs::signature::ParsedPublicKey::new(
                    &aws_lc_rs::signature::ED25519,
                    verifier.as_bytes(),
                ),
            ),
            other => return Err(refused(format!("this one is for {}", other.name()))),
        };
        parsed.map_err(|_| refused("the point is not on the curve".to_owned()))?;
        // Compressed points parse, but the verifier refuses them later without a reason.
        sigstore_crypto::verification::validate_raw_public_key(verifier.scheme(), verifier.as_bytes())
            .map_err(|error| refused(error.to_string()))?;
        let id = Digest::of(der.as_bytes()).hex().into();
        Ok(Self { der, id, algorithm, verifier: Arc::new(verifier) })
    }

    /// SHA-256 of the DER SubjectPublicKeyInfo, in hex.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The same in base64, which is the hint that cosign writes into bundles.
    pub fn hint(&self) -> String {
        STANDARD.encode(Digest::of(self.der.as_bytes()).as_bytes())
    }

    /// Which algorithm it is for.
    pub fn algorithm(&self) -> KeyAlgorithm {
        self.algorithm
    }

    /// The key as PEM SubjectPublicKeyInfo.
    pub fn to_pem(&self) -> String {
        self.der.to_pem()
    }

    /// Whether `signature` is this key's over exactly `message`.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        self.verifier.verify(message, &SignatureBytes::from_bytes(signature)).is_ok()
    }
}

impl PartialEq for PublicKey {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for PublicKey {}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({:?} {})", self.algorithm, self.id)
    }
}
