//! Answers made once and sent many times: only the id is written in.

use crate::request::{SHORT_ANSWER_BYTES, write_digits};
use crate::upstream::asked::Id;

/// Prepared answers, one per size, width of the id and kind of ending.
#[derive(Debug, Default)]
pub(crate) struct Canned {
    prepared: Vec<Prepared>,
}

#[derive(Debug)]
struct Prepared {
    kind: Kind,
    id_width: usize,
    close: bool,
    bytes: Vec<u8>,
    id_at: usize,
}

/// What an answer is, apart from its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Accepted,
    Discover,
    Initialize,
    /// The result of a tool: a message of so many bytes.
    Message(usize),
    NotAllowed,
    Ping,
    Tools,
    Unknown,
}

impl Canned {
    /// The number of the prepared answer; it is made when it is first asked for.
    pub(crate) fn prepare(&mut self, kind: Kind, id: &Id, close: bool) -> usize {
        let id_width = id.as_bytes().len();
        let known =
            |one: &Prepared| one.kind == kind && one.id_width == id_width && one.close == close;
        if let Some(number) = self.prepared.iter().position(known) {
            return number;
        }
        self.prepared.push(Prepared::new(kind, id_width, close));
        self.prepared.len() - 1
    }

    /// The bytes of a prepared answer with this id in it.
    pub(crate) fn bytes(&mut self, number: usize, id: &Id) -> &[u8] {
        let Some(one) = self.prepared.get_mut(number) else { return &[] };
        if let Some(place) = one.bytes.get_mut(one.id_at..one.id_at + id.as_bytes().len()) {
            place.copy_from_slice(id.as_bytes());
        }
        &one.bytes
    }
}

impl Prepared {
    fn new(kind: Kind, id_width: usize, close: bool) -> Self {
        let (start, end) = message(kind, id_width);
        let status = match kind {
            Kind::Accepted => "202 Accepted",
            Kind::NotAllowed => "405 Method Not Allowed\r\nAllow: POST",
            Kind::Discover
            | Kind::Initialize
            | Kind::Message(_)
            | Kind::Ping
            | Kind::Tools
            | Kind::Unknown => "200 OK",
        };
        let has_body = !start.is_empty();
        let length = start.len() + end.len() + if has_body { id_width } else { 0 };
        let mut head = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n");
        if has_body {
            head.push_str("Content-Type: application/json\r\n");
        }
        head.push_str(if close { "Connection: close\r\n\r\n" } else { "\r\n" });
        let id_at = if has_body { head.len() + start.len() } else { usize::MAX / 2 };
        let id = vec![b'0'; if has_body { id_width } else { 0 }];
        let bytes = [head.as_bytes(), start.as_bytes(), &id, end.as_bytes()].concat();
        Self { kind, id_width, close, bytes, id_at }
    }
}

/// What stands before and behind the id.
fn message(kind: Kind, id_width: usize) -> (String, String) {
    let start = "{\"jsonrpc\":\"2.0\",\"id\":".to_owned();
    let end = match kind {
        Kind::Accepted | Kind::NotAllowed => return (String::new(), String::new()),
        Kind::Discover => ",\"result\":{\"resultType\":\"complete\",\
            \"supportedVersions\":[\"2026-07-28\"],\"capabilities\":{\"tools\":{}},\
            \"ttlMs\":60000,\"cacheScope\":\"public\"}}"
            .to_owned(),
        Kind::Initialize => ",\"result\":{\"protocolVersion\":\"2025-11-25\",\
            \"capabilities\":{\"tools\":{}},\
            \"serverInfo\":{\"name\":\"load-upstream\",\"version\":\"1\"}}}"
            .to_owned(),
        Kind::Message(size) => result(size.saturating_sub(start.len() + id_width)),
        Kind::Ping => ",\"result\":{}}".to_owned(),
        Kind::Tools => tools(),
        Kind::Unknown => {
            ",\"error\":{\"code\":-32602,\"message\":\"no such method or tool here\"}}".to_owned()
        }
    };
    (start, end)
}

/// The end of a tool's result, of so many bytes.
fn result(size: usize) -> String {
    let start = ",\"result\":{\"content\":[{\"type\":\"text\",\"text\":\"";
    let end = "\"}],\"isError\":false}}";
    format!("{start}{}{end}", "a".repeat(size.saturating_sub(start.len() + end.len())))
}

fn tools() -> String {
    let tool = |number: usize| {
        let name = match number {
            0 => "answer_300".to_owned(),
            1 => "answer_16384".to_owned(),
            2 => "answer_1048576".to_owned(),
            3 => "slow_50".to_owned(),
            _ => format!("search_{number:02}"),
        };
        format!(
            "{{\"name\":\"{name}\",\"description\":\"Finds what the query asks for.\",\
             \"inputSchema\":{{\"type\":\"object\",\"properties\":\
             {{\"query\":{{\"type\":\"string\"}}}},\"required\":[\"query\"]}}}}"
        )
    };
    let list: Vec<_> = (0..TOOLS).map(tool).collect();
    format!(",\"result\":{{\"tools\":[{}]}}}}", list.join(","))
}

