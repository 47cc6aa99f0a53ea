//! The autoscaler over time, as scenarios and as properties.

use super::*;
use neap_sdk::limits::{
    AUTOSCALE_STABLE_WINDOW_MS, AUTOSCALE_STEP_DOWN_MS, CRASH_BACKOFF_MS_MAX, START_BACKOFF_MS_MAX,
    START_BACKOFF_MS_MIN, START_STABLE_MS,
};
use proptest::prelude::*;

const SPEC: ScaleSpec = ScaleSpec {
    slots_per_instance: 10,
    instances_min: 0,
    instances_max: 8,
    idle_timeout_ms: 60_000,
    freezes: true,
};

/// Steps an autoscaler as the driver does and carries out what it decides.
struct World {
    scaler: Autoscaler,
    spec: ScaleSpec,
    now_ms: u64,
    instances: u32,
    granted: u64,
    decisions: Vec<(u64, Decision)>,
}

impl World {
    fn new(spec: ScaleSpec) -> Self {
        Self { scaler: Autoscaler::new(0), spec, now_ms: 0, instances: 0, granted: 0, decisions: vec![] }
    }

    /// So many requests run for so long.
    fn load(&mut self, requests: u32, for_ms: u64) -> &mut Self {
        let end_ms = self.now_ms + for_ms;
        while self.now_ms < end_ms {
            let slots = self.instances * self.spec.slots_per_instance;
            if requests > slots {
                self.scaler.pressed(self.now_ms);
                self.instances = self.instances.max(wanted_now(requests, &self.spec));
            }
            self.granted += u64::from(requests > 0);
            self.now_ms += tick_ms(&self.spec);
            let in_flight = requests.min(slots);
            let seen = Observed {
                in_flight,
                queued: requests - in_flight,
                instances: self.instances,
                granted: self.granted,
            };
            let decision = self.scaler.decide(self.now_ms, &self.spec, seen);
            match decision {
                Decision::Raise(want) | Decision::Lower(want) | Decision::Idle(want) => self.instances = want,
                Decision::Stay | Decision::Freeze(_) => {}
            }
            if decision != Decision::Stay {
                self.decisions.push((self.now_ms, decision));
            }
        }
        self
    }
}

#[test]
fn a_burst_gets_all_its_instances_at_once() {
    assert_eq!(wanted_now(0, &SPEC), 0);
    assert_eq!(wanted_now(1, &SPEC), 1);
    assert_eq!(wanted_now(10, &SPEC), 1, "a full instance is not a reason for a second one");
    assert_eq!(wanted_now(11, &SPEC), 2);
    assert_eq!(wanted_now(10_000, &SPEC), 8, "never more than the maximum");
}

#[test]
fn steady_load_gets_headroom_and_one_request_does_not() {
    let one = ScaleSpec { slots_per_instance: 1, ..SPEC };
    assert_eq!(World::new(one).load(1, 1_000).instances, 1);
    assert_eq!(
        World::new(one).load(1, 20_000).instances,
        2,
        "busy all the time at one slot: 100 % is over 70 %"
    );
    assert_eq!(World::new(SPEC).load(7, 20_000).instances, 1, "70 % is not");
    assert_eq!(World::new(SPEC).load(8, 20_000).instances, 2);
}

#[test]
fn it_shrinks_slowly_and_not_soon_after_a_burst() {
    let mut world = World::new(SPEC);
    world.load(80, 2_000);
    assert_eq!(world.instances, 8);
    world.load(1, AUTOSCALE_STABLE_WINDOW_MS - 5_000);
    assert_eq!(world.instances, 8, "the burst may come back");
    world.load(1, 200_000);
    assert_eq!(world.instances, 1);
    let steps: Vec<_> =
        world.decisions.iter().filter(|(_, decision)| matches!(decision, Decision::Lower(_))).collect();
    assert_eq!(steps.len(), 3, "8 → 4 → 2 → 1: {steps:?}");
    assert!(steps.windows(2).all(|pair| pair[1].0 - pair[0].0 >= AUTOSCALE_STEP_DOWN_MS), "{steps:?}");
}

#[test]
fn an_idle_function_freezes_then_goes_to_zero() {
    let mut world = World::new(SPEC);
    world.load(5, 5_000).load(0, 70_000);
    let kinds: Vec<Decision> = world.decisions.iter().map(|(_, decision)| *decision).collect();
    assert!(kinds.contains(&Decision::Freeze(0)), "{kinds:?}");
    assert_eq!(kinds.last(), Some(&Decision::Idle(0)));
    let (frozen_ms, _) =
        world.decisions.iter().find(|(_, d)| *d == Decision::Freeze(0)).copied().expect("frozen");
    let (zero_ms, _) = *world.decisions.last().expect("went to zero");
    assert!((20_000..=21_500).contains(&frozen_ms), "a quarter of the idle time after 5 s: {frozen_ms}");
    assert!((65_000..=66_000).contains(&zero_ms), "the idle time after 5 s: {zero_ms}");
    assert_eq!(world.instances, 0);
}

