//! An agent of raw bytes: what it sends is exactly what the test wrote, whole or byte by byte.

use std::cell::Cell;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;
use socket2::{Domain, Socket, Type};

thread_local! {
    /// Where connections of this test come from, see [`super::gateway::Turn`].
    static SOURCE: Cell<Ipv4Addr> = const { Cell::new(Ipv4Addr::LOCALHOST) };
}

pub(crate) fn come_from(source: Ipv4Addr) {
    SOURCE.set(source);
}

pub(crate) fn connect(address: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let source = SOURCE.get();
    if source != Ipv4Addr::LOCALHOST {
        socket.bind(&SocketAddr::from((source, 0)).into()).unwrap();
    }
    socket.connect(&address.into()).expect("the gateway accepts");
    socket.into()
}

/// How a request travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// In one write.
    Whole,
    /// Every byte in a segment of its own; large requests in pieces.
    Dripped,
}

pub(crate) struct Client {
    socket: TcpStream,
    input: Vec<u8>,
    /// The next answer is to HEAD.
    bodyless: bool,
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
    /// The body ended as its framing says.
    pub(crate) complete: bool,
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let socket = connect(address);
        socket.set_nodelay(true).unwrap();
        socket.set_read_timeout(Some(ANSWER_WITHIN)).unwrap();
        socket.set_write_timeout(Some(ANSWER_WITHIN)).unwrap();
        Self { socket, input: Vec::new(), bodyless: false }
    }

    /// Sends as far as the peer lets us: it may have refused and closed already.
    pub(crate) fn send(&mut self, bytes: &[u8], way: Way) {
        let piece = match way {
            Way::Whole => bytes.len(),
            Way::Dripped if bytes.len() <= DRIP_BYTES_MAX => 1,
            Way::Dripped => DRIP_PIECE_BYTES,
        };
        for piece in bytes.chunks(piece.max(1)) {
            if self.socket.write_all(piece).is_err() {
                return;
            }
        }
    }

    pub(crate) fn finish_sending(&self) {
        let _ = self.socket.shutdown(Shutdown::Write);
    }

    /// The next answer is to HEAD: whatever its fields say, no content follows it.
    pub(crate) fn expect_no_body(&mut self) {
        self.bodyless = true;
    }

    /// The next answer; `None` when the connection ended before one began.
    pub(crate) fn answer(&mut self) -> Option<Answer> {
        let end = loop {
            if let Some(at) = find(&self.input, b"\r\n\r\n") {
                break at + 4;
            }
            if !self.fill() {
                assert!(self.input.is_empty(), "cut head {:?}", text(&self.input));
                return None;
            }
        };
        let head = text(&self.input[..end]);
        self.input.drain(..end);
        assert!(head.starts_with("HTTP/1.1 "), "this is no answer: {head:?}");
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
        let mut answer = Answer { status, head, body: Vec::new(), complete: true };
        if std::mem::take(&mut self.bodyless) || status == 100 || status == 204 {
            return Some(answer);
        }
        if answer.header("transfer-encoding").is_some() {
            answer.complete = self.chunked(&mut answer.body);
        } else if let Some(length) = answer.header("content-length") {
            let length: usize = length.parse().unwrap();
            while self.input.len() < length && self.fill() {}
            answer.complete = self.input.len() >= length;
            answer.body = self.input.drain(..length.min(self.input.len())).collect();
        } else {
            while self.fill() {}
            answer.body = std::mem::take(&mut self.input);
        }
        Some(answer)
    }

    /// True when the gateway closes and sends nothing more.
    pub(crate) fn ended(&mut self) -> bool {
        !self.fill() && self.input.is_empty()
    }

    /// Whatever comes, until the connection ends.
    pub(crate) fn read_to_the_end(&mut self) {
        while self.fill() {}
    }

    fn chunked(&mut self, body: &mut Vec<u8>) -> bool {
        loop {
            let line = loop {
                match find(&self.input, b"\r\n") {
                    Some(at) => break at,
                    None if self.fill() => {}
                    None => return false,
                }
            };
            let size = usize::from_str_radix(&text(&self.input[..line]), 16).expect("a chunk size");
            let whole = line + 2 + size + 2;
            while self.input.len() < whole {
                if !self.fill() {
                    body.extend_from_slice(self.input.get(line + 2..).unwrap_or_default());
                    return false;
                }
            }
            body.extend_from_slice(&self.input[line + 2..line + 2 + size]);
            self.input.drain(..whole);
            if size == 0 {
                return true;
            }
        }
    }

    /// False at the end of the connection. A silent peer is a failed test.
    fn fill(&mut self) -> bool {
        let mut buffer = [0; 16 * 1024];
        match self.socket.read(&mut buffer) {
            Ok(0) => false,
            Ok(read) => {
                self.input.extend_from_slice(&buffer[..read]);
                true
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => false,
            Err(error) => panic!("no answer: {error}; so far {:?}", text(&self.input)),
        }
    }
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("not JSON: {self:?}"))
    }

    /// The reason word, in whichever of the two forms of a refusal.
    pub(crate) fn reason(&self) -> String {
        let json = self.json();
        let kind = json.get("error").filter(|error| error.is_string());
        let word = kind.or_else(|| json.pointer("/error/data/kind"));
        word.and_then(Value::as_str).unwrap_or_else(|| panic!("no reason: {self:?}")).to_owned()
    }

    pub(crate) fn code(&self) -> Option<i64> {
        self.json().pointer("/error/code").and_then(Value::as_i64)
    }
}

/// One request on a connection of its own.
pub(crate) fn ask(address: SocketAddr, request: &[u8]) -> Answer {
    let mut client = Client::connect(address);
    client.send(request, Way::Whole);
    client.answer().expect("an answer")
}

/// A page of the admin listener: status and body.
pub(crate) fn get(address: SocketAddr, path: &str) -> Answer {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    ask(address, request.as_bytes())
}

pub(crate) fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

const ANSWER_WITHIN: Duration = Duration::from_secs(15);
const DRIP_BYTES_MAX: usize = 4096;
const DRIP_PIECE_BYTES: usize = 1021;
