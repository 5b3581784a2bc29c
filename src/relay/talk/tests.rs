//! Talks with a peer of raw bytes, over real sockets.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use super::*;
use crate::config::{Server, UpstreamUrl};
use crate::control::Upstream;
use crate::limits::{Limits, TALK_JSON_BYTES_MAX};
use crate::net::Timers;
use crate::net::tests::{after, loopback, on_every_driver, soon};

/// A peer that answers one request on each connection with each of `says`, in pieces of `piece`
/// bytes; between two of them it waits for a word. Tells when the other side closes.
fn peer(listener: TcpListener, says: Vec<Vec<u8>>, piece: usize, go: Receiver<()>) -> Receiver<()> {
    let (closed, tells) = channel();
    std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        socket.set_nodelay(true).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        read_request(&mut socket);
        for (number, part) in says.iter().enumerate() {
            if number > 0 {
                go.recv().unwrap();
            }
            for piece in part.chunks(piece) {
                if socket.write_all(piece).is_err() {
                    break;
                }
            }
        }
        while matches!(socket.read(&mut [0; 1024]), Ok(1..)) {}
        let _ = closed.send(());
    });
    tells
}

fn read_request(socket: &mut TcpStream) {
    let (mut seen, mut byte) = (Vec::new(), [0; 1]);
    while !seen.ends_with(b"{}") && socket.read(&mut byte).unwrap() > 0 {
        seen.push(byte[0]);
    }
}

/// Until the peer said so; this core has other things to do meanwhile.
async fn heard(timers: &Timers, closed: &Receiver<()>) {
    let until = soon(timers);
    while closed.try_recv().is_err() {
        assert!(timers.now() < until, "it was not closed");
        timers.sleep_until(after(timers, 5)).await;
    }
}

struct Place {
    server: Server,
    upstream: Upstream,
    limits: Limits,
}

impl Place {
    fn at(address: SocketAddr) -> Self {
        let server = Server {
            name: "peer".to_owned(),
            url: UpstreamUrl {
                tls: false,
                host: "127.0.0.1".to_owned(),
                literal: Some(address.ip()),
                port: address.port(),
                authority: address.to_string(),
                target: "/mcp".to_owned(),
            },
            credential: None,
            prefix: "peer".to_owned(),
            timeout_seconds: 20,
            idle_seconds: 20,
            max_seconds: 60,
            share_public_results: false,
            trust_private_addresses: true,
            ca_file: None,
        };
        let upstream = Upstream { addresses: [address].into(), refused: false, tls: None };
        Self { server, upstream, limits: Limits::default() }
    }

    fn asked(&self) -> Asked<'_> {
        let to = To {
            server: &self.server,
            server_index: 0,
            upstream: &self.upstream,
            generation: 1,
            credential: None,
            credential_index: None,
            limits: &self.limits,
        };
        let head = OwnHead { protocol_version: Some("2026-07-28"), ..OwnHead::default() };
        Asked { to, method: Method::Post, body: b"{}", head, retryable: true }
    }
}

fn relay(timers: &Timers) -> Relay {
    Relay::new(timers.clone(), 8)
}

fn idle(relay: &Relay) -> u64 {
    let mut all = 0;
    relay.connections(|_, _, idle| all += idle);
    all
}

fn chunked(body: &str) -> Vec<u8> {
    let mut out = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\
                    transfer-encoding: chunked\r\n\r\n"
        .to_vec();
    for piece in body.as_bytes().chunks(7) {
        out.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
        out.extend_from_slice(piece);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"0\r\n\r\n");
    out
}

fn json(fields: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n{fields}content-length: {length}\r\n\r\n{body}")
        .into_bytes()
}

/// All that a peer says, until the end or an error, and how many connections are kept afterwards.
async fn all(timers: Timers, says: Vec<u8>, piece: usize) -> (Vec<String>, Option<Reject>, u64) {
    let (listener, address) = loopback();
    let (_go, goes) = channel();
    let _closed = peer(listener, vec![says], piece, goes);
    let (place, relay) = (Place::at(address), relay(&timers));
    let mut told = Vec::new();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let mut failed = None;
    match relay.begin(&place.asked(), &mut Blind, soon(&timers)).await {
        Err(refused) => failed = Some(refused.reject),
        Ok(mut talk) => loop {
            match talk.next(soon(&timers)).await {
                Ok(Heard::Message(message)) => told.push(text(message)),
                Ok(Heard::Event(event)) => {
                    let id = event.id().map(text).unwrap_or_default();
                    told.push(format!("{id}:{}", text(event.data())));
                }
                Ok(Heard::Accepted) => told.push("accepted".to_owned()),
                Ok(Heard::End) => break,
                Err(reject) => {
                    failed = Some(reject);
                    break;
                }
            }
        },
    }
    (told, failed, idle(&relay))
}

