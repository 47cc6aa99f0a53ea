//! The pool under random sequences of everything that can happen, checked against a plain model: no slot is lost, none
//! is given twice, nobody waits beside a free slot, and the queue is served in order.

use super::*;
use proptest::prelude::*;
use std::collections::HashMap;

const LIMITS: PoolLimits = PoolLimits { slots_per_instance: 3, instances_max: 4, queue_length_max: 6 };

#[derive(Debug, Clone, Copy)]
enum Step {
    Enter,
    Leave(usize),
    Finish(usize),
    StartEnds(bool),
    Exit(usize),
    Freeze,
    FreezeEnds(usize, bool),
    ThawEnds(usize, bool),
    Lower(u32),
    LowerIdle(u32),
    Stop,
    StopEnds(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => Just(Step::Enter),
        2 => any::<usize>().prop_map(Step::Leave),
        6 => any::<usize>().prop_map(Step::Finish),
        5 => any::<bool>().prop_map(Step::StartEnds),
        1 => any::<usize>().prop_map(Step::Exit),
        1 => Just(Step::Freeze),
        2 => (any::<usize>(), any::<bool>()).prop_map(|(n, ok)| Step::FreezeEnds(n, ok)),
        2 => (any::<usize>(), any::<bool>()).prop_map(|(n, ok)| Step::ThawEnds(n, ok)),
        1 => (0_u32..4).prop_map(Step::Lower),
        1 => (0_u32..4).prop_map(Step::LowerIdle),
        1 => Just(Step::Stop),
        2 => any::<usize>().prop_map(Step::StopEnds),
    ];
    proptest::collection::vec(step, 1..300)
}

/// Requests are numbered; the pool's waiters are those numbers.
struct Model {
    pool: Pool<u64>,
    next_request: u64,
    next_instance: u64,
    /// Who waits, in order of arrival.
    waiting: Vec<(u64, Ticket)>,
    /// Which request holds a slot of which instance.
    holding: Vec<(u64, InstanceId)>,
}

fn readiness() -> Readiness {
    Readiness { by: ReadyBy::Start, at: Instant::now(), took: Duration::ZERO }
}

fn pick<T: Copy>(items: &[T], index: usize) -> Option<T> {
    if items.is_empty() { None } else { Some(items[index % items.len()]) }
}

impl Model {
    fn new() -> Self {
        Self { pool: Pool::new(LIMITS), next_request: 0, next_instance: 0, waiting: vec![], holding: vec![] }
    }

    fn served(&mut self, grants: impl IntoIterator<Item = (u64, Grant)>) {
        for (request, grant) in grants {
            assert_eq!(
                self.waiting.first().map(|(first, _)| *first),
                Some(request),
                "first come, first served"
            );
            self.waiting.remove(0);
            self.holding.push((request, grant.instance));
        }
    }

    fn in_state(&self, state: MemberState) -> Vec<InstanceId> {
        self.pool.members().iter().filter(|member| member.state == state).map(|member| member.id).collect()
    }

    fn enter(&mut self) {
        let request = self.next_request;
        self.next_request += 1;
        let free = if self.pool.queued() == 0 { self.pool.try_acquire() } else { None };
        match free {
            Some(grant) => self.holding.push((request, grant.instance)),
            None => match self.pool.enqueue(request) {
                Ok(ticket) => {
                    self.waiting.push((request, ticket));
                    let demand = self.pool.in_flight() + self.pool.queued() as u32;
                    let raise = self.pool.raise(demand.div_ceil(LIMITS.slots_per_instance));
                    assert!(
                        self.pool.has_hope() || raise != Raise::default(),
                        "a waiter must be able to hope"
                    );
                }
                Err(QueueFull) => assert_eq!(self.waiting.len(), LIMITS.queue_length_max),
            },
        }
    }

