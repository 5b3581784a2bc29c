//! Signature keys of one issuer (RFC 7517): which of them count, parsed once per document.
//!
//! A set is never empty: a document without one usable key is a fault, so that a poisoned or
//! truncated answer cannot replace good keys (cases T22, F04, F05).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;
use jsonwebtoken::jwk::{
    AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse,
};
use ring::digest;
use serde_json::Value;
use zeroize::Zeroizing;

use crate::config::Algorithm;
use crate::judge::{crypto, json};
use crate::limits::{JWKS_BYTES_MAX, JWKS_KEYS_MAX, RSA_MODULUS_BITS_MAX, RSA_MODULUS_BITS_MIN};

/// The usable keys of one document, in its order; at least one.
pub struct KeySet {
    keys: Vec<Key>,
}

/// Why a document was not accepted as a key set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeySetFault {
    /// More bytes than `JWKS_BYTES_MAX`.
    TooLarge,
    /// More keys than `JWKS_KEYS_MAX`.
    TooMany,
    /// Not a JSON object with an array `keys`, or a member name is repeated.
    Malformed,
    /// No key that could verify a token; also the empty set.
    NoUsableKey,
}

/// One key with the algorithms it may serve.
pub struct Key {
    id: Option<String>,
    kind: Kind,
    /// `alg` of the JWK; `None` = any of its kind.
    algorithm: Option<Algorithm>,
    decoding: DecodingKey,
    digest: KeyDigest,
}

/// SHA-256 over id, algorithm and public part: the key as a token meets it. A withdrawn key is
/// recognised by it even when another one took over its id.
pub type KeyDigest = [u8; 32];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Ec,
    Okp,
    Rsa,
}

/// Answer to a search by key id.
pub enum Found<'k> {
    /// A key of this id that serves the algorithm.
    Key(&'k Key),
    /// Keys of this id exist, but none serves the algorithm.
    OtherAlgorithm,
    /// No key of this id.
    Unknown,
}

impl KeySet {
    /// Reads a key set document.
    ///
    /// Keys that cannot verify a signature of ours are left out one by one, as RFC 7517 §5 asks:
    /// `oct`, foreign curves, RSA under 2048 bits, `use` other than `sig`, `key_ops` without
    /// `verify`, foreign `alg`, and a key that repeats an earlier id with another `kty`.
    ///
    /// # Errors
    /// See [`KeySetFault`]; the caller keeps what it had.
    pub fn parse(document: &[u8]) -> Result<Self, KeySetFault> {
        crypto::install();
        if document.len() > JWKS_BYTES_MAX {
            return Err(KeySetFault::TooLarge);
        }
        let mut document = json::object(document).map_err(|_| KeySetFault::Malformed)?;
        let Some(Value::Array(entries)) = document.remove("keys") else {
            return Err(KeySetFault::Malformed);
        };
        if entries.len() > JWKS_KEYS_MAX {
            return Err(KeySetFault::TooMany);
        }
        let mut keys: Vec<Key> = Vec::with_capacity(entries.len());
        for key in entries.into_iter().filter_map(Key::from_entry) {
            // RFC 7517 §4.5 lets keys of different type share an id. Which one a token means would
            // then hang on the token's own `alg`, so the first one keeps the id.
            let taken = |old: &Key| key.id.is_some() && old.id == key.id && old.kind != key.kind;
            if !keys.iter().any(taken) {
                keys.push(key);
            }
        }
        if keys.is_empty() { Err(KeySetFault::NoUsableKey) } else { Ok(Self { keys }) }
    }

    /// The key for a token that names `id`. Of several equal ones the first counts.
    #[must_use]
    pub fn by_id(&self, id: &str, algorithm: Algorithm) -> Found<'_> {
        let mut named = self.keys.iter().filter(|key| key.id.as_deref() == Some(id)).peekable();
        if named.peek().is_none() {
            return Found::Unknown;
        }
        named.find(|key| key.serves(algorithm)).map_or(Found::OtherAlgorithm, Found::Key)
    }

    /// The key for a token without `kid`: only if exactly one could be meant, never by trying.
    #[must_use]
    pub fn only(&self, algorithm: Algorithm) -> Option<&Key> {
        let mut serving = self.keys.iter().filter(|key| key.serves(algorithm));
        let first = serving.next()?;
        if serving.next().is_some() { None } else { Some(first) }
    }

    /// True when the key of that digest still counts.
    #[must_use]
    pub fn holds(&self, digest: &KeyDigest) -> bool {
        self.keys.iter().any(|key| key.digest == *digest)
    }

    /// Number of usable keys, at least 1.
    #[must_use]
    pub fn count(&self) -> usize {
        self.keys.len()
    }
}

impl Key {
    /// True when this key may verify a token of that algorithm.
    #[must_use]
    pub fn serves(&self, algorithm: Algorithm) -> bool {
        Kind::of(algorithm) == self.kind && self.algorithm.is_none_or(|own| own == algorithm)
    }

