//! Names and URIs on `/mcp`: each leads to what the list calls so, and to nothing else.

use serde_json::json;

use super::gateway::DRIVERS;
use super::hub_peer::{Peer, Role, Trouble};
use super::hub_rig::{Agent, Hub, Told};

const THREE: [(&str, Role); 3] =
    [("dual", Role::Dual), ("old", Role::Legacy), ("new", Role::Modern)];

fn agents<'a>(hub: &'a Hub, user: &str) -> [Agent<'a>; 2] {
    [hub.legacy(user, "/mcp", "2025-06-18"), hub.modern(user, "/mcp")]
}

fn refused(told: &Told) -> (u16, Option<i64>, String) {
    (told.answer.status, told.code(), told.answer.reason())
}

/// The rig's agents mirror names only where they are plain.
fn read(agent: &Agent<'_>, uri: &str, hint: Option<&str>) -> Told {
    let mut params = json!({"uri": uri});
    if let Some(hint) = hint {
        params["_meta"] = json!({"io.portcullis/server": hint});
    }
    agent.ask("resources/read", params)
}

#[test]
fn a_name_that_was_cut_leads_to_its_tool() {
    let long = |last: &str| format!("{}{last}", "n".repeat(80));
    for driver in DRIVERS {
        let hub = Hub::start(driver, &THREE, "", "");
        for peer in &hub.peers {
            peer.script().tools = vec![long("1"), long("2"), "alpha".to_owned()];
            peer.script().prompts = vec![long("3")];
        }
        for agent in agents(&hub, "hana") {
            let names = agent.names("tools/list");
            assert_eq!(names.len(), 9);
            for name in &names {
                let (server, own) = name.split_once('_').unwrap();
                let told = agent.call(name, json!({"x": 1}));
                let said = told.said();
                let expected = if own == "alpha" { own.to_owned() } else { "n".repeat(80) };
                assert!(said.starts_with(&format!("{server} \"{expected}")), "{name}: {said}");
            }
            let said = |name: &String| agent.call(name, json!({})).said().to_owned();
            assert_ne!(said(&names[1]), said(&names[2]), "the two that begin alike");
            let prompt = &agent.names("prompts/list")[0];
            let told = agent.ask("prompts/get", json!({"name": prompt}));
            assert!(told.result()["messages"].is_array(), "{told:?}");
            let told = agent.ask(
                "completion/complete",
                json!({"ref": {"type": "ref/prompt", "name": prompt},
                    "argument": {"name": "a", "value": "b"}}),
            );
            assert_eq!(
                told.result()["completion"]["values"],
                json!(["dual completes"]),
                "{told:?}"
            );
        }
    }
}

#[test]
fn a_name_that_two_tools_would_have_is_neithers() {
    let rules = "@id(\"lena\") permit (principal == User::\"lena\", \
        action in [Action::\"session\", Action::\"list\"], resource in Server::\"old\");\n\
        @id(\"lena-connects\") permit (principal == User::\"lena\", action == Action::\"connect\", resource);\n";
    for driver in DRIVERS {
        let hub = Hub::start(driver, &THREE[..2], "", rules);
        let peer = hub.peer("old");
        peer.script().tools = vec!["n".repeat(80)];
        let cut = hub.modern("hana", "/mcp").names("tools/list").pop().unwrap();
        peer.script().tools.push(cut["old_".len()..].to_owned());
        // What the list said a moment ago still tells, for a few seconds.
        let agents = agents(&hub, "hana");
        super::gateway::until("the list is news", || {
            let told = agents[1].call(&cut, json!({}));
            told.code() == Some(1409)
        });
        for agent in &agents {
            assert!(!agent.names("tools/list").contains(&cut), "{}", agent.revision);
            super::gateway::until("for every core", || {
                let told = agent.call(&cut, json!({}));
                told.code() == Some(1409)
                    && refused(&told) == (200, Some(1409), "name_ambiguous".to_owned())
            });
        }
        for agent in self::agents(&hub, "lena") {
            let told = agent.call(&cut, json!({}));
            assert_eq!(refused(&told), (200, Some(1403), "no_permit".to_owned()), "{driver:?}");
        }
    }
}

/// piet may read on two servers, and list on one of them; nora may read on one alone.
const READERS: &str = r#"
@id("connects")
permit (principal, action == Action::"connect", resource)
when { principal == User::"piet" || principal == User::"nora" };
@id("piet-reads")
permit (principal == User::"piet", action in [Action::"session", Action::"resources/read"],
  resource in Server::"dual");
@id("piet-old")
permit (principal == User::"piet", action in [Action::"session", Action::"list", Action::"resources/read"],
  resource in Server::"old");
@id("nora-reads")
permit (principal == User::"nora", action in [Action::"session", Action::"resources/read"],
  resource in Server::"new");
