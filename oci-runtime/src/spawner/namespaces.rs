//! The user and network namespaces of one sandbox, made before an order comes.
//!
//! libcontainer could make them itself, but then on the start path, and for a user namespace it insists on systemd's
//! cgroups. It gets these by path instead. Single-threaded processes only: this forks.

use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork};
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;

use neap_sdk::limits;

/// The namespaces of one sandbox.
pub struct Namespaces {
    /// Owns all other namespaces of the container; `None` where the machine has none.
    pub user: Option<OwnedFd>,
    /// Has `lo` and nothing else.
    pub network: OwnedFd,
}

/// First id on the host that containers get; the range that systemd sets aside for them ends at 0x6FFF_FFFF.
const IDS_FIRST: u32 = 0x4000_0000;
const ID_RANGES: u32 = (0x6FFF_0000 - IDS_FIRST) / limits::CONTAINER_IDS_MAX;

/// The first id on the host of the container in slot `index`: different slots share no id. `owner` (a hash of the
/// state folder) keeps two servers on one machine apart.
pub fn first_id(owner: u64, index: u32) -> u32 {
    let range = (owner % u64::from(ID_RANGES) + u64::from(index)) % u64::from(ID_RANGES);
    // Below ID_RANGES, so it fits.
    IDS_FIRST + range as u32 * limits::CONTAINER_IDS_MAX
}

/// Makes the namespaces; with `first_id`, ids 0… inside are `first_id`… outside.
pub fn create(first_id: Option<u32>) -> io::Result<Namespaces> {
    let (mut ours, theirs) = UnixStream::pair()?;
    // SAFETY: the process has one thread, so the child may do whatever the parent may.
    match unsafe { fork() }? {
        ForkResult::Child => {
            drop(ours);
            let code = match hold(theirs, first_id.is_some()) {
                Ok(()) => 0,
                Err(error) => error.raw_os_error().unwrap_or(libc::EIO),
            };
            // SAFETY: ends the child without running destructors that belong to the parent.
            unsafe { libc::_exit(code) }
        }
        ForkResult::Parent { child } => {
            drop(theirs);
            let result = adopt(&mut ours, child, first_id);
            let _ = kill(child, Signal::SIGKILL);
            let status = waitpid(child, None);
            result.map_err(|error| match status {
                Ok(nix::sys::wait::WaitStatus::Exited(_, code)) if code != 0 => {
                    io::Error::from_raw_os_error(code)
                }
                _ => error,
            })
        }
    }
}

/// The child: makes the namespaces and holds them until the parent has them open.
fn hold(mut parent: UnixStream, user: bool) -> io::Result<()> {
    let mut byte = [0];
    if user {
        unshare(CloneFlags::CLONE_NEWUSER)?;
        parent.write_all(b"u")?;
        parent.read_exact(&mut byte)?;
    }
    unshare(CloneFlags::CLONE_NEWNET)?;
    raise_loopback()?;
    // A program without capabilities may listen on port 80 of its own network.
    let _ = fs::write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0");
    parent.write_all(b"n")?;
    // The parent kills us; at the latest, the end of its socket lets us go.
    let _ = parent.read(&mut byte);
    Ok(())
}

fn adopt(child_end: &mut UnixStream, child: Pid, first_id: Option<u32>) -> io::Result<Namespaces> {
    let mut byte = [0];
    let proc = |name: &str| format!("/proc/{child}/{name}");
    if let Some(first_id) = first_id {
        child_end.read_exact(&mut byte)?;
        let map = format!("0 {first_id} {}", limits::CONTAINER_IDS_MAX);
        fs::write(proc("uid_map"), &map)?;
        fs::write(proc("gid_map"), &map)?;
        child_end.write_all(b"m")?;
    }
    child_end.read_exact(&mut byte)?;
    let user = first_id.map(|_| File::open(proc("ns/user")).map(OwnedFd::from)).transpose()?;
    Ok(Namespaces { user, network: File::open(proc("ns/net"))?.into() })
}

/// `ip link set lo up`. Source: netdevice(7).
fn raise_loopback() -> io::Result<()> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
    // SAFETY: ifreq is plain data, for which zeros are a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l'.cast_signed();
    request.ifr_name[1] = b'o'.cast_signed();
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: the socket is open and SIOCSIFFLAGS reads one ifreq, which lives until the call returns.
    match unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_never_share_ids_and_stay_in_the_range() {
        for owner in [0, 7, u64::MAX] {
            let ids: std::collections::HashSet<u32> =
                (0..ID_RANGES).map(|index| first_id(owner, index)).collect();
            assert_eq!(ids.len(), ID_RANGES as usize);
            assert!(ids.iter().all(|id| (IDS_FIRST..0x6FFF_0000).contains(id) && id % 65_536 == 0));
        }
    }
}
