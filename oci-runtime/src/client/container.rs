//! One running container.
//!
//! It must not restart anything and keeps no history; whoever holds it decides. Dropped, it ends.

use super::error::{Exit, FreezeError};
use super::freeze;
use super::link::{self, Link, Phase, Started};
use super::network::{self, Listening};
use neap_sdk::limits;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::watch;

/// What a container used since its program began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ContainerUsage {
    /// CPU time of all its processes, in microseconds.
    pub cpu_us: u64,
    /// Most memory at once, in bytes, with its files: everything it writes is in memory.
    pub memory_peak_bytes: u64,
    /// Memory now, in bytes; 0 once it ended.
    pub memory_bytes: u64,
}

/// A running container. Clones are the same container; when the last one is dropped, it is killed.
#[derive(Clone)]
pub struct Container {
    inner: Arc<Inner>,
}

struct Inner {
    /// Keeps the spawner alive.
    _link: Arc<Link>,
    started: Started,
    network: Arc<OwnedFd>,
    phase: watch::Receiver<Phase>,
    address: SocketAddr,
    stop_signal: i32,
    sockets: Mutex<Sockets>,
    /// Held by whoever opens the next batch of sockets.
    refill: tokio::sync::Mutex<()>,
}

struct Sockets {
    /// The connection that proved that the program listens, and when.
    first: Option<(std::net::TcpStream, Instant)>,
    unconnected: Vec<OwnedFd>,
}

/// The proving connection is given away only so long: many programs close one that stays silent.
const FIRST_FRESH: Duration = Duration::from_secs(1);

/// A container that was set up; it may not listen yet.
pub(super) struct Launched {
    pub link: Arc<Link>,
    pub started: Started,
    pub phase: watch::Receiver<Phase>,
    pub stop_signal: i32,
}

impl Launched {
    /// The container, once it listens.
    pub fn listening(self, network: Arc<OwnedFd>, listening: Listening) -> Container {
        let Self { link, started, phase, stop_signal } = self;
        let sockets =
            Sockets { first: Some((listening.connection, Instant::now())), unconnected: listening.sockets };
        let inner = Inner {
            _link: link,
            started,
            network,
            phase,
            address: listening.address,
            stop_signal,
            sockets: Mutex::new(sockets),
            refill: tokio::sync::Mutex::new(()),
        };
        Container { inner: Arc::new(inner) }
    }
}

