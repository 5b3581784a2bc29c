//! Calls on `/mcp`: each goes to the one server that its name says, whatever era either side
//! speaks, and its answer comes back to who asked.

use serde_json::{Value, json};

use super::client::{Client, Way, text};
use super::gateway::{DRIVERS, Driver, until};
use super::hub_peer::{MODERN, Peer, Role, Trouble};
use super::hub_rig::{Agent, Hub, Told};
use super::setup::API_KEY;

const FOUR: [(&str, Role); 4] = [
    ("dual", Role::Dual),
    ("old", Role::Legacy),
    ("bare", Role::Sessionless),
    ("new", Role::Modern),
];
const LEGACY: [&str; 3] = ["2025-03-26", "2025-06-18", "2025-11-25"];

/// An agent of each revision.
fn agents<'h>(hub: &'h Hub, user: &str) -> Vec<Agent<'h>> {
    let mut all: Vec<_> =
        LEGACY.into_iter().map(|revision| hub.legacy(user, "/mcp", revision)).collect();
    all.push(hub.modern(user, "/mcp"));
    all
}

#[test]
fn a_call_goes_to_the_server_of_its_prefix() {
    for driver in DRIVERS {
        let hub = Hub::start(driver, &FOUR, "", "");
        let agents = agents(&hub, "hana");
        for Peer { name, role, .. } in &hub.peers {
            // In single bytes, a stream is cut everywhere.
            for (events, piece) in [(false, 0), (true, 0), (true, 1)] {
                let peer = hub.peer(name);
                let mut script = peer.script();
                (script.events, script.piece) = (events, piece);
                drop(script);
                for agent in &agents {
                    let shown = format!("{name}, {} on {driver:?}", agent.revision);
                    let told = agent.call(&format!("{name}_beta"), json!({"id": 2, "name": "x"}));
                    let said = format!("{name} \"beta\" {{\"id\":2,\"name\":\"x\"}}");
                    assert_eq!(told.said(), said, "{shown}");
                    assert_eq!(told.answer.status, 200, "{shown}");
                    assert_eq!(told.last()["id"], 1, "{shown}");
                    let told = agent.ask("prompts/get", json!({"name": format!("{name}_hello")}));
                    assert!(told.result().is_object(), "{shown} {told:?}");
                    // The server does not have it, and says so itself.
                    let code = agent.call(&format!("{name}_gamma"), json!({})).code();
                    assert_eq!(code, Some(-32602), "{shown}");
                }
            }
            let calls = hub.peer(name).heard("tools/call");
            assert_eq!(calls.len(), 2 * 3 * agents.len());
            for heard in &calls {
                let own = heard.message["params"]["name"].as_str().unwrap();
                assert!(["beta", "gamma"].contains(&own), "{heard:?}");
                let modern = heard.header("mcp-protocol-version") == Some(MODERN);
                assert_eq!(heard.header("mcp-name"), modern.then_some(own), "{heard:?}");
                assert!(!heard.head.contains("Bearer"), "the agent's token goes nowhere");
            }
            let modern = calls.iter().filter(|heard| heard.header("mcp-name").is_some()).count();
            let expected = match role {
                // Each agent in its own era.
                Role::Dual => 2 * 3,
                Role::Modern => calls.len(),
                Role::Legacy | Role::Sessionless => 0,
            };
            assert_eq!(modern, expected, "{name}");
        }
        let ids: Vec<String> = hub
            .peer("old")
            .heard("tools/call")
            .iter()
            .map(|heard| heard.message["id"].to_string())
            .collect();
        let mut unique = ids.clone();
        unique.sort();
        unique.dedup();
        assert_eq!(unique.len(), ids.len(), "a legacy server never sees an id twice: {ids:?}");
    }
}

