use std::path::PathBuf;

use super::*;
use crate::config::{ApiKey, ApiKeyPlace, Credential, Environment, SecretSource};

/// A file with a secret, and a configuration of two servers whose first alone may get it.
struct Bench {
    folder: PathBuf,
    config: Config,
}

struct Nothing;

impl Environment for Nothing {
    fn variable(&self, _: &str) -> Option<std::ffi::OsString> {
        None
    }
}

const TEXT: &str = r#"
[listen]
address = "127.0.0.1:0"
[[trust_provider]]
name = "corp"
issuer = "https://idp.example.com"
[[server]]
name = "github"
url = "https://mcp.example.com/mcp"
credential = "key"
[[server]]
name = "open"
url = "https://open.example.com/mcp"
[[credential]]
name = "key"
servers = ["github"]
kind = "api_key"
header = "X-Api-Key"
secret = "file:key"
[[credential]]
name = "nothing"
servers = ["open"]
kind = "none"
[policy]
directory = "policies"
"#;

impl Bench {
    fn new(case: &str) -> Self {
        let name = format!("portcullis-credential-{}-{case}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(folder.join("policies")).unwrap();
        std::fs::write(folder.join("key"), "first\n").unwrap();
        let config = Config::parse(TEXT, &folder.join("gateway.toml"), &Nothing);
        let config = config.map_err(|faults| faults.to_string()).unwrap();
        Self { folder, config }
    }

    fn rotate(&self, secret: &str) {
        std::fs::write(self.folder.join("key"), secret).unwrap();
    }

    fn sent(&self, cache: &Credentials, generation: u64, now: u64) -> (String, CacheOutcome) {
        let now = Monotonic(now * 1_000_000);
        let (credential, outcome) =
            cache.obtain(&self.config, generation, Some(0), 0, now).unwrap();
        let mut head = Vec::new();
        credential.unwrap().write_header(0, &mut head).unwrap();
        (String::from_utf8(head).unwrap(), outcome)
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn upstream(place: ApiKeyPlace, secret: &[u8]) -> Result<UpstreamCredential, Reject> {
    let source = SecretSource::Env("UNUSED".to_owned());
    let kind = CredentialKind::ApiKey(ApiKey { place, secret: source });
    let credential = Credential { name: "key".to_owned(), servers: vec![1], kind };
    UpstreamCredential::new(&credential, Secret::new(secret.to_vec()))
}

fn header(scheme: Option<&str>) -> ApiKeyPlace {
    let scheme = scheme.map(str::to_owned);
    ApiKeyPlace::Header { name: "authorization".to_owned(), scheme }
}

#[test]
fn a_credential_is_read_again_after_sixty_seconds_and_not_before() {
    let bench = Bench::new("ttl");
    let cache = Credentials::new();
    let first = "x-api-key: first\r\n".to_owned();
    assert_eq!(bench.sent(&cache, 1, 100), (first.clone(), CacheOutcome::Miss));
    bench.rotate("second");
    assert_eq!(bench.sent(&cache, 1, 159), (first, CacheOutcome::Hit));
    let second = "x-api-key: second\r\n".to_owned();
    assert_eq!(bench.sent(&cache, 1, 160), (second, CacheOutcome::Miss));
}

#[test]
fn notice_upstream_401_and_a_new_configuration_each_forget() {
    for (case, forget) in [
        ("purge", (|cache: &Credentials| cache.purge()) as fn(&Credentials)),
        ("evict", |cache| cache.evict(0)),
    ] {
        let bench = Bench::new(case);
        let cache = Credentials::new();
        bench.sent(&cache, 1, 0);
        bench.rotate("second");
        forget(&cache);
        assert_eq!(bench.sent(&cache, 1, 1).1, CacheOutcome::Miss, "{case}");
    }
    let bench = Bench::new("generation");
    let cache = Credentials::new();
    bench.sent(&cache, 1, 0);
    assert_eq!(bench.sent(&cache, 2, 1).1, CacheOutcome::Miss);
}

#[test]
fn a_fetch_that_began_before_a_notice_does_not_repopulate() {
    for (case, happen) in [
        ("late-purge", (|cache: &Credentials, _: &Config| cache.purge()) as fn(&_, &_)),
        ("late-evict", |cache, _| cache.evict(0)),
        ("late-reload", |cache, config| {
            assert!(cache.lookup(config, 2, Some(0), 0, Monotonic(0)).is_ok());
        }),
    ] {
        let bench = Bench::new(case);
        let cache = Credentials::new();
        let Ok(Lookup::Miss(fetch)) = cache.lookup(&bench.config, 1, Some(0), 0, Monotonic(0))
        else {
            panic!("{case}");
        };
        let secret = fetch.read(&bench.config).unwrap();
        happen(&cache, &bench.config);
        assert!(cache.store(&bench.config, fetch, secret, Monotonic(1)).is_ok());
        assert_eq!(cache.sweep(Monotonic(1)), 0, "{case}");
    }
}

#[test]
fn the_sixty_seconds_count_from_the_beginning_of_the_fetch() {
    let bench = Bench::new("slow");
    let cache = Credentials::new();
    let Ok(Lookup::Miss(fetch)) = cache.lookup(&bench.config, 1, Some(0), 0, Monotonic(0)) else {
        panic!();
    };
    let secret = fetch.read(&bench.config).unwrap();
    assert!(cache.store(&bench.config, fetch, secret, Monotonic(59_000_000)).is_ok());
    assert_eq!(cache.sweep(Monotonic(59_999_999)), 1);
    assert_eq!(cache.sweep(Monotonic(60_000_000)), 0);
}

#[test]
fn a_credential_never_goes_to_a_server_that_it_does_not_name() {
    let bench = Bench::new("pairing");
    let cache = Credentials::new();
    let wrong = cache.obtain(&bench.config, 1, Some(0), 1, Monotonic(0));
    assert_eq!(wrong.err(), Some(Reject::CredentialUnavailable));
    let absent = cache.obtain(&bench.config, 1, Some(9), 0, Monotonic(0));
    assert_eq!(absent.err(), Some(Reject::CredentialUnavailable));
    // Asserted again at the write, whatever the lookup said.
    let (credential, _) = cache.obtain(&bench.config, 1, Some(0), 0, Monotonic(0)).unwrap();
    let mut out = b"GET / HTTP/1.1\r\n".to_vec();
    let refused = credential.unwrap().write_header(1, &mut out);
    assert_eq!(refused, Err(Reject::CredentialUnavailable));
    assert_eq!(out, b"GET / HTTP/1.1\r\n");
    let query = upstream(ApiKeyPlace::Query("key".to_owned()), b"s").unwrap();
    assert_eq!(query.write_query(0, 0, &mut out), Err(Reject::CredentialUnavailable));
    assert_eq!(out, b"GET / HTTP/1.1\r\n");
}

#[test]
fn no_credential_and_kind_none_send_nothing() {
    let bench = Bench::new("none");
    let cache = Credentials::new();
    for (credential, server) in [(None, 0), (Some(1), 1)] {
        let (sent, outcome) =
            cache.obtain(&bench.config, 1, credential, server, Monotonic(0)).unwrap();
        assert!(sent.is_none());
        assert_eq!(outcome, CacheOutcome::None);
    }
}

#[test]
fn a_source_that_is_gone_or_spoiled_means_no_and_is_not_remembered() {
    let bench = Bench::new("gone");
    let cache = Credentials::new();
    for broken in ["", "\n", "two\nlines", "a\r\nX-Evil: 1", "nul\0", " padded", "caf\u{e9}"] {
        bench.rotate(broken);
        let refused = cache.obtain(&bench.config, 1, Some(0), 0, Monotonic(0));
        assert_eq!(refused.err(), Some(Reject::CredentialUnavailable), "{broken:?}");
    }
    std::fs::remove_file(bench.folder.join("key")).unwrap();
    let refused = cache.obtain(&bench.config, 1, Some(0), 0, Monotonic(0));
    assert_eq!(refused.err(), Some(Reject::CredentialUnavailable));
    bench.rotate("healed");
    assert_eq!(bench.sent(&cache, 1, 0).0, "x-api-key: healed\r\n");
}

#[test]
fn a_header_is_one_line_with_its_scheme() {
    let credential = upstream(header(Some("Bearer")), b"s3cret").unwrap();
    let mut out = Vec::new();
    credential.write_header(1, &mut out).unwrap();
    assert_eq!(out, b"authorization: Bearer s3cret\r\n");
    assert!(out.len() <= credential.written_bytes_max());
    credential.write_query(1, 0, &mut out).unwrap();
    assert_eq!(out, b"authorization: Bearer s3cret\r\n", "a header key adds no query");
    for bytes in 0..=u8::MAX {
        let secret = [b'a', bytes, b'b'];
        let allowed = bytes.is_ascii_graphic() || matches!(bytes, b' ' | b'\t');
        assert_eq!(upstream(header(None), &secret).is_ok(), allowed, "{bytes:#x}");
    }
    assert!(upstream(header(None), b"").is_err());
}

#[test]
fn a_query_key_is_percent_encoded_and_joined_by_the_right_separator() {
    let credential = upstream(ApiKeyPlace::Query("api key".to_owned()), b"a&b=c\r\n~%").unwrap();
    let pair = "api%20key=a%26b%3Dc%0D%0A~%25";
    for (target, separator) in
        [("GET /mcp", "?"), ("GET /mcp?", ""), ("GET /mcp?x=1", "&"), ("GET /mcp?x=1&", "")]
    {
        let mut out = target.as_bytes().to_vec();
        let before = out.len();
        credential.write_query(1, 4, &mut out).unwrap();
        assert_eq!(String::from_utf8(out.clone()).unwrap(), format!("{target}{separator}{pair}"));
        assert!(out.len() - before <= credential.written_bytes_max());
        credential.write_header(1, &mut out).unwrap();
        assert!(out.ends_with(pair.as_bytes()), "a query key adds no header");
    }
}

#[test]
fn writing_the_secret_never_moves_it() {
    for place in [header(Some("Bearer")), ApiKeyPlace::Query("key".to_owned())] {
        let credential = upstream(place, &[b'%'; 4096]).unwrap();
        let mut out = Vec::with_capacity(16);
        out.reserve(credential.written_bytes_max());
        let (start, capacity) = (out.as_ptr(), out.capacity());
        credential.write_query(1, 0, &mut out).unwrap();
        credential.write_header(1, &mut out).unwrap();
        assert_eq!((out.as_ptr(), out.capacity()), (start, capacity));
    }
}
