//! What a request asks for, found by searching bytes.

use crate::http::{self, Body, Chunks, Framing, Malformed};
use crate::request::{Tool, value_of};

/// A whole request at the front of `bytes`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    /// Bytes it takes.
    pub(crate) used: usize,
    pub(crate) what: What,
    /// The id as it stood there.
    pub(crate) id: Id,
    pub(crate) close: bool,
    pub(crate) with_key: bool,
    pub(crate) with_authorization: bool,
}

/// What is to be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// 202 and no body.
    Accepted,
    Discover,
    Initialize,
    ListTools,
    /// 405: there is no stream to be had by GET, no session to be ended.
    NotAllowed,
    Ping,
    Tool(Tool),
    /// A JSON-RPC error.
    Unknown,
}

/// A JSON-RPC id in a place of its own: short, and copied without allocating.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Id {
    bytes: [u8; ID_BYTES_MAX],
    length: u8,
}

impl Id {
    fn of(body: &[u8]) -> Self {
        let value = value_of(body, b"\"id\"").unwrap_or(b"null");
        let text = value.first() == Some(&b'"');
        let end = value.iter().skip(1).position(|byte| match byte {
            b'"' => text,
            b',' | b'}' | b' ' | b'\r' | b'\n' => !text,
            _ => false,
        });
        let length = end.map_or(value.len(), |end| end + 1 + usize::from(text));
        let value = value.get(..length).filter(|value| value.len() <= ID_BYTES_MAX);
        let value = value.unwrap_or(b"null");
        let mut bytes = [0; ID_BYTES_MAX];
        if let Some(place) = bytes.get_mut(..value.len()) {
            place.copy_from_slice(value);
        }
        Self { bytes, length: u8::try_from(value.len()).unwrap_or(0) }
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.length)).unwrap_or_default()
    }
}

impl Asked {
    /// Reads a request if it is all there. `scratch` takes the content of a chunked one.
    pub(crate) fn read(bytes: &[u8], scratch: &mut Vec<u8>) -> Result<Option<Self>, Malformed> {
        let Some(end) = http::head_end(bytes) else { return Ok(None) };
        let (head, rest) = bytes.split_at(end);
        let line = http::first_line(head);
        let mut framing = Framing::default();
        let (mut with_key, mut with_authorization) = (false, false);
        for (name, value) in http::fields(head) {
            framing.note(name, value)?;
            match name.len() {
                9 => with_key |= name.eq_ignore_ascii_case(b"x-api-key"),
                13 => with_authorization |= name.eq_ignore_ascii_case(b"authorization"),
                _ => {}
            }
        }
        let body;
        let used;
        if framing.chunked {
            scratch.clear();
            let mut chunks = Body::Chunked(Chunks::default());
            let (count, done) = chunks.feed(rest, &mut |piece| scratch.extend_from_slice(piece))?;
            if !done {
                return Ok(None);
            }
            (body, used) = (scratch.as_slice(), end + count);
        } else {
            let length = usize::try_from(framing.length.unwrap_or(0)).map_err(|_| Malformed)?;
            let Some(here) = rest.get(..length) else { return Ok(None) };
            (body, used) = (here, end + length);
        }
        let close = framing.close || line.ends_with(b"HTTP/1.0");
        let what = if line.starts_with(b"POST ") { What::of(body) } else { What::NotAllowed };
        let id = Id::of(body);
        Ok(Some(Self { used, what, id, close, with_key, with_authorization }))
    }
}

impl What {
    fn of(body: &[u8]) -> Self {
        let method = text_of(body, b"\"method\"").unwrap_or_default();
        match method {
            b"tools/call" => tool(body).map_or(Self::Unknown, Self::Tool),
            b"tools/list" => Self::ListTools,
            b"initialize" => Self::Initialize,
            b"server/discover" => Self::Discover,
            b"ping" => Self::Ping,
            _ if method.starts_with(b"notifications/") => Self::Accepted,
            _ => Self::Unknown,
        }
    }
}

