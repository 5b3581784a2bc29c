//! A real OAuth provider.

use serde_json::json;

use crate::gateway::{Gateway, Setup};
use crate::install::tools;
use crate::process::{Running, eventually};
use crate::sdks::{SOME, Sdk, client, client_with};
use crate::wire::{JSON_HEADERS, MODERN, modern_meta};
use crate::{ends_with_a_true_record, everything, http, node, observed, permit_all, serial};

/// Discovery, key rotation, audience: tokens of npm oidc-provider instead of minted ones.
#[test]
fn tokens_of_a_real_provider_are_judged() {
    let _one = serial();
    let Some(tools) = tools() else { return };
    let (_upstream, port) = everything(tools);
    let mut provider = Running::start("oidc", &tools.runs, node(tools, "oidc.mjs").arg("0"));
    let oidc = provider.port();
    let issuer = format!("http://127.0.0.1:{oidc}");
    let setup = Setup { issuer: Some(&issuer), policies: SOME, ..permit_all("oidc", port) };
    let gateway = Gateway::start(tools, &setup);
    let plan = json!({"call": {"name": "test_simple_text"}});
    let works = |token: &str| {
        for (sdk, mode) in [(Sdk::Python, "auto"), (Sdk::TypeScript, "legacy")] {
            let seen = client(tools, sdk, &gateway.url(), mode, &plan, token);
            assert_eq!(seen["call"]["value"]["isError"], false, "{sdk:?}: {seen}");
        }
    };
    let first = oidc_token(oidc, "delegate", &gateway.url());
    eventually("the keys are discovered", || (status(&gateway, &first) != 503).then_some(()));
    works(&first);
    // RFC 9728: all that the SDKs know is the URL, and whose credentials they hold.
    for (sdk, mode) in [
        (Sdk::Python, "auto"),
        (Sdk::Python, "legacy"),
        (Sdk::TypeScript, "auto"),
        (Sdk::TypeScript, "legacy"),
    ] {
        let seen = client_with(tools, sdk, &gateway.url(), mode, &plan, ("ISSUER", &issuer));
        assert_eq!(seen["call"]["value"]["isError"], false, "{sdk:?} {mode}: {seen}");
    }

    provider.tell("rotate");
    assert_eq!(provider.wait_for("rotated ").split(' ').count(), 2);
    let second = oidc_token(oidc, "delegate", &gateway.url());
    assert_ne!(key_id(&first), key_id(&second), "the provider signs with its new key");
    works(&second);
    works(&first);
    let jwks = http::send(oidc, "GET /observed", &[], "").json();
    assert!(
        jwks["jwksServed"].as_u64().unwrap() >= 2,
        "an unknown key id makes the gateway look again: {jwks}"
    );

    let elsewhere = oidc_token(oidc, "delegate", "http://127.0.0.1:9/mcp/everything");
    assert_eq!(status(&gateway, &elsewhere), 401, "another audience (RFC 9068 section 4)");
    let nobody = oidc_token(oidc, "workload", &gateway.url());
    assert_eq!(status(&gateway, &nobody), 401, "no user, and no rule for workloads");
    assert_eq!(observed(port)["authorization"], json!([]));
    let records = ends_with_a_true_record(gateway, &first);
    let read = records.iter().filter(|record| record["event"] == "metadata").count();
    assert!(read >= 4, "each of the SDKs that held no token read the metadata: {read}");
}

/// An access token by client_credentials (RFC 6749 section 4.4) for `resource` (RFC 8707).
pub(crate) fn oidc_token(port: u16, client: &str, resource: &str) -> String {
    let body = format!(
        "grant_type=client_credentials&scope=mcp%3Atools&client_id={client}\
         &client_secret=interop&resource={}",
        resource.replace(':', "%3A").replace('/', "%2F")
    );
    let form = ["Content-Type: application/x-www-form-urlencoded"];
    let answer = http::send(port, "POST /token", &form, &body);
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json()["access_token"].as_str().unwrap().to_owned()
}

/// The first part of a JWT, which holds the key id.
fn key_id(token: &str) -> &str {
    token.split('.').next().unwrap()
}

/// What the gateway answers to a modern tools/list with this token.
pub(crate) fn status(gateway: &Gateway, token: &str) -> u16 {
    let params = json!({"_meta": modern_meta()});
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": params});
    let authorization = format!("Authorization: Bearer {token}");
    let own = [&*authorization, MODERN, "Mcp-Method: tools/list"];
    let headers = [&own[..], &JSON_HEADERS].concat();
    let answer = http::send(gateway.port, "POST /mcp/everything", &headers, &body.to_string());
    let challenged = answer.head.to_ascii_lowercase().contains("www-authenticate: bearer ");
    assert_eq!(challenged, answer.status == 401, "{}", answer.head);
    answer.status
}
