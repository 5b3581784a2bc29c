//! Response heads: case H30 and the traps of the response side.

use super::*;
use crate::limits;

/// Whole, cut and dripped; the same verdict each time.
fn verdict(stream: &[u8], answered: Method) -> (Result<Option<usize>, Reject>, ResponseHead) {
    let mut whole = ResponseHead::new();
    let expected = whole.parse(stream, answered);
    for cut in 0..stream.len() {
        let mut parser = ResponseHead::new();
        let early = parser.parse(&stream[..cut], answered);
        if early == Ok(None) {
            assert_eq!(parser.parse(stream, answered), expected, "{} at {cut}", show(stream));
        } else {
            assert_eq!(early, expected, "{} at {cut}", show(stream));
        }
    }
    let mut dripped = ResponseHead::new();
    let last = (0..=stream.len()).map(|end| dripped.parse(&stream[..end], answered)).last();
    assert_eq!(last, Some(expected), "{} dripped", show(stream));
    (expected, whole)
}

fn refuses(stream: &str) {
    let (verdict, parser) = verdict(stream.as_bytes(), Method::Post);
    assert_eq!(verdict, Err(Reject::UpstreamMalformed), "{stream:?}");
    assert!(!parser.keep_alive(), "{stream:?}");
}

fn accepts(head: &str, answered: Method) -> ResponseHead {
    let (verdict, parser) = verdict(format!("{head}surplus").as_bytes(), answered);
    assert_eq!(verdict, Ok(Some(head.len())), "{head:?}");
    parser
}

#[test]
fn framing_and_reuse() {
    let rows = [
        // head, answered, framing, the connection may be used again
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", Method::Post, Framing::Length(5), true),
        ("HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", Method::Post, Framing::Length(0), true),
        (
            "HTTP/1.1 200 \r\ntransfer-encoding: Chunked\r\n\r\n",
            Method::Get,
            Framing::Chunked,
            true,
        ),
        ("HTTP/1.1 200 OK\r\n\r\n", Method::Post, Framing::UntilClose, false),
        ("HTTP/1.0 200 OK\r\n\r\n", Method::Get, Framing::UntilClose, false),
        ("HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n", Method::Post, Framing::Length(5), false),
        (
            "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\n",
            Method::Post,
            Framing::Length(5),
            false,
        ),
        (
            "HTTP/1.1 200 OK\r\nConnection: x, Close\r\nContent-Length: 5\r\n\r\n",
            Method::Post,
            Framing::Length(5),
            false,
        ),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", Method::Head, Framing::None, true),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            Method::Head,
            Framing::None,
            true,
        ),
        ("HTTP/1.1 304 x\r\nContent-Length: 5\r\n\r\n", Method::Get, Framing::None, true),
        ("HTTP/1.1 204 x\r\n\r\n", Method::Post, Framing::None, true),
        ("HTTP/1.1 204 x\r\nContent-Length: 0\r\n\r\n", Method::Post, Framing::None, true),
        ("HTTP/1.1 204 x\r\nContent-Length: 5\r\n\r\n", Method::Post, Framing::None, false),
        (
            "HTTP/1.1 204 x\r\nTransfer-Encoding: chunked\r\n\r\n",
            Method::Post,
            Framing::None,
            false,
        ),
        (
            "HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n",
            Method::Post,
            Framing::Length(0),
            true,
        ),
    ];
    for (head, answered, framing, again) in rows {
        let parser = accepts(head, answered);
        assert_eq!((parser.framing(), parser.keep_alive()), (framing, again), "{head:?}");
    }
}

