//! HTTP/1.1 framing, enough for both ends of a bench: where a head ends, what frames the body, where it ends.

use memchr::{memchr, memmem};

/// The peer did not speak HTTP/1.1 as expected here.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// Length of the head with its empty line, if it is all there.
pub(crate) fn head_end(bytes: &[u8]) -> Option<usize> {
    memmem::find(bytes, b"\r\n\r\n").map(|at| at + 4)
}

/// The first line of a head.
pub(crate) fn first_line(head: &[u8]) -> &[u8] {
    let end = memchr(b'\r', head).unwrap_or(head.len());
    head.get(..end).unwrap_or_default()
}

/// The field lines of a head, names as sent and values without the spaces around them.
pub(crate) fn fields(head: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let mut rest = after(head, memchr(b'\n', head));
    std::iter::from_fn(move || {
        let end = memchr(b'\n', rest)?;
        let line = rest.get(..end)?;
        rest = after(rest, Some(end));
        let colon = memchr(b':', line)?;
        Some((line.get(..colon)?, line.get(colon + 1..)?.trim_ascii()))
    })
}

fn after(bytes: &[u8], at: Option<usize>) -> &[u8] {
    at.and_then(|at| bytes.get(at + 1..)).unwrap_or_default()
}

/// What the head says of the body and the connection.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Framing {
    pub(crate) length: Option<u64>,
    pub(crate) chunked: bool,
    pub(crate) close: bool,
    pub(crate) event_stream: bool,
}

impl Framing {
    /// Takes in one field line; the others are the caller's.
    pub(crate) fn note(&mut self, name: &[u8], value: &[u8]) -> Result<(), Malformed> {
        match name.len() {
            10 if name.eq_ignore_ascii_case(b"connection") => {
                self.close |= value.eq_ignore_ascii_case(b"close");
            }
            12 if name.eq_ignore_ascii_case(b"content-type") => {
                self.event_stream = value
                    .get(..17)
                    .is_some_and(|start| start.eq_ignore_ascii_case(b"text/event-stream"));
            }
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                self.length = Some(number(value).ok_or(Malformed)?);
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                self.chunked = value.eq_ignore_ascii_case(b"chunked");
            }
            _ => {}
        }
        Ok(())
    }
}

/// A decimal number and nothing else.
pub(crate) fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 19 {
        return None;
    }
    digits.iter().try_fold(0_u64, |sum, digit| {
        digit.is_ascii_digit().then(|| sum * 10 + u64::from(digit - b'0'))
    })
}

/// A body under way.
#[derive(Debug)]
pub(crate) enum Body {
    /// As many bytes are still to come.
    Length(u64),
    Chunked(Chunks),
    /// Until the peer closes.
    ToClose,
}

impl Body {
    /// Hands the content found in `bytes` to `take`; says how many bytes belong to the body and whether it is
    /// complete.
    pub(crate) fn feed(
        &mut self,
        bytes: &[u8],
        take: &mut impl FnMut(&[u8]),
    ) -> Result<(usize, bool), Malformed> {
        match self {
            Self::Length(left) => {
                let here = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left -= here as u64;
                take(bytes.get(..here).unwrap_or_default());
                Ok((here, *left == 0))
            }
            Self::Chunked(chunks) => chunks.feed(bytes, take),
            Self::ToClose => {
                take(bytes);
                Ok((bytes.len(), false))
            }
        }
    }
}

/// Chunked transfer coding, byte by byte where it must be and by slices where it can be.
#[derive(Debug, Default)]
pub(crate) struct Chunks {
    part: Part,
    left: u64,
    digits: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Part {
    #[default]
    Size,
    Extension,
    SizeEnd,
    Data,
    DataReturn,
    DataEnd,
    TrailerStart,
    Trailer,
    LastEnd,
}

impl Chunks {
    fn feed(
        &mut self,
        bytes: &[u8],
        take: &mut impl FnMut(&[u8]),
    ) -> Result<(usize, bool), Malformed> {
        let mut at = 0;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            if self.part == Part::Data {
                let here = usize::try_from(self.left).unwrap_or(usize::MAX).min(rest.len());
                take(rest.get(..here).unwrap_or_default());
                at += here;
                self.left -= here as u64;
                if self.left == 0 {
                    self.part = Part::DataReturn;
                }
                continue;
            }
            let Some(byte) = rest.first() else { break };
            at += 1;
            if self.step(*byte)? {
                return Ok((at, true));
            }
        }
        Ok((at, false))
    }

