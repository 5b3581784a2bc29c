//! Keys and addresses, fetched once per process: one task per trust provider and per server name.

use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Duration, SystemTime};

use super::control::Control;
use super::decider;
use crate::address::{Terms, permitted};
use crate::bus::Notice;
use crate::clock::Monotonic;
use crate::config::{KeySource, TrustProvider, UpstreamUrl};
use crate::control::jwks::{
    Answer, Asked, FetchFault, KeyIo, Next, Outcome, Refresher, Source, max_age,
};
use crate::fault::{self, Stage};
use crate::metrics::RefreshOutcome;
use crate::net::client;
use crate::net::tls::ClientTls;
use crate::net::{Timers, catch_unwind, first, runtime};
use crate::reject::Reject;

/// Starts the tasks of the configuration in force. Those of an older one end by themselves.
///
/// Each task drops its copy of `first_round` after its first attempt, whatever came of it.
pub(super) fn start(control: &Rc<Control>, first_round: Option<Sender<()>>) {
    let (config, generation) = {
        let state = control.state.borrow();
        (Arc::clone(&state.config), state.config_generation)
    };
    for index in 0..config.trust_providers.len() {
        runtime::spawn(keep_keys(Rc::clone(control), index, generation, first_round.clone()));
    }
    for index in 0..config.servers.len() {
        runtime::spawn(keep_addresses(Rc::clone(control), index, generation, first_round.clone()));
    }
    if config.policy.authzen.is_some() {
        runtime::spawn(decider::keep(Rc::clone(control), generation, first_round));
    }
}

/// Keeps the keys of one provider fresh for as long as its configuration is in force.
async fn keep_keys(
    control: Rc<Control>,
    index: usize,
    generation: u64,
    mut first_round: Option<Sender<()>>,
) {
    let config = Arc::clone(&control.state.borrow().config);
    let Some(provider) = config.trust_providers.get(index) else { return };
    let io = Io { control: &control, provider };
    // Generations of another configuration's keys must not come again: what was verified under them
    // may be remembered.
    let mut refresher = Refresher::after(control.clock.monotonic(), generation << 32);
    let mut source = Source::new(provider);
    let mut fetched = None;
    loop {
        let seen = control.asked.version();
        let Some(asked) = take_wish(&control, index, generation) else { return };
        let now = control.clock.monotonic();
        let stamp = FileStamp::of(&provider.keys);
        let wanted = asked || (fetched.is_some() && stamp != fetched);
        let next = refresher.poll(now);
        let fetch = next == Next::Fetch || (wanted && refresher.asked(now) == Asked::Fetch);
        if fetch {
            fetched = stamp;
            fetch_once(&control, provider, &io, &mut source, &mut refresher).await;
            share(&control, index, &refresher, generation);
            first_round.take();
            continue;
        }
        if asked {
            unchanged(&control, index, &refresher, generation);
        }
        let until = match next {
            Next::At(at) if matches!(provider.keys, KeySource::File(_)) => {
                at.min(now.after(FILE_LOOK))
            }
            Next::At(at) => at.min(now.after(LOOK_MAX)),
            Next::Fetch | Next::UnderWay => now,
        };
        first(control.timers.sleep_until(until), control.asked.changed(seen)).await;
    }
}

/// One fetch, whatever comes of it; a panic inside is a failed fetch, and nobody is left waiting.
async fn fetch_once(
    control: &Control,
    provider: &TrustProvider,
    io: &Io<'_>,
    source: &mut Source,
    refresher: &mut Refresher,
) {
    let now = control.clock.monotonic();
    let fetch = async {
        fault::strike(Stage::Keys);
        source.fetch(io, now).await
    };
    let result = match catch_unwind(fetch).await {
        Ok(result) => result,
        Err(_) => Err(FetchFault::Unreachable),
    };
    let outcome = refresher.fetched(control.clock.monotonic(), result);
    let counted = match outcome {
        Outcome::Replaced => RefreshOutcome::Changed,
        Outcome::Renewed => RefreshOutcome::Unchanged,
        Outcome::Kept(fault) => {
            tracing::warn!(provider = provider.name, ?fault, "keys could not be fetched");
            RefreshOutcome::Failed
        }
    };
    control.process.jwks_refresh(&provider.issuer, counted);
}

