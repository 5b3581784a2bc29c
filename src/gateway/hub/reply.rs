//! What a server says to one request, on its way to the agent who asked.

use std::borrow::Cow;

use super::answer::Agent;
use super::{cancel, handshake, leg};
use crate::clock::Monotonic;
use crate::gateway::exchange::Exchange;
use crate::gateway::oversight::Watch;
use crate::gateway::words::Words;
use crate::limits::{HUB_MESSAGES_BEFORE_ANSWER_MAX, INPUT_REQUESTS_MAX, WHEEL_TICK};
use crate::listener::Downstream;
use crate::mcp::bridge::{Out, Same, ToLegacy, ToModern};
use crate::mcp::capability::era_of;
use crate::mcp::message::{Message, ServerNote};
use crate::mcp::span::Document;
use crate::mcp::state::Kept;
use crate::mcp::{Era, Listed, Mirrored};
use crate::reject::Reject;
use crate::relay::{Blind, Heard, OwnHead, Relayed, Talk};
use crate::shard::Shard;

/// A request as its server is asked.
pub(super) enum Turned {
    Same(Same),
    ToLegacy(ToLegacy),
    ToModern(ToModern),
}

impl Turned {
    fn heard(
        &self,
        message: &Message<'_>,
        text: &[u8],
        state: Option<&[u8]>,
    ) -> Result<Out, Reject> {
        match self {
            Self::Same(same) => same.heard(message, text, state),
            Self::ToLegacy(bridge) => bridge.heard(message, text),
            Self::ToModern(bridge) => bridge.heard(message, text),
        }
    }
}

/// The answer on its way back.
pub(super) struct Reply<'a> {
    pub(super) shard: &'a Shard,
    pub(super) turned: Turned,
    /// Ours with the server.
    pub(super) session: Option<&'a [u8]>,
    /// What it calls what was asked for.
    pub(super) name: &'a str,
    /// What it speaks.
    pub(super) revision: &'static str,
    /// What a legacy server knows the request by.
    pub(super) up_id: Vec<u8>,
}

impl Reply<'_> {
    /// Carries the answer to the agent; the request is sent.
    ///
    /// # Errors
    /// Why there is none, as long as nothing was said to the agent.
    pub(super) async fn carry(
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
        let heard = self.listen(exchange, &mut agent, talk).await;
        leg::heard(self.shard, exchange, &heard);
        let answered = match heard {
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
            // To a legacy agent it would mean that its session is no more (2025-11-25 transports,
            // "Session Management").
            Turned::Same(ref same) if upstream == 404 && same.is_legacy() => 200,
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
        let mut questions = 0;
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
            let state = self.seal(exchange, &message)?;
            let out = self.turned.heard(&message, &text, state.as_deref())?;
            drop(text);
            document.forget();
            match out {
                Out::Answer(message) => return Ok(message),
                Out::Down(message) => agent.say(&message).await?,
                // Each costs a request of ours.
                Out::Up(_) if questions == INPUT_REQUESTS_MAX => {
                    return Err(Reject::UpstreamMalformed);
                }
                Out::Up(message) => {
                    questions += 1;
                    self.reply(exchange, message).await;
                }
                Out::Changed(note) => self.changed(exchange, note),
                Out::Dropped => {}
                Out::Stray => self.stray(exchange),
            }
        }
    }

    /// The state that the server gives, if it does, as the agent gets it.
    fn seal(&self, exchange: &Exchange, message: &Message<'_>) -> Result<Option<Vec<u8>>, Reject> {
        let Some(state) = message.about.request_state else { return Ok(None) };
        let state = state.text().ok_or(Reject::UpstreamMalformed)?;
        let kept = Kept {
            server: &exchange.scratch.server,
            method: exchange.scratch.call.method(),
            name: self.name,
        };
        let (now, owner) = (self.shard.clock.now().wall.seconds(), handshake::owner(exchange)?);
        let mut sealed = b"\"".to_vec();
        kept.seal(&exchange.world.keyring, &owner, now, state, &mut sealed)?;
        sealed.push(b'"');
        Ok(Some(sealed))
    }

    /// Tells a legacy server, which does not take the end of a connection for a word, that its
    /// answer is wanted no more (2025-11-25 transports, "Sending Messages"); if it was cancelled.
    pub(super) async fn tell_cancelled(&self, exchange: &Exchange) {
        if exchange.is_cancelled() && era_of(self.revision) == Era::Legacy {
            self.reply(exchange, cancel::message(&self.up_id)).await;
        }
    }

    /// What the server lists is not what is remembered of it.
    fn changed(&self, exchange: &Exchange, note: ServerNote) {
        let Some(server) = exchange.server else { return };
        for listed in Listed::changed_by(note) {
            self.shard.hub.catalogs.forget(server, *listed);
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
        let until = self.shard.timers.now().after(leg::timeout(leg));
        let credential = credential.as_deref();
        let mut eye = Blind;
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

const NEVER: Monotonic = Monotonic(u64::MAX);
