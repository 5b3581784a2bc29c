//! Request heads: cases H01–H22, H24, H28, H29 of the hostile inputs.

use super::*;
use crate::limits;

/// A head with these field lines; `\n` in `lines` stands for what it is.
fn with(lines: &str) -> Vec<u8> {
    format!("POST /mcp HTTP/1.1\r\nHost: gw.example.com\r\n{lines}\r\n").into_bytes()
}

/// Refused for `why`, whole, cut and dripped, and no byte of it taken for a request.
fn refuses(stream: &[u8], why: Reject) {
    let reading = read(stream);
    assert_eq!(reading.refused, Some(why), "{}", show(stream));
    assert!(reading.requests.is_empty(), "{}", show(stream));
    assert_eq!(reading.consumed, 0, "{}", show(stream));
}

#[test]
fn a_plain_request_is_read() {
    let head = with("Content-Type: application/json\r\nContent-Length:\t 2 \r\nX-Empty:\r\n");
    let parser = parsed(&head);
    assert_eq!(parser.method(), Method::Post);
    assert_eq!(parser.target(&head), b"/mcp");
    assert_eq!(parser.framing(), Framing::Length(2));
    assert_eq!(parser.field(&head, Field::ContentLength), Some(&b"2"[..]));
    assert_eq!(parser.field(&head, Field::Accept), None);
    assert!(parser.keep_alive() && !parser.expects_continue());
    let names: Vec<&[u8]> = parser.fields(&head).map(|(name, _)| name).collect();
    assert_eq!(names, [&b"Host"[..], b"Content-Type", b"Content-Length", b"X-Empty"]);
    assert_eq!(parser.fields(&head).last(), Some((&b"X-Empty"[..], &b""[..])));
}

#[test]
fn h01_both_lengths() {
    refuses(&with("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n"), Reject::RequestClTe);
    refuses(&with("Transfer-Encoding: chunked\r\nContent-Length: 3\r\n"), Reject::RequestClTe);
    refuses(&with("transfer-ENCODING: identity\r\ncontent-length: 0\r\n"), Reject::RequestClTe);
}

#[test]
fn h02_h03_two_content_lengths() {
    for lines in [
        "Content-Length: 3\r\nContent-Length: 4\r\n",
        "Content-Length: 3\r\nContent-Length: 3\r\n",
        "Content-Length: 3\r\nX: y\r\ncontent-length: 3\r\n",
        "Content-Length: 3, 3\r\n",
        "Content-Length: 3,4\r\n",
    ] {
        refuses(&with(lines), Reject::RequestFraming);
    }
}

#[test]
fn h05_transfer_codings() {
    for (value, why) in [
        ("xchunked", Reject::RequestTransferCoding),
        ("gzip", Reject::RequestTransferCoding),
        ("identity", Reject::RequestTransferCoding),
        ("gzip, chunked", Reject::RequestTransferCoding),
        ("chunked;q=1", Reject::RequestTransferCoding),
        ("\"chunked\"", Reject::RequestTransferCoding),
        ("chunked, identity", Reject::RequestFraming),
        ("chunked, chunked", Reject::RequestFraming),
        ("chunked,", Reject::RequestFraming),
        (", chunked", Reject::RequestFraming),
        ("", Reject::RequestFraming),
        ("\x0bchunked", Reject::RequestMalformed),
        ("chunked\x0c", Reject::RequestMalformed),
        ("chunked\0", Reject::RequestMalformed),
        ("chun\u{212a}ed", Reject::RequestTransferCoding),
    ] {
        refuses(&with(&format!("Transfer-Encoding: {value}\r\n")), why);
    }
    refuses(
        &with("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"),
        Reject::RequestFraming,
    );
    for value in ["chunked", "Chunked", "CHUNKED", "\tchunked\t "] {
        let head = with(&format!("Transfer-Encoding: {value}\r\n"));
        assert_eq!(parsed(&head).framing(), Framing::Chunked, "{value:?}");
    }
}

#[test]
fn h06_transfer_coding_on_http_1_0() {
    let head = b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    refuses(head, Reject::RequestFraming);
}

