//! K01: canaries in every place where a secret stands, thousands of requests, also failing ones;
//! then everything that ever left the gateway is searched.

use std::sync::Arc;
use std::sync::Mutex;
use std::thread;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::client::Client;
use crate::gateway::{Setup, api_key, server};
use crate::upstream::{self, EVENTS, RESULT, Then, Upstream, chunk, json as answer, say};

const KEY: &str = "canary-key-7f3a9c";
const COOKIE: &str = "canary-cookie-51d0";
const UPSTREAM_SECRET: &str = "canary-upstream-set-cookie-88";

/// An upstream with every kind of trouble.
fn troubled() -> Upstream {
    Upstream::start(|seen, peer| match seen.number % 8 {
        0 => {
            upstream::status(peer, "401 Unauthorized", &format!("x-secret: {UPSTREAM_SECRET}\r\n"))
        }
        1 => upstream::status(peer, "302 Found", &format!("location: /{UPSTREAM_SECRET}\r\n")),
        2 => say(peer, "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 2\r\n\r\nhi"),
        3 => {
            say(peer, &format!("{EVENTS}{}", chunk("data: 1\n\n")));
            Then::Close
        }
        4 => upstream::status(
            peer,
            "500 Oops",
            &format!("set-cookie: {UPSTREAM_SECRET}\r\nserver: {UPSTREAM_SECRET}\r\n"),
        ),
        5 => Then::Close,
        _ => answer(peer, RESULT),
    })
}

#[test]
fn k01_no_canary_leaves_in_logs_audit_metrics_or_answers() {
    let upstream = troubled();
    let url = format!("http://{}/mcp", upstream.address);
    let place = "header = \"Authorization\"\nscheme = \"Bearer\"";
    let tables = server("sample", &url, "credential = \"key\"\ntimeout_seconds = 1");
    let tables = format!("{tables}{}", api_key("key", "[\"sample\"]", place, "up.key"));
    let limits = "head_ms_max = 500\nstall_ms_max = 500";
    let setup = Setup::with_tables(&tables).limits(limits);
    let stage = setup.prepare();
    stage.write("up.key", KEY);
    let gateway = setup.start_on(stage);
    gateway.wait_until_ready();
    let good = gateway.client();
    let forged = forge(&good.token);
    let heard = Arc::new(Mutex::new(Vec::new()));
    let agents: Vec<_> = (0..2)
        .map(|agent| {
            let clients = [good.clone(), Client { token: forged.clone(), ..good.clone() }];
            let heard = Arc::clone(&heard);
            thread::spawn(move || {
                for round in 0..ROUNDS {
                    let client = &clients[usize::from((round + agent) % 5 == 0)];
                    let mut bytes = ask(client, round);
                    heard.lock().unwrap().append(&mut bytes);
                }
            })
        })
        .collect();
    for agent in agents {
        agent.join().unwrap();
    }
    // A broken reload says what is wrong, and not with what.
    gateway.stage().write("gateway.toml", &format!("{}\nbad = \"{KEY}\"", setup.configuration()));
    gateway.reload();
    let metrics = gateway.admin("/metrics").text();
    let status = gateway.admin("/status").text();
    let environment = gateway.proc_file("environ") + &gateway.proc_file("cmdline");
    assert!(upstream.requests() > usize::from(ROUNDS) / 2, "{}", upstream.requests());
    let answers = String::from_utf8_lossy(&heard.lock().unwrap()).into_owned();
    assert!(answers.contains("upstream_redirect") && answers.contains("token_"), "errors were met");
    let said = gateway.said();
    let folder = gateway.stop();
    let audit = folder.read("audit.jsonl");
    assert!(audit.lines().count() >= 2 * usize::from(ROUNDS) - 10);

    let signature = |token: &str| token.rsplit('.').next().unwrap().to_owned();
    let claims = |token: &str| token.split('.').nth(1).unwrap().to_owned();
    let secrets = [
        KEY.to_owned(),
        STANDARD.encode(KEY),
        COOKIE.to_owned(),
        UPSTREAM_SECRET.to_owned(),
        signature(&good.token),
        claims(&good.token),
        signature(&forged),
    ];
    let places = [
        ("answers", &answers),
        ("log", &said),
        ("audit", &audit),
        ("metrics", &metrics),
        ("status", &status),
        ("environment", &environment),
    ];
    for secret in &secrets {
        for (place, text) in places {
            assert!(!text.contains(secret.as_str()), "{secret} in {place}");
        }
    }
    for seen in upstream.seen() {
        let all = seen.head + &String::from_utf8_lossy(&seen.body);
        assert!(all.contains(KEY), "the credential goes along: {all}");
        for secret in [COOKIE, &signature(&good.token), &claims(&good.token)] {
            assert!(!all.contains(secret), "{secret} at the upstream: {all}");
        }
    }
}

/// One request of a kind that depends on `round`; everything that came back.
fn ask(client: &Client, round: u16) -> Vec<u8> {
    use std::io::Read as _;
    let client = client.extra(&format!("cookie: session={COOKIE}\r\nconnection: close\r\n"));
    let request = match round % 7 {
        0 => client.list(),
        1 => client.path("/mcp/unknown").call("echo"),
        2 => client.call("echo").replacen("\"jsonrpc\"", "xjsonrpcx", 1),
        3 => client.call("echo").replacen("mcp-method: ", "mcp-method: x", 1),
        4 => client.path(&format!("/nowhere?access_token={}", client.token)).call("echo"),
        5 => client.extra("bad header line\r\n").call("echo"),
        _ => client.call("echo"),
    };
    let mut wire = client.open();
    wire.send(&request);
    let mut bytes = Vec::new();
    let _ = wire.stream.read_to_end(&mut bytes);
    bytes
}

/// The same token with another signature.
fn forge(token: &str) -> String {
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let reversed: String = signature.chars().rev().collect();
    format!("{signed}.{reversed}")
}

const ROUNDS: u16 = 1_000;
