//! The legacy sessions of `/mcp/{server}`: opened with a request, over when their server says so.

use super::exchange::Exchange;
use crate::http::{Field, Method as HttpMethod};
use crate::identity::VerifiedToken;
use crate::listener::Downstream;
use crate::mcp::session::Binding;
use crate::reject::Reject;
use crate::shard::Shard;

/// A legacy session, as the upstream knows it and as the agent does.
pub(super) struct Session {
    pub(super) upstream: Vec<u8>,
    pub(super) sealed: Vec<u8>,
}

impl Exchange {
    /// A legacy session id is opened for its owner only (case M12); modern requests have none, and
    /// one that is sent all the same is ignored (MCP 2026-07-28, transports, "Earlier Revisions").
    pub(super) fn open_session(
        &mut self,
        shard: &Shard,
        downstream: &Downstream,
    ) -> Result<(), Reject> {
        let (head, bytes) = downstream.head();
        let Some(sealed) = head.field(bytes, Field::McpSessionId) else { return Ok(()) };
        if self.is_modern() {
            return Ok(());
        }
        let token = self.token.as_ref().ok_or(Reject::GatewayFault)?;
        let now = self.judged.wall.seconds();
        let binding = binding(token, &self.scratch.server);
        let lifetime = self.world.snapshot.config.sessions.lifetime_seconds;
        let upstream = self.world.keyring.open_session(sealed, &binding, now, lifetime)?;
        if shard.hub.ended.hold(sealed) {
            return Err(Reject::SessionUnknown);
        }
        self.session = Some(Session { upstream, sealed: sealed.to_vec() });
        Ok(())
    }
}

impl Session {
    /// What the upstream's answer means for our id (2025-11-25 transports, "Session Management").
    /// Its client ended the session, and it did (2xx), had (404) or leaves it to time (405); or it
    /// knows the session no more, which a 404 says to whatever was asked within it.
    pub(super) fn settle(self, shard: &Shard, method: HttpMethod, upstream_status: Option<u16>) {
        let over = match upstream_status {
            Some(404) => true,
            Some(200..=299 | 405) => method == HttpMethod::Delete,
            Some(_) | None => false,
        };
        if over {
            shard.end_session(&self.sealed);
        }
    }
}

/// Whose session it is; the same values seal and open it.
pub(super) fn binding<'a>(token: &'a VerifiedToken, server: &'a str) -> Binding<'a> {
    let principal = token.principal();
    Binding {
        issuer: principal.issuer(),
        subject: principal.subject(),
        agent: principal.agent(),
        server,
    }
}
