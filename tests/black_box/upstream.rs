//! An MCP server that keeps every byte it hears and answers by script, also what no honest one
//! would.
//!
//! The script is named by the agent in `Mcp-Param-Script`, a field that the gateway passes on.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use super::client::{find, text};

/// Everything that was heard.
#[derive(Default)]
pub(crate) struct Log {
    pub(crate) connections: usize,
    pub(crate) bytes: Vec<u8>,
    pub(crate) requests: Vec<Seen>,
    /// Ends of connections that the gateway closed, by connection.
    pub(crate) closed: Vec<usize>,
}

/// One request as it arrived.
#[derive(Clone)]
pub(crate) struct Seen {
    pub(crate) connection: usize,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

#[derive(Clone)]
pub(crate) struct Upstream {
    pub(crate) port: u16,
    log: Arc<Mutex<Log>>,
    said: Arc<Mutex<Said>>,
}

/// What the script "said" answers.
#[derive(Default)]
struct Said {
    bytes: Vec<u8>,
    /// The connection ends behind it.
    closes: bool,
    /// Bytes of one segment; 0 for all of it in one write.
    piece: usize,
}

/// What follows the scripted bytes.
pub(crate) enum After {
    /// The connection stays open for the next request.
    Keep,
    /// An orderly end.
    Close,
    /// Nothing more; the gateway must end it.
    Hold,
    /// The rest of the request is not read; the gateway must give up.
    Deaf,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

impl Upstream {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let log = Arc::new(Mutex::new(Log::default()));
        let said = Arc::<Mutex<Said>>::default();
        let upstream = Self { port, log: Arc::clone(&log), said: Arc::clone(&said) };
        std::thread::spawn(move || {
            for socket in listener.incoming().map_while(Result::ok) {
                let number = {
                    let mut log = log.lock().unwrap();
                    log.connections += 1;
                    log.connections
                };
                let (log, said) = (Arc::clone(&log), Arc::clone(&said));
                std::thread::spawn(move || serve(socket, number, &log, &said));
            }
        });
        upstream
    }

    /// From here on the script "said" answers `bytes`, in segments of `piece` bytes (0: at once).
    pub(crate) fn say(&self, bytes: Vec<u8>, closes: bool, piece: usize) {
        *self.said.lock().unwrap() = Said { bytes, closes, piece };
    }

    pub(crate) fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap()
    }

    /// Connections and bytes so far: what must not grow while something is refused.
    pub(crate) fn heard(&self) -> (usize, usize) {
        let log = self.log();
        (log.connections, log.bytes.len())
    }

    pub(crate) fn last(&self) -> Seen {
        self.log().requests.last().cloned().expect("a request arrived")
    }
}

fn serve(mut socket: TcpStream, connection: usize, log: &Mutex<Log>, said: &Mutex<Said>) {
    socket.set_nodelay(true).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut input = Vec::new();
    while let Some(seen) = read(&mut socket, connection, &mut input, log) {
        let script = seen.header("mcp-param-script").unwrap_or("plain").to_owned();
        log.lock().unwrap().requests.push(seen.clone());
        let (bytes, after, piece) = if script == "said" {
            let said = said.lock().unwrap();
            let after = if said.closes { After::Close } else { After::Keep };
            (said.bytes.clone(), after, said.piece)
        } else {
            let (bytes, after) = super::answers::scripted(&script, &seen);
            (bytes, after, 0)
        };
        let piece = if piece == 0 { bytes.len().max(1) } else { piece };
        if !bytes.chunks(piece).all(|piece| socket.write_all(piece).is_ok()) {
            break;
        }
        match after {
            After::Keep => {}
            After::Close => break,
            After::Deaf => {
                std::thread::park_timeout(DEAF_FOR);
                break;
            }
            After::Hold => {
                let _ = fill(&mut socket, &mut input, log);
                break;
            }
        }
    }
    log.lock().unwrap().closed.push(connection);
}

fn read(
    socket: &mut TcpStream,
    connection: usize,
    input: &mut Vec<u8>,
    log: &Mutex<Log>,
) -> Option<Seen> {
    let end = loop {
        if let Some(at) = find(input, b"\r\n\r\n") {
            break at + 4;
        }
        if input.first() == Some(&0x16) {
            // A TLS handshake: this server speaks none.
            let _ = socket.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
            return None;
        }
        if !fill(socket, input, log) {
            return None;
        }
    };
    let mut seen = Seen { connection, head: text(&input[..end]), body: Vec::new() };
    if seen.header("mcp-param-script") == Some("early") {
        input.clear();
        return Some(seen);
    }
    let length = seen.header("content-length").map_or(0, |length| length.parse().unwrap());
    while input.len() < end + length {
        if !fill(socket, input, log) {
            return None;
        }
    }
    seen.body = input[end..end + length].to_vec();
    input.drain(..end + length);
    Some(seen)
}

fn fill(socket: &mut TcpStream, input: &mut Vec<u8>, log: &Mutex<Log>) -> bool {
    let mut buffer = [0; 64 * 1024];
    match socket.read(&mut buffer) {
        Ok(read @ 1..) => {
            input.extend_from_slice(&buffer[..read]);
            log.lock().unwrap().bytes.extend_from_slice(&buffer[..read]);
            true
        }
        Ok(0) | Err(_) => false,
    }
}

/// Longer than the gateway waits for an impatient server.
const DEAF_FOR: Duration = Duration::from_secs(4);
