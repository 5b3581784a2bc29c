use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::{Arc, mpsc};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, HandshakeKind, RootCertStore, SupportedProtocolVersion};

use super::*;
use crate::net::session::{Next, Session};
use crate::net::tls::{ClientTls, ServerTls, Ticketer};
use crate::net::{NetError, accept_tls};
use crate::reject::Reject;
use crate::secret::Secret;

pub(crate) const NAME: &str = "mcp.example";

/// An authority and what it signed, as files in a directory of its own.
pub(crate) struct Paper {
    directory: PathBuf,
    authority: CertifiedIssuer<'static, KeyPair>,
}

impl Paper {
    pub(crate) fn new(label: &str) -> Self {
        let label = format!("portcullis-net-{}-{label}", std::process::id());
        let directory = std::env::temp_dir().join(label);
        std::fs::create_dir_all(&directory).unwrap();
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let authority = CertifiedIssuer::self_signed(params, key).unwrap();
        std::fs::write(directory.join("ca.pem"), authority.pem()).unwrap();
        Self { directory, authority }
    }

    fn sign(&self, params: CertificateParams) -> (PathBuf, Secret) {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.authority).unwrap();
        let path = self.directory.join("leaf.pem");
        std::fs::write(&path, certificate.pem()).unwrap();
        (path, Secret::new(key.serialize_pem().into_bytes()))
    }

    pub(crate) fn server(&self, name: &str) -> ServerTls {
        let (path, key) = self.sign(CertificateParams::new(vec![name.to_owned()]).unwrap());
        ServerTls::load(&path, &key, &Ticketer::new().unwrap()).unwrap()
    }

    fn client(&self) -> ClientTls {
        ClientTls::new(Some(&self.directory.join("ca.pem"))).unwrap()
    }

    /// A client that speaks one version only, as rustls has it.
    pub(crate) fn client_config(&self, version: &'static SupportedProtocolVersion) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth()
    }

    /// A server as rustls has it, for a thread.
    fn server_config(&self) -> Arc<rustls::ServerConfig> {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![NAME.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.authority).unwrap();
        let chain: Vec<CertificateDer<'static>> = vec![certificate.der().clone()];
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        Arc::new(config)
    }
}

impl Drop for Paper {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// A TLS pair made by our own two sides.
async fn secure_pair(
    timers: &Timers,
    server: &ServerTls,
    client: &ClientTls,
    host: &str,
) -> (Result<Stream, Reject>, Result<Stream, NetError>) {
    let (listener, address) = loopback();
    let mut acceptor = Acceptor::new(listener, timers.clone()).unwrap();
    let until = soon(timers);
    let (server, server_timers) = (server.clone(), timers.clone());
    let far = monoio::spawn(async move {
        let _ = &server_timers;
        let stream = acceptor.accept().await.unwrap();
        accept_tls(stream, &server, until).await
    });
    let near = dial(&[address], Some((client, host)), timers, until).await;
    (near, far.await)
}

const VERSIONS: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS12, &rustls::version::TLS13];

#[test]
fn both_versions_carry_large_data_through_small_buffers() {
    on_every_driver(|timers| async move {
        let paper = Paper::new("round");
        let server = paper.server(NAME);
        for version in VERSIONS {
            let client = ClientTls::with_config(paper.client_config(version));
            let (near, far) = secure_pair(&timers, &server, &client, "MCP.example").await;
            let (mut near, mut far) = (near.unwrap(), far.unwrap());
            assert_eq!(far.server_name(), Some(NAME));
            let spoken = near.session().unwrap().common().protocol_version();
            assert_eq!(spoken, Some(version.version));
            let data: Vec<u8> = (0..300_000_u32).map(|i| (i * 7 % 251) as u8).collect();
            let (sent, until) = (data.clone(), soon(&timers));
            let writer = monoio::spawn(async move {
                near.write_all(sent, until).await.0.unwrap();
                near
            });
            let mut seen = Vec::new();
            while seen.len() < data.len() {
                let (result, piece) = far.read(Vec::with_capacity(1000), until).await;
                assert_eq!(result.unwrap(), piece.len());
                seen.extend(piece);
            }
            assert!(seen == data);
            let mut near = writer.await;
            far.write_all(b"answer".to_vec(), until).await.0.unwrap();
            assert_eq!(near.read(Vec::new(), until).await, (Ok(6), b"answer".to_vec()));
            for stream in [&mut near, &mut far] {
                assert_eq!(stream.session().unwrap().buffered(), 0, "idle holds no buffer");
            }
            assert!(!near.looks_closed());
            let closing = monoio::spawn(near.close(until));
            assert_eq!(far.read(Vec::new(), until).await.0, Ok(0));
            drop(far);
            closing.await;
        }
    });
}

