//! Requests as bytes, made once: per request only the token and the id are written into place.

use std::path::Path;

use memchr::memmem;

use crate::args::{RunArgs, ToolMethod};
use crate::fault::{Doing, Fault};

/// What the answer to a tool's call is like, read from the tool's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tool {
    /// `answer_N`: an answer of N bytes.
    Answer(usize),
    /// `slow_MS`: a short answer after so many milliseconds.
    Slow(u64),
    /// `sse_COUNT_GAPUS`: so many events, one each so many microseconds, then a short answer.
    Stream { count: u64, gap_us: u64 },
}

impl Tool {
    pub(crate) fn parse(name: &str) -> Option<Self> {
        if let Some(size) = name.strip_prefix("answer_") {
            let size = size.parse().ok().filter(|size| *size <= ANSWER_BYTES_MAX)?;
            return (size >= ANSWER_BYTES_MIN).then_some(Self::Answer(size));
        }
        if let Some(delay) = name.strip_prefix("slow_") {
            return delay.parse().ok().filter(|delay| *delay <= DELAY_MS_MAX).map(Self::Slow);
        }
        let (count, gap) = name.strip_prefix("sse_")?.split_once('_')?;
        let (count, gap_us) = (count.parse().ok()?, gap.parse().ok()?);
        let bounded = (1..=EVENTS_MAX).contains(&count) && gap_us <= DELAY_MS_MAX * 1000;
        bounded.then_some(Self::Stream { count, gap_us })
    }

    /// Bytes of the JSON message that answers.
    pub(crate) fn answer_bytes(self) -> usize {
        match self {
            Self::Answer(size) => size,
            Self::Slow(_) | Self::Stream { .. } => SHORT_ANSWER_BYTES,
        }
    }
}

/// One kind of request, with the token and the id to be written in.
#[derive(Debug)]
pub(crate) struct Request {
    bytes: Vec<u8>,
    token_start: usize,
    token_end: usize,
}

impl Request {
    /// `token`: room for one is left exactly when there are tokens to be sent.
    pub(crate) fn new(args: &RunArgs, tool: &str, with_token: bool) -> Result<Self, Fault> {
        let body = match args.method {
            ToolMethod::Call => call_body(tool, args.body_bytes)?,
            ToolMethod::List => list_body(),
        };
        let mut head = format!("POST {} HTTP/1.1\r\nHost: {}\r\n", args.path, args.host);
        head.push_str("User-Agent: mcp-client/2.4.0\r\n");
        head.push_str("Accept: application/json, text/event-stream\r\n");
        head.push_str("Content-Type: application/json\r\n");
        let older = |(name, _): &(String, String)| name.eq_ignore_ascii_case(VERSION);
        if !args.header.iter().any(older) {
            head.push_str(&format!("{VERSION}: 2026-07-28\r\n"));
        }
        match args.method {
            ToolMethod::Call => {
                head.push_str(&format!("Mcp-Method: tools/call\r\nMcp-Name: {tool}\r\n"));
            }
            ToolMethod::List => head.push_str("Mcp-Method: tools/list\r\n"),
        }
        head.push_str("Traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n");
        for (name, value) in &args.header {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        if with_token {
            head.push_str("Authorization: Bearer ");
        }
        let token_at = head.len();
        let end = if with_token { "\r\n\r\n" } else { "\r\n" };
        let bytes = [head.as_bytes(), end.as_bytes(), body.as_bytes()].concat();
        Ok(Self { bytes, token_start: token_at, token_end: token_at })
    }

    /// The whole request with this token and id.
    pub(crate) fn with(&mut self, token: &[u8], id: u64) -> &[u8] {
        // Tokens of a set have one or two lengths, so that most of the time only the token itself
        // is copied.
        if token.len() == self.token_end - self.token_start {
            if let Some(place) = self.bytes.get_mut(self.token_start..self.token_end) {
                place.copy_from_slice(token);
            }
        } else {
            let place = self.token_start..self.token_end;
            self.bytes.splice(place, token.iter().copied());
            self.token_end = self.token_start + token.len();
        }
        // The body ends with `"id":0000000000}`.
        let end = self.bytes.len() - 1;
        if let Some(place) = self.bytes.get_mut(end - ID_DIGITS..end) {
            write_digits(place, id);
        }
        &self.bytes
    }
}

/// The tokens to be sent in turn, one after the other in memory.
#[derive(Debug, Default)]
pub(crate) struct Tokens {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    next: usize,
    /// Taken since the start, each turn counted.
    taken: u64,
}

impl Tokens {
    /// Reads a file with one token per line.
    pub(crate) fn read(path: &Path) -> Result<Self, Fault> {
        let place = path.display();
        let text = std::fs::read(path).doing(&format!("{place}: tokens cannot be read"))?;
        let mut tokens = Self::default();
        for line in text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii) {
            if line.is_empty() {
                continue;
            }
            if !line.iter().all(u8::is_ascii_graphic) {
                return Err(Fault::new(format!("{place}: one token per line, without spaces")));
            }
            tokens.bytes.extend_from_slice(line);
            tokens.ends.push(tokens.bytes.len());
        }
        if tokens.ends.is_empty() {
            return Err(Fault::new(format!("{place}: no token in it; make some: load tokens")));
        }
        Ok(tokens)
    }

