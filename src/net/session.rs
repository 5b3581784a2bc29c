//! The TLS state of one connection, without I/O: ciphertext in, plaintext and ciphertext out.
//!
//! Built on rustls' unbuffered connections: the buffers are ours, so that none is held while a
//! connection is idle and none is lost when a read is cancelled.

mod message;

use std::mem;

use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::ServerName;
use rustls::server::{Acceptor, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncryptError, InsufficientSizeError, UnbufferedStatus, WriteTraffic,
};

use super::NetError;
use super::tls::{ClientTls, ServerTls};
use super::wiped::Wiped;
use message::{alert, encode, goodbye};

/// One TLS connection.
pub(super) struct Session {
    connection: Connection,
    /// Ciphertext from the peer, decrypted where it lies; consumed, and wiped, up to
    /// `incoming_start`.
    incoming: Wiped,
    incoming_start: usize,
    /// Ciphertext to be sent.
    outgoing: Vec<u8>,
    /// Plaintext that did not fit into the reader's buffer; consumed, and wiped, up to
    /// `plain_start`.
    plain: Wiped,
    plain_start: usize,
    /// Reads take little room, for a peer that may keep us waiting.
    lean: bool,
    /// Reads the ClientHello beside the connection: the unbuffered server does not show SNI.
    hello: Option<Acceptor>,
    /// Bytes that it was given.
    hello_bytes: usize,
    /// How much of `incoming` was there before the read under way.
    incoming_known: usize,
    server_name: Option<Box<str>>,
    peer_closed: bool,
    /// rustls was asked whether it keeps an answer to KeyUpdate back.
    asked: bool,
    /// An error is final; the connection is not touched again.
    failed: bool,
}

/// What a session waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// More ciphertext; the handshake is under way.
    Handshake,
    /// The peer has sent `close_notify`; all its data was delivered.
    PeerClosed,
    /// Nothing: it can read and write.
    Ready,
}

impl Session {
    pub(super) fn server(tls: &ServerTls) -> Result<Self, NetError> {
        let connection =
            UnbufferedServerConnection::new(tls.config()).map_err(|_| NetError::Tls)?;
        let mut session = Self::new(Connection::Server(connection));
        session.hello = Some(Acceptor::default());
        Ok(session)
    }

    pub(super) fn client(tls: &ClientTls, host: &str) -> Result<Self, NetError> {
        let name = ServerName::try_from(host.to_owned()).map_err(|_| NetError::Tls)?;
        let connection =
            UnbufferedClientConnection::new(tls.config(), name).map_err(|_| NetError::Tls)?;
        Ok(Self::new(Connection::Client(connection)))
    }

    fn new(connection: Connection) -> Self {
        Self {
            connection,
            incoming: Wiped::new(),
            incoming_start: 0,
            outgoing: Vec::new(),
            plain: Wiped::new(),
            plain_start: 0,
            lean: false,
            hello: None,
            hello_bytes: 0,
            incoming_known: 0,
            server_name: None,
            peer_closed: false,
            asked: false,
            failed: false,
        }
    }

    /// Works off what has arrived. Plaintext goes into `sink`, up to the length that stands beside
    /// it (within its capacity), the rest of a record is kept for the next call; ciphertext to send
    /// is left in the outgoing buffer, on an error the alert that tells the peer.
    pub(super) fn advance(&mut self, sink: Option<Sink<'_>>) -> Result<Next, NetError> {
        self.asked = false;
        if let Some((sink, end)) = sink {
            self.deliver(sink, end);
            // A record at a time: what is kept stays under one record.
            while self.plain.is_empty() && sink.len() < end {
                match self.step(&[], Some((&mut *sink, end)))? {
                    Step::Again => {}
                    Step::Handshake => return Ok(Next::Handshake),
                    Step::Done => break,
                }
            }
        } else {
            loop {
                match self.step(&[], None)? {
                    Step::Again => {}
                    Step::Handshake => return Ok(Next::Handshake),
                    Step::Done => break,
                }
            }
        }
        Ok(if self.peer_closed && self.plain.is_empty() { Next::PeerClosed } else { Next::Ready })
    }

    /// Encrypts `data` into the outgoing buffer.
    pub(super) fn encrypt(&mut self, data: &[u8]) -> Result<(), NetError> {
        loop {
            match self.step(data, None)? {
                Step::Again => {}
                Step::Handshake => return Err(NetError::Tls),
                Step::Done => return Ok(()),
            }
        }
    }

