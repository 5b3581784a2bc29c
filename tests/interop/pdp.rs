//! Our independent decision point plays the certification scenario for decision points itself
//! (openid/authzen@e287920, authorization-api-1_0-scenario.md: Basic, Batch and Discovery), so that
//! what the gateway is tested against is known to be one. Numbers are the scenario's. Then it
//! decides the working group's interop scenario of API gateways.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::{Value, json};

use crate::gateway::PDP_TOKEN;
use crate::http::Answer;
use crate::install::{Tools, tools};
use crate::process::{DEADLINE, Running};
use crate::{python, serial};

/// A decision point that demands a certificate of whoever asks, by another implementation of TLS.
pub(crate) struct Point {
    pub(crate) running: Running,
    pub(crate) port: u16,
    /// `ca.pem`; `own.pem` and `own.key` of whoever may ask.
    pub(crate) paper: PathBuf,
}

impl Point {
    pub(crate) fn start(tools: &Tools, name: &str) -> Self {
        let paper = tools.runs.join(format!("paper-{name}"));
        fs::create_dir_all(&paper).unwrap();
        issue(&paper);
        let mut command = python(tools, "pdp.py");
        command.arg("0").env("PDP_TOKEN", PDP_TOKEN).env("PDP_TLS", &paper);
        let mut running = Running::start(name, &tools.runs, &mut command);
        let port = running.port();
        Self { running, port, paper }
    }
}

/// An authority, and what it issues to both sides.
fn issue(paper: &Path) {
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "authority");
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    fs::write(paper.join("ca.pem"), authority.pem()).unwrap();
    for (file, name) in [("pdp", "127.0.0.1"), ("own", "gateway.example")] {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &authority).unwrap();
        fs::write(paper.join(format!("{file}.pem")), certificate.pem()).unwrap();
        fs::write(paper.join(format!("{file}.key")), key.serialize_pem()).unwrap();
    }
}

/// Who plays the scenario.
struct Player {
    port: u16,
    tls: Arc<ClientConfig>,
}

impl Player {
    fn new(point: &Point) -> Self {
        let chain = |file: &str| -> Vec<CertificateDer<'static>> {
            let found = CertificateDer::pem_file_iter(point.paper.join(file)).unwrap();
            found.map(Result::unwrap).collect()
        };
        let mut roots = RootCertStore::empty();
        roots.add(chain("ca.pem").remove(0)).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(
                chain("own.pem"),
                PrivateKeyDer::from_pem_file(point.paper.join("own.key")).unwrap(),
            )
            .unwrap();
        Self { port: point.port, tls: Arc::new(tls) }
    }

    fn send(&self, line: &str, headers: &[&str], body: &str) -> Answer {
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let session = ClientConnection::new(Arc::clone(&self.tls), name).unwrap();
        let socket = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut stream = StreamOwned::new(session, socket);
        let own = format!("Host: 127.0.0.1:{}\r\nConnection: close\r\n", self.port);
        let mut request = format!("{line} HTTP/1.1\r\n{own}Authorization: Bearer {PDP_TOKEN}\r\n");
        for header in headers {
            request += &format!("{header}\r\n");
        }
        request += &format!("Content-Length: {}\r\n\r\n{body}", body.len());
        stream.write_all(request.as_bytes()).unwrap();
        let (mut bytes, mut piece) = (Vec::new(), [0; 4096]);
        // It ends without a word of TLS; the length says whether all of it came.
        while let Ok(read @ 1..) = stream.read(&mut piece) {
            bytes.extend_from_slice(&piece[..read]);
        }
        let text = String::from_utf8(bytes).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{line}: {text}"));
        let length = field(head, "content-length").unwrap();
        assert_eq!(length, body.len().to_string(), "{text}");
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer { status, head: head.to_owned(), body: body.to_owned() }
    }

    /// What is asked as the standard has it: the answer's body, or its status when that is not 200.
    fn ask(&self, target: &str, question: &Value) -> Result<Value, u16> {
        let headers = [JSON, "X-Request-ID: of-the-player"];
        let answer = self.send(&format!("POST {target}"), &headers, &question.to_string());
        assert_eq!(field(&answer.head, "x-request-id"), Some("of-the-player"), "2.5.1, 5.4");
        if answer.status != 200 {
            return Err(answer.status);
        }
        assert_eq!(field(&answer.head, "content-type"), Some("application/json"), "5.2");
        Ok(answer.json())
    }
}

fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut fields = head.lines().filter_map(|line| line.split_once(": "));
    fields.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

const JSON: &str = "Content-Type: application/json";

fn user(id: &str) -> Value {
    json!({"type": "user", "id": id})
}

fn admin() -> Value {
    json!({"type": "user", "id": "bob", "properties": {"role": "admin"}})
}

fn record(id: &str) -> Value {
    json!({"type": "record", "id": id})
}

fn record_of(id: &str, status: &str) -> Value {
    json!({"type": "record", "id": id, "properties": {"status": status}})
}

fn action(name: &str) -> Value {
    json!({ "name": name })
}

fn delete(soft: bool) -> Value {
    json!({"name": "delete", "properties": {"soft": soft}})
}

fn question(subject: Value, action: Value, resource: Value) -> Value {
    json!({"subject": subject, "action": action, "resource": resource})
}

/// `question` with one member changed; null takes it away.
fn but(mut question: Value, path: &str, value: Value) -> Value {
    let (parent, name) = path.rsplit_once('/').unwrap();
    let parent = question.pointer_mut(parent).unwrap().as_object_mut().unwrap();
    if value.is_null() {
        assert!(parent.remove(name).is_some(), "{path}");
    } else {
        parent.insert(name.to_owned(), value);
    }
    question
}

fn alice_reads() -> Value {
    question(user("alice"), action("read"), record("record-1"))
}

/// 2.2 and 2.4: what is asked, and the decision or the status.
fn basic() -> Vec<(&'static str, Value, Result<bool, u16>)> {
    let when = json!({"time": "2025-06-27T18:03-07:00", "ip": "192.168.1.1"});
    let more = question(
        json!({"type": "user", "id": "alice", "properties": {"department": "Sales"}}),
        json!({"name": "read", "properties": {"method": "GET"}}),
        json!({"type": "record", "id": "record-1", "properties": {"status": "active", "x": "y"}}),
    );
    let archived = || record_of("record-2", "archived");
    let alice = |action| question(user("alice"), action, record("record-1"));
    let without = |path: &str| but(alice_reads(), path, Value::Null);
    vec![
        ("2.2.1", alice_reads(), Ok(true)),
        ("rule 2", alice(action("write")), Ok(true)),
        ("rule 3", question(user("bob"), action("read"), record("record-1")), Ok(true)),
        ("2.2.2", question(user("bob"), action("write"), record("record-1")), Ok(false)),
        ("2.2.3", but(alice_reads(), "/context", when), Ok(true)),
        ("2.2.4", question(user("alice"), action("write"), archived()), Ok(false)),
        ("2.2.5", question(admin(), action("write"), archived()), Ok(true)),
        ("2.2.6", alice(delete(true)), Ok(true)),
        ("2.2.7", alice(delete(false)), Ok(false)),
        ("2.2.8", more, Ok(true)),
        ("2.2.9", but(alice_reads(), "/futureField", json!({"nested": true})), Ok(true)),
        ("2.4.1 subject", without("/subject"), Err(400)),
        ("2.4.1 action", without("/action"), Err(400)),
        ("2.4.1 resource", without("/resource"), Err(400)),
        ("2.4.2 subject type", without("/subject/type"), Err(400)),
        ("2.4.2 subject id", without("/subject/id"), Err(400)),
        ("2.4.2 action name", without("/action/name"), Err(400)),
        ("2.4.2 resource type", without("/resource/type"), Err(400)),
        ("2.4.2 resource id", without("/resource/id"), Err(400)),
        ("2.4.6 subject", but(alice_reads(), "/subject", json!("alice")), Err(400)),
        ("2.4.6 action", but(alice_reads(), "/action/name", json!(123)), Err(400)),
    ]
}

