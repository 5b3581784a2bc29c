//! What the control thread knows, and how a reload changes it.

use std::sync::Arc;

use super::assemble::Assembly;
use crate::config::{AuthZen, Config};
use crate::control::jwks::ProviderKeys;
use crate::control::{Snapshot, Upstream};

/// What the next snapshot is made of.
pub(super) struct State {
    pub(super) config: Arc<Config>,
    pub(super) config_generation: u64,
    pub(super) keys: Vec<ProviderKeys>,
    /// Providers whose keys a worker asked for.
    pub(super) wanted_keys: Vec<bool>,
    pub(super) upstreams: Vec<Upstream>,
    /// Servers whose addresses a worker asked for.
    pub(super) wanted_addresses: Vec<bool>,
    pub(super) assembly: Assembly,
    pub(super) generation: u64,
    pub(super) draining: bool,
    /// Snapshots that workers may still use; freed here when they are the last copy.
    pub(super) old: Vec<Arc<Snapshot>>,
}

impl State {
    pub(super) fn adopt(&mut self, config: Config, mut assembly: Assembly) {
        let unnamed = config.sessions.key.is_none() && self.config.sessions.key.is_none();
        if unnamed && config.public_url == self.config.public_url {
            // The random key of this process: a new one would end every legacy session.
            assembly.keyring = Arc::clone(&self.assembly.keyring);
        }
        let same = |old: &crate::config::TrustProvider, new: &crate::config::TrustProvider| {
            old.issuer == new.issuer
                && old.keys == new.keys
                && old.ca_file == new.ca_file
                && old.trust_private_addresses == new.trust_private_addresses
        };
        // Keys that would be fetched from the same place, and believed for the same reason, keep
        // serving, so that a reload costs no 503.
        self.keys = config
            .trust_providers
            .iter()
            .map(|new| {
                let old = self.config.trust_providers.iter().position(|old| same(old, new));
                old.and_then(|at| self.keys.get(at).cloned()).unwrap_or_else(ProviderKeys::none)
            })
            .collect();
        let mut upstreams = assembly.upstreams(&config);
        for (new, upstream) in config.servers.iter().zip(&mut upstreams) {
            let old = self.config.servers.iter().position(|old| {
                old.url == new.url && old.trust_private_addresses == new.trust_private_addresses
            });
            if let Some(known) = old.and_then(|at| self.upstreams.get(at)) {
                upstream.addresses = Arc::clone(&known.addresses);
                upstream.refused = known.refused;
            }
        }
        let same = |old: &AuthZen, new: &AuthZen| {
            old.url == new.url
                && old.ca_file == new.ca_file
                && old.trust_private_addresses == new.trust_private_addresses
        };
        if let (Some(old), Some(new)) = (&self.config.policy.authzen, &config.policy.authzen)
            && same(old, new)
            && let (Some(new), Some(old)) = (&mut assembly.pdp, &self.assembly.pdp)
        {
            // What the same point said of itself goes on, so that a reload costs no 503, whatever
            // we show it from now on.
            let new = Arc::make_mut(new);
            new.endpoints = old.endpoints.clone();
            new.upstream.addresses = Arc::clone(&old.upstream.addresses);
            new.upstream.refused = old.upstream.refused;
        }
        self.upstreams = upstreams;
        self.wanted_keys = vec![false; config.trust_providers.len()];
        self.wanted_addresses = vec![false; config.servers.len()];
        self.config = Arc::new(config);
        self.config_generation += 1;
        self.assembly = assembly;
    }
}

/// A configuration that would need other sockets is refused whole: half of it in force, say plain
/// HTTP for a loopback address on a listener that is still public, would be a hole.
pub(super) fn same_sockets(old: &Config, new: &Config) -> Result<(), Vec<String>> {
    if !needs_restart(old, new) {
        return Ok(());
    }
    let path = new.path.display();
    Err(vec![format!(
        "{path}: [listen] address, tls, proxy and trusted_proxies, [cores], [audit], [admin] \
         and [limits] upstream_idle_per_core_max change only with a restart"
    )])
}

fn needs_restart(old: &Config, new: &Config) -> bool {
    old.listen.address != new.listen.address
        || old.listen.tls.is_some() != new.listen.tls.is_some()
        || old.listen.proxy != new.listen.proxy
        || old.listen.trusted_proxies != new.listen.trusted_proxies
        || old.cores != new.cores
        || old.audit != new.audit
        || old.admin != new.admin
        || old.limits.upstream_idle_per_core_max != new.limits.upstream_idle_per_core_max
}
