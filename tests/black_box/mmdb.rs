//! Writes small databases in the MaxMind DB format, version 2.0: IPv6 trees of 24-bit records.

/// Of each network (the more specific ones later): members with their `iso_code`.
pub(crate) fn encode(networks: &[(&str, &[(&str, &str)])]) -> Vec<u8> {
    let (mut tree, mut data) = (vec![[None; 2]], Vec::new());
    for (network, members) in networks {
        let offset = data.len();
        let count = u8::try_from(members.len()).unwrap();
        data.push(MAP | count);
        for (name, code) in *members {
            text(name, &mut data);
            data.push(MAP | 1);
            text("iso_code", &mut data);
            text(code, &mut data);
        }
        insert(&mut tree, network, offset);
    }
    let nodes = tree.len();
    let mut out = Vec::new();
    for record in tree.iter().flatten() {
        let value = match record {
            None => nodes,
            Some(Record::Node(node)) => *node,
            Some(Record::Data(offset)) => nodes + SEPARATOR.len() + offset,
        };
        out.extend_from_slice(&u32::try_from(value).unwrap().to_be_bytes()[1..]);
    }
    out.extend_from_slice(&SEPARATOR);
    out.extend_from_slice(&data);
    out.extend_from_slice(b"\xab\xcd\xefMaxMind.com");
    metadata(nodes, &mut out);
    out
}

/// Makes a database one of IPv4 alone: its tree begins with the first bit of such an address.
#[allow(dead_code, reason = "not all who share this file need one")]
pub(crate) fn make_ipv4(database: &mut [u8]) {
    let name = b"ip_version";
    let at = database.windows(name.len()).position(|window| window == name).unwrap();
    // Behind the name stands the type, then the value.
    database[at + name.len() + 1] = 4;
}

#[derive(Clone, Copy)]
enum Record {
    Node(usize),
    Data(usize),
}

type Tree = Vec<[Option<Record>; 2]>;

/// IPv4 networks lie below ::/96.
fn insert(tree: &mut Tree, network: &str, data: usize) {
    let (address, length) = network.split_once('/').unwrap();
    let length: usize = length.parse().unwrap();
    let (bits, length) = match address.parse().unwrap() {
        std::net::IpAddr::V4(v4) => (u128::from(v4.to_bits()), 96 + length),
        std::net::IpAddr::V6(v6) => (v6.to_bits(), length),
    };
    let bit = |at: usize| usize::from(bits >> (127 - at) & 1 == 1);
    let mut node = 0;
    for at in 0..length - 1 {
        node = match tree[node][bit(at)] {
            Some(Record::Node(next)) => next,
            // What stood here holds for both halves, until one of them is told otherwise.
            before => {
                tree.push([before; 2]);
                tree[node][bit(at)] = Some(Record::Node(tree.len() - 1));
                tree.len() - 1
            }
        };
    }
    tree[node][bit(length - 1)] = Some(Record::Data(data));
}

fn metadata(nodes: usize, out: &mut Vec<u8>) {
    out.push(MAP | 9);
    let nodes = u32::try_from(nodes).unwrap().to_be_bytes();
    for (name, value) in [
        ("binary_format_major_version", &[U16 | 1, 2][..]),
        ("binary_format_minor_version", &[U16]),
        ("build_epoch", &[1, U64, 1]),
        ("ip_version", &[U16 | 1, 6]),
        ("record_size", &[U16 | 1, 24]),
        ("languages", &[0, ARRAY]),
        ("node_count", &[&[U32 | 4][..], &nodes].concat()),
    ] {
        text(name, out);
        out.extend_from_slice(value);
    }
    text("database_type", out);
    text("Test", out);
    text("description", out);
    out.push(MAP | 1);
    text("en", out);
    text("A test", out);
}

fn text(text: &str, out: &mut Vec<u8>) {
    let length = u8::try_from(text.len()).unwrap();
    assert!(length < 29, "longer texts have another form");
    out.push(STRING | length);
    out.extend_from_slice(text.as_bytes());
}

const SEPARATOR: [u8; 16] = [0; 16];
/// Types, in the upper three bits of a control byte; the length is in the others.
const STRING: u8 = 2 << 5;
const U16: u8 = 5 << 5;
const U32: u8 = 6 << 5;
const MAP: u8 = 7 << 5;
/// Extended types: what follows a control byte of type 0, less 7.
const U64: u8 = 9 - 7;
const ARRAY: u8 = 11 - 7;
