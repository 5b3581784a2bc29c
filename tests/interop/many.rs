//! Three real servers of different eras behind one gateway, and every official client: each lists
//! and calls at each server's own URL, and at the one URL of all of them.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::gateway::{Gateway, Setup, USER};
use crate::install::{Tools, timed, tools};
use crate::process::{Running, finish};
use crate::wire::{JSON_HEADERS, LEGACY};
use crate::{everything, fast, http, node, observed, permit_all, python, reference, serial};

/// A client in one of its modes.
struct Client {
    script: &'static str,
    mode: &'static str,
    /// The era that it speaks with a server of both.
    era: Era,
    /// It says that it can be asked (elicitation, sampling): some servers list more tools then.
    answers: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Era {
    Legacy,
    Modern,
}

const CLIENTS: [Client; 11] = [
    client("py_client.py", "legacy", Era::Legacy, true),
    client("py_client.py", "auto", Era::Modern, true),
    client("fast_client.py", "legacy", Era::Legacy, false),
    client("fast_client.py", "auto", Era::Modern, false),
    client("ts_client.mjs", "legacy", Era::Legacy, true),
    client("ts_client.mjs", "auto", Era::Modern, true),
    client("ts1_client.mjs", "legacy", Era::Legacy, false),
    client("inspector_client.mjs", "legacy", Era::Legacy, true),
    client("inspector_client.mjs", "auto", Era::Modern, true),
    client("stdio_client.mjs", "legacy", Era::Legacy, false),
    client("stdio_client.mjs", "auto", Era::Modern, false),
];

const fn client(script: &'static str, mode: &'static str, era: Era, answers: bool) -> Client {
    Client { script, mode, era, answers }
}

/// A server, one of its tools, and what that tool says.
struct Server {
    name: &'static str,
    /// It speaks the modern era, too.
    dual: bool,
    tool: &'static str,
    arguments: &'static str,
    says: &'static str,
}

const SERVERS: [Server; 3] = [
    Server {
        name: "everything",
        dual: true,
        tool: "test_simple_text",
        arguments: "{}",
        says: "This is a simple text response for testing.",
    },
    Server {
        name: "fast",
        dual: true,
        tool: "echo",
        arguments: r#"{"text": "portcullis"}"#,
        says: "fast: portcullis",
    },
    Server {
        name: "reference",
        dual: false,
        tool: "echo",
        arguments: r#"{"message": "portcullis"}"#,
        says: "Echo: portcullis",
    },
];

impl Client {
    /// How it is called in audit records, and in what is printed.
    fn agent(&self) -> String {
        let program = self.script.split_once('.').unwrap().0;
        format!("{}-{}", program.trim_end_matches("_client"), self.mode)
    }

    /// Lists and calls; what it saw.
    fn run(&self, tools: &Tools, url: &str, plan: &Value, token: &str) -> Value {
        let mut command = match self.script.ends_with(".py") {
            true => python(tools, self.script),
            false => node(tools, self.script),
        };
        let home = tools.runs.join(format!("home-{}", self.agent()));
        fs::create_dir_all(&home).unwrap();
        command.args([url, self.mode, &plan.to_string()]).env("TOKEN", token).env("HOME", home);
        let name = format!("{} {url}", self.agent());
        let done = timed(&name, || finish(&name, CLIENT_LIMIT, &mut command));
        assert!(done.status.success(), "{name}: {}", done.stderr);
        let seen: Value = serde_json::from_str(&done.stdout)
            .unwrap_or_else(|e| panic!("{name}: {e}: {} {}", done.stdout, done.stderr));
        assert!(seen["connect"].is_null(), "{name}: {seen}: {}", done.stderr);
        seen
    }

    /// Whether it reaches this server at the one URL of all.
    fn reaches(&self, server: &Server) -> bool {
        BRIDGED || self.era == Era::Legacy || server.dual
    }
}

impl Server {
    fn call(&self, prefix: &str) -> Value {
        let arguments: Value = serde_json::from_str(self.arguments).unwrap();
        json!({"name": format!("{prefix}{}", self.tool), "arguments": arguments})
    }

