//! Content digests: `sha256:` and 64 lower-case hex digits, nothing else.
//!
//! Other algorithms are refused, not carried along: two digests are equal only when algorithm and bytes are.
//! Source: OCI image-spec 1.1, `descriptor.md#digests`.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::{fmt, str::FromStr};

/// A SHA-256 digest of some bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest([u8; 32]);

/// Why a text is not a digest that neap accepts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseDigestError {
    /// The text has no `algorithm:` in front.
    #[error("a digest has the form sha256:<64 hex digits>")]
    Form,
    /// An algorithm other than sha256.
    #[error("digest algorithm {0:?} is not supported; only sha256 is")]
    Algorithm(String),
    /// Not 64 lower-case hex digits.
    #[error("a sha256 digest has exactly 64 lower-case hex digits")]
    Hex,
}

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// A digest from the finished state of a streaming hasher.
    pub const fn from_sha256(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The raw 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The 64 hex digits without the algorithm; a safe file name.
    pub fn hex(&self) -> String {
        use fmt::Write as _;
        self.0.iter().fold(String::with_capacity(64), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    }

    /// The first 12 hex digits, for people.
    pub fn short(&self) -> String {
        self.hex()[..12].to_owned()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = ParseDigestError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (algorithm, hex) = text.split_once(':').ok_or(ParseDigestError::Form)?;
        if algorithm != "sha256" {
            return Err(ParseDigestError::Algorithm(algorithm.chars().take(32).collect()));
        }
        let lower_hex = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if hex.len() != 64 || !hex.as_bytes().iter().all(lower_hex) {
            return Err(ParseDigestError::Hex);
        }
        let mut bytes = [0; 32];
        for (slot, pair) in bytes.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
            *slot = nibble(pair[0]) << 4 | nibble(pair[1]);
        }
        Ok(Self(bytes))
    }
}

fn nibble(hex_digit: u8) -> u8 {
    match hex_digit {
        b'0'..=b'9' => hex_digit - b'0',
        _ => hex_digit - b'a' + 10,
    }
}

impl TryFrom<String> for Digest {
    type Error = ParseDigestError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_back() {
        let digest = Digest::of(b"neap");
        assert_eq!(digest.to_string().parse(), Ok(digest));
        let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Digest::of(b"").to_string(), empty);
    }

    #[test]
    fn refuses_what_is_not_exactly_a_sha256() {
        let hex = Digest::of(b"neap").hex();
        let refused = |text: String| text.parse::<Digest>().expect_err("must be refused");
        assert_eq!(refused(hex.clone()), ParseDigestError::Form);
        assert_eq!(refused(format!("sha512:{hex}")), ParseDigestError::Algorithm("sha512".into()));
        assert_eq!(refused(format!("sha256:{}", hex.to_uppercase())), ParseDigestError::Hex);
        assert_eq!(refused(format!("sha256:{}", &hex[1..])), ParseDigestError::Hex);
        assert_eq!(refused(format!("sha256:../../{}", &hex[6..])), ParseDigestError::Hex);
    }
}
