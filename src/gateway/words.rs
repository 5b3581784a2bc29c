//! What the gateway itself says on an open stream. Made before the stream begins, because the
//! request's body is the relay's from then on; empty for all else, which costs nothing.

use super::exchange::Exchange;
use crate::http::Method as HttpMethod;
use crate::mcp::Method;

/// Whole events, or nothing.
#[derive(Default)]
pub(super) struct Words {
    /// With which the stream ends when the gateway leaves.
    pub(super) farewell: Vec<u8>,
    /// That what the agent may see has changed.
    pub(super) news: Vec<u8>,
}

impl Words {
    pub(super) fn of(exchange: &Exchange) -> Self {
        if exchange.method == HttpMethod::Get {
            let mut news = Vec::new();
            LISTS.iter().for_each(|list| changed(list, None, &mut news));
            return Self { news, ..Self::default() };
        }
        if exchange.mcp_method() != Some(Method::SubscriptionsListen) {
            return Self::default();
        }
        let id = exchange.scratch.call.id_raw(&exchange.scratch.body);
        id.map(|id| Self { farewell: farewell(id), news: news(exchange, id) }).unwrap_or_default()
    }
}

/// What a listen on `/mcp` is told first (MCP 2026-07-28, patterns, "Subscriptions"): which of what
/// it asked for it will hear of. Empty for all else.
pub(super) fn acknowledgement(exchange: &Exchange) -> Vec<u8> {
    let mut event = Vec::new();
    if exchange.mcp_method() != Some(Method::SubscriptionsListen) {
        return event;
    }
    let Some(id) = exchange.scratch.call.id_raw(&exchange.scratch.body) else { return event };
    let asked = exchange.scratch.call.listens_for();
    event.extend_from_slice(b"event: message\ndata: {\"jsonrpc\":\"2.0\",\"method\":");
    event.extend_from_slice(b"\"notifications/subscriptions/acknowledged\",\"params\":{\"_meta\":");
    event.extend_from_slice(b"{\"io.modelcontextprotocol/subscriptionId\":");
    event.extend_from_slice(id);
    event.extend_from_slice(b"},\"notifications\":{");
    let wanted = LISTS.iter().zip([asked.tools, asked.prompts, asked.resources]);
    for (count, (list, _)) in wanted.filter(|(_, wanted)| *wanted).enumerate() {
        event.extend_from_slice(if count > 0 { b",\"" } else { b"\"" });
        event.extend_from_slice(list.as_bytes());
        event.extend_from_slice(b"ListChanged\":true");
    }
    event.extend_from_slice(b"}}}\n\n");
    event
}

/// MCP 2026-07-28, patterns, "Subscriptions": a server that ends a listen stream in an orderly way
/// says so with the result of the request, or the client takes it for a loss.
fn farewell(id: &[u8]) -> Vec<u8> {
    let mut event = Vec::new();
    event.extend_from_slice(b"event: message\ndata: {\"jsonrpc\":\"2.0\",\"id\":");
    event.extend_from_slice(id);
    event.extend_from_slice(b",\"result\":{\"resultType\":\"complete\",\"_meta\":");
    event.extend_from_slice(b"{\"io.modelcontextprotocol/subscriptionId\":");
    event.extend_from_slice(id);
    event.extend_from_slice(b"}}}\n\n");
    event
}

/// A listen hears of the lists that it asked for, and of no others.
fn news(exchange: &Exchange, id: &[u8]) -> Vec<u8> {
    let asked = exchange.scratch.call.listens_for();
    let mut events = Vec::new();
    for (list, wanted) in LISTS.iter().zip([asked.tools, asked.prompts, asked.resources]) {
        if wanted {
            changed(list, Some(id), &mut events);
        }
    }
    events
}

/// `notifications/…/list_changed`, for the subscription of this id in the modern era.
fn changed(list: &str, subscription: Option<&[u8]>, out: &mut Vec<u8>) {
    out.extend_from_slice(
        b"event: message\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/",
    );
    out.extend_from_slice(list.as_bytes());
    out.extend_from_slice(b"/list_changed\"");
    if let Some(id) = subscription {
        out.extend_from_slice(b",\"params\":{\"_meta\":");
        out.extend_from_slice(b"{\"io.modelcontextprotocol/subscriptionId\":");
        out.extend_from_slice(id);
        out.extend_from_slice(b"}}");
    }
    out.extend_from_slice(b"}\n\n");
}

/// In the order of `ListChanges`.
const LISTS: [&str; 3] = ["tools", "prompts", "resources"];
