//! The reader of heads as it was before it split fields itself: the scan finds the end of the head
//! and nothing else, then `httparse` reads the whole a second time. Slower, and by another's hand:
//! what the reader of today accepts, refuses and finds in a head has to be the same (see `oracle`).

use std::mem::MaybeUninit;

use super::before_scan::{Scan, Side};
use crate::http::bytes::{decimal, list, trim};
use crate::http::{Field, Framing, Method, Span, host};
use crate::limits;
use crate::reject::Reject;

/// A request head, as it was read.
#[derive(Debug)]
pub(super) struct OldRequest {
    scan: Scan,
    verdict: Option<Result<usize, Reject>>,
    pub(super) fields: Fields,
    pub(super) method: Method,
    pub(super) target: Span,
    pub(super) framing: Framing,
    pub(super) keep_alive: bool,
    pub(super) expects_continue: bool,
    pub(super) http_10: bool,
}

impl OldRequest {
    pub(super) fn new() -> Self {
        Self {
            scan: Scan::new(Side::Request),
            verdict: None,
            fields: Fields::new(),
            method: Method::Other,
            target: Span::default(),
            framing: Framing::None,
            keep_alive: false,
            expects_continue: false,
            http_10: false,
        }
    }

    pub(super) fn parse(&mut self, buf: &[u8]) -> Result<Option<usize>, Reject> {
        if let Some(verdict) = self.verdict {
            return verdict.map(Some);
        }
        let verdict = match self.scan.advance(buf) {
            Ok(None) => return Ok(None),
            Ok(Some(end)) => self.judge(buf, end).map(|()| end),
            Err(reject) => Err(reject),
        };
        if verdict.is_err() {
            self.keep_alive = false;
        }
        self.verdict = Some(verdict);
        verdict.map(Some)
    }

    fn judge(&mut self, buf: &[u8], end: usize) -> Result<(), Reject> {
        let head = buf.get(self.scan.start()..end).ok_or(Reject::GatewayFault)?;
        let mut lines = [const { MaybeUninit::uninit() }; limits::HEAD_FIELDS_MAX];
        let mut parsed = httparse::Request::new(&mut []);
        let status = parsed.parse_with_uninit_headers(head, &mut lines);
        // Two parsers, one reading: the scan and httparse must agree on where the head ends.
        if status != Ok(httparse::Status::Complete(head.len())) {
            return Err(Reject::RequestMalformed);
        }
        let (Some(method), Some(target), Some(minor)) =
            (parsed.method, parsed.path, parsed.version)
        else {
            return Err(Reject::RequestMalformed);
        };
        let (start, stop) = self.scan.target();
        self.method = method_of(method);
        self.target = within(buf, target.as_bytes());
        if Some(target.as_bytes()) != buf.get(start..stop) {
            return Err(Reject::RequestMalformed);
        }
        judge_target(self.method, target.as_bytes())?;
        for line in parsed.headers.iter() {
            self.fields.push(buf, line.name.as_bytes(), line.value)?;
        }
        if self.fields.len() != self.scan.fields() {
            return Err(Reject::RequestMalformed);
        }
        self.http_10 = minor == 0;
        self.judge_fields(buf, minor == 0)
    }

    fn judge_fields(&mut self, buf: &[u8], is_1_0: bool) -> Result<(), Reject> {
        self.framing = self.fields.framing(buf, is_1_0)?.unwrap_or(Framing::None);
        // RFC 9112 §3.2: exactly one valid Host, or 400. Asked of HTTP/1.0 as well: the Host list
        // is what stops DNS rebinding, and no client that speaks MCP leaves it out.
        let host = self.fields.get(buf, Field::Host).ok_or(Reject::RequestHost)?;
        host::parse_host(host).ok_or(Reject::RequestHost)?;
        self.keep_alive = !is_1_0
            && self.method != Method::Connect
            && !self.fields.connection_lists(buf, b"close");
        if let Some(expectation) = self.fields.get(buf, Field::Expect).filter(|_| !is_1_0) {
            // RFC 9110 §10.1.1: the one expectation there is; HTTP/1.0 clients cannot mean it.
            if !expectation.eq_ignore_ascii_case(b"100-continue") {
                return Err(Reject::RequestExpectation);
            }
            self.expects_continue = true;
        }
        Ok(())
    }
}