#[test]
fn wherever_the_network_cuts_the_same_is_heard() {
    let stream = "id: 1\ndata:\n\n: ping\n\ndata: {\"a\":\r\ndata: 1}\r\n\r\nid: 2\ndata: x\n\n";
    on_every_driver(move |timers| async move {
        for piece in [1, 2, 3, 5, 11, 64, 4096] {
            let heard = all(timers.clone(), chunked(stream), piece).await;
            let expected = ["1:", ":{\"a\":\n1}", "2:x"].map(str::to_owned).to_vec();
            assert_eq!(heard, (expected, None, 1), "pieces of {piece}");
            let heard = all(timers.clone(), json("", "{\"a\":1}"), piece).await;
            assert_eq!(heard, (vec!["{\"a\":1}".to_owned()], None, 1), "pieces of {piece}");
        }
    });
}

#[test]
fn what_is_no_answer_is_refused_and_its_connection_is_not_used_again() {
    let head = |line: &str, fields: &str| format!("HTTP/1.1 {line}\r\n{fields}\r\n").into_bytes();
    let long = TALK_JSON_BYTES_MAX + 1;
    let flood = format!("{}\n\n", "data: x\n\n".repeat(10_001));
    let cases: Vec<(Vec<u8>, Reject)> = vec![
        (head("302 Found", "location: /x\r\ncontent-length: 0\r\n"), Reject::UpstreamRedirect),
        (head("403 Forbidden", "content-length: 0\r\n"), Reject::UpstreamForbidden),
        (b"nonsense\r\n\r\n".to_vec(), Reject::UpstreamMalformed),
        (json("content-encoding: gzip\r\n", "{}"), Reject::UpstreamContentType),
        (
            head("200 OK", "content-type: text/html\r\ncontent-length: 1\r\n"),
            Reject::UpstreamContentType,
        ),
        (json("mcp-session-id: a b\r\n", "{}"), Reject::UpstreamMalformed),
        (
            head(
                "200 OK",
                &format!("content-type: application/json\r\ncontent-length: {long}\r\n"),
            ),
            Reject::UpstreamTooLarge,
        ),
        (chunked(&flood), Reject::UpstreamMalformed),
    ];
    on_every_driver(move |timers| {
        let cases = cases.clone();
        async move {
            for (says, reject) in cases {
                let shown = String::from_utf8_lossy(&says[..says.len().min(60)]).into_owned();
                let (_, failed, kept) = all(timers.clone(), says, 65_536).await;
                assert_eq!((failed, kept), (Some(reject), 0), "{shown}");
            }
            let accepted = head("202 Accepted", "content-length: 0\r\n");
            let heard = all(timers.clone(), accepted, 4096).await;
            assert_eq!(heard, (vec!["accepted".to_owned()], None, 1));
            // Surplus bytes would be somebody else's answer.
            let mut more = json("", "{}");
            more.extend_from_slice(b"HTTP/1.1 200 OK\r\n\r\n");
            assert_eq!(all(timers.clone(), more, 4096).await, (vec!["{}".to_owned()], None, 0));
            let closing = json("connection: close\r\n", "{}");
            assert_eq!(all(timers.clone(), closing, 4096).await, (vec!["{}".to_owned()], None, 0));
        }
    });
}

#[test]
fn a_silent_talk_holds_no_buffer_and_dropped_it_closes() {
    on_every_driver(|timers| async move {
        let (listener, address) = loopback();
        let (go, goes) = channel();
        let stream = chunked("data: 1\n\ndata: 2\n\n");
        let cut = stream.len() - 20;
        let says = vec![stream[..cut].to_vec(), stream[cut..].to_vec()];
        let closed = peer(listener, says, 4096, goes);
        let (place, relay) = (Place::at(address), relay(&timers));
        let begun = relay.begin(&place.asked(), &mut Blind, soon(&timers)).await;
        let mut talk = begun.ok().unwrap();
        match talk.next(soon(&timers)).await {
            Ok(Heard::Event(event)) => assert_eq!(event.data(), b"1"),
            other => panic!("{other:?}"),
        }
        let silent = talk.next(after(&timers, 300)).await.map(|_| ());
        assert_eq!(silent, Err(Reject::UpstreamTimeout));
        assert!(!talk.is_late(), "the server has longer than that");
        assert_eq!(talk.input.capacity(), 0);
        go.send(()).unwrap();
        match talk.next(soon(&timers)).await {
            Ok(Heard::Event(event)) => assert_eq!(event.data(), b"2"),
            other => panic!("{other:?}"),
        }
        drop(talk);
        assert_eq!(idle(&relay), 0, "its end was not heard");
        heard(&timers, &closed).await;
    });
}

/// An agent that leaves, or rules that change, end a talk that waits.
#[test]
fn an_eye_ends_a_talk() {
    struct Closes(u32);

    impl Eye for Closes {
        async fn stirs(&self) {}

        async fn look(&mut self, stirred: bool) -> Result<(), Reject> {
            self.0 += u32::from(stirred);
            if self.0 == 3 { Err(Reject::RequestAborted) } else { Ok(()) }
        }
    }

    on_every_driver(|timers| async move {
        let (listener, address) = loopback();
        let (_go, goes) = channel();
        let closed = peer(listener, vec![b"HTTP/1.1 200 OK\r\n".to_vec()], 4096, goes);
        let (place, relay) = (Place::at(address), relay(&timers));
        let ended = relay.begin(&place.asked(), &mut Closes(0), soon(&timers)).await;
        assert_eq!(ended.err().map(|failed| failed.reject), Some(Reject::RequestAborted));
        heard(&timers, &closed).await;
    });
}