#[test]
fn alpn_is_http_1_1_and_nothing_else() {
    on_every_driver(|timers| async move {
        let paper = Paper::new("alpn");
        let server = paper.server(NAME);
        let (near, far) = secure_pair(&timers, &server, &paper.client(), NAME).await;
        let chosen = near.unwrap().session().unwrap().common().alpn_protocol().map(<[u8]>::to_vec);
        assert_eq!(chosen.as_deref(), Some(b"http/1.1".as_slice()));
        far.unwrap();
        let mut config = paper.client_config(&rustls::version::TLS13);
        config.alpn_protocols = vec![b"h2".to_vec()];
        let client = ClientTls::with_config(config);
        let (near, far) = secure_pair(&timers, &server, &client, NAME).await;
        assert_eq!((near.err(), far.err()), (Some(Reject::UpstreamTls), Some(NetError::Tls)));
    });
}

#[test]
fn s06_tickets_outlive_a_reload_of_the_certificate() {
    on_every_driver(|timers| async move {
        let paper = Paper::new("tickets");
        let tickets = Ticketer::new().unwrap();
        let load = |tickets: &Ticketer| {
            let (path, key) = paper.sign(CertificateParams::new(vec![NAME.to_owned()]).unwrap());
            ServerTls::load(&path, &key, tickets).unwrap()
        };
        for version in VERSIONS {
            let client = ClientTls::with_config(paper.client_config(version));
            let steps = [
                (load(&tickets), HandshakeKind::Full),
                (load(&tickets), HandshakeKind::Resumed),
                (load(&Ticketer::new().unwrap()), HandshakeKind::Full),
            ];
            for (server, expected) in steps {
                let (near, far) = secure_pair(&timers, &server, &client, NAME).await;
                let (mut near, mut far) = (near.unwrap(), far.unwrap());
                let kind = near.session().unwrap().common().handshake_kind();
                assert_eq!(kind, Some(expected));
                assert_eq!(far.server_name(), Some(NAME));
                // TLS 1.3 tickets arrive with the first data.
                far.write_all(vec![1], soon(&timers)).await.0.unwrap();
                near.read(Vec::new(), soon(&timers)).await.0.unwrap();
            }
        }
    });
}

#[test]
fn each_core_remembers_its_own_sessions() {
    on_every_driver(|timers| async move {
        let paper = Paper::new("cores");
        let server = paper.server(NAME);
        for version in VERSIONS {
            let made = ClientTls::with_config(paper.client_config(version));
            let (one, two) = (made.for_core(), made.for_core());
            let steps = [
                (&one, HandshakeKind::Full),
                (&one, HandshakeKind::Resumed),
                (&two, HandshakeKind::Full),
                (&two, HandshakeKind::Resumed),
                (&made, HandshakeKind::Full),
            ];
            for (client, expected) in steps {
                let (near, far) = secure_pair(&timers, &server, client, NAME).await;
                let (mut near, mut far) = (near.unwrap(), far.unwrap());
                let kind = near.session().unwrap().common().handshake_kind();
                assert_eq!(kind, Some(expected));
                far.write_all(vec![1], soon(&timers)).await.0.unwrap();
                near.read(Vec::new(), soon(&timers)).await.0.unwrap();
            }
        }
    });
}

