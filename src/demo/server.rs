//! The demo's sample MCP server: both eras, three tools, and an API key that it insists on.
//!
//! A plain thread per connection; it stands for somebody else's server and shares with the gateway
//! only the HTTP parser.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use serde_json::{Value, json};

use crate::http::{BodyDecoder, Method, RequestHead};

/// The key that the server wants in `X-Api-Key`.
pub(super) const API_KEY: &str = "demo-upstream-key";

/// Starts serving on a free loopback port. The threads end with the process.
pub(super) fn start() -> io::Result<SocketAddr> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let address = listener.local_addr()?;
    std::thread::Builder::new().name("demo-server".to_owned()).spawn(move || {
        for stream in listener.incoming().flatten() {
            let _ = std::thread::Builder::new()
                .name("demo-connection".to_owned())
                .spawn(move || serve(stream));
        }
    })?;
    Ok(address)
}

fn serve(mut stream: TcpStream) {
    let mut input = Vec::new();
    let _ = stream.set_nodelay(true);
    while let Ok(Some(request)) = read_request(&mut stream, &mut input) {
        let answer = respond(&request);
        if stream.write_all(&answer).is_err() {
            return;
        }
    }
}

struct Request {
    method: Method,
    key_fits: bool,
    body: Vec<u8>,
}

fn read_request(stream: &mut TcpStream, input: &mut Vec<u8>) -> io::Result<Option<Request>> {
    let mut head = RequestHead::new();
    let length = loop {
        if let Some(length) = head.parse(input).map_err(|_| io::ErrorKind::InvalidData)? {
            break length;
        }
        if !read_more(stream, input)? {
            return Ok(None);
        }
    };
    let key_fits = head.fields(input).any(|(name, value)| {
        name.eq_ignore_ascii_case(b"x-api-key") && value == API_KEY.as_bytes()
    });
    let method = head.method();
    let mut decoder =
        BodyDecoder::new(head.framing(), 1 << 20).map_err(|_| io::ErrorKind::InvalidData)?;
    let mut body = Vec::new();
    let mut at = length;
    while !decoder.finished() {
        let pending = input.get(at..).unwrap_or_default();
        let step = decoder.decode(pending).map_err(|_| io::ErrorKind::InvalidData)?;
        body.extend_from_slice(pending.get(step.data).unwrap_or_default());
        at += step.consumed;
        if !step.done && step.consumed == 0 && !read_more(stream, input)? {
            return Ok(None);
        }
    }
    input.drain(..at);
    Ok(Some(Request { method, key_fits, body }))
}

fn read_more(stream: &mut TcpStream, input: &mut Vec<u8>) -> io::Result<bool> {
    let mut buffer = [0; 4096];
    let count = stream.read(&mut buffer)?;
    input.extend_from_slice(buffer.get(..count).unwrap_or_default());
    Ok(count > 0)
}

fn respond(request: &Request) -> Vec<u8> {
    if !request.key_fits {
        return response(401, "Unauthorized", "");
    }
    if request.method != Method::Post {
        return response(405, "Method Not Allowed", "");
    }
    let Ok(message) = serde_json::from_slice::<Value>(&request.body) else {
        return response(400, "Bad Request", "");
    };
    let Some(id) = message.get("id") else {
        return response(202, "Accepted", "");
    };
    let outcome = match message.get("method").and_then(Value::as_str).unwrap_or_default() {
        "initialize" => Ok(initialize(&message)),
        "server/discover" => Ok(discover()),
        "tools/list" => Ok(tools()),
        "tools/call" => call(&message),
        _ => Err(json!({"code": -32601, "message": "Method not found"})),
    };
    let answer = match outcome {
        Ok(result) => json!({"jsonrpc": "2.0", "id": id, "result": result}),
        Err(error) => json!({"jsonrpc": "2.0", "id": id, "error": error}),
    };
    response(200, "OK", &answer.to_string())
}

fn initialize(message: &Value) -> Value {
    let wanted = message.pointer("/params/protocolVersion").and_then(Value::as_str);
    let version = wanted.filter(|version| LEGACY.contains(version)).unwrap_or("2025-11-25");
    json!({
        "protocolVersion": version,
        "capabilities": {"tools": {}},
        "serverInfo": {"name": "portcullis-demo", "version": env!("CARGO_PKG_VERSION")},
    })
}

fn discover() -> Value {
    json!({
        "resultType": "complete",
        "supportedVersions": ["2026-07-28"],
        "capabilities": {"tools": {}},
        "ttlMs": 0,
        "cacheScope": "private",
        "_meta": {"io.modelcontextprotocol/serverInfo":
            {"name": "portcullis-demo", "version": env!("CARGO_PKG_VERSION")}},
    })
}

fn tools() -> Value {
    let tool = |name: &str, description: &str| {
        json!({
            "name": name,
            "description": description,
            "inputSchema": {"type": "object", "properties": {"text": {"type": "string"}}},
        })
    };
    json!({
        "resultType": "complete",
        "tools": [
            tool("echo", "Gives the text back"),
            tool("count", "Counts the characters of the text"),
            tool("delete_everything", "What no agent should be allowed to call"),
        ],
        "ttlMs": 0,
        "cacheScope": "private",
    })
}

fn call(message: &Value) -> Result<Value, Value> {
    let text =
        message.pointer("/params/arguments/text").and_then(Value::as_str).unwrap_or_default();
    let answer = match message.pointer("/params/name").and_then(Value::as_str).unwrap_or_default() {
        "echo" => text.to_owned(),
        "count" => text.chars().count().to_string(),
        "delete_everything" => "everything is gone".to_owned(),
        _ => return Err(json!({"code": -32602, "message": "Unknown tool"})),
    };
    Ok(json!({"resultType": "complete", "content": [{"type": "text", "text": answer}]}))
}

fn response(status: u16, reason: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    let kind = if body.is_empty() { "" } else { "content-type: application/json\r\n" };
    format!("HTTP/1.1 {status} {reason}\r\n{kind}content-length: {length}\r\n\r\n{body}")
        .into_bytes()
}

const LEGACY: [&str; 3] = ["2025-03-26", "2025-06-18", "2025-11-25"];
