//! Countries of addresses, from a MaxMind DB file (MaxMind DB File Format Specification 2.0).
//!
//! The file is read into memory and verified whole before anybody is judged by it: a lookup in a
//! damaged one would say "no country", and a forbid that names a country would then let pass. What
//! is unknown is absent, as the policy schema says (`source.country?`).

use std::fs::File;
use std::io::Read;
use std::net::IpAddr;
use std::path::Path;

use maxminddb::{PathElement, Reader, WithinOptions};

use crate::address::Country;
use crate::limits::{GEOIP_BYTES_MAX, GEOIP_LOOKED_AT_MAX, GEOIP_NETWORKS_PER_NODE_MAX};

/// A database of countries.
pub struct GeoDb(Reader<Vec<u8>>);

impl GeoDb {
    /// Reads and verifies the file at `path`.
    ///
    /// # Errors
    /// What is wrong with it, for people: unreadable, more than [`GEOIP_BYTES_MAX`], damaged, or of
    /// another kind.
    pub fn load(path: &Path) -> Result<Self, String> {
        let mut bytes = Vec::new();
        let read = File::open(path)
            .and_then(|file| file.take(GEOIP_BYTES_MAX as u64 + 1).read_to_end(&mut bytes));
        read.map_err(|error| format!("cannot be read: {error}"))?;
        if bytes.len() > GEOIP_BYTES_MAX {
            return Err(format!("has more than {GEOIP_BYTES_MAX} bytes"));
        }
        Self::read(bytes)
    }

    /// Verifies `bytes` as a database of countries.
    ///
    /// # Errors
    /// As [`GeoDb::load`].
    pub fn read(bytes: Vec<u8>) -> Result<Self, String> {
        let damaged = |error| format!("is not a sound MaxMind database: {error}");
        let reader = Reader::from_source(bytes).map_err(damaged)?;
        walk(&reader)?;
        reader.verify().map_err(damaged)?;
        // One of networks or providers would do, and know no country of anybody.
        let networks = reader.networks(WithinOptions::default()).map_err(damaged)?;
        let mut looked_at = networks.take(GEOIP_LOOKED_AT_MAX).filter_map(Result::ok);
        let knows_countries = looked_at.any(|found| {
            let code = found.decode_path::<&str>(&COUNTRY);
            matches!(code, Ok(Some(code)) if Country::new(code).is_some())
        });
        if !knows_countries {
            let kind = &reader.metadata().database_type;
            return Err(format!("knows no country ({kind:?}); take one of countries or cities"));
        }
        Ok(Self(reader))
    }

    /// False for one of IPv4 alone: of no IPv6 address it can say where it is.
    #[must_use]
    pub fn holds_ipv6(&self) -> bool {
        self.0.metadata().ip_version != 4
    }

    /// Where `address` is; neither where its network is registered nor whom it represents.
    #[must_use]
    pub fn country(&self, address: IpAddr) -> Option<Country> {
        let found = self.0.lookup(address.to_canonical()).ok()?;
        Country::new(found.decode_path::<&str>(&COUNTRY).ok()??)
    }
}

/// Walks every way through the tree, so that no other walk through it takes more steps. The ways of
/// a few nodes may meet again and again, and lead to 2^128 networks; the library bounds the
/// networks that it answers, but not those that it passes over.
fn walk(reader: &Reader<Vec<u8>>) -> Result<(), String> {
    let damaged = |error| format!("is not a sound MaxMind database: {error}");
    let every = WithinOptions::default().include_aliased_networks().include_networks_without_data();
    let nodes = u64::from(reader.metadata().node_count);
    let networks_max = nodes.saturating_mul(GEOIP_NETWORKS_PER_NODE_MAX);
    for (count, network) in (1..).zip(reader.networks(every).map_err(damaged)?) {
        network.map_err(damaged)?;
        if count > networks_max {
            return Err("is not a sound MaxMind database: the ways of its tree meet again".into());
        }
    }
    Ok(())
}

