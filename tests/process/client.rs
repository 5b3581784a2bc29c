//! An agent made by hand: it can say anything, read slowly and leave at any time.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::{Value, json};

use crate::wait::DEADLINE;

/// Where requests go and as whom.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) address: SocketAddr,
    pub(crate) token: String,
    /// Path of the server.
    pub(crate) path: String,
    /// More header lines, each with its end.
    pub(crate) extra: String,
}

/// A whole answer.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    /// The refusal's reason word, in either of the two forms of a body.
    pub(crate) fn reason(&self) -> String {
        let body = self.json();
        let kind = body.pointer("/error/data/kind").or_else(|| body.get("error"));
        kind.and_then(Value::as_str).unwrap_or_default().to_owned()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        header(&self.head, name)
    }
}

pub(crate) fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

impl Client {
    pub(crate) fn new(address: SocketAddr, token: &str) -> Self {
        let (path, extra) = ("/mcp/sample".to_owned(), String::new());
        Self { address, token: token.to_owned(), path, extra }
    }

    pub(crate) fn path(&self, path: &str) -> Self {
        Self { path: path.to_owned(), ..self.clone() }
    }

    pub(crate) fn extra(&self, lines: &str) -> Self {
        Self { extra: lines.to_owned(), ..self.clone() }
    }

    /// Head and body of a POST of the legacy era.
    pub(crate) fn legacy(&self, method: &str, params: &Value) -> String {
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        self.post_text("mcp-protocol-version: 2025-11-25\r\n", &body.to_string())
    }

    /// Head and body of a POST of the modern era.
    pub(crate) fn modern(&self, method: &str, params: &Value) -> String {
        let mut params = params.clone();
        params["_meta"] = json!({
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": {},
        });
        let mut fields = format!("mcp-protocol-version: 2026-07-28\r\nmcp-method: {method}\r\n");
        if let Some(name) = params.get("name").and_then(Value::as_str) {
            fields.push_str(&format!("mcp-name: {name}\r\n"));
        }
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        self.post_text(&fields, &body.to_string())
    }

    pub(crate) fn post_text(&self, fields: &str, body: &str) -> String {
        format!(
            "{}content-type: application/json\r\ncontent-length: {}\r\n{fields}\r\n{body}",
            self.head("POST"),
            body.len(),
        )
    }

    /// The beginning of a head: what every request has.
    pub(crate) fn head(&self, method: &str) -> String {
        let Self { address, token, path, extra } = self;
        format!(
            "{method} {path} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\n\
             accept: application/json, text/event-stream\r\n{extra}"
        )
    }

    /// A modern tool call.
    pub(crate) fn call(&self, tool: &str) -> String {
        self.modern("tools/call", &json!({"name": tool, "arguments": {}}))
    }

    /// A legacy tool call.
    pub(crate) fn legacy_call(&self, tool: &str) -> String {
        self.legacy("tools/call", &json!({"name": tool, "arguments": {}}))
    }

    pub(crate) fn list(&self) -> String {
        self.modern("tools/list", &json!({}))
    }

    /// Where it sends its requests.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Opens a connection.
    pub(crate) fn open(&self) -> Wire<TcpStream> {
        Wire::open(self.address)
    }

    /// One request on a connection of its own.
    pub(crate) fn once(&self, request: &str) -> Answer {
        let mut wire = self.open();
        wire.send(request);
        wire.answer()
    }
}

/// One GET without a token.
pub(crate) fn get(address: SocketAddr, path: &str) -> Answer {
    let mut wire = Wire::open(address);
    wire.send(&format!("GET {path} HTTP/1.1\r\nhost: {address}\r\n\r\n"));
    wire.answer()
}

/// A connection and what was read ahead on it.
pub(crate) struct Wire<S> {
    pub(crate) stream: S,
    ahead: Vec<u8>,
}

impl Wire<TcpStream> {
    pub(crate) fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_write_timeout(Some(DEADLINE)).unwrap();
        Self::new(stream)
    }
}

impl<S: Read + Write> Wire<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, ahead: Vec::new() }
    }

    pub(crate) fn send(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).unwrap();
        self.stream.flush().unwrap();
    }

    /// A head, without its last empty line. Panics when the connection ends before one is there.
    pub(crate) fn read_head(&mut self) -> String {
        self.try_head().expect("an answer, not the end of the connection")
    }

    /// A head, or `None` when the connection ends before its first byte.
    pub(crate) fn try_head(&mut self) -> Option<String> {
        loop {
            if let Some(end) = find(&self.ahead, b"\r\n\r\n") {
                let head: Vec<u8> = self.ahead.drain(..end + 4).collect();
                return Some(String::from_utf8(head).unwrap().trim_end().to_owned());
            }
            if !self.fill() {
                assert!(self.ahead.is_empty(), "cut within a head: {:?}", self.ahead);
                return None;
            }
        }
    }

    /// The next chunk of a chunked body; empty at its clean end, `None` when it is cut.
    pub(crate) fn chunk(&mut self) -> Option<Vec<u8>> {
        let line = loop {
            if let Some(end) = find(&self.ahead, b"\r\n") {
                let line: Vec<u8> = self.ahead.drain(..end + 2).collect();
                break String::from_utf8(line).unwrap();
            }
            if !self.fill() {
                return None;
            }
        };
        let size = usize::from_str_radix(line.trim(), 16).unwrap();
        let mut data = self.exactly(size + 2)?;
        data.truncate(size);
        Some(data)
    }

    /// Exactly `count` bytes, or `None` when the connection ends before.
    pub(crate) fn exactly(&mut self, count: usize) -> Option<Vec<u8>> {
        while self.ahead.len() < count {
            if !self.fill() {
                return None;
            }
        }
        Some(self.ahead.drain(..count).collect())
    }

    /// The body that `head` announces; `None` when it is cut.
    pub(crate) fn body(&mut self, head: &str) -> Option<Vec<u8>> {
        if let Some(length) = header(head, "content-length") {
            return self.exactly(length.parse().unwrap());
        }
        if header(head, "transfer-encoding").is_none() {
            if status(head) != 204 {
                while self.fill() {}
            }
            return Some(std::mem::take(&mut self.ahead));
        }
        let mut body = Vec::new();
        loop {
            let chunk = self.chunk()?;
            if chunk.is_empty() {
                return Some(body);
            }
            body.extend(chunk);
        }
    }

    /// One whole answer.
    pub(crate) fn answer(&mut self) -> Answer {
        let head = self.read_head();
        let body = self.body(&head).expect("a whole body");
        Answer { status: status(&head), head, body }
    }

    /// True when the other side ends the connection and says nothing more.
    pub(crate) fn ended(&mut self) -> bool {
        self.ahead.is_empty() && !self.fill()
    }

    /// Reads once; false at the end of the connection, orderly or not.
    fn fill(&mut self) -> bool {
        let mut buffer = [0; 16 * 1024];
        match self.stream.read(&mut buffer) {
            Ok(0) => false,
            Ok(count) => {
                self.ahead.extend_from_slice(&buffer[..count]);
                true
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => true,
            Err(error) => {
                let late = [ErrorKind::WouldBlock, ErrorKind::TimedOut].contains(&error.kind());
                assert!(!late, "nothing was said in time");
                false
            }
        }
    }
}

pub(crate) fn status(head: &str) -> u16 {
    head.split(' ').nth(1).unwrap().parse().unwrap()
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}
