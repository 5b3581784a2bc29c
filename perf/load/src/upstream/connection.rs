//! One connection of the upstream: a request, its answer, the next request.

use std::cmp::Reverse;
use std::io;

use crate::clock::{self, MICROSECOND, MILLISECOND, Nanos};
use crate::http::Malformed;
use crate::link::{Buffers, Link};
use crate::request::{SHORT_ANSWER_BYTES, Tool};
use crate::upstream::Shared;
use crate::upstream::asked::{Asked, Id, What};
use crate::upstream::canned::{self, EventChunk, Kind};

/// A connection from a proxy or, for the direct runs, from the generator.
pub(crate) struct Connection {
    link: Link,
    /// What came of a request that is not whole yet, or behind one that is being answered.
    inbox: Vec<u8>,
    scratch: Vec<u8>,
    answering: Answering,
    /// What is written of the answer but not yet taken by the socket.
    unsent: Vec<u8>,
    close: bool,
}

/// Where the answer stands.
enum Answering {
    /// No request is open.
    Nothing,
    /// Being sent straight from the prepared bytes, which all connections share.
    Canned {
        number: usize,
        id: Id,
        sent: usize,
    },
    /// Due later.
    Later {
        id: Id,
    },
    Stream(Box<Stream>),
    /// The rest stands in `unsent`.
    Ending,
}

struct Stream {
    id: Id,
    sequence: u64,
    count: u64,
    gap: Nanos,
    due: Nanos,
    chunk: EventChunk,
}

impl Connection {
    pub(crate) fn new(link: Link) -> Self {
        Self {
            link,
            inbox: Vec::new(),
            scratch: Vec::new(),
            answering: Answering::Nothing,
            unsent: Vec::new(),
            close: false,
        }
    }

    /// The socket is ready for something; false once the connection is over.
    pub(crate) fn on_event(
        &mut self,
        key: u64,
        ending: bool,
        buffers: &mut Buffers,
        shared: &mut Shared,
    ) -> bool {
        self.event(key, ending, buffers, shared).unwrap_or(false)
    }

    /// A timer of this connection has run out.
    pub(crate) fn on_time(&mut self, key: u64, shared: &mut Shared) -> bool {
        let on = match &self.answering {
            Answering::Later { id } => {
                let number =
                    shared.canned.prepare(Kind::Message(SHORT_ANSWER_BYTES), id, self.close);
                self.answering = Answering::Canned { number, id: *id, sent: 0 };
                self.push(shared)
            }
            Answering::Stream(_) => self.stream_on(key, shared),
            Answering::Nothing | Answering::Canned { .. } | Answering::Ending => Ok(()),
        };
        on.is_ok() && self.go_on(key, shared).unwrap_or(false)
    }

    fn event(
        &mut self,
        key: u64,
        ending: bool,
        buffers: &mut Buffers,
        shared: &mut Shared,
    ) -> io::Result<bool> {
        self.link.flush()?;
        self.push(shared)?;
        while let Some(received) = self.link.receive(buffers)? {
            if received.closed {
                return Ok(false);
            }
            let more = received.more || ending;
            if self.inbox.is_empty() && matches!(self.answering, Answering::Nothing) {
                // The usual case: one read is one request, and nothing is copied.
                let used = self.take(received.bytes, key, shared)?;
                self.inbox.extend_from_slice(received.bytes.get(used..).unwrap_or_default());
            } else {
                self.inbox.extend_from_slice(received.bytes);
            }
            if self.inbox.len() > INBOX_BYTES_MAX {
                return Ok(false);
            }
            if !more {
                break;
            }
        }
        self.go_on(key, shared)
    }

    /// Takes up requests that wait in the inbox, as long as answers go out at once.
    fn go_on(&mut self, key: u64, shared: &mut Shared) -> io::Result<bool> {
        while matches!(self.answering, Answering::Nothing) {
            if self.close {
                return Ok(false);
            }
            if self.inbox.is_empty() {
                return Ok(true);
            }
            let inbox = std::mem::take(&mut self.inbox);
            let used = self.take(&inbox, key, shared)?;
            self.inbox = inbox;
            self.inbox.drain(..used);
            if used == 0 {
                return Ok(true);
            }
        }
        Ok(true)
    }

