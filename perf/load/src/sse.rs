//! Server-sent events as they come in, and the stamps in those of our upstream.

use memchr::memchr;

use crate::http::number;
use crate::request::value_of;

/// Cuts a stream into the data of its events. Comments and other fields are passed over.
#[derive(Debug, Default)]
pub(crate) struct Events {
    line: Vec<u8>,
    data: Vec<u8>,
    has_data: bool,
}

impl Events {
    /// Hands the data of every event that is complete to `take`.
    pub(crate) fn feed(&mut self, mut bytes: &[u8], take: &mut impl FnMut(&[u8])) {
        while let Some(end) = memchr(b'\n', bytes) {
            let piece = bytes.get(..end).unwrap_or_default();
            bytes = bytes.get(end + 1..).unwrap_or_default();
            if self.line.is_empty() {
                self.end_line(piece, take);
            } else {
                let mut line = std::mem::take(&mut self.line);
                line.extend_from_slice(piece);
                self.end_line(&line, take);
                line.clear();
                self.line = line;
            }
        }
        self.line.extend_from_slice(bytes);
    }

    fn end_line(&mut self, line: &[u8], take: &mut impl FnMut(&[u8])) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            if self.has_data {
                take(&self.data);
            }
            self.data.clear();
            self.has_data = false;
        } else if let Some(data) = line.strip_prefix(b"data:") {
            if self.has_data {
                self.data.push(b'\n');
            }
            self.data.extend_from_slice(data.strip_prefix(b" ").unwrap_or(data));
            self.has_data = true;
        }
    }
}

/// Number and instant of sending that our upstream wrote into an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) sequence: u64,
    pub(crate) sent: u64,
}

impl Stamp {
    /// The stamp of an event, if it is one of the stamped ones. Peers may have written the JSON anew.
    pub(crate) fn of(data: &[u8]) -> Option<Self> {
        Some(Self { sequence: text_number(data, b"\"seq\"")?, sent: text_number(data, b"\"ns\"")? })
    }
}

fn text_number(data: &[u8], key: &[u8]) -> Option<u64> {
    let text = value_of(data, key)?.strip_prefix(b"\"")?;
    number(text.get(..memchr(b'"', text)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_cut_whatever_the_pieces() {
        let stream =
            b": hello\nevent: message\ndata: one\n\ndata:two\r\ndata: three\r\n\r\nid: 4\n\n";
        for size in 1..stream.len() {
            let (mut events, mut seen) = (Events::default(), Vec::new());
            for piece in stream.chunks(size) {
                events.feed(piece, &mut |data| seen.push(data.to_vec()));
            }
            assert_eq!(seen, [b"one".to_vec(), b"two\nthree".to_vec()], "pieces of {size}");
        }
    }

    #[test]
    fn a_stamp_is_found_in_json_that_was_written_anew() {
        let stamp = Some(Stamp { sequence: 7, sent: 12_345 });
        assert_eq!(Stamp::of(br#"{"data":{"seq":"0007","ns":"012345"}}"#), stamp);
        assert_eq!(Stamp::of(br#"{"data": {"ns": "12345", "seq": "7"}}"#), stamp);
        assert_eq!(Stamp::of(br#"{"data":{"seq":"7"}}"#), None);
        assert_eq!(Stamp::of(br#"{"id":1,"result":{}}"#), None);
    }
}
