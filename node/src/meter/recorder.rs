//! The record of one invocation while it runs. It is written exactly once: when the response is known to end, or
//! at the latest when this is dropped, because the client went away. Must not decide what a response is.

use super::share::ShareMark;
use crate::{
    call::InvocationCall,
    instance::{gate::Ticket, pool::Cell},
    node::Shared,
    runtime::CallMeter,
};
use neap_sdk::invocation::UsageRecord;
use std::{
    sync::{Arc, atomic::Ordering},
    time::{Instant, SystemTime, UNIX_EPOCH},
};

/// What nginx logs for a client that closed the connection before there was a status; not an HTTP status.
const STATUS_CLIENT_GONE: u16 = 499;

/// One invocation, from the beginning of its work until its record is written and its place is free.
pub(crate) struct Recorder {
    shared: Arc<Shared>,
    cell: Arc<Cell>,
    meter: Arc<CallMeter>,
    call: InvocationCall,
    share: Option<ShareMark>,
    start_ms: u64,
    begun: Instant,
    /// Response body bytes handed on so far.
    pub(crate) bytes_out: u64,
    /// The status that the client has been given, or is about to.
    pub(crate) status: u16,
    written: bool,
    /// Last, so that the place is free only once the record is written.
    _ticket: Ticket,
}

impl Recorder {
    pub(crate) fn begin(
        shared: &Arc<Shared>,
        cell: &Arc<Cell>,
        ticket: Ticket,
        call: InvocationCall,
    ) -> Self {
        Self {
            shared: shared.clone(),
            cell: cell.clone(),
            meter: Arc::default(),
            call,
            share: cell.running.get().and_then(|running| running.begin_share()),
            start_ms: now_ms(),
            begun: Instant::now(),
            bytes_out: 0,
            status: STATUS_CLIENT_GONE,
            written: false,
            _ticket: ticket,
        }
    }

    pub(crate) fn meter(&self) -> &Arc<CallMeter> {
        &self.meter
    }

    pub(crate) fn cell(&self) -> &Arc<Cell> {
        &self.cell
    }

    /// Writes the record, the first time it is called.
    pub(crate) fn finish(&mut self) {
        if self.written {
            return;
        }
        self.written = true;
        let (cpu_us, memory_bytes) = self.used();
        let revision = &self.cell.revision;
        self.shared.ledger.append(UsageRecord {
            id: String::new(),
            request_id: self.call.request_id.clone(),
            tenant: revision.tenant.clone(),
            function: revision.function.clone(),
            revision: revision.number,
            start_ms: self.start_ms,
            wall_us: u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX),
            cpu_us,
            memory_bytes,
            bytes_in: self.meter.bytes_in.load(Ordering::Relaxed),
            bytes_out: self.bytes_out,
            status: self.status,
            cold: self.call.cold,
        });
    }

    fn used(&mut self) -> (u64, u64) {
        if let (Some(mark), Some(running)) = (self.share.take(), self.cell.running.get()) {
            let usage = running.end_share(mark);
            return (usage.cpu_us, usage.memory_peak_bytes);
        }
        self.meter.source().map_or((0, 0), |source| (source.cpu_us(), source.memory_bytes()))
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.finish();
    }
}

/// Milliseconds since 1970; 0 for a clock set before that.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
