//! The smallest HTTP client that can say exactly what it wants to say, on loopback.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// A whole answer.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    /// The body as JSON.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body))
    }
}

/// One request on its own connection; `headers` are whole lines.
pub(crate) fn send(port: u16, request: &str, headers: &[&str], body: &str) -> Answer {
    let mut stream = open(port, request, &[headers, &["Connection: close"]].concat(), body);
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head: {text:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    let body = if chunked { unchunk(body) } else { body.to_owned() };
    Answer { status, head: head.to_owned(), body }
}

/// Sends a request and hands the connection over, so that the caller may leave in the middle of the
/// answer.
pub(crate) fn open(port: u16, request: &str, headers: &[&str], body: &str) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(READ_TIMEOUT)).unwrap();
    let mut head = format!("{request} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n");
    for line in headers {
        head.push_str(line);
        head.push_str("\r\n");
    }
    head.push_str(&format!("Content-Length: {}\r\n\r\n{body}", body.len()));
    stream.write_all(head.as_bytes()).unwrap();
    stream
}

/// Reads on until `mark` has arrived, and returns everything so far.
pub(crate) fn read_until(stream: &mut TcpStream, mark: &str) -> String {
    read_on(stream, mark).unwrap_or_else(|text| panic!("ended before {mark:?}: {text}"))
}

/// As `read_until`; an end before the mark is an `Err` with what there was.
pub(crate) fn read_on(stream: &mut TcpStream, mark: &str) -> Result<String, String> {
    let mut seen = Vec::new();
    let mut piece = [0; 4096];
    // Comments that keep a stream alive must not keep a test alive.
    let end = Instant::now() + READ_TIMEOUT;
    loop {
        let text = String::from_utf8_lossy(&seen).into_owned();
        if text.contains(mark) {
            return Ok(text);
        }
        let left = end.saturating_duration_since(Instant::now());
        assert!(!left.is_zero(), "no {mark:?} in time: {text}");
        stream.set_read_timeout(Some(left)).unwrap();
        match stream.read(&mut piece) {
            Ok(0) => return Err(text),
            Ok(n) => seen.extend_from_slice(&piece[..n]),
            Err(e) => panic!("waiting for {mark:?}: {e}: {text}"),
        }
    }
}

fn unchunk(mut body: &str) -> String {
    let mut whole = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            return whole;
        }
        whole.push_str(&rest[..size]);
        body = &rest[size + 2..];
    }
    panic!("chunked body without its end: {whole}");
}

const READ_TIMEOUT: Duration = Duration::from_secs(60);
