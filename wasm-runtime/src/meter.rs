//! What one invocation uses, and where it must stop: memory, CPU time, wall time. Measures and decides; it never
//! waits.

use crate::call::CallLimits;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use wasmtime::ResourceLimiter;

/// What one invocation has used so far. The figures are final once the response body has ended or was dropped.
#[derive(Debug, Default)]
pub struct Meter {
    cpu_us: AtomicU64,
    memory_bytes: AtomicU64,
}

impl Meter {
    /// CPU time of the guest and of the host on its behalf, in microseconds.
    pub fn cpu_us(&self) -> u64 {
        self.cpu_us.load(Relaxed)
    }

    /// Peak of all linear memories together, in bytes.
    pub fn memory_bytes(&self) -> u64 {
        self.memory_bytes.load(Relaxed)
    }
}

/// Which limit stopped a guest; travels through wasmtime as the error of its epoch callback.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Overrun {
    #[error("out of wall-clock time")]
    Wall,
    #[error("out of CPU time")]
    Cpu,
}

/// The time of one invocation: shared by its driver, which measures, and its epoch callback, which stops it.
#[derive(Debug)]
pub(crate) struct Budget {
    pub(crate) limits: CallLimits,
    /// When the wall-clock time is used up; `None` lies beyond what the clock can tell.
    pub(crate) deadline: Option<Instant>,
    meter: Arc<Meter>,
    used_ns: AtomicU64,
    /// What this thread's CPU clock showed when the guest was last let run.
    resumed_ns: AtomicU64,
}

impl Budget {
    pub(crate) fn new(limits: CallLimits, meter: Arc<Meter>) -> Self {
        let deadline = Instant::now().checked_add(limits.wall);
        Self { limits, deadline, meter, used_ns: AtomicU64::new(0), resumed_ns: AtomicU64::new(0) }
    }

    /// Runs a piece of the invocation and adds its CPU time. Not nested.
    pub(crate) fn measure<T>(&self, piece: impl FnOnce() -> T) -> T {
        self.resumed_ns.store(thread_cpu_ns(), Relaxed);
        let result = piece();
        let used_ns = self.used_ns();
        self.used_ns.store(used_ns, Relaxed);
        self.meter.cpu_us.store(used_ns / 1_000, Relaxed);
        result
    }

    /// CPU time up to now; only within [`Self::measure`].
    fn used_ns(&self) -> u64 {
        self.used_ns.load(Relaxed) + thread_cpu_ns().saturating_sub(self.resumed_ns.load(Relaxed))
    }

    /// Whether the guest may go on; only within [`Self::measure`].
    pub(crate) fn check(&self) -> Result<(), Overrun> {
        if self.is_late() {
            return Err(Overrun::Wall);
        }
        if Duration::from_nanos(self.used_ns()) >= self.limits.cpu { Err(Overrun::Cpu) } else { Ok(()) }
    }

    pub(crate) fn is_late(&self) -> bool {
        self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }
}

/// CPU time of this thread, in nanoseconds.
fn thread_cpu_ns() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

/// Holds the linear memories of one invocation below its limit.
#[derive(Debug)]
pub(crate) struct Memory {
    meter: Arc<Meter>,
    limit_bytes: u64,
    used_bytes: u64,
    refused: Arc<AtomicBool>,
}

impl Memory {
    /// `refused` tells, after a trap, that the guest's last wish for memory was refused.
    pub(crate) fn new(limit_bytes: u64, meter: Arc<Meter>, refused: Arc<AtomicBool>) -> Self {
        Self { meter, limit_bytes, used_bytes: 0, refused }
    }
}

impl ResourceLimiter for Memory {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let wanted = self.used_bytes.saturating_add(desired.saturating_sub(current) as u64);
        let granted = wanted <= self.limit_bytes;
        if granted {
            self.used_bytes = wanted;
            self.meter.memory_bytes.fetch_max(wanted, Relaxed);
        }
        self.refused.store(!granted, Relaxed);
        Ok(granted)
    }

    fn table_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        Ok(desired <= neap_sdk::limits::WASM_TABLE_ELEMENTS_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memories_share_one_limit_and_the_peak_is_kept() {
        let (meter, refused) = (Arc::new(Meter::default()), Arc::new(AtomicBool::new(false)));
        let mut memory = Memory::new(300, meter.clone(), refused.clone());
        assert!(memory.memory_growing(0, 100, None).expect("decided"));
        assert!(memory.memory_growing(0, 200, None).expect("decided"));
        assert!(!memory.memory_growing(100, 101, None).expect("decided"));
        assert!(refused.load(Relaxed));
        assert_eq!(meter.memory_bytes(), 300);
    }

    #[test]
    fn cpu_time_counts_only_while_measured() {
        let meter = Arc::new(Meter::default());
        let limits = CallLimits { memory_bytes: 0, wall: Duration::MAX, cpu: Duration::from_millis(5) };
        let budget = Budget::new(limits, meter.clone());
        let burn = || {
            let start = thread_cpu_ns();
            while thread_cpu_ns() - start < 6_000_000 {}
        };
        burn();
        assert_eq!(meter.cpu_us(), 0);
        assert_eq!(budget.measure(|| budget.check()), Ok(()));
        budget.measure(burn);
        assert!((6_000..1_000_000).contains(&meter.cpu_us()), "{}", meter.cpu_us());
        assert_eq!(budget.measure(|| budget.check()), Err(Overrun::Cpu));
    }
}
