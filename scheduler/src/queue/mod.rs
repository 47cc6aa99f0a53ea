//! The pure heart of a revision's queue: which instances there are, which of their slots are taken, who waits.
//! Every slot has exactly one owner: an instance (free), a holder of a [`Grant`], or nobody because its instance is
//! gone. Events go in, grants for waiters come out.
//!
//! No clock, no I/O, no lock, no task: [`crate::target`] adds those, and its tests run this through random sequences.

use neap_sdk::InstanceId;
use std::{collections::VecDeque, time::Duration};
use tokio::time::Instant;

/// What bounds a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PoolLimits {
    /// Requests that one instance takes at once.
    pub slots_per_instance: u32,
    /// Instances at most, starting ones included.
    pub instances_max: u32,
    /// Waiters at most.
    pub queue_length_max: usize,
}

/// What an instance does now.
///
/// ```text
/// (starting) ─▶ Ready ─▶ Freezing ─▶ Frozen ─▶ Thawing ─▶ Ready
///                 └──▶ Draining ─▶ Stopping ◀── Frozen
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MemberState {
    /// Takes requests.
    Ready,
    /// Is being frozen; takes none.
    Freezing,
    /// Holds memory but no CPU.
    Frozen,
    /// Is getting its CPU back.
    Thawing,
    /// Finishes what it has and takes nothing new.
    Draining,
    /// Is being stopped; nothing runs on it.
    Stopping,
}

/// What brought an instance to readiness last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReadyBy {
    Start,
    Thaw,
}

/// When and how an instance became ready last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Readiness {
    pub by: ReadyBy,
    pub at: Instant,
    pub took: Duration,
}

/// One instance.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub id: InstanceId,
    pub state: MemberState,
    pub in_flight: u32,
    pub readiness: Readiness,
    pub started: Instant,
    pub started_at_ms: u64,
    pub start_us: Option<u64>,
    pub pid: Option<u32>,
}

/// The right to one slot of one instance. Whoever holds it must give it back with [`Pool::release`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Grant {
    pub instance: InstanceId,
    pub readiness: Readiness,
}

/// A place in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Ticket(u64);

/// The queue is as long as it may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct QueueFull;

/// What is to be brought up.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Raise {
    pub thaw: Vec<InstanceId>,
    pub start: u32,
}

/// The instances and the queue of one revision; `W` is what a waiter is told through.
#[derive(Debug)]
pub(crate) struct Pool<W> {
    limits: PoolLimits,
    members: Vec<Member>,
    starting: u32,
    queue: VecDeque<(Ticket, W)>,
    next_ticket: u64,
    granted: u64,
}

impl<W> Pool<W> {
    pub fn new(limits: PoolLimits) -> Self {
        Self { limits, members: Vec::new(), starting: 0, queue: VecDeque::new(), next_ticket: 0, granted: 0 }
    }

    /// Takes a free slot of the least busy ready instance. `None` where there is none.
    pub fn try_acquire(&mut self) -> Option<Grant> {
        let slots = self.limits.slots_per_instance;
        let free = |member: &&mut Member| member.state == MemberState::Ready && member.in_flight < slots;
        let member = self.members.iter_mut().filter(free).min_by_key(|member| member.in_flight)?;
        member.in_flight += 1;
        self.granted += 1;
        Some(Grant { instance: member.id, readiness: member.readiness })
    }

    /// Waits at the end of the queue. Call only after [`Self::try_acquire`] found nothing.
    pub fn enqueue(&mut self, waiter: W) -> Result<Ticket, QueueFull> {
        if self.queue.len() >= self.limits.queue_length_max {
            return Err(QueueFull);
        }
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.queue.push_back((ticket, waiter));
        Ok(ticket)
    }

    /// Leaves the queue. Answers whether the ticket was still there; one that was served is not.
    pub fn cancel(&mut self, ticket: Ticket) -> bool {
        // Tickets only grow towards the back, whatever was taken out in between.
        match self.queue.binary_search_by_key(&ticket.0, |(ticket, _)| ticket.0) {
            Ok(index) => self.queue.remove(index).is_some(),
            Err(_) => false,
        }
    }

    /// Gives a slot back; it goes to the first waiter, if there is one and the instance still takes requests.
    pub fn release(&mut self, instance: InstanceId) -> Option<(W, Grant)> {
        // An instance that is gone took its slots with it.
        let member = self.members.iter_mut().find(|member| member.id == instance)?;
        assert!(member.in_flight > 0, "a slot of {instance} was given back twice");
        member.in_flight -= 1;
        self.next_grant()
    }

    /// A start ended well.
    pub fn start_succeeded(&mut self, member: Member) -> Vec<(W, Grant)> {
        assert!(self.starting > 0, "a start ended that never began");
        self.starting -= 1;
        self.adopt(member)
    }

    /// An instance is up that this pool did not start.
    pub fn adopt(&mut self, member: Member) -> Vec<(W, Grant)> {
        self.members.push(member);
        self.grants()
    }

    /// A start failed. Answers whether anything is left that could serve the waiters.
    pub fn start_failed(&mut self) -> bool {
        assert!(self.starting > 0, "a start ended that never began");
        self.starting -= 1;
        self.has_hope()
    }

    /// Takes every waiter out, to be told that it waits in vain.
    pub fn take_queue(&mut self) -> Vec<W> {
        self.queue.drain(..).map(|(_, waiter)| waiter).collect()
    }

    /// An instance is gone, with all of its slots. Answers what it was.
    pub fn remove(&mut self, instance: InstanceId) -> Option<Member> {
        let index = self.members.iter().position(|member| member.id == instance)?;
        Some(self.members.swap_remove(index))
    }

