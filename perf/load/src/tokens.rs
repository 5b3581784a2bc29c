//! `load tokens`: many signed access tokens, told apart by their subjects.

use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ring::rand::SystemRandom;
use ring::signature::{self, EcdsaKeyPair, RsaKeyPair};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};

use crate::args::{Algorithm, TokensArgs};
use crate::fault::{Doing, Fault};

/// `load tokens`.
pub(crate) fn mint(args: &TokensArgs) -> Result<(), Fault> {
    let place = args.key.display();
    let pem = std::fs::read(&args.key).doing(&format!("{place}: the key cannot be read"))?;
    let key = Key::read(&pem, args.alg).map_err(|fault| Fault::new(format!("{place}: {fault}")))?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).doing("clock")?.as_secs();
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    for number in 0..args.count {
        let token = token(&key, args, number, now)?;
        writeln!(out, "{token}").doing("standard output")?;
    }
    out.flush().doing("standard output")
}

/// One access token after RFC 9068, as the gateway expects them.
fn token(key: &Key, args: &TokensArgs, number: u32, now: u64) -> Result<String, Fault> {
    let header = json!({"alg": key.name(), "kid": args.kid, "typ": "at+jwt"});
    let mut claims = json!({
        "iss": args.issuer,
        "aud": args.audience,
        "sub": format!("user-{number}"),
        "iat": now,
        "exp": now.saturating_add(args.expires),
        "jti": format!("{now}-{number}"),
    });
    if let Value::Object(claims) = &mut claims {
        claims.extend(args.claim.iter().cloned());
    }
    let signed =
        format!("{}.{}", BASE64.encode(header.to_string()), BASE64.encode(claims.to_string()));
    let signature = key.sign(signed.as_bytes())?;
    Ok(format!("{signed}.{}", BASE64.encode(signature)))
}

/// A private key that signs.
enum Key {
    Es256(EcdsaKeyPair, SystemRandom),
    Rs256(Box<RsaKeyPair>, SystemRandom),
}

impl Key {
    fn read(pem: &[u8], algorithm: Algorithm) -> Result<Self, Fault> {
        let key = PrivatePkcs8KeyDer::from_pem_slice(pem)
            .doing("no PKCS#8 key in PEM; convert it: openssl pkcs8 -topk8 -nodes")?;
        let random = SystemRandom::new();
        let der = key.secret_pkcs8_der();
        match algorithm {
            Algorithm::Es256 => {
                EcdsaKeyPair::from_pkcs8(&signature::ECDSA_P256_SHA256_FIXED_SIGNING, der, &random)
                    .map(|pair| Self::Es256(pair, random))
                    .doing("no P-256 key, which ES256 needs")
            }
            Algorithm::Rs256 => RsaKeyPair::from_pkcs8(der)
                .map(|pair| Self::Rs256(Box::new(pair), SystemRandom::new()))
                .doing("no RSA key of 2048 bits or more, which RS256 needs"),
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Es256(..) => "ES256",
            Self::Rs256(..) => "RS256",
        }
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Fault> {
        match self {
            Self::Es256(pair, random) => {
                let signed = pair.sign(random, message).doing("signing")?;
                Ok(signed.as_ref().to_vec())
            }
            Self::Rs256(pair, random) => {
                let mut signed = vec![0; pair.public().modulus_len()];
                pair.sign(&signature::RSA_PKCS1_SHA256, random, message, &mut signed)
                    .doing("signing")?;
                Ok(signed)
            }
        }
    }
}
