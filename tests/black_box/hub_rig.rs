//! The gateway in front of several servers of the test's own, and agents of both eras that talk to
//! `/mcp`, or to one server's own URL.
//!
//! User `hana` may do everything on every server of the rig and knows of no other; whatever else
//! policies say is the test's.

use std::fs;

use serde_json::{Value, json};

use super::client::{Answer, text};
use super::gateway::{DRIVERS, Driver, Gateway, until};
use super::hub_peer::{MODERN, Peer, Role, Trouble};
use super::table::{ACCEPT, JSON, Post};

/// A gateway and its servers.
pub(crate) struct Hub {
    pub(crate) gateway: Gateway,
    pub(crate) peers: Vec<Peer>,
}

impl Hub {
    /// `more` is appended to the configuration, `policies` to what `hana` may do.
    pub(crate) fn start(
        driver: Driver,
        servers: &[(&'static str, Role)],
        more: &str,
        policies: &str,
    ) -> Self {
        Self::start_on(driver, "", servers, more, policies)
    }

    /// The same with lines of `[cores]`: what a core remembers is asked of that core.
    pub(crate) fn start_on(
        driver: Driver,
        cores: &str,
        servers: &[(&'static str, Role)],
        more: &str,
        policies: &str,
    ) -> Self {
        let peers: Vec<_> = servers.iter().map(|(name, role)| Peer::start(name, *role)).collect();
        let (mut text, mut rules) = (String::new(), String::new());
        for Peer { name, port, .. } in &peers {
            text += &format!(
                "\n[[server]]\nname = \"{name}\"\nurl = \"http://127.0.0.1:{port}/mcp\"\n\
                 trust_private_addresses = true\n"
            );
            rules += &format!(
                "@id(\"hana-{name}\") permit (principal == User::\"hana\", action, \
                 resource in Server::\"{name}\");\n"
            );
        }
        let gateway = Gateway::start_with(driver, &(text + more), |directory| {
            fs::write(directory.join("policies/hub.cedar"), rules + policies).unwrap();
            let file = directory.join("gateway.toml");
            let text = fs::read_to_string(&file).unwrap();
            let text = text.replacen("[cores]\n", &format!("[cores]\n{cores}\n"), 1);
            fs::write(file, text).unwrap();
        });
        let good = Post::new(&gateway).bytes();
        until("the first answer", || gateway.ask(&good).status == 200);
        Self { gateway, peers }
    }

    /// The server of this name.
    pub(crate) fn peer(&self, name: &str) -> &Peer {
        self.peers.iter().find(|peer| peer.name == name).unwrap()
    }

    /// An agent of the modern era at `path`.
    pub(crate) fn modern(&self, user: &str, path: &str) -> Agent<'_> {
        let token = self.gateway.keys.token(user);
        let (revision, session) = (MODERN.to_owned(), None);
        Agent { hub: self, path: path.to_owned(), token, revision, session }
    }

    /// An agent of a legacy revision at `path`, with its session opened.
    pub(crate) fn legacy(&self, user: &str, path: &str, revision: &str) -> Agent<'_> {
        let token = self.gateway.keys.token(user);
        let (path, revision) = (path.to_owned(), revision.to_owned());
        let mut agent = Agent { hub: self, path, token, revision, session: None };
        let hello = agent.ask(
            "initialize",
            json!({"protocolVersion": agent.revision, "capabilities": {},
                "clientInfo": {"name": "rig", "version": "1"}}),
        );
        assert_eq!(hello.result()["protocolVersion"], *agent.revision, "{hello:?}");
        agent.session = hello.answer.header("mcp-session-id").map(str::to_owned);
        let ready = agent.say(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
        assert_eq!(ready.answer.status, 202, "{ready:?}");
        agent
    }
}

/// A client that has come to terms with whom it talks to.
pub(crate) struct Agent<'a> {
    hub: &'a Hub,
    path: String,
    pub(crate) token: String,
    pub(crate) revision: String,
    pub(crate) session: Option<String>,
}

/// What it was told: the answer, and the messages in it.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) answer: Answer,
    /// One of a JSON answer, or all of an event stream.
    pub(crate) messages: Vec<Value>,
}

impl Agent<'_> {
    /// Asks with id 1.
    pub(crate) fn ask(&self, method: &str, params: Value) -> Told {
        self.ask_as(&json!(1), method, params)
    }

