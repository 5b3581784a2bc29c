//! Carries one permitted request to its MCP server and the answer back.
//!
//! Nothing is relayed without a [`Permit`], which `forward` takes by value: one permit, one relayed
//! request. Towards the server go allow-listed fields and the credential, never the agent's own
//! authorization; towards the agent go allow-listed fields, never the server's secrets.

mod events;
mod list;
mod oversight;
mod pump;
mod request;
mod response;
mod send;
mod talk;
mod transfer;

use crate::clock::Monotonic;
use crate::config::Server;
use crate::control::Upstream;
use crate::core_cell::CoreCell;
use crate::credential::UpstreamCredential;
use crate::fault::{self, Stage};
use crate::http::{Method, ResponseHead};
use crate::limits::{LONG_BUFFER_BYTES, Limits, RELAY_BUFFER_BYTES};
use crate::listener::Downstream;
use crate::net::pool::Pool;
use crate::net::{Buffers, Timers};
use crate::policy::Permit;
use crate::reject::Reject;

pub use oversight::{Filter, Oversight, Review};
use send::{NoAnswer, key};
pub use talk::{Asked, Blind, Eye, Heard, OwnHead, Talk};

/// What one core needs to relay.
pub struct Relay {
    timers: Timers,
    pool: Pool<PoolKey>,
    buffers: Buffers,
    /// For bodies that are longer than one of those.
    long: Buffers,
    /// Readers of response heads, which keep their memory.
    heads: CoreCell<Vec<ResponseHead>>,
    /// Requests under way per server.
    active: CoreCell<Vec<u64>>,
}

/// Idle connections are shared only within one server and one credential: some servers bind
/// identity to the connection.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct PoolKey {
    server: usize,
    credential: Option<usize>,
    /// Grows with every configuration, so that a changed server is dialled anew.
    generation: u64,
}

/// Where a judged request goes.
#[derive(Clone, Copy)]
pub struct To<'a> {
    /// The server.
    pub server: &'a Server,
    /// Its index; must be the permit's.
    pub server_index: usize,
    /// Its checked addresses.
    pub upstream: &'a Upstream,
    /// Generation of the configuration that `server` is from.
    pub generation: u64,
    /// Written into the head, and nowhere else; `None` when the server gets none.
    pub credential: Option<&'a UpstreamCredential>,
    /// Which one it is, for keeping connections of different accounts apart; must be the permit's.
    pub credential_index: Option<usize>,
    /// Time to connect.
    pub limits: &'a Limits,
}

impl To<'_> {
    /// The one check that pairs what was judged with where it goes and what goes along; a mismatch
    /// is our own fault.
    fn paired(&self, permit: &Permit) -> Result<(), Reject> {
        let paired =
            permit.server() == self.server_index && permit.credential() == self.credential_index;
        if paired { Ok(()) } else { Err(Reject::GatewayFault) }
    }
}

/// One request on its way, as judged.
pub struct Leg<'a> {
    /// Where it goes.
    pub to: To<'a>,
    /// `Post`, `Get` or `Delete`.
    pub method: Method,
    /// The agent's body, byte for byte.
    pub body: &'a mut Vec<u8>,
    /// The upstream's own session id, opened from the sealed one.
    pub session: Option<&'a [u8]>,
    /// A client that leaves cancels the request (MCP 2026-07-28, transports, "Cancellation"); a
    /// legacy POST goes on without it (2025-11-25, transports, "Sending Messages").
    pub cancel_on_leave: bool,
    /// May be sent a second time when a pooled connection turns out to be dead.
    pub retryable: bool,
    /// Allowed foreign origin for CORS; empty for none.
    pub origin: &'a [u8],
}

/// What was relayed.
#[derive(Debug, Default)]
pub struct Relayed {
    /// Status that the agent saw.
    pub status: u16,
    /// Body bytes towards the agent.
    pub bytes_out: u64,
    /// Why the answer ended early, if it did.
    pub cut: Option<Reject>,
    /// The agent left before the end.
    pub client_left: bool,
    /// The agent's connection can carry another request.
    pub reusable: bool,
    /// The answer has no framing of its own: it ends where the connection does (HTTP/1.0).
    pub ends_by_close: bool,
}

/// Nothing was written to the agent yet, so the refusal can still be answered.
pub struct Failed {
    /// Why.
    pub reject: Reject,
    /// The upstream's status, when it answered.
    pub upstream_status: Option<u16>,
    /// Present when the upstream refused the credential before acting (401): one more try is
    /// allowed, by a decision of its own.
    pub permit: Option<Permit>,
}

