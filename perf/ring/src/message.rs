//! One HTTP/1.1 message on its way through a relay: reads its head, writes the head that goes on,
//! and tells which of the bytes behind it are body. Knows nothing of sockets; both relays use it.

use std::mem::MaybeUninit;
use std::ops::Range;

use httparse::{Header, ParserConfig, Status};

use crate::chunks::Chunks;

/// A request or response of which the bytes come in pieces.
#[derive(Debug)]
pub struct Message {
    side: Side,
    stage: Stage,
    keep_alive: bool,
    head_request: bool,
    /// A head that has not come in whole yet.
    held: Vec<u8>,
}

/// What the relay writes into every request.
#[derive(Debug)]
pub struct Rewrite {
    /// The host line, the credential line and the empty line that end a head.
    tail: Vec<u8>,
}

/// What [`Message::take`] made of its input.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Bytes of the input that go on as they are, behind what was written.
    pub body: Range<usize>,
    /// How many bytes of the input belong to this message.
    pub used: usize,
    /// The head became complete with this input.
    pub head: bool,
    /// The message is complete.
    pub done: bool,
}

/// Why a message cannot be relayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The head is larger than [`HEAD_BYTES_MAX`] or has more than [`FIELDS_MAX`] fields.
    HeadTooLarge,
    /// It is not an HTTP/1.1 message, or its framing is ambiguous.
    Malformed,
    /// It asks for something that this relay does not do.
    Unsupported,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Request,
    Response,
}

#[derive(Debug)]
enum Stage {
    Head,
    Fixed(u64),
    Chunked(Chunks),
    UntilClose,
    Done,
}

impl Message {
    /// A request that is to come.
    #[must_use]
    pub fn request() -> Self {
        Self::new(Side::Request)
    }

    /// A response that is to come.
    #[must_use]
    pub fn response() -> Self {
        Self::new(Side::Response)
    }

    fn new(side: Side) -> Self {
        let held = Vec::new();
        Self { side, stage: Stage::Head, keep_alive: true, head_request: false, held }
    }

    /// Waits for the next message on the same connection; `head_request` says that it is the
    /// answer to a HEAD and has no body whatever its fields say (RFC 9112 §6.3).
    pub fn restart(&mut self, head_request: bool) {
        self.stage = Stage::Head;
        self.keep_alive = true;
        self.head_request = head_request;
        self.held.clear();
    }

    /// Nothing of the message has come yet.
    #[must_use]
    pub fn is_untouched(&self) -> bool {
        matches!(self.stage, Stage::Head) && self.held.is_empty()
    }

    /// The sender lets the connection live on. Holds once the head is complete.
    #[must_use]
    pub fn keep_alive(&self) -> bool {
        self.keep_alive && !matches!(self.stage, Stage::UntilClose)
    }

    /// The request is a HEAD. Holds once the head is complete.
    #[must_use]
    pub fn is_head_request(&self) -> bool {
        self.head_request
    }

    /// The sender has closed: was the message complete with that?
    #[must_use]
    pub fn ends_with_close(&self) -> bool {
        matches!(self.stage, Stage::UntilClose)
    }

    /// Takes the next bytes of the connection. A head that becomes complete is written to `out`
    /// in its new form. Input behind the end of the message is left unused.
    ///
    /// # Errors
    /// When nothing of the message may go on.
    pub fn take(
        &mut self,
        input: &[u8],
        rewrite: &Rewrite,
        out: &mut Vec<u8>,
    ) -> Result<Taken, Fault> {
        let mut start = 0;
        let mut head = false;
        // More than one turn: interim responses stand before the one that counts.
        while matches!(self.stage, Stage::Head) {
            let rest = input.get(start..).unwrap_or_default();
            let Some(used) = self.take_head(rest, rewrite, out)? else {
                return Ok(Taken { used: input.len(), ..Taken::default() });
            };
            start += used;
            head = !matches!(self.stage, Stage::Head);
        }
        let rest = input.get(start..).unwrap_or_default();
        let (length, done) = self.take_body(rest)?;
        let body = start..start + length;
        if done && !matches!(self.stage, Stage::UntilClose) {
            self.stage = Stage::Done;
        }
        Ok(Taken { used: body.end, body, head, done })
    }

    /// How many bytes of `rest` are body, and whether the message ends there.
    fn take_body(&mut self, rest: &[u8]) -> Result<(usize, bool), Fault> {
        match &mut self.stage {
            Stage::Head | Stage::Done => Ok((0, true)),
            Stage::Fixed(left) => {
                let length = (*left).min(rest.len() as u64);
                *left -= length;
                Ok((usize::try_from(length).unwrap_or(rest.len()), *left == 0))
            }
            Stage::Chunked(chunks) => chunks.scan(rest),
            Stage::UntilClose => Ok((rest.len(), false)),
        }
    }

