//! When a connection is too slow: a state machine over what happens on it, without clock and without timer.
//!
//! ```text
//!            bytes                 head complete
//! Opening ─────────▶ Head ◀──────┐      │
//!    │ h2 preface      └─────────┼──────▼
//!    └───────────────▶ Idle ─────┘    Busy(n)
//!                       ▲  bytes (h1)   │
//!                       └───────────────┘ last answer ended
//! ```
//!
//! hyper's own header timeout would not do: it allocates a timer per request, runs while a kept-alive connection
//! waits for its next request, and does not yet run while the protocol is being recognised.

use std::time::{Duration, Instant};

/// How long a client may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// For a request's head, from its first byte (the first one: from the connection's beginning).
    pub(crate) head: Duration,
    /// Between requests.
    pub(crate) idle: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// No byte has come.
    Opening { since: Instant },
    /// A request's head is coming.
    Head { since: Instant },
    /// Nothing is being asked.
    Idle { since: Instant },
    /// So many requests are being answered; how long they may take is their functions' limit.
    Busy { requests: u32 },
}

/// What happens on one connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Watch {
    phase: Phase,
    /// HTTP/2: bytes between requests are not the beginning of a head.
    is_multiplexed: bool,
}

impl Watch {
    /// A connection that was just accepted.
    pub(crate) fn new(now: Instant) -> Self {
        Self { phase: Phase::Opening { since: now }, is_multiplexed: false }
    }

    /// The client sent something. `now` is asked only where it matters.
    pub(crate) fn on_read(&mut self, bytes: &[u8], now: impl FnOnce() -> Instant) {
        self.phase = match self.phase {
            Phase::Opening { .. } if bytes.starts_with(b"PRI") => {
                self.is_multiplexed = true;
                Phase::Idle { since: now() }
            }
            Phase::Opening { since } => Phase::Head { since },
            Phase::Idle { .. } if !self.is_multiplexed => Phase::Head { since: now() },
            other => other,
        }
    }

    /// The client took something. The end of a long answer may leave the buffers long after it was made.
    pub(crate) fn on_write(&mut self, now: impl FnOnce() -> Instant) {
        if matches!(self.phase, Phase::Idle { .. }) && !self.is_multiplexed {
            self.phase = Phase::Idle { since: now() };
        }
    }

    /// A request's head is complete.
    pub(crate) fn on_request(&mut self) {
        let requests = match self.phase {
            Phase::Busy { requests } => requests + 1,
            Phase::Opening { .. } | Phase::Head { .. } | Phase::Idle { .. } => 1,
        };
        self.phase = Phase::Busy { requests };
    }

    /// An answer has ended.
    pub(crate) fn on_answered(&mut self, now: impl FnOnce() -> Instant) {
        self.phase = match self.phase {
            Phase::Busy { requests } if requests > 1 => Phase::Busy { requests: requests - 1 },
            _ => Phase::Idle { since: now() },
        };
    }

    /// Whether requests are being answered.
    #[cfg(test)]
    fn is_busy(&self) -> bool {
        matches!(self.phase, Phase::Busy { .. })
    }

    /// When to look again; `None` if the client's time is up.
    pub(crate) fn check(&self, now: Instant, patience: Patience) -> Option<Instant> {
        let deadline = match self.phase {
            Phase::Opening { since } | Phase::Head { since } => since + patience.head,
            Phase::Idle { since } => since + patience.idle,
            Phase::Busy { .. } => now + patience.idle,
        };
        // A phase may change between two looks, and to a shorter deadline.
        (deadline > now).then(|| deadline.min(now + patience.head / 2))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience = Patience { head: Duration::from_secs(10), idle: Duration::from_secs(60) };

    fn at(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn a_client_that_drips_its_head_is_not_given_more_time_per_byte() {
        let start = Instant::now();
        let mut watch = Watch::new(start);
        for second in 1..10 {
            watch.on_read(b"G", || at(start, second));
            assert!(watch.check(at(start, second), PATIENCE).is_some());
        }
        assert_eq!(watch.check(at(start, 10), PATIENCE), None);
    }

    #[test]
    fn an_idle_connection_lives_longer_than_one_in_a_head() {
        let start = Instant::now();
        let mut watch = Watch::new(start);
        watch.on_read(b"GET / HTTP/1.1\r\n\r\n", || start);
        watch.on_request();
        assert!(watch.is_busy() && watch.check(at(start, 1_000), PATIENCE).is_some(), "busy is not slow");
        watch.on_answered(|| at(start, 100));
        watch.on_write(|| at(start, 101));
        assert!(watch.check(at(start, 160), PATIENCE).is_some());
        assert_eq!(watch.check(at(start, 161), PATIENCE), None);
        watch.on_read(b"G", || at(start, 150));
        assert!(watch.check(at(start, 159), PATIENCE).is_some());
        assert_eq!(watch.check(at(start, 160), PATIENCE), None, "the next head has begun at 150");
    }

    #[test]
    fn pings_do_not_keep_an_idle_http2_connection() {
        let start = Instant::now();
        let mut watch = Watch::new(start);
        watch.on_read(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", || start);
        for second in 1..60 {
            watch.on_read(b"ping", || at(start, second));
            watch.on_write(|| at(start, second));
            assert!(watch.check(at(start, second), PATIENCE).is_some());
        }
        assert_eq!(watch.check(at(start, 60), PATIENCE), None);
        watch.on_request();
        watch.on_request();
        watch.on_answered(|| start);
        assert!(watch.is_busy(), "one stream is still open");
    }
}
