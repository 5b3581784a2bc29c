//! The scan of the reader of heads as it was: byte by byte to the end of the head.

use crate::http::bytes::{is_tchar, other_than_tchar_at};
use crate::limits;
use crate::reject::Reject;

/// Whose head it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// From a client.
    Request,
    /// From an upstream.
    Response,
}

/// The state of the scan between two reads.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scan {
    phase: Phase,
    /// Everything before it has been judged.
    at: usize,
    /// Where the first line begins: after a leading empty line.
    start: usize,
    /// Where the current token begins.
    mark: usize,
    /// Where the target lies.
    target: (usize, usize),
    fields: usize,
    bytes_max: usize,
}

impl Scan {
    pub(super) const fn new(side: Side) -> Self {
        let (phase, bytes_max) = match side {
            Side::Request => (Phase::Lead, limits::HEAD_BYTES_MAX),
            Side::Response => (Phase::Line, limits::UPSTREAM_HEAD_BYTES_MAX),
        };
        Self { phase, at: 0, start: 0, mark: 0, target: (0, 0), fields: 0, bytes_max }
    }

    /// Where the first line begins.
    pub(super) const fn start(&self) -> usize {
        self.start
    }

    /// Start and end of the request target.
    pub(super) const fn target(&self) -> (usize, usize) {
        self.target
    }

    /// Field lines seen.
    pub(super) const fn fields(&self) -> usize {
        self.fields
    }

    /// Looks at what is new in `buf`. `Some(end)` when the head is complete.
    pub(super) fn advance(&mut self, buf: &[u8]) -> Result<Option<usize>, Reject> {
        let window = buf.get(..self.bytes_max.min(buf.len())).unwrap_or_default();
        loop {
            if self.phase == Phase::Line {
                self.at += control_at(window.get(self.at..).unwrap_or_default());
            } else if self.phase == Phase::Name {
                self.at += other_than_tchar_at(window.get(self.at..).unwrap_or_default());
                if self.at - self.mark > limits::FIELD_NAME_BYTES_MAX {
                    return Err(Reject::RequestHeadTooLarge);
                }
            }
            let Some(byte) = window.get(self.at).copied() else { break };
            self.at += 1;
            self.step(byte, window)?;
            if self.phase == Phase::Complete {
                return Ok(Some(self.at));
            }
        }
        // RFC 6585 §5. The window is full and holds no end, so the head is larger than the bound.
        if window.len() == self.bytes_max {
            return Err(Reject::RequestHeadTooLarge);
        }
        Ok(None)
    }

    /// One byte, which `at` has already passed.
    fn step(&mut self, byte: u8, window: &[u8]) -> Result<(), Reject> {
        match self.phase {
            Phase::Lead if byte == b'\r' => self.phase = Phase::LeadEnd,
            Phase::Lead | Phase::Method => self.method(byte)?,
            // RFC 9112 §2.2: an empty line before the request line should be ignored. One, not
            // many.
            Phase::LeadEnd if byte == b'\n' => {
                self.start = self.at;
                self.mark = self.at;
                self.phase = Phase::Method;
            }
            Phase::Target => self.target_byte(byte)?,
            Phase::Version => self.version(byte, window)?,
            Phase::FieldStart => self.field_start(byte)?,
            Phase::Name => self.name(byte)?,
            Phase::Line if byte == b'\r' => self.phase = Phase::LineEnd,
            Phase::Line if byte == b'\t' => {}
            Phase::LineEnd if byte == b'\n' => self.phase = Phase::FieldStart,
            Phase::HeadEnd if byte == b'\n' => self.phase = Phase::Complete,
            // RFC 9112 §2.2 lets a recipient take a bare LF for a line end; a hop that does and one
            // that does not see two different messages. A bare CR or NUL: RFC 9110 §5.5.
            Phase::Line | Phase::LeadEnd | Phase::LineEnd | Phase::HeadEnd | Phase::Complete => {
                return Err(Reject::RequestMalformed);
            }
        }
        Ok(())
    }

    fn method(&mut self, byte: u8) -> Result<(), Reject> {
        self.phase = Phase::Method;
        let length = self.at - self.mark;
        if byte == b' ' && length > 1 {
            self.phase = Phase::Target;
            self.mark = self.at;
        } else if !is_tchar(byte) || length > limits::METHOD_BYTES_MAX {
            return Err(Reject::RequestMalformed);
        }
        Ok(())
    }

    fn target_byte(&mut self, byte: u8) -> Result<(), Reject> {
        let length = self.at - self.mark;
        if byte == b' ' && length > 1 {
            self.target = (self.mark, self.at - 1);
            self.phase = Phase::Version;
            self.mark = self.at;
        } else if !byte.is_ascii_graphic() {
            return Err(Reject::RequestMalformed);
        } else if length > limits::TARGET_BYTES_MAX {
            return Err(Reject::RequestTargetTooLong);
        }
        Ok(())
    }

    fn version(&mut self, byte: u8, window: &[u8]) -> Result<(), Reject> {
        let version = window.get(self.mark..self.at - 1).unwrap_or_default();
        if byte != b'\r' {
            let goes_on = byte.is_ascii_graphic() && version.len() < b"HTTP/1.1".len();
            return if goes_on { Ok(()) } else { Err(Reject::RequestMalformed) };
        }
        self.phase = Phase::LineEnd;
        match version {
            b"HTTP/1.1" | b"HTTP/1.0" => Ok(()),
            // RFC 9110 §15.6.6: well formed, but of a major or minor version that we do not speak.
            [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'] => {
                Err(Reject::RequestVersion)
            }
            _ => Err(Reject::RequestMalformed),
        }
    }

    fn field_start(&mut self, byte: u8) -> Result<(), Reject> {
        if byte == b'\r' {
            self.phase = Phase::HeadEnd;
            return Ok(());
        }
        // A space or tab here is obs-fold (RFC 9112 §5.2) or hides a field behind the first line
        // (§2.2): hops disagree on whose value it is.
        if !is_tchar(byte) {
            return Err(Reject::RequestMalformed);
        }
        self.fields += 1;
        if self.fields > limits::HEAD_FIELDS_MAX {
            return Err(Reject::RequestHeadTooLarge);
        }
        self.mark = self.at - 1;
        self.phase = Phase::Name;
        Ok(())
    }

    fn name(&mut self, byte: u8) -> Result<(), Reject> {
        if byte == b':' {
            self.phase = Phase::Line;
            return Ok(());
        }
        // RFC 9112 §5.1: white space between name and colon has let fields pass unseen.
        Err(Reject::RequestMalformed)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nothing seen yet.
    Lead,
    /// CR of an empty line before the request line.
    LeadEnd,
    Method,
    Target,
    Version,
    /// First byte of a field line, or the end.
    FieldStart,
    Name,
    /// A field value, or the status line of a response.
    Line,
    /// CR seen.
    LineEnd,
    /// CR of the last, empty line seen.
    HeadEnd,
    Complete,
}

/// Index of the first byte below 0x20, or the length.
fn control_at(bytes: &[u8]) -> usize {
    bytes.iter().position(|byte| *byte < 0x20).unwrap_or(bytes.len())
}
