//! Lists of `/mcp`: what all servers have that the agent may use, as one list, in whatever eras
//! they and the agent speak; and an honest gap where a server fails.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::gateway::DRIVERS;
use super::hub_peer::{Peer, Role, Trouble};
use super::hub_rig::{Agent, Hub, Told};

const FOUR: [(&str, Role); 4] = [
    ("dual", Role::Dual),
    ("old", Role::Legacy),
    ("bare", Role::Sessionless),
    ("new", Role::Modern),
];
const LISTS: [(&str, &str); 4] = [
    ("tools/list", "tools"),
    ("prompts/list", "prompts"),
    ("resources/list", "resources"),
    ("resources/templates/list", "resourceTemplates"),
];
const LEGACY: [&str; 3] = ["2025-03-26", "2025-06-18", "2025-11-25"];
const PARTIAL: &str = "/_meta/io.portcullis~1partial";

fn agents<'a>(hub: &'a Hub, user: &str) -> Vec<Agent<'a>> {
    let legacy = LEGACY.iter().map(|revision| hub.legacy(user, "/mcp", revision));
    legacy.chain([hub.modern(user, "/mcp")]).collect()
}

fn missing(told: &Told) -> Vec<(String, String)> {
    let partial = told.result().pointer(PARTIAL).and_then(Value::as_array).cloned();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let each = partial.unwrap_or_default();
    each.iter().map(|one| (text(&one["server"]), text(&one["reason"]))).collect()
}

#[test]
fn all_servers_of_both_eras_list_as_one() {
    for driver in DRIVERS {
        let hub = Hub::start(driver, &FOUR, "", "");
        let tools = ["bare", "dual", "new", "old"]
            .map(|name| [format!("{name}_alpha"), format!("{name}_beta")])
            .concat();
        for (page, events, piece) in [(0, false, 0), (1, true, 1)] {
            for peer in &hub.peers {
                let mut script = peer.script();
                (script.page, script.events, script.piece) = (page, events, piece);
            }
            for agent in agents(&hub, "hana") {
                let shown = format!("{} {page} on {driver:?}", agent.revision);
                assert_eq!(agent.names("tools/list"), tools, "{shown}");
                assert_eq!(
                    agent.names("prompts/list"),
                    ["bare_hello", "dual_hello", "new_hello", "old_hello"]
                );
                assert_eq!(
                    agent.names("resources/list"),
                    ["bare://one", "dual://one", "new://one", "old://one"]
                );
                let told = agent.ask("resources/templates/list", json!({}));
                let items = told.result()["resourceTemplates"].as_array().unwrap();
                for (item, name) in items.iter().zip(["bare", "dual", "new", "old"]) {
                    assert_eq!(item["uriTemplate"], format!("{name}://many/{{id}}"));
                    assert_eq!(item["_meta"], json!({"io.portcullis/server": name}), "{shown}");
                }
                assert_eq!(items.len(), 4);
            }
        }
    }
}

#[test]
fn an_answer_has_the_form_of_its_revision() {
    for driver in DRIVERS {
        let hub = Hub::start(driver, &FOUR[..2], "", "");
        for (method, member) in LISTS {
            for agent in agents(&hub, "hana") {
                let id = json!("a\"\u{e9}");
                let told = agent.ask_as(&id, method, json!({}));
                assert_eq!((told.answer.status, &told.last()["id"]), (200, &id), "{told:?}");
                assert_eq!(told.answer.header("content-type"), Some("application/json"));
                let result = told.result().as_object().unwrap();
                let mut keys: Vec<_> = result.keys().map(String::as_str).collect();
                keys.sort_unstable();
                if LEGACY.contains(&agent.revision.as_str()) {
                    assert_eq!(keys, [member], "{told:?}");
                } else {
                    let mut expected = ["cacheScope", member, "resultType", "ttlMs"];
                    expected.sort_unstable();
                    assert_eq!(keys, expected, "{told:?}");
                    assert_eq!(result["cacheScope"], "private");
                    assert_eq!(
                        (&result["resultType"], &result["ttlMs"]),
                        (&json!("complete"), &json!(0))
                    );
                }
            }
        }
    }
}

