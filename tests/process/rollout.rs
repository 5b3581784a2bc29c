//! A rule from its draft to every core, as `conf/policies/README.md` has it: agents keep their
//! connections, one on each core, while policies come and go.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpStream;

use portcullis::clock::Clock;
use portcullis::devtoken;
use rustix::process::Signal;
use serde_json::Value;

use crate::client::{Client, Wire};
use crate::gateway::{Gateway, ISSUER, PUBLIC_URL, Setup, Stage};
use crate::policy_cli::run;
use crate::quota::workers;
use crate::upstream::Upstream;
use crate::wait::eventually;

/// By core: whether the call was denied.
type Told = [(u64, bool)];

/// Connections of one agent that stay, one on each core.
struct Agent {
    client: Client,
    wires: BTreeMap<u64, Wire<TcpStream>>,
}

impl Agent {
    /// The kernel spreads connections by their ports; the record says where one went. Records come
    /// late, so as many are opened at once as there are cores.
    fn on_every_core(gateway: &Gateway, client: Client) -> Self {
        let cores = workers(gateway);
        let mut wires = BTreeMap::new();
        let mut opened = 0;
        eventually("a connection on every core", || {
            let mut asked = BTreeMap::new();
            for _ in 0..cores {
                opened += 1;
                let (tool, mut wire) = (format!("hello-{opened}"), client.open());
                wire.send(&client.call(&tool));
                assert_eq!(wire.answer().status, 200);
                asked.insert(tool, wire);
            }
            eventually("their records", || {
                for record in gateway.stage().audit() {
                    if let Some(wire) = asked.remove(record["name"].as_str().unwrap_or_default()) {
                        wires.entry(record["core"].as_u64().unwrap()).or_insert(wire);
                    }
                }
                asked.is_empty()
            });
            wires.len() == cores
        });
        Self { client, wires }
    }

    /// Calls once on every core; whether each was denied. Nothing else may go wrong.
    fn call(&mut self, tool: &str) -> Vec<(u64, bool)> {
        let client = &self.client;
        let ask = |(core, wire): (&u64, &mut Wire<TcpStream>)| {
            wire.send(&client.call(tool));
            let answer = wire.answer();
            assert_eq!(answer.status, 200, "core {core}: {}", answer.text());
            let answer = answer.json();
            let error = &answer["error"]["code"];
            assert!(answer["result"].is_object() || *error == 1403, "core {core}: {answer}");
            (*core, !error.is_null())
        };
        self.wires.iter_mut().map(ask).collect()
    }

    /// Calls on every core, and each of them says so.
    fn is_denied(&mut self, tool: &str) -> bool {
        let told = self.call(tool);
        let denied = told[0].1;
        assert!(told.iter().all(|(_, one)| *one == denied), "cores differ: {told:?}");
        denied
    }
}

/// Whether a record of `tool` from each core of `agent` is as it should be.
fn each_core(stage: &Stage, agent: &Agent, tool: &str, is_so: impl Fn(&Value) -> bool) -> bool {
    let records = stage.audit();
    let of = |core: &u64| {
        let mut records = records.iter().filter(|record| record["core"] == *core);
        records.any(|record| record["name"] == tool && is_so(record))
    };
    agent.wires.keys().all(of)
}

fn shadowed(record: &Value, id: &str) -> bool {
    record["reason"] == "ok" && record["would_deny"][0] == id
}

