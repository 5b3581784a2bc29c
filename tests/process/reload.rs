//! Policies that change while the gateway runs: by a request to the admin listener, and by looking
//! at the files. SIGHUP is in `signals`,
//! the way from a draft to a rule in force in `rollout`.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fs;
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::client::{Answer, Client, Wire, status};
use crate::gateway::{Gateway, PERMIT_ALL, Setup};
use crate::upstream::{Then, Upstream, chunk, say};
use crate::wait::eventually;

const MEANT: &str = "x-portcullis: reload\r\n";

fn post(gateway: &Gateway, path: &str, fields: &str) -> Answer {
    let mut wire = Wire::open(gateway.admin);
    wire.send(&format!(
        "POST {path} HTTP/1.1\r\nhost: {}\r\n{fields}content-length: 0\r\n\r\n",
        gateway.admin
    ));
    wire.answer()
}

fn forbid(tool: &str) -> String {
    format!(
        "@id(\"no-{tool}\") forbid (principal, action == Action::\"tools/call\", \
         resource == Tool::\"sample/{tool}\");\n"
    )
}

fn denied(client: &Client, tool: &str) -> bool {
    let answer = client.once(&client.call(tool));
    assert_eq!(answer.status, 200);
    answer.json()["error"]["code"] == 1403
}

/// A gateway that looks at its policy files: told so by a reload.
fn watching(setup: &Setup) -> Gateway {
    let gateway = setup.start();
    let watched = setup.configuration().replace("[policy]", "[policy]\nwatch = true");
    gateway.stage().write("gateway.toml", &watched);
    gateway.reload();
    gateway.wait_until_ready();
    gateway
}

#[test]
fn a_reload_by_request_is_answered_with_what_came_of_it() {
    let upstream = Upstream::echo();
    let gateway = Setup::new(upstream.address).start();
    gateway.wait_until_ready();
    let client = gateway.client();
    let stage = gateway.stage();
    fs::create_dir(stage.path("policies/shadow")).unwrap();
    stage.write("policies/shadow/next.cedar", &forbid("next"));
    stage.write("policies/more.cedar", &forbid("drop"));
    let answer = post(&gateway, "/reload", MEANT);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let now = answer.json();
    assert_eq!((now["policies"].as_u64(), now["shadow_policies"].as_u64()), (Some(2), Some(1)));
    let epoch = now["epoch"].as_u64().unwrap();
    assert!(epoch > 1, "{now}");
    let status = gateway.admin("/status").json();
    assert_eq!(status["policy"]["shadow_policies"], 1, "{status}");
    // Published before the answer was written: the next request on any core obeys.
    assert!(denied(&client, "drop"));
    assert!((gateway.metric("portcullis_policy_epoch") - epoch as f64).abs() < 0.5);

    stage.write("policies/more.cedar", &format!("{}\nforbid (", forbid("drop")));
    let answer = post(&gateway, "/reload", MEANT);
    assert_eq!(answer.status, 422, "{}", answer.text());
    let faults = answer.json()["faults"].as_array().unwrap().clone();
    assert!(faults[0].as_str().unwrap().contains("more.cedar:3:"), "{faults:?}");
    assert!(denied(&client, "drop"), "the old policies stay");
    assert!(gateway.metric("portcullis_config_last_reload_successful") < 0.5);

    stage.write("policies/more.cedar", &forbid("echo"));
    let answer = post(&gateway, "/reload", MEANT);
    assert!(answer.json()["epoch"].as_u64().unwrap() > epoch, "never used twice");
    assert!(denied(&client, "echo") && !denied(&client, "drop"));
}

