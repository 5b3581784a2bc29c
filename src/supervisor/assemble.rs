//! From a checked configuration to what workers use: policies, certificates, keys for sealing. All
//! of it or nothing, at start and at reload alike.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

use super::watch::steady;
use crate::address::{Terms, permitted};
use crate::config::{
    Certified, CertifiedFault, ClientCertificate, Config, ListenTls, SecretSource, Server,
};
use crate::control::authzen::{DecisionPoint, Endpoints};
use crate::control::jwks::ProviderKeys;
use crate::control::{Snapshot, Upstream};
use crate::geo::GeoDb;
use crate::judge::policy::{CredentialScope, PolicySet, Setting};
use crate::mcp::seal::Keyring;
use crate::net::tls::{ClientTls, ServerTls, Ticketer};

/// Everything that is made from one configuration.
pub(super) struct Assembly {
    pub(super) policy: Arc<PolicySet>,
    /// Of `policy.geoip`, whether or not a policy asks for countries.
    pub(super) countries: Option<Arc<GeoDb>>,
    /// Who decides instead of `policy`, as far as known without asking anybody.
    pub(super) pdp: Option<Arc<DecisionPoint>>,
    pub(super) keyring: Arc<Keyring>,
    pub(super) tls: Option<Arc<ServerTls>>,
    /// One per server; `None` for plain HTTP.
    pub(super) client_tls: Vec<Option<Arc<ClientTls>>>,
}

impl Assembly {
    /// Reads everything that the configuration names, beside what came of its policies.
    ///
    /// # Errors
    /// Every fault, also of `policies`, each with its file.
    pub(super) fn make(
        config: &Config,
        policies: Result<Arc<PolicySet>, Vec<String>>,
        ticketer: &Ticketer,
    ) -> Result<Self, Vec<String>> {
        let (policy, mut faults) = match policies {
            Ok(policy) => (Some(policy), Vec::new()),
            Err(faults) => (None, faults),
        };
        let countries = note(countries(config), &mut faults).flatten();
        let pdp = note(decision_point(config), &mut faults).flatten();
        let keyring = note(keyring(config), &mut faults);
        let tls = match &config.listen.tls {
            None => None,
            Some(tls) => note(server_tls(tls, ticketer), &mut faults).map(Arc::new),
        };
        let client_tls: Vec<_> = config
            .servers
            .iter()
            .map(|server| note(client_tls(server), &mut faults).flatten())
            .collect();
        match (policy, keyring) {
            (Some(policy), Some(keyring)) if faults.is_empty() => {
                let keyring = Arc::new(keyring);
                Ok(Self { policy, countries, pdp, keyring, tls, client_tls })
            }
            _ => Err(faults),
        }
    }

    /// Once the real address is known: what is sealed is sealed for the public URL.
    pub(super) fn bound(&mut self, config: &Config) -> Result<(), Vec<String>> {
        self.keyring = Arc::new(keyring(config).map_err(|fault| vec![fault])?);
        Ok(())
    }

    /// What loads and may not be meant.
    pub(super) fn warnings(&self, config: &Config) -> Vec<String> {
        let policies = self.policy.warnings().iter().map(ToString::to_string);
        let blind = self.countries.as_ref().is_some_and(|countries| !countries.holds_ipv6());
        let geoip = config.policy.geoip.as_ref().filter(|_| blind).map(|path| {
            format!(
                "[policy] geoip: {} is of IPv4 alone: no IPv6 client has a country, so a forbid \
                 that names countries lets them pass; take one with IPv6, or forbid whoever has \
                 no country",
                path.display()
            )
        });
        policies.chain(geoip).collect()
    }

    /// What the workers look countries up in: nothing, when nobody who decides asks for one.
    pub(super) fn geo(&self) -> Option<Arc<GeoDb>> {
        let asks = self.pdp.is_some() || self.policy.reads_country();
        self.countries.clone().filter(|_| asks)
    }