/// Signals, not waits: calls go on before, while and after the new policies are compiled and reach
/// the cores. On each core nothing is recorded but what the four sets say, one after the other.
#[test]
fn a_shadow_comes_decides_and_goes_under_calls() {
    for driver in ["auto", "epoll"] {
        let upstream = Upstream::echo();
        let cores = format!("driver = \"{driver}\"");
        let gateway = Setup::new(upstream.address).cores(&cores).start();
        gateway.wait_until_ready();
        let stage = gateway.stage();
        let mut agent = Agent::on_every_core(&gateway, gateway.client());
        let mut answers: BTreeMap<u64, Vec<bool>> = BTreeMap::new();
        let mut until = |what: &str, is_over: &dyn Fn(&Told, &Agent) -> bool| {
            eventually(what, || {
                let told = agent.call("drop");
                for (core, denied) in &told {
                    answers.entry(*core).or_default().push(*denied);
                }
                is_over(&told, &agent)
            });
        };
        until("permitted", &|_, agent| {
            each_core(stage, agent, "drop", |record| record["reason"] == "ok")
        });
        let rule = "@id(\"no-drop\") forbid (principal, action == Action::\"tools/call\", \
                    resource == Tool::\"sample/drop\");\n";
        fs::create_dir(stage.path("policies/shadow")).unwrap();
        stage.write("policies/shadow/drop.cedar", rule);
        gateway.signal(Signal::HUP);
        until("recorded on every core", &|_, agent| {
            each_core(stage, agent, "drop", |record| shadowed(record, "no-drop"))
        });
        fs::rename(stage.path("policies/shadow/drop.cedar"), stage.path("policies/drop.cedar"))
            .unwrap();
        gateway.signal(Signal::HUP);
        until("denied on every core", &|told, _| told.iter().all(|(_, denied)| *denied));
        fs::remove_file(stage.path("policies/drop.cedar")).unwrap();
        gateway.signal(Signal::HUP);
        until("permitted on every core", &|told, _| told.iter().all(|(_, denied)| !denied));

        let told: usize = answers.values().map(Vec::len).sum();
        eventually("every call is recorded", || of_drop(stage).len() == told);
        let records = of_drop(stage);
        for (core, mut answers) in answers {
            answers.dedup();
            assert_eq!(answers, [false, true, false], "{driver}, core {core}");
            let of = records.iter().filter(|record| record["core"] == core);
            let mut of: Vec<&Value> = of.collect();
            of.sort_by_key(|record| record["seq"].as_u64());
            let mut ways: Vec<&str> = of.iter().map(|record| way(record)).collect();
            ways.dedup();
            assert_eq!(ways, ["ok", "would deny", "denied", "ok"], "{driver}, core {core}");
        }
    }
}

fn of_drop(stage: &Stage) -> Vec<Value> {
    stage.audit().into_iter().filter(|record| record["name"] == "drop").collect()
}

fn way(record: &Value) -> &'static str {
    let is_named = |list: &Value| list.as_array().is_some_and(|ids| ids == &["no-drop"]);
    match (record["decision"].as_str(), record["would_deny"].is_null()) {
        (Some("permit"), true) => "ok",
        (Some("permit"), false) if is_named(&record["would_deny"]) => "would deny",
        (Some("deny"), true) if is_named(&record["policy"]) => "denied",
        _ => panic!("{record}"),
    }
}

/// The way of `conf/policies/README.md`, at an hour that is always outside of those that the rule
/// grants: the day after tomorrow's.
#[test]
fn a_rule_is_tested_shadowed_read_and_enforced_on_every_core() {
    let upstream = Upstream::echo();
    let gateway = Setup::new(upstream.address).start();
    gateway.wait_until_ready();
    let stage = gateway.stage();
    let mut intern =
        Agent::on_every_core(&gateway, Client::new(gateway.address, &token_of_intern(&gateway)));
    let mut other = Agent::on_every_core(&gateway, gateway.client());
    let now = Clock::start().now().wall.seconds().0;
    // Day 0 was a Thursday, weekday 4.
    let another = (now / 86_400 + 3 + 2) % 7 + 1;
    let rule = format!(
        "@id(\"interns-delete-by-day\")\nforbid (principal in Group::\"interns\", \
         action == Action::\"tools/call\", resource == Tool::\"sample/delete\")\n\
         unless {{ context.local.weekday == {another} && context.local.minute_of_day >= 540 }};\n"
    );

    // Written as a draft, of which the gateway knows nothing, and proven.
    fs::create_dir(stage.path("draft")).unwrap();
    fs::copy(stage.path("policies/all.cedar"), stage.path("draft/all.cedar")).unwrap();
    stage.write("draft/hours.cedar", &rule);
    stage.write("draft.toml", &stage.read("gateway.toml").replace("\"policies\"", "\"draft\""));
    stage.write("hours.toml", &cases(now));
    let test = |configuration: &str| {
        run(stage, &["policy", "test", "--config", configuration, "hours.toml"])
    };
    let (code, said, faults) = run(stage, &["check", "--config", "draft.toml"]);
    assert_eq!(code, 0, "{said}{faults}");
    let (code, said, faults) = test("draft.toml");
    assert_eq!((code, said.lines().last()), (0, Some("3 of 3 cases hold")), "{said}{faults}");
    let (code, said, _) = test("gateway.toml");
    assert_eq!((code, said.lines().last()), (1, Some("2 of 3 cases hold")), "{said}");
    gateway.reload();
    assert!(!intern.is_denied("delete"), "a draft is not read");

    fs::create_dir(stage.path("policies/shadow")).unwrap();
    fs::copy(stage.path("draft/hours.cedar"), stage.path("policies/shadow/hours.cedar")).unwrap();
    gateway.reload();
    assert!(!intern.is_denied("delete") && !other.is_denied("delete"));
    eventually("the shadow is read in the record of every core", || {
        each_core(stage, &intern, "delete", |record| shadowed(record, "interns-delete-by-day"))
    });
    let of_others = stage.audit().into_iter().filter(|record| record["user"] == "alice");
    assert!(of_others.into_iter().all(|record| record["would_deny"].is_null()));

    fs::rename(stage.path("policies/shadow/hours.cedar"), stage.path("policies/hours.cedar"))
        .unwrap();
    let (code, said, faults) = test("gateway.toml");
    assert_eq!(code, 0, "{said}{faults}");
    assert!(!intern.is_denied("delete"), "nothing changes before the signal");
    let heard = upstream.requests();
    gateway.reload();
    // The reload is told after it was published: no core may serve by the old policies any more.
    assert!(intern.is_denied("delete"), "the next request on every core obeys");
    assert_eq!(upstream.requests(), heard, "nothing of it went upstream");
    assert!(!other.is_denied("delete"), "others are not concerned");
    eventually("the record of every core names the rule", || {
        each_core(stage, &intern, "delete", |record| {
            record["decision"] == "deny" && record["policy"][0] == "interns-delete-by-day"
        })
    });
}

