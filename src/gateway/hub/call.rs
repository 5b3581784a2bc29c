//! Requests that one server answers: `tools/call`, `prompts/get`, `resources/read` and
//! `completion/complete`.
//!
//! The name that the agent knows becomes the server's own, in the message that is then read and
//! judged as if it had come to `/mcp/{server}`; the era of the server may ask for more changes.
//! Whatever is not there, is hidden or is denied answers alike, and no server hears of it.

use std::borrow::Cow;

use super::answer::Agent;
use super::cancel;
use super::greet::{self, Greeted, Speaker};
use super::leg;
use crate::clock::Monotonic;
use crate::gateway::exchange::Exchange;
use crate::gateway::oversight::Watch;
use crate::gateway::words::Words;
use crate::http::Field;
use crate::limits::{HUB_MESSAGES_BEFORE_ANSWER_MAX, WHEEL_TICK};
use crate::listener::Downstream;
use crate::mcp::bridge::{Out, Same, ToLegacy, ToModern};
use crate::mcp::capability::era_of;
use crate::mcp::handshake::{CLIENT_CAPABILITIES, MODERN};
use crate::mcp::message::Message;
use crate::mcp::names::Split;
use crate::mcp::span::{Document, Node};
use crate::mcp::splice::{Edits, Unfit};
use crate::mcp::{Era, Method, Mirrored, Target, field_value, write};
use crate::policy::Permit;
use crate::reject::Reject;
use crate::relay::{Heard, OwnHead, Relayed, Talk};
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
    let aimed = Aimed::at(exchange)?;
    let traced = Traced::of(downstream);
    begin(shard, exchange, speaker)?;
    let mut left = false;
    let (mut revision, mut admitted, mut reopened) = (speaker.revision, false, false);
    for _ in 0..TURNS_MAX {
        let (turned, up_id) = aimed.turn(shard, exchange, speaker, revision)?;
        let permit = exchange.judge(shard).await.map_err(hidden)?;
        if !std::mem::replace(&mut admitted, true) {
            exchange.admit(shard)?;
        }
        // Recorded before a handshake, which names this record as its own.
        exchange.obtain(shard, &permit)?;
        exchange.commit(shard)?;
        let (permit, greeted) = greeted(shard, exchange, permit, speaker).await?;
        let spoken = greeted.as_ref().map_or(revision, |greeted| greeted.hello.revision);
        if spoken != revision {
            // The message has another form in it, and is judged in that form.
            revision = spoken;
            continue;
        }
        let session = greeted.as_ref().and_then(|greeted| greeted.session.as_ref());
        let head = aimed.head(revision, &traced);
        let head = OwnHead {
            session: session.and_then(|(_, session)| session.id.as_deref()),
            params: &traced.params(),
            ..head
        };
        let reply = Reply { shard, turned, session: head.session, revision, up_id };
        let sent = leg::send(shard, downstream, &mut left, exchange, permit, &head).await;
        let mut talk = match sent {
            Ok(talk) => talk,
            Err(reject) => {
                reply.tell_cancelled(exchange).await;
                return Err(reject);
            }
        };
        if let (404, Some((key, session)), false) = (talk.status(), session, reopened)
            && session.id.is_some()
        {
            // 2025-11-25 transports, "Session Management": it refused before it acted.
            reopened = true;
            shard.hub.sessions.forget(key, session);
            continue;
        }
        return reply.carry(downstream, exchange, &mut left, &mut talk).await;
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
) -> Result<(Permit, Option<Greeted>), Reject> {
    let began = shard.timers.now();
    let until = began.after(timeout(exchange));
    let greeted = match greet::greeted(shard, exchange, &permit, speaker, until).await {
        Ok(greeted) => Some(greeted),
        Err(reject) if is_denial(reject) && era_of(speaker.revision) == Era::Modern => None,
        Err(reject) => return Err(hidden(reject)),
    };
    if shard.timers.now() == began {
        return Ok((permit, greeted));
    }
    // What was permitted before a wait is permitted no more, unless it still is.
    let permit = exchange.decide_again(shard).await.map_err(|reject| match reject {
        Reject::UpstreamAuth => Reject::PolicyUnavailable,
        other => hidden(other),
    })?;
    Ok((permit, greeted))
}