/// The parts of a stream of events, each a chunk of its own.
#[derive(Debug)]
pub(crate) struct EventChunk {
    bytes: Vec<u8>,
    sequence_at: usize,
    sent_at: usize,
}

impl EventChunk {
    pub(crate) fn new() -> Self {
        let start = "data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/message\",\
            \"params\":{\"level\":\"info\",\"data\":{\"seq\":\"";
        let middle = "\",\"ns\":\"";
        let end = "\"}}}\n\n";
        let size = start.len() + SEQUENCE_DIGITS + middle.len() + SENT_DIGITS + end.len();
        let head = format!("{size:x}\r\n{start}");
        let sequence_at = head.len();
        let sent_at = sequence_at + SEQUENCE_DIGITS + middle.len();
        let digits = |count: usize| "0".repeat(count);
        let bytes =
            format!("{head}{}{middle}{}{end}\r\n", digits(SEQUENCE_DIGITS), digits(SENT_DIGITS));
        Self { bytes: bytes.into_bytes(), sequence_at, sent_at }
    }

    /// The chunk with its number and the instant at which it is sent.
    pub(crate) fn with(&mut self, sequence: u64, sent: u64) -> &[u8] {
        for (at, digits, value) in
            [(self.sequence_at, SEQUENCE_DIGITS, sequence), (self.sent_at, SENT_DIGITS, sent)]
        {
            if let Some(place) = self.bytes.get_mut(at..at + digits) {
                write_digits(place, value);
            }
        }
        &self.bytes
    }
}

pub(crate) const STREAM_HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\
    Cache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n\r\n";

/// The last event, which is the answer, and the end of the chunks.
pub(crate) fn stream_end(id: &Id) -> Vec<u8> {
    let (start, end) = message(Kind::Message(SHORT_ANSWER_BYTES), id.as_bytes().len());
    let event = [b"data: ", start.as_bytes(), id.as_bytes(), end.as_bytes(), b"\n\n"].concat();
    let size = format!("{:x}\r\n", event.len());
    [size.as_bytes(), &event, b"\r\n0\r\n\r\n"].concat()
}

const TOOLS: usize = 20;
const SEQUENCE_DIGITS: usize = 10;
const SENT_DIGITS: usize = 19;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http;
    use crate::upstream::asked::Asked;

    fn id(text: &str) -> Id {
        let body = format!("{{\"id\":{text}}}");
        let wire = format!("POST / HTTP/1.1\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        Asked::read(wire.as_bytes(), &mut Vec::new()).unwrap().unwrap().id
    }

    fn body(bytes: &[u8]) -> &[u8] {
        &bytes[http::head_end(bytes).unwrap()..]
    }

    #[test]
    fn an_answer_has_the_size_asked_for_and_the_id_of_each_request() {
        let mut canned = Canned::default();
        for size in [300, 16_384, 1_048_576] {
            for text in ["7", "1000000001", "1000000002", "\"abc\""] {
                let id = id(text);
                let number = canned.prepare(Kind::Message(size), &id, false);
                let body = body(canned.bytes(number, &id));
                assert_eq!(body.len(), size);
                let json: serde_json::Value = serde_json::from_slice(body).unwrap();
                assert_eq!(json["id"].to_string(), text);
                assert_eq!(json["result"]["isError"], false);
            }
        }
        assert_eq!(canned.prepared.len(), 9, "one per size and width of the id");
    }

    #[test]
    fn every_other_answer_is_json_or_has_no_body() {
        let (mut canned, id) = (Canned::default(), id("5"));
        for kind in [Kind::Discover, Kind::Initialize, Kind::Ping, Kind::Tools, Kind::Unknown] {
            let number = canned.prepare(kind, &id, true);
            let bytes = canned.bytes(number, &id);
            assert!(bytes.windows(17).any(|part| part == b"Connection: close"));
            let json: serde_json::Value = serde_json::from_slice(body(bytes)).unwrap();
            assert_eq!(json["id"], 5);
            if kind == Kind::Tools {
                assert_eq!(json["result"]["tools"].as_array().unwrap().len(), 20);
            }
        }
        for kind in [Kind::Accepted, Kind::NotAllowed] {
            let number = canned.prepare(kind, &id, false);
            assert!(body(canned.bytes(number, &id)).is_empty());
        }
    }

    #[test]
    fn an_event_is_one_chunk_of_json_with_its_stamp() {
        let mut chunk = EventChunk::new();
        let bytes = chunk.with(42, 987_654_321).to_vec();
        let text = str::from_utf8(&bytes).unwrap();
        let (size, rest) = text.split_once("\r\n").unwrap();
        let event = rest.strip_suffix("\r\n").unwrap();
        assert_eq!(usize::from_str_radix(size, 16).unwrap(), event.len());
        let data = event.strip_prefix("data: ").unwrap().trim_end();
        let stamp = crate::sse::Stamp { sequence: 42, sent: 987_654_321 };
        assert_eq!(crate::sse::Stamp::of(data.as_bytes()), Some(stamp));
        assert!(serde_json::from_str::<serde_json::Value>(data).is_ok());
    }
}
