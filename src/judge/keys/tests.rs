use serde_json::{Value, json};

use super::*;
use crate::judge::testing::{TestKey, jwks, with};

fn parse(keys: &[Value]) -> Result<KeySet, KeySetFault> {
    KeySet::parse(&jwks(keys))
}

fn found(set: &KeySet, id: &str, algorithm: Algorithm) -> &'static str {
    match set.by_id(id, algorithm) {
        Found::Key(_) => "key",
        Found::OtherAlgorithm => "other",
        Found::Unknown => "unknown",
    }
}

/// A modulus of that many bits, not of a real key: only its form is looked at.
fn rsa(bits: usize) -> Value {
    let mut n = vec![0xff_u8; bits.div_ceil(8)];
    n[0] >>= (8 - bits % 8) % 8;
    json!({"kty": "RSA", "n": URL_SAFE_NO_PAD.encode(n), "e": "AQAB"})
}

#[test]
fn t22_keys_that_cannot_verify_for_us_are_left_out() {
    let ec = TestKey::ec().jwk();
    let ed = TestKey::ed().jwk();
    let x = |bytes: usize| URL_SAFE_NO_PAD.encode(vec![1_u8; bytes]);
    let zero_first = URL_SAFE_NO_PAD.encode([&[0_u8], [0xff_u8; 256].as_slice()].concat());
    let refused = [
        json!({"kty": "oct", "k": "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75"}),
        json!({"kty": "oct", "k": "AyM1SysPpbyDfgZld3umj1", "alg": "ES256"}),
        rsa(1024),
        rsa(2047),
        rsa(8193),
        json!({"kty": "RSA", "n": zero_first, "e": "AQAB"}),
        json!({"kty": "RSA", "n": "", "e": "AQAB"}),
        json!({"kty": "RSA", "n": "====", "e": "AQAB"}),
        with(&ec, json!({"use": "enc"})),
        with(&ec, json!({"use": "SIG"})),
        with(&ec, json!({"key_ops": ["sign"]})),
        with(&ec, json!({"key_ops": []})),
        with(&ec, json!({"key_ops": ["encrypt", "wrapKey"]})),
        with(&ec, json!({"alg": "RS256"})),
        with(&ec, json!({"alg": "ES384"})),
        with(&ec, json!({"alg": "HS256"})),
        with(&ec, json!({"alg": "none"})),
        with(&ec, json!({"alg": 7})),
        with(&ec, json!({"kid": 7})),
        with(&ec, json!({"crv": "P-384"})),
        with(&ec, json!({"crv": "secp256k1"})),
        with(&ec, json!({"x": x(31)})),
        with(&ec, json!({"y": x(33)})),
        with(&ec, json!({"y": null})),
        with(&ed, json!({"crv": "X25519"})),
        with(&ed, json!({"x": x(31)})),
        with(&ed, json!({"alg": "ES256"})),
        with(&rsa(2048), json!({"alg": "RS512"})),
        with(&rsa(2048), json!({"alg": "RSA-OAEP"})),
        json!({"kty": "PQ"}),
        json!({}),
        json!("key"),
        json!(null),
    ];
    for key in &refused {
        assert_eq!(parse(std::slice::from_ref(key)).err(), Some(KeySetFault::NoUsableKey), "{key}");
    }
    // Beside a good key they change nothing.
    let mut mixed = refused.to_vec();
    mixed.push(with(&ec, json!({"kid": "good"})));
    let set = parse(&mixed).ok().unwrap();
    assert_eq!(set.count(), 1);
    assert_eq!(found(&set, "good", Algorithm::Es256), "key");
}

#[test]
fn t22_good_keys_are_kept() {
    for key in [
        TestKey::ec().jwk(),
        TestKey::ed().jwk(),
        rsa(2048),
        rsa(8192),
        with(&rsa(3072), json!({"alg": "PS256", "use": "sig", "key_ops": ["verify"]})),
        with(&TestKey::ec().jwk(), json!({"jku": "https://evil.test", "x5c": ["AA=="]})),
    ] {
        assert_eq!(parse(std::slice::from_ref(&key)).ok().map(|set| set.count()), Some(1), "{key}");
    }
}

