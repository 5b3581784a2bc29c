//! How a refusal leaves: one answer, then the connection goes on or ends.

use std::pin::pin;
use std::time::Duration;

use super::exchange::Exchange;
use super::{Turn, panicked, route};
use crate::fault::{self, Stage};
use crate::http::Method;
use crate::identity::challenge::{self, StepUp};
use crate::listener::Downstream;
use crate::listener::answer::Refusal;
use crate::mcp::{Kind, MODERN_REVISIONS};
use crate::net::{Panicked, catch_unwind};
use crate::reject::Reject;
use crate::shard::Shard;

/// Refuses a request whose head could not be read, or that finds no place. The connection ends.
pub(super) async fn unread(shard: &Shard, downstream: &mut Downstream, reject: Reject) -> Turn {
    let mut exchange = Exchange::begin(shard, downstream);
    let answered = {
        let answering = pin!(write(shard, downstream, &mut exchange, reject, false));
        catch_unwind(answering).await
    };
    match answered {
        Ok(_) => {
            exchange.record(shard, Some(reject));
            Turn::Close
        }
        Err(Panicked) => panicked(shard, exchange),
    }
}

/// Writes the refusal. True when the connection can carry another request.
pub(super) async fn answer(
    shard: &Shard,
    downstream: &mut Downstream,
    exchange: &mut Exchange,
    reject: Reject,
) -> bool {
    write(shard, downstream, exchange, reject, !breaks_framing(reject)).await
}

/// `may_keep` = nothing but the request itself speaks against another one after it.
async fn write(
    shard: &Shard,
    downstream: &mut Downstream,
    exchange: &mut Exchange,
    reject: Reject,
    may_keep: bool,
) -> bool {
    fault::point(Stage::Answer, downstream.head().1);
    let config = &exchange.world.snapshot.config;
    let limits = &config.limits;
    let head_known = !downstream.head().1.is_empty();
    let keep = may_keep
        && head_known
        && downstream.head().0.keep_alive()
        && !shard.draining()
        && downstream.body_is_short();
    let (mut challenge, mut scope, mut acr) = (Vec::new(), String::new(), String::new());
    challenge::write(
        &mut challenge,
        reject.challenge(),
        &config.public_url,
        exchange.resource(),
        &lacking(exchange, &mut scope, &mut acr),
    );
    let mut data = Vec::new();
    revision_data(exchange, reject, &mut data);
    let refusal = Refusal {
        reject,
        id: answerable_id(exchange),
        challenge: &challenge,
        data: &data,
        retry_after: exchange.exceeded.map(|exceeded| exceeded.retry_after_seconds),
        origin: route::cors_origin(downstream, config),
        close: !keep,
        no_content: head_known && exchange.method == Method::Head,
        allow: route::allowed_methods(downstream),
    };
    let mut out = Vec::with_capacity(1024);
    let status = refusal.write(&mut out);
    exchange.outcome.status = Some(status);
    exchange.outcome.bytes_out = out.len() as u64;
    let until = shard.timers.now().after(Duration::from_millis(limits.stall_ms_max));
    let (written, _) = downstream.write(out, until).await;
    keep && written
}

/// What a step-up asks for, its lists joined with single spaces (RFC 6749 §3.3).
fn lacking<'a>(exchange: &Exchange, scope: &'a mut String, acr: &'a mut String) -> StepUp<'a> {
    let Some(lacks) = exchange.step_up.as_deref() else { return StepUp::default() };
    *scope = lacks.scopes.join(" ");
    *acr = lacks.acr.join(" ");
    StepUp { scope, acr_values: acr, max_age: lacks.max_age }
}

/// The id to echo. Of a message that was read, only requests are answered in JSON-RPC; of one that
/// was refused while reading, whatever id it had (JSON-RPC 2.0 §5).
fn answerable_id(exchange: &Exchange) -> Option<&[u8]> {
    if let Some(id) = exchange.hub.as_ref().and_then(|hub| hub.id.as_deref()) {
        return Some(id);
    }
    let call = &exchange.scratch.call;
    let answerable = exchange.read_failed || (exchange.call_read && call.kind() == Kind::Request);
    if answerable { call.id_raw(&exchange.scratch.body) } else { None }
}

/// MCP 2026-07-28, basic/versioning: an unsupported revision is answered with what is supported.
fn revision_data(exchange: &Exchange, reject: Reject, out: &mut Vec<u8>) {
    if reject != Reject::RpcVersion {
        return;
    }
    let requested = exchange.scratch.call.requested().unwrap_or_default();
    let supported = serde_json::json!(MODERN_REVISIONS).to_string();
    let requested = serde_json::json!(requested).to_string();
    out.extend_from_slice(b",\"supported\":");
    out.extend_from_slice(supported.as_bytes());
    out.extend_from_slice(b",\"requested\":");
    out.extend_from_slice(requested.as_bytes());
}

/// After these, where the next request begins is not known, or nobody should care. Not among them
/// is `GatewayOverloaded`: a request without a place among those in flight is [`unread`], and one
/// whose token could not be verified in time may well be followed by one whose token is known.
fn breaks_framing(reject: Reject) -> bool {
    matches!(
        reject,
        Reject::RequestMalformed
            | Reject::RequestClTe
            | Reject::RequestFraming
            | Reject::RequestTransferCoding
            | Reject::RequestVersion
            | Reject::RequestTimeout
            | Reject::RequestHeadTooLarge
            | Reject::RequestTargetTooLong
            | Reject::RequestBodyTooLarge
            | Reject::RequestExpectation
            | Reject::RequestHost
            | Reject::RequestHostForeign
            | Reject::RequestAborted
            | Reject::GatewayDraining
            | Reject::GatewayFault
    )
}
