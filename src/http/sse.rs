//! Where events end in a stream of server-sent events (WHATWG HTML §9.2.5).
//!
//! Bytes are relayed as they come; the boundaries say where the gateway may end a stream or put a
//! comment line of its own: between two events, never into one.

use crate::limits;
use crate::reject::Reject;

/// Follows an event stream. Lines end with CR, LF or CRLF, cut anywhere.
#[derive(Clone, Copy, Debug)]
pub struct EventTracker {
    place: Place,
    /// Bytes since the last boundary.
    pending: usize,
    id: Named,
    data: Named,
}

impl Default for EventTracker {
    fn default() -> Self {
        Self::new()
    }
}

impl EventTracker {
    /// At the start of a stream.
    #[must_use]
    pub const fn new() -> Self {
        Self { place: Place::Bom(0), pending: 0, id: Named::Absent, data: Named::Absent }
    }

    /// Follows the next bytes of the stream.
    ///
    /// # Errors
    /// `UpstreamMalformed` when one event is larger than [`limits::SSE_EVENT_BYTES_MAX`].
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), Reject> {
        let mut rest = bytes;
        while let Some((byte, after)) = rest.split_first() {
            let in_line = self.place == Place::Line;
            let skipped = if in_line { line_length(rest) } else { 0 };
            if skipped > 0 {
                self.follow(rest);
                self.pending += skipped;
                rest = rest.get(skipped..).unwrap_or_default();
            } else {
                rest = after;
                self.pending += 1;
                self.place = self.place.after(*byte);
                if self.place == Place::Line && !in_line {
                    self.id.start_line();
                    self.data.start_line();
                    self.follow(&[*byte]);
                }
                if self.place.ends_event() {
                    self.pending = 0;
                }
            }
            if self.pending > limits::SSE_EVENT_BYTES_MAX {
                return Err(Reject::UpstreamMalformed);
            }
        }
        Ok(())
    }

    /// True between two events: at the start, or when the last line was empty.
    #[must_use]
    pub const fn at_boundary(&self) -> bool {
        self.pending == 0
    }

    /// True once an event had an id: the client may come back and ask for what follows it.
    #[must_use]
    pub fn has_ids(&self) -> bool {
        self.id == Named::Seen
    }

    /// True once an event had data: the server said something, not only that it is there.
    #[must_use]
    pub fn has_data(&self) -> bool {
        self.data == Named::Seen
    }

    fn follow(&mut self, bytes: &[u8]) {
        self.id.follow(ID_FIELD, bytes);
        self.data.follow(DATA_FIELD, bytes);
    }
}

/// How far the current line looks like a field of a certain name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Named {
    /// Not at all.
    Absent,
    /// It begins with this many bytes of the name and its colon.
    Partial(usize),
    /// One was seen; that stays.
    Seen,
}

impl Named {
    fn start_line(&mut self) {
        if *self != Self::Seen {
            *self = Self::Partial(0);
        }
    }

