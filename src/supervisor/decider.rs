//! Where the remote decision point is and where it takes questions: kept known by one task of the
//! control thread. Decisions themselves are asked by the workers.

use std::fmt;
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
use crate::net::tls::ClientTls;
use crate::reject::Reject;

/// Runs for as long as the configuration is in force. `first_round` is dropped after the first
/// look, whatever came of it.
pub(super) async fn keep(
    control: Rc<Control>,
    generation: u64,
    mut first_round: Option<Sender<()>>,
) {
    // Loaded with this configuration: the same trust, and the same certificate of ours, as for its
    // questions. Taken once: what a later one trusts and shows is not for this one's point.
    let taken = {
        let state = control.state.borrow();
        let tls = state.assembly.pdp.as_ref().map(|pdp| pdp.upstream.tls.clone());
        tls.filter(|_| state.config_generation == generation)
            .map(|tls| (Arc::clone(&state.config), tls))
    };
    let Some((config, tls)) = taken else { return };
    let Some(authzen) = &config.policy.authzen else { return };
    let mut look_again = control.clock.monotonic();
    let mut trouble = None;
    while control.state.borrow().config_generation == generation {
        let now = control.clock.monotonic();
        let until = now.after(WITHIN);
        let addresses = resolve(&control, authzen, until).await;
        let mut found = None;
        let mut wrong = match &addresses {
            None => Some(Trouble::Unresolved),
            Some(addresses) if addresses.is_empty() => Some(Trouble::Refused),
            Some(_) => None,
        };
        if now >= look_again {
            if let (Some(addresses), None) = (&addresses, wrong) {
                match look(&control, authzen, addresses, tls.as_deref(), until).await {
                    Ok(said) => found = Some(said),
                    Err(why) => wrong = Some(why),
                }
            }
            let settled = matches!(found, Some(Said::Endpoints(_)));
            look_again = now.after(if settled { LOOK_EVERY } else { LOOK_SOON });
        }
        if wrong == Some(Trouble::NotItsOwn) {
            found = Some(Said::Endpoints(Endpoints::Unknown));
        }
        if !learn(&control, generation, addresses, found) {
            return;
        }
        tell(&authzen.url.authority, trouble, wrong);
        trouble = wrong;
        first_round.take();
        control.timers.sleep_until(control.clock.monotonic().after(LOOK_SOON)).await;
    }
}

/// What a decision point says of itself.
enum Said {
    /// Its metadata, read and believed.
    Endpoints(Endpoints),
    /// It has none (404).
    Nothing,
}

/// Why it is not known where it takes questions, or no longer sure.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Trouble {
    Unresolved,
    Refused,
    Unread(Reject),
    Status(u16),
    NotItsOwn,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unresolved => f.write_str("its name has no address"),
            Self::Refused => f.write_str(
                "its addresses may not be asked: private ones need trust_private_addresses, \
                 public ones https",
            ),
            Self::Status(status) => write!(f, "it answers {status} where it says where to ask"),
            Self::NotItsOwn => f.write_str("what it says of itself is not its own"),
            Self::Unread(reject) => {
                let known = UNREAD.iter().find(|(known, _)| known == reject);
                f.write_str(known.map_or("it cannot be asked", |(_, words)| words))
            }
        }
    }
}

/// What is wrong is said when it changes, not at each look; and once that it is over.
fn tell(authority: &str, before: Option<Trouble>, now: Option<Trouble>) {
    match now {
        Some(trouble) if before != now => tracing::warn!("[policy.authzen] {authority}: {trouble}"),
        None if before.is_some() => {
            tracing::info!("[policy.authzen] {authority}: it is well again");
        }
        Some(_) | None => {}
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

/// What it says of itself. Where that is not to be had, what was known stays, for it was said by
/// the same point; where it is not its own, nothing is known.
async fn look(
    control: &Control,
    authzen: &AuthZen,
    addresses: &[SocketAddr],
    tls: Option<&ClientTls>,
    until: Monotonic,
) -> Result<Said, Trouble> {
    let url = UpstreamUrl { target: METADATA.to_owned(), ..authzen.url.clone() };
    let (bytes_max, timers) = (PDP_METADATA_BYTES_MAX, &control.timers);
    let answer = client::get(&url, addresses, tls, bytes_max, timers, until).await;
    let answer = answer.map_err(Trouble::Unread)?;
    match answer.status {
        200 => read_metadata(&answer.body, &authzen.url)
            .map(Said::Endpoints)
            .map_err(|_| Trouble::NotItsOwn),
        404 => Ok(Said::Nothing),
        status => Err(Trouble::Status(status)),
    }
}

/// Publishes what is new. False when the configuration is no longer in force.
fn learn(
    control: &Control,
    generation: u64,
    addresses: Option<Vec<SocketAddr>>,
    said: Option<Said>,
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
    match said {
        Some(Said::Endpoints(endpoints)) => new.endpoints = endpoints,
        // One 404 of many answers does not undo what it said before.
        Some(Said::Nothing) if new.endpoints == Endpoints::Unknown => {
            new.endpoints = Endpoints::of_the_standard();
        }
        Some(Said::Nothing) | None => {}
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
/// After one that brought nothing, or a 404, which may be a point's that is just starting;
/// addresses are looked up as often.
const LOOK_SOON: Duration = Duration::from_secs(5);
const WITHIN: Duration = Duration::from_secs(5);
const UNREAD: [(Reject, &str); 5] = [
    (Reject::UpstreamConnect, "nothing accepts a connection there"),
    (
        Reject::UpstreamTls,
        "no TLS with it: its certificate is not one to believe (ca_file), or it does not believe \
         ours (certificate)",
    ),
    (Reject::UpstreamTimeout, "it does not answer in time"),
    (Reject::UpstreamEof, "it closes the connection instead of an answer"),
    (Reject::UpstreamMalformed, "its answer is not HTTP/1.1, is coded, or is too long"),
];
