//! Two readers, one reading: each generated, mutated or hostile head gets the same verdict at the
//! same byte from the reader of today and from the one of before (own scan, then `httparse`), and
//! where it is accepted, the same fields, lengths and lines towards the other side.

use super::before::{OldRequest, OldResponse};
use super::*;
use crate::http::headers::{connection_may_remove, goes_downstream, goes_upstream};
use crate::limits;

const HEADS: usize = 120_000;
const RESPONSES: usize = 100_000;

type Lines = Vec<(Vec<u8>, Vec<u8>)>;

fn owned<'a>(lines: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Lines {
    lines.map(|(name, value)| (name.to_vec(), value.to_vec())).collect()
}

/// Both readers see `bytes` grow to each of `cuts`. True when the head is accepted.
fn agree_on_request(bytes: &[u8], cuts: &[usize]) -> Result<Option<usize>, Reject> {
    let (mut new, mut old) = (RequestHead::new(), OldRequest::new());
    let mut verdict = Ok(None);
    for cut in cuts {
        let arrived = &bytes[..*cut];
        verdict = new.parse(arrived);
        assert_eq!(verdict, old.parse(arrived), "{} cut at {cut}", show(bytes));
    }
    let shown = show(bytes);
    assert_eq!(new.keep_alive(), old.keep_alive, "{shown}");
    assert_eq!(new.method(), old.method, "{shown}");
    assert_eq!(new.target(bytes), old.target.of(bytes), "{shown}");
    assert_eq!(new.framing(), old.framing, "{shown}");
    assert_eq!(new.expects_continue(), old.expects_continue, "{shown}");
    assert_eq!(new.is_http_10(), old.http_10, "{shown}");
    if verdict == Ok(None) {
        return verdict;
    }
    assert_eq!(owned(new.fields(bytes)), owned(old.fields.iter(bytes)), "{shown}");
    for field in Field::ALL {
        assert_eq!(new.field(bytes, field), old.fields.get(bytes, field), "{shown}");
        let values = |all: Vec<&[u8]>| all.into_iter().map(<[u8]>::to_vec).collect::<Vec<_>>();
        let (ours, theirs) = (new.values(bytes, field), old.fields.values(bytes, field));
        assert_eq!(values(ours.collect()), values(theirs.collect()), "{shown}");
    }
    let upward = old.fields.iter(bytes).filter(|(name, _)| {
        goes_upstream(name)
            && !(connection_may_remove(name) && old.fields.connection_lists(bytes, name))
    });
    let upward = owned(upward);
    assert_eq!(owned(new.upstream_fields(bytes)), upward, "{shown}");
    for withheld in [None, Some(Field::McpName), Some(Field::UserAgent)] {
        let mut written = Vec::new();
        new.write_upstream_fields(
            bytes,
            |field, _| field.is_some() && field == withheld,
            &mut written,
        );
        let name = withheld.map_or("", Field::name).as_bytes();
        let mut expected = Vec::new();
        for (own, value) in upward.iter().filter(|(own, _)| !own.eq_ignore_ascii_case(name)) {
            write::header(own, value, &mut expected).expect("what was accepted breaks no line");
        }
        assert_eq!(show(&written), show(&expected), "{shown}");
    }
    verdict
}

/// Of any stream that another test reads: its start is a head, or none.
pub(super) fn both_readers_agree(stream: &[u8]) {
    let every: Vec<usize> = (0..=stream.len()).collect();
    let _ = agree_on_request(stream, &every);
    let _ = agree_on_request(stream, &[stream.len()]);
}

fn agree_on_response(
    bytes: &[u8],
    cuts: &[usize],
    answered: Method,
) -> Result<Option<usize>, Reject> {
    let (mut new, mut old) = (ResponseHead::new(), OldResponse::new());
    let mut verdict = Ok(None);
    for cut in cuts {
        let arrived = &bytes[..*cut];
        verdict = new.parse(arrived, answered);
        assert_eq!(verdict, old.parse(arrived, answered), "{} cut at {cut}", show(bytes));
    }
    let shown = show(bytes);
    assert_eq!(new.keep_alive(), old.keep_alive, "{shown}");
    assert_eq!(new.framing(), old.framing, "{shown}");
    if let Ok(Some(_)) = verdict {
        assert_eq!(new.status(), old.status, "{shown}");
        assert_eq!(owned(new.fields(bytes)), owned(old.fields.iter(bytes)), "{shown}");
        let downward = old.fields.iter(bytes).filter(|(name, _)| goes_downstream(name));
        assert_eq!(owned(new.downstream_fields(bytes)), owned(downward), "{shown}");
    }
    verdict
}

/// Every place, or a few at random, and the end.
fn cuts(random: &mut Random, length: usize, every: bool) -> Vec<usize> {
    if every {
        return (0..=length).collect();
    }
    let mut cuts: Vec<usize> = (0..random.below(4)).map(|_| random.below(length + 1)).collect();
    cuts.push(length);
    cuts.sort_unstable();
    cuts
}

