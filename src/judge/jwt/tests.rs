use serde_json::json;

use super::*;
use crate::judge::testing::{NOW, TestKey, URL, claims, header, jwks, key_set, provider, with};

mod wycheproof;

/// What the profile says about a token.
fn verdict(token: &str, keys: &KeySet) -> Option<Reject> {
    check(token.as_bytes(), &provider(), keys, NOW).err().map(|fault| fault.reject)
}

#[test]
fn a_good_token_of_each_algorithm_passes() {
    let (ec, ed, rsa) = (TestKey::ec(), TestKey::ed(), TestKey::rsa());
    for (key, algorithm) in [(&ec, "ES256"), (&ed, "EdDSA"), (&rsa, "RS256"), (&rsa, "PS256")] {
        let keys = key_set(key, "k");
        let header = with(&header("k"), json!({"alg": algorithm}));
        let checked = check(key.token(&header, &claims()).as_bytes(), &provider(), &keys, NOW);
        let claims = checked.ok().unwrap();
        assert_eq!(claims.subject(), "u-1");
        assert_eq!(claims.audiences(), [format!("{URL}/mcp/github")]);
        assert_eq!(claims.get("email"), Some(&json!("ada@example.com")));
    }
}

#[test]
fn t01_no_signature_algorithm() {
    let key = TestKey::ec();
    let keys = key_set(&key, "k");
    for none in ["none", "None", "NONE", "nOnE", "", "es256", "ES256 "] {
        let header = with(&header("k"), json!({"alg": none}));
        let token = key.token(&header, &claims());
        assert_eq!(verdict(&token, &keys), Some(Reject::TokenAlgorithm), "{none:?}");
        let unsigned = format!("{}.", token.rsplit_once('.').unwrap().0);
        assert_eq!(verdict(&unsigned, &keys), Some(Reject::TokenMalformed), "{none:?}");
    }
    let absent = key.token(&with(&header("k"), json!({"alg": null})), &claims());
    assert_eq!(verdict(&absent, &keys), Some(Reject::TokenAlgorithm));
    let number = key.token(&with(&header("k"), json!({"alg": 256})), &claims());
    assert_eq!(verdict(&number, &keys), Some(Reject::TokenMalformed));
}

#[test]
fn t02_the_public_key_as_an_hmac_secret() {
    let key = TestKey::rsa();
    let keys = key_set(&key, "k");
    let jwk = key.jwk();
    let n = URL_SAFE_NO_PAD.decode(jwk["n"].as_str().unwrap()).unwrap();
    for (name, hash) in [
        ("HS256", ring::hmac::HMAC_SHA256),
        ("HS384", ring::hmac::HMAC_SHA384),
        ("HS512", ring::hmac::HMAC_SHA512),
    ] {
        let head = with(&header("k"), json!({"alg": name})).to_string();
        let signed = format!(
            "{}.{}",
            URL_SAFE_NO_PAD.encode(head),
            URL_SAFE_NO_PAD.encode(claims().to_string())
        );
        for secret in [jwk.to_string().into_bytes(), n.clone(), jwk["n"].as_str().unwrap().into()] {
            let mark = ring::hmac::sign(&ring::hmac::Key::new(hash, &secret), signed.as_bytes());
            let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(mark));
            assert_eq!(verdict(&token, &keys), Some(Reject::TokenAlgorithm));
        }
    }
}