    pub(crate) fn ask_as(&self, id: &Value, method: &str, mut params: Value) -> Told {
        if self.revision == MODERN {
            let meta = params["_meta"].as_object().cloned().unwrap_or_default();
            params["_meta"] = Value::Object(meta);
            params["_meta"]["io.modelcontextprotocol/protocolVersion"] = json!(MODERN);
            params["_meta"]["io.modelcontextprotocol/clientCapabilities"] = json!({});
        }
        self.say(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}))
    }

    /// Calls a tool by the name that it has here.
    pub(crate) fn call(&self, tool: &str, arguments: Value) -> Told {
        self.ask("tools/call", json!({"name": tool, "arguments": arguments}))
    }

    /// The names (or URIs) of a list, all pages of it, in order.
    pub(crate) fn names(&self, method: &str) -> Vec<String> {
        let (key, name) = match method {
            "tools/list" => ("tools", "name"),
            "prompts/list" => ("prompts", "name"),
            "resources/list" => ("resources", "uri"),
            "resources/templates/list" => ("resourceTemplates", "uriTemplate"),
            other => panic!("{other} is no list"),
        };
        let (mut all, mut params) = (Vec::new(), json!({}));
        for _ in 0..PAGES_MAX {
            let told = self.ask(method, params);
            let items = told.result()[key].as_array().unwrap_or_else(|| panic!("{told:?}"));
            all.extend(items.iter().map(|item| item[name].as_str().unwrap().to_owned()));
            let cursor = &told.result()["nextCursor"];
            if cursor.is_null() {
                return all;
            }
            params = json!({"cursor": cursor});
        }
        panic!("{method}: more than {PAGES_MAX} pages");
    }

    /// Sends a message as it is; on a connection of its own.
    pub(crate) fn say(&self, message: &Value) -> Told {
        self.say_with(message, "")
    }

    /// The same with more fields, each a line with its end.
    pub(crate) fn say_with(&self, message: &Value, fields: &str) -> Told {
        let bytes = self.request(&message.to_string(), fields);
        Told::of(self.hub.gateway.ask(&bytes))
    }

    /// The bytes of a POST of this body.
    pub(crate) fn request(&self, body: &str, fields: &str) -> Vec<u8> {
        let message: Value = serde_json::from_str(body).unwrap_or(Value::Null);
        let method = message["method"].as_str().unwrap_or_default();
        let mut head = format!(
            "POST {} HTTP/1.1\r\nHost: portcullis.localhost\r\nAuthorization: Bearer {}\r\n\
             {JSON}{ACCEPT}{fields}Content-Length: {}\r\n",
            self.path,
            self.token,
            body.len()
        );
        if method != "initialize" {
            head += &format!("MCP-Protocol-Version: {}\r\n", self.revision);
        }
        if let Some(session) = &self.session {
            head += &format!("Mcp-Session-Id: {session}\r\n");
        }
        if self.revision == MODERN {
            head += &format!("Mcp-Method: {method}\r\n");
            let params = &message["params"];
            let name = params["name"].as_str().or(params["uri"].as_str());
            if let Some(name) = name.filter(|_| NAMED.contains(&method)) {
                head += &format!("Mcp-Name: {name}\r\n");
            }
        }
        (head + "\r\n" + body).into_bytes()
    }
}

impl Told {
    pub(crate) fn of(answer: Answer) -> Self {
        let body = text(&answer.body);
        let kind = answer.header("content-type").unwrap_or_default();
        let messages = if kind.starts_with("text/event-stream") {
            let data = body.lines().filter_map(|line| line.strip_prefix("data:"));
            let data = data.map(str::trim).filter(|data| !data.is_empty());
            data.map(|data| serde_json::from_str(data).unwrap()).collect()
        } else {
            serde_json::from_str(&body).into_iter().collect()
        };
        Self { answer, messages }
    }

    /// The message that answers: the one with a result or an error.
    pub(crate) fn last(&self) -> &Value {
        let mut all = self.messages.iter().filter(|message| message["method"].is_null());
        let last = all.next().unwrap_or_else(|| panic!("no answer: {self:?}"));
        assert!(all.next().is_none(), "one answer: {self:?}");
        last
    }

    pub(crate) fn result(&self) -> &Value {
        let result = &self.last()["result"];
        assert!(!result.is_null(), "no result: {self:?}");
        result
    }

    pub(crate) fn code(&self) -> Option<i64> {
        self.last().pointer("/error/code").and_then(Value::as_i64)
    }

    /// The text of the one block of a tool's result.
    pub(crate) fn said(&self) -> &str {
        self.result()["content"][0]["text"].as_str().unwrap_or_else(|| panic!("{self:?}"))
    }
}

const NAMED: [&str; 3] = ["tools/call", "prompts/get", "resources/read"];
/// More than any test makes.
const PAGES_MAX: usize = 100;

const FOUR: [(&str, Role); 4] = [
    ("dual", Role::Dual),
    ("old", Role::Legacy),
    ("bare", Role::Sessionless),
    ("new", Role::Modern),
];

