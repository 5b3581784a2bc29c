//! Ten thousand policies: one file of them changes while an agent goes on asking.

use std::fmt::Write;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::gateway::{Setup, server};
use crate::upstream::Upstream;
use crate::wait::{DEADLINE, eventually};

const SERVERS: usize = 100;
const OF_EACH: usize = 100;

/// The policies of one server: whoever asks is permitted, and ninety-nine forbids of which none
/// holds.
fn file(server: usize, more: &str) -> String {
    let mut text = format!(
        "@id(\"p{server}\") permit (principal, action, resource in Server::\"s{server}\");\n{more}"
    );
    for tool in 1..OF_EACH {
        let _ = writeln!(
            text,
            "@id(\"f{server}-{tool}\") forbid (principal in Group::\"g{tool}\", action == \
             Action::\"tools/call\", resource == Tool::\"s{server}/t{tool}\") when {{ \
             context.source.ip.isInRange(ip(\"10.{tool}.0.0/16\")) }};"
        );
    }
    text
}

/// What is asserted is the order of things; how long they took is printed.
#[test]
fn one_of_a_hundred_files_changes_beside_an_agent_that_asks() {
    let upstream = Upstream::echo();
    let url = format!("http://{}/mcp", upstream.address);
    let tables: String = (0..SERVERS).map(|at| server(&format!("s{at}"), &url, "")).collect();
    let connect = "@id(\"c\") permit (principal, action == Action::\"connect\", resource);\n";
    let setup = Setup::with_tables(&tables).policies(connect);
    let stage = setup.prepare();
    for at in 0..SERVERS {
        stage.write(&format!("policies/s{at}.cedar"), &file(at, ""));
    }
    let gateway = setup.start_on(stage);
    gateway.wait_until_ready();
    let watched = setup.configuration().replace("[policy]", "[policy]\nwatch = true");
    gateway.stage().write("gateway.toml", &watched);
    gateway.reload();
    let client = gateway.client().path("/mcp/s7");
    let over = AtomicBool::new(false);
    let took = thread::scope(|scope| {
        let agent = scope.spawn(|| {
            let mut wire = client.open();
            let (mut slowest, began) = (Duration::ZERO, Instant::now());
            // Should the change never come, this must not keep the test from saying so.
            while !over.load(Ordering::Relaxed) && began.elapsed() < 2 * DEADLINE {
                let asked = Instant::now();
                wire.send(&client.call("echo"));
                let answer = wire.answer();
                slowest = slowest.max(asked.elapsed());
                assert!(answer.status == 200 && answer.json()["error"].is_null());
                thread::park_timeout(Duration::from_millis(5));
            }
            slowest
        });
        let changed = Instant::now();
        let forbid = "@id(\"x\") forbid (principal, action, resource == Tool::\"s7/x\");\n";
        let text = file(7, forbid);
        fs::write(gateway.stage().path("policies/s7.cedar"), text).unwrap();
        eventually("the changed file decides", || {
            client.once(&client.call("x")).json()["error"]["code"] == 1403
        });
        let live = changed.elapsed();
        over.store(true, Ordering::Relaxed);
        (live, agent.join().unwrap())
    });
    let all = SERVERS * OF_EACH + 2;
    gateway.wait_until_said(&format!("policies={all}"));
    eprintln!("{all} policies: live after {:?}, slowest answer meanwhile {:?}", took.0, took.1);
}
