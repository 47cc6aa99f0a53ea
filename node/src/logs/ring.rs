//! The lines of one function: a ring with a limit in lines and in bytes, and those who follow it.
//! Must not know files, except for how far they are.

use neap_sdk::{api::LogLine, limits};
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::broadcast;

/// What a line costs besides its text: its other fields and their bookkeeping, roughly.
const LINE_OVERHEAD_BYTES: usize = 128;

/// One function's log.
#[derive(Debug, Default)]
pub(super) struct FunctionLog(Mutex<Ring>);

#[derive(Debug, Default)]
struct Ring {
    lines: VecDeque<Arc<LogLine>>,
    bytes: usize,
    /// How many of the newest lines are not in the file yet.
    unflushed: usize,
    /// Only while somebody follows.
    live: Option<broadcast::Sender<Arc<LogLine>>>,
}

fn cost_bytes(line: &LogLine) -> usize {
    line.text.len() + LINE_OVERHEAD_BYTES
}

impl Ring {
    fn push(&mut self, line: Arc<LogLine>) {
        self.bytes += cost_bytes(&line);
        self.lines.push_back(line.clone());
        while self.lines.len() > limits::LOG_LINES_KEPT_MAX || self.bytes > limits::LOG_BYTES_KEPT_MAX {
            let Some(oldest) = self.lines.pop_front() else { break };
            self.bytes -= cost_bytes(&oldest);
        }
        self.unflushed = (self.unflushed + 1).min(self.lines.len());
        if let Some(live) = &self.live
            && live.send(line).is_err()
        {
            self.live = None;
        }
    }
}

impl FunctionLog {
    /// A log with lines that are in its file already.
    pub(super) fn restored(lines: Vec<LogLine>) -> Self {
        let mut ring = Ring::default();
        lines.into_iter().for_each(|line| ring.push(Arc::new(line)));
        ring.unflushed = 0;
        Self(Mutex::new(ring))
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn push(&self, line: LogLine) {
        self.ring().push(Arc::new(line));
    }

    pub(super) fn since(&self, since_ms: u64) -> Vec<Arc<LogLine>> {
        since(&self.ring(), since_ms).collect()
    }

    pub(super) fn last_of(&self, instance: &str, count: usize) -> Vec<Arc<LogLine>> {
        let ring = self.ring();
        let newest_first = ring.lines.iter().rev().filter(|line| line.instance == instance);
        let mut lines: Vec<_> = newest_first.take(count).cloned().collect();
        lines.reverse();
        lines
    }

    pub(super) fn follow(&self, since_ms: u64) -> LogFollower {
        let mut ring = self.ring();
        let kept = since(&ring, since_ms).collect();
        let live = ring.live.get_or_insert_with(|| broadcast::channel(limits::LOG_FOLLOWER_LAG_MAX).0);
        LogFollower { kept, live: live.subscribe() }
    }

    /// The lines that are not in the file yet; they count as flushed from now on.
    pub(super) fn take_unflushed(&self) -> Vec<Arc<LogLine>> {
        let mut ring = self.ring();
        let first = ring.lines.len() - std::mem::take(&mut ring.unflushed);
        ring.lines.range(first..).cloned().collect()
    }
}

fn since(ring: &Ring, since_ms: u64) -> impl Iterator<Item = Arc<LogLine>> + '_ {
    ring.lines.iter().filter(move |line| line.at_ms >= since_ms).cloned()
}

/// Reads a function's log as it grows.
#[derive(Debug)]
pub struct LogFollower {
    kept: VecDeque<Arc<LogLine>>,
    live: broadcast::Receiver<Arc<LogLine>>,
}

/// What a follower sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogEvent {
    /// The next line.
    Line(Arc<LogLine>),
    /// The reader was too slow and lost so many lines.
    Lost(u64),
}

impl LogFollower {
    /// The next event; waits for it. `None` once the function's log was removed. Cancel-safe.
    pub async fn next(&mut self) -> Option<LogEvent> {
        if let Some(line) = self.kept.pop_front() {
            return Some(LogEvent::Line(line));
        }
        match self.live.recv().await {
            Ok(line) => Some(LogEvent::Line(line)),
            Err(broadcast::error::RecvError::Lagged(lost)) => Some(LogEvent::Lost(lost)),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}
