//! An exchange with a server in which no agent takes part: the head and the body are the gateway's
//! own, and what comes back is read message by message. All that `/mcp` has to do with servers goes
//! through here; `/mcp/{server}` relays bytes instead ([`Relay::forward`]).

mod bytes;

use std::time::Duration;

use super::send::{NoAnswer, key};
use super::{Active, Failed, PoolKey, Relay, To};
use crate::clock::Monotonic;
use crate::http::events::{Event, EventReader};
use crate::http::{BodyDecoder, Method};
use crate::limits::TALK_EVENTS_PER_SECOND_MAX;
use crate::net::Stream;
use crate::policy::Permit;
use crate::reject::Reject;

/// What is asked of a server.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    /// Where it goes.
    pub to: To<'a>,
    /// `Post`, `Get` or `Delete`.
    pub method: Method,
    /// Empty but for `Post`.
    pub body: &'a [u8],
    /// What the head says.
    pub head: OwnHead<'a>,
    /// May be sent a second time when a pooled connection turns out to be dead; never a call.
    pub retryable: bool,
}

/// Fields of a head of the gateway's own.
#[derive(Clone, Copy, Debug, Default)]
pub struct OwnHead<'a> {
    /// `MCP-Protocol-Version`
    pub protocol_version: Option<&'a str>,
    /// `Mcp-Session-Id`: the upstream's own.
    pub session: Option<&'a [u8]>,
    /// `Mcp-Method`
    pub mcp_method: Option<&'a str>,
    /// `Mcp-Name`, written in base64 where it has to be.
    pub mcp_name: Option<&'a str>,
    /// More fields, name and finished value: `Mcp-Param-*`.
    pub params: &'a [(&'a str, &'a [u8])],
    /// `traceparent`
    pub traceparent: Option<&'a [u8]>,
    /// `tracestate`
    pub tracestate: Option<&'a [u8]>,
    /// `baggage`
    pub baggage: Option<&'a [u8]>,
    /// `Last-Event-ID`, the upstream's own.
    pub last_event_id: Option<&'a [u8]>,
}

/// Who else has an eye on a [`Talk`] while it waits: an agent that may leave, rules that may
/// change.
pub trait Eye {
    /// Ends when there is a reason to look. May be dropped.
    fn stirs(&self) -> impl Future<Output = ()>;
    /// Looks; also about every second while nothing arrives and nothing `stirred`.
    ///
    /// # Errors
    /// Why the talk has to end.
    fn look(&mut self, stirred: bool) -> impl Future<Output = Result<(), Reject>>;
}

/// Nobody else.
pub struct Blind;

impl Eye for Blind {
    async fn stirs(&self) {
        std::future::pending::<()>().await;
    }

    async fn look(&mut self, _: bool) -> Result<(), Reject> {
        Ok(())
    }
}

/// What the server said.
#[derive(Debug)]
pub enum Heard<'t> {
    /// An answer in JSON: the whole body.
    Message(&'t [u8]),
    /// One event with something in it. Without data it only gives an id or a pause.
    Event(&'t Event),
    /// 202: a notification or an answer was taken.
    Accepted,
    /// Nothing more will come.
    End,
}

/// One exchange. Dropped after [`Heard::End`] its connection serves the next one; dropped before,
/// it is closed, by which a modern server knows that the request is cancelled (2026-07-28,
/// transports, "Cancellation").
///
/// The futures of [`Talk::next`] and [`Talk::next_with`] must be awaited to their end: a read in
/// flight is never dropped. What may end them early is the [`Eye`].
pub struct Talk<'r> {
    relay: &'r Relay,
    _active: Active<'r>,
    key: PoolKey,
    /// `None` once it was given back.
    stream: Option<Stream>,
    status: u16,
    session: Option<Box<[u8]>>,
    answer: Answer,
    decoder: BodyDecoder,
    input: Vec<u8>,
    /// Where in `input` the bytes begin that are still to be decoded.
    at: usize,
    /// Decoded bytes of `input` that the reader of events has not taken yet.
    run: std::ops::Range<usize>,
    /// The server takes its time: no buffer is held while it is waited for.
    slow: bool,
    /// What the head says allows another request on this connection.
    keep_alive: bool,
    idle: Duration,
    heard_at: Monotonic,
    ends_at: Monotonic,
    second: Monotonic,
    /// When the eye looked last.
    looked_at: Monotonic,
    events: u32,
}