/// A name that nobody has, one of a server that is hidden, and one of a prefix that is none answer
/// alike to the last byte, and nobody hears of it.
#[test]
fn what_is_hidden_is_not_there() {
    let rules = "@id(\"ivo\") permit (principal == User::\"ivo\", action, \
                 resource in Server::\"dual\");\n";
    let hub = Hub::start(Driver::Epoll, &FOUR, "", rules);
    let modern = hub.modern("ivo", "/mcp");
    let legacy = hub.legacy("ivo", "/mcp", "2025-11-25");
    for agent in [&modern, &legacy] {
        assert!(agent.call("dual_alpha", json!({})).said().starts_with("dual"));
        let before = (hub.peer("old").count(), hub.peer("new").count());
        let long = format!("old_{}", "a".repeat(61));
        let hashed = format!("old_{}-0123456789", "a".repeat(49));
        let mut answers = Vec::new();
        for name in ["old_alpha", "old_none", "none_alpha", "alpha", "_alpha", "", &long, &hashed] {
            let told = agent.call(name, json!({"a": 1}));
            assert_eq!((told.answer.status, told.code()), (200, Some(1403)), "{name:?} {told:?}");
            assert_eq!(told.answer.reason(), "no_permit", "{name:?}");
            answers.push(text(&told.answer.body));
        }
        answers.dedup();
        assert_eq!(answers.len(), 1, "{answers:?}");
        assert_eq!((hub.peer("old").count(), hub.peer("new").count()), before);
    }
}

/// Names are taken as what they mean, not as they are spelled, and go on as what was judged.
#[test]
fn a_name_is_what_it_means() {
    let hub = Hub::start(Driver::Epoll, &FOUR, "", "");
    let odd = "sp\u{e4}t \"x\"_/\\\u{1f600}";
    for peer in &hub.peers {
        peer.script().tools.push(odd.to_owned());
    }
    for agent in agents(&hub, "hana") {
        for name in ["dual", "old", "new"] {
            let outer = format!("{name}_{odd}");
            let asked = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call",
                "params": {"name": outer, "arguments": {"name": "dual_alpha"}}});
            let mut body = asked.to_string();
            if agent.revision == MODERN {
                let meta = json!({"io.modelcontextprotocol/protocolVersion": MODERN,
                    "io.modelcontextprotocol/clientCapabilities": {}});
                body.insert_str(body.len() - 2, &format!(", \"_meta\" : {meta} "));
            }
            // Spelled with escapes, and spaced out.
            let body =
                body.replace("\"name\":\"", "\"n\\u0061me\" :\t\"").replace("_sp", "\\u005fsp");
            let name_field = base64(&outer);
            let request = request(&agent, &body, &name_field);
            let told = Told::of(hub.gateway.ask(&request));
            assert!(told.said().starts_with(name), "{name} {} {told:?}", agent.revision);
            let heard = hub.peer(name).heard("tools/call").pop().unwrap();
            assert_eq!(heard.message["params"]["name"], odd);
            assert_eq!(heard.message["params"]["arguments"], json!({"name": "dual_alpha"}));
        }
    }
}

fn base64(name: &str) -> String {
    use ::base64::Engine as _;
    format!("=?base64?{}?=", ::base64::engine::general_purpose::STANDARD.encode(name))
}

fn request(agent: &Agent<'_>, body: &str, name: &str) -> Vec<u8> {
    let bytes = agent.request(body, "");
    let whole = text(&bytes);
    let (head, body) = whole.split_once("\r\n\r\n").unwrap();
    let kept: Vec<&str> =
        head.split("\r\n").filter(|line| !line.starts_with("Mcp-Name:")).collect();
    let mut head = kept.join("\r\n");
    if agent.revision == MODERN {
        head += &format!("\r\nMcp-Name: {name}");
    }
    format!("{head}\r\n\r\n{body}").into_bytes()
}

