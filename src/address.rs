//! Which addresses an upstream or a key server may have (cases O07, O08): the one table, for what
//! an operator writes and for what a name resolves to.
//!
//! A name is resolved once; what comes out is judged here, and exactly that address is dialled. So
//! a name that answers differently the second time gains nothing. Unknown ground is forbidden.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::limits::{TRUSTED_V4_PREFIX_MIN, TRUSTED_V6_PREFIX_MIN};

/// A country: two upper-case letters (ISO 3166-1 alpha-2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Country([u8; 2]);

impl Country {
    /// `None` for anything but two ASCII letters.
    #[must_use]
    pub fn new(code: &str) -> Option<Self> {
        let code = <[u8; 2]>::try_from(code.as_bytes()).ok()?;
        let letters = code.iter().all(u8::is_ascii_alphabetic);
        letters.then(|| Self(code.map(|letter| letter.to_ascii_uppercase())))
    }

    /// The code.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Display for Country {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A network (RFC 4632 §3.1, RFC 4291 §2.3), or a single address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// As IPv6; an IPv4 network lies below `::ffff:0:0/96`. Bits after the prefix are zero.
    base: u128,
    prefix: u32,
}

impl Network {
    /// Whether `address` is in it. An IPv4-mapped address is the IPv4 address it maps.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        mapped(address) & mask(self.prefix) == self.base
    }

    /// True for one of more than [`TRUSTED_V4_PREFIX_MIN`] or [`TRUSTED_V6_PREFIX_MIN`] allows. One
    /// of IPv6 in which all of IPv4 lies is too wide for that, whatever its length.
    #[must_use]
    pub fn is_too_wide_to_trust(&self) -> bool {
        let v4 = mapped(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        let within_v4_or_around_it = (self.base ^ v4) & mask(self.prefix.min(V4_BITS)) == 0;
        let prefix_min = if within_v4_or_around_it {
            V4_BITS + TRUSTED_V4_PREFIX_MIN
        } else {
            TRUSTED_V6_PREFIX_MIN
        };
        self.prefix < prefix_min
    }
}

impl std::str::FromStr for Network {
    type Err = &'static str;

    /// # Errors
    /// What is wrong with it, for people.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| "not an IP address")?;
        let (bits, above) = if address.is_ipv4() { (32, V4_BITS) } else { (128, 0) };
        let length = match length {
            None => bits,
            Some(digits) if digits.bytes().all(|digit| digit.is_ascii_digit()) => digits
                .parse::<u32>()
                .ok()
                .filter(|length| *length <= bits)
                .ok_or("the length of the prefix is beyond the address")?,
            Some(_) => return Err("the length of the prefix is not a number"),
        };
        let (base, prefix) = (mapped(address), above + length);
        if base & !mask(prefix) != 0 {
            return Err("bits are set after the prefix");
        }
        Ok(Self { base, prefix })
    }
}

fn mapped(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

fn mask(prefix: u32) -> u128 {
    u128::MAX.checked_shl(128 - prefix.min(128)).unwrap_or(0)
}

/// Bits before an IPv4 address that is mapped into IPv6.
const V4_BITS: u32 = 96;

/// Where an address leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// The internet.
    Public,
    /// Loopback, private and shared networks: only for who is configured to live there.
    Private,
    /// Link-local, cloud metadata, multicast, unspecified, documentation, reserved: never.
    Forbidden,
}

/// Judges an address, after taking out what an IPv6 address embeds (RFC 4291 §2.5.5, RFC 6052).
#[must_use]
pub fn reach(address: IpAddr) -> Reach {
    match address {
        IpAddr::V4(v4) => reach_v4(v4),
        IpAddr::V6(v6) => reach_v6(v6),
    }
}

/// On what terms an address is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// The operator said `trust_private_addresses`.
    pub trust_private: bool,
    /// The URL says `https`.
    pub tls: bool,
}

impl Terms {
    /// True when an address of this reach may be dialled. Plain HTTP never leaves private ground,
    /// whatever its name resolves to: a credential would cross the internet in clear (RFC 6750
    /// §5.3).
    #[must_use]
    pub const fn allow(self, reach: Reach) -> bool {
        match reach {
            Reach::Public => self.tls,
            Reach::Private => self.trust_private,
            Reach::Forbidden => false,
        }
    }
}

