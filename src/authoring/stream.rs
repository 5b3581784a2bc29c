//! The data of events in a stream of server-sent events (WHATWG HTML §9.2.6), for a reader that
//! holds what it reads.

/// Takes bytes, and gives the data of each event that is whole. Lines end with CR, LF or CRLF, cut
/// anywhere. It holds no more than it is fed.
#[derive(Default)]
pub(super) struct Events {
    line: Vec<u8>,
    data: Option<Vec<u8>>,
    /// The last byte was a CR: a LF behind it is half of its line end.
    after_cr: bool,
    /// A line has ended: what comes is not the mark at the start of the stream.
    begun: bool,
}

impl Events {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// Data of the events that end in `bytes`; none for an event without any.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut whole = Vec::new();
        for &byte in bytes {
            let half = std::mem::replace(&mut self.after_cr, byte == b'\r') && byte == b'\n';
            match byte {
                b'\n' if half => {}
                b'\r' | b'\n' => whole.extend(self.end_line()),
                _ => self.line.push(byte),
            }
        }
        whole
    }

    /// The data of the event that this line ends, if it does.
    fn end_line(&mut self) -> Option<Vec<u8>> {
        let line = std::mem::take(&mut self.line);
        let first = !std::mem::replace(&mut self.begun, true);
        let marked = if first { line.strip_prefix(BYTE_ORDER_MARK) } else { None };
        let line = marked.unwrap_or(&line);
        if line.is_empty() {
            return self.data.take().filter(|data| !data.is_empty());
        }
        let value = match line.strip_prefix(b"data") {
            Some([b':', b' ', value @ ..] | [b':', value @ ..]) => value,
            Some([]) => &[],
            Some(_) | None => return None,
        };
        match &mut self.data {
            Some(data) => {
                data.push(b'\n');
                data.extend_from_slice(value);
            }
            None => self.data = Some(value.to_vec()),
        }
        None
    }
}

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_of_events_comes_whole_wherever_the_stream_is_cut() {
        let table: [(&[u8], &[&str]); 8] = [
            (b"data: x\n\n", &["x"]),
            (b"\xef\xbb\xbfdata:x\r\ndata: y\r\n\r\n", &["x\ny"]),
            (b"id: 1\rdata: x\r\rdata: y\n\n", &["x", "y"]),
            (b": comment\n\nevent: message\ndata:  x\n\n", &[" x"]),
            // A first event that only says where to go on (2025-11-25 transports).
            (b"id: 1\ndata:\n\nretry: 5\n\ndata: x\n\n", &["x"]),
            (b"dataset: x\n\ndata\ndata\n\n", &["\n"]),
            (b"data: cut", &[]),
            (b"", &[]),
        ];
        for (stream, expected) in table {
            for cut in 0..=stream.len() {
                let (head, tail) = stream.split_at(cut);
                let mut events = Events::new();
                let mut seen = events.feed(head);
                seen.extend(events.feed(tail));
                let seen: Vec<_> = seen.iter().map(|data| String::from_utf8_lossy(data)).collect();
                assert_eq!(seen, expected, "{stream:?} cut at {cut}");
            }
        }
    }
}