    /// Begins with this one; beyond the last it begins anew.
    pub(crate) fn begin_at(&mut self, first: usize) {
        self.next = first.checked_rem(self.ends.len()).unwrap_or(0);
    }

    /// Which one is next.
    pub(crate) fn at(&self) -> usize {
        self.next
    }

    /// How many turns were taken.
    pub(crate) fn taken(&self) -> u64 {
        self.taken
    }

    /// How many different ones so many turns in a row hold.
    pub(crate) fn distinct(&self, turns: u64) -> u64 {
        turns.min(self.ends.len() as u64)
    }

    /// The next in turn; empty when there are none.
    pub(crate) fn next(&mut self) -> &[u8] {
        let Some(end) = self.ends.get(self.next).copied() else { return &[] };
        let before = self.next.checked_sub(1).and_then(|before| self.ends.get(before));
        let start = before.copied().unwrap_or(0);
        self.taken += 1;
        self.next = if self.next + 1 == self.ends.len() { 0 } else { self.next + 1 };
        self.bytes.get(start..end).unwrap_or_default()
    }
}

/// The bytes from the value of the first member of this name on, wherever it is; `key` holds its
/// quotes.
pub(crate) fn value_of<'b>(json: &'b [u8], key: &[u8]) -> Option<&'b [u8]> {
    let mut rest = json;
    loop {
        let at = memmem::find(rest, key)?;
        rest = rest.get(at + key.len()..)?;
        if let Some(value) = rest.trim_ascii_start().strip_prefix(b":") {
            return Some(value.trim_ascii_start());
        }
    }
}

/// Writes a number over the whole of `place`, with zeros in front.
pub(crate) fn write_digits(place: &mut [u8], mut number: u64) {
    for digit in place.iter_mut().rev() {
        *digit = b'0' + u8::try_from(number % 10).unwrap_or(0);
        number /= 10;
    }
}

fn call_body(tool: &str, size: usize) -> Result<String, Fault> {
    let start = format!(
        "{{\"method\":\"tools/call\",\"params\":{{\"name\":\"{tool}\",\"arguments\":{{\"query\":\""
    );
    let end = format!("\"}},{META}}},{TAIL}");
    let Some(fill) = size.checked_sub(start.len() + end.len()) else {
        return Err(Fault::new(format!(
            "--body-bytes {size}: a call of {tool} has at least {} bytes",
            start.len() + end.len()
        )));
    };
    Ok(start + &"q".repeat(fill) + &end)
}

fn list_body() -> String {
    format!("{{\"method\":\"tools/list\",\"params\":{{{META}}},{TAIL}")
}

/// A peer of an older era gets its own by `--header`.
const VERSION: &str = "Mcp-Protocol-Version";
const META: &str = "\"_meta\":{\"io.modelcontextprotocol/protocolVersion\":\"2026-07-28\",\
    \"io.modelcontextprotocol/clientCapabilities\":{}}";
