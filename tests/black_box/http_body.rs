//! H: request bodies, and requests that stop in the middle.

use super::client::{Client, Way};
use super::gateway::{DRIVERS, Gateway, until};
use super::table::{Case, End, Post, refuse, run, tool_call};

const CHUNKED: &str = "Transfer-Encoding: chunked\r\n";

fn closed(id: &str, request: Vec<u8>, status: u16, reason: &'static str) -> Case {
    Case { id: id.to_owned(), request, status, reason, end: End::Closed }
}

fn chunked(gateway: &Gateway, rest: &str) -> Vec<u8> {
    Post::new(gateway).framed(CHUNKED, rest.as_bytes())
}

#[test]
fn h09_chunk_sizes() {
    refuse(|gateway| {
        let body = tool_call("echo");
        let sizes = [
            "0x3",
            "1_0",
            "-1",
            "+1",
            "",
            " 3",
            "3 ",
            "3\t",
            "g",
            "00000000000000003",
            "3\n",
            "FFFFFFFFFFFFFFF0",
            "FFFFFFFFFFFFFFFF",
            "8000000000000000",
            "10000000000000003",
            "3\r3",
        ];
        let mut cases: Vec<Case> = sizes
            .into_iter()
            .map(|size| {
                let request = chunked(gateway, &format!("{size}\r\n{body}\r\n0\r\n\r\n"));
                closed(&format!("H09 {size:?}"), request, 400, "http_framing")
            })
            .collect();
        let after = format!("{:x}\r\n{body}XX0\r\n\r\n", body.len());
        cases.push(closed("H09 no CRLF", chunked(gateway, &after), 400, "http_framing"));
        let bare = format!("{:x}\r\n{body}\n0\r\n\r\n", body.len());
        cases.push(closed("H09 bare LF", chunked(gateway, &bare), 400, "http_framing"));
        cases
    });
}

#[test]
fn h10_h11_extensions_and_trailers_that_are_refused() {
    refuse(|gateway| {
        let body = tool_call("echo");
        let with = |extension: &str, trailer: &str| {
            let size = body.len();
            chunked(gateway, &format!("{size:x}{extension}\r\n{body}\r\n0\r\n{trailer}\r\n"))
        };
        let refused = |id: &str, extension: &str, trailer: &str| {
            closed(id, with(extension, trailer), 400, "http_framing")
        };
        // 1024 bytes of extensions in all, over many chunks.
        let pieces: String =
            body.chars().map(|c| format!("1;{}\r\n{c}\r\n", "e".repeat(15))).collect();
        let many = chunked(gateway, &format!("{pieces}0\r\n\r\n"));
        let mut cases = vec![
            refused("H10 line too long", &format!(";{}", "x".repeat(256)), ""),
            closed("H10 too many", many, 400, "http_framing"),
            refused("H10 bare LF", ";a\nb", ""),
            refused("H10 control", ";a\0b", ""),
            refused("H10 space before", " ;a", ""),
            refused("H11 17 lines", "", &"X: y\r\n".repeat(17)),
            refused("H11 4 KiB", "", &format!("X: {}\r\n", "y".repeat(4096))),
            refused("H11 bare LF", "", "X: y\n"),
            refused("H11 fold", "", "X: y\r\n z\r\n"),
            refused("H11 no colon", "", "X\r\n"),
        ];
        for name in [
            "Authorization",
            "Content-Length",
            "Transfer-Encoding",
            "Host",
            "mcp-name",
            "Mcp-Session-Id",
            "Cookie",
            "X-Forwarded-For",
            "TE",
            "Trailer",
            "content-TYPE",
        ] {
            cases.push(refused(&format!("H11 {name}"), "", &format!("{name}: x\r\n")));
        }
        cases
    });
}

#[test]
fn h10_h11_what_may_be_there_is_dropped() {
    for driver in DRIVERS {
        let gateway = Gateway::shared(driver);
        let _turn = gateway.turn();
        let body = tool_call("echo");
        let (first, second) = body.split_at(20);
        let rest = format!(
            "14;a=b;c=\"d;e\"\r\n{first}\r\n{:X};x\r\n{second}\r\n0;last\r\nX-Trailer: y\r\nZ: \r\n\r\n",
            second.len()
        );
        for way in [Way::Whole, Way::Dripped] {
            let mut client = Client::connect(gateway.address);
            client.send(&chunked(&gateway, &rest), way);
            assert_eq!(client.answer().unwrap().status, 200);
            let seen = gateway.upstream.last();
            assert_eq!(seen.body, body.as_bytes());
            assert_eq!(seen.header("content-length"), Some(&*body.len().to_string()));
            assert_eq!(seen.header("transfer-encoding"), None);
            assert!(!seen.head.to_lowercase().contains("trailer"), "{}", seen.head);
        }
    }
}