"#;

#[test]
fn a_uri_leads_to_its_owner() {
    for driver in DRIVERS {
        let hub = Hub::start(driver, &THREE, "", READERS);
        for peer in &hub.peers {
            peer.script().resources.push("file:///same".to_owned());
        }
        let holds = |told: &Told, server: &str, uri: &str| {
            let text = told.result()["contents"][0]["text"].clone();
            assert_eq!(text, format!("{server} holds \"{uri}\""), "{driver:?} {told:?}");
        };
        for agent in agents(&hub, "hana") {
            for Peer { name, .. } in &hub.peers {
                holds(
                    &read(&agent, &format!("{name}://one"), None),
                    name,
                    &format!("{name}://one"),
                );
                let many = format!("{name}://many/7");
                holds(&read(&agent, &many, None), name, &many);
                holds(&read(&agent, "file:///same", Some(name)), name, "file:///same");
                let template = format!("{name}://many/{{id}}");
                let told = agent.ask(
                    "completion/complete",
                    json!({"ref": {"type": "ref/resource", "uri": template},
                        "argument": {"name": "id", "value": "7"}}),
                );
                let said = &told.result()["completion"]["values"];
                assert_eq!(*said, json!([format!("{name} completes")]), "{told:?}");
            }
            let heard = |name: &str| hub.peer(name).heard("resources/read").len();
            let before: Vec<_> = THREE.iter().map(|(name, _)| heard(name)).collect();
            let ambiguous = (200, Some(1409), "name_ambiguous".to_owned());
            assert_eq!(refused(&read(&agent, "file:///same", None)), ambiguous);
            let nobody = (200, Some(1403), "no_permit".to_owned());
            for (uri, hint) in [
                ("file:///nobody", None),
                ("dual://many/7/8", None),
                ("dual://one", Some("nowhere")),
                ("dual://one", Some("tools")),
            ] {
                assert_eq!(refused(&read(&agent, uri, hint)), nobody, "{uri} {hint:?}");
            }
            let after: Vec<_> = THREE.iter().map(|(name, _)| heard(name)).collect();
            assert_eq!(before, after, "nobody was asked for what is nobody's");
        }
        // Our own hint goes no further.
        for peer in &hub.peers {
            for heard in peer.heard("resources/read") {
                assert!(!heard.body.contains("io.portcullis"), "{}", heard.body);
            }
        }
    }
}

#[test]
fn whose_a_uri_is_depends_on_what_may_be_asked_for() {
    for driver in DRIVERS {
        let hub = Hub::start(driver, &THREE, "", READERS);
        for peer in &hub.peers {
            peer.script().resources.push("file:///same".to_owned());
        }
        // Who may read on one server only is sent there, and no list is asked for.
        for agent in agents(&hub, "nora") {
            let told = read(&agent, "file:///same", None);
            assert!(told.result()["contents"][0]["text"].as_str().unwrap().starts_with("new "));
        }
        let lists = |name: &str| hub.peer(name).heard("resources/list").len();
        assert_eq!((lists("dual"), lists("old"), lists("new")), (0, 0, 0), "{driver:?}");
        // A server that may be read and not listed is not known to have it.
        for agent in agents(&hub, "piet") {
            let told = read(&agent, "file:///same", None);
            let text = told.result()["contents"][0]["text"].as_str().unwrap();
            assert!(text.starts_with("old "), "{driver:?} {text}");
            let told = read(&agent, "dual://one", Some("dual"));
            assert!(told.result()["contents"].is_array());
            let denied = read(&agent, "new://one", Some("new"));
            let nowhere = read(&agent, "new://one", Some("nowhere"));
            assert_eq!(refused(&denied), refused(&nowhere), "denied is not there");
            assert_eq!(denied.answer.body, nowhere.answer.body);
        }
        assert_eq!((lists("dual"), lists("new")), (0, 0), "{driver:?}");
        // Where a list cannot be had, that is what the answer says, not that nobody has it.
        hub.peer("old").trouble("resources/list", Some(Trouble::Status(503)));
        hub.peer("old").trouble("resources/templates/list", Some(Trouble::Status(503)));
        super::gateway::until("what was known is forgotten", || {
            let told = read(&hub.modern("piet", "/mcp"), "file:///same", None);
            told.answer.status == 502
        });
    }
}

