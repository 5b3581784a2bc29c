//! Requests that one server answers: `tools/call`, `prompts/get`, `resources/read` and
//! `completion/complete`.
//!
//! The name that the agent knows becomes the server's own, in the message that is then read and
//! judged as if it had come to `/mcp/{server}`; the era of the server may ask for more changes.
//! Whatever is not there, is hidden or is denied answers alike, and no server hears of it.

use std::ops::Range;
use std::rc::Rc;

use super::cancel;
use super::greet::{self, Greeted, Speaker};
use super::params::ToolCall;
use super::reply::{Reply, Turned};
use super::resolve::{Hint, resolve};
use super::{handshake, leg};
use crate::clock::Monotonic;
use crate::gateway::exchange::Exchange;
use crate::http::Field;
use crate::listener::Downstream;
use crate::mcp::bridge::{Same, ToLegacy, ToModern};
use crate::mcp::capability::{ClientCapabilities, era_of};
use crate::mcp::handshake::{CLIENT_CAPABILITIES, Introduced, MODERN, PROTOCOL_VERSION};
use crate::mcp::span::{Document, Node};
use crate::mcp::splice::Edits;
use crate::mcp::state::Kept;
use crate::mcp::{Era, Method, Mirrored, Target, field_value, write};
use crate::policy::Permit;
use crate::reject::Reject;
use crate::relay::{OwnHead, Relayed};
use crate::shard::Shard;

/// Serves a request that has one server.
///
/// # Errors
/// [`Reject::PolicyCallNoPermit`] for a name that nobody has or that is hidden, and for a server
/// that is; the other denials; whatever becomes of the request at its server.
pub(super) async fn serve(
    shard: &Shard,
    downstream: &mut Downstream,
    exchange: &mut Exchange,
) -> Result<Relayed, Reject> {
    let speaker = &Speaker::of(shard, downstream, exchange)?;
    let began = shard.timers.now();
    let aimed = Aimed::at(shard, exchange, speaker).await?;
    let traced = Traced::of(downstream);
    begin(shard, exchange, speaker)?;
    let mut left = false;
    let (mut revision, mut admitted, mut reopened) = (speaker.revision, false, false);
    for turn in 0..TURNS_MAX {
        if turn > 0 {
            exchange.stands(shard)?;
        }
        let turned = aimed.turn(shard, exchange, speaker, revision);
        // What cannot be sent to a server that is there must not tell that it is.
        let (turned, up_id) = if turn > 0 { turned? } else { turned.map_err(unturned)? };
        let permit = exchange.judge(shard).await.map_err(hidden)?;
        if aimed.foreign {
            return Err(Reject::StateForeign);
        }
        if !std::mem::replace(&mut admitted, true) {
            exchange.admit(shard)?;
        }
        // Recorded before a handshake, which names this record as its own.
        exchange.obtain(shard, &permit)?;
        exchange.commit(shard)?;
        let (permit, greeted) = greeted(shard, exchange, permit, speaker, began).await?;
        let spoken = greeted.as_ref().map_or(revision, Greeted::revision);
        if spoken != revision {
            // The message has another form in it, and is judged in that form.
            revision = spoken;
            continue;
        }
        let session = greeted.as_ref().and_then(|greeted| greeted.session.as_ref());
        let call = ToolCall { server: aimed.server, tool: &aimed.name, revision };
        let params = call.fields(shard, exchange, speaker, &permit, &traced.params).await?;
        // That may have taken a list of the server's.
        exchange.stands(shard)?;
        let head = aimed.head(revision, &traced);
        let head = OwnHead {
            session: session.and_then(|(_, session)| session.id.as_deref()),
            params: &borrowed(&params),
            ..head
        };
        let reply =
            Reply { shard, turned, session: head.session, name: &aimed.name, revision, up_id };
        let sent = leg::send(shard, downstream, &mut left, exchange, permit, &head).await;
        if sent.is_err() {
            reply.tell_cancelled(exchange).await;
        }
        let mut talk = sent.map_err(hidden)?;
        if let (true, Some((key, session)), false) =
            (leg::forgot_session(talk.status()), session, reopened)
            && session.id.is_some()
        {
            reopened = true;
            shard.hub.sessions.forget(key, session);
            continue;
        }
        if let (400 | 404, Some(greeted)) = (talk.status(), &greeted) {
            greeted.doubt(shard);
        }
        return reply.carry(downstream, exchange, &mut left, &mut talk).await.map_err(hidden);
    }
    // It says of itself now this and now that.
    Err(Reject::UpstreamEra)
}

