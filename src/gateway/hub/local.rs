//! What `/mcp` answers by itself.

use std::time::Duration;

use super::farewell;
use crate::gateway::exchange::Exchange;
use crate::gateway::route;
use crate::http::Field;
use crate::listener::{Downstream, answer as writing};
use crate::mcp::hub_session::SessionMark;
use crate::reject::Reject;
use crate::relay::Relayed;
use crate::shard::Shard;

/// Answers `ping`: the hub is alive, whatever its servers are.
///
/// # Errors
/// Quota, audit.
pub(super) async fn ping(
    shard: &Shard,
    downstream: &mut Downstream,
    exchange: &mut Exchange,
) -> Result<Relayed, Reject> {
    exchange.admit(shard)?;
    exchange.commit(shard)?;
    let id = exchange.scratch.call.id_raw(&exchange.scratch.body).ok_or(Reject::GatewayFault)?;
    let body = [br#"{"jsonrpc":"2.0","id":"#, id, br#","result":{}}"#].concat();
    Ok(answer(shard, downstream, exchange, None, &body).await)
}

/// Takes a notification that concerns nobody but the hub.
///
/// # Errors
/// Quota, audit.
pub(super) async fn noted(
    shard: &Shard,
    downstream: &mut Downstream,
    exchange: &mut Exchange,
) -> Result<Relayed, Reject> {
    exchange.admit(shard)?;
    exchange.commit(shard)?;
    Ok(accept(shard, downstream, exchange).await)
}

/// Answers a notification that was taken.
pub(super) async fn accept(
    shard: &Shard,
    downstream: &mut Downstream,
    exchange: &Exchange,
) -> Relayed {
    let mut out = Vec::with_capacity(256);
    let origin = route::cors_origin(downstream, &exchange.world.snapshot.config);
    writing::empty(202, origin, &mut out);
    write(shard, downstream, exchange, 202, out, 0).await
}

/// Ends the session that the request names: on this core at once, on the others by notice. So do
/// the sessions with servers that this core opened for it, and the servers are told.
///
/// # Errors
/// `RpcInvalid` for a request that names none; audit.
pub(super) async fn end_session(
    shard: &Shard,
    downstream: &mut Downstream,
    exchange: &mut Exchange,
) -> Result<Relayed, Reject> {
    let (head, bytes) = downstream.head();
    let sealed = head.field(bytes, Field::McpSessionId).ok_or(Reject::RpcInvalid)?.to_vec();
    exchange.commit(shard)?;
    let opened = shard.hub.sessions.end_client(SessionMark::of(&sealed));
    shard.end_session(&sealed);
    exchange.outcome.legs = farewell::say(shard, exchange, &opened).await;
    let mut out = Vec::with_capacity(256);
    let origin = route::cors_origin(downstream, &exchange.world.snapshot.config);
    writing::empty(204, origin, &mut out);
    Ok(write(shard, downstream, exchange, 204, out, 0).await)
}

/// Writes a whole answer in JSON; `session` goes into its head.
pub(super) async fn answer(
    shard: &Shard,
    downstream: &mut Downstream,
    exchange: &Exchange,
    session: Option<&[u8]>,
    body: &[u8],
) -> Relayed {
    let mut out = Vec::with_capacity(body.len() + 512);
    let origin = route::cors_origin(downstream, &exchange.world.snapshot.config);
    writing::rpc(session, origin, body, &mut out);
    write(shard, downstream, exchange, 200, out, body.len() as u64).await
}

async fn write(
    shard: &Shard,
    downstream: &mut Downstream,
    exchange: &Exchange,
    status: u16,
    out: Vec<u8>,
    bytes_out: u64,
) -> Relayed {
    let limits = &exchange.world.snapshot.config.limits;
    let until = shard.timers.now().after(Duration::from_millis(limits.stall_ms_max));
    let keep = downstream.head().0.keep_alive() && !shard.draining();
    let (written, _) = downstream.write(out, until).await;
    Relayed {
        status,
        bytes_out,
        client_left: !written,
        reusable: keep && written,
        ..Relayed::default()
    }
}
