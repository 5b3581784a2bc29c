//! A connection, plain or TLS: reads and writes with a deadline that lose nothing.

use std::net::{IpAddr, SocketAddr};

use monoio::net::TcpStream;

use super::NetError;
use super::session::{Next, Session};
use super::socket::Socket;
use super::timers::Timers;
use super::tls::{ClientTls, ServerTls};
use super::wiped::Wiped;
use super::wire::Wire;
use crate::clock::Monotonic;

/// A connection to an agent or an upstream, owned by one task at a time.
///
/// The futures of [`Stream::read`] and [`Stream::write_all`] must be awaited to their end; one that
/// is dropped may have taken bytes with it, so the stream is dead from then on rather than wrong.
pub struct Stream {
    socket: Socket,
    peer: SocketAddr,
    tls: Option<Box<Session>>,
}

impl Stream {
    /// Wraps a connected socket and switches Nagle's algorithm off.
    pub(super) fn new(tcp: TcpStream, peer: SocketAddr, timers: Timers) -> std::io::Result<Self> {
        tcp.set_nodelay(true)?;
        Ok(Self { socket: Socket::new(Wire::Tcp(tcp), timers), peer, tls: None })
    }

    /// A peer without a socket, always ready: every read brings `says`, every write is taken.
    #[cfg(feature = "bench-internals")]
    #[must_use]
    pub fn scripted(says: Vec<u8>, timers: Timers) -> Self {
        use super::script::{PEER, Script};
        Self { socket: Socket::new(Wire::Script(Script::new(says)), timers), peer: PEER, tls: None }
    }

    /// Appends to `buf`, within its spare capacity (grown when there is none). `Ok(0)` is the
    /// orderly end: FIN on a plain stream, `close_notify` on TLS.
    ///
    /// # Errors
    /// [`NetError::Timeout`] when `until` passes: the operation is cancelled and awaited, no byte
    /// is lost, and the stream may be read again. [`NetError::Closed`] when a TLS peer goes without
    /// `close_notify`: what came before may have been cut short (RFC 8446 §6.1).
    pub async fn read(
        &mut self,
        buf: Vec<u8>,
        until: Monotonic,
    ) -> (Result<usize, NetError>, Vec<u8>) {
        self.read_some(buf, usize::MAX, until).await
    }

    /// [`Stream::read`] of at most `bytes_max` bytes, for a reader that knows where its message
    /// ends: what follows stays where it is.
    ///
    /// # Errors
    /// As [`Stream::read`].
    pub async fn read_some(
        &mut self,
        mut buf: Vec<u8>,
        bytes_max: usize,
        until: Monotonic,
    ) -> (Result<usize, NetError>, Vec<u8>) {
        if buf.len() == buf.capacity() {
            buf.reserve(READ_BYTES_MIN);
        }
        let end = buf.len().saturating_add(bytes_max).min(buf.capacity());
        match &mut self.tls {
            None => self.socket.read(buf, end, until).await,
            Some(session) => {
                let result = read_tls(&mut self.socket, session, &mut buf, end, until).await;
                session.release();
                (result, buf)
            }
        }
    }

    /// Writes all of `buf` and gives it back.
    ///
    /// # Errors
    /// After any of them the stream is dead: how much arrived is not known.
    pub async fn write_all(
        &mut self,
        buf: Vec<u8>,
        until: Monotonic,
    ) -> (Result<(), NetError>, Vec<u8>) {
        let (result, buf, _) = self.write_both(buf, Vec::new(), 0, until).await;
        (result, buf)
    }