    /// One byte outside the data; true behind the last.
    fn step(&mut self, byte: u8) -> Result<bool, Malformed> {
        self.part = match (self.part, byte) {
            (Part::Size, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') if self.digits < 15 => {
                let digit = char::from(byte).to_digit(16).ok_or(Malformed)?;
                self.left = self.left * 16 + u64::from(digit);
                self.digits += 1;
                Part::Size
            }
            (Part::Size, b'\r') if self.digits > 0 => Part::SizeEnd,
            (Part::Size, b';' | b' ') if self.digits > 0 => Part::Extension,
            (Part::Extension, b'\r') => Part::SizeEnd,
            (Part::Extension, _) => Part::Extension,
            (Part::SizeEnd, b'\n') if self.left > 0 => Part::Data,
            (Part::SizeEnd, b'\n') => Part::TrailerStart,
            (Part::DataReturn, b'\r') => Part::DataEnd,
            (Part::DataEnd, b'\n') => {
                self.digits = 0;
                Part::Size
            }
            (Part::TrailerStart, b'\r') => Part::LastEnd,
            (Part::TrailerStart | Part::Trailer, _) if byte != b'\n' => Part::Trailer,
            (Part::Trailer, _) => Part::TrailerStart,
            (Part::LastEnd, b'\n') => return Ok(true),
            _ => return Err(Malformed),
        };
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_ends_at_the_empty_line_and_its_fields_are_found() {
        let head =
            b"HTTP/1.1 200 OK\r\ncontent-length: 12\r\nContent-Type: text/event-stream\r\n\r\nx";
        assert_eq!(head_end(head), Some(head.len() - 1));
        assert_eq!(head_end(&head[..head.len() - 2]), None);
        assert_eq!(first_line(head), b"HTTP/1.1 200 OK");
        let mut framing = Framing::default();
        for (name, value) in fields(&head[..head.len() - 1]) {
            framing.note(name, value).unwrap();
        }
        let wanted = Framing { length: Some(12), event_stream: true, ..Framing::default() };
        assert_eq!(framing, wanted);
    }

    #[test]
    fn a_length_that_is_no_number_is_refused() {
        for value in ["", "-1", "1x", "99999999999999999999"] {
            assert_eq!(
                Framing::default().note(b"Content-Length", value.as_bytes()),
                Err(Malformed),
                "{value}"
            );
        }
    }

    #[test]
    fn chunks_are_read_whatever_the_cuts() {
        let wire = b"5\r\nhello\r\nA;x=1\r\n, worldly.\r\n0\r\nTrailer: 1\r\n\r\nnext";
        for cut in 0..wire.len() {
            let mut body = Body::Chunked(Chunks::default());
            let mut content = Vec::new();
            let (first, done) =
                body.feed(&wire[..cut], &mut |piece| content.extend_from_slice(piece)).unwrap();
            let mut used = first;
            if !done {
                let (second, done) = body
                    .feed(&wire[first..], &mut |piece| content.extend_from_slice(piece))
                    .unwrap();
                assert!(done, "cut at {cut}");
                used += second;
            }
            assert_eq!(used, wire.len() - 4, "cut at {cut}");
            assert_eq!(content, b"hello, worldly.");
        }
    }

    #[test]
    fn broken_chunks_are_refused() {
        for wire in
            ["\r\n", "g\r\n", "1\r\nab", "1\nx", "1\r\na\r\n0\r\n\rx", "1234567890abcdef0\r\n"]
        {
            let mut body = Body::Chunked(Chunks::default());
            assert_eq!(body.feed(wire.as_bytes(), &mut |_| ()), Err(Malformed), "{wire:?}");
        }
    }

    #[test]
    fn a_body_of_known_length_leaves_what_follows() {
        let mut body = Body::Length(4);
        assert_eq!(body.feed(b"ab", &mut |_| ()), Ok((2, false)));
        assert_eq!(body.feed(b"cdef", &mut |_| ()), Ok((2, true)));
    }
}