/// Only the answer to what was asked reaches the agent, with its own id byte for byte.
#[test]
fn an_answer_goes_to_who_asked() {
    for driver in DRIVERS {
        let hub = Hub::start(driver, &FOUR, "", "");
        let agents = agents(&hub, "hana");
        for name in ["dual", "old", "new"] {
            let tool = format!("{name}_alpha");
            let peer = hub.peer(name);
            for agent in &agents {
                let shown = format!("{name}, {} on {driver:?}", agent.revision);
                let call = || agent.call(&tool, json!({}));
                for trouble in [Trouble::Twice, Trouble::WrongIdFirst] {
                    peer.trouble("tools/call", Some(trouble.clone()));
                    let told = call();
                    assert_eq!(told.messages.len(), 1, "{shown} {trouble:?} {told:?}");
                    assert!(told.said().starts_with(name), "{shown} {trouble:?}");
                }
                for (trouble, status, reason) in [
                    (Trouble::WrongId, 502, "upstream_malformed"),
                    (Trouble::Body("{".to_owned()), 502, "upstream_malformed"),
                    (Trouble::Body("[]".to_owned()), 502, "upstream_malformed"),
                    (Trouble::Hangup, 502, "upstream_eof"),
                ] {
                    peer.trouble("tools/call", Some(trouble.clone()));
                    let told = call();
                    assert_eq!(told.answer.status, status, "{shown} {trouble:?} {told:?}");
                    assert_eq!(told.answer.reason(), reason, "{shown} {trouble:?}");
                    // So that its breaker stays closed.
                    peer.trouble("tools/call", None);
                    assert!(call().said().starts_with(name), "{shown}");
                }
                for id in [json!("\u{e9}\"x"), json!(-7), json!(9_007_199_254_740_993_u64)] {
                    let told = agent.ask_as(&id, "tools/call", json!({"name": tool}));
                    assert_eq!(told.last()["id"], id, "{shown}");
                }
            }
        }
        let page = text(&hub.gateway.page("/metrics").body);
        for name in ["dual", "old", "new"] {
            let line = format!("stray_answers_total{{server=\"{name}\"}} ");
            let count = page.lines().find_map(|it| it.split_once(&line)).expect("a counter").1;
            assert_eq!(count.trim(), (3 * agents.len()).to_string(), "{name} on {driver:?}");
        }
    }
}

#[test]
fn progress_comes_by_the_agents_token_and_before_the_answer() {
    let hub = Hub::start(Driver::Epoll, &FOUR, "", "");
    for agent in agents(&hub, "hana") {
        for name in ["dual", "old", "new"] {
            let shown = format!("{name}, {}", agent.revision);
            let peer = hub.peer(name);
            peer.trouble("tools/call", Some(Trouble::Progress(3)));
            let tool = format!("{name}_alpha");
            for token in [json!("t\u{f6}ken"), json!(5)] {
                let meta = json!({"progressToken": token});
                let told = agent.ask("tools/call", json!({"name": tool, "_meta": meta}));
                let steps: Vec<&Value> =
                    told.messages.iter().map(|message| &message["params"]["progress"]).collect();
                assert_eq!(steps, [&json!(1), &json!(2), &json!(3), &Value::Null], "{shown}");
                for message in &told.messages[..3] {
                    assert_eq!(message["params"]["progressToken"], token, "{shown}");
                }
            }
            // Nobody asked for any.
            let told = agent.ask("tools/call", json!({"name": tool}));
            assert_eq!(told.messages.len(), 1, "{shown} {told:?}");
            peer.trouble("tools/call", None);
        }
    }
}

/// A legacy server may ask an agent for nothing, as nothing was declared to it: it hears so, and
/// the agent hears nothing of it.
#[test]
fn a_question_of_a_server_is_answered_by_the_gateway() {
    let hub = Hub::start(Driver::Epoll, &FOUR, "", "");
    let peer = hub.peer("old");
    peer.trouble("tools/call", Some(Trouble::Asks));
    for agent in agents(&hub, "hana") {
        let told = agent.call("old_alpha", json!({}));
        assert_eq!(told.messages.len(), 1, "{told:?}");
        let answers = peer.heard("");
        let answer = answers.last().expect("an answer to the server");
        assert_eq!(answer.message["id"], "own-1");
        assert_eq!(answer.message["error"]["code"], -32601);
        let call = peer.heard("tools/call").pop().unwrap();
        assert_eq!(answer.header("mcp-session-id"), call.header("mcp-session-id"));
    }
}

/// A server that forgot its session refused before it acted: the session is opened anew.
#[test]
fn a_session_that_a_server_forgot_is_opened_again() {
    let hub = Hub::start(Driver::Epoll, &FOUR, "", "");
    let peer = hub.peer("old");
    for agent in agents(&hub, "hana") {
        assert!(agent.call("old_alpha", json!({})).said().starts_with("old"));
        let before = peer.heard("initialize").len();
        peer.forget_sessions();
        assert!(agent.call("old_alpha", json!({})).said().starts_with("old"), "{}", agent.revision);
        assert_eq!(peer.heard("initialize").len(), before + 1, "{}", agent.revision);
        // One that never knows its sessions is not asked in a loop.
        peer.trouble("tools/call", Some(Trouble::Status(404)));
        let calls = peer.heard("tools/call").len();
        let told = agent.call("old_alpha", json!({}));
        assert_eq!(told.answer.status, 502, "{told:?}");
        assert_eq!(peer.heard("tools/call").len(), calls + 2);
        peer.trouble("tools/call", None);
    }
}