fn timeout(exchange: &Exchange) -> std::time::Duration {
    let servers = &exchange.world.snapshot.config.servers;
    let server = exchange.server.and_then(|index| servers.get(usize::from(index)));
    std::time::Duration::from_secs(server.map_or(0, |server| server.timeout_seconds))
}

/// A server that is denied is one that is not there, and so is all that it has.
const fn hidden(reject: Reject) -> Reject {
    match reject {
        Reject::PolicyDenied => Reject::PolicyCallNoPermit,
        other => other,
    }
}

const fn is_denial(reject: Reject) -> bool {
    matches!(
        reject,
        Reject::PolicyDenied
            | Reject::PolicyCallNoPermit
            | Reject::PolicyCallForbidden
            | Reject::PolicyStepUp
            | Reject::PolicyCredentialAmbiguous
    )
}

/// The agent's request with the server's own name in it.
struct Aimed {
    server: u16,
    method: Method,
    /// The server's own name for what is asked.
    name: String,
    text: Vec<u8>,
    document: std::cell::RefCell<Document>,
}

/// A request as its server is asked.
enum Turned {
    Same(Same),
    ToLegacy(ToLegacy),
    ToModern(ToModern),
}

impl Aimed {
    /// # Errors
    /// [`Reject::PolicyCallNoPermit`] for a name of no server; [`Reject::GatewayNotBuilt`] for what
    /// `/mcp` does not carry yet.
    fn at(exchange: &Exchange) -> Result<Self, Reject> {
        let call = &exchange.scratch.call;
        let (method, body) = (call.method(), &exchange.scratch.body);
        let mut document = Document::new();
        let mut text = Vec::with_capacity(body.len());
        let (server, name) = {
            let root = document.read(body).map_err(|_| Reject::RpcParse)?;
            let params = root.get("params").ok_or(Reject::RpcParams)?;
            if params.get("task").is_some()
                || params.get("requestState").is_some()
                || params.get("inputResponses").is_some()
            {
                return Err(Reject::GatewayNotBuilt);
            }
            let place = named(method, params)?;
            let known = place.text().ok_or(Reject::RpcParams)?;
            let (server, own) = resolve(exchange, known)?;
            let mut json = Vec::with_capacity(own.len() + 2);
            write::string(own, &mut json);
            let mut edits = Edits::new();
            let edited = edits.put(place.range(), &json).and_then(|()| {
                for_one_hop(params, &mut edits)?;
                edits.apply(body, &mut text)
            });
            edited.map_err(|_| Reject::RpcInvalid)?;
            (server, own.to_owned())
        };
        // Read again: what stands at the place now is the very name that will be judged.
        document.read(&text).map_err(|_| Reject::GatewayFault)?;
        Ok(Self { server, method, name, text, document: document.into() })
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
        let document = self.document.borrow();
        let root = document.root().ok_or(Reject::GatewayFault)?;
        let mut body = Vec::with_capacity(self.text.len() + BODY_MORE_BYTES);
        let up_id = format!("\"c{}.{}\"", shard.core, shard.hub.next_request()).into_bytes();
        let turned = match (era_of(speaker.revision), era_of(revision)) {
            (Era::Modern, Era::Modern) => {
                Turned::Same(Same::request(root, &self.text, None, &mut body)?)
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
    let key = match method {
        Method::ToolsCall | Method::PromptsGet => "name",
        Method::ResourcesRead => "uri",
        Method::CompletionComplete => {
            let reference = params.get("ref").ok_or(Reject::RpcParams)?;
            let key = if reference.get("name").is_some() { "name" } else { "uri" };
            return reference.get(key).ok_or(Reject::RpcParams);
        }
        _ => return Err(Reject::GatewayNotBuilt),
    };
    params.get(key).ok_or(Reject::RpcParams)
}

/// 2026-07-28 streamable HTTP "Standard Request Headers".
const fn mirrors_name(method: Method) -> bool {
    matches!(method, Method::ToolsCall | Method::PromptsGet | Method::ResourcesRead)
}

/// The server that `known` names, and what it calls it.
fn resolve<'n>(exchange: &Exchange, known: &'n str) -> Result<(u16, &'n str), Reject> {
    let servers = &exchange.world.snapshot.config.servers;
    if let ([_], true) = (servers.as_slice(), is_uri(exchange)) {
        return Ok((0, known));
    }
    if is_uri(exchange) {
        // Whose resource it is only the servers' lists tell.
        return Err(Reject::GatewayNotBuilt);
    }
    match exchange.world.prefixes.split(known) {
        Split::Plain { server, name } => Ok((server, name)),
        // Only the server's list tells what it stands for, and it is not asked for it yet.
        Split::Unknown | Split::Hashed { .. } => Err(Reject::PolicyCallNoPermit),
    }
}

fn is_uri(exchange: &Exchange) -> bool {
    let call = &exchange.scratch.call;
    call.targets().any(|target| matches!(target, Target::Resource(_)))
}

/// What means something between agent and gateway only goes no further: our own names, and what
/// the agent could be asked for, as long as nobody carries such questions.
fn for_one_hop(params: Node<'_>, edits: &mut Edits<'_>) -> Result<(), Unfit> {
    let Some(meta) = params.get("_meta") else { return Ok(()) };
    edits.remove_members(meta, |key| key.starts_with("io.portcullis/"))?;
    match meta.get(CLIENT_CAPABILITIES) {
        Some(capabilities) => edits.put(capabilities.range(), b"{}"),
        None => Ok(()),
    }
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

    fn params(&self) -> Vec<(&str, &[u8])> {
        self.params.iter().map(|(name, value)| (name.as_str(), value.as_slice())).collect()
    }
}

impl Turned {
    fn heard(&self, message: &Message<'_>, text: &[u8]) -> Result<Out, Reject> {
        match self {
            Self::Same(same) => same.heard(message, text),
            Self::ToLegacy(bridge) => bridge.heard(message, text),
            Self::ToModern(bridge) => bridge.heard(message, text),
        }
    }
}

/// The answer on its way back.
struct Reply<'a> {
    shard: &'a Shard,
    turned: Turned,
    session: Option<&'a [u8]>,
    revision: &'static str,
    /// What a legacy server knows the request by.
    up_id: Vec<u8>,
}

impl Reply<'_> {
    async fn carry(
        &self,
        downstream: &mut Downstream,
        exchange: &Exchange,
        left: &mut bool,
        talk: &mut Talk<'_>,
    ) -> Result<Relayed, Reject> {
        let keep_alive = downstream.head().0.keep_alive();
        let watch = Watch::new(self.shard, exchange, keep_alive, Words::default());
        let mut agent = Agent::new(self.shard, downstream, exchange, &watch, left);
        if talk.is_stream() {
            agent.stream();
        }
        let status = self.status(talk.status());
        let answered = match self.listen(exchange, &mut agent, talk).await {
            // Also when the answer came in the same moment: none goes out after the word.
            _ if exchange.is_cancelled() => {
                let ended = agent.cancelled().await;
                self.tell_cancelled(exchange).await;
                return Ok(ended);
            }
            Ok(message) => agent.answer(status, &message).await,
            Err(reject) => return agent.fail(reject),
        };
        self.finish(exchange, talk).await;
        Ok(answered)
    }

