//! An MCP server for the tests of `/mcp`: honest in the eras that it speaks and strict about
//! headers, until it is told to misbehave at a method.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

/// Which eras it speaks, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Both eras; sessions in the legacy one.
    Dual,
    /// The legacy era, with sessions.
    Legacy,
    /// The legacy era, without sessions.
    Sessionless,
    /// The modern era.
    Modern,
}

/// What it does at a method instead of answering well.
#[derive(Clone, Debug)]
pub(crate) enum Trouble {
    /// Asks the client something of its own on the answer's stream, and answers then.
    Asks,
    /// This body, whatever it is, as JSON.
    Body(String),
    /// A next page for ever.
    EndlessPages,
    /// The connection ends without an answer.
    Hangup,
    /// The answer comes when [`Peer::release`] says so.
    Held,
    /// So many notifications of progress before the answer, by the request's token.
    Progress(u32),
    /// This result.
    Result(Value),
    /// This message before the answer.
    Says(Value),
    /// Nothing ever comes.
    Silent,
    /// This HTTP status and no body.
    Status(u16),
    /// The answer twice on one stream.
    Twice,
    /// An answer to a request that nobody made, and no other; the stream ends.
    WrongId,
    /// The same, and the right answer behind it.
    WrongIdFirst,
}

/// One request as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Heard {
    pub(crate) connection: usize,
    pub(crate) head: String,
    /// `Null` without a body, or one that is no JSON.
    pub(crate) message: Value,
    /// The body as it came.
    pub(crate) body: String,
}

impl Heard {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// Its method; empty for answers, and the HTTP verb for what has no message.
    pub(crate) fn method(&self) -> &str {
        let verb = self.head.split(' ').next().unwrap();
        if verb == "POST" { self.message["method"].as_str().unwrap_or_default() } else { verb }
    }

    fn is_modern(&self) -> bool {
        let meta = &self.message["params"]["_meta"];
        meta["io.modelcontextprotocol/protocolVersion"] == MODERN
            || self.header("mcp-protocol-version") == Some(MODERN)
    }
}

/// What it has and how it answers. Free to change while it runs.
pub(crate) struct Script {
    pub(crate) tools: Vec<String>,
    pub(crate) prompts: Vec<String>,
    /// URIs.
    pub(crate) resources: Vec<String>,
    /// URI templates.
    pub(crate) templates: Vec<String>,
    /// Items of one page of a list; 0: all.
    pub(crate) page: usize,
    /// `ttlMs` of modern lists.
    pub(crate) ttl_ms: u64,
    /// Answers are event streams.
    pub(crate) events: bool,
    /// Bytes of one segment of an answer; 0: all of it in one write.
    pub(crate) piece: usize,
    /// A session that it does not know is 400, as with the published reference server, not 404.
    pub(crate) forgets_with_400: bool,
    /// By method; `*` is for all.
    pub(crate) troubles: BTreeMap<&'static str, Trouble>,
    pub(crate) heard: Vec<Heard>,
    /// Ids of open sessions.
    pub(crate) sessions: BTreeSet<String>,
    made: usize,
    released: bool,
    streams: Vec<TcpStream>,
}

/// A running one.
#[derive(Clone)]
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    pub(crate) role: Role,
    pub(crate) port: u16,
    script: Arc<(Mutex<Script>, Condvar)>,
}

