//! What server, spawner and sandbox say to each other: one JSON document per `SOCK_SEQPACKET` message, descriptors
//! beside it (`SCM_RIGHTS`).
//!
//! The three run the same executable, so the format has no versions. It must not decide anything.

use crate::cgroup::{Group, Usage};
use crate::image::User;
use neap_sdk::limits;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair, sockopt,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

/// Names one container between server and spawner; never used twice by a server.
pub type RunId = u64;

/// From the server to the spawner.
#[derive(Debug, Serialize, Deserialize)]
pub enum ToSpawner {
    /// The first message.
    Begin {
        /// Belongs to this server alone.
        state_dir: PathBuf,
        /// Sandboxes to keep prepared.
        parked: usize,
    },
    /// Start a container. Descriptors: its stdout, its stderr.
    Run {
        /// Its name in all that follows.
        id: RunId,
        /// What to run.
        order: Box<Order>,
    },
    /// End a container at once; also one that is still being started.
    Kill {
        /// Which.
        id: RunId,
    },
}

/// From the spawner to the server.
#[derive(Debug, Serialize, Deserialize)]
pub enum FromSpawner {
    /// Answer to `Begin`: containers can be started.
    Ready {
        /// Why containers have no user namespace of their own; `None` when they have.
        no_user_namespaces: Option<String>,
    },
    /// Answer to `Begin`: containers cannot be started here, with the reason.
    Unavailable(String),
    /// A container was set up and its program is about to run. Descriptors: pidfd, network namespace.
    Started {
        /// Which.
        id: RunId,
        /// Its first process, as the host sees it.
        pid: i32,
        /// Its control group.
        group: Group,
        /// CPU time that setting it up took; not the container's own.
        setup_cpu_us: u64,
    },
    /// A container could not be set up.
    Failed {
        /// Which.
        id: RunId,
        /// Why.
        reason: String,
    },
    /// A container's first process ended, and with it all others.
    Exited {
        /// Which.
        id: RunId,
        /// How.
        status: Status,
        /// All that it used, setting up included.
        usage: Usage,
    },
    /// Nothing of a container is left.
    Removed {
        /// Which.
        id: RunId,
    },
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Status {
    /// It returned a number.
    Code(i32),
    /// A signal ended it.
    Signal(i32),
    /// The kernel ended it for want of memory.
    OutOfMemory,
}

/// From the spawner to a sandbox: become this container. Descriptors: its stdout, its stderr.
#[derive(Debug, Serialize, Deserialize)]
pub struct Order {
    /// Host name inside.
    pub name: String,
    /// The flattened image.
    pub rootfs: PathBuf,
    /// Program and arguments.
    pub args: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// An absolute path.
    pub working_dir: String,
    /// Who runs it.
    pub user: User,
    /// Memory limit.
    pub memory_bytes: u64,
}

/// From a sandbox to the spawner.
#[derive(Debug, Serialize, Deserialize)]
pub enum FromLane {
    /// It waits for an order. Descriptor: its network namespace.
    Parked,
    /// The container is set up; its program runs next.
    Built {
        /// Its first process.
        pid: i32,
    },
    /// It cannot become a container.
    Failed(String),
}

/// Most descriptors beside one message.
const DESCRIPTORS_MAX: usize = 4;

/// Two connected ends, both closed on exec.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let (a, b) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    for end in [&a, &b] {
        // The default would refuse the largest message.
        let bytes = 2 * limits::SPAWNER_MESSAGE_BYTES_MAX;
        sockopt::set_socket_send_buffer_size_force(end, bytes)
            .or_else(|_| sockopt::set_socket_send_buffer_size(end, bytes))?;
    }
    Ok((a, b))
}

/// Sends one message.
pub fn send<T: Serialize>(socket: impl AsFd, message: &T, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let bytes = serde_json::to_vec(message)?;
    if bytes.len() > limits::SPAWNER_MESSAGE_BYTES_MAX {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("arguments and environment take more than {} bytes", limits::SPAWNER_MESSAGE_BYTES_MAX),
        ));
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::other("too many descriptors for one message"));
    }
    loop {
        match sendmsg(&socket, &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL) {
            Err(Errno::INTR) => {}
            result => return result.map(drop).map_err(Into::into),
        }
    }
}

/// Receives messages from one socket.
pub struct Receiver {
    buffer: Vec<u8>,
}

impl Default for Receiver {
    fn default() -> Self {
        Self { buffer: vec![0; limits::SPAWNER_MESSAGE_BYTES_MAX] }
    }
}

impl Receiver {
    /// Receives one message; `None` when the other side is gone. Without `wait`, `WouldBlock` when there is none.
    pub fn receive<T: DeserializeOwned>(
        &mut self,
        socket: impl AsFd,
        wait: bool,
    ) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let wait = if wait { RecvFlags::empty() } else { RecvFlags::DONTWAIT };
        let received = loop {
            let mut slices = [IoSliceMut::new(&mut self.buffer)];
            match recvmsg(&socket, &mut slices, &mut control, wait | RecvFlags::CMSG_CLOEXEC) {
                Err(Errno::INTR) => {}
                Err(Errno::CONNRESET) => return Ok(None),
                result => break result?,
            }
        };
        let mut descriptors = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(received) = message {
                descriptors.extend(received);
            }
        }
        if received.bytes == 0 {
            return Ok(None);
        }
        if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
            return Err(io::Error::other("a message between server and spawner was cut off"));
        }
        Ok(Some((serde_json::from_slice(&self.buffer[..received.bytes])?, descriptors)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};

    #[test]
    fn a_message_with_a_descriptor_arrives_whole() {
        let (a, b) = pair().unwrap();
        let (mut read, write) = io::pipe().unwrap();
        let reason = "x".repeat(limits::SPAWNER_MESSAGE_BYTES_MAX - 100);
        send(&a, &FromLane::Failed(reason.clone()), &[write.as_fd()]).unwrap();
        drop(write);
        let mut receiver = Receiver::default();
        let (message, mut descriptors) = receiver.receive(&b, true).unwrap().unwrap();
        assert!(matches!(message, FromLane::Failed(text) if text == reason));
        io::PipeWriter::from(descriptors.pop().unwrap()).write_all(b"through").unwrap();
        let mut text = String::new();
        read.read_to_string(&mut text).unwrap();
        assert_eq!(text, "through");
        let none = receiver.receive::<FromLane>(&b, false).unwrap_err();
        assert_eq!(none.kind(), io::ErrorKind::WouldBlock);
        drop(a);
        assert!(receiver.receive::<FromLane>(&b, true).unwrap().is_none());
        send(&b, &FromLane::Parked, &[]).unwrap_err();
    }
}
