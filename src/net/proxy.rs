//! Whom a proxy in front of us speaks for: the binary header of the PROXY protocol, version 2
//! (HAProxy, "The PROXY protocol", §2.2).
//!
//! The header comes before anything else on a connection, TLS included, and is read in two pieces
//! of exactly known length, so that no byte of what follows is ever taken with it. Only an address
//! that the operator listed is believed; from such a one a connection without a header, or with one
//! that says nothing usable, is closed: its own address must not stand in for a client's.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Stream;
use crate::clock::Monotonic;
use crate::limits::PROXY_HEADER_BYTES_MAX;

/// Reads the header that a trusted proxy sends first. From then on the stream's peer is the client,
/// or still the proxy when it speaks for itself; who judges by the peer must not take a proxy for a
/// client.
///
/// # Errors
/// No header that says whom the proxy speaks for came before `until`, or one of more than
/// [`PROXY_HEADER_BYTES_MAX`] bytes after its first 16. The connection is closed without an answer.
pub async fn introduce(stream: &mut Stream, until: Monotonic) -> Result<(), Unusable> {
    let bytes = read_exactly(stream, PREFIX_BYTES, until).await?;
    let prefix = Prefix::read(bytes.first_chunk().ok_or(Unusable)?)?;
    if prefix.rest_bytes > PROXY_HEADER_BYTES_MAX {
        return Err(Unusable);
    }
    let rest = read_exactly(stream, prefix.rest_bytes, until).await?;
    if let Some(client) = prefix.client(&rest)? {
        stream.set_peer(client);
    }
    Ok(())
}

async fn read_exactly(
    stream: &mut Stream,
    count: usize,
    until: Monotonic,
) -> Result<Vec<u8>, Unusable> {
    let mut bytes = Vec::with_capacity(count);
    while bytes.len() < count {
        let missing = count - bytes.len();
        let (read, returned) = stream.read_some(bytes, missing, until).await;
        bytes = returned;
        if !matches!(read, Ok(1..)) {
            return Err(Unusable);
        }
    }
    Ok(bytes)
}

/// Bytes of the first piece.
pub const PREFIX_BYTES: usize = 16;

/// The first piece, read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    command: Command,
    /// Bytes of the second piece, which may be more than anybody wants to read.
    pub rest_bytes: usize,
}

/// Not a header that says whom the proxy speaks for. The connection is closed without an answer, as
/// the protocol asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unusable;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Command {
    /// The proxy speaks for itself, as for a health check.
    Local,
    V4,
    V6,
}

impl Prefix {
    /// Reads the first piece.
    ///
    /// # Errors
    /// Anything but version 2 with a client's TCP address, or the proxy on its own behalf.
    pub fn read(bytes: &[u8; PREFIX_BYTES]) -> Result<Self, Unusable> {
        let [.., version_and_command, family, high, low] = *bytes;
        if !bytes.starts_with(&SIGNATURE) {
            return Err(Unusable);
        }
        let command = match (version_and_command, family) {
            (LOCAL, _) => Command::Local,
            (PROXY, TCP_V4) => Command::V4,
            (PROXY, TCP_V6) => Command::V6,
            _ => return Err(Unusable),
        };
        Ok(Self { command, rest_bytes: usize::from(u16::from_be_bytes([high, low])) })
    }

