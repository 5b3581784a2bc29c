//! Where a client is, as proxies in front of us say it: the PROXY header of a connection and the
//! `Forwarded` field of a request, believed from listed addresses only. A policy on the address
//! shows that what is believed is what is judged.

use std::fs;
use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::sync::Arc;

use serde_json::Value;

use super::client::{Client, Way, come_from, connect, text};
use super::gateway::{DRIVERS, Driver, Gateway, until};
use super::table::Post;

/// Listed, and not.
pub(super) const PROXY: Ipv4Addr = Ipv4Addr::new(127, 9, 0, 1);
const OTHER_PROXY: Ipv4Addr = Ipv4Addr::new(127, 9, 0, 2);
const STRANGER: Ipv4Addr = Ipv4Addr::new(127, 8, 0, 1);

/// From 203.0.113.128/25 nobody may call.
const POLICY: &str = "@id(\"not-from-there\")\nforbid (principal, action == Action::\"tools/call\", \
                      resource) when { context.source.ip.isInRange(ip(\"203.0.113.128/25\")) };\n";

pub(super) fn start(
    driver: Driver,
    proxy: &str,
    prepare: impl FnOnce(&std::path::Path),
) -> Gateway {
    // The shortest time for a header, so that one that never ends is soon over.
    let limits = "[limits]\nhead_ms_max = 3000\nstall_ms_max = 3000\nhandshake_ms_max = 500\n";
    let gateway = Gateway::start_with(driver, limits, |directory| {
        fs::write(directory.join("policies/source.cedar"), POLICY).unwrap();
        let path = directory.join("gateway.toml");
        let toml = fs::read_to_string(&path).unwrap();
        let keys = format!("proxy = \"{proxy}\"\ntrusted_proxies = [\"127.9.0.0/16\"]\norigins =");
        fs::write(path, toml.replace("origins =", &keys)).unwrap();
        prepare(directory);
    });
    come_from(STRANGER);
    gateway
}

/// The binary header, version 2.
fn header(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
    let signature = b"\r\n\r\n\0\r\nQUIT\n";
    [&signature[..], &[command, family], &length, rest].concat()
}

fn v4(client: [u8; 4]) -> Vec<u8> {
    [&client[..], &[10, 0, 0, 1], &[0xC3, 0x50, 0x01, 0xBB]].concat()
}

fn v6(client: &str) -> Vec<u8> {
    let client: std::net::Ipv6Addr = client.parse().unwrap();
    [&client.octets()[..], &[0; 16], &[0xC3, 0x50, 0x01, 0xBB]].concat()
}

pub(super) fn one_record(gateway: &Gateway, before: usize) -> Value {
    let mut records = Vec::new();
    until("one more record", || {
        let text = gateway.audit_text();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        records = whole.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).collect();
        records.retain(|record| record["outcome"] != "opened");
        records.len() > before
    });
    assert_eq!(records.len(), before + 1, "exactly one record");
    records.pop().unwrap()
}

pub(super) fn count(gateway: &Gateway) -> usize {
    let text = gateway.audit_text();
    text.lines().filter(|line| !line.contains("\"outcome\":\"opened\"")).count()
}