    /// Of an answer from the other era only its message means something here.
    const fn status(&self, upstream: u16) -> u16 {
        match self.turned {
            Turned::Same(_) => upstream,
            Turned::ToLegacy(_) | Turned::ToModern(_) => 200,
        }
    }

    /// Hears until the answer, and passes on what comes before it.
    async fn listen(
        &self,
        exchange: &Exchange,
        agent: &mut Agent<'_>,
        talk: &mut Talk<'_>,
    ) -> Result<Vec<u8>, Reject> {
        let mut document = Document::new();
        loop {
            let heard = talk.next_with(agent, NEVER).await?;
            let text = match &heard {
                Heard::Message(text) => Cow::Borrowed(*text),
                Heard::Event(event) if event.is_message() => Cow::Borrowed(event.data()),
                Heard::Event(_) => continue,
                Heard::Accepted | Heard::End => return Err(Reject::UpstreamMalformed),
            };
            if text.is_empty() {
                continue;
            }
            let root = document.read(&text).map_err(|_| Reject::UpstreamMalformed)?;
            let message = Message::read(root).map_err(|_| Reject::UpstreamMalformed)?;
            let out = self.turned.heard(&message, &text)?;
            drop(text);
            document.forget();
            match out {
                Out::Answer(message) => return Ok(message),
                Out::Down(message) => agent.say(&message).await?,
                Out::Up(message) => self.reply(exchange, message).await,
                Out::Changed(_) | Out::Dropped => {}
                Out::Stray => self.stray(exchange),
            }
        }
    }

