//! One handled request, as it is metered and billed. The ledger's owner is `node`; this is only its vocabulary.

use crate::id::{FunctionName, RequestId, TenantName};
use serde::{Deserialize, Serialize};

/// One record of the usage ledger: what one invocation used. Written once, before its response ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageRecord {
    /// Unique over all restarts: the server's boot epoch and a sequence number, as `epoch-seq` in hex.
    pub id: String,
    /// The request's id, as the client saw it in `X-Request-Id`.
    pub request_id: RequestId,
    /// Who pays.
    pub tenant: TenantName,
    /// Which function.
    pub function: FunctionName,
    /// Which revision of it.
    pub revision: u32,
    /// When the work began, in milliseconds since 1970.
    pub start_ms: u64,
    /// From the beginning of the work to the end of the response, in microseconds.
    pub wall_us: u64,
    /// CPU time, in microseconds: measured per invocation for Wasm; for a container its cgroup's CPU time
    /// since the last record, shared among the invocations that ran then.
    pub cpu_us: u64,
    /// Peak memory in bytes: linear memories for Wasm, the cgroup's for a container.
    pub memory_bytes: u64,
    /// Request body bytes that the function got.
    pub bytes_in: u64,
    /// Response body bytes that the client was given.
    pub bytes_out: u64,
    /// HTTP status; 499 where the client went away before there was one.
    pub status: u16,
    /// Whether the request waited for a start.
    pub cold: bool,
}

/// Sums over records; what `neap usage` shows per function.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct UsageSum {
    /// Records summed.
    pub invocations: u64,
    /// Of those, how many waited for a start.
    pub cold_starts: u64,
    /// Of those, how many answered with 500 to 599.
    pub errors: u64,
    /// Sum of wall time, in microseconds.
    pub wall_us: u64,
    /// Sum of CPU time, in microseconds.
    pub cpu_us: u64,
    /// Sum of memory × wall time, in byte-microseconds: exact, where floats would drift.
    pub memory_byte_us: u128,
    /// Sum of request body bytes.
    pub bytes_in: u64,
    /// Sum of response body bytes.
    pub bytes_out: u64,
}

impl UsageSum {
    /// Adds one record.
    pub fn add(&mut self, record: &UsageRecord) {
        self.invocations += 1;
        self.cold_starts += u64::from(record.cold);
        self.errors += u64::from((500..600).contains(&record.status));
        self.wall_us += record.wall_us;
        self.cpu_us += record.cpu_us;
        self.memory_byte_us += u128::from(record.memory_bytes) * u128::from(record.wall_us);
        self.bytes_in += record.bytes_in;
        self.bytes_out += record.bytes_out;
    }

    /// Memory held over time, in GB-seconds (10⁹ bytes).
    pub fn gb_seconds(&self) -> f64 {
        self.memory_byte_us as f64 / 1e15
    }

    /// CPU time, in seconds.
    pub fn cpu_seconds(&self) -> f64 {
        self.cpu_us as f64 / 1e6
    }
}
