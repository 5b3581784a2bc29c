//! All of `/mcp` as an agent meets it: which servers it sees, who waits for whom, what is written.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::gateway::{DRIVERS, one_cpu, until};
use super::hub_peer::{MODERN, Role, Trouble};
use super::hub_rig::{Agent, Hub, Told};
use super::table::assert_silent;

const FOUR: [(&str, Role); 4] = [
    ("bare", Role::Sessionless),
    ("dual", Role::Dual),
    ("new", Role::Modern),
    ("old", Role::Legacy),
];

/// Whether the gateway translates between the eras.
const BRIDGED: bool = true;

/// Whom an agent of this revision reaches.
fn reached(revision: &str) -> Vec<&'static str> {
    let modern = revision == MODERN;
    let speaks = |role| match role {
        Role::Dual => true,
        Role::Legacy | Role::Sessionless => !modern,
        Role::Modern => modern,
    };
    let all = FOUR.iter().filter(|(_, role)| BRIDGED || speaks(*role));
    all.map(|(name, _)| *name).collect()
}

fn agents(hub: &Hub) -> Vec<Agent<'_>> {
    let older = ["2025-03-26", "2025-06-18", "2025-11-25"];
    let mut agents: Vec<_> =
        older.iter().map(|revision| hub.legacy("hana", "/mcp", revision)).collect();
    agents.push(hub.modern("hana", "/mcp"));
    agents
}

/// The servers that a list says are missing.
fn missing(told: &Told) -> Vec<String> {
    let partial = &told.result()["_meta"]["io.portcullis/partial"];
    let all = partial.as_array().into_iter().flatten();
    all.map(|entry| entry["server"].as_str().unwrap().to_owned()).collect()
}

fn prefixed(servers: &[&str], names: &[&str]) -> Vec<String> {
    let pairs = servers.iter().flat_map(|server| names.iter().map(move |name| (server, name)));
    pairs.map(|(server, name)| format!("{server}_{name}")).collect()
}

/// Every agent lists and calls at all servers that speak its era, in each revision; of the others
/// it is told that they are missing, and their names are as unknown as any.
#[test]
fn an_agent_reaches_every_server_of_its_era() {
    for driver in DRIVERS {
        let hub = Hub::start(driver, &FOUR, "", "");
        for agent in agents(&hub) {
            let shown = format!("{} on {driver:?}", agent.revision);
            let servers = reached(&agent.revision);
            let tools = prefixed(&servers, &["alpha", "beta"]);
            assert_eq!(agent.names("tools/list"), tools, "{shown}");
            assert_eq!(agent.names("prompts/list"), prefixed(&servers, &["hello"]), "{shown}");
            let uris: Vec<_> = servers.iter().map(|server| format!("{server}://one")).collect();
            assert_eq!(agent.names("resources/list"), uris, "{shown}");
            let told = agent.ask("tools/list", json!({}));
            let others: Vec<_> = FOUR.iter().map(|(name, _)| *name).collect();
            let others: Vec<_> =
                others.into_iter().filter(|name| !servers.contains(name)).collect();
            assert_eq!(missing(&told), others, "{shown}: {told:?}");
            for (name, _) in FOUR {
                let told = agent.call(&format!("{name}_beta"), json!({"x": "a\"b"}));
                if servers.contains(&name) {
                    let said = format!("{name} \"beta\" {{\"x\":\"a\\\"b\"}}");
                    assert_eq!(told.said(), said, "{shown}");
                } else {
                    assert!(told.code().is_some(), "{shown}: {told:?}");
                }
                let told = agent.ask("prompts/get", json!({"name": format!("{name}_hello")}));
                assert_eq!(told.last()["result"].is_object(), servers.contains(&name), "{shown}");
            }
        }
    }
}