/// Two users, and two sessions of one, never share a session with a server.
#[test]
fn a_session_with_a_server_has_one_owner() {
    let rules = "@id(\"ivo\") permit (principal == User::\"ivo\", action, \
                 resource in Server::\"old\");\n";
    let hub = Hub::start(Driver::Epoll, &FOUR, "", rules);
    let mut seen = Vec::new();
    for user in ["hana", "ivo"] {
        for agent in agents(&hub, user) {
            for _ in 0..2 {
                assert!(agent.call("old_alpha", json!({})).said().starts_with("old"));
            }
            let calls = hub.peer("old").heard("tools/call");
            let own = calls.last().unwrap().header("mcp-session-id").unwrap().to_owned();
            assert!(!seen.contains(&own), "{user} {} uses {own}", agent.revision);
            seen.push(own);
        }
    }
}

/// The record says which server and which of its tools it was, once for each call.
#[test]
fn the_record_names_the_server_and_its_own_name_of_the_tool() {
    let hub = Hub::start(Driver::Epoll, &FOUR, "", "");
    let agent = hub.modern("hana", "/mcp");
    assert!(agent.call("old_beta", json!({})).said().starts_with("old"));
    assert_eq!(agent.call("none_beta", json!({})).code(), Some(1403));
    let mut records: Vec<Value> = Vec::new();
    until("both records", || {
        let audit = hub.gateway.audit_text();
        records = audit
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap())
            .filter(|record| record["method"] == "tools/call" && record["user"] == "hana")
            .collect();
        records.len() >= 2
    });
    records.sort_by_key(|record| record["decision"] == "deny");
    let [called, refused] = records.as_slice() else { panic!("{records:?}") };
    assert_eq!(called["event"], "request");
    assert_eq!((&called["server"], &called["name"]), (&json!("old"), &json!("beta")));
    assert_eq!((&called["decision"], &called["status"]), (&json!("permit"), &json!(200)));
    assert_eq!(refused["decision"], "deny");
    assert_eq!(refused["name"], "none_beta");
    let secret =
        hub.peer("old").heard("tools/call")[0].header("mcp-session-id").unwrap().to_owned();
    assert!(!hub.gateway.everything_written().contains(&secret), "a session is nobody's to know");
}

/// One connection of the agent, so that one core serves all of it.
struct Line<'a> {
    agent: Agent<'a>,
    client: Client,
}

impl<'a> Line<'a> {
    fn of(hub: &Hub, agent: Agent<'a>) -> Self {
        Self { agent, client: Client::connect(hub.gateway.address) }
    }

    fn send(&mut self, tool: &str) {
        let mut params = json!({"name": tool, "arguments": {}});
        if self.agent.revision == MODERN {
            params["_meta"] = json!({"io.modelcontextprotocol/protocolVersion": MODERN,
                "io.modelcontextprotocol/clientCapabilities": {}});
        }
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params});
        self.client.send(&self.agent.request(&body.to_string(), ""), Way::Whole);
    }

    fn call(&mut self, tool: &str) -> Told {
        self.send(tool);
        Told::of(self.client.answer().expect("an answer on the same connection"))
    }
}

/// Answers that were heard to their end leave their connection to the next call.
#[test]
fn connections_to_a_server_are_used_again() {
    let hub = Hub::start(Driver::Epoll, &FOUR, "", "");
    let agents = [hub.modern("hana", "/mcp"), hub.legacy("hana", "/mcp", "2025-11-25")];
    for (agent, events) in agents.into_iter().zip([false, true]) {
        let mut line = Line::of(&hub, agent);
        for name in ["dual", "old", "new"] {
            let (peer, tool) = (hub.peer(name), format!("{name}_alpha"));
            peer.script().events = events;
            assert!(line.call(&tool).said().starts_with(name));
            let before = peer.heard("tools/call").len();
            for _ in 0..5 {
                assert!(line.call(&tool).said().starts_with(name));
            }
            let calls = peer.heard("tools/call");
            let mut used: Vec<usize> =
                calls[before..].iter().map(|heard| heard.connection).collect();
            used.dedup();
            assert_eq!(used.len(), 1, "{name}, events: {events}");
        }
    }
}