impl Peer {
    pub(crate) fn start(name: &'static str, role: Role) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let script = Script {
            tools: vec!["alpha".to_owned(), "beta".to_owned()],
            prompts: vec!["hello".to_owned()],
            resources: vec![format!("{name}://one")],
            templates: vec![format!("{name}://many/{{id}}")],
            page: 0,
            ttl_ms: 0,
            events: false,
            piece: 0,
            forgets_with_400: false,
            troubles: BTreeMap::new(),
            heard: Vec::new(),
            sessions: BTreeSet::new(),
            made: 0,
            released: false,
            streams: Vec::new(),
        };
        let script = Arc::new((Mutex::new(script), Condvar::new()));
        let peer = Self { name, role, port, script };
        let own = peer.clone();
        std::thread::spawn(move || {
            for (number, socket) in listener.incoming().map_while(Result::ok).enumerate() {
                let peer = own.clone();
                std::thread::spawn(move || peer.serve(socket, number));
            }
        });
        peer
    }

    pub(crate) fn script(&self) -> MutexGuard<'_, Script> {
        self.script.0.lock().unwrap()
    }

    /// From here on `method` (`*`: each) is answered so; `None`: well.
    pub(crate) fn trouble(&self, method: &'static str, trouble: Option<Trouble>) {
        let mut script = self.script();
        match trouble {
            Some(trouble) => script.troubles.insert(method, trouble),
            None => script.troubles.remove(method),
        };
    }

    /// What is held is answered, now and from here on.
    pub(crate) fn release(&self) {
        self.script().released = true;
        self.script.1.notify_all();
    }

    /// What is held from here on waits for the next release.
    pub(crate) fn hold_again(&self) {
        self.script().released = false;
    }

    /// The requests with this method so far.
    pub(crate) fn heard(&self, method: &str) -> Vec<Heard> {
        let script = self.script();
        script.heard.iter().filter(|heard| heard.method() == method).cloned().collect()
    }

    /// How many requests came, of any kind.
    pub(crate) fn count(&self) -> usize {
        self.script().heard.len()
    }

    /// Forgets all sessions, as after a restart.
    pub(crate) fn forget_sessions(&self) {
        self.script().sessions.clear();
    }

    /// Says this on each open GET stream; returns how many there are.
    pub(crate) fn push(&self, message: &Value) -> usize {
        let event = chunk(&format!("event: message\ndata: {message}\n\n"));
        let mut script = self.script();
        script.streams.retain_mut(|stream| stream.write_all(&event).is_ok());
        script.streams.len()
    }

    fn serve(&self, mut socket: TcpStream, connection: usize) {
        socket.set_nodelay(true).unwrap();
        socket.set_read_timeout(Some(READ_WITHIN)).unwrap();
        let mut input = Vec::new();
        while let Some(heard) = read(&mut socket, connection, &mut input) {
            let trouble = {
                let mut script = self.script();
                script.heard.push(heard.clone());
                let troubles = &script.troubles;
                troubles.get(heard.method()).or_else(|| troubles.get("*")).cloned()
            };
            match trouble {
                Some(Trouble::Hangup) => return,
                Some(Trouble::Silent) => {
                    // Until the gateway gives up.
                    let _ = socket.read(&mut [0; 1024]);
                    return;
                }
                Some(Trouble::Held) => {
                    let script = self.script();
                    let waits = |script: &mut Script| !script.released;
                    let _ = self.script.1.wait_timeout_while(script, READ_WITHIN, waits).unwrap();
                }
                Some(_) | None => {}
            }
            let opens = heard.method() == "GET";
            let (bytes, piece) = {
                let mut script = self.script();
                (answer(self, &mut script, &heard, trouble.as_ref()), script.piece)
            };
            let piece = if piece == 0 { bytes.len().max(1) } else { piece };
            if !bytes.chunks(piece).all(|piece| socket.write_all(piece).is_ok()) {
                return;
            }
            if opens && bytes.starts_with(b"HTTP/1.1 200") {
                self.script().streams.push(socket.try_clone().unwrap());
                let _ = socket.read(&mut [0; 1024]);
                return;
            }
        }
    }
}

fn answer(peer: &Peer, script: &mut Script, heard: &Heard, trouble: Option<&Trouble>) -> Vec<u8> {
    if let Some(Trouble::Status(status)) = trouble {
        return format!("HTTP/1.1 {status} Refused\r\nContent-Length: 0\r\n\r\n").into_bytes();
    }
    if let Some(Trouble::Body(body)) = trouble {
        return whole("200 OK", "", body);
    }
    let (status, fields, result) = match judge(peer, script, heard) {
        Ok(fields) => ("200 OK", fields, result(peer, script, heard, trouble)),
        Err((status, code, why)) => {
            (status, String::new(), Some(Err(json!({"code": code, "message": why}))))
        }
    };
    match heard.method() {
        "GET" if status == "200 OK" => return events_head("200 OK", &fields).into_bytes(),
        "DELETE" if status == "200 OK" => {
            return b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_vec();
        }
        _ => {}
    }
    let Some(result) = result else {
        return b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n".to_vec();
    };
    let id = &heard.message["id"];
    let with_id = |id: &Value| match &result {
        Ok(result) => json!({"jsonrpc": "2.0", "id": id, "result": result}),
        Err(error) => json!({"jsonrpc": "2.0", "id": id, "error": error}),
    };
    let right = with_id(id);
    let wrong = with_id(&json!("nobody-asked"));
    let messages = match trouble {
        Some(Trouble::Asks) => {
            vec![json!({"jsonrpc": "2.0", "id": "own-1", "method": "roots/list"}), right]
        }
        Some(Trouble::Progress(count)) => {
            let token = &heard.message["params"]["_meta"]["progressToken"];
            let progress = |step| {
                json!({"jsonrpc": "2.0", "method": "notifications/progress",
                    "params": {"progressToken": token, "progress": step, "total": count}})
            };
            (1..=*count).map(progress).chain([right]).collect()
        }
        Some(Trouble::Says(message)) => vec![message.clone(), right],
        Some(Trouble::Twice) => vec![right.clone(), right],
        Some(Trouble::WrongId) => vec![wrong],
        Some(Trouble::WrongIdFirst) => vec![wrong, right],
        Some(_) | None if !script.events => return whole(status, &fields, &right.to_string()),
        Some(_) | None => vec![right],
    };
    let mut bytes = events_head(status, &fields).into_bytes();
    for message in messages {
        bytes.extend(chunk(&format!("event: message\ndata: {message}\n\n")));
    }
    bytes.extend(b"0\r\n\r\n");
    bytes
}