const NAMES: [&str; 40] = [
    "accept",
    "Accept",
    "ACCEPT",
    "baggage",
    "cache-control",
    "Connection",
    "content-length",
    "Content-Type",
    "content-encoding",
    "cookie",
    "expect",
    "host",
    "Host",
    "last-event-id",
    "location",
    "mcp-method",
    "Mcp-Name",
    "MCP-Protocol-Version",
    "mcp-session-id",
    "origin",
    "retry-after",
    "traceparent",
    "tracestate",
    "transfer-encoding",
    "user-agent",
    "www-authenticate",
    "x-accel-buffering",
    "authorization",
    "Mcp-Param-Region",
    "mcp-param-region",
    "mcp-",
    "Mcp",
    "x",
    "X-Forwarded-For",
    "mcp-protocol-versiom",
    "transfer_encoding",
    "hosts",
    "acc\u{e9}pt",
    "x y",
    "a-name-that-is-longer-than-any-that-the-quick-way-looks-at",
];

const VALUES: [&str; 26] = [
    "",
    " ",
    "a",
    "text/plain, */*",
    "application/json",
    "close",
    "keep-alive, User-Agent",
    "baggage, close",
    "100-continue",
    "gw.example.com",
    "gw.example.com:8443",
    "a b",
    "5",
    "0",
    "chunked",
    "gzip, chunked",
    "identity",
    "\u{fc}ber",
    "a\tb",
    "a\u{7f}b",
    "\u{7f}",
    "a\0b",
    "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    "Bearer eyJhbGciOiJFUzI1NiIsInR5cCI6ImF0K2p3dCJ9eyJhbGciOiJFUzI1NiIsInR5cCI6ImF0K2p3dCJ9eyJ",
    "a\rb",
    "a\nb",
];

fn line(random: &mut Random, head: &mut Vec<u8>) {
    const SPACE: [&str; 8] = [" ", " ", " ", " ", "", "\t", "  ", " \t "];
    const ENDS: [&str; 8] = ["", "", "", "", "", " ", "\t", " \t"];
    head.extend_from_slice(random.pick(&NAMES).as_bytes());
    head.push(b':');
    head.extend_from_slice(random.pick(&SPACE).as_bytes());
    // The first of the table are the sound ones.
    let sound = random.below(16) > 0;
    let value = if sound { VALUES[random.below(19)] } else { random.pick(&VALUES) };
    head.extend_from_slice(value.as_bytes());
    head.extend_from_slice(random.pick(&ENDS).as_bytes());
    head.extend_from_slice(if random.below(64) == 0 { b"\n" } else { b"\r\n" });
}

fn mutate(random: &mut Random, bytes: &mut Vec<u8>) {
    const SALT: &[u8] = b"\r\n\t :;,/?#%\\{0139afFx\0\x7f\xff\x0b\x1f\x80";
    if random.below(3) > 0 {
        return;
    }
    for _ in 0..1 + random.below(2) {
        let place = random.below(bytes.len());
        let salt = SALT[random.below(SALT.len())];
        match random.below(6) {
            0 => bytes[place] = salt,
            1 => bytes.insert(place, salt),
            2 => {
                bytes.remove(place);
            }
            3 => bytes[place] ^= 1 << random.below(8),
            4 => bytes[place] = random.next() as u8,
            _ => bytes.truncate(place + 1),
        }
    }
}

#[test]
fn generated_and_mutated_request_heads_have_the_reading_of_before() {
    const FIRST: [&str; 15] = [
        "POST /mcp/github HTTP/1.1\r\n",
        "POST /mcp HTTP/1.1\r\n",
        "GET /mcp?x={y} HTTP/1.1\r\n",
        "DELETE /mcp/a HTTP/1.1\r\n",
        "POST /mcp/a HTTP/1.0\r\n",
        "\r\nPOST /%4a HTTP/1.1\r\n",
        "GET /%4x HTTP/1.1\r\n",
        "GET /a{b HTTP/1.1\r\n",
        "OPTIONS * HTTP/1.1\r\n",
        "CONNECT a:1 HTTP/1.1\r\n",
        "GET / HTTP/2.0\r\n",
        "get  / HTTP/1.1\r\n",
        "GET /\r\n",
        "PATCH /a?b#c HTTP/1.1\r\n",
        "\r\n\r\nGET / HTTP/1.1\r\n",
    ];
    let mut random = Random(0x5eed_0b01);
    let (mut accepted, mut refused) = (0_usize, 0_usize);
    for round in 0..HEADS {
        let sound = random.below(4) > 0;
        let first = if sound { FIRST[random.below(6)] } else { random.pick(&FIRST) };
        let mut head = first.as_bytes().to_vec();
        if random.below(8) > 0 {
            head.extend_from_slice(b"host: gw.example.com\r\n");
        }
        for _ in 0..random.below(6) {
            line(&mut random, &mut head);
        }
        head.extend_from_slice(b"\r\n");
        mutate(&mut random, &mut head);
        let cuts = cuts(&mut random, head.len(), round % 64 == 0);
        let verdict = agree_on_request(&head, &cuts);
        accepted += usize::from(matches!(verdict, Ok(Some(_))));
        refused += usize::from(verdict.is_err());
    }
    // The generator must reach both sides, or the test above says nothing.
    assert!(accepted > HEADS / 10 && refused > HEADS / 4, "{accepted} accepted, {refused} refused");
}

