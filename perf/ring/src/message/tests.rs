use super::*;

const CALL: &[u8] = b"POST /mcp HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer secret\r\n\
    X-API-Key: smuggled\r\nContent-Type: application/json\r\nConnection: keep-alive\r\n\
    Content-Length: 5\r\n\r\nhello";
const CALL_ON: &[u8] = b"POST /mcp HTTP/1.1\r\nContent-Type: application/json\r\n\
    Content-Length: 5\r\nHost: up:1\r\nX-Api-Key: key\r\n\r\nhello";
const ANSWER: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\
    Keep-Alive: timeout=5\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
const ANSWER_ON: &[u8] =
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";

/// Relays a message that comes in `pieces`: what went on, what was left, and whether it ended.
fn relayed(mut message: Message, pieces: &[&[u8]]) -> Result<(Vec<u8>, usize, bool), Fault> {
    let (mut all, mut left, mut done) = (Vec::new(), 0, false);
    for piece in pieces {
        let mut out = Vec::new();
        let taken = message.take(piece, &Rewrite::new("up:1", "key"), &mut out)?;
        all.extend_from_slice(&out);
        all.extend_from_slice(&piece[taken.body.clone()]);
        assert_eq!(taken.used, taken.body.end.max(taken.used));
        left = piece.len() - taken.used;
        done |= taken.done;
    }
    Ok((all, left, done))
}

#[test]
fn a_request_goes_on_with_our_credential_only_however_it_is_cut() {
    for cut in 0..CALL.len() {
        let (head, tail) = CALL.split_at(cut);
        let (all, left, done) = relayed(Message::request(), &[head, tail]).unwrap();
        assert_eq!(all.escape_ascii().to_string(), CALL_ON.escape_ascii().to_string());
        assert!(left == 0 && done);
    }
}

#[test]
fn a_response_goes_on_without_interim_ones_however_it_is_cut() {
    for cut in 0..ANSWER.len() {
        let (head, tail) = ANSWER.split_at(cut);
        let (all, left, done) = relayed(Message::response(), &[head, tail]).unwrap();
        assert_eq!(all.escape_ascii().to_string(), ANSWER_ON.escape_ascii().to_string());
        assert!(left == 0 && done, "cut at {cut}");
    }
}

#[test]
fn bytes_behind_the_end_are_not_taken() {
    let two = [CALL, CALL].concat();
    assert_eq!(relayed(Message::request(), &[&two]).unwrap().1, CALL.len());
    let more = [ANSWER, b"poison"].concat();
    assert_eq!(relayed(Message::response(), &[&more]).unwrap().1, b"poison".len());
}

#[test]
fn responses_without_a_body_end_with_their_head() {
    for head in [
        &b"HTTP/1.1 204 No Content\r\n\r\n"[..],
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n",
    ] {
        let (_, left, done) = relayed(Message::response(), &[head]).unwrap();
        assert!(left == 0 && done);
    }
    let mut answer = Message::response();
    answer.restart(true);
    let head = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n";
    assert!(relayed(answer, &[head]).unwrap().2);
}

#[test]
fn a_response_without_framing_ends_with_the_connection() {
    let mut answer = Message::response();
    let mut out = Vec::new();
    let input = b"HTTP/1.1 200 OK\r\n\r\nall";
    let taken = answer.take(input, &Rewrite::new("up:1", "key"), &mut out).unwrap();
    assert!(!taken.done && taken.body == (19..22));
    assert!(answer.ends_with_close() && !answer.keep_alive());
}

#[test]
fn ambiguous_or_foreign_messages_are_refused() {
    for (fields, fault) in [
        ("Content-Length: 5\r\nContent-Length: 5\r\n", Fault::Malformed),
        ("Content-Length: +5\r\n", Fault::Malformed),
        ("Content-Length: \r\n", Fault::Malformed),
        ("Content-Length: 99999999999999999999\r\n", Fault::Malformed),
        ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", Fault::Malformed),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", Fault::Malformed),
        ("Transfer-Encoding: gzip, chunked\r\n", Fault::Unsupported),
        ("Expect: 100-continue\r\n", Fault::Unsupported),
        ("Bad Name: x\r\n", Fault::Malformed),
    ] {
        let head = format!("POST / HTTP/1.1\r\n{fields}\r\nhello");
        assert_eq!(relayed(Message::request(), &[head.as_bytes()]), Err(fault), "{fields}");
    }
    let old = b"GET / HTTP/1.0\r\n\r\n";
    assert_eq!(relayed(Message::request(), &[old]), Err(Fault::Unsupported));
    let switch = b"HTTP/1.1 101 Switching\r\n\r\n";
    assert_eq!(relayed(Message::response(), &[switch]), Err(Fault::Unsupported));
}

#[test]
fn heads_are_bounded() {
    let long = format!("GET / HTTP/1.1\r\nA: {}\r\n\r\n", "a".repeat(HEAD_BYTES_MAX));
    assert_eq!(relayed(Message::request(), &[long.as_bytes()]), Err(Fault::HeadTooLarge));
    let drip: Vec<&[u8]> = long.as_bytes().chunks(1000).collect();
    assert_eq!(relayed(Message::request(), &drip), Err(Fault::HeadTooLarge));
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(FIELDS_MAX + 1));
    assert_eq!(relayed(Message::request(), &[many.as_bytes()]), Err(Fault::HeadTooLarge));
}

#[test]
fn a_request_that_asks_to_close_says_so() {
    let mut request = Message::request();
    let input = b"GET / HTTP/1.1\r\nConnection: x, Close\r\n\r\n";
    let mut out = Vec::new();
    request.take(input, &Rewrite::new("up:1", "key"), &mut out).unwrap();
    assert!(!request.keep_alive());
    assert!(!out.windows(10).any(|part| part.eq_ignore_ascii_case(b"connection")));
}