enum Answer {
    /// Its head did not come yet.
    Awaited,
    Json(Vec<u8>),
    Events(Box<EventReader>),
    Accepted,
    /// A body that says nothing, or none.
    Nothing,
    Over,
}

/// What [`Talk::advance`] came to.
enum Step {
    Message,
    Event,
    Accepted,
    End,
}

impl Relay {
    /// Sends a request and waits for the head of its answer.
    ///
    /// The server's own limits hold: `timeout_seconds` for the head, then `idle_seconds` and
    /// `max_seconds`; `until` may end it sooner.
    ///
    /// # Errors
    /// [`Failed`]; after a 401 with the permit, for one more try. What `eye` says.
    pub async fn open(
        &self,
        permit: Permit,
        asked: &Asked<'_>,
        eye: &mut impl Eye,
        until: Monotonic,
    ) -> Result<Talk<'_>, Failed> {
        asked.to.paired(&permit)?;
        let talk = self.begin(asked, eye, until).await?;
        if talk.status == 401 {
            let status = Some(talk.status);
            return Err(Failed {
                reject: Reject::UpstreamAuth,
                upstream_status: status,
                permit: Some(permit),
            });
        }
        Ok(talk)
    }

    async fn begin(
        &self,
        asked: &Asked<'_>,
        eye: &mut impl Eye,
        until: Monotonic,
    ) -> Result<Talk<'_>, Failed> {
        let (stream, pooled) = self.connect(&asked.to, true, until).await?;
        let mut talk = Talk::new(self, &asked.to, stream);
        let answered = match talk.ask(asked, eye, until).await {
            // RFC 9110 §9.2.2: only what is safe to repeat, only when not one byte came back.
            Err(NoAnswer::Silent) if pooled && asked.retryable => {
                let (stream, _) = self.connect(&asked.to, false, until).await?;
                talk = Talk::new(self, &asked.to, stream);
                talk.ask(asked, eye, until).await
            }
            other => other,
        };
        let status = (talk.status > 0).then_some(talk.status);
        match answered {
            Ok(()) => Ok(talk),
            Err(none) => Err(Failed { upstream_status: status, ..Failed::from(none.reject()) }),
        }
    }
}

impl<'r> Talk<'r> {
    fn new(relay: &'r Relay, to: &To<'_>, stream: Stream) -> Self {
        let now = relay.timers.now();
        Self {
            relay,
            _active: Active::begin(&relay.active, to.server_index),
            key: key(to),
            stream: Some(stream),
            status: 0,
            session: None,
            answer: Answer::Awaited,
            decoder: BodyDecoder::none(),
            input: Vec::new(),
            at: 0,
            run: 0..0,
            slow: false,
            keep_alive: false,
            // The limits for a head, until it is there.
            idle: Duration::from_secs(to.server.timeout_seconds),
            heard_at: now,
            ends_at: now.after(Duration::from_secs(to.server.timeout_seconds)),
            second: now,
            looked_at: now,
            events: 0,
        }
    }

    /// The status of the answer. 401, 403 and redirects never come this far.
    #[must_use]
    pub const fn status(&self) -> u16 {
        self.status
    }

    /// The session that the server opened with this answer: visible ASCII, bounded.
    #[must_use]
    pub fn session(&self) -> Option<&[u8]> {
        self.session.as_deref()
    }

    /// True for a stream of events.
    #[must_use]
    pub const fn is_stream(&self) -> bool {
        matches!(self.answer, Answer::Events(_))
    }

