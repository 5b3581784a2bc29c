//! What is known about one request while it goes its way.

use std::net::IpAddr;
use std::rc::Rc;

use super::session::Session;
use super::{ask, decide, route};
use crate::address::Country;
use crate::audit::{EVENT_REQUEST, Outcome, Ticket};
use crate::clock::{Monotonic, Now};
use crate::credential::CacheOutcome;
use crate::fault::{self, Stage};
use crate::http::{Field, Method as HttpMethod, RequestHead, write};
use crate::hub::calls::Cancellable;
use crate::identity::{Audiences, Resource, VerifiedToken};
use crate::judge::policy::StepUp;
use crate::listener::Downstream;
use crate::mcp::{Era, Kind, Method, Mirrored, bodyless_revision};
use crate::policy::{Denial, Permit, PolicyIds};
use crate::quota::Exceeded;
use crate::reject::Reject;
use crate::shard::{Scratch, Shard};
use crate::world::{Reading, World};

/// One request under way.
pub(super) struct Exchange {
    /// The snapshot it is judged by from beginning to end.
    pub(super) world: Rc<World>,
    pub(super) scratch: Box<Scratch>,
    pub(super) token: Option<Rc<VerifiedToken>>,
    pub(super) method: HttpMethod,
    /// Index into `Config::servers`; `None` for `/mcp` and for a name that is no server's.
    pub(super) server: Option<u16>,
    /// Where the client is; `None` when only a proxy is known.
    pub(super) source: Option<IpAddr>,
    pub(super) started: Now,
    /// The moment by which token, session and policy are judged.
    pub(super) judged: Now,
    /// When it was asked about, if what was answered then was kept.
    pub(super) kept_since: Option<Monotonic>,
    pub(super) relay_began: Option<Monotonic>,
    /// A JSON-RPC message was read and may be named in the audit and in the answer.
    pub(super) call_read: bool,
    /// Reading the message failed; an id may be known all the same.
    pub(super) read_failed: bool,
    /// The legacy session that the request belongs to.
    pub(super) session: Option<Session>,
    /// What only a request to `/mcp` and its legs have.
    pub(super) hub: Option<Box<AtHub>>,
    /// What the audit calls it.
    pub(super) event: &'static str,
    pub(super) policies: Option<PolicyIds>,
    /// Shadow policies that would have denied it.
    pub(super) would_deny: Option<PolicyIds>,
    /// Index of the rate limit that refused it, and the seconds until it would not.
    pub(super) exceeded: Option<Exceeded>,
    /// What a refused caller lacks.
    pub(super) step_up: Option<Box<StepUp>>,
    /// Where the client is, when a policy asks for it.
    pub(super) country: Option<Country>,
    pub(super) credential: Option<CredentialUsed>,
    pub(super) ticket: Option<Ticket>,
    pub(super) outcome: Outcome,
    /// A panic went through it: its buffers may be half changed and serve nobody else.
    pub(super) broken: bool,
}

/// A request that came to `/mcp`, or one leg of it.
#[derive(Default)]
pub(super) struct AtHub {
    /// The id as the agent wrote it, once the body is no longer the agent's.
    pub(super) id: Option<Vec<u8>>,
    /// Of a leg: `seq` of the record that it is part of.
    pub(super) leg_of: Option<u64>,
    /// Until then a legacy agent may cancel it.
    pub(super) call: Option<Cancellable>,
}

/// Which credential went along.
pub(super) struct CredentialUsed {
    pub(super) index: usize,
    pub(super) cache: CacheOutcome,
}