fn many(peer: &Peer, count: usize) {
    peer.script().tools = (0..count).map(|at| format!("t{:03}", (at * 7) % count)).collect();
}

#[test]
fn pages_hold_every_item_once_and_their_cursors_belong_to_who_got_them() {
    for driver in DRIVERS {
        let more = "\n[federation]\npage_items = 16\n";
        let policies = "@id(\"ida\") permit (principal == User::\"ida\", action, resource);\n";
        let hub = Hub::start(driver, &FOUR[..3], more, policies);
        for (name, count) in [("dual", 50), ("old", 1), ("bare", 33)] {
            many(hub.peer(name), count);
            hub.peer(name).script().page = 20;
        }
        let expected: Vec<String> = [("bare", 33), ("dual", 50), ("old", 1)]
            .iter()
            .flat_map(|(name, count)| (0..*count).map(move |at| format!("{name}_t{at:03}")))
            .collect();
        for agent in agents(&hub, "hana") {
            assert_eq!(agent.names("tools/list"), expected, "{} {driver:?}", agent.revision);
        }
        let (hana, ida) = (hub.modern("hana", "/mcp"), hub.modern("ida", "/mcp"));
        let first = hana.ask("tools/list", json!({}));
        assert_eq!(first.result()["tools"].as_array().unwrap().len(), 16);
        let cursor = first.result()["nextCursor"].as_str().unwrap();
        assert!(!cursor.contains("bare") && !cursor.contains("t015"), "{cursor}");
        let next = hana.ask("tools/list", json!({"cursor": cursor}));
        assert_eq!(next.result()["tools"][0]["name"], "bare_t016");
        let heard: Vec<_> = hub.peers.iter().map(Peer::count).collect();
        for (agent, method, cursor, reason) in [
            (&ida, "tools/list", json!(cursor), "cursor_unknown"),
            (&hana, "prompts/list", json!(cursor), "cursor_unknown"),
            (&hana, "tools/list", json!(cursor[1..]), "cursor_unknown"),
            (&hana, "tools/list", json!("16"), "cursor_unknown"),
            (&hana, "tools/list", json!(""), "cursor_unknown"),
            (&hana, "tools/list", json!(16), "rpc_params"),
        ] {
            let turn = hub.gateway.turn();
            let told = agent.ask(method, json!({"cursor": cursor}));
            assert_eq!(told.code(), Some(-32602), "{told:?}");
            assert_eq!(turn.reasons(&hub.gateway, 1), [reason]);
        }
        let after: Vec<_> = hub.peers.iter().map(Peer::count).collect();
        assert_eq!(heard, after, "no server hears of a cursor that is refused");
        assert_eq!(
            hana.ask("tools/list", json!({"cursor": null})).result()["tools"][0]["name"],
            "bare_t000"
        );
    }
}

