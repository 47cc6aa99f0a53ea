//! How the desired state lies in the store: one kind of key per kind of thing, JSON values.
//!
//! | key | value |
//! |---|---|
//! | `/functions/<tenant>/<name>` | next number, traffic, previous; stays when the function is deleted |
//! | `/revisions/<tenant>/<name>/<number>` | [`Revision`] |
//! | `/routes/<host><path>` | the function that claims it |

use super::{Change, Cluster, Function, FunctionKey, Head, Revision};
use crate::store::Write;
use neap_sdk::{api::TrafficShare, function::RoutePattern};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

const FUNCTIONS: &str = "/functions/";
const REVISIONS: &str = "/revisions/";
const ROUTES: &str = "/routes/";

/// The store holds a key that this version cannot read.
#[derive(Debug, thiserror::Error)]
#[error("the store's key {key:?} cannot be read by this version of neap")]
pub struct CorruptError {
    /// Which.
    pub key: String,
    /// Why.
    pub source: Option<serde_json::Error>,
}

#[derive(Serialize, Deserialize)]
struct HeadRecord {
    next_number: u32,
    /// Whether there is a function; else this is only the memory of its numbers.
    alive: bool,
    #[serde(default)]
    traffic: Vec<TrafficShare>,
    #[serde(default)]
    previous: Option<u32>,
}

pub(super) fn function_key(key: &FunctionKey) -> String {
    format!("{FUNCTIONS}{key}")
}

fn revision_key(key: &FunctionKey, number: u32) -> String {
    // Padded, so that the order of keys is that of numbers.
    format!("{REVISIONS}{key}/{number:010}")
}

pub(super) fn route_key(pattern: &RoutePattern) -> String {
    format!("{ROUTES}{pattern}")
}

fn put(key: String, value: &impl Serialize) -> Write {
    let value =
        serde_json::to_vec(value).expect("records hold nothing that JSON cannot: string keys, no floats");
    Write::Put { key, value }
}

/// The record of a function, or of its grave.
pub(super) fn put_head(key: &FunctionKey, next_number: u32, function: Option<&Function>) -> Write {
    let record = HeadRecord {
        next_number,
        alive: function.is_some(),
        traffic: function.map(|function| function.traffic.clone()).unwrap_or_default(),
        previous: function.and_then(|function| function.previous),
    };
    put(function_key(key), &record)
}

pub(super) fn put_revision(key: &FunctionKey, revision: &Revision) -> Write {
    put(revision_key(key, revision.number), revision)
}

pub(super) fn delete_revision(key: &FunctionKey, number: u32) -> Write {
    Write::Delete { key: revision_key(key, number) }
}

pub(super) fn put_route(pattern: &RoutePattern, owner: &FunctionKey) -> Write {
    put(route_key(pattern), owner)
}

fn parse_function_key(text: &str) -> Option<FunctionKey> {
    let (tenant, name) = text.split_once('/')?;
    Some(FunctionKey { tenant: tenant.parse().ok()?, name: name.parse().ok()? })
}

fn parse_revision_key(text: &str) -> Option<(FunctionKey, u32)> {
    let (function, number) = text.rsplit_once('/')?;
    Some((parse_function_key(function)?, number.parse().ok()?))
}

fn decode<'de, T: Deserialize<'de>>(key: &str, value: &'de [u8]) -> Result<T, CorruptError> {
    serde_json::from_slice(value).map_err(|source| CorruptError { key: key.to_owned(), source: Some(source) })
}

impl Cluster {
    pub(super) fn apply_one(&mut self, change: &Change) -> Result<(), CorruptError> {
        let key = change.key.as_str();
        let corrupt = || CorruptError { key: key.to_owned(), source: None };
        if let Some(name) = key.strip_prefix(FUNCTIONS) {
            self.apply_head(parse_function_key(name).ok_or_else(corrupt)?, change)
        } else if let Some(name) = key.strip_prefix(REVISIONS) {
            self.apply_revision(parse_revision_key(name).ok_or_else(corrupt)?, change)
        } else if let Some(pattern) = key.strip_prefix(ROUTES) {
            self.apply_route(pattern.parse().map_err(|_| corrupt())?, change)
        } else {
            Err(corrupt())
        }
    }

    fn apply_head(&mut self, name: FunctionKey, change: &Change) -> Result<(), CorruptError> {
        let record: Option<HeadRecord> =
            change.value.as_deref().map(|value| decode(&change.key, value)).transpose()?;
        self.graves.remove(&name);
        let Some(record) = record else {
            self.functions.remove(&name);
            return Ok(());
        };
        let head = Head { next_number: record.next_number, mod_revision: change.revision };
        if record.alive {
            let function = self.functions.entry(name).or_default();
            function.traffic = record.traffic;
            function.previous = record.previous;
            function.head = head;
        } else {
            self.functions.remove(&name);
            self.graves.insert(name, head);
        }
        Ok(())
    }

    fn apply_revision(
        &mut self,
        (name, number): (FunctionKey, u32),
        change: &Change,
    ) -> Result<(), CorruptError> {
        match &change.value {
            Some(value) => {
                let revision: Revision = decode(&change.key, value)?;
                self.functions.entry(name).or_default().revisions.insert(number, Arc::new(revision));
            }
            None => {
                if let Some(function) = self.functions.get_mut(&name) {
                    function.revisions.remove(&number);
                }
            }
        }
        Ok(())
    }

    fn apply_route(&mut self, pattern: RoutePattern, change: &Change) -> Result<(), CorruptError> {
        match &change.value {
            Some(value) => {
                self.claims.insert(pattern, decode(&change.key, value)?);
            }
            None => {
                self.claims.remove(&pattern);
            }
        }
        Ok(())
    }
}
