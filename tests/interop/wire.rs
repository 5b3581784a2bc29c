//! A hand-made client of the gateway, for what no SDK lets a test do: leave in the middle, say
//! anything.

use std::net::TcpStream;

use serde_json::{Value, json};

use crate::http;

/// A hand-made client of the gateway.
pub(crate) struct Wire {
    pub(crate) port: u16,
    pub(crate) token: String,
}

impl Wire {
    pub(crate) fn send(&self, method: &str, headers: &[&str], body: &str) -> TcpStream {
        let authorization = format!("Authorization: Bearer {}", self.token);
        let headers = [&[authorization.as_str()], headers].concat();
        http::open(self.port, &format!("{method} /mcp/everything"), &headers, body)
    }

    pub(crate) fn post(&self, headers: &[&str], body: &Value) -> TcpStream {
        self.send("POST", &[&JSON_HEADERS, headers].concat(), &body.to_string())
    }

    /// Opens a legacy session; returns its header line.
    pub(crate) fn legacy_session(&self) -> String {
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
            "protocolVersion": "2025-11-25", "capabilities": {},
            "clientInfo": {"name": "wire", "version": "1"},
        }});
        let mut stream = self.post(&[], &body);
        let head = http::read_until(&mut stream, "\r\n\r\n");
        let id = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("mcp-session-id").then(|| value.trim().to_owned())
        });
        let session =
            format!("Mcp-Session-Id: {}", id.unwrap_or_else(|| panic!("no session: {head}")));
        let ready = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
        let mut stream = self.post(&[&session, LEGACY], &ready);
        assert!(http::read_until(&mut stream, "\r\n\r\n").starts_with("HTTP/1.1 202 "));
        session
    }

    /// Starts a call that lasts; returns when its first progress has arrived, with what was read.
    pub(crate) fn hold(&self, headers: &[&str], mut meta: Value) -> (TcpStream, String) {
        meta["progressToken"] = json!("p");
        let body = json!({"jsonrpc": "2.0", "id": 2, "method": "tools/call",
            "params": {"name": "test_hold", "arguments": {}, "_meta": meta}});
        let mut stream = self.post(headers, &body);
        let seen = http::read_until(&mut stream, "notifications/progress");
        (stream, seen)
    }
}

/// What every modern request says about itself.
pub(crate) fn modern_meta() -> Value {
    json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
    })
}

pub(crate) const MODERN: &str = "MCP-Protocol-Version: 2026-07-28";
pub(crate) const LEGACY: &str = "MCP-Protocol-Version: 2025-11-25";
pub(crate) const JSON_HEADERS: [&str; 2] =
    ["Content-Type: application/json", "Accept: application/json, text/event-stream"];