#[test]
fn h07_content_length_is_digits() {
    for value in [
        "+3",
        "-1",
        "0x3",
        " ",
        "3_0",
        "",
        "3 3",
        "3;3",
        "03",
        "00",
        "3.0",
        "1e1",
        "\u{663}",
        "18446744073709551616",
        "99999999999999999999",
        "3,",
    ] {
        refuses(&with(&format!("Content-Length: {value}\r\n")), Reject::RequestFraming);
    }
    let largest = with("Content-Length: 9999999999999999999\r\n");
    assert_eq!(parsed(&largest).framing(), Framing::Length(9_999_999_999_999_999_999));
    refuses_at_body(&largest);
}

fn refuses_at_body(head: &[u8]) {
    assert_eq!(read(head).refused, Some(Reject::RequestBodyTooLarge));
}

#[test]
fn h12_bare_line_feeds_are_refused_at_once() {
    let places: [&[u8]; 9] = [
        b"\n",
        b"\r\n\n",
        b"POST\n",
        b"POST /\n",
        b"POST / HTTP/1.1\n",
        b"POST / HTTP/1.1\r\n\n",
        b"POST / HTTP/1.1\r\nHost\n",
        b"POST / HTTP/1.1\r\nHost: a\n",
        b"POST / HTTP/1.1\r\nHost: a\r\n\n",
    ];
    for start in places {
        // Refused at the line feed itself: nothing that follows is waited for.
        assert_eq!(refused_at(start), Some((start.len(), Reject::RequestMalformed)), "{start:?}");
        refuses(start, Reject::RequestMalformed);
    }
    refuses(b"GET / HTTP/1.1\nHost: a\n\n", Reject::RequestMalformed);
    refuses(
        b"GET / HTTP/1.1\r\nHost: a\n\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
        Reject::RequestMalformed,
    );
}

#[test]
fn what_cannot_be_right_is_refused_at_its_byte() {
    for start in [
        "\r\r",
        "\r\nGET / HTTP/1.1\rX",
        "GET / HTTP/1.1\r\nHost: a\rX",
        "GET / HTTP/1.1\r\nHost: a\r\n\rX",
        "GET / HTTP/1.1\r\nHost: a\0",
        "GET / HTTP/1.1\r\nHost: a\x01",
        "GET / HTTP/1.1\r\nHost ",
        "GET / HTTP/1.1\r\nHost\r",
        "GET / HTTP/1.1\r\n:",
        "GET / HTTP/1.1\r\n ",
        "GET / HTTP/1.1x",
        "GET / HTTP/1.1 ",
        "GET  ",
        " ",
        "\x16",
    ] {
        let expected = Some((start.len(), Reject::RequestMalformed));
        assert_eq!(refused_at(start.as_bytes()), expected, "{start:?}");
    }
}

#[test]
fn h13_control_bytes() {
    for byte in (0..=0x1f_u8).chain([0x7f]).filter(|byte| *byte != b'\t') {
        let mut stream = with("X: a?b\r\n");
        let place = stream.iter().position(|it| *it == b'?').unwrap();
        stream[place] = byte;
        refuses(&stream, Reject::RequestMalformed);
    }
    refuses(&with("X: a\rb\r\n"), Reject::RequestMalformed);
    refuses(&with("X: a\r\r\n"), Reject::RequestMalformed);
    refuses(&with("X\0: a\r\n"), Reject::RequestMalformed);
    refuses(b"POST /\0 HTTP/1.1\r\nHost: a\r\n\r\n", Reject::RequestMalformed);
    let text = with("X: \u{fc}ber\tall\r\n");
    let parser = parsed(&text);
    assert_eq!(parser.fields(&text).last().unwrap().1, "\u{fc}ber\tall".as_bytes());
}

#[test]
fn h14_space_before_the_colon_and_folded_lines() {
    for lines in [
        "Content-Length : 3\r\n",
        "Transfer-Encoding\t: chunked\r\n",
        "X: a\r\n b\r\n",
        "X: a\r\n\tb\r\n",
        "X: a\r\n \r\n",
        " X: a\r\n",
        ": a\r\n",
        "no colon\r\n",
        "X\r\n",
        "X@: a\r\n",
        "X(): a\r\n",
        "\u{fc}: a\r\n",
    ] {
        refuses(&with(lines), Reject::RequestMalformed);
    }
    refuses(b"GET / HTTP/1.1\r\n Host: a\r\nHost: a\r\n\r\n", Reject::RequestMalformed);
    let folded = b"GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n ";
    assert_eq!(refused_at(folded), Some((folded.len(), Reject::RequestMalformed)));
}

