//! The sockets' common terms, alike in every relay that is compared.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

/// Opens the listener. What is set on it holds for the connections that are accepted from it.
///
/// # Errors
/// What the kernel said.
pub fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    // Without it a large answer waits 40 ms for an acknowledgement that the peer delays.
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_user_timeout(Some(Duration::from_millis(STALLED_MS_MAX.into())))?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// A peer that acknowledges nothing for so long is gone; the kernel ends the connection.
pub const STALLED_MS_MAX: u32 = 30_000;
/// Connections of clients at a time; one more is closed at once.
pub const CLIENTS_MAX: usize = 16 * 1024;
/// Bytes of one receive unless the command line says otherwise.
pub const RECEIVE_BYTES: usize = 32 * 1024;
/// Rest after an accept that failed for want of descriptors or memory.
pub const ACCEPT_REST_MS: u64 = 10;

const BACKLOG: i32 = 4096;
