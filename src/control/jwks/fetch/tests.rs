use std::cell::RefCell;
use std::collections::HashMap;
use std::path::PathBuf;

use serde_json::json;

use super::*;
use crate::judge::testing::{block_on, provider};

/// Answers from a table and remembers what was asked.
#[derive(Default)]
struct Site {
    answers: HashMap<String, Answer>,
    asked: RefCell<Vec<String>>,
    deadlines: RefCell<Vec<Monotonic>>,
}

impl Site {
    fn serve(mut self, url: &str, status: u16, body: &str) -> Self {
        let answer = Answer { status, max_age: Some(120), body: body.into() };
        self.answers.insert(url.into(), answer);
        self
    }

    fn asked(&self) -> Vec<String> {
        self.asked.take()
    }
}

impl KeyIo for Site {
    async fn get(
        &self,
        url: &str,
        bytes_max: usize,
        until: Monotonic,
    ) -> Result<Answer, FetchFault> {
        assert_eq!(bytes_max, JWKS_BYTES_MAX);
        self.deadlines.borrow_mut().push(until);
        self.asked.borrow_mut().push(url.into());
        self.answers.get(url).cloned().ok_or(FetchFault::Unreachable)
    }

    async fn read(&self, path: &Path, _: usize) -> Result<Vec<u8>, FetchFault> {
        self.asked.borrow_mut().push(path.display().to_string());
        Ok(b"file".to_vec())
    }
}

fn metadata(issuer: &str, jwks_uri: &str) -> String {
    json!({"issuer": issuer, "jwks_uri": jwks_uri, "other": [1]}).to_string()
}

fn source(issuer: &str, keys: KeySource, plain: bool) -> Source {
    let mut provider = provider();
    provider.issuer = issuer.into();
    provider.keys = keys;
    provider.trust_private_addresses = plain;
    Source::new(&provider)
}

fn fetch(source: &mut Source, site: &Site, now: u64) -> Result<Fetched, FetchFault> {
    block_on(source.fetch(site, Monotonic(now * 1_000_000)))
}

const ISSUER: &str = "https://idp.test";
const OIDC: &str = "https://idp.test/.well-known/openid-configuration";
const OAUTH: &str = "https://idp.test/.well-known/oauth-authorization-server";
const JWKS: &str = "https://keys.idp.test/jwks";

#[test]
fn discovery_reads_the_metadata_once_in_a_while() {
    let site = Site::default().serve(OIDC, 200, &metadata(ISSUER, JWKS)).serve(JWKS, 200, "keys");
    let mut source = source(ISSUER, KeySource::Discovery, false);
    let fetched = fetch(&mut source, &site, 0).unwrap();
    assert_eq!(fetched, Fetched { document: b"keys".to_vec(), max_age: Some(120) });
    assert_eq!(site.asked(), [OIDC, JWKS]);
    fetch(&mut source, &site, JWKS_FRESH_SECONDS_MAX - 1).unwrap();
    assert_eq!(site.asked(), [JWKS]);
    fetch(&mut source, &site, JWKS_FRESH_SECONDS_MAX).unwrap();
    assert_eq!(site.asked(), [OIDC, JWKS]);
}

#[test]
fn rfc8414_metadata_where_there_is_no_openid() {
    let issuer = "https://idp.test/tenant/1";
    let oauth = "https://idp.test/.well-known/oauth-authorization-server/tenant/1";
    let oidc = "https://idp.test/tenant/1/.well-known/openid-configuration";
    let site = Site::default()
        .serve(oidc, 404, "")
        .serve(oauth, 200, &metadata(issuer, JWKS))
        .serve(JWKS, 200, "keys");
    let mut source = source(issuer, KeySource::Discovery, false);
    fetch(&mut source, &site, 0).unwrap();
    assert_eq!(site.asked(), [oidc, oauth, JWKS]);
    // However many documents it takes, there is one deadline: requests wait for the whole fetch.
    fetch(&mut source, &site, JWKS_FRESH_SECONDS_MAX + 7).unwrap();
    let begun = |seconds: u64| Monotonic(seconds * 1_000_000 + JWKS_FETCH_MS_MAX * 1_000);
    let deadlines = [[begun(0); 3], [begun(JWKS_FRESH_SECONDS_MAX + 7); 3]].concat();
    assert_eq!(site.deadlines.take(), deadlines);
}