    /// The next bytes of a line; what follows them in `bytes` cannot continue a field name.
    fn follow(&mut self, name: &[u8], bytes: &[u8]) {
        for byte in bytes {
            let Self::Partial(matched) = *self else { return };
            *self = match (name.get(matched), matched + 1 == name.len()) {
                (Some(wanted), true) if wanted == byte => Self::Seen,
                (Some(wanted), false) if wanted == byte => Self::Partial(matched + 1),
                _ => Self::Absent,
            };
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// This many bytes of a byte order mark seen, at the start of the stream.
    Bom(u8),
    /// Inside a line.
    Line,
    /// At the start of a line, after at least one line of the event.
    LineStart,
    /// The same, and the CR before may turn out to be half of a CRLF.
    LineStartCr,
    /// Between events.
    Blank,
    /// The same after a CR.
    BlankCr,
}

impl Place {
    /// Where one more byte leads.
    const fn after(self, byte: u8) -> Self {
        match (self, byte) {
            (Self::Bom(0), 0xef) => Self::Bom(1),
            (Self::Bom(1), 0xbb) => Self::Bom(2),
            (Self::Line, b'\n') | (Self::LineStartCr, b'\n') => Self::LineStart,
            (Self::Line, b'\r') => Self::LineStartCr,
            (Self::Bom(1), b'\n') => Self::LineStart,
            (Self::Bom(1), b'\r') => Self::LineStartCr,
            (Self::Bom(2), b'\n') => Self::LineStart,
            (Self::Bom(2), b'\r') => Self::LineStartCr,
            // A mark that is complete leaves nothing to hold back; so do empty lines between
            // events.
            (Self::Bom(2), 0xbf) => Self::Blank,
            (Self::Bom(_) | Self::LineStart | Self::Blank | Self::BlankCr, b'\n') => Self::Blank,
            (Self::Bom(_) | Self::LineStart | Self::LineStartCr, b'\r') => Self::BlankCr,
            (Self::Blank | Self::BlankCr, b'\r') => Self::BlankCr,
            (Self::Bom(_) | Self::Line | Self::LineStart | Self::LineStartCr, _)
            | (Self::Blank | Self::BlankCr, _) => Self::Line,
        }
    }

    const fn ends_event(self) -> bool {
        matches!(self, Self::Blank | Self::BlankCr)
    }
}

/// Bytes before the next line end.
pub(super) fn line_length(bytes: &[u8]) -> usize {
    let mut at = 0;
    loop {
        let rest = bytes.get(at..).unwrap_or_default();
        at += super::bytes::control_at(rest);
        match bytes.get(at) {
            None | Some(b'\r' | b'\n') => return at,
            Some(_) => at += 1,
        }
    }
}

const ID_FIELD: &[u8] = b"id:";
const DATA_FIELD: &[u8] = b"data:";

#[cfg(test)]
mod tests {
    use super::*;

    /// Offsets after which the stream is between two events.
    fn boundaries(stream: &[u8]) -> Vec<usize> {
        let mut tracker = EventTracker::new();
        let mut found = Vec::new();
        for (index, byte) in stream.iter().enumerate() {
            tracker.feed(&[*byte]).unwrap();
            if tracker.at_boundary() {
                found.push(index + 1);
            }
        }
        for cut in 0..=stream.len() {
            let (head, tail) = stream.split_at(cut);
            let mut tracker = EventTracker::new();
            tracker.feed(head).unwrap();
            assert_eq!(
                tracker.at_boundary(),
                cut == 0 || found.contains(&cut),
                "{stream:?} at {cut}"
            );
            tracker.feed(tail).unwrap();
            assert_eq!(
                tracker.at_boundary(),
                stream.is_empty() || found.last() == Some(&stream.len())
            );
        }
        found
    }

    #[test]
    fn boundaries_are_after_empty_lines_whatever_ends_a_line() {
        assert_eq!(boundaries(b"data: x\n\n"), [9]);
        assert_eq!(boundaries(b"data: x\r\r"), [9]);
        assert_eq!(boundaries(b"data: x\r\n\r\n"), [10, 11]);
        assert_eq!(boundaries(b"data: x\r\n\n"), [10]);
        assert_eq!(boundaries(b"data: x\n\r\n"), [9, 10]);
        assert_eq!(boundaries(b"data: x\r\n"), [] as [usize; 0]);
        assert_eq!(boundaries(b"a\nb\n\n: ping\n\n"), [5, 13]);
        assert_eq!(boundaries(b"\n\n"), [1, 2]);
        assert_eq!(boundaries(b"data: \x01\x02\tcontrol bytes\n\ndata: y"), [24]);
        assert_eq!(boundaries(b""), [] as [usize; 0]);
    }

    #[test]
    fn a_byte_order_mark_at_the_start_is_not_a_line() {
        assert_eq!(boundaries(b"\xef\xbb\xbf\ndata: x\n\n"), [3, 4, 13]);
        assert_eq!(boundaries(b"\xef\xbb\n\n"), [4]);
        assert_eq!(boundaries(b"\xef\r\r"), [3]);
        assert_eq!(boundaries(b"a\n\n\xef\xbb\xbf\n\n"), [3, 8]);
    }

    #[test]
    fn an_id_is_a_field_of_that_very_name_at_the_start_of_a_line() {
        let cases: [(&[u8], bool); 10] = [
            (b"id: 1\n", true),
            (b"id:\n\n", true),
            (b"data: x\nid:7\n\n", true),
            (b"data: x\r\rid:7", true),
            (b"\xef\xbb\xbfid: 1\n", true),
            (b"data: id: 1\n\n", false),
            (b" id: 1\n\nidx: 1\ni", false),
            (b"i\nd: 1\n\nid\n: x", false),
            (b"ID: 1\n", false),
            (b"", false),
        ];
        for (stream, expected) in cases {
            for cut in 0..=stream.len() {
                let (head, tail) = stream.split_at(cut);
                let mut tracker = EventTracker::new();
                tracker.feed(head).unwrap();
                tracker.feed(tail).unwrap();
                assert_eq!(tracker.has_ids(), expected, "{stream:?} at {cut}");
                tracker.feed(b"\n\ndata: y\n\n").unwrap();
                assert_eq!(tracker.has_ids(), expected, "it stays: {stream:?}");
            }
        }
    }

    #[test]
    fn data_is_told_from_comments_and_other_fields() {
        for (stream, expected) in [
            (&b"data: 1\n"[..], true),
            (b"data:\n\n", true),
            (b"event: x\r\rdata:7", true),
            (b"id: 1\ndata: x", true),
            (b": data: 1\n\n: ping\n\n", false),
            (b"event: data:\n\ndat: 1\n", false),
            (b"", false),
        ] {
            for cut in 0..=stream.len() {
                let (head, tail) = stream.split_at(cut);
                let mut tracker = EventTracker::new();
                tracker.feed(head).unwrap();
                tracker.feed(tail).unwrap();
                assert_eq!(tracker.has_data(), expected, "{stream:?} at {cut}");
            }
        }
    }

    #[test]
    fn one_event_is_bounded_and_a_stream_is_not() {
        let line = [b'x'; 1024];
        let mut tracker = EventTracker::new();
        for _ in 0..limits::SSE_EVENT_BYTES_MAX / line.len() {
            tracker.feed(&line).unwrap();
        }
        assert_eq!(tracker.feed(b"x"), Err(Reject::UpstreamMalformed));
        let mut tracker = EventTracker::new();
        for _ in 0..3 * limits::SSE_EVENT_BYTES_MAX / line.len() {
            tracker.feed(&line).unwrap();
            tracker.feed(b"\n\n").unwrap();
        }
        assert!(tracker.at_boundary());
    }
}
