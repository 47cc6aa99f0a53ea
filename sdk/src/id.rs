//! Names and ids. Each is checked when it is parsed; past the edge nobody passes a bare `String` for one.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {text:?} must be 1 to 40 of a-z, 0-9 and '-', and start and end with a letter or a digit")]
pub struct ParseNameError {
    what: &'static str,
    text: String,
}

/// Longest name, in bytes. A function's name is a DNS label (at most 63) and leaves room for a prefix.
pub const NAME_BYTES_MAX: usize = 40;

fn check_name(what: &'static str, text: &str) -> Result<(), ParseNameError> {
    let edge_ok = |byte: Option<&u8>| byte.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let bytes = text.as_bytes();
    let inner_ok = bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-');
    if inner_ok && edge_ok(bytes.first()) && edge_ok(bytes.last()) && bytes.len() <= NAME_BYTES_MAX {
        return Ok(());
    }
    Err(ParseNameError { what, text: text.chars().take(80).collect() })
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Box<str>);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = ParseNameError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                check_name($what, text)?;
                Ok(Self(text.into()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = ParseNameError;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0.into()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(
    /// What a tenant calls a function; also the first label of its default host name.
    FunctionName,
    "function name"
);
name!(
    /// Who owns functions, keys, quotas and usage; the first part of a repository's name.
    TenantName,
    "tenant name"
);

impl Default for TenantName {
    /// The tenant of a machine that has only one.
    fn default() -> Self {
        Self("default".into())
    }
}

/// One immutable version of one function: `tenant/function@number`, numbers counting from 1.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RevisionId {
    /// Who owns the function.
    pub tenant: TenantName,
    /// The function.
    pub function: FunctionName,
    /// The version, from 1; never reused.
    pub number: u32,
}

impl fmt::Display for RevisionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}@{}", self.tenant, self.function, self.number)
    }
}

impl fmt::Debug for RevisionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A running or frozen copy of a revision. Unique on one node for one start of the node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct InstanceId(pub u64);

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "i{:x}", self.0)
    }
}

impl fmt::Debug for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The id a client sent in `X-Request-Id`, or the one the gateway made: 1 to 64 visible ASCII characters.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RequestId(Box<str>);

impl RequestId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RequestId {
    type Err = ParseNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let visible = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:+/=".contains(byte);
        if (1..=64).contains(&text.len()) && text.as_bytes().iter().all(visible) {
            return Ok(Self(text.into()));
        }
        Err(ParseNameError { what: "request id", text: text.chars().take(80).collect() })
    }
}

impl TryFrom<String> for RequestId {
    type Error = ParseNameError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<RequestId> for String {
    fn from(id: RequestId) -> Self {
        id.0.into()
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dns_labels() {
        for good in ["a", "hello", "a-1", "0x", "a--b"] {
            assert_eq!(good.parse::<FunctionName>().map(|name| name.to_string()), Ok(good.to_owned()));
        }
        let long = "a".repeat(NAME_BYTES_MAX + 1);
        for bad in ["", "-a", "a-", "A", "a.b", "a/b", "ä", "a b", "..", &long] {
            assert!(bad.parse::<FunctionName>().is_err(), "{bad:?} must be refused");
        }
    }

    #[test]
    fn request_ids_cannot_break_a_header_or_a_log_line() {
        assert!("4bf92f35-77b3".parse::<RequestId>().is_ok());
        for bad in ["", "a b", "a\nb", "a\"b", &"x".repeat(65)] {
            assert!(bad.parse::<RequestId>().is_err(), "{bad:?} must be refused");
        }
    }
}
