//! The usage ledger: one record per invocation, exactly one, and none lost when the process is killed.
//!
//! # Promises, and how they are kept
//! - **Written before the response ends**: `write(2)` returns before the last body frame is handed on, so a client
//!   that has its whole answer is in the ledger. After that the record is in the kernel: `kill -9` cannot lose it.
//! - **Power loss** can lose what was written since the last `fsync`, at most about a second, because the
//!   request path never waits for a disk.
//! - **Never twice**: ids are `epoch-seq`; the epoch is durable and grows with each opening. A segment that was
//!   folded into sums is named in the same line as its sums, so it counts either raw or folded.
//! - **Disk full or broken**: the failure is logged and counted (`neap_ledger_errors_total`) and the response goes
//!   out; that invocation is not billed. Serving does not depend on the disk.
//!
//! # Layout
//! - `ledger`: the files' one writer, and the thread that syncs and folds.
//! - `line`: the form of a line. `fold`: segments into hourly sums. `read`: both back again.
//! - `share`: how a container's CPU time is split. `recorder`: the record of a running invocation.
//!
//! Must not know prices, and never blocks on `fsync` where a request waits.

mod fold;
mod ledger;
mod line;
mod read;
pub(crate) mod recorder;
pub(crate) mod share;
#[cfg(test)]
mod tests;

pub use ledger::{Ledger, OpenLedgerError};
pub(crate) use ledger::{LedgerCounters, LedgerSettings};
pub use read::{ReadUsageError, Records};

use neap_sdk::id::{FunctionName, TenantName};

/// Which usage is asked for; the default is all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UsageFilter {
    /// Only of this tenant.
    pub tenant: Option<TenantName>,
    /// Only of this function.
    pub function: Option<FunctionName>,
    /// Only invocations that began at or after this, in milliseconds since 1970. Old usage is known by the hour
    /// only: an hour counts when it ends after this.
    pub since_ms: u64,
}

impl UsageFilter {
    fn takes(&self, tenant: &TenantName, function: &FunctionName) -> bool {
        self.tenant.as_ref().is_none_or(|wanted| wanted == tenant)
            && self.function.as_ref().is_none_or(|wanted| wanted == function)
    }
}
