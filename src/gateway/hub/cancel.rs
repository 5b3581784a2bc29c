//! `notifications/cancelled` of a legacy agent (2025-11-25 basic/utilities/cancellation). It may
//! come on another connection than the call, and so to another core: then it goes on as mail.

use super::greet::Speaker;
use super::handshake::owner;
use super::local;
use crate::gateway::exchange::Exchange;
use crate::hub::desk::Owner;
use crate::limits::HUB_CANCEL_ID_BYTES_MAX;
use crate::listener::Downstream;
use crate::mail::{Letter, MailKind};
use crate::mcp::span::Document;
use crate::mcp::write;
use crate::reject::Reject;
use crate::relay::Relayed;
use crate::shard::Shard;

/// Cancels a call of the agent's session, wherever it is. What is not found is over, or was never
/// there; the agent is told the same, for the two pass each other on their way.
///
/// # Errors
/// `RpcParams` without a request to cancel; `MailFull`; quota, audit.
pub(super) async fn serve(
    shard: &Shard,
    downstream: &mut Downstream,
    exchange: &mut Exchange,
    speaker: &Speaker,
) -> Result<Relayed, Reject> {
    let id = cancelled_id(&exchange.scratch.body)?;
    let caller = caller(exchange, speaker)?;
    exchange.admit(shard)?;
    exchange.commit(shard)?;
    if let Some(caller) = caller
        && !shard.hub.calls.cancel(&caller, &id)
    {
        tell_others(shard, exchange, &caller, &id)?;
    }
    Ok(local::accept(shard, downstream, exchange).await)
}

/// The session in which a call can be cancelled. Without one, the ids of all of a principal's
/// agents are the same few numbers.
///
/// # Errors
/// `GatewayFault` without a token.
pub(super) fn caller(exchange: &Exchange, speaker: &Speaker) -> Result<Option<Owner>, Reject> {
    let Some(session) = speaker.session else { return Ok(None) };
    Ok(Some(Owner { principal: owner(exchange)?, session }))
}

fn tell_others(
    shard: &Shard,
    exchange: &Exchange,
    caller: &Owner,
    id: &[u8],
) -> Result<(), Reject> {
    if id.len() > HUB_CANCEL_ID_BYTES_MAX {
        return Ok(());
    }
    let Owner { principal, session } = *caller;
    let letter = Letter {
        kind: MailKind::Cancel,
        number: 0,
        from: shard.core,
        session,
        owner: principal,
        body: id.to_vec(),
    };
    let bytes_max = exchange.world.snapshot.config.limits.body_bytes_max;
    for core in (0..shard.post.cores()).filter(|core| *core != shard.core) {
        shard.post.send(core, &letter, bytes_max)?;
    }
    Ok(())
}

/// `params.requestId` as the agent wrote it.
fn cancelled_id(body: &[u8]) -> Result<Vec<u8>, Reject> {
    let mut document = Document::new();
    let root = document.read(body).map_err(|_| Reject::RpcParams)?;
    let id = root.get("params").and_then(|params| params.get("requestId"));
    let raw = id.and_then(|id| body.get(id.range())).ok_or(Reject::RpcParams)?;
    Ok(raw.to_vec())
}

/// What a legacy server is told whose request `id` (raw JSON) was cancelled.
pub(super) fn message(id: &[u8]) -> Vec<u8> {
    let mut out =
        br#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"#.to_vec();
    out.extend_from_slice(id);
    out.extend_from_slice(br#","reason":"#);
    write::string(REASON, &mut out);
    out.extend_from_slice(b"}}");
    out
}

const REASON: &str = "the agent cancelled it";