#[test]
fn h15_host() {
    let request = |lines: &str| format!("GET /mcp HTTP/1.1\r\n{lines}\r\n").into_bytes();
    for lines in [
        "",
        "X-Host: a\r\n",
        "Host: a\r\nHost: a\r\n",
        "Host: a\r\nhost: b\r\n",
        "Host:\r\n",
        "Host: a b@c\r\n",
        "Host: a b\r\n",
        "Host: u@a\r\n",
        "Host: a, b\r\n",
        "Host: a/b\r\n",
        "Host: a:b\r\n",
        "Host: http://a\r\n",
    ] {
        refuses(&request(lines), Reject::RequestHost);
    }
    refuses(b"GET / HTTP/1.0\r\n\r\n", Reject::RequestHost);
}

#[test]
fn h18_h19_oversize_heads_are_refused_as_soon_as_they_are() {
    let mut name = b"GET / HTTP/1.1\r\nHost: a\r\n".to_vec();
    let start = name.len();
    name.resize(start + 70_000, b'x');
    let at = start + limits::FIELD_NAME_BYTES_MAX + 1;
    assert_eq!(refused_at(&name), Some((at, Reject::RequestHeadTooLarge)));
    assert_eq!(RequestHead::new().parse(&name), Err(Reject::RequestHeadTooLarge));

    let mut value = b"GET / HTTP/1.1\r\nHost: a\r\nX: ".to_vec();
    value.resize(10 * 1024 * 1024, b'x');
    assert_eq!(refused_at(&value), Some((limits::HEAD_BYTES_MAX, Reject::RequestHeadTooLarge)));
    assert_eq!(RequestHead::new().parse(&value), Err(Reject::RequestHeadTooLarge));

    for (extra, verdict) in
        [(0, Ok(Some(limits::HEAD_BYTES_MAX))), (1, Err(Reject::RequestHeadTooLarge))]
    {
        let mut head = b"GET / HTTP/1.1\r\nHost: a\r\nX: ".to_vec();
        head.resize(limits::HEAD_BYTES_MAX - 4 + extra, b'x');
        head.extend_from_slice(b"\r\n\r\n");
        assert_eq!(RequestHead::new().parse(&head), verdict);
        let mut dripped = RequestHead::new();
        let last = (0..=head.len()).map(|end| dripped.parse(&head[..end])).last();
        assert_eq!(last, Some(verdict));
    }
}

#[test]
fn h20_field_count() {
    // The Host line is one of them.
    let fits = with(&"X: y\r\n".repeat(limits::HEAD_FIELDS_MAX - 1));
    assert_eq!(parsed(&fits).fields(&fits).count(), limits::HEAD_FIELDS_MAX);
    let over = with(&"X: y\r\n".repeat(limits::HEAD_FIELDS_MAX));
    refuses(&over, Reject::RequestHeadTooLarge);
    let (at, _) = refused_at(&over).unwrap();
    assert_eq!(at, over.len() - "X: y\r\n\r\n".len() + 1, "at its first byte");
}

#[test]
fn h21_target_size() {
    let target = |length: usize| {
        format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(length - 1)).into_bytes()
    };
    assert!(RequestHead::new().parse(&target(limits::TARGET_BYTES_MAX)).is_ok());
    let over = target(limits::TARGET_BYTES_MAX + 1);
    assert_eq!(RequestHead::new().parse(&over), Err(Reject::RequestTargetTooLong));
    let at = "GET ".len() + limits::TARGET_BYTES_MAX + 1;
    assert_eq!(refused_at(&over), Some((at, Reject::RequestTargetTooLong)));
}

