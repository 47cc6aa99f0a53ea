//! How CPU time that is measured for a whole container is shared among its invocations: the time since the last
//! record is split evenly among those that ran then. Pure; must not read any meter itself.

/// The account of one instance.
#[derive(Debug)]
pub(crate) struct CpuShare {
    /// The instance's CPU time at the last record.
    seen_us: u64,
    /// What an invocation that ran since the beginning would have been given.
    given_ns: u64,
    /// What did not divide evenly; goes into the next division.
    rest_ns: u64,
    running: u64,
}

/// What the account stood at when an invocation began.
#[derive(Debug)]
pub(crate) struct ShareMark(u64);

impl CpuShare {
    /// An account that begins at this reading.
    pub(crate) fn new(cpu_us: u64) -> Self {
        Self { seen_us: cpu_us, given_ns: 0, rest_ns: 0, running: 0 }
    }

    /// An invocation begins.
    pub(crate) fn begin(&mut self) -> ShareMark {
        self.running += 1;
        ShareMark(self.given_ns)
    }

    /// An invocation ends, at this reading; returns its share in microseconds, rounded down.
    pub(crate) fn end(&mut self, mark: ShareMark, cpu_us: u64) -> u64 {
        let used_ns = cpu_us.saturating_sub(self.seen_us).saturating_mul(1_000) + self.rest_ns;
        self.seen_us = self.seen_us.max(cpu_us);
        let running = self.running.max(1);
        self.given_ns += used_ns / running;
        self.rest_ns = used_ns % running;
        self.running = running - 1;
        (self.given_ns - mark.0) / 1_000
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn one_invocation_gets_all_and_two_share() {
        let mut share = CpuShare::new(500);
        let alone = share.begin();
        assert_eq!(share.end(alone, 600), 100, "what was used before is not charged");
        let (first, second) = (share.begin(), share.begin());
        assert_eq!(share.end(first, 700), 50);
        assert_eq!(share.end(second, 800), 150, "half of the first 100, all of the second");
    }

    proptest! {
        /// Nothing is billed that was not used, and what was used is billed but for the rounding.
        #[test]
        fn shares_add_up(steps in proptest::collection::vec((any::<bool>(), 0_u64..10_000), 1..200)) {
            let mut share = CpuShare::new(0);
            let (mut marks, mut cpu_us, mut billed, mut ended) = (Vec::new(), 0, 0, 0);
            for (begin, used) in steps {
                cpu_us += used;
                match marks.pop() {
                    Some(mark) if !begin => { billed += share.end(mark, cpu_us); ended += 1; }
                    other => { marks.extend(other); marks.push(share.begin()); }
                }
            }
            for mark in marks { billed += share.end(mark, cpu_us); ended += 1; }
            prop_assert!(billed <= cpu_us);
            prop_assert!(cpu_us - billed <= ended * 2, "{cpu_us} used, {billed} billed");
        }
    }
}
