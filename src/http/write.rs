//! Writers for heads and chunks. Append-only, without the formatting machinery.

use super::bytes::is_tchar;
use crate::reject::Reject;

/// What ends a chunked body without trailers.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";
/// What ends a line, a chunk and, after the last field, a head.
pub const CRLF: &[u8] = b"\r\n";
/// The interim answer to `Expect: 100-continue` (RFC 9110 §15.2.1).
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// `HTTP/1.1 <status> <reason>` with its line end.
pub fn status_line(status: u16, out: &mut Vec<u8>) {
    if status == 200 {
        return out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
    }
    out.extend_from_slice(b"HTTP/1.1 ");
    decimal(u64::from(status), out);
    out.push(b' ');
    out.extend_from_slice(reason(status).as_bytes());
    out.extend_from_slice(CRLF);
}

/// `<method> <target> HTTP/1.1` with its line end.
///
/// # Errors
/// `GatewayFault` when method or target would break the line; nothing is written then.
pub fn request_line(method: &str, target: &[u8], out: &mut Vec<u8>) -> Result<(), Reject> {
    let method_is_sound = !method.is_empty() && method.bytes().all(is_tchar);
    if !method_is_sound || target.is_empty() || !target.iter().all(u8::is_ascii_graphic) {
        return Err(Reject::GatewayFault);
    }
    out.extend_from_slice(method.as_bytes());
    out.push(b' ');
    out.extend_from_slice(target);
    out.extend_from_slice(b" HTTP/1.1\r\n");
    Ok(())
}

/// One field line.
///
/// # Errors
/// `GatewayFault` when name or value would break the line, and nothing is written: a value may come
/// out of a file or a vault, and a line end in it would be a field, or a request, of its own.
pub fn header(name: &[u8], value: &[u8], out: &mut Vec<u8>) -> Result<(), Reject> {
    let name_is_sound = !name.is_empty() && name.iter().all(|byte| is_tchar(*byte));
    // Without an early end the compiler looks at many bytes at once.
    let value_is_sound = value.iter().fold(true, |sound, byte| sound & is_value_byte(*byte));
    if !name_is_sound || !value_is_sound {
        return Err(Reject::GatewayFault);
    }
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(CRLF);
    Ok(())
}

/// `Content-Length: <length>` with its line end.
pub fn content_length(length: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(b"content-length: ");
    decimal(length, out);
    out.extend_from_slice(CRLF);
}

/// A number in decimal digits.
pub fn decimal(number: u64, out: &mut Vec<u8>) {
    digits::<10>(number, out);
}

/// The size line of a chunk of `size` bytes. The caller writes the bytes and [`CRLF`] after it. A
/// size of zero would end the body; nothing is written for it.
pub fn chunk_header(size: usize, out: &mut Vec<u8>) {
    if size > 0 {
        digits::<16>(size as u64, out);
        out.extend_from_slice(CRLF);
    }
}

fn digits<const BASE: u64>(mut number: u64, out: &mut Vec<u8>) {
    let mut text = [b'0'; DECIMAL_DIGITS_MAX];
    let mut written = 0;
    for place in text.iter_mut().rev() {
        *place = DIGITS.get((number % BASE) as usize).copied().unwrap_or(b'0');
        number /= BASE;
        written += 1;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(text.get(text.len() - written..).unwrap_or_default());
}

/// RFC 9110 §5.5: visible characters, space, tab and obs-text.
const fn is_value_byte(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

/// RFC 9110 §15; the empty phrase is as good as any (RFC 9112 §4).
const fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        408 => "Request Timeout",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "",
    }
}

const DIGITS: &[u8; 16] = b"0123456789abcdef";
/// Of a number of 64 bits; it has fewer in hexadecimal.
const DECIMAL_DIGITS_MAX: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_the_standard_library_would() {
        for number in [0, 1, 9, 10, 255, 4096, 65_535, u64::from(u32::MAX), u64::MAX] {
            let mut out = b"x".to_vec();
            decimal(number, &mut out);
            assert_eq!(out, format!("x{number}").into_bytes());
        }
        for size in [1_usize, 15, 16, 255, 16_384, usize::MAX] {
            let mut out = Vec::new();
            chunk_header(size, &mut out);
            assert_eq!(out, format!("{size:x}\r\n").into_bytes());
        }
        let mut out = Vec::new();
        chunk_header(0, &mut out);
        assert!(out.is_empty(), "a chunk of no bytes would end the body");
    }

    #[test]
    fn lines() {
        let mut out = Vec::new();
        request_line("POST", b"/mcp?x=1", &mut out).unwrap();
        status_line(404, &mut out);
        status_line(200, &mut out);
        header(b"Retry-After", b"1", &mut out).unwrap();
        content_length(0, &mut out);
        out.extend_from_slice(CRLF);
        let expected = "POST /mcp?x=1 HTTP/1.1\r\nHTTP/1.1 404 Not Found\r\nHTTP/1.1 200 OK\r\n\
                        Retry-After: 1\r\ncontent-length: 0\r\n\r\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn nothing_that_breaks_a_line_is_written() {
        let mut out = Vec::new();
        for value in ["a\r\nx: y", "a\nb", "a\rb", "a\0b", "a\x7f"] {
            assert_eq!(header(b"x", value.as_bytes(), &mut out), Err(Reject::GatewayFault));
        }
        for name in ["", "a b", "a:", "a\r\n"] {
            assert_eq!(header(name.as_bytes(), b"v", &mut out), Err(Reject::GatewayFault));
        }
        for target in ["", "/a b", "/a\r\nb", "/\u{fc}"] {
            assert!(request_line("GET", target.as_bytes(), &mut out).is_err(), "{target:?}");
        }
        assert!(request_line("GE T", b"/", &mut out).is_err());
        assert!(out.is_empty());
    }

    #[test]
    fn every_status_of_a_refusal_has_its_phrase() {
        for status in [400, 401, 403, 404, 405, 406, 408, 413, 414, 415, 417, 421, 431] {
            assert!(!reason(status).is_empty(), "{status}");
        }
        for status in [200, 202, 500, 501, 502, 503, 504, 505] {
            assert!(!reason(status).is_empty(), "{status}");
        }
    }
}