/// From here on a legacy agent may cancel the request.
fn begin(shard: &Shard, exchange: &mut Exchange, speaker: &Speaker) -> Result<(), Reject> {
    let Some(caller) = cancel::caller(exchange, speaker)? else { return Ok(()) };
    let id = exchange.scratch.call.id_raw(&exchange.scratch.body);
    let call = id.and_then(|id| shard.hub.calls.begin(caller, id));
    if let Some(hub) = &mut exchange.hub {
        hub.call = call;
    }
    Ok(())
}

/// Sees to it that the server is known and has a session where it needs one. `None` for a modern
/// agent that may call, but not ask the server what it is: its own era is the only guess.
async fn greeted(
    shard: &Shard,
    exchange: &mut Exchange,
    permit: Permit,
    speaker: &Speaker,
    began: Monotonic,
) -> Result<(Permit, Option<Greeted>), Reject> {
    let until = shard.timers.now().after(leg::timeout(exchange));
    let greeted = match greet::greeted(shard, exchange, &permit, speaker, until).await {
        Ok(greeted) => Some(greeted),
        Err(reject) if greet::is_denial(reject) && era_of(speaker.revision) == Era::Modern => None,
        Err(reject) => return Err(hidden(reject)),
    };
    shard.drain_bus();
    // Within one tick of the clock rules may have changed as well.
    if shard.timers.now() == began && Rc::ptr_eq(&shard.world(), &exchange.world) {
        return Ok((permit, greeted));
    }
    // What was permitted before a wait is permitted no more, unless it still is.
    let permit = exchange.decide_again(shard).await.map_err(|reject| {
        let outdated = reject == Reject::UpstreamAuth;
        if outdated { Reject::PolicyUnavailable } else { hidden(reject) }
    })?;
    Ok((permit, greeted))
}

/// A server that is denied is one that is not there, and so is all that it has.
fn hidden(reject: Reject) -> Reject {
    if reject == Reject::PolicyDenied { Reject::PolicyCallNoPermit } else { reject }
}

/// Before anything was judged, what is wrong with a message is said only as of a server that is not
/// there.
fn unturned(reject: Reject) -> Reject {
    if reject == Reject::GatewayFault { reject } else { Reject::PolicyCallNoPermit }
}

/// The agent's request with the server's own name in it.
struct Aimed {
    server: u16,
    method: Method,
    /// The server's own name for what is asked.
    name: String,
    text: Vec<u8>,
    /// What a modern server is told that the agent can be asked for.
    declared: ClientCapabilities,
    /// It comes with a state that is not this principal's, or not of this. Said only to who may
    /// call at all: else it would tell which servers there are.
    foreign: bool,
}

impl Aimed {
    /// # Errors
    /// Those of [`resolve()`]; [`Reject::GatewayNotBuilt`] for what `/mcp` does not carry yet.
    async fn at(shard: &Shard, exchange: &Exchange, speaker: &Speaker) -> Result<Self, Reject> {
        let call = &exchange.scratch.call;
        let (method, body) = (call.method(), &exchange.scratch.body);
        let mut declared = ClientCapabilities::default();
        let (known, hint) = {
            let mut document = Document::new();
            let root = document.read(body).map_err(|_| Reject::RpcParse)?;
            if call.era() == Era::Modern {
                let introduced = Introduced::of_modern(root).map_err(|_| Reject::RpcParams)?;
                declared = introduced.capabilities.within(CARRIED);
            }
            let params = root.get("params").ok_or(Reject::RpcParams)?;
            // With anything in the places of what is only known of a server that is there: whether
            // a message can be edited tells nothing about servers.
            let state = params.get("requestState").map(|place| (place.range(), Vec::new()));
            aim(call.era(), method, params, b"\"\"", state.as_ref(), b"{}")?
                .apply(body, &mut Vec::new())
                .map_err(|_| Reject::RpcInvalid)?;
            let known = named(method, params)?.text().ok_or(Reject::RpcParams)?.to_owned();
            (known, Hint::of(params)?)
        };
        let (server, name) = resolve(shard, exchange, speaker, &known, hint.as_ref()).await?;
        let mut document = Document::new();
        let root = document.read(body).map_err(|_| Reject::RpcParse)?;
        let params = root.get("params").ok_or(Reject::RpcParams)?;
        let mut json = Vec::with_capacity(name.len() + 2);
        write::string(&name, &mut json);
        let state = unsealed(exchange, params, server, &name);
        let foreign = state.as_ref().is_err_and(|reject| *reject == Reject::StateForeign);
        let state = if foreign { None } else { state? };
        let mut capabilities = Vec::new();
        declared.write(MODERN, &mut capabilities);
        let mut text = Vec::with_capacity(body.len());
        aim(call.era(), method, params, &json, state.as_ref(), &capabilities)?
            .apply(body, &mut text)
            .map_err(|_| Reject::RpcInvalid)?;
        Ok(Self { server, method, name, text, declared, foreign })
    }