#[test]
fn a_server_that_fails_costs_its_own_items_and_is_named() {
    let item = json!({"name": "x", "description": "d".repeat(70_000)});
    let troubles = [
        ("a-dead", Trouble::Hangup, "upstream_eof"),
        ("b-slow", Trouble::Silent, "upstream_timeout"),
        ("c-odd", Trouble::Body("{".to_owned()), "upstream_malformed"),
        ("d-huge", Trouble::Result(json!({"tools": [item]})), "upstream_too_large"),
        ("e-endless", Trouble::EndlessPages, "upstream_too_large"),
        ("f-busy", Trouble::Status(503), "upstream_malformed"),
        ("g-wrong", Trouble::WrongId, "upstream_malformed"),
        ("h-half", Trouble::Result(json!({"tools": [{"name": "x"}, {}]})), "upstream_malformed"),
        ("i-twice", Trouble::Body(r#"{"jsonrpc":"2.0","id":"g1","result":{"tools":[{"name":"x","a":{"k":1,"k":2}}]}}"#.to_owned()), "upstream_malformed"),
    ];
    let mut servers: Vec<_> = troubles.iter().map(|(name, ..)| (*name, Role::Modern)).collect();
    servers.extend([("good", Role::Modern), ("well", Role::Legacy)]);
    for driver in DRIVERS {
        let hub = Hub::start(driver, &servers, "\n[federation]\ntimeout_ms = 2000\n", "");
        for (name, trouble, _) in &troubles {
            hub.peer(name).trouble("tools/list", Some(trouble.clone()));
        }
        let agent = hub.modern("hana", "/mcp");
        let began = Instant::now();
        let told = agent.ask("tools/list", json!({}));
        assert!(began.elapsed() < Duration::from_secs(20), "one deadline for all");
        let names: Vec<_> =
            told.result()["tools"].as_array().unwrap().iter().map(|tool| &tool["name"]).collect();
        assert_eq!(names, ["good_alpha", "good_beta", "well_alpha", "well_beta"], "{driver:?}");
        let expected: Vec<_> = troubles
            .iter()
            .map(|(name, _, reason)| ((*name).to_owned(), (*reason).to_owned()))
            .collect();
        assert_eq!(missing(&told), expected, "{driver:?}");
        // Other lists of the same servers are whole.
        let told = agent.ask("prompts/list", json!({}));
        assert_eq!(told.result()["prompts"].as_array().unwrap().len(), servers.len());
        assert_eq!(missing(&told), []);
        for peer in &hub.peers {
            peer.trouble("tools/list", None);
        }
        let told = agent.ask("tools/list", json!({}));
        assert_eq!(told.result()["tools"].as_array().unwrap().len(), 2 * servers.len());
    }
}

/// piet may list on three servers, and use one tool of each of two. What he may not use is not
/// shown, and what is shown is what each server's own URL shows; of a server that he may not list
/// he learns nothing, not even that it fails.
const PIET: &str = r#"
@id("piet-lists")
permit (principal == User::"piet", action in [Action::"session", Action::"list"], resource)
when { [Server::"dual", Server::"old", Server::"bare"].contains(resource) };
@id("piet-connects")
permit (principal == User::"piet", action == Action::"connect", resource);
@id("piet-uses")
permit (principal == User::"piet", action == Action::"tools/call", resource)
when { [Tool::"dual/beta", Tool::"old/alpha", Tool::"new/alpha"].contains(resource) };
@id("piet-reads")
permit (principal == User::"piet", action == Action::"resources/read",
  resource == Resource::"old/old://one");
"#;

#[test]
fn what_may_not_be_used_is_not_shown() {
    for driver in DRIVERS {
        let hub = Hub::start(driver, &FOUR, "", PIET);
        hub.peer("new").trouble("*", Some(Trouble::Status(503)));
        for agent in agents(&hub, "piet") {
            assert_eq!(agent.names("tools/list"), ["dual_beta", "old_alpha"], "{}", agent.revision);
            assert_eq!(agent.names("prompts/list"), [""; 0]);
            assert_eq!(agent.names("resources/list"), ["old://one"]);
            assert_eq!(missing(&agent.ask("tools/list", json!({}))), [], "{driver:?}");
        }
        assert_eq!(hub.peer("new").count(), 0, "what is denied is not even asked");
        let own = |name: &str| hub.legacy("piet", &format!("/mcp/{name}"), "2025-11-25");
        assert_eq!(own("dual").names("tools/list"), ["beta"]);
        assert_eq!(own("old").names("tools/list"), ["alpha"]);
        assert_eq!(own("bare").names("tools/list"), [""; 0]);
    }
}

#[test]
fn what_servers_call_the_same_is_told_apart() {
    for driver in DRIVERS {
        let hub = Hub::start(driver, &FOUR[..3], "", "");
        let long = "n".repeat(80);
        for peer in &hub.peers {
            let mut script = peer.script();
            script.resources = vec!["file:///same".to_owned()];
            script.tools = vec![long.clone(), "alpha".to_owned(), "alpha".to_owned()];
        }
        let agent = hub.modern("hana", "/mcp");
        let told = agent.ask("resources/list", json!({}));
        let expected = ["bare", "dual", "old"].map(|name| {
            json!({"uri": "file:///same", "name": "file:///same",
                "_meta": {"io.portcullis/server": name}})
        });
        assert_eq!(told.result()["resources"], json!(expected), "{driver:?}");
        let names = agent.names("tools/list");
        assert_eq!(names.len(), 6, "a name twice in one server counts once: {names:?}");
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), 6);
        for (name, prefix) in names.iter().skip(1).step_by(2).zip(["bare", "dual", "old"]) {
            assert!(name.len() == 64 && name.starts_with(&format!("{prefix}_nnn")), "{name}");
        }
        // Two names that would be cut to the same, or look like one that is: neither is shown.
        let cut = &names[1]["bare_".len()..];
        hub.peer("bare").script().tools = vec![long.clone(), cut.to_owned(), "x".to_owned()];
        let first = agent.names("tools/list");
        assert_eq!(first[0], "bare_x", "{first:?}");
        assert!(first[1].starts_with("dual_"), "{first:?}");
    }
}