#[test]
fn t03_the_algorithm_belongs_to_the_key() {
    let (rsa, ec) = (TestKey::rsa(), TestKey::ec());
    let jwk = with(&rsa.jwk(), json!({"kid": "r", "alg": "PS256"}));
    let keys = KeySet::parse(&jwks(&[jwk, with(&ec.jwk(), json!({"kid": "e"}))])).ok().unwrap();
    let token = |key: &TestKey, kid: &str, alg: &str| {
        key.token(&with(&header(kid), json!({"alg": alg})), &claims())
    };
    assert_eq!(verdict(&token(&rsa, "r", "PS256"), &keys), None);
    assert_eq!(verdict(&token(&rsa, "r", "RS256"), &keys), Some(Reject::TokenAlgorithm));
    assert_eq!(verdict(&token(&rsa, "e", "RS256"), &keys), Some(Reject::TokenAlgorithm));
    assert_eq!(verdict(&token(&ec, "r", "ES256"), &keys), Some(Reject::TokenAlgorithm));
    // Not on the provider's list, however good the signature.
    let mut narrow = provider();
    narrow.algorithms = vec![Algorithm::Rs256];
    let fault = check(token(&ec, "e", "ES256").as_bytes(), &narrow, &keys, NOW).err();
    assert_eq!(fault.map(|fault| fault.reject), Some(Reject::TokenAlgorithm));
}

#[test]
fn t05_signatures_that_are_none() {
    let (key, other) = (TestKey::ec(), TestKey::ec());
    let keys = key_set(&key, "k");
    let good = key.token(&header("k"), &claims());
    let (signed, mark) = good.rsplit_once('.').unwrap();
    let zeros = URL_SAFE_NO_PAD.encode([0; 64]);
    let short = URL_SAFE_NO_PAD.encode([1; 63]);
    let der = URL_SAFE_NO_PAD.encode([0x30; 70]);
    assert_eq!(verdict(&good, &keys), None);
    assert_eq!(verdict(&format!("{signed}."), &keys), Some(Reject::TokenMalformed));
    for mark in [zeros, short, der, mark.to_uppercase(), URL_SAFE_NO_PAD.encode("x")] {
        let token = format!("{signed}.{mark}");
        assert_eq!(verdict(&token, &keys), Some(Reject::TokenSignature), "{mark}");
    }
    let stranger = other.token(&header("k"), &claims());
    assert_eq!(verdict(&stranger, &keys), Some(Reject::TokenSignature));
    // Another payload under the same signature.
    let head = signed.split_once('.').unwrap().0;
    let payload = URL_SAFE_NO_PAD.encode(with(&claims(), json!({"sub": "admin"})).to_string());
    let swapped = format!("{head}.{payload}.{mark}");
    assert_eq!(verdict(&swapped, &keys), Some(Reject::TokenSignature));
}

#[test]
fn t06_an_unknown_key_id_may_be_new() {
    let key = TestKey::ec();
    let keys = key_set(&key, "k");
    let fault = |token: String| check(token.as_bytes(), &provider(), &keys, NOW).err().unwrap();
    let unknown = fault(key.token(&header("new"), &claims()));
    assert_eq!(unknown, Fault { reject: Reject::TokenKeyUnknown, unknown_kid: true });
    // What is wrong anyway never costs the issuer a fetch.
    let expired = with(&claims(), json!({"exp": NOW.0 - 3600}));
    assert!(!fault(key.token(&header("new"), &expired)).unknown_kid);
    let hmac = with(&header("new"), json!({"alg": "HS256"}));
    assert!(!fault(key.token(&hmac, &claims())).unknown_kid);
}

#[test]
fn without_kid_exactly_one_key_may_be_meant() {
    let (one, two) = (TestKey::ec(), TestKey::ec());
    let bare = with(&header("k"), json!({"kid": null}));
    let token = one.token(&bare, &claims());
    assert_eq!(verdict(&token, &key_set(&one, "k")), None);
    let keys = KeySet::parse(&jwks(&[one.jwk(), two.jwk()])).ok().unwrap();
    assert_eq!(verdict(&token, &keys), Some(Reject::TokenKeyUnknown));
}

#[test]
fn t08_keys_that_a_token_brings_along_are_not_looked_at() {
    let (key, own) = (TestKey::ec(), TestKey::ec());
    let keys = key_set(&key, "k");
    for member in [
        json!({"jwk": own.jwk()}),
        json!({"jku": "https://evil.test/jwks"}),
        json!({"x5u": "https://evil.test/cert"}),
        json!({"x5c": ["AA=="]}),
    ] {
        let header = with(&header("k"), member);
        assert_eq!(verdict(&own.token(&header, &claims()), &keys), Some(Reject::TokenSignature));
        assert_eq!(verdict(&key.token(&header, &claims()), &keys), None);
    }
}

