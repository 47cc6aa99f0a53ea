//! Error codes: stable words for what can go wrong, each with the HTTP status and the exit code it leads to.
//! One table, so that the same failure reads the same in a response, in `-o json` and in a script.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Exit codes of the CLI. They never change.
pub mod exit {
    /// Done, or nothing to do.
    pub const OK: u8 = 0;
    /// The operation failed.
    pub const FAILED: u8 = 1;
    /// The command line or a file of it is wrong.
    pub const USAGE: u8 = 2;
    /// Not allowed.
    pub const NOT_ALLOWED: u8 = 3;
    /// No such thing.
    pub const NOT_FOUND: u8 = 4;
    /// It is not in the state that the operation needs, or the name is taken.
    pub const CONFLICT: u8 = 5;
    /// Admission refused the artifact.
    pub const REFUSED: u8 = 6;
    /// The new revision did not become ready.
    pub const NOT_READY: u8 = 7;
    /// The server cannot be reached.
    pub const UNREACHABLE: u8 = 8;
}

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $status:literal, $exit:ident;)*) => {
        /// What went wrong, as one stable word.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum ErrorCode {
            $($(#[$doc])* #[serde(rename = $name)] $variant,)*
        }

        impl ErrorCode {
            /// Every code.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The word, as it stands in JSON and in `X-Neap-Error`.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }

            /// The HTTP status it leads to.
            pub const fn status(self) -> u16 {
                match self { $(Self::$variant => $status),* }
            }

            /// The CLI's exit code.
            pub const fn exit_code(self) -> u8 {
                match self { $(Self::$variant => exit::$exit),* }
            }
        }
    };
}

codes! {
    /// The request or a field of it is malformed or out of its limits.
    Invalid = "invalid", 400, USAGE;
    /// No credentials, or wrong ones.
    Unauthorized = "unauthorized", 401, NOT_ALLOWED;
    /// The caller may not do this.
    Forbidden = "forbidden", 403, NOT_ALLOWED;
    /// No function answers at this host and path.
    NoRoute = "no_route", 404, NOT_FOUND;
    /// No such function, revision, artifact or key.
    NotFound = "not_found", 404, NOT_FOUND;
    /// The name or the route is taken, or something changed in between.
    Conflict = "conflict", 409, CONFLICT;
    /// The body is larger than the limit.
    TooLarge = "too_large", 413, USAGE;
    /// Too many requests wait already.
    QueueFull = "queue_full", 429, FAILED;
    /// No trusted signature.
    Unsigned = "unsigned", 403, REFUSED;
    /// Signed, but by a key that the tenant does not trust.
    Untrusted = "untrusted", 403, REFUSED;
    /// A signature or an SBOM speaks of another digest.
    Mismatch = "mismatch", 403, REFUSED;
    /// A policy rule was not met: no SBOM, an empty one, a forbidden package.
    Policy = "policy", 403, REFUSED;
    /// The artifact itself cannot run here: not Wasm, an unknown import, another architecture.
    Unsupported = "unsupported", 422, REFUSED;
    /// Evidence could not be read; nothing was decided.
    EvidenceUnavailable = "evidence_unavailable", 503, REFUSED;
    /// The instance did not start; the reason is in the text.
    StartFailed = "start_failed", 503, NOT_READY;
    /// No instance became free in time.
    QueueTimeout = "queue_timeout", 503, FAILED;
    /// The server is stopping.
    Draining = "draining", 503, UNREACHABLE;
    /// The function ended without a response, trapped, or was killed.
    FunctionFailed = "function_failed", 502, FAILED;
    /// A Wasm guest trapped or ran out of its memory.
    GuestTrapped = "guest_trapped", 500, FAILED;
    /// The invocation took longer than its limit.
    Timeout = "timeout", 504, FAILED;
    /// The disk is full or cannot be written.
    Storage = "storage", 507, FAILED;
    /// A bug in neap.
    Internal = "internal", 500, FAILED;
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An RFC 9457 problem document, `application/problem+json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{detail}")]
pub struct Problem {
    /// `https://neap.dev/errors/CODE`: names the kind; nothing need answer there.
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What failed, and why.
    pub detail: String,
    /// The stable code.
    pub code: ErrorCode,
    /// What to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The request's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

impl Problem {
    /// A problem of this kind.
    pub fn new(code: ErrorCode, detail: impl Into<String>) -> Self {
        Self {
            kind: format!("https://neap.dev/errors/{}", code.name()),
            title: code.name().replace('_', " "),
            status: code.status(),
            detail: detail.into(),
            code,
            hint: None,
            request_id: None,
        }
    }

    /// The same with a hint on what to do.
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The media type of the document.
    pub const MEDIA_TYPE: &'static str = "application/problem+json";

    /// The document as JSON.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_round_trip() {
        for (index, code) in ErrorCode::ALL.iter().enumerate() {
            assert!(ErrorCode::ALL[..index].iter().all(|other| other.name() != code.name()), "{code} twice");
            let json = serde_json::to_string(code).expect("code to JSON");
            assert_eq!(json, format!("{:?}", code.name()));
            assert_eq!(serde_json::from_str::<ErrorCode>(&json).expect("and back"), *code);
            assert!((400..600).contains(&code.status()), "{code} is an error");
        }
    }
}
