//! Bodies, decoded run by run without a copy (RFC 9112 §6, §7.1).

use std::ops::Range;

use super::bytes::is_tchar;
use super::headers::forbidden_in_trailer;
use crate::limits;
use crate::reject::Reject;

/// How a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    None,
    /// After this many bytes.
    Length(u64),
    /// With the last chunk.
    Chunked,
    /// With the connection; responses only.
    UntilClose,
}

/// What one call of [`BodyDecoder::decode`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Bytes of the input that are done with.
    pub consumed: usize,
    /// The part of them that is body; may be empty.
    pub data: Range<usize>,
    /// The body is complete; the next byte belongs to the next message.
    pub done: bool,
}

/// Takes the framing off a body. Of requests and responses; a caller that reads a response turns
/// every error into `UpstreamMalformed`.
#[derive(Clone, Debug)]
pub struct BodyDecoder {
    phase: Phase,
    /// Bytes still to come of the body (Length) or chunk.
    left: u64,
    /// Body bytes that may still come.
    room: u64,
    digits: u8,
    quote: Quote,
    line_bytes: usize,
    extension_bytes: usize,
    trailer_lines: usize,
    trailer_bytes: usize,
    /// Start of the trailer name at hand, in lower case.
    name: [u8; TRAILER_NAME_BYTES],
    name_bytes: usize,
}

impl BodyDecoder {
    /// A decoder of one body of at most `max` bytes.
    ///
    /// # Errors
    /// `RequestBodyTooLarge` when the declared length is above `max`: before a byte of it is read.
    pub fn new(framing: Framing, max: u64) -> Result<Self, Reject> {
        let (phase, left) = match framing {
            Framing::None | Framing::Length(0) => (Phase::Done, 0),
            Framing::Length(length) if length > max => return Err(Reject::RequestBodyTooLarge),
            Framing::Length(length) => (Phase::Fixed, length),
            Framing::Chunked => (Phase::SizeStart, 0),
            Framing::UntilClose => (Phase::Open, 0),
        };
        Ok(Self::starting(phase, left, max))
    }

    const fn starting(phase: Phase, left: u64, room: u64) -> Self {
        Self {
            phase,
            left,
            room,
            digits: 0,
            quote: Quote::Closed,
            line_bytes: 0,
            extension_bytes: 0,
            trailer_lines: 0,
            trailer_bytes: 0,
            name: [0; TRAILER_NAME_BYTES],
            name_bytes: 0,
        }
    }

    /// A decoder of no body at all.
    #[must_use]
    pub const fn none() -> Self {
        Self::starting(Phase::Done, 0, 0)
    }

    /// Decodes from `input` up to the end of the next run of body bytes. Call it again with what
    /// was not consumed until that is empty or the body is done.
    ///
    /// # Errors
    /// `RequestFraming` for chunks that are not exactly RFC 9112 §7.1, `RequestBodyTooLarge`.
    pub fn decode(&mut self, input: &[u8]) -> Result<Step, Reject> {
        let mut at = 0;
        loop {
            let rest = input.get(at..).unwrap_or_default();
            let Some(byte) = rest.first().filter(|_| !self.finished()) else {
                return Ok(Step { consumed: at, data: at..at, done: self.finished() });
            };
            if matches!(self.phase, Phase::Data | Phase::Fixed | Phase::Open) {
                let end = at + self.take_run(rest.len())?;
                return Ok(Step { consumed: end, data: at..end, done: self.finished() });
            }
            at += 1;
            self.control(*byte)?;
        }
    }

    /// True when the body is complete. A body that ends with the connection never is before that.
    #[must_use]
    pub fn finished(&self) -> bool {
        self.phase == Phase::Done
    }

    /// What is still to come of a body with a declared length; such bytes need no decoding, only
    /// counting. `None` for every other framing and after the end.
    #[must_use]
    pub fn bytes_left(&self) -> Option<u64> {
        (self.phase == Phase::Fixed).then_some(self.left)
    }