/// Why a request is refused: status line, code and message.
type Refusal = (&'static str, i64, String);

/// What comes before the method: the era, headers, the session. The answer's own fields.
fn judge(peer: &Peer, script: &mut Script, heard: &Heard) -> Result<String, Refusal> {
    let bad = |code, why: &str| Err(("400 Bad Request", code, why.to_owned()));
    let modern = heard.is_modern();
    if modern && matches!(peer.role, Role::Legacy | Role::Sessionless) {
        // As the published reference server answers.
        return bad(-32000, "Bad Request: Server not initialized");
    }
    if modern {
        return agrees(heard).map(|()| String::new());
    }
    if peer.role == Role::Modern {
        return bad(-32022, "Unsupported protocol version");
    }
    if heard.method() == "initialize" {
        if peer.role == Role::Sessionless {
            return Ok(String::new());
        }
        script.made += 1;
        let id = format!("{}-session-{}", peer.name, script.made);
        script.sessions.insert(id.clone());
        return Ok(format!("Mcp-Session-Id: {id}\r\n"));
    }
    let session = heard.header("mcp-session-id");
    match (peer.role, session) {
        (Role::Sessionless, None) if heard.method() == "GET" => {
            Err(("405 Method Not Allowed", -32000, "no streams".to_owned()))
        }
        (Role::Sessionless, None) => Ok(String::new()),
        (Role::Sessionless, Some(_)) => bad(-32000, "there are no sessions here"),
        (_, None) => bad(-32000, "Bad Request: no session"),
        (_, Some(id)) if !script.sessions.contains(id) && script.forgets_with_400 => {
            bad(-32000, "Bad Request: No valid session ID provided")
        }
        (_, Some(id)) if !script.sessions.contains(id) => {
            Err(("404 Not Found", -32600, "Session not found".to_owned()))
        }
        (_, Some(id)) => {
            if heard.method() == "DELETE" {
                script.sessions.remove(id);
            }
            Ok(String::new())
        }
    }
}

/// mcp M1, M2, M5: headers of the modern era agree with the body.
fn agrees(heard: &Heard) -> Result<(), Refusal> {
    let params = &heard.message["params"];
    let differs = |what: &str| Err(("400 Bad Request", -32020, format!("{what} does not agree")));
    let meta = &params["_meta"];
    if !meta["io.modelcontextprotocol/clientCapabilities"].is_object() {
        return Err(("400 Bad Request", -32602, "no client capabilities".to_owned()));
    }
    let version = meta["io.modelcontextprotocol/protocolVersion"].as_str();
    if heard.header("mcp-protocol-version") != version || version != Some(MODERN) {
        return differs("MCP-Protocol-Version");
    }
    if heard.header("mcp-method") != Some(heard.method()) {
        return differs("Mcp-Method");
    }
    let name = match heard.method() {
        "tools/call" | "prompts/get" => &params["name"],
        "resources/read" => &params["uri"],
        _ => return Ok(()),
    };
    let header = heard.header("mcp-name").map(decoded);
    if header.as_deref() == name.as_str() { Ok(()) } else { differs("Mcp-Name") }
}

/// mcp M3: a header value that is not plain.
fn decoded(value: &str) -> String {
    let inner = value.strip_prefix("=?base64?").and_then(|rest| rest.strip_suffix("?="));
    inner.map_or(value.to_owned(), |inner| text(&STANDARD.decode(inner).unwrap()))
}

/// What a message comes to; `None`: it wants no answer.
fn result(
    peer: &Peer,
    script: &Script,
    heard: &Heard,
    trouble: Option<&Trouble>,
) -> Option<Result<Value, Value>> {
    let message = &heard.message;
    if message["id"].is_null() || message["method"].is_null() {
        return None;
    }
    if let Some(Trouble::Result(result)) = trouble {
        return Some(Ok(result.clone()));
    }
    let (name, params) = (peer.name, &message["params"]);
    let unknown = |what: &str| Err(json!({"code": -32602, "message": format!("no such {what}")}));
    let has = |all: &[String], key: &str| all.iter().any(|own| params[key] == **own);
    let said = |text: String| json!({"content": [{"type": "text", "text": text}]});
    let mut result = match heard.method() {
        "initialize" => json!({"protocolVersion": params["protocolVersion"],
            "capabilities": capabilities(), "serverInfo": {"name": name, "version": "1"},
            "instructions": format!("Use {name} well.")}),
        "server/discover" => json!({"supportedVersions": [MODERN],
            "capabilities": capabilities(), "instructions": format!("Use {name} well."),
            "_meta": {"io.modelcontextprotocol/serverInfo": {"name": name, "version": "1"}}}),
        "ping" | "logging/setLevel" | "resources/subscribe" | "resources/unsubscribe" => json!({}),
        "tools/list" => page(
            script,
            trouble,
            params,
            "tools",
            &script.tools,
            |tool| json!({"name": tool, "inputSchema": {"type": "object"}}),
        ),
        "prompts/list" => page(
            script,
            trouble,
            params,
            "prompts",
            &script.prompts,
            |prompt| json!({"name": prompt}),
        ),
        "resources/list" => page(
            script,
            trouble,
            params,
            "resources",
            &script.resources,
            |uri| json!({"uri": uri, "name": uri}),
        ),
        "resources/templates/list" => page(
            script,
            trouble,
            params,
            "resourceTemplates",
            &script.templates,
            |uri| json!({"uriTemplate": uri, "name": uri}),
        ),
        "tools/call" if has(&script.tools, "name") => {
            said(format!("{name} {} {}", params["name"], params["arguments"]))
        }
        "tools/call" => return Some(unknown("tool")),
        "prompts/get" if has(&script.prompts, "name") => json!({"messages": [
            {"role": "user", "content": {"type": "text", "text": format!("{name} greets")}}]}),
        "prompts/get" => return Some(unknown("prompt")),
        // A URI of a template is any that begins as all of this server's do.
        "resources/read" => json!({"contents": [
            {"uri": params["uri"], "text": format!("{name} holds {}", params["uri"])}]}),
        "completion/complete" => {
            json!({"completion": {"values": [format!("{name} completes")], "hasMore": false}})
        }
        other => {
            return Some(Err(json!({"code": -32601, "message": format!("no method {other}")})));
        }
    };
    if heard.is_modern() {
        result["resultType"] = json!("complete");
        if heard.method().ends_with("/list") || heard.method() == "server/discover" {
            result["ttlMs"] = json!(script.ttl_ms);
            result["cacheScope"] = json!("private");
        }
    }
    Some(Ok(result))
}

/// One page of a list; a cursor is the number of the item that comes next.
fn page(
    script: &Script,
    trouble: Option<&Trouble>,
    params: &Value,
    key: &str,
    all: &[String],
    item: impl Fn(&str) -> Value,
) -> Value {
    let cursor = params["cursor"].as_str().map_or(0, |cursor| cursor.parse::<usize>().unwrap());
    if let Some(Trouble::EndlessPages) = trouble {
        let one = item(&format!("item-{cursor}"));
        return json!({key: [one], "nextCursor": (cursor + 1).to_string()});
    }
    let size = if script.page == 0 { all.len() } else { script.page };
    let items: Vec<_> = all.iter().skip(cursor).take(size).map(|name| item(name)).collect();
    let mut result = json!({key: items});
    if cursor + size < all.len() {
        result["nextCursor"] = json!((cursor + size).to_string());
    }
    result
}

fn capabilities() -> Value {
    json!({"tools": {"listChanged": true}, "prompts": {}, "resources": {"subscribe": true},
        "completions": {}, "logging": {}})
}

fn whole(status: &str, fields: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\n{fields}Content-Length: {length}\
         \r\n\r\n{body}"
    )
    .into_bytes()
}

