//! The cryptography under jsonwebtoken: *ring*, and only the four algorithms of the profile.
//!
//! jsonwebtoken 11 brings formats and asks the application for a provider. This one refuses by
//! construction what must never verify: HMAC (a public key used as a secret, RFC 8725 §2.1),
//! `none`, and the long tail of RSA and ECDSA variants.

use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{Error, ErrorKind, Result};
use jsonwebtoken::jwk::ThumbprintHash;
use jsonwebtoken::signature::{Error as SignatureError, Signer, Verifier};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind, EncodingKey};
use ring::rand::SystemRandom;
use ring::{digest, signature};

/// Makes *ring* the provider of this process. Harmless to repeat; key sets call it when they are
/// parsed, so nothing can be verified before it ran.
pub fn install() {
    // Only a second call can fail, and it would install the same table.
    let _ = PROVIDER.install_default();
}

/// True when `mark` is the signature of `message` under a key of that algorithm's family.
pub fn verifies(algorithm: Algorithm, key: &DecodingKey, message: &[u8], mark: &Vec<u8>) -> bool {
    verifier(&algorithm, key).is_ok_and(|verifier| verifier.verify(message, mark).is_ok())
}

struct RingVerifier {
    algorithm: Algorithm,
    key: VerifyingKey,
}

