//! A certificate chain and its private key, as PEM files hold them (RFC 7468). The same for what
//! agents see of us and for what we show to others.

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use zeroize::Zeroizing;

use crate::secret::Secret;

/// A chain and the key that belongs to it. A clone is a handle.
#[derive(Clone)]
pub struct Certified(Arc<CertifiedKey>);

/// What is wrong, in words; the key never appears in them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertifiedFault {
    /// With the chain.
    Certificate(String),
    /// With the key, or it belongs to another certificate.
    Key(String),
}

impl CertifiedFault {
    /// The words.
    #[must_use]
    pub fn into_words(self) -> String {
        match self {
            Self::Certificate(words) | Self::Key(words) => words,
        }
    }
}

impl Certified {
    /// Reads the chain (leaf first) and takes the key. Blocks for one file.
    ///
    /// # Errors
    /// See [`CertifiedFault`].
    pub fn load(certificate: &Path, key: &Secret) -> Result<Self, CertifiedFault> {
        let name = certificate.display();
        let chain = certificates(certificate).map_err(CertifiedFault::Certificate)?;
        let key = PrivateKeyDer::from_pem_slice(key.expose()).map(Zeroizing::new);
        let key = key.map_err(|error| {
            // Not the error itself: it quotes what it could not read.
            let missing = matches!(error, pem::Error::NoItemsFound);
            let what = if missing { "holds no PEM section" } else { "is not valid PEM" };
            CertifiedFault::Key(format!("the private key of {name} {what}"))
        })?;
        let key = any_supported_type(&key).map_err(|_| {
            CertifiedFault::Key(format!("the private key of {name} is of no supported kind"))
        })?;
        let certified = CertifiedKey::new(chain, key);
        certified.keys_match().map_err(|error| {
            if matches!(error, rustls::Error::InconsistentKeys(_)) {
                let what = format!("{name}: the private key belongs to another certificate");
                return CertifiedFault::Key(what);
            }
            // In rustls' words it would be the peer's.
            let what = if let rustls::Error::InvalidCertificate(why) = &error {
                format!("{why:?}")
            } else {
                error.to_string()
            };
            CertifiedFault::Certificate(format!("{name}: its first certificate is invalid: {what}"))
        })?;
        Ok(Self(Arc::new(certified)))
    }

    /// As rustls takes it, for whichever side.
    #[must_use]
    pub fn resolver(&self) -> Arc<SingleCertAndKey> {
        Arc::new(SingleCertAndKey::from(Arc::clone(&self.0)))
    }
}

/// Every certificate of a PEM file, at least one. Blocks for one file.
///
/// # Errors
/// What is wrong, with the file's name.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let name = path.display();
    let pem = std::fs::read(path).map_err(|error| format!("{name}: {error}"))?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let found = found.map_err(|error| format!("{name}: not valid PEM: {error}"))?;
    if found.is_empty() {
        return Err(format!("{name}: holds no PEM section \"CERTIFICATE\""));
    }
    Ok(found)
}