#[test]
fn h30_what_is_not_exactly_one_response_is_refused() {
    for head in [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 304 x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: a\rb\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: a\0b\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX : a\r\n\r\n",
        "HTTP/1.1 200 OK\nX: a\n\n",
        "HTTP/1.1 200 OK\r\nX: a\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Type: a/b\r\nContent-Type: c/d\r\n\r\n",
        "HTTP/1.1 200 OK\r\nMcp-Session-Id: a\r\nmcp-session-id: b\r\n\r\n",
        "\r\nHTTP/1.1 200 OK\r\n\r\n",
        "HTTP/1.1 99 x\r\n\r\n",
        "HTTP/1.1 099 x\r\n\r\n",
        "HTTP/1.1 600 x\r\n\r\n",
        "HTTP/1.1 2000 x\r\n\r\n",
        "HTTP/1.1 +20 x\r\n\r\n",
        "HTTP/1.1  200 OK\r\n\r\n",
        "HTTP/1.1\t200 OK\r\n\r\n",
        "HTTP/2.0 200 OK\r\n\r\n",
        "HTTP/1.2 200 OK\r\n\r\n",
        "http/1.1 200 OK\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n",
        "HTTP/1.1 100 Continue\r\nContent-Length: 5\r\n\r\n",
        "HTTP/1.1 103 x\r\nTransfer-Encoding: chunked\r\n\r\n",
        "{\"jsonrpc\":\"2.0\"}\r\n\r\n",
    ] {
        refuses(head);
    }
}

#[test]
fn h30_sizes() {
    let fields = |count: usize| format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: y\r\n".repeat(count));
    accepts(&fields(limits::HEAD_FIELDS_MAX), Method::Get);
    refuses(&fields(limits::HEAD_FIELDS_MAX + 1));
    let mut endless = b"HTTP/1.1 200 ".to_vec();
    endless.resize(limits::UPSTREAM_HEAD_BYTES_MAX - 1, b'x');
    let mut parser = ResponseHead::new();
    assert_eq!(parser.parse(&endless, Method::Get), Ok(None));
    endless.push(b'x');
    assert_eq!(parser.parse(&endless, Method::Get), Err(Reject::UpstreamMalformed));
}

#[test]
fn h30_interim_responses_are_not_the_answer_and_do_not_go_on_forever() {
    let interim = "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n";
    let last = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n";
    for (count, fits) in
        [(1, true), (limits::UPSTREAM_INTERIM_MAX, true), (limits::UPSTREAM_INTERIM_MAX + 1, false)]
    {
        let stream = format!("{}{last}", interim.repeat(count));
        let mut rest = stream.as_bytes();
        let mut parser = ResponseHead::new();
        let answer = loop {
            let length = parser.parse(rest, Method::Post).unwrap().unwrap();
            rest = &rest[length..];
            if !parser.is_interim() {
                break Ok(parser.status());
            }
            assert_eq!(parser.framing(), Framing::None);
            if let Err(reject) = parser.next_after_interim() {
                break Err(reject);
            }
        };
        let expected = if fits { Ok(200) } else { Err(Reject::UpstreamMalformed) };
        assert_eq!(answer, expected, "{count}");
    }
}

#[test]
fn reset_forgets_the_answer_before() {
    let mut parser = accepts("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX: y\r\n\r\n", Method::Get);
    parser.reset();
    let next = b"HTTP/1.1 404 Not Found\r\n\r\n";
    assert_eq!(parser.parse(next, Method::Get), Ok(Some(next.len())));
    assert_eq!((parser.status(), parser.framing()), (404, Framing::UntilClose));
    assert_eq!(parser.fields(next).count(), 0);
    assert_eq!(parser.field(next, Field::ContentLength), None);
}

#[test]
fn only_listed_fields_travel_downstream() {
    let head = "HTTP/1.1 200 OK\r\nServer: x\r\nSet-Cookie: a=b\r\n\
        Content-Type: text/event-stream\r\nX-Accel-Buffering: no\r\nMcp-Session-Id: s\r\n\
        WWW-Authenticate: Bearer\r\nLocation: /\r\n\
        Cache-Control: no-cache\r\nAccess-Control-Allow-Origin: *\r\n\r\n";
    let parser = accepts(head, Method::Get);
    let names: Vec<&[u8]> =
        parser.downstream_fields(head.as_bytes()).map(|(name, _)| name).collect();
    let expected: [&[u8]; 4] =
        [b"Content-Type", b"X-Accel-Buffering", b"Mcp-Session-Id", b"Cache-Control"];
    assert_eq!(names, expected);
}
