//! T: what is accepted, what is counted, and what must hold over time.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;

use super::client::{Client, Way};
use super::gateway::{DRIVERS, Gateway, until};
use super::identity::ok;
use super::setup::REMOTE;
use super::table::{Post, assert_silent};
use super::token::{PUBLIC_URL, now};

#[test]
fn t10_t11_t14_what_is_accepted() {
    for driver in DRIVERS {
        let gateway = Gateway::shared(driver);
        let _turn = gateway.turn();
        let keys = &gateway.keys;
        let aud = |path: &str| keys.with("aud", json!(format!("{PUBLIC_URL}{path}")));
        let ed = r#"{"alg":"EdDSA","kid":"ed","typ":"at+jwt"}"#;
        let ruled = keys.signed(&{
            let mut claims = keys.claims("alice");
            claims["iss"] = json!(super::setup::RULED);
            claims["hd"] = json!(["example.org", "example.com"]);
            claims
        });
        for (id, token, status) in [
            ("usual", keys.token("alice"), 200),
            ("T11 origin", aud(""), 200),
            ("T11 origin/", aud("/"), 200),
            ("T11 /mcp", aud("/mcp"), 200),
            ("T11 the server", aud("/mcp/tools"), 200),
            ("T11 in a list", keys.with("aud", json!(["https://other.test", PUBLIC_URL])), 200),
            ("T14 within leeway", keys.with("exp", json!(now() - 20)), 200),
            ("T15 nbf within leeway", keys.with("nbf", json!(now() + 20)), 200),
            (
                "T10 application/",
                keys.headed(r#"{"alg":"ES256","kid":"es","typ":"application/AT+jwt"}"#),
                200,
            ),
            ("EdDSA", keys.ed25519(ed, &keys.claims("alice").to_string()), 200),
            (
                "twin, the first",
                keys.ed25519(
                    r#"{"alg":"EdDSA","kid":"twin","typ":"at+jwt"}"#,
                    &keys.claims("alice").to_string(),
                ),
                200,
            ),
            // Valid, but `ruled/alice` has no permit.
            ("namespaced", ruled, 403),
        ] {
            assert_eq!(ok(&gateway, &token), status, "{id} on {driver:?}");
        }
        // Scheme in any case, several spaces (RFC 9110 §11.1).
        let odd = format!("authorization: bEARER   {}", keys.token("alice"));
        let post = Post { token: None, ..Post::new(&gateway) }.field(&odd);
        assert_eq!(gateway.ask(&post.bytes()).status, 200);
    }
}

/// T06: ten thousand made-up key ids cost a burst of fetches, not ten thousand.
#[test]
fn t06_unknown_key_ids_are_throttled() {
    for driver in DRIVERS {
        let gateway = Gateway::start(driver, "");
        let turn = gateway.turn();
        until("the first fetch", || gateway.key_server.count() >= 1);
        let keys = &gateway.keys;
        let mut claims = keys.claims("alice");
        claims["iss"] = json!(REMOTE);
        let claims = claims.to_string();
        let before = gateway.upstream.heard();
        let mut client = Client::connect(gateway.address);
        let mut refused = [0, 0];
        for number in 0..TOKENS {
            let header = format!(r#"{{"alg":"ES256","kid":"made-up-{number}","typ":"at+jwt"}}"#);
            let token = keys.jws(&header, &claims, &keys.stranger);
            client.send(&Post::with_token(&token).body("{}").bytes(), Way::Whole);
            let answer = client.answer().expect("an answer");
            match (answer.status, answer.reason().as_str()) {
                (401, "token_key_unknown") => refused[0] += 1,
                (503, "jwks_pending") => refused[1] += 1,
                _ => panic!("{answer:?}"),
            }
        }
        // The first one, the burst of two, and what 30 s and more of a slow machine add.
        let fetches = gateway.key_server.count();
        assert!(fetches <= 5, "{fetches} fetches for {TOKENS} made-up ids");
        assert!(refused[0] > 0, "{refused:?}");
        assert_eq!(gateway.upstream.heard(), before);
        let reasons = turn.reasons(&gateway, TOKENS);
        assert!(
            reasons.iter().all(|reason| reason == "token_key_unknown" || reason == "jwks_pending")
        );
        // The issuer's real key still serves, and so does everybody else.
        let mut claims = keys.claims("alice");
        claims["iss"] = json!(REMOTE);
        assert_eq!(
            ok(&gateway, &keys.signed(&claims)),
            403,
            "remote/alice is known but has no permit"
        );
        assert_eq!(ok(&gateway, &keys.token("alice")), 200);
    }
}

/// T06: while the answer about an unknown key is out, the token may be good: 503, not 401.
#[test]
fn t06_keys_are_pending_when_the_set_is_old() {
    for driver in DRIVERS {
        let gateway = Gateway::start(driver, "[limits]\nkeys_wait_ms_max = 200\n");
        let turn = gateway.turn();
        let keys = &gateway.keys;
        let mut claims = keys.claims("alice");
        claims["iss"] = json!(REMOTE);
        until("the keys are there", || ok(&gateway, &keys.signed(&claims)) == 403);
        gateway.key_server.silent.store(true, Ordering::SeqCst);
        let header = r#"{"alg":"ES256","kid":"new","typ":"at+jwt"}"#;
        let token = keys.jws(header, &claims.to_string(), &keys.stranger);
        let before = gateway.upstream.heard();
        let answer = gateway.ask(&Post::with_token(&token).bytes());
        assert_eq!((answer.status, answer.reason().as_str()), (503, "jwks_pending"));
        assert!(answer.header("retry-after").is_some());
        assert_eq!(answer.header("www-authenticate"), None, "logging in again would not help");
        assert_eq!(gateway.upstream.heard(), before);
        // Nobody else waits.
        assert_eq!(ok(&gateway, &keys.token("alice")), 200);
        drop(turn);
    }
}

/// T08: a token cannot bring its own key, nor make us fetch one.
#[test]
fn t08_key_urls_in_tokens_are_not_followed() {
    let canary = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = canary.local_addr().unwrap().port();
    let connects = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&connects);
    std::thread::spawn(move || {
        for _ in canary.incoming() {
            counter.fetch_add(1, Ordering::SeqCst);
        }
    });
    for driver in DRIVERS {
        let gateway = Gateway::shared(driver);
        let turn = gateway.turn();
        let keys = &gateway.keys;
        let url = format!("http://127.0.0.1:{port}/jwks");
        let jwk = keys.small_jwks()["keys"][0].clone();
        let mut sent = 0;
        for more in [
            json!({"jku": url}),
            json!({"x5u": url}),
            json!({"x5c": [url]}),
            json!({"jwk": jwk}),
            json!({"jku": url, "x5u": url, "jwk": jwk, "x5t": "x"}),
        ] {
            for (kid, status) in [("es", 401), ("unknown", 401)] {
                let mut header = json!({"alg": "ES256", "kid": kid, "typ": "at+jwt"});
                header.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
                let claims = keys.claims("alice").to_string();
                let forged = keys.jws(&header.to_string(), &claims, &keys.stranger);
                let answer = gateway.ask(&Post::with_token(&forged).bytes());
                assert_eq!(answer.status, status, "{answer:?}");
                sent += 1;
            }
            // Ignored, not refused: the issuer's own key verifies (RFC 8725 §3.10).
            let mut header = json!({"alg": "ES256", "kid": "es", "typ": "at+jwt"});
            header.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            assert_eq!(ok(&gateway, &keys.headed(&header.to_string())), 200);
            sent += 1;
        }
        turn.records(&gateway, sent);
    }
    assert_eq!(connects.load(Ordering::SeqCst), 0, "nobody followed the URL");
}

/// T25: a remembered token expires on the dot, also on a kept connection.
#[test]
fn t25_expiry_holds_on_a_kept_connection() {
    for driver in DRIVERS {
        let gateway = Gateway::shared(driver);
        let turn = gateway.turn();
        // Alive through the leeway of 30 s only: two seconds from now it is over.
        let token = gateway.keys.with("exp", json!(now() - 27));
        let request = Post::with_token(&token).bytes();
        let mut client = Client::connect(gateway.address);
        let mut served = 0;
        let mut last = 0;
        until("the token expires", || {
            client.send(&request, Way::Whole);
            let answer = client.answer().expect("the connection is kept");
            last = answer.status;
            served += usize::from(last == 200);
            assert!(last == 200 || answer.reason() == "token_expired");
            last == 401
        });
        assert!(served > 0);
        let reasons = turn.reasons(&gateway, served + 1);
        assert_eq!(reasons.last().map(String::as_str), Some("token_expired"));
    }
}

/// T25 for a token that was remembered with time left: the memory does not outlive `exp`.
#[test]
fn t25_a_remembered_token_is_judged_at_each_use() {
    for driver in DRIVERS {
        let gateway = Gateway::start(driver, "");
        let toml = gateway.directory.join("gateway.toml");
        let text = std::fs::read_to_string(&toml).unwrap();
        drop(gateway);
        let strict =
            text.replace("user_claim = \"sub\"", "user_claim = \"sub\"\nleeway_seconds = 0");
        assert_ne!(text, strict);
        let gateway = Gateway::start_with(driver, "", |directory| {
            let path = directory.join("gateway.toml");
            let text = std::fs::read_to_string(&path).unwrap();
            let text =
                text.replace("user_claim = \"sub\"", "user_claim = \"sub\"\nleeway_seconds = 0");
            std::fs::write(path, text).unwrap();
        });
        let token = gateway.keys.with("exp", json!(now() + 2));
        let request = Post::with_token(&token).bytes();
        let mut client = Client::connect(gateway.address);
        let mut served = 0;
        until("the token expires", || {
            client.send(&request, Way::Whole);
            let status = client.answer().unwrap().status;
            served += usize::from(status == 200);
            status == 401
        });
        assert!(served > 1, "it was remembered meanwhile");
        assert!(now() >= claims_exp(&token));
    }
}

fn claims_exp(token: &str) -> u64 {
    use base64::Engine as _;
    let payload = token.split('.').nth(1).unwrap();
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(payload).unwrap();
    serde_json::from_slice::<serde_json::Value>(&bytes).unwrap()["exp"].as_u64().unwrap()
}

/// T24: a token for one server of the gateway is not one for another.
#[test]
fn t24_a_token_serves_the_server_it_names() {
    for driver in DRIVERS {
        let gateway = Gateway::shared(driver);
        let _turn = gateway.turn();
        let token = gateway.keys.with("aud", json!(format!("{PUBLIC_URL}/mcp/open")));
        let open = Post::with_token(&token).to("open").bytes();
        assert_eq!(gateway.ask(&open).status, 200);
        // On the same connection too, where it is remembered.
        let mut client = Client::connect(gateway.address);
        client.send(&[open, Post::with_token(&token).bytes()].concat(), Way::Whole);
        assert_eq!(client.answer().unwrap().status, 200);
        let answer = client.answer().unwrap();
        assert_eq!((answer.status, answer.reason().as_str()), (401, "token_audience"));
    }
}

/// O01: metadata is public, exact and cacheable; a 401 names the metadata of the path it was sent
/// to.
#[test]
fn o01_protected_resource_metadata() {
    for driver in DRIVERS {
        let gateway = Gateway::shared(driver);
        let turn = gateway.turn();
        let paths = ["", "/mcp", "/mcp/tools", "/mcp/no-such-server"];
        for path in paths {
            let get = format!(
                "GET /.well-known/oauth-protected-resource{path} HTTP/1.1\r\n\
                 Host: portcullis.localhost\r\n\r\n"
            );
            let answer = gateway.ask(get.as_bytes());
            assert_eq!(answer.status, 200, "{answer:?}");
            let wanted = format!("{PUBLIC_URL}{path}");
            assert_eq!(answer.json()["resource"], json!(wanted));
            assert!(answer.header("cache-control").unwrap().contains("max-age="));
            assert!(answer.json()["authorization_servers"].as_array().unwrap().len() > 1);
        }
        let mut post = Post { token: None, ..Post::new(&gateway) };
        for path in ["/mcp", "/mcp/tools", "/mcp/no-such-server"] {
            post.path = path.to_owned();
            let challenge = gateway.ask(&post.bytes());
            let named = format!("\"{PUBLIC_URL}/.well-known/oauth-protected-resource{path}\"");
            assert!(
                challenge.header("www-authenticate").unwrap().contains(&named),
                "{challenge:?}"
            );
        }
        turn.records(&gateway, paths.len() + 3);
        assert_silent(&gateway.everything_written(), "what was written");
    }
}

const TOKENS: usize = 10_000;
