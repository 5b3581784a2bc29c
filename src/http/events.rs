//! Whole server-sent events out of a stream (WHATWG HTML §9.2.5 and §9.2.6), however its bytes are
//! cut. For streams whose events the gateway reads; those that it only passes on are followed by
//! [`super::sse::EventTracker`].

use std::mem;

use super::sse::line_length;
use crate::reject::Reject;

/// Reads one event after the other. Holds the event under way and nothing else.
#[derive(Debug)]
pub struct EventReader {
    /// The line under way.
    line: Vec<u8>,
    event: Event,
    /// Bytes since the last event ended.
    pending: usize,
    bytes_max: usize,
    /// No line ended yet: before the first there may be a byte order mark.
    first: bool,
    /// The last byte was a CR; an LF behind it belongs to it.
    after_cr: bool,
    /// The event was handed out.
    ended: bool,
    /// It had a line, a comment at least.
    began: bool,
}

/// One event. An empty one stands for a comment, or for fields that nobody knows.
#[derive(Debug, Default)]
pub struct Event {
    data: Option<Vec<u8>>,
    id: Option<Vec<u8>>,
    kind: Vec<u8>,
    retry: Option<u64>,
}

impl Event {
    /// The values of its `data` fields, joined with LF; empty for an event without any, and for one
    /// that only gives the stream an id to come back with (2025-11-25, transports, "Listening for
    /// Messages from the Server").
    #[must_use]
    pub fn data(&self) -> &[u8] {
        self.data.as_deref().unwrap_or_default()
    }

    /// Its id, when it has one. An empty one takes back what an earlier event said.
    #[must_use]
    pub fn id(&self) -> Option<&[u8]> {
        self.id.as_deref()
    }

    /// Milliseconds to wait before coming back, when it says so.
    #[must_use]
    pub const fn retry(&self) -> Option<u64> {
        self.retry
    }

    /// True for `message`, which is what an event is that does not say: MCP knows no others.
    #[must_use]
    pub fn is_message(&self) -> bool {
        self.kind.is_empty() || self.kind == b"message"
    }

    /// True when there is nothing in it that anybody knows.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.data.is_none() && self.id.is_none() && self.retry.is_none()
    }
}

impl EventReader {
    /// At the start of a stream, no event of which may be longer than `bytes_max`, field names and
    /// comments included.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        Self {
            line: Vec::new(),
            event: Event::default(),
            pending: 0,
            bytes_max,
            first: true,
            after_cr: false,
            ended: false,
            began: false,
        }
    }

    /// Takes bytes up to the end of an event: how many, and whether one ended with them, which
    /// [`EventReader::event`] is then. To be called again with the rest.
    ///
    /// # Errors
    /// `UpstreamMalformed` for an event that is too long.
    pub fn take(&mut self, bytes: &[u8]) -> Result<(usize, bool), Reject> {
        if mem::take(&mut self.ended) {
            self.event = Event::default();
        }
        let mut at = 0;
        while let Some((next, _)) = bytes.get(at..).and_then(<[u8]>::split_first) {
            if mem::take(&mut self.after_cr) && *next == b'\n' {
                at += 1;
                continue;
            }
            let rest = bytes.get(at..).unwrap_or_default();
            let (text, behind) = rest.split_at(line_length(rest).min(rest.len()));
            self.pending = self.pending.saturating_add(text.len() + 1);
            if self.pending > self.bytes_max {
                return Err(Reject::UpstreamMalformed);
            }
            self.line.extend_from_slice(text);
            at += text.len();
            let Some(end) = behind.first() else { break };
            at += 1;
            self.after_cr = *end == b'\r';
            if self.end_line() {
                return Ok((at, true));
            }
        }
        Ok((at, false))
    }

    /// The event that ended with the last [`EventReader::take`].
    #[must_use]
    pub const fn event(&self) -> &Event {
        &self.event
    }

    /// Gives memory back that holds nothing: the next event may be hours away.
    pub fn rest(&mut self) {
        if mem::take(&mut self.ended) {
            self.event = Event::default();
        }
        if self.line.is_empty() {
            self.line = Vec::new();
        }
    }

    /// True when an event ended with it.
    fn end_line(&mut self) -> bool {
        let mut line = mem::take(&mut self.line);
        let begin = if mem::take(&mut self.first) && line.starts_with(BOM) { BOM.len() } else { 0 };
        let text = line.get(begin..).unwrap_or_default();
        if text.is_empty() {
            self.pending = 0;
            self.ended = mem::take(&mut self.began);
        } else {
            self.began = true;
            self.field(text);
        }
        line.clear();
        self.line = line;
        self.ended
    }

    fn field(&mut self, line: &[u8]) {
        let mut parts = line.splitn(2, |byte| *byte == b':');
        let name = parts.next().unwrap_or_default();
        let value = parts.next().unwrap_or_default();
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match name {
            b"data" => match &mut self.event.data {
                Some(data) => {
                    data.push(b'\n');
                    data.extend_from_slice(value);
                }
                None => self.event.data = Some(value.to_vec()),
            },
            b"event" => self.event.kind = value.to_vec(),
            b"id" if !value.contains(&0) => self.event.id = Some(value.to_vec()),
            b"retry" if !value.is_empty() && value.iter().all(u8::is_ascii_digit) => {
                let text = std::str::from_utf8(value).unwrap_or_default();
                self.event.retry = text.parse().ok();
            }
            _ => {}
        }
    }
}

