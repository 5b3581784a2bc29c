//! One connection, plain or TLS, that never waits.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto};

/// Where bytes are read into; one pair serves all connections of a process.
pub(crate) struct Buffers {
    wire: Vec<u8>,
    plain: Vec<u8>,
}

impl Buffers {
    pub(crate) fn new() -> Self {
        Self { wire: vec![0; READ_BYTES], plain: Vec::new() }
    }

    /// A stand-in for buffers that are lent out.
    pub(crate) fn none() -> Self {
        Self { wire: Vec::new(), plain: Vec::new() }
    }
}

/// What one read brought.
pub(crate) struct Received<'b> {
    pub(crate) bytes: &'b [u8],
    /// The read filled the buffer: there may be more and no further edge tells of it.
    pub(crate) more: bool,
    /// The peer has sent its last byte.
    pub(crate) closed: bool,
}

/// A connection.
pub(crate) struct Link {
    socket: TcpStream,
    tls: Option<Box<rustls::Connection>>,
}

impl Link {
    /// Starts to connect; the socket is writable once that is done.
    pub(crate) fn connect(target: SocketAddr, tls: Option<rustls::Connection>) -> io::Result<Self> {
        let family = if target.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket =
            rustix::net::socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?;
        match rustix::net::connect(&socket, &target) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(error) => return Err(error.into()),
        }
        Self::over(TcpStream::from(socket), tls)
    }

    /// Takes over a socket that does not block.
    pub(crate) fn over(socket: TcpStream, tls: Option<rustls::Connection>) -> io::Result<Self> {
        // Without it a small write waits for the acknowledgement of the one before: 40 ms.
        socket.set_nodelay(true)?;
        let tls = tls.map(|mut tls| {
            tls.set_buffer_limit(Some(TLS_BUFFER_BYTES));
            Box::new(tls)
        });
        Ok(Self { socket, tls })
    }

    pub(crate) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Why connecting failed, once the socket is writable.
    pub(crate) fn connect_error(&self) -> io::Result<()> {
        match self.socket.take_error()? {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// Whether the TLS handshake, if there is one, is done.
    pub(crate) fn is_established(&self) -> bool {
        self.tls.as_ref().is_none_or(|tls| !tls.is_handshaking())
    }

    /// Whether TLS 1.3 was agreed by a handshake that resumed nothing.
    pub(crate) fn is_full_tls13(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| {
            tls.protocol_version() == Some(rustls::ProtocolVersion::TLSv1_3)
                && tls.handshake_kind().is_some_and(|kind| kind != rustls::HandshakeKind::Resumed)
        })
    }

    /// What a finished handshake agreed on: version, cipher, key exchange.
    pub(crate) fn agreed(&self) -> Option<String> {
        let tls = self.tls.as_ref()?;
        let (version, suite) = (tls.protocol_version()?, tls.negotiated_cipher_suite()?.suite());
        let group = tls.negotiated_key_exchange_group()?.name();
        Some(format!("{version:?} {suite:?} {group:?}"))
    }

    /// Sends as much as the socket takes now and says how much of `bytes` that was.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(tls) = self.tls.as_mut() else { return unblocked(self.socket.write(bytes)) };
        let mut taken = 0;
        loop {
            let rest = bytes.get(taken..).unwrap_or_default();
            let count = if rest.is_empty() { 0 } else { tls.writer().write(rest)? };
            taken += count;
            if !flush(tls, &mut self.socket)? || count == 0 {
                return Ok(taken);
            }
        }
    }

    /// Sends what TLS still holds; true once nothing is left.
    pub(crate) fn flush(&mut self) -> io::Result<bool> {
        match self.tls.as_mut() {
            None => Ok(true),
            Some(tls) => flush(tls, &mut self.socket),
        }
    }

    /// Reads once. `None`: nothing there yet.
    pub(crate) fn receive<'b>(
        &mut self,
        buffers: &'b mut Buffers,
    ) -> io::Result<Option<Received<'b>>> {
        let count = match self.socket.read(&mut buffers.wire) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error),
        };
        let (closed, more) = (count == 0, count == buffers.wire.len());
        let wire = buffers.wire.get(..count).unwrap_or_default();
        let Some(tls) = self.tls.as_mut() else {
            return Ok(Some(Received { bytes: wire, more, closed }));
        };
        buffers.plain.clear();
        decrypt(tls, wire, &mut buffers.plain)?;
        flush(tls, &mut self.socket)?;
        Ok(Some(Received { bytes: &buffers.plain, more, closed }))
    }
}

fn decrypt(tls: &mut rustls::Connection, mut wire: &[u8], plain: &mut Vec<u8>) -> io::Result<()> {
    while !wire.is_empty() {
        if tls.read_tls(&mut wire)? == 0 {
            break;
        }
        let state = tls.process_new_packets().map_err(io::Error::other)?;
        let (start, count) = (plain.len(), state.plaintext_bytes_to_read());
        plain.resize(start + count, 0);
        if let Some(room) = plain.get_mut(start..) {
            tls.reader().read_exact(room)?;
        }
    }
    Ok(())
}

fn flush(tls: &mut rustls::Connection, socket: &mut TcpStream) -> io::Result<bool> {
    while tls.wants_write() {
        match tls.write_tls(socket) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

fn unblocked(written: io::Result<usize>) -> io::Result<usize> {
    match written {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        other => other,
    }
}

const READ_BYTES: usize = 256 * 1024;
const TLS_BUFFER_BYTES: usize = 64 * 1024;