/// RFC 9112 §3.2. Absolute form is refused: it names the host a second time, and whoever believes
/// the other of the two routes elsewhere. CONNECT gets past, to be answered 405 like any method not
/// served.
fn judge_target(method: Method, target: &[u8]) -> Result<(), Reject> {
    if method == Method::Connect || (method == Method::Options && target == b"*") {
        return Ok(());
    }
    if target.first() != Some(&b'/') {
        return Err(Reject::RequestMalformed);
    }
    let path_end = target.iter().position(|byte| *byte == b'?').unwrap_or(target.len());
    let (path, query) = target.split_at_checked(path_end).unwrap_or((target, b""));
    // RFC 3986 §3.3: what a path cannot hold, some hop would rewrite (`\` to `/`, `#` to an end).
    let is_path = path.iter().all(|byte| !br##""#<>\^`{|}"##.contains(byte));
    // Browsers send more than RFC 3986 §3.4 in a query (WHATWG URL); these three never.
    let is_query = query.iter().all(|byte| !br##""#<>"##.contains(byte));
    if is_path && is_query && percent_is_sound(path) {
        Ok(())
    } else {
        Err(Reject::RequestMalformed)
    }
}

/// RFC 3986 §2.1: a percent sign is followed by two hexadecimal digits.
fn percent_is_sound(path: &[u8]) -> bool {
    let mut parts = path.split(|byte| *byte == b'%');
    let _before_the_first = parts.next();
    parts.all(|part| {
        part.first_chunk::<2>().is_some_and(|pair| pair.iter().all(u8::is_ascii_hexdigit))
    })
}

/// A response head, as it was read.
#[derive(Debug)]
pub(super) struct OldResponse {
    scan: Scan,
    verdict: Option<Result<usize, Reject>>,
    pub(super) fields: Fields,
    pub(super) status: u16,
    pub(super) framing: Framing,
    pub(super) keep_alive: bool,
}

impl OldResponse {
    pub(super) fn new() -> Self {
        Self {
            scan: Scan::new(Side::Response),
            verdict: None,
            fields: Fields::new(),
            status: 0,
            framing: Framing::None,
            keep_alive: false,
        }
    }

    pub(super) fn parse(&mut self, buf: &[u8], answered: Method) -> Result<Option<usize>, Reject> {
        if let Some(verdict) = self.verdict {
            return verdict.map(Some);
        }
        let verdict = match self.scan.advance(buf) {
            Ok(None) => return Ok(None),
            Ok(Some(end)) => self.judge(buf, end, answered).map(|()| end),
            Err(reject) => Err(reject),
        };
        let verdict = verdict.map_err(|_| Reject::UpstreamMalformed);
        if verdict.is_err() {
            self.keep_alive = false;
        }
        self.verdict = Some(verdict);
        verdict.map(Some)
    }

    fn is_interim(&self) -> bool {
        self.status / 100 == 1
    }

    fn judge(&mut self, buf: &[u8], end: usize, answered: Method) -> Result<(), Reject> {
        let head = buf.get(..end).ok_or(Reject::UpstreamMalformed)?;
        let mut lines = [const { MaybeUninit::uninit() }; limits::HEAD_FIELDS_MAX];
        let mut parsed = httparse::Response::new(&mut []);
        let config = httparse::ParserConfig::default();
        let status = config.parse_response_with_uninit_headers(&mut parsed, head, &mut lines);
        if status != Ok(httparse::Status::Complete(end)) {
            return Err(Reject::UpstreamMalformed);
        }
        let (Some(minor), Some(code)) = (parsed.version, parsed.code) else {
            return Err(Reject::UpstreamMalformed);
        };
        // RFC 9110 §15: codes outside of 100..599 are invalid. 101 would answer an `Upgrade` that
        // we never send; what follows it is not HTTP.
        if !head.starts_with(b"HTTP/1.") || !(100..600).contains(&code) || code == 101 {
            return Err(Reject::UpstreamMalformed);
        }
        self.status = code;
        for line in parsed.headers.iter() {
            self.fields.push(buf, line.name.as_bytes(), line.value)?;
        }
        if self.fields.len() != self.scan.fields() {
            return Err(Reject::UpstreamMalformed);
        }
        self.judge_framing(buf, minor == 0, answered)
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

/// The field lines of one head. Keeps its memory over [`Fields::reset`].
#[derive(Debug)]
pub(super) struct Fields {
    lines: Vec<Line>,
    /// Per known field: the first line that holds it.
    first: [Option<u8>; Field::ALL.len()],
}

#[derive(Clone, Copy, Debug)]
struct Line {
    name: Span,
    value: Span,
    field: Option<Field>,
    /// Of the lower-case name, for `mcp-` names; compares cheaply, decides nothing alone.
    digest: u32,
}

impl Fields {
    pub(super) fn new() -> Self {
        Self { lines: Vec::with_capacity(limits::HEAD_FIELDS_MAX), first: [None; Field::ALL.len()] }
    }

    pub(super) fn len(&self) -> usize {
        self.lines.len()
    }

    /// Adds a line of `buf`; refuses the second one of a field that must be single.
    pub(super) fn push(&mut self, buf: &[u8], name: &[u8], value: &[u8]) -> Result<(), Reject> {
        let field = field_of(name);
        let place = u8::try_from(self.lines.len()).map_err(|_| Reject::RequestHeadTooLarge)?;
        let is_mcp = name.get(..4).is_some_and(|start| start.eq_ignore_ascii_case(b"mcp-"));
        let digest = if is_mcp { fnv1a_lower(name) } else { 0 };
        if let Some(field) = field {
            let first = self.first.get_mut(field as usize).ok_or(Reject::GatewayFault)?;
            match first {
                None => *first = Some(place),
                Some(_) if field.is_single() => return Err(repeated(field)),
                Some(_) => {}
            }
        } else if is_mcp && self.holds(buf, name, digest) {
            // MCP streamable HTTP: a mirrored parameter (`Mcp-Param-*`) has one value.
            return Err(Reject::RequestMalformed);
        }
        let line = Line { name: within(buf, name), value: within(buf, trim(value)), field, digest };
        self.lines.push(line);
        Ok(())
    }

    fn holds(&self, buf: &[u8], name: &[u8], digest: u32) -> bool {
        self.lines
            .iter()
            .any(|line| line.digest == digest && line.name.of(buf).eq_ignore_ascii_case(name))
    }

    /// The value of the first line with this name.
    pub(super) fn get<'b>(&self, buf: &'b [u8], field: Field) -> Option<&'b [u8]> {
        let place = self.first.get(field as usize).copied().flatten()?;
        self.lines.get(usize::from(place)).map(|line| line.value.of(buf))
    }

    /// The values of all lines with this name.
    pub(super) fn values<'a>(
        &'a self,
        buf: &'a [u8],
        field: Field,
    ) -> impl Iterator<Item = &'a [u8]> {
        let from = self.first.get(field as usize).copied().flatten();
        let lines = from.and_then(|place| self.lines.get(usize::from(place)..)).unwrap_or_default();
        lines.iter().filter(move |line| line.field == Some(field)).map(|line| line.value.of(buf))
    }

    /// All lines.
    pub(super) fn iter<'a>(&'a self, buf: &'a [u8]) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        self.lines.iter().map(|line| (line.name.of(buf), line.value.of(buf)))
    }

    /// True when `Connection` lists `option` (RFC 9110 §7.6.1).
    pub(super) fn connection_lists(&self, buf: &[u8], option: &[u8]) -> bool {
        self.values(buf, Field::Connection).flat_map(list).any(|it| it.eq_ignore_ascii_case(option))
    }

    /// The length that the fields declare; `None` when they declare none.
    pub(super) fn framing(&self, buf: &[u8], is_1_0: bool) -> Result<Option<Framing>, Reject> {
        let length = self.get(buf, Field::ContentLength);
        let Some(coding) = self.get(buf, Field::TransferEncoding) else {
            // RFC 9110 §8.6. A list of equal lengths may be accepted there; here it is not.
            return length
                .map(|value| decimal(value).map(Framing::Length).ok_or(Reject::RequestFraming))
                .transpose();
        };
        // RFC 9112 §6.1: both at once is how requests are smuggled; the server may refuse it.
        if length.is_some() {
            return Err(Reject::RequestClTe);
        }
        // RFC 9112 §6.1: HTTP/1.0 has no transfer codings, so a hop before us may have read on.
        if is_1_0 {
            return Err(Reject::RequestFraming);
        }
        transfer_coding(coding).map(Some)
    }
}

