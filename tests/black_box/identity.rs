//! T: tokens. Each refusal is a 401 with a challenge, decided before the body is read.

use serde_json::{Value, json};

use super::gateway::Gateway;
use super::setup::{MAIL, NO_KEYS, RULED};
use super::table::{Case, End, Post, refuse};
use super::token::{OCT, PUBLIC_URL, encode, now};

fn bearer(id: &str, token: &str, reason: &'static str) -> Case {
    Case {
        id: id.to_owned(),
        request: Post::with_token(token).bytes(),
        status: 401,
        reason,
        end: End::Open,
    }
}

/// The value of `Authorization` as a whole.
fn authorization(id: &str, value: &str, reason: &'static str) -> Case {
    let post = Post::with_token("").field(&format!("Authorization: {value}"));
    let request = Post { token: None, ..post }.bytes();
    Case { id: id.to_owned(), request, status: 401, reason, end: End::Open }
}

#[test]
fn t00_no_token_or_something_else() {
    refuse(|gateway| {
        let token = gateway.keys.token("alice");
        let mut none = authorization("none", "", "token_missing");
        none.request = Post { token: None, ..Post::new(gateway) }.bytes();
        vec![
            none,
            authorization("empty", "", "token_missing"),
            authorization("basic", "Basic Q0FOQVJZOkNBTkFSWQ==", "token_missing"),
            authorization("dpop", &format!("DPoP {token}"), "token_missing"),
            authorization("no space", &format!("Bearer{token}"), "token_missing"),
            authorization("tab", &format!("Bearer\t{token}"), "token_missing"),
            authorization("scheme only", "Bearer", "token_malformed"),
            authorization("two", &format!("Bearer {token}, Bearer {token}"), "token_malformed"),
            authorization("two words", &format!("Bearer {token} x"), "token_malformed"),
            authorization("quoted", &format!("Bearer \"{token}\""), "token_malformed"),
            authorization("padded", &format!("Bearer {token}="), "token_malformed"),
        ]
    });
}

