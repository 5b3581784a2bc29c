use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::judge::jwt;
use crate::judge::keys::KeySet;
use crate::judge::testing::{NOW, provider};

/// A directory of this test alone, gone with it.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("portcullis-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn request() -> Request {
    Request {
        issuer: "https://idp.example.com".into(),
        audiences: vec!["https://gw.example.com".into()],
        subject: "u-1".into(),
        claims: vec![("email".into(), json!("ada@example.com"))],
        expires_seconds: 60,
    }
}

#[test]
fn a_minted_token_passes_the_profile_with_the_written_key_set() {
    let scratch = Scratch::new("mint");
    let made = init(&scratch.0).unwrap();
    let keys = KeySet::parse(&std::fs::read(&made.jwks).unwrap()).ok().unwrap();
    let token = mint(&read_key(&made.key).unwrap(), &request(), NOW).unwrap();
    let claims = jwt::check(token.as_bytes(), &provider(), &keys, NOW).ok().unwrap();
    assert_eq!(claims.subject(), "u-1");
    assert_eq!(claims.audiences(), ["https://gw.example.com"]);
    assert_eq!(claims.get("client_id"), Some(&json!(CLIENT_ID)));
    assert_eq!(claims.times().expires_at, UnixSeconds(NOW.0 + 60));
    // Two tokens of one second differ.
    assert_ne!(token, mint(&read_key(&made.key).unwrap(), &request(), NOW).unwrap());
}

#[test]
fn the_key_is_private_and_never_overwritten() {
    let scratch = Scratch::new("init");
    let made = init(&scratch.0).unwrap();
    let mode = std::fs::metadata(&made.key).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let public = std::fs::read_to_string(&made.jwks).unwrap();
    assert!(!public.contains("\"d\""), "{public}");
    let before = std::fs::read(&made.key).unwrap();
    assert!(matches!(init(&scratch.0), Err(Fault::File(..))));
    assert_eq!(std::fs::read(&made.key).unwrap(), before);
}

#[test]
fn ed25519_keys_work_and_other_files_do_not() {
    let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
    let key = SigningKey::from_pem(pem(pkcs8.as_ref()).as_bytes()).ok().unwrap();
    let keys = KeySet::parse(key.jwks().unwrap().to_string().as_bytes()).ok().unwrap();
    let token = mint(&key, &request(), NOW).unwrap();
    assert!(jwt::check(token.as_bytes(), &provider(), &keys, NOW).is_ok());
    let rsa_header = pem(&[0x30, 0x82, 0, 0]);
    for text in ["", "key", "-----BEGIN PRIVATE KEY-----", rsa_header.as_str()] {
        assert!(matches!(SigningKey::from_pem(text.as_bytes()), Err(Fault::Key)), "{text}");
    }
}

#[test]
fn claims_replace_the_standard_ones() {
    let scratch = Scratch::new("claims");
    let key = read_key(&init(&scratch.0).unwrap().key).unwrap();
    let mut request = request();
    request.audiences.push("https://other.test".into());
    request.claims = ["exp=7", "client_id=\"me\"", "groups=[\"a\",\"b\"]"]
        .map(|argument| claim(argument).unwrap())
        .into();
    let shown: Value =
        serde_json::from_str(&decode(&mint(&key, &request, NOW).unwrap()).unwrap()).unwrap();
    assert_eq!(shown["claims"]["exp"], 7);
    assert_eq!(shown["claims"]["client_id"], "me");
    assert_eq!(shown["claims"]["groups"], json!(["a", "b"]));
    assert_eq!(shown["claims"]["aud"], json!(["https://gw.example.com", "https://other.test"]));
    assert_eq!(shown["header"]["typ"], "at+jwt");
    assert_eq!(shown["signature"], "not verified");
    for argument in ["", "a", "=1", "a=", "a=b", "a={", "a=1 2"] {
        assert!(matches!(claim(argument), Err(Fault::Claim(_))), "{argument}");
    }
}

#[test]
fn decode_refuses_what_is_no_token() {
    for token in ["", "a.b", "a.b.c.d", "a.b.c", "e30.e30", "e30.bm8.x"] {
        assert!(matches!(decode(token), Err(Fault::Token)), "{token}");
    }
    assert!(decode(" e30.e30.x\n").is_ok());
    assert!(matches!(decode(&"a".repeat(TOKEN_BYTES_MAX + 1)), Err(Fault::Token)));
}
