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

mod answer;
mod call;
mod cancel;
mod events;
mod farewell;
mod greet;
mod handshake;
mod leg;
mod lists;
mod local;
mod ours;
mod params;
mod reply;
mod resolve;
mod stream;
mod together;
mod turn;

use super::exchange::Exchange;
use crate::http::Method as HttpMethod;
use crate::listener::Downstream;
use crate::mcp::{Listed, Method};
use crate::reject::Reject;
use crate::relay::Relayed;
use crate::shard::Shard;
use greet::Speaker;

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
    let method = exchange.mcp_method();
    if !exchange.is_modern() && method != Some(Method::Initialize) {
        // A session is its owner's, whatever is asked in it (case M12).
        Speaker::of(shard, downstream, exchange)?;
    }
    if exchange.is_stream() {
        return stream::serve(shard, downstream, exchange).await;
    }
    if exchange.method == HttpMethod::Delete {
        return local::end_session(shard, downstream, exchange).await;
    }
    // What a client answers: nothing asks it yet.
    let method = method.ok_or(Reject::GatewayNotBuilt)?;
    if let Some(listed) = Listed::of(method) {
        return lists::serve(shard, downstream, exchange, listed).await;
    }
    match method {
        Method::Initialize => handshake::initialize(shard, downstream, exchange).await,
        Method::ServerDiscover => handshake::discover(shard, downstream, exchange).await,
        Method::ToolsCall
        | Method::PromptsGet
        | Method::ResourcesRead
        | Method::CompletionComplete => match call::serve(shard, downstream, exchange).await {
            Err(Reject::RequestAborted) if exchange.is_cancelled() => {
                Ok(answer::cancelled(shard, downstream, exchange).await)
            }
            other => other,
        },
        Method::NotificationsCancelled if !exchange.is_modern() => {
            let speaker = Speaker::of(shard, downstream, exchange)?;
            cancel::serve(shard, downstream, exchange, &speaker).await
        }
        Method::Ping => local::ping(shard, downstream, exchange).await,
        // What is said of requests that no server has sent, and a wish to cancel, which may be left
        // unheard (2025-11-25 basic/utilities/cancellation "Behavior Requirements").
        Method::NotificationsCancelled
        | Method::NotificationsInitialized
        | Method::NotificationsProgress
        | Method::NotificationsRootsListChanged
        | Method::NotificationsTasksStatus => local::noted(shard, downstream, exchange).await,
        // Not offered in any handshake of ours.
        Method::LoggingSetLevel
        | Method::ResourcesSubscribe
        | Method::ResourcesUnsubscribe
        | Method::TasksCancel
        | Method::TasksGet
        | Method::TasksList
        | Method::TasksResult
        | Method::TasksUpdate
        | Method::Extension(_)
        | Method::Unknown => Err(not_offered(exchange)),
        Method::PromptsList
        | Method::ResourcesList
        | Method::ResourcesTemplatesList
        | Method::SubscriptionsListen
        | Method::ToolsList => Err(Reject::GatewayFault),
    }
}

fn not_offered(exchange: &Exchange) -> Reject {
    if exchange.is_modern() { Reject::RpcMethodModern } else { Reject::RpcMethodLegacy }
}