#[test]
fn t09_critical_extensions() {
    let key = TestKey::ec();
    let keys = key_set(&key, "k");
    for member in [
        json!({"crit": ["exp"], "exp": 1}),
        json!({"crit": []}),
        json!({"crit": ["b64"], "b64": false}),
        json!({"crit": "x"}),
        json!({"b64": false}),
        json!({"b64": true}),
    ] {
        let token = key.token(&with(&header("k"), member), &claims());
        assert_eq!(verdict(&token, &keys), Some(Reject::TokenCritical));
    }
    let null = r#"{"alg":"ES256","typ":"at+jwt","kid":"k","crit":null}"#;
    let token = key.token_of(null, &claims().to_string());
    assert_eq!(verdict(&token, &keys), Some(Reject::TokenCritical));
}

#[test]
fn t10_token_types() {
    let key = TestKey::ec();
    let keys = key_set(&key, "k");
    let mut any = provider();
    any.token_type = None;
    for (typ, strict) in [
        (json!("at+jwt"), true),
        (json!("AT+JWT"), true),
        (json!("application/at+jwt"), true),
        (json!("Application/At+Jwt"), true),
        (json!("JWT"), false),
        (json!("dpop+jwt"), false),
        (json!("at+jwt "), false),
        (json!("x/at+jwt"), false),
        (json!("application/"), false),
        (json!(""), false),
        (json!(null), false),
    ] {
        let token = key.token(&with(&header("k"), json!({"typ": typ})), &claims());
        let wanted = if strict { None } else { Some(Reject::TokenType) };
        assert_eq!(verdict(&token, &keys), wanted, "{typ}");
        assert!(check(token.as_bytes(), &any, &keys, NOW).is_ok(), "{typ}");
    }
    let mistyped = key.token(&with(&header("k"), json!({"typ": 1})), &claims());
    assert_eq!(verdict(&mistyped, &keys), Some(Reject::TokenMalformed));
}

#[test]
fn t10_id_tokens_are_refused_whatever_the_type() {
    let key = TestKey::ec();
    let keys = key_set(&key, "k");
    let mut any = provider();
    any.token_type = None;
    for claim in ["nonce", "at_hash", "c_hash"] {
        let token = key.token(&header("k"), &with(&claims(), json!({claim: "x"})));
        assert_eq!(verdict(&token, &keys), Some(Reject::TokenType), "{claim}");
        let fault = check(token.as_bytes(), &any, &keys, NOW).err();
        assert_eq!(fault.map(|fault| fault.reject), Some(Reject::TokenType), "{claim}");
    }
}

#[test]
fn t11_t12_t13_required_claims_and_their_types() {
    let key = TestKey::ec();
    let keys = key_set(&key, "k");
    let claim = Some(Reject::TokenClaim);
    for (member, wanted) in [
        (json!({"aud": ["x", format!("{URL}/mcp")]}), None),
        (json!({"aud": []}), None), // no audience of ours: `identity` refuses it
        (json!({"aud": null}), claim),
        (json!({"aud": 5}), claim),
        (json!({"aud": [URL, 7]}), claim),
        (json!({"aud": {"a": URL}}), claim),
        (json!({"aud": true}), claim),
        (json!({"iss": null}), claim),
        (json!({"iss": ""}), claim),
        (json!({"iss": ["https://idp.example.com"]}), claim),
        (json!({"iss": "https://other.example.com"}), Some(Reject::TokenIssuer)),
        (json!({"iss": "https://idp.example.com/"}), Some(Reject::TokenIssuer)),
        (json!({"iss": "https://IDP.example.com"}), Some(Reject::TokenIssuer)),
        (json!({"sub": null}), claim),
        (json!({"sub": ""}), claim),
        (json!({"sub": 7}), claim),
        (json!({"exp": null}), claim),
        (json!({"exp": "1900000000"}), claim),
        (json!({"exp": 1_900_000_000.5}), claim),
        (json!({"exp": 1_900_000_000.0}), claim),
        (json!({"exp": -1}), claim),
        (json!({"exp": 1e30}), claim),
        (json!({"exp": [1_900_000_000]}), claim),
        (json!({"exp": u64::MAX}), None),
        (json!({"nbf": "1"}), claim),
        (json!({"nbf": -1}), claim),
        (json!({"iat": 1.5}), claim),
    ] {
        let token = key.token(&header("k"), &with(&claims(), member.clone()));
        assert_eq!(verdict(&token, &keys), wanted, "{member}");
    }
    // `with` takes nulls out; here they are written.
    for name in ["aud", "iss", "sub", "exp", "nbf", "iat"] {
        let mut object = claims();
        object[name] = json!(null);
        let token = key.token(&header("k"), &object);
        assert_eq!(verdict(&token, &keys), claim, "{name}");
    }
}

