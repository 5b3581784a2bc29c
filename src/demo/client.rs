//! The demo's MCP client: one request, one connection, over the same HTTP parser.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};

use crate::http::{BodyDecoder, Method, ResponseHead};

/// Where the client sends its requests, and as whom.
pub(super) struct Client<'a> {
    pub(super) gateway: SocketAddr,
    /// `None` = a stranger.
    pub(super) token: Option<&'a str>,
}

/// What came back.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Value,
}

impl Client<'_> {
    /// Calls a tool as an MCP client of revision 2026-07-28 does.
    pub(super) fn call_tool(&self, tool: &str, text: &str) -> io::Result<Answer> {
        let params = json!({"name": tool, "arguments": {"text": text}});
        self.post("tools/call", Some(tool), params)
    }

    /// Sends one request and reads the whole answer.
    pub(super) fn post(
        &self,
        method: &str,
        name: Option<&str>,
        mut params: Value,
    ) -> io::Result<Answer> {
        if let Some(params) = params.as_object_mut() {
            let meta = json!({
                "io.modelcontextprotocol/protocolVersion": REVISION,
                "io.modelcontextprotocol/clientCapabilities": {},
            });
            params.insert("_meta".to_owned(), meta);
        }
        let message = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        let body = message.to_string();
        let mut head = format!(
            "POST /mcp/sample HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\
             content-type: application/json\r\naccept: application/json, text/event-stream\r\n\
             mcp-protocol-version: {REVISION}\r\nmcp-method: {method}\r\ncontent-length: {}\r\n",
            self.gateway,
            body.len(),
        );
        if let Some(name) = name {
            head.push_str(&format!("mcp-name: {name}\r\n"));
        }
        if let Some(token) = self.token {
            head.push_str(&format!("authorization: Bearer {token}\r\n"));
        }
        head.push_str("\r\n");
        self.exchange(&[head.as_bytes(), body.as_bytes()].concat())
    }

    #[expect(clippy::disallowed_methods, reason = "the demo's client is not the gateway")]
    fn exchange(&self, request: &[u8]) -> io::Result<Answer> {
        let mut stream = TcpStream::connect(self.gateway)?;
        stream.set_read_timeout(Some(ANSWER_WITHIN))?;
        stream.write_all(request)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        read_answer(&answer)
    }
}

fn read_answer(bytes: &[u8]) -> io::Result<Answer> {
    let broken = || io::Error::from(io::ErrorKind::InvalidData);
    let mut head = ResponseHead::new();
    let length = head.parse(bytes, Method::Post).ok().flatten().ok_or_else(broken)?;
    let mut decoder = BodyDecoder::new(head.framing(), 1 << 20).map_err(|_| broken())?;
    let (mut at, mut body) = (length, Vec::new());
    while !decoder.finished() && at < bytes.len() {
        let pending = bytes.get(at..).unwrap_or_default();
        let step = decoder.decode(pending).map_err(|_| broken())?;
        body.extend_from_slice(pending.get(step.data).unwrap_or_default());
        at += step.consumed;
    }
    let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
    Ok(Answer { status: head.status(), body })
}

const REVISION: &str = "2026-07-28";
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
