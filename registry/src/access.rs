//! Who may do what with a repository. The platform decides; this module only asks and checks a token.
//! It must not know tenants' rules, and it never logs credentials.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderMap, header, request::Parts};
use neap_sdk::artifact::Repository;
use sha2::{Digest as _, Sha256};
use std::{fmt, sync::Arc};

/// What a request wants to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// See whether the registry is there.
    Ping,
    /// Read blobs, manifests, tags and referrers.
    Pull,
    /// Upload blobs and put manifests.
    Push,
    /// Remove tags, manifests and blobs.
    Delete,
    /// List the names of all repositories.
    Catalog,
}

/// Why a request may not do what it wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Denied {
    /// It has no credentials, or wrong ones: 401 with a challenge.
    Unauthenticated,
    /// Its credentials do not suffice: 403 with this reason.
    Forbidden(String),
}

/// Decides from a request's head (credentials, peer address among its extensions), the operation, and the
/// repository where the operation has one. Must not block.
pub type Check = dyn Fn(&Parts, Operation, Option<&Repository>) -> Result<(), Denied> + Send + Sync;

/// Who may use the registry.
#[derive(Clone)]
pub enum Access {
    /// Everybody who can connect. Only for a listener on loopback.
    Anonymous,
    /// Whoever shows the token: as a bearer token, or as a Basic password with any user name.
    Token(Token),
    /// Whoever the platform lets in.
    Check(Arc<Check>),
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Anonymous => "Anonymous",
            Self::Token(_) => "Token",
            Self::Check(_) => "Check",
        })
    }
}

/// A secret that is kept, and compared, as its hash: neither the time nor a dump of memory tells it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token([u8; 32]);

impl Token {
    /// The token with this text.
    pub fn new(secret: &str) -> Self {
        Self(Sha256::digest(secret).into())
    }

    /// Whether the request's `Authorization` carries this token.
    pub fn is_shown_in(&self, headers: &HeaderMap) -> bool {
        shown_secret(headers).is_some_and(|secret| Self::new(&secret) == *self)
    }
}

/// The secret in an `Authorization` header: a bearer token, or the password of Basic credentials.
fn shown_secret(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, rest) = value.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(rest.trim().to_owned());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(STANDARD.decode(rest.trim()).ok()?).ok()?;
    decoded.split_once(':').map(|(_, password)| password.to_owned())
}

impl Access {
    /// Whether a request may do `operation`.
    pub fn decide(
        &self,
        parts: &Parts,
        operation: Operation,
        repository: Option<&Repository>,
    ) -> Result<(), Denied> {
        match self {
            Self::Anonymous => Ok(()),
            Self::Token(token) if token.is_shown_in(&parts.headers) => Ok(()),
            Self::Token(_) => Err(Denied::Unauthenticated),
            Self::Check(check) => check(parts, operation, repository),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn a_token_is_taken_as_bearer_or_as_basic_password_only() {
        let token = Token::new("s3cret:x");
        let shown = |value: &str| {
            let value = HeaderValue::from_str(value).expect("a header value");
            token.is_shown_in(&HeaderMap::from_iter([(header::AUTHORIZATION, value)]))
        };
        assert!(shown("Bearer s3cret:x"));
        assert!(shown(&format!("basic {}", STANDARD.encode("anyone:s3cret:x"))));
        for wrong in ["s3cret:x", "Bearer s3cret", "Bearer ", "Digest s3cret:x", "Basic !!!"] {
            assert!(!shown(wrong), "{wrong}");
        }
        assert!(!shown(&format!("Basic {}", STANDARD.encode("s3cret:x"))), "the user name is no secret");
    }
}
