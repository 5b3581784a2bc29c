//! One HTTP answer as it comes in, and what can be verified of it without reading JSON.

use crate::http::{self, Body, Chunks, Framing, Malformed};
use crate::request::value_of;
use crate::sse::{Events, Stamp};

/// An answer under way. One per connection, used again and again.
#[derive(Debug)]
pub(crate) struct Answer {
    head: Vec<u8>,
    body: Option<Body>,
    status: u16,
    close: bool,
    events: Option<Events>,
    content: Content,
}

/// What is wrong with an answer; the name under which it is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wrong {
    /// The id is not the request's.
    Id,
    Length,
    /// A JSON-RPC error in place of the result.
    RpcError,
    Status(u16),
    /// A result that says `isError`.
    ToolError,
}

/// What an answer must be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    pub(crate) id: u64,
    /// Bytes of the JSON message; `None` when the length says nothing.
    pub(crate) length: Option<u64>,
    /// How far a message may be off: 0 unless a peer is known to write the JSON anew.
    pub(crate) slack: u64,
}

impl Answer {
    pub(crate) fn new() -> Self {
        Self {
            head: Vec::new(),
            body: None,
            status: 0,
            close: false,
            events: None,
            content: Content::default(),
        }
    }

    /// Makes ready for the next answer.
    pub(crate) fn clear(&mut self) {
        self.head.clear();
        self.body = None;
        self.status = 0;
        self.close = false;
        self.events = None;
        self.content.clear();
    }

    /// Whether the connection ends with this answer.
    pub(crate) fn closes(&self) -> bool {
        self.close
    }

    /// Takes in bytes; `Some` with the number used once the answer is complete. `stamps` gets those of events.
    pub(crate) fn feed(
        &mut self,
        bytes: &[u8],
        stamps: &mut impl FnMut(Stamp),
    ) -> Result<Option<usize>, Malformed> {
        let mut used = 0;
        while self.body.is_none() {
            match self.feed_head(bytes.get(used..).unwrap_or_default())? {
                Some(count) => used += count,
                None => return Ok(None),
            }
        }
        let rest = bytes.get(used..).unwrap_or_default();
        let Some(body) = self.body.as_mut() else { return Ok(None) };
        let (content, events) = (&mut self.content, &mut self.events);
        let (count, done) = body.feed(rest, &mut |piece| match events {
            None => content.append(piece),
            Some(events) => events.feed(piece, &mut |data| match Stamp::of(data) {
                Some(stamp) => stamps(stamp),
                // The last event without a stamp is the answer itself.
                None => content.replace(data),
            }),
        })?;
        Ok(done.then_some(used + count))
    }

    /// The peer closed: whether that was the end of the answer.
    pub(crate) fn is_ended_by_close(&self) -> bool {
        matches!(self.body, Some(Body::ToClose))
    }

    /// Reads the head, which most of the time is all in `bytes`; `Some` with the number of bytes used of them.
    fn feed_head(&mut self, bytes: &[u8]) -> Result<Option<usize>, Malformed> {
        if self.head.is_empty() {
            if let Some(end) = http::head_end(bytes) {
                self.read_head(bytes.get(..end).unwrap_or_default())?;
                return Ok(Some(end));
            }
            self.head.extend_from_slice(bytes);
            return Ok(None);
        }
        let before = self.head.len();
        self.head.extend_from_slice(bytes);
        let Some(end) = http::head_end(&self.head) else {
            return if self.head.len() > HEAD_BYTES_MAX { Err(Malformed) } else { Ok(None) };
        };
        let mut head = std::mem::take(&mut self.head);
        head.truncate(end);
        self.read_head(&head)?;
        head.clear();
        self.head = head;
        Ok(Some(end - before))
    }