/// A server that fails five times in a row is left alone, and only it.
#[test]
fn a_server_that_fails_is_left_alone_for_a_while() {
    let hub = Hub::start(Driver::Epoll, &FOUR, "", "");
    let mut line = Line::of(&hub, hub.modern("hana", "/mcp"));
    assert!(line.call("new_alpha").said().starts_with("new"));
    let peer = hub.peer("new");
    peer.trouble("tools/call", Some(Trouble::Status(503)));
    for _ in 0..5 {
        assert_eq!(line.call("new_alpha").answer.status, 502);
    }
    let before = peer.count();
    let told = line.call("new_alpha");
    assert_eq!((told.answer.status, told.answer.reason()), (503, "upstream_suspended".to_owned()));
    assert_eq!(peer.count(), before, "it hears nothing");
    assert!(line.call("dual_alpha").said().starts_with("dual"));
    // One may try it after a second.
    peer.trouble("tools/call", None);
    until("it is well again", || line.call("new_alpha").answer.status == 200);
}

/// A modern agent that leaves cancels its call at the server; a legacy one does not.
#[test]
fn leaving_is_cancelling_in_the_modern_era_only() {
    for driver in DRIVERS {
        let hub = Hub::start(driver, &FOUR, "", "");
        let peer = hub.peer("dual");
        for modern in [true, false] {
            let agent = if modern {
                hub.modern("hana", "/mcp")
            } else {
                hub.legacy("hana", "/mcp", "2025-11-25")
            };
            let turn = hub.gateway.turn();
            let mut line = Line::of(&hub, agent);
            assert!(line.call("dual_alpha").said().starts_with("dual"));
            peer.trouble("tools/call", Some(Trouble::Held));
            let before = peer.heard("tools/call").len();
            line.send("dual_alpha");
            until("the call is with the server", || peer.heard("tools/call").len() > before);
            drop(line);
            let second = || {
                let mut calls = Vec::new();
                until("the record of the second call", || {
                    calls = turn.so_far(&hub.gateway);
                    calls.retain(|it| it["method"] == "tools/call" && it["outcome"] != "opened");
                    calls.len() == 2
                });
                calls.remove(1)
            };
            if modern {
                // It ends while the server still holds its answer.
                assert_eq!(second()["reason"], "request_aborted", "on {driver:?}");
            } else {
                peer.release();
                assert_eq!(second()["upstream_status"], 200, "on {driver:?}");
            }
            peer.trouble("tools/call", None);
        }
    }
}

/// A refused credential is read anew once; nobody but its server ever sees it.
#[test]
fn a_credential_that_is_refused_is_tried_once_more() {
    let peer = Peer::start("keyed", Role::Modern);
    let more = format!(
        "\n[[server]]\nname = \"keyed\"\nurl = \"http://127.0.0.1:{}/mcp\"\n\
         trust_private_addresses = true\ncredential = \"keyed\"\n\
         [[credential]]\nname = \"keyed\"\nkind = \"api_key\"\nservers = [\"keyed\"]\n\
         header = \"X-Key\"\nsecret = \"file:upstream.key\"\n",
        peer.port
    );
    let rules = "@id(\"keyed\") permit (principal == User::\"hana\", action, \
                 resource in Server::\"keyed\");\n";
    let hub = Hub::start(Driver::Epoll, &FOUR, &more, rules);
    let agent = hub.modern("hana", "/mcp");
    assert!(agent.call("keyed_alpha", json!({})).said().starts_with("keyed"));
    peer.trouble("tools/call", Some(Trouble::Status(401)));
    let told = agent.call("keyed_alpha", json!({}));
    assert_eq!((told.answer.status, told.answer.reason()), (502, "upstream_auth".to_owned()));
    let calls = peer.heard("tools/call");
    assert_eq!(calls.len(), 3, "once well, twice refused");
    for heard in &calls {
        assert_eq!(heard.header("x-key"), Some(API_KEY));
    }
    assert!(agent.call("new_alpha", json!({})).said().starts_with("new"));
    assert!(hub.peer("new").heard("tools/call")[0].header("x-key").is_none());
    assert!(!hub.gateway.everything_written().contains(API_KEY));
}

