//! Keys and tokens for tests: an issuer that can also write what no honest issuer would.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::rand::SystemRandom;
use ring::signature::{
    self, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RsaKeyPair,
    RsaPublicKeyComponents,
};
use serde_json::{Value, json};

use crate::clock::UnixSeconds;
use crate::config::{Algorithm, KeySource, TrustProvider};
use crate::judge::keys::KeySet;

pub(crate) const NOW: UnixSeconds = UnixSeconds(1_800_000_000);
pub(crate) const ISSUER: &str = "https://idp.example.com";
pub(crate) const URL: &str = "https://gw.example.com";

/// A private key of a test issuer.
pub(crate) enum TestKey {
    Ec(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
    Rsa(Box<RsaKeyPair>),
}

impl TestKey {
    pub(crate) fn ec() -> Self {
        let random = SystemRandom::new();
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        Self::Ec(EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &random).unwrap())
    }

    pub(crate) fn ed() -> Self {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Self::Ed(Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap())
    }

    /// *ring* makes no RSA keys, so there is one for all tests. It protects nothing.
    pub(crate) fn rsa() -> Self {
        let der = STANDARD.decode(RSA_TEST_KEY.concat()).unwrap();
        Self::Rsa(Box::new(RsaKeyPair::from_der(&der).unwrap()))
    }

    /// The public half, without `alg`, `use` and `kid`.
    pub(crate) fn jwk(&self) -> Value {
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        match self {
            Self::Ec(pair) => {
                let point = pair.public_key().as_ref();
                let (x, y) = point[1..].split_at(32);
                json!({"kty": "EC", "crv": "P-256", "x": text(x), "y": text(y)})
            }
            Self::Ed(pair) => {
                json!({"kty": "OKP", "crv": "Ed25519", "x": text(pair.public_key().as_ref())})
            }
            Self::Rsa(pair) => {
                let public: RsaPublicKeyComponents<Vec<u8>> = pair.public().into();
                json!({"kty": "RSA", "n": text(&public.n), "e": text(&public.e)})
            }
        }
    }

    /// Signs by the named algorithm, or by the key's first one for a name that is none of ours.
    pub(crate) fn sign(&self, algorithm: &str, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Self::Ec(pair) => pair.sign(&random, message).unwrap().as_ref().to_vec(),
            Self::Ed(pair) => pair.sign(message).as_ref().to_vec(),
            Self::Rsa(pair) => {
                let padding: &dyn signature::RsaEncoding = match algorithm {
                    "PS256" => &signature::RSA_PSS_SHA256,
                    _ => &signature::RSA_PKCS1_SHA256,
                };
                let mut mark = vec![0; pair.public().modulus_len()];
                pair.sign(padding, &random, message, &mut mark).unwrap();
                mark
            }
        }
    }

    /// A token of exactly these texts.
    pub(crate) fn token_of(&self, header: &str, claims: &str) -> String {
        let algorithm = serde_json::from_str::<Value>(header)
            .ok()
            .and_then(|header| Some(header.get("alg")?.as_str()?.to_owned()))
            .unwrap_or_default();
        let signed =
            format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let mark = self.sign(&algorithm, signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(mark))
    }

    /// A token of these objects.
    pub(crate) fn token(&self, header: &Value, claims: &Value) -> String {
        self.token_of(&header.to_string(), &claims.to_string())
    }
}

/// A header that our profile accepts for an EC key of id `kid`.
pub(crate) fn header(kid: &str) -> Value {
    json!({"alg": "ES256", "typ": "at+jwt", "kid": kid})
}

/// Claims that our profile accepts.
pub(crate) fn claims() -> Value {
    json!({
        "iss": ISSUER, "aud": format!("{URL}/mcp/github"), "sub": "u-1",
        "exp": NOW.0 + 300, "iat": NOW.0, "client_id": "https://agent.example.com",
        "email": "ada@example.com", "groups": ["staff", "engineering"], "scope": "mcp offline",
    })
}

/// `object` with `members` set; a `null` takes the member out.
pub(crate) fn with(object: &Value, members: Value) -> Value {
    let mut changed = object.clone();
    for (name, value) in members.as_object().unwrap() {
        let map = changed.as_object_mut().unwrap();
        if value.is_null() {
            map.remove(name);
        } else {
            map.insert(name.clone(), value.clone());
        }
    }
    changed
}

/// A key set document of these keys.
pub(crate) fn jwks(keys: &[Value]) -> Vec<u8> {
    json!({"keys": keys}).to_string().into_bytes()
}

/// A parsed set with one key.
pub(crate) fn key_set(key: &TestKey, kid: &str) -> KeySet {
    KeySet::parse(&jwks(&[with(&key.jwk(), json!({"kid": kid}))])).ok().unwrap()
}

