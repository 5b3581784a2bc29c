//! Handshakes with `/mcp`: one answer for all servers that the agent may use, whatever era each of
//! them speaks, and for those that fail an honest gap.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::client::text;
use super::gateway::{DRIVERS, Driver, Gateway, until};
use super::hub_peer::{MODERN, Peer, Role, Trouble};
use super::hub_rig::{Hub, Told};
use super::setup::API_KEY;

const FOUR: [(&str, Role); 4] = [
    ("dual", Role::Dual),
    ("old", Role::Legacy),
    ("bare", Role::Sessionless),
    ("new", Role::Modern),
];

const LEGACY: [&str; 3] = ["2025-03-26", "2025-06-18", "2025-11-25"];

/// What each server of the rig offers, of that what `/mcp` carries.
fn offered() -> Value {
    json!({"tools": {"listChanged": true}, "prompts": {"listChanged": true},
        "resources": {"listChanged": true}, "completions": {}})
}

fn initialize(hub: &Hub, user: &str, revision: &str) -> Told {
    let mut agent = hub.modern(user, "/mcp");
    agent.revision = revision.to_owned();
    let hello = json!({"protocolVersion": revision,
        "capabilities": {"sampling": {}, "roots": {"listChanged": true}},
        "clientInfo": {"name": "rig", "version": "1"}});
    agent.ask("initialize", hello)
}

/// How often a server heard `initialize`, the word behind it, and `server/discover`.
fn hellos(hub: &Hub, name: &str) -> (usize, usize, usize) {
    let heard = |method| hub.peer(name).heard(method).len();
    (heard("initialize"), heard("notifications/initialized"), heard("server/discover"))
}

#[test]
fn all_servers_of_both_eras_answer_as_one() {
    for driver in DRIVERS {
        let hub = Hub::start(driver, &FOUR, "", "");
        let said = "## bare\n> Use bare well.\n## dual\n> Use dual well.\n## new\n> Use new well.\n## old\n> Use old well.";
        let told = hub.modern("hana", "/mcp").ask("server/discover", json!({}));
        assert_eq!(told.answer.status, 200, "{told:?}");
        assert!(told.answer.header("mcp-session-id").is_none());
        let result = told.result();
        assert_eq!(result["supportedVersions"], json!([MODERN]));
        assert_eq!(result["capabilities"], offered(), "{driver:?}");
        assert_eq!((&result["instructions"], &result["ttlMs"]), (&json!(said), &json!(0)));
        assert_eq!(
            (&result["cacheScope"], &result["resultType"]),
            (&json!("private"), &json!("complete"))
        );
        assert_eq!(result["_meta"]["io.modelcontextprotocol/serverInfo"]["name"], "portcullis");
        assert!(result["_meta"].get("io.portcullis/partial").is_none(), "{result}");
        // Each in the agent's era first, in the other one where that was refused.
        assert_eq!(hellos(&hub, "dual"), (0, 0, 1), "{driver:?}");
        assert_eq!(hellos(&hub, "new"), (0, 0, 1));
        assert_eq!(hellos(&hub, "old"), (1, 1, 1));
        assert_eq!(hellos(&hub, "bare"), (1, 1, 1));

        for (round, revision) in LEGACY.into_iter().enumerate() {
            let told = initialize(&hub, "hana", revision);
            assert_eq!(told.answer.status, 200, "{told:?}");
            let session = told.answer.header("mcp-session-id").unwrap();
            assert!(session.bytes().all(|byte| byte.is_ascii_graphic()), "{session}");
            let result = told.result();
            assert_eq!(result["protocolVersion"], revision);
            assert_eq!(result["capabilities"], offered());
            assert_eq!(result["instructions"], said);
            assert_eq!(result["serverInfo"]["name"], "portcullis");
            assert!(result.get("resultType").is_none() && result.get("_meta").is_none());
            let rounds = round + 1;
            assert_eq!(hellos(&hub, "dual"), (rounds, rounds, 1), "{driver:?} {revision}");
            assert_eq!(hellos(&hub, "new"), (rounds, 0, 1 + rounds));
            assert_eq!(hellos(&hub, "old"), (1 + rounds, 1 + rounds, 1));
            let last = hub.peer("old").heard("initialize").pop().unwrap();
            assert_eq!(last.message["params"]["protocolVersion"], revision);
            assert_eq!(last.message["params"]["capabilities"], json!({}), "nothing is carried yet");
            assert_eq!(last.message["params"]["clientInfo"]["name"], "portcullis");
            assert!(last.header("mcp-session-id").is_none());
            let note = hub.peer("old").heard("notifications/initialized").pop().unwrap();
            assert_eq!(note.header("mcp-protocol-version"), Some(revision));
            let sessions = hub.peer("old").script().sessions.clone();
            assert!(sessions.contains(note.header("mcp-session-id").unwrap()), "{note:?}");
        }

        // What is known is not asked for again, by the same principal in the same revision, on the
        // same core.
        let cores = std::thread::available_parallelism().unwrap().get();
        let before: Vec<_> = hub.peers.iter().map(|peer| hellos(&hub, peer.name)).collect();
        for _ in 0..8 * cores {
            let told = initialize(&hub, "hana", "2025-11-25");
            assert_eq!(told.result()["capabilities"], offered());
            let told = hub.modern("hana", "/mcp").ask("server/discover", json!({}));
            assert_eq!(told.result()["capabilities"], offered());
        }
        for (peer, before) in hub.peers.iter().zip(before) {
            // Once for each era of agents.
            let (after, most) = (hellos(&hub, peer.name), 2 * (cores - 1));
            let shown = format!("{} {before:?} {after:?}", peer.name);
            assert!(after.0 <= before.0 + most && after.2 <= before.2 + most, "{shown}");
        }
        for hidden in ["old-session-", "dual-session-"] {
            assert!(!hub.gateway.everything_written().contains(hidden), "{hidden}");
        }
    }
}

