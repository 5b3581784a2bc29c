//! What audit and metrics say of a request: one record, whatever came of it.

use super::exchange::{CredentialUsed, Exchange};
use crate::address::Country;
use crate::audit::{
    CredentialCache, CredentialUse, Decision, EVENT_LEG, Entry, List, Name, TokenReference,
    trace_id,
};
use crate::config::Config;
use crate::credential::CacheOutcome;
use crate::identity::VerifiedToken;
use crate::mcp::{Call, Method, Target};
use crate::metrics;
use crate::reject::Reject;
use crate::relay::Relayed;
use crate::shard::Shard;

impl Exchange {
    /// Stage 8, its result.
    pub(super) fn relayed(&mut self, relayed: &Relayed) {
        self.outcome.status = Some(relayed.status);
        self.outcome.bytes_out = relayed.bytes_out;
        // A client that left is no fault of the upstream, but the record says that it did.
        let left = relayed.client_left.then_some(Reject::RequestAborted);
        self.outcome.reason = relayed.cut.or(left);
    }

    /// The one record of this request, and its numbers.
    pub(super) fn record(mut self, shard: &Shard, refused: Option<Reject>) {
        let now = shard.clock.monotonic();
        self.outcome.duration_us = now.micros_since(self.started.mono);
        let until = self.relay_began.unwrap_or(now);
        self.outcome.overhead_us = Some(until.micros_since(self.started.mono));
        let decision = match refused {
            None => Decision::Permit,
            // A 503 only in form: it was refused on purpose.
            Some(Reject::QuotaHandshake) => Decision::Deny,
            Some(reject) if reject.status() >= 500 => Decision::Error,
            Some(_) => Decision::Deny,
        };
        let recorded = match self.ticket.take() {
            Some(ticket) => {
                self.outcome.reason = self.outcome.reason.or(refused);
                shard.audit.complete(ticket, &self.outcome);
                // What failed afterwards does not undo the decision; the reason says what did.
                Decision::Permit
            }
            None if shard.ablation.no_audit() => decision,
            None => {
                shard.audit.refuse(&self.entry(decision, refused), &self.outcome);
                decision
            }
        };
        if self.event != EVENT_LEG {
            self.count(shard, recorded, refused);
        }
        if !self.broken {
            shard.release_scratch(self.scratch);
        }
        // Moved out: whoever has no session pays for this what letting go of none costs anyway.
        // On /mcp the agent's session is not that of one server, whose end does not end it.
        if let Some(session) = self.session
            && self.hub.is_none()
        {
            session.settle(shard, self.method, self.outcome.upstream_status);
        }
    }

    fn count(&self, shard: &Shard, decision: Decision, refused: Option<Reject>) {
        let decision = match decision {
            Decision::Permit => metrics::Decision::Permit,
            Decision::Deny => metrics::Decision::Deny,
            Decision::Error => metrics::Decision::Error,
        };
        let method = self.mcp_method().map_or(METHOD_NONE, Method::id);
        let status = self.outcome.status.unwrap_or(0);
        shard.meter.request(self.metered_server(shard), method, decision, status);
        if let Some(reject) = refused.or(self.outcome.reason) {
            shard.meter.refusal(reject);
        }
        let counters = shard.meter.counters();
        counters.duration.record(self.outcome.duration_us);
        counters.overhead.record(self.outcome.overhead_us.unwrap_or_default());
        if self.would_deny.is_some() {
            counters.shadow_denials.add(1);
        }
        if let Some(list) = self.outcome.list {
            counters.items_shown.add(list.shown.into());
            counters.items_hidden.add(list.upstream.saturating_sub(list.shown).into());
        }
    }

    /// The server's index as the meter knows it: after a reload it may be another's.
    fn metered_server(&self, shard: &Shard) -> Option<u16> {
        let newest = shard.world();
        if newest.snapshot.config_generation == self.world.snapshot.config_generation {
            self.server
        } else {
            newest.server(&self.scratch.server)
        }
    }

    pub(super) fn entry(&self, decision: Decision, reason: Option<Reject>) -> Entry<'_> {
        let call = self.call_read.then_some(&self.scratch.call);
        let principal = self.token.as_deref().map(VerifiedToken::principal);
        let config = &self.world.snapshot.config;
        Entry {
            event: self.event,
            reason,
            policies: self.policies.as_deref().map(List::Shared),
            epoch: Some(self.world.snapshot.policy.epoch()),
            user: principal.and_then(|principal| principal.user()),
            issuer: principal.map(|principal| principal.issuer()),
            groups: principal.map(|principal| List::Strings(principal.groups())),
            agent: principal.map(|principal| principal.agent()),
            server: (!self.scratch.server.is_empty()).then_some(self.scratch.server.as_str()),
            method: self.mcp_method().map(|_| self.scratch.call.method_name()),
            name: call.and_then(audit_name),
            revision: call.and_then(Call::revision),
            credential: self.credential.as_ref().and_then(|used| used.describe(config)),
            source_ip: self.source,
            trace_id: call.and_then(Call::traceparent).and_then(trace_id),
            token: self
                .token
                .as_deref()
                .map(|token| TokenReference::from_digest(token.fingerprint())),
            country: self.country.as_ref().map(Country::as_str),
            would_deny: self.would_deny.as_deref().map(List::Shared),
            leg_of: self.hub.as_ref().and_then(|hub| hub.leg_of),
            limit: self.exceeded.and_then(|it| limit_name(config, it.limit)),
            ..Entry::new(self.started.wall, decision)
        }
    }
}

impl CredentialUsed {
    fn describe<'c>(&self, config: &'c Config) -> Option<CredentialUse<'c>> {
        let credential = config.credentials.get(self.index)?;
        let cache = match self.cache {
            CacheOutcome::Hit => CredentialCache::Hit,
            CacheOutcome::Miss => CredentialCache::Miss,
            CacheOutcome::None => CredentialCache::None,
        };
        Some(CredentialUse { provider: &credential.name, kind: credential.kind.word(), cache })
    }
}

fn limit_name(config: &Config, limit: usize) -> Option<&str> {
    config.rate_limits.get(limit).map(|limit| limit.name.as_str())
}

fn audit_name(call: &Call) -> Option<Name<'_>> {
    if let Some(task) = call.task_id() {
        return Some(Name::Task(task));
    }
    let resource = call.targets().any(|target| matches!(target, Target::Resource(_)));
    call.name().map(if resource { Name::Uri } else { Name::Plain })
}

/// The dense number of "no MCP method" in metrics.
const METHOD_NONE: u8 = u8::MAX;
