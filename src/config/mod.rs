//! Configuration: what was written (`raw`), what it means ([`Config`]), and everything wrong with
//! it at once (`fault`). Holding a [`Config`] is the proof that it was checked; only `check` makes
//! one.

mod certified;
mod check;
mod fault;
mod federation;
mod quota;
mod raw;
mod reader;
pub mod source;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_broken;
mod url;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use crate::address::Network;
use crate::limits::Limits;

pub use self::certified::{Certified, CertifiedFault, certificates};
pub use self::fault::{Fault, Faults};
pub use self::federation::Federation;
pub use self::quota::{Per, RateLimit};
pub use self::source::{Environment, ProcessEnvironment, SecretFault};

/// A checked configuration. Immutable; a reload makes a new one.
#[expect(
    clippy::manual_non_exhaustive,
    reason = "other modules of this crate may not make one either"
)]
pub struct Config {
    /// Canonical origin, `scheme://authority`, lower case, without a trailing slash and without a
    /// default port: the audience and the root of all metadata, never taken from `Host`.
    pub public_url: String,
    /// Where agents connect.
    pub listen: Listen,
    /// Which cores serve, and how.
    pub cores: Cores,
    /// Whose tokens count; at least one.
    pub trust_providers: Vec<TrustProvider>,
    /// MCP servers behind the gateway; at least one. The index is the server's id within this
    /// process.
    pub servers: Vec<Server>,
    /// How upstream credentials are obtained.
    pub credentials: Vec<Credential>,
    /// Access policy.
    pub policy: Policy,
    /// Sealed sessions.
    pub sessions: Sessions,
    /// Audit records.
    pub audit: Audit,
    /// Health and metrics.
    pub admin: Admin,
    /// Extension methods that may be forwarded when a policy permits them.
    pub methods: Vec<ExtensionMethod>,
    /// How many requests who may make; at most [`crate::limits::RATE_LIMITS_MAX`].
    pub rate_limits: Vec<RateLimit>,
    /// All servers at one URL.
    pub federation: Federation,
    /// Bounds that an operator may change.
    pub limits: Limits,
    /// What is allowed but worth a second look; same form as faults.
    pub warnings: Vec<Fault>,
    /// The file this came from: reload reads it again.
    pub path: PathBuf,
    /// Only this module can make one, so a `Config` is always a checked one.
    pub(in crate::config) _checked: (),
}

impl Config {
    /// Reads and checks the file at `path`: everything that can be known before a port is bound,
    /// the files and secrets it names included.
    ///
    /// # Errors
    /// Everything that is wrong, in the order of the text.
    pub fn load(path: &Path) -> Result<Self, Faults> {
        check::load(path, &ProcessEnvironment)
    }

    /// Checks `text` as if it were the content of `path`; relative paths start at its folder.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn parse(text: &str, path: &Path, environment: &dyn Environment) -> Result<Self, Faults> {
        check::parse(text, path, environment)
    }

    /// Tells the address that the listener got. Where `public_url` was left out and the port was 0,
    /// the real port becomes part of it; otherwise nothing changes. To be called before anything is
    /// derived from `public_url`.
    pub fn bound(&mut self, address: SocketAddr) {
        let chosen =
            matches!(&self.listen.address, ListenAddress::Socket(asked) if asked.port() == 0);
        if !(chosen && self.public_url.ends_with(":0")) {
            return;
        }
        let port = address.port();
        let with_port = |text: &str| text.strip_suffix(":0").map(|start| format!("{start}:{port}"));
        if let Some(url) = with_port(&self.public_url) {
            self.public_url = url;
        }
        if let Some(first) = self.listen.hosts.first_mut()
            && let Some(host) = with_port(first)
        {
            *first = host;
        }
    }
}

/// `[listen]`
pub struct Listen {
    /// Where to accept.
    pub address: ListenAddress,
    /// Lower-case `host[:port]` values accepted in `Host`: `public_url`, the configured ones, and
    /// on loopback listeners `localhost`, `127.0.0.1` and `[::1]` with any port.
    pub hosts: Vec<String>,
    /// True when every listener address is loopback.
    pub loopback: bool,
    /// Accepted `Origin` values besides our own, byte for byte.
    pub origins: Vec<String>,
    /// Who says where a client is.
    pub proxy: Proxy,
    /// Whom `proxy` may be believed; empty with [`Proxy::None`], else not, and at most
    /// [`crate::limits::TRUSTED_PROXIES_MAX`].
    pub trusted_proxies: Vec<Network>,
    /// TLS; may be absent on loopback only.
    pub tls: Option<ListenTls>,
}

impl Listen {
    /// True for the address of a proxy that says, in the way of `proxy`, whom it speaks for.
    #[must_use]
    pub fn trusts(&self, address: IpAddr) -> bool {
        self.trusted_proxies.iter().any(|network| network.contains(address))
    }
}

