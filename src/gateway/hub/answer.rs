//! The agent's side of an answer that the hub puts together message by message: one JSON text where
//! there is nothing but the answer, an event stream where something comes before it.

use std::time::Duration;

use super::events::Events;
use crate::gateway::exchange::Exchange;
use crate::gateway::oversight::Watch;
use crate::gateway::route;
use crate::gateway::words::Words;
use crate::http::write;
use crate::hub::calls::Cancellable;
use crate::limits::{LONG_BUFFER_BYTES, RELAY_BUFFER_BYTES};
use crate::listener::{Downstream, answer};
use crate::net::first;
use crate::reject::Reject;
use crate::relay::{Eye, Oversight as _, Relayed, Review};
use crate::shard::Shard;

/// Whom the answer is for, with an eye on the rules while it is waited for.
pub(super) struct Agent<'a> {
    shard: &'a Shard,
    downstream: &'a mut Downstream,
    exchange: &'a Exchange,
    watch: &'a Watch<'a>,
    /// It is gone. In the legacy era that cancels nothing.
    left: &'a mut bool,
    /// Once something was said before the answer.
    events: Option<Events>,
    /// Silence may be filled with comments.
    streams: bool,
}

/// Ends a request that was cancelled before anything was said.
pub(super) async fn cancelled(
    shard: &Shard,
    downstream: &mut Downstream,
    exchange: &Exchange,
) -> Relayed {
    let mut left = downstream.is_gone();
    let watch = Watch::new(shard, exchange, downstream.head().0.keep_alive(), Words::default());
    Agent::new(shard, downstream, exchange, &watch, &mut left).cancelled().await
}

impl Exchange {
    /// Whether the agent cancelled it.
    pub(super) fn is_cancelled(&self) -> bool {
        let call = self.hub.as_ref().and_then(|hub| hub.call.as_ref());
        call.is_some_and(Cancellable::is_cancelled)
    }

    /// Ends when the agent cancels it; never for what cannot be cancelled.
    async fn cancelled(&self) {
        match self.hub.as_ref().and_then(|hub| hub.call.as_ref()) {
            Some(call) => call.cancelled().await,
            None => std::future::pending().await,
        }
    }
}

impl<'a> Agent<'a> {
    pub(super) const fn new(
        shard: &'a Shard,
        downstream: &'a mut Downstream,
        exchange: &'a Exchange,
        watch: &'a Watch<'a>,
        left: &'a mut bool,
    ) -> Self {
        Self { shard, downstream, exchange, watch, left, events: None, streams: false }
    }

    /// From here on a long silence is filled with comments, which makes the answer a stream.
    pub(super) const fn stream(&mut self) {
        self.streams = true;
    }

    /// Says something before the answer.
    ///
    /// # Errors
    /// `RequestAborted` when the agent is gone and nobody else needs the answer.
    pub(super) async fn say(&mut self, message: &[u8]) -> Result<(), Reject> {
        let mut event = Vec::with_capacity(message.len() + EVENT_MORE_BYTES);
        write_event(message, &mut event);
        self.put(&event).await
    }

    async fn put(&mut self, event: &[u8]) -> Result<(), Reject> {
        if !*self.left {
            let (shard, downstream, exchange) = (self.shard, &mut *self.downstream, self.exchange);
            let events =
                self.events.get_or_insert_with(|| Events::begin(shard, downstream, exchange));
            events.put(event);
            if !events.send(shard, downstream).await {
                return self.gone();
            }
        }
        Ok(())
    }

    fn gone(&mut self) -> Result<(), Reject> {
        *self.left = true;
        if self.exchange.cancels_on_leave() { Err(Reject::RequestAborted) } else { Ok(()) }
    }

    /// Gives the answer, and ends.
    pub(super) async fn answer(mut self, status: u16, message: &[u8]) -> Relayed {
        let Some(mut events) = self.events.take() else { return self.whole(status, message).await };
        let mut event = Vec::with_capacity(message.len() + EVENT_MORE_BYTES);
        write_event(message, &mut event);
        events.put(&event);
        events.end();
        let complete = !*self.left && events.send(self.shard, self.downstream).await;
        if !complete {
            events.left();
        }
        events.relayed(self.downstream, complete)
    }

    /// The agent wants none any more: what was begun ends, and nothing is said (2025-11-25
    /// basic/utilities/cancellation, "Behavior Requirements").
    pub(super) async fn cancelled(mut self) -> Relayed {
        let mut events = self
            .events
            .take()
            .unwrap_or_else(|| Events::begin(self.shard, self.downstream, self.exchange));
        events.end();
        let complete = !*self.left && events.send(self.shard, self.downstream).await;
        if !complete {
            events.left();
        }
        let cut = Some(Reject::RequestAborted);
        Relayed { cut, ..events.relayed(self.downstream, complete) }
    }