    /// The first snapshot: no keys and no addresses yet, so everything is refused until they come.
    pub(super) fn snapshot(&self, config: &Arc<Config>) -> Snapshot {
        Snapshot {
            generation: 1,
            config: Arc::clone(config),
            config_generation: 1,
            keys: config.trust_providers.iter().map(|_| ProviderKeys::none()).collect(),
            policy: Arc::clone(&self.policy),
            geo: self.geo(),
            pdp: self.pdp.clone(),
            upstreams: self.upstreams(config),
            keyring: Arc::clone(&self.keyring),
            tls: self.tls.clone(),
            draining: false,
        }
    }

    /// Servers as far as they are known without asking anybody: a literal address is there from the
    /// first request on, a name has none yet.
    pub(super) fn upstreams(&self, config: &Config) -> Vec<Upstream> {
        let upstream = |(server, tls): (&Server, &Option<Arc<ClientTls>>)| {
            let literal = server.url.literal.map(|address| (address, server.url.port).into());
            let trust_private = server.trust_private_addresses;
            let terms = Terms { trust_private, tls: server.url.tls };
            let addresses = permitted(literal.as_slice(), terms);
            Upstream {
                refused: literal.is_some() && addresses.is_empty(),
                addresses: Arc::from(addresses),
                tls: tls.clone(),
            }
        };
        config.servers.iter().zip(&self.client_tls).map(upstream).collect()
    }
}

/// How a set of policies is made.
pub(super) struct Making<'a> {
    /// Its number.
    pub(super) epoch: u64,
    /// What is there word for word is taken over from here.
    pub(super) before: Option<&'a PolicySet>,
    /// Called far more often than every millisecond.
    pub(super) pause: &'a mut dyn FnMut(),
}

/// Reads and compiles the policies.
///
/// # Errors
/// Every fault, each with its file and place.
pub(super) fn policies(config: &Config, making: Making<'_>) -> Result<Arc<PolicySet>, Vec<String>> {
    let servers: Vec<&str> = config.servers.iter().map(|server| server.name.as_str()).collect();
    let methods: Vec<&str> = config.methods.iter().map(|method| method.name.as_str()).collect();
    let index = |server: &usize| u16::try_from(*server).ok();
    let scopes: Vec<(&str, Vec<u16>)> = config
        .credentials
        .iter()
        .map(|known| (known.name.as_str(), known.servers.iter().filter_map(index).collect()))
        .collect();
    let credentials: Vec<CredentialScope<'_>> =
        scopes.iter().map(|(name, servers)| CredentialScope { name, servers }).collect();
    let Making { epoch, before, pause } = making;
    let setting = Setting {
        epoch,
        servers: &servers,
        credentials: &credentials,
        methods: &methods,
        timezone: &config.policy.timezone,
        geoip: config.policy.geoip.is_some(),
    };
    let directory = &config.policy.directory;
    let made = if config.policy.authzen.is_some() {
        // It numbers epochs and knows which credential fits which server; it permits nothing.
        PolicySet::compile(&[], directory, &setting)
    } else {
        let Some(read) = steady(directory, || PolicySet::read(directory)) else {
            let path = directory.display();
            return Err(vec![format!("{path}: the policy directory keeps changing")]);
        };
        read.and_then(|sources| {
            PolicySet::compile_after(before, sources, directory, &setting, pause)
        })
    };
    made.map(Arc::new).map_err(|found| found.iter().map(ToString::to_string).collect())
}

