//! T20: the Wycheproof vectors for JSON Web Signatures (C2SP/wycheproof).

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::super::*;

/// Defective vectors and ones that we want refused: 367 and 370 are byte for byte valid tokens; 346
/// and 350 are signed by another algorithm than the key names; 347 and 351 say `ES521`; 372 and 373
/// are loose base64.
const SKIPPED: [u64; 8] = [346, 347, 350, 351, 367, 370, 372, 373];
const VECTORS: usize = 401;

/// Our profile on a vector, the signature alone: its payloads are no claims.
fn accepted(public: &Value, jws: &str) -> bool {
    let document = serde_json::json!({"keys": [public]}).to_string();
    let Ok(keys) = KeySet::parse(document.as_bytes()) else { return false };
    let all = [Algorithm::Es256, Algorithm::EdDsa, Algorithm::Ps256, Algorithm::Rs256];
    Jws::split(jws.as_bytes()).is_ok_and(|jws| {
        let signer = jws.signer(&keys, &all);
        signer.is_ok_and(|signer| jws.verify(&signer).is_ok()) && jws.payload().is_ok()
    })
}

#[test]
#[expect(clippy::disallowed_methods, reason = "where the data of others lies is told by CI")]
fn t20_wycheproof_json_web_signature() {
    let root = std::env::var("SHARED_DIR")
        .map_or_else(|_| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared"), PathBuf::from);
    let path = root.join("data/wycheproof/json_web_signature_test.json");
    let Ok(text) = std::fs::read(&path) else {
        assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "{} is missing", path.display());
        println!("SKIPPED: {} is not there", path.display());
        return;
    };
    let document: Value = serde_json::from_slice(&text).unwrap();
    let (mut seen, mut accepted_count) = (0, 0);
    for group in document["testGroups"].as_array().unwrap() {
        let public = if group["public"].is_null() { &group["private"] } else { &group["public"] };
        // What we do not speak is refused though the vector is valid.
        let ours = ["ES256", "RS256", "PS256", "EdDSA"].map(Value::from).contains(&public["alg"]);
        for test in group["tests"].as_array().unwrap() {
            seen += 1;
            let id = test["tcId"].as_u64().unwrap();
            if SKIPPED.contains(&id) {
                continue;
            }
            let wanted = test["result"] == "valid" && ours;
            let got = accepted(public, test["jws"].as_str().unwrap());
            assert_eq!(got, wanted, "tcId {id}: {}", test["comment"]);
            accepted_count += usize::from(got);
        }
    }
    assert_eq!(seen, VECTORS);
    assert!(accepted_count >= 10, "the harness accepts nothing: {accepted_count}");
}