    /// What [`KeySet::holds`] looks for.
    #[must_use]
    pub const fn digest(&self) -> KeyDigest {
        self.digest
    }

    /// Verifies `signature` (base64url) over `message`. False for anything that is not a signature.
    #[must_use]
    pub fn verifies(&self, algorithm: Algorithm, message: &[u8], signature: &str) -> bool {
        let wire = match algorithm {
            Algorithm::Es256 => jsonwebtoken::Algorithm::ES256,
            Algorithm::EdDsa => jsonwebtoken::Algorithm::EdDSA,
            Algorithm::Ps256 => jsonwebtoken::Algorithm::PS256,
            Algorithm::Rs256 => jsonwebtoken::Algorithm::RS256,
        };
        // Decoded here and not by jsonwebtoken, which frees its copy unwiped.
        let mut mark = Zeroizing::new(Vec::with_capacity(signature.len()));
        self.serves(algorithm)
            && URL_SAFE_NO_PAD.decode_vec(signature, &mut mark).is_ok()
            && crypto::verifies(wire, &self.decoding, message, &mark)
    }

    fn from_entry(entry: Value) -> Option<Self> {
        let jwk: Jwk = serde_json::from_value(entry).ok()?;
        // RFC 7517 §4.2, §4.3: a key says what it is for. One that is for something else would let
        // its holder sign tokens with a key that was never meant for that.
        if !matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature)) {
            return None;
        }
        if let Some(operations) = &jwk.common.key_operations
            && !operations.contains(&KeyOperations::Verify)
        {
            return None;
        }
        let kind = Kind::of_parameters(&jwk.algorithm)?;
        let algorithm = match jwk.common.key_algorithm {
            None => None,
            Some(named) => Some(own_algorithm(named).filter(|own| Kind::of(*own) == kind)?),
        };
        let decoding = DecodingKey::from_jwk(&jwk).ok()?;
        let seen = (&jwk.common.key_id, &jwk.common.key_algorithm, &jwk.algorithm);
        let seen = serde_json::to_vec(&seen).ok()?;
        let digest = digest::digest(&digest::SHA256, &seen).as_ref().try_into().ok()?;
        Some(Self { id: jwk.common.key_id, kind, algorithm, decoding, digest })
    }
}

impl Kind {
    const fn of(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Es256 => Self::Ec,
            Algorithm::EdDsa => Self::Okp,
            Algorithm::Ps256 | Algorithm::Rs256 => Self::Rsa,
        }
    }

    /// The kind of well-formed parameters; `None` for kinds and sizes we do not take.
    #[expect(clippy::wildcard_enum_match_arm, reason = "a foreign enum that may grow: refused")]
    fn of_parameters(parameters: &AlgorithmParameters) -> Option<Self> {
        match parameters {
            AlgorithmParameters::EllipticCurve(ec) => {
                let fits = ec.curve == EllipticCurve::P256
                    && decoded_len(&ec.x) == Some(P256_COORDINATE_BYTES)
                    && decoded_len(&ec.y) == Some(P256_COORDINATE_BYTES);
                fits.then_some(Self::Ec)
            }
            AlgorithmParameters::OctetKeyPair(okp) => {
                let fits = okp.curve == EllipticCurve::Ed25519
                    && decoded_len(&okp.x) == Some(ED25519_KEY_BYTES);
                fits.then_some(Self::Okp)
            }
            AlgorithmParameters::RSA(rsa) => {
                let bits = modulus_bits(&URL_SAFE_NO_PAD.decode(&rsa.n).ok()?)?;
                let fits = (RSA_MODULUS_BITS_MIN..=RSA_MODULUS_BITS_MAX).contains(&bits);
                fits.then_some(Self::Rsa)
            }
            _ => None,
        }
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "a foreign enum that may grow: refused")]
const fn own_algorithm(named: KeyAlgorithm) -> Option<Algorithm> {
    match named {
        KeyAlgorithm::ES256 => Some(Algorithm::Es256),
        KeyAlgorithm::EdDSA => Some(Algorithm::EdDsa),
        KeyAlgorithm::PS256 => Some(Algorithm::Ps256),
        KeyAlgorithm::RS256 => Some(Algorithm::Rs256),
        _ => None,
    }
}

fn decoded_len(text: &str) -> Option<usize> {
    URL_SAFE_NO_PAD.decode(text).ok().map(|bytes| bytes.len())
}

/// Bits of a big-endian modulus. `None` with a leading zero octet, which RFC 7518 §6.3.1.1 forbids
/// and
/// *ring* refuses: better no key at load than one that never verifies.
fn modulus_bits(modulus: &[u8]) -> Option<usize> {
    let first = *modulus.first()?;
    if first == 0 {
        return None;
    }
    Some(modulus.len() * 8 - first.leading_zeros() as usize)
}

const P256_COORDINATE_BYTES: usize = 32;
const ED25519_KEY_BYTES: usize = 32;

#[cfg(test)]
mod tests;
