//! The spawner: a small process with one thread that forks, holds libcontainer and is the parent of every container.
//!
//! The same executable as the server, started by it with a socket as stdin. It lives exactly as long as that socket:
//! when the server goes, however it goes, every container goes with it. It must never have a second thread, and must
//! not decide what runs or for how long.

mod bundle;
mod lane;
mod namespaces;
mod seccomp;
mod slot;
mod workload;

use crate::cgroup::{self, Group};
use crate::protocol::{self, FromLane, FromSpawner, Order, Receiver, RunId, Status, ToSpawner};
use neap_sdk::{Digest, limits};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{self as rfs, FlockOperation, Mode, OFlags};
use slot::{Slot, State};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What the spawner child calls first and last. Its stdin is the socket to the server.
pub fn child_main() -> ExitCode {
    match take_over().and_then(serve) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("it ends: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Something for the server's own log, whose stderr this process shares.
fn complain(text: &str) {
    use io::Write as _;
    let _ = writeln!(io::stderr(), "neap spawner: {text}");
}

/// An error with everything behind it, on one line.
fn text(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let next = error.to_string();
        // Some libraries repeat their source in their own text.
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        source = error.source();
    }
    text
}

/// Moves the socket away from stdin and leaves the server's session: no terminal signal reaches the spawner.
fn take_over() -> io::Result<OwnedFd> {
    let socket = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    let null = rfs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    let _ = rustix::process::setsid();
    rustix::process::chdir("/")?;
    rustix::thread::set_thread_groups(&[])?;
    rustix::thread::set_name(c"neap-spawner")?;
    Ok(socket)
}

fn serve(socket: OwnedFd) -> io::Result<()> {
    let mut receiver = Receiver::default();
    let Some((ToSpawner::Begin { state_dir, parked }, _)) = receiver.receive(&socket, true)? else {
        return Ok(());
    };
    match Spawner::new(socket.try_clone()?, receiver, &state_dir, parked) {
        Ok(mut spawner) => {
            let result = spawner.work();
            spawner.end_all();
            result
        }
        Err(reason) => protocol::send(&socket, &FromSpawner::Unavailable(reason), &[]),
    }
}

struct Spawner {
    socket: OwnedFd,
    receiver: Receiver,
    signals: SignalFd,
    /// Held while the spawner lives: the next one waits for it.
    _lock: OwnedFd,
    /// `/neap/<owner>`; containers have groups below.
    base: Group,
    filters: Arc<seccomp::Filters>,
    /// A hash of the state folder.
    owner: u64,
    no_user_namespaces: Option<String>,
    parked_wanted: usize,
    /// Slots by number; a number is used again, and with it its range of user ids.
    slots: BTreeMap<u32, Slot>,
    /// Names groups; never used again, so that a late write to a group's file meets no other container.
    groups_made: u64,
    /// Sandboxes do not get ready; none is made ahead until the next order, so that the spawner does not spin.
    parking_fails: bool,
}

impl Spawner {
    fn new(
        socket: OwnedFd,
        receiver: Receiver,
        state_dir: &Path,
        parked_wanted: usize,
    ) -> Result<Self, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("containers need root".into());
        }
        let lock = lock(state_dir).map_err(|error| {
            format!("another neap uses {}, or it cannot be locked: {error}", state_dir.display())
        })?;
        let state_dir =
            state_dir.canonicalize().map_err(|error| format!("{}: {error}", state_dir.display()))?;
        let hash = Digest::of(state_dir.as_os_str().as_encoded_bytes());
        let root = cgroup::detect().map_err(|error| text(&error))?;
        let base = root.join("neap").join(&hash.short());
        base.create().map_err(|error| error.to_string())?;
        base.delegate(&root).map_err(|error| error.to_string())?;
        // What an earlier spawner left when it was killed. Only processes inside our own groups are ended.
        base.clear(Duration::from_millis(limits::CONTAINER_KILL_TIMEOUT_MS))
            .map_err(|error| error.to_string())?;
        let mut eight = [0; 8];
        eight.copy_from_slice(&hash.as_bytes()[..8]);
        let owner = u64::from_le_bytes(eight);
        namespaces::create(None).map_err(|error| format!("namespaces cannot be made: {error}"))?;
        let spawner = Self {
            socket,
            receiver,
            signals: block_signals().map_err(|error| format!("signals cannot be blocked: {error}"))?,
            _lock: lock,
            base,
            filters: Arc::new(seccomp::compile().map_err(|error| format!("no system call filter: {error}"))?),
            owner,
            no_user_namespaces: probe_user_namespaces(&state_dir, owner).err().map(|error| error.to_string()),
            parked_wanted,
            slots: BTreeMap::new(),
            groups_made: 0,
            parking_fails: false,
        };
        Ok(spawner)
    }

    /// Works until the server is gone.
    fn work(&mut self) -> io::Result<()> {
        self.tell(&FromSpawner::Ready { no_user_namespaces: self.no_user_namespaces.clone() }, &[])?;
        self.refill();
        loop {
            self.wait()?;
            let _ = self.signals.read_signal();
            // Sandboxes first: what they said before they or their containers ended must be known when those are
            // reaped.
            self.hear_lanes()?;
            self.reap()?;
            if !self.hear_server()? {
                return Ok(());
            }
            self.sweep()?;
            self.refill();
        }
    }

    fn wait(&self) -> io::Result<()> {
        let signals = self.signals.as_fd();
        let mut fds = vec![PollFd::new(&self.socket, PollFlags::IN), PollFd::new(&signals, PollFlags::IN)];
        let lanes = self.slots.values().filter_map(|slot| slot.socket.as_ref());
        fds.extend(lanes.map(|socket| PollFd::new(socket, PollFlags::IN)));
        let ending = self.slots.values().any(|slot| matches!(slot.state, State::Ending(..)));
        let soon = Timespec { tv_sec: 0, tv_nsec: 1_000_000 };
        match poll(&mut fds, ending.then_some(&soon)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn tell(&self, message: &FromSpawner, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        protocol::send(&self.socket, message, descriptors)
    }

    /// Forks one sandbox if fewer than wanted are parked and nothing more urgent is going on.
    fn refill(&mut self) {
        let busy = self.slots.values().any(|slot| matches!(slot.state, State::Starting(..)));
        let spare =
            self.slots.values().filter(|slot| matches!(slot.state, State::Parking | State::Parked(_)));
        if !busy && !self.parking_fails && spare.count() < self.parked_wanted {
            // The next order tries again, and reports why not.
            self.parking_fails = self.fork().is_err();
        }
    }

    fn fork(&mut self) -> io::Result<u32> {
        let index = (0..).find(|index| !self.slots.contains_key(index)).ok_or(io::ErrorKind::OutOfMemory)?;
        let first_id = self.no_user_namespaces.is_none().then(|| namespaces::first_id(self.owner, index));
        self.groups_made += 1;
        let slot = Slot::fork(self.base.join(&format!("c{}", self.groups_made)), first_id, &self.filters)?;
        self.slots.insert(index, slot);
        Ok(index)
    }

    /// Handles everything the server said; false when it is gone.
    fn hear_server(&mut self) -> io::Result<bool> {
        loop {
            match self.receiver.receive(&self.socket, false) {
                Ok(Some((ToSpawner::Run { id, order }, output))) => {
                    if let Err(error) = self.start(id, &order, &output) {
                        self.tell(&FromSpawner::Failed { id, reason: error.to_string() }, &[])?;
                    }
                }
                Ok(Some((ToSpawner::Kill { id }, _))) => {
                    if let Some(slot) = self.slots.values().find(|slot| slot.run() == Some(id)) {
                        slot.kill();
                    }
                }
                Ok(Some((ToSpawner::Begin { .. }, _))) => {}
                Ok(None) => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                Err(error) => return Err(error),
            }
        }
    }

    fn start(&mut self, id: RunId, order: &Order, output: &[OwnedFd]) -> io::Result<()> {
        self.parking_fails = false;
        let parked = self.slots.iter().find(|(_, slot)| matches!(slot.state, State::Parked(_)));
        let parking = || self.slots.iter().find(|(_, slot)| matches!(slot.state, State::Parking));
        let index = match parked.or_else(parking).map(|(index, _)| *index) {
            Some(index) => index,
            None => self.fork()?,
        };
        let slot = self.slots.get_mut(&index).ok_or(io::ErrorKind::NotFound)?;
        let output: Vec<BorrowedFd<'_>> = output.iter().map(|fd| fd.as_fd()).collect();
        slot.start(id, order, &output)
    }

    fn hear_lanes(&mut self) -> io::Result<()> {
        let indexes: Vec<u32> = self.slots.keys().copied().collect();
        for index in indexes {
            while let Some(socket) = self.slots.get(&index).and_then(|slot| slot.socket.as_ref()) {
                match self.receiver.receive(socket, false) {
                    Ok(Some((message, descriptors))) => self.heard(index, message, descriptors)?,
                    Ok(None) => self.lane_gone(index)?,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    fn heard(&mut self, index: u32, message: FromLane, descriptors: Vec<OwnedFd>) -> io::Result<()> {
        let Some(slot) = self.slots.get_mut(&index) else { return Ok(()) };
        match (message, &mut slot.state) {
            (FromLane::Parked, State::Parking) => match descriptors.into_iter().next() {
                Some(network) => slot.state = State::Parked(network),
                None => slot.end(None),
            },
            (FromLane::Parked, State::Starting(_, network)) => *network = descriptors.into_iter().next(),
            (FromLane::Built { pid }, State::Starting(id, Some(network))) => {
                let (id, pid) = (*id, Pid::from_raw(pid));
                match announce(&self.socket, id, pid, &slot.group, network)? {
                    true => slot.state = State::Running(id, pid),
                    false => self.lane_gone(index)?,
                }
            }
            (FromLane::Failed(reason), State::Starting(id, _)) => {
                let id = *id;
                slot.end(None);
                self.tell(&FromSpawner::Failed { id, reason }, &[])?;
            }
            (FromLane::Failed(reason), State::Running(..)) => {
                complain(&format!("a container could not be started after it was set up: {reason}"));
                slot.kill();
            }
            (FromLane::Failed(reason), _) => {
                complain(&reason);
                slot.end(None);
                self.parking_fails = true;
            }
            (FromLane::Parked | FromLane::Built { .. }, _) => slot.end(None),
        }
        Ok(())
    }

    /// A sandbox process closed its socket: as it should once its container runs, else it failed.
    fn lane_gone(&mut self, index: u32) -> io::Result<()> {
        let Some(slot) = self.slots.get_mut(&index) else { return Ok(()) };
        slot.socket = None;
        match slot.state {
            State::Starting(id, _) => {
                let oom = slot.group.oom_kills() > 0;
                slot.end(None);
                let reason =
                    if oom { "its memory is too small to set it up" } else { "it was ended meanwhile" };
                self.tell(&FromSpawner::Failed { id, reason: reason.into() }, &[])
            }
            State::Parking | State::Parked(_) => {
                slot.end(None);
                self.parking_fails = true;
                Ok(())
            }
            State::Running(..) | State::Ending(..) => Ok(()),
        }
    }

    fn reap(&mut self) -> io::Result<()> {
        loop {
            let (pid, status) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => (pid, Status::Code(code)),
                Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, Status::Signal(signal as i32)),
                Ok(_) | Err(nix::errno::Errno::ECHILD) => return Ok(()),
                Err(nix::errno::Errno::EINTR) => continue,
                Err(error) => return Err(error.into()),
            };
            if let Some(slot) = self.slots.values_mut().find(|slot| slot.lane == Some(pid)) {
                slot.lane = None;
                continue;
            }
            let is_main = |slot: &&mut Slot| matches!(slot.state, State::Running(_, main) if main == pid);
            // Others are libcontainer's helpers.
            let Some(slot) = self.slots.values_mut().find(is_main) else { continue };
            let Some(id) = slot.run() else { continue };
            let killed_for_memory = status == Status::Signal(libc::SIGKILL) && slot.group.oom_kills() > 0;
            let status = if killed_for_memory { Status::OutOfMemory } else { status };
            let usage = slot.group.usage().unwrap_or_default();
            slot.end(Some(id));
            self.tell(&FromSpawner::Exited { id, status, usage }, &[])?;
        }
    }

    /// Removes what ended.
    fn sweep(&mut self) -> io::Result<()> {
        let gone: Vec<u32> =
            self.slots.iter().filter(|(_, slot)| slot.try_remove()).map(|(index, _)| *index).collect();
        for index in gone {
            if let Some(id) = self.slots.remove(&index).and_then(|slot| slot.run()) {
                self.tell(&FromSpawner::Removed { id }, &[])?;
            }
        }
        Ok(())
    }

    /// Ends and removes everything; nobody listens any more.
    fn end_all(&mut self) {
        for slot in self.slots.values_mut() {
            slot.end(None);
        }
        let deadline = Instant::now() + Duration::from_millis(2 * limits::CONTAINER_KILL_TIMEOUT_MS);
        while !self.slots.is_empty() && Instant::now() < deadline {
            let _ = self.reap();
            self.slots.retain(|_, slot| !slot.try_remove());
            std::thread::sleep(Duration::from_millis(1));
        }
        // The parent goes only if no other server has a group in it.
        if self.base.remove().is_ok() {
            for dir in self.base.dirs() {
                let _ = dir.parent().map(std::fs::remove_dir);
            }
        }
    }
}

/// Tells the server about a container that was set up; false if its first process is gone already.
fn announce(server: &OwnedFd, id: RunId, pid: Pid, group: &Group, network: &OwnedFd) -> io::Result<bool> {
    let pidfd = rustix::process::Pid::from_raw(pid.as_raw())
        .ok_or(rustix::io::Errno::SRCH)
        // A process that ended only now still has one: it is reaped after all sandboxes were heard.
        .and_then(|pid| rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()));
    let Ok(pidfd) = pidfd else { return Ok(false) };
    let setup_cpu_us = group.usage().map(|usage| usage.cpu_us).unwrap_or(0);
    let started = FromSpawner::Started { id, pid: pid.as_raw(), group: group.clone(), setup_cpu_us };
    protocol::send(server, &started, &[pidfd.as_fd(), network.as_fd()])?;
    Ok(true)
}

/// Waits for an earlier spawner on the same folder to finish cleaning up.
fn lock(state_dir: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC;
    let file = rfs::open(state_dir.join("spawner.lock"), flags, Mode::from_raw_mode(0o600))?;
    let deadline = Instant::now() + Duration::from_millis(limits::SPAWNER_READY_TIMEOUT_MS / 2);
    loop {
        match rfs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// SIGCHLD becomes readable; signals that a service manager sends to every process are left to the server.
fn block_signals() -> io::Result<SignalFd> {
    let mut blocked = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGCHLD] {
        blocked.add(signal);
    }
    blocked.thread_block()?;
    let mut watched = SigSet::empty();
    watched.add(Signal::SIGCHLD);
    Ok(SignalFd::with_flags(&watched, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?)
}

/// Tries what a container with a user namespace needs: the namespace, and the state folder's owners shifted into it.
fn probe_user_namespaces(state_dir: &Path, owner: u64) -> io::Result<()> {
    let namespaces = namespaces::create(Some(namespaces::first_id(owner, 0)))?;
    lane::mapped_tree(state_dir, namespaces.user.as_ref()).map(drop)
}