/// Publishes what the refresher knows, then answers whoever waited for it.
fn share(control: &Control, index: usize, refresher: &Refresher, generation: u64) {
    let now = control.clock.monotonic();
    {
        let mut state = control.state.borrow_mut();
        if state.config_generation != generation {
            return;
        }
        // Whoever asked while the fetch was under way is answered by it.
        if let Some(wanted) = state.wanted_keys.get_mut(index) {
            *wanted = false;
        }
        let kept = refresher.snapshot(now);
        let Some(keys) = state.keys.get_mut(index) else { return };
        // After a reload the first fetch may fail; keys that still serve are not thrown away for
        // it.
        if kept.usable(now).is_some() || keys.usable(now).is_none() {
            *keys = kept;
        }
    }
    control.publish();
    notify_waiters(control, index);
}

fn unchanged(control: &Control, index: usize, refresher: &Refresher, generation: u64) {
    let refetch = refresher.snapshot(control.clock.monotonic());
    let mut state = control.state.borrow_mut();
    // Also keys that were kept over a reload must say when it makes sense to ask again, or every
    // made-up key id would come here and be published to all cores.
    let changed = state.config_generation == generation
        && state.keys.get_mut(index).is_some_and(|keys| keys.throttle_as(&refetch));
    drop(state);
    if changed {
        control.publish();
    }
    notify_waiters(control, index);
}

fn notify_waiters(control: &Control, index: usize) {
    if let Ok(provider) = u16::try_from(index) {
        control.tell(Notice::KeysUnchanged { provider });
    }
}

/// `None` when the configuration is no longer in force; else whether a worker asked.
fn take_wish(control: &Control, index: usize, generation: u64) -> Option<bool> {
    let mut state = control.state.borrow_mut();
    if state.config_generation != generation {
        return None;
    }
    state.wanted_keys.get_mut(index).map(std::mem::take)
}

/// Keeps the addresses of one server known and checked.
async fn keep_addresses(
    control: Rc<Control>,
    index: usize,
    generation: u64,
    mut first_round: Option<Sender<()>>,
) {
    let config = Arc::clone(&control.state.borrow().config);
    let Some(server) = config.servers.get(index) else { return };
    loop {
        let seen = control.asked.version();
        let until = control.clock.monotonic().after(RESOLVE_WITHIN);
        let found = match server.url.literal {
            Some(literal) => Ok(vec![(literal, server.url.port).into()]),
            None => {
                let (host, port) = (&server.url.host, server.url.port);
                control.resolver.resolve(host, port, &control.timers, until).await
            }
        };
        if let Ok(found) = found {
            let trust_private = server.trust_private_addresses;
            let allowed = permitted(&found, Terms { trust_private, tls: server.url.tls });
            set_addresses(&control, index, generation, &allowed, !found.is_empty());
        }
        first_round.take();
        if server.url.literal.is_some() {
            return;
        }
        // Never more often than once a second, however many requests fail meanwhile.
        let now = control.clock.monotonic();
        control.timers.sleep_until(now.after(Duration::from_secs(1))).await;
        let until = now.after(RESOLVE_EVERY);
        loop {
            let Some(wanted) = take_address_wish(&control, index, generation) else { return };
            if wanted || control.clock.monotonic() >= until {
                break;
            }
            first(control.timers.sleep_until(until), control.asked.changed(seen)).await;
            control.timers.sleep_until(control.clock.monotonic().after(FILE_LOOK)).await;
        }
    }
}