/// Unknown prefix, unknown tool of a server that is not for this agent, a tool that is denied: the
/// same status and bytes, and no server hears of it.
#[test]
fn what_an_agent_may_not_use_looks_as_if_it_were_not_there() {
    let policies = "@id(\"ivan-lists\") permit (principal == User::\"ivan\", \
         action in [Action::\"session\", Action::\"list\"], resource in Server::\"dual\");\n\
         @id(\"ivan-calls\") permit (principal == User::\"ivan\", \
         action == Action::\"tools/call\", resource == Tool::\"dual/alpha\");\n";
    for driver in DRIVERS {
        let hub = Hub::start(driver, &FOUR, "", policies);
        for agent in [hub.modern("ivan", "/mcp"), hub.legacy("ivan", "/mcp", "2025-11-25")] {
            let shown = format!("{} on {driver:?}", agent.revision);
            assert_eq!(agent.names("tools/list"), ["dual_alpha"], "{shown}");
            let told = agent.ask("tools/list", json!({}));
            assert!(missing(&told).is_empty(), "{shown}: nothing of other servers: {told:?}");
            assert_eq!(agent.call("dual_alpha", json!({})).said(), "dual \"alpha\" {}", "{shown}");
            let before: Vec<_> = hub.peers.iter().map(super::hub_peer::Peer::count).collect();
            let answers: BTreeSet<_> = [
                "dual_beta",
                "dual_nothing",
                "new_alpha",
                "old_nothing",
                "nowhere_alpha",
                "alpha",
                "_alpha",
                "tools_echo",
                "DUAL_alpha",
            ]
            .map(|name| {
                let told = agent.call(name, json!({}));
                (told.answer.status, told.last().to_string())
            })
            .into_iter()
            .collect();
            assert_eq!(answers.len(), 1, "{shown}: {answers:?}");
            let (status, body) = answers.into_iter().next().unwrap();
            assert!(status == 200 && body.contains("1403"), "{shown}: {status} {body}");
            let after: Vec<_> = hub.peers.iter().map(super::hub_peer::Peer::count).collect();
            assert_eq!(after, before, "{shown}: no server hears of it");
        }
    }
}

/// A server that hangs holds up nobody who does not ask it, and a list only until its deadline.
#[test]
fn one_server_that_hangs_is_nobody_elses_trouble() {
    let two = [("one", Role::Dual), ("zwei", Role::Dual)];
    for driver in DRIVERS {
        // The deadline of a list is far away: what ends in time was not held up.
        let hub = Hub::start(driver, &two, "\n[federation]\ntimeout_ms = 60000\n", "");
        for agent in [hub.modern("hana", "/mcp"), hub.legacy("hana", "/mcp", "2025-11-25")] {
            let shown = format!("{} on {driver:?}", agent.revision);
            hub.peer("one").trouble("tools/call", Some(Trouble::Held));
            let (held, heard) = (hub.peer("one"), hub.peer("one").heard("tools/call").len());
            std::thread::scope(|scope| {
                let waits = scope.spawn(|| agent.call("one_alpha", json!({})));
                until("the call is held", || held.heard("tools/call").len() > heard);
                assert_eq!(
                    agent.call("zwei_alpha", json!({})).said(),
                    "zwei \"alpha\" {}",
                    "{shown}"
                );
                assert_eq!(agent.names("tools/list").len(), 4, "{shown}");
                assert!(!waits.is_finished(), "{shown}");
                held.release();
                assert_eq!(waits.join().unwrap().said(), "one \"alpha\" {}", "{shown}");
            });
            held.hold_again();
        }
        drop(hub);
        let hub = Hub::start(driver, &two, "\n[federation]\ntimeout_ms = 300\n", "");
        hub.peer("one").trouble("tools/list", Some(Trouble::Silent));
        for agent in [hub.modern("hana", "/mcp"), hub.legacy("hana", "/mcp", "2025-11-25")] {
            let told = agent.ask("tools/list", json!({}));
            assert_eq!(missing(&told), ["one"], "{told:?}");
            assert_eq!(told.result()["tools"].as_array().unwrap().len(), 2, "{told:?}");
        }
    }
}

