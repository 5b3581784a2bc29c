//! URLs as an operator may write them: http or https, one clear host, nothing that two parsers
//! could read in two ways (RFC 3986 §3, narrowed).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::UpstreamUrl;
use crate::address::{Reach, reach};

impl UpstreamUrl {
    /// Reads an absolute `http` or `https` URL.
    ///
    /// # Errors
    /// What is wrong, without the value.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let (tls, rest) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
            (Some(rest), _) => (true, rest),
            (None, Some(rest)) => (false, rest),
            (None, None) => return Err("does not start with https:// (or http://)"),
        };
        if text.len() > URL_BYTES_MAX {
            return Err("is longer than 2048 bytes");
        }
        if rest.contains('#') {
            return Err("has a fragment");
        }
        let split = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(split);
        if authority.contains('@') {
            return Err("has a user name or password in it");
        }
        let (host, port) = split_port(authority)?;
        let (host, literal) = read_host(host)?;
        let port = match port {
            Some(0) => return Err("has port 0"),
            Some(port) => port,
            None => default_port(tls),
        };
        if !is_target(path) {
            return Err("has a character in its path or query that must be percent-encoded");
        }
        let bracketed = match literal {
            Some(IpAddr::V6(address)) => format!("[{address}]"),
            Some(IpAddr::V4(_)) | None => host.clone(),
        };
        let authority =
            if port == default_port(tls) { bracketed } else { format!("{bracketed}:{port}") };
        let slash = if path.starts_with('/') { "" } else { "/" };
        Ok(Self { tls, host, literal, port, authority, target: format!("{slash}{path}") })
    }

    /// `scheme://authority`, canonical.
    #[must_use]
    pub fn origin(&self) -> String {
        format!("{}://{}", if self.tls { "https" } else { "http" }, self.authority)
    }

    /// Where the host is, as far as its spelling tells. A name other than `localhost` tells
    /// nothing; its addresses are judged when it is resolved.
    pub(super) fn reach(&self) -> Reach {
        match self.literal {
            Some(address) => reach(address),
            None if is_localhost(&self.host) => Reach::Private,
            None => Reach::Public,
        }
    }

    /// True when the host is this machine.
    pub(super) fn is_loopback(&self) -> bool {
        match self.literal {
            Some(address) => address.to_canonical().is_loopback(),
            None => is_localhost(&self.host),
        }
    }
}

/// Reads `host` or `host:port` as it stands in a `Host` field; the answer is lower case.
pub(super) fn parse_authority(text: &str) -> Result<(String, Option<u16>), &'static str> {
    let (host, port) = split_port(text)?;
    let (host, literal) = read_host(host)?;
    match literal {
        Some(IpAddr::V6(address)) => Ok((format!("[{address}]"), port)),
        Some(IpAddr::V4(_)) | None => Ok((host, port)),
    }
}

/// True for `localhost` and names below it (RFC 6761 §6.3), and for loopback literals.
pub(super) fn is_loopback_host(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    is_localhost(host)
        || bare.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

fn is_localhost(host: &str) -> bool {
    host == "localhost" || host.ends_with(".localhost")
}

const fn default_port(tls: bool) -> u16 {
    if tls { 443 } else { 80 }
}

fn split_port(authority: &str) -> Result<(&str, Option<u16>), &'static str> {
    let after_host = authority.rfind(']').map_or(0, |end| end + 1);
    let (host, port) = match authority.get(after_host..).and_then(|rest| rest.rfind(':')) {
        Some(colon) => authority.split_at(after_host + colon),
        None => return Ok((authority, None)),
    };
    let digits = port.strip_prefix(':').unwrap_or_default();
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("has a port that is not a number");
    }
    digits.parse().map(|port| (host, Some(port))).map_err(|_| "has a port above 65535")
}

/// The host in lower case, without brackets, and its address when it is one.
fn read_host(host: &str) -> Result<(String, Option<IpAddr>), &'static str> {
    if let Some(inner) = host.strip_prefix('[') {
        let inner = inner.strip_suffix(']').ok_or("has a bracket that is not closed")?;
        let address: Ipv6Addr = inner.parse().map_err(|_| "has a host that is not IPv6")?;
        return Ok((address.to_string(), Some(IpAddr::V6(address))));
    }
    if let Ok(address) = host.parse::<Ipv4Addr>() {
        return Ok((host.to_owned(), Some(IpAddr::V4(address))));
    }
    let host = host.to_ascii_lowercase();
    if host.is_empty() || host.len() > HOST_BYTES_MAX {
        return Err("has no host, or one of more than 253 bytes");
    }
    let valid = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    if !host.split('.').all(valid) {
        return Err("has a host that is not a name (names beyond ASCII are written as xn--…)");
    }
    // `127.1`, `0x7f.1` and `2130706433` are addresses to some resolvers and names to others.
    let last = host.rsplit('.').next().unwrap_or_default();
    if last.bytes().all(|byte| byte.is_ascii_digit()) || last.starts_with("0x") {
        return Err("has a host that some parsers read as an address in a disguise");
    }
    Ok((host, None))
}

/// Path and query of RFC 3986 §3.3–3.4: `pchar`, `/`, `?`, and whole percent escapes.
fn is_target(path: &str) -> bool {
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        let allowed = match byte {
            b'%' => {
                let mut hex = || bytes.next().is_some_and(|byte| byte.is_ascii_hexdigit());
                hex() && hex()
            }
            b'/' | b'?' | b':' | b'@' | b'-' | b'.' | b'_' | b'~' => true,
            b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=' => true,
            _ => byte.is_ascii_alphanumeric(),
        };
        if !allowed {
            return false;
        }
    }
    true
}

const URL_BYTES_MAX: usize = 2048;
const HOST_BYTES_MAX: usize = 253;