/// An answer is held whole, so it is bounded; up to there it comes as it is.
#[test]
fn a_long_answer_comes_whole_and_one_that_is_too_long_does_not() {
    let hub = Hub::start(Driver::Epoll, &FOUR, "", "");
    let agents = [hub.modern("hana", "/mcp"), hub.legacy("hana", "/mcp", "2025-11-25")];
    for name in ["dual", "old"] {
        let peer = hub.peer(name);
        for agent in &agents {
            for (bytes, fits) in [(200_000, true), (3_000_000, true), (4_200_000, false)] {
                let long = "x".repeat(bytes);
                let result = json!({"content": [{"type": "text", "text": long}]});
                peer.trouble("tools/call", Some(Trouble::Result(result)));
                for events in [false, true] {
                    peer.script().events = events;
                    let told = agent.call(&format!("{name}_alpha"), json!({}));
                    if fits {
                        assert_eq!(told.said().len(), bytes);
                    } else {
                        assert_eq!(told.answer.status, 502);
                        let word = if events { "upstream_malformed" } else { "upstream_too_large" };
                        assert_eq!(told.answer.reason(), word);
                    }
                }
            }
            peer.trouble("tools/call", None);
            assert!(agent.call(&format!("{name}_alpha"), json!({})).said().starts_with(name));
        }
    }
}

/// Who has not offered tasks leaves the wish for one aside (2025-11-25 basic/utilities/tasks); a
/// task that a server makes all the same is refused before the agent hears of it.
#[test]
fn tasks_of_servers_are_not_carried_yet() {
    let hub = Hub::start(Driver::Epoll, &FOUR, "", "");
    let agent = hub.modern("hana", "/mcp");
    assert!(agent.call("new_alpha", json!({})).said().starts_with("new"));
    let peer = hub.peer("new");
    for params in [
        json!({"name": "new_alpha", "arguments": {}, "task": {"ttl": 1}}),
        json!({"task": {"ttl": 1}, "name": "new_alpha", "arguments": {"task": 1}}),
    ] {
        assert!(agent.ask("tools/call", params).said().starts_with("new"));
        let heard = peer.heard("tools/call").pop().unwrap();
        assert_eq!(heard.message["params"].get("task"), None, "{}", heard.message);
    }
    let task = json!({"resultType": "task", "taskId": "t"});
    peer.trouble("tools/call", Some(Trouble::Result(task)));
    let told = agent.call("new_alpha", json!({}));
    assert_eq!((told.answer.status, told.answer.reason()), (501, "not_built".to_owned()));
    // An agent of the other era would take it for an answer.
    let told = hub.legacy("hana", "/mcp", "2025-11-25").call("new_alpha", json!({}));
    assert_eq!((told.answer.status, told.answer.reason()), (502, "upstream_era".to_owned()));
}

