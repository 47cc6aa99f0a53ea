//! The server's end of the socket to the spawner: starts it, sends, and hands what it says to whom it concerns.
//!
//! It must not know what a container is beyond its number.

use super::error::{Exit, UnavailableError};
use crate::cgroup::{Group, Usage};
use crate::protocol::{self, FromSpawner, Receiver, RunId, ToSpawner};
use neap_sdk::limits;
use std::collections::HashMap;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{oneshot, watch};

/// Where a container is, seen from the server.
#[derive(Debug, Clone, Copy)]
pub enum Phase {
    /// Being set up, or running.
    Alive,
    /// Its first process ended.
    Exited(Exit, Usage),
    /// Nothing of it is left.
    Removed(Exit, Usage),
}

impl Phase {
    /// How it ended, once it did.
    pub const fn exit(&self) -> Option<(Exit, Usage)> {
        match self {
            Self::Alive => None,
            Self::Exited(exit, usage) | Self::Removed(exit, usage) => Some((*exit, *usage)),
        }
    }
}

/// Waits until a container has ended. Here and not inline, because the guard that `wait_for` returns is not `Send`.
pub async fn ended(phase: &mut watch::Receiver<Phase>) -> Exit {
    let result = phase.wait_for(|phase| phase.exit().is_some()).await;
    result.ok().and_then(|phase| phase.exit()).map_or(Exit::SpawnerLost, |(exit, _)| exit)
}

/// What the spawner hands over when a container is set up.
pub struct Started {
    /// Its first process.
    pub pid: u32,
    /// The same process, safe against reuse of the number.
    pub pidfd: OwnedFd,
    /// Its network namespace.
    pub network: OwnedFd,
    /// Its control group.
    pub group: Group,
    /// CPU time that is not its own.
    pub setup_cpu_us: u64,
}

impl Drop for Started {
    /// A container that nobody holds any more ends. After its end this does nothing: group names are never reused.
    fn drop(&mut self) {
        self.group.kill();
    }
}

/// What one container's owner waits for.
pub struct Expected {
    /// The number of the container.
    pub id: RunId,
    /// The outcome of setting up.
    pub started: oneshot::Receiver<Result<Started, String>>,
    /// What happens then.
    pub phase: watch::Receiver<Phase>,
}

struct Entry {
    started: Option<oneshot::Sender<Result<Started, String>>>,
    phase: watch::Sender<Phase>,
}

struct Shared {
    socket: AsyncFd<OwnedFd>,
    entries: Mutex<HashMap<RunId, Entry>>,
    lost: AtomicBool,
}

/// A running spawner. Dropping it ends the spawner and every container.
pub struct Link {
    shared: Arc<Shared>,
    next_id: AtomicU64,
    child: Mutex<Option<tokio::process::Child>>,
    reader: tokio::task::AbortHandle,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Link {
    /// Starts a spawner and waits until it is ready.
    pub async fn start(argv: &[OsString], state_dir: &Path, parked: usize) -> Result<Self, UnavailableError> {
        let failed = |what: &str, error: io::Error| UnavailableError(format!("{what}: {error}"));
        let (ours, theirs) = protocol::pair().map_err(|error| failed("no Unix socket", error))?;
        let (program, args) =
            argv.split_first().ok_or(UnavailableError("no spawner is configured".into()))?;
        // The server's environment may hold secrets; the spawner needs none of it. Without a hook between fork and
        // exec the standard library uses posix_spawn: the server's memory is not copied.
        let child = tokio::process::Command::new(program)
            .args(args)
            .env_clear()
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .spawn()
            .map_err(|error| failed("the spawner process cannot be started", error))?;
        let begin = ToSpawner::Begin { state_dir: state_dir.to_owned(), parked };
        protocol::send(&ours, &begin, &[]).map_err(|error| failed("the spawner does not listen", error))?;
        rustix::io::ioctl_fionbio(&ours, true).map_err(|error| failed("no Unix socket", error.into()))?;
        let socket = super::watch_fd(ours, Interest::READABLE | Interest::WRITABLE)
            .map_err(|error| failed("no Unix socket", error))?;
        let shared =
            Arc::new(Shared { socket, entries: Mutex::new(HashMap::new()), lost: AtomicBool::new(false) });
        let mut receiver = Receiver::default();
        let ready = Duration::from_millis(limits::SPAWNER_READY_TIMEOUT_MS);
        let answer = tokio::time::timeout(ready, shared.receive(&mut receiver))
            .await
            .map_err(|_| UnavailableError("the spawner process is not ready in time".into()))?
            .map_err(|error| failed("the spawner process does not answer", error))?;
        match answer {
            Some((FromSpawner::Ready { no_user_namespaces }, _)) => {
                if let Some(reason) = no_user_namespaces {
                    tracing::warn!(
                        reason,
                        "containers run without user namespaces; root inside is root, powerless"
                    );
                }
            }
            Some((FromSpawner::Unavailable(reason), _)) => return Err(UnavailableError(reason)),
            _ => return Err(UnavailableError("the spawner process ended at once".into())),
        }
        let reader = tokio::spawn(read(shared.clone(), receiver)).abort_handle();
        Ok(Self { shared, next_id: AtomicU64::new(1), child: Mutex::new(Some(child)), reader })
    }

    /// True once the spawner is gone.
    pub fn is_lost(&self) -> bool {
        self.shared.lost.load(Ordering::Acquire)
    }

    /// Announces a new container.
    pub fn expect(&self) -> Expected {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (started_sender, started) = oneshot::channel();
        let (phase_sender, phase) = watch::channel(Phase::Alive);
        self.shared.entries().insert(id, Entry { started: Some(started_sender), phase: phase_sender });
        if self.is_lost() {
            self.shared.lose();
        }
        Expected { id, started, phase }
    }

    /// Forgets a container whose order was never sent.
    pub fn forget(&self, id: RunId) {
        self.shared.entries().remove(&id);
    }

    /// Sends a message.
    pub async fn send(&self, message: &ToSpawner, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        loop {
            let mut ready = self.shared.socket.writable().await?;
            if let Ok(result) = ready.try_io(|socket| protocol::send(socket, message, descriptors)) {
                return result;
            }
        }
    }

    /// Asks the spawner to end a container; without waiting, and best effort when the socket is full.
    pub fn kill(&self, id: RunId) {
        let _ = protocol::send(self.shared.socket.get_ref(), &ToSpawner::Kill { id }, &[]);
    }

    /// Ends the spawner and all containers, and waits until nothing of them is left.
    pub async fn shutdown(&self) {
        let _ = rustix::net::shutdown(self.shared.socket.get_ref(), rustix::net::Shutdown::Write);
        let child = self.child.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut child) = child {
            let longest = Duration::from_millis(3 * limits::CONTAINER_KILL_TIMEOUT_MS);
            if tokio::time::timeout(longest, child.wait()).await.is_err() {
                tracing::error!("the spawner process did not end; the next start cleans up after it");
            }
        }
    }
}