    fn start_ends(&mut self, well: bool) {
        if self.pool.starting() == 0 {
            return;
        }
        if well {
            self.next_instance += 1;
            let member = Member {
                id: InstanceId(self.next_instance),
                state: MemberState::Ready,
                in_flight: 0,
                readiness: readiness(),
                started: Instant::now(),
                started_at_ms: 0,
                start_us: None,
                pid: None,
            };
            let grants = self.pool.start_succeeded(member);
            self.served(grants);
        } else if !self.pool.start_failed() {
            let turned_away = self.pool.take_queue();
            assert_eq!(turned_away, self.waiting.drain(..).map(|(request, _)| request).collect::<Vec<_>>());
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Enter => self.enter(),
            Step::Leave(index) => {
                if let Some((request, ticket)) = pick(&self.waiting, index) {
                    assert!(self.pool.cancel(ticket));
                    self.waiting.retain(|(other, _)| *other != request);
                }
            }
            Step::Finish(index) => {
                if let Some((request, instance)) = pick(&self.holding, index) {
                    self.holding.retain(|(other, _)| *other != request);
                    let next = self.pool.release(instance);
                    self.served(next);
                }
            }
            Step::StartEnds(well) => self.start_ends(well),
            Step::Exit(index) => {
                let ids: Vec<_> = self.pool.members().iter().map(|member| member.id).collect();
                if let Some(id) = pick(&ids, index) {
                    self.pool.remove(id);
                }
            }
            Step::Freeze => drop(self.pool.take_freezable(1)),
            Step::FreezeEnds(index, well) => {
                if let Some(id) = pick(&self.in_state(MemberState::Freezing), index) {
                    let grants = self.pool.freeze_ended(id, well);
                    self.served(grants);
                }
            }
            Step::ThawEnds(index, well) => {
                if let Some(id) = pick(&self.in_state(MemberState::Thawing), index) {
                    if well {
                        let grants = self.pool.thawed(id, readiness());
                        self.served(grants);
                    } else {
                        self.pool.thaw_failed(id);
                    }
                }
            }
            Step::Lower(want) => {
                self.pool.lower(want);
            }
            Step::LowerIdle(want) => {
                self.pool.lower_idle(want);
            }
            Step::Stop => {
                for id in self.pool.take_stoppable() {
                    assert!(self.holding.iter().all(|(_, held)| *held != id), "{id} is stopped while in use");
                }
            }
            Step::StopEnds(index) => {
                if let Some(id) = pick(&self.in_state(MemberState::Stopping), index) {
                    self.pool.remove(id);
                }
            }
        }
    }

    fn check(&self) {
        let mut held: HashMap<InstanceId, u32> = HashMap::new();
        for (_, instance) in &self.holding {
            *held.entry(*instance).or_default() += 1;
        }
        for member in self.pool.members() {
            let expected = held.get(&member.id).copied().unwrap_or(0);
            assert_eq!(member.in_flight, expected, "slots of {} in state {:?}", member.id, member.state);
            assert!(member.in_flight <= LIMITS.slots_per_instance);
            let free = member.state == MemberState::Ready && member.in_flight < LIMITS.slots_per_instance;
            assert!(!free || self.waiting.is_empty(), "somebody waits beside a free slot of {}", member.id);
        }
        assert_eq!(self.pool.queued(), self.waiting.len());
        assert!(self.pool.alive() + self.pool.starting() <= LIMITS.instances_max);
    }

    /// Lets everything that is under way end well, until nobody waits.
    fn settle(&mut self) {
        for _ in 0..1_000 {
            let demand = self.pool.in_flight() + self.pool.queued() as u32;
            self.pool.raise(demand.div_ceil(LIMITS.slots_per_instance));
            self.step(Step::FreezeEnds(0, true));
            self.step(Step::ThawEnds(0, true));
            self.step(Step::StartEnds(true));
            self.step(Step::Finish(0));
            self.check();
            if self.waiting.is_empty() && self.holding.is_empty() {
                return;
            }
        }
        panic!("{} wait for ever: {:?}", self.waiting.len(), self.pool);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]
    #[test]
    fn no_slot_is_lost_and_nobody_waits_for_ever(steps in steps()) {
        let mut model = Model::new();
        for step in steps {
            model.step(step);
            model.check();
        }
        model.settle();
    }
}

#[test]
fn the_least_busy_instance_is_taken() {
    let mut model = Model::new();
    for _ in 0..4 {
        model.enter();
    }
    model.start_ends(true);
    model.start_ends(true);
    model.enter();
    model.enter();
    let busy: Vec<u32> = model.pool.members().iter().map(|member| member.in_flight).collect();
    assert_eq!(busy, [3, 3], "six requests on two instances of three slots");
}
