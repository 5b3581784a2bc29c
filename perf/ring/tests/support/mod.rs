//! A relay under test, an upstream that tells what it received, and a client, all on loopback.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses what it needs")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

/// A relay process; it ends with this value.
pub struct Relay {
    child: Child,
    pub address: SocketAddr,
    pub upstream: Upstream,
}

/// An upstream in threads of this process.
pub struct Upstream {
    pub address: SocketAddr,
    pub connections: Arc<AtomicUsize>,
}

/// A client's connection.
pub struct Client {
    stream: BufReader<TcpStream>,
}

/// An answer, and what the upstream said in it about the request.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Relay {
    pub fn start(program: &str, switches: &[&str]) -> Self {
        Self::start_before(program, switches, Upstream::start())
    }

    pub fn start_before(program: &str, switches: &[&str], upstream: Upstream) -> Self {
        let mut child = Command::new(program)
            .args(["--listen", "127.0.0.1:0", "--upstream", &upstream.address.to_string()])
            .args(switches)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut errors = BufReader::new(child.stderr.take().unwrap());
        errors.read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening on ").expect(&line).parse().unwrap();
        // What it says later must not fill the pipe, and is worth reading when a test fails.
        thread::spawn(move || errors.lines().map_while(Result::ok).for_each(|l| println!("{l}")));
        Self { child, address, upstream }
    }

    pub fn connect(&self) -> Client {
        Client::connect(self.address)
    }

    /// Asks the process to end and waits until it has.
    pub fn terminate(mut self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        self.child.wait().unwrap();
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Upstream {
    pub fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connections);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                counted.fetch_add(1, Ordering::Relaxed);
                thread::spawn(move || serve(stream));
            }
        });
        Self { address, connections }
    }

    /// An address where nobody listens.
    pub fn absent() -> Self {
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
        Self { address, connections: Arc::default() }
    }
}

/// Answers requests: `/fixed/N`, `/chunked/N` and `/close/N` with N bytes, `/hang` not at all.
fn serve(stream: TcpStream) {
    stream.set_nodelay(true).unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut stream = stream;
    while let Some((first, fields)) = read_head(&mut reader) {
        let body = read_body(&mut reader, &fields);
        let path = first.split(' ').nth(1).unwrap().to_owned();
        let (kind, size) = path.trim_start_matches('/').split_once('/').unwrap();
        let answer = pattern(size.parse().unwrap());
        let count = |name: &str| fields.iter().filter(|(field, _)| field == name).count();
        let keys: Vec<&str> = values(&fields, "x-api-key");
        let seen = format!(
            "X-Seen: {} {} {:016x} {}",
            count("authorization"),
            keys.join(","),
            sum(&body),
            body.len()
        );
        let sent = match kind {
            "chunked" => {
                let head =
                    format!("HTTP/1.1 200 OK\r\n{seen}\r\nTransfer-Encoding: chunked\r\n\r\n");
                stream.write_all(head.as_bytes()).and_then(|()| write_chunks(&mut stream, &answer))
            }
            "close" => {
                let head = format!("HTTP/1.1 200 OK\r\n{seen}\r\n\r\n");
                let sent = stream.write_all(&[head.as_bytes(), &answer].concat());
                return sent.unwrap_or_default();
            }
            _ => {
                let length = answer.len();
                let head = format!("HTTP/1.1 200 OK\r\n{seen}\r\nContent-Length: {length}\r\n\r\n");
                stream.write_all(&[head.as_bytes(), &answer].concat())
            }
        };
        if sent.is_err() {
            return;
        }
    }
}

impl Client {
    pub fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        // A test that waits for ever tells nothing.
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(20))).unwrap();
        Self { stream: BufReader::new(stream) }
    }

    pub fn post(&mut self, path: &str, body: &[u8]) {
        self.send(&request(path, body));
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.get_mut().write_all(bytes).unwrap();
    }

    /// Reads an answer; none when the relay closed without one.
    pub fn answer(&mut self) -> Option<Answer> {
        let (first, fields) = read_head(&mut self.stream)?;
        let body = read_body(&mut self.stream, &fields);
        let framed = fields.iter().any(|(name, _)| name != "x-seen");
        let mut answer =
            Answer { status: first.split(' ').nth(1).unwrap().parse().unwrap(), fields, body };
        if !framed {
            self.stream.read_to_end(&mut answer.body).unwrap();
        }
        Some(answer)
    }
}

impl Answer {
    /// The upstream got exactly this body, our credential, and no foreign one.
    pub fn assert_relayed(&self, sent: &[u8], answered: usize) {
        assert_eq!(self.status, 200);
        let seen = format!("0 control-key {:016x} {}", sum(sent), sent.len());
        assert_eq!(values(&self.fields, "x-seen"), [seen]);
        assert!(self.body == pattern(answered), "{} bytes, not {answered}", self.body.len());
    }
}

/// A call with credentials that must not reach the upstream.
pub fn request(path: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer theirs\r\n\
         X-Api-Key: theirs\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// Bytes of which no part looks like another.
pub fn pattern(length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_u32;
    let step = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        b' ' + u8::try_from(state >> 26).unwrap()
    };
    std::iter::repeat_with(step).take(length).collect()
}

fn sum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, &byte| {
        (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

type Fields = Vec<(String, String)>;

fn read_head(reader: &mut impl BufRead) -> Option<(String, Fields)> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        match line.trim_end() {
            "" => break,
            text => lines.push(text.to_owned()),
        }
    }
    let first = lines.remove(0);
    let field = |line: &String| {
        let (name, value) = line.split_once(": ").unwrap();
        (name.to_ascii_lowercase(), value.to_owned())
    };
    Some((first, lines.iter().map(field).collect()))
}

fn read_body(reader: &mut impl BufRead, fields: &Fields) -> Vec<u8> {
    let mut body = Vec::new();
    if let [length] = values(fields, "content-length")[..] {
        body.resize(length.parse().unwrap(), 0);
        reader.read_exact(&mut body).unwrap();
    }
    while !values(fields, "transfer-encoding").is_empty() {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let size = usize::from_str_radix(line.trim_end(), 16).unwrap();
        let start = body.len();
        body.resize(start + size, 0);
        reader.read_exact(&mut body[start..]).unwrap();
        reader.read_line(&mut line).unwrap();
        if size == 0 {
            break;
        }
    }
    body
}

/// Chunks of growing size.
pub fn write_chunks(to: &mut impl Write, body: &[u8]) -> std::io::Result<()> {
    let (mut rest, mut size) = (body, 1);
    while !rest.is_empty() {
        let (chunk, behind) = rest.split_at(size.min(rest.len()));
        to.write_all(format!("{:x}\r\n", chunk.len()).as_bytes())?;
        to.write_all(&[chunk, b"\r\n"].concat())?;
        (rest, size) = (behind, size * 3);
    }
    to.write_all(b"0\r\n\r\n")
}

fn values<'a>(fields: &'a Fields, name: &str) -> Vec<&'a str> {
    fields.iter().filter(|(field, _)| field == name).map(|(_, value)| value.as_str()).collect()
}
