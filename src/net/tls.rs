//! TLS settings: certificates, roots, versions. TLS 1.2 and 1.3 on ring, ALPN `http/1.1`, no 0-RTT.

use std::path::Path;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::server::{NoServerSessionStorage, ProducesTickets};
use rustls::{ClientConfig, ConfigBuilder, RootCertStore, ServerConfig, WantsVerifier};

use crate::config::{Certified, CertifiedFault, certificates};
use crate::secret::Secret;

/// Keys of session tickets: one per process, kept over reloads, so that a new certificate does not
/// send every client through a full handshake. Rotates by itself (6 h).
#[derive(Clone)]
pub struct Ticketer(Arc<dyn ProducesTickets>);

impl Ticketer {
    /// Fresh random keys.
    ///
    /// # Errors
    /// No randomness.
    pub fn new() -> Result<Self, String> {
        rustls::crypto::ring::Ticketer::new()
            .map(Self)
            .map_err(|error| format!("session ticket keys cannot be made: {error}"))
    }
}

/// The server's side: what agents see. A clone is a handle.
#[derive(Clone)]
pub struct ServerTls(Arc<ServerConfig>);

impl ServerTls {
    /// Reads the chain (PEM, leaf first) and takes the private key (PEM).
    ///
    /// # Errors
    /// What is wrong, with the file's name; the key never appears in it.
    pub fn load(certificate: &Path, key: &Secret, ticketer: &Ticketer) -> Result<Self, String> {
        let certified = Certified::load(certificate, key).map_err(CertifiedFault::into_words)?;
        let mut config = versions(ServerConfig::builder_with_provider(provider()))?
            .with_no_client_auth()
            .with_cert_resolver(certified.resolver());
        config.alpn_protocols = vec![HTTP_1_1.to_vec()];
        config.ticketer = Arc::clone(&ticketer.0);
        // Tickets only: a stateful cache would be a lock shared by all cores.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.max_early_data_size = 0;
        Ok(Self(Arc::new(config)))
    }

    pub(super) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.0)
    }
}

/// The client's side: whom we believe, for one server. A clone is a handle to the same memory of
/// sessions, which stands behind a lock; [`ClientTls::for_core`] gives each core one of its own.
#[derive(Clone)]
pub struct ClientTls(Arc<ClientConfig>);

impl ClientTls {
    /// Trusts the roots of a PEM file, or the public ones (webpki-roots).
    ///
    /// # Errors
    /// What is wrong, with the file's name.
    pub fn new(ca_file: Option<&Path>) -> Result<Self, String> {
        Self::showing(ca_file, None)
    }

    /// As [`ClientTls::new`]; `own` is shown to a server that asks who we are (RFC 8446 §4.4.2),
    /// and to no other.
    ///
    /// # Errors
    /// As [`ClientTls::new`].
    pub fn showing(ca_file: Option<&Path>, own: Option<&Certified>) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        match ca_file {
            None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
            Some(path) => {
                for root in certificates(path)? {
                    roots.add(root).map_err(|error| format!("{}: {error}", path.display()))?;
                }
            }
        }
        let config = versions(ClientConfig::builder_with_provider(provider()))?
            .with_root_certificates(roots);
        let mut config = match own {
            None => config.with_no_client_auth(),
            Some(own) => config.with_client_cert_resolver(own.resolver()),
        };
        config.alpn_protocols = vec![HTTP_1_1.to_vec()];
        config.resumption = Resumption::in_memory_sessions(SESSIONS_MAX);
        config.enable_early_data = false;
        Ok(Self(Arc::new(config)))
    }

    /// The same trust and certificate with a memory of sessions of its own, so that no two cores
    /// share a lock.
    #[must_use]
    pub fn for_core(&self) -> Self {
        let mut config = ClientConfig::clone(&self.0);
        config.resumption = Resumption::in_memory_sessions(SESSIONS_MAX);
        Self(Arc::new(config))
    }

    #[cfg(test)]
    pub(super) fn with_config(config: ClientConfig) -> Self {
        Self(Arc::new(config))
    }

    pub(super) fn config(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.0)
    }
}

fn versions<S: rustls::ConfigSide>(
    builder: ConfigBuilder<S, rustls::WantsVersions>,
) -> Result<ConfigBuilder<S, WantsVerifier>, String> {
    builder
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|error| format!("TLS cannot be set up: {error}"))
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// The one protocol we speak (RFC 7301 §6).
const HTTP_1_1: &[u8] = b"http/1.1";
/// Sessions remembered for resumption: tickets of one name, since each server has its own memory of
/// them, on each core.
const SESSIONS_MAX: usize = 8;
