//! TLS on both sides: what is offered to agents, what is demanded of upstreams.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair,
    date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, RootCertStore, ServerConfig, ServerConnection,
    StreamOwned, SupportedProtocolVersion,
};

use crate::client::{Client, Wire, status};
use crate::gateway::{Gateway, Setup, Stage, api_key};
use crate::upstream::{Peer, RESULT, Then, Upstream, json as answer};
use crate::wait::{DEADLINE, eventually};

const NAME: &str = "gw.example";
const VERSIONS: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS12, &rustls::version::TLS13];

/// An authority of one test.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        Self(CertifiedIssuer::self_signed(params, key).unwrap())
    }

    fn sign(&self, params: CertificateParams) -> (Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.0).unwrap(), key)
    }

    /// A certificate for the gateway, written where its configuration looks.
    fn equip(&self, stage: &Stage, serial_name: &str) {
        let mut params = CertificateParams::new(vec![NAME.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, serial_name);
        let (certificate, key) = self.sign(params);
        stage.write("gw.pem", &certificate.pem());
        stage.write("gw.key", &key.serialize_pem());
    }

    fn client(&self, versions: &[&'static SupportedProtocolVersion]) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth()
    }
}

fn secured(upstream: &Upstream) -> Setup {
    let mut setup = Setup::new(upstream.address);
    setup.listen =
        "[listen.tls]\ncertificate = \"gw.pem\"\nprivate_key = \"file:gw.key\"".to_owned();
    setup.public_url = format!("https://{NAME}");
    setup
}

fn start(setup: &Setup, authority: &Authority) -> Gateway {
    let stage = setup.prepare();
    authority.equip(&stage, "first");
    let gateway = setup.start_on(stage);
    gateway.wait_until_ready();
    gateway
}

fn connect(
    gateway: &Gateway,
    config: &Arc<ClientConfig>,
) -> StreamOwned<ClientConnection, TcpStream> {
    let name = ServerName::try_from(NAME).unwrap();
    let session = ClientConnection::new(Arc::clone(config), name).unwrap();
    let stream = TcpStream::connect(gateway.address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    StreamOwned::new(session, stream)
}

/// As the gateway's clients say `Host`.
fn call(gateway: &Gateway, host: &str) -> String {
    let client = Client::new(gateway.address, &token(gateway));
    client.call("echo").replace(&format!("host: {}", gateway.address), &format!("host: {host}"))
}

fn token(gateway: &Gateway) -> String {
    gateway.stage().token_for(&format!("https://{NAME}"), "alice", 600)
}

#[test]
fn both_versions_serve_with_alpn_and_resume_sessions_over_a_reload() {
    let (upstream, authority) = (Upstream::echo(), Authority::new());
    let gateway = start(&secured(&upstream), &authority);
    assert!(gateway.said().contains("listening on https://"), "{}", gateway.said());
    for version in VERSIONS {
        let mut config = authority.client(&[version]);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let config = Arc::new(config);
        for round in 0..3 {
            if round == 2 {
                gateway.reload();
            }
            let mut wire = Wire::new(connect(&gateway, &config));
            wire.send(&call(&gateway, NAME));
            assert_eq!(wire.answer().text(), RESULT);
            wire.send(&call(&gateway, NAME));
            assert_eq!(wire.answer().status, 200, "keep-alive");
            let session = &wire.stream.conn;
            assert_eq!(session.alpn_protocol(), Some(&b"http/1.1"[..]));
            assert_eq!(session.protocol_version(), Some(version.version));
            let kind = session.handshake_kind().unwrap();
            if round > 0 {
                assert_eq!(kind, HandshakeKind::Resumed, "{version:?}, round {round}");
            }
        }
    }
}

/// Neither leaves a record, because nobody was asked for anything; both are counted.
#[test]
fn handshakes_that_fail_and_connections_without_a_place_are_counted() {
    let (upstream, authority) = (Upstream::echo(), Authority::new());
    let setup = secured(&upstream).cores("cpus = \"0\"").limits("connections_per_core_max = 1");
    let gateway = start(&setup, &authority);
    let failures = "portcullis_tls_handshake_failures_total{core=\"0\"}";
    let away = "portcullis_refusals_total{reason=\"overloaded\"}";
    let mut plain = Wire::open(gateway.address);
    plain.send("GET / HTTP/1.1\r\n\r\n");
    plain.ended();
    eventually("the failed handshake is counted", || gateway.metric(failures) > 0.5);
    eventually("its seat is free", || gateway.metric("portcullis_connections") < 0.5);
    let config = Arc::new(authority.client(&VERSIONS));
    let mut wire = Wire::new(connect(&gateway, &config));
    wire.send(&call(&gateway, NAME));
    assert_eq!(wire.answer().status, 200);
    assert!(gateway.metric(away) < 0.5);
    assert!(Wire::open(gateway.address).ended(), "no place");
    eventually("who found no place is counted", || gateway.metric(away) > 0.5);
    assert!(gateway.metric(failures) < 1.5, "counted once");
}

#[test]
fn alpn_without_http_1_1_is_refused() {
    let (upstream, authority) = (Upstream::echo(), Authority::new());
    let gateway = start(&secured(&upstream), &authority);
    let mut config = authority.client(&VERSIONS);
    config.alpn_protocols = vec![b"h2".to_vec()];
    let mut stream = connect(&gateway, &Arc::new(config));
    let error = stream.write_all(b"x").and_then(|()| stream.read(&mut [0; 1]).map(|_| ()));
    let words = error.unwrap_err().to_string();
    assert!(words.contains("NoApplicationProtocol"), "{words}");
}

#[test]
fn s07_sni_and_host_must_name_the_same() {
    let (upstream, authority) = (Upstream::echo(), Authority::new());
    let mut setup = secured(&upstream);
    setup.listen = format!("hosts = [\"other.example\"]\n{}", setup.listen);
    let gateway = start(&setup, &authority);
    let config = Arc::new(authority.client(&VERSIONS));
    let mut wire = Wire::new(connect(&gateway, &config));
    wire.send(&call(&gateway, "other.example"));
    let refused = wire.answer();
    assert_eq!(refused.status, 421, "{}", refused.head);
    assert_eq!(upstream.requests(), 0);
}

#[test]
fn s03_s04_a_stalled_handshake_and_plain_http_are_closed() {
    let (upstream, authority) = (Upstream::echo(), Authority::new());
    let gateway = start(&secured(&upstream).limits("handshake_ms_max = 300"), &authority);
    let mut silent = Wire::open(gateway.address);
    let mut halting = Wire::open(gateway.address);
    halting.stream.write_all(&[0x16, 0x03]).unwrap();
    assert!(silent.ended());
    assert!(halting.ended());
    let mut plain = Wire::open(gateway.address);
    plain.send(&call(&gateway, NAME));
    let mut bytes = Vec::new();
    let _ = plain.stream.read_to_end(&mut bytes);
    assert!(!bytes.starts_with(b"HTTP"), "{bytes:?}");
    let mut wire = Wire::new(connect(&gateway, &Arc::new(authority.client(&VERSIONS))));
    wire.send(&call(&gateway, NAME));
    assert_eq!(wire.answer().status, 200, "others are served");
    eventually("no connection is left open", || {
        gateway.metric("portcullis_connections{core=\"0\"}") < 1.5
    });
}

#[test]
fn s06_a_new_certificate_serves_new_handshakes_and_a_broken_one_changes_nothing() {
    let (upstream, authority) = (Upstream::echo(), Authority::new());
    let gateway = start(&secured(&upstream), &authority);
    // A client without a memory: each handshake shows the certificate.
    let leaf = || {
        let config = Arc::new(authority.client(&VERSIONS));
        let mut wire = Wire::new(connect(&gateway, &config));
        wire.send(&call(&gateway, NAME));
        assert_eq!(wire.answer().status, 200);
        wire.stream.conn.peer_certificates().unwrap()[0].clone()
    };
    let mut open = Wire::new(connect(&gateway, &Arc::new(authority.client(&VERSIONS))));
    open.send(&call(&gateway, NAME));
    assert_eq!(open.answer().status, 200);
    let first = leaf();
    authority.equip(gateway.stage(), "second");
    gateway.reload();
    eventually("the new certificate is shown", || leaf() != first);
    let second = leaf();
    open.send(&call(&gateway, NAME));
    assert_eq!(open.answer().status, 200, "an open connection is not dropped");
    // The certificate of another key.
    let key = gateway.stage().read("gw.key");
    authority.equip(gateway.stage(), "third");
    gateway.stage().write("gw.key", &key);
    gateway.reload();
    assert!(gateway.said().contains("belongs to another certificate"), "{}", gateway.said());
    assert!(gateway.metric("portcullis_config_last_reload_successful") < 0.5);
    assert_eq!(leaf(), second);
}

/// How an upstream proves, or fails to prove, who it is.
fn upstream_with(certificate: CertificateDer<'static>, key: &KeyPair) -> Upstream {
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let config = Arc::new(config);
    Upstream::start_with(
        move |stream| {
            let session = ServerConnection::new(Arc::clone(&config)).unwrap();
            Some(Box::new(StreamOwned::new(session, stream)) as Box<dyn Peer>)
        },
        |_, peer| answer(peer, RESULT),
    )
}

fn to_upstream(upstream: &Upstream) -> Setup {
    let url = format!("https://{}/mcp", upstream.address);
    Setup::with_tables(&format!(
        "[[server]]\nname = \"sample\"\nurl = \"{url}\"\ntrust_private_addresses = true\n\
         ca_file = \"ca.pem\"\ncredential = \"key\"\n{}",
        api_key("key", "[\"sample\"]", "header = \"X-Api-Key\"", "up.key"),
    ))
}

fn serve_from(upstream: &Upstream, authority: &Authority) -> Gateway {
    let setup = to_upstream(upstream);
    let stage = setup.prepare();
    stage.write("ca.pem", &authority.0.pem());
    stage.write("up.key", "canary-upstream-key");
    let gateway = setup.start_on(stage);
    gateway.wait_until_ready();
    gateway
}

#[test]
fn an_upstream_of_a_private_authority_is_believed_by_its_ca_file() {
    let authority = Authority::new();
    let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let (certificate, key) = authority.sign(params);
    let upstream = upstream_with(certificate.der().clone(), &key);
    let gateway = serve_from(&upstream, &authority);
    let client = gateway.client();
    let mut wire = client.open();
    for _ in 0..5 {
        wire.send(&client.call("echo"));
        assert_eq!(wire.answer().text(), RESULT);
    }
    assert_eq!(upstream.connections(), 1, "TLS connections are pooled, too");
    assert!(upstream.seen()[0].head.contains("canary-upstream-key"));
}

#[test]
fn s05_an_upstream_that_cannot_prove_its_name_is_502_and_gets_no_credential() {
    let authority = Authority::new();
    let named = |name: &str| CertificateParams::new(vec![name.to_owned()]).unwrap();
    let mut expired = named("127.0.0.1");
    expired.not_before = date_time_ymd(2020, 1, 1);
    expired.not_after = date_time_ymd(2021, 1, 1);
    let own_key = KeyPair::generate().unwrap();
    let own = named("127.0.0.1").self_signed(&own_key).unwrap();
    let (wrong, wrong_key) = authority.sign(named("other.example"));
    let (old, old_key) = authority.sign(expired);
    let (foreign, foreign_key) = Authority::new().sign(named("127.0.0.1"));
    let cases = [
        ("wrong name", wrong, wrong_key),
        ("expired", old, old_key),
        ("self-signed", own, own_key),
        ("foreign authority", foreign, foreign_key),
    ];
    for (case, certificate, key) in cases {
        let upstream = upstream_with(certificate.der().clone(), &key);
        let gateway = serve_from(&upstream, &authority);
        let client = gateway.client();
        for request in [client.call("echo"), client.list()] {
            let failed = client.once(&request);
            assert_eq!((failed.status, failed.reason().as_str()), (502, "upstream_tls"), "{case}");
        }
        assert!(upstream.connections() > 0, "{case}");
        assert_eq!(upstream.requests(), 0, "{case}: not a byte of a request was sent");
    }
}

#[test]
fn s05_plain_http_where_tls_is_due_is_502() {
    let authority = Authority::new();
    let upstream = Upstream::start_with(
        |mut stream| {
            // What an old server would say to a TLS hello.
            let _ = stream.read(&mut [0; 512]);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}");
            None
        },
        |_, _| Then::Close,
    );
    let gateway = serve_from(&upstream, &authority);
    let client = gateway.client();
    let failed = client.once(&client.call("echo"));
    assert_eq!((failed.status, failed.reason().as_str()), (502, "upstream_tls"));
}

/// `policy schema --server` believes whom the gateway believes, and shows nobody else the key.
#[test]
fn policy_schema_believes_the_ca_file() {
    let authority = Authority::new();
    let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let (certificate, key) = authority.sign(params);
    let upstream = upstream_with(certificate.der().clone(), &key);
    let stage = to_upstream(&upstream).prepare();
    stage.write("up.key", "canary-upstream-key");
    stage.write("ca.pem", &Authority::new().0.pem());
    let (code, _, told) = crate::schema_cli::schema(&stage, &[]);
    let words = "no TLS with it: it speaks none there, or shows no certificate for 127.0.0.1 that \
                 is signed by one in ";
    assert!(code == 1 && told.contains(words), "{told}");
    assert_eq!(upstream.requests(), 0);
    stage.write("ca.pem", &authority.0.pem());
    // It is no MCP server, so this is how far one gets.
    let (code, _, told) = crate::schema_cli::schema(&stage, &[]);
    assert!(code == 1 && told.contains("speaks no revision of MCP"), "{told}");
    assert!(upstream.seen()[0].head.contains("canary-upstream-key"));
    assert!(!told.contains("canary-upstream-key"));
}

/// An upstream that goes without `close_notify` in an answer that ends with the connection may have
/// been cut by anybody.
#[test]
fn a_tls_upstream_that_is_cut_off_is_not_taken_for_complete() {
    let authority = Authority::new();
    let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let (certificate, key) = authority.sign(params);
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    let config = Arc::new(config);
    let upstream = Upstream::start_with(
        move |stream| {
            let session = ServerConnection::new(Arc::clone(&config)).unwrap();
            Some(Box::new(StreamOwned::new(session, stream)) as Box<dyn Peer>)
        },
        |_, peer| {
            let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n";
            let _ = crate::upstream::say(peer, &format!("{head}{RESULT}"));
            Then::Close
        },
    );
    let gateway = serve_from(&upstream, &authority);
    let client = gateway.client();
    let mut wire = client.open();
    wire.send(&client.call("echo"));
    let head = wire.read_head();
    assert_eq!(status(&head), 200);
    assert!(wire.body(&head).is_none(), "no clean end");
    assert_eq!(gateway.audited(1)[0]["reason"], "upstream_eof");
}

#[test]
fn a_certificate_that_is_not_there_is_a_fault_at_start() {
    let upstream = Upstream::echo();
    let (code, words) = secured(&upstream).refused();
    assert_eq!(code, 78, "{words}");
    assert!(words.contains("gw.pem") || words.contains("private_key"), "{words}");
}