/// 3.2 and 3.4: what is asked, and the decisions, where the fixture has one.
fn batch() -> Vec<(&'static str, Value, Vec<Option<bool>>)> {
    let (yes, no, any) = (Some(true), Some(false), None);
    let of = |id: &str| json!({ "resource": record(id) });
    let archived = || record_of("record-2", "archived");
    let write = action("write");
    let active = || record_of("record-1", "active");
    let inherits = json!({"resource": record("record-2"), "context": {"source": "override"}});
    let alice = |name: &str, evaluations: Value| {
        let defaults = json!({"subject": user("alice"), "action": action(name)});
        but(defaults, "/evaluations", evaluations)
    };
    let bob = json!([{"action": action("read")}, {"action": &write}]);
    let both = json!([{"subject": user("alice")}, {"subject": admin()}]);
    let whole = json!([alice_reads(), question(user("bob"), write.clone(), record("record-1"))]);
    let all = json!({"evaluations_semantic": "execute_all"});
    let failing = but(alice("read", json!([of("record-1"), {}])), "/options", all);
    let semantic = |name: &str| {
        let actions = [delete(false), action("read"), write.clone()];
        let three = actions.map(|action| json!({ "action": action }));
        json!({"subject": user("alice"), "resource": record("record-1"), "evaluations": three,
               "options": {"evaluations_semantic": name}})
    };
    vec![
        ("3.2.1", alice("read", json!([of("record-1"), of("record-2")])), vec![yes, any]),
        (
            "3.2.2",
            json!({"subject": user("bob"), "resource": record("record-1"), "evaluations": bob}),
            vec![yes, no],
        ),
        (
            "3.2.3",
            alice("write", json!([{"resource": active()}, {"resource": archived()}])),
            vec![yes, no],
        ),
        (
            "3.2.4",
            json!({"action": &write, "resource": archived(), "evaluations": both}),
            vec![no, yes],
        ),
        ("3.2.5", json!({ "evaluations": whole }), vec![yes, no]),
        (
            "3.2.6",
            but(alice("read", json!([of("record-1"), inherits])), "/context", json!({"time": "t"})),
            vec![yes, any],
        ),
        (
            "3.2.7",
            but(alice("write", json!([{}, {"resource": archived()}])), "/resource", active()),
            vec![yes, no],
        ),
        ("3.4.1", failing, vec![yes, no]),
        // Not of the scenario; §7.1.2.1 of the standard.
        ("execute_all", semantic("execute_all"), vec![no, yes, yes]),
        ("deny_on_first_deny", semantic("deny_on_first_deny"), vec![no]),
        ("permit_on_first_permit", semantic("permit_on_first_permit"), vec![no, yes]),
    ]
}

/// 6: what it says of itself; its endpoints by name, without the origin.
fn discovered(player: &Player) -> BTreeMap<String, String> {
    let answer = player.send("GET /.well-known/authzen-configuration", &[], "");
    assert_eq!(answer.status, 200, "6.2");
    assert_eq!(field(&answer.head, "content-type"), Some("application/json"), "6.2");
    let own = format!("https://127.0.0.1:{}", player.port);
    let document = answer.json();
    assert_eq!(document["policy_decision_point"], *own, "6.5");
    let members = document.as_object().unwrap().iter();
    let endpoints = members.filter(|(name, _)| name.ends_with("_endpoint"));
    endpoints
        .map(|(name, url)| {
            let target = url.as_str().unwrap().strip_prefix(&own);
            (name.clone(), target.unwrap_or_else(|| panic!("6.5: {name} {url}")).to_owned())
        })
        .collect()
}

