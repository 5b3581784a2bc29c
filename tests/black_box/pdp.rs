//! A remote decision point (OpenID AuthZEN 1.0), honest and not: whatever it does but permit in the
//! standard's own words, the MCP server hears nothing.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

use super::client::{Client, Way, find, text};
use super::gateway::{DRIVERS, Driver, Gateway, until};
use super::setup::API_KEY;
use super::table::{Post, assert_silent};

const BEARER: &str = "CANARY-pdp-token";

/// How it behaves; shared with its threads.
#[derive(Clone)]
pub(super) struct Point {
    pub(super) port: u16,
    tls: Option<Arc<ServerConfig>>,
    pub(super) state: Arc<Mutex<State>>,
}

pub(super) struct State {
    /// Takes several questions at once, and says so.
    batches: bool,
    /// What it does with questions, by name.
    does: &'static str,
    /// What it answers with a permit.
    pub(super) credential: Option<&'static str>,
    /// Who may not do what.
    pub(super) denied: Vec<(&'static str, &'static str)>,
    questions: Vec<(String, Value)>,
    pub(super) connections: usize,
    /// What it says of itself, instead of the truth: the whole answer.
    pub(super) says: Option<String>,
    /// How often that was asked for.
    pub(super) looks: usize,
    /// Whose certificate each request came with.
    pub(super) shown: Vec<Vec<u8>>,
}

impl Point {
    pub(super) fn start(batches: bool) -> Self {
        Self::start_with(batches, None)
    }

    pub(super) fn start_with(batches: bool, tls: Option<Arc<ServerConfig>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (does, denied, credential) = ("right", Vec::new(), None);
        let (questions, shown, connections, says, looks) = (vec![], vec![], 0, None, 0);
        let state =
            State { batches, does, credential, denied, questions, connections, says, looks, shown };
        let point = Self { port, tls, state: Arc::new(Mutex::new(state)) };
        let own = point.clone();
        std::thread::spawn(move || {
            for socket in listener.incoming().map_while(Result::ok) {
                own.state.lock().unwrap().connections += 1;
                let own = own.clone();
                std::thread::spawn(move || own.welcome(socket));
            }
        });
        point
    }