#[test]
fn the_only_server_without_a_prefix_lists_as_it_does_alone() {
    for driver in DRIVERS {
        // Of the rig's own servers there are more: theirs are the prefixes.
        let hub = Hub::start(driver, &FOUR[..1], "", "");
        let whole = hub.modern("hana", "/mcp/dual").ask("tools/list", json!({}));
        let told = hub.modern("hana", "/mcp").ask("tools/list", json!({}));
        let mut tools = told.result()["tools"].clone();
        for tool in tools.as_array_mut().unwrap() {
            let name = tool["name"].as_str().unwrap().strip_prefix("dual_").unwrap().to_owned();
            tool["name"] = json!(name);
        }
        assert_eq!(tools, whole.result()["tools"]);
    }
}

#[test]
fn a_list_is_asked_for_again_when_its_server_says_so() {
    let cores = std::thread::available_parallelism().unwrap().get();
    let ida = "@id(\"ida\") permit (principal == User::\"ida\", action, \
               resource in Server::\"dual\");\n";
    for driver in DRIVERS {
        let hub = Hub::start(driver, &FOUR[..1], "", ida);
        let peer = hub.peer("dual");
        let agent = hub.modern("hana", "/mcp");
        let heard = || peer.heard("tools/list").len();
        for number in 1..=4 * cores {
            assert_eq!(agent.ask("tools/list", json!({})).result()["ttlMs"], 0);
            assert_eq!(heard(), number, "ttlMs 0 is kept by nobody");
        }
        peer.script().ttl_ms = 3_600_000;
        let before = heard();
        let mut asked = Vec::new();
        for _ in 0..8 * cores {
            let told = agent.ask("tools/list", json!({}));
            asked.push(told.result()["ttlMs"].as_u64().unwrap());
            assert_eq!(told.result()["tools"][0]["name"], "dual_alpha");
        }
        assert!((1..=cores).contains(&(heard() - before)), "once for each core");
        assert!(asked.iter().all(|ttl_ms| (1..=60_000).contains(ttl_ms)), "{asked:?}");
        // On the core that hears that it changed it is asked for again, at once.
        let changed = |method: &str| json!({"jsonrpc": "2.0", "method": method});
        for (method, again) in
            [("notifications/prompts/list_changed", 0), ("notifications/tools/list_changed", 1)]
        {
            peer.trouble("tools/call", Some(Trouble::Says(changed(method))));
            let before = heard();
            assert!(agent.call("dual_alpha", json!({})).said().starts_with("dual"));
            for _ in 0..8 * cores {
                agent.ask("tools/list", json!({}));
            }
            assert_eq!(heard(), before + again, "{method}");
        }
        // A private list is one user's, whatever it holds.
        let before = heard();
        let told = hub.modern("ida", "/mcp").ask("tools/list", json!({}));
        assert_eq!(told.result()["tools"][0]["name"], "dual_alpha");
        assert_eq!(heard(), before + 1);
    }
}

