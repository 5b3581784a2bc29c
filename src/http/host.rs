//! `Host` and `Origin`: are they well formed, and are they ours (RFC 9110 §7.2, RFC 6454, DNS
//! rebinding)?

use std::net::Ipv6Addr;

use super::bytes::is_label;
use crate::limits;

/// A valid `host[:port]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Authority<'a> {
    /// Name or address as written, an IPv6 address with its brackets.
    pub name: &'a str,
    /// The port, when there is one.
    pub port: Option<u16>,
}

/// Reads a `Host` value: a DNS name, an IPv4 address or a bracketed IPv6 address, and maybe a port.
/// Stricter than RFC 3986 §3.2: no user, no percent-encoding, no empty port, no zone; all that ever
/// did was make two parsers see two hosts.
#[must_use]
pub fn parse_host(value: &[u8]) -> Option<Authority<'_>> {
    let (name, port) = split_host(value)?;
    Some(Authority { name: std::str::from_utf8(name).ok()?, port })
}

/// True for what [`parse_host`] can read.
pub(super) fn is_host(value: &[u8]) -> bool {
    split_host(value).is_some()
}

/// Name and port. A name is ASCII.
fn split_host(value: &[u8]) -> Option<(&[u8], Option<u16>)> {
    if value.is_empty() || value.len() > limits::HOST_BYTES_MAX {
        return None;
    }
    let colon = match value.first() {
        Some(b'[') => bracketed_bytes(value)?,
        _ => value.iter().position(|byte| *byte == b':').unwrap_or(value.len()),
    };
    let (name, rest) = value.split_at_checked(colon)?;
    if !name.starts_with(b"[") && !is_dns_name(name) {
        return None;
    }
    match rest {
        [] => Some((name, None)),
        [b':', digits @ ..] => Some((name, Some(port_of(digits)?))),
        _ => None,
    }
}

/// Length of the bracketed IPv6 address that `value` begins with.
fn bracketed_bytes(value: &[u8]) -> Option<usize> {
    let (inside, _) = std::str::from_utf8(value).ok()?.get(1..)?.split_once(']')?;
    inside.parse::<Ipv6Addr>().ok()?;
    Some(inside.len() + BRACKETS)
}

/// Labels with dots between them, and maybe one behind the last.
fn is_dns_name(name: &[u8]) -> bool {
    let mut before = b'.';
    for byte in name {
        if !(is_label(*byte) || (*byte == b'.' && before != b'.')) {
            return false;
        }
        before = *byte;
    }
    !name.is_empty()
}

fn port_of(digits: &[u8]) -> Option<u16> {
    if !(1..=PORT_DIGITS_MAX).contains(&digits.len()) {
        return None;
    }
    let number = digits.iter().try_fold(0_u32, |sum, byte| {
        byte.is_ascii_digit().then(|| sum * 10 + u32::from(byte - b'0'))
    });
    u16::try_from(number?).ok()
}

/// True when `host` is one of ours: on the list (lower-case `host[:port]`), or on a loopback
/// listener any spelling of this machine. A listed name without a port also stands for the default
/// ports.
#[must_use]
pub fn host_allowed(host: &[u8], allowed: &[String], loopback: bool) -> bool {
    let Some(asked) = parse_host(host) else { return false };
    if loopback && is_loopback_name(asked.name) {
        return true;
    }
    // What is equal byte for byte has the same name and port.
    if allowed.iter().any(|ours| ours.as_bytes() == host) {
        return true;
    }
    allowed.iter().filter_map(|ours| parse_host(ours.as_bytes())).any(|ours| {
        let port_fits = ours.port == asked.port
            || (ours.port.is_none() && matches!(asked.port, Some(80 | 443)));
        port_fits && ours.name.eq_ignore_ascii_case(asked.name)
    })
}

/// True when the `Host` value `host` names the same host as the TLS client asked for (RFC 6066 §3),
/// its port aside.
#[must_use]
pub fn same_name(host: &[u8], server_name: &str) -> bool {
    parse_host(host).is_some_and(|asked| {
        let name = asked.name.strip_suffix('.').unwrap_or(asked.name);
        name.eq_ignore_ascii_case(server_name)
    })
}