fn set_addresses(
    control: &Control,
    index: usize,
    generation: u64,
    allowed: &[SocketAddr],
    had_any: bool,
) {
    let mut state = control.state.borrow_mut();
    if state.config_generation != generation {
        return;
    }
    let Some(upstream) = state.upstreams.get_mut(index) else { return };
    let refused = allowed.is_empty() && had_any;
    // Servers rotate the order of their answers; that alone is no change.
    let sorted = |addresses: &[SocketAddr]| {
        let mut addresses = addresses.to_vec();
        addresses.sort_unstable();
        addresses
    };
    if sorted(&upstream.addresses) == sorted(allowed) && upstream.refused == refused {
        return;
    }
    upstream.addresses = Arc::from(allowed);
    upstream.refused = refused;
    drop(state);
    control.publish();
}

fn take_address_wish(control: &Control, index: usize, generation: u64) -> Option<bool> {
    let mut state = control.state.borrow_mut();
    if state.config_generation != generation {
        return None;
    }
    state.wanted_addresses.get_mut(index).map(std::mem::take)
}

/// The network and the disk as the key fetcher sees them.
struct Io<'a> {
    control: &'a Control,
    provider: &'a TrustProvider,
}

impl KeyIo for Io<'_> {
    async fn get(
        &self,
        url: &str,
        bytes_max: usize,
        until: Monotonic,
    ) -> Result<Answer, FetchFault> {
        let timers: &Timers = &self.control.timers;
        let url = UpstreamUrl::parse(url).map_err(|_| FetchFault::DiscoveryUrl)?;
        let found = match url.literal {
            Some(literal) => vec![(literal, url.port).into()],
            None => self
                .control
                .resolver
                .resolve(&url.host, url.port, timers, until)
                .await
                .map_err(|_| FetchFault::Unreachable)?,
        };
        let trust_private = self.provider.trust_private_addresses;
        let addresses = permitted(&found, Terms { trust_private, tls: url.tls });
        if addresses.is_empty() {
            return Err(FetchFault::Address);
        }
        let made = ClientTls::new(self.provider.ca_file.as_deref());
        let tls = made.map_err(|_| FetchFault::Unreachable)?;
        let got = client::get(&url, &addresses, Some(&tls), bytes_max, timers, until).await;
        let answer = got.map_err(|reject| {
            if reject == Reject::UpstreamTimeout {
                FetchFault::Timeout
            } else if reject == Reject::UpstreamAddress {
                FetchFault::Address
            } else {
                FetchFault::Unreachable
            }
        })?;
        let age = answer.cache_control.as_deref().and_then(|value| max_age(value.as_bytes()));
        Ok(Answer { status: answer.status, max_age: age, body: answer.body })
    }

    async fn read(&self, path: &Path, bytes_max: usize) -> Result<Vec<u8>, FetchFault> {
        use std::io::Read;
        let file = std::fs::File::open(path).map_err(|_| FetchFault::File)?;
        let mut bytes = Vec::new();
        let read = file.take(bytes_max as u64 + 1).read_to_end(&mut bytes);
        read.map_err(|_| FetchFault::File)?;
        if bytes.len() > bytes_max { Err(FetchFault::TooLarge) } else { Ok(bytes) }
    }
}

/// When a key file last changed, as far as its metadata tells.
#[derive(Clone, Copy, PartialEq, Eq)]
struct FileStamp(SystemTime, u64);

impl FileStamp {
    /// `None` for keys that come from elsewhere, and for a file that cannot be looked at.
    fn of(keys: &KeySource) -> Option<Self> {
        let KeySource::File(path) = keys else { return None };
        let metadata = std::fs::metadata(path).ok()?;
        Some(Self(metadata.modified().ok()?, metadata.len()))
    }
}

const FILE_LOOK: Duration = Duration::from_secs(1);
const LOOK_MAX: Duration = Duration::from_secs(3600);
const RESOLVE_EVERY: Duration = Duration::from_secs(30);
const RESOLVE_WITHIN: Duration = Duration::from_secs(5);
