//! Agents of one era in front of servers of the other, through `/mcp`: what the server hears is of
//! its era, what the agent hears is of its own.

use serde_json::{Value, json};

use super::gateway::DRIVERS;
use super::hub_peer::{MODERN, Role, Trouble};
use super::hub_rig::Hub;

const TWO: [(&str, Role); 2] = [("old", Role::Legacy), ("new", Role::Modern)];

#[test]
fn a_modern_agent_uses_a_legacy_server() {
    for driver in DRIVERS {
        let hub = Hub::start(driver, &TWO, "", "");
        let (old, agent) = (hub.peer("old"), hub.modern("hana", "/mcp"));
        assert_eq!(agent.names("tools/list"), ["new_alpha", "new_beta", "old_alpha", "old_beta"]);
        old.trouble("tools/call", Some(Trouble::Progress(2)));
        let params = json!({"name": "old_alpha", "arguments": {"io.modelcontextprotocol/x": 1},
            "_meta": {"progressToken": "mine", "com.example/y": 2}});
        let told = agent.ask("tools/call", params);
        assert_eq!(told.answer.status, 200, "{told:?}");
        let tokens: Vec<_> =
            told.messages.iter().map(|it| &it["params"]["progressToken"]).collect();
        assert_eq!(tokens, [&json!("mine"), &json!("mine"), &Value::Null], "{driver:?}");
        assert_eq!(told.said(), "old \"alpha\" {\"io.modelcontextprotocol/x\":1}");
        assert_eq!(
            (&told.last()["id"], &told.result()["resultType"]),
            (&json!(1), &json!("complete"))
        );

        let heard = old.heard("tools/call").pop().unwrap();
        assert_eq!(heard.header("mcp-protocol-version"), Some("2025-11-25"));
        assert!(heard.header("mcp-method").is_none() && heard.header("mcp-name").is_none());
        let session = heard.header("mcp-session-id").unwrap().to_owned();
        assert!(old.script().sessions.contains(&session));
        let meta = heard.message["params"]["_meta"].as_object().unwrap();
        assert!(meta.len() == 2 && meta["com.example/y"] == 2, "{meta:?}");
        assert_eq!(meta["progressToken"], heard.message["id"], "{heard:?}");
        assert_ne!(heard.message["id"], json!(1), "ids of all agents meet in one session");

        // A question of the server is answered by the gateway: nobody declared anything.
        old.trouble("tools/call", Some(Trouble::Asks));
        let told = agent.call("old_beta", json!({}));
        assert_eq!(told.said(), "old \"beta\" {}");
        assert_eq!(told.messages.len(), 1, "a modern agent is asked nothing: {told:?}");
        let replies = old.heard("");
        assert_eq!(replies.len(), 1, "{replies:?}");
        assert_eq!(replies[0].message["id"], "own-1");
        assert_eq!(replies[0].message["error"]["code"], -32601);
        // In the session of that call, whichever core it came to.
        let asked = old.heard("tools/call").pop().unwrap();
        assert_eq!(replies[0].header("mcp-session-id"), asked.header("mcp-session-id"));
        old.trouble("tools/call", None);

        // One session for all that this principal asks, whichever connection it comes by.
        agent.call("old_beta", json!({}));
        let prompt = agent.ask("prompts/get", json!({"name": "old_hello"}));
        assert_eq!(prompt.result()["resultType"], "complete", "{prompt:?}");
        let cores = std::thread::available_parallelism().unwrap().get();
        assert!(old.heard("initialize").len() <= cores, "one session on each core");
        let unknown = agent.call("old_gamma", json!({}));
        assert_eq!(unknown.code(), Some(-32602), "{unknown:?}");
        let ids: Vec<_> =
            old.heard("tools/call").iter().map(|it| it.message["id"].clone()).collect();
        assert!(ids.iter().enumerate().all(|(at, id)| !ids[..at].contains(id)), "{ids:?}");
    }
}

#[test]
fn a_legacy_agent_uses_a_modern_server() {
    for driver in DRIVERS {
        let hub = Hub::start(driver, &TWO, "", "");
        let new = hub.peer("new");
        for revision in ["2025-03-26", "2025-06-18", "2025-11-25"] {
            let agent = hub.legacy("hana", "/mcp", revision);
            let tools = ["new_alpha", "new_beta", "old_alpha", "old_beta"];
            assert_eq!(agent.names("tools/list"), tools, "{revision}");
            new.trouble("tools/call", Some(Trouble::Progress(1)));
            let told = agent.ask(
                "tools/call",
                json!({"name": "new_alpha", "arguments": {"a": "\u{e9}"}, "_meta": {"progressToken": 7}}),
            );
            assert_eq!(told.said(), "new \"alpha\" {\"a\":\"\u{e9}\"}", "{told:?}");
            assert_eq!(told.messages[0]["params"]["progressToken"], 7);
            assert!(told.result().get("resultType").is_none(), "{told:?}");
            let heard = new.heard("tools/call").pop().unwrap();
            assert_eq!(heard.header("mcp-protocol-version"), Some(MODERN));
            assert_eq!(heard.header("mcp-method"), Some("tools/call"));
            assert_eq!(heard.header("mcp-name"), Some("alpha"));
            assert!(heard.header("mcp-session-id").is_none());
            let meta = &heard.message["params"]["_meta"];
            assert_eq!(meta["io.modelcontextprotocol/protocolVersion"], MODERN);
            assert_eq!(meta["io.modelcontextprotocol/clientCapabilities"], json!({}));
            assert_eq!(meta["progressToken"], 7);

            // What it has no words for is refused, and nothing of it gets through.
            for kind in ["input_required", "task", "com.example/later"] {
                let result = json!({"resultType": kind, "requestState": "s", "inputRequests": {}});
                new.trouble("tools/call", Some(Trouble::Result(result)));
                let told = agent.call("new_beta", json!({}));
                assert_eq!(told.answer.status, 502, "{kind}: {told:?}");
                assert_eq!(told.answer.reason(), "upstream_era");
            }
            new.trouble("tools/call", None);
            assert_eq!(agent.call("new_beta", json!({})).said(), "new \"beta\" {}");
            assert_eq!(agent.call("new_gamma", json!({})).code(), Some(-32602));
        }
    }
}

/// A session that is gone is opened anew; what is known of the server's era goes on.
#[test]
fn a_legacy_server_that_restarts_is_met_anew_in_its_era() {
    for driver in DRIVERS {
        let hub = Hub::start(driver, &TWO[..1], "", "");
        let (old, agent) = (hub.peer("old"), hub.modern("hana", "/mcp"));
        assert_eq!(agent.call("old_alpha", json!({})).said(), "old \"alpha\" {}");
        // Restarted: every session is gone, and it is opened anew within the same request.
        old.forget_sessions();
        assert_eq!(agent.call("old_alpha", json!({})).said(), "old \"alpha\" {}");
        let before = old.heard("server/discover").len();
        for _ in 0..20 {
            assert_eq!(agent.call("old_alpha", json!({})).said(), "old \"alpha\" {}");
        }
        let cores = std::thread::available_parallelism().unwrap().get();
        let after = old.heard("server/discover").len();
        assert!(after <= before + cores, "a verdict holds: {before} {after}");
    }
}