    fn read_head(&mut self, head: &[u8]) -> Result<(), Malformed> {
        let line = http::first_line(head);
        if !line.starts_with(b"HTTP/1.") {
            return Err(Malformed);
        }
        let status = line.get(9..12).and_then(http::number).ok_or(Malformed)?;
        if (100..200).contains(&status) {
            return Ok(()); // interim: the answer proper follows
        }
        let mut framing = Framing::default();
        for (name, value) in http::fields(head) {
            framing.note(name, value)?;
        }
        self.status = u16::try_from(status).map_err(|_| Malformed)?;
        self.body = Some(match framing.length {
            _ if status == 204 || status == 304 => Body::Length(0),
            _ if framing.chunked => Body::Chunked(Chunks::default()),
            Some(length) => Body::Length(length),
            None => Body::ToClose,
        });
        self.close = framing.close
            || line.starts_with(b"HTTP/1.0")
            || matches!(self.body, Some(Body::ToClose));
        self.events = framing.event_stream.then(Events::default);
        Ok(())
    }

    /// Holds a complete answer against what was asked for.
    pub(crate) fn verify(&self, wanted: Wanted) -> Result<(), Wrong> {
        if self.status != 200 {
            return Err(Wrong::Status(self.status));
        }
        let content = &self.content;
        if content.value_of(b"\"error\"").is_some() {
            return Err(Wrong::RpcError);
        }
        if content.value_of(b"\"id\"").and_then(leading_number) != Some(wanted.id) {
            return Err(Wrong::Id);
        }
        if content.value_of(b"\"isError\"").is_some_and(|value| value.starts_with(b"true")) {
            return Err(Wrong::ToolError);
        }
        match wanted.length {
            Some(length) if length.abs_diff(content.total) > wanted.slack => Err(Wrong::Length),
            _ => Ok(()),
        }
    }
}

/// Start, end and length of a message; its middle is filler and is not kept.
#[derive(Debug, Default)]
struct Content {
    start: Vec<u8>,
    end: Vec<u8>,
    total: u64,
}

impl Content {
    fn clear(&mut self) {
        self.start.clear();
        self.end.clear();
        self.total = 0;
    }

    fn replace(&mut self, message: &[u8]) {
        self.clear();
        self.append(message);
    }

    fn append(&mut self, piece: &[u8]) {
        self.total += piece.len() as u64;
        let room = KEPT_BYTES.saturating_sub(self.start.len()).min(piece.len());
        let (start, rest) = piece.split_at(room);
        self.start.extend_from_slice(start);
        let tail = rest.get(rest.len().saturating_sub(KEPT_BYTES)..).unwrap_or_default();
        let surplus = (self.end.len() + tail.len()).saturating_sub(KEPT_BYTES);
        self.end.drain(..surplus.min(self.end.len()));
        self.end.extend_from_slice(tail);
    }

    fn value_of(&self, key: &[u8]) -> Option<&[u8]> {
        value_of(&self.start, key).or_else(|| value_of(&self.end, key))
    }
}

/// The number a JSON value starts with; peers may have made a string of it.
fn leading_number(value: &[u8]) -> Option<u64> {
    let value = value.strip_prefix(b"\"").unwrap_or(value);
    let end = value.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(value.len());
    http::number(value.get(..end)?)
}

