//! Why a remote decision point is believed, and why it believes us: certificates of both sides, and
//! what it says of itself.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};
use serde_json::{Value, json};

use super::client::text;
use super::gateway::{DRIVERS, Driver, Gateway, until};
use super::pdp::{Point, document, write};
use super::table::{Post, assert_silent};

const VERSIONS: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS12, &rustls::version::TLS13];
const SHOWN: &str = "certificate = \"own.pem\"\nprivate_key = \"file:own.key\"\n";
const CA_FILE: &str = "ca_file = \"ca.pem\"\n";

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// A certificate for `name`, its key beside it.
    fn sign(&self, name: &str) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.signed_by(&key, &self.0).unwrap(), key)
    }

    /// A new certificate for the gateway, where its configuration looks; its bytes.
    fn equip(&self, directory: &Path) -> Vec<u8> {
        self.equip_as(directory, "own")
    }

    fn equip_as(&self, directory: &Path, file: &str) -> Vec<u8> {
        let (certificate, key) = self.sign("gateway.example");
        fs::write(directory.join(format!("{file}.pem")), certificate.pem()).unwrap();
        fs::write(directory.join(format!("{file}.key")), key.serialize_pem()).unwrap();
        certificate.der().to_vec()
    }

    /// A decision point that talks to nobody without a certificate of ours.
    fn point(&self, version: &'static SupportedProtocolVersion) -> Point {
        let (certificate, key) = self.sign("127.0.0.1");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
        let config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap()
            .with_client_cert_verifier(verifier.build().unwrap())
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            )
            .unwrap();
        Point::start_with(true, Some(Arc::new(config)))
    }

    fn start(&self, driver: Driver, point: &Point, more: &str) -> Gateway {
        Gateway::start_with(driver, "", |directory| {
            fs::write(directory.join("ca.pem"), self.0.pem()).unwrap();
            write(directory, point, &format!("{CA_FILE}{more}"));
        })
    }
}

fn rewrite(gateway: &Gateway, old: &str, new: &str) {
    let path = gateway.directory.join("gateway.toml");
    let toml = fs::read_to_string(&path).unwrap();
    assert!(toml.contains(old));
    fs::write(&path, toml.replace(old, new)).unwrap();
}

