//! Every subcommand over loopback: the binary itself, against its own upstream or a scripted
//! server.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // helpers of tests are tests too

mod common;

use std::io::{BufRead, BufReader, Lines};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine;
use ring::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use serde_json::{Value, json};

use common::{Folder, Scripted, Upstream, ask, http_answer, load, run};

#[test]
fn a_closed_loop_counts_what_the_upstream_saw() {
    let upstream = Upstream::start(&[]);
    let watch = format!("up={}", upstream.pid());
    let report = run(&upstream.address, &["--connections", "4", "--watch", &watch]);
    assert_eq!(report["errors"], json!({}));
    assert_eq!(report["errors_outside_window"], 0);
    let requests = report["requests"].as_u64().unwrap();
    assert!(requests > 50, "{report}");
    assert!(report["latency_us"]["p50"].as_f64().unwrap() > 1.0);
    assert!(report["bytes_in"].as_u64().unwrap() > requests * 300);
    assert!(report["watch"]["up"]["cpu_ns"].as_u64().unwrap() > 0);
    assert!(report["generator"]["cpu_ns"].as_u64().unwrap() > 0);
    let seen = upstream.finish();
    assert!(seen["requests"].as_u64().unwrap() >= requests, "{seen}");
    assert_eq!((&seen["with_key"], &seen["with_authorization"]), (&json!(0), &json!(0)));
}

#[test]
fn an_open_loop_sends_exactly_what_is_due() {
    let upstream = Upstream::start(&[]);
    let report = run(&upstream.address, &["--connections", "8", "--rate", "500"]);
    assert_eq!(report["errors"], json!({}));
    let count = report["latency_us"]["count"].as_u64().unwrap();
    assert!((499..=501).contains(&count), "{report}");
    assert_eq!(report["rate"], 500);
}

#[test]
fn a_busy_generator_keeps_its_rate_over_a_short_window() {
    let upstream = Upstream::start(&[]);
    let fixed = ["run", "--target", &upstream.address, "--seconds", "0.5", "--warm", "0"];
    let arguments = ["--connections", "8", "--rate", "500", "--busy"];
    let report: Value = serde_json::from_str(&ask(&[&fixed[..], &arguments].concat())).unwrap();
    assert_eq!((&report["errors"], &report["seconds"]), (&json!({}), &json!(0.5)), "{report}");
    assert!((200..=300).contains(&report["requests"].as_u64().unwrap()), "{report}");
}

#[test]
fn a_server_that_stalls_once_shows_in_the_p99_of_an_open_loop() {
    // The 50th request takes 400 ms; a closed loop would see one slow request, here 400 ms of them
    // wait.
    let server = Scripted::start(|number, id| {
        if number == 50 {
            std::thread::sleep(Duration::from_millis(400));
        }
        http_answer(&format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{{}}}}"))
    });
    let arguments = ["--connections", "1", "--rate", "100", "--length-slack", "300"];
    let report = run(&server.address, &arguments);
    assert_eq!(report["errors"], json!({}));
    let p90 = report["latency_us"]["p90"].as_f64().unwrap();
    let p99 = report["latency_us"]["p99"].as_f64().unwrap();
    assert!(p99 > 300_000.0 && p90 > 200_000.0, "{report}");
}

#[test]
fn sizes_methods_and_slow_shares_are_answered_as_asked() {
    let upstream = Upstream::start(&[]);
    for arguments in [
        ["--tool", "answer_16384", "--body-bytes", "16384"],
        ["--tool", "answer_1048576", "--body-bytes", "300"],
        ["--method", "tools/list", "--tool", "answer_300"],
    ] {
        let report = run(&upstream.address, &[&["--connections", "2"], &arguments[..]].concat());
        assert_eq!(report["errors"], json!({}), "{arguments:?}");
        assert!(report["requests"].as_u64().unwrap() > 5, "{report}");
    }
    let slow = ["--connections", "8", "--slow-percent", "10", "--slow-tool", "slow_60"];
    let report = run(&upstream.address, &slow);
    assert_eq!(report["errors"], json!({}));
    assert!(report["slow_latency_us"]["p50"].as_f64().unwrap() >= 60_000.0, "{report}");
    let (fast, late) = (&report["latency_us"]["count"], &report["slow_latency_us"]["count"]);
    let share = late.as_f64().unwrap() / (late.as_f64().unwrap() + fast.as_f64().unwrap());
    assert!((0.05..0.15).contains(&share), "{report}");
}

#[test]
fn streams_give_the_delay_of_every_event() {
    let upstream = Upstream::start(&[]);
    let arguments = ["--connections", "4", "--streams", "--tool", "sse_20_2000"];
    let report = run(&upstream.address, &arguments);
    assert_eq!(report["errors"], json!({}));
    let events = &report["events"];
    assert!(events["count"].as_u64().unwrap() > 100, "{report}");
    assert_eq!((&events["lost"], &events["reordered"]), (&json!(0), &json!(0)));
    assert!(events["p50"].as_f64().unwrap() > 0.5, "{report}");
}

