//! Whom a proxy in front of us speaks for: the `Forwarded` field (RFC 7239).
//!
//! Each proxy appends what it saw, so only what trusted ones appended may be believed: the list is
//! walked from its end for as long as the hop is trusted, and the first that is not is the client.
//! When all are trusted, none is the client. What stands before the client was sent by it and means
//! nothing; it must be well formed all the same, because a quote that never closes would swallow
//! what the proxy appended after it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::bytes::is_tchar;
use crate::limits::{FORWARDED_BYTES_MAX, FORWARDED_ELEMENTS_MAX};
use crate::reject::Reject;

/// The client's address, from the values of all `Forwarded` fields in their order. Asked only when
/// the TCP peer is itself trusted.
///
/// # Errors
/// `RequestSource` when nothing was forwarded, when it is malformed or beyond its bounds, when the
/// hop that decides is `unknown`, obfuscated (RFC 7239 §6.2, §6.3) or not named, or when every hop
/// is trusted: a proxy's own address must not stand in for a client's.
pub fn client<'a>(
    values: impl Iterator<Item = &'a [u8]>,
    trusted: impl Fn(IpAddr) -> bool,
) -> Result<IpAddr, Reject> {
    let mut hops = Hops { list: [None; FORWARDED_ELEMENTS_MAX], count: 0 };
    let mut bytes = 0;
    for value in values {
        bytes += value.len();
        if bytes > FORWARDED_BYTES_MAX {
            return Err(Reject::RequestSource);
        }
        read(value, &mut hops).ok_or(Reject::RequestSource)?;
    }
    let seen = hops.list.get(..hops.count).unwrap_or_default();
    for hop in seen.iter().rev() {
        let address = hop.ok_or(Reject::RequestSource)?;
        if !trusted(address) {
            return Ok(address);
        }
    }
    Err(Reject::RequestSource)
}

/// The `for` of each element; `None` for one that names no address.
struct Hops {
    list: [Option<IpAddr>; FORWARDED_ELEMENTS_MAX],
    count: usize,
}

/// RFC 7239 §4: `1#( [ pair ] *( ";" [ pair ] ) )`. Empty elements are passed over (RFC 9110
/// §5.6.1.2). `None`: malformed, or too many.
fn read(value: &[u8], hops: &mut Hops) -> Option<()> {
    let mut rest = value;
    loop {
        let mut element = Element::default();
        loop {
            rest = rest.trim_ascii_start();
            if !matches!(rest.first(), None | Some(b',' | b';')) {
                rest = pair(rest, &mut element)?;
            }
            rest = rest.trim_ascii_start();
            match rest.split_first() {
                Some((b';', after)) => rest = after,
                None | Some((b',', _)) => break,
                Some(_) => return None,
            }
        }
        if element.pairs > 0 {
            *hops.list.get_mut(hops.count)? = element.client;
            hops.count += 1;
        }
        match rest.split_first() {
            Some((_, after)) => rest = after,
            None => return Some(()),
        }
    }
}

#[derive(Default)]
struct Element {
    pairs: usize,
    /// `for` was there; once only (§4: "MUST NOT occur more than once").
    named: bool,
    client: Option<IpAddr>,
}

/// `token "=" value`; answers what follows.
fn pair<'a>(text: &'a [u8], element: &mut Element) -> Option<&'a [u8]> {
    let (name, rest) = token(text)?;
    let rest = rest.strip_prefix(b"=")?;
    element.pairs += 1;
    let is_for = name.eq_ignore_ascii_case(b"for");
    if is_for && std::mem::replace(&mut element.named, true) {
        return None;
    }
    let (value, rest) = match rest.strip_prefix(b"\"") {
        Some(quoted) => quoted_string(quoted)?,
        None => token(rest)?,
    };
    if is_for {
        element.client = node(value);
    }
    Some(rest)
}

fn token(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = text.iter().position(|byte| !is_tchar(*byte)).unwrap_or(text.len());
    if end == 0 { None } else { text.split_at_checked(end) }
}

/// What is quoted, and what follows the closing quote. An address needs no escaped character, so
/// one with any is no address; it is passed over as it is.
fn quoted_string(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut escaped = false;
    for (at, byte) in text.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return Some((text.get(..at)?, text.get(at + 1..)?)),
            b'\t' | b' '..=b'~' | 0x80.. => {}
            _ => return None,
        }
    }
    None
}

