//! `initialize` and `server/discover` of `/mcp`: what the permitted servers offer together.

use std::rc::Rc;
use std::time::Duration;

use super::greet::{self, Speaker};
use super::local;
use super::together::together;
use crate::audit::Legs;
use crate::clock::Monotonic;
use crate::gateway::exchange::Exchange;
use crate::http::Field;
use crate::listener::Downstream;
use crate::mcp::capability::{ClientCapabilities, ServerCapabilities as Server};
use crate::mcp::handshake::{Hello, Introduced, Offer, join_instructions};
use crate::mcp::hub_session::{HubSession, SessionMark};
use crate::mcp::seal::bound_to;
use crate::mcp::span::{Document, Malformed, Node};
use crate::mcp::write;
use crate::reject::Reject;
use crate::relay::Relayed;
use crate::shard::Shard;

/// What `/mcp` itself carries of what servers offer. Not logs and subscriptions, whose state would
/// have to be the same on every core, and not tasks, whose ids would have to be sealed.
const SERVED: Server = Server::TOOLS
    .with(Server::TOOLS_CHANGED)
    .with(Server::PROMPTS)
    .with(Server::PROMPTS_CHANGED)
    .with(Server::RESOURCES)
    .with(Server::RESOURCES_CHANGED)
    .with(Server::COMPLETIONS);

/// What servers are told that an agent can be asked for: nothing, as long as `/mcp` carries no
/// requests of servers to agents. A server that is told of a capability may fail without it.
const CARRIED: ClientCapabilities = ClientCapabilities(0);

/// Answers `initialize`, with a session for what was agreed on.
///
/// # Errors
/// `RpcParams` for an `initialize` that lacks what every revision demands; quota, audit.
pub(super) async fn initialize(
    shard: &Shard,
    downstream: &mut Downstream,
    exchange: &mut Exchange,
) -> Result<Relayed, Reject> {
    let introduced = introduced(exchange, Introduced::of_initialize)?;
    exchange.admit(shard)?;
    exchange.commit(shard)?;
    let session = HubSession {
        revision: introduced.revision,
        capabilities: introduced.capabilities,
        issued: exchange.judged.wall.seconds(),
    };
    let mut sealed = Vec::new();
    let owner = owner(exchange)?;
    exchange.world.keyring.seal_hub_session(&session, &owner, &mut sealed)?;
    // Its servers' sessions belong to it from the first one on.
    let speaker = speaker(introduced, Some(SessionMark::of(&sealed)));
    let gathered = gather(shard, exchange, &speaker).await?;
    exchange.connect_still(shard).await?;
    exchange.outcome.legs = Some(gathered.legs);
    let mut body = Vec::with_capacity(1024);
    gathered.offer(id(exchange)?).write_initialized(introduced.revision, &mut body);
    Ok(local::answer(shard, downstream, exchange, Some(&sealed), &body).await)
}

/// Answers `server/discover`.
///
/// # Errors
/// `RpcParams` without the client's capabilities; quota, audit.
pub(super) async fn discover(
    shard: &Shard,
    downstream: &mut Downstream,
    exchange: &mut Exchange,
) -> Result<Relayed, Reject> {
    let introduced = introduced(exchange, Introduced::of_modern)?;
    exchange.admit(shard)?;
    exchange.commit(shard)?;
    let gathered = gather(shard, exchange, &speaker(introduced, None)).await?;
    exchange.connect_still(shard).await?;
    exchange.outcome.legs = Some(gathered.legs);
    let mut body = Vec::with_capacity(1024);
    gathered.offer(id(exchange)?).write_discovered(&mut body);
    Ok(local::answer(shard, downstream, exchange, None, &body).await)
}

impl Speaker {
    /// Who asks anything but a handshake: by the session of a legacy agent, by the message of a
    /// modern one. A legacy agent without a session declared nothing and is served as such.
    ///
    /// # Errors
    /// `SessionUnknown` for a session that is not this principal's, too old, or ended; `RpcParams`
    /// for a modern message without capabilities.
    pub(super) fn of(
        shard: &Shard,
        downstream: &Downstream,
        exchange: &Exchange,
    ) -> Result<Self, Reject> {
        if exchange.is_modern() {
            return Ok(speaker(introduced(exchange, Introduced::of_modern)?, None));
        }
        let (head, bytes) = downstream.head();
        let Some(sealed) = head.field(bytes, Field::McpSessionId) else {
            let revision = exchange.scratch.call.revision();
            let revision = crate::mcp::handshake::negotiate(revision.unwrap_or_default());
            let capabilities = ClientCapabilities::default();
            return Ok(speaker(Introduced { revision, capabilities }, None));
        };
        let now = exchange.judged.wall.seconds();
        let lifetime = exchange.world.snapshot.config.sessions.lifetime_seconds;
        let keyring = &exchange.world.keyring;
        let session = keyring.open_hub_session(sealed, &owner(exchange)?, now, lifetime)?;
        if shard.hub.ended.hold(sealed) {
            return Err(Reject::SessionUnknown);
        }
        let HubSession { revision, capabilities, .. } = session;
        let mark = SessionMark::of(sealed);
        Ok(speaker(Introduced { revision, capabilities }, Some(mark)))
    }
}