    /// Tells a legacy server, which does not take the end of a connection for a word, that its
    /// answer is wanted no more (2025-11-25 transports, "Sending Messages"); if it was cancelled.
    async fn tell_cancelled(&self, exchange: &Exchange) {
        if exchange.is_cancelled() && era_of(self.revision) == Era::Legacy {
            self.reply(exchange, cancel::message(&self.up_id)).await;
        }
    }

    /// Answers a question of the server, as a leg of this request.
    async fn reply(&self, exchange: &Exchange, message: Vec<u8>) {
        let revision = self.revision.as_bytes();
        let sent = Mirrored { protocol_version: Some(revision), ..Mirrored::default() };
        let Some(server) = exchange.server else { return };
        let Ok(mut leg) = exchange.leg(self.shard, server, message, &sent) else { return };
        let said = self.say(&mut leg).await;
        leg.record(self.shard, said.err());
    }

    async fn say(&self, leg: &mut Exchange) -> Result<(), Reject> {
        let permit = leg.judge(self.shard).await?;
        let credential = leg.obtain(self.shard, &permit)?;
        leg.commit(self.shard)?;
        let head = OwnHead {
            protocol_version: Some(self.revision),
            session: self.session,
            ..OwnHead::default()
        };
        let until = self.shard.timers.now().after(timeout(leg));
        let credential = credential.as_deref();
        let mut eye = crate::relay::Blind;
        let opened = leg::open(self.shard, leg, permit, credential, &head, &mut eye, until).await;
        match opened {
            Ok(mut talk) => {
                leg.outcome.status = Some(talk.status());
                leg.outcome.upstream_status = Some(talk.status());
                talk.next(until).await.map(|_| ())
            }
            Err(failed) => {
                leg.outcome.upstream_status = failed.upstream_status;
                Err(failed.reject)
            }
        }
    }

    /// Lets the server end its answer, so that the connection can be used again. The agent has its
    /// own by now; what still comes is nobody's.
    async fn finish(&self, exchange: &Exchange, talk: &mut Talk<'_>) {
        let until = self.shard.timers.now().after(2 * WHEEL_TICK);
        for _ in 0..HUB_MESSAGES_BEFORE_ANSWER_MAX {
            match talk.next(until).await {
                Ok(Heard::Event(event)) if !event.data().is_empty() => self.stray(exchange),
                Ok(Heard::Event(_)) => {}
                Ok(Heard::Message(_) | Heard::Accepted | Heard::End) | Err(_) => return,
            }
        }
    }

    /// An answer to nothing that was asked: dropped, and counted.
    fn stray(&self, exchange: &Exchange) {
        if let Some(server) = exchange.server {
            self.shard.meter.stray_answer(server);
        }
    }
}

/// The era of a server is found out once; a session that it forgot is opened once more.
const TURNS_MAX: usize = 4;
/// What another era adds to a request.
const BODY_MORE_BYTES: usize = 512;
const NEVER: Monotonic = Monotonic(u64::MAX);