#[test]
fn the_minimum_stays_up_and_comes_back() {
    let mut world = World::new(ScaleSpec { instances_min: 2, ..SPEC });
    world.load(0, 1_000);
    assert_eq!(world.instances, 2, "brought up without a request");
    world.load(0, 200_000);
    assert_eq!(world.instances, 2);
    world.instances = 1;
    world.load(0, 1_000);
    assert_eq!(world.instances, 2, "one that went away is replaced");
    assert!(
        world
            .decisions
            .iter()
            .all(|(_, decision)| !matches!(decision, Decision::Idle(_) | Decision::Lower(_)))
    );
}

#[test]
fn back_off_doubles_up_to_its_limit_and_ends_with_success() {
    let mut backoff = Backoff::default();
    assert_eq!(backoff.remaining_ms(0), None);
    let mut now_ms = 0;
    let mut last_ms = 0;
    for failure in 1..30 {
        backoff.failed(now_ms);
        let wait_ms = backoff.remaining_ms(now_ms).expect("a failure means a pause");
        assert!(
            wait_ms == (last_ms * 2).clamp(START_BACKOFF_MS_MIN, START_BACKOFF_MS_MAX),
            "failure {failure}"
        );
        assert_eq!(backoff.remaining_ms(now_ms + wait_ms), None, "and the pause ends");
        last_ms = wait_ms;
        now_ms += wait_ms;
    }
    backoff.succeeded();
    backoff.failed(now_ms);
    assert_eq!(backoff.remaining_ms(now_ms), Some(START_BACKOFF_MS_MIN));
}

#[test]
fn one_killed_process_is_replaced_at_once_a_crash_loop_is_not() {
    let mut backoff = Backoff::default();
    backoff.ended(0, 1);
    assert_eq!(backoff.remaining_ms(0), None, "one may have been killed");
    backoff.ended(100, 1);
    assert_eq!(backoff.remaining_ms(100), Some(START_BACKOFF_MS_MIN));
    backoff.ended(1_000, 1);
    assert_eq!(backoff.remaining_ms(1_000), Some(START_BACKOFF_MS_MIN * 2));
    backoff.ended(100_000, START_STABLE_MS);
    backoff.ended(100_001, 1);
    assert_eq!(backoff.remaining_ms(100_001), None, "an instance that lived long ends the row");
}

proptest! {
    /// Whatever is seen, decisions keep to the limits, and never take away slots that are in use.
    #[test]
    fn decisions_keep_to_the_limits(
        slots in 1_u32..200,
        min in 0_u32..4,
        above in 0_u32..20,
        idle_timeout_ms in 100_u64..100_000,
        looks in proptest::collection::vec((0_u64..5_000, 0_u32..500, 0_u32..300, 0_u32..24, 0_u64..3, any::<bool>()), 1..60),
    ) {
        let instances_max = (min + above).max(1);
        let spec = ScaleSpec { slots_per_instance: slots, instances_min: min, instances_max, idle_timeout_ms, freezes: true };
        let mut scaler = Autoscaler::new(0);
        let (mut now_ms, mut granted, mut active_ms) = (0, 0, 0);
        for (step_ms, in_flight, queued, instances, grants, pressed) in looks {
            now_ms += step_ms;
            granted += grants;
            let instances = instances.min(instances_max);
            if pressed {
                scaler.pressed(now_ms);
                active_ms = now_ms;
            }
            if in_flight + queued > 0 || grants > 0 {
                active_ms = now_ms;
            }
            let needed = wanted_now(in_flight + queued, &spec);
            match scaler.decide(now_ms, &spec, Observed { in_flight, queued, instances, granted }) {
                Decision::Stay => prop_assert!(instances >= needed.max(min)),
                Decision::Raise(want) => prop_assert!(want > instances && want <= instances_max),
                Decision::Lower(want) => {
                    prop_assert!(want < instances && want >= needed.max(min).max(1) && want >= instances / 2);
                    prop_assert!(!pressed);
                }
                Decision::Idle(want) => {
                    prop_assert_eq!(want, min);
                    prop_assert!(now_ms - active_ms >= idle_timeout_ms && in_flight + queued == 0);
                }
                Decision::Freeze(keep) => {
                    prop_assert_eq!(keep, min);
                    prop_assert!(in_flight + queued == 0 && now_ms - active_ms >= idle_timeout_ms / 4);
                }
            }
        }
    }
}

#[test]
fn one_clients_crashes_pause_the_others_only_shortly() {
    let mut backoff = Backoff::default();
    for round in 0..20 {
        let now_ms = round * 10_000;
        backoff.ended(now_ms, 1);
        assert!(backoff.remaining_ms(now_ms).unwrap_or(0) <= CRASH_BACKOFF_MS_MAX);
    }
}
