//! Bodies: cases H09–H11, H26 and the announced lengths.

use super::*;
use crate::limits;

/// What a chunked body of `bytes` is, whole, cut and dripped: body and consumed length, or the
/// refusal.
fn chunked(bytes: &[u8]) -> Result<Option<(Vec<u8>, usize)>, Reject> {
    let whole = chunked_cut(bytes, &[]);
    for cut in 0..bytes.len() {
        assert_eq!(chunked_cut(bytes, &[cut]), whole, "{} cut at {cut}", show(bytes));
    }
    let every: Vec<usize> = (0..bytes.len()).collect();
    assert_eq!(chunked_cut(bytes, &every), whole, "{} dripped", show(bytes));
    whole
}

pub(super) fn chunked_cut(
    bytes: &[u8],
    cuts: &[usize],
) -> Result<Option<(Vec<u8>, usize)>, Reject> {
    let mut decoder = BodyDecoder::new(Framing::Chunked, BODY_MAX).unwrap();
    let (mut body, mut consumed) = (Vec::new(), 0);
    for end in cuts.iter().copied().chain([bytes.len()]) {
        loop {
            let step = decoder.decode(&bytes[consumed..end])?;
            body.extend_from_slice(&bytes[consumed..end][step.data.clone()]);
            assert!(step.data.end <= step.consumed);
            consumed += step.consumed;
            if step.done {
                return Ok(Some((body, consumed)));
            }
            if consumed == end {
                break;
            }
            assert!(step.consumed > 0, "no progress");
        }
    }
    Ok(None)
}

fn is(bytes: &str, body: &str) {
    let next = format!("{bytes}GET");
    let expected = Ok(Some((body.as_bytes().to_vec(), bytes.len())));
    assert_eq!(chunked(next.as_bytes()), expected, "{bytes:?}");
}

fn is_refused(bytes: &str) {
    assert_eq!(chunked(bytes.as_bytes()), Err(Reject::RequestFraming), "{bytes:?}");
}

#[test]
fn chunks_are_joined() {
    is("0\r\n\r\n", "");
    is("3\r\nabc\r\n0\r\n\r\n", "abc");
    is("3\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\n", "abc0123456789");
    is("0000000000000003\r\nabc\r\n000\r\n\r\n", "abc");
    is("2\r\n\r\n\r\n0\r\n\r\n", "\r\n");
}

#[test]
fn h09_chunk_sizes() {
    for size in [
        "0x3",
        "1_0",
        "-1",
        "+3",
        " 3",
        "3 ",
        "\t3",
        "3\t",
        "3,3",
        "g",
        "\u{ff13}",
        "",
        "00000000000000003",
        "FFFFFFFFFFFFFFF0",
        "FFFFFFFFFFFFFFFF",
        "8000000000000000",
        "3\0",
        "3 ;x",
        "3\r;x",
        "\"3\"",
    ] {
        is_refused(&format!("{size}\r\nabc\r\n0\r\n\r\n"));
    }
    // Sizes that are numbers but above the bound: refused before a byte of the chunk is there.
    for size in ["1001", "7FFFFFFFFFFFFFFF"] {
        let start = format!("{size}\r\n");
        assert_eq!(chunked(start.as_bytes()), Err(Reject::RequestBodyTooLarge), "{size}");
    }
    let two = format!("1000\r\n{}\r\n1\r\n", "x".repeat(4096));
    assert_eq!(
        chunked_cut(two.as_bytes(), &[]),
        Err(Reject::RequestBodyTooLarge),
        "the sum counts"
    );
    // Without a wait: seventeen digits or an empty line are enough.
    let mut decoder = BodyDecoder::new(Framing::Chunked, BODY_MAX).unwrap();
    assert_eq!(decoder.decode(b"00000000000000000"), Err(Reject::RequestFraming));
    let mut decoder = BodyDecoder::new(Framing::Chunked, BODY_MAX).unwrap();
    assert_eq!(decoder.decode(b"\r"), Err(Reject::RequestFraming));
}