    /// Reads a head that ends in `input`: how many bytes of it were used; none when it goes on.
    fn take_head(
        &mut self,
        input: &[u8],
        rewrite: &Rewrite,
        out: &mut Vec<u8>,
    ) -> Result<Option<usize>, Fault> {
        if self.held.is_empty() {
            let Some(length) = self.read_head(input, rewrite, out)? else {
                self.hold(input)?;
                return Ok(None);
            };
            return Ok(Some(length));
        }
        let before = self.held.len();
        self.hold(input)?;
        let held = std::mem::take(&mut self.held);
        let read = self.read_head(&held, rewrite, out);
        self.held = held;
        let Some(length) = read? else { return Ok(None) };
        self.held.clear();
        Ok(Some(length.saturating_sub(before)))
    }

    fn hold(&mut self, input: &[u8]) -> Result<(), Fault> {
        // The piece that completes a head may bring a body with it; it came in one receive, so
        // the bound is on what was there before.
        if self.held.len() > HEAD_BYTES_MAX {
            return Err(Fault::HeadTooLarge);
        }
        self.held.extend_from_slice(input);
        Ok(())
    }

    fn read_head(
        &mut self,
        bytes: &[u8],
        rewrite: &Rewrite,
        out: &mut Vec<u8>,
    ) -> Result<Option<usize>, Fault> {
        let length = match self.side {
            Side::Request => self.read_request(bytes, rewrite, out)?,
            Side::Response => self.read_response(bytes, out)?,
        };
        match length {
            Some(length) if length > HEAD_BYTES_MAX => Err(Fault::HeadTooLarge),
            Some(_) => Ok(length),
            None if bytes.len() > HEAD_BYTES_MAX => Err(Fault::HeadTooLarge),
            None => Ok(None),
        }
    }