/// One record of a call, with the server's own name of the tool; one of a list and one more for
/// each server that is asked. No session id of a server is in any of it, nor in any answer.
#[test]
fn records_name_the_server_and_nothing_tells_its_sessions() {
    for driver in DRIVERS {
        let hub = Hub::start(driver, &FOUR, "", "");
        let turn = hub.gateway.turn();
        let agent = hub.legacy("hana", "/mcp", "2025-11-25");
        let session = agent.session.clone().expect("a session of ours");
        let listed = agent.ask("tools/list", json!({}));
        let called = agent.call("old_beta", json!({}));
        for told in [&listed, &called] {
            let text = format!("{told:?}{session}");
            assert!(!text.contains("-session-"), "{text}");
        }
        let servers = reached("2025-11-25").len();
        // Handshake, its notification, list, call; and the legs of handshake and list.
        let mut records = Vec::new();
        until("the records", || {
            records = turn.so_far(&hub.gateway);
            let legs = |method: &str| {
                let leg = |record: &&Value| record["event"] == "leg" && record["method"] == method;
                records.iter().filter(leg).count()
            };
            legs("tools/list") >= servers
                && records.iter().any(|record| record["method"] == "tools/call")
        });
        let calls: Vec<_> =
            records.iter().filter(|record| record["method"] == "tools/call").collect();
        assert_eq!(calls.len(), 1, "{calls:#?}");
        assert_eq!((&calls[0]["server"], &calls[0]["name"]), (&json!("old"), &json!("beta")));
        assert_eq!(calls[0]["event"], "request");
        let written = hub.gateway.everything_written();
        assert!(!written.contains("-session-"), "no id of a server's session");
        assert!(!written.contains(&session), "nor one of ours");
        assert_silent(&written, "audit, logs and admin pages");
    }
}

/// A page has as many items as the configuration says, whatever pages the servers make; no cursor
/// of another user, or of none, is believed.
#[test]
fn pages_are_ours_and_cursors_belong_to_who_got_them() {
    let two = [("one", Role::Dual), ("zwei", Role::Dual)];
    let policies = "@id(\"ivan\") permit (principal == User::\"ivan\", action, \
         resource in Server::\"one\");\n";
    for driver in DRIVERS {
        let hub = Hub::start(driver, &two, "\n[federation]\npage_items = 16\n", policies);
        for peer in &hub.peers {
            let mut script = peer.script();
            script.tools = (0..25).map(|number| format!("tool{number:02}")).collect();
            script.page = 7;
        }
        let names: Vec<_> = (0..25).map(|number| format!("tool{number:02}")).collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        for agent in [hub.modern("hana", "/mcp"), hub.legacy("hana", "/mcp", "2025-11-25")] {
            assert_eq!(agent.names("tools/list"), prefixed(&["one", "zwei"], &names));
            let first = agent.ask("tools/list", json!({}));
            assert_eq!(first.result()["tools"].as_array().unwrap().len(), 16, "{first:?}");
            let cursor = first.result()["nextCursor"].clone();
            let other = if agent.revision == MODERN {
                hub.modern("ivan", "/mcp")
            } else {
                hub.legacy("ivan", "/mcp", "2025-11-25")
            };
            let stolen = other.ask("tools/list", json!({"cursor": cursor}));
            assert_eq!(stolen.code(), Some(-32602), "{stolen:?}");
            for made_up in ["", "16", "AAAA"] {
                let told = agent.ask("tools/list", json!({"cursor": made_up}));
                assert_eq!(told.code(), Some(-32602), "{made_up}: {told:?}");
            }
            let again = agent.ask("prompts/list", json!({"cursor": cursor}));
            assert_eq!(again.code(), Some(-32602), "a cursor is of one list: {again:?}");
        }
    }
}

/// A server that forgot its sessions, with the status of the standard or with that of the published
/// reference server, is met anew; the agent hears nothing of it.
#[test]
fn a_server_that_forgot_its_sessions_is_met_anew() {
    let two = [("one", Role::Legacy), ("zwei", Role::Legacy)];
    for driver in DRIVERS {
        let hub = Hub::start_on(driver, &one_cpu(), &two, "", "");
        let agent = hub.legacy("hana", "/mcp", "2025-11-25");
        for with_400 in [false, true] {
            let shown = format!("400: {with_400} on {driver:?}");
            assert_eq!(agent.call("one_alpha", json!({})).said(), "one \"alpha\" {}", "{shown}");
            let peer = hub.peer("one");
            peer.script().forgets_with_400 = with_400;
            let (hellos, calls) = (peer.heard("initialize").len(), peer.heard("tools/call").len());
            peer.forget_sessions();
            assert_eq!(agent.call("one_beta", json!({})).said(), "one \"beta\" {}", "{shown}");
            assert_eq!(peer.heard("initialize").len(), hellos + 1, "{shown}");
            assert_eq!(
                peer.heard("tools/call").len(),
                calls + 2,
                "{shown}: once more, not oftener"
            );
        }
    }
}