/// True when a page of `origin` may talk to us: our own origin, one of the list, or on a loopback
/// listener a page of this machine. `null` is nobody's origin and never allowed.
#[must_use]
pub fn origin_allowed(origin: &[u8], public_url: &str, allowed: &[String], loopback: bool) -> bool {
    let Some(asked) = Origin::parse(origin) else {
        // Schemes of native clients (`vscode-webview://…`) have no host rules of ours: byte for
        // byte.
        return origin != b"null" && is_listed(origin, allowed);
    };
    (loopback && is_loopback_name(asked.host.name))
        || Origin::parse(public_url.as_bytes()).is_some_and(|ours| ours.equals(&asked))
        || is_listed(origin, allowed)
}

fn is_listed(origin: &[u8], allowed: &[String]) -> bool {
    !origin.is_empty() && allowed.iter().any(|one| one.as_bytes() == origin)
}

/// Scheme, host and port (RFC 6454 §4); http and https only.
struct Origin<'a> {
    tls: bool,
    host: Authority<'a>,
}

impl<'a> Origin<'a> {
    fn parse(value: &'a [u8]) -> Option<Self> {
        let (tls, rest) = [(true, &b"https://"[..]), (false, &b"http://"[..])]
            .into_iter()
            .find_map(|(tls, scheme)| {
                let start = value.get(..scheme.len())?;
                let rest = value.get(scheme.len()..)?;
                start.eq_ignore_ascii_case(scheme).then_some((tls, rest))
            })?;
        Some(Self { tls, host: parse_host(rest)? })
    }

    fn port(&self) -> u16 {
        self.host.port.unwrap_or(if self.tls { 443 } else { 80 })
    }

    fn equals(&self, other: &Self) -> bool {
        self.tls == other.tls
            && self.port() == other.port()
            && self.host.name.eq_ignore_ascii_case(other.host.name)
    }
}

/// MCP conformance `dns-rebinding-protection`: these three, whatever the port.
fn is_loopback_name(name: &str) -> bool {
    ["localhost", "127.0.0.1", "[::1]"].iter().any(|own| own.eq_ignore_ascii_case(name))
}

