//! Finds the end of a head and its fields while its bytes arrive, and refuses at the first byte
//! that cannot be right.
//!
//! Whole lines are taken as such. Whatever is not one, because it is cut or because something about
//! it is unusual, goes byte by byte through a machine that has the last word: the quick way only
//! ever takes what the machine would take. So no byte is looked at more than a few times, however
//! the network cuts them (a client that drips single bytes costs little more than one that sends
//! all at once). What is refused here is what must not wait for the end of the head: line ends that
//! are not CRLF, control bytes, folded lines, and every size.

use super::Field;
use super::bytes::{colon_at, control_at, is_tchar, other_than_tchar_at};
use super::fields::Fields;
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
    /// Where the colon of the current field line is.
    colon: usize,
    /// Where the target lies; of a response, its status line.
    target: (usize, usize),
    fields: usize,
    bytes_max: usize,
    has_delete: bool,
    is_1_0: bool,
}

impl Scan {
    pub(super) const fn new(side: Side) -> Self {
        let (phase, bytes_max) = match side {
            Side::Request => (Phase::Lead, limits::HEAD_BYTES_MAX),
            Side::Response => (Phase::Line, limits::UPSTREAM_HEAD_BYTES_MAX),
        };
        Self {
            phase,
            at: 0,
            start: 0,
            mark: 0,
            colon: 0,
            target: (0, 0),
            fields: 0,
            bytes_max,
            has_delete: false,
            is_1_0: false,
        }
    }

    /// Start and end of the method.
    pub(super) const fn method_place(&self) -> (usize, usize) {
        (self.start, self.target.0.saturating_sub(1))
    }

    /// Start and end of the request target, or of the status line.
    pub(super) const fn target(&self) -> (usize, usize) {
        self.target
    }

    /// True when the request line says HTTP/1.0.
    pub(super) const fn is_1_0(&self) -> bool {
        self.is_1_0
    }

    /// True when a DEL stands in a field value or in the status line, where RFC 9110 §5.5 and RFC
    /// 9112 §4 allow none. A fault of the whole head, told when it is complete.
    pub(super) const fn has_delete(&self) -> bool {
        self.has_delete
    }

    /// Looks at what is new in `buf`. `Some(end)` when the head is complete. Its lines are in
    /// `fields` then; what is wrong with them is told by [`Fields::fault`].
    pub(super) fn advance(
        &mut self,
        buf: &[u8],
        fields: &mut Fields,
    ) -> Result<Option<usize>, Reject> {
        let window = buf.get(..self.bytes_max.min(buf.len())).unwrap_or_default();
        loop {
            match self.phase {
                Phase::Lead => self.whole_request_line(window),
                Phase::Name => {
                    self.at += other_than_tchar_at(window.get(self.at..).unwrap_or_default());
                    if self.at - self.mark > limits::FIELD_NAME_BYTES_MAX {
                        return Err(Reject::RequestHeadTooLarge);
                    }
                }
                Phase::Line => self.at += control_at(window.get(self.at..).unwrap_or_default()),
                Phase::LeadEnd
                | Phase::Method
                | Phase::Target
                | Phase::Version
                | Phase::FieldStart
                | Phase::LineEnd
                | Phase::HeadEnd
                | Phase::Complete => {}
            }
            if self.phase == Phase::FieldStart {
                self.whole_lines(window, fields);
            }
            let Some(byte) = window.get(self.at).copied() else { break };
            self.at += 1;
            self.step(byte, window, fields)?;
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

    /// The quick way past a request line that is all there and has nothing unusual.
    #[inline(never)] // a head that drips in does not pay for it with every byte
    fn whole_request_line(&mut self, window: &[u8]) {
        let method = other_than_tchar_at(window);
        let Some(rest) = window.get(method..).and_then(|rest| rest.strip_prefix(b" ")) else {
            return;
        };
        let target = rest.iter().position(|byte| !byte.is_ascii_graphic()).unwrap_or(rest.len());
        let end = rest.get(target..).and_then(<[u8]>::first_chunk::<11>);
        let is_1_0 = end == Some(b" HTTP/1.0\r\n");
        let is_sound = (1..=limits::METHOD_BYTES_MAX).contains(&method)
            && (1..=limits::TARGET_BYTES_MAX).contains(&target)
            && (is_1_0 || end == Some(b" HTTP/1.1\r\n"));
        if is_sound {
            self.target = (method + 1, method + 1 + target);
            self.is_1_0 = is_1_0;
            self.at = self.target.1 + b" HTTP/1.1\r\n".len();
            self.phase = Phase::FieldStart;
        }
    }

    /// The quick way past field lines that are all there and have nothing unusual.
    #[inline(never)] // as above
    fn whole_lines(&mut self, window: &[u8], fields: &mut Fields) {
        while self.fields < limits::HEAD_FIELDS_MAX {
            let line = window.get(self.at..).unwrap_or_default();
            let Some(colon) = colon_at(line) else { return };
            let name = line.get(..colon).unwrap_or_default();
            let field = Field::from_name(name);
            // A known name is made of nothing else.
            let is_name = field.is_some() || (colon > 0 && other_than_tchar_at(name) == colon);
            let end = colon + 1 + control_at(line.get(colon + 1..).unwrap_or_default());
            let ends = line.get(end..).is_some_and(|rest| rest.starts_with(b"\r\n"));
            if !is_name || !ends {
                return;
            }
            fields.push(window, (self.at, self.at + colon, self.at + end), field);
            self.fields += 1;
            self.at += end + b"\r\n".len();
        }
    }

    /// One byte, which `at` has already passed.
    fn step(&mut self, byte: u8, window: &[u8], fields: &mut Fields) -> Result<(), Reject> {
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
            Phase::Line if byte == DELETE => self.has_delete = true,
            Phase::LineEnd if byte == b'\n' => self.line_end(window, fields),
            Phase::HeadEnd if byte == b'\n' => self.phase = Phase::Complete,
            // RFC 9112 §2.2 lets a recipient take a bare LF for a line end; a hop that does and one
            // that does not see two different messages. A bare CR or NUL: RFC 9110 §5.5.
            Phase::Line | Phase::LeadEnd | Phase::LineEnd | Phase::HeadEnd | Phase::Complete => {
                return Err(Reject::RequestMalformed);
            }
        }
        Ok(())
    }

    fn line_end(&mut self, window: &[u8], fields: &mut Fields) {
        let end = self.at - b"\r\n".len();
        if self.fields > 0 {
            let name = window.get(self.mark..self.colon).unwrap_or_default();
            fields.push(window, (self.mark, self.colon, end), Field::from_name(name));
        } else if self.target == (0, 0) {
            self.target = (0, end);
        }
        self.phase = Phase::FieldStart;
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
            b"HTTP/1.1" => Ok(()),
            b"HTTP/1.0" => {
                self.is_1_0 = true;
                Ok(())
            }
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
            self.colon = self.at - 1;
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

const DELETE: u8 = 0x7f;