    /// Puts `close_notify` into the outgoing buffer.
    pub(super) fn say_goodbye(&mut self) -> Result<(), NetError> {
        self.asked = false;
        self.encrypt(&[])?;
        let mut discard = 0;
        let unread = self.incoming.get_mut(self.incoming_start..).unwrap_or_default();
        let outgoing = &mut self.outgoing;
        match &mut self.connection {
            Connection::Client(client) => {
                let status = client.process_tls_records(unread);
                discard += status.discard;
                goodbye(status, outgoing);
            }
            Connection::Server(server) => {
                let status = server.process_tls_records(unread);
                discard += status.discard;
                goodbye(status, outgoing);
            }
        }
        self.consume(discard);
        Ok(())
    }

    pub(super) fn is_handshaking(&self) -> bool {
        match &self.connection {
            Connection::Client(client) => client.is_handshaking(),
            Connection::Server(server) => server.is_handshaking(),
        }
    }

    pub(super) fn server_name(&self) -> Option<&str> {
        self.server_name.as_deref()
    }

    /// True when a read would find plaintext, or a whole record, without the socket.
    pub(super) fn has_input(&self) -> bool {
        let unread = self.incoming.get(self.incoming_start..).unwrap_or_default();
        let whole = match unread {
            // RFC 8446 §5.1: type, version, length, then that many bytes.
            [_, _, _, high, low, rest @ ..] => {
                rest.len() >= usize::from(u16::from_be_bytes([*high, *low]))
            }
            _ => false,
        };
        !self.plain.is_empty() || whole || self.peer_closed
    }

    /// True when anything of the peer is unread, or it has said goodbye.
    pub(super) fn holds_bytes(&self) -> bool {
        self.peer_closed || !self.plain.is_empty() || self.incoming_start < self.incoming.len()
    }

    /// The buffer to read ciphertext into, with spare capacity.
    pub(super) fn take_incoming(&mut self) -> Result<Vec<u8>, NetError> {
        let mut incoming = self.incoming.take();
        // What moves, and what a growing buffer leaves behind, is ciphertext.
        incoming.drain(..mem::take(&mut self.incoming_start).min(incoming.len()));
        let few = self.lean || self.is_handshaking();
        let room = if few { FEW_BYTES } else { RECORD_BYTES_MAX };
        if incoming.len() >= INCOMING_BYTES_MAX {
            self.incoming.put(incoming);
            return Err(NetError::Tls);
        }
        let least = if self.lean { LEAN_ROOM_BYTES } else { room };
        if incoming.capacity() < incoming.len() + least {
            incoming.reserve_exact(room);
        }
        self.incoming_known = incoming.len();
        Ok(incoming)
    }

    /// Gives that buffer back; the new bytes are at its end.
    pub(super) fn give_incoming(&mut self, incoming: Vec<u8>) {
        self.incoming.put(incoming);
        self.look_for_name();
    }

    /// Whether what is read from here on takes little memory beyond what has arrived, at the price
    /// of more reads for a long record.
    pub(super) fn be_lean(&mut self, lean: bool) {
        self.lean = lean;
        let held = self.incoming.len() + FEW_BYTES;
        if lean && self.incoming.capacity() > held {
            drop(self.incoming.swap(Vec::with_capacity(held)));
        }
    }

    pub(super) fn take_outgoing(&mut self) -> Vec<u8> {
        mem::take(&mut self.outgoing)
    }

    /// Ciphertext that waits to be sent.
    pub(super) fn outgoing_bytes(&self) -> usize {
        self.outgoing.len()
    }

    pub(super) fn give_outgoing(&mut self, mut outgoing: Vec<u8>) {
        outgoing.clear();
        self.outgoing = outgoing;
    }

    /// Frees buffers that hold nothing, so that an idle connection has none.
    pub(super) fn release(&mut self) {
        if self.incoming_start >= self.incoming.len() {
            drop(self.incoming.take());
            self.incoming_start = 0;
        }
        if self.outgoing.is_empty() {
            self.outgoing = Vec::new();
        }
        if self.plain.is_empty() {
            drop(self.plain.take());
        }
    }

    /// Sends a KeyUpdate that asks for one in return (RFC 8446 §4.6.3).
    #[cfg(test)]
    pub(super) fn refresh_keys(&mut self) {
        let Connection::Client(client) = &mut self.connection else { panic!("client only") };
        let status = client.process_tls_records(&mut []);
        let Ok(ConnectionState::WriteTraffic(traffic)) = status.state else { panic!("not ready") };
        traffic.refresh_traffic_keys().unwrap();
        assert_eq!(self.advance(None), Ok(Next::Ready));
    }

    #[cfg(test)]
    pub(super) fn common(&self) -> &rustls::CommonState {
        match &self.connection {
            Connection::Client(client) => client,
            Connection::Server(server) => server,
        }
    }

