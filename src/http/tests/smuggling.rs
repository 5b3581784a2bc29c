//! Request smuggling (case H31): each payload is refused, or read as exactly these requests.
//!
//! The payloads are ours, in the families that differential tests of HTTP parsers know: two
//! lengths, lengths that parse differently, codings that hide, white space, line ends, folded
//! lines, chunk forms.
//! `next` stands for the request that an attacker wants the hop behind us to see.

use super::*;

enum Expected {
    /// Nothing is read, and the connection ends with this.
    Refused(Reject),
    /// So many requests are read as intended before this ends the connection.
    After(usize, Reject),
    /// These bodies, in order, and nothing is left over.
    Bodies(&'static [&'static str]),
    /// These bodies, and the rest of the stream is an unfinished request or belongs to nobody.
    Unfinished(&'static [&'static str]),
}

use Expected::{After, Bodies, Refused, Unfinished};
use Reject::{RequestClTe, RequestFraming, RequestHost, RequestMalformed, RequestTransferCoding};

const NEXT: &str = "GET /next HTTP/1.1\r\nHost: a\r\n\r\n";

/// `POST / HTTP/1.1`, a Host line, and then these bytes; `{next}` is replaced.
fn stream(rest: &str) -> Vec<u8> {
    format!("POST / HTTP/1.1\r\nHost: a\r\n{}", rest.replace("{next}", NEXT)).into_bytes()
}

fn check(rows: &[(&str, Expected)]) {
    for (rest, expected) in rows {
        judge(&stream(rest), expected);
    }
}

fn judge(stream: &[u8], expected: &Expected) {
    let reading = read(stream);
    let bodies: Vec<&[u8]> = reading.requests.iter().map(|request| &request.body[..]).collect();
    let count = bodies.len();
    match expected {
        Refused(why) => {
            assert_eq!((count, reading.refused), (0, Some(*why)), "{}", show(stream));
        }
        After(before, why) => {
            assert_eq!((count, reading.refused), (*before, Some(*why)), "{}", show(stream));
            assert!(reading.requests.iter().all(|it| it.target != "/next"), "{}", show(stream));
        }
        Bodies(wanted) | Unfinished(wanted) => {
            let wanted: Vec<Vec<u8>> =
                wanted.iter().map(|body| body.replace("{next}", NEXT).into_bytes()).collect();
            assert_eq!(bodies, wanted, "{}", show(stream));
            assert_eq!(reading.refused, None, "{}", show(stream));
            let complete = matches!(expected, Bodies(_));
            assert_eq!(reading.consumed == stream.len(), complete, "{}", show(stream));
            let all_alive = reading.requests.iter().all(|request| request.keep_alive);
            assert_eq!(reading.inside, !complete && all_alive, "{}", show(stream));
        }
    }
    if let Some(why) = reading.refused {
        assert!((400..500).contains(&why.status()) || why.status() == 501, "{}", show(stream));
    }
}

#[test]
fn two_lengths() {
    check(&[
        (
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{next}",
            Refused(RequestClTe),
        ),
        (
            "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n{next}",
            Refused(RequestClTe),
        ),
        ("Transfer-Encoding: x\r\nContent-Length: 0\r\n\r\n{next}", Refused(RequestClTe)),
        ("Transfer-Encoding:\r\nContent-Length: 0\r\n\r\n{next}", Refused(RequestClTe)),
        (
            "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\
             Content-Length: 3\r\n\r\n{next}",
            Refused(RequestFraming),
        ),
        ("Content-Length: 0\r\nContent-Length: 31\r\n\r\n{next}", Refused(RequestFraming)),
        ("Content-Length: 31\r\nContent-Length: 0\r\n\r\n{next}", Refused(RequestFraming)),
        ("Content-Length: 0\r\nCONTENT-LENGTH: 0\r\n\r\n{next}", Refused(RequestFraming)),
        ("Content-Length: 0,31\r\n\r\n{next}", Refused(RequestFraming)),
        ("Content-Length: 0\r\nContent-Length:\r\n\r\n{next}", Refused(RequestFraming)),
    ]);
}

#[test]
fn lengths_that_parse_differently() {
    check(&[
        ("Content-Length: +0\r\n\r\n{next}", Refused(RequestFraming)),
        ("Content-Length: -0\r\n\r\n{next}", Refused(RequestFraming)),
        ("Content-Length: 0x0\r\n\r\n{next}", Refused(RequestFraming)),
        ("Content-Length: 010\r\n\r\n{next}", Refused(RequestFraming)),
        ("Content-Length: 0_0\r\n\r\n{next}", Refused(RequestFraming)),
        ("Content-Length: 0 0\r\n\r\n{next}", Refused(RequestFraming)),
        ("Content-Length: 0;a\r\n\r\n{next}", Refused(RequestFraming)),
        ("Content-Length: \"0\"\r\n\r\n{next}", Refused(RequestFraming)),
        ("Content-Length: 0\u{a0}\r\n\r\n{next}", Refused(RequestFraming)),
        ("Content-Length: 18446744073709551616\r\n\r\n{next}", Refused(RequestFraming)),
        ("Content-Length: 4294967296\r\n\r\n{next}", Refused(Reject::RequestBodyTooLarge)),
        ("Content-Length: 0\r\n\r\n{next}", Bodies(&["", ""])),
        ("Content-Length:\t0 \t \r\n\r\n{next}", Bodies(&["", ""])),
        ("Content-Length: 31\r\n\r\n{next}", Bodies(&["{next}"])),
        ("Content-Length: 32\r\n\r\n{next}", Unfinished(&[])),
        ("Content_Length: 31\r\n\r\n{next}", Bodies(&["", ""])),
        ("X-Content-Length: 31\r\n\r\n{next}", Bodies(&["", ""])),
    ]);
}