    fn said(&self, outcome: &Value, who: &str) {
        let wanted = json!({"isError": false, "content": [self.says]});
        assert_eq!(outcome["value"], wanted, "{who} at {}: {outcome}", self.name);
    }
}

/// The running servers, and the gateway in front of them.
struct Three {
    gateway: Gateway,
    /// Of the one that tells what it saw.
    port: u16,
    _servers: [Running; 3],
}

fn three(tools: &Tools, name: &str) -> Three {
    let (one, port) = everything(tools);
    let (two, fast) = fast(tools);
    let (other, reference) = reference(tools);
    let beside = [("fast", fast), ("reference", reference)];
    let setup = Setup { beside: &beside, ..permit_all(name, port) };
    Three { gateway: Gateway::start(tools, &setup), port, _servers: [one, two, other] }
}

/// A list of names that a client got.
fn names(seen: &Value, list: &str, who: &str) -> Vec<String> {
    let all = seen[list]["value"].as_array();
    let all = all.unwrap_or_else(|| panic!("{who}: no {list}: {seen}"));
    all.iter().map(|name| name.as_str().unwrap().to_owned()).collect()
}

#[test]
fn every_client_lists_and_calls_at_each_servers_own_url() {
    let _one = serial();
    let Some(tools) = tools() else { return };
    let three = three(tools, "own-urls");
    for client in &CLIENTS {
        let token = three.gateway.token_of(USER, &client.agent(), &three.gateway.hub_url());
        for server in &SERVERS {
            let who = format!("{} at {}", client.agent(), server.name);
            let url = format!("{}/{}", three.gateway.hub_url(), server.name);
            let plan = json!({"toolsOnly": true, "calls": [server.call("")]});
            let seen = client.run(tools, &url, &plan, &token);
            let tools = names(&seen, "tools", &who);
            assert!(tools.is_sorted(), "{who}: {tools:?}");
            assert!(tools.iter().any(|name| name == server.tool), "{who}: {tools:?}");
            server.said(&seen["calls"][0], &who);
        }
    }
    let spoken =
        ends_with_a_record_of_each(three, |record| record["server"].as_str().unwrap().to_owned());
    for client in &CLIENTS {
        for server in &SERVERS {
            let modern = client.era == Era::Modern && server.dual;
            let era = if modern { Era::Modern } else { Era::Legacy };
            let revision = &spoken[&(client.agent(), server.name.to_owned())];
            assert_eq!(era_of(revision), era, "{} at {}", client.agent(), server.name);
        }
    }
}

/// What a client sees at the one URL is what it sees at the servers' own, with prefixes before the
/// names of tools and prompts, servers in the order of their prefixes.
#[test]
fn every_client_lists_and_calls_all_servers_at_one_url() {
    let _one = serial();
    let Some(tools) = tools() else { return };
    let three = three(tools, "one-url");
    for client in &CLIENTS {
        let token = three.gateway.token_of(USER, &client.agent(), &three.gateway.hub_url());
        let servers: Vec<_> = SERVERS.iter().filter(|server| client.reaches(server)).collect();
        let calls: Vec<_> =
            servers.iter().map(|server| server.call(&format!("{}_", server.name))).collect();
        let seen = client.run(tools, &three.gateway.hub_url(), &json!({"calls": calls}), &token);
        let who = format!("{} at all", client.agent());
        let mut merged: [Vec<String>; 3] = [vec![], vec![], vec![]];
        for (server, outcome) in servers.iter().zip(seen["calls"].as_array().unwrap()) {
            server.said(outcome, &who);
            let url = format!("{}/{}", three.gateway.hub_url(), server.name);
            let own = client.run(tools, &url, &json!({"calls": []}), &token);
            for (list, merged) in LISTS.iter().zip(&mut merged) {
                // A server that has none of a kind may refuse to list them.
                let none = own[list]["value"].is_null();
                let own = if none { Vec::new() } else { names(&own, list, &who) };
                let prefix = if *list == "resources" { "" } else { server.name };
                merged.extend(own.iter().map(|name| prefixed(prefix, name)));
            }
        }
        for (list, merged) in LISTS.iter().zip(&merged) {
            let found = names(&seen, list, &who);
            if client.answers {
                // The gateway may not pass on what this client says that it can be asked.
                let known = found.iter().all(|name| merged.contains(name));
                assert!(known, "{who}: {list}: {found:?} of {merged:?}");
            } else {
                assert_eq!(&found, merged, "{who}: {list}");
            }
            for server in &servers {
                let wanted = prefixed(server.name, server.tool);
                assert!(*list != "tools" || found.contains(&wanted), "{who}: {found:?}");
            }
        }
    }
    ends_with_a_record_of_each(three, |record| {
        record["server"].as_str().unwrap_or("all").to_owned()
    });
}

/// Some legacy servers, fastmcp among them, lose an answer when an id is used twice at once in one
/// session. Requests of one client share a session with a server, and each gets its own answer.
#[test]
fn one_id_used_at_once_gets_each_its_own_answer() {
    let _one = serial();
    let Some(tools) = tools() else { return };
    let three = three(tools, "one-id");
    let port = three.gateway.port;
    let token = three.gateway.token_of(USER, "one-id", &three.gateway.hub_url());
    let authorization = format!("Authorization: Bearer {token}");
    let headers = [&[authorization.as_str(), LEGACY][..], &JSON_HEADERS].concat();
    let hello = json!({"jsonrpc": "2.0", "id": 7, "method": "initialize", "params": {
        "protocolVersion": "2025-11-25", "capabilities": {},
        "clientInfo": {"name": "one-id", "version": "1"}}});
    let hello = http::send(port, "POST /mcp", &headers, &hello.to_string());
    let session = hello.head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("mcp-session-id").then(|| value.trim().to_owned())
    });
    let session = format!("Mcp-Session-Id: {}", session.unwrap());
    let headers = [&headers[..], &[session.as_str()]].concat();
    let ready = json!({"jsonrpc": "2.0", "method": "notifications/initialized"}).to_string();
    assert_eq!(http::send(port, "POST /mcp", &headers, &ready).status, 202);
    std::thread::scope(|scope| {
        for number in 0..AT_ONCE {
            let headers = &headers;
            scope.spawn(move || {
                let text = format!("number {number} of all");
                let call = json!({"jsonrpc": "2.0", "id": 7, "method": "tools/call",
                    "params": {"name": "fast_echo", "arguments": {"text": text}}});
                let answer = http::send(port, "POST /mcp", headers, &call.to_string());
                assert!(answer.body.contains(&format!("fast: {text}")), "{}", answer.body);
                assert!(answer.body.contains("\"id\":7"), "{}", answer.body);
            });
        }
    });
}