    #[cfg(test)]
    pub(super) fn hello_bytes(&self) -> usize {
        self.hello_bytes
    }

    /// Where the records lie that were read, and what of their plaintext is kept.
    #[cfg(test)]
    pub(super) fn memory(&self) -> (&[u8], &[u8]) {
        (&self.incoming[..self.incoming_start], &self.plain)
    }

    #[cfg(test)]
    pub(super) fn buffered(&self) -> usize {
        self.incoming.capacity() + self.outgoing.capacity() + self.plain.capacity()
    }

    fn step(&mut self, data: &[u8], sink: Option<Sink<'_>>) -> Result<Step, NetError> {
        if self.failed {
            return Err(NetError::Tls);
        }
        let unread = self.incoming.get_mut(self.incoming_start..).unwrap_or_default();
        let mut ends = Ends {
            data,
            sink,
            plain: &mut self.plain,
            outgoing: &mut self.outgoing,
            peer_closed: &mut self.peer_closed,
            asked: &mut self.asked,
        };
        let (discard, step) = match &mut self.connection {
            Connection::Client(client) => ends.handle(client.process_tls_records(unread)),
            Connection::Server(server) => ends.handle(server.process_tls_records(unread)),
        };
        self.consume(discard);
        if step.is_err() {
            self.failed = true;
            self.collect_alert();
        }
        step
    }

    fn consume(&mut self, count: usize) {
        let end = self.incoming_start + count;
        self.incoming.blank(self.incoming_start..end);
        self.incoming_start = end;
    }

    /// After an error the connection still holds the alert that names it, behind what was to be
    /// sent before.
    fn collect_alert(&mut self) {
        for _ in 0..LAST_MESSAGES_MAX {
            let unread = self.incoming.get_mut(self.incoming_start..).unwrap_or_default();
            let outgoing = &mut self.outgoing;
            let more = match &mut self.connection {
                Connection::Client(client) => alert(client.process_tls_records(unread), outgoing),
                Connection::Server(server) => alert(server.process_tls_records(unread), outgoing),
            };
            if !more {
                break;
            }
        }
    }

    fn deliver(&mut self, sink: &mut Vec<u8>, end: usize) {
        let kept = self.plain.get(self.plain_start..).unwrap_or_default();
        let count = kept.len().min(end.saturating_sub(sink.len()));
        sink.extend_from_slice(kept.get(..count).unwrap_or_default());
        self.plain.blank(self.plain_start..self.plain_start + count);
        self.plain_start += count;
        if self.plain_start >= self.plain.len() {
            self.plain.clear();
            self.plain_start = 0;
        }
    }

    /// Gives what was just read to the second reader of the ClientHello, each byte once: whoever
    /// sends it in pieces is not yet known to anybody. Faults are left to the connection itself,
    /// except the length: a hello that no client needs ends here, or its name would go unseen.
    fn look_for_name(&mut self) {
        let Some(mut acceptor) = self.hello.take() else { return };
        let mut fresh = self.incoming.get(self.incoming_known..).unwrap_or_default();
        self.hello_bytes += fresh.len();
        while !fresh.is_empty() {
            let read = acceptor.read_tls(&mut fresh);
            let Ok(accepted) = read.map_err(drop).and_then(|_| acceptor.accept().map_err(drop))
            else {
                return;
            };
            if let Some(accepted) = accepted {
                let name = accepted.client_hello().server_name().map(str::to_ascii_lowercase);
                self.server_name = name.map(String::into_boxed_str);
                return;
            }
        }
        if self.hello_bytes > HELLO_BYTES_MAX {
            self.failed = true;
            return;
        }
        self.hello = Some(acceptor);
    }
}

/// Where plaintext goes, and the length up to which it may.
pub(super) type Sink<'a> = (&'a mut Vec<u8>, usize);

enum Connection {
    Client(UnbufferedClientConnection),
    Server(UnbufferedServerConnection),
}

enum Step {
    Again,
    Handshake,
    Done,
}

/// Where the bytes of one step come from and go to.
struct Ends<'a> {
    data: &'a [u8],
    sink: Option<Sink<'a>>,
    plain: &'a mut Wiped,
    outgoing: &'a mut Vec<u8>,
    peer_closed: &'a mut bool,
    asked: &'a mut bool,
}