#[test]
fn t14_t15_times_with_leeway() {
    let key = TestKey::ec();
    let keys = key_set(&key, "k");
    let late = Some(Reject::TokenNotYetValid);
    for (member, wanted) in [
        (json!({"exp": NOW.0 - 30 - 1}), Some(Reject::TokenExpired)),
        (json!({"exp": NOW.0 - 30}), Some(Reject::TokenExpired)),
        (json!({"exp": NOW.0 - 30 + 1}), None),
        (json!({"exp": 0}), Some(Reject::TokenExpired)),
        (json!({"nbf": NOW.0 + 31}), late),
        (json!({"nbf": NOW.0 + 30}), None),
        (json!({"iat": NOW.0 + 31}), late),
        (json!({"iat": NOW.0 + 30}), None),
        (json!({"nbf": u64::MAX}), late),
        (json!({"iat": null}), None),
    ] {
        let token = key.token(&header("k"), &with(&claims(), member.clone()));
        assert_eq!(verdict(&token, &keys), wanted, "{member}");
    }
    let mut exact = provider();
    exact.leeway_seconds = 0;
    let token = key.token(&header("k"), &with(&claims(), json!({"exp": NOW.0})));
    let fault = check(token.as_bytes(), &exact, &keys, NOW).err();
    assert_eq!(fault.map(|fault| fault.reject), Some(Reject::TokenExpired));
}

