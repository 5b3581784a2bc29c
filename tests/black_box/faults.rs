//! Faults around the gateway: keys, audit, load, reload, shutdown, TLS names, the admin pages.

use std::fs;
use std::process::{Command, Output};
use std::sync::Arc;

use serde_json::json;

use super::client::{Client, Way, connect, text};
use super::gateway::{DRIVERS, Driver, Gateway, until};
use super::identity::ok;
use super::setup::REMOTE;
use super::table::{Post, assert_silent};

/// F02, K06: without keys of a provider the gateway is not ready, and the admin pages say so.
#[test]
fn f02_k06_readiness_and_admin_pages() {
    for driver in DRIVERS {
        let gateway = Gateway::shared(driver);
        let _turn = gateway.turn();
        assert!(gateway.admin.ip().is_loopback());
        let ready = gateway.page("/readyz");
        assert_eq!(ready.status, 503);
        assert!(text(&ready.body).contains("no keys of trust provider nokeys"), "{ready:?}");
        gateway.ask(b"nonsense\r\n\r\n");
        assert_eq!(gateway.page("/livez").status, 200);
        assert_eq!(gateway.page("/secrets").status, 404);
        let status = gateway.page("/status").json();
        assert_eq!(status["ready"], false);
        until("the refusal is counted", || {
            let metrics = text(&gateway.page("/metrics").body);
            metrics.contains("portcullis_refusals_total{reason=\"http_malformed\"}")
        });
        let post = format!("POST /metrics HTTP/1.1\r\nHost: {}\r\n\r\n", gateway.admin);
        let answer = super::client::ask(gateway.admin, post.as_bytes());
        assert!(answer.status >= 400, "{answer:?}");
    }
}

