//! Finds the end of a chunked body while its bytes pass by unchanged.

use crate::message::Fault;

/// Where in a chunked body the next byte stands.
#[derive(Debug)]
pub struct Chunks {
    at: At,
    /// Bytes of the chunk still to come; while its size is read, the size so far.
    left: u64,
    /// Bytes of the present line or of the trailer section; both are bounded.
    line: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Size,
    Extension,
    SizeEnd,
    Data,
    DataCr,
    DataEnd,
    TrailerStart,
    Trailer,
    TrailerEnd,
    BodyEnd,
}

impl Chunks {
    /// Stands before the first chunk size.
    #[must_use]
    pub fn new() -> Self {
        Self { at: At::Size, left: 0, line: 0 }
    }

    /// How many bytes of `input` belong to the body, and whether it ends there.
    ///
    /// # Errors
    /// When the framing is broken; nothing more may then be relayed on the connection.
    pub fn scan(&mut self, input: &[u8]) -> Result<(usize, bool), Fault> {
        let mut used = 0;
        while let Some(&byte) = input.get(used) {
            if self.at == At::Data {
                let step = self.left.min((input.len() - used) as u64);
                self.left -= step;
                used += usize::try_from(step).unwrap_or(input.len());
                if self.left == 0 {
                    self.at = At::DataCr;
                }
                continue;
            }
            used += 1;
            if self.framing(byte)? {
                return Ok((used, true));
            }
        }
        Ok((used, false))
    }

    /// Takes one byte that is not data; true when the body ends with it.
    fn framing(&mut self, byte: u8) -> Result<bool, Fault> {
        self.line += 1;
        if self.line > LINE_BYTES_MAX {
            return Err(Fault::Malformed);
        }
        self.at = match (self.at, byte) {
            (At::Size, b'\r' | b';') if self.line == 1 => return Err(Fault::Malformed),
            (At::Size | At::Extension, b'\r') => At::SizeEnd,
            (At::Size, b';') => At::Extension,
            (At::Size, digit) => return self.size(digit).map(|()| false),
            (At::Extension, b'\n') => return Err(Fault::Malformed),
            (At::Extension, _) => At::Extension,
            (At::SizeEnd, b'\n') if self.left == 0 => self.next_line(At::TrailerStart),
            (At::SizeEnd, b'\n') => At::Data,
            (At::DataCr, b'\r') => At::DataEnd,
            (At::DataEnd, b'\n') => self.next_line(At::Size),
            (At::TrailerStart, b'\r') => At::BodyEnd,
            (At::Trailer, b'\r') => At::TrailerEnd,
            (At::TrailerStart | At::Trailer, byte) if byte != b'\n' => At::Trailer,
            (At::TrailerEnd, b'\n') => At::TrailerStart,
            (At::BodyEnd, b'\n') => return Ok(true),
            _ => return Err(Fault::Malformed),
        };
        Ok(false)
    }

    fn size(&mut self, digit: u8) -> Result<(), Fault> {
        let value = char::from(digit).to_digit(16).ok_or(Fault::Malformed)?;
        // The digits are counted, not only the value: leading zeros must not make an endless line.
        if self.line > SIZE_DIGITS_MAX {
            return Err(Fault::Malformed);
        }
        self.left = self.left * 16 + u64::from(value);
        Ok(())
    }

    fn next_line(&mut self, at: At) -> At {
        self.line = 0;
        at
    }
}

impl Default for Chunks {
    fn default() -> Self {
        Self::new()
    }
}

/// A chunk of 2^48 bytes is no chunk that anybody sends.
const SIZE_DIGITS_MAX: usize = 12;
/// A line of chunk size and extensions; also all trailers together.
const LINE_BYTES_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &[u8] =
        b"5;name=value\r\nhello\r\n00b\r\n more \r\n0\r\n\r\n0\r\nTrailer: x\r\n\r\n";

    #[test]
    fn the_end_is_found_however_the_bytes_are_cut() {
        for cut in 0..BODY.len() {
            let mut chunks = Chunks::new();
            let (head, tail) = BODY.split_at(cut);
            assert_eq!(chunks.scan(head).unwrap(), (head.len(), false), "cut at {cut}");
            let mut rest = tail.to_vec();
            rest.extend_from_slice(b"POST");
            assert_eq!(chunks.scan(&rest).unwrap(), (tail.len(), true), "cut at {cut}");
        }
    }

    #[test]
    fn broken_framing_is_refused() {
        for broken in [
            &b"\r\n"[..],
            b";x\r\n",
            b"x\r\n",
            b"-1\r\n",
            b"0x5\r\nhello",
            b"5\nhello",
            b"2\r\nabc\r\n",
            b"2\r\nab\n\r\n",
            b"0000000000005\r\nhello",
            b"0\r\n\n",
            b"0\r\nTrailer: x\n\r\n",
        ] {
            assert!(Chunks::new().scan(broken).is_err(), "{}", broken.escape_ascii());
        }
    }

    #[test]
    fn extensions_and_trailers_are_bounded() {
        for start in [&b"1;"[..], b"0\r\nTrailer: "] {
            let mut line = start.to_vec();
            line.resize(2 * LINE_BYTES_MAX, b'x');
            assert!(Chunks::new().scan(&line).is_err());
        }
    }
}