#[test]
fn a_reload_that_a_web_page_could_ask_for_is_refused() {
    let upstream = Upstream::echo();
    let gateway = Setup::new(upstream.address).start();
    gateway.wait_until_ready();
    gateway.stage().write("policies/all.cedar", &format!("{PERMIT_ALL}{}", forbid("echo")));
    let from_a_page = format!("{MEANT}origin: http://{}\r\n", gateway.admin);
    for fields in ["", "x-portcullis: yes\r\n", from_a_page.as_str()] {
        assert_eq!(post(&gateway, "/reload", fields).status, 403, "{fields}");
    }
    assert_eq!(gateway.admin("/reload").status, 404);
    assert_eq!(post(&gateway, "/metrics", MEANT).status, 405);
    assert_eq!(post(&gateway, "/reload?now", MEANT).status, 405);
    assert!(!gateway.said().contains("reloaded"), "{}", gateway.said());
    assert!(!denied(&gateway.client(), "echo"));
}

#[test]
fn watched_policies_come_into_force_on_every_core_and_cost_nothing_else() {
    let upstream = Upstream::echo();
    let gateway = watching(&Setup::new(upstream.address));
    let workers = gateway.said().matches("with 1 workers").count();
    let cores = if workers == 1 { 1 } else { 2 };
    let client = gateway.client();
    let asked = Cell::new(0_u32);
    let refused = |tool: &str| {
        asked.set(asked.get() + 1);
        denied(&client, tool)
    };
    let mut wire = client.open();
    let mut ask = || {
        asked.set(asked.get() + 1);
        wire.send(&client.call("echo"));
        assert_eq!(wire.answer().status, 200, "the agent's connection goes on");
    };
    ask();
    let on_all = |epoch: u64| {
        eventually("every core decides by the newest policies", || {
            refused("echo");
            let records = gateway.stage().audit();
            let of = |record: &&Value| record["epoch"].as_u64() == Some(epoch);
            let seen: BTreeSet<_> =
                records.iter().filter(of).filter_map(|record| record["core"].as_u64()).collect();
            seen.len() >= cores
        });
    };
    // Cores publish their counters from time to time; this waits until all of it is counted.
    let verified = || {
        let tokens = |outcome: &str| {
            gateway.metric(&format!("portcullis_token_cache_total{{outcome=\"{outcome}\"}}"))
        };
        let mut misses = 0.0;
        eventually("every token is counted", || {
            misses = tokens("miss");
            misses + tokens("hit") > f64::from(asked.get()) - 0.5
        });
        misses
    };
    let epoch = gateway.metric("portcullis_policy_epoch") as u64;
    on_all(epoch);
    let (misses, connections) = (verified(), upstream.connections());
    assert!(misses > 0.5, "{misses}");

    let both = format!("{PERMIT_ALL}{}", forbid("drop"));
    gateway.stage().write("policies/all.cedar", &both);
    eventually("the new policies decide", || refused("drop"));
    gateway.wait_until_said("policies reloaded");
    let now = gateway.metric("portcullis_policy_epoch") as u64;
    assert!(now > epoch);
    on_all(now);
    ask();
    assert!((verified() - misses).abs() < 0.5, "no token was verified again");
    assert_eq!(upstream.connections(), connections, "nor was the upstream called anew");

    // One fault, told once, and nothing changes.
    gateway.stage().write("policies/all.cedar", &format!("{both}\nforbid ("));
    gateway.wait_until_said("reload refused");
    assert!(gateway.said().contains("all.cedar:4:"), "{}", gateway.said());
    assert!(denied(&client, "drop") && !denied(&client, "echo"));
    assert!(gateway.metric("portcullis_config_last_reload_successful") < 0.5);
    gateway.stage().write("policies/all.cedar", &format!("{both}{}", forbid("echo")));
    eventually("the repaired policies decide", || denied(&client, "echo"));
    assert_eq!(gateway.said().matches("reload refused").count(), 1);

    // A directory without policies would deny everything; whoever moves one away keeps the old.
    fs::rename(gateway.stage().path("policies"), gateway.stage().path("away")).unwrap();
    eventually("it is told", || gateway.said().matches("reload refused").count() == 2);
    assert!(denied(&client, "echo") && !denied(&client, "other"));
    fs::create_dir(gateway.stage().path("policies")).unwrap();
    gateway.stage().write("policies/new.cedar", PERMIT_ALL);
    eventually("the new directory decides", || !denied(&client, "echo"));
}

