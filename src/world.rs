//! What a core makes of a snapshot: servers by name, and TLS sessions of its own.

use std::sync::Arc;

use crate::control::authzen::DecisionPoint;
use crate::control::{Snapshot, Upstream};
use crate::http::host;
use crate::mcp::names::Prefixes;
use crate::mcp::seal::Keyring;
use crate::mcp::{Known, Plan};
use crate::net::tls::ClientTls;

/// One snapshot as this core uses it. A request keeps the one it began with.
pub struct World {
    /// What the control thread published.
    pub snapshot: Arc<Snapshot>,
    /// Seals and opens session ids.
    pub keyring: Arc<Keyring>,
    /// The servers of the snapshot, with TLS sessions that only this core remembers.
    pub upstreams: Box<[Upstream]>,
    /// What servers' names begin with on `/mcp`.
    pub prefixes: Prefixes,
    servers: hashbrown::HashMap<Box<str>, u16>,
    /// Listed hosts, as written, that were judged once: an equal `Host` needs no parsing.
    hosts: Box<[Box<[u8]>]>,
}

impl World {
    pub(crate) fn new(snapshot: Arc<Snapshot>, before: Option<&Self>) -> Self {
        let before = before.map_or((&[][..], &[][..]), |world| {
            (world.snapshot.upstreams.as_slice(), &*world.upstreams)
        });
        let upstreams = of_this_core(&snapshot.upstreams, before.0, before.1);
        let servers = (0_u16..)
            .zip(&snapshot.config.servers)
            .map(|(index, server)| (server.name.clone().into_boxed_str(), index))
            .collect();
        let listen = &snapshot.config.listen;
        let spelled = listen.hosts.iter().map(|host| host.as_bytes());
        let hosts = spelled
            .filter(|host| host::host_allowed(host, &listen.hosts, listen.loopback))
            .map(Box::from)
            .collect();
        let prefixes = snapshot.config.servers.iter().map(|server| server.prefix.as_str());
        let prefixes = Prefixes::new((0_u16..).zip(prefixes));
        Self {
            keyring: Arc::clone(&snapshot.keyring),
            upstreams,
            prefixes,
            servers,
            hosts,
            snapshot,
        }
    }

    /// True for a `Host` that is spelled as an accepted one is listed; any other has to be judged.
    #[must_use]
    pub fn knows_host(&self, spelled: &[u8]) -> bool {
        self.hosts.iter().any(|host| **host == *spelled)
    }

    /// True when nothing that a remote decision point is asked by is newer than in `other`: the
    /// configuration, the policies' epoch, where the point is and where it takes questions.
    #[must_use]
    pub fn decides_as(&self, other: &Self) -> bool {
        let (mine, theirs) = (&*self.snapshot, &*other.snapshot);
        same_point(mine.pdp.as_ref(), theirs.pdp.as_ref())
            && mine.config_generation == theirs.config_generation
            && mine.policy.epoch() == theirs.policy.epoch()
    }

    /// Index of the server with this name.
    #[must_use]
    pub fn server(&self, name: &str) -> Option<u16> {
        self.servers.get(name).copied()
    }

    /// Place of a configured extension method.
    #[must_use]
    pub fn extension(&self, name: &str) -> Option<u16> {
        let methods = &self.snapshot.config.methods;
        methods.iter().position(|method| method.name == name).and_then(|at| u16::try_from(at).ok())
    }
}

/// What a message to one server is read by.
pub(crate) struct Reading<'w> {
    /// The world that judges it, too.
    pub(crate) world: &'w World,
    /// Index of the server; `None` for one that does not exist.
    pub(crate) server: Option<u16>,
}

impl Known for Reading<'_> {
    fn extension(&self, method: &str) -> Option<u16> {
        self.world.extension(method)
    }

    fn plan(&self, tool: &str) -> Option<&Plan> {
        self.world.snapshot.policy.plan(self.server?, tool)
    }
}