#[test]
fn lost_and_reordered_events_are_counted() {
    // 0, 1, 3 (2 lost), 1 again (reordered), and 4 to 9 never come.
    let server = Scripted::start(|_, id| {
        let event = |number: u32| format!("data: {{\"seq\":\"{number}\",\"ns\":\"1\"}}\n\n");
        let last =
            format!("data: {{\"id\":{id},\"result\":{{\"text\":\"{}\"}}}}\n\n", "x".repeat(300));
        let body: String = [0, 1, 3, 1].map(event).concat() + &last;
        format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
    });
    let arguments =
        ["--connections", "1", "--streams", "--tool", "sse_10_1000", "--length-slack", "300"];
    let report = run(&server.address, &arguments);
    let (lost, reordered) = (&report["events"]["lost"], &report["events"]["reordered"]);
    let (lost, reordered) = (lost.as_u64().unwrap(), reordered.as_u64().unwrap());
    // Where the window cuts a stream, one of the two may be off by what one stream has.
    assert!(reordered > 3 && lost.abs_diff(reordered * 7) <= 7, "{report}");
}

#[test]
fn every_wrong_answer_is_counted_by_its_kind() {
    for (kind, answer) in [
        ("id", "{\"id\":7,\"result\":{}}"),
        ("rpc_error", "{\"id\":ID,\"error\":{\"code\":1403}}"),
        ("tool_error", "{\"id\":ID,\"result\":{\"isError\":true}}"),
        ("length", "{\"id\":ID,\"result\":{}}"),
    ] {
        let server = Scripted::start(move |_, id| http_answer(&answer.replace("ID", id)));
        assert_only_error(&server, kind);
    }
    for (kind, head) in [
        ("status_401", "HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n"),
        ("malformed", "SSH-2.0-OpenSSH\r\n\r\n"),
        ("extra_bytes", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nab"),
    ] {
        assert_only_error(&Scripted::start(move |_, _| head.to_owned()), kind);
    }
    // An answer that is cut short, and the connection with it.
    let cut = Scripted::start(|_, _| "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nEND".to_owned());
    assert_only_error(&cut, "closed");
}

fn assert_only_error(server: &Scripted, kind: &str) {
    let report = run(&server.address, &["--connections", "1"]);
    let errors = report["errors"].as_object().unwrap();
    assert_eq!(errors.keys().collect::<Vec<_>>(), [kind], "{report}");
    assert!(errors[kind].as_u64().unwrap() > 3 && report["requests"] == 0, "{report}");
}

#[test]
fn a_connection_per_request_is_one() {
    let server = Scripted::start(|number, id| {
        // The scripted server counts requests per connection: the first is the only one.
        assert_eq!(number % Scripted::PER_CONNECTION, 0, "a connection was used again");
        http_answer(&format!("{{\"id\":{id}}}"))
    });
    let arguments = ["--connections", "2", "--new-connections", "--length-slack", "300"];
    let report = run(&server.address, &arguments);
    assert_eq!(report["errors"], json!({}));
    assert!(report["requests"].as_u64().unwrap() > 10, "{report}");
}

#[test]
fn tokens_of_both_kinds_are_signed_and_used_in_turn() {
    let folder = Folder::new("tokens");
    let public = folder.openssl_key("rsa.pem", &["RSA", "-pkeyopt", "rsa_keygen_bits:2048"]);
    let lines = ask(&[
        "tokens",
        "--key",
        &folder.path("rsa.pem"),
        "--alg",
        "RS256",
        "--kid",
        "r",
        "--count",
        "3",
        "--issuer",
        "https://idp.example.com",
        "--audience",
        "http://portcullis.localhost",
        "--claim",
        "groups=[\"engineering\"]",
    ]);
    let tokens: Vec<&str> = lines.lines().collect();
    assert_eq!(tokens.len(), 3);
    let base64 = base64::engine::general_purpose::URL_SAFE_NO_PAD;
    for (number, token) in tokens.iter().enumerate() {
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let key = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, &public);
        key.verify(signed.as_bytes(), &base64.decode(signature).unwrap()).unwrap();
        let claims = base64.decode(signed.split_once('.').unwrap().1).unwrap();
        let claims: Value = serde_json::from_slice(&claims).unwrap();
        assert_eq!(claims["sub"], format!("user-{number}"));
        assert_eq!(claims["groups"], json!(["engineering"]));
    }
    std::fs::write(folder.path("tokens"), &lines).unwrap();
    let upstream = Upstream::start(&[]);
    let report =
        run(&upstream.address, &["--connections", "2", "--tokens", &folder.path("tokens")]);
    assert_eq!(report["errors"], json!({}));
    let seen = upstream.finish();
    assert_eq!(seen["with_authorization"], seen["requests"]);
}