    /// Plans to have `want` instances: frozen ones come back first. Those on their way out count for nothing, or a
    /// request that meets the end of an idle instance would wait for that.
    pub fn raise(&mut self, want: u32) -> Raise {
        let want = want.min(self.limits.instances_max);
        let mut missing = want.saturating_sub(self.serving() + self.starting);
        let mut raise = Raise::default();
        for member in self.members.iter_mut().filter(|member| member.state == MemberState::Frozen) {
            if missing == 0 {
                break;
            }
            member.state = MemberState::Thawing;
            raise.thaw.push(member.id);
            missing -= 1;
        }
        // What is being frozen comes back as soon as it is frozen; starting another would be waste.
        missing = missing.saturating_sub(self.count(MemberState::Freezing));
        let room = self.limits.instances_max.saturating_sub(self.starting + self.alive());
        raise.start = missing.min(room);
        self.starting += raise.start;
        raise
    }

    /// Stops giving requests to instances until `want` are left; frozen ones go first, then the least busy. Answers
    /// whether any went.
    pub fn lower(&mut self, want: u32) -> bool {
        self.lower_those(want, |_| true)
    }

    /// Lowers only by instances that do nothing now.
    pub fn lower_idle(&mut self, want: u32) -> bool {
        self.lower_those(want, |member| member.in_flight == 0)
    }

    fn lower_those(&mut self, want: u32, may_go: impl Fn(&Member) -> bool) -> bool {
        let excess = (self.serving() + self.count(MemberState::Frozen)).saturating_sub(want);
        let up = |member: &Member| matches!(member.state, MemberState::Ready | MemberState::Frozen);
        let mut lowered = false;
        for _ in 0..excess {
            let candidates = self.members.iter_mut().filter(|member| up(member) && may_go(member));
            let first =
                candidates.min_by_key(|member| (member.state != MemberState::Frozen, member.in_flight));
            let Some(member) = first else { break };
            member.state = MemberState::Draining;
            lowered = true;
        }
        lowered
    }

    /// Draining instances that are empty; they are `Stopping` from now on.
    pub fn take_stoppable(&mut self) -> Vec<InstanceId> {
        let empty = |member: &&mut Member| member.state == MemberState::Draining && member.in_flight == 0;
        self.members
            .iter_mut()
            .filter(empty)
            .map(|member| {
                member.state = MemberState::Stopping;
                member.id
            })
            .collect()
    }

    /// Idle ready instances beyond `keep`; they are `Freezing` from now on.
    pub fn take_freezable(&mut self, keep: u32) -> Vec<InstanceId> {
        let mut excess = self.count(MemberState::Ready).saturating_sub(keep);
        let mut freezing = Vec::new();
        for member in &mut self.members {
            if excess > 0 && member.state == MemberState::Ready && member.in_flight == 0 {
                member.state = MemberState::Freezing;
                freezing.push(member.id);
                excess -= 1;
            }
        }
        freezing
    }

    /// A freeze ended. One that failed leaves the instance ready.
    pub fn freeze_ended(&mut self, instance: InstanceId, frozen: bool) -> Vec<(W, Grant)> {
        let state = if frozen { MemberState::Frozen } else { MemberState::Ready };
        if let Some(member) = self.find(instance, MemberState::Freezing) {
            member.state = state;
        }
        self.grants()
    }

    /// A thaw ended well.
    pub fn thawed(&mut self, instance: InstanceId, readiness: Readiness) -> Vec<(W, Grant)> {
        if let Some(member) = self.find(instance, MemberState::Thawing) {
            member.state = MemberState::Ready;
            member.readiness = readiness;
        }
        self.grants()
    }

    /// A thaw failed: the instance is of no use and is to be stopped.
    pub fn thaw_failed(&mut self, instance: InstanceId) {
        if let Some(member) = self.find(instance, MemberState::Thawing) {
            member.state = MemberState::Draining;
        }
    }

    /// Whether anything is there, or on its way, that will serve a waiter.
    pub fn has_hope(&self) -> bool {
        self.starting > 0 || self.alive() > 0
    }

    pub fn members(&self) -> &[Member] {
        &self.members
    }

    pub fn starting(&self) -> u32 {
        self.starting
    }

    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Requests that run now.
    pub fn in_flight(&self) -> u32 {
        self.members.iter().map(|member| member.in_flight).sum()
    }

    /// Grants ever made: a change between two looks means that there was work.
    pub fn granted(&self) -> u64 {
        self.granted
    }

    pub fn count(&self, state: MemberState) -> u32 {
        self.members.iter().filter(|member| member.state == state).count() as u32
    }

    /// Instances that are not on their way out.
    pub fn alive(&self) -> u32 {
        self.members.len() as u32 - self.count(MemberState::Draining) - self.count(MemberState::Stopping)
    }

    /// Instances that take requests now or as soon as they are thawed.
    fn serving(&self) -> u32 {
        self.count(MemberState::Ready) + self.count(MemberState::Thawing)
    }

    fn find(&mut self, instance: InstanceId, state: MemberState) -> Option<&mut Member> {
        self.members.iter_mut().find(|member| member.id == instance && member.state == state)
    }

    fn next_grant(&mut self) -> Option<(W, Grant)> {
        if self.queue.is_empty() {
            return None;
        }
        let grant = self.try_acquire()?;
        let (_, waiter) = self.queue.pop_front().expect("checked above that somebody waits");
        Some((waiter, grant))
    }

    fn grants(&mut self) -> Vec<(W, Grant)> {
        std::iter::from_fn(|| self.next_grant()).collect()
    }
}

#[cfg(test)]
mod tests;