    pub(super) fn origin(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}", self.port)
    }

    pub(super) fn does(&self, what: &'static str) {
        self.state.lock().unwrap().does = what;
    }

    pub(super) fn questions(&self) -> Vec<(String, Value)> {
        std::mem::take(&mut self.state.lock().unwrap().questions)
    }

    fn welcome(&self, mut socket: TcpStream) {
        socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let Some(tls) = &self.tls else { return self.serve(socket, &[]) };
        let mut session = ServerConnection::new(Arc::clone(tls)).unwrap();
        // Whoever shows no certificate that it believes in gets no further.
        if session.complete_io(&mut socket).is_ok() {
            let shown = session.peer_certificates().unwrap()[0].to_vec();
            self.serve(StreamOwned::new(session, socket), &shown);
        }
    }

    fn serve(&self, mut socket: impl Read + Write, shown: &[u8]) {
        let mut input = Vec::new();
        while let Some((head, body)) = request(&mut socket, &mut input) {
            self.state.lock().unwrap().shown.push(shown.to_vec());
            let Some(answer) = self.answer(&head, &body) else { return };
            let closes = answer.starts_with(b"HTTP/1.1 200 closing");
            if socket.write_all(&answer).is_err() || closes {
                return;
            }
        }
    }

    /// `None`: the connection ends instead.
    fn answer(&self, head: &str, body: &[u8]) -> Option<Vec<u8>> {
        let mut state = self.state.lock().unwrap();
        let own = self.origin();
        let path = head.split(' ').nth(1).unwrap().to_owned();
        if path == "/.well-known/authzen-configuration" {
            state.looks += 1;
            if let Some(says) = &state.says {
                return Some(says.clone().into_bytes());
            }
            if !state.batches {
                return Some(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_vec());
            }
            return Some(answered("200 OK", "", &document(&own).to_string()));
        }
        assert!(head.contains(&format!("\r\nauthorization: Bearer {BEARER}\r\n")), "{head}");
        assert!(head.contains("\r\ncontent-type: application/json\r\n"), "{head}");
        let asked: Value = serde_json::from_slice(body).unwrap();
        state.questions.push((path, asked.clone()));
        let right = state.decide(&asked).to_string();
        let does = state.does;
        drop(state);
        let id = head.lines().find_map(|line| line.strip_prefix("x-request-id: ")).unwrap();
        let permit = r#"{"decision":true}"#;
        Some(match does {
            "right" => answered("200 OK", "", &right),
            "echo" => answered("200 OK", &format!("X-Request-ID: {id}\r\n"), &right),
            "waits on items" if !body.windows(7).any(|part| part == b"\"other\"") => {
                answered("200 OK", "", &right)
            }
            "waits" | "waits on items" => {
                // Decided already; told once it is to do something else.
                let released = || !self.state.lock().unwrap().does.starts_with("waits");
                until("the answer is released", released);
                answered("200 OK", "", &right)
            }
            "closes" => answered("200 closing", "Connection: close\r\n", &right),
            "adorned" => adorned(id, &right),
            "fails on items" if body.windows(7).any(|part| part == b"\"other\"") => {
                answered("500 Broken", "", &right)
            }
            "fails on items" => answered("200 OK", "", &right),
            "gone" => return None,
            "silent" => {
                std::thread::park_timeout(Duration::from_secs(3));
                return None;
            }
            "head only" => {
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n"
                    .to_vec()
            }
            "500" => answered("500 Broken", "", &right),
            "400" => answered("400 Bad", "", &right),
            "401" => answered("401 Who", "WWW-Authenticate: Bearer\r\n", &right),
            "403" => answered("403 No", "", &right),
            "201" => answered("201 Created", "", &right),
            "204" => b"HTTP/1.1 204 No Content\r\n\r\n".to_vec(),
            "302" => answered("302 Found", &format!("Location: {own}/one\r\n"), &right),
            "404" => answered("404 Absent", "", &right),
            "429" => answered("429 Slower", "Retry-After: 1\r\n", &right),
            "503" => answered("503 Later", "", &right),
            "206" => answered("206 Part", "", &right),
            "moved" => answered("307 Moved", &format!("Location: {own}/one\r\n"), &right),
            "another id" => answered("200 OK", "X-Request-ID: 0-0\r\n", &right),
            "text" => right_as("text/plain", &right),
            "a problem" => right_as("application/problem+json", &right),
            "no type" => {
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", right.len());
                format!("{head}{right}").into_bytes()
            }
            "an error alone" => {
                let error = r#"{"context":{"error":{"status":500,"message":"lost"}}"#;
                answered("200 OK", "", &right.replacen("{\"decision\":true", error, 1))
            }
            "packed" => answered("200 OK", "Content-Encoding: gzip\r\n", &right),
            "no JSON" => answered("200 OK", "", "yes"),
            "nothing" => answered("200 OK", "", ""),
            "no decision" => answered("200 OK", "", "{}"),
            "a word" => answered("200 OK", "", &right.replace("true", "\"true\"")),
            "a number" => answered("200 OK", "", &right.replace("true", "1")),
            "twice" => answered(
                "200 OK",
                "",
                &right.replace("\"decision\":true", "\"decision\":false,\"decision\":true"),
            ),
            "too many" => {
                let many =
                    json!({"evaluations": vec![json!({"decision": true}); 9], "decision": true});
                answered("200 OK", "", &many.to_string())
            }
            "too few" => answered("200 OK", "", r#"{"evaluations":[{"decision":true}]}"#),
            "for another endpoint" if asked.get("evaluations").is_some() => {
                answered("200 OK", "", permit)
            }
            "for another endpoint" => {
                answered("200 OK", "", &json!({"evaluations": [{"decision": true}]}).to_string())
            }
            "long" => {
                answered("200 OK", "", &right.replace('}', &format!("{}}}", " ".repeat(300_000))))
            }
            "not HTTP" => b"decision: true\r\n\r\n".to_vec(),
            _ => panic!("{does}"),
        })
    }
}