#[test]
fn tls_runs_handshakes_and_idle_connections() {
    let folder = Folder::new("tls");
    folder.certificate();
    let (certificate, key) = (folder.path("cert.pem"), folder.path("key.pem"));
    let upstream = Upstream::start(&["--tls-cert", &certificate, "--tls-key", &key]);
    let tls = ["--tls-ca", &certificate, "--server-name", "portcullis.localhost"];
    let large = ["--connections", "4", "--tool", "answer_1048576"];
    for arguments in
        [&["--connections", "4"][..], &large, &["--connections", "2", "--new-connections"]]
    {
        let report = run(&upstream.address, &[&tls, arguments].concat());
        assert_eq!(report["errors"], json!({}), "{arguments:?}");
        assert!(report["requests"].as_u64().unwrap() > 5, "{report}");
    }
    let line = ask(&[
        &["handshakes", "--target", &upstream.address, "--seconds", "1", "--warm", "0"][..],
        &tls,
    ]
    .concat());
    let report: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(report["errors"], json!({}));
    assert!(report["requests"].as_u64().unwrap() > 5, "{report}");
    // A name that is not in the certificate: every handshake is an error, and the report says why.
    let wrong = ["--tls-ca", &certificate, "--server-name", "other.localhost"];
    let report = run(
        &upstream.address,
        &[&wrong, &["--connections", "1", "--new-connections"][..]].concat(),
    );
    let errors = report["errors"].as_object().unwrap();
    assert_eq!(errors.keys().collect::<Vec<_>>(), ["handshake"], "{report}");
    assert_eq!(report["requests"], 0);
    assert!(report["last_failure"].as_str().unwrap().contains("certificate"), "{report}");

    let idle = ["idle", "--target", &upstream.address, "--connections", "9"];
    let (mut idle, mut lines) = idle_clients(&[&idle, &tls[..]].concat());
    assert_eq!(lines.next().unwrap().unwrap(), "READY 9");
    assert!(idle.try_wait().unwrap().is_none(), "it holds");
    drop(idle.stdin.take());
    assert_eq!(lines.next().unwrap().unwrap(), "{\"closed_by_peer\":0,\"held\":9}");
    assert!(idle.wait().unwrap().success());
}

#[test]
fn idle_connections_that_the_server_ends_are_told() {
    let upstream = Upstream::start(&[]);
    let idle = ["idle", "--target", &upstream.address, "--connections", "3"];
    let (mut idle, mut lines) = idle_clients(&idle);
    assert_eq!(lines.next().unwrap().unwrap(), "READY 3");
    upstream.finish();
    drop(idle.stdin.take());
    assert_eq!(lines.next().unwrap().unwrap(), "{\"closed_by_peer\":3,\"held\":3}");
    assert!(idle.wait().unwrap().success());
}

fn idle_clients(arguments: &[&str]) -> (Child, Lines<BufReader<ChildStdout>>) {
    let mut idle = load(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(idle.stdout.take().unwrap()).lines();
    (idle, lines)
}

#[test]
fn a_spinner_runs_behind_everything_else() {
    let mut spin = load(&["spin", "--cpus", "0"]).spawn().unwrap();
    let limit = Instant::now() + Duration::from_secs(30);
    let idle = loop {
        if policies(spin.id()).iter().any(|policy| policy == "5") {
            break true;
        }
        if Instant::now() > limit || spin.try_wait().unwrap().is_some() {
            break false;
        }
        std::thread::yield_now();
    };
    spin.kill().unwrap();
    spin.wait().unwrap();
    assert!(idle, "no thread of the spinner is SCHED_IDLE");
}

/// The scheduling policies of a process's threads: field 41 of their stat.
fn policies(pid: u32) -> Vec<String> {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let stat = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("stat")).ok();
    let policy =
        |stat: String| Some(stat.rsplit_once(')')?.1.split_whitespace().nth(38)?.to_owned());
    tasks.flatten().filter_map(stat).filter_map(policy).collect()
}

#[test]
fn faults_name_the_cure() {
    let nobody = "127.0.0.1:1";
    for (arguments, told) in [
        (
            &["run", "--target", nobody, "--connections", "4", "--seconds", "1"][..],
            "failed in a row",
        ),
        (
            &["run", "--target", nobody, "--connections", "1", "--seconds", "1", "--tool", "x"],
            "answer_N",
        ),
        (
            &[
                "run",
                "--target",
                nobody,
                "--connections",
                "1",
                "--seconds",
                "1",
                "--body-bytes",
                "9",
            ],
            "at least",
        ),
        (
            &["run", "--target", nobody, "--connections", "1", "--seconds", "1", "--streams"],
            "sse_COUNT",
        ),
        (&["handshakes", "--target", nobody, "--seconds", "1"], "--tls-ca"),
    ] {
        let output = load(arguments).stderr(Stdio::piped()).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert!(text.contains(told), "{arguments:?}: {text}");
    }
    let unbounded = ["run", "--target", nobody, "--connections", "20001", "--seconds", "601"];
    let output = load(&unbounded).stderr(Stdio::piped()).output().unwrap();
    assert_eq!(output.status.code(), Some(64));
    assert!(
        Command::new(env!("CARGO_BIN_EXE_load")).arg("--help").output().unwrap().status.success()
    );
}
