//! What the gateway under test is configured with.

use std::fmt::Write as _;
use std::fs;
use std::net::{IpAddr, ToSocketAddrs as _};
use std::path::Path;

use super::gateway::Driver;
use super::token::{CORP, Keys, PUBLIC_URL};
use super::upstream::Upstream;

pub(crate) const RULED: &str = "https://idp.ruled.test";
pub(crate) const MAIL: &str = "https://idp.mail.test";
pub(crate) const REMOTE: &str = "https://idp.remote.test";
pub(crate) const NO_KEYS: &str = "https://idp.nokeys.test";
/// What no answer, record, metric or log line may hold.
pub(crate) const API_KEY: &str = "CANARY-api-key";

pub(crate) struct Ports<'a> {
    pub(crate) upstream: &'a Upstream,
    /// Key server of [`REMOTE`].
    pub(crate) keys: u16,
    /// A port where nobody listens.
    pub(crate) closed: u16,
}

/// Writes everything that the gateway reads.
pub(crate) fn write(directory: &Path, driver: Driver, keys: &Keys, ports: &Ports<'_>, more: &str) {
    fs::create_dir_all(directory.join("policies")).unwrap();
    let put = |name: &str, text: &str| fs::write(directory.join(name), text).unwrap();
    put("jwks.json", &keys.jwks().to_string());
    put("upstream.key", API_KEY);
    put("vanishing.key", API_KEY);
    put("policies/all.cedar", &policies());
    put("gateway.toml", &configuration(driver, ports, more));
}

fn configuration(driver: Driver, ports: &Ports<'_>, more: &str) -> String {
    let mut text = format!(
        "public_url = \"{PUBLIC_URL}\"\n[listen]\naddress = \"127.0.0.1:0\"\n\
         origins = [\"https://agents.test\"]\n\
         [cores]\ndriver = \"{}\"\n[policy]\ndirectory = \"policies\"\n\
         [audit]\npath = \"audit.jsonl\"\n[admin]\naddress = \"127.0.0.1:0\"\n",
        driver.name(),
    );
    if !more.contains("[limits]") {
        text.push_str("[limits]\nhead_ms_max = 3000\nstall_ms_max = 3000\n");
    }
    let keys_url = format!("jwks_url = \"http://127.0.0.1:{}/jwks\"", ports.keys);
    let no_keys = format!("jwks_url = \"http://127.0.0.1:{}/jwks\"", ports.closed);
    let file = "jwks_file = \"jwks.json\"";
    for (name, issuer, source, more) in [
        ("corp", CORP, file, "user_claim = \"sub\""),
        (
            "ruled",
            RULED,
            file,
            "user_claim = \"sub\"\nnamespace = \"ruled\"\n\
          [[trust_provider.require]]\nclaim = \"hd\"\none_of = [\"example.com\"]",
        ),
        ("mail", MAIL, file, "namespace = \"mail\""),
        (
            "remote",
            REMOTE,
            &keys_url,
            "user_claim = \"sub\"\nnamespace = \"remote\"\n\
          trust_private_addresses = true",
        ),
        (
            "nokeys",
            NO_KEYS,
            &no_keys,
            "user_claim = \"sub\"\nnamespace = \"nokeys\"\n\
          trust_private_addresses = true",
        ),
    ] {
        let _ = write!(
            text,
            "\n[[trust_provider]]\nname = \"{name}\"\nissuer = \"{issuer}\"\n{source}\n\
             algorithms = [\"ES256\", \"EdDSA\", \"RS256\"]\n{more}\n",
        );
    }
    let (plain, closed) = (format!("http://127.0.0.1:{}", ports.upstream.port), ports.closed);
    let tls = format!("https://127.0.0.1:{}/mcp", ports.upstream.port);
    let trusted = "trust_private_addresses = true";
    for (name, url, credential, more) in [
        ("tools", format!("{plain}/tools"), "header", trusted),
        ("bearer", format!("{plain}/bearer"), "bearer", trusted),
        ("query", format!("{plain}/query?fixed=1"), "query", trusted),
        ("open", format!("{plain}/open"), "", trusted),
        ("narrow", format!("{plain}/narrow"), "", trusted),
        ("secret", format!("{plain}/secret"), "", trusted),
        ("vanishing", format!("{plain}/vanishing"), "vanishing", trusted),
        ("two", format!("{plain}/two"), "", trusted),
        (
            "impatient",
            format!("{plain}/impatient"),
            "",
            "trust_private_addresses = true\ntimeout_seconds = 1\nidle_seconds = 1",
        ),
        ("dead", format!("http://127.0.0.1:{closed}/mcp"), "", trusted),
        ("private", format!("https://{}:{closed}/mcp", private_name()), "", ""),
        ("nowhere", "https://nowhere.invalid/mcp".to_owned(), "", ""),
        ("tls", tls, "", trusted),
    ] {
        let _ = write!(text, "\n[[server]]\nname = \"{name}\"\nurl = \"{url}\"\n{more}\n");
        if !credential.is_empty() {
            let _ = writeln!(text, "credential = \"{credential}\"");
        }
    }
    let key = "secret = \"file:upstream.key\"";
    for (name, server, how) in [
        ("header", "tools", format!("header = \"X-Api-Key\"\n{key}")),
        ("bearer", "bearer", format!("header = \"Authorization\"\nscheme = \"Bearer\"\n{key}")),
        ("query", "query", format!("query = \"key\"\n{key}")),
        ("vanishing", "vanishing", "header = \"X\"\nsecret = \"file:vanishing.key\"".to_owned()),
        ("two-a", "two", format!("header = \"X-A\"\n{key}")),
        ("two-b", "two", format!("header = \"X-B\"\n{key}")),
    ] {
        let _ = write!(
            text,
            "\n[[credential]]\nname = \"{name}\"\nkind = \"api_key\"\nservers = [\"{server}\"]\n{how}\n",
        );
    }
    text + more
}