/// The addresses that may be dialled, in order, IPv4-mapped ones as the IPv4 address they are.
#[must_use]
pub fn permitted(addresses: &[SocketAddr], terms: Terms) -> Vec<SocketAddr> {
    let may = |address: &SocketAddr| terms.allow(reach(address.ip()));
    let bare = |address: &SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
    addresses.iter().filter(|address| may(address)).map(bare).collect()
}

fn reach_v4(address: Ipv4Addr) -> Reach {
    if METADATA_V4.contains(&address) {
        return Reach::Forbidden;
    }
    let known = SPECIAL_V4.iter().find(|(network, bits, _)| {
        let mask = u32::MAX.checked_shl(32 - u32::from(*bits)).unwrap_or(0);
        (address.to_bits() ^ Ipv4Addr::from(*network).to_bits()) & mask == 0
    });
    known.map_or(Reach::Public, |(_, _, reach)| *reach)
}

fn reach_v6(address: Ipv6Addr) -> Reach {
    if METADATA_V6.contains(&address) {
        return Reach::Forbidden;
    }
    if let Some(v4) = address.to_ipv4_mapped() {
        return reach_v4(v4);
    }
    if let [0x64, 0xff9b, 0, 0, 0, 0, ..] = address.segments() {
        // A translator connects to the IPv4 address in the low bits, out of our sight. This prefix
        // must not stand for private ones (RFC 6052 §3.1), so only what is public passes.
        return match reach_v4(Ipv4Addr::from_bits(address.to_bits() as u32)) {
            Reach::Public => Reach::Public,
            Reach::Private | Reach::Forbidden => Reach::Forbidden,
        };
    }
    let known = SPECIAL_V6.iter().find(|(network, bits, _)| {
        let mask = u128::MAX.checked_shl(128 - u32::from(*bits)).unwrap_or(0);
        (address.to_bits() ^ Ipv6Addr::from(*network).to_bits()) & mask == 0
    });
    // Only 2000::/3 is handed out as global unicast (RFC 4291 §2.4); the rest is not ground we
    // know.
    known.map_or(Reach::Forbidden, |(_, _, reach)| *reach)
}

/// Addresses that answer with a machine's credentials and do not lie in a forbidden network.
const METADATA_V4: [Ipv4Addr; 3] = [
    Ipv4Addr::new(100, 100, 100, 200), // Alibaba Cloud
    Ipv4Addr::new(168, 63, 129, 16),   // Azure
    Ipv4Addr::new(192, 0, 0, 192),     // Oracle Cloud
];
/// The same over IPv6.
const METADATA_V6: [Ipv6Addr; 2] = [
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254), // AWS
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),  // Google Cloud
];

/// IANA IPv4 special-purpose registry (RFC 6890), first match counts.
const SPECIAL_V4: [([u8; 4], u8, Reach); 17] = [
    ([0, 0, 0, 0], 8, Reach::Forbidden),       // this network
    ([10, 0, 0, 0], 8, Reach::Private),        // RFC 1918
    ([100, 64, 0, 0], 10, Reach::Private),     // carrier-grade NAT, RFC 6598
    ([127, 0, 0, 0], 8, Reach::Private),       // loopback
    ([169, 254, 0, 0], 16, Reach::Forbidden),  // link-local, metadata
    ([172, 16, 0, 0], 12, Reach::Private),     // RFC 1918
    ([192, 0, 0, 0], 24, Reach::Forbidden),    // protocol assignments
    ([192, 0, 2, 0], 24, Reach::Forbidden),    // documentation
    ([192, 31, 196, 0], 24, Reach::Forbidden), // AS112
    ([192, 52, 193, 0], 24, Reach::Forbidden), // AMT
    ([192, 88, 99, 0], 24, Reach::Forbidden),  // 6to4 relays
    ([192, 168, 0, 0], 16, Reach::Private),    // RFC 1918
    ([198, 18, 0, 0], 15, Reach::Forbidden),   // benchmarks
    ([198, 51, 100, 0], 24, Reach::Forbidden), // documentation
    ([203, 0, 113, 0], 24, Reach::Forbidden),  // documentation
    ([224, 0, 0, 0], 4, Reach::Forbidden),     // multicast
    ([240, 0, 0, 0], 4, Reach::Forbidden),     // reserved, broadcast
];