#[test]
fn chunks_end_with_crlf() {
    for body in [
        "3\nabc\r\n0\r\n\r\n",
        "3\r\nabc\n0\r\n\r\n",
        "3\r\nabc0\r\n\r\n",
        "3\r\nabcd\r\n0\r\n\r\n",
        "3\r\nabc\r0\r\n\r\n",
        "3\r\nabcX\n0\r\n\r\n",
        "3\r\nabc\rX0\r\n\r\n",
        "0\r\r\r\n",
        ";x\r\n\r\n",
        "3\rabc\r\n0\r\n\r\n",
        "3\r\r\nabc\r\n0\r\n\r\n",
        "3\r\nabc\r\n\r\n0\r\n\r\n",
        "3\r\nabc\r\n0\n\r\n",
        "3\r\nabc\r\n0\r\n\n",
        "3\r\nabc\r\n0\r\n\rx",
    ] {
        is_refused(body);
    }
}

#[test]
fn h10_extensions_are_dropped_and_bounded() {
    is("3;a=b\r\nabc\r\n0;c=\"d e\"\r\n\r\n", "abc");
    is("3;\r\nabc\r\n0\r\n\r\n", "abc");
    is("3;a;b;c\tx\r\nabc\r\n0\r\n\r\n", "abc");
    for body in
        ["3;a\nabc\r\n0\r\n\r\n", "3;a\rb\r\nabc", "3;\0\r\n", "3;\u{fc}\r\n", "3;a\x7f\r\n"]
    {
        is_refused(body);
    }
    // One line, its CR included.
    let line = |length: usize| format!("3;{}\r\nabc\r\n0\r\n\r\n", "x".repeat(length));
    let fits = limits::CHUNK_LINE_BYTES_MAX - "3;\r".len();
    is(&line(fits), "abc");
    is_refused(&line(fits + 1));
    // All of a body, their semicolons included.
    let chunk = |length: usize| format!("1;{}\r\na\r\n", "x".repeat(length));
    let four = chunk(127).repeat(limits::CHUNK_EXTENSION_BYTES_MAX / 128);
    let fits = format!("{four}0\r\n\r\n");
    let body = "a".repeat(limits::CHUNK_EXTENSION_BYTES_MAX / 128).into_bytes();
    assert_eq!(chunked_cut(fits.as_bytes(), &[]), Ok(Some((body, fits.len()))));
    let over = format!("{four}0;\r\n\r\n");
    assert_eq!(chunked_cut(over.as_bytes(), &[]), Err(Reject::RequestFraming));
}

#[test]
fn h11_trailers_are_dropped_bounded_and_never_change_the_message() {
    is("3\r\nabc\r\n0\r\nX-Sum: 1\r\ny:\r\n\r\n", "abc");
    for name in [
        "Authorization",
        "CONTENT-LENGTH",
        "transfer-encoding",
        "Host",
        "Cookie",
        "Set-Cookie",
        "Mcp-Name",
        "mcp-session-id",
        "MCP-Param-X",
        "Content-Type",
        "Content-Encoding",
        "Trailer",
        "Connection",
        "TE",
        "Proxy-Authorization",
        "X-Forwarded-For",
        "Forwarded",
        "Origin",
        "Expect",
    ] {
        is_refused(&format!("0\r\n{name}: x\r\n\r\n"));
    }
    let long = format!("mcp-{}", "x".repeat(64));
    is_refused(&format!("0\r\n{long}: x\r\n\r\n"));
    is(&format!("0\r\n{}: x\r\n\r\n", "x".repeat(64)), "");
    for lines in [
        "X: a\n",
        "X : a\r\n",
        " X: a\r\n",
        "X: a\r\n b\r\n",
        ": a\r\n",
        "X\r\n",
        "X: a\0\r\n",
        "X: a\rb\r\n",
        "X: a\x7f\r\n",
        "\u{fc}: a\r\n",
    ] {
        is_refused(&format!("0\r\n{lines}\r\n"));
    }
    let lines = |count: usize| format!("0\r\n{}\r\n", "a:b\r\n".repeat(count));
    is(&lines(limits::TRAILER_LINES_MAX), "");
    is_refused(&lines(limits::TRAILER_LINES_MAX + 1));
    let sized = |length: usize| format!("0\r\na:{}\r\n\r\n", "x".repeat(length - "a:\r\n".len()));
    let fits = sized(limits::TRAILER_BYTES_MAX);
    assert_eq!(chunked_cut(fits.as_bytes(), &[]), Ok(Some((Vec::new(), fits.len()))));
    let over = sized(limits::TRAILER_BYTES_MAX + 1);
    assert_eq!(chunked_cut(over.as_bytes(), &[]), Err(Reject::RequestFraming));
}