#[test]
fn s05_an_upstream_that_cannot_prove_its_name_is_refused() {
    on_every_driver(|timers| async move {
        let paper = Paper::new("wrong");
        let client = paper.client();
        let tickets = Ticketer::new().unwrap();
        let mut expired = CertificateParams::new(vec![NAME.to_owned()]).unwrap();
        expired.not_before = date_time_ymd(2020, 1, 1);
        expired.not_after = date_time_ymd(2021, 1, 1);
        let (path, key) = paper.sign(expired);
        let expired = ServerTls::load(&path, &key, &tickets).unwrap();
        let stranger = Paper::new("stranger");
        let lone = rcgen::generate_simple_self_signed(vec![NAME.to_owned()]).unwrap();
        let path = paper.directory.join("lone.pem");
        std::fs::write(&path, lone.cert.pem()).unwrap();
        let key = Secret::new(lone.signing_key.serialize_pem().into_bytes());
        let lone = ServerTls::load(&path, &key, &tickets).unwrap();
        for (server, why) in [
            (expired, "expired"),
            (paper.server("other.example"), "wrong name"),
            (stranger.server(NAME), "unknown authority"),
            (lone, "self-signed"),
        ] {
            let (near, far) = secure_pair(&timers, &server, &client, NAME).await;
            assert_eq!(near.err(), Some(Reject::UpstreamTls), "{why}");
            assert_eq!(far.err(), Some(NetError::Tls), "{why}: our alert tells the server");
        }
        let (near, _far) = secure_pair(&timers, &paper.server(NAME), &client, NAME).await;
        assert!(near.is_ok(), "and the good one is taken");
    });
}

#[test]
fn s05_an_upstream_that_speaks_tls_1_1_is_refused() {
    on_every_driver(|timers| async move {
        let paper = Paper::new("old");
        let (listener, address) = loopback();
        let old = std::thread::spawn(move || {
            let (mut tcp, _) = listener.accept().unwrap();
            let mut hello = [0; 4096];
            assert!(tcp.read(&mut hello).unwrap() > 0);
            // A ServerHello of version 3.2 (RFC 4346 §7.4.1.3).
            let mut body = vec![3, 2];
            body.extend([9; 32]);
            body.extend([0, 0xc0, 0x13, 0]);
            let mut record = vec![22, 3, 2, 0, body.len() as u8 + 4, 2, 0, 0, body.len() as u8];
            record.extend(body);
            tcp.write_all(&record).unwrap();
            let mut alert = [0; 7];
            tcp.read_exact(&mut alert).unwrap();
            alert
        });
        let tls = paper.client();
        let refused = dial(&[address], Some((&tls, NAME)), &timers, soon(&timers)).await.err();
        assert_eq!(refused, Some(Reject::UpstreamTls));
        assert_eq!(old.join().unwrap()[0], 21, "it is told by an alert");
    });
}

/// Case S03. The drip would hold a slot for ever if each byte started the deadline anew.
#[test]
fn s03_a_handshake_that_does_not_come_is_cut_at_its_deadline() {
    on_every_driver(|timers| async move {
        let paper = Paper::new("slow");
        let server = paper.server(NAME);
        let config = Arc::new(paper.client_config(&rustls::version::TLS13));
        let mut hello = Vec::new();
        let mut client = rustls::ClientConnection::new(config, NAME.try_into().unwrap()).unwrap();
        client.write_tls(&mut hello).unwrap();
        for bytes in [0, 100] {
            let (mut near, far) = pair(&timers).await;
            let begin = timers.exact();
            let hello = hello.clone();
            let dripping = monoio::spawn(async move {
                let timers = near.timers().clone();
                for byte in hello.into_iter().take(bytes) {
                    if near.write_all(vec![byte], soon(&timers)).await.0.is_err() {
                        break;
                    }
                    timers.sleep_until(after(&timers, 20)).await;
                }
                near
            });
            let result = accept_tls(far, &server, begin.after(Duration::from_millis(200))).await;
            assert_eq!(result.err(), Some(NetError::Timeout));
            let took = timers.exact().micros_since(begin);
            assert!((200_000..2_000_000).contains(&took), "{took}");
            drop(dripping.await);
        }
    });
}

/// What a session says after each piece that it read.
fn feed(session: &mut Session, pieces: &[&[u8]]) -> Vec<Result<Next, NetError>> {
    let mut read = |piece: &&[u8]| {
        let mut incoming = session.take_incoming()?;
        incoming.extend_from_slice(piece);
        session.give_incoming(incoming);
        session.advance(None)
    };
    pieces.iter().map(&mut read).collect()
}