/// The rig itself, at the servers' own URLs: each server is what its role says, in lists of many
/// pages and of one, as JSON and as events in single bytes.
#[test]
fn the_servers_of_the_rig_are_what_they_say() {
    for driver in DRIVERS {
        let hub = Hub::start(driver, &FOUR, "", "");
        for Peer { name, role, .. } in &hub.peers {
            let path = format!("/mcp/{name}");
            let mut agents = Vec::new();
            if *role != Role::Modern {
                for revision in ["2025-03-26", "2025-06-18", "2025-11-25"] {
                    agents.push(hub.legacy("hana", &path, revision));
                }
            } else {
                let hello = json!({"protocolVersion": "2025-11-25", "capabilities": {},
                    "clientInfo": {"name": "rig", "version": "1"}});
                let agent = Agent { revision: "2025-11-25".into(), ..hub.modern("hana", &path) };
                assert_eq!(agent.ask("initialize", hello).answer.status, 400);
            }
            let modern = hub.modern("hana", &path);
            if matches!(role, Role::Dual | Role::Modern) {
                agents.push(modern);
            } else {
                let told = modern.ask("server/discover", json!({}));
                assert_eq!((told.answer.status, told.code()), (400, Some(-32000)), "{told:?}");
            }
            for (page, events, piece) in [(0, false, 0), (1, true, 1)] {
                let peer = hub.peer(name);
                let mut script = peer.script();
                (script.page, script.events, script.piece) = (page, events, piece);
                drop(script);
                for agent in &agents {
                    let shown = format!("{name} {} {page} on {driver:?}", agent.revision);
                    assert_eq!(agent.names("tools/list"), ["alpha", "beta"], "{shown}");
                    assert_eq!(agent.names("prompts/list"), ["hello"], "{shown}");
                    assert_eq!(agent.names("resources/list"), [format!("{name}://one")]);
                    let told = agent.call("beta", json!({"x": 1}));
                    assert_eq!(told.said(), format!("{name} \"beta\" {{\"x\":1}}"), "{shown}");
                    assert_eq!(agent.call("gamma", json!({})).code(), Some(-32602), "{shown}");
                }
            }
            assert_eq!(hub.peer(name).script().sessions.is_empty(), !has_sessions(*role));
        }
    }
}

fn has_sessions(role: Role) -> bool {
    matches!(role, Role::Dual | Role::Legacy)
}

/// The rig's misbehaviour is what it says, seen without a gateway.
#[test]
fn the_servers_of_the_rig_misbehave_as_they_are_told() {
    let peer = Peer::start("bad", Role::Sessionless);
    let ask = |method: &str| {
        let body = json!({"jsonrpc": "2.0", "id": 7, "method": method,
            "params": {"name": "alpha", "_meta": {"progressToken": "p"}}})
        .to_string();
        let head = "POST /mcp HTTP/1.1\r\nHost: x\r\n";
        let bytes = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
        let address = ([127, 0, 0, 1], peer.port).into();
        Told::of(super::client::ask(address, bytes.as_bytes()))
    };
    let ids = |told: &Told| -> Vec<Value> {
        told.messages.iter().map(|message| message["id"].clone()).collect()
    };
    for (trouble, expected) in [
        (Trouble::Asks, vec![json!("own-1"), json!(7)]),
        (Trouble::Progress(2), vec![Value::Null, Value::Null, json!(7)]),
        (Trouble::Twice, vec![json!(7), json!(7)]),
        (Trouble::WrongId, vec![json!("nobody-asked")]),
        (Trouble::WrongIdFirst, vec![json!("nobody-asked"), json!(7)]),
        (Trouble::Body("{".to_owned()), vec![]),
        (Trouble::Result(json!(null)), vec![json!(7)]),
    ] {
        peer.trouble("tools/call", Some(trouble.clone()));
        assert_eq!(ids(&ask("tools/call")), expected, "{trouble:?}");
        assert_eq!(ids(&ask("tools/list")), [json!(7)], "{trouble:?}: of one method only");
    }
    peer.trouble("tools/call", Some(Trouble::Status(503)));
    assert_eq!(ask("tools/call").answer.status, 503);
    peer.trouble("tools/call", None);
    assert_eq!(ask("tools/call").said(), "bad \"alpha\" null");
    peer.trouble("*", Some(Trouble::EndlessPages));
    assert_eq!(ask("tools/list").result()["nextCursor"], "1");
    peer.trouble("*", Some(Trouble::Held));
    peer.release();
    assert_eq!(ask("tools/list").result()["tools"][0]["name"], "alpha");
    assert_eq!(peer.heard("tools/call").len(), 9);
    assert_eq!(peer.push(&json!({})), 0, "nobody listens");
}