fn events_head(status: &str, fields: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/event-stream\r\n{fields}\
         Transfer-Encoding: chunked\r\n\r\n"
    )
}

fn chunk(text: &str) -> Vec<u8> {
    format!("{:x}\r\n{text}\r\n", text.len()).into_bytes()
}

fn read(socket: &mut TcpStream, connection: usize, input: &mut Vec<u8>) -> Option<Heard> {
    let mut fill = |input: &mut Vec<u8>| {
        let mut buffer = [0; 64 * 1024];
        let read = socket.read(&mut buffer).unwrap_or(0);
        input.extend_from_slice(&buffer[..read]);
        read > 0
    };
    let end = loop {
        match find(input, b"\r\n\r\n") {
            Some(at) => break at + 4,
            None if fill(input) => {}
            None => return None,
        }
    };
    let (head, body) = (text(&input[..end]), String::new());
    let mut heard = Heard { connection, head, message: Value::Null, body };
    let length = heard.header("content-length").map_or(0, |length| length.parse().unwrap());
    while input.len() < end + length {
        if !fill(input) {
            return None;
        }
    }
    heard.body = text(&input[end..end + length]);
    heard.message = serde_json::from_str(&heard.body).unwrap_or(Value::Null);
    input.drain(..end + length);
    Some(heard)
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub(crate) const MODERN: &str = "2026-07-28";
const READ_WITHIN: Duration = Duration::from_secs(60);