    /// [`Talk::next_with`] when nobody else is concerned.
    ///
    /// # Errors
    /// As there.
    pub async fn next(&mut self, until: Monotonic) -> Result<Heard<'_>, Reject> {
        self.next_with(&mut Blind, until).await
    }

    /// The next thing that the server says.
    ///
    /// # Errors
    /// `UpstreamTimeout` when `until` passes, after which this may be called again, or one of the
    /// server's limits (see [`Talk::is_late`]); `UpstreamEof` for an answer that was cut short;
    /// `UpstreamTooLarge` for more than `TALK_JSON_BYTES_MAX`; `UpstreamMalformed` for one that is
    /// no HTTP, with an event of more than `TALK_EVENT_BYTES_MAX`, or with more than
    /// [`TALK_EVENTS_PER_SECOND_MAX`] of them; what `eye` says.
    pub async fn next_with(
        &mut self,
        eye: &mut impl Eye,
        until: Monotonic,
    ) -> Result<Heard<'_>, Reject> {
        let step = self.advance(eye, until).await?;
        Ok(match (step, &self.answer) {
            (Step::Message, Answer::Json(body)) => Heard::Message(body),
            (Step::Event, Answer::Events(reader)) => Heard::Event(reader.event()),
            (Step::Accepted, _) => Heard::Accepted,
            (Step::Message | Step::Event | Step::End, _) => Heard::End,
        })
    }

    /// True when a limit of the server has passed: nothing more is waited for.
    #[must_use]
    pub fn is_late(&self) -> bool {
        self.relay.timers.now() >= self.deadline()
    }

    async fn advance(&mut self, eye: &mut impl Eye, until: Monotonic) -> Result<Step, Reject> {
        match &mut self.answer {
            Answer::Json(_) if self.decoder.finished() => self.answer = Answer::Over,
            Answer::Json(_) => return self.whole(eye, until).await,
            Answer::Events(_) => return self.event(eye, until).await,
            Answer::Accepted => {
                self.answer = Answer::Over;
                return Ok(Step::Accepted);
            }
            Answer::Awaited | Answer::Nothing | Answer::Over => {}
        }
        Ok(Step::End)
    }

    async fn whole(&mut self, eye: &mut impl Eye, until: Monotonic) -> Result<Step, Reject> {
        loop {
            while self.decode()? {
                if let Answer::Json(body) = &mut self.answer {
                    let run = std::mem::take(&mut self.run);
                    body.extend_from_slice(self.input.get(run).unwrap_or_default());
                }
            }
            if self.decoder.finished() {
                return Ok(Step::Message);
            }
            if !self.fill(eye, until).await? {
                self.decoder.end_of_input().map_err(|_| Reject::UpstreamEof)?;
                // It ended with its connection.
                self.decoder = BodyDecoder::none();
                return Ok(Step::Message);
            }
        }
    }

    async fn event(&mut self, eye: &mut impl Eye, until: Monotonic) -> Result<Step, Reject> {
        loop {
            while !self.run.is_empty() || self.decode()? {
                if self.read_event()? {
                    return Ok(Step::Event);
                }
            }
            if self.decoder.finished() {
                return Ok(Step::End);
            }
            if !self.fill(eye, until).await? {
                self.decoder.end_of_input().map_err(|_| Reject::UpstreamEof)?;
                self.decoder = BodyDecoder::none();
                return Ok(Step::End);
            }
        }
    }

    /// Takes decoded bytes up to the end of an event; true when one ended that says something.
    fn read_event(&mut self) -> Result<bool, Reject> {
        let Answer::Events(reader) = &mut self.answer else { return Ok(false) };
        let bytes = self.input.get(self.run.clone()).unwrap_or_default();
        let (taken, ended) = reader.take(bytes)?;
        self.run.start += taken;
        if !ended {
            return Ok(false);
        }
        let says = !reader.event().is_empty();
        let now = self.relay.timers.now();
        if now.micros_since(self.second) >= 1_000_000 {
            (self.second, self.events) = (now, 0);
        }
        self.events += 1;
        if self.events > TALK_EVENTS_PER_SECOND_MAX {
            return Err(Reject::UpstreamMalformed);
        }
        Ok(says)
    }

    /// Takes the framing off the next run of body bytes. False when more has to come first, or the
    /// body is complete.
    fn decode(&mut self) -> Result<bool, Reject> {
        while !self.decoder.finished() && self.at < self.input.len() {
            let pending = self.input.get(self.at..).unwrap_or_default();
            let step = self.decoder.decode(pending).map_err(|reject| {
                let long = reject == Reject::RequestBodyTooLarge;
                if long { Reject::UpstreamTooLarge } else { Reject::UpstreamMalformed }
            })?;
            self.run = self.at + step.data.start..self.at + step.data.end;
            self.at += step.consumed;
            if !self.run.is_empty() {
                return Ok(true);
            }
            if step.consumed == 0 {
                break;
            }
        }
        Ok(false)
    }
}

impl Drop for Talk<'_> {
    fn drop(&mut self) {
        let begun = !matches!(self.answer, Answer::Awaited);
        // Surplus bytes would be somebody else's answer.
        let clean = self.run.is_empty() && self.at == self.input.len();
        if begun
            && clean
            && self.keep_alive
            && self.decoder.finished()
            && let Some(stream) = self.stream.take()
        {
            self.relay.pool.put(self.key, stream, self.relay.timers.now());
        }
        self.relay.give(std::mem::take(&mut self.input));
    }
}

#[cfg(test)]
mod tests;
