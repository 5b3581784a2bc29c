//! Tokens of every kind, good and forged: an own JWS writer, so that any header, claim and
//! signature can be made, also those that a decent library would not write.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};

pub(crate) const CORP: &str = "https://idp.corp.test";
pub(crate) const PUBLIC_URL: &str = "http://portcullis.localhost";

/// The keys of one issuer, and one that is a stranger's.
pub(crate) struct Keys {
    random: SystemRandom,
    /// `kid` "es": the usual one.
    pub(crate) es: EcdsaKeyPair,
    /// `kid` "ed".
    pub(crate) ed: Ed25519KeyPair,
    /// In the set under ids that must not verify: "enc", "ops", "twin".
    pub(crate) misused: EcdsaKeyPair,
    /// In no set.
    pub(crate) stranger: EcdsaKeyPair,
    /// Modulus of the RSA key "rsa", whose private half nobody has.
    pub(crate) modulus: Vec<u8>,
}

impl Keys {
    pub(crate) fn new() -> Self {
        let random = SystemRandom::new();
        let ed = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
        let mut modulus = vec![0; 256];
        random.fill(&mut modulus).unwrap();
        modulus[0] |= 0x80;
        modulus[255] |= 1;
        Self {
            es: ecdsa(&random),
            ed: Ed25519KeyPair::from_pkcs8(ed.as_ref()).unwrap(),
            misused: ecdsa(&random),
            stranger: ecdsa(&random),
            modulus,
            random,
        }
    }

    /// The key set of the issuer, with everything in it that case T22 says to ignore.
    pub(crate) fn jwks(&self) -> Value {
        let ed = encode(self.ed.public_key().as_ref());
        json!({"keys": [
            point(&self.es, "es", &json!({"use": "sig", "alg": "ES256"})),
            {"kty": "OKP", "crv": "Ed25519", "kid": "ed", "use": "sig", "alg": "EdDSA", "x": ed},
            {"kty": "RSA", "kid": "rsa", "n": encode(&self.modulus), "e": "AQAB"},
            {"kty": "RSA", "kid": "rsa1024", "n": encode(&self.modulus[..128]), "e": "AQAB"},
            {"kty": "oct", "kid": "oct", "alg": "HS256", "k": encode(OCT)},
            point(&self.misused, "enc", &json!({"use": "enc"})),
            point(&self.misused, "ops", &json!({"key_ops": ["sign"]})),
            {"kty": "OKP", "crv": "Ed25519", "kid": "twin", "x": ed},
            point(&self.misused, "twin", &json!({})),
        ]})
    }

    /// A key set of the stranger's key alone.
    pub(crate) fn small_jwks(&self) -> Value {
        json!({"keys": [point(&self.es, "es", &json!({"use": "sig", "alg": "ES256"}))]})
    }

    pub(crate) fn claims(&self, user: &str) -> Value {
        let now = now();
        json!({
            "iss": CORP, "aud": PUBLIC_URL, "sub": user, "client_id": "agent-7",
            "iat": now - 5, "exp": now + 600, "jti": encode(&self.bytes()),
        })
    }

    /// The usual token.
    pub(crate) fn token(&self, user: &str) -> String {
        self.signed(&self.claims(user))
    }

    pub(crate) fn signed(&self, claims: &Value) -> String {
        self.jws(r#"{"alg":"ES256","kid":"es","typ":"at+jwt"}"#, &claims.to_string(), &self.es)
    }

    /// The usual claims with one replaced; `Value::Null` removes it.
    pub(crate) fn with(&self, name: &str, value: Value) -> String {
        let mut claims = self.claims("alice");
        if value.is_null() {
            claims.as_object_mut().unwrap().remove(name);
        } else {
            claims[name] = value;
        }
        self.signed(&claims)
    }

    /// The usual claims under another header, well signed with the usual key.
    pub(crate) fn headed(&self, header: &str) -> String {
        self.jws(header, &self.claims("alice").to_string(), &self.es)
    }

    /// Any header and payload text, signed by ES256 with `key`.
    pub(crate) fn jws(&self, header: &str, payload: &str, key: &EcdsaKeyPair) -> String {
        let signed = format!("{}.{}", encode(header.as_bytes()), encode(payload.as_bytes()));
        let mark = key.sign(&self.random, signed.as_bytes()).unwrap();
        format!("{signed}.{}", encode(mark.as_ref()))
    }

    pub(crate) fn ed25519(&self, header: &str, payload: &str) -> String {
        let signed = format!("{}.{}", encode(header.as_bytes()), encode(payload.as_bytes()));
        let mark = self.ed.sign(signed.as_bytes());
        format!("{signed}.{}", encode(mark.as_ref()))
    }

    /// HMAC with something that is public as the secret (RFC 8725 §2.1).
    pub(crate) fn hs256(&self, kid: &str, secret: &[u8]) -> String {
        let header = json!({"alg": "HS256", "kid": kid, "typ": "at+jwt"}).to_string();
        let claims = self.claims("alice").to_string();
        let signed = format!("{}.{}", encode(header.as_bytes()), encode(claims.as_bytes()));
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
        format!("{signed}.{}", encode(hmac::sign(&key, signed.as_bytes()).as_ref()))
    }

    pub(crate) fn bytes(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        self.random.fill(&mut bytes).unwrap();
        bytes
    }
}

fn ecdsa(random: &SystemRandom) -> EcdsaKeyPair {
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, random).unwrap();
    EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), random).unwrap()
}

fn point(key: &EcdsaKeyPair, kid: &str, more: &Value) -> Value {
    let public = key.public_key().as_ref();
    let mut jwk = json!({
        "kty": "EC", "crv": "P-256", "kid": kid,
        "x": encode(&public[1..33]), "y": encode(&public[33..]),
    });
    jwk.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    jwk
}

pub(crate) fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

pub(crate) const OCT: &[u8] = b"a shared secret that is in the key set";