/// Case S03. Read anew from its start after each piece, a hello in pieces of one byte would cost
/// its square, and nobody is authenticated yet.
#[test]
fn s03_each_byte_of_a_hello_is_read_once() {
    let paper = Paper::new("once");
    let config = Arc::new(paper.client_config(&rustls::version::TLS13));
    let mut hello = Vec::new();
    let mut client = rustls::ClientConnection::new(config, NAME.try_into().unwrap()).unwrap();
    client.write_tls(&mut hello).unwrap();
    // In one record, and in a record for each byte (RFC 8446 §5.1).
    let split: Vec<u8> = hello[5..].iter().flat_map(|byte| [22, 3, 1, 0, 1, *byte]).collect();
    for wire in [&hello, &split] {
        for size in [1, 7, 4096] {
            let mut session = Session::server(&paper.server(NAME)).unwrap();
            let pieces: Vec<&[u8]> = wire.chunks(size).collect();
            let said = feed(&mut session, &pieces);
            assert!(said.iter().all(|next| *next == Ok(Next::Handshake)), "{said:?}");
            assert_eq!(session.server_name(), Some(NAME), "{size}");
            assert_eq!(session.hello_bytes(), wire.len(), "{size}");
        }
    }
}

#[test]
fn s03_a_hello_that_does_not_end_is_refused() {
    let paper = Paper::new("endless");
    let mut record = vec![22, 3, 1, 0x0f, 0xa0];
    record.resize(4005, 0);
    let mut first = record.clone();
    // A ClientHello of 60 000 bytes.
    first[5..11].copy_from_slice(&[1, 0, 0xea, 0x60, 3, 3]);
    let mut session = Session::server(&paper.server(NAME)).unwrap();
    let said = feed(&mut session, &[&first, &record, &record, &record, &record]);
    let going = Ok(Next::Handshake);
    assert_eq!(said, [going, going, going, going, Err(NetError::Tls)]);
}

/// What one session has to say is read by the other.
fn hand_over(from: &mut Session, to: &mut Session) {
    let said = from.take_outgoing();
    let mut incoming = to.take_incoming().unwrap();
    incoming.extend_from_slice(&said);
    to.give_incoming(incoming);
    from.give_outgoing(said);
}

/// Records are decrypted where they lie, so a token stays there, and in what a reader left over.
#[test]
fn what_was_read_is_wiped() {
    let paper = Paper::new("wiped");
    for version in VERSIONS {
        let tls = ClientTls::with_config(paper.client_config(version));
        let mut client = Session::client(&tls, NAME).unwrap();
        let mut server = Session::server(&paper.server(NAME)).unwrap();
        client.advance(None).unwrap();
        for _ in 0..3 {
            hand_over(&mut client, &mut server);
            server.advance(None).unwrap();
            hand_over(&mut server, &mut client);
            client.advance(None).unwrap();
        }
        assert!(!client.is_handshaking() && !server.is_handshaking());
        server.release();
        client.encrypt(b"a token").unwrap();
        hand_over(&mut client, &mut server);
        let mut sink = Vec::with_capacity(64);
        for (end, read, kept) in
            [(3, &b"a t"[..], &b"oken"[..]), (5, b"a tok", b"\0\0en"), (64, b"a token", b"")]
        {
            server.advance(Some((&mut sink, end))).unwrap();
            let (records, plain) = server.memory();
            assert_eq!((sink.as_slice(), plain), (read, kept));
            assert!(records.len() > 7 && records.iter().all(|byte| *byte == 0));
        }
        server.release();
        assert_eq!(server.buffered(), 0);
    }
}

#[test]
fn s04_plain_http_on_the_tls_port_is_closed() {
    on_every_driver(|timers| async move {
        let paper = Paper::new("plain");
        let server = paper.server(NAME);
        let (mut near, far) = pair(&timers).await;
        let until = soon(&timers);
        let request = b"GET / HTTP/1.1\r\nHost: mcp.example\r\n\r\n".to_vec();
        near.write_all(request, until).await.0.unwrap();
        assert_eq!(accept_tls(far, &server, until).await.err(), Some(NetError::Tls));
        let (result, answer) = near.read(Vec::new(), until).await;
        assert!(result.is_err() || result == Ok(0) || answer.first() == Some(&21), "{answer:?}");
    });
}

/// A rustls client in a thread; `talk` gets it connected.
pub(crate) fn thread_client<T: Send + 'static>(
    config: ClientConfig,
    address: SocketAddr,
    talk: impl FnOnce(rustls::ClientConnection, std::net::TcpStream) -> T + Send + 'static,
) -> std::thread::JoinHandle<T> {
    std::thread::spawn(move || {
        let name = NAME.try_into().unwrap();
        let mut tls = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
        let mut tcp = connect(address);
        while tls.is_handshaking() {
            tls.complete_io(&mut tcp).unwrap();
        }
        talk(tls, tcp)
    })
}

