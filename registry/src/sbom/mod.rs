//! Software bills of materials: makes CycloneDX 1.6, reads CycloneDX 1.2–1.7 and SPDX 2.2/2.3 as JSON.
//!
//! [`generate`] lists what is known and says where knowledge ends; it invents nothing. [`Inventory`] is a
//! tolerant, bounded reading for admission and for people. Neither verifies who wrote a document.

mod contents;
mod generate;
mod inventory;

#[cfg(test)]
mod tests;

pub use contents::{Contents, ContentsError, ContentsSource, Package};
pub use generate::{Part, Target, generate};
pub use inventory::{Component, Family, Inventory, InventoryError};

/// A time, in seconds since 1970, as RFC 3339 in UTC.
pub(crate) fn rfc3339(at_s: u64) -> String {
    // What no calendar holds (the year 9999 and later) becomes the epoch: a time is decoration here, never evidence.
    i64::try_from(at_s)
        .ok()
        .and_then(|at_s| jiff::Timestamp::from_second(at_s).ok())
        .unwrap_or(jiff::Timestamp::UNIX_EPOCH)
        .to_string()
}