impl From<Reject> for Failed {
    fn from(reject: Reject) -> Self {
        Self { reject, upstream_status: None, permit: None }
    }
}

impl Relay {
    /// A relay without connections.
    #[must_use]
    pub fn new(timers: Timers, idle_per_server_max: usize) -> Self {
        Self {
            timers,
            pool: Pool::new(idle_per_server_max),
            buffers: Buffers::keeping(RELAY_BUFFER_BYTES, KEPT_MAX),
            long: Buffers::keeping(LONG_BUFFER_BYTES, LONG_KEPT_MAX),
            heads: CoreCell::default(),
            active: CoreCell::default(),
        }
    }

    /// Sends the request and streams the answer to `downstream`.
    ///
    /// # Errors
    /// [`Failed`] when nothing was written to the agent.
    pub async fn forward(
        &self,
        permit: Permit,
        mut leg: Leg<'_>,
        downstream: &mut Downstream,
        oversight: &impl Oversight,
    ) -> Result<Relayed, Failed> {
        leg.to.paired(&permit)?;
        let _active = Active::begin(&self.active, leg.to.server_index);
        let (mut stream, pooled) = self.connect(&leg.to, true, NEVER).await?;
        fault::point(Stage::Relay, downstream.head().1);
        let first = self.exchange(&mut stream, &mut leg, downstream, oversight).await;
        let mut answered = match first {
            // RFC 9110 §9.2.2: only what is safe to repeat, only when not one byte came back.
            Err(NoAnswer::Silent) if pooled && leg.retryable => {
                (stream, _) = self.connect(&leg.to, false, NEVER).await?;
                self.exchange(&mut stream, &mut leg, downstream, oversight).await
            }
            other => other,
        }
        .map_err(NoAnswer::reject)?;
        if answered.head.status() == 401 {
            self.give(answered.input);
            self.release_head(answered.head);
            return Err(Failed {
                reject: Reject::UpstreamAuth,
                upstream_status: Some(401),
                permit: Some(permit),
            });
        }
        let streamed = answered.stream_to(&mut stream, &leg, downstream, oversight, self).await;
        let relayed = streamed.map_err(|reject| Failed {
            upstream_status: Some(answered.head.status()),
            ..Failed::from(reject)
        })?;
        if answered.connection_reusable() {
            let now = self.timers.now();
            self.pool.put(key(&leg.to), stream, now);
        }
        self.give(answered.input);
        self.release_head(answered.head);
        Ok(relayed)
    }

    /// Shows `(server, active, idle)` of every server that has or had connections, for the metrics.
    pub fn connections(&self, mut see: impl FnMut(u16, u64, u64)) {
        let mut idle: Vec<u64> = Vec::new();
        self.pool.for_each(|key, count| add(&mut idle, key.server, count as u64));
        let active = self.active.with(|active| active.clone());
        for (server, index) in (0_u16..).zip(0..idle.len().max(active.len())) {
            let of = |list: &[u64]| list.get(index).copied().unwrap_or_default();
            see(server, of(&active), of(&idle));
        }
    }

    /// Gives the relay a connection as if it had just carried a request.
    #[cfg(feature = "bench-internals")]
    pub fn keep_idle(
        &self,
        server: usize,
        credential: Option<usize>,
        generation: u64,
        stream: crate::net::Stream,
    ) {
        self.pool.put(PoolKey { server, credential, generation }, stream, self.timers.now());
    }

    /// Closes what was idle for too long.
    pub fn sweep(&self, now: Monotonic) {
        self.pool.sweep(now);
    }

    /// Forgets every idle connection (new configuration).
    pub fn forget_connections(&self) {
        self.pool.clear();
    }
}

/// One request under way, counted for as long as this lives.
struct Active<'a>(&'a CoreCell<Vec<u64>>, usize);

impl<'a> Active<'a> {
    fn begin(all: &'a CoreCell<Vec<u64>>, server: usize) -> Self {
        all.with(|active| add(active, server, 1));
        Self(all, server)
    }
}

impl Drop for Active<'_> {
    fn drop(&mut self) {
        self.0.with(|active| {
            if let Some(count) = active.get_mut(self.1) {
                *count = count.saturating_sub(1);
            }
        });
    }
}

fn add(counts: &mut Vec<u64>, server: usize, by: u64) {
    if counts.len() <= server {
        counts.resize(server + 1, 0);
    }
    if let Some(count) = counts.get_mut(server) {
        *count += by;
    }
}

const NEVER: Monotonic = Monotonic(u64::MAX);
/// 4 MiB of buffers that nobody uses, per core.
const KEPT_MAX: usize = 128;
const LONG_KEPT_MAX: usize = 16;