/// To whom a session of `/mcp` belongs; a sealed one opens for nobody else.
///
/// # Errors
/// `GatewayFault` without a token.
pub(super) fn owner(exchange: &Exchange) -> Result<[u8; 32], Reject> {
    let principal = exchange.token.as_deref().ok_or(Reject::GatewayFault)?.principal();
    Ok(bound_to(&[principal.issuer(), principal.subject(), principal.agent()]))
}

const fn speaker(introduced: Introduced, session: Option<SessionMark>) -> Speaker {
    let Introduced { revision, capabilities } = introduced;
    Speaker { revision, capabilities: capabilities.within(CARRIED), session }
}

fn introduced(
    exchange: &Exchange,
    read: impl FnOnce(Node<'_>) -> Result<Introduced, Malformed>,
) -> Result<Introduced, Reject> {
    let mut document = Document::new();
    document.read(&exchange.scratch.body).and_then(read).map_err(|_| Reject::RpcParams)
}

fn id(exchange: &Exchange) -> Result<&[u8], Reject> {
    exchange.scratch.call.id_raw(&exchange.scratch.body).ok_or(Reject::GatewayFault)
}

/// What all permitted servers said.
#[derive(Default)]
struct Gathered {
    capabilities: Server,
    instructions: String,
    /// The servers that are missing, and why, as a JSON array; empty for none.
    partial: Vec<u8>,
    legs: Legs,
}

impl Gathered {
    fn offer<'a>(&'a self, id: &'a [u8]) -> Offer<'a> {
        Offer {
            id,
            capabilities: self.capabilities,
            instructions: &self.instructions,
            partial: (!self.partial.is_empty()).then_some(&self.partial),
        }
    }
}

/// Asks every server that this agent may see, all at the same time. One that is denied is not
/// there; one that fails costs what it would have offered and is named.
///
/// # Errors
/// No decision was to be had: whether a server is there is not known, and so not told.
async fn gather(shard: &Shard, exchange: &Exchange, speaker: &Speaker) -> Result<Gathered, Reject> {
    let world = Rc::clone(&exchange.world);
    let mut servers: Vec<_> = (0_u16..).zip(&world.snapshot.config.servers).collect();
    servers.sort_unstable_by_key(|(_, server)| &server.prefix);
    let (now, federation) = (shard.timers.now(), &world.snapshot.config.federation);
    let all_have = Duration::from_millis(federation.timeout_ms);
    let asked = servers.iter().map(|(index, server)| {
        let until = now.after(all_have.min(Duration::from_secs(server.timeout_seconds)));
        ask(shard, exchange, *index, speaker, until)
    });
    let answers = together(asked).await;

    let mut gathered = Gathered::default();
    let mut said: Vec<(&str, Rc<Hello>)> = Vec::new();
    for ((_, server), answer) in servers.iter().zip(answers) {
        let Some(answer) = answer? else { continue };
        gathered.legs.asked += 1;
        match answer {
            Ok(hello) => {
                gathered.legs.answered += 1;
                gathered.capabilities = gathered.capabilities.with(offered(&hello));
                said.push((&server.prefix, hello));
            }
            Err(reject) => name_missing(&server.name, reject, &mut gathered.partial),
        }
    }
    if !gathered.partial.is_empty() {
        gathered.partial.push(b']');
        // Nobody knows what the missing ones have, and a legacy agent never asks again (2025-11-25
        // basic/lifecycle "Capability Negotiation"): what is not there then is an empty list.
        gathered.capabilities = gathered.capabilities.with(SERVED);
    }
    let texts: Vec<_> =
        said.iter().map(|(prefix, hello)| (*prefix, &*hello.instructions)).collect();
    if federation.instructions {
        gathered.instructions = join_instructions(&texts);
    }
    Ok(gathered)
}

/// `None` for a server that is not there for this agent.
async fn ask(
    shard: &Shard,
    exchange: &Exchange,
    server: u16,
    speaker: &Speaker,
    until: Monotonic,
) -> Result<Option<Result<Rc<Hello>, Reject>>, Reject> {
    let visible = greet::visible(shard, exchange, server, speaker).await;
    let Some(visible) = greet::unless_denied(visible)? else { return Ok(None) };
    Ok(Some(visible.hello(shard, exchange, speaker, until).await))
}

/// What a server adds to the union. What changes on `/mcp` changes with policy, too, so the hub
/// always tells of changes.
fn offered(hello: &Hello) -> Server {
    let mut offered = hello.capabilities;
    for (list, changes) in [
        (Server::TOOLS, Server::TOOLS_CHANGED),
        (Server::PROMPTS, Server::PROMPTS_CHANGED),
        (Server::RESOURCES, Server::RESOURCES_CHANGED),
    ] {
        if offered.hold(list) {
            offered = offered.with(changes);
        }
    }
    offered.within(SERVED)
}

/// Adds `{"server":…,"reason":…}` to a JSON array whose bracket is still open.
fn name_missing(server: &str, reject: Reject, out: &mut Vec<u8>) {
    out.extend_from_slice(if out.is_empty() { b"[" } else { b"," });
    out.extend_from_slice(br#"{"server":"#);
    write::string(server, out);
    out.extend_from_slice(br#","reason":"#);
    write::string(reject.audit_code(), out);
    out.push(b'}');
}