    /// The connection ended.
    ///
    /// # Errors
    /// `RequestAborted` unless the body was complete or ends just so (RFC 9112 §8).
    pub fn end_of_input(&self) -> Result<(), Reject> {
        let may_end = matches!(self.phase, Phase::Done | Phase::Open);
        if may_end { Ok(()) } else { Err(Reject::RequestAborted) }
    }

    /// Accounts for a run of body bytes among `available` ones and returns its length.
    fn take_run(&mut self, available: usize) -> Result<usize, Reject> {
        let available = available as u64;
        if self.phase == Phase::Open {
            self.room = self.room.checked_sub(available).ok_or(Reject::RequestBodyTooLarge)?;
            return Ok(available as usize);
        }
        let run = available.min(self.left);
        self.left -= run;
        if self.left == 0 {
            self.phase = if self.phase == Phase::Fixed { Phase::Done } else { Phase::DataCr };
        }
        Ok(run as usize)
    }

    /// One byte that is not body.
    fn control(&mut self, byte: u8) -> Result<(), Reject> {
        match self.phase {
            Phase::SizeStart | Phase::Size | Phase::Extension => self.size_line(byte)?,
            Phase::SizeLf if byte == b'\n' => self.size_done()?,
            Phase::DataCr if byte == b'\r' => self.phase = Phase::DataLf,
            Phase::DataLf if byte == b'\n' => self.phase = Phase::SizeStart,
            Phase::TrailerStart | Phase::TrailerName | Phase::TrailerValue | Phase::TrailerLf => {
                self.trailer(byte)?;
            }
            Phase::EndLf if byte == b'\n' => self.phase = Phase::Done,
            // RFC 9112 §7.1: a chunk ends with CRLF. Skipping other bytes there shifts every later
            // one.
            Phase::SizeLf
            | Phase::DataCr
            | Phase::DataLf
            | Phase::EndLf
            | Phase::Data
            | Phase::Done
            | Phase::Fixed
            | Phase::Open => return Err(Reject::RequestFraming),
        }
        Ok(())
    }

    fn size_line(&mut self, byte: u8) -> Result<(), Reject> {
        if self.phase == Phase::SizeStart {
            self.left = 0;
            self.digits = 0;
            self.quote = Quote::Closed;
            self.line_bytes = 0;
        }
        self.line_bytes += 1;
        if self.line_bytes > limits::CHUNK_LINE_BYTES_MAX {
            return Err(Reject::RequestFraming);
        }
        if self.phase == Phase::Extension {
            return self.extension(byte);
        }
        let digit = char::from(byte).to_digit(16).map(u64::from);
        match (digit, byte) {
            (Some(digit), _) => {
                self.digits += 1;
                if self.digits > CHUNK_DIGITS_MAX {
                    return Err(Reject::RequestFraming);
                }
                self.left = self.left << 4 | digit;
                self.phase = Phase::Size;
            }
            // RFC 9112 §7.1.1: extensions are dropped. White space before them or before the line
            // end is refused, though some accept it: parsers disagree on where the size ends.
            (None, b';') if self.phase == Phase::Size => return self.extension(byte),
            (None, b'\r') if self.phase == Phase::Size => self.phase = Phase::SizeLf,
            (None, _) => return Err(Reject::RequestFraming),
        }
        Ok(())
    }

    fn extension(&mut self, byte: u8) -> Result<(), Reject> {
        if byte == b'\r' && self.quote == Quote::Closed {
            self.phase = Phase::SizeLf;
            return Ok(());
        }
        self.quote = self.quote.after(byte);
        self.phase = Phase::Extension;
        self.extension_bytes += 1;
        let is_text = byte == b'\t' || (b' '..=b'~').contains(&byte);
        if !is_text || self.extension_bytes > limits::CHUNK_EXTENSION_BYTES_MAX {
            return Err(Reject::RequestFraming);
        }
        Ok(())
    }