    /// Writes the request as a server that speaks `revision` is asked, and makes it the exchange's
    /// own: read as if it had come to that server alone.
    fn turn(
        &self,
        shard: &Shard,
        exchange: &mut Exchange,
        speaker: &Speaker,
        revision: &str,
    ) -> Result<(Turned, Vec<u8>), Reject> {
        // Only for now: a parsed text is many times as long as the text.
        let mut document = Document::new();
        let root = document.read(&self.text).map_err(|_| Reject::GatewayFault)?;
        let mut body = Vec::with_capacity(self.text.len() + BODY_MORE_BYTES);
        let up_id = format!("\"c{}.{}\"", shard.core, shard.hub.next_request()).into_bytes();
        let turned = match (era_of(speaker.revision), era_of(revision)) {
            (Era::Modern, Era::Modern) => {
                let same = Same::request(root, &self.text, None, &mut body)?;
                Turned::Same(same.declaring(self.declared))
            }
            (Era::Legacy, Era::Legacy) => {
                Turned::Same(Same::request(root, &self.text, Some(&up_id), &mut body)?)
            }
            (Era::Modern, Era::Legacy) => Turned::ToLegacy(ToLegacy::request(
                self.method,
                root,
                &self.text,
                &up_id,
                &mut body,
            )?),
            (Era::Legacy, Era::Modern) => Turned::ToModern(ToModern::request(
                self.method,
                root,
                &self.text,
                speaker.capabilities,
                &mut body,
            )?),
        };
        let mut mirrored_name = Vec::new();
        field_value(&self.name, &mut mirrored_name);
        let modern = era_of(revision) == Era::Modern;
        let sent = Mirrored {
            protocol_version: Some(revision.as_bytes()),
            method: modern.then(|| self.method.as_str().as_bytes()),
            name: (modern && mirrors_name(self.method)).then_some(mirrored_name.as_slice()),
        };
        exchange.turn_to(self.server, body, &sent)?;
        if self.is_judged(exchange) { Ok((turned, up_id)) } else { Err(Reject::GatewayFault) }
    }

    /// The message that goes out names what was resolved, and nothing else.
    fn is_judged(&self, exchange: &Exchange) -> bool {
        let call = &exchange.scratch.call;
        let mut targets = call.targets();
        let same = match targets.next() {
            Some(Target::Tool(name) | Target::Prompt(name) | Target::Resource(name)) => {
                name == self.name
            }
            Some(Target::Server) | None => false,
        };
        same && targets.next().is_none() && call.method() == self.method
    }

    /// The fields that mirror the request, from the very values that were judged.
    fn head<'e>(&'e self, revision: &'static str, traced: &'e Traced) -> OwnHead<'e> {
        let modern = revision == MODERN;
        OwnHead {
            protocol_version: Some(revision),
            mcp_method: modern.then(|| self.method.as_str()),
            mcp_name: (modern && mirrors_name(self.method)).then_some(&self.name),
            traceparent: traced.traceparent.as_deref(),
            tracestate: traced.tracestate.as_deref(),
            baggage: traced.baggage.as_deref(),
            ..OwnHead::default()
        }
    }
}