impl Shared {
    fn entries(&self) -> MutexGuard<'_, HashMap<RunId, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn receive(&self, receiver: &mut Receiver) -> io::Result<Option<(FromSpawner, Vec<OwnedFd>)>> {
        loop {
            let mut ready = self.socket.readable().await?;
            if let Ok(result) = ready.try_io(|socket| receiver.receive(socket.get_ref().as_fd(), false)) {
                return result;
            }
        }
    }

    fn handle(&self, message: FromSpawner, descriptors: Vec<OwnedFd>) {
        let mut entries = self.entries();
        match message {
            FromSpawner::Started { id, pid, group, setup_cpu_us } => {
                let mut descriptors = descriptors.into_iter();
                let (Some(pidfd), Some(network)) = (descriptors.next(), descriptors.next()) else { return };
                let started = Started { pid: pid.cast_unsigned(), pidfd, network, group, setup_cpu_us };
                // If nobody waits any more, dropping it ends the container.
                if let Some(sender) = entries.get_mut(&id).and_then(|entry| entry.started.take()) {
                    let _ = sender.send(Ok(started));
                }
            }
            FromSpawner::Failed { id, reason } => {
                if let Some(sender) = entries.remove(&id).and_then(|entry| entry.started) {
                    let _ = sender.send(Err(reason));
                }
            }
            FromSpawner::Exited { id, status, usage } => {
                if let Some(entry) = entries.get(&id) {
                    entry.phase.send_replace(Phase::Exited(status.into(), usage));
                }
            }
            FromSpawner::Removed { id } => {
                if let Some(entry) = entries.remove(&id)
                    && let Some((exit, usage)) = { entry.phase.borrow().exit() }
                {
                    entry.phase.send_replace(Phase::Removed(exit, usage));
                }
            }
            FromSpawner::Ready { .. } | FromSpawner::Unavailable(_) => {}
        }
    }

    /// The spawner is gone, and all containers with it.
    fn lose(&self) {
        self.lost.store(true, Ordering::Release);
        for (_, entry) in self.entries().drain() {
            let (exit, usage) = entry.phase.borrow().exit().unwrap_or((Exit::SpawnerLost, Usage::default()));
            entry.phase.send_replace(Phase::Removed(exit, usage));
        }
    }
}

async fn read(shared: Arc<Shared>, mut receiver: Receiver) {
    loop {
        match shared.receive(&mut receiver).await {
            Ok(Some((message, descriptors))) => shared.handle(message, descriptors),
            Ok(None) => break,
            Err(error) => {
                tracing::error!(%error, "the spawner process cannot be understood");
                break;
            }
        }
    }
    tracing::debug!("the spawner process is gone");
    shared.lose();
}