    /// Reads the second piece: the client's address, or `None` when the proxy speaks for itself.
    /// What follows the addresses (TLVs) is not looked at.
    ///
    /// # Errors
    /// Too short for the addresses it announces, or an address that can be nobody's.
    pub fn client(self, rest: &[u8]) -> Result<Option<IpAddr>, Unusable> {
        if rest.len() != self.rest_bytes {
            return Err(Unusable);
        }
        // Source, destination, both ports.
        let address: IpAddr = match self.command {
            Command::Local => return Ok(None),
            Command::V4 => {
                let [source @ .., _, _, _, _, _, _, _, _] =
                    *rest.first_chunk::<V4_BYTES>().ok_or(Unusable)?;
                Ipv4Addr::from(source).into()
            }
            Command::V6 => {
                let whole = rest.first_chunk::<V6_BYTES>().ok_or(Unusable)?;
                let source = whole.first_chunk::<16>().ok_or(Unusable)?;
                Ipv6Addr::from(*source).into()
            }
        };
        let address = address.to_canonical();
        let nobody = address.is_unspecified() || address.is_multicast();
        if nobody { Err(Unusable) } else { Ok(Some(address)) }
    }
}

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Version in the upper four bits, command in the lower.
const LOCAL: u8 = 0x20;
const PROXY: u8 = 0x21;
/// Address family in the upper four bits, transport in the lower.
const TCP_V4: u8 = 0x11;
const TCP_V6: u8 = 0x21;
/// Two addresses and two ports.
const V4_BYTES: usize = 12;
const V6_BYTES: usize = 36;

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(version_and_command: u8, family: u8, rest: u16) -> [u8; PREFIX_BYTES] {
        let mut bytes = [0; PREFIX_BYTES];
        bytes[..12].copy_from_slice(&SIGNATURE);
        bytes[12] = version_and_command;
        bytes[13] = family;
        bytes[14..].copy_from_slice(&rest.to_be_bytes());
        bytes
    }

    fn read(head: [u8; PREFIX_BYTES], rest: &[u8]) -> Result<Option<IpAddr>, Unusable> {
        Prefix::read(&head)?.client(rest)
    }

    const V4: [u8; 12] = [203, 0, 113, 9, 10, 0, 0, 1, 0xC3, 0x50, 0x01, 0xBB];

    fn v6(source: &str) -> Vec<u8> {
        let source: Ipv6Addr = source.parse().unwrap();
        [&source.octets()[..], &[0; 16], &[0xC3, 0x50, 0x01, 0xBB]].concat()
    }

    #[test]
    fn the_client_is_the_source_of_the_header() {
        let v4 = Ok(Some("203.0.113.9".parse().unwrap()));
        assert_eq!(read(prefix(0x21, 0x11, 12), &V4), v4);
        let with_tlvs = [&V4[..], &[0x04, 0x00, 0x02, 1, 2]].concat();
        assert_eq!(read(prefix(0x21, 0x11, 17), &with_tlvs), v4);
        let real = Ok(Some("2001:db8::1".parse().unwrap()));
        assert_eq!(read(prefix(0x21, 0x21, 36), &v6("2001:db8::1")), real);
        assert_eq!(read(prefix(0x21, 0x21, 36), &v6("::ffff:203.0.113.9")), v4, "mapped");
        for rest in [0_u16, 7, 36] {
            let none = vec![0xFF; usize::from(rest)];
            assert_eq!(read(prefix(0x20, 0x00, rest), &none), Ok(None), "on its own behalf");
        }
    }

    #[test]
    fn whatever_says_no_client_is_unusable() {
        let table: [(&str, [u8; PREFIX_BYTES], &[u8]); 10] = [
            ("version 1 in binary", prefix(0x11, 0x11, 12), &V4),
            ("version 3", prefix(0x31, 0x11, 12), &V4),
            ("an unknown command", prefix(0x22, 0x11, 12), &V4),
            ("no family", prefix(0x21, 0x00, 12), &V4),
            ("datagrams", prefix(0x21, 0x12, 12), &V4),
            ("a Unix socket", prefix(0x21, 0x31, 12), &V4),
            ("an address cut short", prefix(0x21, 0x11, 11), &V4[..11]),
            ("IPv4 as IPv6", prefix(0x21, 0x21, 12), &V4),
            ("0.0.0.0", prefix(0x21, 0x11, 12), &[0; 12]),
            ("less than it announced", prefix(0x21, 0x11, 13), &V4),
        ];
        for (what, head, rest) in table {
            assert_eq!(read(head, rest), Err(Unusable), "{what}");
        }
        for at in 0..12 {
            let mut torn = prefix(0x21, 0x11, 12);
            torn[at] ^= 1;
            assert_eq!(Prefix::read(&torn), Err(Unusable), "byte {at}");
        }
        assert_eq!(Prefix::read(b"PROXY TCP4 203.0"), Err(Unusable), "version 1");
        assert_eq!(Prefix::read(b"GET /mcp HTTP/1."), Err(Unusable), "no header");
    }
}