/// The tool called: the first `name` that is one of ours, since a message may hold other names.
fn tool(body: &[u8]) -> Option<Tool> {
    let mut rest = body;
    loop {
        rest = value_of(rest, b"\"name\"")?;
        let name = leading_text(rest).and_then(|name| str::from_utf8(name).ok());
        if let Some(tool) = name.and_then(Tool::parse) {
            return Some(tool);
        }
    }
}

fn text_of<'b>(body: &'b [u8], key: &[u8]) -> Option<&'b [u8]> {
    leading_text(value_of(body, key)?)
}

fn leading_text(value: &[u8]) -> Option<&[u8]> {
    let text = value.strip_prefix(b"\"")?;
    text.get(..memchr::memchr(b'"', text)?)
}

const ID_BYTES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn post(head: &str, body: &str) -> Vec<u8> {
        format!(
            "POST /mcp HTTP/1.1\r\nHost: x\r\n{head}Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .into_bytes()
    }

    fn read(bytes: &[u8]) -> Asked {
        Asked::read(bytes, &mut Vec::new()).unwrap().unwrap()
    }

    #[test]
    fn the_tool_and_the_id_are_found_wherever_they_stand() {
        let answer = What::Tool(Tool::Answer(300));
        for (body, what, id) in [
            (r#"{"method":"tools/call","params":{"name":"answer_300"},"id":7}"#, answer, "7"),
            (
                r#"{"id": "a-1", "params":{"x":{"name":"no"},"name": "answer_300"},
                    "method": "tools/call"}"#,
                answer,
                "\"a-1\"",
            ),
            (r#"{"id":12,"method":"tools/list"}"#, What::ListTools, "12"),
            (r#"{"id":12,"method":"tools/call","params":{"name":"rm"}}"#, What::Unknown, "12"),
            (r#"{"method":"notifications/initialized"}"#, What::Accepted, "null"),
            (r#"{"method":"initialize","id":0}"#, What::Initialize, "0"),
            (r#"{"method":"server/discover","id":0}"#, What::Discover, "0"),
        ] {
            let asked = read(&post("", body));
            assert_eq!((asked.what, asked.id.as_bytes()), (what, id.as_bytes()), "{body}");
        }
    }

    #[test]
    fn the_credential_and_what_should_not_come_are_seen() {
        let asked = read(&post("X-Api-Key: k\r\nConnection: close\r\n", "{}"));
        assert!(asked.with_key && !asked.with_authorization && asked.close);
        let asked = read(&post("authorization: Bearer t\r\n", "{}"));
        assert!(!asked.with_key && asked.with_authorization && !asked.close);
    }

    #[test]
    fn a_request_is_read_once_it_is_whole() {
        let bytes = post("", r#"{"method":"ping","id":1}"#);
        for end in 0..bytes.len() {
            assert_eq!(Asked::read(&bytes[..end], &mut Vec::new()), Ok(None));
        }
        let two = [bytes.clone(), bytes.clone()].concat();
        assert_eq!(read(&two).used, bytes.len());
    }

    #[test]
    fn a_chunked_request_is_read() {
        let wire = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n\
            b\r\n{\"method\":\"\r\nd\r\nping\",\"id\":5}\r\n0\r\n\r\n";
        let asked = read(wire);
        assert_eq!((asked.what, asked.id.as_bytes()), (What::Ping, &b"5"[..]));
        assert_eq!(asked.used, wire.len());
    }

    #[test]
    fn other_verbs_are_not_allowed() {
        assert_eq!(read(b"GET /mcp HTTP/1.1\r\nHost: x\r\n\r\n").what, What::NotAllowed);
        assert_eq!(read(b"DELETE /mcp HTTP/1.1\r\nHost: x\r\n\r\n").what, What::NotAllowed);
    }
}