impl State {
    fn decide(&self, asked: &Value) -> Value {
        let subject = asked["subject"]["id"].as_str().unwrap();
        let one = |of: &Value| {
            let action = of["action"]["name"].as_str().unwrap();
            let id = of["resource"]["id"].as_str().unwrap();
            let hit = |(who, what): &(&str, &str)| *who == subject && [action, id].contains(what);
            let permitted = !self.denied.iter().any(hit);
            match self.credential.filter(|_| permitted && action != "connect") {
                Some(name) => json!({"decision": permitted, "context": {"credential": name}}),
                None if permitted => json!({ "decision": true }),
                // As §7.2.1 has it for one that fails among others.
                None => json!({
                    "decision": false, "context": {"error": {"status": 404, "message": "no such"}},
                }),
            }
        };
        match asked.get("evaluations").and_then(Value::as_array) {
            Some(all) => json!({"evaluations": all.iter().map(one).collect::<Vec<_>>()}),
            None => one(asked),
        }
    }
}

fn answered(status: &str, fields: &str, body: &str) -> Vec<u8> {
    let kind = "Content-Type: application/json; charset=utf-8\r\n";
    format!("HTTP/1.1 {status}\r\n{kind}{fields}Content-Length: {}\r\n\r\n{body}", body.len())
        .into_bytes()
}