#[test]
fn codings_that_hide() {
    check(&[
        ("Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n{next}", Bodies(&["", ""])),
        ("Transfer-Encoding: cHuNkEd\r\n\r\n3\r\nabc\r\n0\r\n\r\n{next}", Bodies(&["abc", ""])),
        ("Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n{next}", Refused(RequestTransferCoding)),
        ("Transfer-Encoding: chunkedx\r\n\r\n0\r\n\r\n{next}", Refused(RequestTransferCoding)),
        ("Transfer-Encoding: x chunked\r\n\r\n0\r\n\r\n{next}", Refused(RequestTransferCoding)),
        ("Transfer-Encoding: 'chunked'\r\n\r\n0\r\n\r\n{next}", Refused(RequestTransferCoding)),
        ("Transfer-Encoding: chunked;a=b\r\n\r\n0\r\n\r\n{next}", Refused(RequestTransferCoding)),
        ("Transfer-Encoding: identity, chunked\r\n\r\n{next}", Refused(RequestTransferCoding)),
        ("Transfer-Encoding: chunked, identity\r\n\r\n{next}", Refused(RequestFraming)),
        ("Transfer-Encoding: chunked, chunked\r\n\r\n{next}", Refused(RequestFraming)),
        ("Transfer-Encoding: ,chunked\r\n\r\n{next}", Refused(RequestFraming)),
        ("Transfer-Encoding: chunked,\r\n\r\n{next}", Refused(RequestFraming)),
        (
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n{next}",
            Refused(RequestFraming),
        ),
        ("Transfer-Encoding: \x0bchunked\r\n\r\n{next}", Refused(RequestMalformed)),
        ("Transfer-Encoding: chunked\x0c\r\n\r\n{next}", Refused(RequestMalformed)),
        ("Transfer-Encoding: chunked\x7f\r\n\r\n{next}", Refused(RequestMalformed)),
        ("Transfer-Encoding: \u{ff}chunked\r\n\r\n{next}", Refused(RequestTransferCoding)),
        // Another field: no body here, whoever treats `_` as `-` gets neither field from us.
        ("Transfer_Encoding: chunked\r\n\r\n{next}", Bodies(&["", ""])),
        ("TE: chunked\r\n\r\n{next}", Bodies(&["", ""])),
    ]);
}

#[test]
fn white_space_line_ends_and_folds() {
    check(&[
        ("Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n{next}", Refused(RequestMalformed)),
        ("Transfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n{next}", Refused(RequestMalformed)),
        ("Transfer-Encoding\r\n: chunked\r\n\r\n{next}", Refused(RequestMalformed)),
        ("Transfer-Encoding:\r\n chunked\r\n\r\n{next}", Refused(RequestMalformed)),
        ("Transfer-Encoding:\r\n\tchunked\r\n\r\n{next}", Refused(RequestMalformed)),
        (" Transfer-Encoding: chunked\r\n\r\n{next}", Refused(RequestMalformed)),
        ("X: a\r\n Transfer-Encoding: chunked\r\n\r\n{next}", Refused(RequestMalformed)),
        ("X: a\nTransfer-Encoding: chunked\r\n\r\n{next}", Refused(RequestMalformed)),
        ("X: a\rTransfer-Encoding: chunked\r\n\r\n{next}", Refused(RequestMalformed)),
        ("X: a\r\r\nTransfer-Encoding: chunked\r\n\r\n{next}", Refused(RequestMalformed)),
        ("X: a\n\n{next}", Refused(RequestMalformed)),
        ("X: a\r\n\n{next}", Refused(RequestMalformed)),
        ("X: a\n\r\n{next}", Refused(RequestMalformed)),
        ("X: a\r\n\r{next}", Refused(RequestMalformed)),
        ("X: a\r\n\r\r\n{next}", Refused(RequestMalformed)),
        ("\0Transfer-Encoding: chunked\r\n\r\n{next}", Refused(RequestMalformed)),
        ("Transfer-Encoding\0: chunked\r\n\r\n{next}", Refused(RequestMalformed)),
        ("Transfer\u{ad}Encoding: chunked\r\n\r\n{next}", Refused(RequestMalformed)),
        ("X\r\n\r\n{next}", Refused(RequestMalformed)),
        ("GET /next HTTP/1.1\r\nHost: a\r\n\r\n", Refused(RequestMalformed)),
        ("Host: b\r\n\r\n{next}", Refused(RequestHost)),
        ("X: \"a\r\nContent-Length: 31\"\r\n\r\n{next}", Refused(RequestFraming)),
    ]);
}

