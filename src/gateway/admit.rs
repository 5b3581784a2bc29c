//! Between a decision and the relay: how often, with which credential, and the record first.

use std::rc::Rc;

use super::exchange::{CredentialUsed, Exchange};
use crate::audit::Decision;
use crate::credential::UpstreamCredential;
use crate::http::Method as HttpMethod;
use crate::mcp::{Kind, Method};
use crate::policy::Permit;
use crate::quota::Asker;
use crate::reject::Reject;
use crate::shard::Shard;

impl Exchange {
    /// Stage 5, second half: how often. After the decision, so that nobody who is denied uses up
    /// what others are granted. Answers of the client and the end of a session are free: both end
    /// something.
    #[inline]
    pub(super) fn admit(&mut self, shard: &Shard) -> Result<(), Reject> {
        if self.world.snapshot.config.rate_limits.is_empty() {
            Ok(())
        } else {
            self.count_for_limits(shard)
        }
    }

    fn count_for_limits(&mut self, shard: &Shard) -> Result<(), Reject> {
        let limits = &self.world.snapshot.config.rate_limits;
        let is_answer = self.call_read && self.scratch.call.kind() == Kind::Response;
        if is_answer || self.method == HttpMethod::Delete {
            return Ok(());
        }
        let method = self.mcp_method();
        let token = self.token.as_deref().ok_or(Reject::GatewayFault)?;
        let principal = token.principal();
        let calls = method == Some(Method::ToolsCall);
        let asker = Asker {
            user: principal.user(),
            agent: principal.agent(),
            server: &self.scratch.server,
            tool: self.scratch.call.name().filter(|_| calls),
        };
        let admitted = shard.quota.admit(limits, &asker, shard.clock.monotonic());
        admitted.map_err(|exceeded| {
            self.exceeded = Some(exceeded);
            let handshake = method.is_some_and(Method::is_handshake);
            if handshake { Reject::QuotaHandshake } else { Reject::QuotaExceeded }
        })
    }

    /// Stage 6: the credential for the server.
    pub(super) fn obtain(
        &mut self,
        shard: &Shard,
        permit: &Permit,
    ) -> Result<Option<Rc<UpstreamCredential>>, Reject> {
        // The last look before a secret is fetched: the permit is this caller's.
        let token = self.token.as_deref().ok_or(Reject::GatewayFault)?;
        if permit.identity() != token.principal().digest() {
            return Err(Reject::GatewayFault);
        }
        if shard.ablation.no_credential() {
            return Ok(None);
        }
        let snapshot = &self.world.snapshot;
        let now = shard.clock.monotonic();
        let (credential, cache) = shard.credentials.obtain(
            &snapshot.config,
            snapshot.config_generation,
            permit.credential(),
            permit.server(),
            now,
        )?;
        shard.count_credential(cache);
        self.credential = permit.credential().map(|index| CredentialUsed { index, cache });
        Ok(credential)
    }

    /// Stage 7: the decision is kept before the upstream hears of it.
    pub(super) fn commit(&mut self, shard: &Shard) -> Result<(), Reject> {
        if self.ticket.is_none() && !shard.ablation.no_audit() {
            let ticket = shard.audit.decide(&self.entry(Decision::Permit, None))?;
            self.ticket = Some(ticket);
        }
        self.relay_began = Some(shard.clock.monotonic());
        Ok(())
    }
}
