//! The audit across crashes, full disks and slow readers: nothing that was decided is lost, and
//! gaps can be proved.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use rustix::process::Signal;
use serde_json::Value;

use crate::gateway::Setup;
use crate::upstream::{RESULT, Then, Upstream, json as answer};
use crate::wait::eventually;

/// `seq` is without a gap, per process and core, and no record is there twice.
fn assert_gap_free(records: &[Value]) {
    let mut numbers: BTreeMap<(String, u64), Vec<u64>> = BTreeMap::new();
    for record in records {
        let key =
            (record["instance"].as_str().unwrap().to_owned(), record["core"].as_u64().unwrap());
        numbers.entry(key).or_default().push(record["seq"].as_u64().unwrap());
    }
    for (key, mut found) in numbers {
        found.sort_unstable();
        let wanted: Vec<u64> = (found[0]..).take(found.len()).collect();
        assert_eq!(found, wanted, "{key:?}");
    }
}

#[test]
fn r09_after_kill_9_the_next_start_writes_what_was_open_as_unknown() {
    let upstream = Upstream::start(|seen, peer| {
        if seen.head.contains("mcp-name: open") {
            let _ = peer.read(&mut [0]);
            return Then::Close;
        }
        answer(peer, RESULT)
    });
    let setup = Setup::new(upstream.address);
    let gateway = setup.start();
    gateway.wait_until_ready();
    let client = gateway.client();
    let mut open: Vec<_> = (0..4).map(|_| client.open()).collect();
    for (number, wire) in open.iter_mut().enumerate() {
        wire.send(&client.call(&format!("open-{number}")));
    }
    upstream.wait_for_requests(4);
    for number in 0..20 {
        assert_eq!(client.once(&client.call(&format!("done-{number}"))).status, 200);
    }
    // An outcome is committed after its answer is written.
    gateway.audited(20);
    let stage = gateway.kill();
    let gateway = setup.start_on(stage);
    let records = gateway.audited(24);
    assert_eq!(records.len(), 24);
    assert_gap_free(&records);
    for record in &records {
        let wanted =
            if record["name"].as_str().unwrap().starts_with("open") { "unknown" } else { "done" };
        assert_eq!(record["outcome"], wanted, "{record}");
        assert_eq!(record["decision"], "permit", "{record}");
    }
    assert!(!gateway.said().is_empty());
    let stage = gateway.stop();
    assert_eq!(stage.audit().len(), 24, "and only once");
}