enum VerifyingKey {
    Point(&'static dyn signature::VerificationAlgorithm, Vec<u8>),
    Rsa(&'static signature::RsaParameters, Vec<u8>, Vec<u8>),
}

impl Verifier<Vec<u8>> for RingVerifier {
    fn verify(&self, message: &[u8], mark: &Vec<u8>) -> std::result::Result<(), SignatureError> {
        match &self.key {
            VerifyingKey::Point(algorithm, point) => {
                signature::UnparsedPublicKey::new(*algorithm, point).verify(message, mark)
            }
            VerifyingKey::Rsa(parameters, n, e) => {
                signature::RsaPublicKeyComponents { n, e }.verify(parameters, message, mark)
            }
        }
        .map_err(|_| SignatureError::new())
    }
}

impl JwtVerifier for RingVerifier {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>> {
    // The key's family decides; a token that names another one never reaches a primitive.
    if key.family() != algorithm.family() {
        return Err(unsupported());
    }
    let key = match (primitive(*algorithm), key.kind()) {
        (Some(Primitive::Point(primitive)), DecodingKeyKind::SecretOrDer(bytes)) => {
            VerifyingKey::Point(primitive, bytes.clone())
        }
        (Some(Primitive::Rsa(primitive)), DecodingKeyKind::RsaModulusExponent { n, e }) => {
            VerifyingKey::Rsa(primitive, n.clone(), e.clone())
        }
        (None | Some(Primitive::Point(_) | Primitive::Rsa(_)), _) => return Err(unsupported()),
    };
    Ok(Box::new(RingVerifier { algorithm: *algorithm, key }))
}

enum Primitive {
    Point(&'static dyn signature::VerificationAlgorithm),
    Rsa(&'static signature::RsaParameters),
}

#[expect(clippy::wildcard_enum_match_arm, reason = "a foreign enum that may grow: refused")]
fn primitive(algorithm: Algorithm) -> Option<Primitive> {
    match algorithm {
        Algorithm::ES256 => Some(Primitive::Point(&signature::ECDSA_P256_SHA256_FIXED)),
        Algorithm::EdDSA => Some(Primitive::Point(&signature::ED25519)),
        Algorithm::PS256 => Some(Primitive::Rsa(&signature::RSA_PSS_2048_8192_SHA256)),
        Algorithm::RS256 => Some(Primitive::Rsa(&signature::RSA_PKCS1_2048_8192_SHA256)),
        _ => None,
    }
}

/// Signing serves `token mint` alone; the gateway never signs a JWT.
enum RingSigner {
    Es256(signature::EcdsaKeyPair, SystemRandom),
    EdDsa(signature::Ed25519KeyPair),
}

impl Signer<Vec<u8>> for RingSigner {
    fn try_sign(&self, message: &[u8]) -> std::result::Result<Vec<u8>, SignatureError> {
        match self {
            Self::Es256(pair, random) => pair
                .sign(random, message)
                .map(|mark| mark.as_ref().to_vec())
                .map_err(|_| SignatureError::new()),
            Self::EdDsa(pair) => Ok(pair.sign(message).as_ref().to_vec()),
        }
    }
}

impl JwtSigner for RingSigner {
    fn algorithm(&self) -> Algorithm {
        match self {
            Self::Es256(..) => Algorithm::ES256,
            Self::EdDsa(_) => Algorithm::EdDSA,
        }
    }
}

fn signer(algorithm: &Algorithm, key: &EncodingKey) -> Result<Box<dyn JwtSigner>> {
    match (*algorithm, key.family()) {
        (Algorithm::ES256, AlgorithmFamily::Ec) => {
            let random = SystemRandom::new();
            let pair = signature::EcdsaKeyPair::from_pkcs8(
                &signature::ECDSA_P256_SHA256_FIXED_SIGNING,
                key.as_bytes(),
                &random,
            )
            .map_err(|_| Error::from(ErrorKind::InvalidEcdsaKey))?;
            Ok(Box::new(RingSigner::Es256(pair, random)))
        }
        (Algorithm::EdDSA, AlgorithmFamily::Ed) => {
            let pair = signature::Ed25519KeyPair::from_pkcs8_maybe_unchecked(key.as_bytes())
                .map_err(|_| Error::from(ErrorKind::InvalidEddsaKey))?;
            Ok(Box::new(RingSigner::EdDsa(pair)))
        }
        _ => Err(unsupported()),
    }
}

fn compute_digest(data: &[u8], hash: ThumbprintHash) -> Result<Vec<u8>> {
    let algorithm = match hash {
        ThumbprintHash::SHA256 => &digest::SHA256,
        ThumbprintHash::SHA384 => &digest::SHA384,
        ThumbprintHash::SHA512 => &digest::SHA512,
        _ => return Err(unsupported()),
    };
    Ok(digest::digest(algorithm, data).as_ref().to_vec())
}

fn unsupported() -> Error {
    ErrorKind::UnsupportedAlgorithm.into()
}

/// Key extraction is not needed (`token mint` builds its JWK from the key pair), so those functions
/// refuse instead of panicking as the library's placeholders would.
static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: signer,
    verifier_factory: verifier,
    key_utils: KeyUtils {
        rsa_pub_components_from_private_key: |_| Err(unsupported()),
        rsa_pub_components_from_public_key: |_| Err(unsupported()),
        ec_pub_components_from_private_key: |_, _| Err(unsupported()),
        ed_pub_components_from_private_key: |_, _| Err(unsupported()),
        compute_digest,
    },
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc8725_2_1_a_public_key_is_never_an_hmac_secret() {
        let secret = DecodingKey::from_secret(b"public key bytes");
        for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
            assert!(verifier(&algorithm, &secret).is_err());
        }
        assert!(signer(&Algorithm::HS256, &EncodingKey::from_secret(b"x")).is_err());
    }

    #[test]
    fn only_the_four_algorithms_have_a_primitive() {
        let rsa = DecodingKey::from_rsa_raw_components(&[0x80; 256], &[1, 0, 1]);
        let ec = DecodingKey::from_ec_der(&[4; 65]);
        let ed = DecodingKey::from_ed_der(&[7; 32]);
        for (algorithm, key, works) in [
            (Algorithm::RS256, &rsa, true),
            (Algorithm::PS256, &rsa, true),
            (Algorithm::ES256, &ec, true),
            (Algorithm::EdDSA, &ed, true),
            (Algorithm::RS384, &rsa, false),
            (Algorithm::RS512, &rsa, false),
            (Algorithm::PS384, &rsa, false),
            (Algorithm::PS512, &rsa, false),
            (Algorithm::ES384, &ec, false),
            (Algorithm::ES256, &rsa, false),
            (Algorithm::RS256, &ec, false),
            (Algorithm::EdDSA, &ec, false),
        ] {
            assert_eq!(verifier(&algorithm, key).is_ok(), works, "{algorithm:?}");
        }
    }
}