/// RFC 8446 §4.6.3: the answer to an update request may not wait until we have something to say.
#[test]
fn a_key_update_is_answered_while_only_reading() {
    on_every_driver(|timers| async move {
        let paper = Paper::new("update");
        let server = paper.server(NAME);
        let (listener, address) = loopback();
        let mut acceptor = Acceptor::new(listener, timers.clone()).unwrap();
        let config = paper.client_config(&rustls::version::TLS13);
        let (told, answered) = mpsc::channel();
        let client = thread_client(config, address, move |mut tls, mut tcp| {
            // The tickets first, so that what follows can only be the answer.
            tls.complete_io(&mut tcp).unwrap();
            tls.refresh_traffic_keys().unwrap();
            while tls.wants_write() {
                tls.write_tls(&mut tcp).unwrap();
            }
            let count = tls.read_tls(&mut tcp).unwrap();
            tls.process_new_packets().unwrap();
            told.send(count).unwrap();
            tls.writer().write_all(b"after").unwrap();
            tls.send_close_notify();
            while tls.wants_write() {
                tls.write_tls(&mut tcp).unwrap();
            }
            tcp
        });
        let stream = acceptor.accept().await.unwrap();
        let until = soon(&timers);
        let mut stream = accept_tls(stream, &server, until).await.unwrap();
        let (result, data) = stream.read(Vec::new(), until).await;
        assert_eq!((result, data.as_slice()), (Ok(5), b"after".as_slice()));
        assert_eq!(stream.read(Vec::new(), until).await.0, Ok(0));
        client.join().unwrap();
        assert!(answered.try_recv().unwrap() > 0);
    });
}

#[test]
fn our_client_updates_keys_in_both_directions() {
    on_every_driver(|timers| async move {
        let paper = Paper::new("both");
        let client = ClientTls::with_config(paper.client_config(&rustls::version::TLS13));
        let (near, far) = secure_pair(&timers, &paper.server(NAME), &client, NAME).await;
        let (mut near, mut far) = (near.unwrap(), far.unwrap());
        for round in 0..3_u8 {
            near.session().unwrap().refresh_keys();
            near.write_all(vec![round], soon(&timers)).await.0.unwrap();
            assert_eq!(far.read(Vec::new(), soon(&timers)).await, (Ok(1), vec![round]));
            far.write_all(vec![round], soon(&timers)).await.0.unwrap();
            assert_eq!(near.read(Vec::new(), soon(&timers)).await, (Ok(1), vec![round]));
        }
    });
}

/// A rustls server in a thread that sends `data` in pieces of ciphertext, then ends as told.
fn thread_server(
    config: Arc<rustls::ServerConfig>,
    listener: std::net::TcpListener,
    go_on: mpsc::Receiver<()>,
    goodbye: bool,
) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let (mut tcp, _) = listener.accept().unwrap();
        let mut tls = rustls::ServerConnection::new(config).unwrap();
        while tls.is_handshaking() {
            tls.complete_io(&mut tcp).unwrap();
        }
        while tls.wants_write() {
            tls.write_tls(&mut tcp).unwrap();
        }
        tls.writer().write_all(b"a record in two pieces").unwrap();
        if goodbye {
            tls.send_close_notify();
        }
        let mut wire = Vec::new();
        while tls.wants_write() {
            tls.write_tls(&mut wire).unwrap();
        }
        let (head, tail) = wire.split_at(20);
        tcp.write_all(head).unwrap();
        go_on.recv().unwrap();
        tcp.write_all(tail).unwrap();
        tcp.shutdown(std::net::Shutdown::Write).unwrap();
        let _ = go_on.recv();
    })
}

