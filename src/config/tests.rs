use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use super::*;
use crate::address::Reach;
use crate::limits::{CONFIG_BYTES_MAX, SECRET_BYTES_MAX};

/// A folder of its own with every file that the configurations here name; removed when dropped.
pub(super) struct Folder(pub(super) PathBuf);

impl Folder {
    pub(super) fn new(case: &str) -> Self {
        let name = format!("portcullis-config-{}-{case}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(path.join("policies")).unwrap();
        std::fs::create_dir_all(path.join("credentials")).unwrap();
        std::fs::create_dir_all(path.join("logs")).unwrap();
        for (file, content) in FILES {
            std::fs::write(path.join(file), content).unwrap();
        }
        for name in ["pdp", "other"] {
            let key = rcgen::KeyPair::generate().unwrap();
            let params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
            let certificate = params.self_signed(&key).unwrap().pem();
            std::fs::write(path.join(format!("{name}.pem")), certificate).unwrap();
            let key = key.serialize_pem();
            std::fs::write(path.join(format!("credentials/{name}.key")), key).unwrap();
        }
        Self(path)
    }

    pub(super) fn environment(&self) -> Variables {
        let credentials = self.0.join("credentials").into_os_string();
        Variables(vec![
            ("CREDENTIALS_DIRECTORY", credentials),
            ("KEY", "from-the-environment".into()),
        ])
    }

    pub(super) fn parse(&self, text: &str) -> Result<Config, Faults> {
        Config::parse(text, &self.0.join("gateway.toml"), &self.environment())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub(super) struct Variables(pub(super) Vec<(&'static str, OsString)>);

impl Environment for Variables {
    fn variable(&self, name: &str) -> Option<OsString> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, value)| value.clone())
    }
}

const FILES: [(&str, &str); 15] = [
    ("credentials/pdp.token", "t0ken\n"),
    ("GeoLite2-Country.mmdb", "countries"),
    ("fullchain.pem", "certificate"),
    ("internal-ca.pem", "certificate"),
    ("torn.pem", "-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n"),
    ("junk.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
    ("torn.key", "-----BEGIN PRIVATE KEY-----\n!!\n-----END PRIVATE KEY-----\n"),
    ("junk.key", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"),
    ("jwks.json", "{}"),
    ("empty", "\n"),
    ("two-lines", "one\ntwo\n"),
    ("credentials/tls.key", "key"),
    ("credentials/session.key", "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=\n"),
    ("credentials/session.old", "YWJjZGVmMDEyMzQ1Njc4OTAxMjM0NTY3ODlhYmNkZWY="),
    ("credentials/github.key", "s3cret\n"),
];

const MINIMAL: &str = include_str!("../../conf/minimal.toml");

#[test]
fn ten_lines_are_enough_and_everything_else_has_the_default_of_the_contract() {
    assert_eq!(MINIMAL.lines().count(), 10);
    let folder = Folder::new("minimal");
    let config = folder.parse(MINIMAL).map_err(|faults| faults.to_string()).unwrap();
    assert_eq!(config.public_url, "http://127.0.0.1:8080");
    assert_eq!(config.listen.hosts, ["127.0.0.1:8080"]);
    assert!(config.listen.loopback && config.listen.tls.is_none());
    assert_eq!(config.cores.driver, Driver::Auto);
    assert_eq!(config.cores.cpus, None);
    let provider = &config.trust_providers[0];
    assert_eq!(provider.algorithms, [Algorithm::Es256, Algorithm::Rs256]);
    assert_eq!(provider.keys, KeySource::Discovery);
    assert_eq!(provider.token_type.as_deref(), Some("at+jwt"));
    assert_eq!(provider.leeway_seconds, 30);
    assert_eq!(provider.user_claim, "email");
    let server = &config.servers[0];
    assert_eq!((server.timeout_seconds, server.idle_seconds, server.max_seconds), (30, 300, 3_600));
    assert_eq!(server.prefix, "github");
    assert_eq!(server.url.target, "/mcp");
    assert_eq!(config.policy.directory, folder.0.join("policies"));
    assert_eq!(config.policy.timezone, "UTC");
    assert!(!config.policy.watch);
    assert_eq!(config.sessions.lifetime_seconds, 43_200);
    assert_eq!(config.audit.mode, AuditMode::Strict);
    assert_eq!(config.audit.sink, AuditSink::Stdout);
    assert_eq!(config.admin.address.to_string(), "127.0.0.1:9091");
    assert_eq!(config.limits, Limits::default());
    assert_eq!(config.federation, Federation::default());
    let warnings: Vec<_> = config.warnings.iter().map(|warning| warning.key.as_str()).collect();
    assert_eq!(warnings, ["sessions.key"]);
}

#[test]
fn the_only_server_may_have_no_prefix() {
    let folder = Folder::new("prefix");
    let text = MINIMAL.replace("[[server]]\n", "[[server]]\nprefix = \"\"\n");
    assert_ne!(text, MINIMAL);
    assert_eq!(folder.parse(&text).unwrap().servers[0].prefix, "");
}

#[test]
fn every_fault_is_reported_at_once_in_the_order_of_the_text() {
    let folder = Folder::new("all");
    let text = "bogus = 1\n[listen]\naddress = 7\n[[server]]\nurl = \"ftp://x\"\nnope = true\n";
    let faults = folder.parse(text).err().unwrap();
    let places: Vec<_> = faults.0.iter().map(|f| (f.line, f.column, f.key.as_str())).collect();
    assert_eq!(
        places,
        [
            (1, 1, "bogus"),
            (1, 1, "trust_provider"),
            (1, 1, "policy"),
            (3, 11, "listen.address"),
            (4, 1, "server.name"),
            (5, 7, "server.url"),
            (6, 1, "server.nope"),
        ],
        "{faults}"
    );
}

const GATEWAY: &str = include_str!("../../conf/gateway.toml");

/// `conf/gateway.toml` with the lines that begin with one of `markers` made real.
fn uncommented(markers: &[&str]) -> String {
    let line = |line: &str| {
        let real = markers.iter().find_map(|marker| line.strip_prefix(marker));
        real.unwrap_or(line).trim_start().to_owned()
    };
    GATEWAY.lines().map(line).collect::<Vec<_>>().join("\n")
}

fn collect(table: &toml::Table, path: &str, out: &mut std::collections::BTreeSet<String>) {
    for (key, value) in table {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        let tables: Vec<_> = match value.as_array() {
            Some(list) => list.iter().filter_map(toml::Value::as_table).collect(),
            None => value.as_table().into_iter().collect(),
        };
        if tables.is_empty() {
            assert!(out.insert(path.clone()), "{path} twice");
        }
        tables.into_iter().for_each(|table| collect(table, &path, out));
    }
}

#[test]
fn the_example_shows_every_key_that_a_configuration_may_hold() {
    let table: toml::Table = uncommented(&["#:", "#|", "#!"]).parse().unwrap();
    let mut shown = std::collections::BTreeSet::new();
    collect(&table, "", &mut shown);
    let mut known: std::collections::BTreeSet<_> = raw::all_keys().into_iter().collect();
    // The two kinds of claim rule are shown once each, not both in both tables.
    for key in ["trust_provider.require.equals_claim", "trust_provider.workload.one_of"] {
        assert!(known.remove(key));
    }
    assert_eq!(shown, known);
}

#[test]
fn the_example_is_accepted_and_shows_the_defaults() {
    let folder = Folder::new("example");
    let example = folder.parse(GATEWAY).map_err(|faults| faults.to_string()).unwrap();
    let minimal = folder.parse(MINIMAL).map_err(|faults| faults.to_string()).unwrap();
    assert_eq!(example.limits, Limits::default());
    assert_eq!(example.federation, Federation::default());
    assert_eq!(example.admin.address, minimal.admin.address);
    assert_eq!(example.cores.driver, minimal.cores.driver);
    assert_eq!(example.cores.cpus, minimal.cores.cpus);
    assert_eq!(example.sessions.lifetime_seconds, minimal.sessions.lifetime_seconds);
    assert_eq!(example.audit.mode, minimal.audit.mode);
    assert_eq!(example.audit.sink, minimal.audit.sink);
    assert_eq!(example.audit.ring_directory, minimal.audit.ring_directory);
    assert_eq!(example.audit.fsync, minimal.audit.fsync);
    assert_eq!(example.policy.timezone, minimal.policy.timezone);
    assert_eq!(example.policy.watch, minimal.policy.watch);
    let (one, two) = (&example.trust_providers[0], &minimal.trust_providers[0]);
    assert_eq!(one.algorithms, two.algorithms);
    assert_eq!(one.token_type, two.token_type);
    assert_eq!(one.leeway_seconds, two.leeway_seconds);
    assert_eq!(one.trust_private_addresses, two.trust_private_addresses);
    assert_eq!(one.user_claim, two.user_claim);
    assert_eq!(one.groups_claim, two.groups_claim);
    assert_eq!(one.agent_claim, two.agent_claim);
    let (one, two) = (&example.servers[0], &minimal.servers[0]);
    assert_eq!(one.timeout_seconds, two.timeout_seconds);
    assert_eq!(one.idle_seconds, two.idle_seconds);
    assert_eq!(one.max_seconds, two.max_seconds);
    assert_eq!(one.share_public_results, two.share_public_results);
    assert_eq!(one.trust_private_addresses, two.trust_private_addresses);
    // TLS and the credential have no default; they are read as shown.
    assert!(example.listen.tls.is_some());
    assert_eq!(example.servers[0].credential, Some(0));
    assert_eq!(example.credentials[0].servers, [0]);
}

#[test]
fn every_optional_key_of_the_example_is_accepted_where_it_is_built() {
    let folder = Folder::new("optional");
    let text = uncommented(&["#:"])
        .replace("jwks_url = ", "#")
        .replace("header = \"Authorization\"", "#")
        .replace("scheme = \"Bearer\"", "#")
        .replace("/var/log/portcullis", "logs");
    let config = folder.parse(&text).map_err(|faults| faults.to_string()).unwrap();
    assert_eq!(config.trust_providers[0].keys, KeySource::File(folder.0.join("jwks.json")));
    assert_eq!(config.trust_providers[0].require.len(), 1);
    assert!(matches!(&config.trust_providers[0].workload[0].test,
        ClaimTest::EqualsClaim(claim) if claim == "client_id"));
    assert!(matches!(&config.credentials[0].kind, CredentialKind::ApiKey(key)
        if key.place == ApiKeyPlace::Query("key".to_owned())));
    assert_eq!(config.audit.sink, AuditSink::File(folder.0.join("logs/audit.jsonl")));
    assert_eq!(config.audit.ring_directory, folder.0.join("logs"));
    assert!(config.sessions.key.is_some() && config.sessions.previous_key.is_some());
    assert_eq!(config.methods[0].name, "com.example/thing");
    assert_eq!(config.policy.geoip, Some(folder.0.join("GeoLite2-Country.mmdb")));
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
    // What stands for something else is accepted in its place.
    let remote = uncommented(&["#|"]).replace("directory = \"policies\"", "");
    let config = folder.parse(&remote).map_err(|faults| faults.to_string()).unwrap();
    let authzen = config.policy.authzen.as_ref().unwrap();
    assert_eq!(authzen.url.origin(), "https://pdp.example.com");
    assert_eq!((authzen.timeout_ms, authzen.in_flight_per_core_max), (1_000, 1_024));
    assert!(authzen.bearer.is_some());
    let client = authzen.client.as_ref().unwrap();
    assert_eq!(client.certificate, folder.0.join("pdp.pem"));
    assert_eq!(client.private_key, SecretSource::Credential("pdp.key".to_owned()));
    // What is reserved is refused, one fault each.
    let faults = folder.parse(&uncommented(&["#!"])).err().unwrap();
    let keys: Vec<_> = faults.0.iter().map(|fault| fault.key.as_str()).collect();
    assert_eq!(keys, ["authority"]);
    assert!(faults.0.iter().all(|fault| fault.what.contains("not built yet")));
}

#[test]
fn loopback_listeners_may_do_without_tls_and_public_url() {
    let folder = Folder::new("loopback");
    for (address, url) in [
        ("127.0.0.1:80", Some("http://127.0.0.1")),
        ("127.0.0.9:8080", Some("http://127.0.0.9:8080")),
        ("[::1]:8080", Some("http://[::1]:8080")),
        ("[::ffff:127.0.0.1]:8080", Some("http://127.0.0.1:8080")),
        ("0.0.0.0:8080", None),
        ("[::]:8080", None),
        ("192.168.0.1:8080", None),
        ("fd:http", None),
    ] {
        let config = folder.parse(&MINIMAL.replace("127.0.0.1:8080", address));
        let got = config.as_ref().ok().map(|config| config.public_url.as_str());
        assert_eq!(got, url, "{address}");
    }
}

#[test]
fn a_port_that_the_kernel_chooses_becomes_part_of_the_default_url() {
    let folder = Folder::new("port");
    let mut config = folder.parse(&MINIMAL.replace(":8080", ":0")).ok().unwrap();
    config.bound("127.0.0.1:41234".parse().unwrap());
    assert_eq!(config.public_url, "http://127.0.0.1:41234");
    assert_eq!(config.listen.hosts, ["127.0.0.1:41234"]);
    let named = format!("public_url = \"http://localhost:7\"\n{}", MINIMAL.replace(":8080", ":0"));
    let mut config = folder.parse(&named).ok().unwrap();
    config.bound("127.0.0.1:41234".parse().unwrap());
    assert_eq!(config.public_url, "http://localhost:7", "a written one is never changed");
}

#[test]
fn what_widens_trust_is_accepted_with_a_warning() {
    let folder = Folder::new("warnings");
    let text = MINIMAL.replace(
        "issuer = \"https://idp.example.com\"",
        "issuer = \"test\"\njwks_file = \"jwks.json\"\naudiences = [\"other\"]",
    );
    let config = folder.parse(&text).map_err(|faults| faults.to_string()).unwrap();
    let warnings: Vec<_> =
        config.warnings.iter().map(|w| (w.line, w.column, w.key.as_str())).collect();
    assert_eq!(
        warnings,
        [
            (1, 1, "sessions.key"),
            (5, 10, "trust_provider.issuer"),
            (7, 13, "trust_provider.audiences"),
        ]
    );
    // Where a name leads is not known yet; that only private addresses will be dialled is said.
    let trusted = |url: &str| {
        MINIMAL.replace(
            "url = \"https://mcp.example.com/mcp\"",
            &format!("url = \"{url}\"\ntrust_private_addresses = true"),
        )
    };
    for (url, expected) in [
        ("http://mcp.example.com/mcp", &["sessions.key", "server.url"][..]),
        ("http://localhost/mcp", &["sessions.key"]),
        ("http://10.0.0.1/mcp", &["sessions.key"]),
        ("https://mcp.example.com/mcp", &["sessions.key"]),
    ] {
        let config = folder.parse(&trusted(url)).map_err(|faults| faults.to_string()).unwrap();
        let warnings: Vec<_> = config.warnings.iter().map(|w| w.key.as_str()).collect();
        assert_eq!(warnings, expected, "{url}");
    }
}

#[test]
fn the_audit_goes_where_systemd_made_a_folder() {
    let folder = Folder::new("systemd");
    let logs = folder.0.join("logs");
    let mut both = logs.clone().into_os_string();
    both.push(":/elsewhere");
    let environment = Variables(vec![("LOGS_DIRECTORY", both)]);
    let config = Config::parse(MINIMAL, &folder.0.join("gateway.toml"), &environment).ok().unwrap();
    assert_eq!(config.audit.sink, AuditSink::File(logs.join("audit.jsonl")));
    assert_eq!(config.audit.ring_directory, logs);
}

#[test]
fn cpus_are_a_sorted_list() {
    let folder = Folder::new("cpus");
    for (text, cpus) in [
        ("auto", Some(None)),
        ("0", Some(Some(vec![0]))),
        ("8,0-3", Some(Some(vec![0, 1, 2, 3, 8]))),
        ("", None),
        ("1-", None),
        ("-1", None),
        ("+1", None),
        ("0-3,3", None),
        ("1024", None),
        ("0-99999999999", None),
    ] {
        let config = folder.parse(&format!("[cores]\ncpus = \"{text}\"\n{MINIMAL}"));
        assert_eq!(config.ok().map(|config| config.cores.cpus), cpus, "{text:?}");
    }
}

#[test]
fn urls_are_read_into_their_canonical_parts() {
    for (text, authority, target) in [
        ("https://Example.COM/mcp", "example.com", "/mcp"),
        ("https://example.com:443", "example.com", "/"),
        ("http://example.com:80?x=1", "example.com", "/?x=1"),
        ("http://example.com:8080/", "example.com:8080", "/"),
        ("https://[2001:4860:0::8888]:8443/a%20b?c=d/e", "[2001:4860::8888]:8443", "/a%20b?c=d/e"),
        ("https://my_service/mcp", "my_service", "/mcp"),
    ] {
        let url = UpstreamUrl::parse(text).unwrap();
        assert_eq!((url.authority.as_str(), url.target.as_str()), (authority, target), "{text}");
    }
    for text in [
        "",
        "https://",
        "https:///mcp",
        "ftp://a",
        "HTTPS://a",
        "https://a:",
        "https://a:x/",
        "https://a:+1/",
        "https://:443/",
        "https://-a/",
        "https://a-/",
        "https://a..b/",
        "https://a./",
        "https://[::1/",
        "https://[::1]x/",
        "https://::1/",
        "https://[1.2.3.4]/",
        "https://[fe80::1%25eth0]/",
        "https://127.1/",
        "https://0177.0.0.1/",
        "https://1.2.3.4.5/",
        "https://256.0.0.1/",
        "https://a/%zz",
        "https://a/%2",
        "https://a/\\b",
        "https://a\\b/",
        "https://a/\u{e9}",
        "https://b\u{fc}cher/",
        "https://a/\r\nX: y",
        "https://a\t/",
        "https://u@a/",
        "https://a/#f",
        "https://a/<b>",
        "https://a?b#c",
    ] {
        assert!(UpstreamUrl::parse(text).is_err(), "{text:?}");
    }
    let long = format!("https://a/{}", "x".repeat(2048));
    assert!(UpstreamUrl::parse(&long).is_err());
}

/// The table of addresses and its test are in `address`; here, that a URL is judged by it.
#[test]
fn o07_hosts_of_urls_are_judged_by_what_they_reach() {
    for (host, expected) in [
        ("8.8.8.8", Reach::Public),
        ("mcp.example.com", Reach::Public),
        ("localhost", Reach::Private),
        ("a.localhost", Reach::Private),
        ("10.1.2.3", Reach::Private),
        ("[::ffff:10.0.0.1]", Reach::Private),
        ("[::ffff:169.254.169.254]", Reach::Forbidden),
        ("168.63.129.16", Reach::Forbidden),
        ("192.88.99.1", Reach::Forbidden),
        ("198.18.0.1", Reach::Forbidden),
        ("[2001:2::1]", Reach::Forbidden),
    ] {
        let url = UpstreamUrl::parse(&format!("https://{host}/mcp")).unwrap();
        assert_eq!(url.reach(), expected, "{host}");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_a_fault_with_a_place() {
    let folder = Folder::new("unreadable");
    let load = |name: &str| {
        let path = folder.0.join(name);
        let faults = Config::load(&path).err().unwrap();
        let fault = &faults.0[0];
        (fault.line, fault.column, fault.key.clone(), fault.what.clone())
    };
    let (line, column, key, what) = load("absent.toml");
    assert_eq!((line, column, key.as_str()), (1, 1, "file"));
    assert!(what.starts_with("cannot be read"), "{what}");
    std::fs::write(folder.0.join("latin.toml"), b"[listen]\na = \"\xe9\"").unwrap();
    assert_eq!(load("latin.toml"), (2, 6, "file".to_owned(), "is not UTF-8".to_owned()));
    std::fs::write(folder.0.join("large.toml"), vec![b'#'; CONFIG_BYTES_MAX + 1]).unwrap();
    assert!(load("large.toml").3.starts_with("is larger"));
    std::fs::write(folder.0.join("good.toml"), MINIMAL).unwrap();
    assert!(Config::load(&folder.0.join("good.toml")).is_ok());
}

#[test]
fn secrets_are_read_whole_bounded_and_never_from_elsewhere() {
    let folder = Folder::new("secrets");
    let write = |name: &str, bytes: &[u8]| {
        std::fs::write(folder.0.join(name), bytes).unwrap();
        SecretSource::File(folder.0.join(name))
    };
    for (bytes, expected) in [
        (&b"key"[..], &b"key"[..]),
        (b"key\n", b"key"),
        (b"key\r\n", b"key"),
        (b"key\n\n", b"key\n"),
        (b"key\r", b"key\r"),
        (b" key ", b" key "),
    ] {
        let secret = write("secret", bytes).read().unwrap();
        assert_eq!(secret.expose(), expected);
    }
    let full = write("full", &[b'k'; SECRET_BYTES_MAX]).read().unwrap();
    assert_eq!(full.len(), SECRET_BYTES_MAX);
    let read = |source: &SecretSource| source.read_with(&folder.environment()).err();
    assert_eq!(read(&write("large", &[b'k'; SECRET_BYTES_MAX + 1])), Some(SecretFault::TooLarge));
    assert_eq!(read(&write("empty", b"\n")), Some(SecretFault::Empty));
    assert_eq!(read(&SecretSource::File(folder.0.clone())), Some(SecretFault::NotAFile));
    assert_eq!(read(&SecretSource::File("/dev/zero".into())), Some(SecretFault::NotAFile));
    // Nobody ever writes into this pipe: waiting for it would never end.
    let pipe = folder.0.join("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0)
        .unwrap();
    assert_eq!(read(&SecretSource::File(pipe)), Some(SecretFault::NotAFile));
    assert_eq!(read(&SecretSource::File(folder.0.join("absent"))), Some(SecretFault::Absent));
    let header = |bytes: &[u8]| write("secret", bytes).read_for_header().err();
    assert_eq!(header(b"key\n"), None);
    for bytes in [&b"a\r\nX: y"[..], b"a\nb", b"a\0", b"\x7f", b" a", b"a\t", b"\xc3\xa9", b"a\n\n"]
    {
        assert_eq!(header(bytes), Some(SecretFault::NotForHeaders), "{bytes:?}");
    }
}

#[test]
fn credentials_and_variables_come_from_the_environment_given() {
    let folder = Folder::new("environment");
    let environment = folder.environment();
    let credential = SecretSource::Credential("github.key".to_owned());
    let secret = credential.read_with(&environment).unwrap();
    assert_eq!(secret.expose(), b"s3cret");
    let variable = SecretSource::Env("KEY".to_owned());
    assert_eq!(variable.read_with(&environment).unwrap().expose(), b"from-the-environment");
    let unset = SecretSource::Env("UNSET".to_owned());
    assert_eq!(unset.read_with(&environment).err(), Some(SecretFault::Absent));
    for directory in [None, Some(""), Some("credentials")] {
        let set = directory.map(|path| ("CREDENTIALS_DIRECTORY", path.into()));
        let fault = credential.read_with(&Variables(set.into_iter().collect())).err();
        assert_eq!(fault, Some(SecretFault::NoCredentialsDirectory), "{directory:?}");
    }
    let bytes = OsString::from_vec(vec![0xff, 0xfe]);
    let odd = Variables(vec![("KEY", bytes)]);
    assert_eq!(variable.read_for_header_with(&odd).err(), Some(SecretFault::NotForHeaders));
}

#[test]
fn env_secrets_are_for_loopback_listeners() {
    let folder = Folder::new("env");
    let credential = "[[credential]]\nname = \"key\"\nkind = \"api_key\"\nheader = \"X-Key\"\n";
    let text = format!("{MINIMAL}{credential}secret = \"env:KEY\"\n");
    let config = folder.parse(&text).map_err(|faults| faults.to_string()).unwrap();
    assert_eq!(config.credentials[0].servers, [0], "one server needs no list");
}

#[test]
fn relative_paths_start_at_the_folder_of_the_file() {
    let folder = Folder::new("relative");
    let config = Config::parse(MINIMAL, Path::new("gateway.toml"), &folder.environment());
    let faults = config.err().unwrap();
    let text = faults.to_string();
    assert!(
        text.starts_with("gateway.toml:10:13: policy.directory: \"policies\" is not"),
        "{text}"
    );
}
