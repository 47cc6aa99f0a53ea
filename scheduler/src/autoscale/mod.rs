//! How many instances a revision should have. Adapted from the concurrency autoscaler of Knative to events: requests
//! that queue scale up at once, without a tick; only shrinking, freezing and going to zero wait for time to pass.
//!
//! - **Up at once**: what runs and waits, over the slots of one instance.
//! - **Up for headroom**: the average over the stable window, over 70 % of the slots.
//! - **Down**: never while, or soon after, requests were short of slots ("panic"); then at most by half per step.
//! - **Frozen**: after a quarter of the idle timeout without requests.
//! - **Zero**: after the whole idle timeout without requests.
//!
//! Pure: no clock, no I/O; time comes in as milliseconds that never run backwards.

use neap_sdk::limits;
use std::collections::VecDeque;

/// What a revision's spec says about scaling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScaleSpec {
    /// Requests that one instance takes at once.
    pub slots_per_instance: u32,
    /// Instances that stay up without requests.
    pub instances_min: u32,
    /// Instances at most.
    pub instances_max: u32,
    /// Time without requests after which instances beyond the minimum go away.
    pub idle_timeout_ms: u64,
    /// Whether instances can be frozen.
    pub freezes: bool,
}

/// What is seen of a revision at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Observed {
    /// Requests that run.
    pub in_flight: u32,
    /// Requests that wait.
    pub queued: u32,
    /// Instances that are up, coming up, or frozen; not those that are on their way out.
    pub instances: u32,
    /// Slots given out ever; a change since the last look means that there was work.
    pub granted: u64,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Nothing.
    Stay,
    /// Bring up instances until there are so many.
    Raise(u32),
    /// Let go of instances until so many are left.
    Lower(u32),
    /// Without requests for long: let go of all but so many.
    Idle(u32),
    /// Without requests for a while: freeze all but so many.
    Freeze(u32),
}

/// Instances that seat all of `requests` now: no headroom, because a burst of one must not start two.
pub fn wanted_now(requests: u32, spec: &ScaleSpec) -> u32 {
    requests.div_ceil(spec.slots_per_instance.max(1)).min(spec.instances_max)
}

/// Time between two looks, so that an idle revision is noticed with an error of at most a quarter.
pub fn tick_ms(spec: &ScaleSpec) -> u64 {
    (spec.idle_timeout_ms / 8).clamp(limits::AUTOSCALE_TICK_MS_MIN, limits::AUTOSCALE_TICK_MS_MAX)
}

/// The memory of one revision's autoscaler.
#[derive(Debug, Clone)]
pub struct Autoscaler {
    /// One load sample per look: (when, requests that ran or waited).
    samples: VecDeque<(u64, u32)>,
    sum: u64,
    granted: u64,
    active_at_ms: u64,
    /// No step down before this.
    hold_until_ms: u64,
}

impl Autoscaler {
    /// An autoscaler that begins now, as if there had just been a request.
    pub fn new(now_ms: u64) -> Self {
        Self { samples: VecDeque::new(), sum: 0, granted: 0, active_at_ms: now_ms, hold_until_ms: 0 }
    }

    /// Requests had to queue: what is there is too little, and stays for the stable window.
    pub fn pressed(&mut self, now_ms: u64) {
        self.active_at_ms = now_ms;
        self.hold_until_ms = now_ms + limits::AUTOSCALE_STABLE_WINDOW_MS;
    }