#[test]
fn a_length_above_the_bound_is_refused_before_a_byte_is_read() {
    for (length, fits) in [(BODY_MAX, true), (BODY_MAX + 1, false), (u64::MAX, false)] {
        let decoder = BodyDecoder::new(Framing::Length(length), BODY_MAX);
        assert_eq!(decoder.err(), (!fits).then_some(Reject::RequestBodyTooLarge));
    }
}

#[test]
fn a_body_of_known_length_takes_its_bytes_and_no_other() {
    let mut decoder = BodyDecoder::new(Framing::Length(5), BODY_MAX).unwrap();
    let step = decoder.decode(b"abc").unwrap();
    assert_eq!(step, Step { consumed: 3, data: 0..3, done: false });
    let step = decoder.decode(b"deGET /").unwrap();
    assert_eq!(step, Step { consumed: 2, data: 0..2, done: true });
    let step = decoder.decode(b"GET /").unwrap();
    assert_eq!(step, Step { consumed: 0, data: 0..0, done: true });
    for framing in [Framing::None, Framing::Length(0)] {
        let mut decoder = BodyDecoder::new(framing, BODY_MAX).unwrap();
        assert!(decoder.finished());
        assert_eq!(decoder.decode(b"x").unwrap(), Step { consumed: 0, data: 0..0, done: true });
    }
}

#[test]
fn h26_the_end_of_input_inside_of_a_body() {
    let after = |framing: Framing, input: &[u8]| {
        let mut decoder = BodyDecoder::new(framing, BODY_MAX).unwrap();
        let mut rest = input;
        while !rest.is_empty() && !decoder.finished() {
            let step = decoder.decode(rest).unwrap();
            rest = &rest[step.consumed..];
        }
        decoder.end_of_input()
    };
    assert_eq!(after(Framing::Length(3), b"ab"), Err(Reject::RequestAborted));
    assert_eq!(after(Framing::Length(3), b"abc"), Ok(()));
    assert_eq!(after(Framing::None, b""), Ok(()));
    assert_eq!(after(Framing::UntilClose, b"anything"), Ok(()));
    let whole = b"3;x\r\nabc\r\n0\r\na: b\r\n\r\n";
    for end in 0..whole.len() {
        assert_eq!(after(Framing::Chunked, &whole[..end]), Err(Reject::RequestAborted), "{end}");
    }
    assert_eq!(after(Framing::Chunked, whole), Ok(()));
}

#[test]
fn a_body_that_ends_with_the_connection_is_bounded_too() {
    let mut decoder = BodyDecoder::new(Framing::UntilClose, 4).unwrap();
    assert_eq!(decoder.decode(b"").unwrap(), Step { consumed: 0, data: 0..0, done: false });
    assert_eq!(decoder.decode(b"abc").unwrap(), Step { consumed: 3, data: 0..3, done: false });
    assert!(decoder.decode(b"d").is_ok() && !decoder.finished());
    assert_eq!(decoder.decode(b"e"), Err(Reject::RequestBodyTooLarge));
}