impl Container {
    /// A new connection to the port that the program listens on, made inside the container's network namespace.
    ///
    /// Errors: what connect(2) says; `NotConnected` once the container ended. Cancel-safe.
    pub async fn connect(&self) -> io::Result<TcpStream> {
        if self.inner.exit().is_some() {
            return Err(io::Error::new(ErrorKind::NotConnected, "the container has ended"));
        }
        let first = self.inner.sockets().first.take();
        if let Some((connection, since)) = first
            && since.elapsed() < FIRST_FRESH
            // Silence is what a fresh connection looks like; an end or data is not.
            && connection.peek(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
        {
            connection.set_nodelay(true)?;
            return TcpStream::from_std(connection);
        }
        let socket = self.socket().await?;
        let connection = TcpSocket::from_std_stream(socket.into()).connect(self.inner.address).await?;
        connection.set_nodelay(true)?;
        Ok(connection)
    }

    async fn socket(&self) -> io::Result<OwnedFd> {
        loop {
            if let Some(socket) = self.inner.sockets().unconnected.pop() {
                return Ok(socket);
            }
            let _turn = self.inner.refill.lock().await;
            // Someone else may have filled it while this one waited.
            if self.inner.sockets().unconnected.is_empty() {
                let batch = network::open(self.inner.network.clone(), self.inner.address).await?;
                self.inner.sockets().unconnected.extend(batch);
            }
        }
    }

    /// Stops every process of the container where it stands; returns when all have stopped.
    pub async fn freeze(&self) -> Result<(), FreezeError> {
        self.inner.exit().map_or(Ok(()), |_| Err(FreezeError::Exited))?;
        freeze::set(&self.inner.started.group, true).await
    }

    /// Lets a frozen container run on.
    pub async fn thaw(&self) -> Result<(), FreezeError> {
        self.inner.exit().map_or(Ok(()), |_| Err(FreezeError::Exited))?;
        freeze::set(&self.inner.started.group, false).await
    }

    /// Ends the container: thaws it, sends the image's stop signal (SIGTERM), waits up to `grace`, kills what is left,
    /// and returns when nothing of it is left on the machine. Again on an ended container: returns at once.
    ///
    /// A program that neither handles nor blocks the signal is killed at once: the kernel does not deliver it to the
    /// first process of a container, so that waiting would change nothing.
    pub async fn stop(&self, grace: Duration) {
        let inner = &self.inner;
        freeze::thaw_now(&inner.started.group);
        if inner.exit().is_none() && !grace.is_zero() && inner.takes_stop_signal() && inner.signal().is_ok() {
            let _ = tokio::time::timeout(grace, self.exited()).await;
        }
        inner.started.group.kill();
        let mut phase = inner.phase.clone();
        let removed = phase.wait_for(|phase| matches!(phase, Phase::Removed(..)));
        let longest = Duration::from_millis(2 * limits::CONTAINER_KILL_TIMEOUT_MS);
        if tokio::time::timeout(longest, removed).await.is_err() {
            tracing::error!(pid = inner.started.pid, "a container's processes do not end");
        }
    }

    /// Completes when the container ended, on its own or by [`Container::stop`]. Cancel-safe; any number may wait.
    pub async fn exited(&self) -> Exit {
        link::ended(&mut self.inner.phase.clone()).await
    }

    /// The first process, as the host numbers it.
    pub fn pid(&self) -> u32 {
        self.inner.started.pid
    }

    /// What it used so far; of an ended one, in all.
    pub fn usage(&self) -> ContainerUsage {
        let inner = &self.inner;
        let ended = inner.exit().map(|(_, usage)| usage);
        // Between the end of the group and the news of it there is nothing to read.
        let usage = ended.or_else(|| inner.started.group.usage().ok()).unwrap_or_default();
        ContainerUsage {
            cpu_us: usage.cpu_us.saturating_sub(inner.started.setup_cpu_us),
            memory_peak_bytes: usage.memory_peak_bytes,
            memory_bytes: if ended.is_some() { 0 } else { usage.memory_bytes },
        }
    }
}

impl std::fmt::Debug for Container {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Container").field("pid", &self.pid()).field("address", &self.inner.address).finish()
    }
}

impl Inner {
    fn exit(&self) -> Option<(Exit, crate::cgroup::Usage)> {
        self.phase.borrow().exit()
    }

    fn sockets(&self) -> MutexGuard<'_, Sockets> {
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the first process would notice its stop signal. Source: proc_pid_status(5), SigBlk and SigCgt.
    fn takes_stop_signal(&self) -> bool {
        let Ok(status) = std::fs::read_to_string(format!("/proc/{}/status", self.started.pid)) else {
            return false;
        };
        let mask = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            u64::from_str_radix(line.trim(), 16).ok()
        };
        let noticed = mask("SigCgt:").unwrap_or(0) | mask("SigBlk:").unwrap_or(0);
        noticed >> (self.stop_signal - 1) & 1 == 1
    }

    fn signal(&self) -> io::Result<()> {
        // SAFETY: the number was checked to be a signal when the image was read; real-time signals, which the safe
        // constructor refuses, are handed to another process here, where no library of ours reserves them.
        let signal = unsafe { rustix::process::Signal::from_raw_unchecked(self.stop_signal) };
        Ok(rustix::process::pidfd_send_signal(self.started.pidfd.as_fd(), signal)?)
    }
}