#[test]
fn a_server_that_is_denied_is_not_there() {
    let policies = "@id(\"nils\") permit (principal == User::\"nils\", action == Action::\"connect\", resource);\n\
        @id(\"otto-old\") permit (principal == User::\"otto\", action, resource in Server::\"old\");\n\
        @id(\"otto\") permit (principal == User::\"otto\", action == Action::\"connect\", resource);\n\
        @id(\"stranger\") forbid (principal == User::\"stranger\", action, resource);\n";
    for driver in DRIVERS {
        let hub = Hub::start(driver, &FOUR, "", policies);
        let told = initialize(&hub, "otto", "2025-11-25");
        assert_eq!(told.result()["instructions"], "## old\n> Use old well.", "{told:?}");
        assert!(told.result().get("_meta").is_none(), "nothing is missing: {told:?}");
        for name in ["dual", "bare", "new"] {
            assert_eq!(hub.peer(name).count(), 0, "{name}");
        }
        for told in [
            initialize(&hub, "nils", "2025-11-25"),
            hub.modern("nils", "/mcp").ask("server/discover", json!({})),
        ] {
            assert_eq!(told.answer.status, 200, "{told:?}");
            assert_eq!(told.result()["capabilities"], json!({}));
            assert!(told.result().get("instructions").is_none());
            assert!(told.result().pointer("/_meta/io.portcullis~1partial").is_none());
        }
        for told in [
            initialize(&hub, "stranger", "2025-11-25"),
            hub.modern("stranger", "/mcp").ask("server/discover", json!({})),
        ] {
            assert_eq!(told.answer.status, 403, "{told:?}");
        }
        assert_eq!(hub.peers.iter().map(|peer| peer.count()).sum::<usize>(), 2, "of otto alone");
    }
}

#[test]
fn a_server_that_fails_costs_its_part_and_is_named() {
    for driver in DRIVERS {
        let hub = Hub::start(driver, &FOUR, "\n[federation]\ntimeout_ms = 1500\n", "");
        hub.peer("dual").trouble("*", Some(Trouble::Status(503)));
        hub.peer("new").trouble("*", Some(Trouble::Silent));
        hub.peer("old").trouble("initialize", Some(Trouble::Body("{".to_owned())));
        let missing = |told: &Told| told.result()["_meta"]["io.portcullis/partial"].clone();
        let began = Instant::now();
        let told = initialize(&hub, "hana", "2025-11-25");
        assert!(began.elapsed() < Duration::from_secs(20), "one deadline for all");
        assert_eq!(told.result()["capabilities"], offered(), "{told:?}");
        assert_eq!(told.result()["instructions"], "## bare\n> Use bare well.");
        let reasons = json!([{"server": "dual", "reason": "upstream_malformed"},
            {"server": "new", "reason": "upstream_timeout"},
            {"server": "old", "reason": "upstream_malformed"}]);
        assert_eq!(missing(&told), reasons, "{driver:?}");
        // Trouble is no verdict about an era, and is not remembered.
        assert_eq!(hellos(&hub, "dual"), (1, 0, 0), "not asked in the other era");
        for name in ["dual", "new"] {
            hub.peer(name).trouble("*", None);
        }
        hub.peer("old").trouble("initialize", None);
        let told = initialize(&hub, "hana", "2025-11-25");
        assert_eq!(missing(&told), Value::Null, "{told:?}");
        assert_eq!(hellos(&hub, "dual"), (2, 1, 0));
        assert_eq!(hellos(&hub, "new"), (2, 0, 1));
    }
}