#[test]
fn t16_repeated_members() {
    let key = TestKey::ec();
    let keys = key_set(&key, "k");
    let head = header("k").to_string();
    let body = claims().to_string();
    let twice = |text: &str, member: &str| text.replacen('{', &format!("{{{member},"), 1);
    for (head, body) in [
        (twice(&head, r#""alg":"ES256""#), body.clone()),
        (twice(&head, r#""kid":"other""#), body.clone()),
        (head.clone(), twice(&body, r#""sub":"admin""#)),
        (head.clone(), twice(&body, r#""aud":"x""#)),
        (head.clone(), twice(&body, r#""ema\u0069l":"eve@example.com""#)),
        (head.clone(), twice(&body, r#""x":{"a":1,"a":2}"#)),
    ] {
        let token = key.token_of(&head, &body);
        assert_eq!(verdict(&token, &keys), Some(Reject::TokenClaim), "{head} {body}");
    }
    assert_eq!(verdict(&key.token_of(&head, &body), &keys), None);
}

#[test]
fn t17_size_comes_before_everything() {
    let key = TestKey::ec();
    let keys = key_set(&key, "k");
    let of_size =
        |filler: usize| key.token(&header("k"), &with(&claims(), json!({"x": "a".repeat(filler)})));
    let base = of_size(0).len();
    // Base64 grows in steps, so go to just under the limit and then over it.
    let fits = of_size((TOKEN_BYTES_MAX - base - 4) * 3 / 4);
    assert!(fits.len() <= TOKEN_BYTES_MAX && fits.len() > TOKEN_BYTES_MAX - 16);
    assert_eq!(verdict(&fits, &keys), None);
    let over = of_size((TOKEN_BYTES_MAX - base) * 3 / 4 + 8);
    assert_eq!(verdict(&over, &keys), Some(Reject::TokenTooLarge));
    // Not even looked at: no token at all.
    let noise = "!".repeat(TOKEN_BYTES_MAX + 1);
    assert_eq!(verdict(&noise, &keys), Some(Reject::TokenTooLarge));
}

#[test]
fn t19_other_serializations() {
    let key = TestKey::ec();
    let keys = key_set(&key, "k");
    let good = key.token(&header("k"), &claims());
    let parts: Vec<&str> = good.split('.').collect();
    let (head, payload, mark) = (parts[0], parts[1], parts[2]);
    let flattened = json!({"protected": head, "payload": payload, "signature": mark}).to_string();
    for token in [
        String::new(),
        ".".into(),
        "..".into(),
        "a.b".into(),
        format!("{head}.{payload}"),
        format!("{good}.{mark}"),
        format!("{head}..{payload}.{mark}.AAAA"),
        format!("{head}..{mark}"),
        format!(".{payload}.{mark}"),
        flattened,
        format!("{good}="),
        format!("{head}=.{payload}.{mark}"),
        format!("{head} .{payload}.{mark}"),
        format!("{good}\n"),
        good.replacen('-', "+", 1).replacen('_', "/", 1) + "+",
        key.token_of("[]", &claims().to_string()),
        key.token_of("", &claims().to_string()),
        key.token_of(&header("k").to_string(), "\"text\""),
        key.token_of(&header("k").to_string(), "{\"a\":1}{}"),
        key.token_of(&header("k").to_string(), &"[".repeat(9_000)),
        key.token(&with(&header("k"), json!({"cty": "JWT"})), &claims()),
        key.token(&with(&header("k"), json!({"cty": "application/jwt"})), &claims()),
    ] {
        let found = verdict(&token, &keys);
        assert_eq!(found, Some(Reject::TokenMalformed), "{}", token.get(..60).unwrap_or(&token));
    }
    assert_eq!(
        check(b"\xff.\xff.\xff", &provider(), &keys, NOW).err().map(|fault| fault.reject),
        Some(Reject::TokenMalformed)
    );
}

#[test]
fn rfc4648_3_5_one_token_has_one_spelling() {
    let key = TestKey::ec();
    let keys = key_set(&key, "k");
    let good = key.token(&header("k"), &claims());
    // 64 octets are 86 characters; the last carries 2 bits of value and 4 that must be zero.
    let last = good.bytes().last().unwrap();
    assert!(b"AQgw".contains(&last));
    let bent = format!("{}{}", &good[..good.len() - 1], char::from(last + 1));
    assert_eq!(verdict(&bent, &keys), Some(Reject::TokenSignature));
    assert_eq!(verdict(&good, &keys), None);
}

#[test]
fn t23_a_bound_token_is_no_bearer_token() {
    let key = TestKey::ec();
    let keys = key_set(&key, "k");
    for cnf in [json!({"jkt": "x"}), json!({"x5t#S256": "x"}), json!({}), json!("x")] {
        let token = key.token(&header("k"), &with(&claims(), json!({"cnf": cnf})));
        assert_eq!(verdict(&token, &keys), Some(Reject::TokenBound));
    }
}

/// A single changed bit anywhere never passes.
#[test]
fn every_flipped_bit_is_refused() {
    let key = TestKey::ed();
    let keys = key_set(&key, "k");
    let header = with(&header("k"), json!({"alg": "EdDSA"}));
    let good = key.token(&header, &claims()).into_bytes();
    assert!(check(&good, &provider(), &keys, NOW).is_ok());
    for at in 0..good.len() {
        for bit in 0..8 {
            let mut bent = good.clone();
            bent[at] ^= 1 << bit;
            assert!(check(&bent, &provider(), &keys, NOW).is_err(), "byte {at} bit {bit}");
        }
    }
}