    fn size_done(&mut self) -> Result<(), Reject> {
        if self.left == 0 {
            self.phase = Phase::TrailerStart;
            return Ok(());
        }
        // RFC 9112 §7.1: expect large sizes and do not let them overflow.
        if self.left > CHUNK_BYTES_MAX {
            return Err(Reject::RequestFraming);
        }
        self.room = self.room.checked_sub(self.left).ok_or(Reject::RequestBodyTooLarge)?;
        self.phase = Phase::Data;
        Ok(())
    }

    /// RFC 9112 §7.1.2: trailers are dropped, those that would change the message are refused.
    fn trailer(&mut self, byte: u8) -> Result<(), Reject> {
        if self.phase == Phase::TrailerStart && byte == b'\r' {
            self.phase = Phase::EndLf;
            return Ok(());
        }
        self.trailer_bytes += 1;
        if self.trailer_bytes > limits::TRAILER_BYTES_MAX {
            return Err(Reject::RequestFraming);
        }
        if self.phase == Phase::TrailerStart {
            self.trailer_lines += 1;
            self.name_bytes = 0;
            if self.trailer_lines > limits::TRAILER_LINES_MAX {
                return Err(Reject::RequestFraming);
            }
            self.phase = Phase::TrailerName;
        }
        if self.phase == Phase::TrailerName {
            return self.trailer_name(byte);
        }
        match (self.phase == Phase::TrailerLf, byte) {
            (false, b'\r') => self.phase = Phase::TrailerLf,
            (false, b'\t' | b' '..=b'~' | 0x80..) => {}
            (true, b'\n') => self.phase = Phase::TrailerStart,
            (true | false, _) => return Err(Reject::RequestFraming),
        }
        Ok(())
    }

    fn trailer_name(&mut self, byte: u8) -> Result<(), Reject> {
        if byte == b':' && self.name_bytes > 0 {
            let name = self.name.get(..self.name_bytes).unwrap_or_default();
            // RFC 9110 §6.5.1: nothing of framing, routing, authentication or control.
            if forbidden_in_trailer(name) {
                return Err(Reject::RequestFraming);
            }
            self.phase = Phase::TrailerValue;
            return Ok(());
        }
        if !is_tchar(byte) {
            return Err(Reject::RequestFraming);
        }
        // A name that does not fit is not on the list of the forbidden ones, but may have its
        // prefix.
        if let Some(place) = self.name.get_mut(self.name_bytes) {
            *place = byte.to_ascii_lowercase();
            self.name_bytes += 1;
        }
        Ok(())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// First byte of a chunk-size line.
    SizeStart,
    Size,
    Extension,
    SizeLf,
    /// Inside a chunk.
    Data,
    DataCr,
    DataLf,
    /// First byte of a trailer line, or of the last line.
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLf,
    EndLf,
    Done,
    /// Inside a body of known length.
    Fixed,
    /// Inside a body that ends with the connection.
    Open,
}

/// Where in a quoted string of an extension we are (RFC 9110 §5.6.4). It cannot hold a line end,
/// but a parser that skips to the closing quote would let it: such a line is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Quote {
    Closed,
    Open,
    /// After a backslash.
    Escaped,
}

impl Quote {
    const fn after(self, byte: u8) -> Self {
        match (self, byte) {
            (Self::Closed, b'"') => Self::Open,
            (Self::Open, b'\\') => Self::Escaped,
            (Self::Closed, _) | (Self::Open, b'"') => Self::Closed,
            (Self::Open | Self::Escaped, _) => Self::Open,
        }
    }
}

/// Hexadecimal digits of 64 bits; leading zeros count, or a size line would have no end.
const CHUNK_DIGITS_MAX: u8 = 16;
/// Larger sizes turn negative in parsers with signed numbers.
const CHUNK_BYTES_MAX: u64 = i64::MAX as u64;
/// Longer than any name that is refused in a trailer.
const TRAILER_NAME_BYTES: usize = 32;