const HEAD_BYTES_MAX: usize = 64 * 1024;
const KEPT_BYTES: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    const WANTED: Wanted = Wanted { id: 1_000_000_007, length: Some(38), slack: 0 };
    const GOOD: &[u8] =
        b"HTTP/1.1 200 OK\r\nContent-Length: 38\r\n\r\n{\"jsonrpc\":\"2.0\",\"id\":1000000007,\"r\":1}";

    fn read(wire: &[u8], size: usize) -> Result<(Answer, usize, Vec<Stamp>), Malformed> {
        let (mut answer, mut used, mut stamps) = (Answer::new(), 0, Vec::new());
        for piece in wire.chunks(size) {
            if let Some(count) = answer.feed(piece, &mut |stamp| stamps.push(stamp))? {
                return Ok((answer, used + count, stamps));
            }
            used += piece.len();
        }
        panic!("not complete: {answer:?}");
    }

    #[test]
    fn an_answer_of_known_length_is_read_in_any_pieces() {
        let wire = [b"HTTP/1.1 103 Early\r\n\r\n", GOOD, b"rest"].concat();
        for size in 1..wire.len() {
            let (answer, used, _) = read(&wire, size).unwrap();
            assert_eq!(used, wire.len() - 4);
            assert_eq!(answer.verify(WANTED), Ok(()), "pieces of {size}");
            assert!(!answer.closes());
        }
    }

    #[test]
    fn every_fault_of_an_answer_is_seen() {
        let text = str::from_utf8(GOOD).unwrap();
        for (from, to, wrong) in [
            ("200 OK", "429 No", Wrong::Status(429)),
            ("1000000007", "1000000008", Wrong::Id),
            ("\"id\":1000000007", "\"at\":1000000007", Wrong::Id),
            (": 38\r\n", ": 37\r\n", Wrong::Length),
            ("\"r\":1}", "\"error\":{}}", Wrong::RpcError),
            ("\"r\":1}", "\"isError\":true}", Wrong::ToolError),
        ] {
            let mut wire = text.replace(from, to);
            wire.push_str("          ");
            let (answer, _, _) = if matches!(wrong, Wrong::RpcError | Wrong::ToolError) {
                let length = wire.split("\r\n\r\n").nth(1).unwrap().len();
                read(wire.replace(": 38", &format!(": {length}")).as_bytes(), 9).unwrap()
            } else {
                read(wire.as_bytes(), 9).unwrap()
            };
            assert_eq!(answer.verify(WANTED), Err(wrong), "{to}");
        }
    }

    #[test]
    fn slack_lets_a_message_that_was_written_anew_pass() {
        let wire =
            str::from_utf8(GOOD).unwrap().replace("\"id\":1", "\"id\": 1").replace("38", "39");
        let (answer, _, _) = read(wire.as_bytes(), 64).unwrap();
        assert_eq!(answer.verify(WANTED), Err(Wrong::Length));
        assert_eq!(answer.verify(Wanted { slack: 1, ..WANTED }), Ok(()));
    }

    #[test]
    fn a_chunked_event_stream_gives_its_stamps_and_its_answer() {
        let event = "data: {\"seq\":\"0\",\"ns\":\"12\"}\n\n";
        let last = "data: {\"jsonrpc\":\"2.0\",\"id\":1000000007,\"r\":1}\n\n";
        let wire = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n\
             {:x}\r\n{event}\r\n{:x}\r\n{last}\r\n0\r\n\r\n",
            event.len(),
            last.len()
        );
        for size in 1..wire.len() {
            let (answer, used, stamps) = read(wire.as_bytes(), size).unwrap();
            assert_eq!(used, wire.len());
            assert_eq!(stamps, [Stamp { sequence: 0, sent: 12 }]);
            assert_eq!(answer.verify(WANTED), Ok(()));
        }
    }

    #[test]
    fn an_id_behind_a_large_result_is_found() {
        let body = format!("{{\"result\":\"{}\",\"id\":1000000007}}", "a".repeat(100_000));
        let wire = format!("HTTP/1.1 200 OK\r\ncontent-length:{}\r\n\r\n{body}", body.len());
        let wanted = Wanted { length: Some(body.len() as u64), ..WANTED };
        for size in [1, 255, 256, 257, 4096, 1 << 20] {
            assert_eq!(read(wire.as_bytes(), size).unwrap().0.verify(wanted), Ok(()));
        }
    }

    #[test]
    fn an_answer_without_length_ends_with_the_connection() {
        let mut answer = Answer::new();
        let wire = b"HTTP/1.1 200 OK\r\n\r\n{\"id\":1000000007}";
        assert_eq!(answer.feed(wire, &mut |_| ()), Ok(None));
        assert!(answer.is_ended_by_close() && answer.closes());
        assert_eq!(answer.verify(Wanted { length: None, ..WANTED }), Ok(()));
    }

    #[test]
    fn what_is_no_http_is_malformed() {
        assert!(read(b"SSH-2.0-x\r\n\r\n", 99).is_err());
        assert!(read(b"HTTP/1.1 2x0 OK\r\n\r\n", 99).is_err());
        assert!(read(&[b'x'; 70_000], 1000).is_err());
    }
}