    /// Writes all of `head`, then `body` from `begin` on, and gives both back: a long body leaves
    /// with its head, and is not copied behind it first.
    ///
    /// # Errors
    /// After any of them the stream is dead: how much arrived is not known.
    pub async fn write_both(
        &mut self,
        head: Vec<u8>,
        body: Vec<u8>,
        begin: usize,
        until: Monotonic,
    ) -> (Result<(), NetError>, Vec<u8>, Vec<u8>) {
        if self.socket.broken {
            return (Err(NetError::Closed), head, body);
        }
        let Some(session) = &mut self.tls else {
            return self.socket.write_both(head, body, begin, until).await;
        };
        let mut result = Ok(());
        let parts = [head.as_slice(), body.get(begin..).unwrap_or_default()];
        for piece in parts.into_iter().flat_map(|part| part.chunks(TLS_WRITE_BYTES)) {
            result = session.encrypt(piece);
            if result.is_ok() && session.outgoing_bytes() >= TLS_WRITE_BYTES {
                result = flush(&mut self.socket, session, until).await;
            }
            if result.is_err() {
                break;
            }
        }
        if result.is_ok() {
            result = flush(&mut self.socket, session, until).await;
        }
        self.socket.broken |= result.is_err();
        session.release();
        (result, head, body)
    }

    /// Waits until a read would not block: data, the end or an error. May be dropped. On TLS a
    /// record that carries no data may end the wait, too.
    pub async fn readable(&self) {
        let buffered = self.tls.as_ref().is_some_and(|session| session.has_input());
        if !self.socket.broken && !buffered {
            self.socket.wire.readable().await;
        }
    }

    /// Whether reads hold little memory while a peer takes its time; for a TLS peer, whose records
    /// take some beside the reader's own.
    pub fn be_lean(&mut self, lean: bool) {
        if let Some(session) = &mut self.tls {
            session.be_lean(lean);
        }
    }

    /// True when the beginning of something is held that a read could not hand out yet: a part of a
    /// TLS record.
    #[must_use]
    pub fn holds_bytes(&self) -> bool {
        self.tls.as_ref().is_some_and(|session| session.holds_bytes())
    }

    /// True when the peer closed, or sent what nobody asked for: not fit to carry another request.
    #[must_use]
    pub fn looks_closed(&self) -> bool {
        self.socket.broken || self.holds_bytes() || !self.socket.wire.is_quiet()
    }

    /// Ends the connection so that the peer cannot take what it got for a whole answer: a reset, on
    /// TLS also without `close_notify` (RFC 8446 §6.1).
    pub fn abort(self) {
        self.socket.wire.reset_on_close();
    }

    /// Says that nothing more will be written: `close_notify` on TLS, then FIN. Reading goes on.
    pub async fn finish(&mut self, until: Monotonic) {
        if self.socket.broken {
            return;
        }
        if let Some(session) = &mut self.tls {
            let said = session.say_goodbye();
            if said.is_err() || flush(&mut self.socket, session, until).await.is_err() {
                self.socket.broken = true;
                return;
            }
        }
        self.socket.broken = !self.socket.wire.shutdown().await;
    }

    /// [`Stream::finish`], then what the peer still sends is read away until it closes, too, or
    /// `until` passes, or it has sent too much. Without that, a reset may overtake the answer
    /// (RFC 9112 §9.6).
    pub async fn close(mut self, until: Monotonic) {
        self.finish(until).await;
        // Another request, with another token, may be in there.
        let mut sink = Wiped::new();
        sink.grow(LINGER_BUFFER_BYTES);
        let mut total = 0;
        while total < LINGER_BYTES_MAX {
            sink.clear();
            let (result, buf) = self.socket.read(sink.take(), LINGER_BUFFER_BYTES, until).await;
            sink.put(buf);
            match result {
                Ok(0) | Err(_) => return,
                Ok(count) => total += count,
            }
        }
    }

    /// The server name that the TLS client asked for (RFC 6066 §3), in lower case.
    #[must_use]
    pub fn server_name(&self) -> Option<&str> {
        self.tls.as_ref().and_then(|session| session.server_name())
    }

    /// True on TLS.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// The other end, an IPv4-mapped address as the IPv4 address it is.
    #[must_use]
    pub fn peer(&self) -> SocketAddr {
        SocketAddr::new(self.peer.ip().to_canonical(), self.peer.port())
    }

    /// Whom a trusted proxy speaks for is the other end from now on; of its port nobody asks.
    pub(super) const fn set_peer(&mut self, client: IpAddr) {
        self.peer = SocketAddr::new(client, 0);
    }

    /// The timers that this stream's deadlines count on.
    #[must_use]
    pub fn timers(&self) -> &Timers {
        self.socket.alarm.timers()
    }