/// `[listen] proxy`: who says where a client is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Proxy {
    /// Nobody: it is where its connection comes from.
    None,
    /// A trusted proxy, before anything else on the connection: the PROXY protocol, version 2.
    V2,
    /// A trusted proxy, in each request: the `Forwarded` field (RFC 7239).
    Forwarded,
}

/// Where to accept connections.
#[derive(PartialEq, Eq)]
pub enum ListenAddress {
    /// An address and port; port 0 lets the kernel choose.
    Socket(SocketAddr),
    /// A socket passed by systemd under this name (`LISTEN_FDNAMES`).
    Passed(String),
}

/// `[listen.tls]`
pub struct ListenTls {
    /// PEM file with the chain, leaf first.
    pub certificate: PathBuf,
    /// PEM private key.
    pub private_key: SecretSource,
}

/// Where a secret is read from, again at every use of the source; never inline.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum SecretSource {
    /// `credential:NAME`: a file in `$CREDENTIALS_DIRECTORY` (systemd).
    Credential(String),
    /// `file:PATH`.
    File(PathBuf),
    /// `env:NAME`; loopback listeners only.
    Env(String),
}

/// `[cores]`
#[derive(PartialEq, Eq)]
pub struct Cores {
    /// CPU ids to use, ascending; `None` = the allowed mask.
    pub cpus: Option<Vec<usize>>,
    /// Which event loop.
    pub driver: Driver,
}

/// `[cores] driver`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// io_uring, else epoll with a plain message.
    Auto,
    /// io_uring or refuse to start.
    IoUring,
    /// epoll.
    Epoll,
}

/// Signature algorithms we accept (RFC 7518 §3.1, RFC 8037 §3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// ECDSA P-256 with SHA-256.
    Es256,
    /// Ed25519.
    EdDsa,
    /// RSASSA-PSS with SHA-256.
    Ps256,
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
}

/// `[[trust_provider]]`
#[derive(PartialEq, Eq)]
pub struct TrustProvider {
    /// Name in logs and metrics.
    pub name: String,
    /// `iss`, byte for byte.
    pub issuer: String,
    /// Where its keys are.
    pub keys: KeySource,
    /// Accepted algorithms; not empty.
    pub algorithms: Vec<Algorithm>,
    /// Prefix of user, group and agent ids; empty for one provider at most.
    pub namespace: String,
    /// `None` = any `typ` (`token_type = "any"`), else the required one, without `application/`.
    pub token_type: Option<String>,
    /// 0–60.
    pub leeway_seconds: u64,
    /// Accepted audiences besides the gateway's own URLs.
    pub audiences: Vec<String>,
    /// Keys may be fetched from private addresses.
    pub trust_private_addresses: bool,
    /// PEM roots for fetching keys; `None` = webpki roots.
    pub ca_file: Option<PathBuf>,
    /// Claim that names the user.
    pub user_claim: String,
    /// Claim that lists the groups.
    pub groups_claim: String,
    /// Claim that names the agent (`client_id`; `azp` is the fallback of the default).
    pub agent_claim: String,
    /// Claim rules; all must hold.
    pub require: Vec<ClaimRule>,
    /// When a token has no human subject; `None` = never.
    pub workload: Vec<ClaimRule>,
}

/// Where keys come from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum KeySource {
    /// `<issuer>/.well-known/openid-configuration` or RFC 8414 metadata.
    Discovery,
    /// A key set document.
    Url(String),
    /// A local file, watched.
    File(PathBuf),
}

/// `[[trust_provider.require]]` and `[[trust_provider.workload]]`
#[derive(PartialEq, Eq)]
pub struct ClaimRule {
    /// Top-level claim.
    pub claim: String,
    /// What must hold.
    pub test: ClaimTest,
}

/// What a claim rule demands; an absent or mistyped claim never satisfies it.
#[derive(PartialEq, Eq)]
pub enum ClaimTest {
    /// The string (or one element of the string array) equals one of these.
    OneOf(Vec<String>),
    /// Equal to another string claim (`sub == client_id`).
    EqualsClaim(String),
}

/// `[[server]]`
pub struct Server {
    /// `[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?`
    pub name: String,
    /// Where it is.
    pub url: UpstreamUrl,
    /// Index into `Config::credentials` of its default credential.
    pub credential: Option<usize>,
    /// Of its tools and prompts on `/mcp`; empty for the only server.
    pub prefix: String,
    /// Seconds to the response head.
    pub timeout_seconds: u64,
    /// Seconds between upstream bytes.
    pub idle_seconds: u64,
    /// Seconds of one answer.
    pub max_seconds: u64,
    /// Public results may be shared between users.
    pub share_public_results: bool,
    /// It may live on loopback or a private network.
    pub trust_private_addresses: bool,
    /// PEM roots; `None` = webpki roots.
    pub ca_file: Option<PathBuf>,
}