#[test]
fn h26_a_body_that_stops_short() {
    refuse(|gateway| {
        let body = tool_call("echo");
        let post = Post::new(gateway);
        let gone = |id: &str, request: Vec<u8>| Case {
            id: id.to_owned(),
            request,
            status: 400,
            reason: "request_aborted",
            end: End::Gone,
        };
        let length = format!("Content-Length: {}\r\n", body.len());
        vec![
            gone("H26", post.framed(&length, &body.as_bytes()[..body.len() - 1])),
            gone("H26 no body", post.framed(&length, b"")),
            gone("H26 in chunk", post.framed(CHUNKED, b"20\r\n{}")),
            gone("H26 no last chunk", post.framed(CHUNKED, b"2\r\n{}\r\n")),
            gone("H26 in head", b"POST /mcp/tools HTTP/1.1\r\nHost: portcu".to_vec()),
        ]
    });
}

/// V01, V02 in small: a head or a body that never comes is not waited for beyond its limit.
#[test]
fn a_request_that_stalls_is_ended() {
    for driver in DRIVERS {
        let limits = "[limits]\nhead_ms_max = 1000\nstall_ms_max = 1000\n";
        let gateway = Gateway::start(driver, limits);
        let late = |id: &str, request: Vec<u8>| closed(id, request, 408, "request_timeout");
        let cases = [
            late("V01 slow head", b"POST /mcp/tools HTTP/1.1\r\nHost: portcu".to_vec()),
            late("V02 slow body", Post::new(&gateway).framed("Content-Length: 100\r\n", b"{")),
        ];
        run(&gateway, &cases);
    }
}

#[test]
fn m02_a_body_over_the_limit_is_not_read() {
    refuse(|gateway| {
        let large = |id: &str, framing: &str, rest: &[u8]| {
            closed(id, Post::new(gateway).framed(framing, rest), 413, "body_too_large")
        };
        vec![
            large("M02 declared", "Content-Length: 4194305\r\n", b""),
            large("M02 declared far", "Content-Length: 9223372036854775807\r\n", b""),
            large("M02 in one chunk", CHUNKED, b"400001\r\n{}"),
        ]
    });
    for driver in DRIVERS {
        let gateway = Gateway::shared(driver);
        let turn = gateway.turn();
        assert_eq!(gateway.ask(&Post::new(&gateway).bytes()).status, 200);
        let before = gateway.memory();
        // Chunks that add up: refused at the cap, whatever still comes.
        let piece = format!("10000\r\n{}\r\n", " ".repeat(0x10000));
        let mut client = Client::connect(gateway.address);
        client.send(&Post::new(&gateway).framed(CHUNKED, b""), Way::Whole);
        for _ in 0..80 {
            client.send(piece.as_bytes(), Way::Whole);
        }
        let answer = client.answer().unwrap();
        assert_eq!((answer.status, answer.reason().as_str()), (413, "body_too_large"));
        let grown = gateway.memory().saturating_sub(before);
        assert!(grown < 16 * 1024 * 1024, "{grown} bytes for a body that was refused");
        assert_eq!(turn.reasons(&gateway, 2), ["ok", "body_too_large"]);
        // The limit itself is served.
        let call = tool_call("echo");
        let body = " ".repeat(4 * 1024 * 1024 - call.len()) + &call;
        let answer = gateway.ask(&Post::new(&gateway).body(body.clone()).bytes());
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(gateway.upstream.last().body.len(), body.len());
    }
}