#[test]
fn t01_t02_t03_algorithms() {
    refuse(|gateway| {
        let keys = &gateway.keys;
        let claims = keys.claims("alice").to_string();
        let unsigned = |alg: &str| {
            let header = format!(r#"{{"alg":"{alg}","kid":"es","typ":"at+jwt"}}"#);
            format!("{}.{}.", encode(header.as_bytes()), encode(claims.as_bytes()))
        };
        let mut cases = Vec::new();
        for alg in ["none", "None", "NONE", "nOnE"] {
            cases.push(bearer(&format!("T01 {alg}"), &unsigned(alg), "token_malformed"));
            let header = format!(r#"{{"alg":"{alg}","kid":"es","typ":"at+jwt"}}"#);
            let signed = keys.headed(&header);
            cases.push(bearer(&format!("T01 {alg} signed"), &signed, "token_algorithm"));
        }
        let jwks = keys.jwks();
        let jwk = jwks["keys"][0].to_string();
        let point = [&[4][..], &decode(&jwks["keys"][0]["x"]), &decode(&jwks["keys"][0]["y"])];
        let x = decode(&jwks["keys"][0]["x"]);
        for (how, kid, secret) in [
            ("JWK", "es", jwk.as_bytes()),
            ("point", "es", &point.concat()[..]),
            ("x", "es", &x[..]),
            ("RSA modulus", "rsa", &keys.modulus[..]),
            ("RSA modulus as text", "rsa", encode(&keys.modulus).as_bytes()),
            ("oct key of the set", "oct", OCT),
            ("empty", "es", b""),
        ] {
            let token = keys.hs256(kid, secret);
            cases.push(bearer(&format!("T02 {how}"), &token, "token_algorithm"));
        }
        for (alg, kid) in [
            ("EdDSA", "es"),
            ("RS256", "es"),
            ("PS256", "es"),
            ("ES256", "ed"),
            ("ES256", "rsa"),
            ("ES384", "es"),
            ("ES256K", "es"),
            ("es256", "es"),
            ("RS512", "rsa"),
            ("PS256", "rsa"),
        ] {
            let header = format!(r#"{{"alg":"{alg}","kid":"{kid}","typ":"at+jwt"}}"#);
            let token = keys.headed(&header);
            cases.push(bearer(&format!("T03 {alg} {kid}"), &token, "token_algorithm"));
        }
        for (id, header, reason) in [
            ("T03 no alg", r#"{"kid":"es","typ":"at+jwt"}"#, "token_algorithm"),
            ("T03 alg number", r#"{"alg":1,"kid":"es","typ":"at+jwt"}"#, "token_malformed"),
            ("T03 alg list", r#"{"alg":["ES256"],"kid":"es","typ":"at+jwt"}"#, "token_malformed"),
        ] {
            cases.push(bearer(id, &keys.headed(header), reason));
        }
        cases
    });
}

fn decode(value: &Value) -> Vec<u8> {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(value.as_str().unwrap()).unwrap()
}

#[test]
fn t05_signatures() {
    refuse(|gateway| {
        let keys = &gateway.keys;
        let header = r#"{"alg":"ES256","kid":"es","typ":"at+jwt"}"#;
        let claims = keys.claims("alice").to_string();
        let good = keys.jws(header, &claims, &keys.es);
        let (signed, mark) = good.rsplit_once('.').unwrap();
        let other = keys.token("bob");
        let zero = encode(&[0; 64]);
        let swapped = format!("{signed}.{}", other.rsplit_once('.').unwrap().1);
        let (head, _) = signed.split_once('.').unwrap();
        let raised = keys.claims("root").to_string();
        let raised = format!("{head}.{}.{mark}", encode(raised.as_bytes()));
        vec![
            bearer("T05 empty", &format!("{signed}."), "token_malformed"),
            bearer("T05 none", signed, "token_malformed"),
            bearer("T05 zero", &format!("{signed}.{zero}"), "token_signature"),
            bearer("T05 short", &format!("{signed}.{}", &mark[..84]), "token_signature"),
            bearer("T05 long", &format!("{signed}.{mark}{mark}"), "token_signature"),
            bearer("T05 of another", &swapped, "token_signature"),
            bearer("T05 other claims", &raised, "token_signature"),
            bearer("T05 stranger", &keys.jws(header, &claims, &keys.stranger), "token_signature"),
            bearer("T05 padding", &format!("{good}=="), "token_malformed"),
            bearer("T05 standard base64", &format!("{signed}.+/{}", &mark[2..]), "token_malformed"),
            bearer("T05 garbage", "a.b.c", "token_malformed"),
            bearer("T05 dots", "..", "token_malformed"),
            bearer("T05 opaque", "2YotnFZFEjr1zCsicMWpAA", "token_malformed"),
        ]
    });
}

#[test]
fn t08_t09_t10_headers() {
    refuse(|gateway| {
        let keys = &gateway.keys;
        let mut cases = Vec::new();
        for (id, more) in [
            ("T09 unknown", r#","crit":["http://example.com/x"],"http://example.com/x":true"#),
            ("T09 empty", r#","crit":[]"#),
            ("T09 b64", r#","crit":["b64"],"b64":true"#),
            ("T09 b64 alone", r#","b64":false"#),
            ("T09 null", r#","crit":null"#),
            ("T09 exp", r#","crit":["exp"],"exp":1"#),
        ] {
            let header = format!(r#"{{"alg":"ES256","kid":"es","typ":"at+jwt"{more}}}"#);
            cases.push(bearer(id, &keys.headed(&header), "token_critical"));
        }
        for typ in [
            "JWT",
            "jwt",
            "",
            "at",
            "at+jwt ",
            "application/jwt",
            "dpop+jwt",
            "secevent+jwt",
            "application/application/at+jwt",
            "logout+jwt",
        ] {
            let header = json!({"alg": "ES256", "kid": "es", "typ": typ}).to_string();
            cases.push(bearer(&format!("T10 {typ:?}"), &keys.headed(&header), "token_type"));
        }
        let none = keys.headed(r#"{"alg":"ES256","kid":"es"}"#);
        cases.push(bearer("T10 none", &none, "token_type"));
        let number = keys.headed(r#"{"alg":"ES256","kid":"es","typ":7}"#);
        cases.push(bearer("T10 number", &number, "token_malformed"));
        for name in ["nonce", "at_hash", "c_hash"] {
            let token = keys.with(name, json!("x"));
            cases.push(bearer(&format!("T10 ID token by {name}"), &token, "token_type"));
        }
        cases
    });
}

#[test]
fn t11_t12_audience_and_issuer() {
    refuse(|gateway| {
        let keys = &gateway.keys;
        let mut cases = vec![
            bearer("T11 none", &keys.with("aud", Value::Null), "token_claim"),
            bearer("T11 number", &keys.with("aud", json!(5)), "token_claim"),
            bearer("T11 bool", &keys.with("aud", json!(true)), "token_claim"),
            bearer("T11 object", &keys.with("aud", json!({"a": PUBLIC_URL})), "token_claim"),
            bearer("T11 mixed", &keys.with("aud", json!([PUBLIC_URL, 5])), "token_claim"),
            bearer("T11 empty list", &keys.with("aud", json!([])), "token_audience"),
            bearer("T11 nested", &keys.with("aud", json!([[PUBLIC_URL]])), "token_claim"),
            bearer("T12 none", &keys.with("iss", Value::Null), "token_claim"),
            bearer("T12 number", &keys.with("iss", json!(1)), "token_claim"),
            bearer("T12 list", &keys.with("iss", json!(["https://idp.corp.test"])), "token_claim"),
        ];
        for aud in [
            "",
            "https://other.test",
            "http://portcullis.localhost//",
            "http://portcullis.localhost/mcp/",
            "http://portcullis.localhost/mcp/tools/",
            "http://portcullis.localhost/mcp/open",
            "HTTP://portcullis.localhost",
            "http://Portcullis.localhost",
            "https://portcullis.localhost",
            "http://portcullis.localhost:80",
            "http://portcullis.localhost/mcp/Tools",
            "http://portcullis.localhost/mcp/tools?x",
            "portcullis.localhost",
            "http://portcullis.localhost\0",
            "http://portcullis.localhos",
        ] {
            let token = keys.with("aud", json!(aud));
            cases.push(bearer(&format!("T11 T24 {aud:?}"), &token, "token_audience"));
        }
        for iss in [
            "https://idp.corp.test/",
            "https://IDP.corp.test",
            "https://idp.other.test",
            "http://idp.corp.test",
            "https://idp.corp.test:443",
            "https://idp.corp.test\0",
        ] {
            cases.push(bearer(
                &format!("T12 {iss:?}"),
                &keys.with("iss", json!(iss)),
                "token_issuer",
            ));
        }
        cases.push(bearer("T12 empty", &keys.with("iss", json!("")), "token_claim"));
        cases
    });
}

#[test]
fn t13_t14_t15_times() {
    refuse(|gateway| {
        let keys = &gateway.keys;
        let mut cases = Vec::new();
        for (id, value) in [
            ("none", Value::Null),
            ("string", json!((now() + 600).to_string())),
            ("float", json!(4e9 + 0.5)),
            ("negative", json!(-1)),
            ("list", json!([now() + 600])),
            ("bool", json!(true)),
        ] {
            cases.push(bearer(&format!("T13 exp {id}"), &keys.with("exp", value), "token_claim"));
        }
        let claims = keys.claims("alice").to_string();
        let exp = format!("\"exp\":{}", now() + 600);
        for value in ["1e30", "null", "1e999", "-0.0", "18446744073709551616"] {
            // Numbers that no JSON library of ours would write.
            let claims = claims.replacen(&exp[..12], "\"was\":", 1);
            let claims = claims.replacen('{', &format!("{{\"exp\":{value},"), 1);
            let claims = claims.replacen("\"was\":", "\"was\":9", 1);
            let header = r#"{"alg":"ES256","kid":"es","typ":"at+jwt"}"#;
            let reason = if value == "1e999" { "token_malformed" } else { "token_claim" };
            let token = keys.jws(header, &claims, &keys.es);
            cases.push(bearer(&format!("T13 exp {value}"), &token, reason));
        }
        for (id, claim, value, reason) in [
            ("T14 expired", "exp", now() - 31, "token_expired"),
            ("T14 zero", "exp", 0, "token_expired"),
            ("T15 nbf", "nbf", now() + 60, "token_not_yet_valid"),
            ("T15 iat", "iat", now() + 60, "token_not_yet_valid"),
            ("T15 nbf far", "nbf", u64::MAX, "token_not_yet_valid"),
        ] {
            cases.push(bearer(id, &keys.with(claim, json!(value)), reason));
        }
        cases.push(bearer("T15 nbf text", &keys.with("nbf", json!("1")), "token_claim"));
        cases.push(bearer("T15 iat float", &keys.with("iat", json!(1.5)), "token_claim"));
        cases
    });
}

#[test]
fn t16_t17_t19_forms() {
    refuse(|gateway| {
        let keys = &gateway.keys;
        let header = r#"{"alg":"ES256","kid":"es","typ":"at+jwt"}"#;
        let claims = keys.claims("alice").to_string();
        let twice = |what: &str| {
            keys.jws(header, &claims.replacen('{', &format!("{{{what},"), 1), &keys.es)
        };
        let inner = keys.token("alice");
        let nested =
            keys.jws(r#"{"alg":"ES256","kid":"es","typ":"at+jwt","cty":"JWT"}"#, &claims, &keys.es);
        let wrapped = keys.jws(header, &inner, &keys.es);
        let jwe_header = encode(br#"{"alg":"ECDH-ES","enc":"A256GCM","kid":"es"}"#);
        let json_form =
            json!({"payload": "x", "signatures": [{"protected": "x", "signature": "x"}]});
        let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
        let deep = claims.replacen('{', &format!("{{\"deep\":{deep},"), 1);
        let large = |bytes: usize| format!("a.{}.b", "c".repeat(bytes - 4));
        vec![
            bearer("T16 sub", &twice(r#""sub":"root""#), "token_claim"),
            bearer("T16 aud", &twice(r#""aud":"x""#), "token_claim"),
            bearer("T16 escaped", &twice(r#""s\u0075b":"root""#), "token_claim"),
            bearer("T16 deep inside", &twice(r#""x":{"a":1,"a":2}"#), "token_claim"),
            bearer(
                "T16 alg",
                &keys.headed(r#"{"alg":"ES256","alg":"ES256","kid":"es","typ":"at+jwt"}"#),
                "token_claim",
            ),
            bearer(
                "T16 kid",
                &keys.headed(r#"{"alg":"ES256","kid":"es","kid":"es","typ":"at+jwt"}"#),
                "token_claim",
            ),
            bearer("T17 16 KiB + 1", &large(16 * 1024 + 1), "token_too_large"),
            bearer("T17 deep", &keys.jws(header, &deep, &keys.es), "token_too_large"),
            bearer("T19 JWE", &format!("{jwe_header}.a.b.c.d"), "token_malformed"),
            bearer("T19 nested by cty", &nested, "token_malformed"),
            bearer("T19 a token as payload", &wrapped, "token_malformed"),
            bearer("T19 JSON", &encode(json_form.to_string().as_bytes()), "token_malformed"),
            authorization("T19 raw JSON", &format!("Bearer {json_form}"), "token_malformed"),
            bearer("T19 not an object", &keys.jws(header, "[]", &keys.es), "token_malformed"),
            bearer("T19 not UTF-8", &keys.jws(header, "\u{0}", &keys.es), "token_malformed"),
            bearer(
                "T19 trailing",
                &keys.jws(header, &format!("{claims}x"), &keys.es),
                "token_malformed",
            ),
        ]
    });
}

#[test]
fn t21_a_token_elsewhere_is_no_token() {
    refuse(|gateway| {
        let token = gateway.keys.token("alice");
        let mut post = Post { token: None, ..Post::new(gateway) };
        post.path = format!("/mcp/tools?access_token={token}");
        let query = post.bytes();
        post.path = "/mcp/tools".to_owned();
        let body = post.clone().body(format!(r#"{{"access_token":"{token}"}}"#)).bytes();
        let cookie = post.clone().field(&format!("Cookie: access_token={token}")).bytes();
        let proxy = post.clone().field(&format!("Proxy-Authorization: Bearer {token}")).bytes();
        let form = post.clone().field("X: y").body(format!("access_token={token}")).bytes();
        let forwarded = post.field(&format!("X-Forwarded-Access-Token: {token}")).bytes();
        [
            ("query", query),
            ("body", body),
            ("cookie", cookie),
            ("proxy", proxy),
            ("form", form),
            ("forwarded", forwarded),
        ]
        .into_iter()
        .map(|(id, request)| Case {
            id: format!("T21 {id}"),
            request,
            status: 401,
            reason: "token_missing",
            end: End::Open,
        })
        .collect()
    });
}

#[test]
fn t22_t23_keys_and_bound_tokens() {
    refuse(|gateway| {
        let keys = &gateway.keys;
        let claims = keys.claims("alice").to_string();
        let by = |kid: &str| {
            let header = format!(r#"{{"alg":"ES256","kid":"{kid}","typ":"at+jwt"}}"#);
            keys.jws(&header, &claims, &keys.misused)
        };
        let bound = |value: Value| keys.with("cnf", value);
        vec![
            bearer("T22 use enc", &by("enc"), "token_key_unknown"),
            bearer("T22 key_ops", &by("ops"), "token_key_unknown"),
            bearer("T22 twin", &by("twin"), "token_algorithm"),
            bearer("T22 oct", &keys.hs256("oct", OCT), "token_algorithm"),
            bearer(
                "T23 jkt",
                &bound(json!({"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"})),
                "token_bound",
            ),
            bearer("T23 x5t", &bound(json!({"x5t#S256": "x"})), "token_bound"),
            bearer(
                "T23 null",
                &keys.signed(&{
                    let mut claims = keys.claims("alice");
                    claims["cnf"] = Value::Null;
                    claims
                }),
                "token_bound",
            ),
        ]
    });
}

#[test]
fn rules_users_and_workloads() {
    refuse(|gateway| {
        let keys = &gateway.keys;
        let of = |issuer: &str, more: Value| {
            let mut claims = keys.claims("alice");
            claims["iss"] = json!(issuer);
            claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            keys.signed(&claims)
        };
        let mut down = bearer("F02 no keys", &of(NO_KEYS, json!({})), "jwks_unavailable");
        down.status = 503;
        vec![
            bearer("rule missing", &of(RULED, json!({})), "token_rule"),
            bearer("rule differs", &of(RULED, json!({"hd": "example.org"})), "token_rule"),
            bearer("rule type", &of(RULED, json!({"hd": {"a": "example.com"}})), "token_rule"),
            bearer("no email", &of(MAIL, json!({})), "user_claim_missing"),
            bearer("email type", &of(MAIL, json!({"email": ["a@b.test"]})), "user_claim_missing"),
            bearer("email empty", &of(MAIL, json!({"email": ""})), "user_claim_missing"),
            bearer(
                "email unverified",
                &of(MAIL, json!({"email": "alice", "email_verified": false})),
                "user_claim_missing",
            ),
            bearer(
                "imitated namespace",
                &keys.with("sub", json!("mail/alice")),
                "user_claim_missing",
            ),
            bearer("no subject", &keys.with("sub", Value::Null), "token_claim"),
            bearer("subject type", &keys.with("sub", json!(7)), "token_claim"),
            bearer("no agent", &keys.with("client_id", Value::Null), "token_claim"),
            bearer("groups type", &keys.with("groups", json!("admin")), "token_claim"),
            bearer("scope type", &keys.with("scope", json!(7)), "token_claim"),
            down,
        ]
    });
}

/// The token is judged before the body is looked at, and a stranger learns nothing of what exists.
#[test]
fn strangers_cannot_enumerate() {
    refuse(|gateway| {
        let stranger = |id: &str, server: &str, body: &str| Case {
            id: id.to_owned(),
            request: Post { token: None, ..Post::new(gateway) }.to(server).body(body).bytes(),
            status: 401,
            reason: "token_missing",
            end: End::Open,
        };
        vec![
            stranger("a server", "tools", "{}"),
            stranger("no server", "no-such-server", "{}"),
            stranger("garbage", "tools", "\0\0\0"),
        ]
    });
}

pub(crate) fn ok(gateway: &Gateway, token: &str) -> u16 {
    gateway.ask(&Post::with_token(token).bytes()).status
}
