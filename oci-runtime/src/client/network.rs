//! Sockets inside a container's network namespace, and waiting until its program listens.
//!
//! A thread that enters another network namespace must not do anything else afterwards, so each batch of sockets gets
//! a thread of its own, which ends with it. Connecting itself is done by the caller: a socket stays in the namespace
//! that it was made in.

use neap_sdk::limits;
use nix::sched::{CloneFlags, setns};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

const BACKOFF_FIRST: Duration = Duration::from_micros(200);
const BACKOFF_LONGEST: Duration = Duration::from_millis(5);
/// A listener with a full backlog lets a connection hang; it is tried anew then.
const ATTEMPT_LONGEST: Duration = Duration::from_secs(1);

/// A program that listens.
pub struct Listening {
    /// Where; some programs listen on `::1` only.
    pub address: SocketAddr,
    /// The connection that proved it; the first request can use it.
    pub connection: TcpStream,
    /// Unconnected sockets for the next requests.
    pub sockets: Vec<OwnedFd>,
}

/// Runs `work` inside `network`, on a thread of its own.
fn inside<T: Send + 'static>(
    network: Arc<OwnedFd>,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<oneshot::Receiver<io::Result<T>>> {
    let (sender, receiver) = oneshot::channel();
    std::thread::Builder::new().name("neap-netns".into()).stack_size(128 << 10).spawn(move || {
        let result = setns(network.as_fd(), CloneFlags::CLONE_NEWNET).map_err(io::Error::from);
        let _ = sender.send(result.and_then(|()| work()));
    })?;
    Ok(receiver)
}

/// Unconnected, non-blocking TCP sockets.
fn sockets(address: &SocketAddr) -> io::Result<Vec<OwnedFd>> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    (0..limits::CONTAINER_SOCKETS_KEPT)
        .map(|_| Ok(socket_with(family, SocketType::STREAM, flags, None)?))
        .collect()
}

/// A batch of sockets inside `network`.
pub async fn open(network: Arc<OwnedFd>, address: SocketAddr) -> io::Result<Vec<OwnedFd>> {
    let gone = |_| io::Error::other("the thread that opens sockets ended");
    inside(network, move || sockets(&address))?.await.map_err(gone)?
}

/// Ends the search for a listener when dropped.
struct Stop(Arc<AtomicBool>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Tries to connect to `port` until it works; `None` when `timeout` is over. Dropping the future ends the attempts.
pub async fn wait(network: Arc<OwnedFd>, port: u16, timeout: Duration) -> io::Result<Option<Listening>> {
    let stop = Stop(Arc::new(AtomicBool::new(false)));
    let stopped = stop.0.clone();
    let result = inside(network, move || search(port, Instant::now() + timeout, &stopped))?;
    let result = result.await.map_err(|_| io::Error::other("the thread that connects ended"))?;
    drop(stop);
    result
}

fn search(port: u16, deadline: Instant, stopped: &AtomicBool) -> io::Result<Option<Listening>> {
    let addresses = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)]
        .map(|address| SocketAddr::new(address, port));
    let mut pause = BACKOFF_FIRST;
    while !stopped.load(Ordering::Relaxed) {
        for address in addresses {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            if let Ok(connection) = TcpStream::connect_timeout(&address, left.min(ATTEMPT_LONGEST)) {
                connection.set_nonblocking(true)?;
                return Ok(Some(Listening { address, connection, sockets: sockets(&address)? }));
            }
        }
        std::thread::sleep(pause);
        pause = (pause * 3 / 2).min(BACKOFF_LONGEST);
    }
    Ok(None)
}