#[test]
fn t22_an_id_repeated_with_another_type_stays_with_the_first() {
    let ec = with(&TestKey::ec().jwk(), json!({"kid": "a"}));
    let rsa = with(&rsa(2048), json!({"kid": "a"}));
    let oct = json!({"kty": "oct", "k": "AAAA", "kid": "a"});
    let set = parse(&[oct, ec.clone(), rsa.clone()]).ok().unwrap();
    assert_eq!(set.count(), 1);
    assert_eq!(found(&set, "a", Algorithm::Es256), "key");
    assert_eq!(found(&set, "a", Algorithm::Rs256), "other");
    let set = parse(&[rsa, ec]).ok().unwrap();
    assert_eq!(found(&set, "a", Algorithm::Rs256), "key");
    assert_eq!(found(&set, "a", Algorithm::Es256), "other");
}

#[test]
fn t03_a_key_serves_its_own_algorithm_only() {
    let named = with(&rsa(2048), json!({"kid": "ps", "alg": "PS256"}));
    let open = with(&rsa(2048), json!({"kid": "any"}));
    let set = parse(&[named, open]).ok().unwrap();
    assert_eq!(found(&set, "ps", Algorithm::Ps256), "key");
    assert_eq!(found(&set, "ps", Algorithm::Rs256), "other");
    assert_eq!(found(&set, "any", Algorithm::Rs256), "key");
    assert_eq!(found(&set, "any", Algorithm::Es256), "other");
    assert_eq!(found(&set, "PS", Algorithm::Ps256), "unknown");
}

#[test]
fn without_an_id_only_a_single_key_counts() {
    let (one, two) = (TestKey::ec().jwk(), TestKey::ec().jwk());
    let set = parse(&[one.clone(), TestKey::ed().jwk()]).ok().unwrap();
    assert!(set.only(Algorithm::Es256).is_some());
    assert!(set.only(Algorithm::Rs256).is_none());
    let set = parse(&[one, two]).ok().unwrap();
    assert!(set.only(Algorithm::Es256).is_none());
}

#[test]
fn f04_f05_documents_that_are_not_a_key_set() {
    let ec = TestKey::ec().jwk();
    let padded = [jwks(std::slice::from_ref(&ec)), vec![b' '; JWKS_BYTES_MAX]].concat();
    let repeated = format!("{{\"keys\":[],\"keys\":[{ec}]}}");
    for (document, wanted) in [
        (padded, KeySetFault::TooLarge),
        (jwks(&vec![json!({}); JWKS_KEYS_MAX + 1]), KeySetFault::TooMany),
        (jwks(&[]), KeySetFault::NoUsableKey),
        (repeated.into_bytes(), KeySetFault::Malformed),
        (b"<!DOCTYPE html><html></html>".to_vec(), KeySetFault::Malformed),
        (b"".to_vec(), KeySetFault::Malformed),
        (b"[]".to_vec(), KeySetFault::Malformed),
        (b"{}".to_vec(), KeySetFault::Malformed),
        (br#"{"keys":{}}"#.to_vec(), KeySetFault::Malformed),
        (b"{\"keys\":[".to_vec(), KeySetFault::Malformed),
    ] {
        assert_eq!(KeySet::parse(&document).err(), Some(wanted));
    }
    let full = jwks(&vec![ec; JWKS_KEYS_MAX]);
    assert_eq!(KeySet::parse(&full).ok().map(|set| set.count()), Some(JWKS_KEYS_MAX));
}

#[test]
fn f06_a_key_is_known_by_its_content_not_by_its_id() {
    let (ours, theirs) = (TestKey::ec().jwk(), TestKey::ec().jwk());
    let named = |key: &Value, id: &str| with(key, json!({"kid": id}));
    let set = parse(&[named(&ours, "one")]).unwrap();
    let digest = set.only(Algorithm::Es256).unwrap().digest();
    assert!(set.holds(&digest));
    let holds = |keys: &[Value]| parse(keys).unwrap().holds(&digest);
    assert!(holds(&[named(&theirs, "two"), with(&named(&ours, "one"), json!({"use": "sig"}))]));
    assert!(!holds(&[named(&theirs, "one")]), "another key took over the id");
    assert!(!holds(&[named(&ours, "two")]), "a token that names the old id finds no key");
}