fn right_as(kind: &str, body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// With whatever an answer may hold besides what it must (Openid/authzen, §7.2, §10.1.1, §10.1.3).
fn adorned(id: &str, right: &str) -> Vec<u8> {
    let mut body: Value = serde_json::from_str(right).unwrap();
    body["more"] = json!({"decision": false});
    body["page"] = json!(null);
    if body.get("evaluations").is_some() {
        // About none of them.
        body["decision"] = json!(false);
    }
    let body = format!(" {body}\r\n");
    let fields = "Content-Type: Application/JSON;charset=\"utf-8\"\r\nDate: today";
    let head = format!("HTTP/1.1 200 Fine\r\n{fields}\r\nx-REQUEST-id:{id}\r\n");
    format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// What it says of itself (§9.1): at paths of its own choice, with more than we use, and signed by
/// nobody that we know, which may be ignored.
pub(super) fn document(own: &str) -> Value {
    let elsewhere = json!({"access_evaluation_endpoint": "http://127.0.0.1:1/elsewhere"});
    let elsewhere = URL_SAFE_NO_PAD.encode(elsewhere.to_string());
    json!({
        "access_evaluations_endpoint": format!("{own}/many"),
        "capabilities": ["urn:ietf:params:authzen:capability:more"],
        "search_subject_endpoint": format!("{own}/subjects"),
        "search_resource_endpoint": "https://other.example/resources",
        "signed_metadata": format!("eyJhbGciOiJFUzI1NiJ9.{elsewhere}.c2lnbmVk"),
        "policy_decision_point": own,
        "access_evaluation_endpoint": format!("{own}/one"),
        "more": {"policy_decision_point": "https://other.example"},
    })
}

fn request(socket: &mut impl Read, input: &mut Vec<u8>) -> Option<(String, Vec<u8>)> {
    let mut buffer = [0; 4096];
    loop {
        if let Some(end) = find(input, b"\r\n\r\n") {
            let head = text(&input[..end + 4]);
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let length: usize = length.map_or(0, |length| length.parse().unwrap());
            if input.len() >= end + 4 + length {
                let body = input[end + 4..end + 4 + length].to_vec();
                input.drain(..end + 4 + length);
                return Some((head, body));
            }
        }
        match socket.read(&mut buffer) {
            Ok(0) | Err(_) => return None,
            Ok(read) => input.extend_from_slice(&buffer[..read]),
        }
    }
}

/// Has the gateway ask `point`; `more` is appended to what says so.
pub(super) fn write(directory: &Path, point: &Point, more: &str) {
    fs::write(directory.join("pdp.token"), BEARER).unwrap();
    let path = directory.join("gateway.toml");
    let toml = fs::read_to_string(&path).unwrap();
    let remote = format!(
        "[policy.authzen]\nurl = \"{}\"\ntrust_private_addresses = true\n\
         bearer = \"file:pdp.token\"\ntimeout_ms = 500\n{more}",
        point.origin()
    );
    fs::write(path, toml.replace("[policy]\ndirectory = \"policies\"\n", &remote)).unwrap();
}

fn start(driver: Driver, point: &Point) -> Gateway {
    start_with(driver, point, |toml| toml)
}

/// The same with a configuration that `change` changed.
pub(super) fn start_with(
    driver: Driver,
    point: &Point,
    change: impl FnOnce(String) -> String,
) -> Gateway {
    let gateway = Gateway::start_with(driver, "", |directory| {
        write(directory, point, "");
        let path = directory.join("gateway.toml");
        let toml = fs::read_to_string(&path).unwrap();
        fs::write(path, change(toml)).unwrap();
    });
    let good = Post::new(&gateway).bytes();
    until("the first answer", || gateway.ask(&good).status == 200);
    point.questions();
    gateway
}

#[test]
fn it_is_asked_in_the_words_of_the_standard_and_decides() {
    for driver in DRIVERS {
        for batches in [true, false] {
            let point = Point::start(batches);
            let gateway = start(driver, &point);
            let turn = gateway.turn();
            let shown = format!("batches {batches} on {driver:?}");
            let call = Post::new(&gateway);
            assert_eq!(gateway.ask(&call.bytes()).status, 200, "{shown}");
            let seen = gateway.upstream.last();
            assert_eq!(seen.header("x-api-key"), Some(API_KEY), "{shown}: the server's default");
            assert!(!seen.head.contains(BEARER), "{shown}");
            asked_rightly(&point.questions(), batches, &shown);
            // One tool denied, then the whole server, then the gateway.
            let heard = gateway.upstream.heard();
            for (denied, status, code) in [
                (vec![("alice", "echo")], 200, Some(1403)),
                (vec![("alice", "echo"), ("alice", "initialize")], 403, None),
                (vec![("alice", "connect")], 403, None),
            ] {
                point.state.lock().unwrap().denied = denied.clone();
                let answer = gateway.ask(&call.bytes());
                let found =
                    (answer.status, answer.json().pointer("/error/code").and_then(Value::as_i64));
                assert_eq!(found.0, status, "{shown} {denied:?}: {answer:?}");
                assert!(code.is_none() || found.1 == code, "{shown} {denied:?}: {answer:?}");
                assert_eq!(answer.reason(), "no_permit", "{shown} {denied:?}");
            }
            // What is denied as a whole answers like what is not there.
            point.state.lock().unwrap().denied = vec![("alice", "echo"), ("alice", "initialize")];
            let denied = gateway.ask(&call.bytes());
            let absent = gateway.ask(&Post::new(&gateway).to("absent").bytes());
            assert_eq!((denied.status, denied.body), (absent.status, absent.body), "{shown}");
            assert_eq!(gateway.upstream.heard(), heard, "{shown}: nothing was forwarded");
            let reasons = turn.reasons(&gateway, 6);
            assert_eq!(reasons[1..], vec!["no_permit"; 5], "{shown}");
            let metrics = text(&gateway.page("/metrics").body);
            let line = "portcullis_pdp_requests_total{outcome=\"deny\"}";
            let denials = metrics.lines().find_map(|all| all.strip_prefix(line)).unwrap();
            assert_ne!(denials.trim(), "0", "{shown}");
            assert_silent(&gateway.everything_written(), "audit, logs and admin pages");
        }
    }
}

fn asked_rightly(questions: &[(String, Value)], batches: bool, shown: &str) {
    let gateway = json!({"type": "gateway", "id": "http://portcullis.localhost"});
    let tool = json!({"type": "tool", "id": "echo", "properties": {"server": "tools"}});
    let (path, first) = &questions[0];
    let parts: Vec<(&Value, &Value)> = if batches {
        assert_eq!((questions.len(), path.as_str()), (1, "/many"), "{shown}");
        let all = first["evaluations"].as_array().unwrap();
        all.iter().map(|one| (&one["action"]["name"], &one["resource"])).collect()
    } else {
        assert_eq!((questions.len(), path.as_str()), (2, "/access/v1/evaluation"), "{shown}");
        let all = questions.iter().map(|(_, one)| one);
        all.map(|one| (&one["action"]["name"], &one["resource"])).collect()
    };
    let (connect, call) = (json!("connect"), json!("tools/call"));
    assert_eq!(parts, [(&connect, &gateway), (&call, &tool)], "{shown}");
    for (_, question) in questions {
        let kind = json!({"kind": "user"});
        let subject = json!({"type": "identity", "id": "alice", "properties": kind});
        assert_eq!(question["subject"], subject, "{shown}");
        let context = &question["context"];
        assert_eq!(context["agent"], "agent-7", "{shown}");
        assert!(context["source_ip"].as_str().unwrap().starts_with("127.1."), "{shown}");
        assert!(context["time"].as_str().unwrap().ends_with('Z'), "{shown}");
        assert!(!question.to_string().contains("arguments"), "{shown}: arguments are never sent");
    }
}

/// F01: whatever is no answer of the standard is a refusal, and the next question is asked anew.
#[test]
fn f01_every_trouble_of_it_is_a_refusal() {
    const TROUBLES: [&str; 31] = [
        "gone",
        "silent",
        "head only",
        "500",
        "400",
        "401",
        "403",
        "201",
        "204",
        "302",
        "404",
        "429",
        "503",
        "206",
        "moved",
        "another id",
        "text",
        "a problem",
        "no type",
        "an error alone",
        "packed",
        "no JSON",
        "nothing",
        "no decision",
        "a word",
        "a number",
        "twice",
        "too few",
        "for another endpoint",
        "long",
        "not HTTP",
    ];
    for driver in DRIVERS {
        for batches in [true, false] {
            let point = Point::start(batches);
            let gateway = start(driver, &point);
            let turn = gateway.turn();
            let call = Post::new(&gateway).bytes();
            let mut wanted = Vec::new();
            let troubles = TROUBLES.iter().chain(batches.then_some(&"too many"));
            for trouble in troubles {
                let shown = format!("{trouble}, batches {batches} on {driver:?}");
                point.does(trouble);
                let heard = gateway.upstream.heard();
                let answer = gateway.ask(&call);
                assert_eq!(answer.status, 503, "{shown}: {answer:?}");
                assert_eq!(answer.reason(), "policy_unavailable", "{shown}");
                assert!(answer.header("retry-after").is_some(), "{shown}");
                assert_eq!(gateway.upstream.heard(), heard, "{shown}: something was forwarded");
                // An honest answer counts at once, over a connection that is sound.
                for honest in ["right", "echo", "adorned", "closes"] {
                    point.does(honest);
                    assert_eq!(gateway.ask(&call).status, 200, "{shown}, then {honest}");
                }
                wanted.extend(["policy_unavailable", "ok", "ok", "ok", "ok"]);
            }
            let records = turn.records(&gateway, wanted.len());
            for (record, reason) in records.iter().zip(&wanted) {
                assert_eq!(record["reason"], *reason, "{record}");
                let decision = if *reason == "ok" { "permit" } else { "error" };
                assert_eq!(record["decision"], decision, "{record}");
            }
            assert!(gateway.running(), "the process lives");
            assert_silent(&gateway.everything_written(), "audit, logs and admin pages");
        }
    }
}

#[test]
fn an_answer_may_name_a_credential_of_the_server_and_no_other() {
    let point = Point::start(true);
    let gateway = start(Driver::Epoll, &point);
    let call = Post::new(&gateway).to("two").bytes();
    for (name, header) in [("two-a", "x-a"), ("two-b", "x-b")] {
        point.state.lock().unwrap().credential = Some(name);
        assert_eq!(gateway.ask(&call).status, 200, "{name}");
        let seen = gateway.upstream.last();
        assert_eq!(seen.header(header), Some(API_KEY), "{name}");
    }
    let heard = gateway.upstream.heard();
    for name in ["header", "nobody's"] {
        point.state.lock().unwrap().credential = Some(name);
        let answer = gateway.ask(&call);
        assert_eq!(
            (answer.status, answer.reason().as_str()),
            (503, "policy_unavailable"),
            "{name}"
        );
    }
    assert_eq!(gateway.upstream.heard(), heard, "nothing was forwarded");
}

/// An open stream is asked about again, here because of a reload; a denial or silence cuts it.
#[test]
fn an_open_stream_ends_when_it_is_no_longer_permitted() {
    for (trouble, reason) in [("denied", "stream_denied"), ("500", "policy_unavailable")] {
        let point = Point::start(true);
        let gateway = start(Driver::Ring, &point);
        fs::write(gateway.directory.join("vanishing.key"), "CANARY").unwrap();
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
        if trouble == "denied" {
            point.state.lock().unwrap().denied = vec![("alice", "initialize")];
        } else {
            point.does(trouble);
        }
        let pid = rustix::process::Pid::from_raw(i32::try_from(gateway.pid()).unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
        let answer = client.answer().unwrap();
        assert!(!answer.complete || answer.body.starts_with(b"data: first"), "{answer:?}");
        assert_eq!(turn.reasons(&gateway, 1), [reason], "{trouble}");
    }
}

/// A list is asked about item by item, in one request where that is taken.
#[test]
fn lists_hold_what_it_permits_and_nothing_unasked() {
    for driver in DRIVERS {
        for batches in [true, false] {
            let point = Point::start(batches);
            let gateway = start(driver, &point);
            point.state.lock().unwrap().denied = vec![("alice", "other")];
            for (sse, piece) in [(false, 0), (true, 0), (true, 1)] {
                let shown = format!("events {sse} by {piece}, batches {batches} on {driver:?}");
                point.does("right");
                gateway.upstream.say(list(&["other", "b", "a"], sse), false, piece);
                point.questions();
                let answer = gateway.ask(&listing(&gateway));
                assert_eq!(answer.status, 200, "{shown}: {answer:?}");
                let body = text(&answer.body);
                let json = body.strip_prefix("data: ").unwrap_or(&body).trim_end();
                let found: Value = serde_json::from_str(json).unwrap();
                let names = found["result"]["tools"].as_array().unwrap();
                let names: Vec<_> =
                    names.iter().map(|tool| tool["name"].as_str().unwrap()).collect();
                assert_eq!(names, ["a", "b"], "{shown}");
                // The list itself, with `connect`, and its three items.
                assert_eq!(point.questions().len(), if batches { 2 } else { 5 }, "{shown}");
                point.does("fails on items");
                let answer = gateway.ask(&listing(&gateway));
                let refused = answer.status == 503 || !answer.complete;
                assert!(refused && !text(&answer.body).contains("name"), "{shown}: {answer:?}");
            }
            // Sixty-five one by one would take their time; together they may come.
            point.does("right");
            let many: Vec<String> = (0..65).map(|number| format!("tool-{number:02}")).collect();
            let many: Vec<&str> = many.iter().map(String::as_str).collect();
            gateway.upstream.say(list(&many, false), false, 0);
            let answer = gateway.ask(&listing(&gateway));
            assert_eq!(answer.status, if batches { 200 } else { 503 }, "{batches}: {answer:?}");
            let empty = list(&[], false);
            gateway.upstream.say(empty, false, 0);
            point.questions();
            assert_eq!(gateway.ask(&listing(&gateway)).status, 200);
        }
    }
}

pub(super) fn listing(gateway: &Gateway) -> Vec<u8> {
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#;
    Post::new(gateway).script("said").body(body).bytes()
}

pub(super) fn list(names: &[&str], sse: bool) -> Vec<u8> {
    let tools: Vec<Value> = names.iter().map(|name| json!({ "name": name })).collect();
    let message = json!({"jsonrpc": "2.0", "id": 1, "result": {"tools": tools}}).to_string();
    let (kind, body) = if sse {
        ("text/event-stream", format!("data: {message}\n\n"))
    } else {
        ("application/json", message)
    };
    right_as(kind, &body)
}
