//! The few answers that are not relayed and not refusals.

use super::exchange::Exchange;
use crate::audit::{EVENT_METADATA, EVENT_PREFLIGHT};
use crate::config::Config;
use crate::identity::{Resource, metadata};
use crate::listener::{Downstream, answer};
use crate::reject::Reject;
use crate::relay::Relayed;
use crate::shard::Shard;

/// A finished response.
pub(super) struct Document {
    event: &'static str,
    status: u16,
    bytes: Vec<u8>,
}

/// The protected-resource metadata (RFC 9728 §3) of a path. Every server path of a valid form has
/// one, whether or not there is such a server, so that nobody can list servers by asking.
pub(super) fn metadata(config: &Config, resource: Resource<'_>) -> Document {
    let issuers = config.trust_providers.iter().map(|provider| provider.issuer.as_str());
    let body = metadata::document(&config.public_url, resource, issuers);
    let mut bytes = Vec::with_capacity(512);
    answer::public_document(&body, &mut bytes);
    Document { event: EVENT_METADATA, status: 200, bytes }
}

/// The answer to a CORS preflight.
pub(super) fn preflight(downstream: &Downstream, config: &Config) -> Document {
    let mut bytes = Vec::with_capacity(512);
    answer::preflight(super::route::cors_origin(downstream, config), &mut bytes);
    Document { event: EVENT_PREFLIGHT, status: 204, bytes }
}

/// Writes it. Also such a request leaves a record, under a name of its own: nobody was judged.
pub(super) async fn serve(
    shard: &Shard,
    downstream: &mut Downstream,
    exchange: &mut Exchange,
    document: Document,
) -> Result<Relayed, Reject> {
    exchange.event = document.event;
    exchange.commit(shard)?;
    let limits = &exchange.world.snapshot.config.limits;
    let until = shard.timers.now().after(std::time::Duration::from_millis(limits.stall_ms_max));
    let keep = downstream.head().0.keep_alive();
    let bytes_out = document.bytes.len() as u64;
    let (written, _) = downstream.write(document.bytes, until).await;
    Ok(Relayed {
        status: document.status,
        bytes_out,
        client_left: !written,
        reusable: keep && written,
        ..Relayed::default()
    })
}