    /// Called before a stream is put aside: it must not keep its last task in memory.
    pub(super) fn park(&mut self) {
        self.socket.alarm.forget_waker();
    }

    #[cfg(test)]
    pub(super) fn socket_has_nodelay(&self) -> bool {
        match &self.socket.wire {
            Wire::Tcp(tcp) => tcp.nodelay().unwrap(),
            #[cfg(feature = "bench-internals")]
            Wire::Script(_) => false,
        }
    }

    /// Bytes of the memory that its TLS session holds beside the reader's own.
    #[cfg(test)]
    pub(crate) fn buffered(&self) -> usize {
        self.tls.as_ref().map_or(0, |session| session.buffered())
    }

    #[cfg(test)]
    pub(super) fn session(&mut self) -> Option<&mut Session> {
        self.tls.as_deref_mut()
    }
}

/// Takes the server's side of a TLS handshake on an accepted stream, within `until`.
///
/// # Errors
/// The handshake failed (the peer was told why, as far as TLS says), or took too long.
pub async fn accept_tls(
    stream: Stream,
    tls: &ServerTls,
    until: Monotonic,
) -> Result<Stream, NetError> {
    let session = Session::server(tls)?;
    handshake(stream, session, until).await
}

/// The client's side, for `host` as written in the URL.
pub(super) async fn connect_tls(
    stream: Stream,
    tls: &ClientTls,
    host: &str,
    until: Monotonic,
) -> Result<Stream, NetError> {
    let session = Session::client(tls, host)?;
    handshake(stream, session, until).await
}

async fn handshake(
    mut stream: Stream,
    session: Session,
    until: Monotonic,
) -> Result<Stream, NetError> {
    let mut session = Box::new(session);
    loop {
        let next = session.advance(None);
        // On an error this is the alert that says why.
        let flushed = flush(&mut stream.socket, &mut session, until).await;
        let next = next?;
        flushed?;
        if next == Next::Ready && !session.is_handshaking() {
            break;
        }
        fill(&mut stream.socket, &mut session, until).await?;
    }
    session.release();
    stream.tls = Some(session);
    Ok(stream)
}

async fn read_tls(
    socket: &mut Socket,
    session: &mut Session,
    buf: &mut Vec<u8>,
    end: usize,
    until: Monotonic,
) -> Result<usize, NetError> {
    if socket.broken {
        return Err(NetError::Closed);
    }
    loop {
        let before = buf.len();
        let next = session.advance(Some((&mut *buf, end)));
        // Alerts, and answers to KeyUpdate, must not wait for our next write (RFC 8446 §4.6.3).
        let flushed = flush(socket, session, until).await;
        if buf.len() > before {
            return Ok(buf.len() - before);
        }
        if next.inspect_err(|_| socket.broken = true)? == Next::PeerClosed {
            return Ok(0);
        }
        flushed?;
        fill(socket, session, until).await?;
    }
}

/// Reads ciphertext once. The end of the stream is an error: only `close_notify` ends TLS.
async fn fill(
    socket: &mut Socket,
    session: &mut Session,
    until: Monotonic,
) -> Result<(), NetError> {
    let (result, incoming) = {
        let incoming = session.take_incoming()?;
        let end = incoming.capacity();
        socket.read(incoming, end, until).await
    };
    session.give_incoming(incoming);
    if result? == 0 {
        socket.broken = true;
        return Err(NetError::Closed);
    }
    Ok(())
}

async fn flush(
    socket: &mut Socket,
    session: &mut Session,
    until: Monotonic,
) -> Result<(), NetError> {
    let outgoing = session.take_outgoing();
    if outgoing.is_empty() {
        return Ok(());
    }
    let (result, outgoing, _) = socket.write_both(outgoing, Vec::new(), 0, until).await;
    session.give_outgoing(outgoing);
    result
}

/// Spare capacity given to a buffer that has none.
const READ_BYTES_MIN: usize = 4096;
/// Plaintext encrypted at a time: two full records.
const TLS_WRITE_BYTES: usize = 32 * 1024;
/// What a peer may still send after our FIN.
const LINGER_BYTES_MAX: usize = 256 * 1024;
/// One read of that.
const LINGER_BUFFER_BYTES: usize = 4096;
