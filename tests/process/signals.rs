//! SIGTERM drains, SIGHUP reloads: all of it or nothing.

use std::fs;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use crate::client::status;
use crate::gateway::{Gateway, PERMIT_ALL, Setup, server};
use crate::upstream::{EVENTS, Gate, Then, Upstream, chunk, json as answer, say};
use crate::wait::eventually;

/// An upstream that answers each request when the gate is pushed.
fn gated() -> (std::sync::mpsc::Sender<()>, Upstream) {
    let (open, gate) = Gate::new();
    let upstream = Upstream::start(move |_, peer| {
        if gate.pass() { answer(peer, crate::upstream::RESULT) } else { Then::Close }
    });
    (open, upstream)
}

#[test]
fn r02_sigterm_finishes_what_is_in_flight_closes_what_is_idle_and_exits_0() {
    let (open, upstream) = gated();
    let mut gateway = Setup::new(upstream.address).start();
    gateway.wait_until_ready();
    let client = gateway.client();
    open.send(()).unwrap();
    let mut idle = client.open();
    idle.send(&client.call("first"));
    assert_eq!(idle.answer().status, 200);
    let mut busy = client.open();
    busy.send(&client.call("second"));
    upstream.wait_for_requests(2);
    gateway.signal(Signal::TERM);
    gateway.wait_until_said("draining");
    assert!(idle.ended(), "an idle connection is closed while another is busy");
    open.send(()).unwrap();
    let last = busy.answer();
    assert_eq!(last.status, 200);
    assert_eq!(last.header("connection"), Some("close"), "{}", last.head);
    assert!(busy.ended());
    assert_eq!(gateway.wait().code(), Some(0), "{}", gateway.said());
    let records = gateway.stage().audit();
    let names: Vec<_> = records.iter().filter_map(|record| record["name"].as_str()).collect();
    assert_eq!(names.len(), 2, "{records:?}");
    assert!(records.iter().all(|record| record["outcome"] == "done"), "{records:?}");
}

#[test]
fn r02_sigterm_ends_event_streams_at_an_event_boundary() {
    let (open, gate) = Gate::new();
    let upstream = Upstream::start(move |_, peer| {
        say(peer, EVENTS);
        while gate.pass() {
            if let Then::Close = say(peer, &chunk("id: 1\ndata: {}\n\n")) {
                break;
            }
        }
        Then::Close
    });
    let mut gateway = Setup::new(upstream.address).start();
    gateway.wait_until_ready();
    let client = gateway.client();
    let mut stream = client.open();
    stream.send(&format!("{}\r\n", client.head("GET")));
    assert_eq!(status(&stream.read_head()), 200);
    open.send(()).unwrap();
    assert_eq!(stream.chunk().unwrap(), b"id: 1\ndata: {}\n\n");
    gateway.signal(Signal::TERM);
    assert_eq!(stream.chunk().expect("a clean end"), b"");
    assert_eq!(gateway.wait().code(), Some(0), "{}", gateway.said());
    let records = gateway.stage().audit();
    assert_eq!(records[0]["reason"], "draining", "{records:?}");
}

#[test]
fn r02_a_drain_has_a_limit_and_a_second_sigterm_does_not_wait() {
    for second in [false, true] {
        let (open, upstream) = gated();
        let limit = if second { 600_000 } else { 300 };
        let limits = format!("drain_ms_max = {limit}");
        let mut gateway = Setup::new(upstream.address).limits(&limits).start();
        gateway.wait_until_ready();
        let client = gateway.client();
        let mut busy = client.open();
        busy.send(&client.call("never"));
        upstream.wait_for_requests(1);
        gateway.signal(Signal::TERM);
        gateway.wait_until_said("draining");
        if second {
            gateway.signal(Signal::TERM);
        }
        let began = Instant::now();
        let ended = gateway.wait();
        assert_eq!(ended.success(), !second, "{ended:?}");
        assert!(began.elapsed() < Duration::from_secs(5));
        assert!(busy.try_head().is_none());
        drop(open);
    }
}

#[test]
fn sighup_takes_a_new_policy_and_keeps_the_old_one_when_the_new_is_broken() {
    let upstream = Upstream::echo();
    let gateway = Setup::new(upstream.address).start();
    gateway.wait_until_ready();
    let client = gateway.client();
    let allowed = |tool: &str| client.once(&client.call(tool)).json().get("result").is_some();
    assert!(allowed("drop"));
    assert!(gateway.metric("portcullis_config_last_reload_successful") > 0.5);

    let stage = gateway.stage();
    stage.write("policies/all.cedar", &format!("{PERMIT_ALL}{}", forbid("drop")));
    gateway.reload();
    eventually("the new policy decides", || !allowed("drop"));
    assert!(allowed("echo"));
    let epoch = gateway.metric("portcullis_policy_epoch");
    assert!(epoch > 1.5, "{epoch}");

    stage.write("policies/all.cedar", &format!("{PERMIT_ALL}\n@id(\"x\")\nforbid (principal,;"));
    gateway.reload();
    assert!(!allowed("drop"), "the old policy stays");
    assert!(allowed("echo"));
    assert!(gateway.said().contains("all.cedar:4:"), "FILE:LINE:COLUMN: {}", gateway.said());
    assert!(gateway.metric("portcullis_config_last_reload_successful") < 0.5);
    assert!((gateway.metric("portcullis_policy_epoch") - epoch).abs() < 0.5);

    stage.write("policies/all.cedar", PERMIT_ALL);
    gateway.reload();
    eventually("the repaired policy decides", || allowed("drop"));
    assert!(gateway.metric("portcullis_config_last_reload_successful") > 0.5);
}