/// `[` and `]`.
const BRACKETS: usize = 2;
/// 65535.
const PORT_DIGITS_MAX: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;

    fn list(entries: &[&str]) -> Vec<String> {
        entries.iter().map(|entry| (*entry).to_owned()).collect()
    }

    #[test]
    fn h15_what_is_a_host() {
        let valid = [
            "a",
            "gw.example.com",
            "gw.example.com.",
            "gw.example.com:8443",
            "127.0.0.1:0",
            "[::1]",
            "[::1]:65535",
            "[::ffff:1.2.3.4]",
            "my_host",
            "xn--bcher-kva.example",
        ];
        for host in valid {
            assert!(parse_host(host.as_bytes()).is_some(), "{host}");
        }
        let long = "a".repeat(limits::HOST_BYTES_MAX + 1);
        let invalid = [
            "",
            " ",
            "a b",
            "a b@c",
            "u@h",
            "a:",
            ":80",
            "a:80:80",
            "a:+80",
            "a:65536",
            "a:000080",
            "a:8o",
            "[::1",
            "::1",
            "[::1]x",
            "[::1]:",
            "[::1]80",
            "[::1%25lo]",
            "[v1.x]",
            "[]",
            "a/b",
            "a,b",
            "a..b",
            ".",
            ".a",
            "a%2eb",
            "a\\b",
            "b\u{fc}cher",
            "a?b",
            "a#b",
            "a;b",
            "http://a",
            &long,
        ];
        for host in invalid {
            assert_eq!(parse_host(host.as_bytes()), None, "{host}");
        }
        assert_eq!(parse_host(b"a\xff"), None);
    }

    /// The reading of before, by splitting text.
    fn slowly(value: &[u8]) -> Option<Authority<'_>> {
        if value.is_empty() || value.len() > limits::HOST_BYTES_MAX {
            return None;
        }
        let value = std::str::from_utf8(value).ok()?;
        let (name, port) = if value.starts_with('[') {
            let (inside, after) = value.get(1..)?.split_once(']')?;
            inside.parse::<Ipv6Addr>().ok()?;
            let port = if after.is_empty() { None } else { Some(after.strip_prefix(':')?) };
            (value.get(..inside.len() + BRACKETS)?, port)
        } else {
            value.split_once(':').map_or((value, None), |(name, port)| (name, Some(port)))
        };
        let is_label = |label: &str| {
            !label.is_empty()
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        };
        let labels = name.strip_suffix('.').unwrap_or(name);
        if !name.starts_with('[') && !labels.split('.').all(is_label) {
            return None;
        }
        let Some(digits) = port else { return Some(Authority { name, port: None }) };
        let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
        if !is_number || digits.len() > PORT_DIGITS_MAX {
            return None;
        }
        Some(Authority { name, port: Some(digits.parse().ok()?) })
    }

    #[test]
    fn h15_every_short_text_has_the_reading_of_before() {
        const PIECES: [&str; 16] = [
            "a", "Z9", ".", ":", "[", "]", "::1", "-", "_", "0", "65535", "65536", "%", "@",
            "\u{fc}", "1.2.3.4",
        ];
        let mut valid = 0;
        for number in 0..PIECES.len().pow(5) {
            let mut text = String::new();
            let mut rest = number;
            while rest > 0 {
                text.push_str(PIECES[rest % PIECES.len()]);
                rest /= PIECES.len();
            }
            let read = parse_host(text.as_bytes());
            assert_eq!(read, slowly(text.as_bytes()), "{text}");
            assert_eq!(is_host(text.as_bytes()), read.is_some(), "{text}");
            valid += usize::from(read.is_some());
        }
        assert!(valid > 10_000, "{valid}");
        for byte in 0..=u8::MAX {
            for place in 0..9 {
                for text in ["a.b-c:8443", "[::1]:8443", "gw.example."] {
                    let mut bytes = text.as_bytes().to_vec();
                    bytes[place] = byte;
                    assert_eq!(parse_host(&bytes), slowly(&bytes), "{bytes:?}");
                    assert_eq!(is_host(&bytes), slowly(&bytes).is_some(), "{bytes:?}");
                }
            }
        }
    }

    #[test]
    fn h16_which_host_is_ours() {
        let ours = list(&["gw.example.com", "gw.internal:8443", "[2001:db8::1]"]);
        for host in ["gw.example.com", "GW.Example.COM:443", "gw.internal:8443", "[2001:DB8::1]"] {
            assert!(host_allowed(host.as_bytes(), &ours, false), "{host}");
        }
        let foreign = [
            "evil.com",
            "gw.example.com.evil.com",
            "xgw.example.com",
            "gw.example.com:8443",
            "gw.internal",
            "gw.internal:443",
            "localhost",
            "127.0.0.1",
            "[::1]",
            "",
            "gw.example.com:",
        ];
        for host in foreign {
            assert!(!host_allowed(host.as_bytes(), &ours, false), "{host}");
        }
        for host in ["localhost", "LOCALHOST:3000", "127.0.0.1:1", "[::1]:9"] {
            assert!(host_allowed(host.as_bytes(), &ours, true), "{host}");
        }
        for host in ["evil.com", "127.0.0.2", "localhost.evil.com", "127.0.0.1.nip.io"] {
            assert!(!host_allowed(host.as_bytes(), &ours, true), "{host}");
        }
    }

    #[test]
    fn mcp_h2_which_origin_may_talk_to_us() {
        let listed = list(&["https://app.example.com", "vscode-webview://abc", "null"]);
        let public = "https://gw.example.com";
        for origin in [
            "https://gw.example.com",
            "https://gw.example.com:443",
            "https://app.example.com",
            "vscode-webview://abc",
        ] {
            assert!(origin_allowed(origin.as_bytes(), public, &listed, false), "{origin}");
        }
        let foreign = [
            "null",
            "",
            "http://gw.example.com",
            "http://gw.example.com:443",
            "https://gw.example.com:8443",
            "https://evil.com",
            "https://gw.example.com.evil.com",
            "https://gw.example.com@evil.com",
            "https://",
            "https://gw.example.com/",
            "https://localhost",
            "http://127.0.0.1:3000",
            "gw.example.com",
            "https://app.example.com, https://evil.com",
            "vscode-webview://abcd",
        ];
        for origin in foreign {
            assert!(!origin_allowed(origin.as_bytes(), public, &listed, false), "{origin}");
        }
        for origin in ["http://localhost:3000", "https://127.0.0.1", "http://[::1]:1"] {
            assert!(origin_allowed(origin.as_bytes(), public, &listed, true), "{origin}");
        }
        for origin in ["null", "http://evil.com", "http://localhost.evil.com", "ftp://localhost"] {
            assert!(!origin_allowed(origin.as_bytes(), public, &listed, true), "{origin}");
        }
    }
}
