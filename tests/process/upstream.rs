//! An MCP server that does what a test tells it, request by request.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::client::Wire;
use crate::wait::{DEADLINE, eventually};

/// One request as the server saw it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
    /// Number of the request on the server, from 1.
    pub(crate) number: usize,
}

/// The server's side of a connection.
pub(crate) trait Peer: Read + Write + Send {}
impl<T: Read + Write + Send> Peer for T {}

/// What to do with the connection after a request.
pub(crate) enum Then {
    Keep,
    Close,
}

type Handler = dyn Fn(&Seen, &mut dyn Peer) -> Then + Send + Sync;

/// A running server; its threads end with the test process.
#[derive(Clone)]
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    connections: Arc<AtomicUsize>,
    /// Connections whose peer left.
    left: Arc<AtomicUsize>,
}

impl Upstream {
    /// Serves with `handler`.
    pub(crate) fn start(
        handler: impl Fn(&Seen, &mut dyn Peer) -> Then + Send + Sync + 'static,
    ) -> Self {
        Self::start_with(|stream| Some(Box::new(stream)), handler)
    }

    /// Serves with `handler` what `wrap` makes of each connection; `None` closes it.
    pub(crate) fn start_with(
        wrap: impl Fn(TcpStream) -> Option<Box<dyn Peer>> + Send + Sync + 'static,
        handler: impl Fn(&Seen, &mut dyn Peer) -> Then + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let upstream = Self {
            address: listener.local_addr().unwrap(),
            seen: Arc::default(),
            connections: Arc::default(),
            left: Arc::default(),
        };
        let own = upstream.clone();
        let (wrap, handler) =
            (Arc::new(wrap), Arc::<Handler>::from(Box::new(handler) as Box<Handler>));
        thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                stream.set_nodelay(true).unwrap();
                own.connections.fetch_add(1, Ordering::SeqCst);
                let (own, handler, wrap) = (own.clone(), Arc::clone(&handler), Arc::clone(&wrap));
                thread::spawn(move || {
                    if let Some(peer) = wrap(stream) {
                        own.serve(peer, &*handler);
                    }
                });
            }
        });
        upstream
    }

    /// Answers every request with a JSON-RPC result.
    pub(crate) fn echo() -> Self {
        Self::start(|_, peer| json(peer, RESULT))
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub(crate) fn requests(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Connections that ended, from either side.
    pub(crate) fn left(&self) -> usize {
        self.left.load(Ordering::SeqCst)
    }

    pub(crate) fn wait_for_requests(&self, count: usize) {
        eventually("requests at the upstream", || self.requests() >= count);
    }

    fn serve(&self, mut peer: Box<dyn Peer>, handler: &Handler) {
        loop {
            let mut wire = Wire::new(&mut peer);
            let Some(head) = wire.try_head() else { break };
            let length = crate::client::header(&head, "content-length");
            let length = length.map_or(0, |length| length.parse().unwrap());
            let Some(body) = wire.exactly(length) else { break };
            let seen = {
                let mut all = self.seen.lock().unwrap();
                let number = all.len() + 1;
                all.push(Seen { head, body, number });
                all[number - 1].clone()
            };
            if let Then::Close = handler(&seen, &mut peer) {
                break;
            }
        }
        self.left.fetch_add(1, Ordering::SeqCst);
    }
}

/// An answer with a JSON body.
pub(crate) fn json(peer: &mut dyn Peer, body: &str) -> Then {
    say(
        peer,
        &format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        ),
    )
}

/// An answer with a status alone.
pub(crate) fn status(peer: &mut dyn Peer, status: &str, fields: &str) -> Then {
    say(peer, &format!("HTTP/1.1 {status}\r\n{fields}content-length: 0\r\n\r\n"))
}

/// Writes, and gives up the connection when the other side left.
pub(crate) fn say(peer: &mut dyn Peer, text: &str) -> Then {
    match peer.write_all(text.as_bytes()).and_then(|()| peer.flush()) {
        Ok(()) => Then::Keep,
        Err(_) => Then::Close,
    }
}

pub(crate) fn chunk(text: &str) -> String {
    format!("{:x}\r\n{text}\r\n", text.len())
}

/// The head of an event stream.
pub(crate) const EVENTS: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
pub(crate) const RESULT: &str = r#"{"jsonrpc":"2.0","id":1,"result":{"content":[]}}"#;

/// Something the test tells the server to go on.
pub(crate) struct Gate(Mutex<std::sync::mpsc::Receiver<()>>);

impl Gate {
    pub(crate) fn new() -> (std::sync::mpsc::Sender<()>, Self) {
        let (open, wait) = std::sync::mpsc::channel();
        (open, Self(Mutex::new(wait)))
    }

    /// Waits for one push; false when there will be none.
    pub(crate) fn pass(&self) -> bool {
        self.0.lock().unwrap().recv_timeout(DEADLINE).is_ok()
    }
}