    /// Begins to answer the request at the front, if it is whole; says how many bytes it took.
    fn take(&mut self, bytes: &[u8], key: u64, shared: &mut Shared) -> io::Result<usize> {
        let read = Asked::read(bytes, &mut self.scratch);
        let Some(asked) = read.map_err(|Malformed| io::ErrorKind::InvalidData)? else {
            return Ok(0);
        };
        shared.seen.requests += 1;
        if shared.seen.tls.is_none() {
            shared.seen.tls = self.link.agreed();
        }
        shared.seen.with_key += u64::from(asked.with_key);
        shared.seen.with_authorization += u64::from(asked.with_authorization);
        self.close = asked.close;
        let kind = match asked.what {
            What::Accepted => Kind::Accepted,
            What::Discover => Kind::Discover,
            What::Initialize => Kind::Initialize,
            What::ListTools => Kind::Tools,
            What::NotAllowed => Kind::NotAllowed,
            What::Ping => Kind::Ping,
            What::Tool(Tool::Answer(size)) => Kind::Message(size),
            What::Tool(Tool::Slow(delay)) => {
                let due = clock::now() + delay * MILLISECOND;
                shared.timers.push(Reverse((due, key)));
                self.answering = Answering::Later { id: asked.id };
                return Ok(asked.used);
            }
            What::Tool(Tool::Stream { count, gap_us }) => {
                self.stream(asked.id, count, gap_us * MICROSECOND, key, shared)?;
                return Ok(asked.used);
            }
            What::Unknown => Kind::Unknown,
        };
        let number = shared.canned.prepare(kind, &asked.id, asked.close);
        self.answering = Answering::Canned { number, id: asked.id, sent: 0 };
        self.push(shared)?;
        Ok(asked.used)
    }

    /// Sends what is to be sent, as far as the socket takes it.
    fn push(&mut self, shared: &mut Shared) -> io::Result<()> {
        if !self.unsent.is_empty() {
            let count = self.link.send(&self.unsent)?;
            self.unsent.drain(..count);
        }
        if !self.unsent.is_empty() {
            return Ok(());
        }
        match &mut self.answering {
            Answering::Ending => self.answering = Answering::Nothing,
            Answering::Canned { number, id, sent } => {
                let bytes = shared.canned.bytes(*number, id);
                *sent += self.link.send(bytes.get(*sent..).unwrap_or_default())?;
                if *sent == bytes.len() {
                    self.answering = Answering::Nothing;
                }
            }
            Answering::Nothing | Answering::Later { .. } | Answering::Stream(_) => {}
        }
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let count = if self.unsent.is_empty() { self.link.send(bytes)? } else { 0 };
        self.unsent.extend_from_slice(bytes.get(count..).unwrap_or_default());
        Ok(())
    }

    fn stream(
        &mut self,
        id: Id,
        count: u64,
        gap: Nanos,
        key: u64,
        shared: &mut Shared,
    ) -> io::Result<()> {
        // Streams that begin together would send together for ever: the first events are spread
        // over one gap.
        let due = clock::now() + gap * (key % STAGGER) / STAGGER;
        shared.timers.push(Reverse((due, key)));
        let chunk = EventChunk::new();
        self.answering =
            Answering::Stream(Box::new(Stream { id, sequence: 0, count, gap, due, chunk }));
        self.write(canned::STREAM_HEAD)
    }

    /// The next event of the stream, or its end.
    fn stream_on(&mut self, key: u64, shared: &mut Shared) -> io::Result<()> {
        let Answering::Stream(stream) = &mut self.answering else { return Ok(()) };
        let now = clock::now();
        // Never a burst: a stream that comes late, or whose reader is slow, goes on from now.
        stream.due = (stream.due + stream.gap).max(now);
        if !self.unsent.is_empty() {
            shared.timers.push(Reverse((stream.due.max(now + MILLISECOND), key)));
            return Ok(());
        }
        if stream.sequence == stream.count {
            let end = canned::stream_end(&stream.id);
            self.answering = Answering::Ending;
            self.write(&end)?;
            return self.push(shared);
        }
        let bytes = stream.chunk.with(stream.sequence, now);
        let count = self.link.send(bytes)?;
        self.unsent.extend_from_slice(bytes.get(count..).unwrap_or_default());
        stream.sequence += 1;
        shared.timers.push(Reverse((stream.due, key)));
        Ok(())
    }
}

const INBOX_BYTES_MAX: usize = 8 * 1024 * 1024;
const STAGGER: u64 = 64;
