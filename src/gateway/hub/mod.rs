//! The way of a request to `/mcp`, where many servers look like one.
//!
//! Nothing here decides anew what is decided elsewhere. Whatever goes to a server, a part of the
//! agent's own message or one that we wrote, is a message that is read and judged like any other:
//! as an [`Exchange`] that names the server, with a body that is the very one that will be sent.
//! A request that has one server *turns to* it ([`Exchange::turn_to`]) and is recorded as the one
//! request that it is. A request that needs several has a [leg](Exchange::leg) for each, with a
//! decision, a quota, a credential and a record of its own (event `leg`, which names the request's
//! record).
//!
//! So the rule of `/mcp/{server}` holds: what was judged is what is sent, and nothing is sent that
//! was not judged.

mod events;
mod stream;
#[expect(dead_code, reason = "the calls and lists of the hub use it next")]
mod turn;

use super::exchange::Exchange;
use crate::listener::Downstream;
use crate::reject::Reject;
use crate::relay::Relayed;
use crate::shard::Shard;

/// Serves a request that came to `/mcp`: the token is verified, the message read, nothing decided.
///
/// # Errors
/// [`Reject::PolicyDenied`] and [`Reject::PolicyStepUp`] for who may not connect; whatever else
/// the message comes to.
pub(super) async fn serve(
    shard: &Shard,
    downstream: &mut Downstream,
    exchange: &mut Exchange,
) -> Result<Relayed, Reject> {
    exchange.connect(shard).await?;
    if exchange.is_stream() {
        return stream::serve(shard, downstream, exchange).await;
    }
    Err(Reject::GatewayNotBuilt)
}