/// RFC 7239 §6: `IPv4 [":" port]` or `"[" IPv6 "]" [":" port]`. `None` for `unknown`, for an
/// obfuscated name, and for anything else that is no address of somebody.
fn node(value: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(value).ok()?;
    let (address, port): (IpAddr, &str) = match text.strip_prefix('[') {
        Some(bracketed) => {
            let (address, port) = bracketed.split_once(']')?;
            (address.parse::<Ipv6Addr>().ok()?.into(), port)
        }
        None => {
            let end = text.find(':').unwrap_or(text.len());
            let (address, port) = text.split_at_checked(end)?;
            (address.parse::<Ipv4Addr>().ok()?.into(), port)
        }
    };
    if !port.is_empty() && !is_port(port.strip_prefix(':')?) {
        return None;
    }
    let address = address.to_canonical();
    let nobody = address.is_unspecified() || address.is_multicast();
    (!nobody).then_some(address)
}

/// RFC 7239 §6: `1*5DIGIT`, or an obfuscated port.
fn is_port(text: &str) -> bool {
    let digits = (1..=5).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    let obfuscated = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    digits || text.len() > 1 && text.starts_with('_') && text.bytes().all(obfuscated)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(values: &[&str]) -> Option<String> {
        let trusted = |address: IpAddr| address.to_string().starts_with("10.");
        let values = values.iter().map(|value| value.as_bytes());
        client(values, trusted).ok().map(|address| address.to_string())
    }

    #[test]
    fn the_client_is_the_last_hop_that_is_not_trusted() {
        let table: [(&[&str], &str); 14] = [
            (&["for=203.0.113.9"], "203.0.113.9"),
            (&["For=203.0.113.9;proto=https;by=10.0.0.1"], "203.0.113.9"),
            (&["for=\"203.0.113.9:4711\""], "203.0.113.9"),
            (&["for=\"203.0.113.9:_port\""], "203.0.113.9"),
            (&["for=\"[2001:db8:cafe::17]:4711\""], "2001:db8:cafe::17"),
            (&["for=\"[2001:db8:cafe::17]\""], "2001:db8:cafe::17"),
            (&["for=\"[::ffff:203.0.113.9]\""], "203.0.113.9"),
            (&["for=198.51.100.1, for=203.0.113.9"], "203.0.113.9"),
            (&["for=198.51.100.1", "for=203.0.113.9"], "203.0.113.9"),
            (&["for=198.51.100.1, for=203.0.113.9, for=10.0.0.7"], "203.0.113.9"),
            (&["for=203.0.113.9", "for=10.0.0.7, for=10.0.0.8"], "203.0.113.9"),
            (&["for=unknown, for=203.0.113.9"], "203.0.113.9"),
            (&["host=\"a,b;for=1.2.3.4\";for=203.0.113.9"], "203.0.113.9"),
            (&[" , for=203.0.113.9 ; ; proto=http ,, "], "203.0.113.9"),
        ];
        for (values, expected) in table {
            assert_eq!(ask(values).as_deref(), Some(expected), "{values:?}");
        }
    }

    #[test]
    fn nothing_usable_is_an_error_and_never_the_proxy() {
        let table: [&[&str]; 32] = [
            &[],
            &[""],
            &[" , ; "],
            &["proto=https"],
            &["for=unknown"],
            &["for=_hidden"],
            &["for=203.0.113.9, for=unknown"],
            &["for=203.0.113.9, proto=https"],
            &["for=203.0.113.9, for=unknown, for=10.0.0.7"],
            &["for=10.0.0.9"],
            &["for=10.0.0.9, for=10.0.0.7"],
            &["for=\"[::ffff:10.0.0.9]\"", "for=10.0.0.7"],
            &["for=203.0.113.9;for=198.51.100.1"],
            &["for=\"203.0.113.9"],
            &["for=\"198.51.100.1, for=203.0.113.9"],
            &["for=\"198.51.100.1", "for=203.0.113.9"],
            &["for=203.0.113.9 for=198.51.100.1"],
            &["for = 203.0.113.9"],
            &["for"],
            &["for="],
            &["=203.0.113.9"],
            &["for=2001:db8::1"],
            &["for=\"2001:db8::1\""],
            &["for=\"[2001:db8::1\""],
            &["for=\"[2001:db8::1%eth0]\""],
            &["for=\"[203.0.113.9]\""],
            &["for=203.0.113.9:4711"],
            &["for=\"203.0.113.9:123456\""],
            &["for=\"203.0.113.9:\""],
            &["for=\"203.0.113.9\\\"\""],
            &["for=0.0.0.0"],
            &["for=\"203.0.113.9\"x"],
        ];
        for values in table {
            assert_eq!(ask(values), None, "{values:?}");
        }
    }

    #[test]
    fn it_is_bounded() {
        let mut many = vec!["for=10.0.0.1"; FORWARDED_ELEMENTS_MAX];
        many[0] = "for=203.0.113.9";
        assert!(ask(&many).is_some());
        assert_eq!(ask(&[&many[..], &["for=10.0.0.1"]].concat()), None);
        let long = format!("for=203.0.113.9;secret={}", "x".repeat(FORWARDED_BYTES_MAX));
        assert_eq!(ask(&[&long]), None);
    }
}
