//! An agent that ends its session ends those that were opened for it (2025-11-25, transports,
//! "Session Management": a client should say so). Servers that do not hear of it, because another
//! core opened them or nobody is there to be judged for it, end theirs in their own time.

use std::rc::Rc;

use super::leg;
use super::together::together;
use crate::audit::Legs;
use crate::clock::Monotonic;
use crate::gateway::exchange::Exchange;
use crate::hub::sessions::{SessionKey, UpstreamSession};
use crate::limits::HUB_FAREWELL;
use crate::policy::Permit;
use crate::reject::Reject;
use crate::relay::{Blind, OwnHead};
use crate::shard::Shard;

/// Tells every server, all at the same time and not for long: who leaves is not held up by one that
/// does not answer. `None` when there is nobody to tell.
pub(super) async fn say(
    shard: &Shard,
    exchange: &Exchange,
    opened: &[(SessionKey, Rc<UpstreamSession>)],
) -> Option<Legs> {
    let until = shard.timers.now().after(HUB_FAREWELL);
    let generation = exchange.world.snapshot.config_generation;
    // Indices of another configuration mean other servers.
    let known = opened.iter().filter(|(key, _)| key.generation == generation);
    let said = together(known.map(|it| tell(shard, exchange, it, until))).await;
    let number = |count: usize| u16::try_from(count).unwrap_or(u16::MAX);
    let answered = number(said.iter().filter(|heard| heard.is_ok()).count());
    (!said.is_empty()).then(|| Legs { asked: number(said.len()), answered })
}

/// One leg: judged, given a credential and recorded like all that goes to a server.
async fn tell(
    shard: &Shard,
    exchange: &Exchange,
    (key, session): &(SessionKey, Rc<UpstreamSession>),
    until: Monotonic,
) -> Result<(), Reject> {
    let mut leg = exchange.farewell(shard, key.server)?;
    let told = match leg.judge(shard).await {
        // With another credential it is somebody else's session.
        Ok(permit) if permit.credential() != key.credential.map(usize::from) => {
            Err(Reject::PolicyCredentialAmbiguous)
        }
        Ok(permit) => send(shard, &mut leg, permit, session, until).await,
        Err(reject) => Err(reject),
    };
    leg.record(shard, told.as_ref().err().copied());
    told
}

async fn send(
    shard: &Shard,
    leg: &mut Exchange,
    permit: Permit,
    session: &UpstreamSession,
    until: Monotonic,
) -> Result<(), Reject> {
    let credential = leg.obtain(shard, &permit)?;
    leg.commit(shard)?;
    let head = OwnHead {
        protocol_version: Some(session.revision),
        session: session.id.as_deref(),
        ..OwnHead::default()
    };
    let credential = credential.as_deref();
    match leg::open(shard, leg, permit, credential, &head, &mut Blind, until).await {
        Ok(mut talk) => {
            leg.outcome.upstream_status = Some(talk.status());
            // Heard to its end, so that its connection can be used again.
            talk.next(until).await.map(|_| ())
        }
        Err(failed) => {
            leg.outcome.upstream_status = failed.upstream_status;
            Err(failed.reject)
        }
    }
}
