//! Request ids: the client's where it sent a valid one, else 128 random bits in hex. Ids are unique, not secret.

use http::{HeaderMap, HeaderName, HeaderValue};
use neap_sdk::id::RequestId;
use rand::{Rng, SeedableRng, rngs::SmallRng, rngs::SysError, rngs::SysRng};
use std::cell::RefCell;

/// Carries the request's id, both ways.
pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// A core's source of randomness: fast, seeded by the operating system, not for secrets.
pub(crate) struct Random(RefCell<SmallRng>);

impl Random {
    /// # Errors
    /// The operating system gives no random bytes.
    pub(crate) fn from_os() -> Result<Self, SysError> {
        Ok(Self(RefCell::new(SmallRng::try_from_rng(&mut SysRng)?)))
    }

    /// 32 random bits.
    pub(crate) fn next_u32(&self) -> u32 {
        self.0.borrow_mut().next_u32()
    }

    fn next_u64(&self) -> u64 {
        self.0.borrow_mut().next_u64()
    }

    /// The id of a request with these headers. Sent twice, or malformed, the client's counts as none.
    pub(crate) fn request_id(&self, headers: &HeaderMap) -> RequestId {
        let mut sent = headers.get_all(X_REQUEST_ID).iter();
        match (sent.next().and_then(parse), sent.next()) {
            (Some(id), None) => id,
            _ => self.new_request_id(),
        }
    }

    fn new_request_id(&self) -> RequestId {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let bits = u128::from(self.next_u64()) << 64 | u128::from(self.next_u64());
        let text: String =
            (0..32).rev().map(|nibble| char::from(DIGITS[(bits >> (4 * nibble)) as usize & 15])).collect();
        text.parse().expect("32 hex digits are a request id")
    }
}

fn parse(value: &HeaderValue) -> Option<RequestId> {
    value.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_valid_id_is_kept_and_any_other_is_replaced() {
        let random = Random::from_os().expect("random bytes of the system");
        let id = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(X_REQUEST_ID, HeaderValue::from_str(value).expect("header value"));
            }
            random.request_id(&headers).to_string()
        };
        assert_eq!(id(&["abc-1"]), "abc-1");
        for bad in [&[][..], &["a b"], &["a\"b"], &["a", "b"], &[&"x".repeat(65)]] {
            let made = id(bad);
            assert!(made.len() == 32 && made.bytes().all(|b| b.is_ascii_hexdigit()), "{made}");
            assert_ne!(made, id(bad), "every request has its own");
        }
    }
}