/// How many connections of proxies were refused, over all cores.
fn refused(gateway: &Gateway) -> u64 {
    let page = text(&gateway.page("/metrics").body);
    let lines = page.lines().filter(|line| line.starts_with("portcullis_source_refusals_total{"));
    lines.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

fn ready(gateway: &Gateway) {
    let good = Post::new(gateway).bytes();
    let mut asked = 0;
    until("the first answer", || {
        asked += 1;
        gateway.ask(&good).status == 200
    });
    // Records come a moment later; from here on they are counted.
    until("the records of those", || count(gateway) == asked);
}

#[test]
fn the_client_of_a_proxy_is_whom_its_header_names() {
    for driver in DRIVERS {
        let gateway = start(driver, "proxy_v2", |_| {});
        ready(&gateway);
        come_from(PROXY);
        let good = Post::new(&gateway).bytes();
        let with_tlvs = [&v4([203, 0, 113, 9])[..], &[0x04, 0, 2, 1, 2]].concat();
        for (what, head, source, status) in [
            ("IPv4", header(0x21, 0x11, &v4([203, 0, 113, 9])), "203.0.113.9", 200),
            ("IPv4 and TLVs", header(0x21, 0x11, &with_tlvs), "203.0.113.9", 200),
            ("IPv6", header(0x21, 0x21, &v6("2001:db8::1")), "2001:db8::1", 200),
            ("mapped", header(0x21, 0x21, &v6("::ffff:203.0.113.9")), "203.0.113.9", 200),
            ("denied", header(0x21, 0x11, &v4([203, 0, 113, 200])), "203.0.113.200", 403),
            (
                "denied, mapped",
                header(0x21, 0x21, &v6("::ffff:203.0.113.200")),
                "203.0.113.200",
                403,
            ),
        ] {
            for way in [Way::Whole, Way::Dripped] {
                let shown = format!("{what} {way:?} on {driver:?}");
                let before = count(&gateway);
                let mut client = Client::connect(gateway.address);
                client.send(&[&head[..], &good].concat(), way);
                let answer = client.answer().unwrap_or_else(|| panic!("{shown}: no answer"));
                let denied = answer.json().pointer("/error/code").is_some();
                assert_eq!(denied, status == 403, "{shown}: {answer:?}");
                let record = one_record(&gateway, before);
                assert_eq!(record["source_ip"], source, "{shown}: {record}");
                // It holds for the whole connection.
                client.send(&good, way);
                assert!(client.answer().is_some(), "{shown}");
                let record = one_record(&gateway, before + 1);
                assert_eq!(record["source_ip"], source, "{shown}: the second request");
            }
        }
        split_anywhere(&gateway, &good);
        a_proxy_is_no_client(&gateway, &good);
        come_from(Ipv4Addr::LOCALHOST);
    }
}

/// On its own behalf (LOCAL), or named by another: what is public is shown, the rest refused.
fn a_proxy_is_no_client(gateway: &Gateway, good: &[u8]) {
    let heard = gateway.upstream.heard();
    for (what, head) in [
        ("for itself", header(0x20, 0x00, &[0xFF; 7])),
        ("for itself, with addresses", header(0x20, 0x11, &v4([203, 0, 113, 9]))),
        ("for another proxy", header(0x21, 0x11, &v4([127, 9, 0, 2]))),
        ("for another proxy, mapped", header(0x21, 0x21, &v6("::ffff:127.9.0.2"))),
    ] {
        for way in [Way::Whole, Way::Dripped] {
            let shown = format!("{what} {way:?} on {:?}", gateway.driver);
            let before = count(gateway);
            let mut client = Client::connect(gateway.address);
            client.send(&[&head[..], good].concat(), way);
            let answer = client.answer().unwrap_or_else(|| panic!("{shown}: no answer"));
            let told = (answer.status, answer.reason());
            assert_eq!(told, (400, "source_unknown".to_owned()), "{shown}");
            let record = one_record(gateway, before);
            assert_eq!(record["reason"], "source_unknown", "{shown}: {record}");
            assert!(record.get("source_ip").is_none_or(Value::is_null), "{shown}: {record}");
            let document = "GET /.well-known/oauth-protected-resource HTTP/1.1\r\n\
                            Host: portcullis.localhost\r\n\r\n";
            client.send(document.as_bytes(), way);
            assert_eq!(client.answer().map(|answer| answer.status), Some(200), "{shown}");
            one_record(gateway, before + 1);
        }
    }
    assert_eq!(gateway.upstream.heard(), heard, "nothing was forwarded");
}

/// The header in two parts, and the request right behind the second.
fn split_anywhere(gateway: &Gateway, good: &[u8]) {
    let whole = [&header(0x21, 0x11, &v4([203, 0, 113, 9]))[..], good].concat();
    for at in 1..32 {
        let before = count(gateway);
        let mut client = Client::connect(gateway.address);
        client.send(&whole[..at], Way::Whole);
        client.send(&whole[at..], Way::Whole);
        assert_eq!(client.answer().map(|answer| answer.status), Some(200), "split at {at}");
        assert_eq!(one_record(gateway, before)["source_ip"], "203.0.113.9", "split at {at}");
    }
}

#[test]
fn a_proxy_that_does_not_say_is_closed_and_nobody_else_is_believed() {
    for driver in DRIVERS {
        let gateway = start(driver, "proxy_v2", |_| {});
        ready(&gateway);
        come_from(PROXY);
        let good = Post::new(&gateway).bytes();
        let named = header(0x21, 0x11, &v4([203, 0, 113, 9]));
        let (records, heard, closed) =
            (count(&gateway), gateway.upstream.heard(), refused(&gateway));
        let mut long = named.clone();
        long[14..16].copy_from_slice(&u16::MAX.to_be_bytes());
        let mut torn = named.clone();
        torn[11] ^= 1;
        let cases = [
            ("no header", Vec::new()),
            ("version 1", b"PROXY TCP4 203.0.113.9 10.0.0.1 50000 443\r\n".to_vec()),
            ("another version", header(0x31, 0x11, &v4([203, 0, 113, 9]))),
            ("no family", header(0x21, 0x00, &[])),
            ("datagrams", header(0x21, 0x12, &v4([203, 0, 113, 9]))),
            ("a Unix socket", header(0x21, 0x31, &[0; 216])),
            ("too short for IPv4", header(0x21, 0x11, &[203, 0, 113, 9])),
            ("nobody", header(0x21, 0x11, &v4([0; 4]))),
            ("longer than allowed", long),
            ("another signature", torn),
        ];
        for (what, head) in &cases {
            for way in [Way::Whole, Way::Dripped] {
                let mut client = Client::connect(gateway.address);
                client.send(&[&head[..], &good].concat(), way);
                client.finish_sending();
                assert!(client.ended(), "{what} {way:?} on {driver:?}");
            }
        }
        // One that never comes to its end, and one that ends in the middle.
        for (what, leaves) in [("late", false), ("cut", true)] {
            let mut client = Client::connect(gateway.address);
            client.send(&named[..20], Way::Whole);
            if leaves {
                client.finish_sending();
            }
            assert!(client.ended(), "{what} on {driver:?}");
        }
        let expected = closed + 2 * cases.len() as u64 + 2;
        assert_eq!(refused(&gateway), expected, "each is counted on {driver:?}");
        assert_eq!(gateway.upstream.heard(), heard, "nothing was forwarded");
        assert_eq!(count(&gateway), records, "nobody was asked for anything");
        // Another proxy of the list is believed; a stranger's header is no HTTP, whatever it says.
        come_from(OTHER_PROXY);
        let mut client = Client::connect(gateway.address);
        client.send(&[&named[..], &good].concat(), Way::Whole);
        assert_eq!(client.answer().unwrap().status, 200);
        assert_eq!(one_record(&gateway, records)["source_ip"], "203.0.113.9");
        come_from(STRANGER);
        let heard = gateway.upstream.heard();
        let mut client = Client::connect(gateway.address);
        client.send(&[&named[..], &good].concat(), Way::Whole);
        assert_eq!(client.answer().map(|answer| answer.status), Some(400));
        let record = one_record(&gateway, records + 1);
        assert_eq!(record["source_ip"], STRANGER.to_string(), "{record}");
        assert_eq!(gateway.upstream.heard(), heard, "nothing was forwarded");
        assert_eq!(gateway.ask(&good).status, 200, "a stranger without a header is served");
        come_from(Ipv4Addr::LOCALHOST);
    }
}

#[test]
fn tls_begins_right_behind_the_header() {
    const NAME: &str = "gw.example.com";
    let certified = rcgen::generate_simple_self_signed(vec![NAME.to_owned()]).unwrap();
    let (certificate, key) = (certified.cert.pem(), certified.signing_key.serialize_pem());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certified.cert.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let client = Arc::new(client);
    for driver in DRIVERS {
        let gateway = start_tls(driver, &certificate, &key);
        come_from(PROXY);
        let head = header(0x21, 0x11, &v4([203, 0, 113, 9]));
        for piece in [usize::MAX, 1] {
            let before = count(&gateway);
            let name = rustls::pki_types::ServerName::try_from(NAME).unwrap();
            let mut session = rustls::ClientConnection::new(Arc::clone(&client), name).unwrap();
            // The header and the client's hello in one segment, then byte by byte.
            let mut first = head.clone();
            while session.wants_write() {
                session.write_tls(&mut first).unwrap();
            }
            let mut socket = connect(gateway.address);
            socket.set_nodelay(true).unwrap();
            socket.set_read_timeout(Some(std::time::Duration::from_secs(15))).unwrap();
            for piece in first.chunks(piece) {
                socket.write_all(piece).unwrap();
            }
            let mut stream = rustls::StreamOwned::new(session, socket);
            let request =
                format!("POST /mcp/tools HTTP/1.1\r\nHost: {NAME}\r\nConnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).unwrap();
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer);
            assert!(answer.starts_with(b"HTTP/1.1 401 "), "{driver:?}: {}", text(&answer));
            let record = one_record(&gateway, before);
            assert_eq!(record["source_ip"], "203.0.113.9", "{record}");
        }
        // Without a header not even TLS begins.
        let closed = refused(&gateway);
        let mut plain = Client::connect(gateway.address);
        plain.send(&[22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3, 1, 2, 3, 4, 5, 6, 7], Way::Whole);
        plain.read_to_the_end();
        until("it is counted", || refused(&gateway) == closed + 1);
        come_from(Ipv4Addr::LOCALHOST);
    }
}

fn start_tls(driver: Driver, certificate: &str, key: &str) -> Gateway {
    let tls = "[listen.tls]\ncertificate = \"tls.pem\"\nprivate_key = \"file:tls.key\"\n";
    Gateway::start_with(driver, tls, |directory| {
        fs::write(directory.join("tls.pem"), certificate).unwrap();
        fs::write(directory.join("tls.key"), key).unwrap();
        let path = directory.join("gateway.toml");
        let toml = fs::read_to_string(&path).unwrap();
        let toml = toml.replace("http://portcullis.localhost", "https://gw.example.com");
        let keys = "proxy = \"proxy_v2\"\ntrusted_proxies = [\"127.9.0.0/16\"]\norigins =";
        fs::write(path, toml.replace("origins =", keys)).unwrap();
    })
}

#[test]
fn the_client_of_a_request_is_whom_a_trusted_proxy_forwards() {
    for driver in DRIVERS {
        let gateway = start(driver, "forwarded", |_| {});
        ready(&gateway);
        let forwarded = |lines: &[&str]| {
            let add = |post: Post, line: &&str| post.field(&format!("Forwarded: {line}"));
            lines.iter().fold(Post::new(&gateway), add).bytes()
        };
        come_from(PROXY);
        let mut kept = Client::connect(gateway.address);
        for (lines, source, denied) in [
            (&["for=203.0.113.9"][..], "203.0.113.9", false),
            (&["for=203.0.113.200"], "203.0.113.200", true),
            (&["for=\"[2001:db8::1]:47011\";proto=https"], "2001:db8::1", false),
            (&["for=\"[::ffff:203.0.113.200]\""], "203.0.113.200", true),
            (&["for=198.51.100.1, for=203.0.113.200"], "203.0.113.200", true),
            (&["for=198.51.100.1", "for=203.0.113.200"], "203.0.113.200", true),
            (&["for=203.0.113.200, for=198.51.100.1, for=127.9.0.2"], "198.51.100.1", false),
        ] {
            for way in [Way::Whole, Way::Dripped] {
                let shown = format!("{lines:?} {way:?} on {driver:?}");
                let before = count(&gateway);
                // One connection for all: each request speaks for itself.
                kept.send(&forwarded(lines), way);
                let answer = kept.answer().unwrap_or_else(|| panic!("{shown}: no answer"));
                let error = answer.json().pointer("/error/code").is_some();
                assert_eq!(error, denied, "{shown}: {answer:?}");
                let record = one_record(&gateway, before);
                assert_eq!(record["source_ip"], source, "{shown}: {record}");
            }
        }
        let seen = gateway.upstream.last().head.to_lowercase();
        assert!(!seen.contains("forwarded") && !seen.contains("198.51.100.1"), "{seen}");
        unusable(&gateway, &forwarded);
        // A stranger may write what it likes: it is where it is, and the field goes nowhere.
        come_from(STRANGER);
        for lines in [&["for=203.0.113.200"][..], &["for=unknown"], &["\""], &[]] {
            let before = count(&gateway);
            assert_eq!(gateway.ask(&forwarded(lines)).status, 200, "{lines:?}");
            let record = one_record(&gateway, before);
            assert_eq!(record["source_ip"], STRANGER.to_string(), "{lines:?}: {record}");
            let seen = gateway.upstream.last().head.to_lowercase();
            assert!(!seen.contains("forwarded"), "{seen}");
        }
        come_from(Ipv4Addr::LOCALHOST);
    }
}

/// What a trusted proxy must not send: refused, recorded without an address, and the connection
/// goes on.
fn unusable(gateway: &Gateway, forwarded: &dyn Fn(&[&str]) -> Vec<u8>) {
    let heard = gateway.upstream.heard();
    let mut kept = Client::connect(gateway.address);
    let long = format!("for=203.0.113.9;host={}", "x".repeat(4096));
    for lines in [
        &[][..],
        &["for=unknown"],
        &["for=_hidden"],
        &["for=203.0.113.9, for=unknown"],
        &["for=203.0.113.9, for=unknown, for=127.9.0.2"],
        &["for=127.9.0.1"],
        &["for=127.9.0.2, for=127.9.0.3"],
        &["proto=https"],
        &["for=\"203.0.113.9"],
        &["for=2001:db8::1"],
        &["for=203.0.113.9", "\""],
        &[long.as_str()],
    ] {
        for way in [Way::Whole, Way::Dripped] {
            let shown = format!("{lines:?} {way:?} on {:?}", gateway.driver);
            let before = count(gateway);
            // Not the field that everybody else reads.
            let request = text(&forwarded(lines));
            let request =
                request.replacen("\r\nHost", "\r\nX-Forwarded-For: 203.0.113.9\r\nHost", 1);
            kept.send(request.as_bytes(), way);
            let answer = kept.answer().unwrap_or_else(|| panic!("{shown}: no answer"));
            assert_eq!(
                (answer.status, answer.reason().as_str()),
                (400, "source_unknown"),
                "{shown}"
            );
            let record = one_record(gateway, before);
            assert_eq!(record["reason"], "source_unknown", "{shown}: {record}");
            assert_eq!(record["decision"], "deny", "{shown}: {record}");
            assert!(record.get("source_ip").is_none_or(Value::is_null), "{shown}: {record}");
        }
    }
    assert_eq!(gateway.upstream.heard(), heard, "nothing was forwarded");
}