/// The tools that a client lists which reads the README's configuration: the inspector, with a
/// gateway that is here and a token in place of what the README names.
fn configured(tools: &Tools, name: &str, url: &str, token: &str) -> Vec<String> {
    let readme = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let mut blocks =
        readme.split("```json\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let block = blocks.find(|block| block.contains("mcpServers")).unwrap();
    let mut shown: Value = serde_json::from_str(block).unwrap();
    let servers = shown["mcpServers"].as_object_mut().unwrap();
    assert_eq!(servers.len(), 1, "one entry reaches all: {block}");
    let (key, entry) = servers.iter_mut().next().unwrap();
    let path = entry["url"].as_str().unwrap().split('/').skip(3).collect::<Vec<_>>().join("/");
    assert_eq!(path, "mcp", "{block}");
    entry["url"] = json!(url);
    entry["headers"] = json!({"Authorization": format!("Bearer {token}")});
    let key = key.clone();
    let home = tools.runs.join(format!("home-{name}"));
    fs::create_dir_all(&home).unwrap();
    let file = home.join("mcp.json");
    fs::write(&file, shown.to_string()).unwrap();
    let mut command = Command::new(&tools.node);
    command.arg(tools.inspector()).args(["--cli", "--config"]).arg(file);
    command.args(["--server", &key, "--format", "json", "--quiet", "--method", "tools/list"]);
    let done = timed(name, || finish(name, CLIENT_LIMIT, command.env("HOME", home)));
    assert!(done.status.success(), "{name}: {}", done.stderr);
    let said: Value = serde_json::from_str(&done.stdout).unwrap();
    let all = said["result"]["tools"].as_array().unwrap_or_else(|| panic!("{name}: {said}"));
    all.iter().map(|tool| tool["name"].as_str().unwrap().to_owned()).collect()
}

/// What the test below stands on: the README's configuration is one that a client reads.
#[test]
fn the_readmes_client_configuration_is_understood() {
    let _one = serial();
    let Some(tools) = tools() else { return };
    let (_server, port) = fast(tools);
    let gateway = Gateway::start(tools, &permit_all("readme", port));
    let found = configured(tools, "readme-own-url", &gateway.url(), &gateway.token(USER));
    assert_eq!(found, ["add", "echo"]);
}

/// The README's promise: one client configuration with one URL reaches three real servers of
/// different eras.
#[test]
fn the_readmes_one_url_reaches_three_real_servers() {
    let _one = serial();
    let Some(tools) = tools() else { return };
    let three = three(tools, "readme-one-url");
    let url = three.gateway.hub_url();
    let token = three.gateway.token_of(USER, "readme", &url);
    let found = configured(tools, "readme-one-url", &url, &token);
    for server in &SERVERS {
        let wanted = prefixed(server.name, server.tool);
        assert!(found.contains(&wanted), "{wanted}: {found:?}");
    }
}

fn prefixed(prefix: &str, name: &str) -> String {
    if prefix.is_empty() { name.to_owned() } else { format!("{prefix}_{name}") }
}

/// Ends the gateway and prints who spoke which revision at what: the matrix. By agent and by what
/// `place` makes of a record.
fn ends_with_a_record_of_each(
    three: Three,
    place: impl Fn(&Value) -> String,
) -> BTreeMap<(String, String), String> {
    let observed = observed(three.port);
    assert_eq!(observed["authorization"], json!([]), "no token went upstream: {observed}");
    let (status, records) = three.gateway.stop();
    assert!(status.success(), "{status}");
    let mut spoken = BTreeMap::new();
    let calls = records.iter().filter(|record| {
        record["event"] == "request"
            && record["method"] == "tools/call"
            && record["decision"] == "permit"
    });
    for record in calls {
        assert_eq!(record["user"], USER, "{record}");
        let agent = record["agent"].as_str().unwrap().to_owned();
        let revision = record["revision"].as_str().unwrap().to_owned();
        spoken.insert((agent, place(record)), revision);
    }
    for ((agent, place), revision) in &spoken {
        eprintln!("interop: {agent:18} {place:12} {revision}");
    }
    spoken
}

fn era_of(revision: &str) -> Era {
    if revision >= "2026" { Era::Modern } else { Era::Legacy }
}

/// Whether the gateway translates between the eras; until then a client of one sees at `/mcp` only
/// the servers that speak it.
const BRIDGED: bool = true;
const LISTS: [&str; 3] = ["tools", "prompts", "resources"];
/// Requests of one id at the same time.
const AT_ONCE: usize = 16;
const CLIENT_LIMIT: Duration = Duration::from_secs(180);