const TAIL: &str = "\"jsonrpc\":\"2.0\",\"id\":0000000000}";

pub(crate) const ID_DIGITS: usize = 10;
/// Ids have ten digits, none of them a leading zero, so that their width never changes.
pub(crate) const ID_FIRST: u64 = 1_000_000_000;
pub(crate) const ID_LAST: u64 = 9_999_999_999;
/// Bytes of the answer of tools that are not about size.
pub(crate) const SHORT_ANSWER_BYTES: usize = 300;
const ANSWER_BYTES_MIN: usize = 200;
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;
const DELAY_MS_MAX: u64 = 60_000;
const EVENTS_MAX: u64 = 1_000_000;

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Command, Load};

    fn args(extra: &[&str]) -> RunArgs {
        let fixed =
            ["load", "run", "--target", "127.0.0.1:1", "--connections", "1", "--seconds", "1"];
        let load = Load::try_parse_from(fixed.iter().chain(extra)).unwrap();
        let Command::Run(args) = load.command else { panic!("not a run") };
        args
    }

    #[test]
    fn the_body_has_the_size_asked_for_and_its_id_in_place() {
        for size in [300, 16_384] {
            let args = args(&["--body-bytes", &size.to_string()]);
            let mut request = Request::new(&args, "answer_300", false).unwrap();
            let bytes = request.with(b"", 1_234_567_890).to_vec();
            let text = String::from_utf8(bytes).unwrap();
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            assert_eq!(body.len(), size);
            assert!(head.contains(&format!("\r\nContent-Length: {size}")));
            assert!(!head.contains("Authorization"));
            let json: serde_json::Value = serde_json::from_str(body).unwrap();
            assert_eq!(json["id"], 1_234_567_890);
            assert_eq!(json["params"]["name"], "answer_300");
        }
        assert!(Request::new(&args(&["--body-bytes", "100"]), "answer_300", false).is_err());
    }

    #[test]
    fn tokens_of_any_length_take_their_turn() {
        let mut request = Request::new(&args(&["--method", "tools/list"]), "", true).unwrap();
        for (token, id) in
            [("abc", ID_FIRST), ("xyz", ID_LAST), ("longer", 5_000_000_000), ("s", ID_FIRST)]
        {
            let text = String::from_utf8(request.with(token.as_bytes(), id).to_vec()).unwrap();
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            assert!(head.ends_with(&format!("\r\nAuthorization: Bearer {token}")), "{head}");
            assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())));
            let json: serde_json::Value = serde_json::from_str(body).unwrap();
            assert_eq!(json["id"], id);
        }
    }

    #[test]
    fn tokens_go_on_where_they_are_told_to() {
        let mut tokens =
            Tokens { bytes: b"abc".to_vec(), ends: vec![1, 2, 3], ..Tokens::default() };
        tokens.begin_at(5);
        assert_eq!(tokens.next(), b"c");
        assert_eq!(tokens.next(), b"a");
        assert_eq!((tokens.at(), tokens.taken()), (1, 2));
        assert_eq!((tokens.distinct(2), tokens.distinct(7)), (2, 3));
        Tokens::default().begin_at(1);
    }

    #[test]
    fn names_of_tools_say_what_they_do() {
        assert_eq!(Tool::parse("answer_300"), Some(Tool::Answer(300)));
        assert_eq!(Tool::parse("slow_50"), Some(Tool::Slow(50)));
        let stream = Some(Tool::Stream { count: 10, gap_us: 1000 });
        assert_eq!(Tool::parse("sse_10_1000"), stream);
        for name in
            ["answer_", "answer_10", "answer_999999999", "sse_1", "sse_0_1", "slow_x", "other"]
        {
            assert_eq!(Tool::parse(name), None, "{name}");
        }
    }

    #[test]
    fn a_member_is_found_by_its_name_and_not_by_a_value() {
        assert_eq!(value_of(br#"{"a":"id", "id" : 7}"#, b"\"id\""), Some(&b"7}"[..]));
        assert_eq!(value_of(br#"{"a":"id"}"#, b"\"id\""), None);
    }
}