#[test]
fn each_page_of_each_server_has_its_record() {
    for driver in DRIVERS {
        let hub = Hub::start(driver, &FOUR[..2], "", "");
        hub.peer("old").script().page = 1;
        let agent = hub.legacy("hana", "/mcp", "2025-11-25");
        // Every core has greeted the servers before.
        for _ in 0..8 * std::thread::available_parallelism().unwrap().get() {
            agent.names("prompts/list");
        }
        let turn = hub.gateway.turn();
        agent.names("tools/list");
        let records = turn.records(&hub.gateway, 4);
        let whole = records.iter().find(|record| record["event"] == "request").unwrap();
        assert_eq!(whole["legs"], json!({"asked": 2, "answered": 2}), "{whole}");
        assert_eq!((&whole["method"], &whole["server"]), (&json!("tools/list"), &Value::Null));
        assert_eq!(whole["list"], json!({"upstream": 4, "shown": 4}), "{whole}");
        let mut legs: Vec<_> = records
            .iter()
            .filter(|record| record["event"] == "leg")
            .map(|record| {
                assert_eq!(record["leg_of"], whole["seq"], "{record}");
                format!("{} {} {}", record["server"], record["method"], record["upstream_status"])
            })
            .collect();
        legs.sort();
        let leg = |name: &str| format!("\"{name}\" \"tools/list\" 200");
        assert_eq!(legs, [leg("dual"), leg("old"), leg("old")], "{driver:?}");
    }
}

#[test]
fn a_public_list_is_shared_where_the_configuration_believes_it() {
    let cores = std::thread::available_parallelism().unwrap().get();
    let ida = "@id(\"ida\") permit (principal == User::\"ida\", action, resource);\n";
    let servers = [("dual", Role::Dual), ("new", Role::Modern)];
    for driver in DRIVERS {
        // Appended to the last server's table.
        let hub = Hub::start(driver, &servers, "share_public_results = true\n", ida);
        let list = json!({"tools": [{"name": "x", "inputSchema": {"type": "object"}}],
            "resultType": "complete", "ttlMs": 3_600_000, "cacheScope": "public"});
        for peer in &hub.peers {
            peer.trouble("tools/list", Some(Trouble::Result(list.clone())));
        }
        let heard = || hub.peers.iter().map(|peer| peer.heard("tools/list").len());
        for user in ["hana", "ida"] {
            let agent = hub.modern(user, "/mcp");
            for _ in 0..8 * cores {
                let told = agent.ask("tools/list", json!({}));
                assert_eq!(told.result()["tools"].as_array().unwrap().len(), 2);
                assert_eq!(told.result()["cacheScope"], "private", "what is shown is one user's");
            }
        }
        assert_eq!(heard().collect::<Vec<_>>(), [2 * cores, cores], "{driver:?}");
    }
}

/// What is remembered does not multiply what is granted; and one server's limit is not another's.
#[test]
fn a_list_counts_for_each_server_that_it_is_of() {
    let cores = std::thread::available_parallelism().unwrap().get();
    let limit = "\n[[rate_limit]]\nname = \"few\"\nper = [\"user\"]\nserver = \"dual\"\n\
                 requests = 6\nseconds = 10800\n";
    for driver in DRIVERS {
        let hub = Hub::start(driver, &FOUR[..2], limit, "");
        hub.peer("dual").script().ttl_ms = 3_600_000;
        let agent = hub.modern("hana", "/mcp");
        let mut whole = 0;
        for _ in 0..16 * cores {
            let told = agent.ask("tools/list", json!({}));
            let tools = told.result()["tools"].as_array().unwrap();
            assert_eq!(tools.last().unwrap()["name"], "old_beta", "{told:?}");
            if tools.len() == 4 {
                whole += 1;
            } else {
                assert_eq!(missing(&told), [("dual".to_owned(), "quota".to_owned())]);
            }
        }
        // Of six, the first two of each core are its handshake and its list.
        assert!((4..=5 * cores).contains(&whole), "{driver:?} {whole}");
    }
}