/// RFC 9112 §6.3: `chunked` is last and applied once. Other codings are not implemented (§6.1:
/// 501).
fn transfer_coding(value: &[u8]) -> Result<Framing, Reject> {
    if value.eq_ignore_ascii_case(b"chunked") {
        return Ok(Framing::Chunked);
    }
    let is_chunked = |coding: &[u8]| coding.eq_ignore_ascii_case(b"chunked");
    let last_is_chunked = list(value).last().is_some_and(is_chunked);
    let chunked = list(value).filter(|coding| is_chunked(coding)).count();
    let has_empty = list(value).any(<[u8]>::is_empty);
    if has_empty || chunked > 1 || (chunked == 1 && !last_is_chunked) {
        return Err(Reject::RequestFraming);
    }
    Err(Reject::RequestTransferCoding)
}

/// RFC 9110 §5.3: only list fields may be repeated.
fn repeated(field: Field) -> Reject {
    if field == Field::Host {
        return Reject::RequestHost; // RFC 9112 §3.2
    }
    if field == Field::ContentLength || field == Field::TransferEncoding {
        return Reject::RequestFraming; // RFC 9112 §6.3
    }
    Reject::RequestMalformed
}

/// FNV-1a over lower case. An attacker can make collisions; they only cost a comparison.
fn fnv1a_lower(name: &[u8]) -> u32 {
    name.iter().fold(FNV_OFFSET, |digest, byte| {
        (digest ^ u32::from(byte.to_ascii_lowercase())).wrapping_mul(FNV_PRIME)
    })
}

const FNV_OFFSET: u32 = 0x811c_9dc5;
const FNV_PRIME: u32 = 0x0100_0193;

fn field_of(name: &[u8]) -> Option<Field> {
    Field::ALL.into_iter().find(|field| field.name().as_bytes().eq_ignore_ascii_case(name))
}

fn method_of(token: &str) -> Method {
    use Method::{Connect, Delete, Get, Head, Options, Post};
    let known = [Connect, Delete, Get, Head, Options, Post];
    known.into_iter().find(|method| method.as_str() == token).unwrap_or(Method::Other)
}

/// Where `part`, a slice of `whole`, lies in it. Heads are bounded far below 4 GiB; anything
/// else becomes the empty span.
fn within(whole: &[u8], part: &[u8]) -> Span {
    let start = (part.as_ptr() as usize).wrapping_sub(whole.as_ptr() as usize);
    let end = start.wrapping_add(part.len());
    if start > end || end > whole.len() {
        return Span::default();
    }
    match (u32::try_from(start), u32::try_from(end)) {
        (Ok(start), Ok(end)) => Span { start, end },
        (Ok(_) | Err(_), _) => Span::default(),
    }
}