const BOM: &[u8] = b"\xef\xbb\xbf";

#[cfg(test)]
mod tests {
    use super::*;

    type Read = (String, Option<String>, Option<u64>, bool);

    /// All events of a stream that comes in these pieces, empty ones left out.
    fn read(pieces: &[&[u8]]) -> Vec<Read> {
        let mut reader = EventReader::new(1024);
        let mut all = Vec::new();
        for piece in pieces {
            let mut rest = *piece;
            loop {
                let (taken, ended) = reader.take(rest).unwrap();
                rest = &rest[taken..];
                let event = reader.event();
                let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
                if ended && !event.is_empty() {
                    let id = event.id().map(text);
                    all.push((text(event.data()), id, event.retry(), event.is_message()));
                }
                if !ended {
                    assert!(rest.is_empty(), "what is no whole event is taken to its last byte");
                    break;
                }
            }
        }
        all
    }

    fn event(data: &str) -> Read {
        (data.to_owned(), None, None, true)
    }

    #[test]
    fn wherever_a_stream_is_cut_the_same_events_come_out() {
        let with_id = |data: &str, id: &str| (data.to_owned(), Some(id.to_owned()), None, true);
        let cases: [(&str, Vec<Read>); 12] = [
            ("data: a\n\ndata:b\r\n\r\ndata:  c\r\r", vec![event("a"), event("b"), event(" c")]),
            ("data: a\ndata\ndata: b\n\n", vec![event("a\n\nb")]),
            ("\u{feff}data: a\n\n", vec![event("a")]),
            ("data: \u{feff}a\n\n\u{feff}data: b\n\n", vec![event("\u{feff}a")]),
            (": ping\n\n:\r\n\r\n\n\n\r\r\ndata: a\n\n", vec![event("a")]),
            ("id: 7\ndata:\n\n", vec![with_id("", "7")]),
            ("id: 7\n\n", vec![with_id("", "7")]),
            ("id\ndata: a\n\n", vec![with_id("a", "")]),
            ("id: a\0b\ndata: a\n\n", vec![event("a")]),
            (
                "retry: 10\n\nretry: 1x\ndata: a\n\n",
                vec![(String::new(), None, Some(10), true), event("a")],
            ),
            (
                "event: message\ndata: a\n\nevent: other\ndata: b\n\nDATA: c\n\n",
                vec![event("a"), ("b".to_owned(), None, None, false)],
            ),
            // What is not ended by an empty line is no event.
            ("data: a\n\ndata: b\n", vec![event("a")]),
        ];
        for (stream, expected) in cases {
            let bytes = stream.as_bytes();
            assert_eq!(read(&[bytes]), expected, "{stream:?}");
            for cut in 0..=bytes.len() {
                let (head, tail) = bytes.split_at(cut);
                assert_eq!(read(&[head, tail]), expected, "{stream:?} cut at {cut}");
            }
            let single: Vec<&[u8]> = bytes.chunks(1).collect();
            assert_eq!(read(&single), expected, "{stream:?} byte by byte");
        }
    }

    #[test]
    fn an_event_without_end_is_refused_and_a_long_stream_is_not() {
        let mut reader = EventReader::new(64);
        for _ in 0..100 {
            assert_eq!(reader.take(b"data: 0123456789\n\n"), Ok((18, true)));
        }
        for endless in [&b":\n"[..], b"data\n", b"x", b"data: 1\n"] {
            let mut reader = EventReader::new(64);
            let refused = (0..64).map(|_| reader.take(endless)).find(Result::is_err);
            assert_eq!(refused, Some(Err(Reject::UpstreamMalformed)), "{endless:?}");
        }
    }

    #[test]
    fn a_reader_at_rest_holds_no_memory_and_loses_nothing() {
        let mut reader = EventReader::new(1024);
        assert_eq!(reader.take(b"id: 1\ndata: abc\n\n"), Ok((17, true)));
        reader.rest();
        assert_eq!((reader.line.capacity(), reader.event.data().len()), (0, 0));
        assert_eq!(reader.take(b"data: de"), Ok((8, false)));
        reader.rest();
        assert_eq!(reader.take(b"f\n\n"), Ok((3, true)));
        assert_eq!(reader.event().data(), b"def");
    }
}