/// M14 on `/mcp`: what a list shows can be called, and what it does not show cannot.
#[test]
fn hidden_is_blocked() {
    let rules = r#"
@id("kim-connects") permit (principal == User::"kim", action == Action::"connect", resource);
@id("kim-lists")
permit (principal == User::"kim", action in [Action::"session", Action::"list"], resource)
when { [Server::"dual", Server::"old"].contains(resource) };
@id("kim-calls")
permit (principal == User::"kim", action == Action::"tools/call", resource)
when { [Tool::"dual/beta", Tool::"old/alpha"].contains(resource) };
@id("kim-prompts")
permit (principal == User::"kim", action == Action::"prompts/get",
  resource == Prompt::"old/hello");
@id("kim-reads")
permit (principal == User::"kim", action == Action::"resources/read",
  resource == Resource::"dual/dual://one");
"#;
    for driver in DRIVERS {
        let hub = Hub::start(driver, &THREE, "", rules);
        let hana = hub.modern("hana", "/mcp");
        for agent in agents(&hub, "kim") {
            for (list, method, key) in [
                ("tools/list", "tools/call", "name"),
                ("prompts/list", "prompts/get", "name"),
                ("resources/list", "resources/read", "uri"),
            ] {
                let (all, shown) = (hana.names(list), agent.names(list));
                assert!(!shown.is_empty() && shown.len() < all.len(), "{list}: {shown:?}");
                for name in all {
                    let heard: usize = hub.peers.iter().map(|peer| peer.heard(method).len()).sum();
                    let told = agent.ask(method, json!({key: name}));
                    let now: usize = hub.peers.iter().map(|peer| peer.heard(method).len()).sum();
                    if shown.contains(&name) {
                        assert!(told.result().is_object() && now == heard + 1, "{name}");
                    } else {
                        let denied = (200, Some(1403), "no_permit".to_owned());
                        assert_eq!(refused(&told), denied, "{driver:?} {name}");
                        assert_eq!(now, heard, "{name}");
                    }
                }
            }
        }
    }
}

/// 2026-07-28 streamable HTTP "Custom Headers from Tool Parameters": fields that mirror arguments
/// are compared where the tool is known, and written for agents whose revision has none.
#[test]
fn fields_that_mirror_arguments_say_what_they_say() {
    let cores = std::thread::available_parallelism().unwrap().get();
    for driver in DRIVERS {
        let hub = Hub::start(driver, &THREE[2..], "", "");
        let peer = hub.peer("new");
        let schema = json!({"type": "object", "properties": {
            "region": {"type": "string", "x-mcp-header": "Region"},
            "n": {"type": "integer", "x-mcp-header": "N"}}});
        let tools = json!([{"name": "alpha", "inputSchema": schema}]);
        let list = json!({"tools": tools, "resultType": "complete", "ttlMs": 3_600_000,
            "cacheScope": "private"});
        peer.trouble("tools/list", Some(Trouble::Result(list)));
        let agent = hub.modern("hana", "/mcp");
        for _ in 0..8 * cores {
            assert_eq!(agent.names("tools/list"), ["new_alpha"]);
        }
        let call = |arguments: serde_json::Value| {
            json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {
                "name": "new_alpha", "arguments": arguments, "_meta": {
                    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                    "io.modelcontextprotocol/clientCapabilities": {}}}})
        };
        let both = json!({"region": "eu", "n": 42});
        for (arguments, fields) in [
            (&both, "Mcp-Param-Region: eu\r\nMcp-Param-N: 42.0\r\nMcp-Param-Other: x\r\n"),
            (&json!({}), ""),
        ] {
            let told = agent.say_with(&call(arguments.clone()), fields);
            assert!(told.said().starts_with("new"), "{driver:?} {told:?}");
            let heard = peer.heard("tools/call").pop().unwrap();
            assert_eq!(heard.header("mcp-param-region").is_some(), !fields.is_empty());
            assert_eq!(heard.header("mcp-param-other").is_some(), !fields.is_empty());
        }
        let calls = peer.heard("tools/call").len();
        for (arguments, fields) in [
            (&both, ""),
            (&both, "Mcp-Param-Region: eu\r\n"),
            (&both, "Mcp-Param-Region: us\r\nMcp-Param-N: 42\r\n"),
            (&both, "Mcp-Param-Region: eu\r\nMcp-Param-N: 43\r\n"),
            (&json!({}), "Mcp-Param-N: 42\r\n"),
        ] {
            let told = agent.say_with(&call(arguments.clone()), fields);
            assert_eq!((told.answer.status, told.code()), (400, Some(-32020)), "{fields:?}");
        }
        assert_eq!(peer.heard("tools/call").len(), calls, "the server hears of none");
        let legacy = hub.legacy("hana", "/mcp", "2025-06-18");
        for (arguments, region, n) in [
            (json!({"region": "e\u{e9}", "n": -7}), Some("=?base64?ZcOp?="), Some("-7")),
            (json!({"n": null}), None, None),
        ] {
            assert!(legacy.call("new_alpha", arguments).said().starts_with("new"));
            let heard = peer.heard("tools/call").pop().unwrap();
            let sent = (heard.header("mcp-param-region"), heard.header("mcp-param-n"));
            assert_eq!(sent, (region, n), "{driver:?}");
        }
    }
}