#[test]
fn the_decision_point_passes_its_own_certification_scenario() {
    let _one = serial();
    let Some(tools) = tools() else { return };
    let point = Point::start(tools, "scenario");
    let player = Player::new(&point);
    let endpoints = discovered(&player);
    let (one, many) =
        (&endpoints["access_evaluation_endpoint"], &endpoints["access_evaluations_endpoint"]);
    for (id, question, expected) in basic() {
        let found = player.ask(one, &question);
        let decision = found.clone().map(|answer| answer["decision"].as_bool().expect("2.3.1"));
        assert_eq!(decision, expected, "{id}: {found:?}");
        if let Ok(answer) = &found {
            assert!(answer.get("context").is_none_or(Value::is_object), "2.3.2, {id}: {answer}");
            // 2.6 the same again; 3.4.2 and 3.4.3 at the other endpoint.
            assert_eq!(player.ask(one, &question), found, "2.6, {id}");
            assert_eq!(player.ask(many, &question), found, "3.4.2, {id}");
            let empty = but(question, "/evaluations", json!([]));
            assert_eq!(player.ask(many, &empty), found, "3.4.3, {id}");
        }
    }
    for (id, question, expected) in batch() {
        let answer = player.ask(many, &question).unwrap_or_else(|status| panic!("{id}: {status}"));
        let answers = answer["evaluations"].as_array().unwrap_or_else(|| panic!("{id}: {answer}"));
        assert_eq!(answers.len(), expected.len(), "3.3.1, {id}: {answer}");
        assert!(answer.get("decision").is_none(), "3.3.4, {id}: {answer}");
        for (one, expected) in answers.iter().zip(expected) {
            let decision = one["decision"].as_bool().expect("3.3.3");
            assert!(expected.is_none_or(|known| known == decision), "{id}: {answer}");
        }
    }
    let post = format!("POST {one}");
    let good = alice_reads().to_string();
    let plain = player.send(&post, &[JSON], &good);
    assert_eq!((plain.status, field(&plain.head, "x-request-id")), (200, None), "2.5.2");
    for (id, kind, body) in [
        ("2.4.3", "Content-Type: text/plain", good.as_str()),
        ("2.4.4", JSON, "{\"subject\": "),
        ("2.4.5", JSON, ""),
        ("§10.1: no object", JSON, "[]"),
    ] {
        assert_eq!(player.send(&post, &[kind], body).status, 400, "{id}");
    }
}

/// What the working group's interop scenario of API gateways asks, with its decisions. `None` when
/// the file is not there and nobody insists; under `CI=true` that is a failure, never a skip.
fn routes() -> Option<Vec<(Value, bool)>> {
    let root = std::env::var("SHARED_DIR")
        .map_or_else(|_| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared"), PathBuf::from);
    let path = root.join("data/authzen/api-gateway-decisions.json");
    let Ok(text) = fs::read(&path) else {
        assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "{} is missing", path.display());
        eprintln!("interop skipped: {} is not there", path.display());
        return None;
    };
    let document: Value = serde_json::from_slice(&text).unwrap();
    let cases = document["evaluation"].as_array().unwrap().iter();
    Some(cases.map(|case| (case["request"].clone(), case["expected"].as_bool().unwrap())).collect())
}

/// The decisions of a batch, in its order.
fn decisions(player: &Player, target: &str, batch: &Value) -> Vec<bool> {
    let answer = player.ask(target, batch).unwrap_or_else(|status| panic!("{status}: {batch}"));
    let answers = answer["evaluations"].as_array().unwrap_or_else(|| panic!("{answer}"));
    answers.iter().map(|one| one["decision"].as_bool().unwrap()).collect()
}

#[test]
fn the_decision_point_decides_the_working_groups_gateway_scenario() {
    let _one = serial();
    let Some(cases) = routes() else { return };
    let Some(tools) = tools() else { return };
    let permits = cases.iter().filter(|(_, expected)| *expected).count();
    assert_eq!((permits, cases.len()), (19, 25), "another scenario");
    let point = Point::start(tools, "routes");
    let player = Player::new(&point);
    let endpoints = discovered(&player);
    let (one, many) =
        (&endpoints["access_evaluation_endpoint"], &endpoints["access_evaluations_endpoint"]);
    for (question, expected) in &cases {
        let answer = player.ask(one, question).unwrap_or_else(|it| panic!("{it}: {question}"));
        assert_eq!(answer["decision"], *expected, "{question}");
    }
    let (questions, expected): (Vec<_>, Vec<_>) = cases.into_iter().unzip();
    let whole = json!({ "evaluations": &questions });
    assert_eq!(decisions(&player, many, &whole), expected);
    // The same with whoever asks as the default of a batch of five routes.
    for (questions, expected) in questions.chunks(5).zip(expected.chunks(5)) {
        let subject = &questions[0]["subject"];
        assert!(questions.iter().all(|one| one["subject"] == *subject), "{questions:?}");
        let rest = questions.iter().map(|one| but(one.clone(), "/subject", Value::Null));
        let batch = json!({"subject": subject, "evaluations": rest.collect::<Vec<_>>()});
        assert_eq!(decisions(&player, many, &batch), expected, "{subject}");
    }
}
