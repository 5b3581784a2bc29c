//! What the admin listener says, and that the binary is what it claims to be.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::json;

use crate::client::{Wire, get};
use crate::gateway::{BINARY, Setup};
use crate::upstream::{RESULT, Then, Upstream, json as answer, say};
use crate::wait::eventually;

#[test]
fn f02_without_keys_it_lives_is_not_ready_and_refuses_with_503() {
    let upstream = Upstream::echo();
    let keys = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut setup = Setup::new(upstream.address).limits("keys_wait_ms_max = 200");
    setup.keys = format!("jwks_url = \"http://{keys}/jwks\"\ntrust_private_addresses = true");
    let gateway = setup.start();
    assert_eq!(gateway.admin("/livez").status, 200);
    let ready = gateway.admin("/readyz");
    assert_eq!(ready.status, 503);
    assert!(ready.text().contains("no keys of trust provider test"), "{}", ready.text());
    let client = gateway.client();
    let refused = client.once(&client.call("echo"));
    assert_eq!((refused.status, refused.reason().as_str()), (503, "jwks_unavailable"));
    assert!(refused.header("retry-after").is_some());
    assert_eq!(upstream.connections(), 0);

    // The keys come: it becomes ready by itself.
    let document = gateway.stage().read("jwks.json");
    let listener = std::net::TcpListener::bind(keys).unwrap();
    std::thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            let mut wire = Wire::new(stream);
            if wire.try_head().is_some() {
                let length = document.len();
                wire.send(&format!(
                    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\
                     content-length: {length}\r\nconnection: close\r\n\r\n{document}"
                ));
            }
        }
    });
    gateway.wait_until_ready();
    assert_eq!(client.once(&client.call("echo")).status, 200);
}

#[test]
fn metrics_are_a_sound_exposition_with_every_family_of_the_contract() {
    let upstream = Upstream::echo();
    let gateway = Setup::new(upstream.address).start();
    gateway.wait_until_ready();
    let client = gateway.client();
    for _ in 0..3 {
        assert_eq!(client.once(&client.call("echo")).status, 200);
    }
    client.path("/mcp/other").once(&client.path("/mcp/other").call("echo"));
    let permits = "portcullis_requests_total{server=\"sample\",method=\"tools/call\",\
                   decision=\"permit\",status=\"200\"}";
    eventually("requests are counted", || gateway.metric(permits) > 2.5);
    let text = gateway.admin("/metrics").text();
    let mut families = BTreeSet::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert!(families.insert(name.to_owned()), "a family stands in one place: {line}");
        } else if !line.starts_with('#') {
            let (series, value) = line.rsplit_once(' ').unwrap();
            assert!(value.parse::<f64>().is_ok(), "{line}");
            let name = series.split('{').next().unwrap();
            let family = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|suffix| name.strip_suffix(suffix))
                .filter(|family| families.contains(*family));
            assert!(families.contains(family.unwrap_or(name)), "{line}");
        }
    }
    for name in FAMILIES {
        assert!(families.contains(&format!("portcullis_{name}")), "{name} is missing");
    }
    promtool_agrees(&text);
}

/// Where Prometheus' own tool is installed, it must have nothing to say; CI has it.
fn promtool_agrees(text: &str) {
    let mut command = Command::new("promtool");
    command.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let Ok(mut child) = command.stderr(Stdio::piped()).spawn() else {
        assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "promtool is missing");
        eprintln!("SKIPPED: promtool is not there");
        return;
    };
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{words}");
}

#[test]
fn status_says_how_it_is() {
    let upstream = Upstream::start(|_, peer| {
        answer(peer, RESULT);
        say(peer, "");
        Then::Keep
    });
    let gateway = Setup::new(upstream.address).start();
    gateway.wait_until_ready();
    let status = gateway.admin("/status").json();
    assert_eq!(status["ready"], true, "{status}");
    assert_eq!(status["trust_providers"][0]["keys"], 1, "{status}");
    assert_eq!(status["workers"], status["cores"].as_array().unwrap().len(), "{status}");
    assert_eq!(status["config"]["last_reload_successful"], true, "{status}");
    let policy = json!({"policies": 1, "shadow_policies": 0, "warnings": []});
    assert_eq!(status["policy"], policy, "{status}");
    assert_eq!(status["revocation"], "by the 60 s lifetimes alone", "{status}");
    assert_eq!(get(gateway.admin, "/nothing").status, 404);
    let mut wire = Wire::open(gateway.admin);
    wire.send(&format!("POST /status HTTP/1.1\r\nhost: {}\r\n\r\n", gateway.admin));
    assert_eq!(wire.answer().status, 405);
    // Nothing of it is on the agents' listener.
    for path in ["/metrics", "/status", "/livez", "/readyz"] {
        assert_eq!(get(gateway.address, path).status, 404, "{path}");
    }
}

#[test]
fn upstream_connections_are_counted() {
    let upstream = Upstream::echo();
    let gateway = Setup::new(upstream.address).start();
    gateway.wait_until_ready();
    let client = gateway.client();
    assert_eq!(client.once(&client.call("echo")).status, 200);
    let idle = "portcullis_upstream_connections{server=\"sample\",state=\"idle\"}";
    eventually("the idle connection is seen", || gateway.metric(idle) > 0.5);
}

/// The header that asks for faults exists in the binary only with the feature.
#[test]
fn only_a_binary_with_the_feature_knows_injected_faults() {
    let bytes = std::fs::read(BINARY).unwrap();
    let holds = |wanted: &[u8]| bytes.windows(wanted.len()).any(|window| window == wanted);
    assert!(holds(b"x-content-type-options"), "a header that it does know");
    assert_eq!(holds(b"x-portcullis-fault"), cfg!(feature = "fault-injection"));
    assert_eq!(holds(b"injected fault"), cfg!(feature = "fault-injection"));
}

const FAMILIES: [&str; 19] = [
    "requests_total",
    "request_overhead_seconds",
    "request_duration_seconds",
    "refusals_total",
    "connections",
    "inflight",
    "jwks_refresh_total",
    "decision_cache_total",
    "credential_cache_total",
    "upstream_connections",
    "bus_notices_total",
    "bus_overflows_total",
    "audit_records_total",
    "loop_lag_seconds",
    "config_last_reload_successful",
    "policy_epoch",
    "policy_compile_seconds",
    "policy_reloads_total",
    "build_info",
];