/// Half a record has arrived when the deadline passes; the other half must complete it. Without
/// `close_notify` the end is no end: a body that lasts until close could have been cut (RFC 8446
/// §6.1).
#[test]
fn a_deadline_inside_a_record_loses_nothing_and_truncation_is_an_error() {
    on_every_driver(|timers| async move {
        let paper = Paper::new("cut");
        for goodbye in [false, true] {
            let (listener, address) = loopback();
            let (go, go_on) = mpsc::channel();
            let server = thread_server(paper.server_config(), listener, go_on, goodbye);
            let tls = paper.client();
            let until = soon(&timers);
            let mut stream = dial(&[address], Some((&tls, NAME)), &timers, until).await.unwrap();
            for _ in 0..3 {
                let (result, buf) = stream.read(Vec::new(), after(&timers, 50)).await;
                assert_eq!((result, buf.len()), (Err(NetError::Timeout), 0));
            }
            go.send(()).unwrap();
            let (result, buf) = stream.read(Vec::new(), soon(&timers)).await;
            assert_eq!((result, buf.as_slice()), (Ok(22), b"a record in two pieces".as_slice()));
            let end = stream.read(Vec::new(), soon(&timers)).await.0;
            assert_eq!(end, if goodbye { Ok(0) } else { Err(NetError::Closed) });
            assert!(stream.looks_closed());
            drop(go);
            server.join().unwrap();
        }
    });
}

#[test]
fn a_tampered_record_ends_the_stream() {
    on_every_driver(|timers| async move {
        let paper = Paper::new("tamper");
        let server = paper.server(NAME);
        let (listener, address) = loopback();
        let mut acceptor = Acceptor::new(listener, timers.clone()).unwrap();
        let config = paper.client_config(&rustls::version::TLS13);
        let client = thread_client(config, address, |mut tls, mut tcp| {
            tls.writer().write_all(b"hello").unwrap();
            let mut wire = Vec::new();
            tls.write_tls(&mut wire).unwrap();
            *wire.last_mut().unwrap() ^= 1;
            tcp.write_all(&wire).unwrap();
            let mut rest = Vec::new();
            let _ = tcp.read_to_end(&mut rest);
            rest.len()
        });
        let stream = acceptor.accept().await.unwrap();
        let until = soon(&timers);
        let mut stream = accept_tls(stream, &server, until).await.unwrap();
        assert_eq!(stream.read(Vec::new(), until).await.0, Err(NetError::Tls));
        assert_eq!(stream.read(Vec::new(), until).await.0, Err(NetError::Closed));
        assert_eq!(stream.write_all(vec![1], until).await.0, Err(NetError::Closed));
        // Until it is closed in fact: the ring does that in its own time.
        stream.close(until).await;
        while !client.is_finished() {
            timers.sleep_until(after(&timers, 10)).await;
        }
        assert!(client.join().unwrap() > 0, "an alert said why");
    });
}

#[test]
fn s06_a_broken_certificate_is_named_in_words() {
    let paper = Paper::new("broken");
    let tickets = Ticketer::new().unwrap();
    let (leaf, key) = paper.sign(CertificateParams::new(vec![NAME.to_owned()]).unwrap());
    let other = Secret::new(KeyPair::generate().unwrap().serialize_pem().into_bytes());
    let empty = paper.directory.join("empty.pem");
    std::fs::write(&empty, "").unwrap();
    let torn = paper.directory.join("torn.pem");
    std::fs::write(&torn, "-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n").unwrap();
    let missing = paper.directory.join("missing.pem");
    let junk = paper.directory.join("junk.pem");
    std::fs::write(&junk, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
        .unwrap();
    let no_key = Secret::new(b"secret words".to_vec());
    let pem = |of| format!("-----BEGIN PRIVATE KEY-----\n{of}\n-----END PRIVATE KEY-----\n");
    let torn_key = Secret::new(pem("secret words!").into_bytes());
    let junk_key = Secret::new(pem("AAAA").into_bytes());
    for (path, key, word) in [
        (&missing, &key, "missing.pem"),
        (&empty, &key, "holds no PEM section"),
        (&torn, &key, "torn.pem: not valid PEM"),
        (&leaf, &other, "the private key belongs to another certificate"),
        (&junk, &key, "junk.pem: its first certificate is invalid: BadEncoding"),
        (&leaf, &no_key, "leaf.pem holds no PEM section"),
        (&leaf, &torn_key, "leaf.pem is not valid PEM"),
        (&leaf, &junk_key, "leaf.pem is of no supported kind"),
    ] {
        let error = ServerTls::load(path, key, &tickets).err().unwrap();
        assert!(error.contains(word), "{error}");
        assert!(!error.contains("secret words"));
    }
    assert!(ServerTls::load(&leaf, &key, &tickets).is_ok());
    assert!(ClientTls::new(Some(&empty)).err().unwrap().contains("empty.pem"));
    assert!(ClientTls::new(None).is_ok());
}
