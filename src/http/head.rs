//! The head of a request (RFC 9112 §3, §5, §6).

use super::body::Framing;
use super::fields::Fields;
use super::scan::{Scan, Side};
use super::{Field, Span, host};
use crate::reject::Reject;

/// A request method. Names are case-sensitive (RFC 9110 §9.1): `get` is `Other`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is the method of its name")]
pub enum Method {
    Connect,
    Delete,
    Get,
    Head,
    Options,
    Post,
    /// Any other token.
    Other,
}

impl Method {
    fn from_token(token: &[u8]) -> Self {
        match token {
            b"CONNECT" => Self::Connect,
            b"DELETE" => Self::Delete,
            b"GET" => Self::Get,
            b"HEAD" => Self::Head,
            b"OPTIONS" => Self::Options,
            b"POST" => Self::Post,
            _ => Self::Other,
        }
    }

    /// The name on the wire; empty for `Other`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "CONNECT",
            Self::Delete => "DELETE",
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Options => "OPTIONS",
            Self::Post => "POST",
            Self::Other => "",
        }
    }
}

/// One request head. Reusable: [`RequestHead::reset`] keeps the memory.
///
/// It holds ranges, not bytes: the getters want the same buffer that `parse` saw, whose first
/// `len` bytes must not have changed since.
#[derive(Debug)]
pub struct RequestHead {
    scan: Scan,
    verdict: Option<Result<usize, Reject>>,
    fields: Fields,
    method: Method,
    target: Span,
    framing: Framing,
    keep_alive: bool,
    expects_continue: bool,
    http_10: bool,
}

impl Default for RequestHead {
    fn default() -> Self {
        Self::new()
    }
}