#[test]
fn sessions_of_the_one_url_belong_to_their_owner_and_end_when_told_to() {
    for driver in DRIVERS {
        let hub = Hub::start(driver, &FOUR[..1], "", "");
        let mut agent = hub.legacy("hana", "/mcp", "2025-06-18");
        let ping = |agent: &super::hub_rig::Agent<'_>| agent.ask("ping", json!({}));
        assert_eq!(*ping(&agent).result(), json!({}));
        let mut stranger = hub.modern("alice", "/mcp");
        (stranger.revision, stranger.session) = (agent.revision.clone(), agent.session.clone());
        let told = ping(&stranger);
        assert_eq!(
            (told.answer.status, told.answer.reason()),
            (404, "session_mismatch".to_owned())
        );
        let whole = agent.session.clone().unwrap();
        let (first, rest) = whole.split_at(20);
        let changed = if rest.starts_with('A') { "B" } else { "A" };
        agent.session = Some(format!("{first}{changed}{}", &rest[1..]));
        assert_eq!(ping(&agent).answer.status, 404);
        agent.session = Some(whole);
        assert_eq!(*ping(&agent).result(), json!({}));

        let end = format!(
            "DELETE /mcp HTTP/1.1\r\nHost: portcullis.localhost\r\nAuthorization: Bearer {}\r\n\
             MCP-Protocol-Version: 2025-06-18\r\nMcp-Session-Id: {}\r\n\r\n",
            agent.token,
            agent.session.as_deref().unwrap()
        );
        assert_eq!(hub.gateway.ask(end.as_bytes()).status, 204);
        // Other cores hear of it a moment later.
        until("it is over", || (0..8).all(|_| ping(&agent).answer.status == 404));
        assert_eq!(hub.gateway.ask(end.as_bytes()).status, 404);
        let again = hub.legacy("hana", "/mcp", "2025-06-18");
        assert_eq!(*ping(&again).result(), json!({}));
    }
}

#[test]
fn each_leg_of_a_handshake_has_its_record() {
    for driver in DRIVERS {
        let hub = Hub::start(driver, &FOUR, "", "");
        let turn = hub.gateway.turn();
        initialize(&hub, "hana", "2025-11-25");
        // bare, dual, old: initialize and the word behind it; new: a refusal and server/discover.
        let records = turn.records(&hub.gateway, 9);
        let of = |record: &Value, key: &str| record[key].as_str().unwrap_or_default().to_owned();
        let whole = records.iter().find(|record| of(record, "event") == "request").unwrap();
        assert_eq!(whole["legs"], json!({"asked": 4, "answered": 4}), "{whole}");
        let mut legs: Vec<_> = records
            .iter()
            .filter(|record| of(record, "event") == "leg")
            .map(|record| {
                assert_eq!(record["leg_of"], whole["seq"], "{record}");
                format!(
                    "{} {} {}",
                    of(record, "server"),
                    of(record, "method"),
                    record["upstream_status"]
                )
            })
            .collect();
        legs.sort();
        assert_eq!(
            legs,
            [
                "bare initialize 200",
                "bare notifications/initialized 202",
                "dual initialize 200",
                "dual notifications/initialized 202",
                "new initialize 400",
                "new server/discover 200",
                "old initialize 200",
                "old notifications/initialized 202",
            ],
            "{driver:?}"
        );
    }
}

/// The gateway's own faults of form stay what they are on every path.
#[test]
fn a_handshake_without_what_it_must_hold_is_refused() {
    for driver in DRIVERS {
        let gateway = Gateway::shared(driver);
        let _turn = gateway.turn();
        let body = r#"{"jsonrpc":"2.0","id":"x","method":"initialize","params":{"protocolVersion":"2025-11-25","clientInfo":{"name":"c","version":"1"}}}"#;
        let mut post = super::table::Post::new(&gateway).body(body);
        post.path = "/mcp".to_owned();
        let answer = gateway.ask(&post.bytes());
        assert_eq!(answer.status, 400, "{answer:?}");
        let told: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!((&told["id"], &told["error"]["code"]), (&json!("x"), &json!(-32602)));
    }
}