/// Where `params` name what is asked for.
fn named(method: Method, params: Node<'_>) -> Result<Node<'_>, Reject> {
    #[expect(clippy::wildcard_enum_match_arm, reason = "no other method comes here")]
    let key = match method {
        Method::ToolsCall | Method::PromptsGet => "name",
        Method::ResourcesRead => "uri",
        Method::CompletionComplete => {
            let reference = params.get("ref").ok_or(Reject::RpcParams)?;
            let key = match reference.get("type").and_then(Node::text) {
                Some("ref/prompt") => "name",
                Some("ref/resource") => "uri",
                Some(_) | None => return Err(Reject::RpcParams),
            };
            return reference.get(key).ok_or(Reject::RpcParams);
        }
        _ => return Err(Reject::GatewayFault),
    };
    params.get(key).ok_or(Reject::RpcParams)
}

/// 2026-07-28 streamable HTTP "Standard Request Headers".
const fn mirrors_name(method: Method) -> bool {
    matches!(method, Method::ToolsCall | Method::PromptsGet | Method::ResourcesRead)
}

/// What stands instead at a place, as JSON.
type Edit = (Range<usize>, Vec<u8>);

/// The state that the agent comes back with, as its server gave it, and where it stands.
fn unsealed(
    exchange: &Exchange,
    params: Node<'_>,
    server: u16,
    name: &str,
) -> Result<Option<Edit>, Reject> {
    let Some(place) = params.get("requestState") else { return Ok(None) };
    let sealed = place.text().ok_or(Reject::RpcParams)?;
    let servers = &exchange.world.snapshot.config.servers;
    let known = servers.get(usize::from(server)).ok_or(Reject::GatewayFault)?;
    let kept = Kept { server: &known.name, method: exchange.scratch.call.method(), name };
    let (owner, now) = (handshake::owner(exchange)?, exchange.judged.wall.seconds());
    let state = kept.open(&exchange.world.keyring, &owner, now, sealed)?;
    let mut json = Vec::with_capacity(state.len() + 2);
    write::string(&state, &mut json);
    Ok(Some((place.range(), json)))
}

/// The edits that make the agent's message one to its server: the server's own name and state, and
/// nothing that means something between agent and gateway only: our own names, of what the agent
/// can be asked for all that nobody carries, and a wish for a task, which who has not offered tasks
/// is to leave aside (2025-11-25 basic/utilities/tasks).
fn aim<'j>(
    era: Era,
    method: Method,
    params: Node<'_>,
    name: &'j [u8],
    state: Option<&'j Edit>,
    capabilities: &'j [u8],
) -> Result<Edits<'j>, Reject> {
    let place = named(method, params)?;
    let mut edits = Edits::new();
    let edited = edits.put(place.range(), name).and_then(|()| {
        if let Some((place, state)) = state {
            edits.put(place.clone(), state)?;
        }
        edits.remove_members(params, |key| key == "task")?;
        let Some(meta) = params.get("_meta") else { return Ok(()) };
        edits.remove_members(meta, |key| {
            // A legacy agent's is in the header, and may differ from what its server is spoken to.
            key.starts_with("io.portcullis/") || (era == Era::Legacy && key == PROTOCOL_VERSION)
        })?;
        match meta.get(CLIENT_CAPABILITIES) {
            Some(declared) => edits.put(declared.range(), capabilities),
            None => Ok(()),
        }
    });
    edited.map_err(|_| Reject::RpcInvalid)?;
    Ok(edits)
}

/// What travels along with a request as it is.
struct Traced {
    traceparent: Option<Vec<u8>>,
    tracestate: Option<Vec<u8>>,
    baggage: Option<Vec<u8>>,
    params: Vec<(String, Vec<u8>)>,
}

impl Traced {
    fn of(downstream: &Downstream) -> Self {
        let (head, bytes) = downstream.head();
        let field = |field| head.field(bytes, field).map(<[u8]>::to_vec);
        let params = head.fields(bytes).filter_map(|(name, value)| {
            let name = String::from_utf8_lossy(name).to_ascii_lowercase();
            name.starts_with("mcp-param-").then(|| (name, value.to_vec()))
        });
        Self {
            traceparent: field(Field::Traceparent),
            tracestate: field(Field::Tracestate),
            baggage: field(Field::Baggage),
            params: params.collect(),
        }
    }
}

fn borrowed(params: &[(String, Vec<u8>)]) -> Vec<(&str, &[u8])> {
    params.iter().map(|(name, value)| (name.as_str(), value.as_slice())).collect()
}

/// The era of a server is found out once; a session that it forgot is opened once more.
const TURNS_MAX: usize = 4;
/// What a modern server may ask for, in a result of its own, of a modern agent. A page to visit is
/// not among it: policy has to judge its host first.
const CARRIED: ClientCapabilities = ClientCapabilities(
    ClientCapabilities::ALL.0
        & !ClientCapabilities::ELICITATION_URL.0
        & !ClientCapabilities::ROOTS_CHANGED.0,
);
/// What another era adds to a request.
const BODY_MORE_BYTES: usize = 512;