fn decision_point(config: &Config) -> Result<Option<Arc<DecisionPoint>>, String> {
    let Some(authzen) = &config.policy.authzen else { return Ok(None) };
    let named = |fault: String| format!("[policy.authzen] {fault}");
    let bearer = authzen.bearer.as_ref().map(SecretSource::read_for_header).transpose();
    let bearer = bearer.map_err(|fault| named(format!("bearer: {fault}")))?;
    let own = authzen.client.as_ref().map(client_certificate).transpose().map_err(named)?;
    let trust = authzen.ca_file.as_deref();
    let tls = authzen.url.tls.then(|| ClientTls::showing(trust, own.as_ref())).transpose();
    let url = &authzen.url;
    let literal = url.literal.map(|address| (address, url.port).into());
    let terms = Terms { trust_private: authzen.trust_private_addresses, tls: url.tls };
    let addresses = permitted(literal.as_slice(), terms);
    Ok(Some(Arc::new(DecisionPoint {
        url: url.clone(),
        upstream: Upstream {
            refused: literal.is_some() && addresses.is_empty(),
            addresses: Arc::from(addresses),
            tls: tls.map_err(named)?.map(Arc::new),
        },
        endpoints: Endpoints::Unknown,
        bearer: bearer.map(Arc::new),
        timeout: Duration::from_millis(authzen.timeout_ms),
        in_flight_max: authzen.in_flight_per_core_max,
        permit_ttl: Duration::from_secs(authzen.permit_ttl_seconds),
    })))
}

/// Read once here, for questions and for what the decision point says of itself.
fn client_certificate(files: &ClientCertificate) -> Result<Certified, String> {
    let key = files.private_key.read().map_err(|fault| format!("private_key: {fault}"))?;
    Certified::load(&files.certificate, &key).map_err(CertifiedFault::into_words)
}

fn countries(config: &Config) -> Result<Option<Arc<GeoDb>>, String> {
    let Some(path) = &config.policy.geoip else { return Ok(None) };
    let loaded = GeoDb::load(path).map(|database| Some(Arc::new(database)));
    loaded.map_err(|fault| format!("[policy] geoip: {} {fault}", path.display()))
}

fn keyring(config: &Config) -> Result<Keyring, String> {
    let mut current = Zeroizing::new([0; 32]);
    match &config.sessions.key {
        Some(source) => read_key(source, "key", &mut current)?,
        None => SystemRandom::new()
            .fill(current.as_mut())
            .map_err(|_| "[sessions] key: no random bytes to be had".to_owned())?,
    }
    let mut previous = Zeroizing::new([0; 32]);
    let has_previous = match &config.sessions.previous_key {
        Some(source) => read_key(source, "previous_key", &mut previous).map(|()| true)?,
        None => false,
    };
    Keyring::new(&config.public_url, &current, has_previous.then_some(&*previous))
        .map_err(|_| "[sessions] key: cannot be used".to_owned())
}

fn read_key(source: &SecretSource, key: &str, out: &mut [u8; 32]) -> Result<(), String> {
    let secret = source.read().map_err(|fault| format!("[sessions] {key}: {fault}"))?;
    let bytes = Zeroizing::new(STANDARD.decode(secret.expose()).map_err(|_| {
        format!("[sessions] {key}: not base64; make one with `openssl rand -base64 32`")
    })?);
    let bytes: &[u8; 32] = bytes.as_slice().try_into().map_err(|_| {
        format!("[sessions] {key}: must be 32 bytes; make one with `openssl rand -base64 32`")
    })?;
    out.copy_from_slice(bytes);
    Ok(())
}

fn server_tls(tls: &ListenTls, ticketer: &Ticketer) -> Result<ServerTls, String> {
    let key =
        tls.private_key.read().map_err(|fault| format!("[listen.tls] private_key: {fault}"))?;
    ServerTls::load(&tls.certificate, &key, ticketer)
        .map_err(|fault| format!("[listen.tls] {fault}"))
}

fn client_tls(server: &Server) -> Result<Option<Arc<ClientTls>>, String> {
    if !server.url.tls {
        return Ok(None);
    }
    let made = ClientTls::new(server.ca_file.as_deref());
    made.map(|tls| Some(Arc::new(tls))).map_err(|fault| format!("server {}: {fault}", server.name))
}

fn note<T>(made: Result<T, String>, faults: &mut Vec<String>) -> Option<T> {
    made.map_err(|fault| faults.push(fault)).ok()
}