/// A reload that is asked for tells the faults; the next looks at the same files tell nothing, but
/// see what mends them. Until a whole reload is taken the configuration counts as refused.
#[test]
fn faulty_policies_are_told_once_whoever_reads_them_first() {
    let upstream = Upstream::echo();
    let gateway = watching(&Setup::new(upstream.address));
    let client = gateway.client();
    let outcome = |trigger: &str, outcome: &str| {
        let labels = format!("{{trigger=\"{trigger}\",outcome=\"{outcome}\"}}");
        gateway.metric(&format!("portcullis_policy_reloads_total{labels}")).round() as u64
    };
    assert_eq!((outcome("signal", "taken"), outcome("watch", "taken")), (1, 0));
    let stage = gateway.stage();
    stage.write("policies/more.cedar", "forbid (");
    assert_eq!(post(&gateway, "/reload", MEANT).status, 422);
    // On a busy machine a look may have come first; none may come after it.
    let looked = outcome("watch", "refused");
    // A window of measurement, several looks long, not a wait for something.
    thread::sleep(Duration::from_secs(1));
    let told = gateway.said().matches("reload refused").count() as u64;
    assert_eq!((told, outcome("watch", "refused")), (1 + looked, looked), "{}", gateway.said());
    stage.write("policies/more.cedar", &forbid("drop"));
    eventually("the mended policies decide", || denied(&client, "drop"));
    gateway.wait_until_said("policies reloaded");
    assert_eq!((outcome("watch", "refused"), outcome("watch", "taken")), (looked, 1));
    assert!(gateway.metric("portcullis_config_last_reload_successful") < 0.5);
    assert_eq!(post(&gateway, "/reload", MEANT).status, 200);
    assert!(gateway.metric("portcullis_config_last_reload_successful") > 0.5);
    assert_eq!((outcome("request", "refused"), outcome("request", "taken")), (1, 1));
    let compiled = gateway.metric("portcullis_policy_compile_seconds_count");
    assert!((compiled - 4.0 - looked as f64).abs() < 0.5, "{compiled}: one for each of them");
    assert!(gateway.metric("portcullis_policy_compile_seconds_sum") > 0.0);
}

#[test]
fn new_policies_do_not_hide_that_the_configuration_is_refused() {
    let upstream = Upstream::echo();
    let gateway = watching(&Setup::new(upstream.address));
    let client = gateway.client();
    let sound = fs::read_to_string(gateway.stage().path("gateway.toml")).unwrap();
    gateway.stage().write("gateway.toml", &format!("{sound}\n[nonsense]\n"));
    assert_eq!(post(&gateway, "/reload", MEANT).status, 422);
    gateway.stage().write("policies/all.cedar", &format!("{PERMIT_ALL}{}", forbid("drop")));
    eventually("the new policies decide", || denied(&client, "drop"));
    gateway.wait_until_said("policies reloaded");
    assert!(gateway.metric("portcullis_config_last_reload_successful") < 0.5);
    gateway.stage().write("gateway.toml", &sound);
    assert_eq!(post(&gateway, "/reload", MEANT).status, 200);
    assert!(gateway.metric("portcullis_config_last_reload_successful") > 0.5);
}

#[test]
fn an_open_stream_is_cut_when_watched_policies_forbid_it() {
    let upstream = Upstream::start(move |_, peer| {
        say(peer, crate::upstream::EVENTS);
        say(peer, &chunk("data: {}\n\n"));
        // Until the gateway leaves.
        let _ = std::io::Read::read(peer, &mut [0]);
        Then::Close
    });
    let gateway = watching(&Setup::new(upstream.address));
    let client = gateway.client();
    let mut stream = client.open();
    stream.send(&client.call("watch"));
    assert_eq!(status(&stream.read_head()), 200);
    assert_eq!(stream.chunk().unwrap(), b"data: {}\n\n");
    gateway.stage().write("policies/all.cedar", &format!("{PERMIT_ALL}{}", forbid("watch")));
    assert!(stream.chunk().is_none(), "cut, without a clean end");
    let record = &gateway.audited(1)[0];
    assert_eq!(record["reason"], "forbidden", "{record}");
}
