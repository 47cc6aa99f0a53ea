//! The place of one sandbox in the spawner, from parking to removal.
//!
//! It holds the state; [`super`] owns all slots and decides. It must not talk to the server.

use super::lane::Lane;
use super::seccomp::Filters;
use crate::cgroup::Group;
use crate::protocol::{self, Order, RunId};
use neap_sdk::limits;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{ForkResult, Pid, fork};
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Where a sandbox is in its life.
pub enum State {
    /// It prepares itself.
    Parking,
    /// It waits for an order; its network namespace.
    Parked(OwnedFd),
    /// It has an order; its network namespace, once it has one.
    Starting(RunId, Option<OwnedFd>),
    /// A container with this first process.
    Running(RunId, Pid),
    /// Nothing runs any more; the group goes as soon as it is empty. With the container to report as removed.
    Ending(Option<RunId>, Instant),
}

/// One sandbox.
pub struct Slot {
    /// Its control group.
    pub group: Group,
    /// The process that parks and launches, while it lives.
    pub lane: Option<Pid>,
    /// The socket to it, while it lives.
    pub socket: Option<OwnedFd>,
    /// Where it is.
    pub state: State,
}

impl Slot {
    /// Forks a sandbox into `group`.
    pub fn fork(group: Group, first_id: Option<u32>, filters: &Arc<Filters>) -> io::Result<Self> {
        group.create()?;
        group.limit(limits::CONTAINER_PIDS_MAX, limits::CONTAINER_CPU_MILLIS_MAX)?;
        let (ours, theirs) = protocol::pair()?;
        // SAFETY: the spawner has one thread, so the child may do whatever the parent may.
        match unsafe { fork() }? {
            ForkResult::Child => {
                close_all_but(theirs.as_raw_fd());
                let lane = Lane { socket: theirs, group, first_id, filters: filters.clone() };
                let code = lane.run();
                // SAFETY: ends the child without running destructors that belong to the spawner.
                unsafe { libc::_exit(code) }
            }
            ForkResult::Parent { child } => {
                Ok(Self { group, lane: Some(child), socket: Some(ours), state: State::Parking })
            }
        }
    }

    /// The container that the sandbox is for.
    pub fn run(&self) -> Option<RunId> {
        match &self.state {
            State::Starting(id, _) | State::Running(id, _) => Some(*id),
            State::Ending(id, _) => *id,
            State::Parking | State::Parked(_) => None,
        }
    }

    /// Gives the order to a parking or parked sandbox.
    pub fn start(&mut self, id: RunId, order: &Order, output: &[BorrowedFd<'_>]) -> io::Result<()> {
        let socket = self.socket.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        protocol::send(socket, order, output)?;
        let parked = std::mem::replace(&mut self.state, State::Parking);
        self.state =
            State::Starting(id, if let State::Parked(network) = parked { Some(network) } else { None });
        Ok(())
    }

    /// Ends every process of the sandbox.
    pub fn kill(&self) {
        self.group.kill();
        // It may not have entered the group yet.
        if let Some(lane) = self.lane {
            let _ = kill(lane, Signal::SIGKILL);
        }
    }

    /// Kills what is left and waits for the group to become empty.
    pub fn end(&mut self, report: Option<RunId>) {
        self.kill();
        self.socket = None;
        self.state = State::Ending(report, Instant::now());
    }

    /// Tries to remove the group of an ending sandbox; true once nothing is left.
    pub fn try_remove(&self) -> bool {
        let State::Ending(_, since) = self.state else { return false };
        if self.lane.is_some() {
            return false;
        }
        match self.group.remove() {
            Ok(()) => true,
            Err(error) => {
                self.group.kill();
                let late = since.elapsed() > Duration::from_millis(limits::CONTAINER_KILL_TIMEOUT_MS);
                if late {
                    // The next start on this state folder tries again.
                    super::complain(&format!("a control group is left behind: {error}"));
                }
                late
            }
        }
    }
}

/// Closes what the sandbox inherited: other sandboxes' sockets would keep those alive, the lock the state folder.
fn close_all_but(kept: i32) {
    for (first, last) in [(3, kept - 1), (kept + 1, i32::MAX)] {
        if first <= last {
            // SAFETY: no value in this process uses these descriptors again: it ends with _exit, and what it was
            // forked with is never dropped.
            unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
        }
    }
}