/// The permit is kept on every core, and asked for again and again; with the second of the forbid
/// it is gone on each. No record of that second or later says otherwise.
#[test]
fn a_kept_permit_ends_with_its_second_on_every_core() {
    let upstream = Upstream::echo();
    let gateway = Setup::new(upstream.address).start();
    gateway.wait_until_ready();
    let mut agent = Agent::on_every_core(&gateway, gateway.client());
    let clock = Clock::start();
    // A busy machine may not have the rule in force before its second: then a later one is tried,
    // for another tool.
    let tried = [3, 6, 12].into_iter().find_map(|seconds| {
        let edge = clock.now().wall.seconds().0 + seconds;
        let edge = jiff::Timestamp::from_second(i64::try_from(edge).unwrap()).unwrap();
        let tool = format!("door-{seconds}");
        let rule = format!(
            "@id(\"closed\") forbid (principal, action == Action::\"tools/call\",\n\
             resource == Tool::\"sample/{tool}\") when {{ context.now >= datetime(\"{edge}\") }};\n"
        );
        gateway.stage().write("policies/closed.cedar", &rule);
        gateway.reload();
        let mut permits = 0;
        eventually("closed on every core", || {
            let told = agent.call(&tool);
            permits += told.iter().filter(|(_, denied)| !denied).count();
            told.iter().all(|(_, denied)| *denied)
        });
        // Often enough that permits were kept: each core was asked many times.
        (permits > 10 * agent.wires.len()).then_some((edge, tool, permits))
    });
    let (edge, tool, permits) = tried.expect("it was permitted before, and often");
    for _ in 0..20 {
        assert!(agent.is_denied(&tool));
    }
    let stage = gateway.stop();
    let of = |record: &Value| record["name"] == tool.as_str() && record["decision"] == "permit";
    let records: Vec<Value> = stage.audit().into_iter().filter(of).collect();
    // A request is decided after it was read: what was permitted was read before.
    for record in &records {
        let read: jiff::Timestamp = record["time"].as_str().unwrap().parse().unwrap();
        assert!(read < edge, "{record}");
    }
    assert_eq!(records.len(), permits);
}

/// Of an intern now and the day after tomorrow at noon, and of somebody else.
fn cases(now: u64) -> String {
    let at = |seconds: u64| jiff::Timestamp::from_second(i64::try_from(seconds).unwrap()).unwrap();
    let noon = (now / 86_400 + 2) * 86_400 + 12 * 3600;
    let case = |title: &str, at: jiff::Timestamp, groups: &str, expect: &str| {
        format!(
            "[[case]]\ntitle = \"{title}\"\nname = \"delete\"\nuser = \"bob\"\n\
             groups = {groups}\nat = \"{at}\"\nexpect = \"{expect}\"\n"
        )
    };
    let interns = "[\"interns\"]";
    [
        "agent = \"test-agent\"\nserver = \"sample\"\n".to_owned(),
        case("an intern by day", at(noon), interns, "permit"),
        case("an intern now", at(now), interns, "deny"),
        case("somebody else now", at(now), "[]", "permit"),
    ]
    .concat()
}

fn token_of_intern(gateway: &Gateway) -> String {
    let request = devtoken::Request {
        issuer: ISSUER.to_owned(),
        audiences: vec![PUBLIC_URL.to_owned()],
        subject: "bob".to_owned(),
        claims: vec![
            ("client_id".to_owned(), "test-agent".into()),
            ("groups".to_owned(), vec!["interns"].into()),
        ],
        expires_seconds: 600,
    };
    let key = devtoken::read_key(&gateway.stage().path("key.pem")).unwrap();
    devtoken::mint(&key, &request, Clock::start().now().wall.seconds()).unwrap()
}