impl Ends<'_> {
    fn handle<D>(
        &mut self,
        status: UnbufferedStatus<'_, '_, D>,
    ) -> (usize, Result<Step, NetError>) {
        let UnbufferedStatus { mut discard, state } = status;
        let step = match state {
            Err(_) => Err(NetError::Tls),
            Ok(ConnectionState::ReadTraffic(mut traffic)) => loop {
                match traffic.next_record() {
                    Some(Ok(record)) => {
                        discard += record.discard;
                        self.store(record.payload);
                    }
                    Some(Err(_)) => break Err(NetError::Tls),
                    None => break Ok(Step::Again),
                }
            },
            Ok(ConnectionState::EncodeTlsData(message)) => {
                encode(message, self.outgoing).map(|()| Step::Again)
            }
            // The bytes are ours now, and leave before anything that comes after them.
            Ok(ConnectionState::TransmitTlsData(transmit)) => {
                transmit.done();
                Ok(Step::Again)
            }
            Ok(ConnectionState::PeerClosed) => {
                *self.peer_closed = true;
                Ok(Step::Again)
            }
            Ok(ConnectionState::Closed) if self.data.is_empty() => {
                *self.peer_closed = true;
                Ok(Step::Done)
            }
            Ok(ConnectionState::BlockedHandshake) => Ok(Step::Handshake),
            Ok(ConnectionState::WriteTraffic(traffic)) => self.encrypt(traffic),
            // 0-RTT is off on both sides: a replay could repeat a tool call (RFC 8446 §8).
            Ok(ConnectionState::ReadEarlyData(_) | ConnectionState::Closed | _) => {
                Err(NetError::Tls)
            }
        };
        (discard, step)
    }

    fn store(&mut self, payload: &[u8]) {
        // The payload is a copy of rustls' own, which it frees as it is: out of our reach.
        let mut rest = payload;
        if let Some((sink, end)) = &mut self.sink {
            let (now, later) = payload.split_at(payload.len().min(end.saturating_sub(sink.len())));
            sink.extend_from_slice(now);
            rest = later;
        }
        self.plain.extend(rest);
    }

    /// Encrypts the data. With none, makes rustls give out an answer to KeyUpdate, which it keeps
    /// for the next write: one byte that finds no room is not encrypted, but queues the answer
    /// before it, and the next step encodes that.
    fn encrypt<D>(&mut self, mut traffic: WriteTraffic<'_, D>) -> Result<Step, NetError> {
        let begin = self.outgoing.len();
        if self.data.is_empty() {
            if mem::replace(self.asked, true) {
                return Ok(Step::Done);
            }
            return match traffic.encrypt(&[0], &mut []) {
                Err(EncryptError::InsufficientSize(_)) => Ok(Step::Again),
                Ok(_) | Err(EncryptError::EncryptExhausted) => Err(NetError::Tls),
            };
        }
        let records = self.data.len() / PLAIN_BYTES_MAX + 1;
        let mut room = self.data.len() + records * RECORD_OVERHEAD_BYTES;
        loop {
            self.outgoing.resize(begin + room, 0);
            let free = self.outgoing.get_mut(begin..).unwrap_or_default();
            match traffic.encrypt(self.data, free) {
                Ok(count) => {
                    self.outgoing.truncate(begin + count);
                    return Ok(Step::Done);
                }
                Err(EncryptError::InsufficientSize(InsufficientSizeError { required_size }))
                    if required_size > room =>
                {
                    room = required_size;
                }
                Err(EncryptError::InsufficientSize(_) | EncryptError::EncryptExhausted) => {
                    self.outgoing.truncate(begin);
                    return Err(NetError::Tls);
                }
            }
        }
    }
}

/// Plaintext of one record (RFC 8446 §5.1).
const PLAIN_BYTES_MAX: usize = 16 * 1024;
/// What protection adds to a record, at most: header, explicit nonce, content type, tag.
const RECORD_OVERHEAD_BYTES: usize = 5 + 8 + 1 + 16;
/// A record on the wire (RFC 5246 §6.2.3 allows 2048 more than the plaintext).
const RECORD_BYTES_MAX: usize = 5 + PLAIN_BYTES_MAX + 2048;
/// One read during the handshake, and one of a lean session, which reads on until fewer than
/// [`LEAN_ROOM_BYTES`] are left of it.
const FEW_BYTES: usize = 4096;
const LEAN_ROOM_BYTES: usize = 1024;
/// Unconsumed ciphertext: the largest handshake message rustls joins, and a record.
const INCOMING_BYTES_MAX: usize = 64 * 1024 + RECORD_BYTES_MAX;
/// A ClientHello, in however many records: clients send 2 kB with post-quantum keys.
const HELLO_BYTES_MAX: usize = RECORD_BYTES_MAX;
/// Messages that a failed connection may still have to send: its last flight and the alert.
const LAST_MESSAGES_MAX: usize = 16;
