//! The real gateway in front of an upstream, with keys and policies of its own in a fresh folder.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use rustix::process::Signal;

use crate::install::Tools;
use crate::pdp::Point;
use crate::process::{Running, finish};

/// A running gateway with one server, `everything`, or several.
pub(crate) struct Gateway {
    running: Running,
    folder: PathBuf,
    key: PathBuf,
    /// Where it listens, on 127.0.0.1.
    pub(crate) port: u16,
}

/// What differs between the gateways of the tests.
pub(crate) struct Setup<'a> {
    /// Names the folder and the log.
    pub(crate) name: &'a str,
    /// The upstream's whole URL.
    pub(crate) upstream: String,
    /// An issuer whose keys are discovered; `None`: our own, with a file of keys.
    pub(crate) issuer: Option<&'a str>,
    /// Cedar text.
    pub(crate) policies: &'a str,
    /// The decision point that decides instead.
    pub(crate) decides: Option<&'a Point>,
    /// Of `everything` on `/mcp`; `None`: its name.
    pub(crate) prefix: Option<&'a str>,
    /// More servers on loopback: name and port.
    pub(crate) beside: &'a [(&'a str, u16)],
}

/// Everybody may do everything: the gateway must change nothing.
pub(crate) const PERMIT_ALL: &str = r#"@id("all") permit (principal, action, resource);"#;

/// What the gateway shows a decision point.
pub(crate) const PDP_TOKEN: &str = "t0ken-of-the-decision-point";

/// The person whom minted tokens name.
pub(crate) const USER: &str = "dana@example.com";

/// The folder of a gateway that is not started.
pub(crate) struct Prepared {
    pub(crate) folder: PathBuf,
    key: PathBuf,
    port: u16,
}

impl Setup<'_> {
    /// Writes `gateway.toml` and all that it names.
    pub(crate) fn prepare(&self, tools: &Tools) -> Prepared {
        let folder = tools.runs.join(format!("gateway-{}", self.name));
        fs::create_dir_all(folder.join("policies")).unwrap();
        fs::write(folder.join("policies/interop.cedar"), self.policies).unwrap();
        fs::write(folder.join("pdp.token"), PDP_TOKEN).unwrap();
        let key = make_keys(&folder.join("keys"));
        let port = free_port();
        fs::write(folder.join("gateway.toml"), configuration(self, port)).unwrap();
        Prepared { folder, key, port }
    }
}

impl Gateway {
    /// Writes the configuration and starts the gateway.
    pub(crate) fn start(tools: &Tools, setup: &Setup<'_>) -> Gateway {
        let Prepared { folder, key, port } = setup.prepare(tools);
        let config = folder.join("gateway.toml");
        let mut command = Command::new(BINARY);
        command.args(["gateway", "--config"]).arg(&config);
        let mut running = Running::start_on_stderr("gateway", &folder, &mut command);
        let listening = running.wait_for("listening on ");
        assert!(listening.starts_with(&format!("http://127.0.0.1:{port} ")), "{listening}");
        Gateway { running, folder, key, port }
    }

    /// The one server's URL behind this gateway, which is its audience too.
    pub(crate) fn url(&self) -> String {
        self.url_of("/mcp/everything")
    }

    /// The URL of a path behind this gateway.
    pub(crate) fn url_of(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// All servers' one URL, whose tokens every server's own accepts as well.
    pub(crate) fn hub_url(&self) -> String {
        self.url_of("/mcp")
    }

    /// A token for `user`, signed with this gateway's file of keys.
    pub(crate) fn token(&self, user: &str) -> String {
        self.token_of(user, "interop-agent", &self.url())
    }

    /// The same with another agent and another audience.
    pub(crate) fn token_of(&self, user: &str, agent: &str, audience: &str) -> String {
        let key = self.key.to_str().unwrap();
        let email = format!("email={user:?}");
        let agent = format!("client_id={agent:?}");
        mint(&[
            ["--key", key],
            ["--issuer", ISSUER],
            ["--audience", audience],
            ["--subject", user],
            ["--claim", &email],
            ["--claim", &agent],
            ["--expires", "3600"],
        ])
    }

    /// Writes other policies and has them read (SIGHUP), which takes a moment.
    pub(crate) fn change(&self, policies: &str) {
        fs::write(self.folder.join("policies/interop.cedar"), policies).unwrap();
        self.running.signal(Signal::HUP);
    }

    /// Ends it in an orderly way and returns the audit records.
    pub(crate) fn stop(mut self) -> (ExitStatus, Vec<serde_json::Value>) {
        let status = self.running.terminate();
        let lines = fs::read_to_string(self.folder.join("audit.jsonl")).unwrap();
        let records = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        (status, records)
    }
}

fn configuration(setup: &Setup<'_>, port: u16) -> String {
    let issuer = setup.issuer.unwrap_or(ISSUER);
    let keys = match setup.issuer {
        Some(_) => "trust_private_addresses = true",
        None => "jwks_file = \"keys/jwks.json\"",
    };
    let upstream = &setup.upstream;
    let prefix = setup.prefix.map_or(String::new(), |prefix| format!("prefix = {prefix:?}"));
    let beside = setup.beside.iter().map(|(name, port)| {
        format!(
            "[[server]]\nname = \"{name}\"\nurl = \"http://127.0.0.1:{port}/mcp\"\n\
             trust_private_addresses = true\n"
        )
    });
    let beside = beside.collect::<String>();
    let policy = setup.decides.map_or("[policy]\ndirectory = \"policies\"".to_owned(), |point| {
        let (port, paper) = (point.port, point.paper.display());
        format!(
            "[policy.authzen]\nurl = \"https://127.0.0.1:{port}\"\nbearer = \"file:pdp.token\"\n\
             ca_file = \"{paper}/ca.pem\"\ncertificate = \"{paper}/own.pem\"\n\
             private_key = \"file:{paper}/own.key\"\ntrust_private_addresses = true"
        )
    });
    format!(
        r#"
public_url = "http://127.0.0.1:{port}"
[listen]
address = "127.0.0.1:{port}"
[admin]
address = "127.0.0.1:0"
[audit]
path = "audit.jsonl"
{policy}
[[trust_provider]]
name = "interop"
issuer = "{issuer}"
{keys}
algorithms = ["ES256"]
[[server]]
name = "everything"
url = "{upstream}"
trust_private_addresses = true
{prefix}
{beside}"#
    )
}

fn mint(arguments: &[[&str; 2]]) -> String {
    let mut command = Command::new(BINARY);
    command.args(["token", "mint"]).args(arguments.as_flattened());
    let minted = finish("token mint", MINT_LIMIT, &mut command);
    assert!(minted.status.success(), "token mint: {}", minted.stderr);
    minted.stdout.trim().to_owned()
}

/// Makes a key and its `jwks.json` in `folder`; returns the key.
fn make_keys(folder: &Path) -> PathBuf {
    fs::create_dir_all(folder).unwrap();
    mint(&[["--init", folder.to_str().unwrap()]]);
    let mut files: Vec<_> =
        fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    files.retain(|path| path.file_name().is_some_and(|name| name != "jwks.json"));
    assert_eq!(files.len(), 1, "one key: {files:?}");
    files.remove(0)
}

/// A port that was free a moment ago: the audience must be known before the gateway starts.
fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_portcullis");
const ISSUER: &str = "https://issuer.interop.test";
const MINT_LIMIT: Duration = Duration::from_secs(30);