    /// There is no answer: what was begun is cut, so that the agent sees that something is missing.
    ///
    /// # Errors
    /// `why`, when nothing was begun.
    pub(super) fn fail(mut self, why: Reject) -> Result<Relayed, Reject> {
        let Some(mut events) = self.events.take() else { return Err(why) };
        if *self.left {
            events.left();
        }
        let cut = (why != Reject::RequestAborted).then_some(why);
        Ok(Relayed { cut, ..events.relayed(self.downstream, false) })
    }

    async fn whole(self, status: u16, message: &[u8]) -> Relayed {
        let (head, _) = self.downstream.head();
        let close = !head.keep_alive() || self.shard.draining();
        let config = &self.exchange.world.snapshot.config;
        let mut out = Vec::with_capacity(message.len().min(LONG_BUFFER_BYTES) + HEAD_BYTES);
        write::status_line(status, &mut out);
        out.extend_from_slice(b"content-type: application/json\r\ncache-control: no-store\r\n");
        out.extend_from_slice(b"x-content-type-options: nosniff\r\n");
        answer::cors(route::cors_origin(self.downstream, config), &mut out);
        write::content_length(message.len() as u64, &mut out);
        if close {
            out.extend_from_slice(b"connection: close\r\n");
        }
        out.extend_from_slice(write::CRLF);
        let mut relayed = Relayed { status, ..Relayed::default() };
        let stall = Duration::from_millis(config.limits.stall_ms_max);
        let mut rest = message;
        // An agent that does not take one piece in time is cut (case V06).
        while !*self.left {
            let (piece, after) = rest.split_at(rest.len().min(RELAY_BUFFER_BYTES));
            out.extend_from_slice(piece);
            let until = self.shard.timers.now().after(stall);
            let (written, returned) = self.downstream.write(out, until).await;
            out = returned;
            out.clear();
            *self.left |= !written;
            if written {
                relayed.bytes_out += piece.len() as u64;
            }
            rest = after;
            if rest.is_empty() {
                break;
            }
        }
        relayed.client_left = *self.left;
        relayed.reusable = !close && !*self.left && !self.downstream.is_gone();
        relayed
    }
}

impl Eye for Agent<'_> {
    async fn stirs(&self) {
        let cancelled = self.exchange.cancelled();
        if *self.left {
            return cancelled.await;
        }
        first(self.downstream.stirs(), cancelled).await;
    }

    async fn look(&mut self, stirred: bool) -> Result<(), Reject> {
        if self.exchange.is_cancelled() {
            return Err(Reject::RequestAborted);
        }
        if stirred && self.downstream.take_pending(&self.shard.timers).await {
            self.gone()?;
        }
        match self.watch.review() {
            Review::Continue | Review::Say { .. } => {}
            Review::Finish => return Err(Reject::GatewayDraining),
            Review::Cut(reject) => return Err(reject),
        }
        let now = self.shard.timers.now();
        match &mut self.events {
            Some(events) if !*self.left => {
                events.keep_alive(now);
                if !events.send(self.shard, self.downstream).await {
                    self.gone()?;
                }
            }
            None if self.streams => {
                let silent = now.micros_since(self.exchange.started.mono);
                if silent >= crate::limits::SSE_KEEPALIVE_SECONDS * 1_000_000 {
                    self.put(b": keep-alive\n\n").await?;
                }
            }
            Some(_) | None => {}
        }
        Ok(())
    }
}

/// Appends `message` as one event (WHATWG HTML §9.2.6): a line end in it, which JSON has between
/// values only, ends a `data` field.
fn write_event(message: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"event: message\n");
    for line in message.split(|byte| matches!(byte, b'\n' | b'\r')) {
        if !line.is_empty() {
            out.extend_from_slice(b"data: ");
            out.extend_from_slice(line);
            out.push(b'\n');
        }
    }
    out.push(b'\n');
}

/// What an event has beside its message, when that is one line.
const EVENT_MORE_BYTES: usize = 32;
/// What a head takes.
const HEAD_BYTES: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::events::EventReader;

    #[test]
    fn a_message_of_many_lines_is_one_event_that_means_the_same() {
        for text in ["{}", "{\n \"a\":\r\n 1\r}", "\n\n{\"a\":\"\\n\"}\n"] {
            let mut out = Vec::new();
            write_event(text.as_bytes(), &mut out);
            let mut reader = EventReader::new(1024);
            assert_eq!(reader.take(&out), Ok((out.len(), true)), "{text:?}");
            let read: serde_json::Value = serde_json::from_slice(reader.event().data()).unwrap();
            assert_eq!(read, serde_json::from_str::<serde_json::Value>(text).unwrap());
        }
    }
}