/// Of the country that the address is in.
const COUNTRY: [PathElement<'static>; 2] =
    [PathElement::Key("country"), PathElement::Key("iso_code")];

#[cfg(test)]
#[path = "../tests/black_box/mmdb.rs"]
mod mmdb;

#[cfg(test)]
mod tests {
    use super::*;

    fn countries() -> Vec<u8> {
        mmdb::encode(&[
            ("203.0.113.0/24", &[("country", "DE"), ("registered_country", "US")]),
            ("203.0.113.64/26", &[("country", "fr")]),
            ("198.51.100.0/24", &[("registered_country", "US")]),
            ("192.0.2.0/24", &[("country", "EUR")]),
            ("2001:db8::/32", &[("country", "JP")]),
        ])
    }

    fn country(database: &GeoDb, address: &str) -> Option<String> {
        database.country(address.parse().unwrap()).map(|country| country.to_string())
    }

    #[test]
    fn the_country_is_where_the_address_is() {
        let database = GeoDb::read(countries()).unwrap();
        for (address, expected) in [
            ("203.0.113.9", Some("DE")),
            ("::ffff:203.0.113.9", Some("DE")),
            ("203.0.113.63", Some("DE")),
            ("203.0.113.64", Some("FR")),
            ("203.0.113.127", Some("FR")),
            ("203.0.113.128", Some("DE")),
            ("2001:db8:ffff::1", Some("JP")),
            // Registered elsewhere, no code of a country, and not in there at all.
            ("198.51.100.1", None),
            ("192.0.2.1", None),
            ("203.0.114.0", None),
            ("2001:db9::1", None),
            ("127.0.0.1", None),
        ] {
            assert_eq!(country(&database, address).as_deref(), expected, "{address}");
        }
    }

    #[test]
    fn what_is_damaged_or_of_another_kind_is_refused() {
        let sound = countries();
        let fault = |bytes: &[u8]| GeoDb::read(bytes.to_vec()).err().unwrap_or_default();
        assert!(fault(b"").contains("not a sound MaxMind database"));
        assert!(fault(b"<html>not found</html>").contains("not a sound MaxMind database"));
        for length in 0..sound.len() {
            assert!(!fault(&sound[..length]).is_empty(), "the first {length} bytes");
        }
        // The first node points into nowhere.
        let mut torn = sound.clone();
        torn[..6].fill(0xFF);
        assert!(!fault(&torn).is_empty());
        let providers = mmdb::encode(&[("203.0.113.0/24", &[("traits", "x")])]);
        assert!(fault(&providers).contains("knows no country"), "{}", fault(&providers));
        // Whatever byte is another, nothing panics, here or in a lookup.
        for at in 0..sound.len() {
            let mut other = sound.clone();
            other[at] ^= 0x41;
            if let Ok(database) = GeoDb::read(other) {
                let _ = country(&database, "203.0.113.9");
            }
        }
    }

    /// Writes record `side` (0 or 1) of a node.
    fn set(database: &mut [u8], node: usize, side: usize, value: u8) {
        database[node * 6 + side * 3..][..3].copy_from_slice(&[0, 0, value]);
    }

    /// Sixty nodes, both of whose ways lead to the next one, stand for 2^60 networks: without data,
    /// where the library passes over them, or with some.
    #[test]
    fn a_tree_whose_ways_meet_again_is_refused_soon() {
        const NODES: u8 = 60;
        let sound = mmdb::encode(&[("2001:db8::/60", &[("country", "JP")])]);
        assert!(GeoDb::read(sound.clone()).is_ok());
        for end in [NODES, NODES + 16] {
            let mut chain = sound.clone();
            for node in 0..NODES {
                let next = if node + 1 < NODES { node + 1 } else { end };
                set(&mut chain, usize::from(node), 0, next);
                set(&mut chain, usize::from(node), 1, next);
            }
            let fault = GeoDb::read(chain).err().unwrap_or_default();
            assert!(fault.contains("meet again"), "{end}: {fault}");
        }
        // A way that leads back ends at the last bit of an address.
        let mut circle = sound;
        set(&mut circle, 59, 1, 0);
        set(&mut circle, 59, 0, 0);
        assert!(!GeoDb::read(circle).err().unwrap_or_default().is_empty());
    }

    #[test]
    fn a_database_of_ipv4_alone_says_so() {
        // The tree of IPv4 begins with its first bit: these are those of 203.0.113.0/24.
        let mut database = mmdb::encode(&[("cb00:7100::/24", &[("country", "DE")])]);
        assert!(GeoDb::read(database.clone()).unwrap().holds_ipv6());
        mmdb::make_ipv4(&mut database);
        let database = GeoDb::read(database).unwrap();
        assert!(!database.holds_ipv6());
        assert_eq!(country(&database, "203.0.113.9").as_deref(), Some("DE"));
        assert_eq!(country(&database, "cb00:7100::9"), None);
    }

    #[test]
    fn networks_of_ipv4_may_be_reached_in_several_ways() {
        let mut database = mmdb::encode(&[("203.0.113.0/24", &[("country", "DE")])]);
        for node in 0..5 {
            set(&mut database, node, 1, 96);
        }
        let database = GeoDb::read(database).unwrap();
        assert_eq!(country(&database, "203.0.113.9").as_deref(), Some("DE"));
    }

    #[test]
    fn maxminds_own_test_database_is_read() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../shared/data/geoip/GeoLite2-Country-Test.mmdb");
        if !path.exists() {
            assert!(std::env::var_os("CI").is_none(), "{path:?} must be there in CI");
            eprintln!("skipped: {path:?} is not here");
            return;
        }
        let database = GeoDb::load(&path).unwrap();
        for (address, expected) in [
            ("81.2.69.160", Some("GB")),
            ("::ffff:81.2.69.160", Some("GB")),
            ("89.160.20.128", Some("SE")),
            ("2001:218::1", Some("JP")),
            ("10.0.0.1", None),
        ] {
            assert_eq!(country(&database, address).as_deref(), expected, "{address}");
        }
        assert!(GeoDb::load(Path::new("/")).is_err(), "a folder");
    }
}