#[test]
fn h22_repeated_fields_that_must_be_single() {
    for name in [
        "Authorization",
        "Content-Type",
        "Cookie",
        "Expect",
        "Last-Event-ID",
        "Mcp-Method",
        "Mcp-Name",
        "MCP-Protocol-Version",
        "Mcp-Session-Id",
        "Mcp-Param-Region",
        "Mcp-Whatever",
        "Origin",
        "Traceparent",
        "User-Agent",
    ] {
        let lower = name.to_lowercase();
        refuses(&with(&format!("{name}: a\r\nX: y\r\n{lower}: a\r\n")), Reject::RequestMalformed);
    }
    let lists =
        with("Accept: a\r\nX: y\r\naccept: b\r\nX: z\r\nMcp-Param-A: 1\r\nMcp-Param-B: 1\r\n");
    let parser = parsed(&lists);
    let accepted: Vec<&[u8]> = parser.values(&lists, Field::Accept).collect();
    assert_eq!(accepted, [b"a", b"b"]);
    assert_eq!(parser.field(&lists, Field::Accept), Some(&b"a"[..]));
}

#[test]
fn h24_expectations() {
    let head = with("Expect: 100-Continue\r\nContent-Length: 1\r\n");
    assert!(parsed(&head).expects_continue());
    for value in ["100-continue, x", "200-ok", "", "100"] {
        refuses(&with(&format!("Expect: {value}\r\n")), Reject::RequestExpectation);
    }
    let old = b"POST / HTTP/1.0\r\nHost: a\r\nExpect: 100-continue\r\n\r\n";
    assert!(!parsed(old).expects_continue());
}

#[test]
fn h28_h29_connection_takes_nothing_that_was_judged_and_hop_fields_never_travel() {
    let head = with(
        "Connection: authorization, mcp-name, Content-Type, User-Agent, close\r\n\
         Authorization: Bearer x\r\nMcp-Name: tool\r\nContent-Type: application/json\r\n\
         User-Agent: y\r\nAccept-Language: de\r\nKeep-Alive: 5\r\nTE: trailers\r\nUpgrade: h2c\r\n\
         Proxy-Authorization: z\r\nX-Forwarded-For: 1.2.3.4\r\nForwarded: for=1\r\nCookie: c=d\r\n\
         X-User: root\r\nMcp-Param-Region: eu\r\n",
    );
    let parser = parsed(&head);
    let names: Vec<&[u8]> = parser.upstream_fields(&head).map(|(name, _)| name).collect();
    let expected: [&[u8]; 3] = [b"Mcp-Name", b"Content-Type", b"Mcp-Param-Region"];
    assert_eq!(names, expected);
    assert!(!parser.keep_alive());
}

#[test]
fn request_lines() {
    let line = |line: &str| format!("{line}\r\nHost: a\r\n\r\n").into_bytes();
    for (first, why) in [
        ("GET /", Reject::RequestMalformed),
        ("GET  / HTTP/1.1", Reject::RequestMalformed),
        ("GET /  HTTP/1.1", Reject::RequestMalformed),
        ("GET / HTTP/1.1 ", Reject::RequestMalformed),
        (" GET / HTTP/1.1", Reject::RequestMalformed),
        ("GET\t/ HTTP/1.1", Reject::RequestMalformed),
        ("GET /\tHTTP/1.1", Reject::RequestMalformed),
        ("GET /a b HTTP/1.1", Reject::RequestMalformed),
        ("GET / http/1.1", Reject::RequestMalformed),
        ("GET / HTTP/1.10", Reject::RequestMalformed),
        ("GET / HTTP/11", Reject::RequestMalformed),
        ("GET / HTTP/1,1", Reject::RequestMalformed),
        ("GET / HTTPS/1.1", Reject::RequestMalformed),
        ("GET / HTTP/1.2", Reject::RequestVersion),
        ("GET / HTTP/2.0", Reject::RequestVersion),
        ("GET / HTTP/0.9", Reject::RequestVersion),
        ("PRI * HTTP/2.0", Reject::RequestVersion),
        ("G(T / HTTP/1.1", Reject::RequestMalformed),
        ("GET http://a/ HTTP/1.1", Reject::RequestMalformed),
        ("GET http://evil/ HTTP/1.1", Reject::RequestMalformed),
        ("GET a:80 HTTP/1.1", Reject::RequestMalformed),
        ("GET * HTTP/1.1", Reject::RequestMalformed),
        ("GET mcp HTTP/1.1", Reject::RequestMalformed),
        ("GET /a#b HTTP/1.1", Reject::RequestMalformed),
        ("GET /?a#b HTTP/1.1", Reject::RequestMalformed),
        ("GET /a\\b HTTP/1.1", Reject::RequestMalformed),
        ("GET /a%2 HTTP/1.1", Reject::RequestMalformed),
        ("GET /a%zz HTTP/1.1", Reject::RequestMalformed),
        ("GET /\u{fc} HTTP/1.1", Reject::RequestMalformed),
        ("THISMETHODNAMEISMUCHLONGERTHANANYBODYNEEDS / HTTP/1.1", Reject::RequestMalformed),
    ] {
        refuses(&line(first), why);
    }
    for (first, method, target) in [
        ("CONNECT a:443 HTTP/1.1", Method::Connect, "a:443"),
        ("OPTIONS * HTTP/1.1", Method::Options, "*"),
        ("get /mcp HTTP/1.1", Method::Other, "/mcp"),
        ("PATCH /mcp HTTP/1.1", Method::Other, "/mcp"),
        ("GET /a%2Fb?c={d}|%e^ HTTP/1.1", Method::Get, "/a%2Fb?c={d}|%e^"),
        ("HEAD // HTTP/1.1", Method::Head, "//"),
    ] {
        let head = line(first);
        let parser = parsed(&head);
        assert_eq!((parser.method(), parser.target(&head)), (method, target.as_bytes()), "{first}");
        assert_eq!(parser.keep_alive(), method != Method::Connect);
        assert_eq!(read(&head).requests.len(), 1, "{first}");
    }
    assert!(!parsed(&line("GET / HTTP/1.0")).keep_alive());
}

