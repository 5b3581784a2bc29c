//! Seeded streams: no panic, one verdict however they are cut, and what is accepted is what a slow,
//! naive reading finds as well.

use super::bodies::chunked_cut;
use super::*;

const HEADS: usize = 150_000;
const BODIES: usize = 60_000;

const LINES: [&str; 26] = [
    "Host: a\r\n",
    "Host: gw.example.com:8443\r\n",
    "Content-Length: 5\r\n",
    "Content-Length: 0\r\n",
    "content-length:7 \r\n",
    "Transfer-Encoding: chunked\r\n",
    "Transfer-Encoding: gzip, chunked\r\n",
    "Connection: close\r\n",
    "Connection: keep-alive, mcp-name\r\n",
    "Expect: 100-continue\r\n",
    "Authorization: Bearer abc\r\n",
    "Mcp-Method: tools/call\r\n",
    "Mcp-Name: =?base64?YQ==?=\r\n",
    "Mcp-Param-Region: eu\r\n",
    "Accept: application/json\r\n",
    "Accept:\ttext/event-stream\t\r\n",
    "X-Long: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n",
    "X-Empty:\r\n",
    "X: \u{fc}\r\n",
    " folded\r\n",
    "X : y\r\n",
    "X: y\n",
    "X: \r y\r\n",
    "no colon\r\n",
    ": y\r\n",
    "X: \0\r\n",
];

const FIRST: [&str; 9] = [
    "POST /mcp HTTP/1.1\r\n",
    "GET / HTTP/1.1\r\n",
    "DELETE /mcp/a?b=c HTTP/1.1\r\n",
    "get / HTTP/1.0\r\n",
    "CONNECT a:1 HTTP/1.1\r\n",
    "OPTIONS * HTTP/1.1\r\n",
    "GET http://a/ HTTP/1.1\r\n",
    "GET / HTTP/2.0\r\n",
    "\r\nPOST /%41 HTTP/1.1\r\n",
];

fn stream(random: &mut Random) -> Vec<u8> {
    let mut stream = Vec::new();
    for _ in 0..1 + random.below(2) {
        let first = if random.below(4) > 0 { FIRST[random.below(4)] } else { random.pick(&FIRST) };
        stream.extend_from_slice(first.as_bytes());
        stream.extend_from_slice(b"Host: a\r\n");
        for _ in 0..random.below(5) {
            // The first lines of the table are the sound ones: most heads should get far.
            let sound = random.below(8) > 0;
            let line = if sound { LINES[2 + random.below(17)] } else { random.pick(&LINES) };
            stream.extend_from_slice(line.as_bytes());
        }
        stream.extend_from_slice(b"\r\n");
        stream.extend_from_slice(
            random.pick(&["", "", "hello", "5\r\nhello\r\n0\r\n\r\n"]).as_bytes(),
        );
    }
    mutate(random, &mut stream);
    stream
}

fn mutate(random: &mut Random, bytes: &mut Vec<u8>) {
    const SALT: &[u8] = b"\r\n\t :;,/0139afFx\0\x7f\xff\x0b";
    for _ in 0..random.below(4) {
        if bytes.is_empty() {
            return;
        }
        let place = random.below(bytes.len());
        let salt = SALT[random.below(SALT.len())];
        match random.below(5) {
            0 => bytes[place] = salt,
            1 => bytes.insert(place, salt),
            2 => {
                bytes.remove(place);
            }
            3 => bytes[place] ^= 1 << random.below(8),
            _ => bytes.truncate(place + 1),
        }
    }
}

#[test]
fn h31_heads_have_one_verdict_and_accepted_ones_one_reading() {
    let mut random = Random(0x5eed_0001);
    let (mut accepted, mut refused) = (0_usize, 0_usize);
    for round in 0..HEADS {
        let bytes = stream(&mut random);
        let whole = read_cut(&bytes, &[]);
        let first = random.below(bytes.len() + 1);
        let second = first + random.below(bytes.len() + 1 - first);
        assert_eq!(read_cut(&bytes, &[first, second]), whole, "{round}: {}", show(&bytes));
        if round % 64 == 0 {
            let every: Vec<usize> = (0..bytes.len()).collect();
            assert_eq!(read_cut(&bytes, &every), whole, "{round}: {}", show(&bytes));
        }
        refused += usize::from(whole.refused.is_some());
        accepted += whole.requests.len();
        compare_with_naive(&bytes, &whole);
    }
    // The generator must reach both sides, or the test above says nothing.
    assert!(accepted > HEADS / 4 && refused > HEADS / 4, "{accepted} accepted, {refused} refused");
}