impl Exchange {
    pub(super) fn begin(shard: &Shard, downstream: &Downstream) -> Self {
        let started = shard.clock.now();
        let world = shard.world();
        Self {
            source: route::source(downstream, &world.snapshot.config.listen),
            world,
            scratch: shard.take_scratch(),
            token: None,
            method: downstream.head().0.method(),
            server: None,
            started,
            judged: started,
            kept_since: None,
            relay_began: None,
            call_read: false,
            read_failed: false,
            session: None,
            hub: None,
            event: EVENT_REQUEST,
            policies: None,
            would_deny: None,
            exceeded: None,
            step_up: None,
            country: None,
            credential: None,
            ticket: None,
            outcome: Outcome::default(),
            broken: false,
        }
    }

    /// A panic went through this request.
    pub(super) const fn broken(&mut self) {
        self.broken = true;
    }

    /// Stage 2, its result: which server the path names, `None` for `/mcp`.
    pub(super) fn name_server(&mut self, name: Option<&str>) {
        self.scratch.server.clear();
        match name {
            Some(name) => {
                self.scratch.server.push_str(name);
                self.server = self.world.server(name);
            }
            None => self.hub = Some(Box::default()),
        }
    }

    /// Stage 3: who asks. Before the body is read, so that a stranger cannot make us buffer or
    /// parse.
    pub(super) async fn identify(
        &mut self,
        shard: &Shard,
        downstream: &Downstream,
    ) -> Result<(), Reject> {
        let (head, bytes) = downstream.head();
        fault::point(Stage::Identity, bytes);
        fault::arm(Stage::Keys, bytes);
        fault::arm(Stage::Compiler, bytes);
        if let Some(token) = shard.ablation.token() {
            self.token = Some(token);
            return Ok(());
        }
        let authorization = head.field(bytes, Field::Authorization);
        let config = &self.world.snapshot.config;
        let audiences = Audiences::new(&config.public_url, self.resource());
        let wait = config.limits.keys_wait_ms_max;
        let token = decide::verify(shard, authorization, &audiences, self.judged, wait).await?;
        shard.ablation.keep_token(&token);
        self.token = Some(token);
        Ok(())
    }

    /// Stage 4, first half: the body, within bounds of size and time.
    pub(super) async fn read_body(
        &mut self,
        shard: &Shard,
        downstream: &mut Downstream,
    ) -> Result<(), Reject> {
        let began = shard.timers.now();
        if self.method == HttpMethod::Post {
            let limits = &self.world.snapshot.config.limits;
            route::check_media(downstream)?;
            downstream.expect_body(limits.body_bytes_max)?;
            if downstream.head().0.expects_continue() {
                let until = shard.timers.now().after(STALL);
                downstream.write(write::CONTINUE.to_vec(), until).await;
            }
            let body = &mut self.scratch.body;
            downstream.read_body(&shard.timers, limits, body).await?;
            fault::point(Stage::Envelope, downstream.head().1);
            self.outcome.bytes_in = body.len() as u64;
        }
        self.catch_up(shard, downstream, began).await
    }

    /// A request that had to be waited for is judged by what holds now, not by what held when its
    /// head arrived: the token may have expired, the policy may have changed.
    async fn catch_up(
        &mut self,
        shard: &Shard,
        downstream: &Downstream,
        began: Monotonic,
    ) -> Result<(), Reject> {
        shard.drain_bus();
        let newest = shard.world();
        if shard.timers.now() == began && Rc::ptr_eq(&newest, &self.world) {
            return Ok(());
        }
        self.server = newest.server(&self.scratch.server);
        self.world = newest;
        self.judged = shard.clock.now();
        self.identify(shard, downstream).await
    }