/// A checked `http` or `https` URL without userinfo and fragment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UpstreamUrl {
    /// True for `https`.
    pub tls: bool,
    /// Host as for SNI and DNS: lower case, IPv6 without brackets.
    pub host: String,
    /// `Some` when the host is an address literal.
    pub literal: Option<IpAddr>,
    /// Port, the scheme's default filled in.
    pub port: u16,
    /// `Host` header: brackets kept, default port left out.
    pub authority: String,
    /// Origin form: path with query, at least `/`.
    pub target: String,
}

/// `[[credential]]`
pub struct Credential {
    /// Its name; `@credential("name")` in policies.
    pub name: String,
    /// Indexes of the servers it may be sent to; never empty.
    pub servers: Vec<usize>,
    /// How it is obtained.
    pub kind: CredentialKind,
}

/// `[[credential]] kind`; kinds that are not built yet are configuration faults.
pub enum CredentialKind {
    /// Nothing is sent.
    None,
    /// A static key.
    ApiKey(ApiKey),
}

impl CredentialKind {
    /// The word that the configuration and the audit record have for it.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::None => "none",
            Self::ApiKey(_) => "api_key",
        }
    }
}

/// `kind = "api_key"`
pub struct ApiKey {
    /// Where it goes.
    pub place: ApiKeyPlace,
    /// Where it comes from.
    pub secret: SecretSource,
}

/// Where an API key is written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ApiKeyPlace {
    /// A header (lower-case name), with an optional scheme before the key.
    Header {
        /// Field name.
        name: String,
        /// For example `Bearer`.
        scheme: Option<String>,
    },
    /// A query parameter, percent-encoded.
    Query(String),
}

/// `[policy]`
pub struct Policy {
    /// Directory of `*.cedar`; empty, and nothing is read, where `authzen` decides instead.
    pub directory: PathBuf,
    /// IANA zone for `context.local`.
    pub timezone: String,
    /// Database for `context.source.country`.
    pub geoip: Option<PathBuf>,
    /// Whether changed policy files are read without being told to.
    pub watch: bool,
    /// Who decides instead of the files of `directory`.
    pub authzen: Option<AuthZen>,
}

/// `[policy.authzen]`: a remote decision point (OpenID AuthZEN 1.0).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AuthZen {
    /// Its origin.
    pub url: UpstreamUrl,
    /// For everything about one request of us.
    pub timeout_ms: u64,
    /// Requests of one core that may wait for it.
    pub in_flight_per_core_max: usize,
    /// For how long a permit of it is kept; 0 = never.
    pub permit_ttl_seconds: u64,
    /// PEM roots; `None` = webpki roots.
    pub ca_file: Option<PathBuf>,
    /// Shown to it when it asks who we are.
    pub client: Option<ClientCertificate>,
    /// Sent as a bearer token.
    pub bearer: Option<SecretSource>,
    /// It may live on loopback or a private network.
    pub trust_private_addresses: bool,
}

/// A chain that we show as a client of TLS, and where its key is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClientCertificate {
    /// PEM chain, leaf first.
    pub certificate: PathBuf,
    /// PEM key.
    pub private_key: SecretSource,
}

/// `[sessions]`
pub struct Sessions {
    /// 32 bytes, base64; `None` = random for this process.
    pub key: Option<SecretSource>,
    /// The key before the current one.
    pub previous_key: Option<SecretSource>,
    /// Absolute lifetime.
    pub lifetime_seconds: u64,
}

/// `[audit]`
#[derive(PartialEq, Eq)]
pub struct Audit {
    /// Where records go.
    pub sink: AuditSink,
    /// Directory of the ring files.
    pub ring_directory: PathBuf,
    /// What happens when a decision cannot be kept.
    pub mode: AuditMode,
    /// fdatasync after each batch.
    pub fsync: bool,
}

/// `[audit] path`
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AuditSink {
    /// Appended to.
    File(PathBuf),
    /// `"stdout"`.
    Stdout,
}

/// `[audit] mode`
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AuditMode {
    /// Refuse the request (503).
    Strict,
    /// Drop, count, and write a gap marker later.
    Availability,
}

/// `[admin]`
#[derive(PartialEq, Eq)]
pub struct Admin {
    /// Loopback address of `/metrics`, `/livez`, `/readyz`, `/status`.
    pub address: SocketAddr,
}

/// `[[method]]`
pub struct ExtensionMethod {
    /// Exact method name.
    pub name: String,
    /// What it is judged on; `server` is the one value built.
    pub resource: ExtensionResource,
}

/// `[[method]] resource`
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ExtensionResource {
    /// The server as a whole.
    Server,
}