/// H31 in small: many framings on one connection each; the upstream counts what was audited.
#[test]
fn h31_the_upstream_counts_what_was_audited() {
    for driver in DRIVERS {
        let gateway = Gateway::shared(driver);
        let turn = gateway.turn();
        let before = gateway.upstream.log().requests.len();
        let body = tool_call("echo");
        let size = body.len();
        let inner = Post::new(&gateway).bytes();
        let inner = String::from_utf8(inner).unwrap();
        let mut sent = 0;
        for framing in [
            format!("Content-Length: {size}\r\n\r\n{body}"),
            format!("Content-Length: {size}\r\nX-Transfer-Encoding: chunked\r\n\r\n{body}"),
            format!("Transfer-Encoding: chunked\r\n\r\n{size:x}\r\n{body}\r\n0\r\n\r\n"),
            format!("transfer-encoding:\tCHUNKED\t\r\n\r\n{size:X}\r\n{body}\r\n0\r\n\r\n"),
            format!(
                "Transfer-Encoding: chunked\r\n\r\n00{size:x};x\r\n{body}\r\n000\r\nA: b\r\n\r\n"
            ),
            format!("Content-Length: 0{size}\r\n\r\n{body}"),
            format!("Content_Length: 9\r\nContent-Length: {size}\r\n\r\n{body}"),
            format!("Transfer_Encoding: chunked\r\nContent-Length: {size}\r\n\r\n{body}"),
            format!("Content-Length: {size}\r\nTransfer-Encoding : chunked\r\n\r\n{body}"),
            format!("Content-Length: {size}\r\nTransfer-Encoding: \0chunked\r\n\r\n{body}"),
            format!("Content-Length: {size}\r\n\tTransfer-Encoding: chunked\r\n\r\n{body}"),
            format!("Content-Length: {size}\r\nFoo: x\rTransfer-Encoding: chunked\r\n\r\n{body}"),
            format!("Content-Length: {size}\r\nFoo: x\nTransfer-Encoding: chunked\r\n\r\n{body}"),
            "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(),
            "Content-Length: 0\r\n\r\n".to_owned(),
            "\r\n".to_owned(),
        ] {
            let head = Post::new(&gateway).framed("", b"");
            let head = String::from_utf8(head).unwrap();
            let head = head.strip_suffix("\r\n").unwrap();
            for way in [Way::Whole, Way::Dripped] {
                let mut client = Client::connect(gateway.address);
                client.send(format!("{head}{framing}{inner}").as_bytes(), way);
                client.finish_sending();
                while client.answer().is_some() {
                    sent += 1;
                }
            }
        }
        let records = turn.records(&gateway, sent);
        let permitted = records.iter().filter(|record| record["decision"] == "permit").count();
        let arrived = gateway.upstream.log().requests.len() - before;
        assert_eq!(arrived, permitted, "the upstream counts what was permitted");
        assert!(permitted >= 20 && permitted < sent, "{permitted} of {sent}");
    }
}

/// RFC 9110 §9.3.2: an answer to HEAD has no content, or the next answer would be misread.
#[test]
fn head_is_refused_without_a_body() {
    for driver in DRIVERS {
        let gateway = Gateway::shared(driver);
        let _turn = gateway.turn();
        let request = b"HEAD /mcp/tools HTTP/1.1\r\nHost: portcullis.localhost\r\n\r\n";
        let mut client = Client::connect(gateway.address);
        client.send(&[&request[..], &Post::new(&gateway).bytes()].concat(), Way::Whole);
        client.expect_no_body();
        assert_eq!(client.answer().unwrap().status, 405);
        assert_eq!(client.answer().unwrap().status, 200);
    }
}

/// B2, B3 in small: requests with a few bytes changed. Whatever each one has become, the upstream
/// hears of exactly those that were permitted, and the process lives. A failure prints the seed.
#[test]
fn mutated_requests_never_count_double() {
    for driver in DRIVERS {
        let gateway = Gateway::shared(driver);
        let turn = gateway.turn();
        let body = tool_call("echo");
        let plain = Post::new(&gateway).bytes();
        let pieces = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
        let bases = [
            [&plain[..], &plain].concat(),
            [&chunked(&gateway, &pieces)[..], &plain].concat(),
            [&Post::new(&gateway).field("Connection: close").bytes()[..], &plain].concat(),
        ];
        let seed = u64::from(gateway.pid()) << 32 | 0x9e37_79b9;
        let mut random = Random(seed);
        let before = gateway.upstream.log().requests.len();
        for round in 0..MUTATIONS {
            let mut request = bases[round % bases.len()].clone();
            for _ in 0..=random.below(3) {
                mutate(&mut request, &mut random);
            }
            let mut client = Client::connect(gateway.address);
            client.send(&request, Way::Whole);
            client.finish_sending();
            client.read_to_the_end();
        }
        assert!(gateway.running(), "seed {seed:#x}");
        assert_eq!(gateway.ask(&plain).status, 200, "seed {seed:#x}");
        let arrived = gateway.upstream.log().requests.len() - before;
        until(&format!("permits = {arrived} arrivals, seed {seed:#x}"), || {
            turn.permits(&gateway) == arrived
        });
        assert!(arrived > MUTATIONS / 4, "most of them still are requests");
        assert!(!gateway.stderr().contains("panicked"), "seed {seed:#x}");
    }
}

fn mutate(request: &mut Vec<u8>, random: &mut Random) {
    const INTERESTING: &[u8] = b"\r\n\0 \t:;,=\"\\{}[]0123456789abcdefHTTP/1.x\x7f\x80\xff";
    let at = random.below(request.len());
    let byte = INTERESTING[random.below(INTERESTING.len())];
    match random.below(5) {
        0 => request[at] = byte,
        1 => request.insert(at, byte),
        2 => drop(request.remove(at)),
        3 => request[at] ^= 1 << random.below(8),
        _ => {
            // A line of its own, again.
            let start =
                request[..at].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            let end = request[at..].iter().position(|byte| *byte == b'\n');
            let end = end.map_or(request.len(), |length| at + length + 1);
            let line = request[start..end].to_vec();
            request.splice(start..start, line);
        }
    }
}

/// xorshift64: enough to choose bytes, and the same everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 16).unwrap() % bound
    }
}

const MUTATIONS: usize = 1500;