#[test]
fn f16_a_broken_configuration_changes_nothing_even_when_the_policy_beside_it_is_new() {
    let upstream = Upstream::echo();
    let setup = Setup::new(upstream.address);
    let gateway = setup.start();
    gateway.wait_until_ready();
    let client = gateway.client();
    let stage = gateway.stage();
    stage.write("policies/all.cedar", &format!("{PERMIT_ALL}{}", forbid("echo")));
    let broken = setup.configuration().replace("[policy]", "[policy]\nwrong = 1");
    stage.write("gateway.toml", &broken);
    gateway.reload();
    assert_eq!(client.once(&client.call("echo")).json()["error"], json!(null));
    let line = broken.lines().position(|line| line == "wrong = 1").unwrap() + 1;
    let place = format!("gateway.toml:{line}:1:");
    assert!(gateway.said().contains(&place), "{place}: {}", gateway.said());
    assert!(gateway.metric("portcullis_config_last_reload_successful") < 0.5);
}

#[test]
fn sighup_adds_and_removes_servers_while_connections_stay() {
    let (first, second) = (Upstream::echo(), Upstream::echo());
    let table = |name: &str, at: &Upstream| server(name, &format!("http://{}/mcp", at.address), "");
    let one = table("sample", &first);
    let gateway = Setup::with_tables(&one).start();
    gateway.wait_until_ready();
    let client = gateway.client();
    let mut wire = client.open();
    let mut ask = |path: &str| {
        wire.send(&client.path(path).call("echo"));
        wire.answer().status
    };
    assert_eq!(ask("/mcp/other"), 403);
    let both = format!("{}{one}", table("other", &second));
    gateway.stage().write("gateway.toml", &Setup::with_tables(&both).configuration());
    gateway.reload();
    eventually("the new server serves", || ask("/mcp/other") == 200);
    assert_eq!(second.requests(), 1);
    assert_eq!(ask("/mcp/sample"), 200, "its place in the list changed, its meaning did not");
    assert_eq!(second.requests(), 1);
    gateway.stage().write("gateway.toml", &Setup::with_tables(&one).configuration());
    gateway.reload();
    eventually("the removed server is gone", || ask("/mcp/other") == 403);
    assert_eq!(ask("/mcp/sample"), 200);
}

#[test]
fn an_open_stream_is_judged_again_after_a_policy_change_and_cut() {
    for driver in ["auto", "epoll"] {
        let upstream = Upstream::start(move |_, peer| {
            say(peer, EVENTS);
            say(peer, &chunk("data: {}\n\n"));
            // Until the gateway leaves.
            let _ = peer.read(&mut [0]);
            Then::Close
        });
        let setup = Setup::new(upstream.address).cores(&format!("driver = \"{driver}\""));
        let gateway = setup.start();
        gateway.wait_until_ready();
        let client = gateway.client();
        let mut stream = client.open();
        stream.send(&client.call("watch"));
        assert_eq!(status(&stream.read_head()), 200);
        assert_eq!(stream.chunk().unwrap(), b"data: {}\n\n");
        gateway.stage().write("policies/all.cedar", &format!("{PERMIT_ALL}{}", forbid("other")));
        gateway.reload();
        gateway.stage().write("policies/all.cedar", &format!("{PERMIT_ALL}{}", forbid("watch")));
        gateway.reload();
        assert!(stream.chunk().is_none(), "cut, without a clean end");
        eventually("the upstream is let go", || upstream.left() == 1);
        let record = &gateway.audited(1)[0];
        assert_eq!(record["reason"], "forbidden", "{record}");
        assert_eq!(record["decision"], "permit", "{record}");
    }
}