#[test]
fn chunk_forms() {
    let rows = [
        ("0x0\r\n\r\n{next}", Refused(RequestFraming)),
        ("+0\r\n\r\n{next}", Refused(RequestFraming)),
        ("-0\r\n\r\n{next}", Refused(RequestFraming)),
        ("0 \r\n\r\n{next}", Refused(RequestFraming)),
        (" 0\r\n\r\n{next}", Refused(RequestFraming)),
        ("0_0\r\n\r\n{next}", Refused(RequestFraming)),
        ("0\n\r\n{next}", Refused(RequestFraming)),
        ("0\r\n\n{next}", Refused(RequestFraming)),
        ("0\n\n{next}", Refused(RequestFraming)),
        ("\r\n0\r\n\r\n{next}", Refused(RequestFraming)),
        ("\r\n\r\n{next}", Refused(RequestFraming)),
        ("3\r\nabcX\r\n0\r\n\r\n{next}", Refused(RequestFraming)),
        ("3\r\nab\r\n0\r\n\r\n{next}", Refused(RequestFraming)),
        ("3\r\nabc\n0\r\n\r\n{next}", Refused(RequestFraming)),
        ("3\r\nabcXX0\r\n\r\n{next}", Refused(RequestFraming)),
        ("10000000000000000\r\n{next}", Refused(RequestFraming)),
        ("00000000000000000\r\n\r\n{next}", Refused(RequestFraming)),
        ("100000000\r\n{next}", Refused(Reject::RequestBodyTooLarge)),
        ("0;\n\r\n{next}", Refused(RequestFraming)),
        ("0;a=\"\r\n\r\n{next}\"\r\n", Refused(RequestFraming)),
        ("0;a=\"\\\"\r\n\r\n{next}", Refused(RequestFraming)),
        ("0;a=\"\\\"\"\r\n\r\n{next}", Bodies(&["", ""])),
        ("1;a\rb\r\nx\r\n0\r\n\r\n{next}", Refused(RequestFraming)),
        ("0;a=\"\n\"\r\n\r\n{next}", Refused(RequestFraming)),
        ("0 ;a\r\n\r\n{next}", Refused(RequestFraming)),
        ("0\r\nContent-Length: 31\r\n\r\n{next}", Refused(RequestFraming)),
        ("0\r\nTransfer-Encoding: chunked\r\n\r\n{next}", Refused(RequestFraming)),
        ("0\r\nX: a\n\r\n{next}", Refused(RequestFraming)),
        ("0\r\nX: a\r\n b\r\n\r\n{next}", Refused(RequestFraming)),
        ("0\r\nGET /next HTTP/1.1\r\nHost: a\r\n\r\n", Refused(RequestFraming)),
        ("0;a\r\nX: a\r\n\r\n{next}", Bodies(&["", ""])),
        ("1f\r\n{next}\r\n0\r\n\r\n", Bodies(&["{next}"])),
        ("1F;x\r\n{next}\r\n0\r\n\r\n{next}", Bodies(&["{next}", ""])),
        ("000\r\n\r\n{next}", Bodies(&["", ""])),
        ("0\r\n\r\n\r\n{next}", Bodies(&["", ""])),
        ("0\r\n\r\n\r\n\r\n{next}", After(1, RequestMalformed)),
        ("3\r\nabc\r\n", Unfinished(&[])),
    ];
    for (body, expected) in &rows {
        judge(&stream(&format!("Transfer-Encoding: chunked\r\n\r\n{body}")), expected);
    }
}

#[test]
fn versions_and_the_end_of_a_connection() {
    let rows = [
        (
            "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{next}",
            Refused(RequestFraming),
        ),
        ("POST / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n{next}", Unfinished(&[""])),
        ("POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n{next}", Unfinished(&[""])),
        ("CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n{next}", Unfinished(&[""])),
        ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 31\r\n\r\n{next}", Bodies(&["{next}"])),
        ("HEAD / HTTP/1.1\r\nHost: a\r\nContent-Length: 31\r\n\r\n{next}", Bodies(&["{next}"])),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n{next}",
            Bodies(&["", ""]),
        ),
        ("GET / HTTP/1.1 HTTP/1.0\r\nHost: a\r\n\r\n{next}", Refused(RequestMalformed)),
        ("GET /\r\n{next}", Refused(RequestMalformed)),
        ("GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n{next}", Refused(RequestMalformed)),
        ("{next}\r\n{next}", Bodies(&["", ""])),
        ("{next}\n{next}", After(1, RequestMalformed)),
    ];
    for (text, expected) in &rows {
        let stream = text.replace("{next}", NEXT);
        let reading = read(stream.as_bytes());
        match expected {
            // `judge` forbids the sight of /next, which here is the honest first request.
            After(before, why) => {
                assert_eq!((reading.requests.len(), reading.refused), (*before, Some(*why)));
            }
            Refused(_) | Bodies(_) | Unfinished(_) => judge(stream.as_bytes(), expected),
        }
    }
}