/// Reads the first request of an accepted stream by splitting text, and compares.
fn compare_with_naive(bytes: &[u8], reading: &Reading) {
    let Some(request) = reading.requests.first() else { return };
    let bytes = bytes.strip_prefix(b"\r\n").unwrap_or(bytes);
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("a head has an end");
    let head = &bytes[..end];
    assert!(!head.contains(&0), "{}", show(bytes));
    let lines: Vec<&[u8]> = split_crlf(head);
    assert!(lines.iter().all(|line| !line.contains(&b'\r') && !line.contains(&b'\n')));
    assert_eq!(lines.len() - 1, request.fields.len(), "{}", show(bytes));
    let first = String::from_utf8(lines[0].to_vec()).unwrap();
    let parts: Vec<&str> = first.split(' ').collect();
    assert_eq!(parts[1], request.target, "{}", show(bytes));
    assert_eq!(parts.len(), 3);
    for (line, (name, value)) in lines[1..].iter().zip(&request.fields) {
        let colon = line.iter().position(|byte| *byte == b':').expect("a field has a colon");
        assert_eq!(&line[..colon], name.as_bytes());
        assert_eq!(line[colon + 1..].trim_ascii(), value.trim_ascii());
    }
    let count = |wanted: &str| {
        request.fields.iter().filter(|(name, _)| name.eq_ignore_ascii_case(wanted)).count()
    };
    assert_eq!(count("host"), 1, "{}", show(bytes));
    assert!(count("content-length") + count("transfer-encoding") <= 1, "{}", show(bytes));
    let value = |wanted: &str| {
        let found = request.fields.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted));
        found.map(|(_, value)| String::from_utf8(value.clone()).unwrap())
    };
    let after = &bytes[end + 4..];
    if let Some(length) = value("content-length") {
        assert_eq!(request.body, after[..length.parse().unwrap()], "{}", show(bytes));
    } else if value("transfer-encoding").is_none() {
        assert!(request.body.is_empty(), "{}", show(bytes));
    }
}

fn split_crlf(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut lines = Vec::new();
    while let Some(end) = bytes.windows(2).position(|two| two == b"\r\n") {
        lines.push(&bytes[..end]);
        bytes = &bytes[end + 2..];
    }
    lines.push(bytes);
    lines
}

#[test]
fn h31_chunked_bodies_come_back_and_mutated_ones_have_one_verdict() {
    let mut random = Random(0x5eed_0002);
    let (mut accepted, mut refused) = (0_usize, 0_usize);
    for round in 0..BODIES {
        let mut body = Vec::new();
        let mut bytes = Vec::new();
        for _ in 0..random.below(4) {
            let size = 1 + random.below(40);
            let data: Vec<u8> = (0..size).map(|_| random.next() as u8).collect();
            let zeros = "0".repeat(random.below(5));
            let extension = random.pick(&["", "", ";", ";a=b", ";c=\"d\"; e"]);
            bytes.extend_from_slice(format!("{zeros}{size:x}{extension}\r\n").as_bytes());
            bytes.extend_from_slice(&data);
            bytes.extend_from_slice(b"\r\n");
            body.extend_from_slice(&data);
        }
        bytes.extend_from_slice(random.pick(&["0\r\n\r\n", "00;x\r\nX: y\r\n\r\n"]).as_bytes());
        let length = bytes.len();
        assert_eq!(chunked_cut(&bytes, &[]), Ok(Some((body, length))), "{}", show(&bytes));
        mutate(&mut random, &mut bytes);
        let whole = chunked_cut(&bytes, &[]);
        let first = random.below(bytes.len() + 1);
        let second = first + random.below(bytes.len() + 1 - first);
        assert_eq!(chunked_cut(&bytes, &[first, second]), whole, "{round}: {}", show(&bytes));
        refused += usize::from(whole.is_err());
        accepted += usize::from(matches!(whole, Ok(Some(_))));
    }
    assert!(
        accepted > BODIES / 4 && refused > BODIES / 20,
        "{accepted} accepted, {refused} refused"
    );
}

#[test]
fn responses_have_one_verdict() {
    let mut random = Random(0x5eed_0003);
    let firsts = [
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.0 200 OK\r\n",
        "HTTP/1.1 204 \r\n",
        "HTTP/1.1 100 c\r\n",
        "HTTP/1.1 304\r\n",
        "HTTP/1.1 999 x\r\n",
    ];
    let mut accepted = 0_usize;
    for round in 0..BODIES {
        let mut bytes = random.pick(&firsts).as_bytes().to_vec();
        for _ in 0..random.below(4) {
            bytes.extend_from_slice(LINES[2 + random.below(18)].as_bytes());
        }
        bytes.extend_from_slice(b"\r\nbody");
        mutate(&mut random, &mut bytes);
        let mut whole = ResponseHead::new();
        let verdict = whole.parse(&bytes, Method::Post);
        let mut cut = ResponseHead::new();
        let early = cut.parse(&bytes[..random.below(bytes.len() + 1)], Method::Post);
        let late = if early == Ok(None) { cut.parse(&bytes, Method::Post) } else { early };
        assert_eq!(late, verdict, "{round}: {}", show(&bytes));
        assert_eq!(cut.framing(), whole.framing());
        if let Ok(Some(length)) = verdict {
            accepted += 1;
            assert!(bytes[..length].ends_with(b"\r\n\r\n"), "{}", show(&bytes));
            assert!((100..600).contains(&whole.status()));
        } else {
            assert!(!whole.keep_alive());
        }
    }
    assert!(accepted > BODIES / 4, "{accepted}");
}