/// `shared` with TLS of this core's own. Where a server's trust is the one of the snapshot before
/// (`old`), what this core made of it (`own`) goes on, with the sessions it remembers: keys and
/// addresses are published far more often than trust changes.
fn of_this_core(shared: &[Upstream], old: &[Upstream], own: &[Upstream]) -> Box<[Upstream]> {
    let tls = |index: usize, made: &Arc<ClientTls>| {
        let old = old.get(index).and_then(|old| old.tls.as_ref());
        let own = own.get(index).and_then(|own| own.tls.as_ref());
        match own.filter(|_| old.is_some_and(|old| Arc::ptr_eq(old, made))) {
            Some(own) => Arc::clone(own),
            None => Arc::new(made.for_core()),
        }
    };
    let upstream = |(index, upstream): (usize, &Upstream)| Upstream {
        addresses: Arc::clone(&upstream.addresses),
        refused: upstream.refused,
        tls: upstream.tls.as_ref().map(|made| tls(index, made)),
    };
    shared.iter().enumerate().map(upstream).collect()
}

/// A point is made anew whenever something about it changes, and with every configuration.
fn same_point(mine: Option<&Arc<DecisionPoint>>, theirs: Option<&Arc<DecisionPoint>>) -> bool {
    match (mine, theirs) {
        (Some(mine), Some(theirs)) => Arc::ptr_eq(mine, theirs),
        (None, None) => true,
        (Some(_), None) | (None, Some(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::UpstreamUrl;
    use crate::control::authzen::Endpoints;

    #[test]
    fn a_point_that_was_made_anew_is_another() {
        let point = Arc::new(DecisionPoint {
            url: UpstreamUrl::parse("https://pdp.example.com").unwrap(),
            upstream: Upstream { addresses: Arc::from([]), refused: false, tls: None },
            endpoints: Endpoints::of_the_standard(),
            bearer: None,
            timeout: Duration::from_secs(1),
            in_flight_max: 1,
            permit_ttl: Duration::from_secs(60),
        });
        let anew = Arc::new(point.as_ref().clone());
        assert!(same_point(Some(&point), Some(&Arc::clone(&point))) && same_point(None, None));
        assert!(!same_point(Some(&point), Some(&anew)), "equal in all that it says");
        assert!(!same_point(Some(&point), None) && !same_point(None, Some(&point)));
    }

    #[test]
    fn tls_is_this_cores_own_and_outlives_a_snapshot() {
        let made: Vec<_> = (0..3).map(|_| Arc::new(ClientTls::new(None).unwrap())).collect();
        let server = |tls: Option<&Arc<ClientTls>>| Upstream {
            addresses: Arc::from([]),
            refused: false,
            tls: tls.cloned(),
        };
        let own = |upstreams: &[Upstream], index: usize| {
            Arc::clone(upstreams[index].tls.as_ref().unwrap())
        };
        let first = [server(Some(&made[0])), server(None), server(Some(&made[1]))];
        let (here, there) = (of_this_core(&first, &[], &[]), of_this_core(&first, &[], &[]));
        assert!(here[1].tls.is_none());
        assert!(!Arc::ptr_eq(&own(&here, 0), &made[0]), "not the one that all cores have");
        assert!(!Arc::ptr_eq(&own(&here, 0), &own(&there, 0)));
        // New addresses, the same trust: the sessions stay. New trust: none of the old ones.
        let second = [server(Some(&made[0])), server(None), server(Some(&made[2]))];
        let next = of_this_core(&second, &first, &here);
        assert!(Arc::ptr_eq(&own(&next, 0), &own(&here, 0)));
        assert!(!Arc::ptr_eq(&own(&next, 2), &own(&here, 2)));
        // Servers that changed their places do not get each other's.
        let third = [server(Some(&made[2])), server(Some(&made[0]))];
        let moved = of_this_core(&third, &second, &next);
        assert!(!Arc::ptr_eq(&own(&moved, 0), &own(&next, 0)));
    }
}