/// A server's state comes back to the server that gave it, byte for byte, from whom it gave it to
/// and for what; anywhere else it is nothing.
#[test]
fn m12_m14_a_state_is_its_owners_and_its_requests() {
    let rules = "@id(\"ivo\") permit (principal == User::\"ivo\", action, \
                 resource in Server::\"new\");\n";
    let hub = Hub::start(Driver::Epoll, &FOUR, "", rules);
    let (hana, ivo) = (hub.modern("hana", "/mcp"), hub.modern("ivo", "/mcp"));
    for agent in [&hana, &ivo] {
        assert!(agent.call("new_alpha", json!({})).said().starts_with("new"));
    }
    assert!(hana.call("dual_alpha", json!({})).said().starts_with("dual"));
    let peer = hub.peer("new");
    let own = "s\"\u{e9}\\ \n{}";
    let required = json!({"resultType": "input_required", "requestState": own,
        "inputRequests": {"roots": {"method": "roots/list"}}});
    peer.trouble("tools/call", Some(Trouble::Result(required)));
    let able = json!({"io.modelcontextprotocol/clientCapabilities": {"roots": {}}});
    let ask = |agent: &Agent<'_>, name: &str, state: &str, capabilities: &Value| {
        let mut meta = capabilities.clone();
        meta["io.modelcontextprotocol/protocolVersion"] = json!(MODERN);
        let mut params = json!({"name": name, "arguments": {}, "_meta": meta});
        if !state.is_empty() {
            params["requestState"] = json!(state);
            params["inputResponses"] = json!({"roots": {"roots": []}});
        }
        agent.say(&json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}))
    };
    let told = ask(&hana, "new_alpha", "", &able);
    assert_eq!(told.result()["inputRequests"]["roots"]["method"], "roots/list");
    let sealed = told.result()["requestState"].as_str().unwrap().to_owned();
    assert!(!sealed.contains(own), "{sealed}");
    // What the agent did not say it can be asked for, it is not asked.
    let none = json!({"io.modelcontextprotocol/clientCapabilities": {}});
    assert_eq!(ask(&hana, "new_alpha", "", &none).answer.reason(), "upstream_malformed");
    peer.trouble("tools/call", None);
    let before = (peer.count(), hub.peer("dual").count());
    let mut changed = sealed.clone();
    changed.replace_range(20..21, if &sealed[20..21] == "A" { "B" } else { "A" });
    for (agent, name, state) in [
        (&ivo, "new_alpha", &sealed),
        (&hana, "new_beta", &sealed),
        (&hana, "dual_alpha", &sealed),
        (&hana, "new_alpha", &changed),
        (&hana, "new_alpha", &own.to_owned()),
    ] {
        let told = ask(agent, name, state, &able);
        assert_eq!((told.answer.status, told.code()), (200, Some(-32602)), "{name} {told:?}");
        assert_eq!(told.answer.reason(), "state_foreign");
    }
    assert_eq!((peer.count(), hub.peer("dual").count()), before, "nobody hears of it");
    // Whether there is such a server is not told either.
    for name in ["dual_alpha", "none_alpha"] {
        assert_eq!(ask(&ivo, name, &sealed, &able).answer.reason(), "no_permit", "{name}");
    }
    assert!(ask(&hana, "new_alpha", &sealed, &able).said().starts_with("new"));
    let heard = peer.heard("tools/call").pop().unwrap();
    assert_eq!(heard.message["params"]["requestState"], own);
    assert_eq!(heard.message["params"]["inputResponses"], json!({"roots": {"roots": []}}));
    let meta = &heard.message["params"]["_meta"];
    assert_eq!(meta["io.modelcontextprotocol/clientCapabilities"], json!({"roots": {}}));
    assert!(!hub.gateway.everything_written().contains(&sealed));
}

/// Rules that change while a server works on a call end it: the agent hears that it may not, and
/// the server that nobody waits.
#[test]
fn a_call_under_way_ends_when_it_is_denied() {
    for driver in DRIVERS {
        let hub = Hub::start(driver, &FOUR, "", "");
        for (agent, name) in
            [(hub.modern("hana", "/mcp"), "new"), (hub.legacy("hana", "/mcp", "2025-11-25"), "old")]
        {
            let (peer, tool) = (hub.peer(name), format!("{name}_alpha"));
            let shown = format!("{name} on {driver:?}");
            let mut line = Line::of(&hub, agent);
            assert!(line.call(&tool).said().starts_with(name), "{shown}");
            peer.trouble("tools/call", Some(Trouble::Held));
            let before = peer.heard("tools/call").len();
            line.send(&tool);
            until("the call is with the server", || peer.heard("tools/call").len() > before);
            let rules = hub.gateway.directory.join("policies/hub.cedar");
            let all = std::fs::read_to_string(&rules).unwrap();
            let kept: Vec<&str> =
                all.lines().filter(|line| !line.contains(&format!("\"hana-{name}\""))).collect();
            std::fs::write(&rules, kept.join("\n")).unwrap();
            // A reload reads all of it again.
            std::fs::write(hub.gateway.directory.join("vanishing.key"), API_KEY).unwrap();
            let pid = i32::try_from(hub.gateway.pid()).unwrap();
            let pid = rustix::process::Pid::from_raw(pid).unwrap();
            rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
            let answer = line.client.answer().expect("an answer, though the server gives none");
            assert_eq!((answer.status, answer.code()), (200, Some(1403)), "{shown} {answer:?}");
            assert_eq!(answer.reason(), "no_permit", "{shown}");
            assert!(line.call("dual_alpha").said().starts_with("dual"), "{shown}");
            peer.trouble("tools/call", None);
        }
    }
}
