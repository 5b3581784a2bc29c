//! The open-ended streams of `/mcp`: GET in the legacy era, `subscriptions/listen` in the modern
//! one. They say when what the agent may see has changed.

use std::time::Duration;

use super::events::Events;
use crate::gateway::exchange::Exchange;
use crate::gateway::oversight::Watch;
use crate::gateway::words::{self, Words};
use crate::http::Field;
use crate::listener::Downstream;
use crate::mcp::hub_session::SessionMark;
use crate::net::{Either, first};
use crate::reject::Reject;
use crate::relay::{Oversight as _, Relayed, Review};
use crate::shard::Shard;

/// Serves the stream to its end: the agent leaves or ends its session, its token expires, `connect`
/// is denied, or the gateway drains.
///
/// # Errors
/// Before anything is sent: quota, audit.
pub(super) async fn serve(
    shard: &Shard,
    downstream: &mut Downstream,
    exchange: &mut Exchange,
) -> Result<Relayed, Reject> {
    exchange.admit(shard)?;
    exchange.commit(shard)?;
    let exchange = &*exchange;
    let session = session(downstream, exchange);
    let mut events = Events::begin(shard, downstream, exchange);
    events.put(&words::acknowledgement(exchange));
    let watch = Watch::new(shard, exchange, downstream.head().0.keep_alive(), Words::of(exchange));
    loop {
        if !events.send(shard, downstream).await {
            return Ok(events.relayed(downstream, false));
        }
        let tick = shard.timers.now().after(TICK);
        match first(downstream.stirs(), shard.timers.sleep_until(tick)).await {
            Either::Left(()) if downstream.take_pending(&shard.timers).await => {
                events.left();
                return Ok(events.relayed(downstream, false));
            }
            Either::Left(()) | Either::Right(()) => {}
        }
        if session.is_some_and(|mark| shard.hub.ended.hold_mark(mark.short())) {
            events.end();
            let complete = events.send(shard, downstream).await;
            return Ok(events.relayed(downstream, complete));
        }
        match watch.review() {
            Review::Continue => events.keep_alive(shard.timers.now()),
            // The acknowledgement, where there is one, was the first thing that was said.
            Review::Say { .. } => {
                events.put(watch.news());
                watch.told();
            }
            Review::Finish => {
                events.put(watch.farewell());
                events.end();
                let complete = events.send(shard, downstream).await;
                let cut = Some(Reject::GatewayDraining);
                return Ok(Relayed { cut, ..events.relayed(downstream, complete) });
            }
            Review::Cut(reject) => {
                return Ok(Relayed { cut: Some(reject), ..events.relayed(downstream, false) });
            }
        }
    }
}

/// The session that a legacy stream belongs to; it was opened before.
fn session(downstream: &Downstream, exchange: &Exchange) -> Option<SessionMark> {
    let (head, bytes) = downstream.head();
    let sealed = head.field(bytes, Field::McpSessionId).filter(|_| !exchange.is_modern());
    sealed.map(SessionMark::of)
}

/// As often as an answer under way is reviewed.
const TICK: Duration = Duration::from_secs(1);