/// The arguments of a call under way were read by what policies asked for when it came; its body is
/// with the upstream. What new policies ask for besides is not guessed.
#[test]
fn an_answer_whose_arguments_new_policies_ask_for_is_cut() {
    let (open, gate) = Gate::new();
    let upstream = Upstream::start(move |_, peer| {
        say(peer, EVENTS);
        while gate.pass() {
            if let Then::Close = say(peer, &chunk("data: {}\n\n")) {
                break;
            }
        }
        Then::Close
    });
    let gateway = Setup::new(upstream.address).start();
    gateway.wait_until_ready();
    let client = gateway.client();
    let mut stream = client.open();
    stream.send(&client.call("watch"));
    assert_eq!(status(&stream.read_head()), 200);
    let mut next = || {
        open.send(()).unwrap();
        stream.chunk()
    };
    assert_eq!(next().unwrap(), b"data: {}\n\n");
    let types = |tool: &str| format!("@tool(\"sample/{tool}\") type T = {{ path: String }};");
    let asking = |tool: &str| {
        let arguments = format!("context.arguments[\"sample/{tool}\"]");
        format!(
            "{PERMIT_ALL}\n@id(\"paths\") forbid (principal, action, resource) when {{ \
             context.arguments has \"sample/{tool}\" && {arguments} has path && \
             {arguments}.path == \"secret\" }};"
        )
    };
    fs::create_dir(gateway.stage().path("policies/schema.d")).unwrap();
    for (tool, goes_on) in [("other", true), ("watch", false)] {
        gateway.stage().write("policies/schema.d/t.cedarschema", &types(tool));
        gateway.stage().write("policies/all.cedar", &asking(tool));
        gateway.reload();
        // A new call is judged by the new policies; then so is what is under way.
        assert_eq!(client.once(&client.path("/mcp/none").call("x")).status, 403);
        if goes_on {
            assert_eq!(next().unwrap(), b"data: {}\n\n");
        } else {
            assert!((0..1_000).any(|_| next().is_none()), "cut");
        }
    }
    let records = gateway.audited(3);
    let record = records.iter().find(|record| record["name"] == "watch").unwrap();
    assert_eq!(
        (&record["decision"], &record["reason"]),
        (&json!("permit"), &json!("stream_denied"))
    );
}

#[test]
fn sighup_opens_the_audit_file_anew() {
    let upstream = Upstream::echo();
    let gateway = Setup::new(upstream.address).start();
    gateway.wait_until_ready();
    let client = gateway.client();
    client.once(&client.call("before"));
    gateway.audited(1);
    let (old, new) = (gateway.stage().path("audit.1"), gateway.stage().path("audit.jsonl"));
    fs::rename(&new, &old).unwrap();
    gateway.reload();
    eventually("the file is there again", || new.exists());
    client.once(&client.call("after"));
    let records = gateway.audited(1);
    assert_eq!(records[0]["name"], "after");
    let stage = gateway.stop();
    assert_eq!(stage.read("audit.1").lines().count(), 1, "nothing more went to the old file");
}

#[test]
fn a_stopped_gateway_leaves_its_port_to_the_next_one() {
    let upstream = Upstream::echo();
    let mut setup = Setup::new(upstream.address);
    let gateway: Gateway = setup.start();
    setup.address = gateway.address.to_string();
    gateway.wait_until_ready();
    let client = gateway.client();
    assert_eq!(client.once(&client.call("echo")).status, 200);
    let stage = gateway.stop();
    let gateway = setup.start_on(stage);
    gateway.wait_until_ready();
    assert_eq!(client.once(&client.call("echo")).status, 200, "the same token still counts");
}

fn forbid(tool: &str) -> String {
    format!(
        "@id(\"no-{tool}\") forbid (principal, action == Action::\"tools/call\", \
         resource == Tool::\"sample/{tool}\");\n"
    )
}

/// A stream whose server has not said one byte yet has no event boundary to wait for.
#[test]
fn r02_sigterm_does_not_wait_for_a_stream_without_a_head() {
    let upstream = Upstream::start(|_, peer| {
        let _ = peer.read(&mut [0]);
        Then::Close
    });
    let mut gateway = Setup::new(upstream.address).limits("drain_ms_max = 600000").start();
    gateway.wait_until_ready();
    let client = gateway.client();
    let mut stream = client.open();
    stream.send(&format!("{}\r\n", client.head("GET")));
    upstream.wait_for_requests(1);
    gateway.signal(Signal::TERM);
    let refused = stream.answer();
    assert_eq!((refused.status, refused.reason().as_str()), (503, "draining"));
    assert!(stream.ended());
    assert_eq!(gateway.wait().code(), Some(0), "{}", gateway.said());
}

#[test]
fn sighup_refuses_a_limit_that_is_fixed_when_a_core_starts() {
    let upstream = Upstream::echo();
    let setup = Setup::new(upstream.address);
    let gateway = setup.start();
    gateway.wait_until_ready();
    let other = setup.limits("upstream_idle_per_core_max = 3").configuration();
    gateway.stage().write("gateway.toml", &other);
    gateway.reload();
    assert!(gateway.said().contains("upstream_idle_per_core_max change only with a restart"));
    assert!(gateway.metric("portcullis_config_last_reload_successful") < 0.5);
}
