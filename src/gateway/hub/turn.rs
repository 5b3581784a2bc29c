//! From the hub to one server: the exchange, or a leg of it, becomes one with that server.

use std::rc::Rc;

use crate::audit::{EVENT_LEG, Outcome, Ticket};
use crate::gateway::exchange::{AtHub, Exchange};
use crate::gateway::{ask, decide};
use crate::http::Method as HttpMethod;
use crate::mcp::Mirrored;
use crate::policy::Permit;
use crate::reject::Reject;
use crate::shard::Shard;
use crate::world::Reading;

impl Exchange {
    /// Whether the gateway may be used at all: before anything is looked for, so that a principal
    /// without `connect` learns nothing about what there is.
    ///
    /// # Errors
    /// [`Reject::PolicyDenied`], [`Reject::PolicyStepUp`], [`Reject::PolicyUnavailable`].
    pub(super) async fn connect(&mut self, shard: &Shard) -> Result<(), Reject> {
        self.country = decide::locate(&self.world, self.source);
        let now = self.judged.wall.seconds();
        let decided = if self.asks() {
            let asked = Box::pin(ask::connect(shard, &self.world, self, now)).await;
            shard.drain_bus();
            if !self.world.decides_as(&shard.world()) {
                // What was answered under rules that no longer hold counts for nothing.
                return Err(Reject::PolicyUnavailable);
            }
            asked.map(|()| (Rc::from([]), None))
        } else {
            let connected = decide::connect(shard, &self.world, self, now);
            connected.map(|connected| (connected.policies_shared(), connected.would_deny))
        };
        match decided {
            Ok((policies, would_deny)) => {
                (self.policies, self.would_deny) = (Some(policies), would_deny);
                Ok(())
            }
            Err(denial) => {
                (self.policies, self.step_up) = (Some(denial.policies), denial.step_up);
                Err(denial.reject)
            }
        }
    }

    /// [`Exchange::connect`] once more, by the newest rules: servers were asked meanwhile, which
    /// may have taken a while.
    ///
    /// # Errors
    /// As there; what the token came to.
    pub(super) async fn connect_still(&mut self, shard: &Shard) -> Result<(), Reject> {
        shard.drain_bus();
        let newest = shard.world();
        let (token, now) = (self.token.as_deref().ok_or(Reject::GatewayFault)?, shard.clock.now());
        token.judge_time(now.wall.seconds())?;
        if !decide::still_trusted(&self.world, &newest, token, true) {
            return Err(Reject::TokenIssuer);
        }
        decide::key_holds(&newest, token, now.mono)?;
        (self.world, self.judged) = (newest, now);
        self.connect(shard).await
    }

    /// Makes this the request to `server` (index in the world of the exchange) that `body` is, sent
    /// with the headers `sent`. Both are read and compared as if an agent had sent them, with what
    /// the policies of this server and tool look at. Answers go on to carry the agent's own id.
    ///
    /// # Errors
    /// Those of reading a message: then `body` was not one that may be sent.
    pub(super) fn turn_to(
        &mut self,
        server: u16,
        body: Vec<u8>,
        sent: &Mirrored<'_>,
    ) -> Result<(), Reject> {
        let id = self.scratch.call.id_raw(&self.scratch.body).map(<[u8]>::to_vec);
        if let Some(hub) = &mut self.hub
            && hub.id.is_none()
        {
            hub.id = id;
        }
        self.scratch.body = body;
        self.name(server)?;
        self.read_own(sent)
    }

    /// A request to `server` that is a part of this one: of the same principal, from the same
    /// place, judged by the same rules, or not at all once there are others. `body` and `sent` as
    /// with [`Exchange::turn_to`].
    ///
    /// # Errors
    /// Those of [`Exchange::stands`]; those of reading a message: then `body` was not one that may
    /// be sent.
    pub(super) fn leg(
        &self,
        shard: &Shard,
        server: u16,
        body: Vec<u8>,
        sent: &Mirrored<'_>,
    ) -> Result<Self, Reject> {
        let mut leg = self.begin_leg(shard, HttpMethod::Post);
        leg.scratch.body = body;
        leg.stands(shard)?;
        leg.name(server)?;
        leg.read_own(sent)?;
        Ok(leg)
    }

    /// The end of our session with `server`, as a part of the end of the agent's own.
    ///
    /// # Errors
    /// `GatewayFault` without such a server.
    pub(super) fn farewell(&self, shard: &Shard, server: u16) -> Result<Self, Reject> {
        let mut leg = self.begin_leg(shard, HttpMethod::Delete);
        leg.stands(shard)?;
        leg.name(server)?;
        Ok(leg)
    }

    fn begin_leg(&self, shard: &Shard, method: HttpMethod) -> Self {
        Self {
            world: Rc::clone(&self.world),
            scratch: shard.take_scratch(),
            token: self.token.as_ref().map(Rc::clone),
            method,
            server: None,
            source: self.source,
            started: shard.clock.now(),
            judged: self.judged,
            kept_since: None,
            relay_began: None,
            call_read: false,
            read_failed: false,
            session: None,
            hub: Some(Box::new(AtHub {
                leg_of: self.ticket.as_ref().and_then(Ticket::seq),
                ..AtHub::default()
            })),
            event: EVENT_LEG,
            policies: None,
            would_deny: None,
            exceeded: None,
            step_up: None,
            country: self.country,
            credential: None,
            ticket: None,
            outcome: Outcome::default(),
            broken: false,
        }
    }

    /// Stage 5 for a message that [`Exchange::turn_to`] or [`Exchange::leg`] read: `connect` again,
    /// and everything that the message names on its server.
    ///
    /// # Errors
    /// The denial. To whoever asked `/mcp`, a server that is denied is one that is not there.
    pub(super) async fn judge(&mut self, shard: &Shard) -> Result<Permit, Reject> {
        if self.asks() {
            Box::pin(self.ask_once(shard)).await.unwrap_or(Err(Reject::PolicyUnavailable))
        } else {
            self.decide(shard)
        }
    }

    fn name(&mut self, server: u16) -> Result<(), Reject> {
        let known = self.world.snapshot.config.servers.get(usize::from(server));
        let name = &known.ok_or(Reject::GatewayFault)?.name;
        self.scratch.server.clear();
        self.scratch.server.push_str(name);
        self.server = Some(server);
        Ok(())
    }

    fn read_own(&mut self, sent: &Mirrored<'_>) -> Result<(), Reject> {
        let known = Reading { world: &self.world, server: self.server };
        let scratch = &mut *self.scratch;
        let read = scratch.call.read_by(&scratch.body, &known);
        let agreed = read.and_then(|()| scratch.call.agree(sent));
        self.call_read = agreed.is_ok();
        agreed
    }
}