    /// Decides after a look at the revision.
    pub fn decide(&mut self, now_ms: u64, spec: &ScaleSpec, seen: Observed) -> Decision {
        let load = seen.in_flight + seen.queued;
        if load > 0 || seen.granted != self.granted {
            self.granted = seen.granted;
            self.active_at_ms = now_ms;
        }
        self.sample(now_ms, load);
        let idle_ms = now_ms.saturating_sub(self.active_at_ms);
        if idle_ms >= spec.idle_timeout_ms {
            self.samples.clear();
            self.sum = 0;
            self.hold_until_ms = 0;
            return match seen.instances.cmp(&spec.instances_min) {
                std::cmp::Ordering::Greater => Decision::Idle(spec.instances_min),
                std::cmp::Ordering::Equal => Decision::Stay,
                std::cmp::Ordering::Less => Decision::Raise(spec.instances_min),
            };
        }
        let want = self.wanted(spec, seen);
        if want > seen.instances {
            return Decision::Raise(want);
        }
        if spec.freezes && idle_ms >= spec.idle_timeout_ms / 4 && seen.instances > spec.instances_min {
            return Decision::Freeze(spec.instances_min);
        }
        if want < seen.instances && now_ms >= self.hold_until_ms {
            self.hold_until_ms = now_ms + limits::AUTOSCALE_STEP_DOWN_MS;
            return Decision::Lower(want.max(seen.instances / 2));
        }
        Decision::Stay
    }

    fn sample(&mut self, now_ms: u64, load: u32) {
        self.samples.push_back((now_ms, load));
        self.sum += u64::from(load);
        let window_begin = now_ms.saturating_sub(limits::AUTOSCALE_STABLE_WINDOW_MS);
        while let Some((at_ms, old)) = self.samples.front().copied()
            && at_ms < window_begin
        {
            self.samples.pop_front();
            self.sum -= u64::from(old);
        }
    }

    /// Instances for the average load with headroom, and at least for the load of now.
    fn wanted(&self, spec: &ScaleSpec, seen: Observed) -> u32 {
        // Before a while has passed there is no average: a single request must not pass for steady load.
        let count = (self.samples.len() as u64).max(limits::AUTOSCALE_STEP_DOWN_MS / tick_ms(spec));
        // ceil((sum / count) / (slots × utilization)) without leaving whole numbers.
        let per_instance =
            u64::from(spec.slots_per_instance.max(1)) * limits::AUTOSCALE_UTILIZATION_PERCENT * count;
        let average = (self.sum * 100).div_ceil(per_instance.max(1));
        let alive = u64::from(seen.instances > 0);
        let now = u64::from(wanted_now(seen.in_flight + seen.queued, spec));
        let want = average.max(now).max(alive).max(spec.instances_min.into());
        want.min(spec.instances_max.into()) as u32
    }
}

/// When a revision that failed to start may try again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Backoff {
    failures: u32,
    crashes: u32,
    retry_at_ms: u64,
}

impl Backoff {
    /// A start failed.
    pub fn failed(&mut self, now_ms: u64) {
        self.failures = self.failures.saturating_add(1);
        self.pause(now_ms, self.failures, limits::START_BACKOFF_MS_MAX);
    }

    /// An instance ended on its own after living for `lived_ms`. The first early end is forgiven, so that a killed
    /// process is replaced at once; a second one in a row is a crash loop. It did start, and perhaps only one client's
    /// requests end it, so the pauses stay short: that client must not keep the function from all others.
    pub fn ended(&mut self, now_ms: u64, lived_ms: u64) {
        if lived_ms >= limits::START_STABLE_MS {
            self.crashes = 0;
            return;
        }
        self.crashes = self.crashes.saturating_add(1);
        if self.crashes > 1 {
            self.pause(now_ms, self.crashes - 1, limits::CRASH_BACKOFF_MS_MAX);
        }
    }

    /// A start worked.
    pub fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// Something changed that may have been the reason; the next request may try.
    pub fn forgive(&mut self) {
        *self = Self::default();
    }

    /// How long to wait still; `None` when a start is allowed.
    pub fn remaining_ms(&self, now_ms: u64) -> Option<u64> {
        self.retry_at_ms.checked_sub(now_ms).filter(|left| *left > 0)
    }

    fn pause(&mut self, now_ms: u64, times: u32, most_ms: u64) {
        let doubled = limits::START_BACKOFF_MS_MIN.saturating_mul(1 << times.saturating_sub(1).min(32));
        self.retry_at_ms = now_ms + doubled.min(most_ms);
    }
}

#[cfg(test)]
mod tests;