#[test]
fn a_set_that_moved_is_found_again() {
    let mut site =
        Site::default().serve(OIDC, 200, &metadata(ISSUER, JWKS)).serve(JWKS, 200, "keys");
    let mut source = source(ISSUER, KeySource::Discovery, false);
    fetch(&mut source, &site, 0).unwrap();
    site = site.serve(JWKS, 410, "");
    assert_eq!(fetch(&mut source, &site, 1), Err(FetchFault::Status(410)));
    let moved = "https://keys.idp.test/new";
    site = site.serve(OIDC, 200, &metadata(ISSUER, moved)).serve(moved, 200, "new");
    assert_eq!(fetch(&mut source, &site, 2).unwrap().document, b"new");
}

#[test]
fn rfc8414_3_3_the_issuer_must_be_ours_to_the_byte() {
    for other in ["https://idp.test/", "https://IDP.test", "https://evil.test", ""] {
        let site =
            Site::default().serve(OIDC, 200, &metadata(other, JWKS)).serve(JWKS, 200, "keys");
        let mut source = source(ISSUER, KeySource::Discovery, false);
        assert_eq!(fetch(&mut source, &site, 0), Err(FetchFault::DiscoveryIssuer), "{other}");
        assert_eq!(site.asked(), [OIDC]);
    }
}

#[test]
fn o07_o09_only_https_urls_are_followed() {
    for (url, plain, wanted) in [
        ("https://keys.test/a?b=c", false, true),
        ("http://127.0.0.1:8080/jwks", false, false),
        ("http://127.0.0.1:8080/jwks", true, true),
        ("file:///etc/passwd", true, false),
        ("ftp://keys.test/a", true, false),
        ("https://user@keys.test/a", true, false),
        ("https://keys.test/a#b", true, false),
        ("//keys.test/a", true, false),
        ("/jwks", true, false),
        ("", true, false),
    ] {
        let found = jwks_uri(metadata(ISSUER, url).as_bytes(), ISSUER, plain);
        assert_eq!(found.is_ok(), wanted, "{url}");
        if !wanted {
            assert_eq!(found, Err(FetchFault::DiscoveryUrl), "{url}");
        }
    }
    // A redirect is an answer like any other that is not 200.
    let site = Site::default().serve(OIDC, 302, "").serve(OAUTH, 302, "");
    let mut source = source(ISSUER, KeySource::Discovery, true);
    assert_eq!(fetch(&mut source, &site, 0), Err(FetchFault::Status(302)));
}

#[test]
fn metadata_that_is_none() {
    for body in
        ["", "[]", "<html>", r#"{"issuer":"https://idp.test"}"#, r#"{"issuer":1,"jwks_uri":"x"}"#]
    {
        let found = jwks_uri(body.as_bytes(), ISSUER, false);
        assert_eq!(found, Err(FetchFault::DiscoveryMalformed), "{body}");
    }
    let twice =
        r#"{"issuer":"https://idp.test","issuer":"https://idp.test","jwks_uri":"https://a.test"}"#;
    assert_eq!(jwks_uri(twice.as_bytes(), ISSUER, false), Err(FetchFault::DiscoveryMalformed));
}

#[test]
fn urls_and_files_are_asked_straight() {
    let site = Site::default().serve(JWKS, 200, "keys");
    let mut by_url = source(ISSUER, KeySource::Url(JWKS.into()), false);
    assert_eq!(fetch(&mut by_url, &site, 0).unwrap().document, b"keys");
    let mut by_file = source(ISSUER, KeySource::File(PathBuf::from("/keys.json")), false);
    assert_eq!(fetch(&mut by_file, &site, 0).unwrap().document, b"file");
    assert_eq!(site.asked(), [JWKS, "/keys.json"]);
}

#[test]
fn cache_control_in_its_forms() {
    for (value, wanted) in [
        ("max-age=600", Some(600)),
        ("public, Max-Age=600, must-revalidate", Some(600)),
        ("max-age=\"600\"", Some(600)),
        ("max-age=600, max-age=60", Some(60)),
        ("max-age=600, no-store", Some(0)),
        ("No-Cache", Some(0)),
        ("max-age=-1", None),
        ("max-age=abc", None),
        ("s-maxage=600", None),
        ("public", None),
        ("", None),
    ] {
        assert_eq!(max_age(value.as_bytes()), wanted, "{value}");
    }
}