    /// Stage 4, second half: what is asked, judged as one MCP message.
    pub(super) fn read_call(
        &mut self,
        shard: &Shard,
        downstream: &Downstream,
    ) -> Result<(), Reject> {
        let (head, bytes) = downstream.head();
        if self.method == HttpMethod::Post && shard.ablation.inspected(&self.scratch) {
            self.call_read = true;
        } else if self.method == HttpMethod::Post {
            let known = Reading { world: &self.world, server: self.server };
            let read = self.scratch.call.read_by(&self.scratch.body, &known);
            self.call_read = read.is_ok();
            self.read_failed = read.is_err();
            read?;
            self.scratch.call.agree(&mirrored(head, bytes))?;
            shard.ablation.keep_inspected(&mut self.scratch);
        } else {
            let version = head.field(bytes, Field::McpProtocolVersion);
            let (era, _) = bodyless_revision(version)?;
            if era == Era::Modern {
                // 2026-07-28, transports, "Earlier Revisions": POST is all there is.
                return Err(Reject::RequestMethod);
            }
        }
        if self.hub.is_some() { Ok(()) } else { self.open_session(shard, downstream) }
    }

    /// Stage 5: may they.
    pub(super) fn decide(&mut self, shard: &Shard) -> Result<Permit, Reject> {
        if let Some(permit) = shard.ablation.permit(self.token.as_deref()) {
            self.policies = Some(permit.policies_shared());
            return Ok(permit);
        }
        self.country = decide::locate(&self.world, self.source);
        let now = self.judged.wall.seconds();
        let decided = decide::permit(shard, &self.world, self, now);
        self.decided(shard, decided)
    }

    /// Whether somebody else decides.
    pub(super) fn asks(&self) -> bool {
        self.world.snapshot.pdp.is_some()
    }

    /// Stage 5, where a remote point decides. What was answered under rules that no longer hold
    /// counts for nothing: it is judged once more by those that do, and not a third time.
    pub(super) async fn ask(
        &mut self,
        shard: &Shard,
        downstream: &Downstream,
    ) -> Result<Permit, Reject> {
        if let Some(decided) = self.ask_once(shard).await {
            return decided;
        }
        self.ask_anew(shard, downstream).await
    }

    async fn ask_anew(&mut self, shard: &Shard, downstream: &Downstream) -> Result<Permit, Reject> {
        self.catch_up(shard, downstream, shard.timers.now()).await?;
        // By what the policies of now look at.
        self.read_call(shard, downstream)?;
        if self.asks() {
            self.ask_once(shard).await.unwrap_or(Err(Reject::PolicyUnavailable))
        } else {
            self.decide(shard)
        }
    }

    /// `None` when other rules came while the answer was waited for.
    pub(super) async fn ask_once(&mut self, shard: &Shard) -> Option<Result<Permit, Reject>> {
        self.country = decide::locate(&self.world, self.source);
        let now = self.judged.wall.seconds();
        let decided = ask::permit(shard, &self.world, self, now).await;
        shard.drain_bus();
        let newest = shard.world();
        if !self.world.decides_as(&newest) {
            return None;
        }
        self.world = newest;
        Some(self.answered(shard, decided))
    }

    /// What a remote point answered, which took a while; and what was kept is for nobody whose
    /// token expired, or whose key was withdrawn, since.
    fn answered(
        &mut self,
        shard: &Shard,
        decided: Result<(Permit, Option<Monotonic>), Denial>,
    ) -> Result<Permit, Reject> {
        let clocks = shard.clock.now();
        let token = self.token.as_deref().ok_or(Reject::GatewayFault)?;
        token.judge_time(clocks.wall.seconds())?;
        decide::key_holds(&self.world, token, clocks.mono)?;
        let decided = decided.map(|(permit, since)| {
            self.kept_since = since;
            permit
        });
        self.decided(shard, decided)
    }

    fn decided(
        &mut self,
        shard: &Shard,
        decided: Result<Permit, Denial>,
    ) -> Result<Permit, Reject> {
        match decided {
            Ok(permit) => {
                shard.ablation.keep_permit(&permit);
                self.policies = Some(permit.policies_shared());
                self.would_deny = permit.would_deny();
                Ok(permit)
            }
            Err(Denial { reject, policies, step_up, .. }) => {
                self.policies = Some(policies);
                self.step_up = step_up;
                Err(reject)
            }
        }
    }

