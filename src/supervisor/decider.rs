//! Where the remote decision point is and where it takes questions: kept known by one task of the
//! control thread. Decisions themselves are asked by the workers.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use super::control::Control;
use crate::address::{Terms, permitted};
use crate::clock::Monotonic;
use crate::config::{AuthZen, UpstreamUrl};
use crate::control::authzen::{Endpoints, METADATA, read_metadata};
use crate::limits::PDP_METADATA_BYTES_MAX;
use crate::net::client;

/// Runs for as long as the configuration is in force. `first_round` is dropped after the first
/// look, whatever came of it.
pub(super) async fn keep(
    control: Rc<Control>,
    generation: u64,
    mut first_round: Option<Sender<()>>,
) {
    let config = Arc::clone(&control.state.borrow().config);
    let Some(authzen) = &config.policy.authzen else { return };
    let mut look_again = control.clock.monotonic();
    loop {
        let now = control.clock.monotonic();
        let addresses = resolve(&control, authzen, now.after(WITHIN)).await;
        let mut found = None;
        if now >= look_again {
            found = match &addresses {
                Some(addresses) => look(&control, authzen, addresses, now.after(WITHIN)).await,
                None => None,
            };
            let settled = matches!(found, Some(Endpoints::Known { .. }));
            look_again = now.after(if settled { LOOK_EVERY } else { LOOK_SOON });
        }
        if !learn(&control, generation, addresses, found) {
            return;
        }
        first_round.take();
        control.timers.sleep_until(control.clock.monotonic().after(LOOK_SOON)).await;
    }
}

/// The addresses that may be dialled; `None` when the name is not to be had.
async fn resolve(
    control: &Control,
    authzen: &AuthZen,
    until: Monotonic,
) -> Option<Vec<SocketAddr>> {
    let url = &authzen.url;
    let found = match url.literal {
        Some(literal) => vec![(literal, url.port).into()],
        None => control.resolver.resolve(&url.host, url.port, &control.timers, until).await.ok()?,
    };
    let terms = Terms { trust_private: authzen.trust_private_addresses, tls: url.tls };
    Some(permitted(&found, terms))
}

/// What it says of itself. `None` when it says nothing: then what was known stays, for it was said
/// by the same point.
async fn look(
    control: &Control,
    authzen: &AuthZen,
    addresses: &[SocketAddr],
    until: Monotonic,
) -> Option<Endpoints> {
    let url = UpstreamUrl { target: METADATA.to_owned(), ..authzen.url.clone() };
    // Loaded with the configuration: the same trust, and the same certificate of ours, as for
    // questions.
    let tls = control.state.borrow().assembly.pdp.as_ref()?.upstream.tls.clone();
    let (bytes_max, timers) = (PDP_METADATA_BYTES_MAX, &control.timers);
    let answer = client::get(&url, addresses, tls.as_deref(), bytes_max, timers, until).await;
    let endpoints = match answer.ok()? {
        answer if answer.status == 200 => read_metadata(&answer.body, &authzen.url).ok(),
        answer if answer.status == 404 => Some(Endpoints::of_the_standard()),
        _ => return None,
    };
    if endpoints.is_none() {
        tracing::warn!("[policy.authzen] what {} says of itself is not its own", url.authority);
    }
    Some(endpoints.unwrap_or(Endpoints::Unknown))
}

/// Publishes what is new. False when the configuration is no longer in force.
fn learn(
    control: &Control,
    generation: u64,
    addresses: Option<Vec<SocketAddr>>,
    endpoints: Option<Endpoints>,
) -> bool {
    let mut state = control.state.borrow_mut();
    if state.config_generation != generation {
        return false;
    }
    let Some(known) = &mut state.assembly.pdp else { return false };
    let mut new = known.as_ref().clone();
    if let Some(mut addresses) = addresses {
        new.upstream.refused = addresses.is_empty();
        // Servers rotate the order of their answers; that alone is no change.
        addresses.sort_unstable();
        new.upstream.addresses = Arc::from(addresses);
    }
    if let Some(endpoints) = endpoints {
        new.endpoints = endpoints;
    }
    let changed = new.endpoints != known.endpoints
        || new.upstream.addresses != known.upstream.addresses
        || new.upstream.refused != known.upstream.refused;
    if changed {
        *known = Arc::new(new);
        drop(state);
        control.publish();
    }
    true
}

/// Between looks at what it says of itself.
const LOOK_EVERY: Duration = Duration::from_secs(3600);
/// After one that brought nothing; addresses are looked up as often.
const LOOK_SOON: Duration = Duration::from_secs(5);
const WITHIN: Duration = Duration::from_secs(5);