/// Killed at any moment under load: whatever an agent was answered, or the upstream was asked, is
/// there.
#[test]
fn r09_kill_9_under_load_loses_no_committed_decision() {
    let upstream = Upstream::echo();
    let setup = Setup::new(upstream.address);
    let mut stage = Some(setup.prepare());
    let mut answered = BTreeSet::new();
    for round in 0..5 {
        let gateway = setup.start_on(stage.take().unwrap());
        gateway.wait_until_ready();
        let client = gateway.client();
        let done = Arc::new(Mutex::new(BTreeSet::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let agents: Vec<_> = (0..2)
            .map(|agent| {
                let (client, done, stop) = (client.clone(), Arc::clone(&done), Arc::clone(&stop));
                thread::spawn(move || {
                    let mut wire = client.open();
                    for number in 0.. {
                        let name = format!("r{round}-a{agent}-n{number}");
                        use std::io::Write as _;
                        if wire.stream.write_all(client.call(&name).as_bytes()).is_err() {
                            break;
                        }
                        let Some(head) = wire.try_head() else { break };
                        let _ = wire.body(&head);
                        done.lock().unwrap().insert(name);
                        if stop.load(Ordering::SeqCst) {
                            break;
                        }
                    }
                })
            })
            .collect();
        eventually("requests were answered", || done.lock().unwrap().len() > 40 * (round + 1));
        stage = Some(gateway.kill());
        stop.store(true, Ordering::SeqCst);
        for agent in agents {
            agent.join().unwrap();
        }
        answered.append(&mut done.lock().unwrap());
    }
    let stage = setup.start_on(stage.unwrap()).stop();
    let records = stage.audit();
    assert_gap_free(&records);
    let names: Vec<_> =
        records.iter().map(|record| record["name"].as_str().unwrap().to_owned()).collect();
    let unique: BTreeSet<_> = names.iter().cloned().collect();
    assert_eq!(unique.len(), names.len(), "no record twice");
    assert!(answered.is_subset(&unique), "{:?}", answered.difference(&unique));
    for seen in upstream.seen() {
        let head = seen.head;
        let name = crate::client::header(&head, "mcp-name").unwrap();
        assert!(unique.contains(name), "the upstream was asked {name}");
    }
}

#[test]
fn f11_a_full_disk_refuses_requests_in_strict_mode_and_recovers_without_a_gap() {
    let upstream = Upstream::echo();
    let setup = Setup::new(upstream.address);
    let stage = setup.prepare();
    symlink("/dev/full", stage.path("audit.jsonl")).unwrap();
    let gateway = setup.start_on(stage);
    let client = gateway.client();
    // The first record finds the disk full; from then on nothing is decided without a record.
    let mut refused = None;
    eventually("strict audit refuses", || {
        let answer = client.once(&client.call("echo"));
        refused = Some(answer.clone());
        answer.status == 503 && answer.reason() == "audit_unavailable"
    });
    assert!(refused.unwrap().header("retry-after").is_some());
    let asked = upstream.requests();
    for _ in 0..10 {
        let answer = client.once(&client.call("echo"));
        assert_eq!((answer.status, answer.reason().as_str()), (503, "audit_unavailable"));
    }
    assert_eq!(upstream.requests(), asked, "the upstream hears nothing");
    let ready = gateway.admin("/readyz");
    assert_eq!(ready.status, 503);
    assert!(ready.text().contains("the audit cannot be written"), "{}", ready.text());
    assert_eq!(gateway.admin("/livez").status, 200);

    std::fs::remove_file(gateway.stage().path("audit.jsonl")).unwrap();
    gateway.signal(Signal::HUP);
    eventually("it serves again", || client.once(&client.call("echo")).status == 200);
    eventually("and is ready", || gateway.admin("/readyz").status == 200);
    let failed = r#"portcullis_audit_records_total{outcome="failed"}"#;
    eventually("the failures are counted", || gateway.metric(failed) > 0.5);
    let requests = gateway.metric("portcullis_requests_total");
    assert!(requests > 0.5);
    let stage = gateway.stop();
    let records = stage.audit();
    assert_gap_free(&records);
    let permitted = records.iter().filter(|record| record["decision"] == "permit").count();
    assert_eq!(permitted, upstream.requests(), "one record for each request that went through");
    let refused = records.iter().filter(|record| record["reason"] == "audit_unavailable").count();
    assert!(refused >= 10, "{refused} refusals on record");
}

#[test]
fn f11_in_availability_mode_a_full_disk_refuses_nobody() {
    let upstream = Upstream::echo();
    let audit = "path = \"audit.jsonl\"\nmode = \"availability\"";
    let setup = Setup::new(upstream.address).audit(audit);
    let stage = setup.prepare();
    symlink("/dev/full", stage.path("audit.jsonl")).unwrap();
    let gateway = setup.start_on(stage);
    eventually("keys are there", || {
        gateway.admin("/status").json()["trust_providers"][0]["keys"] == 1
    });
    let client = gateway.client();
    let failed = r#"portcullis_audit_records_total{outcome="failed"}"#;
    eventually("the disk is known to be full", || {
        assert_eq!(client.once(&client.call("echo")).status, 200);
        gateway.metric(failed) > 0.5
    });
    for _ in 0..10 {
        assert_eq!(client.once(&client.call("echo")).status, 200);
    }
}

#[test]
fn every_request_has_one_record_with_its_decision() {
    let upstream = Upstream::echo();
    let policy = "@id(\"only-echo\") permit (principal, action, resource) unless \
                  { resource == Tool::\"sample/drop\" };\n";
    let gateway = Setup::new(upstream.address).policies(policy).start();
    gateway.wait_until_ready();
    let client = gateway.client();
    let stranger = crate::client::Client { token: "no".to_owned(), ..client.clone() };
    client.once(&client.call("echo"));
    client.once(&client.call("drop"));
    stranger.once(&stranger.call("echo"));
    let nowhere = client.path("/mcp/other");
    nowhere.once(&nowhere.call("echo"));
    let mut wire = client.open();
    wire.send("GET / HTTP/1.1\r\nbroken\r\n\r\n");
    wire.answer();
    let records = gateway.stop().audit();
    assert_gap_free(&records);
    let seen: BTreeSet<(&str, &str)> = records
        .iter()
        .map(|r| (r["decision"].as_str().unwrap(), r["reason"].as_str().unwrap()))
        .collect();
    let wanted = BTreeSet::from([
        ("permit", "ok"),
        ("deny", "no_permit"),
        ("deny", "token_malformed"),
        ("deny", "http_malformed"),
    ]);
    assert_eq!((records.len(), seen), (5, wanted));
}