/// IANA IPv6 special-purpose registry, first match counts; 2000::/3 stands last.
const SPECIAL_V6: [([u16; 8], u8, Reach); 12] = [
    ([0, 0, 0, 0, 0, 0, 0, 1], 128, Reach::Private), // loopback
    ([0, 0, 0, 0, 0, 0, 0, 0], 96, Reach::Forbidden), // unspecified, IPv4-compatible
    ([0x64, 0xff9b, 1, 0, 0, 0, 0, 0], 48, Reach::Forbidden), // local translation, RFC 8215
    ([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7, Reach::Private), // unique local
    ([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10, Reach::Forbidden), // link-local
    ([0xfec0, 0, 0, 0, 0, 0, 0, 0], 10, Reach::Forbidden), // site-local, deprecated
    ([0xff00, 0, 0, 0, 0, 0, 0, 0], 8, Reach::Forbidden), // multicast
    ([0x2001, 0, 0, 0, 0, 0, 0, 0], 23, Reach::Forbidden), // protocol assignments, Teredo
    ([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32, Reach::Forbidden), // documentation
    ([0x2002, 0, 0, 0, 0, 0, 0, 0], 16, Reach::Forbidden), // 6to4: leads to any IPv4 address
    ([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20, Reach::Forbidden), // documentation, RFC 9637
    ([0x2000, 0, 0, 0, 0, 0, 0, 0], 3, Reach::Public), // global unicast
];

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Network {
        text.parse().unwrap()
    }

    #[test]
    fn networks_hold_what_they_say() {
        let table = [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "::ffff:10.1.2.3", true),
            ("10.0.0.0/8", "11.0.0.0", false),
            ("10.0.0.0/8", "::a00:1", false),
            ("10.1.2.3", "10.1.2.3", true),
            ("10.1.2.3", "10.1.2.2", false),
            ("::ffff:10.0.0.0/104", "10.9.9.9", true),
            ("2001:db8::/32", "2001:db8:ffff::1", true),
            ("2001:db8::/32", "2001:db9::", false),
            ("2001:db8::/32", "10.0.0.1", false),
            ("0.0.0.0/0", "203.0.113.9", true),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("::/0", "203.0.113.9", true),
        ];
        for (inside, address, holds) in table {
            let address = address.parse().unwrap();
            assert_eq!(network(inside).contains(address), holds, "{address} in {inside}");
        }
        for bad in [
            "",
            "/",
            "10.0.0.0/",
            "10.0.0.0/33",
            "10.0.0.0/+8",
            "10.0.0.0/-1",
            "10.0.0.1/8",
            "10.0.0/8",
            "2001:db8::/129",
            "2001:db8::1/64",
            "10.0.0.0/8/8",
            " 10.0.0.0/8",
            "fe80::1%eth0",
            "a/8",
            "10.0.0.0/4294967304",
        ] {
            assert!(bad.parse::<Network>().is_err(), "{bad}");
        }
    }

    #[test]
    fn networks_as_good_as_everybody_are_too_wide_to_trust() {
        for (text, too_wide) in [
            ("0.0.0.0/0", true),
            ("0.0.0.0/1", true),
            ("128.0.0.0/1", true),
            ("10.0.0.0/7", true),
            ("10.0.0.0/8", false),
            ("10.1.2.3", false),
            ("::/0", true),
            ("::/1", true),
            ("8000::/1", true),
            ("2000::/3", true),
            ("2000::/15", true),
            ("2001::/16", false),
            ("2001:db8::1", false),
            // All of IPv4, and halves of it, written as IPv6.
            ("::/16", true),
            ("::/80", true),
            ("::ffff:0:0/96", true),
            ("::ffff:128.0.0.0/97", true),
            ("::ffff:10.0.0.0/103", true),
            ("::ffff:10.0.0.0/104", false),
            ("::/96", false),
            ("::fffe:0:0/95", true),
        ] {
            assert_eq!(network(text).is_too_wide_to_trust(), too_wide, "{text}");
        }
    }

    #[test]
    fn a_country_is_two_letters() {
        assert_eq!(Country::new("de").map(|country| country.to_string()), Some("DE".to_owned()));
        for bad in ["", "D", "DEU", "D1", "ß", "  "] {
            assert_eq!(Country::new(bad), None, "{bad}");
        }
    }

    #[test]
    fn o07_every_special_network_is_known_at_both_ends() {
        use Reach::{Forbidden, Private, Public};
        for (address, expected) in [
            ("0.0.0.0", Forbidden),
            ("0.255.255.255", Forbidden),
            ("1.0.0.0", Public),
            ("9.255.255.255", Public),
            ("10.0.0.0", Private),
            ("10.255.255.255", Private),
            ("11.0.0.0", Public),
            ("100.63.255.255", Public),
            ("100.64.0.0", Private),
            ("100.127.255.255", Private),
            ("100.128.0.0", Public),
            ("100.100.100.200", Forbidden),
            ("126.255.255.255", Public),
            ("127.0.0.1", Private),
            ("127.255.255.255", Private),
            ("168.63.129.16", Forbidden),
            ("169.253.255.255", Public),
            ("169.254.0.0", Forbidden),
            ("169.254.169.254", Forbidden),
            ("169.255.0.0", Public),
            ("172.15.255.255", Public),
            ("172.16.0.0", Private),
            ("172.31.255.255", Private),
            ("172.32.0.0", Public),
            ("192.0.0.192", Forbidden),
            ("192.0.2.1", Forbidden),
            ("192.0.3.0", Public),
            ("192.88.99.1", Forbidden),
            ("192.168.0.0", Private),
            ("192.169.0.0", Public),
            ("198.17.255.255", Public),
            ("198.18.0.0", Forbidden),
            ("198.19.255.255", Forbidden),
            ("198.51.100.7", Forbidden),
            ("203.0.113.9", Forbidden),
            ("223.255.255.255", Public),
            ("224.0.0.1", Forbidden),
            ("239.255.255.255", Forbidden),
            ("255.255.255.255", Forbidden),
            ("::", Forbidden),
            ("::1", Private),
            ("::2", Forbidden),
            ("::127.0.0.1", Forbidden),
            ("64:ff9b::127.0.0.1", Forbidden),
            ("2002:a9fe:a9fe::1", Forbidden),
            ("::ffff:127.0.0.1", Private),
            ("::ffff:169.254.169.254", Forbidden),
            ("::ffff:8.8.8.8", Public),
            ("64:ff9b::10.0.0.1", Forbidden),
            ("64:ff9b::169.254.169.254", Forbidden),
            ("64:ff9b::8.8.8.8", Public),
            ("64:ff9b:1::8.8.8.8", Forbidden),
            ("100::1", Forbidden),
            ("2001::1", Forbidden),
            ("2001:1ff:ffff::", Forbidden),
            ("2001:200::", Public),
            ("2001:db8::1", Forbidden),
            ("2002:7f00:1::", Forbidden),
            ("2606:4700::1111", Public),
            ("3fff::1", Forbidden),
            ("3fff:1000::", Public),
            ("4000::", Forbidden),
            ("5f00::1", Forbidden),
            ("fbff::1", Forbidden),
            ("fc00::1", Private),
            ("fd00::1", Private),
            ("fd00:ec2::254", Forbidden),
            ("fe80::1", Forbidden),
            ("febf::1", Forbidden),
            ("fec0::1", Forbidden),
            ("ff02::1", Forbidden),
        ] {
            assert_eq!(reach(address.parse().unwrap()), expected, "{address}");
        }
    }

    #[test]
    fn o07_private_addresses_need_trust_and_forbidden_ones_never_pass() {
        let addresses: Vec<SocketAddr> = [
            "[::ffff:127.0.0.1]:80",
            "169.254.169.254:80",
            "8.8.8.8:443",
            "[fe80::1]:80",
            "10.1.2.3:80",
        ]
        .iter()
        .map(|text| text.parse().unwrap())
        .collect();
        let texts = |trust_private, tls| -> Vec<String> {
            let allowed = permitted(&addresses, Terms { trust_private, tls });
            allowed.iter().map(ToString::to_string).collect()
        };
        assert_eq!(texts(false, true), ["8.8.8.8:443"]);
        assert_eq!(texts(true, true), ["127.0.0.1:80", "8.8.8.8:443", "10.1.2.3:80"]);
        // Plain HTTP stays on private ground, and needs trust even there.
        assert_eq!(texts(true, false), ["127.0.0.1:80", "10.1.2.3:80"]);
        assert!(texts(false, false).is_empty());
    }
}