/// alice may use every server but `secret`, of `narrow` one tool only; bob may use `tools`; mallory
/// may use `tools`, but not connect.
fn policies() -> String {
    let mut text = String::from(
        "@id(\"connect\")\npermit (principal, action == Action::\"connect\", resource)\n\
         unless { principal == User::\"mallory\" };\n\
         @id(\"mallory-tools\")\npermit (principal == User::\"mallory\", action, \
         resource in Server::\"tools\");\n\
         @id(\"bob-tools\")\npermit (principal == User::\"bob\", action, \
         resource in Server::\"tools\");\n\
         @id(\"narrow-session\")\npermit (principal == User::\"alice\", \
         action in [Action::\"session\", Action::\"list\"], resource in Server::\"narrow\");\n\
         @id(\"narrow-one\")\npermit (principal == User::\"alice\", \
         action == Action::\"tools/call\", resource == Tool::\"narrow/allowed\");\n\
         @id(\"carol-lists\")\npermit (principal == User::\"carol\", \
         action == Action::\"tools/list\", resource in Server::\"narrow\");\n\
         @id(\"two-a\") @credential(\"two-a\")\npermit (principal == User::\"alice\", action, \
         resource in Server::\"two\");\n\
         @id(\"two-b\") @credential(\"two-b\")\npermit (principal == User::\"alice\", action, \
         resource in Server::\"two\");\n\
         @id(\"no-deletes\")\nforbid (principal, action == Action::\"tools/call\", \
         resource == Tool::\"tools/delete\");\n",
    );
    let open = [
        "tools",
        "bearer",
        "query",
        "open",
        "vanishing",
        "impatient",
        "dead",
        "private",
        "nowhere",
        "tls",
    ];
    for server in open {
        let _ = writeln!(
            text,
            "@id(\"alice-{server}\")\npermit (principal == User::\"alice\", action, \
             resource in Server::\"{server}\");",
        );
    }
    text
}

/// A name that does not look private but resolves to this machine (case O07).
pub(crate) fn private_name() -> String {
    let own = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let private = |name: &String| {
        let found = (name.as_str(), 443).to_socket_addrs();
        found.is_ok_and(|mut found| found.all(|address| is_private(address.ip())))
    };
    let mut names = [own, "ip6-localhost".to_owned(), "ip6-loopback".to_owned()].into_iter();
    names.find(private).expect("a name for this machine other than localhost in /etc/hosts")
}

fn is_private(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_private(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local(),
    }
}