#[test]
fn generated_and_mutated_response_heads_have_the_reading_of_before() {
    const FIRST: [&str; 14] = [
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.0 200 OK\r\n",
        "HTTP/1.1 204 \r\n",
        "HTTP/1.1 304\r\n",
        "HTTP/1.1 100 c\r\n",
        "HTTP/1.1 101 s\r\n",
        "HTTP/1.1 99 x\r\n",
        "HTTP/1.1 600 x\r\n",
        "HTTP/1.1 200x\r\n",
        "HTTP/1.2 200 OK\r\n",
        "http/1.1 200 OK\r\n",
        "HTTP/1.1  200 OK\r\n",
        "\r\nHTTP/1.1 200 OK\r\n",
        "HTTP/1.1 200 \u{fc}\t\u{7f}\r\n",
    ];
    let mut random = Random(0x5eed_0b02);
    let (mut accepted, mut refused) = (0_usize, 0_usize);
    for round in 0..RESPONSES {
        let sound = random.below(4) > 0;
        let first = if sound { FIRST[random.below(5)] } else { random.pick(&FIRST) };
        let mut head = first.as_bytes().to_vec();
        for _ in 0..random.below(5) {
            line(&mut random, &mut head);
        }
        head.extend_from_slice(b"\r\nbody");
        mutate(&mut random, &mut head);
        let answered = if random.below(8) == 0 { Method::Head } else { Method::Post };
        let cuts = cuts(&mut random, head.len(), round % 64 == 0);
        let verdict = agree_on_response(&head, &cuts, answered);
        accepted += usize::from(matches!(verdict, Ok(Some(_))));
        refused += usize::from(verdict.is_err());
    }
    assert!(
        accepted > RESPONSES / 8 && refused > RESPONSES / 4,
        "{accepted} accepted, {refused} refused"
    );
}

/// Heads at every bound: of a name, a method, a target, the lines and the whole, whole and in
/// pieces.
#[test]
fn heads_at_their_bounds_have_the_reading_of_before() {
    let around = |bound: usize| [bound - 1, bound, bound + 1];
    let mut heads = Vec::new();
    for length in around(limits::FIELD_NAME_BYTES_MAX).into_iter().chain(40..60) {
        heads.push(format!("GET / HTTP/1.1\r\nhost: a\r\n{}: b\r\n\r\n", "n".repeat(length)));
    }
    for length in around(limits::METHOD_BYTES_MAX) {
        heads.push(format!("{} / HTTP/1.1\r\nhost: a\r\n\r\n", "M".repeat(length)));
    }
    for length in around(limits::TARGET_BYTES_MAX) {
        heads.push(format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", "t".repeat(length - 1)));
    }
    for lines in around(limits::HEAD_FIELDS_MAX) {
        heads.push(format!("GET / HTTP/1.1\r\nhost: a\r\n{}\r\n", "x: y\r\n".repeat(lines - 1)));
        heads.push(format!("GET / HTTP/1.1\r\nhost: a\r\n{}\r\n", "x:\ty\r\n".repeat(lines - 1)));
    }
    for length in around(limits::HEAD_BYTES_MAX) {
        let start = "GET / HTTP/1.1\r\nhost: a\r\nx: ";
        let value = "v".repeat(length - start.len() - "\r\n\r\n".len());
        heads.push(format!("{start}{value}\r\n\r\n"));
    }
    for head in &heads {
        let bytes = head.as_bytes();
        let _ = agree_on_request(bytes, &[bytes.len()]);
        let pieces: Vec<usize> = (0..bytes.len()).step_by(97).chain([bytes.len()]).collect();
        let _ = agree_on_request(bytes, &pieces);
        let answer = head.replacen("GET / HTTP/1.1", "HTTP/1.1 200 OK", 1);
        let _ = agree_on_response(answer.as_bytes(), &[answer.len()], Method::Post);
    }
    // Every byte value at every place of a short head.
    let sound = b"\r\nGET /a?b%20 HTTP/1.1\r\nHost: a\r\nMcp-Name:\tb \r\nx:\r\nExpect: 100-continue\r\n\r\n";
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\nRetry-After: a\r\nx:\r\n\r\n";
    for byte in 0..=u8::MAX {
        for place in 0..sound.len() {
            let mut other = sound.to_vec();
            other[place] = byte;
            let _ = agree_on_request(&other, &[other.len()]);
        }
        for place in 0..answer.len() {
            let mut other = answer.to_vec();
            other[place] = byte;
            let _ = agree_on_response(&other, &[other.len()], Method::Post);
        }
    }
}