impl RequestHead {
    /// An empty one; its first field takes room for every field that a head may have.
    #[must_use]
    pub fn new() -> Self {
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

    /// Makes it ready for the next head of the connection.
    pub fn reset(&mut self) {
        self.scan = Scan::new(Side::Request);
        self.verdict = None;
        self.fields.reset();
        self.method = Method::Other;
        self.target = Span::default();
        self.framing = Framing::None;
        self.keep_alive = false;
        self.expects_continue = false;
        self.http_10 = false;
    }

    /// The same, and gives the memory back: no next head is near.
    pub fn release(&mut self) {
        self.reset();
        self.fields.release();
    }

    /// Judges what has arrived. `buf` begins with the head and grows from call to call; nothing is
    /// read twice. `Ok(None)`: more bytes are needed. `Ok(Some(len))`: the head is `buf[..len]`, an
    /// empty line before it included.
    ///
    /// # Errors
    /// At the first byte that cannot be right, and the same again on every later call; the
    /// connection must be closed, since nobody knows where the next request would begin.
    /// `RequestMalformed`,
    /// `RequestVersion`, `RequestTargetTooLong`, `RequestHeadTooLarge`, `RequestHost`,
    /// `RequestClTe`,
    /// `RequestFraming`, `RequestTransferCoding`, `RequestExpectation`.
    pub fn parse(&mut self, buf: &[u8]) -> Result<Option<usize>, Reject> {
        if let Some(verdict) = self.verdict {
            return verdict.map(Some);
        }
        let verdict = match self.scan.advance(buf, &mut self.fields) {
            Ok(None) => return Ok(None),
            Ok(Some(end)) => self.judge(buf).map(|()| end),
            Err(reject) => {
                self.fields.reset();
                Err(reject)
            }
        };
        if verdict.is_err() {
            self.keep_alive = false;
        }
        self.verdict = Some(verdict);
        verdict.map(Some)
    }

    /// True for HTTP/1.0, whose clients know no chunked coding (RFC 9112 §6.1).
    #[must_use]
    pub const fn is_http_10(&self) -> bool {
        self.http_10
    }

    /// The method.
    #[must_use]
    pub fn method(&self) -> Method {
        self.method
    }

    /// The target as sent: origin form (`/path?query`), `*` for OPTIONS, or whatever CONNECT named.
    #[must_use]
    pub fn target<'b>(&self, buf: &'b [u8]) -> &'b [u8] {
        self.target.of(buf)
    }

    /// The value of a known field without surrounding white space. Of a list field that may be
    /// repeated ([`Field::is_single`]) only the first line: judge those with
    /// [`RequestHead::values`].
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

    /// The fields that travel on to an upstream: those of the allow-list, without what `Connection`
    /// takes out (RFC 9110 §7.6.1). What the gateway adds is not among them, so naming such a field
    /// in
    /// `Connection` changes nothing.
    pub fn upstream_fields<'a>(
        &'a self,
        buf: &'a [u8],
    ) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        self.fields.upstream_fields(buf)
    }

    /// Appends the lines of [`RequestHead::upstream_fields`], without those that `withheld` names.
    /// What was read from a head breaks no line, so nothing is looked at a second time.
    pub fn write_upstream_fields(
        &self,
        buf: &[u8],
        withheld: impl Fn(Option<Field>, &[u8]) -> bool,
        out: &mut Vec<u8>,
    ) {
        self.fields.write_upstream(buf, withheld, out);
    }

    /// How long the body is.
    #[must_use]
    pub fn framing(&self) -> Framing {
        self.framing
    }

    /// True when another request may follow: HTTP/1.1, no `Connection: close`, not CONNECT, no
    /// fault.
    #[must_use]
    pub fn keep_alive(&self) -> bool {
        self.keep_alive
    }

    /// True when the client waits for `100 Continue` before it sends the body.
    #[must_use]
    pub fn expects_continue(&self) -> bool {
        self.expects_continue
    }

    fn judge(&mut self, buf: &[u8]) -> Result<(), Reject> {
        if let Err(reject) = self.judge_first_line(buf) {
            self.fields.reset();
            return Err(reject);
        }
        self.fields.fault()?;
        self.http_10 = self.scan.is_1_0();
        self.judge_fields(buf, self.http_10)
    }

    fn judge_first_line(&mut self, buf: &[u8]) -> Result<(), Reject> {
        // RFC 9110 §5.5: a DEL is no part of a value.
        if self.scan.has_delete() {
            return Err(Reject::RequestMalformed);
        }
        let (start, end) = self.scan.method_place();
        self.method = Method::from_token(buf.get(start..end).ok_or(Reject::GatewayFault)?);
        let (start, end) = self.scan.target();
        self.target = Span::new(start, end);
        judge_target(self.method, buf.get(start..end).ok_or(Reject::GatewayFault)?)
    }

    fn judge_fields(&mut self, buf: &[u8], is_1_0: bool) -> Result<(), Reject> {
        self.framing = self.fields.framing(buf, is_1_0)?.unwrap_or(Framing::None);
        // RFC 9112 §3.2: exactly one valid Host, or 400. Asked of HTTP/1.0 as well: the Host list
        // is what stops DNS rebinding, and no client that speaks MCP leaves it out.
        let host = self.fields.get(buf, Field::Host).ok_or(Reject::RequestHost)?;
        if !host::is_host(host) {
            return Err(Reject::RequestHost);
        }
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
    let mut in_path = true;
    let mut has_percent = false;
    for byte in target {
        in_path &= *byte != b'?';
        has_percent |= *byte == b'%';
        // RFC 3986 §3.3: what a path cannot hold, some hop would rewrite (`\` to `/`, `#` to an
        // end). Browsers send more than RFC 3986 §3.4 in a query (WHATWG URL); these three never.
        let is_sound = match byte {
            b'"' | b'#' | b'<' | b'>' => false,
            b'\\' | b'^' | b'`' | b'{' | b'|' | b'}' => !in_path,
            _ => true,
        };
        if !is_sound {
            return Err(Reject::RequestMalformed);
        }
    }
    let path = || target.split(|byte| *byte == b'?').next().unwrap_or_default();
    if has_percent && !percent_is_sound(path()) {
        return Err(Reject::RequestMalformed);
    }
    Ok(())
}

/// RFC 3986 §2.1: a percent sign is followed by two hexadecimal digits.
fn percent_is_sound(path: &[u8]) -> bool {
    let mut parts = path.split(|byte| *byte == b'%');
    let _before_the_first = parts.next();
    parts.all(|part| {
        part.first_chunk::<2>().is_some_and(|pair| pair.iter().all(u8::is_ascii_hexdigit))
    })
}
/// Whether a parameter of a media type names another encoding than UTF-8, which JSON between systems
/// (RFC 8259 §8.1) and event streams (WHATWG HTML §9.2.5) always are.
#[must_use]
pub fn is_other_charset(parameter: &[u8]) -> bool {
    let parameter = parameter.trim_ascii();
    let Some((name, value)) = parameter.split_at_checked(b"charset=".len()) else { return false };
    let value = value.trim_ascii();
    let bare = value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")).unwrap_or(value);
    name.eq_ignore_ascii_case(b"charset=") && !bare.eq_ignore_ascii_case(b"utf-8")
}
