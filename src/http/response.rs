//! The head of an upstream's response (RFC 9112 §4, §6.3).
//!
//! An upstream is another party with other interests: what is not exactly one response is refused,
//! and a connection on which a doubt arose is not used again.

use super::Field;
use super::body::Framing;
use super::fields::Fields;
use super::head::Method;
use super::scan::{Scan, Side};
use crate::limits;
use crate::reject::Reject;

/// One response head. Reusable like [`super::RequestHead`]. Every fault is `UpstreamMalformed`.
#[derive(Debug)]
pub struct ResponseHead {
    scan: Scan,
    verdict: Option<Result<usize, Reject>>,
    fields: Fields,
    status: u16,
    framing: Framing,
    keep_alive: bool,
    interim_seen: usize,
}

impl Default for ResponseHead {
    fn default() -> Self {
        Self::new()
    }
}

impl ResponseHead {
    /// An empty one, with room for every field that a head may have.
    #[must_use]
    pub fn new() -> Self {
        Self {
            scan: Scan::new(Side::Response),
            verdict: None,
            fields: Fields::new(),
            status: 0,
            framing: Framing::None,
            keep_alive: false,
            interim_seen: 0,
        }
    }

    /// Makes it ready for the answer to another request.
    pub fn reset(&mut self) {
        self.clear();
        self.interim_seen = 0;
    }

    /// Makes it ready for the head that follows an interim one; the caller drops the bytes of that
    /// one.
    ///
    /// # Errors
    /// When more interim responses came than an honest upstream sends: they cost us and never end.
    pub fn next_after_interim(&mut self) -> Result<(), Reject> {
        self.clear();
        self.interim_seen += 1;
        if self.interim_seen > limits::UPSTREAM_INTERIM_MAX {
            return Err(Reject::UpstreamMalformed);
        }
        Ok(())
    }

    /// Judges what has arrived, as [`super::RequestHead::parse`] does. `answered` is the method of
    /// the request: the answer to HEAD has no body (RFC 9112 §6.3).
    ///
    /// # Errors
    /// `UpstreamMalformed`; the connection must be closed.
    pub fn parse(&mut self, buf: &[u8], answered: Method) -> Result<Option<usize>, Reject> {
        if let Some(verdict) = self.verdict {
            return verdict.map(Some);
        }
        let verdict = match self.scan.advance(buf, &mut self.fields) {
            Ok(None) => return Ok(None),
            Ok(Some(end)) => self.judge(buf, answered).map(|()| end),
            Err(reject) => Err(reject),
        };
        let verdict = verdict.map_err(|_| Reject::UpstreamMalformed);
        if verdict.is_err() {
            self.keep_alive = false;
        }
        self.verdict = Some(verdict);
        verdict.map(Some)
    }

    /// The status code, 100 to 599.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.status
    }

    /// True for 1xx: not the answer yet. See [`ResponseHead::next_after_interim`].
    #[must_use]
    pub fn is_interim(&self) -> bool {
        self.status / 100 == 1
    }

    /// The value of a known field; of a repeated list field the first line.
    #[must_use]
    pub fn field<'b>(&self, buf: &'b [u8], field: Field) -> Option<&'b [u8]> {
        self.fields.get(buf, field)
    }

    /// The values of all lines of a known field.
    pub fn values<'a>(&'a self, buf: &'a [u8], field: Field) -> impl Iterator<Item = &'a [u8]> {
        self.fields.values(buf, field)
    }

    /// All fields in their order: name as written, value trimmed.
    pub fn fields<'a>(&'a self, buf: &'a [u8]) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        self.fields.iter(buf)
    }

    /// The fields that travel on to the client.
    pub fn downstream_fields<'a>(
        &'a self,
        buf: &'a [u8],
    ) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        self.fields.downstream_fields(buf)
    }

    /// How long the body is.
    #[must_use]
    pub fn framing(&self) -> Framing {
        self.framing
    }

    /// True when the connection may serve another request after the body. Bytes that are already
    /// there behind the body forbid it all the same: they would be the next user's answer.
    #[must_use]
    pub fn keep_alive(&self) -> bool {
        self.keep_alive
    }

    fn clear(&mut self) {
        self.scan = Scan::new(Side::Response);
        self.verdict = None;
        self.fields.reset();
        self.status = 0;
        self.framing = Framing::None;
        self.keep_alive = false;
    }

    fn judge(&mut self, buf: &[u8], answered: Method) -> Result<(), Reject> {
        let (start, end) = self.scan.target();
        let line = buf.get(start..end).unwrap_or_default();
        let (minor, code) = status_of(line).ok_or(Reject::UpstreamMalformed)?;
        // RFC 9110 §5.5, RFC 9112 §4: a DEL is no part of a value or a phrase. RFC 9110 §15: codes
        // outside of 100..599 are invalid. 101 would answer an `Upgrade` that we never send; what
        // follows it is not HTTP.
        if self.scan.has_delete() || !(100..600).contains(&code) || code == 101 {
            return Err(Reject::UpstreamMalformed);
        }
        self.status = code;
        self.fields.fault()?;
        self.judge_framing(buf, minor == b'0', answered)
    }

    /// RFC 9112 §6.3, in its order.
    fn judge_framing(&mut self, buf: &[u8], is_1_0: bool, answered: Method) -> Result<(), Reject> {
        let declared = self.fields.framing(buf, is_1_0)?;
        let persistent = !is_1_0 && !self.fields.connection_lists(buf, b"close");
        let declares_body = !matches!(declared, None | Some(Framing::None | Framing::Length(0)));
        if self.is_interim() {
            // RFC 9112 §6.1: neither length belongs into a 1xx. One that has it hides a body in
            // front of the real answer.
            if declares_body {
                return Err(Reject::UpstreamMalformed);
            }
            self.keep_alive = persistent;
        } else if self.status == 204 || self.status == 304 || answered == Method::Head {
            // The fields tell what GET would have got; a 204 must not have them (RFC 9110 §8.6), so
            // one that does may send a body after all: its connection is not used again.
            self.keep_alive = persistent && !(self.status == 204 && declares_body);
        } else {
            // Without a length the body ends with the connection, so a cut cannot be told from an
            // end.
            self.framing = declared.unwrap_or(Framing::UntilClose);
            self.keep_alive = persistent && declared.is_some();
        }
        Ok(())
    }
}

/// The minor version and the code of a status line (RFC 9112 §4), of which the scan has seen that
/// it holds no control bytes. The phrase may be missing, and its space with it, as some servers
/// leave them out.
fn status_of(line: &[u8]) -> Option<(u8, u16)> {
    let (head, phrase) = line.split_first_chunk::<12>()?;
    let [b'H', b'T', b'T', b'P', b'/', b'1', b'.', minor @ (b'0' | b'1'), b' ', code @ ..] = head
    else {
        return None;
    };
    let is_code = code.iter().all(u8::is_ascii_digit) && matches!(phrase, [] | [b' ', ..]);
    let number = code.iter().fold(0, |sum, digit| sum * 10 + u16::from(digit & 0x0f));
    is_code.then_some((*minor, number))
}