/// The contract's example provider: all four algorithms, user by `email`.
pub(crate) fn provider() -> TrustProvider {
    TrustProvider {
        name: "corp".into(),
        issuer: ISSUER.into(),
        keys: KeySource::Discovery,
        algorithms: vec![Algorithm::Es256, Algorithm::EdDsa, Algorithm::Ps256, Algorithm::Rs256],
        namespace: String::new(),
        token_type: Some("at+jwt".into()),
        leeway_seconds: 30,
        audiences: Vec::new(),
        trust_private_addresses: false,
        ca_file: None,
        user_claim: "email".into(),
        groups_claim: "groups".into(),
        agent_claim: "client_id".into(),
        require: Vec::new(),
        workload: Vec::new(),
    }
}

const RSA_TEST_KEY: &[&str] = &[
    "MIIEpAIBAAKCAQEAoRu6Zseod/Ft6Gp5ZO9KchCvYPwv2D+3gahsgpTaW4OiuA8jMxmwnAuwcFX/fX65svD1jqDS89",
    "9sQVUmcJ9VdFaJE+GlM0wRCkebO7KjQwzJx3Glh4eHYWgu6vw29Po0JBSKj2YA09vthmbedL8MwnvwkPeSwEQWHzVu",
    "DqdqJF6NgtVp1olCDa6oo+DjTHiHwf/rw+POINmSKodCjl96QP6MrM2wEl+StXQ073yEa1nwSaAqH5Vp4zisrq6vUg",
    "bbaJ7LjFdchzwKObMLTqIVqSDbIf45D/XlAEmcB9pvAtjieRRrfhbiBK63OtT1mysGuv6GL2SBLfFU39ZRz5OiZQID",
    "AQABAoIBACAwJ8kOpXJXVmfr0/auV2+cNUn5gL6iFlINmiZpwomrrmg7QANe49n9fOIo0GuclNHzUgBN0e/fCOQxtM",
    "UmFF7yxh7mg4jQ7wugfFuMSJGmHa9fHZ0LHyl/NPaGbx15Ws8FmpxlWw94/ocOiO4G2LAHrqvsBtIqmEfidytu1+ZN",
    "e2qVypXVT5KeA0NaKpn+GI95TdIBU/Rh5ixVNtKZLSVTAeyQAQ+ykg/iGGUuiUcCIQn5SaViJHmAjIqz0c9YZREdCH",
    "I3X4AMH52sJE+sfSf7xnkp9DO/XTdk+ndc+2G4KEYEkrmFrBOK2/eMwGuGQRNE3HBbdSwjczLXrf2OATECgYEA3CmL",
    "Mg81Ghbvo54KEhVgQUxrLN2wUBgCj6Scqn5XH7ouYn2/VyU3o+5m3i2d6JNkes6OSLFrIJwPaPa/GTKokw1+4IcuSY",
    "D9KrLYC0gscLtclR8FRO5Ysc5+VgzGnxA1aguFnRweg/Zgp8hs4McLglPLCyNFYTVAvTVLNai9mhECgYEAu1VTo2a6",
    "TIQ1QO5AeTOt4/9d3oM1vxPf49PxZ5L7gi56MVuXJ776ZIQ2fm0nsn9v7Co7wxVWglrulxXUMd108b+VDv6dQjaKMP",
    "8HB6xj+6Ou5506lwsnN+G7hInNkIT4NznNujLxB2K2zmqHKyVa/EbTSz14mxRMe6660YUPDxUCgYEA2Yx3jhy21TPq",
    "0ludCedzeLLBiND6ovpGtZfscxBqmOBJa2tkQgF1rJgrr8mVqrbSaANpV21xNQTguVBw3r5PExgX0lfhpiI+iA23K9",
    "bCixao0nWXqFh47iHkdrUjIxRKI6KFAg1CHhW7xq9m3unwdnTEQxo0OWz8rrpVug0mZXECgYEAr2b2WBHQr+I+RpyO",
    "K63SzJ8HkleClHWUdaq15se9zKed6+cZQbLUmhcdOwUTXVNrRVJKAKBTDtz7duWOeF4lqFE8zPxj3GJaxAOV3n5wY2",
    "ZgVydle5WK1Az82d15Zy7JhlQOJ6CZA9RO3DjsdN6WMY5TOqjE61d3QXtaGuGeNv0CgYBJRcZBPEJ1foXWCZecIcG6",
    "Ik3IhaBAZAIM+iMV0Cdfiks0IM5HoD7i3gPtgo37BUwtncitPLNKIw3VzD51vKRZ49nvcMhcHzlGaNkcJAj/c9MVqe",
    "weFUX7saVS2TduNkQguOHFSvKxD0dbqd3d2Fho3HKDwzA0rHyGZuTRf9ZZQw==",
];

/// Runs a future that needs no event loop; gives up instead of hanging.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = std::pin::pin!(future);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    for _ in 0..100_000 {
        if let std::task::Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
    }
    panic!("a future that never ends");
}
