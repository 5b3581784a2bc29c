//! TLS settings of both ends: rustls on ring. Sessions are never resumed, so that a handshake is a whole one.

use std::path::Path;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};

use crate::fault::{Doing, Fault};

/// How the generator speaks TLS to a proxy.
pub(crate) struct Client {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl Client {
    pub(crate) fn new(ca: &Path, name: &str) -> Result<Self, Fault> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(ca)? {
            roots.add(certificate).doing(&format!("{}: not a CA certificate", ca.display()))?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .doing("TLS versions")?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.resumption = Resumption::disabled();
        // Some peers choose HTTP/2 unless told what is spoken here.
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let name = ServerName::try_from(name.to_owned())
            .doing(&format!("--server-name {name}: give the DNS name in the certificate"))?;
        Ok(Self { config: Arc::new(config), name })
    }

    pub(crate) fn open(&self) -> Result<rustls::Connection, rustls::Error> {
        ClientConnection::new(Arc::clone(&self.config), self.name.clone()).map(Into::into)
    }
}

/// How the upstream speaks TLS to a proxy.
pub(crate) struct Server {
    config: Arc<ServerConfig>,
}

impl Server {
    pub(crate) fn new(certificate: &Path, key: &Path) -> Result<Self, Fault> {
        let chain = certificates(certificate)?;
        let key = PrivateKeyDer::from_pem_file(key)
            .doing(&format!("{}: no PEM private key to be read", key.display()))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .doing("TLS versions")?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .doing("certificate and key do not go together")?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { config: Arc::new(config) })
    }

    pub(crate) fn open(&self) -> Result<rustls::Connection, rustls::Error> {
        ServerConnection::new(Arc::clone(&self.config)).map(Into::into)
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Fault> {
    let unreadable = format!("{}: no PEM certificate to be read", path.display());
    let found: Vec<_> = CertificateDer::pem_file_iter(path)
        .doing(&unreadable)?
        .collect::<Result<_, _>>()
        .doing(&unreadable)?;
    if found.is_empty() { Err(Fault::new(unreadable)) } else { Ok(found) }
}
