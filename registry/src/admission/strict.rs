//! Strict JSON: what two readers could understand differently is refused before anybody reads it.
//!
//! Duplicate keys are refused at every level; where the document is evidence, keys that differ only in case are
//! too, because Go's decoder takes either. Labels and annotations of images may differ in case, and do.
//! Depth is bounded by serde_json's own limit of 128 levels. A text with a byte order mark, bare NaN or lone
//! surrogates is no JSON here. It must not interpret documents, only read them.

use serde::de::{self, DeserializeOwned, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use std::{collections::HashSet, fmt};

/// Why a document is refused before it is read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not strict JSON: {0}")]
pub struct StrictError(String);

/// Which keys of one object count as the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Twins {
    /// Equal ones.
    Exact,
    /// Those that differ only in case too.
    AnyCase,
}

/// Reads `bytes` as one strict document.
pub fn from_slice<T: DeserializeOwned>(bytes: &[u8], twins: Twins) -> Result<T, StrictError> {
    check(bytes, twins)?;
    serde_json::from_slice(bytes).map_err(|error| StrictError(error.to_string()))
}

/// Checks that `bytes` are exactly one JSON value without ambiguous keys.
pub fn check(bytes: &[u8], twins: Twins) -> Result<(), StrictError> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let done = twins.deserialize(&mut reader).and_then(|()| reader.end());
    done.map_err(|error| StrictError(error.to_string()))
}

impl Twins {
    /// What is equal for keys that count as the same.
    fn fold(self, key: &str) -> String {
        match self {
            Self::Exact => key.to_owned(),
            // Up and down again also folds letters with one case only, such as the long s, as Go does.
            Self::AnyCase => key.to_uppercase().to_lowercase(),
        }
    }
}

// Walks a value, keeps nothing, and fails at the first ambiguous key.
impl<'de> DeserializeSeed<'de> for Twins {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Twins {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while items.next_element_seed(self)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<(), A::Error> {
        let mut seen = HashSet::new();
        while let Some(key) = fields.next_key::<String>()? {
            if !seen.insert(self.fold(&key)) {
                let shown: String = key.chars().take(80).collect();
                return Err(de::Error::custom(format!("the key {shown:?} stands twice in one object")));
            }
            fields.next_value_seed(self)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_two_readers_could_read_differently_is_refused() {
        let nested = "[".repeat(200) + &"]".repeat(200);
        for bad in [
            r#"{"a":1,"a":2}"#,
            r#"{"predicateType":"x","PredicateType":"y"}"#,
            "{\"subject\":1,\"\u{17f}ubject\":2}",
            r#"{"a":{"b":[{"c":1,"\u0063":2}]}}"#,
            "\u{feff}{}",
            r#"{"a":NaN}"#,
            r#""\ud800""#,
            "{} {}",
            "{",
            "",
            &nested,
        ] {
            assert!(check(bad.as_bytes(), Twins::AnyCase).is_err(), "{bad:.60} must be refused");
        }
        assert!(check(b"\xff", Twins::Exact).is_err(), "invalid UTF-8 must be refused");
        for good in [r#"{"a":[{"a":{"a":null}},{"a":1.5}]}"#, "[]", " {\"a\":true,\"b\":-1}\n"] {
            assert_eq!(check(good.as_bytes(), Twins::AnyCase), Ok(()), "{good}");
        }
        let labels = br#"{"Labels":{"Vendor":"a","vendor":"b"}}"#;
        assert_eq!(check(labels, Twins::Exact), Ok(()));
        assert!(check(labels, Twins::AnyCase).is_err());
        assert!(check(br#"{"a":1,"a":2}"#, Twins::Exact).is_err());
    }
}