#[test]
fn one_empty_line_before_a_request_is_skipped() {
    let request = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let two = format!("\r\n{request}\r\n{request}");
    let reading = read(two.as_bytes());
    assert_eq!((reading.requests.len(), reading.refused), (2, None));
    assert_eq!(reading.consumed, two.len());
    refuses(format!("\r\n\r\n{request}").as_bytes(), Reject::RequestMalformed);
    refuses(format!("\r{request}").as_bytes(), Reject::RequestMalformed);
}

#[test]
fn h25_a_pipelined_request_has_its_own_fields_only() {
    let stream = b"POST /a HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer one\r\n\
        Content-Length: 3\r\n\r\nabcGET /b HTTP/1.1\r\nHost: a\r\n\r\n";
    let reading = read(stream);
    assert_eq!(reading.requests.len(), 2);
    assert_eq!(reading.requests[0].body, b"abc");
    assert_eq!(reading.requests[1].fields.len(), 1, "{:?}", reading.requests[1].fields);
    let mut parser = RequestHead::new();
    let length = parser.parse(stream).unwrap().unwrap();
    parser.reset();
    let rest = &stream[length + 3..];
    assert_eq!(parser.parse(rest), Ok(Some(rest.len())));
    assert_eq!(parser.field(rest, Field::Authorization), None);
    assert_eq!(parser.framing(), Framing::None);
}

#[test]
fn what_was_scanned_is_not_scanned_again() {
    // A rescan would stumble over the line feeds that replace the bytes already seen.
    let mut buf = b"GET /aaaaaaaaaaaaaaaaaaaaaa".to_vec();
    let mut parser = RequestHead::new();
    assert_eq!(parser.parse(&buf), Ok(None));
    for _ in 0..1000 {
        buf.fill(b'\n');
        buf.push(b'a');
        assert_eq!(parser.parse(&buf), Ok(None));
    }
}

#[test]
fn a_verdict_stays_and_a_refused_head_keeps_nothing_alive() {
    let mut parser = RequestHead::new();
    let bad = with("Content-Length: x\r\n");
    assert_eq!(parser.parse(&bad), Err(Reject::RequestFraming));
    assert_eq!(parser.parse(&with("")), Err(Reject::RequestFraming));
    assert!(!parser.keep_alive());
    parser.reset();
    let good = with("");
    assert_eq!(parser.parse(&good), Ok(Some(good.len())));
    assert_eq!(parser.parse(&good), Ok(Some(good.len())));
    assert_eq!(parser.fields(&good).count(), 1);
}