fn reload(gateway: &Gateway) {
    // The harness takes it away once it was read.
    fs::write(gateway.directory.join("vanishing.key"), "CANARY").unwrap();
    let pid = rustix::process::Pid::from_raw(i32::try_from(gateway.pid()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
}

/// As often as it takes for every worker to have been asked.
const ENOUGH: usize = 8;

fn all_answer(gateway: &Gateway, status: u16) -> bool {
    let call = Post::new(gateway).bytes();
    (0..ENOUGH).all(|_| gateway.ask(&call).status == status)
}

/// Nothing is permitted, nothing is forwarded, and no question was understood.
fn refuses(gateway: &Gateway, point: &Point, shown: &str) {
    let call = Post::new(gateway).bytes();
    until("it is not to be asked", || {
        let answer = gateway.ask(&call);
        answer.status == 503 && answer.reason() == "policy_unavailable"
    });
    until(shown, || point.state.lock().unwrap().connections > 0);
    let heard = gateway.upstream.heard();
    assert!(all_answer(gateway, 503), "{shown}");
    assert_eq!(gateway.upstream.heard(), heard, "{shown}: something was forwarded");
    assert!(point.questions().is_empty(), "{shown}: it was asked");
}

#[test]
fn a_demanded_certificate_is_shown_always_and_a_reload_takes_the_next() {
    for (driver, version) in DRIVERS.iter().flat_map(|it| VERSIONS.map(|version| (*it, version))) {
        let shown = format!("{:?} on {driver:?}", version.version);
        let authority = Authority::new();
        let point = authority.point(version);
        let mut first = Vec::new();
        let gateway = Gateway::start_with(driver, "", |directory| {
            fs::write(directory.join("ca.pem"), authority.0.pem()).unwrap();
            first = authority.equip(directory);
            write(directory, &point, &format!("{CA_FILE}{SHOWN}"));
        });
        until("the first answer", || all_answer(&gateway, 200));
        assert!(!point.questions().is_empty(), "{shown}");
        let seen = std::mem::take(&mut point.state.lock().unwrap().shown);
        // One more than the questions: what it says of itself was asked for, too.
        assert_eq!(point.state.lock().unwrap().looks, 1, "{shown}");
        assert!(seen.iter().all(|one| *one == first), "{shown}: {}", seen.len());
        // The next, of another name: connections that were made as the first are not used again.
        let second = authority.equip_as(&gateway.directory, "next");
        assert_ne!(first, second);
        rewrite(&gateway, "own.", "next.");
        reload(&gateway);
        until("only the second is shown", || {
            point.state.lock().unwrap().shown.clear();
            assert!(all_answer(&gateway, 200), "{shown}: a reload costs no answer");
            let seen = std::mem::take(&mut point.state.lock().unwrap().shown);
            seen.iter().all(|one| *one == second)
        });
        until("it looked again", || point.state.lock().unwrap().looks == 2);
        // A key that is another certificate's changes nothing.
        let (_, other) = authority.sign("gateway.example");
        fs::write(gateway.directory.join("next.key"), other.serialize_pem()).unwrap();
        reload(&gateway);
        until("the reload is refused", || {
            gateway.stderr().contains("the private key belongs to another certificate")
        });
        assert!(all_answer(&gateway, 200), "{shown}: what was in force stays");
        let seen = std::mem::take(&mut point.state.lock().unwrap().shown);
        assert!(seen.iter().all(|one| *one == second), "{shown}");
        // One of somebody else ends it, although connections are still open.
        Authority::new().equip_as(&gateway.directory, "next");
        reload(&gateway);
        until("nobody believes it", || all_answer(&gateway, 503));
        point.questions();
        refuses(&gateway, &point, &shown);
        authority.equip_as(&gateway.directory, "next");
        reload(&gateway);
        until("the third is taken", || all_answer(&gateway, 200));
        let written = gateway.everything_written();
        assert!(!written.contains("PRIVATE KEY"), "{shown}");
        assert_silent(&written, "audit, logs and admin pages");
    }
}

#[test]
fn without_the_demanded_certificate_nothing_is_permitted() {
    for (driver, version) in DRIVERS.iter().flat_map(|it| VERSIONS.map(|version| (*it, version))) {
        let shown = format!("{:?} on {driver:?}", version.version);
        let authority = Authority::new();
        let point = authority.point(version);
        let gateway = authority.start(driver, &point, "");
        refuses(&gateway, &point, &format!("no certificate, {shown}"));
        // The same with one: that was all that was missing.
        authority.equip(&gateway.directory);
        rewrite(&gateway, CA_FILE, &format!("{CA_FILE}{SHOWN}"));
        reload(&gateway);
        until("it is believed", || all_answer(&gateway, 200));
    }
}

/// §9.2.3: what is not its own word for word is not used, wherever it leads.
#[test]
fn what_it_says_of_itself_is_believed_only_of_itself() {
    let point = Point::start_with(true, None);
    let own = point.origin();
    let said = |document: &Value| {
        let (document, kind) = (document.to_string(), "Content-Type: application/json");
        format!("HTTP/1.1 200 OK\r\n{kind}\r\nContent-Length: {}\r\n\r\n{document}", document.len())
    };
    let with = |name: &str, value: Value| {
        let mut changed = document(&own);
        changed[name] = value;
        said(&changed)
    };
    let status = |status: &str| said(&document(&own)).replacen("200 OK", status, 1);
    let elsewhere = "Found\r\nLocation: /elsewhere";
    let twice = document(&own).to_string().replacen(
        "{",
        "{\"access_evaluation_endpoint\":\"http://127.0.0.1:1/\",",
        1,
    );
    let rows = [
        with("policy_decision_point", json!(format!("{own}/"))),
        with("policy_decision_point", json!("https://pdp.example.com")),
        with("policy_decision_point", json!(own.replace("http:", "HTTP:"))),
        with("policy_decision_point", json!(null)),
        with("access_evaluation_endpoint", json!("http://127.0.0.1:1/one")),
        with("access_evaluation_endpoint", json!("/one")),
        with("access_evaluation_endpoint", json!(null)),
        with("access_evaluations_endpoint", json!("http://127.0.0.1:1/many")),
        with("access_evaluations_endpoint", json!([format!("{own}/many")])),
        said(&json!([document(&own)])),
        said(&json!({})),
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{twice}", twice.len()),
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello".to_owned(),
        status("500 Broken"),
        status("401 Who"),
        status("204 Nothing"),
        status(&format!("302 {elsewhere}")),
        status(&format!("307 {elsewhere}")),
        "HTTP/1.1 200 OK\r\nContent-Length: 500\r\nConnection: close\r\n\r\n{}".to_owned(),
    ];
    point.state.lock().unwrap().says = Some(rows[0].clone());
    let start = |driver| Gateway::start_with(driver, "", |directory| write(directory, &point, ""));
    let gateway = start(Driver::Epoll);
    refuses(&gateway, &point, &rows[0]);
    for row in &rows {
        let looks = {
            let mut state = point.state.lock().unwrap();
            state.says = Some(row.clone());
            state.looks
        };
        reload(&gateway);
        until("it looked", || point.state.lock().unwrap().looks > looks);
        refuses(&gateway, &point, row);
    }
    // The truth in the end, and it is asked where it says.
    point.state.lock().unwrap().says = None;
    reload(&gateway);
    until("it is believed", || all_answer(&gateway, 200));
    let questions = point.questions();
    assert!(questions.iter().all(|(path, _)| path == "/many"), "{questions:?}");
    let warned = text(gateway.stderr().as_bytes());
    assert!(warned.contains("says of itself is not its own"), "{warned}");
}

fn says(point: &Point, what: Option<&str>) -> usize {
    let mut state = point.state.lock().unwrap();
    let empty = |status| format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
    state.says = what.map(empty);
    state.looks
}

/// As `until`, for what a second or third look brings: they are 5 s apart.
fn until_later(what: &str, mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < Duration::from_secs(30), "{what}: not within 30 s");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

fn looks(point: &Point) -> usize {
    point.state.lock().unwrap().looks
}

/// Once for all looks that end alike; and that it is over.
#[test]
fn trouble_with_it_is_logged_when_it_changes() {
    let (authority, other) = (Authority::new(), Authority::new());
    let point = authority.point(VERSIONS[1]);
    let gateway = other.start(Driver::Epoll, &point, "");
    let place = format!("[policy.authzen] 127.0.0.1:{}: ", point.port);
    let wrong = format!("{place}no TLS with it: its certificate is not one to believe");
    until("a wrong authority is logged", || gateway.stderr().contains(&wrong));

    let point = Point::start(true);
    says(&point, Some("500 Broken"));
    let gateway = Gateway::start_with(Driver::Epoll, "", |directory| write(directory, &point, ""));
    until_later("it looked three times", || looks(&point) >= 3);
    let place = format!("[policy.authzen] 127.0.0.1:{}: ", point.port);
    let logged = gateway.stderr();
    assert_eq!(logged.matches(&place).count(), 1, "{logged}");
    assert!(logged.contains(&format!("{place}it answers 500 where it says")), "{logged}");
    says(&point, None);
    until_later("that is over", || gateway.stderr().contains(&format!("{place}it is well again")));
    assert_silent(&gateway.everything_written(), "audit, logs and admin pages");
}

/// One that has just started may not say anything of itself yet, nor one that is about to end.
#[test]
fn a_404_neither_settles_nor_undoes_what_it_said_of_itself() {
    let point = Point::start(true);
    says(&point, Some("404 Absent"));
    let gateway = Gateway::start_with(Driver::Epoll, "", |directory| write(directory, &point, ""));
    until("the standard's endpoint", || all_answer(&gateway, 200));
    let questions = point.questions();
    assert!(questions.iter().all(|(path, _)| path != "/many"), "{questions:?}");
    says(&point, None);
    let only_many = || {
        point.questions();
        let right = all_answer(&gateway, 200);
        let questions = point.questions();
        right && !questions.is_empty() && questions.iter().all(|(path, _)| path == "/many")
    };
    until_later("its own endpoint, without a reload", only_many);
    let before = says(&point, Some("404 Absent"));
    reload(&gateway);
    until_later("it looked twice", || looks(&point) >= before + 2);
    assert!(only_many(), "what it said before holds");
}