/// F05: a poisoned key set never takes the place of a good one.
#[test]
fn f05_poisoned_keys_are_not_taken() {
    for driver in DRIVERS {
        let gateway = Gateway::start(driver, "");
        let keys = &gateway.keys;
        let mut claims = keys.claims("alice");
        claims["iss"] = json!(REMOTE);
        until("the keys are there", || ok(&gateway, &keys.signed(&claims)) == 403);
        let poison = [r#"{"keys":[]}"#, r#"{"keys":[{"kty":"oct","kid":"made-up-0","k":"AAAA"}]}"#];
        for (number, poison) in poison.iter().enumerate() {
            *gateway.key_server.document.lock().unwrap() = (*poison).to_owned();
            let before = gateway.key_server.count();
            let header = format!(r#"{{"alg":"ES256","kid":"made-up-{number}","typ":"at+jwt"}}"#);
            let forged = keys.jws(&header, &claims.to_string(), &keys.stranger);
            assert_eq!(ok(&gateway, &forged), 401);
            assert_eq!(gateway.key_server.count(), before + 1, "they were fetched, but not taken");
            assert_eq!(ok(&gateway, &keys.signed(&claims)), 403, "the good key still serves");
        }
    }
}

/// F11: what cannot be recorded is not done.
#[test]
fn f11_strict_audit_that_cannot_be_kept() {
    for driver in DRIVERS {
        let gateway = Gateway::start_with(driver, "", |directory| {
            let path = directory.join("gateway.toml");
            let toml = fs::read_to_string(&path).unwrap();
            let rings = directory.join("rings");
            fs::create_dir(&rings).unwrap();
            let full = format!("path = \"/dev/full\"\nring_directory = \"{}\"", rings.display());
            fs::write(path, toml.replace("path = \"audit.jsonl\"", &full)).unwrap();
        });
        let good = Post::new(&gateway).bytes();
        until("the disk is found to be full", || {
            let answer = gateway.ask(&good);
            answer.status == 503 && answer.reason() == "audit_unavailable"
        });
        let before = gateway.upstream.heard();
        let answer = gateway.ask(&good);
        assert_eq!((answer.status, answer.reason().as_str()), (503, "audit_unavailable"));
        assert_eq!(gateway.upstream.heard(), before, "nothing is forwarded unrecorded");
        assert_eq!(gateway.page("/readyz").status, 503);
    }
}

#[test]
fn v07_more_connections_than_allowed() {
    for driver in DRIVERS {
        let gateway = Gateway::start(driver, "[limits]\nconnections_per_core_max = 1\n");
        let turn = gateway.turn();
        let good = Post::new(&gateway).bytes();
        let mut kept = Vec::new();
        let mut away = 0;
        for _ in 0..12 {
            let mut client = Client::connect(gateway.address);
            client.send(&good, Way::Whole);
            let answer = client.answer().expect("also a refusal is an answer");
            if answer.status == 200 {
                kept.push(client);
                continue;
            }
            assert_eq!((answer.status, answer.reason().as_str()), (503, "overloaded"));
            assert!(answer.header("retry-after").is_some());
            assert!(client.ended());
            away += 1;
        }
        let cores = gateway.page("/status").json()["workers"].as_u64().unwrap() as usize;
        assert!(kept.len() <= cores && away >= 12 - cores, "{} kept, {away} refused", kept.len());
        let reasons = turn.reasons(&gateway, 12);
        assert_eq!(reasons.iter().filter(|reason| *reason == "overloaded").count(), away);
    }
}

/// R02: a stream that is open at SIGTERM ends between two events, and the exit code is 0.
#[test]
fn r02_an_open_stream_ends_cleanly_when_draining() {
    for driver in DRIVERS {
        let gateway = Gateway::start(driver, "");
        let turn = gateway.turn();
        let token = gateway.keys.token("alice");
        let mut client = Client::connect(gateway.address);
        let get = format!(
            "GET /mcp/tools HTTP/1.1\r\nHost: portcullis.localhost\r\nAccept: text/event-stream\r\n\
             Authorization: Bearer {token}\r\nMcp-Param-Script: stall-in-events\r\n\r\n"
        );
        let before = gateway.upstream.log().requests.len();
        client.send(get.as_bytes(), Way::Whole);
        until("the stream is open", || gateway.upstream.log().requests.len() > before);
        assert_eq!(gateway.terminate(), Some(0));
        let answer = client.answer().unwrap();
        assert_eq!(text(&answer.body), "data: first\n\n");
        assert!(answer.complete, "a clean end at an event boundary");
        assert_eq!(turn.reasons(&gateway, 1), ["draining"]);
    }
}

/// F16: a broken file changes nothing, and `check` says what is wrong.
#[test]
fn f16_a_bad_reload_keeps_the_old_configuration() {
    let gateway = Gateway::start(Driver::Epoll, "");
    let path = gateway.directory.join("gateway.toml");
    fs::write(gateway.directory.join("vanishing.key"), "CANARY").unwrap();
    assert_eq!(check(&path).status.code(), Some(0));
    let good = fs::read_to_string(&path).unwrap();
    fs::write(&path, good.replace("[admin]", "[admin]\nunknown_key = 1")).unwrap();
    assert_eq!(check(&path).status.code(), Some(1));
    let pid = rustix::process::Pid::from_raw(i32::try_from(gateway.pid()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
    until("the reload is refused", || {
        let metrics = text(&gateway.page("/metrics").body);
        metrics.contains("\nportcullis_config_last_reload_successful 0\n")
    });
    assert_eq!(ok(&gateway, &gateway.keys.token("alice")), 200);
    fs::write(&path, good).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
    until("the reload is taken", || {
        let metrics = text(&gateway.page("/metrics").body);
        metrics.contains("\nportcullis_config_last_reload_successful 1\n")
    });
    assert_eq!(ok(&gateway, &gateway.keys.token("alice")), 200);
}

/// O07: private and special addresses, in every spelling, are faults of the configuration.
#[test]
fn o07_addresses_that_nobody_may_name() {
    let gateway = Gateway::start(Driver::Epoll, "");
    let path = gateway.directory.join("gateway.toml");
    fs::write(gateway.directory.join("vanishing.key"), "CANARY").unwrap();
    let good = fs::read_to_string(&path).unwrap();
    for (host, status) in [("mcp.example.com", 0), ("93.184.215.14", 0)] {
        let server = format!("\n[[server]]\nname = \"x\"\nurl = \"https://{host}/mcp\"\n");
        fs::write(&path, good.clone() + &server).unwrap();
        assert_eq!(check(&path).status.code(), Some(status), "{host}");
    }
    for host in [
        "127.0.0.1",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "0x7f000001",
        "2130706433",
        "0177.0.0.1",
        "127.1",
        "169.254.169.254",
        "[fd00::1]",
        "0.0.0.0",
        "[::]",
        "localhost",
        "a.localhost",
        "10.0.0.1",
        "[::ffff:a9fe:a9fe]",
        "user@evil.test",
    ] {
        for what in [
            format!("\n[[server]]\nname = \"x\"\nurl = \"https://{host}/mcp\"\n"),
            format!(
                "\n[[trust_provider]]\nname = \"x\"\nnamespace = \"x\"\nissuer = \"https://x.test\"\n\
                 jwks_url = \"https://{host}/jwks\"\nuser_claim = \"sub\"\n"
            ),
        ] {
            fs::write(&path, good.clone() + &what).unwrap();
            let output = check(&path);
            assert_eq!(output.status.code(), Some(1), "{host}: {what}");
        }
    }
    // Link-local and metadata addresses stay refused whatever is trusted.
    let trusted = "\n[[server]]\nname = \"x\"\nurl = \"https://169.254.169.254/mcp\"\n\
                   trust_private_addresses = true\n";
    fs::write(&path, good + trusted).unwrap();
    assert_eq!(check(&path).status.code(), Some(1));
}

fn check(path: &std::path::Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_portcullis"))
        .args(["check", "--config"])
        .arg(path)
        .output()
        .unwrap()
}

/// S07: a request for another name than the one the connection was secured for.
#[test]
fn s07_sni_and_host_differ() {
    let certified = rcgen::generate_simple_self_signed(vec![NAME.to_owned(), OTHER.to_owned()]);
    let certified = certified.unwrap();
    let (certificate, key) = (certified.cert.pem(), certified.signing_key.serialize_pem());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certified.cert.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let client = Arc::new(client);
    for driver in DRIVERS {
        let tls = "[listen.tls]\ncertificate = \"tls.pem\"\nprivate_key = \"file:tls.key\"\n";
        let gateway = Gateway::start_with(driver, tls, |directory| {
            fs::write(directory.join("tls.pem"), &certificate).unwrap();
            fs::write(directory.join("tls.key"), &key).unwrap();
            let path = directory.join("gateway.toml");
            let toml = fs::read_to_string(&path).unwrap();
            let toml = toml.replace("http://portcullis.localhost", &format!("https://{NAME}"));
            let toml = toml.replace("origins =", &format!("hosts = [\"{OTHER}\"]\norigins ="));
            fs::write(path, toml).unwrap();
        });
        let turn = gateway.turn();
        for (sni, host, status) in
            [(NAME, NAME, 401), (OTHER, OTHER, 401), (NAME, OTHER, 421), (OTHER, NAME, 421)]
        {
            let answer = over_tls(&gateway, &client, sni, host);
            let line = format!("HTTP/1.1 {status} ");
            assert!(answer.starts_with(&line), "{sni} {host} on {driver:?}: {answer}");
        }
        let reasons = turn.reasons(&gateway, 4);
        assert_eq!(reasons, ["token_missing", "token_missing", "host_foreign", "host_foreign"]);
        // S04: plain HTTP to the TLS port is closed, and nothing breaks.
        let mut plain = Client::connect(gateway.address);
        plain.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", Way::Whole);
        plain.read_to_the_end();
        assert!(over_tls(&gateway, &client, NAME, NAME).starts_with("HTTP/1.1 401 "));
    }
}

fn over_tls(
    gateway: &Gateway,
    config: &Arc<rustls::ClientConfig>,
    sni: &str,
    host: &str,
) -> String {
    use std::io::{Read, Write};
    let name = rustls::pki_types::ServerName::try_from(sni.to_owned()).unwrap();
    let session = rustls::ClientConnection::new(Arc::clone(config), name).unwrap();
    let socket = connect(gateway.address);
    socket.set_read_timeout(Some(std::time::Duration::from_secs(15))).unwrap();
    let mut stream = rustls::StreamOwned::new(session, socket);
    let request = format!("POST /mcp/tools HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    text(&answer)
}

/// K01 in small: after many refusals of every kind nothing secret stands anywhere.
#[test]
fn k01_nothing_secret_is_written() {
    for driver in DRIVERS {
        let gateway = Gateway::shared(driver);
        let turn = gateway.turn();
        let keys = &gateway.keys;
        let expired = keys.with("exp", json!(1));
        for token in [keys.token("alice"), keys.token("mallory"), expired] {
            let post = Post::with_token(&token);
            for path in ["/mcp/tools", "/mcp/secret", "/nowhere", &format!("/mcp?token={token}")] {
                gateway.ask(&Post { path: path.to_owned(), ..post.clone() }.bytes());
            }
            let named = super::table::tool_call(&format!("CANARY{}", "x".repeat(9)));
            gateway.ask(&post.field(&format!("X-{token}: {token}")).body(named).bytes());
        }
        turn.records(&gateway, 15);
        // A tool's name is recorded by design; everything else is not.
        let written = gateway.everything_written().replace("CANARYxxxxxxxxx", "");
        assert_silent(&written, "what was written");
    }
}

const NAME: &str = "gateway.test";
const OTHER: &str = "other.test";
