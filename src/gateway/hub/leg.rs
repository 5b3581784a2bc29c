//! One judged message on its way to its server.

use std::rc::Rc;
use std::time::Duration;

use super::answer::Agent;
use crate::clock::Monotonic;
use crate::credential::UpstreamCredential;
use crate::gateway::exchange::Exchange;
use crate::gateway::oversight::Watch;
use crate::gateway::words::Words;
use crate::listener::Downstream;
use crate::policy::Permit;
use crate::reject::Reject;
use crate::relay::{Asked, Eye, Failed, OwnHead, Talk, To};
use crate::shard::Shard;

/// Whether a server may have forgotten the session that a request came with: 404 (2025-11-25
/// transports, "Session Management"), or 400, as the TypeScript SDK's example servers say it.
/// Either way it refused before it acted.
pub(super) const fn forgot_session(status: u16) -> bool {
    matches!(status, 400 | 404)
}

/// Sends the message that `exchange` is, with everything but the decision still to be done: quota,
/// credential, record. A credential that the server refuses is fetched anew once, and decided on
/// again: it may have been rotated.
///
/// # Errors
/// As the stages of `/mcp/{server}`.
pub(super) async fn send<'s>(
    shard: &'s Shard,
    downstream: &mut Downstream,
    left: &mut bool,
    exchange: &mut Exchange,
    permit: Permit,
    head: &OwnHead<'_>,
) -> Result<Talk<'s>, Reject> {
    let credential = exchange.obtain(shard, &permit)?;
    exchange.commit(shard)?;
    let used = permit.credential();
    let failed = match watched(shard, downstream, left, exchange, permit, credential, head).await {
        Ok(talk) => return Ok(note(exchange, talk)),
        Err(failed) => failed,
    };
    exchange.outcome.upstream_status = failed.upstream_status;
    let (Some(_), Some(used)) = (failed.permit, used) else { return Err(failed.reject) };
    shard.credentials.evict(used);
    let permit = exchange.decide_again(shard).await?;
    let fresh = exchange.obtain(shard, &permit)?;
    match watched(shard, downstream, left, exchange, permit, fresh, head).await {
        Ok(talk) => Ok(note(exchange, talk)),
        Err(failed) => {
            exchange.outcome.upstream_status = failed.upstream_status;
            Err(failed.reject)
        }
    }
}

fn note<'s>(exchange: &mut Exchange, talk: Talk<'s>) -> Talk<'s> {
    exchange.outcome.upstream_status = Some(talk.status());
    talk
}

async fn watched<'s>(
    shard: &'s Shard,
    downstream: &mut Downstream,
    left: &mut bool,
    exchange: &Exchange,
    permit: Permit,
    credential: Option<Rc<UpstreamCredential>>,
    head: &OwnHead<'_>,
) -> Result<Talk<'s>, Failed> {
    let keep_alive = downstream.head().0.keep_alive();
    let watch = Watch::new(shard, exchange, keep_alive, Words::default());
    let mut agent = Agent::new(shard, downstream, exchange, &watch, left);
    open(shard, exchange, permit, credential.as_deref(), head, &mut agent, NEVER).await
}

/// Sends the message that `exchange` is, by a permit and a credential of its own, after its
/// decision was recorded. A server that fails too often is left alone for a while.
///
/// # Errors
/// [`Failed`]; `UpstreamSuspended` without a word to the server.
pub(super) async fn open<'s>(
    shard: &'s Shard,
    exchange: &Exchange,
    permit: Permit,
    credential: Option<&UpstreamCredential>,
    head: &OwnHead<'_>,
    eye: &mut impl Eye,
    until: Monotonic,
) -> Result<Talk<'s>, Failed> {
    let world = Rc::clone(&exchange.world);
    let snapshot = &world.snapshot;
    let index = permit.server();
    let (Some(server), Some(upstream)) =
        (snapshot.config.servers.get(index), world.upstreams.get(index))
    else {
        return Err(Reject::GatewayFault.into());
    };
    let place = u16::try_from(index).map_err(|_| Reject::GatewayFault)?;
    let generation = snapshot.config_generation;
    let entered = shard.hub.breakers.enter(place, generation, shard.timers.now());
    let trial = entered.map_err(|_| Reject::UpstreamSuspended)?;
    if upstream.addresses.is_empty() {
        shard.ask_addresses(index);
    }
    let to = To {
        server,
        server_index: index,
        upstream,
        generation,
        credential,
        credential_index: permit.credential(),
        limits: &snapshot.config.limits,
    };
    let asked = Asked {
        to,
        method: exchange.method,
        body: &exchange.scratch.body,
        head: *head,
        retryable: exchange.retryable(),
    };
    let opened = shard.relay.open(permit, &asked, eye, until).await;
    let now = shard.timers.now();
    match &opened {
        Ok(talk) => trial.answered(talk.status(), now),
        Err(failed) => {
            trial.failed(failed.reject, now);
            shard.upstream_failed(index, failed.reject);
            // None of the known addresses answers: the server may have moved.
            if failed.reject == Reject::UpstreamConnect {
                shard.ask_addresses(index);
            }
        }
    }
    opened
}

/// How long the server of an exchange may take for the head of an answer.
pub(super) fn timeout(exchange: &Exchange) -> Duration {
    let servers = &exchange.world.snapshot.config.servers;
    let server = exchange.server.and_then(|index| servers.get(usize::from(index)));
    Duration::from_secs(server.map_or(0, |server| server.timeout_seconds))
}

/// Says what became of the answer that [`open`] or [`send`] began.
pub(super) fn heard<T>(shard: &Shard, exchange: &Exchange, heard: &Result<T, Reject>) {
    let Some(server) = exchange.server else { return };
    let (why, now) = (heard.as_ref().err().copied(), shard.timers.now());
    let generation = exchange.world.snapshot.config_generation;
    shard.hub.breakers.heard(server, generation, why, now);
    if let Some(why) = why {
        shard.upstream_failed(usize::from(server), why);
    }
}

const NEVER: Monotonic = Monotonic(u64::MAX);
