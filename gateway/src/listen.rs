//! One address, one listening socket per core: the kernel spreads connections over them (`SO_REUSEPORT`), so no
//! connection ever moves between cores. Accepts nothing.

use neap_sdk::limits;
use socket2::{Domain, Protocol, Socket, Type};
use std::{io, net::SocketAddr, net::TcpListener};

/// Why the gateway cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Something else has the port.
    #[error("port {port} is in use by another process; use --listen to choose another one, or stop that process", port = .0.port())]
    InUse(SocketAddr),
    /// Anything else.
    #[error("cannot listen on {address}")]
    Failed {
        /// The address asked for.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

impl ListenError {
    fn new(address: SocketAddr, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::AddrInUse => Self::InUse(address),
            _ => Self::Failed { address, source },
        }
    }
}

/// Opens `count` non-blocking listeners on one address; with port 0, on one port that the kernel chooses.
///
/// The first socket binds *without* `SO_REUSEPORT`, which fails where any other process has the port, even one
/// that shares it; only then the port is shared, with our own further sockets.
///
/// # Errors
/// The port is taken, or the address is not ours.
pub(crate) fn listen(address: SocketAddr, count: usize) -> Result<Vec<TcpListener>, ListenError> {
    let error = |source| ListenError::new(address, source);
    let first = socket(address).map_err(error)?;
    first.bind(&address.into()).map_err(error)?;
    first.set_reuse_port(true).map_err(error)?;
    // The port is ours only from here on: two sockets with SO_REUSEADDR may both be bound, not both listen.
    first.listen(limits::LISTEN_BACKLOG).map_err(error)?;
    let first = TcpListener::from(first);
    let bound = first.local_addr().map_err(error)?;
    let mut listeners = vec![first];
    for _ in 1..count {
        let next = socket(bound).map_err(error)?;
        next.set_reuse_port(true).map_err(error)?;
        next.bind(&bound.into()).map_err(error)?;
        next.listen(limits::LISTEN_BACKLOG).map_err(error)?;
        listeners.push(next.into());
    }
    Ok(listeners)
}

fn socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Otherwise connections of the last run, in TIME_WAIT, would hold the port for a minute.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_is_in_use_is_an_error_even_if_its_owner_shares_it() {
        let ours = listen("127.0.0.1:0".parse().expect("address"), 2).expect("a free port");
        let address = ours[0].local_addr().expect("bound");
        assert_eq!(ours[1].local_addr().expect("bound"), address, "both on one port");
        let error = listen(address, 2).expect_err("the port is taken");
        assert!(error.to_string().contains(&format!("port {} is in use", address.port())), "{error}");
        assert!(error.to_string().contains("--listen"), "{error}");
        drop(ours);
        listen(address, 2).expect("free again");
    }

    #[test]
    fn an_address_of_another_machine_is_named() {
        let error = listen("192.0.2.1:0".parse().expect("address"), 1).expect_err("not our address");
        assert_eq!(error.to_string(), "cannot listen on 192.0.2.1:0");
    }
}