/// What no handshake of `/mcp` offers is not served, and says so; what may be left unheard is
/// taken.
#[test]
fn what_is_not_offered_is_refused_and_notifications_are_taken() {
    for driver in DRIVERS {
        let hub = Hub::start(driver, &FOUR[..1], "", "");
        let legacy = hub.legacy("hana", "/mcp", "2025-11-25");
        let before = hub.peer("dual").count();
        for (method, params) in [
            ("logging/setLevel", json!({"level": "info"})),
            ("resources/subscribe", json!({"uri": "dual://one"})),
            ("resources/unsubscribe", json!({"uri": "dual://one"})),
            ("tasks/list", json!({})),
            ("tasks/get", json!({"taskId": "t"})),
        ] {
            let told = legacy.ask(method, params);
            assert_eq!((told.answer.status, told.code()), (200, Some(-32601)), "{told:?}");
        }
        for (method, params) in [
            ("notifications/cancelled", json!({"requestId": 1})),
            ("notifications/roots/list_changed", json!({})),
            ("notifications/progress", json!({"progressToken": 1, "progress": 1})),
        ] {
            let note = json!({"jsonrpc": "2.0", "method": method, "params": params});
            assert_eq!(legacy.say(&note).answer.status, 202, "{method}");
        }
        assert_eq!(hub.peer("dual").count(), before, "none of it is the server's");
    }
}

/// A credential that a handshake is refused with may have been rotated: it is read anew once. Other
/// servers never see it.
#[test]
fn a_handshake_that_is_refused_is_held_once_more_with_a_fresh_credential() {
    let peer = Peer::start("keyed", Role::Legacy);
    let more = format!(
        "\n[[server]]\nname = \"keyed\"\nurl = \"http://127.0.0.1:{}/mcp\"\n\
         trust_private_addresses = true\ncredential = \"keyed\"\n\
         [[credential]]\nname = \"keyed\"\nkind = \"api_key\"\nservers = [\"keyed\"]\n\
         header = \"X-Key\"\nsecret = \"file:upstream.key\"\n",
        peer.port
    );
    let rules = "@id(\"keyed\") permit (principal == User::\"hana\", action, \
                 resource in Server::\"keyed\");\n";
    let hub = Hub::start(Driver::Epoll, &FOUR[1..2], &more, rules);
    peer.trouble("initialize", Some(Trouble::Status(401)));
    let told = initialize(&hub, "hana", "2025-11-25");
    let missing = &told.result()["_meta"]["io.portcullis/partial"];
    assert_eq!(*missing, json!([{"server": "keyed", "reason": "upstream_auth"}]), "{told:?}");
    assert_eq!(told.result()["capabilities"], offered());
    assert_eq!(peer.heard("initialize").len(), 2, "twice and no more, and not in the other era");
    assert_eq!(peer.count(), 2);
    peer.trouble("initialize", None);
    let told = initialize(&hub, "hana", "2025-11-25");
    assert!(told.result().get("_meta").is_none(), "{told:?}");
    for heard in peer.heard("initialize").iter().chain(&peer.heard("notifications/initialized")) {
        assert_eq!(heard.header("x-key"), Some(API_KEY));
    }
    assert!(hub.peer("old").heard("initialize").iter().all(|it| it.header("x-key").is_none()));
}

/// Requests that meet a server nobody has met yet wait for one handshake on each core, and all of
/// them for that one.
#[test]
fn many_at_once_hold_one_handshake() {
    const MANY: usize = 12;
    for driver in DRIVERS {
        let hub = Hub::start(driver, &FOUR[2..3], "", "");
        let (bare, cores) = (hub.peer("bare"), std::thread::available_parallelism().unwrap().get());
        bare.trouble("initialize", Some(Trouble::Held));
        let under_way = || {
            let page = text(&hub.gateway.page("/metrics").body);
            let lines = page.lines().filter(|line| line.starts_with("portcullis_inflight"));
            let values = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<usize>().ok());
            values.sum::<usize>()
        };
        std::thread::scope(|scope| {
            let calls: Vec<_> = (0..MANY)
                .map(|_| {
                    scope.spawn(|| {
                        let mut agent = hub.modern("hana", "/mcp");
                        agent.revision = "2025-11-25".to_owned();
                        agent.call("bare_alpha", json!({})).said().to_owned()
                    })
                })
                .collect();
            until("all are under way", || under_way() >= MANY);
            bare.release();
            for call in calls {
                assert_eq!(call.join().unwrap(), "bare \"alpha\" {}", "{driver:?}");
            }
        });
        let held = bare.heard("initialize").len();
        assert!(held <= cores, "{held} handshakes on {cores} cores, {driver:?}");
    }
}