    fn read_request(
        &mut self,
        bytes: &[u8],
        rewrite: &Rewrite,
        out: &mut Vec<u8>,
    ) -> Result<Option<usize>, Fault> {
        let mut fields = [MaybeUninit::<Header<'_>>::uninit(); FIELDS_MAX];
        let mut request = httparse::Request::new(&mut []);
        let parsed = ParserConfig::default().parse_request_with_uninit_headers(
            &mut request,
            bytes,
            &mut fields,
        );
        let Status::Complete(length) = parsed.map_err(fault)? else { return Ok(None) };
        let (Some(method), Some(path), Some(1)) = (request.method, request.path, request.version)
        else {
            return Err(Fault::Unsupported);
        };
        out.reserve(length + rewrite.tail.len());
        append(out, &[method.as_bytes(), b" ", path.as_bytes(), b" HTTP/1.1\r\n"]);
        let framing = self.relay_fields(request.headers, out)?;
        out.extend_from_slice(&rewrite.tail);
        self.head_request = method == "HEAD";
        self.stage = framing.unwrap_or(Stage::Fixed(0));
        Ok(Some(length))
    }

    fn read_response(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<Option<usize>, Fault> {
        let mut fields = [MaybeUninit::<Header<'_>>::uninit(); FIELDS_MAX];
        let mut response = httparse::Response::new(&mut []);
        let parsed = ParserConfig::default().parse_response_with_uninit_headers(
            &mut response,
            bytes,
            &mut fields,
        );
        let Status::Complete(length) = parsed.map_err(fault)? else { return Ok(None) };
        let (Some(code), Some(version)) = (response.code, response.version) else {
            return Err(Fault::Malformed);
        };
        match code {
            101 => return Err(Fault::Unsupported),
            // RFC 9110 §15.2: interim; the answer is still to come.
            100..=199 => return Ok(Some(length)),
            _ => {}
        }
        out.reserve(length + 2);
        let [hundreds, tens, ones] = [code / 100, code / 10 % 10, code % 10].map(digit);
        append(out, &[b"HTTP/1.1 ", &[hundreds, tens, ones], b" "]);
        append(out, &[response.reason.unwrap_or_default().as_bytes(), b"\r\n"]);
        let framing = self.relay_fields(response.headers, out)?;
        out.extend_from_slice(b"\r\n");
        self.keep_alive &= version == 1;
        // RFC 9112 §6.3: these have no body, whatever their fields announce.
        let bare = self.head_request || code == 204 || code == 304;
        self.stage = if bare { Stage::Fixed(0) } else { framing.unwrap_or(Stage::UntilClose) };
        Ok(Some(length))
    }

    /// Writes the fields that go on and reads those that frame the message.
    fn relay_fields(
        &mut self,
        fields: &[Header<'_>],
        out: &mut Vec<u8>,
    ) -> Result<Option<Stage>, Fault> {
        let (mut length, mut chunked) = (None, false);
        for field in fields {
            match kind(field.name, self.side) {
                Kind::Passed => {}
                Kind::Dropped => continue,
                Kind::Connection => {
                    self.keep_alive &= !contains(field.value, b"close");
                    continue;
                }
                // Nobody here would answer 100 in time; the client must not wait for it.
                Kind::Expect => return Err(Fault::Unsupported),
                Kind::Length if length.is_some() => return Err(Fault::Malformed),
                Kind::Length => length = Some(decimal(field.value)?),
                Kind::Coding if chunked => return Err(Fault::Malformed),
                Kind::Coding if field.value.eq_ignore_ascii_case(b"chunked") => chunked = true,
                Kind::Coding => return Err(Fault::Unsupported),
            }
            append(out, &[field.name.as_bytes(), b": ", field.value, b"\r\n"]);
        }
        match (length, chunked) {
            // RFC 9112 §6.1: two framings are how a request is smuggled.
            (Some(_), true) => Err(Fault::Malformed),
            (Some(length), false) => Ok(Some(Stage::Fixed(length))),
            (None, true) => Ok(Some(Stage::Chunked(Chunks::new()))),
            (None, false) => Ok(None),
        }
    }
}

impl Rewrite {
    /// Requests go to `host` and carry `key`.
    #[must_use]
    pub fn new(host: &str, key: &str) -> Self {
        Self { tail: format!("Host: {host}\r\nX-Api-Key: {key}\r\n\r\n").into_bytes() }
    }
}

impl Fault {
    /// The whole answer to a request with this fault.
    #[must_use]
    pub fn answer(self) -> &'static [u8] {
        match self {
            Self::HeadTooLarge => {
                b"HTTP/1.1 431 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            }
            Self::Malformed => {
                b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            }
            Self::Unsupported => {
                b"HTTP/1.1 501 Not Here\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            }
        }
    }
}

/// The whole answer when the upstream gave none.
pub const NO_ANSWER: &[u8] =
    b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
/// Bytes of a head, its first line included.
pub const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Fields of a head.
pub const FIELDS_MAX: usize = 64;

/// What the relay does with a field.
enum Kind {
    Coding,
    Connection,
    Dropped,
    Expect,
    Length,
    Passed,
}

fn kind(name: &str, side: Side) -> Kind {
    let is = |other: &str| name.eq_ignore_ascii_case(other);
    let request = side == Side::Request;
    match name.len() {
        2 if is("te") => Kind::Dropped,
        4 if request && is("host") => Kind::Dropped,
        6 if request && is("expect") => Kind::Expect,
        7 if is("upgrade") || is("trailer") => Kind::Dropped,
        9 if request && is("x-api-key") => Kind::Dropped,
        10 if is("connection") => Kind::Connection,
        10 if is("keep-alive") => Kind::Dropped,
        13 if request && is("authorization") => Kind::Dropped,
        14 if is("content-length") => Kind::Length,
        16 if is("proxy-connection") => Kind::Dropped,
        17 if is("transfer-encoding") => Kind::Coding,
        19 if is("proxy-authorization") => Kind::Dropped,
        _ => Kind::Passed,
    }
}

fn append(out: &mut Vec<u8>, parts: &[&[u8]]) {
    for part in parts {
        out.extend_from_slice(part);
    }
}

fn decimal(value: &[u8]) -> Result<u64, Fault> {
    // `parse` would take a leading plus sign.
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(Fault::Malformed);
    }
    let text = str::from_utf8(value).map_err(|_| Fault::Malformed)?;
    text.parse().map_err(|_| Fault::Malformed)
}

fn contains(value: &[u8], word: &[u8]) -> bool {
    value.split(|&byte| byte == b',').any(|part| part.trim_ascii().eq_ignore_ascii_case(word))
}

fn digit(value: u16) -> u8 {
    b'0' + u8::try_from(value % 10).unwrap_or_default()
}

fn fault(error: httparse::Error) -> Fault {
    if error == httparse::Error::TooManyHeaders { Fault::HeadTooLarge } else { Fault::Malformed }
}

#[cfg(test)]
mod tests;