    /// After a wait: the rules are those of before, and the token still counts by now.
    ///
    /// # Errors
    /// `PolicyUnavailable` under other rules: what was begun is not gone on with. What the token
    /// came to.
    pub(super) fn stands(&mut self, shard: &Shard) -> Result<(), Reject> {
        shard.drain_bus();
        let newest = shard.world();
        let rules =
            |world: &World| (world.snapshot.config_generation, world.snapshot.policy.epoch());
        if rules(&newest) != rules(&self.world) {
            return Err(Reject::PolicyUnavailable);
        }
        self.world = newest;
        self.judged = shard.clock.now();
        let token = self.token.as_deref().ok_or(Reject::GatewayFault)?;
        token.judge_time(self.judged.wall.seconds())?;
        decide::key_holds(&self.world, token, self.judged.mono)
    }

    /// Before a second try: up to `timeout_seconds` passed with the first, so the token may have
    /// expired and the decision may be another. Under other rules nothing is tried again; the agent
    /// gets the upstream's refusal, and its next request is judged by them from the beginning.
    pub(super) async fn decide_again(&mut self, shard: &Shard) -> Result<Permit, Reject> {
        let stands = self.stands(shard);
        if stands == Err(Reject::PolicyUnavailable) {
            return Err(Reject::UpstreamAuth);
        }
        stands?;
        if self.asks() {
            Box::pin(self.ask_once(shard)).await.unwrap_or(Err(Reject::UpstreamAuth))
        } else {
            self.decide(shard)
        }
    }

    /// The era that the answer's form follows; GET and DELETE are legacy unless the header says so.
    pub(super) fn is_modern(&self) -> bool {
        self.call_read && self.scratch.call.era() == Era::Modern
    }

    /// The protected resource that the path stands for.
    pub(super) fn resource(&self) -> Resource<'_> {
        match self.hub {
            Some(_) => Resource::Federation,
            None if self.scratch.server.is_empty() => Resource::Federation,
            None => Resource::Server(&self.scratch.server),
        }
    }

    /// Of `/mcp` itself, and not (yet) of one of its servers.
    pub(super) fn is_at_hub(&self) -> bool {
        self.hub.is_some() && self.server.is_none() && self.scratch.server.is_empty()
    }

    /// An open-ended stream, not the answer to one call: the legacy GET stream, or a modern listen.
    pub(super) fn is_stream(&self) -> bool {
        self.method == HttpMethod::Get || self.mcp_method() == Some(Method::SubscriptionsListen)
    }

    /// MCP 2026-07-28, transports, "Cancellation": closing is cancelling. A legacy POST goes on
    /// without its client (2025-11-25, transports, "Sending Messages"), a GET stream is only a
    /// stream.
    pub(super) fn cancels_on_leave(&self) -> bool {
        self.is_modern() || self.method != HttpMethod::Post
    }

    /// May be sent twice when a pooled connection turns out to be dead; never a call.
    pub(super) fn retryable(&self) -> bool {
        self.method == HttpMethod::Get || self.mcp_method().is_some_and(Method::is_retryable)
    }

    /// Index of the credential that went along, in the configuration of `world`.
    pub(super) fn credential_index(&self) -> Option<usize> {
        self.credential.as_ref().map(|used| used.index)
    }

    /// The MCP method for metrics and audit; `None` before one was read.
    pub(super) fn mcp_method(&self) -> Option<Method> {
        let named = self.call_read && self.scratch.call.kind() != Kind::Response;
        named.then(|| self.scratch.call.method())
    }
}

fn mirrored<'a>(head: &RequestHead, bytes: &'a [u8]) -> Mirrored<'a> {
    Mirrored {
        protocol_version: head.field(bytes, Field::McpProtocolVersion),
        method: head.field(bytes, Field::McpMethod),
        name: head.field(bytes, Field::McpName),
    }
}

const STALL: std::time::Duration = std::time::Duration::from_secs(5);
